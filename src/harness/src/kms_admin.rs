use std::{collections::HashMap, fs, time::Duration};

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use crate::{World, world::REGION};

/// The KMS key's administrator: makes the situations that the refusals are for.
pub struct KmsAdmin<'a> {
    world: &'a World,
    kms: kms::Kms,
    runtime: Runtime,
}

/// A sealed bundle, with the identity bound to it.
pub struct Rebound {
    /// Sealed bundle.
    pub bundle: Vec<u8>,
    /// Its epoch in the encryption context.
    pub epoch: u64,
}

impl<'a> KmsAdmin<'a> {
    pub(crate) fn new(world: &'a World, address: &str) -> Result<Self> {
        let roots = kms::roots_from_pem(&fs::read_to_string(world.path("kms-ca.pem"))?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let kms = kms::Kms::new(kms::Access {
            region: REGION.to_owned(),
            host: None,
            dial: format!("tcp:{address}").parse()?,
            roots,
            credentials: kms::Credentials {
                access_key_id: world.admin.access_key_id.clone(),
                secret_access_key: world.admin.secret_access_key.clone().into(),
                session_token: None,
            },
            timeout: Duration::from_secs(30),
        });
        drop(entered);
        Ok(Self { world, kms, runtime })
    }

    /// Puts any policy document in force.
    pub fn put_policy(&self, policy: &serde_json::Value) -> Result<()> {
        let request = self.kms.sdk().put_key_policy().key_id(&self.world.key_id).policy(policy.to_string());
        self.runtime.block_on(request.send())?;
        Ok(())
    }

    /// The policy in force.
    pub fn policy(&self) -> Result<serde_json::Value> {
        let request = self.kms.sdk().get_key_policy().key_id(&self.world.key_id);
        let answer = self.runtime.block_on(request.send())?;
        Ok(serde_json::from_str(answer.policy().context("no policy")?)?)
    }

    /// The enclave's age identity in the clear: what nobody can have in production. The policy is opened for the call
    /// and put back.
    pub fn identity(&self) -> Result<Vec<u8>> {
        let policy = self.policy()?;
        self.put_policy(&everything_to_everybody())?;
        let deployment = self.world.deployment()?;
        let blob = fs::read(self.world.path("deployment/age-identity.kms"))?;
        let context: HashMap<_, _> =
            api::encryption_context(&deployment.bundle_sha256, deployment.epoch).into_iter().collect();
        let request = self
            .kms
            .sdk()
            .decrypt()
            .key_id(&self.world.key_id)
            .ciphertext_blob(blob.into())
            .set_encryption_context(Some(context));
        let answer = self.runtime.block_on(request.send())?;
        self.put_policy(&policy)?;
        Ok(answer.plaintext.context("KMS returned no plaintext")?.into_inner())
    }

    /// Replaces the identity by `plaintext`, encrypted under the deployment's own context.
    pub fn replace_identity(&self, plaintext: &[u8]) -> Result<()> {
        let deployment = self.world.deployment()?;
        self.encrypt_identity(plaintext, &deployment.bundle_sha256, deployment.epoch)
    }

    fn encrypt_identity(&self, plaintext: &[u8], bundle_sha256: &str, epoch: u64) -> Result<()> {
        let context: HashMap<_, _> = api::encryption_context(bundle_sha256, epoch).into_iter().collect();
        let request = self
            .kms
            .sdk()
            .encrypt()
            .key_id(&self.world.key_id)
            .plaintext(plaintext.to_vec().into())
            .set_encryption_context(Some(context));
        let answer = self.runtime.block_on(request.send())?;
        let blob = answer.ciphertext_blob.context("KMS returned no ciphertext")?.into_inner();
        Ok(fs::write(self.world.path("deployment/age-identity.kms"), blob)?)
    }

    /// Puts a bundle of the test's own in the place of the deployment's, with the identity bound to it, the policy and
    /// the parent's configuration following: only the bundle's content is wrong then.
    pub fn replace_bundle(&self, rebound: &Rebound) -> Result<()> {
        let identity = self.identity()?;
        let sha256 = hex::encode(crate::sha256(&rebound.bundle));
        self.encrypt_identity(&identity, &sha256, rebound.epoch)?;
        fs::write(self.world.path("deployment/service_key_shares.json.age"), &rebound.bundle)?;
        let path = self.world.path("deployment/deployment.toml");
        let mut deployment: toml::Table = toml::from_str(&fs::read_to_string(&path)?)?;
        deployment.insert("epoch".into(), i64::try_from(rebound.epoch)?.into());
        deployment.insert("bundle_sha256".into(), sha256.into());
        fs::write(path, toml::to_string(&deployment)?)?;
        self.world.write_parent_toml(|_| {})?;
        let pcrs = self.world.measure()?;
        self.world.apply_policy(&[pcrs["PCR0"].as_str().context("no PCR0")?], &[])
    }

    /// The plaintext of the deployment's bundle.
    pub fn open_bundle(&self) -> Result<Vec<u8>> {
        let identity = keyshares::Identity::parse(&self.identity()?)?;
        let sealed = fs::read(self.world.path("deployment/service_key_shares.json.age"))?;
        let mut plaintext = Vec::new();
        keyshares::open(&sealed[..], &identity, api::MAX_BUNDLE_BYTES, &mut plaintext)?;
        Ok(plaintext)
    }

    /// Seals a plaintext to the enclave's recipient.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>> {
        Ok(keyshares::seal(plaintext, &self.world.deployment()?.recipient)?)
    }
}

fn everything_to_everybody() -> serde_json::Value {
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}],
    })
}
