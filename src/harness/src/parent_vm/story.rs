//! The machine of a story: an overlay in memory over the host's root file system, and systemd, which knows the units of
//! `vm-tests/plain/` and, of the host's, those that it cannot do without.

use std::{
    convert::Infallible,
    fs,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    unistd::{chdir, chroot},
};

use super::{HIDDEN_FROM_STORIES, OUT_VARIABLE, STORIES_VARIABLE, STORY_VARIABLE, init};
use crate::program::binary;

const SYSTEMD: &str = "/usr/lib/systemd";
/// The directory of links to the host's units.
const UNITS: &str = "/etc/systemd/of-the-host";
const OF_THE_HOST: [&str; 14] = [
    "basic.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "network.target",
    "paths.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "sysinit.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "timers.target",
];
/// What the machine calls itself and whom it knows: everybody is here.
const FILES: [(&str, &str); 4] = [
    ("etc/hostname", "parent\n"),
    ("etc/hosts", "127.0.0.1 localhost aws gateway parent\n"),
    // Any: it only names the journal's directory.
    ("etc/machine-id", "6e6974726f2d7369676e2d73746f7279\n"),
    ("etc/systemd/journald.conf", "[Journal]\nStorage=volatile\nRateLimitBurst=0\n"),
];

/// Becomes systemd.
pub(super) fn start(out: &Path) -> Result<Infallible> {
    init::mount_processes()?;
    init::mount_devices()?;
    init::take_console()?;
    let variable = |name| std::env::var(name).with_context(|| format!("{name} is not set"));
    let stories = variable(STORIES_VARIABLE)?;
    let demo = binary("demo")?;
    let programs = demo.parent().context("no directory of programs")?;

    let root = overlay()?;
    for directory in HIDDEN_FROM_STORIES {
        let at = root.join(directory.trim_start_matches('/'));
        let mode = if directory.ends_with("/tmp") { "mode=1777" } else { "mode=0755" };
        init::mount_at("tmpfs", "tmpfs", &at, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, mode)?;
    }
    init::mount_out(&root.join(out.strip_prefix("/")?))?;
    for (path, content) in FILES {
        write(&root.join(path), content)?;
    }
    // Where this is a container's: systemd would take the machine for the container.
    let _ = fs::remove_file(root.join(".dockerenv"));
    units(&root)?;
    switch(&root)?;
    let error = Command::new(Path::new(SYSTEMD).join("systemd"))
        .args(["--unit=story.service", "--show-status=no", "--log-target=journal"])
        .env_clear()
        .env("SYSTEMD_UNIT_PATH", format!("/run/systemd/transient:{stories}/plain:{UNITS}"))
        .env("SYSTEMD_GENERATOR_PATH", "/nonexistent")
        .env("PARENT_VM_PROGRAMS", programs)
        .env(OUT_VARIABLE, out)
        .env(STORY_VARIABLE, variable(STORY_VARIABLE)?)
        .env(STORIES_VARIABLE, stories)
        .exec();
    Err(error).with_context(|| format!("cannot start {SYSTEMD}/systemd"))
}

/// The host's root file system with a layer in memory on top.
fn overlay() -> Result<PathBuf> {
    let memory = Path::new("/run");
    init::mount_at("tmpfs", "tmpfs", memory, MsFlags::empty(), "mode=0755")?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| memory.join(name));
    for directory in [&upper, &work, &root] {
        fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    init::mount_at("overlay", "overlay", &root, MsFlags::empty(), &layers)?;
    Ok(root)
}

/// A new file: nothing of the host's is read for it.
fn write(path: &Path, content: &str) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn units(root: &Path) -> Result<()> {
    let directory = root.join(UNITS.trim_start_matches('/'));
    fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for name in OF_THE_HOST {
        symlink(Path::new(SYSTEMD).join("system").join(name), directory.join(name))?;
    }
    Ok(())
}

/// Makes `root` the root directory, as `switch_root` does.
fn switch(root: &Path) -> Result<()> {
    chdir(root)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("cannot move the root")?;
    chroot(".").context("cannot change to the root")?;
    chdir("/").context("cannot change to the root")
}
