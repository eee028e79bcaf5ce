use std::{collections::BTreeMap, fmt, str::FromStr};

use zeroize::Zeroizing;

use crate::{PartySecretKey, SecretShare, parse, rules, write};

/// Everything one party of the signing groups needs: its own keys, who the others are, and its share of each
/// account.
///
/// As JSON, version 1; all fields are required, unknown fields and repeated keys are refused, hex is lower
/// case:
///
/// ```json
/// {
///   "version": 1,
///   "epoch": 1,
///   "party": "node-a",
///   "party_secret_key": "64 hex digits",
///   "parties": {"node-a": "64 hex digits", "gateway": "64 hex digits"},
///   "client_ca": "-----BEGIN CERTIFICATE-----…",
///   "relay_ca": "-----BEGIN CERTIFICATE-----…",
///   "accounts": {
///     "treasury-1": {
///       "scheme": "frost-ed25519",
///       "threshold": 2,
///       "parties": ["node-a", "gateway"],
///       "public_key": "64 hex digits",
///       "verifying_shares": ["64 or 66 hex digits", "…"],
///       "share": "64 hex digits"
///     }
///   }
/// }
/// ```
///
/// No `Debug`: it holds secrets.
pub struct Bundle {
    /// Counts the bundles of this node; KMS releases the age identity for one epoch only.
    pub epoch: u64,
    /// This node's party id: 1 to 64 of `a-z 0-9 . _ -`.
    pub party: String,
    /// The X25519 secret key whose public key is `parties[party]`.
    pub party_secret_key: PartySecretKey,
    /// X25519 public keys (32 bytes) of all parties, this one included.
    pub parties: BTreeMap<String, [u8; 32]>,
    /// PEM certificates of the CA that issues client certificates.
    pub client_ca: String,
    /// PEM certificates of the CA that issues the relay's certificate.
    pub relay_ca: String,
    /// Accounts by id: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
    pub accounts: BTreeMap<String, Account>,
}

/// One account: the public facts about its key, and this party's share of it.
pub struct Account {
    /// The signature scheme.
    pub scheme: Scheme,
    /// How many parties make a signature, 1 to the number of parties (the scheme may ask for more than 1).
    pub threshold: u16,
    /// The parties that hold a share. A party's FROST identifier is its position here, counted from 1.
    pub parties: Vec<String>,
    /// The public key in the scheme's standard encoding, 32 bytes: Ed25519 (RFC 8032) or BIP340 x-only.
    pub public_key: Vec<u8>,
    /// The public counterpart of each party's share, in the order of `parties`: Ed25519 32 bytes, secp256k1
    /// 33 bytes (SEC1, compressed).
    pub verifying_shares: Vec<Vec<u8>>,
    /// This party's share.
    pub share: SecretShare,
}

/// The signature scheme of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `frost-ed25519`: RFC 9591 FROST(Ed25519, SHA-512); signatures are RFC 8032.
    FrostEd25519,
    /// `frost-secp256k1-tr`: FROST over secp256k1; signatures are BIP340.
    FrostSecp256k1Tr,
}

/// A name that is not a [`Scheme`]'s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown signature scheme; expected \"frost-ed25519\" or \"frost-secp256k1-tr\"")]
pub struct UnknownScheme;

/// Why a bundle is refused. Never holds a value read from the bundle other than account and party ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The text is not JSON at all.
    #[error("the bundle is not JSON: {problem} at line {line}, column {column}")]
    NotJson {
        /// "it ends too early" or "syntax error".
        problem: &'static str,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// JSON that breaks a rule of the format.
    #[error("the bundle is invalid: {}{field}: {problem}", account_prefix(.account.as_deref()))]
    Invalid {
        /// The account concerned; none for the bundle's own fields.
        account: Option<String>,
        /// The field concerned, for example `share`.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Bundle {
    /// Reads a bundle and checks every rule that needs no scheme's arithmetic: version, unknown and missing
    /// fields, repeated keys at every level, ids, lengths, thresholds, memberships, that `party_secret_key`
    /// belongs to this party's public key, and that the CAs are PEM certificates. The caller wipes `json`.
    pub fn from_json(json: &[u8]) -> Result<Self, BundleError> {
        let bundle = parse::bundle(json)?;
        bundle.validate()?;
        Ok(bundle)
    }

    /// The rules [`Bundle::from_json`] applies, for a bundle that was put together in memory.
    pub fn validate(&self) -> Result<(), BundleError> {
        rules::check(self)
    }

    /// The JSON text, in one allocation that is wiped when dropped.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        write::bundle(self)
    }
}

impl BundleError {
    pub(crate) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { account: None, field: field.into(), problem: problem.into() }
    }

    pub(crate) fn account(id: &str, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { account: Some(shown(id)), field: field.into(), problem: problem.into() }
    }
}

/// An id as errors show it. What looks like a key in hex, whole or in part, or like an age identity may be one that was
/// put in an id's place by mistake: only its beginning is shown.
pub(crate) fn shown(id: &str) -> String {
    let hex_key = id.len() >= 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let age_key = id.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-");
    if hex_key || age_key { format!("{}…", id.get(..8).unwrap_or_default()) } else { id.to_owned() }
}

fn account_prefix(account: Option<&str>) -> String {
    account.map(|id| format!("account `{id}`, ")).unwrap_or_default()
}

impl Scheme {
    /// All schemes.
    pub const ALL: [Self; 2] = [Self::FrostEd25519, Self::FrostSecp256k1Tr];

    /// The name used in bundles and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::FrostEd25519 => "frost-ed25519",
            Self::FrostSecp256k1Tr => "frost-secp256k1-tr",
        }
    }

    /// Length of a public key, bytes.
    pub fn public_key_bytes(self) -> usize {
        32
    }

    /// Length of a verifying share, bytes.
    pub fn verifying_share_bytes(self) -> usize {
        match self {
            Self::FrostEd25519 => 32,
            Self::FrostSecp256k1Tr => 33,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scheme {
    type Err = UnknownScheme;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scheme| scheme.name() == name).ok_or(UnknownScheme)
    }
}
