def kill_sockets(which: str) -> None:
    """The kernel ends sockets under the process that has them (SOCK_DESTROY); there has to be one."""
    killed = parent.succeed(f"ss --no-header --tcp --kill {which} 'sport = :50051'")
    t.assertIn(":50051", killed)


provision()
before = start_serving()
sign()
pid = unit("MainPID")

with subtest("a listener that is killed under the ingress bridge is opened again, and everything verified again"):
    kill_sockets("--listening")
    entered = len(before["history"])
    parent.wait_until_succeeds(
        f"jq --exit-status '.state == \"Serving\" and (.history | length) > {entered}' {STATUS}"
    )
    after = status()
    t.assertEqual([entry["state"] for entry in after["history"][entered:]], ["Verifying", "Serving"])
    t.assertNotEqual(after["attestation_document"], before["attestation_document"])
    parent.succeed(f"journalctl --boot --unit {UNIT} | grep -F 'the ingress bridge died; opening it again'")

with subtest("the enclave and the parent are the same processes"):
    t.assertEqual(after["enclave_pid"], before["enclave_pid"])
    t.assertEqual(after["spki_sha256"], before["spki_sha256"])
    t.assertEqual((unit("MainPID"), unit("NRestarts")), (pid, "0"))

with subtest("clients connect and sign"):
    gateway.succeed("systemctl restart gateway")
    gateway.wait_for_open_port(8080)
    sign()

with subtest("a client whose connection is killed connects again; that alone is no reason to verify"):
    kill_sockets("state established")
    # What is in the middle of a call fails.
    gateway.wait_until_succeeds("provision sign /var/lib/gateway")
    t.assertEqual(status()["history"], after["history"])
