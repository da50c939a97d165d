"""What other servers' clients write into every request: accepted while it asks for nothing."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from appliance.api.native.generate import GenerateRequest
from appliance.api.openai.chat_schema import ChatRequest
from appliance.api.openai.completions_schema import CompletionsRequest
from appliance.api.schema.fields import MAX_COUNT, RequestModel
from appliance.api.schema.neutral import OF_CHAT, Neutral
from tests.api.conftest import MODEL
from tests.api.fake_service import FakeService

FACES: list[tuple[str, type[RequestModel], dict[str, Any]]] = [
    ("/generate", GenerateRequest, {"prompt": "Hi"}),
    ("/v1/completions", CompletionsRequest, {"model": MODEL, "prompt": "Hi"}),
    (
        "/v1/chat/completions",
        ChatRequest,
        {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]},
    ),
]
IDS = [path for path, _, _ in FACES]

# What two routers' Rust structs always serialize, and benchmarks and servers' own defaults.
SGLANG_ROUTER = {
    "stream": False, "no_stop_trim": False, "ignore_eos": False, "skip_special_tokens": True,
    "continue_final_message": False, "separate_reasoning": True, "stream_reasoning": True,
    "return_hidden_states": False,
}  # fmt: skip
VLLM_DEFAULTS: dict[str, Any] = {
    "use_beam_search": False, "top_k": None, "min_p": None, "length_penalty": 1.0,
    "stop_token_ids": [], "include_stop_str_in_output": False, "min_tokens": 0,
    "spaces_between_special_tokens": True, "bad_words": [], "priority": 0, "echo": False,
    "include_reasoning": True, "return_token_ids": None, "stop": [], "seed": None,
    "repetition_penalty": 1.0, "temperature": None, "top_p": None, "kv_transfer_params": None,
}  # fmt: skip
SGLANG_DEFAULTS = {
    "top_k": -1, "min_p": 0.0, "min_tokens": 0, "repetition_penalty": 1.0, "regex": None,
    "return_routed_experts": False, "routed_experts_start_len": 0, "lora_path": None,
    "return_cached_tokens_details": False, "priority": None, "rid": None,
}  # fmt: skip
TGI_DEFAULTS = {
    "best_of": 1, "do_sample": True, "details": False, "decoder_input_details": False,
    "typical_p": 1.0, "watermark": False, "truncate": None, "top_n_tokens": None,
}  # fmt: skip
LLAMA_CPP_PAGE = {
    "cache_prompt": True, "samplers": None, "dynatemp_range": 0, "dynatemp_exponent": 1,
    "top_k": 40, "min_p": 0.05, "xtc_probability": 0, "xtc_threshold": 0.1, "typical_p": 1,
    "repeat_last_n": 64, "repeat_penalty": 1, "dry_multiplier": 0, "dry_base": 1.75,
    "dry_allowed_length": 2, "dry_penalty_last_n": -1, "timings_per_token": False,
    "reasoning_format": "auto", "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(("path", "_", "body"), FACES, ids=IDS)
@pytest.mark.parametrize(
    "written",
    [SGLANG_ROUTER, VLLM_DEFAULTS, SGLANG_DEFAULTS, TGI_DEFAULTS, LLAMA_CPP_PAGE],
    ids=["sglang-router", "vllm", "sglang", "tgi", "llama.cpp"],
)
def test_a_client_of_another_server_is_answered(
    http: httpx2.Client, path: str, _: Any, body: dict[str, Any], written: dict[str, Any]
) -> None:
    response = http.post(path, json=body | written)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("path", "face", "body"), FACES, ids=IDS)
def test_every_neutral_value_is_accepted_and_changes_nothing(
    http: httpx2.Client,
    service: FakeService,
    path: str,
    face: type[RequestModel],
    body: dict[str, Any],
) -> None:
    http.post(path, json=body | {"seed": 1})
    for name, rule in face.neutral.items():
        if name in face.model_fields:
            continue
        for value in (None, *rule.values):
            response = http.post(path, json=body | {"seed": 1, name: value})
            assert response.status_code == 200, f"{name}: {response.text}"
    first, *others = service.requests
    assert len(others) > 200
    for other in others:
        assert (other.prompt, other.max_new_tokens, other.output, other.n) == (
            first.prompt, first.max_new_tokens, first.output, first.n
        )  # fmt: skip


@pytest.mark.parametrize(("path", "face", "body"), FACES, ids=IDS)
def test_every_other_value_is_refused_by_name_with_what_is_accepted(
    http: httpx2.Client,
    service: FakeService,
    path: str,
    face: type[RequestModel],
    body: dict[str, Any],
) -> None:
    for name, rule in face.neutral.items():
        if name in face.model_fields or rule.takes_any:
            continue
        response = http.post(path, json=body | {name: "something else"})
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "unsupported_parameter"), name
        assert error["param"] == name
        assert rule.why in error["message"]
        assert "something else" not in error["message"]
    assert service.requests == []


@pytest.mark.parametrize(
    ("values", "value", "is_accepted"),
    [
        ((1.0,), 1, True),
        ((0,), 0.0, True),
        ((1,), True, False),
        ((False,), 0, False),
        ((False,), None, True),
        (([],), [], True),
        (([],), [1], False),
        (({"type": "text"},), {"type": "text"}, True),
        (({"type": "text"},), {"type": "json_object"}, False),
        (("",), "a", False),
        ((), None, True),
        ((), False, False),
    ],
)
def test_values_are_compared_as_json_does(values: Any, value: Any, is_accepted: bool) -> None:
    assert Neutral("it is a test", values).accepts(value) == is_accepted


@pytest.mark.parametrize(("path", "_", "body"), FACES, ids=IDS)
def test_no_top_k_means_all_tokens_whatever_the_model_recommends(
    http: httpx2.Client, service: FakeService, path: str, _: Any, body: dict[str, Any]
) -> None:
    for top_k in (0, -1, 5, None):
        assert http.post(path, json=body | {"top_k": top_k}).status_code == 200
    assert [request.top_k for request in service.requests] == [MAX_COUNT, MAX_COUNT, 5, None]


def test_the_fields_the_issue_names_are_in_the_table() -> None:
    named = (
        "ignore_eos skip_special_tokens min_tokens use_beam_search length_penalty"
        " add_generation_prompt continue_final_message include_reasoning stream_reasoning"
        " separate_reasoning return_hidden_states no_stop_trim priority best_of store service_tier"
    )
    assert set(named.split()) <= OF_CHAT.keys()


@pytest.mark.parametrize(
    ("name", "most"), [("user", 512), ("safety_identifier", 64), ("prompt_cache_key", 64)]
)
def test_names_for_users_and_caches_have_openais_limits(
    http: httpx2.Client, name: str, most: int
) -> None:
    path, _, body = FACES[2]
    assert http.post(path, json=body | {name: "a" * most}).status_code == 200
    assert http.post(path, json=body | {name: "a" * (most + 1)}).status_code == 400


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_a_message_of_another_server_may_have_empty_reasoning(
    http: httpx2.Client, name: str
) -> None:
    path, _, body = FACES[2]
    for value, status in ((None, 200), ("", 200), ("Let me think.", 400)):
        earlier = [*body["messages"], {"role": "assistant", "content": "Hello", name: value}]
        response = http.post(path, json=body | {"messages": [*earlier, *body["messages"]]})
        assert response.status_code == status, response.text
