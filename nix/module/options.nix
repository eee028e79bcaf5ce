# What belongs to one deployment: ciphertexts, KMS, ingress, caps.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault mkOption;
  types = lib.types // import ./types.nix { inherit lib; };
  inherit (config.services.nitro-sign.parent) deployment;
in
{
  config.services.nitro-sign.parent = lib.mkIf (deployment != null) (
    let
      facts = lib.importTOML (deployment + "/deployment.toml");
    in
    {
      ciphertexts.identity = mkDefault (deployment + "/age-identity.kms");
      ciphertexts.bundle = mkDefault (deployment + "/service_key_shares.json.age");
      bundle.epoch = mkDefault facts.epoch;
      bundle.sha256 = mkDefault (
        facts.bundle_sha256
          or (throw "${toString deployment}/deployment.toml names no bundle yet; run `nitro-sign key-gen` first")
      );
      kms.region = mkDefault facts.region;
      kms.keyId = mkDefault facts.kms_key_id;
    }
  );

  options.services.nitro-sign.parent = {
    enable = lib.mkEnableOption "the daemon that launches, verifies and watches a signing enclave";

    package = mkOption {
      type = types.package;
      default = pkgs.nitro-sign.parent;
      defaultText = lib.literalExpression "pkgs.nitro-sign.parent";
      description = "Package with the program `parent`.";
    };

    logFilter = mkOption {
      type = types.str;
      default = "info";
      example = "info,kms=debug";
      description = ''
        What is logged, to the journal, as JSON lines: a level, and levels of single modules. Secrets are redacted at every
        level.
      '';
    };

    openFirewall = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = ''
        Open {option}`services.nitro-sign.parent.ingress.port` in the firewall, and nothing else. TLS with client
        certificates ends in the enclave, and nothing listens there before the enclave is verified.
      '';
    };

    deployment = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./prod";
      description = ''
        Directory of a deployment, as `nitro-sign key-gen` leaves it: gives {option}`ciphertexts`, {option}`bundle`,
        {option}`kms.region` and {option}`kms.keyId` below {option}`services.nitro-sign.parent` their values. Its two
        ciphertexts are copied into the store.
      '';
    };

    ciphertexts = {
      identity = mkOption {
        type = types.file;
        example = "/var/lib/nitro-sign/age-identity.kms";
        description = ''
          The age identity, encrypted by KMS: `age-identity.kms` of the deployment, at most 6144 bytes. Read at each
          launch. Not secret: it may be a file of the store.
        '';
      };
      bundle = mkOption {
        type = types.file;
        example = "/var/lib/nitro-sign/service_key_shares.json.age";
        description = ''
          The sealed bundle of key shares: `service_key_shares.json.age` of the deployment, at most 2 GiB. Read at each
          launch. Not secret: it may be a file of the store.
        '';
      };
    };

    bundle = {
      epoch = mkOption {
        type = types.ints.positive;
        example = 1;
        description = ''
          Epoch of the bundle, from `deployment.toml`. It is in the KMS encryption context, in the bundle and in PCR16.
        '';
      };
      sha256 = mkOption {
        type = types.sha256;
        example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        description = ''
          SHA-256 of the sealed bundle, from `deployment.toml`. It is in the KMS encryption context and in PCR16.
        '';
      };
    };

    kms = {
      region = mkOption {
        type = types.region;
        example = "eu-central-1";
        description = "AWS region of the key.";
      };
      keyId = mkOption {
        type = types.kmsKey;
        example = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        description = "Id or ARN of the key that releases the age identity; no alias.";
      };
      upstream = mkOption {
        type = types.nullOr types.hostPort;
        default = null;
        example = "vpce-0123456789abcdef0.kms.eu-central-1.vpce.amazonaws.com:443";
        description = ''
          Where the enclave's connection to KMS goes, for example a VPC endpoint. `null` is
          `kms.<region>.amazonaws.com:443`. TLS ends at KMS and in the enclave, whatever is between.
        '';
      };
      timeoutMs = mkOption {
        type = types.ints.between 100 120000;
        default = 10000;
        example = 20000;
        description = "Milliseconds for the enclave's KMS call, retries included.";
      };
      credentialsFile = mkOption {
        type = types.secretFile;
        example = "/run/keys/nitro-sign-kms.json";
        description = ''
          JSON file `{"access_key_id", "secret_access_key", "session_token"}`, read at each start of the service by
          systemd, as root (`LoadCredential=`). The enclave gets these credentials: give it short-lived ones that allow
          `kms:Decrypt` on the one key and nothing else, and keep the file in memory (`/run`). Whatever writes it has to
          be ordered before `nitro-sign-parent.service`. {option}`services.nitro-sign.parent.kms.assumeRole` does all of that.
        '';
      };
    };

    relay.upstream = mkOption {
      type = types.nullOr types.hostPort;
      default = null;
      example = "gateway.internal:8080";
      description = ''
        The relay that the enclave may dial: where its vsock port 8080 leads. `null`: nowhere. TLS, if any, ends there and in
        the enclave.
      '';
    };

    ingress = {
      address = mkOption {
        type = types.ipAddress;
        default = "0.0.0.0";
        example = "10.0.1.10";
        description = "IP address where clients connect, once the enclave is verified.";
      };
      port = mkOption {
        type = types.ints.between 1 65535;
        default = 50051;
        example = 50052;
        description = "TCP port where clients connect.";
      };
    };

    limits = {
      maxSessions = mkOption {
        type = types.ints.between 1 65536;
        default = 64;
        example = 256;
        description = "Signing sessions at the same time. Measured into PCR16.";
      };
      sessionDeadlineMs = mkOption {
        type = types.ints.between 100 600000;
        default = 30000;
        example = 10000;
        description = "Milliseconds that a session may last. Measured into PCR16.";
      };
      bootTimeoutMs = mkOption {
        type = types.ints.between 1000 3600000;
        default = 120000;
        example = 300000;
        description = "Milliseconds from the start until the enclave has to be verified and serving.";
      };
    };
  };
}
