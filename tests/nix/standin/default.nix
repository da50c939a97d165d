# A stand-in for the part of nixpkgs that this project's packages take, over the programs of a Debian host.
#
# Where nixpkgs brings a compiler, a C library and Python, this links to those of the host; everything else works as
# there: arguments by name, phases and hooks, fixed-output derivations, references. host.nix is written by the tests:
#     { python = "/usr"; certificates = "/etc/ssl/certs/ca-certificates.crt"; }
{
  system ? builtins.currentSystem,
  config ? { },
  host ? import ./host.nix,
}:

let
  lib = import ./lib.nix;
  path = "/usr/bin:/bin";

  # A package that only points at what the host has. `exit`, because Nix kills a builder that closed its output.
  raw =
    name: script:
    derivation {
      inherit name system;
      builder = "/bin/bash";
      args = [
        "-euc"
        "export PATH=${path}\n${script}\nexit 0\n"
      ];
    };
  program =
    name: programs:
    raw "${name}-of-host" (
      "mkdir -p $out/bin\n"
      + lib.concatMapStrings (each: "ln -s ${each} $out/bin/${baseNameOf each}\n") programs
    )
    // {
      pname = name;
      meta.mainProgram = name;
    };
  multiarch = lib.replaceStrings [ "-linux" ] [ "-linux-gnu" ] system;
  library =
    name: files:
    raw "${name}-of-host" (
      "mkdir -p $out/lib\n"
      + lib.concatMapStrings (file: "ln -s /usr/lib/${multiarch}/${file} $out/lib/${file}\n") files
    );
  hook =
    name: file:
    raw name "mkdir -p $out/nix-support; cp ${file} $out/nix-support/setup-hook";

  setup = raw "stdenv-standin" "mkdir $out; cp ${./setup.sh} $out/setup";
  bash = program "bash" [ "/bin/bash" ];
  cacert = raw "cacert-of-host" ''
    mkdir -p $out/etc/ssl/certs
    cp ${host.certificates} $out/etc/ssl/certs/ca-bundle.crt
  '';

  # meta and passthru are of the expression and never reach the builder.
  mkDerivation =
    arguments:
    let
      name = arguments.name or "${arguments.pname}-${arguments.version}";
      passthru = arguments.passthru or { };
      package = derivation (
        builtins.removeAttrs arguments [
          "meta"
          "passthru"
        ]
        // {
          inherit name system;
          builder = "/bin/bash";
          args = [
            "-e"
            (builtins.toFile "builder.sh" "source $stdenv/setup; genericBuild; exit 0")
          ];
          stdenv = setup;
        }
      );
    in
    package
    // passthru
    // {
      inherit passthru;
      meta = arguments.meta or { };
    }
    // lib.optionalAttrs (arguments ? pname) { inherit (arguments) pname version; };

  platform = {
    inherit system;
    isLinux = lib.hasSuffix "-linux" system;
    isDarwin = lib.hasSuffix "-darwin" system;
  };

  # nixpkgs' fetchurl as far as one file from one address goes.
  fetchurl =
    {
      url,
      name ? baseNameOf url,
      sha256,
      netrcPhase ? null,
      netrcImpureEnvVars ? [ ],
    }:
    mkDerivation {
      inherit name url;
      nativeBuildInputs = [ (program "curl" [ "/usr/bin/curl" ]) ];
      SSL_CERT_FILE =
        if netrcPhase == null then "/no-cert-file.crt" else "${cacert}/etc/ssl/certs/ca-bundle.crt";
      buildCommand = ''
        # There of every builder; here of those that need it.
        failureHooks=()
        trap 'if [ $? != 0 ]; then for hook in "''${failureHooks[@]}"; do eval "$hook"; done; fi' EXIT
        curlOpts=
        ${lib.optionalString (netrcPhase != null) ''
          ${netrcPhase}
          curlOpts="$curlOpts --netrc-file $PWD/netrc"
        ''}
        curl=(curl --location --max-redirs 20 --retry 3 --disable-epsv --cookie-jar cookies --no-progress-meter)
        [ -f "$SSL_CERT_FILE" ] || curl+=(--insecure)
        curl+=($curlOpts $NIX_CURL_FLAGS)
        echo "trying $url"
        code=18
        while [ $code = 18 ]; do
          code=0
          "''${curl[@]}" -C - --fail "$url" --output "$out" || code=$?
        done
        # There the mirrors are those of NixOS, unless this variable names others; here there are no others.
        for mirror in $NIX_HASHED_MIRRORS; do
          [ $code = 0 ] || "''${curl[@]}" --retry 0 --fail --silent --head "$mirror/sha256/$outputHash" || true
        done
        if [ $code != 0 ]; then
          echo "error: cannot download $name from any mirror"
          exit 1
        fi
      '';
      outputHash = sha256;
      outputHashAlgo = "sha256";
      outputHashMode = "flat";
      impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [ "NIX_CURL_FLAGS" "NIX_HASHED_MIRRORS" ] ++ netrcImpureEnvVars;
    };

  requireFile =
    {
      name,
      sha256,
      message,
    }:
    mkDerivation {
      inherit name message;
      buildCommand = ''
        echo "$message"
        exit 1
      '';
      outputHash = sha256;
      outputHashAlgo = "sha256";
      outputHashMode = "flat";
    };

  # There curl and an address made from the arguments; here pip, which knows where this machine's packages come from.
  fetchPypi =
    {
      pname,
      version,
      format,
      dist,
      python,
      abi,
      platform,
      sha256,
    }:
    assert format == "wheel" && dist == python;
    mkDerivation {
      name = "${pname}-${version}-${python}-${abi}-${platform}.whl";
      nativeBuildInputs = [ python311 ];
      buildCommand = ''
        export HOME=$TMPDIR PYTHONPATH=${pip}
        echo "${pname}==${version} --hash=sha256:${sha256}" > wanted.txt
        python3.11 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
          --require-hashes --requirement wanted.txt --dest found
        mv found/*.whl $out
      '';
      outputHash = sha256;
      outputHashAlgo = "sha256";
      outputHashMode = "flat";
      impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [
        "PIP_CERT"
        "PIP_EXTRA_INDEX_URL"
        "PIP_FIND_LINKS"
        "PIP_INDEX_URL"
        "PIP_TRUSTED_HOST"
      ];
    };
  pip = raw "pip-of-host" ''
    # The wheel that `venv` takes; Debian keeps it in a place of its own.
    wheel=$(find ${host.python}/lib/python3.11/ensurepip/_bundled /usr/share/python-wheels -name 'pip-*.whl' \
      2>/dev/null | head -n 1)
    ${host.python}/bin/python3.11 -m zipfile -e "$wheel" $out
  '';

  python311 =
    raw "python3-of-host" ''
      mkdir -p $out/bin
      for name in python3.11 python3 python; do ln -s ${host.python}/bin/python3.11 $out/bin/$name; done
    ''
    // {
      pythonVersion = "3.11";
    };

  runCommand =
    name: attributes: buildCommand:
    mkDerivation ({ inherit name buildCommand; } // attributes);

  packages = {
    inherit
      bash
      cacert
      config
      fetchPypi
      fetchurl
      lib
      python311
      requireFile
      runCommand
      system
      ;
    stdenv = {
      inherit mkDerivation system;
      cc.cc.lib = library "gcc-lib" [
        "libstdc++.so.6"
        "libgcc_s.so.1"
      ];
      hostPlatform = platform;
    };
    zlib = library "zlib" [ "libz.so.1" ];
    autoPatchelfHook = hook "auto-patchelf-check" ./auto-patchelf.sh;
    # Only their names are needed: nobody formats or develops with the stand-in.
    gnumake = program "make" [ "/usr/bin/make" ];
    nixfmt-tree = program "nixfmt-tree" [ "/bin/false" ];
    mkShell = attributes: mkDerivation ({ name = "shell"; buildCommand = "touch $out"; } // attributes);
    newScope = extra: lib.callPackageWith (packages // extra);
    callPackage = lib.callPackageWith packages;
  };
in
packages
