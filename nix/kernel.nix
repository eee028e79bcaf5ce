# The enclave's kernel: nixpkgs' source, `make allnoconfig` and nix/kernel.config, built as `cargo xtask image` builds it.
{
  lib,
  stdenv,
  buildPackages,
  linux_6_12,
  fragment,
  bc,
  bison,
  elfutils,
  flex,
  perl,
  zlib,
}:
let
  inherit (stdenv.hostPlatform) isAarch64;
  image = if isAarch64 then "arch/arm64/boot/Image" else "arch/x86/boot/bzImage";
in
stdenv.mkDerivation {
  pname = "nitro-sign-kernel";
  version = linux_6_12.modDirVersion;
  inherit (linux_6_12) src;

  depsBuildBuild = [ buildPackages.stdenv.cc ];
  nativeBuildInputs = [
    bc
    bison
    elfutils
    flex
    perl
  ];
  buildInputs = [
    elfutils
    zlib
  ];

  # The kernel chooses its own compiler flags.
  hardeningDisable = [ "all" ];
  enableParallelBuilding = true;

  # Nobody, nowhere, never: the banner says who built it, where and when.
  env = {
    KBUILD_BUILD_TIMESTAMP = "1970-01-01 00:00:00 UTC";
    KBUILD_BUILD_USER = "enclave";
    KBUILD_BUILD_HOST = "enclave";
    KBUILD_BUILD_VERSION = "1";
    LOCALVERSION = "";
    LC_ALL = "C";
    TZ = "UTC";
    KCONFIG_ALLCONFIG = "${fragment}";
  };

  postPatch = ''
    patchShebangs scripts
    # Makefiles take it for a directory of theirs.
    unset src
  '';

  configurePhase = ''
    runHook preConfigure
    make allnoconfig

    # kconfig drops silently what it cannot follow.
    while IFS= read -r line; do
      case $line in
        CONFIG_*=*) grep -Fxq "$line" .config || echo "$line" ;;
        "# CONFIG_"*" is not set")
          option=''${line#\# }
          ! grep -q "^''${option%% *}=" .config || echo "$line"
          ;;
      esac
    done < "$KCONFIG_ALLCONFIG" > not-followed
    if [ -s not-followed ]; then
      echo "nix/kernel.config: the configuration did not follow these lines; what they depend on is missing, or" \
        "something else selects the option:"
      cat not-followed
      # The fragment is written for x86_64.
      ${lib.optionalString (!isAarch64) "exit 1"}
    fi

    release=$(make -s kernelrelease)
    if [ "$release" != "$version" ]; then
      echo "this is Linux $release, not $version"
      exit 1
    fi
    runHook postConfigure
  '';

  buildFlags = [ (baseNameOf image) ];

  installPhase = ''
    runHook preInstall
    install -D -m 644 ${image} $out/kernel
    install -m 644 .config $out/config
    ${lib.optionalString isAarch64 ''
      # The hypervisor loads the Image at text_offset (8 bytes at 8, little endian), which Linux has left at 0 since 5.10:
      # 2 MiB, as AWS's kernels have it. Not booted by anybody yet.
      printf '\x00\x00\x20\x00\x00\x00\x00\x00' | dd of=$out/kernel bs=1 seek=8 conv=notrunc status=none
    ''}
    runHook postInstall
  '';

  # Nothing to strip or to patch; the bytes are measured.
  dontFixup = true;

  meta = {
    description = "Linux with what an enclave needs and nothing else";
    license = lib.licenses.gpl2Only;
    platforms = [
      "x86_64-linux"
      # Evaluated only: not built, not booted.
      "aarch64-linux"
    ];
  };
}
