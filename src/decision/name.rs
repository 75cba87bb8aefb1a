//! Names of namespaces, policies, signers and rules as types. It must never accept a name that it cannot print safely.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {text:?} is not valid: lower-case letters, digits and '-', not at either end, at most {limit} characters"
)]
pub struct InvalidName {
    what: &'static str,
    text: String,
    limit: usize,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal, $dots:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if is_name(text, $limit, $dots) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { what: $what, text: text.chars().take(80).collect(), limit: $limit })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

names! {
    /// A Kubernetes namespace: a DNS label (RFC 1123), at most 63 characters.
    Namespace, "namespace", 63, false;
    /// `metadata.name` of a policy or deny-list: a DNS subdomain (RFC 1123), at most 253 characters.
    PolicyName, "policy name", 253, true;
    /// A signer's name within its policy.
    SignerName, "signer name", 63, false;
    /// A rule's name within its policy.
    RuleName, "rule name", 63, false;
}

impl Namespace {
    /// The namespace of an object that names none.
    #[must_use]
    pub fn default_namespace() -> Self {
        Self("default".to_owned())
    }
}

fn is_name(text: &str, limit: usize, dots: bool) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= limit && if dots { text.split('.').all(label) } else { label(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for (text, label, subdomain) in [
            ("payments", true, true),
            ("a", true, true),
            ("0", true, true),
            ("payments-2", true, true),
            ("payments.eu", false, true),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("a..b", false, false),
            ("Payments", false, false),
            ("a_b", false, false),
            ("a\n", false, false),
            ("ä", false, false),
        ] {
            assert_eq!(text.parse::<Namespace>().is_ok(), label, "{text:?} as a namespace");
            assert_eq!(text.parse::<PolicyName>().is_ok(), subdomain, "{text:?} as a policy name");
        }
        assert!("a".repeat(63).parse::<Namespace>().is_ok());
        assert!("a".repeat(64).parse::<Namespace>().is_err());
    }
}
