"""One overlay's deployment in the test cluster: pinned with our own command, applied, asked."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from tests.k8s.cluster.kubectl import Kubectl
from tests.k8s.cluster.manifests import Manifests
from tests.k8s.cluster.processes import wait

ROLLOUT_TIMEOUT_S = 300
COMMAND_TIMEOUT_S = 120
ANSWER_TIMEOUT_S = 300  # where twenty wait for one
SELECTOR = "--selector=app.kubernetes.io/name=llama"
GREEDY = {"prompt": "The sun", "max_new_tokens": 40, "temperature": 0}
SAMPLED = {"prompt": "The sun", "max_new_tokens": 40, "temperature": 0.9, "seed": 11}


class Service:
    """What stands behind the Service `llama` of one namespace."""

    def __init__(self, kubectl: Kubectl, manifests: Manifests, overlay: str) -> None:
        self.kubectl = kubectl.within(f"llama-{overlay}")
        self.manifests = manifests
        self.overlay = overlay
        self._address: str | None = None

    @classmethod
    def deploy(
        cls, kubectl: Kubectl, manifests: Manifests, overlay: str, generation: int
    ) -> Service:
        """Done when nobody but ready pods of this generation answers at its address."""
        service = cls(kubectl, manifests, overlay)
        service.run(generation)
        service.wait_for_ends()
        wait("all its pods are ready", service.is_complete, ROLLOUT_TIMEOUT_S)
        # Pods are ready before kube-proxy knows; until then it refuses clients of a new Service.
        # Only here, not in `roll_out`: between generations a refused connection is a lost request.
        wait("the Service answers", service.is_answering, ROLLOUT_TIMEOUT_S)
        return service

    def run(self, generation: int) -> None:
        self.pin(generation)
        self.roll_out()

    def pin(self, generation: int) -> float:
        """Point the overlay at a generation and apply it; the moment of the apply."""
        code, said = self.appliance("pin", "set", self.overlay, str(generation))
        assert code == 0, said
        return self.apply()

    def apply(self) -> float:
        applied_at = time.monotonic()
        self.kubectl.apply(self.manifests.rehearsal(self.overlay))
        return applied_at

    def appliance(self, *arguments: str, stdin: str | None = None) -> tuple[int, str]:
        """`appliance` beside the copied manifests: its exit code, and all that it said."""
        done = subprocess.run(
            [sys.executable, "-m", "appliance", *arguments, "--directory", self.manifests.root],
            env={**os.environ, "KUBECONFIG": str(self.kubectl.kubeconfig)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def status(self) -> tuple[int, str]:
        return self.appliance("rollout", "status", self.overlay)

    def roll_out(self) -> None:
        self.kubectl("rollout", "status", "deployment/llama", f"--timeout={ROLLOUT_TIMEOUT_S}s")

    def is_complete(self) -> bool:
        """Also where a pod was deleted so lately that the Deployment does not know it yet."""
        wanted: int = self.kubectl.get("deployment", "llama")["spec"]["replicas"]
        return len(self.ready_pods()) == wanted

    def is_answering(self) -> bool:
        try:
            ask(self.address, "/readyz")
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Pods and all, sooner than their namespace, whose end takes a minute longer."""
        self.kubectl("delete", "deployment,hpa,service", "--all", "--cascade=foreground")

    @property
    def address(self) -> str:
        """Of the Service, inside the cluster."""
        if self._address is None:
            self._address = self.kubectl.get("service", "llama")["spec"]["clusterIP"]
        assert self._address is not None
        return self._address

    def pods(self) -> list[dict[str, Any]]:
        return self.kubectl.items("pods", SELECTOR)

    def ready_pods(self) -> list[dict[str, Any]]:
        return [pod for pod in self.pods() if is_ready(pod) and not is_ending(pod)]

    def wait_for_ends(self) -> None:
        """Until no pod is left that was told to end."""
        wait("old pods have ended", lambda: not any(map(is_ending, self.pods())), ROLLOUT_TIMEOUT_S)

    def hear_all(self) -> Mapping[str, object]:
        """What every pod says to the same questions; they must agree."""
        heard = []
        for pod in self.ready_pods():
            said = [ask_pod(pod, "/generate", body) for body in (GREEDY, SAMPLED)]
            answers = [(each["generated_text"], each["identity"]) for each in said]
            heard.append({"answers": answers, "version": ask_pod(pod, "/version")})
        assert heard
        assert all(each == heard[0] for each in heard)
        return heard[0]

    def troubles(self) -> str:
        """What pods and events say of what does not work, for a test to search."""
        words = [str(pod["status"].get("containerStatuses", "")) for pod in self.pods()]
        words += [event["message"] for event in self.kubectl.items("events")]
        return "\n".join(words)


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def is_ending(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def ask(
    host: str, path: str, body: Mapping[str, object] | None = None, port: int = 80
) -> dict[str, Any]:
    """The object that a GET, or a POST of this body, is answered with; fails unless it is 200."""
    method = "GET" if body is None else "POST"
    with closing(http.client.HTTPConnection(host, port, timeout=ANSWER_TIMEOUT_S)) as connection:
        headers = {"Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, headers)
        response = connection.getresponse()
        said = response.read().decode()
    if response.status != 200:
        raise ConnectionError(f"{method} {path}: {response.status} {said}")
    answer: dict[str, Any] = json.loads(said)
    return answer


def ask_pod(
    pod: dict[str, Any], path: str, body: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Past the Service."""
    return ask(pod["status"]["podIP"], path, body, port=8000)
