use std::{
    fs::File,
    io::{self, Read as _},
    ops::Bound,
    path::{Path, PathBuf},
};

use api::{MAX_BUNDLE_BYTES, sign};
use keyshares::{Account, Bundle, BundleError, Scheme};
use threshold::{KeyMaterial, PartyKeys, SchemeId};
use zeroize::Zeroizing;

/// Why the key shares cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the key shares {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than a bundle may be.
    #[error("the key shares {} have {actual} bytes; at most {limit} are allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        actual: u64,
        /// The largest size in bytes.
        limit: u64,
    },
    /// The content is not a bundle.
    #[error("the key shares {}: {source}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
}

/// All accounts of this node, by id, with their shares. Nothing here can be printed.
pub(crate) struct Dictionary(Bundle);

/// One page of accounts.
pub(crate) struct Page {
    pub(crate) accounts: Vec<sign::Account>,
    /// The last id of the page, if more follow.
    pub(crate) next: Option<String>,
}

impl Dictionary {
    /// Reads the bundle in the clear. Its JSON text is wiped before this returns.
    ///
    /// That shares belong to their public keys has been checked by PID 1 when it opened the sealed bundle.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let json = read_wiped(path)?;
        Bundle::from_json(&json)
            .map(Self)
            .map_err(|source| LoadError::Bundle { path: path.to_owned(), source })
    }

    pub(crate) fn party(&self) -> &str {
        &self.0.party
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.0.epoch
    }

    pub(crate) fn client_ca(&self) -> &str {
        &self.0.client_ca
    }

    pub(crate) fn len(&self) -> usize {
        self.0.accounts.len()
    }

    /// The public part of an account.
    pub(crate) fn account(&self, id: &str) -> Option<sign::Account> {
        self.0.accounts.get(id).map(|account| public_part(id, account))
    }

    /// At most `size` accounts that come after the id `after`.
    pub(crate) fn page(&self, after: Option<&str>, size: usize) -> Page {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.0.accounts.range::<str, _>((start, Bound::Unbounded));
        let accounts: Vec<_> =
            rest.by_ref().take(size).map(|(id, account)| public_part(id, account)).collect();
        let next = rest.next().and(accounts.last()).map(|last| last.id.clone());
        Page { accounts, next }
    }

    /// What a session of the account `id` is made from.
    pub(crate) fn material(&self, id: &str) -> Option<KeyMaterial<'_>> {
        let account = self.0.accounts.get(id)?;
        Some(KeyMaterial {
            scheme: match account.scheme {
                Scheme::FrostEd25519 => SchemeId::FrostEd25519,
                Scheme::FrostSecp256k1Tr => SchemeId::FrostSecp256k1Tr,
            },
            threshold: account.threshold,
            parties: &account.parties,
            own: &self.0.party,
            public_key: &account.public_key,
            verifying_shares: &account.verifying_shares,
            share: account.share.expose(),
        })
    }

    /// The keys that protocol messages are sealed and opened with.
    pub(crate) fn party_keys(&self) -> PartyKeys<'_> {
        PartyKeys { own: &self.0.party, secret: self.0.party_secret_key.expose(), public: &self.0.parties }
    }
}

fn public_part(id: &str, account: &Account) -> sign::Account {
    sign::Account {
        id: id.to_owned(),
        scheme: account.scheme.to_string(),
        threshold: account.threshold.into(),
        parties: account.parties.clone(),
        public_key: account.public_key.clone(),
    }
}

/// The file's content in one allocation, so that no copy of a growing buffer stays behind.
fn read_wiped(path: &Path) -> Result<Zeroizing<Vec<u8>>, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > MAX_BUNDLE_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned(), actual: size, limit: MAX_BUNDLE_BYTES });
    }
    let capacity = usize::try_from(size).map_err(|error| failed(io::Error::other(error)))?;
    let mut json = Zeroizing::new(vec![0; capacity]);
    (&file).read_exact(&mut json).map_err(failed)?;
    Ok(json)
}
