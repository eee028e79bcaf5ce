# Checks of the module: that docs/module-options.md and the units rendered from it are current, that bad configurations are
# refused with words that help, that the daemon accepts what the module writes, and that cores and memory are set apart as said.
{
  pkgs,
  # Package with the program `parent`.
  parent,
}:
let
  inherit (pkgs) lib;
  evaluate = import ./module-evaluate.nix { inherit pkgs; };
  options = import ./module-options.nix { inherit pkgs; };
  inherit (import ./module/cases.nix { inherit pkgs parent; })
    good
    refused
    mistyped
    rendered
    ;

  failures =
    modules:
    map (one: one.message) (lib.filter (one: !one.assertion) (evaluate modules).config.assertions);
  problemOf =
    name:
    { module, message }:
    let
      found = failures [
        good
        module
      ];
    in
    if lib.length found == 1 && lib.hasInfix message (lib.head found) then
      [ ]
    else
      [ "${name}: expected one failure with \"${message}\", got ${builtins.toJSON found}" ];
  configFile =
    module:
    (evaluate [
      good
      module
    ]).config.services.nitro-sign.parent.configFile;
  accepted =
    module:
    (builtins.tryEval (
      builtins.deepSeq [
        (configFile module).drvPath
        (failures [
          good
          module
        ])
      ] null
    )).success;

  # --- what a deployment's directory gives ---
  deployment = ./module/example-deployment;
  facts = lib.importTOML (deployment + "/deployment.toml");
  given =
    (evaluate [
      {
        services.nitro-sign.parent = {
          inherit deployment;
          # An explicit value is stronger.
          bundle.epoch = 8;
        };
      }
    ]).config.services.nitro-sign.parent;
  fromDeployment =
    lib.optional (
      given.ciphertexts != {
        identity = deployment + "/age-identity.kms";
        bundle = deployment + "/service_key_shares.json.age";
      }
    ) "deployment: other ciphertexts"
    ++ lib.optional (
      given.bundle != {
        epoch = 8;
        sha256 = facts.bundle_sha256;
      }
    ) "deployment: another bundle"
    ++ lib.optional (
      [
        given.kms.region
        given.kms.keyId
      ] != [
        facts.region
        facts.kms_key_id
      ]
    ) "deployment: another key";

  problems =
    lib.concatLists (lib.mapAttrsToList problemOf refused)
    ++ fromDeployment
    ++ map (message: "the good configuration: ${message}") (failures [ good ])
    ++ lib.optional (!accepted { }) "the good configuration has a wrong type"
    ++ lib.mapAttrsToList (name: _: "${name}: no type refuses it") (
      lib.filterAttrs (_: accepted) mistyped
    );

  configFiles = lib.mapAttrs (_: configFile) rendered;
in
{
  module-options = pkgs.runCommand "module-options-are-documented" { } ''
    diff -u ${../docs/module-options.md} ${options} || {
      echo "docs/module-options.md is not what the options say: nix build .#module-options, and copy the result there"
      exit 1
    }
    touch $out
  '';

  module-assertions =
    if problems == [ ] then
      pkgs.writeText "module-assertions" "${
        toString (lib.length (lib.attrNames (refused // mistyped)))
      } bad configurations are refused\n"
    else
      throw "the module: ${lib.concatStringsSep "\n" problems}";

  module-settings =
    pkgs.runCommand "module-settings-are-accepted"
      {
        nativeBuildInputs = [
          parent
          pkgs.openssl
        ];
      }
      ''
        mkdir authority
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -subj "/CN=test root" \
          -keyout /dev/null -out authority/root.pem
        # Where systemd puts the credentials there is nothing here.
        echo '{"access_key_id": "a", "secret_access_key": "b"}' > credentials.json
        ${lib.concatLines (
          lib.mapAttrsToList (name: configFile: ''
            sed "s|/run/credentials/[^\"]*|$PWD/credentials.json|; s|/build/|$PWD/|" ${configFile} > ${name}.toml
            parent check --config ${name}.toml
          '') configFiles
        )}
        touch $out
      '';

  module-units = (import ./module-units.nix { inherit pkgs; }).check;

  module-reserve = pkgs.runCommand "module-reserve" { } ''
    bash ${./module/reserve-test.sh} ${./module/reserve.sh}
    touch $out
  '';
}
