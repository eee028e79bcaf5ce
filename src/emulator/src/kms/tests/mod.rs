//! The real AWS SDK, by way of the crate `kms`, against this KMS in the same process, over TLS.

mod attested;
mod client;
mod faults;
mod http;
mod operations;

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use ::kms::{Access, Credentials, Kms as Client, KmsError, RecipientKey};
use attestation::{
    Measurements, Nsm as _, PCR_CONFIGURATION, Pcr,
    software::{SoftwareNsm, TestAuthority},
};
use serde_json::{Value, json};

use super::*;
use crate::aws::uuid;

const REGION: &str = "eu-central-1";
const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";
const PARENT: &str = "arn:aws:iam::111122223333:role/parent";
/// Long enough for a busy machine; tests about time have their own.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One account with a key, and an enclave that asks for it.
struct World {
    address: SocketAddr,
    ca: String,
    directory: tempfile::TempDir,
    authority: TestAuthority,
    /// Every kind of client's requests are by the administrator or by the parent instance's role.
    admin: Client,
    parent: Client,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = TestAuthority::generate().unwrap();
        let root = directory.path().join("root.pem");
        fs::write(&root, authority.root_pem()).unwrap();
        let fault_file = directory.path().join("fault.json");
        fs::write(&fault_file, r#"{"mode":"none"}"#).unwrap();
        let service = ServiceArgs {
            listen: "127.0.0.1:0".parse().unwrap(),
            account: "111122223333".to_owned(),
            authority_dir: None,
            principals: vec![
                format!("{ADMIN}:AKIAADMIN:admin-secret").parse().unwrap(),
                format!("{PARENT}:AKIAPARENT:parent-secret").parse().unwrap(),
            ],
            session_tokens: vec![],
        };
        let args = Args {
            service,
            host: format!("kms.{REGION}.amazonaws.com"),
            region: None,
            state_dir: PathBuf::new(),
            attestation_root: root,
            fault_file: Some(fault_file),
            refused_document: Some(directory.path().join("refused.cose")),
        };
        let server = start(args).await.unwrap();
        let (address, ca) = (server.address().unwrap(), server.ca_pem().to_owned());
        tokio::spawn(server.serve());
        let client = |key: &str, secret: &str| Client::new(access(address, &ca, credentials(key, secret)));
        let (admin, parent) = (client("AKIAADMIN", "admin-secret"), client("AKIAPARENT", "parent-secret"));
        Self { address, ca, directory, authority, admin, parent }
    }

    /// How the parent instance's role gets to this KMS.
    fn access(&self) -> Access {
        access(self.address, &self.ca, credentials("AKIAPARENT", "parent-secret"))
    }

    fn fault(&self, fault: &Value) {
        fs::write(self.directory.path().join("fault.json"), fault.to_string()).unwrap();
    }

    async fn create_key(&self, policy: &Value) -> String {
        let created = self.admin.sdk().create_key().policy(policy.to_string()).send().await.unwrap();
        created.key_metadata.unwrap().key_id
    }

    async fn encrypt(&self, key_id: &str, plaintext: &[u8], context: &[(String, String)]) -> Vec<u8> {
        let request = self.admin.sdk().encrypt().key_id(key_id).plaintext(plaintext.to_vec().into());
        let request = request.set_encryption_context(Some(context.iter().cloned().collect()));
        request.send().await.unwrap().ciphertext_blob.unwrap().into_inner()
    }

    fn enclave(&self) -> Enclave {
        Enclave::launch(&self.authority)
    }
}

fn access(address: SocketAddr, ca: &str, credentials: Credentials) -> Access {
    Access {
        region: REGION.to_owned(),
        host: None,
        dial: format!("tcp:{address}").parse().unwrap(),
        roots: ::kms::roots_from_pem(ca).unwrap(),
        credentials,
        timeout: TIMEOUT,
    }
}

fn credentials(access_key_id: &str, secret: &str) -> Credentials {
    Credentials {
        access_key_id: access_key_id.to_owned(),
        secret_access_key: secret.to_owned().into(),
        session_token: None,
    }
}

/// What unsealing needs of an enclave: its security module and its recipient key.
struct Enclave {
    nsm: SoftwareNsm,
    key: RecipientKey,
}

impl Enclave {
    fn measurements() -> Measurements {
        Measurements::of_parts(&[], &[b"enclave"], &[b"sign-service", b"enclave.toml"])
    }

    /// The value of PCR16 with the configuration that enclaves get in these tests.
    fn pcr16() -> Pcr {
        Pcr::of_digests(&[attestation::sha384(b"configuration")])
    }

    fn launch(authority: &TestAuthority) -> Self {
        Self::configured(authority, b"configuration")
    }

    fn configured(authority: &TestAuthority, configuration: &[u8]) -> Self {
        let nsm = SoftwareNsm::new(authority, Self::measurements()).unwrap();
        nsm.extend_pcr(PCR_CONFIGURATION, &attestation::sha384(configuration)).unwrap();
        nsm.lock_pcr(PCR_CONFIGURATION).unwrap();
        Self { nsm, key: RecipientKey::generate().unwrap() }
    }

    fn document(&self) -> Vec<u8> {
        self.nsm.attest(None, None, Some(self.key.public_key_der())).unwrap()
    }
}

fn context() -> Vec<(String, String)> {
    vec![("bundle-sha256".to_owned(), "cafe".to_owned()), ("epoch".to_owned(), "1".to_owned())]
}

/// What the product puts in force: administrators manage and encrypt, and the parent's role decrypts for one image with
/// one configuration.
fn attested_policy(pcr0: &Pcr, pcr16: &Pcr) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [
            administration(),
            {
                "Effect": "Allow",
                "Principal": {"AWS": PARENT},
                "Action": "kms:Decrypt",
                "Resource": "*",
                "Condition": {
                    "StringEqualsIgnoreCase": {
                        "kms:RecipientAttestation:ImageSha384": [Pcr::from_bytes([1; 48]), pcr0],
                        "kms:RecipientAttestation:PCR16": pcr16,
                    },
                    "StringEquals": {"kms:EncryptionContext:bundle-sha256": "cafe"},
                },
            },
        ],
    })
}

fn administration() -> Value {
    json!({
        "Sid": "Administration",
        "Effect": "Allow",
        "Principal": {"AWS": ADMIN},
        "Action": ["kms:Describe*", "kms:Get*", "kms:Put*", "kms:Enable*", "kms:Disable*", "kms:Encrypt", "kms:ReEncrypt*"],
        "Resource": "*",
    })
}

/// Everything to everybody in the account, as a key created without a policy.
fn open_policy() -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "kms:*", "Resource": "*"},
    })
}

fn code(error: &KmsError) -> &str {
    match error {
        KmsError::Denied { code, .. }
        | KmsError::InvalidCiphertext { code, .. }
        | KmsError::Other { code, .. } => code,
        other => panic!("{other}"),
    }
}

/// The request id of an error that KMS answered with.
fn assert_has_request_id(error: &KmsError) {
    let id = error.request_id().unwrap();
    assert!(id.parse::<uuid::Uuid>().is_ok(), "{id}");
}
