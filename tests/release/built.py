"""A server's closure in miniature, really built by Nix: a library, a Python package, a model."""

from __future__ import annotations

import subprocess
from pathlib import Path

EXPRESSION = """
let
  run = name: script: derivation {
    inherit name; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/bin:/usr/bin";
    args = [ "-euc" (script + "\\nexit 0\\n") ];
  };
  library = run "library-1.2" "mkdir $out; echo code > $out/code";
  model = run "model" ''
    mkdir -p $out/share/models; cp -r ${MODEL} $out/share/models/pebble
  '';
in run "tiny-server-0.1" ''
  folder=$out/libexec/tiny/lib/python3.11/site-packages/Some_Thing-1.0+cpu.dist-info
  mkdir -p $folder
  printf 'Name: Some_Thing\\nVersion: 1.0+cpu\\nLicense-Expression: MIT\\n' > $folder/METADATA
  echo ${library} ${model} > $out/needs
''
"""


def build(folder: Path, model: Path) -> Path:
    """The store path of a closure of three."""
    file = folder / "built.nix"
    file.write_text(EXPRESSION.replace("${MODEL}", str(model)))
    command = ["nix-build", "--no-out-link", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return Path(run.stdout.strip())
