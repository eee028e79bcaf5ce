use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;

use crate::{
    Gateway, KmsAdmin, Node, Qemu,
    program::{Program, binary, run},
};

/// The region everything claims to be in.
pub(crate) const REGION: &str = "eu-central-1";
/// Enough for a machine emulated on a loaded host.
const BOOT_TIMEOUT_MS: u32 = 180_000;
const ACCOUNT: &str = "arn:aws:iam::111122223333";
const ENCLAVE_PARTY: &str = "enclave-a";
const GATEWAY_PARTY: &str = "gateway";
/// All schemes.
pub const SCHEMES: [&str; 2] = ["frost-ed25519", "frost-secp256k1-tr"];

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Accounts of each scheme.
    pub accounts_per_scheme: u32,
    /// The accounts' schemes.
    pub schemes: &'static [&'static str],
    /// Makes the accounts' keys repeatable; their shares, and everything else, are fresh each time.
    pub seed: Option<u64>,
    /// Start the hypervisor's stand-in in debug mode: all PCRs zero.
    pub debug_mode: bool,
    /// Signing sessions at the same time.
    pub max_sessions: u32,
    /// Milliseconds a session may last.
    pub session_deadline_ms: u32,
    /// Milliseconds the enclave gives KMS.
    pub kms_timeout_ms: u32,
    /// Boot the enclave's image in QEMU instead of running its programs as local processes.
    pub qemu: Option<Qemu>,
    /// Let the enclave's processes and the parent meet on vsock, at this machine's own context id.
    pub vsock: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            accounts_per_scheme: 3,
            schemes: &SCHEMES,
            seed: None,
            debug_mode: false,
            max_sessions: 64,
            session_deadline_ms: 30_000,
            kms_timeout_ms: 10_000,
            qemu: None,
            vsock: false,
        }
    }
}

/// An account as the operator's tool listed it.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Account {
    /// Its id.
    pub id: String,
    /// Its scheme's name.
    pub scheme: String,
    /// Its public key in the scheme's standard encoding.
    #[serde(deserialize_with = "hex::serde::deserialize")]
    pub public_key: Vec<u8>,
}

/// An access key of the emulated AWS account, made for one run.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) arn: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

impl Credentials {
    fn generate(role: &str) -> Self {
        let mut rng = rand::thread_rng();
        let mut secret = [0; 20];
        rng.fill_bytes(&mut secret);
        Self {
            arn: format!("{ACCOUNT}:role/{role}"),
            access_key_id: format!("AKIA{:016X}", rng.r#gen::<u64>()),
            secret_access_key: hex::encode(secret),
        }
    }

    fn principal(&self) -> String {
        format!("{}:{}:{}", self.arn, self.access_key_id, self.secret_access_key)
    }
}

/// A step that was taken and how long it took.
pub(crate) type Step<'a> = &'a mut dyn FnMut(&str, Duration);

/// Makes worlds and tells each step as it happens.
pub struct Worlds;

/// One emulated AWS account, one deployment in it, and the files of the parent and the gateway. Everything lives in
/// one private directory that is removed at the end.
pub struct World {
    directory: tempfile::TempDir,
    /// How it was made.
    pub options: Options,
    /// The KMS stand-in.
    pub kms: Program,
    kms_address: String,
    /// May administrate the KMS key.
    pub admin: Credentials,
    /// What the parent instance has.
    pub role: Credentials,
    /// Of the deployment; the same in every bundle.
    pub key_id: String,
    /// All accounts, as `nitro-sign key-gen` listed them.
    pub accounts: Vec<Account>,
}

impl Worlds {
    /// Provisions everything that has to be there before a parent starts, with the operator's own tool.
    pub fn provision(options: Options, step: Step<'_>) -> Result<World> {
        let directory = private_directory()?;
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("logs"))?;

        let mut clock = Instant::now();
        let mut done = |what: &str| {
            step(what, clock.elapsed());
            clock = Instant::now();
        };

