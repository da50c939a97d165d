"""What a pod may do, read inside the pod."""

from __future__ import annotations

import pytest

from tests.k8s.cluster.kubectl import KubectlFailed
from tests.k8s.cluster.service import Service

pytestmark = pytest.mark.cluster

POD = "deployment/llama"


def run(service: Service, *command: str) -> str:
    """In the server's container; what the machine lends the tests' packages has these programs."""
    return service.kubectl("exec", POD, "--", *command)


def test_the_server_runs_without_any_privilege(staging: Service) -> None:
    status = dict(
        line.split(":\t", 1) for line in run(staging, "/bin/cat", "/proc/1/status").splitlines()
    )
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"  # a filter: the runtime's


@pytest.mark.parametrize("path", ["/anywhere", "/flox/env/bin/llama-server", "/nix/store/anything"])
def test_nothing_of_the_container_can_be_written(staging: Service, path: str) -> None:
    with pytest.raises(KubectlFailed, match=r"Read-only file system|Permission denied"):
        run(staging, "/bin/bash", "-c", f": >> {path}")


def test_there_is_room_for_caches_and_scratch(staging: Service) -> None:
    run(staging, "/bin/bash", "-c", ": > /tmp/scratch && : > /cache/scratch")


def test_packed_weights_and_hashes_are_kept_in_the_pods_cache(staging: Service) -> None:
    assert run(staging, "/bin/ls", "/cache/appliance")


def test_neither_token_nor_service_links_reach_the_server(staging: Service) -> None:
    variables = run(staging, "/bin/cat", "/proc/1/environ").split("\0")
    assert not [each for each in variables if each.startswith(("LLAMA_SERVICE", "LLAMA_PORT"))]
    with pytest.raises(KubectlFailed):
        run(staging, "/bin/ls", "/var/run/secrets/kubernetes.io")
