//! docs/cli.md names everything that the program takes, and nothing that it does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use clap::CommandFactory as _;

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    std::fs::read_to_string(path).unwrap()
}

fn command() -> clap::Command {
    let mut command = cli::Cli::command();
    command.build();
    command
}

/// A command and all those under it.
fn with_subcommands(command: &clap::Command) -> Vec<&clap::Command> {
    let nested = command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help");
    std::iter::once(command).chain(nested.flat_map(with_subcommands)).collect()
}

/// All long options of a command and those under it, but --help and --version.
fn options(command: &clap::Command) -> BTreeSet<String> {
    with_subcommands(command)
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_long())
        .filter(|name| !["help", "version"].contains(name))
        .map(|name| format!("--{name}"))
        .collect()
}

/// All words in the document that look like long options.
fn options_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
        .filter(|word| {
            *word != "--help" && word.len() > 2 && word.starts_with("--") && !word.starts_with("---")
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_document_has_one_heading_for_each_subcommand_and_no_other() {
    let document = document();
    let headings: BTreeSet<_> =
        document.lines().filter_map(|line| line.strip_prefix("## `nitro-sign ")).collect();
    let subcommands: BTreeSet<_> = command()
        .get_subcommands()
        .filter(|subcommand| subcommand.get_name() != "help")
        .map(|subcommand| format!("{}`", subcommand.get_name()))
        .collect();
    assert_eq!(headings, subcommands.iter().map(String::as_str).collect());
}

#[test]
fn the_document_names_every_option_and_no_other() {
    let command = command();
    let all: BTreeSet<_> =
        command.get_subcommands().flat_map(|subcommand| options(subcommand).into_iter()).collect();
    assert_eq!(options_in(&document()), all);
}

#[test]
fn every_subcommand_and_option_explains_itself() {
    for subcommand in with_subcommands(&command()) {
        assert!(subcommand.get_about().is_some(), "{}", subcommand.get_name());
        for argument in subcommand.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", subcommand.get_name(), argument.get_id());
        }
    }
}
