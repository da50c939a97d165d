"""Brings the cluster up with generation 1 in staging, and opens a shell in it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.k8s.cluster.generations import GOOD
from tests.k8s.cluster.manifests import Manifests
from tests.k8s.cluster.reports import say
from tests.k8s.cluster.rig import Rig
from tests.k8s.cluster.service import Service


def main() -> int:
    rig = Rig()
    try:
        rig.up()
        with tempfile.TemporaryDirectory() as folder:
            manifests = Manifests(Path(folder) / "k8s")
            service = Service.deploy(rig.kubectl, manifests, "staging", GOOD)
            say(f"llama-staging serves on http://{service.address}; exit ends it all")
            environ = {**os.environ, "KUBECONFIG": str(rig.kubectl.kubeconfig)}
            return subprocess.run(["bash"], env=environ, check=False).returncode
    finally:
        rig.down()


if __name__ == "__main__":
    raise SystemExit(main())
