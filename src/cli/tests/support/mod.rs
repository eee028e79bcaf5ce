//! The KMS stand-in with three principals, and the program under test pointed at it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use aws_sdk_kms::{Client, primitives::Blob};
use kms::KmsError;

pub(crate) const REGION: &str = "eu-central-1";
/// RFC 8032, section 7.1, test 1: seed and public key.
pub(crate) const ED25519: [&str; 2] = [
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
];
/// BIP340, test vector 0: secret key and public key.
pub(crate) const SECP256K1: [&str; 2] = [
    "0000000000000000000000000000000000000000000000000000000000000003",
    "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
];

/// An `init`, but for the key.
pub(crate) const INIT: &str = "init --region eu-central-1 --dir deployment --party enclave-a";

/// Someone with an access key of the emulated AWS account.
pub(crate) struct Principal {
    pub(crate) arn: &'static str,
    access_key_id: &'static str,
    secret_access_key: &'static str,
}

/// Administrates the KMS key.
pub(crate) const ADMIN: Principal = Principal {
    arn: "arn:aws:iam::111122223333:role/admin",
    access_key_id: "AKIAADMINADMINADMIN0",
    secret_access_key: "an-admin-of-an-emulator",
};
/// The parent instance's role.
pub(crate) const PARENT: Principal = Principal {
    arn: "arn:aws:iam::111122223333:role/parent",
    access_key_id: "AKIAPARENTPARENTPAR0",
    secret_access_key: "a-parent-of-an-emulator",
};
/// Someone else in the account, whom IAM lets do everything, as it does all principals of the stand-in.
pub(crate) const USER: Principal = Principal {
    arn: "arn:aws:iam::111122223333:user/someone",
    access_key_id: "AKIASOMEONESOMEONE00",
    secret_access_key: "a-user-of-an-emulator",
};

/// What the program wrote and how it ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// An emulated KMS and a directory for files; both end with it.
pub(crate) struct World {
    directory: tempfile::TempDir,
    emulator: Child,
    address: String,
}

