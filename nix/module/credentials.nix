# Credentials for the enclave's one call of KMS: made anew before each start, of no use for anything else.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nitro-sign.parent;
  inherit (cfg.kms) assumeRole keyId region;
  # "aws", "aws-cn", …: role and key are in the same one.
  partition = lib.elemAt (lib.splitString ":" assumeRole) 1;
  types = lib.types // import ./types.nix { inherit lib; };

  directory = "nitro-sign-credentials";
  file = "/run/${directory}/kms.json";

  policy = builtins.toJSON {
    Version = "2012-10-17";
    Statement = [
      {
        Effect = "Allow";
        Action = "kms:Decrypt";
        Resource =
          if lib.hasPrefix "arn:" keyId then keyId else "arn:${partition}:kms:${region}:*:key/${keyId}";
      }
    ];
  };

  credentials = pkgs.writeShellApplication {
    name = "nitro-sign-credentials";
    runtimeInputs = [ pkgs.awscli2 ];
    text = builtins.readFile ./credentials.sh;
  };
in
{
  options.services.nitro-sign.parent.kms.assumeRole = lib.mkOption {
    type = types.nullOr (types.strMatching "arn:[^:]+:iam::[0-9]{12}:role/.+");
    default = null;
    example = "arn:aws:iam::111122223333:role/nitro-sign-kms";
    description = ''
      Role for which STS gives credentials before each start of the service, for 15 minutes and cut down to `kms:Decrypt` on
      the one key; the key policy names this role. The instance's own role needs `sts:AssumeRole` on it, and nothing of
      KMS. `null`: something else writes {option}`services.nitro-sign.parent.kms.credentialsFile`.
    '';
  };

  config = lib.mkIf (cfg.enable && assumeRole != null) {
    services.nitro-sign.parent.kms.credentialsFile = file;

    systemd.services.nitro-sign-credentials = {
      description = "Credentials for the signing enclave's call of KMS";
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      environment = {
        AWS_REGION = region;
        AWS_EC2_METADATA_V1_DISABLED = "true";
        HOME = "/var/empty";
      };
      # Not RemainAfterExit: each start of the parent runs it again, one by Restart= too.
      serviceConfig = import ./hardening.nix // {
        Type = "oneshot";
        ExecStart = lib.escapeShellArgs [
          (lib.getExe credentials)
          assumeRole
          policy
          file
        ];
        TimeoutStartSec = 60;
        RuntimeDirectory = directory;
        RuntimeDirectoryMode = "0700";
        RuntimeDirectoryPreserve = true;
        PrivateDevices = true;
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
        ];
      };
    };

    # Not `requires`: systemd would not start the parent again after STS was out of reach once. So its start fails for want of the
    # credentials (LoadCredential=), and it is started again later, which runs the other unit again.
    systemd.services.nitro-sign-parent = {
      wants = [ "nitro-sign-credentials.service" ];
      after = [ "nitro-sign-credentials.service" ];
    };
  };
}
