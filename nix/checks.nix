# What `nix flake check` builds beside the NixOS tests.
{
  pkgs,
  packages,
  root,
}:
let
  inherit (pkgs) lib;
  inherit (packages) eif;

  # Is the image's derivation the same when these files are not there? With `--no-build` Nix writes no copy of the
  # repository, and the question cannot be asked.
  imageWithout =
    names:
    let
      copy = builtins.path {
        name = "source";
        path = root;
        filter = path: _: !lib.elem (lib.removePrefix "${toString root}/" path) names;
      };
      repository = /. + builtins.unsafeDiscardStringContext copy;
      other = import ./packages.nix {
        inherit pkgs;
        root = repository;
      };
    in
    {
      known = builtins.pathExists repository;
      same = other.eif.drvPath == eif.drvPath;
    };

  outside = [
    "README.md"
    "docs"
    "examples"
    "flake.nix"
    "nix/checks.nix"
    "rust-toolchain.toml"
    "src/cli"
    "src/emulator"
    "src/gateway"
    "src/harness"
    "src/parent"
    "src/sign-service/tests"
    "src/xtask"
    "vm-tests"
  ];
in
{
  # The image of the same inputs, put together again from `inputs/` alone.
  eif-again = pkgs.runCommand "eif-again" { nativeBuildInputs = [ packages.eif-tool ]; } ''
    cd ${eif}
    mapfile -t arguments < inputs/arguments
    eif build "''${arguments[@]}" --out $out
    cmp image.eif $out/image.eif
    cmp pcrs.json $out/pcrs.json
  '';

  # What the enclave would refuse becomes no image.
  eif-config =
    let
      program = "${packages.sign-service}/bin/sign-service";
      config = arguments: (packages.mkEif arguments).config;
      refused =
        arguments:
        (config arguments).overrideAttrs (derivation: {
          buildCommand = ''
            if (${derivation.buildCommand}) 2> problem; then
              echo "not refused: $(cat $out)"
              exit 1
            fi
            mv problem $out
          '';
        });
      accepted = config {
        workload = {
          inherit program;
          health = "tcp";
        };
      };
      misspelt = refused {
        workload = {
          inherit program;
          arguments = [ ];
        };
      };
      misplaced = refused { config.relay = "127.0.0.1:8080"; };
    in
    pkgs.runCommand "eif-config" { } ''
      grep '^health = "tcp"' ${accepted}
      grep 'unknown field `arguments`' ${misspelt}
      grep 'unknown field `relay`' ${misplaced}
      touch $out
    '';

  # Decided by evaluation: what is around the image's sources has no influence on it.
  eif-inputs =
    let
      less = imageWithout outside;
      control = imageWithout [ "src/enclave/src/scrub.rs" ];
    in
    assert lib.assertMsg (
      less.known -> less.same
    ) "one of these takes part in the image's derivation: ${toString outside}";
    assert lib.assertMsg (
      control.known -> !control.same
    ) "the image does not change with the enclave's sources, so this check sees nothing";
    pkgs.runCommand "eif-inputs" { } "touch $out";

  fmt-rust = pkgs.runCommand "fmt-rust" { nativeBuildInputs = [ pkgs.rustfmt ]; } ''
    find ${root + "/src"} -name '*.rs' -print0 \
      | xargs -0 rustfmt --check --edition 2024 --config-path ${root + "/rustfmt.toml"}
    touch $out
  '';

  fmt-nix = pkgs.runCommand "fmt-nix" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
    find ${
      lib.fileset.toSource {
        inherit root;
        fileset = lib.fileset.fileFilter (file: file.hasExt "nix") root;
      }
    } -name '*.nix' -print0 | xargs -0 nixfmt --check
    touch $out
  '';
}
