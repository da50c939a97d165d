"""Brings up the one node: containerd with the stand-in for Flox's shim, kubelet, kube-proxy."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.k8s.cluster.kubectl import Kubectl
from tests.k8s.cluster.processes import Programs

NODE = "node"
ADDRESS = "10.200.0.2"  # enter.sh made it
POD_RANGE = "10.244.0.0/24"
PAUSE_IMAGE = "registry.k8s.io/pause:local"
FLOX_IMAGE = "docker.io/flox/empty:1.0.0"

CONTAINERD = """
version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt",
]
[grpc]
  address = "{state}/containerd.sock"
[ttrpc]
  address = "{state}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{state}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
# Debian 12's containerd 1.6 finds a shim by its type, not by runtime_path as 1.7 does.
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.flox]
  runtime_type = "io.containerd.flox.v2"
  pod_annotations = ["flox.dev/*"]
  container_annotations = ["flox.dev/*"]
"""

KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": ADDRESS,
    "readOnlyPort": 0,
    "healthzPort": 0,
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "failSwapOn": False,
    "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
    "imageGCHighThresholdPercent": 100,
    "nodeStatusUpdateFrequency": "2s",
    "syncFrequency": "10s",  # 1 min by default; so long a pod that has ended may stay listed
    "resolvConf": "",
    "clusterDNS": ["10.96.0.10"],  # nobody answers there; without one, each pod gets a warning
    "clusterDomain": "cluster.local",
}

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": POD_RANGE}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": "/run/cni",
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def start_node(
    programs: Programs, binaries: Path, state: Path, kubectl: Kubectl, *, store: Path, cgroup: str
) -> None:
    """Ready when it returns. `store` holds the generations, `cgroup` all pods."""
    start_containerd(programs, state, store)
    address = f"{state}/containerd.sock"
    ctr = ["ctr", f"--address={address}"]
    programs.wait("containerd answers", lambda: succeeds(*ctr, "version"))
    images = state / "images.tar"
    write_images(images, pause=binaries / "pause")
    assert succeeds(*ctr, "--namespace=k8s.io", "images", "import", str(images))
    start_kubelet(programs, binaries, state, kubectl.kubeconfig, cgroup)
    start_proxy(programs, binaries, state, kubectl.kubeconfig)
    programs.wait("the node is ready", lambda: is_ready(kubectl))


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def is_ready(kubectl: Kubectl) -> bool:
    status = '--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    return kubectl.try_("get", "node", NODE, status) == (True, "True")


def start_containerd(programs: Programs, state: Path, store: Path) -> None:
    """It looks for shims on its PATH."""
    (state / "cni").mkdir()
    (state / "cni" / "10-pods.conflist").write_text(json.dumps(NETWORK))
    (state / "bin").mkdir()
    shim = state / "bin" / "containerd-shim-flox-v2"
    source = Path(__file__).with_name("flox_shim.py")
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {source} {store} "$@"\n')
    shim.chmod(0o755)
    config = state / "containerd.toml"
    config.write_text(CONTAINERD.format(state=state, pause=PAUSE_IMAGE))
    programs.start("containerd", "env", path_first(state), "containerd", f"--config={config}")


def path_first(state: Path) -> str:
    return f"PATH={state}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def start_kubelet(
    programs: Programs, binaries: Path, state: Path, kubeconfig: Path, cgroup: str
) -> None:
    config = state / "kubelet.json"
    config.write_text(json.dumps(KUBELET | {"cgroupRoot": cgroup}))
    programs.start(
        "kubelet",
        binaries / "kubelet",
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={state}/kubelet",
        f"--cert-dir={state}/certificates",
        f"--hostname-override={NODE}",
        f"--node-ip={ADDRESS}",
        "--node-labels=flox.dev/enabled=true",
        "--container-runtime=remote",
        f"--container-runtime-endpoint=unix://{state}/containerd.sock",
        "--v=2",
    )


def start_proxy(programs: Programs, binaries: Path, state: Path, kubeconfig: Path) -> None:
    config = state / "proxy.json"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "iptables",
                "clusterCIDR": POD_RANGE,
                "hostnameOverride": NODE,
                "clientConnection": {"kubeconfig": str(kubeconfig)},
                "conntrack": {"maxPerCore": 0},  # the machine's own; a namespace cannot set it
                "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
            }
        )
    )
    programs.start("kube-proxy", binaries / "kube-proxy", f"--config={config}")


def write_images(path: Path, *, pause: Path) -> None:
    """The two images a node needs, in docker's archive format: pause, and Flox's empty one."""
    images: list[tuple[str, str, bytes, list[str]]] = [
        (PAUSE_IMAGE, "pause", pause.read_bytes(), ["/pause"]),
        (FLOX_IMAGE, ".empty", b"", []),
    ]
    manifest = []
    with tarfile.open(path, "w") as archive:
        for reference, name, content, entrypoint in images:
            layer = tar_of(name, content)
            digest = hashlib.sha256(layer).hexdigest()
            config = {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Entrypoint": entrypoint},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }
            add_file(archive, f"{digest}/layer.tar", layer)
            add_file(archive, f"{name}.json", json.dumps(config).encode())
            manifest.append(
                {
                    "Config": f"{name}.json",
                    "RepoTags": [reference],
                    "Layers": [f"{digest}/layer.tar"],
                }
            )
        add_file(archive, "manifest.json", json.dumps(manifest).encode())


def tar_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        add_file(layer, name, content, mode=0o755)
    return buffer.getvalue()


def add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
