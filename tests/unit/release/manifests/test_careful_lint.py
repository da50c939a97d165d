"""What applies cleanly and then runs something else, or not at all, is found by the lint."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance_release.manifests.lint import lint, lint_paths, read_manifests
from tests.unit.release.manifests.broken_manifests import Parts

Change = Callable[[Parts], object]


def put(part: str, value: object) -> Change:
    """Sets a value at a path that begins at an object's kind, at `pod` or at `container`."""

    def change(parts: Parts) -> None:
        first, *steps = part.split("/")
        at: Any = getattr(parts, first) if first.islower() else parts.only(first)
        for step in steps[:-1]:
            at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
        if isinstance(at, list):
            at.append(value)
        else:
            at[steps[-1]] = value

    return change


def env(name: str, value: object) -> Change:
    return put("container/env/+", {"name": name, "value": value})


def args(*words: str) -> Change:
    return put("container/args", list(words))


def command(*words: str) -> Change:
    return put("container/command", list(words))


def without(name: str) -> Change:
    return lambda parts: parts.without_variable(name)


def hard_coded(parts: Parts) -> None:
    parts.without_variable("APPLIANCE_GENERATION")
    env("APPLIANCE_GENERATION", "acme/llama-runtime:1")(parts)


def in_memory(parts: Parts) -> None:
    parts.pod["volumes"][1]["emptyDir"] = {"medium": "Memory", "sizeLimit": "4Gi"}


def on_gpu(parts: Parts) -> None:
    parts.container["resources"]["limits"]["nvidia.com/gpu"] = "1"


def small(parts: Parts) -> None:
    for name in ("requests", "limits"):
        parts.container["resources"][name]["memory"] = "64Mi"


def without_tmp(parts: Parts) -> None:
    del parts.container["volumeMounts"][0]


def neighbour(parts: Parts) -> None:
    other = copy.deepcopy(parts.container)
    other["name"] = "other"
    parts.pod["containers"].append(other)


def mount(place: str) -> Change:
    return put("container/volumeMounts/+", {"name": "tmp", "mountPath": place})


def hook(**what: object) -> Change:
    return put("container/lifecycle", {"preStop": what})


