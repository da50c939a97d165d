#!/bin/sh
# Makes sure that Nix and what the tests on it need are installed; on Debian as root it installs what lacks.
# The system's own Nix configuration stays as it is: the tests bring theirs.
set -eu

missing=
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null || missing="$missing $2"
}
need nix-build nix-bin
need cc gcc
need curl curl
need readelf binutils
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"

[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests on Nix need:$missing. Install them, or run this as root on Debian." >&2
    exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update
# shellcheck disable=SC2086  # a list of packages
apt-get install --yes --no-install-recommends $missing
