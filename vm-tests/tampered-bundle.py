provision()
bundle = f"{MADE}/service_key_shares.json.age"

with subtest("a changed bundle never reaches an enclave"):
    parent.succeed(f"printf x >> {bundle}")
    said = start_refused("BundleCorrupt")
    t.assertNotIn("Launching", [entry["state"] for entry in said["history"]])

with subtest("with its own digest in parent.toml, KMS does not release the identity for it"):
    digest = parent.succeed(f"sha256sum {bundle}").split()[0]
    parent.succeed(f"sed -i 's/^sha256 = .*/sha256 = \"{digest}\"/' {MADE}/parent.toml")
    start_refused("KmsDenied")

with subtest("the bundle that the operator sealed works again"):
    configure_parent()
    parent.succeed(f"systemctl reset-failed {UNIT}")
    start_serving()
    sign()
