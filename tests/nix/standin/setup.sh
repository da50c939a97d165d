# shellcheck shell=bash disable=SC2154
# Stand-in for the setup script of nixpkgs' stdenv: phases, hooks and the fixing of shebangs, over the host's tools.
set -eu -o pipefail
export PATH=/usr/bin:/bin
export SOURCE_DATE_EPOCH=315532800 TZ=UTC LC_ALL=C.UTF-8
umask 022

postFixupHooks=()

addInput() {
    if [ -d "$1/bin" ]; then PATH="$1/bin:$PATH"; fi
    if [ -f "$1/nix-support/setup-hook" ]; then
        # shellcheck source=/dev/null
        source "$1/nix-support/setup-hook"
    fi
}
for input in ${nativeBuildInputs:-} ${buildInputs:-}; do addInput "$input"; done

runHook() {
    if [ -n "${!1:-}" ]; then eval "${!1}"; fi
}

# Only executable files, and only interpreters that are not in the store yet, as in nixpkgs.
patchShebangs() {
    local file line interpreter found
    find "$1" -type f -perm -0100 -print0 | while IFS= read -r -d '' file; do
        line=$(head -c 300 "$file" | head -n 1 | tr -d '\0')
        case "$line" in "#!"*) ;; *) continue ;; esac
        read -r -a words <<<"${line#\#!}"
        case "${words[0]}" in
            "$NIX_STORE"/*) continue ;;
            */env) interpreter=${words[1]} words=("${words[@]:2}") ;;
            *) interpreter=${words[0]##*/} words=("${words[@]:1}") ;;
        esac
        found=$(command -v "$interpreter" || true)
        case "$found" in
            "$NIX_STORE"/*) sed -i "1s|.*|#!$found${words[*]:+ ${words[*]}}|" "$file" ;;
            *) echo "patchShebangs: no store path for $interpreter, wanted by $file" ;;
        esac
    done
}

fixup() {
    chmod -R u+w "$out"
    if [ -z "${dontPatchShebangs:-}" ]; then patchShebangs "$out"; fi
    if [ -z "${dontStrip:-}" ]; then
        find "$out" -type f -name '*.so*' -exec strip -S {} + 2>/dev/null || true
    fi
    runHook postFixup
    local each
    for each in "${postFixupHooks[@]}"; do "$each"; done
}

genericBuild() {
    if [ -n "${buildCommand:-}" ]; then
        eval "$buildCommand"
        return
    fi
    if [ -z "${dontUnpack:-}${src:-}" ]; then
        echo "variable \$src or \$srcs should point to the source"
        exit 1
    fi
    local phase
    for phase in buildPhase installPhase; do
        echo "Running phase: $phase"
        eval "${!phase}"
    done
    echo "Running phase: fixupPhase"
    fixup
    if [ -n "${doInstallCheck:-}" ]; then
        echo "Running phase: installCheckPhase"
        eval "$installCheckPhase"
    fi
}
