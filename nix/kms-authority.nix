# The certificate authority of a KMS stand-in, made while this is built: another one on each machine and after each garbage
# collection, on purpose. Its key lies in the store for everybody to read.
{
  runCommand,
  emulator,
  writeText,
}:
runCommand "nitro-sign-kms-authority"
  {
    nativeBuildInputs = [ emulator ];
    readme = writeText "README" ''
      For tests only: the certificate and the private key of a KMS stand-in's authority, readable by everybody on this
      machine. The image beside it takes a KMS under this authority for the real one. Never deploy that image.
    '';
  }
  ''
    emulator kms-authority --dir $out
    cp $readme $out/README
  ''
