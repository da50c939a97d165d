{
  description = "A stand-in for nixpkgs, for the tests of this project";
  outputs = _: { lib = import ./lib.nix; };
}
