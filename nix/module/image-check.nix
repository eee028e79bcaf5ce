# A system that could not start its enclave is not built: what the next boot would refuse, the build refuses before the switch.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nitro-sign.parent;
  inherit (cfg.enclave) backend nitro;

  # What is elsewhere, the build does not see.
  isInStore = lib.hasPrefix "${builtins.storeDir}/" "${nitro.image}";
  # A system for another processor brings a program that does not run here.
  canAsk = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
in
{
  config.system.checks = lib.mkIf (cfg.enable && backend == "nitro" && isInStore && canAsk) [
    (pkgs.runCommand "nitro-sign-image-check" { nativeBuildInputs = [ cfg.package ]; } ''
      parent check-image --config ${cfg.configFile} > $out || {
        code=$?
        echo "this system could not start its enclave, so it is not built; see services.nitro-sign.parent.enclave: pcr0, nitro.image, nitro.memoryMib" >&2
        exit $code
      }
    '')
  ];
}