        run(Command::new(binary("emulator")?).args(["authority", "--dir"]).arg(at("authority")), None)?;
        let (admin, role) = (Credentials::generate("admin"), Credentials::generate("nitro-sign-parent"));
        let given = options.qemu.as_ref().and_then(|qemu| qemu.given.as_ref());
        let kms_authority = given.map(|image| image.kms_authority.as_path());
        let (kms, kms_address) = start_kms(directory.path(), &admin, &role, kms_authority)?;
        done("start the KMS stand-in");

        certificates(directory.path())?;
        done("make the client CA, the relay CA and the gateway's certificate");

        let mut world = World {
            directory,
            options,
            kms,
            kms_address,
            admin,
            role,
            key_id: String::new(),
            accounts: Vec::new(),
        };
        world.nitro_sign(
            &["init", "--party", ENCLAVE_PARTY, "--create-kms-key", "--admin", &world.admin.arn, "--dir"],
            &["deployment"],
            None,
        )?;
        done("nitro-sign init: age identity made in memory, encrypted by KMS");

        world.key_gen()?;
        done("nitro-sign key-gen: shares dealt, bundle sealed, identity bound to it");

        world.write_parent_files("ff".repeat(48).as_str())?;
        let pcrs = world.measure()?;
        let pcr0 = pcrs["PCR0"].as_str().context("the measurement names no PCR0")?.to_owned();
        world.write_parent_toml(|parent| parent["enclave"]["pcr0"] = pcr0.as_str().into())?;
        done("nitro-sign measure: PCR0 is known before anything runs");

        world.apply_policy(&[&pcr0], &[])?;
        done("nitro-sign policy: the key is released to this PCR0 only");
        Ok(world)
    }
}

impl World {
    /// A path inside the world's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The operator's tool, with access to the emulated KMS as its administrator.
    pub fn nitro_sign(&self, arguments: &[&str], files: &[&str], input: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut command = Command::new(binary("nitro-sign")?);
        command
            .args(["--region", REGION, "--kms-endpoint", &format!("tcp:{}", self.kms_address), "--kms-ca"])
            .arg(self.path("kms-ca.pem"))
            .env("AWS_ACCESS_KEY_ID", &self.admin.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &self.admin.secret_access_key)
            .env_remove("AWS_SESSION_TOKEN")
            .args(arguments)
            .args(files.iter().map(|file| self.path(file)));
        run(&mut command, input)
    }

    fn key_gen(&mut self) -> Result<()> {
        let recipient = self.nitro_sign(&["cosigner", "--identity"], &["gateway-identity.txt"], None)?;
        let recipient: serde_json::Value = serde_json::from_slice(&recipient)?;
        let recipient =
            recipient["recipient"].as_str().context("nitro-sign cosigner printed no recipient")?;
        let cosigner = format!("{GATEWAY_PARTY}={recipient}={}", self.path("gateway.json.age").display());

        let keys = account_keys(&self.options);
        let list: Vec<_> = keys.iter().map(|(id, scheme, _)| json!({"id": id, "scheme": scheme})).collect();
        fs::write(self.path("accounts.json"), serde_json::to_vec(&list)?)?;
        let import: serde_json::Map<_, _> = keys
            .iter()
            .map(|(id, scheme, secret)| {
                (id.clone(), json!({"scheme": scheme, "secret": hex::encode(secret)}))
            })
            .collect();
        let (client_ca, relay_ca) = (self.path("client-ca.pem"), self.path("relay-ca.pem"));
        let (accounts, deployment) = (self.path("accounts.json"), self.path("deployment"));
        self.nitro_sign(
            &[
                "key-gen",
                "--cosigner",
                &cosigner,
                "--client-ca",
                text(&client_ca)?,
                "--relay-ca",
                text(&relay_ca)?,
                "--accounts",
                text(&accounts)?,
                "--import",
                "-",
                "--dir",
                text(&deployment)?,
            ],
            &[],
            Some(&serde_json::to_vec(&import)?),
        )?;
        self.accounts = serde_json::from_slice(&fs::read(self.path("deployment/accounts.json"))?)?;
        self.key_id = self.deployment()?.kms_key_id;
        Ok(())
    }

