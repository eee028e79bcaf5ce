//! The module itself: registers and documents.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_nitro_enclaves_nsm_api::api::{AttestationDoc, Digest, ErrorCode, Request, Response};
use coset::{CborSerializable as _, CoseSign1Builder, HeaderBuilder, iana::Algorithm};

use super::chain::Chain;
use super::{SoftwareError, TestAuthority};
use crate::{Measurements, Nsm, NsmError, PCR_COUNT, Pcr};

/// In place of an EC2 instance and its role.
const INSTANCE_ID: &str = "i-00000000000000000";
const ROLE_ARN: &str = "arn:aws:iam::111122223333:role/nitro-sign-test";
/// PCRs 0 to 15 belong to the hypervisor.
const HYPERVISOR_PCRS: usize = 16;
/// What a GetRandom gives, in bytes.
const RANDOM_SIZE: usize = 256;
/// Limits of an attestation request, in bytes.
const MAX_TEXT: usize = 512;
const MAX_PUBLIC_KEY: usize = 1024;

/// A software security module: one launch of one enclave.
pub struct SoftwareNsm {
    authority: TestAuthority,
    module_id: String,
    registers: Mutex<[Register; PCR_COUNT as usize]>,
    chain: Mutex<Chain>,
}

#[derive(Clone, Copy)]
struct Register {
    value: Pcr,
    locked: bool,
}

impl SoftwareNsm {
    /// The module of an enclave that was just launched from an image with these measurements. PCR3 and PCR4 name a role
    /// and an instance, as on EC2.
    pub fn new(authority: &TestAuthority, measurements: Measurements) -> Result<Self, SoftwareError> {
        let Measurements { pcr0, pcr1, pcr2 } = measurements;
        let [pcr3, pcr4] = [ROLE_ARN, INSTANCE_ID].map(|name| Pcr::ZERO.extend(name.as_bytes()));
        Self::start(authority, &[pcr0, pcr1, pcr2, pcr3, pcr4])
    }

    /// The module of an enclave that was launched in debug mode: its PCRs start as zero.
    pub fn debug(authority: &TestAuthority) -> Result<Self, SoftwareError> {
        Self::start(authority, &[])
    }

    fn start(authority: &TestAuthority, pcrs: &[Pcr]) -> Result<Self, SoftwareError> {
        let mut launch = [0; 8];
        aws_lc_rs::rand::fill(&mut launch).map_err(|_| SoftwareError::Cryptography)?;
        let module_id = format!("{INSTANCE_ID}-enc{}", hex::encode(launch));
        let registers = std::array::from_fn(|index| Register {
            value: pcrs.get(index).copied().unwrap_or(Pcr::ZERO),
            locked: index < HYPERVISOR_PCRS,
        });
        let chain = Chain::issue(authority, INSTANCE_ID, &module_id, SystemTime::now())?;
        Ok(Self {
            authority: authority.clone(),
            module_id,
            registers: Mutex::new(registers),
            chain: Mutex::new(chain),
        })
    }

    fn extend(&self, index: u16, data: &[u8]) -> Result<Response, ErrorCode> {
        self.with_register(index, |register| {
            unlocked(register)?;
            register.value = register.value.extend(data);
            Ok(Response::ExtendPCR { data: register.value.as_bytes().to_vec() })
        })
    }

    fn lock(&self, index: u16) -> Result<Response, ErrorCode> {
        self.with_register(index, |register| {
            unlocked(register)?;
            register.locked = true;
            Ok(Response::LockPCR)
        })
    }

    fn lock_range(&self, range: u16) -> Result<Response, ErrorCode> {
        let mut registers = held(&self.registers);
        let registers = registers.get_mut(..usize::from(range)).ok_or(ErrorCode::InvalidIndex)?;
        for register in registers {
            register.locked = true;
        }
        Ok(Response::LockPCRs)
    }

    fn describe_register(&self, index: u16) -> Result<Response, ErrorCode> {
        self.with_register(index, |register| {
            Ok(Response::DescribePCR { lock: register.locked, data: register.value.as_bytes().to_vec() })
        })
    }

    fn with_register<T>(
        &self,
        index: u16,
        action: impl FnOnce(&mut Register) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        action(held(&self.registers).get_mut(usize::from(index)).ok_or(ErrorCode::InvalidIndex)?)
    }

    fn locked_pcrs(&self) -> BTreeMap<u16, Pcr> {
        let registers = held(&self.registers);
        (0..)
            .zip(registers.iter())
            .filter(|(_, pcr)| pcr.locked)
            .map(|(index, pcr)| (index, pcr.value))
            .collect()
    }

