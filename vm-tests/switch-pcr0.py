old = provision()
booted = parent.succeed("readlink --canonicalize /run/current-system").strip()
start_serving()
sign()

with subtest("before the switch, KMS and the gateway are told of the new image as well"):
    new = configure_parent(note="next", directory=f"{MADE}/next")
    t.assertNotEqual(new, old)
    allow(old, new)
    start_gateway(old, new)
    t.assertEqual(sign()["pcrs"]["0"], old)

with subtest("the switch restarts the parent with the new image"):
    parent.succeed(f"{booted}/specialisation/next/bin/switch-to-configuration test")
    parent.wait_until_succeeds(f"jq --exit-status '.state == \"Serving\" and .pcrs[\"0\"] == \"{new}\"' {STATUS}")
    gateway.wait_until_succeeds(
        "curl --silent --fail http://127.0.0.1:8080/v1/nodes"
        f" | jq --exit-status '.[0].state == \"verified\" and .[0].pcrs[\"0\"] == \"{new}\"'"
    )
    sign()

with subtest("then the old image is taken off both lists"):
    allow(new)
    start_gateway(new)
    sign()

with subtest("whoever switches back gets no key"):
    parent.execute(f"{booted}/bin/switch-to-configuration test")
    parent.wait_until_succeeds(f"jq --exit-status '.state == \"Failed\" and .reason == \"KmsDenied\"' {STATUS}")
    no_ingress()
