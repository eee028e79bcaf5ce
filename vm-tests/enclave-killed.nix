{ lib, ... }:
{
  name = "enclave-killed";

  story = lib.readFile ./enclave-killed.py;
}
