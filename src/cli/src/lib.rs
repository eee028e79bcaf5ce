//! The operator's tool `nitro-sign`, as a library so that it can be tested: one module a subcommand, and under them
//! the deployment directory, atomic files and access to KMS.

mod accounts;
mod args;
mod aws;
mod cosigner;
mod deployment;
mod files;
mod import;
mod init;
mod key_gen;
mod measure;
mod pcr;
mod policy;
mod update;
mod verify_document;

use std::{io::Write as _, process::ExitCode};

use anyhow::{Context as _, Result};

pub use args::{Cli, Command, KmsOptions};

/// A command line that parses but makes no sense. The program ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}; see `nitro-sign --help`")]
pub struct Usage(pub String);

/// Runs one subcommand. Without an error the exit code is 0, but of `pcr`, which speaks like `diff`.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Pcr(command) => return Ok(pcr::run(&command)),
        Command::Init(args) => init::run(&args, &cli.kms).await,
        Command::Cosigner(args) => cosigner::run(&args),
        Command::KeyGen(args) => key_gen::run(&args, &cli.kms).await,
        Command::Policy(args) => policy::run(&args, &cli.kms).await,
        Command::Measure(args) => measure::run_measure(&args),
        Command::Pcr16(args) => measure::run_pcr16(&args),
        Command::VerifyDocument(args) => verify_document::run(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The result of a command, for programs: one JSON value on standard output.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Text on standard output.
fn print(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// What happened, for people: a line on standard error, without secret keys. If it cannot be written, it is lost and the
/// command goes on: its result and its exit code tell the same.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", without_secret_keys(&line.to_string()));
}

/// How the secret key of an age identity begins, in upper case.
const SECRET_KEY: &str = "AGE-SECRET-KEY-";

/// A text with every secret key cut off behind its first words: errors quote the command line, and people slip.
fn without_secret_keys(text: &str) -> String {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(start) = rest.to_ascii_uppercase().find(SECRET_KEY) {
        let (before, key) = rest.split_at(start + SECRET_KEY.len());
        shown.push_str(before);
        shown.push('…');
        rest = key.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_keys_are_cut_out_of_a_text_and_nothing_else_is() {
        for (text, shown) in [
            ("", ""),
            ("age1xyz is no secret…", "age1xyz is no secret…"),
            ("'g=AGE-SECRET-KEY-1QQQ=f': bad", "'g=AGE-SECRET-KEY-…=f': bad"),
            ("é age-secret-key-1qqq, AGE-SECRET-KEY-1ZZZ", "é age-secret-key-…, AGE-SECRET-KEY-…"),
            ("AGE-SECRET-KEY-", "AGE-SECRET-KEY-…"),
        ] {
            assert_eq!(without_secret_keys(text), shown);
        }
    }
}
