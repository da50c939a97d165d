# The server with torch for NVIDIA GPUs. The driver's own library comes from the machine it runs on.
{ callPackage }:

callPackage ../../nix/server.nix { variant = "cuda"; }