impl World {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root.pem");
        fs::write(&root, attestation::software::TestAuthority::generate().unwrap().root_pem()).unwrap();
        for name in ["client", "relay"] {
            fs::write(directory.path().join(format!("{name}-ca.pem")), certificate_authority()).unwrap();
        }
        let mut emulator = start_emulator(directory.path(), &root);
        let mut line = String::new();
        BufReader::new(emulator.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = ready["address"].as_str().unwrap().to_owned();
        Self { directory, emulator, address }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn deployment(&self) -> PathBuf {
        self.path("deployment")
    }

    /// Runs nitro-sign in the world's directory; `arguments` are split at spaces.
    pub(crate) fn run(&self, who: &Principal, arguments: &str) -> Ended {
        self.run_at(who, &self.address, arguments)
    }

    pub(crate) fn run_at(&self, who: &Principal, address: &str, arguments: &str) -> Ended {
        self.start_at(Command::new(env!("CARGO_BIN_EXE_nitro-sign")), who, address, arguments)
    }

    /// As [`Self::run`], with a command that starts nitro-sign.
    pub(crate) fn run_with(&self, command: Command, who: &Principal, arguments: &str) -> Ended {
        self.start_at(command, who, &self.address, arguments)
    }

    fn start_at(&self, mut command: Command, who: &Principal, address: &str, arguments: &str) -> Ended {
        let output = command
            .args(arguments.split_whitespace())
            .args(["--kms-endpoint", &format!("tcp:{address}"), "--kms-ca", "kms-ca.pem"])
            .current_dir(self.directory.path())
            .env("AWS_ACCESS_KEY_ID", who.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", who.secret_access_key)
            .env_remove("AWS_SESSION_TOKEN")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.into()
    }

    /// Under a policy that lets the tests look at the identity.
    pub(crate) fn init(&self) -> serde_json::Value {
        let policy = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": {"AWS": ADMIN.arn},
                "Action": "kms:*",
                "Resource": "*",
            }],
        });
        fs::write(self.path("open.json"), policy.to_string()).unwrap();
        self.run(&ADMIN, &format!("{INIT} --create-kms-key --policy open.json")).json()
    }

    /// The arguments of a key-gen for one co-signer `gateway`, but for the accounts.
    pub(crate) fn key_gen_arguments(&self) -> String {
        let identity = self.path("gateway-identity.txt");
        if !identity.exists() {
            self.run(&ADMIN, "cosigner --identity gateway-identity.txt").json();
        }
        let identity = keyshares::Identity::parse(&fs::read(identity).unwrap()).unwrap();
        format!(
            "key-gen --dir deployment --cosigner gateway={}=gateway.json.age --client-ca client-ca.pem --relay-ca \
             relay-ca.pem",
            identity.recipient()
        )
    }

    /// Deals one imported account a scheme and one new one.
    pub(crate) fn key_gen(&self) -> serde_json::Value {
        let import = serde_json::json!({
            "ed": {"scheme": "frost-ed25519", "secret": ED25519[0]},
            "btc": {"scheme": "frost-secp256k1-tr", "secret": SECP256K1[0]},
        });
        fs::write(self.path("import.json"), import.to_string()).unwrap();
        let accounts = "--import import.json --account ed --scheme frost-ed25519 --account btc --scheme \
                        frost-secp256k1-tr --account new --scheme frost-ed25519";
        self.run(&ADMIN, &format!("{} {accounts}", self.key_gen_arguments())).json()
    }

    /// Everything in `deployment/`, by name.
    pub(crate) fn files(&self) -> HashMap<String, Vec<u8>> {
        fs::read_dir(self.deployment())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
            })
            .collect()
    }

    /// deployment.toml.
    pub(crate) fn facts(&self) -> toml::Table {
        toml::from_str(&fs::read_to_string(self.path("deployment/deployment.toml")).unwrap()).unwrap()
    }

    /// The encryption context that deployment.toml stands for.
    pub(crate) fn context(&self) -> [(String, String); 2] {
        let facts = self.facts();
        let digest = facts.get("bundle_sha256").map_or("none", |digest| digest.as_str().unwrap());
        api::encryption_context(digest, u64::try_from(facts["epoch"].as_integer().unwrap()).unwrap())
    }

    pub(crate) fn client(&self, who: &Principal) -> Client {
        let roots = fs::read_to_string(self.path("kms-ca.pem")).unwrap();
        let access = kms::Access {
            region: REGION.to_owned(),
            host: None,
            dial: format!("tcp:{}", self.address).parse().unwrap(),
            roots: kms::roots_from_pem(&roots).unwrap(),
            credentials: kms::Credentials {
                access_key_id: who.access_key_id.to_owned(),
                secret_access_key: who.secret_access_key.to_owned().into(),
                session_token: None,
            },
            timeout: Duration::from_secs(10),
        };
        kms::Kms::new(access).sdk().clone()
    }

    /// What KMS decrypts for a principal without an enclave.
    pub(crate) async fn decrypt(
        &self,
        who: &Principal,
        ciphertext: &[u8],
        context: [(String, String); 2],
    ) -> Result<Vec<u8>, KmsError> {
        let request = self.client(who).decrypt().ciphertext_blob(Blob::new(ciphertext));
        let answer = request.set_encryption_context(Some(HashMap::from(context))).send().await?;
        Ok(answer.plaintext.unwrap().into_inner())
    }

    /// The age identity, while the key's policy still lets the administrator decrypt.
    pub(crate) async fn identity(&self) -> Vec<u8> {
        let ciphertext = fs::read(self.path("deployment/age-identity.kms")).unwrap();
        self.decrypt(&ADMIN, &ciphertext, self.context()).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

fn start_emulator(directory: &Path, root: &Path) -> Child {
    let program = Path::new(env!("CARGO_BIN_EXE_nitro-sign")).with_file_name("emulator");
    assert!(program.exists(), "{} is missing; `cargo build -p emulator` makes it", program.display());
    let mut command = Command::new(program);
    command.args([
        "kms",
        "--listen",
        "127.0.0.1:0",
        "--host",
        "kms.eu-central-1.amazonaws.com",
        "--state-dir",
    ]);
    command.arg(directory).arg("--attestation-root").arg(root);
    for who in [ADMIN, PARENT, USER] {
        command
            .arg("--principal")
            .arg(format!("{}:{}:{}", who.arn, who.access_key_id, who.secret_access_key));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn certificate_authority() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.self_signed(&key).unwrap().pem()
}
