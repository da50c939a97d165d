{
  description = "Llama Appliance: model weights and an inference server, by their hashes";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
      forSystems =
        function:
        lib.genAttrs systems (
          system:
          function (
            import nixpkgs {
              inherit system;
              # Weights and CUDA come under licences of their own; who fetches them has accepted those.
              config.allowUnfree = true;
            }
          )
        );

      # As Flox has it: every file there is a package, called with nixpkgs and the other packages as arguments.
      directory = ./llama-build/.flox/pkgs;
      names = map (lib.removeSuffix ".nix") (builtins.attrNames (builtins.readDir directory));
      packagesFor =
        pkgs:
        let
          all = lib.genAttrs names (name: pkgs.newScope all (directory + "/${name}.nix") { });
        in
        lib.filterAttrs (_: package: lib.elem pkgs.stdenv.hostPlatform.system package.meta.platforms) all;
    in
    {
      packages = forSystems (
        pkgs:
        let
          packages = packagesFor pkgs;
        in
        packages // lib.optionalAttrs (packages ? llama-server) { default = packages.llama-server; }
      );

      apps = forSystems (
        pkgs:
        let
          run = package: {
            type = "app";
            program = "${package}/bin/${package.meta.mainProgram}";
            meta = { inherit (package.meta) description; };
          };
          programs = lib.filterAttrs (_: package: package.meta ? mainProgram) (packagesFor pkgs);
        in
        lib.mapAttrs (_: run) programs
        // lib.optionalAttrs (programs ? llama-server) { default = run programs.llama-server; }
      );

      # A built server serves a built model, in a sandbox without a network.
      checks = forSystems (
        pkgs:
        let
          packages = packagesFor pkgs;
          serves =
            server:
            pkgs.callPackage ./llama-build/nix/serve.nix {
              inherit server;
              model = packages.llama-model;
            };
        in
        lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux (
          lib.mapAttrs (_: serves) (
            lib.filterAttrs (
              name: _:
              lib.elem name [
                "llama-server"
                "llama-server-lean"
              ]
            ) packages
          )
        )
      );

      devShells = forSystems (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.gnumake
            pkgs.python311
          ];
        };
      });

      formatter = forSystems (pkgs: pkgs.nixfmt-tree);
    };
}
