{ lib, ... }:
{
  name = "tampered-bundle";

  story = lib.readFile ./tampered-bundle.py;
}
