//! Programs and headers of the operating system that a command needs, and the Debian packages they come in.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use crate::command::{on_path, run};

/// A Debian package, and what shows that it, or another system's equivalent, is there.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) proof: Proof,
}

/// Where a system has its own programs, whatever PATH says.
const SYSTEM: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/lib/systemd"];

pub(crate) enum Proof {
    Program(&'static str),
    /// A program in one of the system's own directories.
    System(&'static str),
    Header(&'static str),
    /// A name that pkg-config knows.
    Library(&'static str),
}

pub(crate) const fn program(name: &'static str, program: &'static str) -> Package {
    Package { name, proof: Proof::Program(program) }
}

pub(crate) const fn system(name: &'static str, program: &'static str) -> Package {
    Package { name, proof: Proof::System(program) }
}

pub(crate) const fn header(name: &'static str, header: &'static str) -> Package {
    Package { name, proof: Proof::Header(header) }
}

pub(crate) const fn library(name: &'static str, library: &'static str) -> Package {
    Package { name, proof: Proof::Library(library) }
}

impl Package {
    fn is_there(&self) -> bool {
        let (probe, arguments) = match self.proof {
            Proof::Program(program) => return on_path(program).is_some(),
            Proof::System(program) => {
                return SYSTEM.iter().any(|directory| Path::new(directory).join(program).is_file());
            }
            Proof::Header(header) => {
                ("cc", vec!["-E", "-x", "c", "-include", header, "-o", "/dev/null", "/dev/null"])
            }
            Proof::Library(library) => ("pkg-config", vec!["--exists", library]),
        };
        let status = Command::new(probe).args(arguments).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }
}

/// Checks that all of it is there. What is missing is installed where that is possible without asking anybody: by root on
/// Debian, which is what a CI runner is. Otherwise the error has the one command to type.
pub(crate) fn need(packages: &[Package]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --yes --no-install-recommends {}", missing.join(" "));
    if !(is_root() && on_path("apt-get").is_some()) {
        bail!("not installed: {}. On Debian: {install}", missing.join(", "));
    }
    eprintln!("==> missing on this machine: {}", missing.join(", "));
    if apt_get(&install).is_err() {
        // A fresh container has no package lists.
        apt_get("apt-get update")?;
        apt_get(&install)?;
    }
    let still = self::missing(packages);
    if !still.is_empty() {
        bail!("still not there after `{install}`: {}", still.join(", "));
    }
    Ok(())
}

pub(crate) fn apt_get(line: &str) -> Result<()> {
    eprintln!("==> {line}");
    run(Command::new("sh").args(["-c", line]).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().filter(|package| !package.is_there()).map(|package| package.name).collect()
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_missing() {
        let packages = [
            program("dash", "sh"),
            program("no-such-package", "no-such-program"),
            system("dash", "sh"),
            system("no-system-package", "no-such-program"),
            header("libc6-dev", "stdio.h"),
            header("no-such-library-dev", "no/such/header.h"),
        ];
        assert_eq!(missing(&packages), ["no-such-package", "no-system-package", "no-such-library-dev"]);
    }
}
