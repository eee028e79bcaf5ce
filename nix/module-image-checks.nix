# Checks of nix/module/image-check.nix: systems are built, or not, as far as their enclave's image decides it.
{
  pkgs,
  parent,
  eif-tool,
}:
let
  inherit (pkgs) lib;
  evaluate = import ./module-evaluate.nix { inherit pkgs; };
  inherit (import ./module/cases.nix { inherit pkgs parent; }) good;

  # No machine would boot it, but it is an image, and larger than 16 MiB.
  image = pkgs.runCommand "image" { nativeBuildInputs = [ eif-tool ]; } ''
    truncate --size 20M kernel
    echo runtime > runtime
    echo application > application
    eif build --kernel=kernel --kernel-version=none --command-line=none --runtime=/init=runtime --application=/bin/application=application --out=$out
  '';
  # Fixed: nothing but the lines above is in the image. If its layout changes, the check of the good system says the new one.
  pcr0 = "d0788bae799847c0f3394e0170f7e0a7873c75f0b97f0c96da0976f88ee43ee5844e09cbe2ff4418af32ff56df4f68de";

  checksOf =
    settings:
    (evaluate [
      good
      {
        services.nitro-sign.parent.enclave = {
          pcr0 = lib.mkForce pcr0;
          nitro.image = lib.mkForce "${image}/image.eif";
        };
      }
      { services.nitro-sign.parent.enclave = settings; }
    ]).config.system.checks;
  check = settings: lib.head (checksOf settings);
  # The same derivation, which succeeds with its exit code and its words if it fails.
  refused =
    settings:
    (check settings).overrideAttrs (derivation: {
      buildCommand = ''
        mkdir $out
        code=0
        (
          out=$PWD/measured
          ${derivation.buildCommand}
        ) 2> $out/problem || code=$?
        echo $code > $out/code
      '';
    });

  emulated = checksOf {
    backend = lib.mkForce "process";
  };
  elsewhere = checksOf {
    nitro.image = lib.mkOverride 10 "/var/lib/nitro-sign/image.eif";
  };
in
assert lib.assertMsg (
  emulated == [ ]
) "the image of a Nitro Enclave is checked where there is none";
assert lib.assertMsg (elsewhere == [ ]) "an image is checked that the build does not have";
{
  module-image = pkgs.runCommand "module-image" { nativeBuildInputs = [ pkgs.jq ]; } ''
    # The check's result: what was measured.
    diff <(jq --sort-keys . ${check { }}) <(jq --sort-keys . ${image}/pcrs.json)
    ${lib.concatLines (
      lib.mapAttrsToList
        (name: one: ''
          echo "--- ${name}"
          cat ${refused one.settings}/problem
          [ "$(cat ${refused one.settings}/code)" = ${toString one.code} ]
          grep -qF ${lib.escapeShellArg one.message} ${refused one.settings}/problem
          grep -q "this system could not start its enclave" ${refused one.settings}/problem
        '')
        {
          "another PCR0 is pinned" = {
            settings.pcr0 = lib.mkOverride 10 (lib.concatStrings (lib.replicate 96 "f"));
            code = 77;
            message = "has PCR0 ${pcr0}";
          };
          "less memory than four times the image" = {
            settings.nitro.memoryMib = 80;
            code = 78;
            message = "set `enclave.nitro.memory_mib` to 81 or more, it is 80";
          };
          "less memory than any enclave has" = {
            settings.nitro.memoryMib = 62;
            code = 78;
            message = "`enclave.nitro.memory_mib`: expected 64 to";
          };
          "no image" = {
            settings.nitro.image = lib.mkOverride 10 (pkgs.writeText "image.eif" "no image");
            code = 77;
            message = "`enclave.nitro.image`";
          };
        }
    )}
    touch $out
  '';
}
