# The parent instance: what the AMI holds, and what `nixos-rebuild switch --flake .#parent` makes of a running instance.
#
# Nobody can log in: no SSH, no SSM agent, no passwords. To update instances, replace them, or open one of these ways:
#   services.openssh.enable = lib.mkForce true;            # with users.users.root.openssh.authorizedKeys.keys
#   services.amazon-ssm-agent.enable = lib.mkForce true;
# Whoever comes in can stop the service and read ciphertexts, and nothing else: docs/threat-model.md.
{
  config,
  lib,
  modulesPath,
  pkgs,
  ...
}:
let
  ssh = config.services.openssh.enable;
  inherit (config.services.nitro-sign) parent;
  shipsJournal = parent.enable && parent.journal.group != null;
  # Users that get an answer of the instance metadata service.
  metadataUsers = if shipsJournal then "{ 0, nitro-sign-journal }" else "0";
  # Stronger than the Amazon profile, weaker than lib.mkForce.
  here = lib.mkOverride 90;
in
{
  imports = [
    "${modulesPath}/virtualisation/amazon-image.nix"
    "${modulesPath}/profiles/minimal.nix"
  ];

  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
  system.stateVersion = "26.05";
  networking.hostName = "nitro-sign-parent";

  services.nitro-sign.parent.enable = true;

  # LTS, and older than Linux 6.17, whose vsock sends packets that Nitro does not put together again.
  boot.kernelPackages = pkgs.linuxPackages_6_12;

  # --- nobody logs in ---
  services.openssh.enable = here false;
  services.amazon-ssm-agent.enable = here false;
  users.mutableUsers = false;
  users.allowNoPasswordLogin = true;
  # User data is not executed, nor kept on the disk, and host keys are shown only if there are any.
  virtualisation.amazon-init.enable = false;
  systemd.services = {
    fetch-ec2-metadata.enable = ssh;
    apply-ec2-data.enable = ssh;
    print-host-key.enable = ssh;
  };

  # --- instance metadata ---
  # Version 2 only is a property of the image and of the instance: nix/ami.nix. In here: the role's credentials are for root,
  # and for the one other user that needs them, the journal's. What the role may do is all that this user could do beyond its
  # own work (docs/nix.md has the policy): logs:CreateLogStream and logs:PutLogEvents on one log group, and sts:AssumeRole on
  # the role that the KMS key's policy names. With that role the key decrypts for an attested enclave with the pinned PCR0 and
  # for nobody else.
  networking.nftables = {
    enable = true;
    # Where the rules are checked nobody has this name.
    preCheckRuleset = lib.mkIf shipsJournal "sed -i 's/nitro-sign-journal/nobody/' ruleset.conf";
    tables.instance-metadata = {
      family = "inet";
      content = ''
        chain output {
          type filter hook output priority filter; policy accept;
          ip daddr 169.254.169.254 meta skuid != ${metadataUsers} reject
          ip6 daddr fd00:ec2::254 meta skuid != ${metadataUsers} reject
        }
      '';
    };
  };

  # --- nothing that could hold a secret stays on the disk ---
  swapDevices = lib.mkForce [ ];
  zramSwap.enable = false;
  boot.tmp.useTmpfs = true;
  systemd.coredump.enable = false;
  boot.kernel.sysctl = {
    "kernel.core_pattern" = lib.mkForce "|${pkgs.coreutils}/bin/false";
    "kernel.yama.ptrace_scope" = 2;
  };
  # No kexec, no hibernation.
  security.protectKernelImage = true;
  services.journald = {
    storage = "volatile";
    extraConfig = "RuntimeMaxUse=64M";
  };

  # --- updates ---
  nix = {
    channel.enable = false;
    settings = {
      allowed-users = [ "root" ];
      experimental-features = [
        "nix-command"
        "flakes"
      ];
    };
  };
}
