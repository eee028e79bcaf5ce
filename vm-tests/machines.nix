# The machines of every story: AWS (with the operator), the parent instance, the Sign Gateway.
{
  config,
  hostPkgs,
  lib,
  module,
  packages,
  ...
}:
let
  programs =
    { pkgs, ... }:
    {
      environment.systemPackages = [
        packages.development
        pkgs.jq
        (pkgs.writeShellApplication {
          name = "provision";
          runtimeInputs = [
            packages.development
            pkgs.openssl
            pkgs.python3
          ];
          text = ''exec python3 ${./provision.py} "$@"'';
        })
      ];
      virtualisation.cores = 2;
      virtualisation.memorySize = 1536;
    };
in
{
  options.story = lib.mkOption {
    type = lib.types.lines;
    description = "The test script, behind the functions of ./steps.py.";
  };

  config = {
    testScript = lib.readFile ./steps.py + "\n" + config.story;

    defaults = programs;

    nodes.aws.networking.firewall.allowedTCPPorts = [
      4433
      4434
    ];

    nodes.gateway.systemd.services.gateway = {
      description = "Reference Sign Gateway";
      serviceConfig.ExecStart = "${packages.development}/bin/gateway --config /var/lib/gateway/gateway.toml";
    };

    nodes.parent =
      { config, ... }:
      {
        imports = [
          module
          (import ./parent.nix { programs = "${packages.development}/bin"; })
        ];
        environment.etc."nitro-sign/parent.toml".source = config.services.nitro-sign.parent.configFile;
      };
  };
}
