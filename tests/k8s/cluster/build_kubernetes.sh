#!/usr/bin/env bash
# Builds what runs a Kubernetes node, from the source package that Debian 12 ships, and prints the
# folder of the binaries. Takes about 5 minutes of two cores once, then nothing.
#
#   tests/k8s/cluster/build_kubernetes.sh           build unless the cache has it
#   tests/k8s/cluster/build_kubernetes.sh --path    only print where the binaries are or would be
#
# Debian packages only kubectl of it, but the source is the whole tree.
set -euo pipefail

version=1.20.5+really1.20.2-1.1+deb12u1
dsc_sha256=19fa1da5aefcef673894ac9511986bd98a14410cf8eea0b626613c30df435257
commands=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
reflect2=/usr/share/gocode/src/github.com/modern-go/reflect2

# The source and this recipe decide what comes out.
key=$({ echo "$dsc_sha256"; cat "$0"; } | sha256sum | cut -c 1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/llama-appliance
built=$cache/kubernetes-$key
if [[ ${1:-} == --path || -e $built/complete ]]; then
    echo "$built"
    exit
fi

say() {
    printf '%4ds  %s\n' "$SECONDS" "$*" >&2
}

mkdir -p "$cache"
exec 9>"$cache/kubernetes.lock"
flock 9 # a second build waits for the first, then finds its result
if [[ -e $built/complete ]]; then
    echo "$built"
    exit
fi
work=$cache/kubernetes-$key.building
chmod -R u+w "$work" 2>/dev/null || true
rm -rf "$work"
mkdir -p "$work"/{out,apt/parts,apt/lists/partial,apt/cache/archives/partial}
cd "$work"

fetch() { # the configured Debian suites, asked for sources, with an apt state of our own
    local list=/etc/apt/sources.list.d/debian.sources
    if [[ -e $list ]]; then
        sed 's/^Types:.*/Types: deb-src/' "$list" >apt/parts/debian.sources
    else
        sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >apt/parts/debian.list
    fi
    cat >apt.conf <<EOF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/apt/parts";
Dir::State::lists "$work/apt/lists";
Dir::Cache "$work/apt/cache";
APT::Sandbox::User "root";
EOF
    export APT_CONFIG=$work/apt.conf
    apt-get -qq update
    if ! apt-get -qq source --download-only "kubernetes=$version"; then
        echo "Debian 12's archive no longer has kubernetes $version. It offers:" >&2
        apt-cache showsrc kubernetes | grep '^Version' >&2
        echo "Check the new one and renew version and dsc_sha256 in $0." >&2
        return 1
    fi
    echo "$dsc_sha256  kubernetes_$version.dsc" | sha256sum --check --quiet
    dpkg-source --require-strong-checksums --extract "kubernetes_$version.dsc" source >/dev/null
}

patch_source() { # the vendored reflect2 1.0.1 crashes when built with Go 1.18 or newer
    local vendored=source/vendor/github.com/modern-go/reflect2
    rm "$vendored"/*.go "$vendored"/*.s
    cp "$reflect2"/*.go "$reflect2"/*.s "$vendored"
}

generate() { # the one generated file that Debian's source lacks
    local openapi=./vendor/k8s.io/kube-openapi/cmd/openapi-gen packages
    go build -o "$work/openapi-gen" "$openapi"
    packages=$(grep -rl '+k8s:openapi-gen=' --include='*.go' cmd pkg plugin vendor/k8s.io/*/ |
        grep -vE '_test\.go$|vendor/k8s.io/(code-generator|sample-apiserver|kube-openapi|gengo)/' |
        xargs -n 1 dirname | LC_ALL=C sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -sd ,)
    "$work/openapi-gen" -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi \
        -O zz_generated.openapi -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt \
        -r "$work/violations"
}

compile() { # without cloud providers and dockershim: a third less to compile
    local component=k8s.io/kubernetes/vendor/k8s.io/component-base/version
    local client=k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version
    go build -p 2 -tags providerless,dockerless -o "$work/out/" -ldflags "-s -w \
        -X $component.gitVersion=v1.20.2 -X $component.gitMajor=1 -X $component.gitMinor=20 \
        -X $client.gitVersion=v1.20.2" "${commands[@]/#/./cmd/}"
    gcc -Os -Wall -static -DVERSION=debian -o "$work/out/pause" build/pause/linux/pause.c
}

say "fetching kubernetes $version"
fetch >&2
patch_source
mkdir -p gopath/src/k8s.io
ln -s "$work/source" gopath/src/k8s.io/kubernetes
export GOPATH=$work/gopath GOCACHE=$work/gocache GO111MODULE=off CGO_ENABLED=0 GOFLAGS=
cd gopath/src/k8s.io/kubernetes
say "generating"
generate >&2
say "compiling ${commands[*]}"
compile >&2
cd "$cache"
touch "$work/out/complete"
mv "$work/out" "$built"
rm -rf "$work"
say "built in $built"
echo "$built"
