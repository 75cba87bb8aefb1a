//! Which addresses may be connected to: public ones, and those that the operator lists for the host. The client must
//! never reach an address that was not checked here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::settings::Names;

/// A range of addresses: `10.20.0.0/16`, `fd00:1::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not `address` or `address/prefix`.
    #[error("not a range of addresses such as 10.20.0.0/16")]
    Syntax,
    /// The prefix is longer than the address.
    #[error("/{0} is longer than the address")]
    Prefix(u8),
    /// Bits after the prefix are set: a typing error, or another range than was meant.
    #[error("bits after the prefix are set: write {0}")]
    HostBits(Network),
}

impl Network {
    /// Whether an address lies in this range. An IPv4 address and its IPv6 spellings are different addresses.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.base.is_ipv4() == address.is_ipv4() && mask(address, self.prefix) == self.base
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (base, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((base, prefix)) => (base, Some(prefix)),
        };
        let base: IpAddr = base.parse().map_err(|_| NetworkError::Syntax)?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits)
                if digits.bytes().all(|b| b.is_ascii_digit()) && !(digits.len() > 1 && digits.starts_with('0')) =>
            {
                digits.parse().map_err(|_| NetworkError::Syntax)?
            }
            Some(_) => return Err(NetworkError::Syntax),
        };
        if prefix > longest {
            return Err(NetworkError::Prefix(prefix));
        }
        let network = Self { base: mask(base, prefix), prefix };
        if network.base == base { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & kept))
        }
        IpAddr::V6(v6) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & kept))
        }
    }
}

/// What kind of address this is, where it is not an ordinary public one (IANA special-purpose registries, and the
/// addresses at which clouds hand out credentials).
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, d] = address.octets();
    Some(match (a, b, c, d) {
        (0, ..) => "unspecified",
        (10, ..) | (172, 16..=31, ..) | (192, 168, ..) => "private",
        (100, 100, 100, 200) | (169, 254, 169, 254) | (168, 63, 129, 16) | (192, 0, 0, 192) => "cloud metadata",
        (100, 64..=127, ..) => "shared (carrier-grade NAT)",
        (127, ..) => "loopback",
        (169, 254, ..) => "link-local",
        (192, 0, 0, _) => "protocol assignment",
        (192, 0, 2, _) | (198, 51, 100, _) | (203, 0, 113, _) => "documentation",
        (192, 88, 99, _) => "6to4 relay",
        (198, 18..=19, ..) => "benchmarking",
        (224..=239, ..) => "multicast",
        (240..=255, ..) => "reserved",
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let s = address.segments();
    Some(match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [0, 0, 0, 0, 0, 0xffff, ..] => "IPv4-mapped",
        [0, 0, 0, 0, 0, 0, ..] => "IPv4-compatible",
        [0x64, 0xff9b, ..] => "NAT64",
        [0xfc00..=0xfdff, ..] => "private (unique local)",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xff00..=0xffff, ..] => "multicast",
        [0x2001, 0..=0x1ff, ..] => "protocol assignment",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "documentation",
        [0x2002, ..] => "6to4",
        // ISATAP: an IPv4 address in the lower half, whatever the upper.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => "ISATAP",
        [0x2000..=0x3fff, ..] => return None,
        _ => "reserved",
    })
}

/// Whether an address may be connected to.
fn check(host: &str, address: IpAddr, listed: &[Network]) -> Result<(), Refused> {
    // No registry can answer there, so no list can mean it.
    let never = address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    match special(address) {
        None => Ok(()),
        Some(_) if !never && listed.iter().any(|network| network.contains(address)) => Ok(()),
        Some(kind) => Err(Refused(format!(
            "{host} is at {address}, a {kind} address: refused unless provost.yaml lists it under registries.{host}.addresses"
        ))),
    }
}

/// An address or a name that is not connected to, and how to allow it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// The resolver of one HTTP client, with the ranges that are listed for its host.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// The host as the operator lists it; the default client has none.
    host: Option<String>,
    listed: Vec<Network>,
    names: Option<Names>,
}

impl Guard {
    pub(super) const fn new(host: Option<String>, listed: Vec<Network>, names: Option<Names>) -> Self {
        Self { host, listed, names }
    }

