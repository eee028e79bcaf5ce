//! A machine in QEMU that plays the parent instance: its kernel has vsock with the loopback, its root file system is this
//! machine's, read only, and its first program ([`init`]) runs the demo and ends it, or makes way for systemd, which runs one
//! of the stories in `vm-tests/`.

pub mod init;
mod story;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::program::binary;

/// Names of the two shared directories in the machine.
const ROOT: &str = "root";
const OUT: &str = "out";
/// The variable in the environment of the machine's first program that names the directory that is shared for writing.
const OUT_VARIABLE: &str = "PARENT_VM_OUT";
/// The demo's options, in that directory.
const OPTIONS: &str = "options.json";
/// What the demo ended with, in the same place.
const EXIT_STATUS: &str = "exit-status";
/// What the machine mounts anew: nothing below is the host's.
const HIDDEN: [&str; 3] = ["/dev", "/proc", "/sys"];
/// The same where systemd is the first program.
const HIDDEN_FROM_STORIES: [&str; 5] = ["/run", "/tmp", "/var/lib", "/var/log", "/var/tmp"];
/// A story's name, and the directory it is in: further variables, if the machine is to play one.
const STORY_VARIABLE: &str = "PARENT_VM_STORY";
const STORIES_VARIABLE: &str = "PARENT_VM_STORIES";
/// For the whole run; a story's own time, in its unit, is less.
const TIMEOUT: Duration = Duration::from_mins(15);
/// The longest command line that the kernel reads whole, bytes (COMMAND_LINE_SIZE of x86, with its end), less what QEMU
/// itself adds for the two devices, which is less than 64 bytes for each.
const MAX_COMMAND_LINE: usize = 2048 - 1 - 2 * 64;

/// What the machine is made of.
#[derive(Debug, Clone)]
pub struct ParentVm {
    /// Linux with `nix/parent-vm.config`.
    pub kernel: PathBuf,
    /// `qemu-system-x86_64` with 9P.
    pub qemu: PathBuf,
    /// Memory of the machine, MiB.
    pub memory_mib: u32,
}

impl ParentVm {
    /// As `cargo xtask vm --parent` lays it out below `target`.
    pub fn in_target(target: &Path) -> Result<Self> {
        let kernel = target.join("vm-parent/bzImage");
        let qemu = target.join("qemu/qemu-system-x86_64");
        for file in [&kernel, &qemu] {
            ensure!(file.exists(), "no {}; `cargo xtask vm --parent` makes it", file.display());
        }
        Ok(Self { kernel, qemu, memory_mib: 2048 })
    }

    /// Boots the machine, runs the demo in it with these options, and returns what it ended with. What the machine prints
    /// goes to `console`; the report and the demo's exit status, to the directory `out`.
    pub fn run(&self, out: &Path, options: &[String], console: Stdio) -> Result<u8> {
        let out = emptied(out)?;
        fs::write(out.join(OPTIONS), serde_json::to_vec(options)?)?;
        let words = [(OUT_VARIABLE, out.as_path())];
        check_visible(&out, &HIDDEN)?;
        self.boot(&out, "demo", &command_line(&words)?, console)
    }

    /// Boots the machine with systemd, plays the story `name` of the directory `stories` in it, and returns what its script
    /// ended with. What the story and the machine say goes to `console`; the exit status, to the directory `out`.
    pub fn play(&self, out: &Path, stories: &Path, name: &str, console: Stdio) -> Result<u8> {
        let out = emptied(out)?;
        let script = stories.join(name).with_extension("py");
        ensure!(script.is_file(), "no story {}", script.display());
        let stories = stories.canonicalize()?;
        for path in [&out, &stories] {
            check_visible(path, &HIDDEN)?;
            check_visible(path, &HIDDEN_FROM_STORIES)?;
        }
        let words =
            [(OUT_VARIABLE, out.as_path()), (STORIES_VARIABLE, &stories), (STORY_VARIABLE, Path::new(name))];
        self.boot(&out, "story", &command_line(&words)?, console)
    }

    fn boot(&self, out: &Path, what: &str, command_line: &str, console: Stdio) -> Result<u8> {
        let machine = Command::new(&self.qemu)
            .args(self.arguments(out, command_line)?)
            .stdin(Stdio::null())
            .stdout(console)
            .spawn()
            .with_context(|| format!("cannot start {}", self.qemu.display()))?;
        let ended = Machine(machine).wait(TIMEOUT)?;
        let status = out.join(EXIT_STATUS);
        let Ok(text) = fs::read_to_string(&status) else {
            bail!("the machine ended ({ended}) before the {what} did; its console says why");
        };
        text.trim().parse().with_context(|| format!("{} holds {text:?}", status.display()))
    }

