#!/usr/bin/env bash
# Runs a command beside a real Kubernetes of one node, after making what the node runs.
#
#   tests/k8s/cluster/run.sh PYTHON ARGUMENT...
#
# Where CI=true, on Debian, as root, it installs what is missing. Elsewhere it says what that is.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=tests/k8s/cluster
python=$1

declare -A packages=(
    [apt-get]=apt [conntrack]=conntrack [containerd]=containerd [curl]=curl
    [dpkg-source]=dpkg-dev [etcd]=etcd-server [gcc]=gcc [go]=golang-go [ip]=iproute2
    [iptables]=iptables [nix-build]=nix-bin [openssl]=openssl [readelf]=binutils [runc]=runc
    [sysctl]=procps
)
files=(
    /usr/lib/cni/bridge:containernetworking-plugins
    /usr/share/gocode/src/github.com/modern-go/reflect2:golang-github-modern-go-reflect2-dev
    /usr/include/stdio.h:libc6-dev
)

missing=()
for name in "${!packages[@]}"; do
    command -v "$name" >/dev/null || missing+=("${packages[$name]}")
done
for file in "${files[@]}"; do
    [[ -e ${file%%:*} ]] || missing+=("${file#*:}")
done
if ((${#missing[@]})); then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if [[ ${CI:-} != true || $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "The cluster tests need Debian 12, root, and: ${missing[*]}" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get --quiet=2 update
    apt-get --quiet=2 --option DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}"
fi
if ! kubectl kustomize k8s/overlays/staging >/dev/null; then
    echo "The cluster tests need kubectl 1.21 or newer on the PATH." >&2
    exit 1
fi

"$here/build_kubernetes.sh" >/dev/null
"$python" -m tests.k8s.cluster.packages
exec "$here/enter.sh" "$@"
