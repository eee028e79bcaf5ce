# Configurations for nix/module-checks.nix: a good one, and what is wrong with others.
{
  pkgs,
  parent,
}:
let
  inherit (pkgs) lib;

  # A file that is there: what the daemon is told to open while it checks.
  file = pkgs.writeText "file" "content";
  hex = digits: lib.concatStrings (lib.replicate digits "a");

  good = {
    services.nitro-sign.parent = {
      enable = true;
      package = parent;
      ciphertexts = {
        identity = file;
        bundle = file;
      };
      bundle = {
        epoch = 3;
        sha256 = hex 64;
      };
      kms = {
        region = "eu-central-1";
        keyId = "1234abcd-12ab-34cd-56ef-1234567890ab";
        credentialsFile = "/run/keys/kms.json";
      };
      enclave = {
        pcr0 = hex 96;
        nitro.image = file;
        nitro.cores = [
          [
            1
            3
          ]
        ];
      };
    };
  };
  # A definition that replaces the good one.
  with' =
    path: value:
    lib.setAttrByPath (
      [
        "services"
        "nitro-sign"
        "parent"
      ]
      ++ lib.splitString "." path
    ) (lib.mkForce value);
  cores = with' "enclave.nitro.cores";
  journal = settings: {
    services.nitro-sign.parent.journal = {
      group = lib.mkDefault "/nitro-sign/parent";
    }
    // settings;
  };
  # The least that becomes of it.
  shipped = {
    region = "eu-central-1";
    group = "/nitro-sign/parent";
    units = [ ];
    flush_ms = 2000;
    cursor_file = "/var/lib/nitro-sign-journal/cursor";
  };
  emulated.enclave.attestationRoot = "/build/authority/root.pem";
