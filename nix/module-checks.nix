# Checks of the module: that docs/module-options.md and the units rendered from it are current, that bad configurations are
# refused with words that help, that the programs accept what the module writes and read nothing else, that the journal's service
# is no part of the parent's fate, that credentials are made as said, and that cores and memory are set apart as said. nix/module-image-checks.nix has those of the image.
{
  pkgs,
  # Packages with the programs `parent` and `eif`.
  parent,
  eif-tool,
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
    journals
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
  systemOf =
    module:
    (evaluate [
      good
      module
    ]).config;
  configFile = module: (systemOf module).services.nitro-sign.parent.configFile;
  journalFile = module: (systemOf module).services.nitro-sign.parent.journal.configFile;
  accepted =
    module:
    (builtins.tryEval (
      builtins.deepSeq [
        (configFile module).drvPath
        (lib.optional ((systemOf module).services.nitro-sign.parent.journal.group != null) (
          (journalFile module).drvPath
        ))
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

  # --- the journal's service: only if asked for, and no part of the parent's fate ---
  shipping = systemOf journals.least.module;
  unit = "nitro-sign-journal";
  linked = one: other: lib.hasInfix other (builtins.toJSON (removeAttrs one [ "serviceConfig" ]));
  fromJournal =
    lib.optional (
      let
        system = systemOf { };
      in
      system.systemd.services ? ${unit} || system.users.users ? ${unit}
    ) "journal: shipped without a log group"
    ++ lib.optional (
      !(shipping.systemd.services ? ${unit} && shipping.users.users ? ${unit})
    ) "journal: not shipped"
    ++ lib.optional (linked shipping.systemd.services.nitro-sign-parent unit) "journal: the parent depends on it"
    ++ lib.optional (linked shipping.systemd.services.${unit}
      "nitro-sign-parent"
    ) "journal: it depends on the parent";

  # --- credentials: for one key, and whoever waits for them is not given up ---
  # Which tool asks STS does not matter here.
  evaluateWithoutTool = import ./module-evaluate.nix {
    pkgs = pkgs // {
      awscli2 = pkgs.emptyDirectory;
    };
  };
  assuming =
    partition: keyId:
    (evaluateWithoutTool [
      good
      {
        services.nitro-sign.parent.kms = {
          assumeRole = "arn:${partition}:iam::111122223333:role/nitro-sign-kms";
          credentialsFile = lib.mkForce "/run/nitro-sign-credentials/kms.json";
          keyId = lib.mkForce keyId;
        };
      }
    ]).config.systemd.services;
  policyFor =
    partition: keyId: resource:
    lib.optional (
      !lib.hasInfix ''"Resource":"${resource}"'' (assuming partition keyId)
      .nitro-sign-credentials.serviceConfig.ExecStart
    ) "credentials: not for ${resource}";
  waiting = (assuming "aws" "1234").nitro-sign-parent;
  fromCredentials =
    policyFor "aws-cn" "1234" "arn:aws-cn:kms:eu-central-1:*:key/1234"
    ++ (
      let
        key = "arn:aws:kms:eu-central-1:111122223333:key/1234";
      in
      policyFor "aws" key key
    )
    ++ lib.optional (
      !lib.elem "nitro-sign-credentials.service" waiting.wants
      || !lib.elem "nitro-sign-credentials.service" waiting.after
    ) "credentials: the parent does not wait for them"
    ++ lib.optional (lib.elem "nitro-sign-credentials.service" waiting.requires) "credentials: if they fail once, systemd gives the parent up";

  problems =
    lib.concatLists (lib.mapAttrsToList problemOf refused)
    ++ fromDeployment
    ++ fromJournal
    ++ fromCredentials
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
          pkgs.python3
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
        # Every key that the daemon reads is an option.
        python3 ${./module/keys.py} ${../docs/parent.example.toml} ${
          lib.concatStringsSep " " (map (name: "${name}.toml") (lib.attrNames configFiles))
        }
        touch $out
      '';

  # Nothing of AWS is here: the configuration was accepted if the next thing that it finds is a cursor that is none.
  module-journal =
    let
      files = lib.mapAttrs (name: one: pkgs.writeText "${name}.json" (builtins.toJSON one.file)) journals;
    in
    pkgs.runCommand "module-journal-is-accepted"
      {
        nativeBuildInputs = [
          parent
          pkgs.jq
          pkgs.python3
        ];
      }
      ''
        mkdir state
        echo "no cursor" > state/cursor
        ship() {
          sed "s|/var/lib/nitro-sign-journal|$PWD/state|" > journal.toml
          code=0
          parent ship-journal --config journal.toml 2> problem || code=$?
          cat problem
          [ $code = 78 ]
        }
        ${lib.concatLines (
          lib.mapAttrsToList (name: one: ''
            python3 -c 'import json, sys, tomllib; print(json.dumps(tomllib.load(sys.stdin.buffer)))' \
              < ${journalFile one.module} | jq --sort-keys . | diff -u <(jq --sort-keys . ${files.${name}}) -
            ship < ${journalFile one.module}
            grep "cursor_file.*holds no journal cursor" problem
          '') journals
        )}
        # journalctl is the system's.
        grep -v "^journalctl = " ${../docs/journal.example.toml} > example.toml
        python3 ${./module/keys.py} example.toml ${journalFile journals.everything.module}
        # And one that is not accepted.
        { cat ${journalFile journals.least.module}; echo "retention = 90"; } | ship
        grep "unknown field .retention." problem
        touch $out
      '';

  inherit (import ./module-image-checks.nix { inherit pkgs parent eif-tool; }) module-image;

  module-units = (import ./module-units.nix { inherit pkgs; }).check;

  module-credentials = pkgs.runCommand "module-credentials" { } ''
    bash ${./module/credentials-test.sh} ${./module/credentials.sh}
    touch $out
  '';

  module-reserve = pkgs.runCommand "module-reserve" { } ''
    bash ${./module/reserve-test.sh} ${./module/reserve.sh}
    touch $out
  '';
}
