//! A security module for tests: registers that extend and lock, and documents that say what was asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use attestation::{Nsm, NsmError, Pcr};
use aws_nitro_enclaves_nsm_api::api::{ErrorCode, Request, Response};

#[derive(Default)]
pub(crate) struct FakeNsm {
    pub(crate) pcrs: Mutex<BTreeMap<u16, Pcr>>,
    pub(crate) locked: Mutex<BTreeSet<u16>>,
    /// Locks nothing, but says that it has.
    pub(crate) forgets_locks: bool,
}

impl FakeNsm {
    /// One whose image has been measured.
    pub(crate) fn measured() -> Self {
        let nsm = Self::default();
        nsm.pcrs.lock().unwrap().extend((0..3).map(|index| (index, Pcr::measure(&[b"image"]))));
        nsm
    }
}

impl Nsm for FakeNsm {
    fn request(&self, request: Request) -> Result<Response, NsmError> {
        let mut pcrs = self.pcrs.lock().unwrap();
        let mut locked = self.locked.lock().unwrap();
        Ok(match request {
            Request::DescribePCR { index } => Response::DescribePCR {
                lock: locked.contains(&index),
                data: pcrs.get(&index).unwrap_or(&Pcr::ZERO).as_bytes().to_vec(),
            },
            Request::ExtendPCR { index, .. } if locked.contains(&index) => {
                Response::Error(ErrorCode::ReadOnlyIndex)
            }
            Request::ExtendPCR { index, data } => {
                let pcr = pcrs.entry(index).or_insert(Pcr::ZERO);
                *pcr = pcr.extend(&data);
                Response::ExtendPCR { data: pcr.as_bytes().to_vec() }
            }
            Request::LockPCR { index } => {
                if !self.forgets_locks {
                    locked.insert(index);
                }
                Response::LockPCR
            }
            Request::Attestation { user_data, nonce, public_key } => {
                let parts =
                    [user_data, nonce, public_key].map(|part| part.map_or_else(Vec::new, |p| p.to_vec()));
                Response::Attestation { document: parts.join(&b'|') }
            }
            _ => Response::Error(ErrorCode::InvalidOperation),
        })
    }
}
