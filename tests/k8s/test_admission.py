"""The cluster's own policy refuses pods that are not pinned, as its expressions say."""

from __future__ import annotations

from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel

from tests.k8s.rendering import K8S, Object, load_file, only

POLICY = only(load_file(K8S / "cluster" / "pinned-only.yaml"), "ValidatingAdmissionPolicy")
PIN = "flox.dev/environment"


def evaluate(expression: str, **given: Any) -> Any:
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    return program.evaluate({name: json_to_cel(value) for name, value in given.items()})


def pod(runtime: str | None = "flox", annotations: dict[str, str] | None = None) -> Object:
    made: Object = {"metadata": {}, "spec": {}}
    if runtime is not None:
        made["spec"]["runtimeClassName"] = runtime
    if annotations is not None:
        made["metadata"]["annotations"] = annotations
    return made


def is_admitted(each: Object) -> bool:
    spec = POLICY["spec"]
    if not evaluate(spec["matchConditions"][0]["expression"], object=each):
        return True
    (variable,) = spec["variables"]
    value = str(evaluate(variable["expression"], object=each))
    (validation,) = spec["validations"]
    return bool(evaluate(validation["expression"], variables={variable["name"]: value}))


def test_a_pinned_pod_is_admitted() -> None:
    assert is_admitted(pod(annotations={PIN: "acme/llama-runtime:12"}))


@pytest.mark.parametrize("runtime", [None, "runc"])
def test_a_pod_of_another_runtime_is_none_of_its_business(runtime: str | None) -> None:
    assert is_admitted(pod(runtime))


@pytest.mark.parametrize(
    "annotations",
    [
        None,
        {},
        {"other": "acme/llama-runtime:2"},
        {PIN: ""},
        {PIN: "acme/llama-runtime"},
        {PIN: "acme/llama-runtime:latest"},
        {PIN: "acme/llama-runtime:0"},
        {PIN: "acme/llama-runtime@2"},
        {PIN: "llama-runtime:2"},
        {PIN: "acme/llama-runtime:2 "},
    ],
)
def test_a_pod_that_is_not_pinned_is_refused(annotations: dict[str, str] | None) -> None:
    assert not is_admitted(pod(annotations=annotations))


def test_the_refusal_shows_the_value() -> None:
    message = POLICY["spec"]["validations"][0]["messageExpression"]
    said = str(evaluate(message, variables={"environment": "acme/llama-runtime"}))
    assert said.startswith('flox.dev/environment is "acme/llama-runtime"; it must be pinned')


def test_the_policy_is_bound_and_denies() -> None:
    binding = only(
        load_file(K8S / "cluster" / "pinned-only.yaml"), "ValidatingAdmissionPolicyBinding"
    )
    assert binding["spec"]["policyName"] == POLICY["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
