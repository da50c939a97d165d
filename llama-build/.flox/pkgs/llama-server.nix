# The server with torch and transformers, computing on a CPU.
{ callPackage }:

callPackage ../../nix/server.nix { variant = "cpu"; }
