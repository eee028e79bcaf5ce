pcr0 = provision()

with subtest("the image changes, the pin does not: it is not launched"):
    parent.succeed(f"echo >> {MADE}/enclave.toml")
    said = start_refused("MeasurementMismatch")
    t.assertNotIn("Launching", [entry["state"] for entry in said["history"]])
    t.assertIn(pcr0, said["message"])

with subtest("whoever changed the image changes the pin as well: KMS refuses, and its request is on record"):
    changed = configure_parent(note="changed")
    t.assertNotEqual(changed, pcr0)
    said = start_refused("KmsDenied")
    t.assertTrue(said["kms_request_id"])

with subtest("the image that was reviewed still works"):
    t.assertEqual(configure_parent(), pcr0)
    parent.succeed(f"systemctl reset-failed {UNIT}")
    start_serving()
    sign()