in
{
  inherit good;

  # --- assertions: what is wrong, and a piece of the message ---
  refused = {
    "debug mode's PCR0" = {
      module = with' "enclave.pcr0" (lib.concatStrings (lib.replicate 96 "0"));
      message = "give the PCR0 of your image";
    };
    "credentials in the store" = {
      module = with' "kms.credentialsFile" "${builtins.storeDir}/kms.json";
      message = "name a file below /run";
    };
    "a key of another region" = {
      module = with' "kms.keyId" "arn:aws:kms:eu-west-1:111122223333:key/1234abcd";
      message = "name the region of the key";
    };
    "a test root for a Nitro Enclave" = {
      module = with' "enclave.attestationRoot" file;
      message = "remove the setting";
    };
    "no core" = {
      module = cores [ ];
      message = "give the enclave a whole core";
    };
    "core 0" = {
      module = cores [
        [
          0
          2
        ]
      ];
      message = "core 0 stays with the system";
    };
    "a CPU in two cores" = {
      module = cores [
        [
          1
          3
        ]
        [
          3
          5
        ]
      ];
      message = "names a CPU twice (1 3 3 5)";
    };
    "half a core" = {
      module = cores [
        [
          1
          3
        ]
        [ 2 ]
      ];
      message = "[ 1 3 ] and [ 2 ]); give whole cores";
    };
    "too little memory" = {
      module = with' "enclave.nitro.memoryMib" 62;
      message = "needs 64 or more";
    };
    "half a huge page" = {
      module = with' "enclave.nitro.memoryMib" 513;
      message = "make it 514";
    };
    "huge pages set by somebody else" = {
      module.boot.kernel.sysctl."vm.nr_hugepages" = 8;
      message = "would take the enclave's memory away";
    };
    "AWS's root for an emulated enclave" = {
      module = with' "enclave.backend" "process";
      message = "name its root certificate";
    };
  };

  # --- types: values that are no option's ---
  mistyped = {
    "a short PCR0" = with' "enclave.pcr0" (hex 95);
    "a PCR0 that is not hexadecimal" = with' "enclave.pcr0" ("g" + hex 95);
    "a short digest" = with' "bundle.sha256" (hex 63);
    "epoch 0" = with' "bundle.epoch" 0;
    "a Nix path of credentials" = with' "kms.credentialsFile" ./module.nix;
    "a role that is none" = with' "kms.assumeRole" "nitro-sign-kms";
    "a region with a space" = with' "kms.region" "eu central 1";
    "an alias" = with' "kms.keyId" "alias/nitro-sign";
    "the ARN of an alias" = with' "kms.keyId" "arn:aws:kms:eu-central-1:111122223333:alias/nitro-sign";
    "an address that is a name" = with' "ingress.address" "localhost";
    "a port that the system chooses" = with' "ingress.port" 0;
    "a relay without port" = with' "relay.upstream" "gateway.internal";
    "an upstream without port" = with' "kms.upstream" "kms.example.com";
    "an empty core" = cores [ [ ] ];
    "an unknown backend" = with' "enclave.backend" "docker";
    "an unknown option" = with' "settings" { };
    "too many sessions" = with' "limits.maxSessions" 65537;
    "CID 3" = with' "enclave.nitro.cid" 3;
    "a log group with a space" = journal { group = "nitro sign"; };
    "a log group of AWS's own" = journal { group = "AWS/lambda"; };
    "a log group without a name" = journal { group = ""; };
    "a log stream with a colon" = journal { stream = "i:1"; };
    "a unit without a name" = journal { units = [ "" ]; };
    "logs without TLS" = journal { endpoint = "http://logs.example.com"; };
    "an endpoint with a path" = journal { endpoint = "https://logs.example.com/"; };
    "a region with a dot" = journal { region = "eu-central-1.example"; };
    "an entry that waits too long" = journal { flushMs = 60001; };
  };

  # --- configurations that the daemon has to accept ---
  rendered = {
    nitro = { };
    nitro-everything.services.nitro-sign.parent = {
      enclave.workload = true;
      enclave.nitro = {
        cid = 17;
        memoryMib = 1024;
      };
      kms = {
        assumeRole = "arn:aws:iam::111122223333:role/nitro-sign-kms";
        credentialsFile = lib.mkForce "/run/nitro-sign-credentials/kms.json";
        keyId = lib.mkForce "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        upstream = "[fd00::1]:443";
      };
      relay.upstream = "gateway.internal:8080";
      ingress.address = "::1";
    };
    process.services.nitro-sign.parent = lib.recursiveUpdate emulated {
      enclave.backend = "process";
      enclave.process = {
        enclave = file;
        signService = file;
        config = file;
        hypervisor = [
          "${file}"
          "nsm"
        ];
        vsock = true;
      };
    };
    qemu.services.nitro-sign.parent = lib.recursiveUpdate emulated {
      enclave.backend = "qemu";
      enclave.qemu = {
        qemu = [ "${file}" ];
        vsockDevice = [ "${file}" ];
        nsmDevice = [
          "${file}"
          "nsm-device"
        ];
        extraCommandLine = "loglevel=7 a=b";
      };
    };
  };

  # --- journals that `parent ship-journal` has to accept: what is told of them, and the file that it becomes ---
  journals = {
    least = {
      module = journal { };
      file = shipped;
    };
    host-name = {
      module = journal { endpoint = "https://vpce-1.logs.eu-central-1.vpce.amazonaws.com"; };
      file = shipped // {
        endpoint = "https://vpce-1.logs.eu-central-1.vpce.amazonaws.com";
      };
    };
    everything =
      let
        settings = {
          group = "A/b_c.d-e#1";
          region = "eu-west-1";
          stream = "signer 1";
          units = [
            "nitro-sign-parent.service"
            "nitro-sign-resources.service"
          ];
          endpoint = "https://[fd00::1]:4434";
        };
      in
      {
        module = journal (
          settings
          // {
            caFile = "/etc/nitro-sign/logs-ca.pem";
            flushMs = 100;
          }
        );
        file =
          shipped
          // settings
          // {
            ca_file = "/etc/nitro-sign/logs-ca.pem";
            flush_ms = 100;
          };
      };
  };
}
