EVENTS = f"{WORLD}/logs/events.jsonl"
SHIPPER = "nitro-sign-journal"


def shipped() -> list[dict[str, Any]]:
    """What CloudWatch has of the journal, in its order."""
    lines = aws.succeed(f"cat {EVENTS}").splitlines()
    return [json.loads(json.loads(line)["message"]) for line in lines]


def states() -> list[str]:
    """What CloudWatch knows of the parent's states."""
    said = [event for event in shipped() if event.get("unit") == f"{UNIT}.service"]
    return [event["state"] for event in said if event.get("message") == "state"]


def say(words: str) -> None:
    """An entry of the journal."""
    parent.succeed(f"echo '{words}' | systemd-cat --identifier=story")


def wait_for(words: str) -> None:
    aws.wait_until_succeeds(f"grep -F '{words}' {EVENTS}")


provision()

with subtest("the shipper starts, and sends what was written before it did"):
    aws.succeed(f"systemd-run --unit=logs $(type -P provision) logs {WORLD} --listen 0.0.0.0:4434")
    aws.wait_for_open_port(4434)
    aws.succeed(f"cp {WORLD}/logs/logs-ca.pem /tmp/shared/")
    parent.succeed(f"install -m 644 /tmp/shared/logs-ca.pem {MADE}/ && provision journal {WORLD} {MADE}")
    say("before the shipper")
    parent.succeed(f"systemctl start {SHIPPER}")
    parent.succeed(f"systemd-analyze security --threshold=30 {SHIPPER}")
    wait_for("before the shipper")

with subtest("what the parent and the enclave say arrives"):
    start_serving()
    say("after the boot")
    wait_for("after the boot")
    said = [event for event in shipped() if event.get("unit") == f"{UNIT}.service"]
    t.assertEqual(states(), ["Measuring", "Launching", "Unsealing", "Verifying", "Serving"])
    steps = [event["step"] for event in said if "step" in event]
    for step in ["attach", "decrypt", "unseal"]:
        t.assertIn(step, steps)

with subtest("stopped together, as at a shutdown, the parent's end has left the machine when the shipper ends"):
    parent.succeed(f"systemctl stop {UNIT} {SHIPPER}")
    t.assertEqual(states()[-2:], ["Draining", "Stopped"])
    parent.succeed(f"systemctl start {SHIPPER}")

with subtest("a restart of the shipper loses nothing and doubles nothing"):
    for number in range(30):
        if number == 10:
            parent.succeed(f"systemctl stop {SHIPPER}")
        if number == 20:
            parent.succeed(f"systemctl start {SHIPPER}")
        say(f"word {number}")
    wait_for("word 29")
    words = [event["message"] for event in shipped() if event.get("message", "").startswith("word ")]
    t.assertEqual(words, [f"word {number}" for number in range(30)])

with subtest("nor does its crash lose anything"):
    for number in range(30, 50):
        if number == 40:
            parent.succeed(f"systemctl kill --kill-whom=main --signal=KILL {SHIPPER}")
        say(f"word {number}")
    wait_for("word 49")
    words = [event["message"] for event in shipped() if event.get("message", "").startswith("word ")]
    # What was sent and not yet noted may come twice.
    t.assertEqual(sorted(set(words)), sorted(f"word {number}" for number in range(50)))

with subtest("nor does a journal without the entry shipped last, as after a reboot, be it by the clock from the future"):
    parent.succeed(f"systemctl stop {SHIPPER}")
    say("while the entry went")
    cursor = "/var/lib/nitro-sign-journal/cursor"
    parent.succeed(f"sed -i 's/s=..../s=dead/; s/b=..../b=dead/; s/;t=./;t=f/' {cursor} && grep t=f {cursor}")
    parent.succeed(f"systemctl start {SHIPPER}")
    wait_for("while the entry went")

with subtest("the last words of a parent that gives up leave the machine"):
    parent.succeed(f"echo >> {MADE}/enclave.toml")
    start_refused("MeasurementMismatch")
    wait_for("MeasurementMismatch")

with subtest("no secret does, whoever writes it into the journal"):
    parent.succeed(f"systemd-cat --identifier=story cat {WORLD}/gateway-identity.txt")
    say("the last word")
    wait_for("the last word")
    everything = aws.succeed(f"cat {EVENTS}")
    t.assertIn("[redacted]", everything)
    identity = aws.succeed(f"grep AGE-SECRET-KEY- {WORLD}/gateway-identity.txt").strip()
    roles = json.loads(aws.succeed(f"cat {WORLD}/principals.json"))
    for secret in [identity, *(role["secret_access_key"] for role in roles.values())]:
        t.assertNotIn(secret, everything)
