# shellcheck shell=bash disable=SC2154
# Stand-in for nixpkgs' autoPatchelfHook. Nothing is patched, because the host's loader finds the host's libraries;
# checked is what the hook there would fail on: a library that neither the product, an input nor libc provides.
autoPatchelfCheck() {
    local have need missing=() each
    have=$(
        printf '%s\n' libc.so.6 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1 libutil.so.1 \
            ld-linux-x86-64.so.2 ld-linux-aarch64.so.1
        find "$out" -name '*.so*' -printf '%f\n'
        for each in ${buildInputs:-}; do if [ -d "$each/lib" ]; then ls "$each/lib"; fi; done
    )
    need=$(
        find "$out" -type f -name '*.so*' -exec readelf -d {} + 2>/dev/null |
            sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u
    )
    for each in $need; do
        case " ${autoPatchelfIgnoreMissingDeps:-} " in *" $each "*) continue ;; esac
        grep -qxF "$each" <<<"$have" || missing+=("$each")
    done
    if ((${#missing[@]})); then
        echo "auto-patchelf could not satisfy dependency ${missing[*]}"
        exit 1
    fi
}
postFixupHooks+=(autoPatchelfCheck)
