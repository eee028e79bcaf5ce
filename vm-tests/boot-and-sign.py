pcr0 = provision()

with subtest("nothing listens before the enclave is verified"):
    # An enclave that waits for KMS's answer, until it gives up after 10 s.
    aws.succeed("systemctl kill --signal=STOP kms")
    parent.succeed(f"systemctl start --no-block {UNIT}")
    parent.wait_until_succeeds(f"jq --exit-status '.state == \"Unsealing\"' {STATUS}")
    no_ingress()
    t.assertEqual(status()["state"], "Unsealing")
    aws.succeed("systemctl kill --signal=CONT kms")

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
    parent.succeed(f"jq --raw-output .attestation_document {STATUS} | base64 --decode > /tmp/shared/document.cose")
    root = f"{WORLD}/authority/root.pem"
    aws.succeed(f"nitro-sign verify-document --file /tmp/shared/document.cose --root {root} --pcr0 {pcr0}")

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
