# docs/module-options.md, made of the module's options. `nix build .#module-options`, then copy the result there.
{ pkgs }:
let
  inherit (pkgs) lib;
  evaluated = import ./module-evaluate.nix { inherit pkgs; } [ ];
  documentation = pkgs.nixosOptionsDoc {
    options = { inherit (evaluated.options.services) nitro-sign; };
    # Not the store path of whoever builds this.
    transformOptions = option: option // { declarations = [ ]; };
  };

  code =
    text: if lib.hasInfix "\n" text then "\n\n```nix\n${lib.trim text}\n```" else " `${lib.trim text}`";
  # {option}`a.b` is NixOS's Markdown only.
  plain = lib.replaceStrings [ "{option}`" ] [ "`" ];
  field =
    name: option: lib.optionalString (option ? ${name}) "\n- ${name}:${code option.${name}.text}";
  section = name: option: ''
    ## `${lib.removePrefix "services.nitro-sign.parent." name}`

    ${lib.trim (plain option.description)}

    - type: ${plain option.type}${field "default" option}${field "example" option}
  '';
in
pkgs.writeText "module-options.md" ''
  # Options of `nixosModules.parent`

  All of them are below `services.nitro-sign.parent`. These have no default that fits everybody:

  ```nix
  services.nitro-sign.parent = {
    enable = true;
    deployment = ./prod;                   # the directory that nitro-sign key-gen leaves
    kms.assumeRole = "arn:…";              # the role that the key policy names; or kms.credentialsFile
    enclave.pcr0 = "…";                    # pcrs.json of the image
    enclave.nitro.cores = [ [ 1 3 ] ];     # lscpu --extended
  };
  ```

  `nix build .#module-options` makes this file; a check compares.

  ${lib.concatStringsSep "\n" (lib.mapAttrsToList section documentation.optionsNix)}''
