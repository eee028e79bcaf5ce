# What belongs to one deployment. An example: put your own here. docs/module-options.md explains every option.
{ lib, ... }:
let
  # Written by the release; see docs/reproducing-pcr0.md.
  released = ../release/pcrs.json;
  # No image has it.
  none = lib.concatStrings (lib.replicate 96 "f");
in
{
  services.nitro-sign.parent = {
    enclave = {
      # Which image is booted: no other one is, whatever is in the store.
      pcr0 = if lib.pathExists released then (lib.importJSON released).PCR0 else none;
      # Of an instance with four CPUs in two cores: 0 2 | 1 3.
      nitro.cores = [
        [
          1
          3
        ]
      ];
      nitro.memoryMib = 512;
    };

    # Or in one line: deployment = ./prod, the directory that nitro-sign key-gen leaves.
    ciphertexts = {
      identity = "/var/lib/nitro-sign/age-identity.kms";
      bundle = "/var/lib/nitro-sign/service_key_shares.json.age";
    };
    bundle = {
      epoch = 1;
      sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    };
    kms = {
      region = "eu-central-1";
      keyId = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
      assumeRole = "arn:aws:iam::111122223333:role/nitro-sign-kms";
    };

    # The journal goes to CloudWatch Logs, into this group of the same region, which has to be there: docs/nix.md.
    journal.group = "/nitro-sign/parent";
  };

  warnings = lib.optional (!lib.pathExists released) ''
    release/pcrs.json is not there: nix/deployment.nix pins a PCR0 that no image has, and this system is not built.
    Build the image (nix build .#eif) and write the PCR0 of result/pcrs.json there.
  '';
}
