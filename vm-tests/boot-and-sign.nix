{ lib, ... }:
{
  name = "boot-and-sign";

  story = lib.readFile ./boot-and-sign.py;
}
