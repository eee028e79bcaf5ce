{ lib, ... }:
{
  name = "switch-pcr0";

  # What `nixos-rebuild switch` to a configuration with another image does.
  nodes.parent =
    { config, lib, ... }:
    let
      parent = config.services.nitro-sign.parent;
    in
    {
      specialisation.next.configuration = {
        services.nitro-sign.parent.enclave.process.config =
          lib.mkForce "/var/lib/nitro-sign/next/enclave.toml";
        systemd.services.nitro-sign-parent.serviceConfig.ExecStart =
          lib.mkOverride 40 "${lib.getExe' parent.package "parent"} run --config /var/lib/nitro-sign/next/parent.toml";
      };
    };

  story = lib.readFile ./switch-pcr0.py;
}
