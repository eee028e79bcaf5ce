# What types cannot say, each with what to change. nix/module-checks.nix breaks every one of them.
{
  config,
  lib,
  ...
}:
let
  cfg = config.services.nitro-sign.parent;
  inherit (cfg) enclave;
  inherit (enclave.nitro) cores memoryMib;

  option = name: "services.nitro-sign.parent.${name}";
  shown = lib.concatMapStringsSep " " toString;
  cpus = lib.concatLists cores;
  zeros = lib.replicate 96 "0";

  always = [
    {
      assertion = lib.stringToCharacters enclave.pcr0 != zeros;
      message = "${option "enclave.pcr0"} is all zeros, as every enclave's in debug mode; give the PCR0 of your image (pcrs.json beside it).";
    }
    {
      assertion = !lib.hasPrefix builtins.storeDir cfg.kms.credentialsFile;
      message = "${option "kms.credentialsFile"} is in the Nix store, which everybody on the machine can read; name a file below /run, as a string.";
    }
    {
      assertion =
        lib.hasPrefix "arn:" cfg.kms.keyId
        -> lib.elemAt (lib.splitString ":" cfg.kms.keyId) 3 == cfg.kms.region;
      message = "${option "kms.keyId"} is a key of another region than ${option "kms.region"}, ${cfg.kms.region}; name the region of the key.";
    }
  ];

  nitro = [
    {
      assertion = enclave.attestationRoot == "aws";
      message = "${option "enclave.attestationRoot"} is ${toString enclave.attestationRoot}, but documents of a Nitro Enclave are under AWS's root; remove the setting (the default is \"aws\").";
    }
    {
      assertion = cores != [ ];
      message = "${option "enclave.nitro.cores"} is empty; give the enclave a whole core, for example [ [ 1 3 ] ] (lscpu --extended shows which CPUs make up a core).";
    }
    {
      assertion = !lib.elem 0 cpus;
      message = "${option "enclave.nitro.cores"} has CPU 0; core 0 stays with the system, choose another one.";
    }
    {
      assertion = lib.allUnique cpus;
      message = "${option "enclave.nitro.cores"} names a CPU twice (${shown cpus}); each belongs to one core.";
    }
    {
      assertion = lib.length (lib.unique (map lib.length cores)) <= 1;
      message = "${option "enclave.nitro.cores"} has cores with different numbers of CPUs (${
        lib.concatMapStringsSep " and " (core: "[ ${shown core} ]") cores
      }); give whole cores: all CPUs of each.";
    }
    {
      assertion = memoryMib >= 64;
      message = "${option "enclave.nitro.memoryMib"} is ${toString memoryMib}; an enclave needs 64 or more.";
    }
    {
      assertion = lib.mod memoryMib 2 == 0;
      message = "${option "enclave.nitro.memoryMib"} is ${toString memoryMib}, no whole number of huge pages of 2 MiB; make it ${toString (memoryMib + 1)}.";
    }
    {
      assertion = !(config.boot.kernel.sysctl ? "vm.nr_hugepages");
      message = "boot.kernel.sysctl.\"vm.nr_hugepages\" would take the enclave's memory away again; remove it, ${option "enclave.nitro.memoryMib"} sets huge pages apart.";
    }
  ];

  # Development and tests: never beside a real root of trust.
  emulated = [
    {
      assertion = enclave.attestationRoot != "aws";
      message = "${option "enclave.attestationRoot"} is \"aws\", but backend \"${enclave.backend}\" has documents of another authority; name its root certificate (root.pem).";
    }
  ];
in
{
  config = lib.mkIf cfg.enable {
    assertions = always ++ (if enclave.backend == "nitro" then nitro else emulated);
    warnings = lib.optional (enclave.backend == "process") ''
      services.nitro-sign.parent: backend "process" isolates nothing: root, and whoever runs as nitro-sign, can read the key shares. For development and tests only.
    '';
  };
}
