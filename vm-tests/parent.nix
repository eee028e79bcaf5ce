# The parent of the stories, as the module is told: also what nix/module-units.nix renders for machines without NixOS.
{
  # Directory of all programs, with the software NSM.
  programs,
}:
{ config, lib, ... }:
let
  parent = config.services.nitro-sign.parent;
  # Written by `provision parent`.
  made = "/var/lib/nitro-sign";
  file = name: "${made}/${name}";
in
{
  services.nitro-sign.parent = {
    enable = true;
    enclave = {
      backend = lib.mkDefault "process";
      attestationRoot = file "authority/root.pem";
      # Known when the test runs, like all that is made there.
      pcr0 = lib.concatStrings (lib.replicate 96 "f");
      process = {
        enclave = "${programs}/enclave";
        signService = "${programs}/sign-service";
        config = file "enclave.toml";
        hypervisor = [
          "${programs}/emulator"
          "nsm"
          "--authority-dir"
          (file "authority")
        ];
        vsock = true;
      };
    };
    ciphertexts.identity = file "age-identity.kms";
    ciphertexts.bundle = file "service_key_shares.json.age";
    bundle.epoch = 1;
    bundle.sha256 = lib.concatStrings (lib.replicate 64 "0");
    kms = {
      region = "eu-central-1";
      keyId = "made-by-the-test";
      upstream = "aws:4433";
      credentialsFile = file "credentials.json";
    };
    journal = {
      group = "/nitro-sign/parent";
      stream = "parent";
      endpoint = "https://aws:4434";
      caFile = file "logs-ca.pem";
      flushMs = 500;
    };
  };

  # Started by the story that is about it, with what `provision journal` writes: no metadata service is here.
  systemd.services.nitro-sign-journal = {
    wantedBy = lib.mkForce [ ];
    serviceConfig.EnvironmentFile = file "journal.env";
  };

  # What the module writes is the template for what runs.
  systemd.services.nitro-sign-parent = {
    wantedBy = lib.mkForce [ ];
    serviceConfig.ExecStart = lib.mkForce "${lib.getExe' parent.package "parent"} run --config ${file "parent.toml"}";
  };
}
