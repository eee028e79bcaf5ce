//! `emulator logs`: CloudWatch Logs for one account, as far as shipping a journal needs it. It judges signatures, names
//! and batches as AWS does, and forgets everything but `events.jsonl` when it ends.

mod batch;
mod error;
mod fault;
mod names;
mod operations;
mod record;
mod request;
mod store;

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;

use crate::aws::{
    authority::{Authority, Kind},
    fault::FaultFile,
    region_of,
    server::Server,
    sigv4::{Principal, Verifier},
    tls::Tls,
};
use fault::Faults;
use operations::Service;
use record::Record;
use store::Store;

const AUTHORITY: Kind = Kind {
    name: "CloudWatch Logs stand-in (not for production)",
    certificate_file: "logs-ca.pem",
    key_file: "logs-ca.key",
};

/// Options of `emulator logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Name or IP address that clients call it by; its certificate is for all that are given.
    #[arg(long = "host", default_value = "logs.us-east-1.amazonaws.com", num_args = 1..)]
    hosts: Vec<String>,
    /// Region that requests have to be signed for [default: the region in --host; without one there, any]
    #[arg(long)]
    region: Option<String>,
    /// Account that owns the log groups: 12 digits.
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// Directory for logs-ca.pem, the certificate authority to trust, and events.jsonl, to which every accepted event is
    /// appended: {"group", "stream", "timestamp": MILLISECONDS, "message"}. Made if it is not there.
    #[arg(long)]
    state_dir: PathBuf,
    /// Directory with that authority, logs-ca.pem and logs-ca.key; made if it is not there [default: one for this run]
    #[arg(long)]
    authority_dir: Option<PathBuf>,
    /// A principal and its access key, as ARN:ACCESS_KEY_ID:SECRET_ACCESS_KEY; repeat for more.
    #[arg(long = "principal", required = true)]
    principals: Vec<Principal>,
    /// The same for a principal that no policy allows anything.
    #[arg(long = "principal-without-rights")]
    powerless: Vec<Principal>,
    /// Log group that is there from the beginning; it keeps events for ever.
    #[arg(long = "group", num_args = 1..)]
    groups: Vec<String>,
    /// JSON file that says how to misbehave, read at each request: {"mode": MODE, "times": N, "delay_ms": N,
    /// "operation": NAME}. Modes: none, delay, hang, lose-answer, deny, throttle, unavailable, internal-error. Without
    /// "times" until the file says otherwise; writing the file begins the count again. The operation is PutLogEvents if
    /// the file names no other.
    #[arg(long)]
    fault_file: Option<PathBuf>,
}

/// Serves until the process ends.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    crate::aws::check_account(&args.account)?;
    let region =
        args.region.or_else(|| args.hosts.iter().find_map(|host| region_of("logs", host)).map(str::to_owned));
    fs::create_dir_all(&args.state_dir)
        .with_context(|| format!("cannot make {}", args.state_dir.display()))?;
    let store = Store::new(Record::open(&args.state_dir)?);
    for group in &args.groups {
        let made = names::check_group(group).and_then(|()| store.create_group(group));
        made.map_err(|error| anyhow::anyhow!("--group {group:?}: {}", error.message.unwrap_or_default()))?;
    }

    let authority = Authority::open(AUTHORITY, args.authority_dir.as_deref());
    let tls = Tls::generate(&args.hosts, authority.context("the authority of CloudWatch Logs' TLS")?)?;
    let service = Service {
        store,
        faults: Faults::new(FaultFile(args.fault_file)),
        region: region.clone(),
        account: args.account,
        powerless: args.powerless.iter().map(|principal| principal.arn.clone()).collect(),
    };
    let principals = args.principals.into_iter().chain(args.powerless).collect();
    let verifier = Verifier { service: "logs", region, principals };
    Server::bind(args.listen, tls, service, verifier).await?.run(&args.state_dir).await
}
