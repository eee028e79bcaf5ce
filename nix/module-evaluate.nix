# Evaluates the module without the rest of NixOS: quickly, and with nothing but its own options.
{ pkgs }:
let
  inherit (pkgs) lib;
  # Where the module puts what NixOS would make of it.
  anything = lib.mkOption {
    type = lib.types.anything;
    default = { };
  };
  list = lib.mkOption {
    type = lib.types.listOf lib.types.anything;
    default = [ ];
  };
in
modules:
lib.evalModules {
  specialArgs = { inherit pkgs; };
  modules = [
    ./module.nix
    {
      options = {
        assertions = list;
        warnings = list;
        boot = {
          extraModprobeConfig = anything;
          kernel.sysctl = anything;
          kernelModules = list;
          kernelParams = list;
        };
        networking.firewall.allowedTCPPorts = list;
        services.udev.extraRules = anything;
        system.checks = list;
        systemd.services = lib.mkOption {
          type = lib.types.attrsOf (
            lib.types.submodule {
              freeformType = lib.types.attrsOf lib.types.anything;
              # Several files order one unit.
              options = lib.genAttrs [ "after" "requires" "wantedBy" "wants" ] (_: list);
            }
          );
          default = { };
        };
        users = anything;
      };
    }
  ]
  ++ modules;
}
