use std::{num::NonZero, thread};

use api::control::FailureReason;
use keyshares::{Account, Bundle};
use threshold::{KeyMaterial, SchemeId};

use crate::{
    error::{BootError, Facts, because},
    key_file::KeyFile,
    scrub::{on_wiped_stack, on_wiped_stacks},
};

/// Reads the bundle and checks all of it: the format, the epoch, and that every share belongs to its account's public
/// key. Nothing of it stays in this process. Returns the number of accounts.
pub(crate) fn check_bundle(key_file: &KeyFile, epoch: u64, facts: &mut Facts) -> Result<u64, BootError> {
    let accounts = on_wiped_stack(|| {
        let json =
            key_file.read().map_err(because(FailureReason::Internal, "cannot read the key file back"))?;
        let bundle = Bundle::from_json(&json)
            .map_err(|error| BootError::new(FailureReason::SharesInvalid, error.to_string()))?;
        drop(json);
        check_epoch(&bundle, epoch)?;
        check_shares(&bundle)?;
        Ok(bundle.accounts.len())
    })
    .map_err(because(FailureReason::Internal, "cannot validate on a thread of its own"))??;
    facts.insert("accounts".to_owned(), accounts.to_string());
    Ok(accounts as u64)
}

fn check_epoch(bundle: &Bundle, epoch: u64) -> Result<(), BootError> {
    if bundle.epoch == epoch {
        return Ok(());
    }
    let problem = format!("the bundle is of epoch {}; the configuration says {epoch}", bundle.epoch);
    Err(BootError::new(FailureReason::EpochMismatch, problem))
}

/// On all cores: the arithmetic takes longer than everything else in the boot when there are many accounts.
fn check_shares(bundle: &Bundle) -> Result<(), BootError> {
    let accounts: Vec<_> = bundle.accounts.iter().collect();
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let works = accounts
        .chunks(accounts.len().div_ceil(cores).max(1))
        .map(|part| move || part.iter().try_for_each(|(id, account)| check_share(&bundle.party, id, account)))
        .collect();
    on_wiped_stacks(works)
        .map_err(because(FailureReason::Internal, "cannot check the shares on threads of their own"))?
        .into_iter()
        .collect()
}

fn check_share(party: &str, id: &str, account: &Account) -> Result<(), BootError> {
    let scheme: SchemeId = account.scheme.name().parse().map_err(shares_invalid(id))?;
    let material = KeyMaterial {
        scheme,
        threshold: account.threshold,
        parties: &account.parties,
        own: party,
        public_key: &account.public_key,
        verifying_shares: &account.verifying_shares,
        share: account.share.expose(),
    };
    threshold::check(&material).map_err(shares_invalid(id))
}

fn shares_invalid<E: std::fmt::Display>(account: &str) -> impl FnOnce(E) -> BootError {
    because(FailureReason::SharesInvalid, format!("account `{account}`"))
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
