//! `cargo xtask vm --stories`: the scenarios of `vm-tests/`, each in a machine in QEMU whose first program is this machine's
//! systemd. What happens in it is the harness's `parent-vm` and `vm-tests/plain.py`.

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    command::{step, target_directory, workspace},
    packages::{Package, need, system},
    parent_vm, steps,
};

/// The stories that one machine without NixOS can play.
const STORIES: [&str; 7] = [
    "boot-and-sign",
    "wrong-pcr0",
    "tampered-bundle",
    "enclave-killed",
    "bridge-killed",
    "switch-pcr0",
    "journal",
];

/// What runs in the machine comes from this one, but not from everywhere on PATH: a PATH of its own (`vm-tests/plain.py`).
const PACKAGES: [Package; 6] = [
    system("systemd", "systemd"),
    system("iproute2", "ss"),
    system("jq", "jq"),
    system("curl", "curl"),
    system("openssl", "openssl"),
    system("python3", "python3"),
];

/// Builds what is missing, and plays the stories one after the other. If none is named, all of them, after the tests of the
/// machine itself.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let stories = chosen(names)?;
    need(&PACKAGES)?;
    steps::build()?;
    parent_vm::prepare()?;
    if names.is_empty() {
        step("the machine of the stories", &mut steps::ignored_tests("stories")?)?;
    }
    let target = target_directory();
    let mut failed = Vec::new();
    for story in stories {
        eprintln!("==> {story}");
        let start = Instant::now();
        let mut machine = Command::new(target.join("debug/parent-vm"));
        machine.arg("--target").arg(&target).arg("--stories").arg(workspace().join("vm-tests"));
        let status = machine.arg("--story").arg(story).status().context("cannot start parent-vm")?;
        let words = if status.success() { "" } else { "failed, " };
        eprintln!("==> {story}: {words}{:.0} s", start.elapsed().as_secs_f64());
        if !status.success() {
            failed.push(story);
        }
    }
    ensure!(failed.is_empty(), "these stories failed: {}", failed.join(", "));
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&str>> {
    if names.is_empty() {
        return Ok(STORIES.to_vec());
    }
    if let Some(unknown) = names.iter().find(|name| !STORIES.contains(&name.as_str())) {
        bail!("no such story for one machine: {unknown}; there are {}", STORIES.join(", "));
    }
    Ok(names.iter().map(String::as_str).collect())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    /// What is no story, and the story that only NixOS's machines play.
    const OTHERS: [&str; 4] = ["default", "machines", "parent", "nested-eif"];

    #[test]
    fn every_scenario_has_its_second_runner_or_is_known_to_have_none() {
        let entries = fs::read_dir(workspace().join("vm-tests")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let found: BTreeSet<_> =
            names.filter_map(|name| Some(name.strip_suffix(".nix")?.to_owned())).collect();
        let known = STORIES.iter().chain(&OTHERS).map(|&name| name.to_owned());
        assert_eq!(found, known.collect::<BTreeSet<_>>());
    }

    #[test]
    fn all_stories_are_played_unless_some_are_named_and_unknown_ones_are_refused() {
        assert_eq!(chosen(&[]).unwrap(), STORIES);
        assert_eq!(chosen(&["wrong-pcr0".to_owned()]).unwrap(), ["wrong-pcr0"]);
        for name in ["nested-eif", "--fast"] {
            let error = chosen(&[name.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("boot-and-sign"), "{error}");
        }
    }
}
