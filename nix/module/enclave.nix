# What is launched, and how.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption;
  types = lib.types // import ./types.nix { inherit lib; };
  cfg = config.services.nitro-sign.parent.enclave;
in
{
  options.services.nitro-sign.parent.enclave = {
    backend = mkOption {
      type = types.enum [
        "nitro"
        "qemu"
        "process"
      ];
      default = "nitro";
      example = "process";
      description = ''
        How the enclave is launched. `nitro`: a Nitro Enclave. `qemu`: the image in an emulated machine with an emulated
        NSM, and `process`: its programs as local processes with a software NSM; both for development and tests.
      '';
    };

    pcr0 = mkOption {
      type = types.pcr;
      example = "3aab0c8cc6b5a1c1a4d2f3d4e5a6b7c8d9eaabbccddeeff00112233445566778899aabbccddeeff00112233445566778";
      description = ''
        The only PCR0 that is launched: that of `pcrs.json` beside the image. An image that measures otherwise is refused
        before it starts, and ingress opens only for an attestation document with this PCR0.
      '';
    };

    attestationRoot = mkOption {
      type = types.either (types.enum [ "aws" ]) types.file;
      default = "aws";
      example = "/var/lib/nitro-sign/authority/root.pem";
      description = ''
        Root under which attestation documents have to be: `aws` is the AWS Nitro Enclaves root G1; a PEM file is for the
        other two backends.
      '';
    };

    workload = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        The image has a program of its own in the place of the signing service (`workload` of `lib.mkEif`), which has no TLS
        key that an attestation document names: docs/parent.md says what is verified then. If not said here, such an image is
        refused when it runs; if said, one with the signing service is.
      '';
    };

    nitro = {
      image = mkOption {
        type = types.file;
        default = "${pkgs.nitro-sign.eif}/image.eif";
        defaultText = lib.literalExpression ''"''${pkgs.nitro-sign.eif}/image.eif"'';
        description = "The enclave image (EIF).";
      };
      memoryMib = mkOption {
        type = types.ints.positive;
        default = 512;
        example = 1024;
        description = ''
          Memory of the enclave, MiB, in huge pages of 2 MiB that are set apart for it: an even number, 64 or more, and at
          least four times the size of the image, which the daemon checks when it starts.
        '';
      };
      cores = mkOption {
        type = types.listOf (types.nonEmptyListOf types.ints.unsigned);
        example = [
          [
            1
            3
          ]
        ];
        description = ''
          The enclave's cores: of each, the numbers of all its CPUs (hardware threads), which the system loses. Column `CORE`
          of `lscpu --extended` shows which belong together. All cores have to be on
          {option}`services.nitro-sign.parent.enclave.nitro.numaNode`; core 0 stays with the system.
        '';
      };
      numaNode = mkOption {
        type = types.ints.unsigned;
        default = 0;
        example = 1;
        description = "NUMA node of the enclave's cores and memory.";
      };
      cid = mkOption {
        type = types.ints.between 4 4294967294;
        default = 16;
        example = 17;
        description = "The enclave's vsock context id.";
      };
    };

    process = {
      enclave = mkOption {
        type = types.file;
        example = lib.literalExpression ''"''${pkgs.nitro-sign.development}/bin/enclave"'';
        description = "The program that is PID 1 of an enclave, built with the software NSM.";
      };
      signService = mkOption {
        type = types.file;
        example = lib.literalExpression ''"''${pkgs.nitro-sign.development}/bin/sign-service"'';
        description = "The signing service, built with the software NSM.";
      };
      config = mkOption {
        type = types.file;
        example = "/var/lib/nitro-sign/enclave.toml";
        description = "`enclave.toml`, the enclave's own, measured configuration.";
      };
      hypervisor = mkOption {
        type = types.invocation;
        example = lib.literalExpression ''
          [ "''${pkgs.nitro-sign.emulator}/bin/emulator" "nsm" "--authority-dir" "/var/lib/nitro-sign/authority" ]
        '';
        description = "What plays the hypervisor and its NSM.";
      };
      vsock = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Meet the enclave on vsock, at this machine's own context id 1, instead of at a Unix socket. `enclave.toml` has to
          say `parent = "vsock:1"` then.
        '';
      };
    };

    qemu = {
      image = mkOption {
        type = types.file;
        default = cfg.nitro.image;
        defaultText = lib.literalExpression "config.services.nitro-sign.parent.enclave.nitro.image";
        description = "The enclave image (EIF), x86_64.";
      };
      qemu = mkOption {
        type = types.invocation;
        default = [ "${pkgs.qemu}/bin/qemu-system-x86_64" ];
        defaultText = lib.literalExpression ''[ "''${pkgs.qemu}/bin/qemu-system-x86_64" ]'';
        description = ''
          QEMU with the devices `vhost-user-vsock-device` and `vhost-user-test-device`, which not every build of it has.
        '';
      };
      vsockDevice = mkOption {
        type = types.invocation;
        default = [ "${pkgs.vhost-device-vsock}/bin/vhost-device-vsock" ];
        defaultText = lib.literalExpression ''[ "''${pkgs.vhost-device-vsock}/bin/vhost-device-vsock" ]'';
        description = "The vsock device.";
      };
      nsmDevice = mkOption {
        type = types.invocation;
        example = lib.literalExpression ''
          [ "''${pkgs.nitro-sign.emulator}/bin/emulator" "nsm-device" "--authority-dir" "/var/lib/nitro-sign/authority" ]
        '';
        description = "The NSM device.";
      };
      memoryMib = mkOption {
        type = types.ints.between 64 1048576;
        default = 512;
        example = 1024;
        description = "Memory of the machine, MiB; at least four times the size of the image.";
      };
      guestCid = mkOption {
        type = types.ints.between 3 4294967294;
        default = 16;
        example = 17;
        description = "The enclave's vsock context id.";
      };
      extraCommandLine = mkOption {
        type = types.strMatching "[ -~]{0,512}";
        default = "";
        example = "loglevel=7";
        description = "Appended to the kernel's command line, in no PCR.";
      };
    };
  };
}
