# The image in a machine inside the parent's machine.
{ packages, ... }:
let
  image = packages.eif-emulated;
in
{
  name = "nested-eif";

  nodes.parent =
    {
      config,
      lib,
      pkgs,
      ...
    }:
    let
      parent = config.services.nitro-sign.parent;
      # QEMU's own emulation of Nitro reads and measures the image itself. Of what the parent asks its QEMU for, it takes
      # what is appended to the command line; the NSM device that the parent has started stays unused.
      nitro-enclave = pkgs.writeShellScript "qemu-nitro-enclave" ''
        for last; do :; done
        exec ${pkgs.qemu}/bin/qemu-system-x86_64 -M nitro-enclave,vsock=vsock,id=enclave,accel=tcg -cpu max -smp 1 \
          -m ${toString parent.enclave.qemu.memoryMib}M \
          -no-reboot -nodefaults -no-user-config -display none -serial stdio \
          -chardev socket,id=vsock,path=vhost.sock -qmp unix:qmp.sock,server=on,wait=off \
          -kernel image.eif -append "nitro_sign.parent_cid=''${last##*nitro_sign.parent_cid=}"
      '';
    in
    {
      virtualisation.memorySize = lib.mkForce 4096;
      services.nitro-sign.parent = {
        enclave.backend = "qemu";
        enclave.qemu = {
          image = "${image}/image.eif";
          nsmDevice = [
            "${packages.development}/bin/emulator"
            "nsm-device"
            "--authority-dir"
            "/var/lib/nitro-sign/authority"
          ];
        };
        # Emulated inside an emulated machine.
        kms.timeoutMs = 60000;
        limits.bootTimeoutMs = 600000;
      };
      specialisation.nitro-enclave.configuration.services.nitro-sign.parent.enclave.qemu.qemu =
        lib.mkForce
          [
            "${nitro-enclave}"
          ];
    };

  story = ''
    start_aws("--kms-authority ${image}/kms-authority")
    pcr0 = configure_parent()
    allow(pcr0)
    start_gateway(pcr0)

    with subtest("the parent measures what the build says"):
        t.assertEqual(json.loads(parent.succeed("cat ${image}/pcrs.json"))["PCR0"], pcr0)

    with subtest("the image unseals and signs, with an NSM that signs"):
        said = start_serving()
        t.assertEqual(said["pcrs"]["0"], pcr0)
        sign()
        parent.succeed(f"systemctl stop {UNIT}")

    with subtest("QEMU's own machine measures the same image, but nobody signs its documents: refused"):
        parent.succeed("/run/booted-system/specialisation/nitro-enclave/bin/switch-to-configuration test")
        t.assertEqual(configure_parent(), pcr0)
        start_refused("KmsDenied")
        document = aws.succeed(f"od --address-radix=n --format=x1 --width=65536 --output-duplicates {WORLD}/refused.cose")
        t.assertIn(pcr0, "".join(document.split()))
  '';
}
