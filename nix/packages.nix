# Everything that is built, for one system. `root` is the repository.
{
  pkgs,
  root ? ../.,
}:
let
  inherit (pkgs) lib;
  workspace = pkgs.callPackage ./workspace.nix { inherit root; };
  inherit (workspace) version;

  meta = {
    license = with lib.licenses; [
      mit
      asl20
    ];
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };

  rust =
    rustPlatform: directories: arguments:
    rustPlatform.buildRustPackage (
      workspace.sources directories
      // {
        inherit version;
        # `cargo xtask test` runs the tests: what they need should not decide what PCR0 is made of.
        doCheck = false;
        # Said explicitly: nixpkgs' default would decide about the bytes.
        auditable = false;
        # `[profile.release]` strips; the build hook leaves that to stdenv, which keeps symbols unless told otherwise.
        stripAllList = [ "bin" ];
        inherit meta;
      }
      // arguments
    );

  # One program of several that were built together.
  program =
    programs: name: description:
    pkgs.runCommand "${name}-${version}" {
      meta = meta // {
        inherit description;
        mainProgram = name;
      };
    } "install -D ${programs}/bin/${name} $out/bin/${name}";

  packages = {
    # What runs inside the enclave: static, and without the software NSM.
    enclave-programs = rust pkgs.pkgsStatic.rustPlatform [ "enclave" "sign-service" ] {
      pname = "nitro-sign-enclave-programs";
      # Otherwise the path of the result is in the programs, and PCR0 changes with whatever changes the derivation.
      env.NIX_NO_SELF_RPATH = 1;
      disallowedReferences = [ "out" ];
      cargoBuildFlags = [
        "--package=enclave"
        "--package=sign-service"
      ];
    };
    enclave = program packages.enclave-programs "enclave" "PID 1 of the enclave";
    sign-service =
      program packages.enclave-programs "sign-service"
        "The signing service inside the enclave";

    kernel = pkgs.callPackage ./kernel.nix { fragment = root + "/nix/kernel.config"; };

    # Apart from the others: the image is built with it, and should not change with them.
    eif-tool = rust pkgs.rustPlatform [ "eif" ] {
      pname = "nitro-sign-eif";
      meta = meta // {
        description = "Builds, measures and takes apart enclave images";
        mainProgram = "eif";
      };
    };

    # Outside the enclave. Built apart from the stand-ins, whose features they must not get.
    host-programs = rust pkgs.rustPlatform [ "parent" "cli" "gateway" ] {
      pname = "nitro-sign-host-programs";
      cargoBuildFlags = [
        "--package=parent"
        "--package=nitro-sign"
        "--package=gateway"
      ];
    };
    parent = program packages.host-programs "parent" "The daemon on the parent EC2 instance";
    nitro-sign = program packages.host-programs "nitro-sign" "The operator's tool";
    gateway = program packages.host-programs "gateway" "A reference Sign Gateway";

    # Stand-ins and programs with the software NSM: for development and tests. The emulator is apart, so that the authority
    # in `eif-emulated` is not made anew with each change of the others.
    emulator = rust pkgs.rustPlatform [ "emulator" ] {
      pname = "emulator";
      buildType = "debug";
      meta = meta // {
        description = "Stand-ins for AWS: KMS with attestation, the NSM";
        mainProgram = "emulator";
      };
    };
    development-programs = rust pkgs.rustPlatform [ "harness" "enclave" "sign-service" ] {
      pname = "nitro-sign-development-programs";
      buildType = "debug";
      cargoBuildFlags = [
        "--package=harness"
        "--package=enclave"
        "--package=sign-service"
      ];
      buildFeatures = [
        "enclave/software-nsm"
        "sign-service/software-nsm"
      ];
    };
    # Everything that the demo starts, in one `bin`.
    development =
      pkgs.runCommand "nitro-sign-development-${version}"
        {
          meta = meta // {
            description = "All programs as the demo and the tests run them, with the software NSM";
            mainProgram = "demo";
          };
        }
        ''
          mkdir -p $out/bin
          ln -s -t $out/bin ${packages.development-programs}/bin/* ${packages.host-programs}/bin/* \
            ${lib.getExe packages.eif-tool} ${lib.getExe packages.emulator}
        '';

    mkEif = pkgs.callPackage ./eif.nix {
      inherit root;
      inherit (packages)
        eif-tool
        enclave
        kernel
        sign-service
        ;
    };

    eif = packages.mkEif { };

    # A certificate authority for the KMS stand-in, for one machine's tests.
    kms-authority = pkgs.callPackage ./kms-authority.nix { inherit (packages) emulator; };
    eif-emulated = packages.mkEif {
      name = "nitro-sign-emulated";
      kmsAuthority = packages.kms-authority;
    };

    # What CI compares, without the image.
    pcrs = pkgs.runCommand "nitro-sign-pcrs" { } ''
      install -D -m 644 -t $out ${packages.eif}/pcrs.json ${packages.eif}/provenance.json
    '';
  };
in
packages
