//! Values with a form of their own. TOML's errors add line and key to the messages here.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};
use vsock::Endpoint;

/// The root of attestation documents.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Root {
    /// AWS's own, by its fingerprint.
    Aws,
    /// The certificate in this PEM file.
    Pem(PathBuf),
}

impl From<String> for Root {
    fn from(text: String) -> Self {
        if text == "aws" { Self::Aws } else { Self::Pem(text.into()) }
    }
}

/// `host:port` of a TCP service; an IPv6 address is written in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort(Endpoint);

impl HostPort {
    /// Where it is.
    pub fn endpoint(&self) -> Endpoint {
        self.0.clone()
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match format!("tcp:{text}").parse() {
            Ok(endpoint @ Endpoint::Tcp { port: 1.., .. }) => Ok(Self(endpoint)),
            _ => Err(format!("expected \"host:port\" such as \"127.0.0.1:443\", got \"{text}\"")),
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

pub(super) fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!("expected an IP address and port such as \"0.0.0.0:50051\", got \"{text}\""))
    })
}

pub(super) fn sha256<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(&text, &mut digest)
        .map_err(|_| D::Error::custom(format!("expected a SHA-256 as 64 hex digits, got \"{text}\"")))?;
    Ok(digest)
}
