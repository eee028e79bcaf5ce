//! The machine of the stories in `vm-tests/`, with stories of these tests' own. Not part of the usual tests, for what it needs
//! of this machine: `cargo xtask vm --stories` runs these first.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use harness::parent_vm::ParentVm;
use tempfile::TempDir;

fn target() -> PathBuf {
    harness::binary("demo").unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// Plays a script of this test: its exit status and the console. The directory it was in has `out/`, too.
fn play(script: &str) -> (u8, String, TempDir) {
    // The machine has a /tmp of its own.
    let directory = tempfile::tempdir_in(target()).unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join("vm-tests");
    for name in ["plain", "plain.py", "provision.py", "steps.py"] {
        symlink(own.join(name), directory.path().join(name)).unwrap();
    }
    fs::write(directory.path().join("own.py"), script).unwrap();
    let console = directory.path().join("console.log");
    let out = File::create(&console).unwrap().into();
    let machine = ParentVm::in_target(&target()).unwrap();
    let status = machine.play(&directory.path().join("out"), directory.path(), "own", out);
    let console = String::from_utf8_lossy(&fs::read(console).unwrap()).into_owned();
    (status.unwrap_or_else(|error| panic!("{error:#}\n{console}")), console, directory)
}

#[test]
#[ignore = "cargo xtask vm --stories runs it"]
fn the_machine_is_systemds_runs_nothing_of_the_host_and_leaves_nothing_there() {
    let (status, console, directory) = play(
        r#"
t.assertEqual(parent.succeed("readlink --canonicalize /proc/1/exe").strip(), "/usr/lib/systemd/systemd")
t.assertEqual(parent.succeed("systemd-detect-virt --container || true").strip(), "none")
listed = parent.succeed("systemctl list-units --plain --no-legend --type=service,timer,mount")
units = {line.split()[0] for line in listed.splitlines()}
services = {unit for unit in units if not unit.endswith(".mount")}
t.assertEqual(services, {"story.service", "systemd-journald.service"})
t.assertEqual(aws.succeed("getent hosts gateway parent | wc -l").strip(), "2")
for place in [WORLD, MADE]:
    parent.fail(f"test -e {place}")
parent.succeed("touch /usr/trace /etc/trace /var/trace /root-trace $PARENT_VM_STORIES/trace; rm /etc/hostname")
parent.succeed("id nitro-sign")
modes = parent.succeed("stat --format=%a /run /tmp /var/lib /var/log /var/tmp").split()
t.assertEqual(modes, ["755", "1777", "755", "755", "1777"])
"#,
    );
    assert_eq!(status, 0, "{console}");
    for trace in ["/usr/trace", "/etc/trace", "/var/trace", "/root-trace"] {
        assert!(!Path::new(trace).exists(), "{trace}");
    }
    assert!(!directory.path().join("trace").exists());
    assert!(!fs::read_to_string("/etc/hosts").unwrap().contains("aws gateway parent"));
    assert_eq!(fs::read_to_string(directory.path().join("out/exit-status")).unwrap(), "0\n");
}

#[test]
#[ignore = "cargo xtask vm --stories runs it"]
fn a_story_that_fails_in_the_machine_fails_here_and_shows_where_and_the_journal() {
    let (status, console, _directory) = play(
        r#"
parent.succeed("systemd-run --quiet --unit=words echo said by a service")
for broken in [
    lambda: parent.fail("true"),
    lambda: parent.wait_until_succeeds("false", timeout=1),
    lambda: parent.wait_for_open_port(1, timeout=1),
    lambda: parent.wait_for_unit("absent", timeout=1),
]:
    with t.assertRaises(AssertionError):
        broken()
with subtest("what does not hold"):
    parent.wait_until_succeeds("journalctl --unit words | grep -F 'said by'")
    t.assertEqual(parent.fail("echo output; false"), "output\n")
    parent.succeed("true | false | true")
"#,
    );
    assert_eq!(status, 1, "{console}");
    for words in [
        "subtest failed: what does not hold",
        "own.py\", line 14",
        "`true | false | true` failed (1)",
        "words.service",
    ] {
        assert!(console.contains(words), "no {words:?} in {console}");
    }
}

#[test]
#[ignore = "cargo xtask vm --stories runs it"]
fn a_story_that_hangs_is_stopped_and_shows_where_and_the_journal() {
    let (status, console, _directory) = play(
        r#"
changes = "/run/systemd/transient/story.service.d"
parent.succeed(f"mkdir -p {changes}", f"printf '[Service]\nTimeoutStartSec=1\n' > {changes}/shorter.conf")
parent.succeed("systemctl daemon-reload; sleep infinity")
"#,
    );
    assert_eq!(status, 1, "{console}");
    for words in ["own.py\", line 4", "the story, which has taken too long", "story.service"] {
        assert!(console.contains(words), "no {words:?} in {console}");
    }
}

#[test]
fn a_story_that_is_not_there_or_that_the_machine_could_not_see_is_refused() {
    let machine = ParentVm {
        kernel: PathBuf::from("/nonexistent"),
        qemu: PathBuf::from("/nonexistent"),
        memory_mib: 1,
    };
    let out = tempfile::tempdir_in(target()).unwrap();
    let stories = tempfile::tempdir_in("/tmp").unwrap();
    let play = |name: &str| {
        let nowhere = File::options().write(true).open("/dev/null").unwrap();
        machine.play(out.path(), stories.path(), name, nowhere.into()).unwrap_err().to_string()
    };
    assert!(play("absent").contains("no story"), "{}", play("absent"));
    fs::write(stories.path().join("own.py"), "").unwrap();
    assert!(play("own").contains("is below /tmp, of which the machine has its own"), "{}", play("own"));
}