    /// What the operator's tool wrote about the deployment.
    pub fn deployment(&self) -> Result<Deployment> {
        Ok(toml::from_str(&fs::read_to_string(self.path("deployment/deployment.toml"))?)?)
    }

    /// Makes what is measured (`enclave.toml`, or the image with it) and writes `parent.toml` with the given PCR0 pinned.
    pub fn write_parent_files(&self, pcr0: &str) -> Result<()> {
        let kms_roots_pem = fs::read_to_string(self.path("kms-ca.pem"))?;
        if let Some(qemu) = &self.options.qemu {
            if qemu.given.is_none() {
                qemu.build_image(&self.path("image"), &kms_roots_pem)?;
            }
        } else {
            let enclave = EnclaveConfig {
                parent: if self.options.vsock { "vsock:1" } else { "unix-guest:vm.vsock" },
                nsm: "unix:nsm.sock",
                sign_service: binary("sign-service")?,
                work_dir: "work",
                kms_roots_pem,
            };
            fs::write(self.path("enclave.toml"), toml::to_string(&enclave)?)?;
        }
        let credentials = json!({
            "access_key_id": self.role.access_key_id,
            "secret_access_key": self.role.secret_access_key,
        });
        write_private(&self.path("credentials.json"), credentials.to_string().as_bytes())?;
        self.write_parent_toml(|parent| parent["enclave"]["pcr0"] = pcr0.into())
    }

    /// The `[enclave]` table of `parent.toml`, but for the pinned PCR0.
    fn enclave_table(&self) -> Result<serde_json::Value> {
        let program = |name: &str, command: &str| -> Result<Vec<String>> {
            let mut line =
                vec![text(&binary(name)?)?.to_owned(), command.to_owned(), "--authority-dir".to_owned()];
            line.push(text(&self.path("authority"))?.to_owned());
            if self.options.debug_mode {
                line.push("--debug-mode".to_owned());
            }
            Ok(line)
        };
        let attestation_root = self.path("authority/root.pem");
        Ok(match &self.options.qemu {
            Some(qemu) => json!({
                "backend": "qemu",
                "attestation_root": attestation_root,
                "qemu": {
                    "image": match &qemu.given {
                        Some(image) => image.eif.clone(),
                        None => self.path("image/image.eif"),
                    },
                    "qemu": [qemu.qemu],
                    "vsock_device": [qemu.vsock_device],
                    "nsm_device": program("emulator", "nsm-device")?,
                    "memory_mib": qemu.memory_mib,
                },
            }),
            None => json!({
                "backend": "process",
                "attestation_root": attestation_root,
                "process": {
                    "enclave": binary("enclave")?,
                    "sign_service": binary("sign-service")?,
                    "config": self.path("enclave.toml"),
                    "hypervisor": program("emulator", "nsm")?,
                    "vsock": self.options.vsock,
                },
            }),
        })
    }

