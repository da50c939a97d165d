#!/bin/sh
# Writes k8s/llama.yaml, what `kubectl apply -f k8s/` applies, from k8s/base; keeps its generation.
#
#   scripts/manifest.sh [FILE]     FILE instead of k8s/llama.yaml
set -eu

cd "$(dirname "$0")/.."
output=${1:-k8s/llama.yaml}
pin=$(sed -n 's|^ *flox.dev/environment: ||p' k8s/llama.yaml 2>/dev/null || true)
folder=$(mktemp -d k8s/.manifest.XXXXXX)
trap 'rm -r "$folder"' EXIT

cat >"$folder/namespace.yaml" <<YAML
apiVersion: v1
kind: Namespace
metadata:
  name: llama
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
YAML
cat >"$folder/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: llama
resources:
  - namespace.yaml
  - ../base
replicas:
  - name: llama
    count: 1
patches:
  - patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: llama
      spec:
        template:
          metadata:
            annotations:
              flox.dev/environment: ${pin:-acme/llama-runtime:1}
YAML
{
    echo '# One server in a namespace of its own: kubectl apply -f k8s/'
    echo '# Written by "make manifest" from base/ and cluster/. Only the generation is changed here, by'
    echo '# appliance pin set llama N; everything else there.'
    sed '/^#/d' k8s/cluster/runtimeclass.yaml
    echo '---'
    kubectl kustomize "$folder" | sed 's|\(flox.dev/environment:\) "*\([^"]*\)"*$|\1 "\2"|'
} >"$folder/output"
mv "$folder/output" "$output"
echo "wrote $output"
