# An enclave image, put together by `eif build` with nix/image.arguments: the program and the arguments of `cargo xtask
# image`. Store paths take the place of `inputs/…` in them, so that provenance.json names them.
{
  lib,
  stdenv,
  runCommand,
  formats,
  binutils,
  rustc,
  root,
  eif-tool,
  enclave,
  kernel,
  sign-service,
}@packages:
{
  # Name of the image, for its metadata, which no PCR covers.
  name ? "nitro-sign",
  # The program that signs: null for the built-in one, or
  #   { program = file; args ? [ ]; files ? { "/etc/…" = file; }; … }
  # where … is the rest of [workload] in nix/enclave.toml. The program is static and becomes /bin/sign-service.
  workload ? null,
  # Keys of enclave.toml to add or to replace: an attribute set, or a TOML file.
  config ? { },
  # Another kernel: a derivation with a `version` and the files `kernel` and `config`.
  kernel ? packages.kernel,
  # PEM file with the roots for TLS to KMS, in the place of the public ones. Measured, like everything here.
  kmsRoots ? null,
  # For tests: a KMS stand-in's authority (a directory), to trust and to put beside the image.
  kmsAuthority ? null,
}:
let
  # --- enclave.toml: as committed, unless something differs ---
  committed = root + "/nix/enclave.toml";
  configured = if lib.isAttrs config then config else fromTOML (builtins.readFile config);
  changes =
    configured
    // lib.optionalAttrs (workload != null) {
      workload = removeAttrs workload [ "files" ] // {
        program = "/bin/sign-service";
      };
    };
  defaults = removeAttrs (fromTOML (builtins.readFile committed)) (
    # It and [workload] exclude each other.
    lib.optional (workload != null) "sign_service"
  );
  withChanges =
    if changes == { } then
      committed
    else
      (formats.toml { }).generate "enclave.toml" (lib.recursiveUpdate defaults changes);
  roots = if kmsAuthority != null then "${kmsAuthority}/kms-ca.pem" else kmsRoots;
  # What the enclave would refuse when it runs is not built.
  changed = runCommand "enclave.toml" { } ''
    ${lib.optionalString (roots != null) ''
      grep -q "BEGIN CERTIFICATE" ${roots} || { echo "${roots} holds no certificate in PEM"; exit 1; }
      # A key at the top of the file, before any table.
      { echo 'kms_roots_pem = """'; cat ${roots}; echo '"""'; } > $out
    ''}
    cat ${withChanges} >> $out
    ${lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
      # Nobody is at that place: a program that looks there has taken the rest.
      sed 's|^parent = .*|parent = "unix:/nonexistent/parent"|' $out > enclave.toml
      said=$(${enclave}/bin/enclave enclave.toml 2>&1) || true
      case $said in
        *ParentUnreachable*) ;;
        *)
          printf 'the enclave refuses the configuration of %s; see `config` and `workload` of mkEif:\n%b\n' ${lib.escapeShellArg name} "$said" >&2
          exit 1
          ;;
      esac
    ''}
  '';

  # --- inputs: name below inputs/ = file in the store ---
  files = lib.mapAttrs' (
    destination: file: lib.nameValuePair "files${destination}" "${file}"
  ) workload.files or { };
  inputs = {
    bzImage = "${kernel}/kernel";
    enclave = "${enclave}/bin/enclave";
    sign-service =
      if workload == null then "${sign-service}/bin/sign-service" else "${workload.program}";
    "enclave.toml" = "${if changes == { } && roots == null then committed else changed}";
  }
  // files;

  # --- arguments of `eif build` ---
  committedArguments = lib.filter (line: line != "" && !lib.hasPrefix "#" line) (
    lib.splitString "\n" (builtins.readFile (root + "/nix/image.arguments"))
  );
  arguments =
    committedArguments
    ++ map (file: "--application=${lib.removePrefix "files" file}=inputs/${file}:644") (
      lib.attrNames files
    )
    ++ lib.optional stdenv.hostPlatform.isAarch64 "--aarch64"
    ++ [
      "--name=${name}"
      "--kernel-version=${kernel.version}"
      "--built-with=rustc=${rustc.version}"
      "--built-with=gcc=${lib.getVersion stdenv.cc.cc}"
      "--built-with=ld=${lib.getVersion stdenv.cc.bintools.bintools}"
    ]
    # Not the source's store path: it would be kept beside the image.
    ++ lib.optional (
      kernel ? src
    ) "--built-with=kernel source=${kernel.src.name} ${kernel.src.outputHash}";
  # Longer names first: inputs/enclave.toml begins with inputs/enclave.
  names = lib.sort (a: b: lib.stringLength a > lib.stringLength b) (lib.attrNames inputs);
  inStore = lib.replaceStrings (map (file: "inputs/${file}") names) (
    map (file: inputs.${file}) names
  );
in
assert lib.assertMsg (
  kmsRoots == null || kmsAuthority == null
) "mkEif: `kmsRoots` and `kmsAuthority` both name the roots for TLS to KMS; keep one";
assert lib.assertMsg (roots == null || !(configured ? kms_roots_pem))
  "mkEif: `config.kms_roots_pem` names the roots for TLS to KMS, and so does another argument; keep one";
assert lib.assertMsg (!(configured ? workload))
  "mkEif: `config` has [workload]; the program has to be put into the image, too: use the argument `workload`";
assert lib.assertMsg (
  workload == null || workload ? program
) "mkEif: `workload` has no `program`: the static program, as a file or a derivation that is one";
assert lib.assertMsg (lib.all (lib.hasPrefix "/") (
  lib.attrNames workload.files or { }
)) "mkEif: a name in `workload.files` is no absolute path; it says where the file is in the image";
runCommand "${name}-eif"
  {
    nativeBuildInputs = [
      binutils
      eif-tool
    ];
    passthru = {
      inherit inputs kernel;
      # Of an image with another enclave.toml than the committed one.
      config = changed;
    };
    meta = {
      description = "Enclave image with its PCRs and what it was made of";
      platforms = [
        "x86_64-linux"
        # Not built, not booted.
        "aarch64-linux"
      ];
    };
  }
  ''
    for program in ${inputs.enclave} ${inputs.sign-service}; do
      if readelf --program-headers --wide $program 2> /dev/null | grep -q INTERP; then
        echo "$program is linked dynamically, and there are no libraries in the image; build it with pkgsStatic"
        exit 1
      fi
    done

    ${lib.concatLines (
      lib.mapAttrsToList (file: path: "install -D -m 644 ${path} $out/inputs/${file}") inputs
    )}
    install -m 644 ${kernel}/config $out/inputs/kernel.config
    echo ${kernel.version} > $out/inputs/kernel.version
    printf '%s\n' ${lib.escapeShellArgs arguments} > $out/inputs/arguments
    ${lib.optionalString (kmsAuthority != null) "cp -r ${kmsAuthority} $out/kms-authority"}

    eif build ${lib.escapeShellArgs (map inStore arguments)} --out $out
  ''