    fn describe_module(&self) -> Response {
        Response::DescribeNSM {
            version_major: 1,
            version_minor: 0,
            version_patch: 0,
            module_id: self.module_id.clone(),
            max_pcrs: PCR_COUNT,
            locked_pcrs: self.locked_pcrs().into_keys().collect(),
            digest: Digest::SHA384,
        }
    }

    fn sign_document(&self, given: Given) -> Result<Vec<u8>, SoftwareError> {
        let now = SystemTime::now();
        let mut chain = held(&self.chain);
        if !chain.is_fresh(now) {
            *chain = Chain::issue(&self.authority, INSTANCE_ID, &self.module_id, now)?;
        }
        let pcrs = self.locked_pcrs().into_iter();
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let document = AttestationDoc::new(
            self.module_id.clone(),
            Digest::SHA384,
            u64::try_from(timestamp).unwrap_or(u64::MAX),
            pcrs.map(|(index, pcr)| (usize::from(index), pcr.as_bytes().to_vec())).collect(),
            chain.certificate.clone(),
            chain.cabundle.clone(),
            given.user_data,
            given.nonce,
            given.public_key,
        );
        CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(Algorithm::ES384).build())
            .payload(document.to_binary())
            .try_create_signature(&[], |message| chain.sign(message))?
            .build()
            .to_vec()
            .map_err(|_| SoftwareError::Cryptography)
    }
}

/// What the enclave asks to have in a document.
struct Given {
    user_data: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    public_key: Option<Vec<u8>>,
}

impl Given {
    fn is_too_large(&self) -> bool {
        let exceeds =
            |value: &Option<Vec<u8>>, limit| value.as_ref().is_some_and(|value| value.len() > limit);
        exceeds(&self.user_data, MAX_TEXT)
            || exceeds(&self.nonce, MAX_TEXT)
            || exceeds(&self.public_key, MAX_PUBLIC_KEY)
    }
}

/// Answers one request, as the Nitro security module does.
pub fn handle(nsm: &SoftwareNsm, request: Request) -> Response {
    answer(nsm, request).unwrap_or_else(Response::Error)
}

fn answer(nsm: &SoftwareNsm, request: Request) -> Result<Response, ErrorCode> {
    match request {
        Request::DescribeNSM => Ok(nsm.describe_module()),
        Request::DescribePCR { index } => nsm.describe_register(index),
        Request::ExtendPCR { index, data } => nsm.extend(index, &data),
        Request::LockPCR { index } => nsm.lock(index),
        Request::LockPCRs { range } => nsm.lock_range(range),
        Request::GetRandom => {
            let mut random = vec![0; RANDOM_SIZE];
            aws_lc_rs::rand::fill(&mut random).map_err(|_| ErrorCode::InternalError)?;
            Ok(Response::GetRandom { random })
        }
        Request::Attestation { user_data, nonce, public_key } => {
            let given = Given {
                user_data: user_data.map(|bytes| bytes.to_vec()),
                nonce: nonce.map(|bytes| bytes.to_vec()),
                public_key: public_key.map(|bytes| bytes.to_vec()),
            };
            if given.is_too_large() {
                return Err(ErrorCode::InputTooLarge);
            }
            let document = nsm.sign_document(given).map_err(|_| ErrorCode::InternalError)?;
            Ok(Response::Attestation { document })
        }
        _ => Err(ErrorCode::InvalidOperation),
    }
}

fn unlocked(register: &Register) -> Result<(), ErrorCode> {
    if register.locked { Err(ErrorCode::ReadOnlyIndex) } else { Ok(()) }
}

/// A thread that panicked with a lock in its hand has not left anything half done here.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Nsm for SoftwareNsm {
    fn request(&self, request: Request) -> Result<Response, NsmError> {
        Ok(handle(self, request))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{TrustRoot, verify};

    #[test]
    fn a_certificate_that_grows_old_is_replaced() {
        let authority = TestAuthority::generate().unwrap();
        let nsm = SoftwareNsm::new(&authority, Measurements::ZERO).unwrap();
        let certificate = || {
            let cose = nsm.attest(None, None, None).unwrap();
            let root = TrustRoot::from_der(authority.root_der());
            verify(&cose, &root, SystemTime::now()).unwrap().certificate
        };
        let first = certificate();
        assert_eq!(certificate(), first);

        let hours_ago = SystemTime::now() - Duration::from_hours(2);
        *held(&nsm.chain) = Chain::issue(&authority, INSTANCE_ID, &nsm.module_id, hours_ago).unwrap();
        let old = held(&nsm.chain).certificate.clone();
        let second = certificate();
        assert_ne!(second, old);
        assert_eq!(certificate(), second);
    }
}