    /// Writes `parent.toml` as the deployment asks, after `edit` had its way with it.
    pub fn write_parent_toml(&self, edit: impl FnOnce(&mut toml::Value)) -> Result<()> {
        let deployment = self.deployment()?;
        let path = self.path("parent.toml");
        let pcr0 = match fs::read_to_string(&path) {
            Ok(existing) => toml::from_str::<toml::Value>(&existing)?["enclave"]["pcr0"].clone(),
            Err(_) => "".into(),
        };
        let mut parent = toml::Value::try_from(json!({
            "runtime_dir": self.path("run"),
            "enclave": self.enclave_table()?,
            "ciphertexts": {
                "identity": self.path("deployment/age-identity.kms"),
                "bundle": self.path("deployment/service_key_shares.json.age"),
            },
            "bundle": {"epoch": deployment.epoch, "sha256": deployment.bundle_sha256},
            "kms": {
                "region": REGION,
                "key_id": deployment.kms_key_id,
                "upstream": self.kms_address,
                "timeout_ms": self.options.kms_timeout_ms,
                "credentials_file": self.path("credentials.json"),
            },
            "ingress": {"listen": "127.0.0.1:0"},
            "limits": {
                "max_sessions": self.options.max_sessions,
                "session_deadline_ms": self.options.session_deadline_ms,
                "boot_timeout_ms": BOOT_TIMEOUT_MS,
            },
        }))?;
        parent["enclave"].as_table_mut().context("not a table")?.insert("pcr0".into(), pcr0);
        edit(&mut parent);
        fs::write(path, toml::to_string(&parent)?)?;
        Ok(())
    }

    /// The PCRs that the configured image will have.
    pub fn measure(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.nitro_sign(&["measure", "--parent"], &["parent.toml"], None)?)?)
    }

    /// Renders the key policy with the operator's tool and puts it in force.
    pub fn apply_policy(&self, pcr0: &[&str], pcr16: &[&str]) -> Result<()> {
        let mut arguments = vec!["policy", "--apply", "--role", &self.role.arn, "--admin", &self.admin.arn];
        arguments.extend(pcr0.iter().flat_map(|pcr| ["--pcr0", pcr]));
        arguments.extend(pcr16.iter().flat_map(|pcr| ["--pcr16", pcr]));
        arguments.push("--dir");
        self.nitro_sign(&arguments, &["deployment"], None).map(drop)
    }

    /// KMS as its administrator, for what no operator would do.
    pub fn kms_admin(&self) -> Result<KmsAdmin<'_>> {
        KmsAdmin::new(self, &self.kms_address)
    }

    /// Tells the KMS stand-in to misbehave: see `emulator kms --help`.
    pub fn kms_fault(&self, fault: &serde_json::Value) -> Result<()> {
        Ok(fs::write(self.path("kms-fault.json"), fault.to_string())?)
    }

    /// Starts a parent on `parent.toml`.
    pub fn start_parent(&self) -> Result<Node> {
        Node::start(self)
    }

    /// Starts the gateway in front of a node that serves.
    pub fn start_gateway(&self, ingress: &str, pcr0: &str) -> Result<Gateway> {
        let config = json!({
            "listen": "127.0.0.1:0",
            "shares": self.path("gateway.json.age"),
            "identity_file": self.path("gateway-identity.txt"),
            "tls_certificate": self.path("client.pem"),
            "tls_key": self.path("client.key"),
            "probe_interval_ms": 1000,
            "trust": {
                "attestation_root": self.path("authority/root.pem"),
                "pcr0": [pcr0],
                "bundle_sha256": [self.deployment()?.bundle_sha256],
            },
            "nodes": [{"name": "node-a", "address": ingress}],
        });
        let path = self.path("gateway.toml");
        fs::write(&path, toml::to_string(&toml::Value::try_from(config)?)?)?;
        let mut command = Command::new(binary("gateway")?);
        Gateway::start(Program::start("gateway", command.arg("--config").arg(path), &self.path("logs"))?)
    }

    /// Everything that any program logged, for tests that look for secrets.
    pub fn all_logs(&self) -> Result<String> {
        let mut all = String::new();
        for entry in fs::read_dir(self.path("logs"))? {
            all.push_str(&fs::read_to_string(entry?.path())?);
        }
        Ok(all)
    }

    /// The root certificate of the attestation documents, PEM.
    pub fn root_certificate(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("authority/root.pem"))?)
    }
}

