use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// The CID that stands for "any" when listening (`VMADDR_CID_ANY`).
const CID_ANY: u32 = tokio_vsock::VMADDR_CID_ANY;

/// A place to listen at or to dial, with its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// `vsock:CID:PORT`: an `AF_VSOCK` socket; `vsock:any:PORT` listens for every CID.
    Vsock {
        /// Context id: 2 is the hypervisor's host, 3 the parent instance of a Nitro enclave.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// `unix:PATH:PORT`: the host's side of a hybrid vsock.
    Unix {
        /// Socket the guest listens at.
        path: PathBuf,
        /// Vsock port.
        port: u32,
    },
    /// `unix-guest:PATH:PORT`: the guest's side of a hybrid vsock, played by a process.
    UnixGuest {
        /// Socket the guest listens at.
        path: PathBuf,
        /// Vsock port.
        port: u32,
    },
    /// `tcp:HOST:PORT`; an IPv6 address is written in brackets.
    Tcp {
        /// Name or address.
        host: String,
        /// Port; 0 lets the system choose when listening.
        port: u16,
    },
}

/// The other machine, without a port: what [`Endpoint`]s are made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Peer {
    /// `vsock:CID`, or `vsock:any` for listening.
    Vsock {
        /// Context id.
        cid: u32,
    },
    /// `unix:PATH`: the guest behind this hybrid vsock.
    Unix {
        /// Socket the guest listens at.
        path: PathBuf,
    },
    /// `unix-guest:PATH`: the host behind this hybrid vsock.
    UnixGuest {
        /// Socket the guest listens at.
        path: PathBuf,
    },
}

/// A text that is not an [`Endpoint`] or a [`Peer`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The text starts with no known kind, or a part is missing.
    #[error("\"{text}\" is not an address; expected {expected}")]
    Form {
        /// What was given.
        text: String,
        /// The forms that are allowed.
        expected: &'static str,
    },
    /// A number does not parse or is too large.
    #[error("\"{text}\": \"{number}\" is not a {what}; expected {expected}")]
    Number {
        /// What was given.
        text: String,
        /// The part that is wrong.
        number: String,
        /// "CID" or "port".
        what: &'static str,
        /// The range that is allowed.
        expected: &'static str,
    },
}

impl Peer {
    /// The endpoint at this peer's `port`.
    pub fn port(&self, port: u32) -> Endpoint {
        match self {
            Self::Vsock { cid } => Endpoint::Vsock { cid: *cid, port },
            Self::Unix { path } => Endpoint::Unix { path: path.clone(), port },
            Self::UnixGuest { path } => Endpoint::UnixGuest { path: path.clone(), port },
        }
    }

    /// The same kind of peer, for listening: `vsock:any` in place of one CID, else unchanged.
    #[must_use]
    pub fn any(&self) -> Self {
        match self {
            Self::Vsock { .. } => Self::Vsock { cid: CID_ANY },
            Self::Unix { .. } | Self::UnixGuest { .. } => self.clone(),
        }
    }
}

const ENDPOINT_FORMS: &str = "vsock:CID:PORT, unix:PATH:PORT, unix-guest:PATH:PORT or tcp:HOST:PORT";
const PEER_FORMS: &str = "vsock:CID, unix:PATH or unix-guest:PATH";

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let form = || EndpointError::Form { text: text.to_owned(), expected: ENDPOINT_FORMS };
        // The port is split off at the end: a path and an IPv6 address may hold colons.
        let (address, port) = text.rsplit_once(':').ok_or_else(form)?;
        let (kind, address) = address.split_once(':').ok_or_else(form)?;
        if address.is_empty() {
            return Err(form());
        }
        Ok(match kind {
            "vsock" => Self::Vsock { cid: cid(text, address)?, port: vsock_port(text, port)? },
            "unix" => Self::Unix { path: address.into(), port: vsock_port(text, port)? },
            "unix-guest" => Self::UnixGuest { path: address.into(), port: vsock_port(text, port)? },
            "tcp" => Self::Tcp {
                host: tcp_host(address).ok_or_else(form)?,
                port: number(text, port, "port", "0 to 65535")?,
            },
            _ => return Err(form()),
        })
    }
}

impl FromStr for Peer {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let form = || EndpointError::Form { text: text.to_owned(), expected: PEER_FORMS };
        let (kind, address) =
            text.split_once(':').filter(|(_, address)| !address.is_empty()).ok_or_else(form)?;
        Ok(match kind {
            "vsock" => Self::Vsock { cid: cid(text, address)? },
            "unix" => Self::Unix { path: address.into() },
            "unix-guest" => Self::UnixGuest { path: address.into() },
            _ => return Err(form()),
        })
    }
}

