{
  description = "A signing appliance for AWS Nitro Enclaves: image, parent, AMI";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = lib.genAttrs [
        "x86_64-linux"
        # The kernel and the image are not booted there.
        "aarch64-linux"
      ];
      pkgsOf = system: nixpkgs.legacyPackages.${system};
      # With mkEif, which is no package.
      all = systems (system: import ./nix/packages.nix { pkgs = pkgsOf system; });
      nixos = import ./nix/nixos.nix {
        inherit nixpkgs;
        pkgs = pkgsOf "x86_64-linux";
        packagesOf = system: all.${system};
      };
    in
    {
      nixosModules.parent = nixos.module;
      # `nixos-rebuild switch --flake .#parent` on the instance; what is yours in it: nix/deployment.nix.
      nixosConfigurations.parent = nixos.configuration;

      packages = systems (
        system:
        removeAttrs all.${system} [ "mkEif" ]
        // {
          default = all.${system}.eif;
        }
        // lib.optionalAttrs (system == "x86_64-linux") nixos.packages
      );

      apps = systems (
        system:
        import ./nix/apps.nix {
          pkgs = pkgsOf system;
          packages = all.${system};
        }
      );

      checks.x86_64-linux =
        import ./nix/checks.nix {
          pkgs = pkgsOf "x86_64-linux";
          packages = all.x86_64-linux;
          root = ./.;
        }
        // nixos.checks;

      devShells = systems (system: {
        default = (pkgsOf system).callPackage ./nix/dev-shell.nix { };
      });
      formatter = systems (system: (pkgsOf system).nixfmt-tree);

      # pkgs.nitro-sign.parent, pkgs.nitro-sign.eif, pkgs.nitro-sign.mkEif, …
      overlays.default = final: _: { nitro-sign = import ./nix/packages.nix { pkgs = final; }; };

      # An image around another program that signs: see nix/eif.nix and examples/own-workload.
      lib.mkEif =
        {
          system ? "x86_64-linux",
          ...
        }@arguments:
        all.${system}.mkEif (removeAttrs arguments [ "system" ]);
    };
}
