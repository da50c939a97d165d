# The server, or the release commands, as a package: a virtual environment of locked wheels and ours, made offline,
# behind launchers.
{
  lib,
  stdenv,
  callPackage,
  python311,
  autoPatchelfHook,
  zlib,
  variant,
  lockFile ? ../wheels.lock.json,
}:

let
  inherit (stdenv.hostPlatform) system isLinux;
  python = python311;

  lock = lib.importJSON lockFile;
  systems = builtins.attrNames lock.variants.${variant};
  wheelsOf =
    variant:
    lock.variants.${variant}.${system}
      or (throw "${baseNameOf lockFile} has no wheels of variant ${variant} for ${system}, only for ${toString systems}. Add the system with `appliance lock wheels`.");
  wheels =
    if lock.python != python.pythonVersion then
      throw "${baseNameOf lockFile} is for Python ${lock.python}, and this builds with ${python.pythonVersion}."
    else
      wheelsOf variant;

  wheelhouse = callPackage ./wheels.nix {
    name = "llama-server-wheels-${variant}";
    inherit wheels;
  };
  # Makes our wheel and stays out of the product.
  buildTools = callPackage ./wheels.nix {
    name = "llama-server-build-tools";
    wheels = builtins.filter (wheel: wheel.pname == "setuptools") (wheelsOf "cpu");
  };

  isServer = variant != "release";
  base = if isServer then "llama-server" else "llama-release";

  package = ../../server/appliance;
  version = builtins.head (
    builtins.match ".*__version__ = \"([^\"]+)\".*" (builtins.readFile (package + "/__init__.py"))
  );
  sourceOf =
    path:
    builtins.path {
      name = baseNameOf path;
      inherit path;
      filter = path: _: baseNameOf path != "__pycache__" && !lib.hasSuffix ".so" path; # left by a checkout's own runs
    };
in
stdenv.mkDerivation {
  pname = if variant == "cpu" || !isServer then base else "${base}-${variant}";
  inherit version;

  nativeBuildInputs = [ python ] ++ lib.optional isLinux autoPatchelfHook;
  buildInputs = [
    python
    stdenv.cc.cc.lib
    zlib
  ];

  dontUnpack = true;
  dontConfigure = true;
  dontStrip = true; # the wheels come stripped, and are to stay as their authors built them

  # The driver's libraries lie on the machine, never in a package. The others are asked for by plugins of
  # nvidia-cufile and nvidia-nvshmem, for the networks of clusters: one process on one machine loads none of them.
  autoPatchelfIgnoreMissingDeps = lib.optionals (variant == "cuda") [
    "libcuda.so.1"
    "libnvidia-ml.so.1"
    "libfabric.so.1"
    "libibverbs.so.1"
    "libmlx5.so.1"
    "libmpi.so.40"
    "liboshmem.so.40"
    "libpmix.so.2"
    "librdmacm.so.1"
    "libucp.so.0"
    "libucs.so.0"
  ];
  appendRunpaths = lib.optionals (variant == "cuda") [ "/run/opengl-driver/lib" ];

  buildPhase = ''
    runHook preBuild
    export HOME=$TMPDIR PIP_NO_INDEX=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_DEPS=1

    python3.11 -m venv tools
    tools/bin/pip install --quiet ${buildTools}/*.whl

    # Of the README the package needs only that there is one: editing it rebuilds nothing.
    mkdir -p source/server wheels
    cp ${../../pyproject.toml} source/pyproject.toml
    cp ${../../LICENSE} source/LICENSE
    echo "Llama Appliance" > source/README.md
    cp -r ${sourceOf package} source/server/appliance
    ${lib.optionalString (!isServer) ''
      cp -r ${sourceOf ../../server/appliance_release} source/server/appliance_release
    ''}
    chmod -R u+w source
    tools/bin/pip wheel --quiet --no-build-isolation --wheel-dir wheels ./source

    # By name and from a folder: an installation by path would write that path into the product.
    environment=$out/libexec/${base}
    python3.11 -m venv --without-pip "$environment"
    tools/bin/pip --python "$environment/bin/python" install --quiet --no-compile \
      --find-links wheels --find-links ${wheelhouse} \
      llama-appliance==${version} ${
        lib.concatMapStringsSep " " (wheel: "${wheel.pname}==${wheel.version}") wheels
      }
    find "$environment/bin" -mindepth 1 -not -name 'python*' -delete
    runHook postBuild
  '';

  installPhase = ''
    runHook preInstall
    ${lib.optionalString (isLinux && isServer) ''
      "$environment/bin/python" -I -m appliance.engine.native.kernels
    ''}
    # No time stamp in the byte code, and no look at the source when it is imported; -f: what was imported so far has
    # been compiled with one. Packages ship files for other versions of Python, which do not compile and nobody imports.
    PYTHONHASHSEED=0 "$environment/bin/python" -m compileall -f -qq -j "$NIX_BUILD_CORES" \
      --invalidation-mode unchecked-hash "$environment/lib" || true

    # Launchers in Python: a shell wrapper would tell Python a name under which it cannot find its environment.
    # -I: what PYTHONPATH and PYTHONHOME of an activated Flox environment say is not for us.
    mkdir -p $out/bin
    launcher() {
      printf '%s\n' "#!$environment/bin/python -I" "$2" "$3" > "$out/bin/$1"
      chmod +x "$out/bin/$1"
    }
    launcher appliance 'from appliance.cli.main import main' 'raise SystemExit(main())'
    ${lib.optionalString isServer ''
      launcher llama-server 'import sys; from appliance.cli.main import main' \
        'raise SystemExit(main(["serve", *sys.argv[1:]]))'
    ''}
    runHook postInstall
  '';

  # The built server answers, or the built commands pass our manifest, in this sandbox, before anyone can install it.
  doInstallCheck = isLinux && variant != "cuda";
  installCheckPhase = ''
    runHook preInstallCheck
    ${
      if isServer then
        "HOME=$TMPDIR python3.11 ${./serve_check.py} $out/bin/llama-server"
      else
        "$out/bin/appliance pin lint ${../../k8s/llama.yaml}"
    }
    runHook postInstallCheck
  '';

  passthru = { inherit wheelhouse; };
  meta = {
    description =
      if isServer then
        "An LLM inference server that starts with one command and proves what it runs"
      else
        "Commands that lock, build, carry, pin and check releases of Llama Appliance";
    license = [ lib.licenses.mit ] ++ lib.optional (variant == "cuda") lib.licenses.unfree; # NVIDIA's libraries
    sourceProvenance = [
      lib.sourceTypes.fromSource
      lib.sourceTypes.binaryNativeCode # the wheels
    ];
    platforms = systems;
    mainProgram = if isServer then "llama-server" else "appliance";
  };
}
