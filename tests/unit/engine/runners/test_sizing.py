"""How much of the machine the engine takes: a device, threads, memory for contexts."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace

import pytest

from appliance.engine.runners.sizing import (
    BLOCK_SIZE,
    CACHE_BYTES_IF_UNKNOWN,
    CACHE_VALUES_IF_UNKNOWN,
    DEFAULT_CONTEXT_TOKENS,
    Demand,
    check_room,
    choose_device,
    choose_threads,
    estimate_cache_values,
    fit,
    refused_without_memory,
    weight_bytes,
)
from appliance.errors import SettingsError, StartupError

GIB = 2**30
DEMAND = Demand(
    model_context_tokens=4096,
    max_context_tokens=None,
    max_sequences=8,
    kv_cache_tokens=None,
    num_cache_values=16_384,
    weight_bytes=0,
    dtype="bfloat16",
)


def test_with_memory_to_spare_every_sequence_gets_a_whole_context() -> None:
    size = fit(DEMAND, 64 * GIB)
    assert (size.context_tokens, size.cache_tokens) == (4096, 8 * 4096)
    assert size.wanted_tokens is None


def test_the_cache_takes_a_share_of_what_the_weights_leave() -> None:
    size = fit(replace(DEMAND, weight_bytes=2 * GIB), 4 * GIB)
    assert size.cache_tokens == GIB // 2 // (16_384 * 2)
    assert size.context_tokens == 4096


def test_a_context_that_does_not_fit_is_shortened_to_what_does() -> None:
    size = fit(replace(DEMAND, model_context_tokens=10**6), 4 * GIB)
    assert size.context_tokens == size.cache_tokens == GIB // (16_384 * 2)
    assert size.wanted_tokens == 10**6


def test_a_machine_without_memory_still_gets_a_few_whole_blocks() -> None:
    size = fit(DEMAND, 0)
    assert size.num_blocks * BLOCK_SIZE == size.context_tokens == 64


def test_a_machine_that_does_not_tell_its_memory_gets_a_small_cache() -> None:
    size = fit(replace(DEMAND, max_sequences=1000), None)
    assert size.cache_tokens * DEMAND.token_bytes == CACHE_BYTES_IF_UNKNOWN


def test_a_cache_that_was_asked_for_is_made_as_it_was() -> None:
    size = fit(replace(DEMAND, kv_cache_tokens=100), 0)
    assert (size.cache_tokens, size.num_blocks, size.context_tokens) == (100, 7, 4096)


@pytest.mark.parametrize(
    ("model", "setting", "context"),
    [(None, None, DEFAULT_CONTEXT_TOKENS), (512, None, 512), (512, 100, 100), (512, 9999, 512)],
)
def test_a_context_is_the_models_or_a_smaller_one(
    model: int | None, setting: int | None, context: int
) -> None:
    demand = replace(DEMAND, model_context_tokens=model, max_context_tokens=setting)
    assert demand.context_tokens == context


def test_a_cache_larger_than_all_memory_is_refused_with_what_would_fit() -> None:
    with pytest.raises(SettingsError, match=r"--kv-cache-tokens is 1000000, .* 32768 tokens"):
        check_room(replace(DEMAND, kv_cache_tokens=10**6), GIB)
    check_room(replace(DEMAND, kv_cache_tokens=1000), GIB)
    check_room(replace(DEMAND, kv_cache_tokens=10**9), None)


GPT2 = {"n_layer": 12, "n_head": 12, "n_embd": 768}
GEMMA = {
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "hidden_size": 2048,
    "head_dim": 256,
}


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (GPT2, 2 * 12 * 768),
        (GEMMA, 2 * 18 * 256),
        ({**GPT2, "multi_query": True}, 2 * 12 * 64),
        ({"text_config": GEMMA, "hidden_size": 9}, 2 * 18 * 256),
        ({}, CACHE_VALUES_IF_UNKNOWN),
        ({**GPT2, "n_layer": "many"}, CACHE_VALUES_IF_UNKNOWN),
        ({**GPT2, "n_head": [1, 2]}, CACHE_VALUES_IF_UNKNOWN),
    ],
)
def test_a_tokens_share_of_the_cache_is_read_from_the_usual_names(
    config: Mapping[str, object], values: int
) -> None:
    assert estimate_cache_values(config) == values


def test_threads_are_the_cores_unless_a_number_is_wanted() -> None:
    assert choose_threads(None, 3) == 3
    assert choose_threads(16, 1) == 16
    assert choose_threads(400, 100) == 400


@pytest.mark.parametrize(("wanted", "num_cores"), [(17, 1), (401, 100)])
def test_many_more_threads_than_cores_are_refused(wanted: int, num_cores: int) -> None:
    with pytest.raises(SettingsError, match=rf"--threads is {wanted}; .* at most"):
        choose_threads(wanted, num_cores)


def test_a_device_is_chosen_by_what_there_is() -> None:
    assert choose_device("auto", has_cuda=True) == "cuda:0"
    assert choose_device("auto", has_cuda=False) == "cpu"
    assert choose_device("cpu", has_cuda=True) == "cpu"
    with pytest.raises(SettingsError, match="--device is cuda"):
        choose_device("cuda", has_cuda=False)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_memory_that_cannot_be_had_is_said_with_the_settings_that_save_it(
    error: Exception,
) -> None:
    with pytest.raises(StartupError, match="--kv-cache-tokens or --max-context-tokens"):  # noqa: SIM117
        with refused_without_memory():
            raise error


def test_other_errors_of_torch_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), refused_without_memory():
        raise RuntimeError("shapes do not match")


def test_torch_itself_is_understood_when_it_has_no_memory() -> None:
    import torch  # noqa: PLC0415 - absent from the lean installation

    with pytest.raises(StartupError), refused_without_memory():
        torch.zeros(2**50, dtype=torch.float32)


def test_weights_take_what_their_bits_say() -> None:
    assert (weight_bytes(100, "float32"), weight_bytes(100, "bfloat16")) == (400, 200)
