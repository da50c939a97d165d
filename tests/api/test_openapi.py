"""The API's description is complete and says what the server does."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from appliance.api.http.openapi import describe
from appliance.api.schema.examples import MODEL
from appliance.serve.app import FACES
from tests.api import conftest

SPEC: Any = describe(FACES)


OPERATIONS = [
    (path, method, operation)
    for path, methods in SPEC["paths"].items()
    for method, operation in methods.items()
]


def test_every_route_of_the_product_is_described() -> None:
    assert {path for path, _, _ in OPERATIONS} == {
        "/generate", "/tokenize", "/detokenize",
        "/v1/models", "/v1/models/{model}", "/v1/completions", "/v1/chat/completions",
        "/v1/embeddings", "/v1/key", "/health", "/readyz", "/livez", "/version", "/metrics",
    }  # fmt: skip


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_an_operation_is_described(path: str, method: str, operation: Any) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    assert operation["operationId"].isidentifier()
    assert "422" not in operation["responses"]
    for response in operation["responses"].values():
        assert response["description"] != "Successful Response"


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_failures_are_described_as_they_are(path: str, method: str, operation: Any) -> None:
    if method != "post":
        return
    for status in ("400", "413", "415", "503", "default"):
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorResponse"}


def test_no_schema_of_fastapis_own_errors_is_left() -> None:
    schemas = SPEC["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert "ValidationError" not in schemas


def is_described(schema: Any) -> bool:
    """By itself, or by the schemas it is made of."""
    if not schema.keys().isdisjoint({"description", "const", "$ref"}):
        return True
    parts = [schema.get("items"), *schema.get("anyOf", []), *schema.get("oneOf", [])]
    return any(is_described(part) for part in parts if part)


@pytest.mark.parametrize("name", sorted(SPEC["components"]["schemas"].keys() - {"JsonValue"}))
def test_a_schema_is_described(name: str) -> None:
    schema = SPEC["components"]["schemas"][name]
    assert schema["description"]
    for field, described in schema.get("properties", {}).items():
        assert is_described(described), f"{name}.{field}"


def test_a_request_takes_no_unknown_field() -> None:
    for path, method, operation in OPERATIONS:
        if method == "post":
            content = operation["requestBody"]["content"]["application/json"]
            name = content["schema"]["$ref"].rpartition("/")[2]
            assert SPEC["components"]["schemas"][name]["additionalProperties"] is False, path


@pytest.mark.parametrize(
    ("path", "operation"), [(path, post) for path, method, post in OPERATIONS if method == "post"]
)
def test_null_is_the_same_as_leaving_out(http: httpx2.Client, path: str, operation: Any) -> None:
    content = operation["requestBody"]["content"]["application/json"]
    schema = SPEC["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    example = next(iter(content["examples"].values()))["value"]
    nulls = dict.fromkeys(schema["properties"].keys() - example.keys())
    body = json.loads(json.dumps(nulls | example).replace(MODEL, conftest.MODEL))
    assert http.post(path, json=body).status_code == 200


def test_the_examples_of_requests_are_answered(http: httpx2.Client) -> None:
    tried = 0
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        operation = operations.get("post", {})
        content = operation.get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("examples", {}).values():
            tried += 1
            response = http.post(path, json=example["value"])
            assert response.status_code == 200, response.text
    assert tried >= 6
