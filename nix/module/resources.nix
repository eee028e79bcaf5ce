# What a Nitro Enclave takes from the instance: cores and huge pages. And the device through which it is started.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nitro-sign.parent;
  inherit (cfg.enclave.nitro) cores memoryMib numaNode;

  cpus = map toString (lib.concatLists cores);
  # An odd number of MiB is refused by an assertion.
  pages = toString (memoryMib / 2);

  reserve = pkgs.writeShellApplication {
    name = "nitro-sign-reserve";
    runtimeInputs = [ pkgs.kmod ];
    text = builtins.readFile ./reserve.sh;
  };
in
{
  config = lib.mkIf (cfg.enable && cfg.enclave.backend == "nitro") {
    # The driver hands out no CPU of core 0, and no core of which it does not get all CPUs.
    boot.kernelModules = [ "nitro_enclaves" ];
    boot.extraModprobeConfig = "options nitro_enclaves ne_cpus=${lib.concatStringsSep "," cpus}";

    # Set apart while memory is not fragmented yet.
    boot.kernelParams = [
      "hugepagesz=2M"
      "hugepages=${toString numaNode}:${pages}"
    ];

    users.groups.ne = { };
    services.udev.extraRules = ''
      SUBSYSTEM=="misc", KERNEL=="nitro_enclaves", OWNER="root", GROUP="ne", MODE="0660"
    '';

    # What a system that is switched to, and not booted, asks for; and clear words if something is missing.
    systemd.services.nitro-sign-resources = {
      description = "Cores and memory of the signing enclave";
      after = [ "systemd-modules-load.service" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = lib.escapeShellArgs (
          [
            (lib.getExe reserve)
            (toString numaNode)
            pages
          ]
          ++ map (core: lib.concatMapStringsSep "," toString core) cores
        );
        CapabilityBoundingSet = [
          "CAP_SYS_ADMIN"
          "CAP_SYS_MODULE"
        ];
        NoNewPrivileges = true;
        PrivateTmp = true;
        ProtectHome = true;
        ProtectSystem = "strict";
        RestrictAddressFamilies = "none";
        UMask = "0077";
      };
    };

    systemd.services.nitro-sign-parent = {
      requires = [ "nitro-sign-resources.service" ];
      after = [ "nitro-sign-resources.service" ];
    };
  };
}
