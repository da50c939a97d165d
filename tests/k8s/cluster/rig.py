"""A Kubernetes of one node: brought up in this process's namespaces, taken down with them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.k8s.cluster.control_plane import start_control_plane
from tests.k8s.cluster.generations import write_generations
from tests.k8s.cluster.node import start_node
from tests.k8s.cluster.processes import Programs
from tests.k8s.cluster.reports import say

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
STATE = Path("/run/llama-cluster")  # enter.sh put a file system in memory over /run
LOGS = ROOT / "build" / "cluster"
CGROUP_VARIABLE = "LLAMA_CLUSTER_CGROUP"


class Rig:
    """What the scenarios get: kubectl with every right, and the folder that holds generations."""

    def __init__(self) -> None:
        self.cgroup = os.environ.get(CGROUP_VARIABLE)
        if self.cgroup is None:
            raise RuntimeError(f"{CGROUP_VARIABLE} is not set: run this through enter.sh")
        self.store = STATE / "environments"
        LOGS.mkdir(parents=True, exist_ok=True)
        self.programs = Programs(LOGS)

    def up(self) -> None:
        started_at = time.monotonic()
        binaries = find_binaries()
        STATE.mkdir()
        self.kubectl = start_control_plane(self.programs, binaries, STATE)
        control_plane_s = time.monotonic() - started_at
        start_node(
            self.programs, binaries, STATE, self.kubectl, store=self.store, cgroup=self.cgroup or ""
        )
        write_generations(self.store)
        self.kubectl("apply", f"--filename={ROOT}/k8s/cluster/runtimeclass.yaml")
        node_s = time.monotonic() - started_at - control_plane_s
        say(f"control plane ready in {control_plane_s:.1f} s, node {node_s:.1f} s later")

    def down(self) -> None:
        self.programs.stop()


def find_binaries() -> Path:
    path = subprocess.check_output([HERE / "build_kubernetes.sh", "--path"], text=True)
    return Path(path.strip())
