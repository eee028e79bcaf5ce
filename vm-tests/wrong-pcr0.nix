{ lib, ... }:
{
  name = "wrong-pcr0";

  story = lib.readFile ./wrong-pcr0.py;
}