    /// Checks a URL whose host is an address: for such a host no resolver is called.
    pub(super) fn check_literal(&self, url: &Url) -> Result<(), Refused> {
        let host = url.host_str().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) => check(self.host.as_deref().unwrap_or(authority(url).as_str()), address, &self.listed),
            Err(_) => Ok(()),
        }
    }

    /// The addresses of a name that may be connected to; an error where there is none.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let all: Vec<IpAddr> = match self.names.as_ref().and_then(|names| names.addresses(name)) {
            Some(addresses) => addresses,
            None => tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect(),
        };
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in all {
            match check(self.host.as_deref().unwrap_or(name), address, &self.listed) {
                Ok(()) => allowed.push(address),
                Err(error) => refused = Some(error),
            }
        }
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(error)) => Err(error.into()),
            (true, None) => Err("the name has no address".into()),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = guard.addresses(name.as_str()).await?;
            // Port 0 stands for the port of the URL.
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// `host` or `host:port`, as in a URL: the default port is not shown.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether two URLs lead to the same scheme, host and port. Credentials never leave an origin.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

/// Parses an address that somebody else wrote, absolute or relative to `base`. Refused: user info, anything that is not
/// plain ASCII, and a host that the URL parser would turn into another one (`0x7f.1`, `2130706433`, `%31`, `ⓛocalhost`),
/// since what was checked must be what was written.
pub(super) fn parse_url(text: &str, base: Option<&Url>) -> Result<Url, &'static str> {
    if text.is_empty() || text.len() > 8192 {
        return Err("is empty or longer than 8 KiB");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err("holds characters that do not belong in an address");
    }
    let mut url = match base {
        Some(base) => base.join(text),
        None => Url::parse(text),
    }
    .map_err(|_| "cannot be read")?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("is neither https nor http");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name");
    }
    url.set_fragment(None);
    match written_host(text) {
        None if base.is_some_and(|base| same_origin(base, &url)) => Ok(url),
        Some(written) if same_host(written, url.host_str().unwrap_or_default()) => Ok(url),
        None | Some(_) => Err("spells its host in an unusual way"),
    }
}

/// The host in a text that has one: after the first `//`, if only a scheme stands before it.
fn written_host(text: &str) -> Option<&str> {
    let (before, after) = text.split_once("//")?;
    let scheme =
        before.is_empty() || before.strip_suffix(':').is_some_and(|s| s.bytes().all(|b| b.is_ascii_alphanumeric()));
    if !scheme {
        return None;
    }
    let authority = after.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.starts_with('[') {
        return authority.find(']').map(|end| &authority[..=end]);
    }
    authority.split(':').next()
}

