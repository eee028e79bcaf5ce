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

    nodes.aws.networking.firewall.allowedTCPPorts = [ 4433 ];

    nodes.gateway.systemd.services.gateway = {
      description = "Reference Sign Gateway";
      serviceConfig.ExecStart = "${packages.development}/bin/gateway --config /var/lib/gateway/gateway.toml";
    };

    nodes.parent =
      { config, lib, ... }:
      let
        parent = config.services.nitro-sign.parent;
        # Written by `provision parent`.
        made = "/var/lib/nitro-sign";
        file = name: "${made}/${name}";
      in
      {
        imports = [ module ];

        services.nitro-sign.parent = {
          enable = true;
          enclave = {
            backend = lib.mkDefault "process";
            attestationRoot = file "authority/root.pem";
            # Known when the test runs, like all that is made there.
            pcr0 = lib.concatStrings (lib.replicate 96 "f");
            process = {
              enclave = "${packages.development}/bin/enclave";
              signService = "${packages.development}/bin/sign-service";
              config = file "enclave.toml";
              hypervisor = [
                "${packages.development}/bin/emulator"
                "nsm"
                "--authority-dir"
                (file "authority")
              ];
              vsock = true;
            };
          };
          ciphertexts.identity = file "age-identity.kms";
          ciphertexts.bundle = file "service_key_shares.json.age";
          bundle.epoch = 1;
          bundle.sha256 = lib.concatStrings (lib.replicate 64 "0");
          kms = {
            region = "eu-central-1";
            keyId = "made-by-the-test";
            upstream = "aws:4433";
            credentialsFile = file "credentials.json";
          };
        };

        # What the module writes is the template for what runs.
        environment.etc."nitro-sign/parent.toml".source = parent.configFile;
        systemd.services.nitro-sign-parent = {
          wantedBy = lib.mkForce [ ];
          serviceConfig.ExecStart = lib.mkForce "${lib.getExe' parent.package "parent"} run --config ${file "parent.toml"}";
        };
      };
  };
}
