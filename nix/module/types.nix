# Types of values that the daemon checks as well: a mistake is named when the system is evaluated, not when it boots.
{ lib }:
let
  matching = pattern: description: lib.types.strMatching pattern // { inherit description; };
in
{
  pcr = matching "[0-9a-fA-F]{96}" "96 hexadecimal digits";
  region = matching "[a-z0-9-]+" "AWS region such as eu-central-1";
  # No alias: it is no resource of a policy, and may lead to another key tomorrow.
  kmsKey = matching "[a-zA-Z0-9-]+|arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-zA-Z0-9-]+" "id or ARN of a KMS key (no alias)";
  # What is none of both, and still matches, the daemon refuses.
  ipAddress = matching "[0-9]{1,3}([.][0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*" "IP address";
  sha256 = matching "[0-9a-fA-F]{64}" "64 hexadecimal digits";
  hostPort = matching "[^:]+:[0-9]+|\\[[0-9a-fA-F:]+]:[0-9]+" "host:port";
  httpsEndpoint = matching "https://([a-zA-Z0-9.-]+|\\[[0-9a-fA-F:]+])(:[0-9]+)?" "https://host or https://host:port";
  # CloudWatch Logs API reference, CreateLogGroup and CreateLogStream.
  logGroup =
    lib.types.addCheck
      (matching "[a-zA-Z0-9_/.#-]{1,512}" "1 to 512 characters out of a-z A-Z 0-9 _ - / . #, not beginning with aws/")
      (name: !lib.hasPrefix "aws/" (lib.toLower name));
  logStream = matching "[^:*]{1,512}" "1 to 512 characters without : and *";
  # A program and its arguments.
  invocation = lib.types.nonEmptyListOf lib.types.str // {
    description = "a program and its arguments";
  };
  # A file of the store, or one that is on the machine only.
  file = lib.types.path;
  # Text, and not a Nix path: that would be copied into the store, which everybody can read.
  secretFile = matching "/.*" "absolute path, as a string";
}
