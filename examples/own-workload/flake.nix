{
  inputs.nitro-sign.url = "path:../.."; # in a repository of your own: where this one is

  outputs =
    { nitro-sign, ... }:
    let
      inherit (nitro-sign.inputs.nixpkgs.legacyPackages.x86_64-linux) pkgsStatic;
      # Your program, unmodified. It is linked statically, since there is no library in the image.
      service = pkgsStatic.runCommandCC "own-service" { } "$CC -O2 -static ${./service.c} -o $out";
    in
    {
      packages.x86_64-linux.eif = nitro-sign.lib.mkEif {
        name = "own-workload";
        workload = {
          program = service;
          args = [ "/etc/own.conf" ];
          files."/etc/own.conf" = ./own.conf;
        };
      };
    };
}
