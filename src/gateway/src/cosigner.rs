//! The gateway's own share of every account: its bundle, opened at start.

use std::{fs::File, io::Read as _, path::Path};

use keyshares::{Account, Bundle, Identity, Scheme};
use rand::rngs::OsRng;
use threshold::{Envelope, KeyMaterial, Open, PartyKeys, SchemeId, Session, SessionError};
use zeroize::Zeroizing;

use crate::{NodeError, StartError, files};

/// Largest sealed bundle that is opened, bytes.
const MAX_BUNDLE_BYTES: u64 = api::MAX_BUNDLE_BYTES;

/// The co-signer: one party of every account in its bundle.
pub struct CoSigner {
    bundle: Bundle,
}

impl CoSigner {
    /// Opens the sealed bundle at `shares` with the age identity in `identity_file`, and checks every share against
    /// its public key.
    pub fn open(shares: &Path, identity_file: &Path) -> Result<Self, StartError> {
        let text = files::read_secret("identity_file", identity_file)?;
        let identity = Identity::parse(&text).map_err(|error| StartError::File {
            what: "identity_file",
            path: identity_file.to_owned(),
            problem: error.to_string(),
        })?;
        let refused = |problem: String| StartError::File { what: "shares", path: shares.to_owned(), problem };
        let plaintext = unseal(shares, &identity)?;
        let bundle = Bundle::from_json(&plaintext).map_err(|error| refused(error.to_string()))?;
        let cosigner = Self { bundle };
        for (id, account) in &cosigner.bundle.accounts {
            threshold::check(&cosigner.material(account))
                .map_err(|error| refused(format!("account `{id}`: {error}")))?;
        }
        Ok(cosigner)
    }

    /// The co-signer's party id.
    pub fn party(&self) -> &str {
        &self.bundle.party
    }

    /// An account the co-signer holds a share of.
    pub fn account(&self, id: &str) -> Option<&Account> {
        self.bundle.accounts.get(id)
    }

    /// Checks that `party` can be the other signer: a party whose key the bundle holds, and not the co-signer itself.
    pub fn check_peer(&self, party: &str) -> Result<(), NodeError> {
        let refused = |problem| NodeError::Party { party: party.to_owned(), problem };
        if party == self.party() {
            return Err(refused("that is the co-signer's own party; each party has its own bundle"));
        }
        if !self.bundle.parties.contains_key(party) {
            return Err(refused("the co-signer's bundle does not list it under `parties`"));
        }
        Ok(())
    }

    /// Opens the co-signer's side of a session and returns its first messages.
    pub(crate) fn open_session(
        &self,
        account: &Account,
        open: Open,
    ) -> Result<(Session, Vec<Envelope>), SessionError> {
        let keys = PartyKeys {
            own: &self.bundle.party,
            secret: self.bundle.party_secret_key.expose(),
            public: &self.bundle.parties,
        };
        Session::open(open, &self.material(account), &keys, &mut OsRng)
    }

    fn material<'a>(&'a self, account: &'a Account) -> KeyMaterial<'a> {
        KeyMaterial {
            scheme: match account.scheme {
                Scheme::FrostEd25519 => SchemeId::FrostEd25519,
                Scheme::FrostSecp256k1Tr => SchemeId::FrostSecp256k1Tr,
            },
            threshold: account.threshold,
            parties: &account.parties,
            own: &self.bundle.party,
            public_key: &account.public_key,
            verifying_shares: &account.verifying_shares,
            share: account.share.expose(),
        }
    }
}

fn unseal(path: &Path, identity: &Identity) -> Result<Zeroizing<Vec<u8>>, StartError> {
    let fault = |source| StartError::Read { what: "shares", path: path.to_owned(), source };
    let refused = |problem: String| StartError::File { what: "shares", path: path.to_owned(), problem };
    let file = File::open(path).map_err(fault)?;
    let size = file.metadata().map_err(fault)?.len();
    if size > MAX_BUNDLE_BYTES {
        return Err(refused(format!("{size} bytes is too large; at most {MAX_BUNDLE_BYTES}")));
    }
    // The plaintext is shorter than the file, so this buffer never grows and leaves no copy behind.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default()));
    keyshares::open(file.take(size), identity, size, &mut *plaintext)
        .map_err(|error| refused(error.to_string()))?;
    Ok(plaintext)
}
