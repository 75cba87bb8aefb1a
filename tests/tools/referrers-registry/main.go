// An in-memory OCI registry with the referrers API, for tests only.
// It listens on loopback and never anywhere else; all is lost when it ends.
//
// Once it accepts connections it prints the address it listens on, alone on the
// first line of standard output: with -port 0 nobody else knows the port.
// Requests are logged on standard error.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	addr := flag.String("addr", "127.0.0.1", "address to listen on, in 127.0.0.0/8")
	port := flag.Uint("port", 0, "port to listen on; 0 takes a free one")
	flag.Parse()

	ip, err := netip.ParseAddr(*addr)
	if err != nil || !ip.IsLoopback() {
		log.Fatalf("-addr %q is not a loopback address", *addr)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip.String(), strconv.FormatUint(uint64(*port), 10)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())

	server := &http.Server{
		Handler:           registry.New(registry.WithReferrersSupport(true)),
		ReadHeaderTimeout: 5 * time.Second,
	}
	log.Fatal(server.Serve(listener))
}
