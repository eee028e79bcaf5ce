pcr0 = provision()

with subtest("nothing listens before the enclave is verified"):
    no_ingress()

with subtest("the enclave unseals and is verified, over vsock"):
    said = start_serving()
    states = [entry["state"] for entry in said["history"]]
    t.assertEqual(states, ["Fetching", "Measuring", "Launching", "Unsealing", "Verifying", "Serving"])
    t.assertEqual(said["pcrs"]["0"], pcr0)
    # The control channel and the heartbeat.
    sockets = parent.succeed("ss --no-header --listening --vsock")
    t.assertIn(":9000", sockets)
    t.assertIn(":9001", sockets)

with subtest("the archived document verifies elsewhere"):
    aws.succeed(f"echo {said['attestation_document']} | base64 --decode > /tmp/document.cose")
    root = f"{WORLD}/authority/root.pem"
    aws.succeed(f"nitro-sign verify-document --file /tmp/document.cose --root {root} --pcr0 {pcr0}")

with subtest("systemd finds little to complain about (0 to 100)"):
    parent.succeed(f"systemd-analyze security --threshold=30 {UNIT}")

with subtest("every account signs"):
    node = sign()
    t.assertEqual(node["pcrs"]["0"], pcr0)
    t.assertEqual(node["spki_sha256"], said["spki_sha256"])

with subtest("a stop is orderly"):
    parent.succeed(f"systemctl stop {UNIT}")
    t.assertEqual(status()["state"], "Stopped")
    t.assertEqual(unit("ExecMainStatus"), "0")
    no_ingress()
