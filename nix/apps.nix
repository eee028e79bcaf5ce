# `nix run .#NAME`
{ pkgs, packages }:
let
  inherit (pkgs) lib;
  app = description: program: {
    type = "app";
    inherit program;
    meta = { inherit description; };
  };
in
{
  parent = app "The daemon on the parent EC2 instance" (lib.getExe packages.parent);
  demo = app "Every program on this machine: provision, unseal, sign, verify" (
    toString (
      pkgs.writeShellScript "nitro-sign-demo" ''
        export NITRO_SIGN_BIN_DIR=${packages.development}/bin
        exec "$NITRO_SIGN_BIN_DIR/demo" "$@"
      ''
    )
  );
  pcr-compare = app "Which PCRs differ between two images, and which input made them differ" (
    toString (
      pkgs.writeShellScript "nitro-sign-pcr-compare" ''
        exec ${lib.getExe packages.nitro-sign} pcr compare "$@"
      ''
    )
  );
}
