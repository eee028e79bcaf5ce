# The module's units as files for machines without NixOS. `nix build .#module-units`, then copy what is in the result to the same
# places here; a check compares.
{ pkgs }:
let
  inherit (pkgs) lib;
  evaluate = import ./module-evaluate.nix { inherit pkgs; };
  # Stands for the program, until its place is known.
  package = pkgs.emptyDirectory;
  plain = builtins.unsafeDiscardStringContext;

  # Units that NixOS alone has. What AWS's packages have in their place sets cores and memory apart.
  elsewhere = lib.mapAttrs (
    key: units:
    if key == "after" then
      map (
        unit: if unit == "nitro-sign-resources.service" then "nitro-enclaves-allocator.service" else unit
      ) units
    else
      lib.remove "nitro-sign-resources.service" units
  );

  render =
    {
      modules,
      # What is to be known of the file.
      comments,
      name,
    }:
    let
      inherit (evaluate modules) config;
      service = config.systemd.services.${name};
      order = elsewhere {
        inherit (service) after requires wants;
      };
      sections = {
        Unit = {
          Description = service.description;
          Documentation = service.documentation or [ ];
          After = order.after;
          Requires = order.requires;
          Wants = order.wants;
        }
        // service.unitConfig or { };
        Service = service.serviceConfig // {
          Environment = lib.mapAttrsToList (name: value: "${name}=${value}") (service.environment or { });
        };
        Install.WantedBy = service.wantedBy;
      };
      inherit (config.services.nitro-sign) parent;
      places = {
        "${plain "${package}"}/bin" = "/usr/bin";
        ${plain "${parent.configFile}"} = "/etc/nitro-sign/parent.toml";
        ${plain "${parent.journal.configFile}"} = "/etc/nitro-sign/journal.toml";
      };
      text = lib.generators.toINI { listsAsDuplicateKeys = true; } (
        lib.filterAttrs (_: section: section != { }) (
          lib.mapAttrs (_: lib.filterAttrs (_: value: value != [ ])) sections
        )
      );
    in
    pkgs.writeText "${name}.service" (
      lib.concatMapStrings (line: "# ${line}\n") (
        comments ++ [ "Rendered from the NixOS module: see nix/module-units.nix." ]
      )
      + "\n"
      + lib.replaceStrings (lib.attrNames places) (lib.attrValues places) (plain text)
    );

  anywhere = {
    services.nitro-sign.parent = {
      enable = true;
      inherit package;
      kms.credentialsFile = "/etc/nitro-sign/credentials.json";
      # Of no influence on the unit.
      bundle.epoch = 1;
      bundle.sha256 = lib.concatStrings (lib.replicate 64 "0");
      ciphertexts.bundle = "/etc/nitro-sign/service_key_shares.json.age";
      ciphertexts.identity = "/etc/nitro-sign/age-identity.kms";
      enclave.nitro.cores = [ [ 1 ] ];
      enclave.nitro.image = "/usr/lib/nitro-sign/image.eif";
      enclave.pcr0 = lib.concatStrings (lib.replicate 96 "f");
      kms.keyId = "key";
      kms.region = "eu-central-1";
      journal.group = "/nitro-sign/parent";
    };
  };
  stories = [
    (import ../vm-tests/parent.nix { programs = "/usr/bin"; })
    { services.nitro-sign.parent = { inherit package; }; }
  ];

  ofStories = name: {
    inherit name;
    modules = stories;
    comments = [ "A unit in the stories without NixOS." ];
  };
  written = (evaluate stories).config.services.nitro-sign.parent;

  rendered = {
    "docs/nitro-sign-parent.service" = render {
      name = "nitro-sign-parent";
      modules = [ anywhere ];
      comments = [
        "For distributions without Nix, systemd 247 or newer; an older one than 254 warns of RestartSteps and waits RestartSec each time."
        "Needs the program at /usr/bin/parent, /etc/nitro-sign/parent.toml (docs/parent.example.toml) with"
        "  kms.credentials_file = \"/run/credentials/nitro-sign-parent.service/kms\" and runtime_dir = \"/run/nitro-sign\","
        "the credentials at /etc/nitro-sign/credentials.json, a system user nitro-sign, and a group ne that owns /dev/nitro_enclaves."
      ];
    };
    "docs/nitro-sign-journal.service" = render {
      name = "nitro-sign-journal";
      modules = [ anywhere ];
      comments = [
        "For distributions without Nix, as nitro-sign-parent.service is. Needs the program at /usr/bin/parent,"
        "/etc/nitro-sign/journal.toml (docs/journal.example.toml), and a system user nitro-sign-journal."
      ];
    };
    "vm-tests/plain/nitro-sign-parent.service" = render (ofStories "nitro-sign-parent");
    "vm-tests/plain/nitro-sign-journal.service" = render (ofStories "nitro-sign-journal");
    # The template of what `provision parent` writes.
    "vm-tests/plain/parent.toml" = written.configFile;
    "vm-tests/plain/journal.toml" = written.journal.configFile;
  };
in
{
  files = pkgs.runCommand "module-units" { } (
    lib.concatLines (lib.mapAttrsToList (path: file: "install -D -m 644 ${file} $out/${path}") rendered)
  );

  check = pkgs.runCommand "module-units-are-current" { } ''
    ${lib.concatLines (
      lib.mapAttrsToList (path: file: ''
        diff -u ${../. + "/${path}"} ${file} || {
          echo "${path} is not what the module says: nix build .#module-units, and copy the result there"
          exit 1
        }
      '') rendered
    )}
    touch $out
  '';
}
