#!/bin/sh
# Installs a hash lock into a virtual environment, which it makes when there is none.
#
#   scripts/install.sh VENV LOCK     install
#   scripts/install.sh --python      only print the interpreter it would take
#
# PYTHON names the interpreter; without it the first working one of 3.11 to 3.14 is taken.
set -eu

torch_lock=requirements/torch-cpu.txt
torch_index=https://download.pytorch.org/whl/cpu

say() {
    printf '%s\n' "$@" >&2
}

works() { # a Python that really runs, is new enough and can make virtual environments
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for python in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}; do
        works "$python" && return
    done
    if [ -n "${PYTHON:-}" ]; then
        say "PYTHON=$PYTHON does not run, is older than 3.11 or lacks the venv module."
    else
        say "No Python 3.11 or newer with the venv module was found."
    fi
    say "Install one (on Debian: apt-get install python3-venv) or name it: make PYTHON=/path/to/python3"
    exit 1
}

make_venv() {
    find_python
    say "making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
}

install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --only-binary :all: \
        --require-hashes "$@"
}

# Asked first: an index that is out of reach costs pip minutes of retries.
index_answers() {
    "$venv/bin/python" -c "
from urllib.request import urlopen
urlopen('$torch_index/torch/', timeout=3).close()" 2>/dev/null
}

# The native engine, all there is without torch, comes as C.
has_compiler() {
    command -v cc || command -v gcc || command -v clang
} >/dev/null

# Before the rest: where no CPU build of torch can be had, that is known in seconds.
install_cpu_torch() {
    if index_answers; then
        answered=yes
        set -- --extra-index-url "$torch_index"
    else
        answered=no
    fi
    install --no-deps "$@" --requirement "$torch_lock" && return
    say "" \
        "The CPU build of torch could not be had for $("$venv/bin/python" --version) on $(uname -sm)." \
        "Did $torch_index answer? $answered." \
        "It has builds for Python 3.11 to 3.14 on Linux (x86_64, aarch64, glibc) and macOS (arm64)." \
        "Ways to have it:" \
        "  - let this machine reach that address, through a proxy (HTTPS_PROXY) if need be;" \
        "  - put a wheel that $torch_lock names in a folder and set PIP_FIND_LINKS to it;" \
        "  - take a Python for which there is one: make PYTHON=python3.11 serve;" \
        "  - with an NVIDIA GPU, take the CUDA build of several gigabytes: make GPU=1 serve."
    if [ "${CI:-}" != true ] && has_compiler; then
        say "" \
            "Going on without it, as with LEAN=1: the native engine needs no torch. Only models outside" \
            "the Llama family do, and tests that compare with it. To try again: rm -rf $venv"
        return 1
    fi
    say "  - without it, the native engine serves; that takes a C compiler: make LEAN=1 serve."
    rm -rf "$venv" # so that the next try may take another Python
    exit 1
}

# The lean lock leaves out what tokenizers names and never uses here, so nothing is resolved; and it
# has no setuptools, which an editable installation of this repository needs.
install_lean() {
    install --no-deps --requirement requirements/lean.txt
    awk '/^[^ #]/ { is_wanted = /^setuptools==/ } is_wanted' requirements/cpu.txt >"$venv/setuptools.txt"
    install --no-deps --requirement "$venv/setuptools.txt"
}

if [ "$1" = --python ]; then
    find_python
    echo "$python"
    exit
fi
venv=$1
lock=$2
[ -x "$venv/bin/python" ] || make_venv
say "installing $lock into $venv"
case $lock in
requirements/cpu.txt)
    if install_cpu_torch; then install --requirement "$lock"; else install_lean; fi
    ;;
requirements/lean.txt) install_lean ;;
*) install --requirement "$lock" ;;
esac
