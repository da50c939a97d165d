# The server with its own engine alone: no torch, no transformers, for nodes that only serve.
{ callPackage }:

callPackage ../../nix/server.nix { variant = "lean"; }
