//! Getting at a registry: passwords, certificates, registries that do not answer. What could not be asked is never
//! `unsigned`, and `provost verify` says by its exit code that it could not tell.

use std::collections::BTreeMap;

use super::fixture::{Judge, keys};
use super::support::images::{self, Format, Image};
use super::support::registry::{self, PASSWORD, Registry, USER, docker_config, settings};
use super::support::{folder, net};

/// A registry with one signed and one unsigned image.
fn with_images(registry: &Registry) -> (Image, Image) {
    let signed = images::push(registry, "team/signed", "signed");
    images::sign(registry, &signed, &keys().k1, Format::Bundle, &BTreeMap::new());
    (signed, images::push(registry, "team/unsigned", "unsigned"))
}

/// The verdicts on both images.
fn verdicts(judge: &Judge, (signed, unsigned): &(Image, Image)) -> [String; 2] {
    [signed, unsigned].map(|image| judge.verify(&image.pinned(), "by-k1").verdict())
}

#[test]
fn x_042_a_password_from_a_docker_config() {
    let registry = Registry::with_password();
    let images = with_images(&registry);
    assert_eq!(verdicts(&Judge::of(&registry), &images), ["admit", "unsigned"]);

    let refused = "could not tell: registry-auth-failed";
    let with = |credentials: Option<&std::path::Path>| Judge::new(&[&registry.host], &settings(&registry, credentials));
    let wrong = docker_config(&registry.host, USER, &PASSWORD.replace('e', "f"));
    assert_eq!(verdicts(&with(Some(&wrong)), &images), [refused; 2], "a wrong password");
    assert_eq!(verdicts(&with(None), &images), [refused; 2], "no password");
    let elsewhere = docker_config("127.0.0.1:1", USER, PASSWORD);
    assert_eq!(verdicts(&with(Some(&elsewhere)), &images), [refused; 2], "the right password, for another host");
}

#[test]
fn x_043_tls_by_an_authority_of_ones_own() {
    let registry = Registry::with_tls();
    let images = with_images(&registry);
    assert_eq!(verdicts(&Judge::of(&registry), &images), ["admit", "unsigned"]);

    let unavailable = "could not tell: evidence-unavailable";
    let entry = |ca: &str| format!("  {}: {{addresses: [127.0.0.0/8]{ca}}}\n", registry.host);
    let unknown = Judge::new(&[&registry.host], &entry(""));
    assert_eq!(verdicts(&unknown, &images), [unavailable; 2], "an authority that nobody knows");
    let other = Registry::with_tls();
    let ca = other.ca.as_ref().map(|ca| format!(", ca: {}", ca.display())).unwrap_or_default();
    assert_eq!(verdicts(&Judge::new(&[&registry.host], &entry(&ca)), &images), [unavailable; 2], "another authority");
    // Plain HTTP to a registry that speaks TLS gets an answer, and it is not "not found".
    let plain = Judge::new(&[&registry.host], &entry(", plainHttp: true"));
    for verdict in verdicts(&plain, &images) {
        assert!(verdict.starts_with("could not tell: "), "{verdict}");
    }
}

#[test]
fn x_040_a_registry_that_is_down_is_not_an_unsigned_image() {
    let registry = Registry::crane();
    let images = with_images(&registry);
    let judge = Judge::of(&registry);
    assert_eq!(verdicts(&judge, &images), ["admit", "unsigned"]);
    let gone = Image { digest: format!("sha256:{}", "0".repeat(64)), ..images.0.clone() };
    assert_eq!(judge.verify(&gone.pinned(), "by-k1").verdict(), "image-not-found");
    registry.stop();
    assert_eq!(verdicts(&judge, &images), ["could not tell: evidence-unavailable"; 2]);
}

#[test]
fn x_045_loopback_is_refused_where_nobody_listed_it() {
    let registry = Registry::crane();
    let images = with_images(&registry);
    assert_eq!(verdicts(&Judge::of(&registry), &images), ["admit", "unsigned"]);
    let unlisted = Judge::new(&[&registry.host], "");
    let [signed, unsigned] = verdicts(&unlisted, &images);
    assert!(signed.ends_with("address-refused") && unsigned.ends_with("address-refused"), "{signed} {unsigned}");
    // Only the network that the host stands in counts.
    let elsewhere =
        Judge::new(&[&registry.host], &format!("  {}: {{addresses: [10.0.0.0/8], plainHttp: true}}\n", registry.host));
    let [signed, _] = verdicts(&elsewhere, &images);
    assert!(signed.ends_with("address-refused"), "{signed}");
}

#[test]
fn x_021_a_tag_is_resolved_shown_and_refused() {
    let registry = Registry::crane();
    let (signed, _) = with_images(&registry);
    let answer = Judge::of(&registry).verify(&signed.tagged(), "by-k1");
    assert_eq!(answer.verdict(), "not-digest-pinned");
    assert!(answer.0.stdout.contains(&signed.digest), "{}", answer.0.stdout);
    // A tag beside the digest is ignored.
    let both = format!("{}@{}", signed.tagged(), signed.digest);
    assert_eq!(Judge::of(&registry).verify(&both, "by-k1").verdict(), "admit");
}

#[test]
fn x_046_a_registry_that_no_rule_covers_is_not_asked() {
    let port = net::free_port();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("free a moment ago");
    listener.set_nonblocking(true).expect("a listener of our own");
    let host = format!("127.0.0.1:{port}");
    let covered = Registry::crane();
    let settings =
        registry::settings(&covered, None) + &format!("  {host}: {{addresses: [127.0.0.0/8], plainHttp: true}}\n");
    let judge = Judge::new(&[&covered.host], &settings);
    let image = format!("{host}/team/app@sha256:{}", "a".repeat(64));
    assert_eq!(judge.verify(&image, "by-k1").verdict(), "not-release-repo");
    let asked = listener.accept().map(|_| ()).map_err(|e| e.kind());
    assert_eq!(asked, Err(std::io::ErrorKind::WouldBlock), "nobody was to be asked");
}

#[test]
fn a_policy_folder_that_does_not_load_is_no_answer() {
    let registry = Registry::crane();
    let judge = Judge::of(&registry);
    folder::write(&judge.policies_folder().join("broken.yaml"), "kind: ReleasePolicy\n");
    let answer = judge.verify(&format!("{}/team/app@sha256:{}", registry.host, "a".repeat(64)), "by-k1");
    assert_eq!(answer.0.code, 2, "{}{}", answer.0.stdout, answer.0.stderr);
}
