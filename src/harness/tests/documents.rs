//! Documents that repeat what the workspace says are compared with it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

const PROGRAMS: [&str; 2] = ["enclave", "sign-service"];
const UPDATE: &str = "NITRO_SIGN_UPDATE_DOCS";

fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "-e",
            "normal",
            "--target",
            "x86_64-unknown-linux-musl",
            "--prefix",
            "none",
        ])
        .args(arguments)
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // Crates of the workspace show their path.
    text.lines()
        .filter(|line| !line.contains("(/"))
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect()
}

/// The crates of the workspace that a program is made of, itself included.
fn own_crates(program: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-e", "normal", "--prefix", "none", "-p", program])
        .current_dir(workspace())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let own = text.lines().filter(|line| line.contains("(/")).filter_map(|line| line.split(' ').next());
    own.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn the_dependency_lists_are_current() {
    let path = workspace().join("docs/dependencies.md");
    let mut document = fs::read_to_string(&path).unwrap();
    for program in PROGRAMS {
        let crates: Vec<_> = tree(&["-p", program]).into_iter().collect();
        let current = format!("```text {program}\n{}\n```", crates.join("\n"));
        let start = document.find(&format!("```text {program}\n")).unwrap();
        let end = start + document[start + 3..].find("```").unwrap() + 6;
        if std::env::var_os(UPDATE).is_some() {
            document.replace_range(start..end, &current);
            fs::write(&path, &document).unwrap();
            continue;
        }
        assert_eq!(&document[start..end], current, "run this test with {UPDATE}=1 to write the list again");
    }
}

#[test]
fn every_direct_dependency_has_a_reason_and_no_other_crate_has() {
    let mut direct = BTreeSet::new();
    for program in PROGRAMS {
        for own in own_crates(program) {
            direct.extend(
                tree(&["--depth", "1", "-p", &own])
                    .into_iter()
                    .map(|line| line.split(' ').next().unwrap().to_owned()),
            );
        }
    }
    let document = fs::read_to_string(workspace().join("docs/dependencies.md")).unwrap();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let explained: BTreeSet<_> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(explained, direct);
}
