# What `cargo xtask` and the tests want on PATH. `nix build` does not need it.
{
  mkShell,
  age,
  cargo,
  cargo-deny,
  cargo-nextest,
  clippy,
  grpcurl,
  nixfmt-tree,
  qemu,
  rust-analyzer,
  rustc,
  rustfmt,
}:
mkShell {
  packages = [
    age
    cargo
    cargo-deny
    cargo-nextest
    clippy
    grpcurl
    nixfmt-tree
    # With libcbor and gnutls, so it has `-M nitro-enclave`.
    qemu
    rust-analyzer
    rustc
    rustfmt
  ];
}
