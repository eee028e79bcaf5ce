//! The command line.

use std::path::PathBuf;

use attestation::Pcr;
use clap::{ArgAction, Args, Parser, Subcommand};
use keyshares::Scheme;
use vsock::Endpoint;

/// Set up and look after a nitro-sign deployment.
///
/// A deployment is a directory with the age identity of one enclave, encrypted by KMS, and the bundle of key shares
/// sealed to that identity. Nothing in it is secret in the clear. The usual order is:
///
///   1. nitro-sign init      make the identity, encrypt it with a KMS key
///   2. nitro-sign cosigner  on the co-signer's machine: make its identity
///   3. nitro-sign key-gen   deal the key shares, seal a bundle to each party
///   4. nitro-sign policy    allow exactly one enclave image and one bundle to unseal
///
/// Results are JSON on standard output, explanations go to standard error. Exit codes: 0 done, 1 refused or failed,
/// 2 wrong usage. AWS credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
#[derive(Debug, Parser)]
#[command(name = "nitro-sign", version, verbatim_doc_comment)]
pub struct Cli {
    /// How to reach KMS.
    #[command(flatten)]
    pub kms: KmsOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach KMS.
#[derive(Debug, Args)]
#[command(next_help_heading = "KMS access")]
pub struct KmsOptions {
    /// AWS region, for example eu-central-1. `init` needs it; later commands take it from deployment.toml
    #[arg(long, global = true)]
    pub region: Option<String>,
    /// Connect here instead of tcp:kms.<region>.amazonaws.com:443. The TLS name stays that of KMS
    #[arg(long, global = true, value_name = "tcp:HOST:PORT")]
    pub kms_endpoint: Option<Endpoint>,
    /// Trust only these certificate authorities for KMS's TLS, instead of the public ones
    #[arg(long, global = true, value_name = "PEM")]
    pub kms_ca: Option<PathBuf>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a deployment: make an age identity in memory and encrypt it with KMS
    ///
    /// Writes DIR/age-identity.kms (the identity, encrypted by KMS) and DIR/deployment.toml.
    ///
    /// The identity exists only in this program's memory, and is wiped there. Use a machine without swap. It is bound by
    /// KMS encryption context to "no bundle, epoch 0" until `key-gen` binds it to a bundle.
    #[command(verbatim_doc_comment)]
    Init(Init),
    /// Make a co-signer's age identity file
    ///
    /// Makes an identity file (mode 0600, never overwritten) in the format of age-keygen and prints its recipient.
    ///
    /// A co-signer such as the reference gateway keeps its identity in a file; an enclave never does.
    #[command(verbatim_doc_comment)]
    Cosigner(Cosigner),
    /// Deal the key shares of all accounts and seal one bundle to each party
    ///
    /// Deals the shares of all accounts to the enclave and its co-signers, and seals one bundle to each.
    ///
    /// Each run makes a WHOLE new bundle with the next epoch. Accounts of the earlier bundle are not carried over: their
    /// shares are in no new bundle unless they are dealt again here, from --import. To add accounts, run key-gen with
    /// every account that has to go on signing, importing the secrets of the earlier ones; keep a copy of the
    /// earlier files until the new ones serve. An account whose secret was generated here and kept nowhere else
    /// cannot be moved to a new bundle.
    ///
    /// KMS then re-encrypts the identity for the new bundle and epoch (ReEncrypt: its plaintext stays inside KMS), and
    /// all files change together: service_key_shares.json.age, age-identity.kms, accounts.json, deployment.toml and each
    /// OUTFILE. If the run fails, the earlier ones stay; if it is interrupted while files change, the next command that
    /// reads DIR finishes the change.
    #[command(verbatim_doc_comment)]
    KeyGen(KeyGen),
    /// Render the KMS key policy that lets only one image with one bundle unseal
    ///
    /// Prints the key policy; with --apply, also puts it on the key.
    ///
    /// Administrators may manage the key and make or re-bind ciphertexts, but not decrypt and not create grants. The
    /// enclave's role may only decrypt, and only with an attestation document that has one of the given PCR0 (and PCR16)
    /// values, for the bundle and epoch of DIR. There is no statement for the account root, so IAM policies cannot add
    /// rights; make sure that --admin outlives its people: if no administrator is left, only AWS support can help.
    #[command(verbatim_doc_comment)]
    Policy(Policy),
    /// Print PCR0, PCR1 and PCR2 of the enclave that a parent configuration starts
    Measure(ParentFile),
    /// Print PCR16 of an enclave started with a parent configuration and its bundle
    Pcr16(ParentFile),
    /// Verify an attestation document and print what it says
    ///
    /// Verifies signature, certificate chain and validity of a document, and whatever else is asked for below.
    ///
    /// Documents of debug-mode enclaves (all-zero PCR0) are refused.
    #[command(verbatim_doc_comment)]
    VerifyDocument(VerifyDocument),
    /// Compare the PCRs of two images, or of an image and a release, and say why they differ
    ///
    /// Exit codes of both: 0 the same, 1 different, 2 trouble.
    #[command(subcommand, verbatim_doc_comment)]
    Pcr(PcrCommand),
}

/// The subcommands of `pcr`.
#[derive(Debug, Subcommand)]
pub enum PcrCommand {
    /// Which PCRs differ between two images, and which section, input, compiler or package made them differ
    ///
    /// BASE and HEAD are directories (the result of `nix build .#eif`, or target/image) or one file: a provenance.json, an
    /// image.eif (then only sections are known) or a pcrs.json (then no reasons are known).
    ///
    /// Of a directory, image.eif is measured, and its provenance.json has to say the same.
    #[command(verbatim_doc_comment)]
    Compare(PcrCompare),
    /// Has an image the PCRs of a release?
    ///
    /// Where there is no such file, nothing is checked; it says so and exits with 0.
    #[command(verbatim_doc_comment)]
    Check(PcrCheck),
}

/// Options of `pcr compare`.
#[derive(Debug, Args)]
pub struct PcrCompare {
    /// The earlier image
    pub base: PathBuf,
    /// The later image
    pub head: PathBuf,
    /// Print a comment for a pull request instead of JSON
    #[arg(long)]
    pub markdown: bool,
    /// The derivations of both (`nix path-info --derivation .#eif`): also find the first packages that differ
    #[arg(long, num_args = 2, value_names = ["BASE.drv", "HEAD.drv"])]
    pub derivations: Vec<PathBuf>,
    /// Look for the derivations' inputs in this directory [default: where each of the two files is]
    #[arg(long, value_name = "DIR", requires = "derivations")]
    pub store: Option<PathBuf>,
}

/// Options of `pcr check`.
#[derive(Debug, Args)]
pub struct PcrCheck {
    /// The image, or a directory with it
    pub image: PathBuf,
    /// The PCRs of the release
    #[arg(long, value_name = "release/pcrs.json")]
    pub release: PathBuf,
}

/// Options of `init`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("key").required(true).args(["kms_key", "create_kms_key"]))]
#[command(group = clap::ArgGroup::new("access").args(["admin", "policy"]))]
pub struct Init {
    /// Directory of the deployment; made if missing. Existing deployments are not overwritten
    #[arg(long)]
    pub dir: PathBuf,
    /// Name of the enclave's party in the signing protocol, for example enclave-a
    #[arg(long)]
    pub party: String,
    /// Existing symmetric KMS key: id, ARN, or alias/NAME
    #[arg(long, value_name = "ID")]
    pub kms_key: Option<String>,
    /// Make a new symmetric KMS key, under a policy from the start: --admin or --policy
    #[arg(long, requires = "access")]
    pub create_kms_key: bool,
    /// Administrator of the new key (arn:aws:iam::ACCOUNT:role/NAME or user/NAME), as in `policy`; nobody may decrypt with the
    /// key until `policy --apply`. The caller has to be one of them. Repeatable
    #[arg(long, value_name = "ARN", conflicts_with = "kms_key")]
    pub admin: Vec<String>,
    /// Key policy (JSON) of the new key, as it is
    #[arg(long, value_name = "FILE", conflicts_with = "kms_key")]
    pub policy: Option<PathBuf>,
}

/// Options of `cosigner`.
#[derive(Debug, Args)]
pub struct Cosigner {
    /// The file to make
    #[arg(long, value_name = "FILE")]
    pub identity: PathBuf,
}

/// Options of `key-gen`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["account", "accounts", "import"]))]
pub struct KeyGen {
    /// Directory of the deployment
    #[arg(long)]
    pub dir: PathBuf,
    /// Another party: its name, its age recipient, and where to write its sealed bundle, over an earlier one or where there is
    /// no file yet. Repeatable
    #[arg(long, required = true, value_name = "NAME=RECIPIENT=OUTFILE")]
    // Text: clap quotes what a parser of ours refuses, and that may be a secret key.
    pub cosigner: Vec<String>,
    /// How many parties it takes to sign, 2 to the number of parties
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub threshold: u16,
    /// CA whose clients may ask the enclave for signatures (certificates only)
    #[arg(long, value_name = "PEM")]
    pub client_ca: PathBuf,
    /// CA that authenticates the relay to the enclave (certificates only)
    #[arg(long, value_name = "PEM")]
    pub relay_ca: PathBuf,
    /// Scheme of the account at the same place in the --account list: frost-ed25519 or frost-secp256k1-tr
    #[arg(long, action = ArgAction::Append)]
    pub scheme: Vec<Scheme>,
    /// Id of an account. Repeatable, together with --scheme
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    pub account: Vec<String>,
    /// More accounts: a JSON list [{"id": "…", "scheme": "…"}]
    #[arg(long, value_name = "FILE")]
    pub accounts: Option<PathBuf>,
    /// Existing secrets, a file or - for standard input: {"account id": {"scheme": "…", "secret": "64 hex digits"}}
    ///
    /// frost-ed25519 takes the RFC 8032 seed, frost-secp256k1-tr the secret key; the account's public key stays what
    /// it was. Alone, the file says which accounts there are; with --account or --accounts it may only name accounts
    /// listed there, and the others get new keys. Wipe the file afterwards.
    #[arg(long, value_name = "FILE|-")]
    pub import: Option<PathBuf>,
}

/// Options of `policy`.
#[derive(Debug, Args)]
pub struct Policy {
    /// Directory of the deployment
    #[arg(long)]
    pub dir: PathBuf,
    /// Role of the parent instances (arn:aws:iam::ACCOUNT:role/NAME)
    #[arg(long, value_name = "ARN")]
    pub role: String,
    /// Administrator of the key (arn:aws:iam::ACCOUNT:role/NAME or user/NAME). Repeatable
    #[arg(long, value_name = "ARN", required = true)]
    pub admin: Vec<String>,
    /// PCR0 of an image that may unseal, 96 hex digits; all-zero (debug mode) is refused. Repeatable
    #[arg(long, value_name = "HEX", required = true, num_args = 1..)]
    pub pcr0: Vec<Pcr>,
    /// Also require one of these PCR16 values (see `nitro-sign pcr16`). Repeatable
    #[arg(long, value_name = "HEX", num_args = 1..)]
    pub pcr16: Vec<Pcr>,
    /// Put the policy on the key. The caller has to be one of the administrators
    #[arg(long)]
    pub apply: bool,
}

/// Options of `measure` and `pcr16`.
#[derive(Debug, Args)]
pub struct ParentFile {
    /// The parent's configuration file
    #[arg(long, value_name = "parent.toml")]
    pub parent: PathBuf,
}

/// Options of `verify-document`.
#[derive(Debug, Args)]
pub struct VerifyDocument {
    /// The document: COSE_Sign1 as the NSM made it, or that in base64
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Trust root: aws, or a PEM file with the root certificate
    #[arg(long, value_name = "aws|PEM")]
    pub root: PathBuf,
    /// When the certificates have to be valid: Unix seconds or now. They live for hours: give an archived document's
    /// own time
    #[arg(long, value_name = "SECONDS|now", default_value = "now")]
    pub at: crate::verify_document::At,
    /// Accept only these PCR0 values. Repeatable
    #[arg(long, value_name = "HEX", num_args = 1..)]
    pub pcr0: Vec<Pcr>,
    /// Require this PCR16
    #[arg(long, value_name = "HEX")]
    pub pcr16: Option<Pcr>,
    /// Require this nonce
    #[arg(long, value_name = "HEX")]
    pub nonce: Option<crate::verify_document::Bytes>,
    /// Require this user_data (SHA-256 of the service certificate's SPKI)
    #[arg(long, value_name = "HEX")]
    pub user_data: Option<crate::verify_document::Bytes>,
}
