provision()
before = start_serving()
sign()

with subtest("a killed enclave is started again, by systemd"):
    parent.succeed(f"kill -KILL {before['enclave_pid']}")
    parent.wait_until_succeeds(
        f"jq --exit-status '.state == \"Serving\" and .enclave_pid != {before['enclave_pid']}' {STATUS}"
    )
    t.assertGreaterEqual(int(unit("NRestarts")), 1)
    parent.succeed(f"journalctl --boot --unit {UNIT} | grep -F EnclaveExited")

with subtest("it is another enclave of the same image, verified anew"):
    after = status()
    t.assertEqual(after["pcrs"]["0"], before["pcrs"]["0"])
    t.assertNotEqual(after["spki_sha256"], before["spki_sha256"])
    t.assertNotEqual(after["attestation_document"], before["attestation_document"])

with subtest("the gateway notices, verifies and signs"):
    gateway.wait_until_succeeds(
        "curl --silent --fail http://127.0.0.1:8080/v1/nodes"
        f" | jq --exit-status '.[0].state == \"verified\" and .[0].spki_sha256 == \"{after['spki_sha256']}\"'"
    )
    sign()

with subtest("a parent that hangs is noticed and restarted"):
    pid = unit("MainPID")
    parent.succeed(f"kill -STOP {pid}")
    parent.wait_until_succeeds(f"journalctl --boot --unit {UNIT} | grep -i watchdog")
    parent.wait_until_succeeds(f"jq --exit-status '.state == \"Serving\" and .pid != {pid}' {STATUS}")
    sign()