fn same_host(written: &str, parsed: &str) -> bool {
    let v6 = |text: &str| {
        text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(|bare| bare.parse::<Ipv6Addr>().ok())
    };
    written.eq_ignore_ascii_case(parsed) || v6(written).is_some_and(|address| v6(parsed) == Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        for (text, inside, outside) in [
            ("10.20.0.0/16", "10.20.255.255", "10.21.0.0"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "8.8.8.8", "::"),
            ("fd00:1::/32", "fd00:1:ffff::1", "fd00:2::1"),
            ("::/0", "fd00::1", "10.0.0.1"),
            ("10.0.0.0/8", "10.1.2.3", "::ffff:10.1.2.3"),
        ] {
            let network: Network = text.parse().expect(text);
            assert!(network.contains(inside.parse().expect(inside)), "{text} {inside}");
            assert!(!network.contains(outside.parse().expect(outside)), "{text} {outside}");
        }
        for (text, want) in [
            ("10.20.0.0/33", NetworkError::Prefix(33)),
            ("10.20.0.0/+8", NetworkError::Syntax),
            ("10.20.0.0/08", NetworkError::Syntax),
            ("10.20.0.0/", NetworkError::Syntax),
            ("10.20.0.0/256", NetworkError::Syntax),
            ("10.20/16", NetworkError::Syntax),
            ("registry.example", NetworkError::Syntax),
            ("", NetworkError::Syntax),
        ] {
            assert_eq!(text.parse::<Network>(), Err(want), "{text}");
        }
        let error = "10.20.1.0/16".parse::<Network>().expect_err("host bits").to_string();
        assert_eq!(error, "bits after the prefix are set: write 10.20.0.0/16");
    }

    #[test]
    fn x_045_only_public_addresses_pass_unlisted() {
        for public in
            ["8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "192.0.1.1", "2606:4700::1", "2a00::1"]
        {
            assert_eq!(special(public.parse().expect(public)), None, "{public}");
        }
        for (address, kind) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.1", "private"),
            ("172.16.0.1", "private"),
            ("192.168.1.1", "private"),
            ("100.64.0.1", "shared (carrier-grade NAT)"),
            ("100.100.100.200", "cloud metadata"),
            ("127.0.0.1", "loopback"),
            ("169.254.169.254", "cloud metadata"),
            ("169.254.1.1", "link-local"),
            ("168.63.129.16", "cloud metadata"),
            ("192.0.2.1", "documentation"),
            ("198.18.0.1", "benchmarking"),
            ("203.0.113.1", "documentation"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:8.8.8.8", "IPv4-mapped"),
            ("::8.8.8.8", "IPv4-compatible"),
            ("64:ff9b::8.8.8.8", "NAT64"),
            ("64:ff9b:1::1", "NAT64"),
            ("fd00:ec2::254", "private (unique local)"),
            ("fe80::1", "link-local"),
            ("fec0::1", "reserved"),
            ("ff02::1", "multicast"),
            ("2001::1", "protocol assignment"),
            ("2001:db8::1", "documentation"),
            ("3fff::1", "documentation"),
            ("2002:7f00:1::", "6to4"),
            ("2606:4700::5efe:7f00:1", "ISATAP"),
            ("4000::1", "reserved"),
        ] {
            assert_eq!(special(address.parse().expect(address)), Some(kind), "{address}");
        }
    }

    #[test]
    fn a_list_allows_what_it_lists_and_no_more() {
        let listed: Vec<Network> = vec!["127.0.0.0/8".parse().expect("network"), "0.0.0.0/0".parse().expect("network")];
        assert!(check("r", "127.0.0.1".parse().expect("ip"), &listed[..1]).is_ok());
        assert!(check("r", "10.0.0.1".parse().expect("ip"), &listed[..1]).is_err());
        assert!(check("r", "10.0.0.1".parse().expect("ip"), &listed).is_ok());
        for never in ["0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            assert!(check("r", never.parse().expect("ip"), &listed).is_err(), "{never}");
        }
        let error = check("r.example:5000", "10.0.0.1".parse().expect("ip"), &[]).expect_err("private").to_string();
        assert_eq!(
            error,
            "r.example:5000 is at 10.0.0.1, a private address: refused unless provost.yaml lists it under \
             registries.r.example:5000.addresses"
        );
    }

    #[tokio::test]
    async fn x_045_a_name_with_mixed_addresses_yields_only_the_allowed_ones() {
        let names = Names::new(|name| {
            let all: &[&str] = match name {
                "mixed" => &["127.0.0.9", "169.254.169.254", "10.0.0.1"],
                "bad" => &["169.254.169.254"],
                _ => &[],
            };
            Some(all.iter().map(|ip| ip.parse().expect("ip")).collect())
        });
        let guard = Guard::new(Some("r".to_owned()), vec!["127.0.0.0/8".parse().expect("network")], Some(names));
        assert_eq!(guard.addresses("mixed").await.expect("one"), ["127.0.0.9".parse::<IpAddr>().expect("ip")]);
        assert!(guard.addresses("bad").await.expect_err("none").downcast_ref::<Refused>().is_some());
        assert!(guard.addresses("empty").await.expect_err("none").downcast_ref::<Refused>().is_none());
    }

    #[test]
    fn x_032_hosts_are_connected_to_as_written_or_not_at_all() {
        for (text, want) in [
            ("https://r.example/v2/", "https://r.example/v2/"),
            ("https://R.Example:443/v2/#f", "https://r.example/v2/"),
            ("https://127.0.0.1:5000/", "https://127.0.0.1:5000/"),
            ("https://[0:0::1]:5000/", "https://[::1]:5000/"),
        ] {
            assert_eq!(parse_url(text, None).expect(text).as_str(), want);
        }
        for text in [
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://127.0.0.1./",
            "https://%31%32%37.0.0.1/",
            "https://user@r.example/",
            "https://user:pw@r.example/",
            "https://r.example\\@evil.example/",
            "https://r.exаmple/",
            "https:///r.example/",
            "https:r.example/",
            "https://[::ffff:7f00:1%25eth0]/",
            "file:///etc/passwd",
            "r.example/v2/",
            "",
        ] {
            assert!(parse_url(text, None).is_err(), "{text}");
        }
        let base = Url::parse("https://r.example/v2/a").expect("url");
        for (text, want) in [
            ("/v2/b?x=//c", "https://r.example/v2/b?x=//c"),
            ("b", "https://r.example/v2/b"),
            ("//s.example/b", "https://s.example/b"),
            ("?n=1", "https://r.example/v2/a?n=1"),
        ] {
            assert_eq!(parse_url(text, Some(&base)).expect(text).as_str(), want);
        }
        for text in [
            "//0x7f.1/b",
            "https://0x7f.1/b",
            "https:0x7f.1",
            "http:/0x7f.1/",
            "http:0x7f.1/",
            "///0x7f.1/",
            "file:/etc",
            "a b",
        ] {
            let parsed = parse_url(text, Some(&base));
            assert!(parsed.as_ref().map_or(true, |url| url.host_str() == Some("r.example")), "{text}: {parsed:?}");
        }
    }
}