    fn arguments(&self, out: &Path, command_line: &str) -> Result<Vec<String>> {
        let memory = format!("{}M", self.memory_mib);
        let out = format!("local,id=out,path={},security_model=none", escaped(out)?);
        let options: [&[&str]; 13] = [
            &["-M", "microvm,acpi=off,pcie=off,rtc=on,accel=tcg"],
            &["-cpu", "max", "-smp", "1"],
            &["-m", &memory],
            &["-no-reboot", "-nodefaults", "-no-user-config"],
            &["-run-with", "exit-with-parent=on"],
            &["-display", "none"],
            &["-serial", "stdio"],
            &["-fsdev", "local,id=root,path=/,security_model=none,multidevs=remap,readonly=on"],
            &["-device", "virtio-9p-device,fsdev=root,mount_tag=root"],
            &["-fsdev", &out],
            &["-device", "virtio-9p-device,fsdev=out,mount_tag=out"],
            &["-kernel", self.kernel.to_str().context("the kernel's path is not UTF-8")?],
            &["-append", command_line],
        ];
        Ok(options.concat().into_iter().map(str::to_owned).collect())
    }
}

/// A path as the value of one of QEMU's options.
fn escaped(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.replace(',', ",,"))
}

/// The directory for what comes out of the machine, without what an earlier one left.
fn emptied(out: &Path) -> Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let out = out.canonicalize()?;
    for stale in [EXIT_STATUS, "report.json"] {
        let stale = out.join(stale);
        // One that stays would be taken for this run's.
        match fs::remove_file(&stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", stale.display()));
            }
            _ => {}
        }
    }
    Ok(out)
}

fn check_visible(path: &Path, hidden: &[&str]) -> Result<()> {
    match hidden.iter().find(|hidden| path.starts_with(hidden)) {
        Some(hidden) => {
            bail!(
                "{} is below {hidden}, of which the machine has its own; use another directory",
                path.display()
            )
        }
        None => Ok(()),
    }
}

/// - `reboot=t`: a triple fault ends QEMU; with one processor and `-no-reboot` nothing else does.
/// - `tsc=reliable tsc_early_khz=`: the guest's counter is the host's, and measured on a loaded host it would be wrong.
/// - what the kernel does not know becomes the environment of [`init`].
fn command_line(variables: &[(&str, &Path)]) -> Result<String> {
    let init = binary("parent-vm-init")?;
    check_visible(&init, &HIDDEN)?;
    let clock = parent::backend::qemu::host_tsc_khz()
        .map(|khz| format!("tsc=reliable tsc_early_khz={khz} "))
        .unwrap_or_default();
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| Ok(format!("{name}={}", word(value)?)))
        .collect::<Result<_>>()?;
    let line = format!(
        "console=ttyS0 quiet acpi=off reboot=t panic=-1 {clock}random.trust_cpu=on root={ROOT} rootfstype=9p ro \
         rootflags=trans=virtio,version=9p2000.L,msize=262144,cache=loose init={} {}",
        word(&init)?,
        variables.join(" ")
    );
    ensure!(
        line.len() <= MAX_COMMAND_LINE,
        "the kernel's command line has {} bytes, at most {MAX_COMMAND_LINE} fit; use shorter paths",
        line.len()
    );
    Ok(line)
}

/// One word of the kernel's command line.
fn word(path: &Path) -> Result<&str> {
    let plain = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"');
    path.to_str().filter(plain).with_context(|| {
        format!("\"{}\" does not fit on the kernel's command line; use a path of plain characters, without spaces", path.display())
    })
}

/// QEMU; killed if it is not waited for to its end.
struct Machine(Child);

impl Machine {
    fn wait(mut self, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.to_string());
            }
            ensure!(Instant::now() < deadline, "the machine still runs after {} s", timeout.as_secs());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_the_kernel_would_cut_or_quote_are_refused() {
        for text in ["", "a b", "a\"b", "a\tb", "ä"] {
            assert!(word(Path::new(text)).is_err(), "{text:?}");
        }
        assert_eq!(word(Path::new("/a=b,c")).unwrap(), "/a=b,c");
    }

    #[test]
    fn what_an_earlier_run_left_is_removed_or_there_is_no_run() {
        let out = tempfile::tempdir().unwrap();
        let status = out.path().join(EXIT_STATUS);
        fs::write(&status, "0").unwrap();
        emptied(out.path()).unwrap();
        assert!(!status.exists());
        // Cannot be removed as a file, by root neither.
        fs::create_dir(&status).unwrap();
        let error = emptied(out.path()).unwrap_err().to_string();
        assert!(error.contains("cannot remove") && error.contains(EXIT_STATUS), "{error}");
    }

    #[test]
    fn a_comma_in_a_path_does_not_end_qemus_option() {
        assert_eq!(escaped(Path::new("/a,b")).unwrap(), "/a,,b");
    }
}
