//! Development certificates: a CA made on the spot and one serving certificate under it. It must never keep the CA's
//! key: nobody can sign more under it.

use jiff::ToSpan as _;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::edge::clock;

/// The longest validity that is made, in days.
pub const MOST_DAYS: u32 = 3650;

/// What was made. The key is secret.
#[derive(Clone)]
pub struct Made {
    /// The CA's certificate: what callers trust, the webhook configuration's `caBundle`.
    pub ca_pem: String,
    /// The serving certificate.
    pub cert_pem: String,
    /// The serving certificate's private key, PKCS#8.
    pub key_pem: String,
    /// Every name and address in the serving certificate.
    pub names: Vec<String>,
    /// The first moment in which neither certificate is valid any more.
    pub not_after: jiff::Timestamp,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("names", &self.names).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A name that no certificate can hold, or that no caller would ask for.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Name(String),
    /// Zero days, or more than [`MOST_DAYS`].
    #[error("{0} days: between 1 and {MOST_DAYS} can be had")]
    Days(u32),
    /// The library failed.
    #[error("the certificate could not be made: {0}")]
    Library(#[from] rcgen::Error),
    /// The clock says what no certificate can hold.
    #[error("no validity can be made from the present time: {0}")]
    Clock(#[from] jiff::Error),
}

/// Makes a CA and a serving certificate for these names, `localhost`, `127.0.0.1` and `::1`, valid from yesterday for
/// so many days from today. Keys are ECDSA P-256.
pub fn make(names: &[String], days: u32) -> Result<Made, MakeError> {
    if days == 0 || days > MOST_DAYS {
        return Err(MakeError::Days(days));
    }
    let mut all: Vec<String> = Vec::new();
    for name in names.iter().map(String::as_str).chain(["localhost", "127.0.0.1", "::1"]) {
        if !is_name(name) {
            return Err(MakeError::Name(name.to_owned()));
        }
        if !all.iter().any(|other| other == name) {
            all.push(name.to_owned());
        }
    }
    let today = clock::now().to_zoned(TimeZone::UTC).date();
    let begin = today.checked_sub(1.day())?;
    let end = today.checked_add(i64::from(days).days())?.checked_add(1.day())?;
    let not_after = end.to_zoned(TimeZone::UTC)?.timestamp();

    let mut ca = valid(CertificateParams::default(), begin, end);
    ca.distinguished_name = called("Provost development CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut leaf = valid(CertificateParams::new(all.clone())?, begin, end);
    leaf.distinguished_name = called("Provost");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let cert = leaf.signed_by(&key, &ca)?;
    Ok(Made { ca_pem: ca.pem(), cert_pem: cert.pem(), key_pem: key.serialize_pem(), names: all, not_after })
}

fn valid(mut params: CertificateParams, begin: Date, end: Date) -> CertificateParams {
    params.not_before =
        rcgen::date_time_ymd(begin.year().into(), begin.month().unsigned_abs(), begin.day().unsigned_abs());
    params.not_after = rcgen::date_time_ymd(end.year().into(), end.month().unsigned_abs(), end.day().unsigned_abs());
    params
}

fn called(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

/// A DNS name (RFC 1123; a first label `*` is allowed) or an IP address.
fn is_name(name: &str) -> bool {
    if name.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let labels = name.strip_prefix("*.").unwrap_or(name);
    // A last label of digits only would be an IPv4 address that is none.
    let last = labels.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && labels.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}
