# The commands that build, carry and run releases, for operators: no server, and nothing that only a server needs.
{ callPackage }:

callPackage ../../nix/server.nix { variant = "release"; }
