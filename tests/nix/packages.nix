# The project's packages over the stand-in, each called with the others in scope, as Flox and the flake do.
{
  system ? builtins.currentSystem,
  standin,
}:

let
  pkgs = import standin { inherit system; };
  directory = ../../llama-build/.flox/pkgs;
  names = map (pkgs.lib.removeSuffix ".nix") (builtins.attrNames (builtins.readDir directory));
  packages = pkgs.lib.genAttrs names (
    name: pkgs.newScope packages (directory + "/${name}.nix") { }
  );
in
packages
// {
  serves = pkgs.lib.genAttrs [ "llama-server" "llama-server-lean" ] (
    name:
    pkgs.callPackage ../../llama-build/nix/serve.nix {
      server = packages.${name};
      model = packages.llama-model;
    }
  );
}
