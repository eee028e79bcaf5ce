{ lib, ... }:
{
  name = "bridge-killed";

  story = lib.readFile ./bridge-killed.py;
}
