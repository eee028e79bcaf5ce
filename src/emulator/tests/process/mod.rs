//! Stand-ins as processes.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command},
};

use serde_json::Value;

/// What it says when it serves.
pub(crate) fn ready(child: &mut Child) -> Value {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Ends the process and gives the lines it logged.
pub(crate) fn log_of(child: &mut Child) -> (String, Vec<Value>) {
    child.kill().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (text, lines)
}

/// What it says when it ends with an error, before it serves.
pub(crate) fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}
