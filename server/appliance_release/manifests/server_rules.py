"""Checks that a pod of our server can start, is restarted when it hangs, and drains."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from appliance.errors import SettingsError
from appliance.models.options import KNOWN
from appliance.settings import PREFIX, parse_setting
from appliance_release.manifests.kubernetes_manifest import (
    mapping,
    number,
    quantity,
    sequence,
    value_at,
)
from appliance_release.manifests.server_options import (
    field_of,
    number_of,
    path_of,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance_release.manifests.kubernetes_manifest import Finding, PodTemplate
    from appliance_release.manifests.yaml_document import Path

    Container = dict[str, object]

ENDPOINTS = {
    "startupProbe": ("/readyz", "/health"),
    "readinessProbe": ("/readyz", "/health"),
    "livenessProbe": ("/livez",),
}
MIN_LIVENESS_S = 30  # a busy server may be late; restarting it costs a whole load
CLOSING_S = 5  # of the drain's last step, as docs/guides/operations.md has it
DEFAULT_GRACE_S = 30.0
SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
SLEEP = re.compile(r"\bsleep (\d+(?:\.\d+)?)")
MAX_UNREADY_S = 60
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def check_probes(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for name, endpoints in ENDPOINTS.items():
            yield from _check_probe(pod, (*path, name), container, endpoints)
        liveness = mapping(container.get("livenessProbe"))
        if liveness and _budget_s(liveness) < MIN_LIVENESS_S:
            yield pod.finding(
                (*path, "livenessProbe", "failureThreshold"),
                f"a server that is late for {_budget_s(liveness):g} s is killed, and loads again.",
                f"Let failureThreshold times periodSeconds be {MIN_LIVENESS_S} s or more.",
            )
        readiness = mapping(container.get("readinessProbe"))
        if readiness and _budget_s(readiness) > MAX_UNREADY_S:
            yield pod.finding(
                (*path, "readinessProbe", "failureThreshold"),
                f"a server that refuses everything gets requests for {_budget_s(readiness):g} s.",
                f"Let failureThreshold times periodSeconds be {MAX_UNREADY_S} s at most.",
            )
        startup_s = _budget_s(mapping(container.get("startupProbe")))
        deadline_s = number(pod.manifest.at("spec", "progressDeadlineSeconds")) or 600
        if pod.manifest.kind == "Deployment" and deadline_s <= startup_s:
            yield pod.manifest.finding(
                ("spec", "progressDeadlineSeconds"),
                f"a rollout is given up while the startup probe still waits ({startup_s:g} s).",
                f"Write more than {startup_s:g}.",
            )


def _check_probe(
    pod: PodTemplate, path: Path, container: Container, endpoints: tuple[str, ...]
) -> Iterator[Finding]:
    name = str(path[-1])
    probe = mapping(container.get(name))
    has_tls = value_of(container, "tls_certificate") is not None
    if not probe:
        yield pod.finding(path, WITHOUT[name], f"Add one: httpGet of {endpoints[0]}.")
        return
    asked = value_at(probe, ("httpGet", "path"))
    if asked not in endpoints:
        yield pod.finding(
            (*path, "httpGet", "path"),
            f"the {name} must ask what it is about.",
            f"Write {endpoints[0]}.",
        )
    if value_at(probe, ("httpGet", "scheme")) == "HTTPS" and not has_tls:
        yield pod.finding(
            (*path, "httpGet", "scheme"),
            "the server speaks plain HTTP without APPLIANCE_TLS_CERTIFICATE.",
            "Write HTTP.",
        )
    port = value_at(probe, ("httpGet", "port"))
    if port not in pod.ports():
        yield pod.finding(
            (*path, "httpGet", "port"),
            "no container has such a port.",
            "Write http, or the name of the container's port.",
        )


WITHOUT = {
    "startupProbe": "a load that never ends goes unnoticed.",
    "readinessProbe": "requests are sent to a server that still loads its model.",
    "livenessProbe": "a server that hangs is not restarted.",
}


def check_drain(pod: PodTemplate) -> Iterator[Finding]:
    """Checks that all steps after SIGTERM fit into the grace period."""
    grace_s = number(pod.at("spec", "terminationGracePeriodSeconds"))
    for path, container in pod.containers():
        delay_s = number_of(container, "drain_delay_s")
        timeout_s = number_of(container, "drain_timeout_s")
        hook = mapping(value_at(container, ("lifecycle", "preStop")))
        sleep_s = _hook_s(hook)
        if sleep_s is None:
            yield pod.finding(
                (*path, "lifecycle", "preStop"),
                "how long it takes is not known, and its time is the drain's.",
                "Remove it, or write sleep.seconds.",
            )
            continue
        if timeout_s == 0:
            yield pod.finding(
                path_of(path, container, "drain_timeout_s"),
                "every answer that still runs is cut off.",
                "Set APPLIANCE_DRAIN_TIMEOUT_S to the seconds that answers take, such as 60.",
            )
        if delay_s is None or timeout_s is None:
            continue  # no number here: check_settings reports it, or only the cluster knows
        if delay_s == 0 and not hook:
            yield pod.finding(
                path_of(path, container, "drain_delay_s"),
                "the server stops taking requests before load balancers know that it ends.",
                "Set APPLIANCE_DRAIN_DELAY_S to the seconds they need, such as 10.",
            )
        needed_s = sleep_s + delay_s + timeout_s + CLOSING_S
        if (DEFAULT_GRACE_S if grace_s is None else grace_s) <= needed_s:
            hooked = f"preStop {sleep_s:g} s + " if sleep_s else ""
            yield pod.finding(
                ("spec", "terminationGracePeriodSeconds"),
                f"{hooked}drain delay {delay_s:g} s + drain timeout {timeout_s:g} s + "
                f"{CLOSING_S} s do not fit into it, and what still runs is killed.",
                f"Write more than {needed_s:g}, or shorten the drain.",
            )


def _hook_s(hook: dict[str, object]) -> float | None:
    """Returns the seconds that a hook before SIGTERM takes; None if it does not say."""
    if not hook:
        return 0
    command = " ".join(map(str, sequence(value_at(hook, ("exec", "command")))))
    slept = [float(each) for each in SLEEP.findall(command)]
    return sum(slept) if slept else number(value_at(hook, ("sleep", "seconds")))


def check_settings(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for index, variable in enumerate(sequence(container.get("env"))):
            name, value = str(mapping(variable).get("name")), mapping(variable).get("value")
            field = field_of(name)
            where = (*path, "env", index, "value")
            if name.startswith(PREFIX) and field not in KNOWN:
                yield pod.finding(
                    (*path, "env", index, "name"),
                    "the server has no such setting and would not start.",
                    "`appliance serve --help` lists them.",
                )
            elif name.startswith(PREFIX) and value is not None and "$(" not in str(value):
                yield from _check_value(pod, where, name, field, value)
        yield from _check_address(pod, path, container)


def check_open_secrets(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.every_container():
        for index, variable in enumerate(sequence(container.get("env"))):
            name = str(mapping(variable).get("name"))
            if SECRET.search(name) and mapping(variable).get("value") is not None:
                yield pod.finding(
                    (*path, "env", index, "value"),
                    f"{name} is readable in a manifest.",
                    "Take it from a Secret: valueFrom.secretKeyRef.",
                )


def _check_value(
    pod: PodTemplate, where: Path, name: str, field: str, value: object
) -> Iterator[Finding]:
    if not isinstance(value, str):
        yield pod.finding(where, "values of variables are strings.", f'Write "{value}".')
        return
    try:
        parse_setting(name, KNOWN[field], value)
    except SettingsError as error:
        yield pod.finding(where, f"the server would not start: {error.message}", "Correct it.")


def _check_address(pod: PodTemplate, path: Path, container: Container) -> Iterator[Finding]:
    host = value_of(container, "host")
    if host is None or host in LOOPBACK:
        yield pod.finding(
            path_of(path, container, "host"),
            "the server would listen where neither probes nor Services reach it.",
            "Set APPLIANCE_HOST to 0.0.0.0.",
        )
    port = number(value_of(container, "port") or 8000)
    if port is not None and port not in pod.ports():
        yield pod.finding(
            path_of(path, container, "port"),
            f"the server would listen on {port:g}, and no containerPort says so.",
            "Make both the same.",
        )


def check_resources(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        own = (*path, "resources")
        requests = mapping(value_at(container, ("resources", "requests")))
        limits = mapping(value_at(container, ("resources", "limits")))
        for name in ("cpu", "memory"):
            if name not in requests:
                yield pod.finding(
                    (*own, "requests", name),
                    "the scheduler puts the pod where there is no room for it.",
                    "Write what the server needs: k8s/README.md has measurements.",
                )
        if quantity(limits.get("memory")) != quantity(requests.get("memory")):
            yield pod.finding(
                (*own, "limits", "memory"),
                "weights and cache are taken at the start and kept, so there is nothing to burst.",
                "Make it the same as the request.",
            )
        if "cpu" in limits:
            yield pod.finding(
                (*own, "limits", "cpu"),
                "a limit stops all threads in the middle of a step.",
                "Remove it; the request and APPLIANCE_THREADS bound what the server takes.",
            )
        yield from _check_threads(pod, path, container, requests)


def _check_threads(
    pod: PodTemplate, path: Path, container: Container, requests: dict[str, object]
) -> Iterator[Finding]:
    threads, cpus = value_of(container, "threads"), quantity(requests.get("cpu"))
    count = number(threads)
    if threads is None or (count is not None and cpus is not None and count > max(cpus, 1)):
        yield pod.finding(
            path_of(path, container, "threads"),
            "the server would run more threads than it asked for CPUs, and slow its neighbours.",
            "Take it from the request: valueFrom.resourceFieldRef of requests.cpu.",
        )


def _budget_s(probe: dict[str, object]) -> float:
    """Returns how long a probe may fail in a row, with Kubernetes' own defaults."""
    return (number(probe.get("periodSeconds")) or 10) * (number(probe.get("failureThreshold")) or 3)


SERVER_RULES = (check_probes, check_drain, check_settings, check_open_secrets, check_resources)