MUTATIONS: dict[str, tuple[Change, str]] = {
    # Of the review.
    "a shell": (command("sh", "-c", "llama-server"), "].command"),
    "a drain too long, by a flag": (args("--drain-timeout-s", "600"), "GracePeriodSeconds"),
    "loopback, by a flag": (args("--host", "127.0.0.1"), "args[1]"),
    "a model on a volume": (env("APPLIANCE_MODEL_PATH", "/models/llama"), "env[10].value"),
    "LD_PRELOAD": (env("LD_PRELOAD", "/srv/x.so"), "env[10].name"),
    "egress to everything": (put("NetworkPolicy/spec/egress", [{}]), "spec.egress[0]"),
    "ingress from everywhere": (put("NetworkPolicy/spec/ingress", [{}]), "spec.ingress[0]"),
    "a policy of nobody": (
        put("NetworkPolicy/spec/podSelector/matchLabels", {"app": "x"}),
        "spec.podSelector",
    ),
    "a mount over /nix": (mount("/nix"), "mountPath"),
    "servers that are not ready": (
        put("Service/spec/publishNotReadyAddresses", True),
        "publishNotReadyAddresses",
    ),
    "a budget of 0%": (put("PodDisruptionBudget/spec/maxUnavailable", "0%"), "maxUnavailable"),
    "a generation by hand": (hard_coded, "env[9].value"),
    "no generation": (without("APPLIANCE_GENERATION"), "APPLIANCE_GENERATION"),
    "shared processes": (put("pod/shareProcessNamespace", True), "shareProcessNamespace"),
    "a hook that sleeps": (hook(exec={"command": ["sleep", "60"]}), "GracePeriodSeconds"),
    "the last host wins": (env("APPLIANCE_HOST", "127.0.0.1"), "env[10].value"),
    "the last drain wins": (env("APPLIANCE_DRAIN_TIMEOUT_S", "600"), "GracePeriodSeconds"),
    "memory that volumes take": (in_memory, "limits.memory"),
    "a volume without an end": (put("pod/volumes/+", {"name": "x", "emptyDir": {}}), "sizeLimit"),
    "a probe over TLS": (put("container/livenessProbe/httpGet/scheme", "HTTPS"), "scheme"),
    "unready for long": (
        put("container/readinessProbe/failureThreshold", 600),
        "readinessProbe.failureThreshold",
    ),
    "asked too seldom": (
        put("container/readinessProbe/periodSeconds", 30),
        "readinessProbe.failureThreshold",
    ),
    "root's group": (put("pod/securityContext/runAsGroup", 0), "runAsGroup"),
    "no place to write": (without_tmp, "volumeMounts"),
    "a GPU without memory": (on_gpu, "limits.memory"),
    "one port for two": (neighbour, "containerPort"),
    "no drain": (env("APPLIANCE_DRAIN_TIMEOUT_S", "0"), "env[10].value"),
    "variables from elsewhere": (
        put("container/envFrom", [{"configMapRef": {"name": "x"}}]),
        "envFrom",
    ),
    # More of the same.
    "bash by its path": (command("/bin/bash", "-c", "llama-server"), "].command"),
    "env as a command": (command("env", "llama-server"), "].command"),
    "a program by its path": (command("/srv/llama-server"), "].command"),
    "an unknown flag": (args("--no-such-flag"), "].args"),
    "a flag without its value": (args("--port"), "].args"),
    "a bad value of a flag": (args("--port", "many"), "args[1]"),
    "a flag with =": (args("--host=127.0.0.1"), "args[0]"),
    "a flag in the command": (command("llama-server", "--host", "localhost"), "command[2]"),
    "another port by a flag": (args("--port", "9000"), "args[1]"),
    "a drain delay of 0 by a flag": (args("--drain-delay-s", "0"), "args[1]"),
    "many threads by a flag": (args("--threads", "64"), "args[1]"),
    "a model by a flag": (args("--model", "/models/x"), "args[1]"),
    "a named model by a flag": (args("--model", "x=/models/x,threads=1"), "args[1]"),
    "a model out of the store": (args("--model", "/nix/store/../../tmp/x"), "args[1]"),
    "a list of models": (env("APPLIANCE_MODELS", "/etc/models.toml"), "env[10].value"),
    "a model by the familiar name": (env("MODEL_PATH", "/models/x"), "env[10].value"),
    "LD_LIBRARY_PATH": (env("LD_LIBRARY_PATH", "/srv"), "env[10].name"),
    "LD_AUDIT": (env("LD_AUDIT", "/srv/x.so"), "env[10].name"),
    "PYTHONPATH": (env("PYTHONPATH", "/srv"), "env[10].name"),
    "PYTHONSTARTUP": (env("PYTHONSTARTUP", "/srv/x.py"), "env[10].name"),
    "another PATH": (env("PATH", "/srv"), "env[10].name"),
    "a mount in the store": (mount("/nix/store/x"), "mountPath"),
    "a mount over everything": (mount("/"), "mountPath"),
    "a mount over /flox": (mount("/flox"), "mountPath"),
    "a hook that sleeps in a shell": (
        hook(exec={"command": ["sh", "-c", "sleep 60"]}),
        "GracePeriodSeconds",
    ),
    "a hook of unknown length": (hook(exec={"command": ["wait-for-it"]}), "preStop"),
    "a hook that asks": (hook(httpGet={"path": "/x", "port": 80}), "preStop"),
    "egress to all addresses of a port": (
        put("NetworkPolicy/spec/egress", [{"ports": [{"port": 443}]}]),
        "spec.egress[0]",
    ),
    "nothing in place of ended pods": (
        put("Deployment/spec/strategy/rollingUpdate/maxSurge", "0%"),
        "maxSurge",
    ),
    "an end before the beginning": (
        put("Deployment/spec/strategy/rollingUpdate/maxUnavailable", "25%"),
        "maxUnavailable",
    ),
    "too little memory": (small, "limits.memory"),
    "root's group in a container": (put("container/securityContext/runAsGroup", 0), "runAsGroup"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_changes_the_server_unseen_is_found_at_its_place(name: str, tmp_path: Path) -> None:
    change, field = MUTATIONS[name]
    parts = Parts()
    change(parts)
    findings = lint(read_manifests(parts.write(tmp_path / "broken.yaml")))
    assert [each for each in findings if each.field.endswith(field)], "\n".join(map(str, findings))


HARMLESS: dict[str, Change] = {
    "0% unavailable in a rollout": put(
        "Deployment/spec/strategy/rollingUpdate/maxUnavailable", "0%"
    ),
    "a surge in percent": put("Deployment/spec/strategy/rollingUpdate/maxSurge", "25%"),
    "a budget in percent": put("PodDisruptionBudget/spec/maxUnavailable", "50%"),
    "flags that agree": args("--port", "8000"),
    "the older way to serve": command("appliance", "serve"),
    "a short sleep": hook(sleep={"seconds": 5}),
    "the embedded model": args("--model", "embedded"),
    "the last host is right": lambda parts: parts.container["env"].insert(
        0, {"name": "APPLIANCE_HOST", "value": "127.0.0.1"}
    ),
    "a policy of all pods": put("NetworkPolicy/spec/podSelector", {}),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_nothing_passes(name: str, tmp_path: Path) -> None:
    parts = Parts()
    HARMLESS[name](parts)
    assert lint(read_manifests(parts.write(tmp_path / "fine.yaml"))) == []


@pytest.mark.parametrize("kind", ["Rollout", "LeaderWorkerSet", "InferenceService"])
def test_a_kind_that_is_not_known_does_not_pass_with_flox_in_it(kind: str, tmp_path: Path) -> None:
    parts = Parts()
    parts.deployment["kind"] = kind
    findings = lint(read_manifests(parts.write(tmp_path / "other.yaml")))
    (finding,) = [each for each in findings if each.object.startswith(kind)]
    assert f"a {kind} is not read here" in finding.problem


def test_a_kind_that_is_not_known_passes_without_flox(tmp_path: Path) -> None:
    parts = Parts()
    parts.objects.append(
        {"kind": "Rollout", "metadata": {"name": "a", "namespace": "llama"}, "spec": {}}
    )
    assert lint(read_manifests(parts.write(tmp_path / "other.yaml"))) == []


def test_the_objects_of_a_list_are_checked_with_their_lines(tmp_path: Path) -> None:
    parts = Parts()
    parts.pod["hostNetwork"] = True
    path = tmp_path / "list.yaml"
    path.write_text(yaml.safe_dump({"kind": "List", "apiVersion": "v1", "items": parts.objects}))
    (finding,) = lint(read_manifests(path))
    assert finding.field.endswith("hostNetwork")
    assert "hostNetwork" in path.read_text().splitlines()[(finding.line or 0) - 1]


def test_every_file_that_kubectl_would_apply_is_read(tmp_path: Path) -> None:
    Parts().write(tmp_path / "ok.yaml")
    parts = Parts()
    parts.pod["hostNetwork"] = True
    parts.write(tmp_path / "llama.yml")
    listed = {"kind": "List", "apiVersion": "v1", "items": parts.objects}
    (tmp_path / "l.json").write_text(json.dumps(listed, indent=2))
    findings, _ = lint_paths([tmp_path])
    assert {Path(each.file).name for each in findings} == {"llama.yml", "l.json"}
