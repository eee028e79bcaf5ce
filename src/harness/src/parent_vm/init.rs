//! The first program in the machine of the parent.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount, umount},
    sys::{
        reboot::{RebootMode, reboot},
        termios::{OutputFlags, SetArg, tcgetattr, tcsetattr},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, getpid, sethostname, sync},
};

use super::{EXIT_STATUS, OPTIONS, OUT, OUT_VARIABLE, STORY_VARIABLE, story};
use crate::{netlink, program::binary};

const CONSOLE: &str = "/dev/ttyS0";
const MEMORY: &str = "/dev/shm";
/// What an exit status is when the demo did not run.
const FAILED: u8 = 125;

/// Sets the machine up, runs the demo, writes down what it ended with, and ends the machine. Where a story is to be played,
/// makes way for systemd instead.
///
/// Returns only if this is no such machine.
pub fn run() -> Result<()> {
    let out = std::env::var_os(OUT_VARIABLE).map(PathBuf::from);
    let out = out.filter(|_| getpid() == Pid::from_raw(1));
    let out =
        out.context("this is the first program of a machine; `cargo xtask vm --parent` makes it one")?;
    let result = match std::env::var_os(STORY_VARIABLE) {
        None => set_up(&out).and_then(|()| demo(&out)),
        Some(_) => story::start(&out).map(|never| match never {}),
    };
    let status = result.unwrap_or_else(|error| {
        eprintln!("the machine's first program: {error:#}");
        FAILED
    });
    if let Err(error) = fs::write(out.join(EXIT_STATUS), format!("{status}\n")) {
        eprintln!("the machine's first program: cannot write the exit status: {error}");
    }
    // An error means that it was not mounted.
    let _ = umount(&out);
    sync();
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    bail!("cannot end the machine: {error}");
}

fn set_up(out: &Path) -> Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_processes()?;
    mount_at("sysfs", "sysfs", Path::new("/sys"), plain | MsFlags::MS_RDONLY, "")?;
    mount_devices()?;
    fs::create_dir(MEMORY).with_context(|| format!("cannot make {MEMORY}"))?;
    mount_at("tmpfs", "tmpfs", Path::new(MEMORY), plain, "mode=1777")?;
    mount_out(out)?;
    take_console()?;
    sethostname("parent").context("cannot set the host name")?;
    netlink::loopback_up().context("cannot bring the loopback interface up")
}

/// Without it `/proc` is the host's, and this process, QEMU.
pub(super) fn mount_processes() -> Result<()> {
    mount_at("proc", "proc", Path::new("/proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "")
}

pub(super) fn mount_devices() -> Result<()> {
    mount_at("devtmpfs", "devtmpfs", Path::new("/dev"), MsFlags::MS_NOSUID, "")
}

pub(super) fn mount_out(at: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at(OUT, "9p", at, flags, "trans=virtio,version=9p2000.L,msize=262144")
}

pub(super) fn mount_at(what: &str, kind: &str, at: &Path, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(what), at, Some(kind), flags, (!options.is_empty()).then_some(options))
        .with_context(|| format!("cannot mount {}", at.display()))
}

/// The kernel looked for a console in the host's `/dev`.
pub(super) fn take_console() -> Result<()> {
    let console = File::options().read(true).write(true).open(CONSOLE)?;
    // Lines end as the programs end them.
    let mut settings = tcgetattr(&console)?;
    settings.output_flags.remove(OutputFlags::OPOST);
    tcsetattr(&console, SetArg::TCSANOW, &settings)?;
    dup2_stdin(&console)?;
    dup2_stdout(&console)?;
    dup2_stderr(&console)?;
    Ok(())
}

fn demo(out: &Path) -> Result<u8> {
    let options: Vec<String> = serde_json::from_slice(&fs::read(out.join(OPTIONS))?)?;
    let mut demo = Command::new(binary("demo")?);
    demo.arg("--vsock").arg("--out").arg(out).args(options);
    demo.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", MEMORY).current_dir("/");
    let demo = demo.spawn().context("cannot start the demo")?;
    let demo = Pid::from_raw(i32::try_from(demo.id())?);
    // Whoever else ends was left by somebody.
    loop {
        let ended = waitpid(None, None).context("cannot wait for the demo")?;
        match ended {
            WaitStatus::Exited(pid, code) if pid == demo => return Ok(u8::try_from(code)?),
            WaitStatus::Signaled(pid, signal, _) if pid == demo => bail!("the demo was ended by {signal}"),
            _ => {}
        }
    }
}
