import json
from typing import Any

WORLD = "/var/lib/world"
MADE = "/var/lib/nitro-sign"
UNIT = "nitro-sign-parent"
STATUS = "/run/nitro-sign/status.json"


def start_aws(prepare: str = "") -> None:
    """AWS, with a deployment in it: key, identity, shares."""
    start_all()
    aws.wait_for_unit("multi-user.target")
    aws.succeed(f"provision prepare {WORLD} {prepare}")
    aws.succeed(f"systemd-run --unit=kms $(type -P provision) kms {WORLD} --listen 0.0.0.0:4433")
    aws.wait_for_open_port(4433)
    aws.succeed(f"provision deal {WORLD}")
    aws.succeed(f"tar --create --file /tmp/shared/world.tar --directory {WORLD} .")
    for machine in [parent, gateway]:
        machine.wait_for_unit("multi-user.target")
        machine.succeed(f"mkdir -p {WORLD} && tar --extract --file /tmp/shared/world.tar --directory {WORLD}")


def configure_parent(note: str = "", directory: str = MADE) -> str:
    """Ciphertexts, enclave.toml and parent.toml on the parent instance. Returns the PCR0 that is pinned there now. With another
    note enclave.toml, and so PCR0, is another one."""
    pcrs = parent.succeed(f"provision parent {WORLD} /etc/nitro-sign/parent.toml {directory} --note '{note}'")
    parent.succeed(f"chown -R nitro-sign: {MADE}")
    return json.loads(pcrs)["PCR0"]


def allow(*pcr0: str) -> None:
    """KMS releases the key to these images only."""
    aws.succeed(f"provision policy {WORLD} " + " ".join(f"--pcr0 {one}" for one in pcr0))


def start_gateway(*pcr0: str) -> None:
    """A gateway that trusts these images."""
    trusted = " ".join(f"--pcr0 {one}" for one in pcr0)
    gateway.succeed(f"provision gateway {WORLD} /var/lib/gateway --node parent:50051 {trusted}")
    gateway.succeed("systemctl restart gateway")
    gateway.wait_for_open_port(8080)


def provision() -> str:
    """All of this with one image, up to the start of the parent. Returns its PCR0."""
    start_aws()
    pcr0 = configure_parent()
    allow(pcr0)
    start_gateway(pcr0)
    return pcr0


def status() -> dict[str, Any]:
    """What the parent says of itself."""
    return json.loads(parent.succeed(f"cat {STATUS}"))


def unit(name: str) -> str:
    """A property of the parent's unit."""
    return parent.succeed(f"systemctl show --property={name} --value {UNIT}").strip()


def start_serving() -> dict[str, Any]:
    """Starts the parent: systemd is told that it is ready when it serves."""
    parent.succeed(f"systemctl restart {UNIT}")
    said = status()
    t.assertEqual(said["state"], "Serving", said)
    return said


def sign() -> dict[str, Any]:
    """Signs with every account through the gateway, which verifies the node before. Returns what the gateway knows of it."""
    return json.loads(gateway.succeed("provision sign /var/lib/gateway"))


def no_ingress() -> None:
    """Nobody listens where clients connect."""
    gateway.fail("timeout 10 bash -c '</dev/tcp/parent/50051'")


def start_refused(reason: str) -> dict[str, Any]:
    """Starts the parent, which has to give up for good: the reason in its status, its exit code and the journal, no ingress, no
    second try."""
    # Refused by systemd where the unit was never started.
    parent.execute(f"systemctl reset-failed {UNIT}")
    parent.fail(f"systemctl restart {UNIT}")
    said = status()
    t.assertEqual((said["state"], said["reason"]), ("Failed", reason), said)
    t.assertNotIn("Serving", [entry["state"] for entry in said["history"]])
    t.assertEqual(unit("ActiveState"), "failed")
    t.assertEqual(unit("ExecMainStatus"), "77")
    t.assertEqual(unit("NRestarts"), "0")
    parent.succeed(f"journalctl --boot --unit {UNIT} | grep -F {reason}")
    no_ingress()
    return said
