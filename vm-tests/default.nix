# NixOS tests: one story a file. The machines are those of ./machines.nix, and a story begins with what ./steps.py offers.
{
  pkgs,
  # nixosModules.parent
  module,
  # Of nix/packages.nix: development (all programs, with the software NSM), eif-emulated (an image for a KMS stand-in).
  packages,
}:
let
  story =
    file:
    pkgs.testers.runNixOSTest {
      imports = [
        ./machines.nix
        file
      ];
      _module.args = {
        inherit module packages;
      };
    };
in
{
  boot-and-sign = story ./boot-and-sign.nix;
  wrong-pcr0 = story ./wrong-pcr0.nix;
  tampered-bundle = story ./tampered-bundle.nix;
  enclave-killed = story ./enclave-killed.nix;
  bridge-killed = story ./bridge-killed.nix;
  journal = story ./journal.nix;
  switch-pcr0 = story ./switch-pcr0.nix;
  nested-eif = story ./nested-eif.nix;
}
