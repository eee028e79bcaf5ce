"""The stories' second runner: one machine plays AWS, the gateway and the parent, and this is what the scripts know of the
NixOS test driver. `cargo xtask vm --stories` makes the machine, whose systemd starts this; see docs/parent-vm.md.
"""

import os
import signal
import subprocess
import sys
import termios
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from unittest import TestCase

STARTED = time.monotonic()
PROGRAMS = ["emulator", "enclave", "gateway", "nitro-sign", "parent", "sign-service"]
# What NixOS's machines have from their configuration.
USERS = ["nitro-sign", "nitro-sign-journal"]
# Of /run/current-system, in the place of NixOS's program of this name: the same restart of the unit.
SWITCH = """#!/bin/sh
set -eu
unit=/run/systemd/transient/nitro-sign-parent.service.d
mkdir -p $unit
cat > $unit/switched.conf <<END
[Service]
ExecStart=
ExecStart=/usr/bin/parent run --config {directory}/parent.toml
END
systemctl daemon-reload
systemctl restart nitro-sign-parent
"""
# Seconds. The driver's are 900; a whole story here takes two minutes.
PATIENCE = 300


def log(words: str) -> None:
    print(f"[{time.monotonic() - STARTED:6.1f}] {words}", flush=True)


def retry(what: str, done: Callable[[], bool], timeout: int) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not in {timeout} s")
        time.sleep(1)


class Machine:
    """The methods of the driver's machines that the stories use, with its rules: bash, `set -euo pipefail`, a second between
    tries."""

    def __init__(self, name: str) -> None:
        self.name = name

    def log(self, words: str) -> None:
        log(f"{self.name}: {words}")

    def execute(self, command: str, timeout: int | None = PATIENCE) -> tuple[int, str]:
        words = ["timeout", str(timeout)] if timeout else []
        words += ["bash", "-c", f"set -euo pipefail; {command}"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stdout

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        output = ""
        for command in commands:
            self.log(f"must succeed: {command}")
            status, said = self.execute(command, timeout)
            if status != 0:
                raise AssertionError(f"`{command}` failed ({status}): {said}")
            output += said
        return output

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        output = ""
        for command in commands:
            self.log(f"must fail: {command}")
            status, said = self.execute(command, timeout)
            if status == 0:
                raise AssertionError(f"`{command}` unexpectedly succeeded: {said}")
            output += said
        return output

    def wait_until_succeeds(self, command: str, timeout: int = PATIENCE) -> str:
        output = ""

        def succeeded() -> bool:
            nonlocal output
            status, output = self.execute(command, timeout)
            return status == 0

        self.log(f"waiting for success: {command}")
        retry(f"`{command}`", succeeded, timeout)
        return output

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: int = PATIENCE) -> None:
        self.wait_until_succeeds(f"true 2> /dev/null < /dev/tcp/{addr}/{port}", timeout)

    def wait_for_unit(self, unit: str, timeout: int = PATIENCE) -> None:
        def active() -> bool:
            _, state = self.execute(f"systemctl is-active {unit}")
            if state.strip() == "failed":
                raise AssertionError(f"{unit} failed")
            return state.strip() == "active"

        self.log(f"waiting for unit {unit}")
        retry(unit, active, timeout)


@contextmanager
def subtest(name: str) -> Iterator[None]:
    log(f"subtest: {name}")
    try:
        yield
    except Exception:
        log(f"subtest failed: {name}")
        raise


def start_all() -> None:
    """They run: this is one."""


def write(path: str, content: str, mode: int) -> None:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.write_text(content)
    place.chmod(mode)


def stop(_signal: int, _frame: FrameType | None) -> None:
    raise AssertionError("systemd stops the story, which has taken too long (TimeoutStartSec of its unit)")


def set_up(stories: Path, programs: Path) -> None:
    """What NixOS makes of machines.nix: users, programs, the template of the parent's configuration."""
    # Whoever started QEMU may not be allowed to read the host's, and nobody logs in.
    for name in ["shadow", "shadow-", "gshadow", "gshadow-"]:
        Path("/etc", name).unlink(missing_ok=True)
    # Names without numbers: those that are free.
    users = "".join(f"u {user} -\n" for user in USERS)
    subprocess.run(["systemd-sysusers", "-"], input=users, text=True, check=True)
    for name in PROGRAMS:
        place = Path("/usr/bin", name)
        place.unlink(missing_ok=True)
        place.touch(mode=0o755)
        subprocess.run(["mount", "--bind", programs / name, place], check=True)
    write("/usr/bin/provision", f'#!/bin/sh\nexec /usr/bin/python3 "{stories}/provision.py" "$@"\n', 0o755)
    for system, directory in [("", "/var/lib/nitro-sign"), ("specialisation/next/", "/var/lib/nitro-sign/next")]:
        switch = SWITCH.format(directory=directory)
        write(f"/run/current-system/{system}bin/switch-to-configuration", switch, 0o755)
    for file in (stories / "plain").glob("*.toml"):
        write(f"/etc/nitro-sign/{file.name}", file.read_text(), 0o644)
    # The group systemd-journal may read it.
    subprocess.run(["systemd-tmpfiles", "--create", "--prefix=/run/log"], check=True)
    Path("/tmp/shared").mkdir()


def play(stories: Path, name: str) -> None:
    known = {machine: Machine(machine) for machine in ["aws", "gateway", "parent"]}
    names = {**known, "start_all": start_all, "subtest": subtest, "t": TestCase()}
    for file in [stories / "steps.py", stories / f"{name}.py"]:
        exec(compile(file.read_text(), file, "exec"), names)


def main() -> None:
    if "PARENT_VM_STORY=" not in Path("/proc/cmdline").read_text():
        sys.exit("plain.py changes the machine it runs on; `cargo xtask vm --stories` makes one for it")
    if sys.stdout.isatty():
        # Lines end as they are written.
        settings = termios.tcgetattr(sys.stdout)
        settings[1] &= ~termios.OPOST
        termios.tcsetattr(sys.stdout, termios.TCSANOW, settings)
    signal.signal(signal.SIGTERM, stop)
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    stories, name = Path(os.environ["PARENT_VM_STORIES"]), sys.argv[1]
    try:
        set_up(stories, Path(os.environ["PARENT_VM_PROGRAMS"]))
        play(stories, name)
    except Exception:
        log(f"{name}: failed")
        traceback.print_exc()
        print("--- the end of the machine's journal ---", flush=True)
        # Without the kernel's words of its boot.
        sources = [f"_TRANSPORT={source}" for source in ["journal", "stdout", "syslog"]]
        options = ["--boot", "--no-pager", "--output=short-monotonic", "--lines=200"]
        subprocess.run(["journalctl", *options, *sources], check=False)
        sys.exit(1)
    log(f"{name}: done")


if __name__ == "__main__":
    main()
