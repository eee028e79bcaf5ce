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

use std::{fs, path::PathBuf};

use anyhow::{Context as _, anyhow};

use crate::aws::{
    args::{Identity, ServiceArgs},
    authority::Kind,
    fault::FaultFile,
    region_of,
    sigv4::Principal,
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
    #[command(flatten)]
    service: ServiceArgs,
    /// Name or IP address that clients call it by; its certificate is for all that are given.
    #[arg(long = "host", default_value = "logs.us-east-1.amazonaws.com", num_args = 1..)]
    hosts: Vec<String>,
    /// Region that requests have to be signed for [default: the region in --host; without one there, any]
    #[arg(long)]
    region: Option<String>,
    /// Directory for logs-ca.pem, the certificate authority to trust, and events.jsonl, to which every accepted event is
    /// appended: {"group", "stream", "timestamp": MILLISECONDS, "message"}. Made if it is not there.
    #[arg(long)]
    state_dir: PathBuf,
    /// A principal that no policy allows anything, written as --principal.
    #[arg(long = "principal-without-rights")]
    powerless: Vec<Principal>,
    /// Log group that is there from the beginning; it keeps events for ever.
    #[arg(long = "group", num_args = 1..)]
    groups: Vec<String>,
    /// JSON file that says how to misbehave, read at each request: {"mode": MODE, "times": N, "delay_ms": N,
    /// "operation": NAME}. Modes: none, delay (the same), hang, lose-answer, deny, throttle, unavailable, internal-error. Without
    /// "times" until the file says otherwise; writing the file begins the count again. The operation is PutLogEvents if
    /// the file names no other.
    #[arg(long)]
    fault_file: Option<PathBuf>,
}

/// Serves until the process ends.
pub(crate) async fn run(mut args: Args) -> anyhow::Result<()> {
    let region_of_host = || args.hosts.iter().find_map(|host| region_of("logs", host)).map(str::to_owned);
    let region = args.region.or_else(region_of_host);
    fs::create_dir_all(&args.state_dir)
        .with_context(|| format!("cannot make --state-dir {}", args.state_dir.display()))?;
    let store = Store::new(Record::open(&args.state_dir)?);
    for group in &args.groups {
        let made = names::check_group(group).and_then(|()| store.create_group(group));
        made.map_err(|error| anyhow!("--group {group:?}: {}", error.message.unwrap_or_default()))?;
    }
    let service = Service {
        store,
        faults: Faults::new(FaultFile(args.fault_file)),
        region: region.clone(),
        account: args.service.account.clone(),
        powerless: args.powerless.iter().map(|principal| principal.arn.clone()).collect(),
    };
    args.service.principals.extend(args.powerless);
    let identity = Identity { name: "logs", region, hosts: &args.hosts, authority: AUTHORITY };
    args.service.bind(identity, service).await?.run(&args.state_dir).await
}
