# The unit, its user, the firewall.
{
  config,
  lib,
  ...
}:
let
  cfg = config.services.nitro-sign.parent;
  inherit (cfg.enclave) backend;
in
{
  config = lib.mkIf cfg.enable {
    users.users.nitro-sign = {
      description = "Signing enclave's parent";
      isSystemUser = true;
      group = "nitro-sign";
    };
    users.groups.nitro-sign = { };

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.ingress.port ];

    # Parent and enclave are processes of one machine.
    boot.kernelModules = lib.mkIf (backend == "process" && cfg.enclave.process.vsock) [
      "vsock_loopback"
    ];

    systemd.services.nitro-sign-parent = {
      description = "Signing enclave: launch, verify, watch";
      documentation = [ "file:${cfg.configFile}" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      environment.NITRO_SIGN_LOG = cfg.logFilter;
      # A transient failure is tried again for as long as it takes.
      unitConfig.StartLimitIntervalSec = 0;

      serviceConfig = import ./hardening.nix // {
        # --- life ---
        # Ready is: verified and serving.
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${lib.getExe' cfg.package "parent"} run --config ${cfg.configFile}";
        TimeoutStartSec = cfg.limits.bootTimeoutMs / 1000 + 30;
        # Sessions may end.
        TimeoutStopSec = cfg.limits.sessionDeadlineMs / 1000 + 30;
        WatchdogSec = 30;
        KillMode = "mixed";
        Restart = "on-failure";
        # Wrong command line, a reason that stays, unusable configuration: none gets better by trying again.
        RestartPreventExitStatus = "64 77 78";
        RestartSec = 2;
        RestartSteps = 6;
        RestartMaxDelaySec = 120;
        # The enclave ends with this process.
        OOMScoreAdjust = -900;

        # --- files ---
        RuntimeDirectory = "nitro-sign";
        RuntimeDirectoryMode = "0700";
        # status.json says why it ended.
        RuntimeDirectoryPreserve = true;
        LoadCredential = [ "kms:${cfg.kms.credentialsFile}" ];

        # --- rights ---
        User = "nitro-sign";
        Group = "nitro-sign";
        SupplementaryGroups = lib.mkIf (backend == "nitro") [ "ne" ];

        # --- devices ---
        DeviceAllow = lib.mkIf (backend == "nitro") [ "/dev/nitro_enclaves rw" ];
        PrivateDevices = backend != "nitro";

        # --- kernel ---
        # QEMU translates the guest's code into its own memory.
        MemoryDenyWriteExecute = backend != "qemu";
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
          "AF_VSOCK"
        ];
      };
    };
  };
}
