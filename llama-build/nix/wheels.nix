# Locked wheels in one folder that pip installs from: one fixed-output derivation a wheel, by the hash in the lock.
{
  lib,
  fetchPypi,
  fetchurl,
  runCommand,
  name,
  wheels,
}:

let
  indexes.torch-cpu = "https://download.pytorch.org/whl/cpu";

  fetch =
    wheel:
    if wheel.index == null then
      fetchPypi {
        format = "wheel";
        dist = wheel.python;
        inherit (wheel)
          pname
          version
          python
          abi
          platform
          sha256
          ;
      }
    else
      fetchurl {
        name = wheel.file;
        url = "${indexes.${wheel.index}}/${lib.replaceStrings [ "+" ] [ "%2B" ] wheel.file}";
        inherit (wheel) sha256;
      };
in
runCommand name { } (
  ''
    mkdir $out
  ''
  + lib.concatMapStrings (wheel: ''
    ln -s ${fetch wheel} "$out/${wheel.file}"
  '') wheels
)