fn cid(text: &str, cid: &str) -> Result<u32, EndpointError> {
    if cid == "any" { Ok(CID_ANY) } else { number(text, cid, "CID", "0 to 4294967295, or \"any\"") }
}

fn vsock_port(text: &str, port: &str) -> Result<u32, EndpointError> {
    number(text, port, "port", "0 to 4294967295")
}

/// Digits only: `u32::from_str` alone would also take a sign.
fn number<T: FromStr>(
    text: &str,
    digits: &str,
    what: &'static str,
    expected: &'static str,
) -> Result<T, EndpointError> {
    Some(digits)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| EndpointError::Number {
            text: text.to_owned(),
            number: digits.to_owned(),
            what,
            expected,
        })
}

fn tcp_host(address: &str) -> Option<String> {
    let host = match address.strip_prefix('[') {
        Some(ipv6) => ipv6.strip_suffix(']')?,
        None if address.contains(':') => return None,
        None => address,
    };
    Some(host.to_owned())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid: CID_ANY, port } => write!(f, "vsock:any:{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Unix { path, port } => write!(f, "unix:{}:{port}", path.display()),
            Self::UnixGuest { path, port } => write!(f, "unix-guest:{}:{port}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid: CID_ANY } => f.write_str("vsock:any"),
            Self::Vsock { cid } => write!(f, "vsock:{cid}"),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
            Self::UnixGuest { path } => write!(f, "unix-guest:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl TryFrom<String> for Peer {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<Peer> for String {
    fn from(peer: Peer) -> Self {
        peer.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_reads_back_from_its_text() {
        for text in [
            "vsock:16:50051",
            "vsock:any:9000",
            "unix:run/vm.vsock:5000",
            "unix:/run/a:b/vm.vsock:5000",
            "unix-guest:vm.vsock:4294967295",
            "tcp:127.0.0.1:0",
            "tcp:kms.eu-central-1.amazonaws.com:443",
            "tcp:[::1]:8080",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
        assert_eq!("tcp:[::1]:80".parse(), Ok(Endpoint::Tcp { host: "::1".to_owned(), port: 80 }));
        assert_eq!("vsock:any:1".parse(), Ok(Endpoint::Vsock { cid: u32::MAX, port: 1 }));
    }

    #[test]
    fn every_peer_reads_back_from_its_text() {
        for text in ["vsock:3", "vsock:any", "unix:/run/a:b.vsock", "unix-guest:vm.vsock"] {
            let peer: Peer = text.parse().unwrap();
            assert_eq!(peer.to_string(), text);
        }
    }

    #[test]
    fn a_text_of_another_form_is_refused_with_the_forms_that_are_allowed() {
        for text in
            ["", "vsock", "vsock:3", "unix:5000", "unix::5000", "tcp::80", "udp:host:80", "tcp:::1:80"]
        {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(matches!(error, EndpointError::Form { .. }), "{text}: {error}");
            assert!(error.to_string().contains("unix-guest:PATH:PORT"), "{error}");
        }
        for text in ["", "vsock:", "tcp:host", "unix:"] {
            assert!(matches!(text.parse::<Peer>(), Err(EndpointError::Form { .. })), "{text}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_refused_by_name() {
        for (text, what) in [
            ("vsock:x:1", "CID"),
            ("vsock:4294967296:1", "CID"),
            ("vsock:3:4294967296", "port"),
            ("vsock:3:+1", "port"),
            ("unix:path:", "port"),
            ("tcp:host:65536", "port"),
            ("tcp:host:-1", "port"),
        ] {
            match text.parse::<Endpoint>() {
                Err(EndpointError::Number { what: actual, .. }) if !text.ends_with(':') => {
                    assert_eq!(actual, what, "{text}");
                }
                Err(EndpointError::Number { number, .. }) => assert_eq!(number, "", "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_peer_makes_endpoints_of_its_own_kind() {
        let peer: Peer = "vsock:3".parse().unwrap();
        assert_eq!(peer.port(9000).to_string(), "vsock:3:9000");
        assert_eq!(peer.any().port(50051).to_string(), "vsock:any:50051");
        let peer: Peer = "unix-guest:vm.vsock".parse().unwrap();
        assert_eq!(peer.any().port(50051).to_string(), "unix-guest:vm.vsock:50051");
    }

    #[test]
    fn serde_uses_the_text() {
        let endpoint: Endpoint = serde_json::from_str("\"unix:vm.vsock:5000\"").unwrap();
        assert_eq!(serde_json::to_string(&endpoint).unwrap(), "\"unix:vm.vsock:5000\"");
        let error = serde_json::from_str::<Endpoint>("\"nowhere\"").unwrap_err();
        assert!(error.to_string().contains("expected vsock:CID:PORT"), "{error}");
    }
}
