# Builds programs from no more of the Cargo workspace than they are made of: their crates, found in the manifests, and the
# packages that these lead to in Cargo.lock. Whatever else changes (the documentation, the parent, its dependencies) leaves
# the derivation as it is. Cargo wants the manifest of each member, so the workspace's own manifest is reduced, too.
{
  lib,
  formats,
  root,
}:
let
  inherit (lib.fileset) difference maybeMissing unions;

  read = file: fromTOML (builtins.readFile (root + "/${file}"));
  workspace = read "Cargo.toml";
  lock = read "Cargo.lock";

  manifest = directory: read "src/${directory}/Cargo.toml";
  dependencies =
    manifest:
    lib.attrNames (
      manifest.dependencies or { }
      // manifest.build-dependencies or { }
      // manifest.dev-dependencies or { }
    );

  # Folders of src/: these and those that they depend on, tests included, since Cargo reads their manifests as well.
  closure =
    directories:
    let
      ofDependency = name: workspace.workspace.dependencies.${name}.path or null;
      next =
        directory: lib.filter (path: path != null) (map ofDependency (dependencies (manifest directory)));
    in
    map ({ key }: key) (
      lib.genericClosure {
        startSet = map (key: { inherit key; }) directories;
        operator = { key }: map (path: { key = lib.removePrefix "src/" path; }) (next key);
      }
    );

  # Cargo.lock without the packages that nothing of these crates leads to.
  reducedLock =
    directories:
    let
      byName = lib.groupBy (package: package.name) lock.package;
      identity = package: "${package.name} ${package.version} ${package.source or ""}";
      # "name", "name version" or "name version (source)", as short as it is unambiguous.
      find =
        dependency:
        let
          words = lib.splitString " " dependency;
          named = byName.${lib.head words};
        in
        if lib.length words == 1 then
          named
        else
          lib.filter (package: package.version == lib.elemAt words 1) named;
      node = package: {
        key = identity package;
        inherit package;
      };
      own = lib.concatMap (directory: byName.${(manifest directory).package.name}) directories;
      kept = lib.genericClosure {
        startSet = map node own;
        operator = { package, ... }: map node (lib.concatMap find (package.dependencies or [ ]));
      };
      isKept = lib.genAttrs (map ({ key, ... }: key) kept) (_: true);
    in
    lib.filter (package: isKept ? ${identity package}) lock.package;

  renderLock =
    packages:
    let
      value = lib.strings.toJSON;
      field =
        package: name: lib.optionalString (package ? ${name}) "${name} = ${value package.${name}}\n";
      entry =
        package:
        "\n[[package]]\n"
        + lib.concatMapStrings (field package) [
          "name"
          "version"
          "source"
          "checksum"
          "dependencies"
        ];
    in
    "version = ${toString lock.version}\n" + lib.concatMapStrings entry packages;
in
{
  # Arguments of buildRustPackage for programs that come from these folders of src/.
  sources =
    directories:
    let
      crates = closure directories;
      lockFileContents = renderLock (reducedLock crates);
      used = lib.unique (lib.concatMap (directory: dependencies (manifest directory)) crates);
      reduced = workspace // {
        workspace = workspace.workspace // {
          members = map (directory: "src/${directory}") crates;
          dependencies = lib.getAttrs used workspace.workspace.dependencies;
        };
      };
      crate =
        directory:
        difference (root + "/src/${directory}") (unions [
          (maybeMissing (root + "/src/${directory}/tests"))
          (maybeMissing (root + "/src/${directory}/guest"))
        ]);
    in
    {
      src = lib.fileset.toSource {
        inherit root;
        fileset = unions (map crate crates ++ lib.optional (lib.elem "api" crates) (root + "/proto"));
      };
      cargoLock = { inherit lockFileContents; };
      postPatch = ''
        cp ${(formats.toml { }).generate "Cargo.toml" reduced} Cargo.toml
        cp ${builtins.toFile "Cargo.lock" lockFileContents} Cargo.lock
        chmod +w Cargo.toml Cargo.lock
      '';
    };

  inherit (workspace.workspace.package) version;
}
