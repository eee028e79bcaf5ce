//! Space on the disk that holds `target/`.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::command::{output, target_directory, workspace};

/// `df -k` and `du -k` count 1024 bytes. Roughly: for people.
const KB_IN_MB: u64 = 1_000_000 / 1024;
const KB_IN_GB: u64 = 1000 * KB_IN_MB;

/// Fails before anything is built where there is no space for it: a build that runs out of space ends after minutes, with a
/// linker's or compiler's words about one of its files.
///
/// `gb` is what `target/` takes after the command, in units of 10⁹ bytes. What is in `target/` counts as there already.
pub(crate) fn need(gb: u64) -> Result<()> {
    let target = target_directory();
    // A clean clone has none yet.
    let disk = target.ancestors().find(|directory| directory.is_dir()).unwrap_or(workspace());
    let free = kilobytes(Command::new("df").args(["-k", "--output=avail"]).arg(disk))?;
    if free >= gb * KB_IN_GB || !target.is_dir() {
        return enough(gb, free, 0, &target);
    }
    enough(gb, free, kilobytes(Command::new("du").arg("-sk").arg(&target))?, &target)
}

fn enough(gb: u64, free: u64, used: u64, target: &Path) -> Result<()> {
    let missing = (gb * KB_IN_GB).saturating_sub(used);
    ensure!(
        free >= missing,
        "{} needs {} MB more, and its disk has {} MB free; free some, or let CARGO_TARGET_DIR name another disk",
        target.display(),
        missing / KB_IN_MB,
        free / KB_IN_MB,
    );
    Ok(())
}

/// The first number of the last line.
fn kilobytes(command: &mut Command) -> Result<u64> {
    let text = output(command)?;
    let number = text.lines().last().and_then(|line| line.split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.with_context(|| format!("{} gave no number: {text}", command.get_program().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_already_needs_no_space_again() {
        let target = Path::new("/there/target");
        assert!(enough(8, 2 * KB_IN_GB, 7 * KB_IN_GB, target).is_ok());
        assert!(enough(8, 0, 9 * KB_IN_GB, target).is_ok());
        let error = enough(8, 2 * KB_IN_GB, KB_IN_GB, target).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("/there/target needs 7000 MB more, and its disk has 2000 MB free; \
                 free some, or let CARGO_TARGET_DIR name another disk"
                .to_owned())
        );
    }

    #[test]
    fn the_tools_of_this_machine_give_numbers() {
        assert!(need(0).is_ok());
        let error = need(1_000_000).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("MB free")));
    }
}
