//! `cosigner`: the identity file of a party that is no enclave.

use std::time::SystemTime;

use anyhow::Result;
use aws_sdk_kms::primitives::{DateTime, DateTimeFormat};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use crate::{args::Cosigner, files, print_json, say};

pub(crate) fn run(args: &Cosigner) -> Result<()> {
    let identity = keyshares::Identity::generate();
    let recipient = identity.recipient();
    let now = DateTime::from_secs(DateTime::from(SystemTime::now()).secs()).fmt(DateTimeFormat::DateTime)?;
    let key = identity.to_text();
    // As age-keygen writes it.
    let text =
        Zeroizing::new(format!("# created: {now}\n# public key: {recipient}\n{}", key.expose_secret()));
    files::create_new(&args.identity, text.as_bytes(), files::PRIVATE)?;
    say(format_args!(
        "{} is secret: whoever reads it holds this co-signer's shares.",
        args.identity.display()
    ));
    print_json(&serde_json::json!({ "recipient": recipient, "identity": args.identity }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_private_reads_back_and_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let args = Cosigner { identity: directory.path().join("id.txt") };
        run(&args).unwrap();

        let text = std::fs::read_to_string(&args.identity).unwrap();
        let identity = keyshares::Identity::parse(text.as_bytes()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("# created: 20") && lines[0].ends_with('Z'), "{}", lines[0]);
        assert_eq!(lines[1], format!("# public key: {}", identity.recipient()));
        assert!(lines[2].starts_with("AGE-SECRET-KEY-1"));
        assert_eq!(std::fs::metadata(&args.identity).unwrap().permissions().mode() & 0o777, 0o600);

        assert!(run(&args).unwrap_err().to_string().contains("exists already"));
        assert_eq!(std::fs::read_to_string(&args.identity).unwrap(), text);
    }
}
