{ lib, ... }:
{
  name = "journal";

  story = lib.readFile ./journal.py;
}
