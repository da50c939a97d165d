#!/bin/sh
# Writes the hash locks: requirements/*.txt from pyproject.toml and requirements/*.in, and from those
# llama-build/wheels.lock.json for Nix.
#
#   scripts/lock.sh UV [--upgrade]
#
# One resolution holds for every Python from 3.11 on. Without --upgrade, versions already locked stay.
set -eu

cd "$(dirname "$0")/.."
uv=$1
shift

compile() { # compile OUTPUT.txt ARGUMENT...
    output=requirements/$1
    shift
    echo "locking $output"
    "$uv" --quiet pip compile "$@" --output-file "$output" \
        --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
        --no-header --no-emit-index-url --no-emit-find-links >/dev/null
    {
        echo '# Written by "make lock": edit the sources named below, not this file.'
        sed '/^# The following packages were excluded/,$d' "$output"
    } >"$output.new"
    mv "$output.new" "$output"
}

compile cpu.txt pyproject.toml --constraint requirements/torch.in "$@" \
    --config-file requirements/cpu.uv.toml --no-emit-package torch
# The CPU lock constrains the others: the same versions on a GPU and in tests.
compile cuda.txt pyproject.toml --constraint requirements/torch.in \
    --constraint requirements/cpu.txt "$@"
compile lean.txt requirements/lean.in --constraint requirements/cpu.txt "$@" \
    --config-file requirements/lean.uv.toml
compile release.txt requirements/release.in --constraint requirements/cpu.txt "$@"
compile dev.txt requirements/dev.in --constraint requirements/cpu.txt "$@"
compile lock.txt requirements/lock.in --constraint requirements/cpu.txt "$@"

sed '/^#/d' requirements/torch-cpu.txt >>requirements/cpu.txt
echo "locking llama-build/wheels.lock.json"
PYTHONPATH=server "$(dirname "$uv")/python" -m appliance_release lock wheels --uv "$uv"
