# A model by its lock: every file a fixed-output derivation of its own, put together by symbolic links.
#
# A second model is a file beside this one:
#     { llama-model }: llama-model.override { lockFile = ../../models/NAME.lock.json; }
{
  lib,
  runCommand,
  fetchurl,
  requireFile,
  lockFile ? ../../models/pebble.lock.json,
  endpoint ? "https://huggingface.co",
  # What one upload to a catalog store can hold; `flox publish` fails above it.
  maxFileBytes ? 5 * 1000 * 1000 * 1000,
}:

let
  lock = lib.importJSON lockFile;
  fail = message: throw "${baseNameOf lockFile}: ${message}";

  check =
    if lock.lock or null != 1 then
      fail "this is not a model lock of format 1. Write it anew with `appliance lock model`."
    else if builtins.match "[0-9a-f]{40}" lock.revision == null then
      fail "the revision is ${lock.revision}; it must be a commit of 40 hex digits, because a branch moves."
    else if builtins.match "[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*" lock.repository == null then
      fail "the repository is ${lock.repository}; repositories are called ORG/NAME, with letters, digits and . _ - only."
    else if !(lock.files ? "config.json") then
      fail "no config.json is locked, so no server could open this model."
    else
      lock;

  checkFile =
    name: { size, ... }:
    if builtins.match "[A-Za-z0-9_][A-Za-z0-9+._=-]*" name == null then
      fail "${name} is not a plain file name of letters, digits and + . _ = -"
    else if size >= maxFileBytes then
      fail "${name} has ${toString size} bytes; a store path must stay under ${toString maxFileBytes} to be published. Save the model again in smaller shards (save_pretrained(path, max_shard_size=\"4GB\")), lock that folder with `appliance lock model`, and build from it. To build without publishing: llama-model.override { maxFileBytes = ${toString (size + 1)}; }"
    else
      name;

  # Read by the builder and handed to curl in a file: the token is part of no derivation, log or command line.
  # When the hub fails, fetchurl asks its mirrors with the same header: a space stands for no mirrors. `--keep-failed`
  # keeps the builder's files: this one goes before.
  authorise = ''
    NIX_HASHED_MIRRORS=" "
    failureHooks+=("rm -f '$PWD/hub-header'")
    ( umask 077; : > netrc; : > hub-header
      if [ -n "''${HF_TOKEN:-}" ]; then
        printf 'Authorization: Bearer %s\n' "$HF_TOKEN" > hub-header
      else
        echo "HF_TOKEN is not set where this builder runs; a gated repository will answer 401" >&2
      fi )
    curlOpts="$curlOpts -H @$PWD/hub-header"
  '';

  hub =
    if
      lib.hasPrefix "https://" endpoint
      || builtins.match "http://(127\\.0\\.0\\.1|localhost|\\[::1])(:[0-9]+)?(/.*)?" endpoint != null
    then
      endpoint
    else
      fail "the endpoint is ${endpoint}, where HF_TOKEN would be sent for all to read. Use https; plain http is for this machine alone.";

  fetch =
    name: { sha256, ... }:
    fetchurl {
      inherit name sha256;
      url = "${hub}/${lock.repository}/resolve/${lock.revision}/${name}";
      netrcPhase = authorise;
      netrcImpureEnvVars = [ "HF_TOKEN" ];
    };

  # The same store path that fetching the file would give: a flat file is named by its hash.
  # Nix looks no further once that path is there, so a changed file would go unnoticed; reading gigabytes at each
  # evaluation is too dear, and those are compared when they first come into the store.
  take =
    name:
    { sha256, size }:
    let
      path = dirOf lockFile + "/${lock.source}/${name}";
      found = builtins.hashFile "sha256" path;
    in
    if size < 256 * 1024 * 1024 && found != sha256 then
      fail "${name} is not the file that is locked: it has sha256 ${found}, the lock says ${sha256}. If the change is meant, renew the lock with `appliance lock model`."
    else
      builtins.path {
        inherit name path sha256;
        recursive = false;
      };

  # Flox and flakes see the repository alone, so files of a folder elsewhere have to be in the store already.
  require =
    name: { sha256, ... }:
    requireFile {
      inherit name sha256;
      message = "${baseNameOf lockFile}: ${name} lies outside of the repository and is not in the store yet. Put it there: appliance prefetch ${baseNameOf lockFile}";
    };

  obtain =
    if lock.source == null then
      fetch
    else if lib.hasPrefix "../../../" "${lock.source}/" then
      require
    else
      take;

  files = lib.mapAttrs (name: pin: obtain (checkFile name pin) pin) check.files;

  link =
    directory:
    lib.concatStrings (
      lib.mapAttrsToList (name: file: ''
        ln -s ${file} "${directory}/${name}"
      '') files
    );

  hubName = "models--${lib.replaceStrings [ "/" ] [ "--" ] lock.repository}";
in
runCommand "llama-model-${lock.name}-${builtins.substring 0 12 lock.revision}"
  {
    passthru = {
      inherit files lock;
      modelPath = "share/models/${lock.name}";
      hubPath = "share/models/hub";
    };
    meta = {
      description = "${lock.repository} at ${lock.revision}";
      license = {
        shortName = lock.license;
        fullName = lock.license;
        free = lib.elem lock.license [
          "MIT"
          "Apache-2.0"
          "mit"
          "apache-2.0"
        ];
      };
      platforms = lib.platforms.unix;
    };
  }
  ''
    model=$out/share/models/${lock.name}
    hub=$out/share/models/hub/${hubName}
    mkdir -p "$model" "$hub/refs" "$hub/snapshots/${lock.revision}"
    ${link "$model"}
    cp ${lockFile} "$model/model.lock.json"
    ${link "$hub/snapshots/${lock.revision}"}
    printf %s ${lock.revision} > "$hub/refs/main"
  ''
