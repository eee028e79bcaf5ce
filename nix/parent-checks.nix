# Checks of nix/parent-configuration.nix: what it says of the instance, after NixOS and the Amazon profile have had their say.
{
  pkgs,
  # deployment -> the parent's NixOS
  system,
}:
let
  inherit (pkgs) lib;
  inherit
    (system {
      services.nitro-sign.parent = {
        deployment = ./module/example-deployment;
        kms.assumeRole = "arn:aws:iam::111122223333:role/nitro-sign-kms";
        enclave.pcr0 = lib.concatStrings (lib.replicate 96 "f");
        enclave.nitro.cores = [
          [
            1
            3
          ]
        ];
        journal.group = "/nitro-sign/parent";
      };
    })
    config
    ;
  inherit (config.networking) firewall;
  inherit (config.systemd) services;

  hasLogin =
    user:
    lib.any (name: user.${name} or null != null) [
      "hashedPassword"
      "hashedPasswordFile"
      "initialHashedPassword"
      "initialPassword"
      "password"
    ]
    || user.openssh.authorizedKeys.keys != [ ]
    || user.openssh.authorizedKeys.keyFiles != [ ];
  isOff = name: !(services ? ${name} && services.${name}.enable);
  metadata = config.networking.nftables.tables.instance-metadata;

  # What is said, and whether it is so.
  said = {
    "assertions hold" = lib.all (one: one.assertion) config.assertions;
    "the firewall lets 50051 in, and nothing else" =
      firewall.enable
      && firewall.allowedTCPPorts == [ 50051 ]
      && firewall.allowedUDPPorts == [ ]
      && firewall.allowedTCPPortRanges == [ ]
      && firewall.allowedUDPPortRanges == [ ]
      && firewall.interfaces == { };
    "nobody logs in" =
      isOff "sshd"
      && isOff "amazon-ssm-agent"
      && !config.users.mutableUsers
      && !lib.any hasLogin (lib.attrValues config.users.users);
    "user data is not looked at" =
      isOff "amazon-init" && isOff "fetch-ec2-metadata" && isOff "apply-ec2-data";
    "memory does not get onto the disk" =
      config.swapDevices == [ ]
      && !config.zramSwap.enable
      && !config.systemd.coredump.enable
      && lib.elem "nohibernate" config.boot.kernelParams
      && config.boot.tmp.useTmpfs
      && config.services.journald.storage == "volatile";
    "instance metadata is for root and the journal" =
      config.networking.nftables.enable
      && metadata.enable
      && lib.hasInfix "ip daddr 169.254.169.254 meta skuid != { 0, nitro-sign-journal } reject" metadata.content
      && lib.hasInfix "ip6 daddr fd00:ec2::254 meta skuid != { 0, nitro-sign-journal } reject" metadata.content;
    "cores and huge pages are set apart at boot" =
      lib.elem "nitro_enclaves" config.boot.kernelModules
      && lib.hasInfix "options nitro_enclaves ne_cpus=1,3" config.boot.extraModprobeConfig
      && lib.elem "hugepages=0:256" config.boot.kernelParams;
    "the kernel is older than 6.17" = lib.versionOlder config.boot.kernelPackages.kernel.version "6.17";
  };
  wrong = lib.attrNames (lib.filterAttrs (_: isSo: !isSo) said);
in
{
  parent-configuration =
    if wrong == [ ] then
      pkgs.writeText "parent-configuration" (lib.concatLines (lib.attrNames said))
    else
      throw "nix/parent-configuration.nix: it is not so that ${lib.concatStringsSep ", or that " wrong}";
}