/// `deployment.toml`, as far as it is needed here.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Deployment {
    /// The KMS key.
    pub kms_key_id: String,
    /// The enclave's age recipient.
    pub recipient: String,
    /// Epoch of the bundle.
    pub epoch: u64,
    /// SHA-256 of the sealed bundle, hex.
    #[serde(default)]
    pub bundle_sha256: String,
}

#[derive(serde::Serialize)]
struct EnclaveConfig {
    parent: &'static str,
    nsm: &'static str,
    sign_service: PathBuf,
    work_dir: &'static str,
    kms_roots_pem: String,
}

/// `authority` is the directory with its TLS authority; without one it makes its own.
fn start_kms(
    directory: &Path,
    admin: &Credentials,
    role: &Credentials,
    authority: Option<&Path>,
) -> Result<(Program, String)> {
    fs::write(directory.join("kms-fault.json"), r#"{"mode":"none"}"#)?;
    let mut command = Command::new(binary("emulator")?);
    command
        .args(["kms", "--listen", "127.0.0.1:0", "--host"])
        .arg(format!("kms.{REGION}.amazonaws.com"))
        .arg("--state-dir")
        .arg(directory)
        .arg("--attestation-root")
        .arg(directory.join("authority/root.pem"))
        .arg("--fault-file")
        .arg(directory.join("kms-fault.json"))
        .arg("--refused-document")
        .arg(directory.join("kms-refused.cose"));
    if let Some(authority) = authority {
        command.arg("--authority-dir").arg(authority);
    }
    for credentials in [admin, role] {
        command.arg("--principal").arg(credentials.principal());
    }
    let mut kms = Program::start("kms", &mut command, &directory.join("logs"))?;
    let ready = kms.ready()?;
    let address = ready["address"].as_str().context("the KMS stand-in printed no address")?.to_owned();
    Ok((kms, address))
}

/// A directory in memory where there is one, since the enclave's private files are written below it; its name is short
/// because paths of unix sockets are limited to 108 bytes.
fn private_directory() -> Result<tempfile::TempDir> {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .prefix("nitro-sign-")
        .tempdir_in(&base)
        .with_context(|| format!("cannot make a private directory in {}; is it writable?", base.display()))
}

/// The CA of the gateway's client certificate, that certificate, and a CA for the relay.
fn certificates(directory: &Path) -> Result<()> {
    let (client_ca, certificate, key) = crate::world::client_certificate("Sign Gateway")?;
    fs::write(directory.join("client-ca.pem"), client_ca)?;
    fs::write(directory.join("client.pem"), certificate)?;
    write_private(&directory.join("client.key"), key.as_bytes())?;
    fs::write(directory.join("relay-ca.pem"), certificate_authority("relay CA")?.pem())?;
    Ok(())
}

/// A fresh CA and a client certificate from it: (CA, certificate, key), all PEM.
pub fn client_certificate(name: &str) -> Result<(String, String, String)> {
    let ca = certificate_authority("client CA")?;
    let key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = parameters.signed_by(&key, &ca)?;
    Ok((ca.pem(), certificate.pem(), key.serialize_pem()))
}

fn certificate_authority(name: &str) -> Result<rcgen::CertifiedIssuer<'static, rcgen::KeyPair>> {
    let key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    Ok(rcgen::CertifiedIssuer::self_signed(parameters, key)?)
}

fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// Keys to import, so that a seed gives the same accounts again.
fn account_keys(options: &Options) -> Vec<(String, &'static str, [u8; 32])> {
    let mut rng = match options.seed {
        Some(seed) => StdRng::seed_from_u64(seed),
        None => StdRng::from_entropy(),
    };
    let mut keys = Vec::new();
    for &scheme in options.schemes {
        for number in 1..=options.accounts_per_scheme {
            let mut secret = rng.r#gen::<[u8; 32]>();
            // Below the order of secp256k1, whatever the rest is.
            secret[0] &= 0x7f;
            keys.push((format!("{scheme}-{number}"), scheme, secret));
        }
    }
    keys
}

pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
