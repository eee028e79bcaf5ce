# The options as `parent.toml`; docs/parent.example.toml explains every key.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nitro-sign.parent;

  inherit (cfg.enclave) nitro process qemu;
  backends = {
    nitro = {
      inherit (nitro) image cid;
      # The driver's pool is these cores and nothing else.
      cpu_count = lib.length (lib.concatLists nitro.cores);
      memory_mib = nitro.memoryMib;
    };
    process = {
      inherit (process)
        enclave
        config
        hypervisor
        vsock
        ;
      sign_service = process.signService;
    };
    qemu = {
      inherit (qemu) image qemu;
      vsock_device = qemu.vsockDevice;
      nsm_device = qemu.nsmDevice;
      memory_mib = qemu.memoryMib;
      guest_cid = qemu.guestCid;
      extra_command_line = qemu.extraCommandLine;
    };
  };

  settings = {
    # RuntimeDirectory= of the unit.
    runtime_dir = "/run/nitro-sign";
    enclave = {
      inherit (cfg.enclave) backend pcr0 workload;
      attestation_root = cfg.enclave.attestationRoot;
      ${cfg.enclave.backend} = backends.${cfg.enclave.backend};
    };
    inherit (cfg) ciphertexts bundle;
    kms = {
      inherit (cfg.kms) region upstream;
      key_id = cfg.kms.keyId;
      timeout_ms = cfg.kms.timeoutMs;
      # LoadCredential= of the unit.
      credentials_file = "/run/credentials/nitro-sign-parent.service/kms";
    };
    ingress.listen =
      let
        inherit (cfg.ingress) address port;
        host = if lib.hasInfix ":" address then "[${address}]" else address;
      in
      "${host}:${toString port}";
    limits = {
      max_sessions = cfg.limits.maxSessions;
      session_deadline_ms = cfg.limits.sessionDeadlineMs;
      boot_timeout_ms = cfg.limits.bootTimeoutMs;
    };
  }
  // lib.optionalAttrs (cfg.relay.upstream != null) { inherit (cfg) relay; };
in
{
  options.services.nitro-sign.parent.configFile = lib.mkOption {
    type = lib.types.path;
    readOnly = true;
    internal = true;
    description = "`parent.toml`, as these options make it.";
  };

  config.services.nitro-sign.parent.configFile = (pkgs.formats.toml { }).generate "parent.toml" (
    lib.filterAttrsRecursive (_: value: value != null) settings
  );
}
