# The Amazon image of the parent instance. What it cannot say of itself (version 2 only of the instance metadata service) is said
# when it is registered and launched: docs/nix.md.
{
  # nixosConfigurations.parent
  parent,
}:
parent.config.system.build.images.amazon
