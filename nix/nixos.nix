# What the flake offers to NixOS: module, configuration, Amazon image, and their checks.
{
  nixpkgs,
  pkgs,
  # system -> what nix/packages.nix makes
  packagesOf,
}:
let
  packages = packagesOf pkgs.stdenv.hostPlatform.system;

  # The options, with this flake's programs and image.
  module =
    { lib, pkgs, ... }:
    let
      packages = packagesOf pkgs.stdenv.hostPlatform.system;
    in
    {
      imports = [ ./module.nix ];
      services.nitro-sign.parent.package = lib.mkDefault packages.parent;
      services.nitro-sign.parent.enclave.nitro.image = lib.mkDefault "${packages.eif}/image.eif";
    };

  # A parent instance with the deployment that this module describes.
  system =
    deployment:
    nixpkgs.lib.nixosSystem {
      modules = [
        module
        ./parent-configuration.nix
        deployment
      ];
    };
  configuration = system ./deployment.nix;
in
{
  inherit module configuration;

  packages = {
    ami = import ./ami.nix { parent = configuration; };
    module-options = import ./module-options.nix { inherit pkgs; };
    module-units = (import ./module-units.nix { inherit pkgs; }).files;
  };

  checks =
    import ./module-checks.nix {
      inherit pkgs;
      inherit (packages) eif-tool parent;
    }
    // import ./parent-checks.nix {
      inherit pkgs system;
    }
    // pkgs.lib.mapAttrs' (name: pkgs.lib.nameValuePair "vm-${name}") (
      import ../vm-tests { inherit module packages pkgs; }
    );
}
