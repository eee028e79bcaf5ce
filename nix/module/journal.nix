# The instance's journal to CloudWatch Logs: a service of its own, which neither waits for the parent nor is waited for. A shipper
# that fails does not stop signing, and the last words of a parent that failed for good still leave the machine.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption;
  types = lib.types // import ./types.nix { inherit lib; };
  parent = config.services.nitro-sign.parent;
  cfg = parent.journal;

  settings = {
    inherit (cfg)
      region
      group
      stream
      units
      endpoint
      ;
    ca_file = cfg.caFile;
    flush_ms = cfg.flushMs;
    # StateDirectory= of the unit.
    cursor_file = "/var/lib/nitro-sign-journal/cursor";
  };
in
{
  options.services.nitro-sign.parent.journal = {
    group = mkOption {
      type = types.nullOr types.logGroup;
      default = null;
      example = "/nitro-sign/parent";
      description = ''
        Log group of CloudWatch Logs that gets the journal of this instance. It has to exist: how long it keeps events is your
        decision. The instance's role needs `logs:CreateLogStream` and `logs:PutLogEvents` on it. `null`: nothing is shipped.
      '';
    };
    region = mkOption {
      type = types.region;
      default = parent.kms.region;
      defaultText = lib.literalExpression "config.services.nitro-sign.parent.kms.region";
      example = "eu-west-1";
      description = "AWS region of the log group.";
    };
    stream = mkOption {
      type = types.nullOr types.logStream;
      default = null;
      example = "signer-1";
      description = ''
        Log stream in the group, made if it is missing. Two instances must not share one. `null`: the instance id.
      '';
    };
    units = mkOption {
      type = types.listOf types.nonEmptyStr;
      default = [ ];
      example = [
        "nitro-sign-parent.service"
        "nitro-sign-resources.service"
      ];
      description = "Units whose entries are shipped. `[ ]`: everything, the kernel included.";
    };
    endpoint = mkOption {
      type = types.nullOr types.httpsEndpoint;
      default = null;
      example = "https://vpce-0123456789abcdef0.logs.eu-central-1.vpce.amazonaws.com";
      description = "CloudWatch Logs, for example a VPC endpoint. `null`: the region's own.";
    };
    caFile = mkOption {
      type = types.nullOr types.file;
      default = null;
      example = "/etc/nitro-sign/logs-ca.pem";
      description = "PEM file of the authorities that the endpoint may be under. `null`: the system's.";
    };
    flushMs = mkOption {
      type = types.ints.between 100 60000;
      default = 2000;
      example = 500;
      description = "Milliseconds that an entry waits for others, to be sent with them.";
    };
    configFile = mkOption {
      type = lib.types.path;
      readOnly = true;
      internal = true;
      description = "`journal.toml`, as these options make it.";
    };
  };

  config = lib.mkIf (parent.enable && cfg.group != null) {
    services.nitro-sign.parent.journal.configFile = (pkgs.formats.toml { }).generate "journal.toml" (
      lib.filterAttrs (_: value: value != null) settings
    );

    users.users.nitro-sign-journal = {
      description = "Journal of the signing enclave's parent to CloudWatch Logs";
      isSystemUser = true;
      group = "nitro-sign-journal";
    };
    users.groups.nitro-sign-journal = { };

    systemd.services.nitro-sign-journal = {
      description = "Journal to CloudWatch Logs";
      documentation = [ "file:${cfg.configFile}" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      # So it is stopped after it, when the last session has ended and everything has been said. It is ready before it has
      # asked CloudWatch for anything: signing does not wait for that.
      before = [ "nitro-sign-parent.service" ];
      environment.NITRO_SIGN_LOG = parent.logFilter;
      # Tried again for as long as it takes.
      unitConfig.StartLimitIntervalSec = 0;

      serviceConfig = import ./hardening.nix // {
        # Ready is: the configuration and the cursor file can be used.
        Type = "notify";
        # journalctl is a child of it.
        NotifyAccess = "main";
        ExecStart = "${lib.getExe' parent.package "parent"} ship-journal --config ${cfg.configFile}";
        WatchdogSec = 30;
        # journalctl ends with it, and what it had read is sent.
        KillMode = "mixed";
        Restart = "always";
        # Wrong command line, unusable configuration: none gets better by trying again.
        RestartPreventExitStatus = "64 78";
        RestartSec = 2;
        RestartSteps = 6;
        RestartMaxDelaySec = 120;

        User = "nitro-sign-journal";
        Group = "nitro-sign-journal";
        # It may read the journal.
        SupplementaryGroups = [ "systemd-journal" ];
        StateDirectory = "nitro-sign-journal";
        StateDirectoryMode = "0700";

        PrivateDevices = true;
        MemoryDenyWriteExecute = true;
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
        ];
      };
    };
  };
}
