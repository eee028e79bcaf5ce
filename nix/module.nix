# `nixosModules.parent`: the parent instance of a signing enclave, as `services.nitro-sign.parent`.
{
  imports = [
    ./module/options.nix
    ./module/enclave.nix
    ./module/settings.nix
    ./module/credentials.nix
    ./module/resources.nix
    ./module/service.nix
    ./module/journal.nix
    ./module/image-check.nix
    ./module/assertions.nix
  ];
}
