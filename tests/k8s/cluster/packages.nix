# What the generations of the cluster tests are made of: the packages, and one with another model.
{
  standin,
  lock ? null,
}:

let
  packages = import ../../nix/packages.nix { inherit standin; };
in
packages // { other-model = packages.llama-model.override { lockFile = lock; }; }
