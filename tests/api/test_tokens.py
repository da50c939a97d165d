"""Tokenize, detokenize and embeddings."""

from __future__ import annotations

import base64
import struct
from typing import Any

import httpx2
import pytest

from tests.api.conftest import MAX_CONTEXT_TOKENS, MODEL
from tests.api.fake_service import FakeService


def test_a_text_becomes_token_ids(http: httpx2.Client) -> None:
    assert http.post("/tokenize", json={"prompt": "ab"}).json() == {
        "count": 3,
        "max_model_len": MAX_CONTEXT_TOKENS,
        "tokens": [1, 97, 98],
    }
    body = {"model": MODEL, "prompt": "ab", "add_special_tokens": False}
    assert http.post("/tokenize", json=body).json()["tokens"] == [97, 98]


def test_a_conversation_becomes_token_ids(http: httpx2.Client) -> None:
    body = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert http.post("/tokenize", json=body).json()["tokens"] == [1, 97, 98]


def test_token_ids_become_a_text(http: httpx2.Client) -> None:
    assert http.post("/detokenize", json={"tokens": [97, 98]}).json() == {"prompt": "ab"}
    assert http.post("/detokenize", json={"tokens": []}).json() == {"prompt": ""}


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2]], ((1,), (2,)))],
)
def test_what_is_embedded_comes_in_four_kinds(
    http: httpx2.Client, service: FakeService, given: Any, expected: Any
) -> None:
    response = http.post("/v1/embeddings", json={"model": MODEL, "input": given, "user": "ann"})
    assert service.embedded == [expected]
    num_tokens = 3 * len(expected)
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": [0.6, 0.8, 0.0]}
            for index in range(len(expected))
        ],
        "model": MODEL,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def test_a_vector_may_come_as_bytes(http: httpx2.Client) -> None:
    body = {"model": MODEL, "input": "a", "encoding_format": "base64"}
    [entry] = http.post("/v1/embeddings", json=body).json()["data"]
    vector = struct.unpack("<3f", base64.b64decode(entry["embedding"]))
    assert vector == pytest.approx((0.6, 0.8, 0.0))
