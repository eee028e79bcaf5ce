//! The keys of this account and region, in memory only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{blob::KeyMaterial, error::ServiceError, policy::Policy};
use crate::aws::uuid::Uuid;

/// A KMS key. Cloning it takes a snapshot of its state; the key material stays one.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: Uuid,
    pub(crate) arn: String,
    pub(crate) description: String,
    pub(crate) created: SystemTime,
    pub(crate) enabled: bool,
    /// Days between rotations, if they are enabled. They are only remembered: key material never changes here.
    pub(crate) rotation_days: Option<u16>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) material: Arc<KeyMaterial>,
}

pub(crate) struct KeyStore {
    region: String,
    account: String,
    keys: Mutex<BTreeMap<Uuid, Key>>,
}

impl KeyStore {
    pub(crate) fn new(region: String, account: String) -> Self {
        Self { region, account, keys: Mutex::default() }
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    pub(crate) fn arn(&self, id: &Uuid) -> String {
        format!("arn:aws:kms:{}:{}:key/{id}", self.region, self.account)
    }

    pub(crate) fn insert(&self, key: Key) {
        self.lock().insert(key.id, key);
    }

    pub(crate) fn get(&self, id: &Uuid) -> Result<Key, ServiceError> {
        let not_found = || ServiceError::not_found(format!("Key '{}' does not exist", self.arn(id)));
        self.lock().get(id).cloned().ok_or_else(not_found)
    }

    /// By key id or key ARN.
    pub(crate) fn find(&self, name: &str) -> Result<Key, ServiceError> {
        let id = match name.split(':').collect::<Vec<_>>()[..] {
            [id] => id,
            ["arn", "aws", "kms", region, account, resource] if resource.starts_with("key/") => {
                if region != self.region {
                    return Err(ServiceError::not_found(format!("Invalid arn {region}")));
                }
                if account != self.account {
                    return Err(ServiceError::not_found(format!("Key '{name}' does not exist")));
                }
                &resource["key/".len()..]
            }
            _ => return Err(ServiceError::not_found(format!("Invalid keyId '{name}'"))),
        };
        let id = id.parse().map_err(|()| ServiceError::not_found(format!("Invalid keyId '{id}'")))?;
        self.get(&id)
    }

    /// Nothing happens if the key is gone: keys never go.
    pub(crate) fn update(&self, id: &Uuid, change: impl FnOnce(&mut Key)) {
        if let Some(key) = self.lock().get_mut(id) {
            change(key);
        }
    }

    /// A panic in another thread leaves every key whole: changes are single assignments.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
