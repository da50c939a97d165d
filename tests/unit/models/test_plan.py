"""Which runner computes a model: what auto chooses, what is refused, and without which imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.engine.native.kernels.library import KEY_TILE
from appliance.engine.runners.sizing import BLOCK_SIZE
from appliance.errors import ModelRefused, SettingsError
from appliance.metrics import Metrics
from appliance.models.directory import ModelDirectory, open_model
from appliance.models.hashing import FileHasher
from appliance.models.loading import Loaded, load_model
from appliance.models.machine import Machine, ThisMachine
from appliance.models.options import ModelOptions, load_configuration
from appliance.models.plan import build_demand, plan_runner
from tests.kernel_cache import KERNEL_CACHE
from tests.machines import FakeMachine, built_library
from tests.model_factory import write_model


@pytest.fixture
def model(tmp_path: Path) -> ModelDirectory:
    return open_model(write_model(tmp_path / "m"))


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine(library=built_library())


def load(options: ModelOptions, model: ModelDirectory, machine: Machine | None = None) -> Loaded:
    plan = plan_runner(options, model, machine or ThisMachine(KERNEL_CACHE))
    return load_model(plan, FileHasher(), Metrics().observer("m"))


def test_auto_is_the_native_runner_for_a_model_it_knows(
    model: ModelDirectory, machine: FakeMachine
) -> None:
    plan = plan_runner(ModelOptions(), model, machine)
    assert (plan.runner, plan.device, plan.dtype) == ("native", "cpu", "bfloat16")
    assert plan.note is None


@pytest.mark.parametrize(
    ("options", "runner"),
    [
        (ModelOptions(runner="torch"), "torch"),
        (ModelOptions(runner="transformers"), "transformers"),
        (ModelOptions(dtype="float32"), "torch"),
        (ModelOptions(quantization="int4"), "native"),
    ],
)
def test_what_the_options_name_decides(
    options: ModelOptions, runner: str, model: ModelDirectory, machine: FakeMachine
) -> None:
    assert plan_runner(options, model, machine).runner == runner


def test_a_model_of_another_family_is_for_transformers(
    model: ModelDirectory, machine: FakeMachine
) -> None:
    plan = plan_runner(ModelOptions(), replace(model, native=None), machine)
    assert plan.runner == "transformers"


def test_without_kernels_auto_is_torch_and_the_banner_says_why(
    model: ModelDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = FakeMachine(reason=ThisMachine(tmp_path).kernels()[1])
    plan = plan_runner(ModelOptions(), model, machine)
    assert plan.runner == "torch"
    assert plan.note == "not native: there is no C compiler on the PATH (cc, gcc or clang)"


def test_on_a_cpu_without_fast_code_auto_is_torch_if_it_is_there(
    model: ModelDirectory, machine: FakeMachine
) -> None:
    native = built_library()
    best = native.variant
    native.choose_variant("scalar")
    try:
        assert plan_runner(ModelOptions(), model, machine).note is not None
        lean = replace(machine, installed=())
        assert plan_runner(ModelOptions(), model, lean).runner == "native"
    finally:
        native.choose_variant(best)


def test_a_device_that_torch_finds_is_preferred_and_asked_for_only_with_a_driver(
    model: ModelDirectory, machine: FakeMachine
) -> None:
    with_device = replace(machine, cuda_bytes=2**30)
    assert plan_runner(ModelOptions(device="cpu"), model, with_device).runner == "native"
    assert plan_runner(ModelOptions(), model, with_device).runner == "native"
    plan = plan_runner(ModelOptions(), model, replace(with_device, has_driver=True))
    assert (plan.runner, plan.device, plan.free_bytes) == ("torch", "cuda:0", 2**30)


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_a_runner_whose_library_is_not_installed_is_refused_with_the_way_out(
    missing: str, model: ModelDirectory
) -> None:
    machine = FakeMachine(installed=tuple({"torch", "transformers"} - {missing}))
    with pytest.raises(SettingsError, match=f"needs {missing}, which is not installed here"):
        plan_runner(ModelOptions(runner=missing), model, machine)


def test_without_kernels_and_torch_the_error_says_both(model: ModelDirectory) -> None:
    machine = FakeMachine(reason="there is no C compiler", installed=())
    with pytest.raises(SettingsError, match=r"no C compiler.* needs torch, which is not installed"):
        plan_runner(ModelOptions(), model, machine)


def test_a_model_for_transformers_is_sized_by_memory_too(model: ModelDirectory) -> None:
    native = build_demand(ModelOptions(), model, None, "float32", "none")
    plain = build_demand(ModelOptions(), replace(model, native=None), None, "float32", "none")
    assert plain.num_cache_values == native.num_cache_values


def test_a_cache_beyond_the_machine_ends_a_load_with_one_sentence(tmp_path: Path) -> None:
    options = ModelOptions(runner="torch", kv_cache_tokens=10**9, device="cpu")
    model = open_model(write_model(tmp_path / "m", hidden_size=1024))
    with pytest.raises(SettingsError, match="--kv-cache-tokens is 1000000000"):
        load(options, model, FakeMachine())


def test_what_other_models_were_promised_is_not_free(model: ModelDirectory) -> None:
    machine = FakeMachine(free_bytes=10_000_000)
    alone = plan_runner(ModelOptions(runner="torch"), model, machine)
    beside = plan_runner(ModelOptions(runner="torch"), model, machine, taken_bytes=9_000_000)
    assert (alone.free_bytes, beside.free_bytes) == (10_000_000, 1_000_000)
    assert beside.size.cache_tokens < alone.size.cache_tokens


def test_the_cache_may_take_the_share_of_memory_that_the_options_say(
    model: ModelDirectory,
) -> None:
    machine = FakeMachine(free_bytes=10_000_000)
    tokens = [
        plan_runner(
            ModelOptions(runner="torch", cache_share=share), model, machine
        ).size.cache_tokens
        for share in (0.1, 0.2)
    ]
    assert tokens[1] == pytest.approx(2 * tokens[0], rel=0.05)


def test_by_default_a_start_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    """In a process of its own, as this one has both already."""
    (tmp_path / "kernels").symlink_to(built_library().path.parent)
    script = """
import sys
from pathlib import Path
from appliance.models.hashing import FileHasher
from appliance.metrics import Metrics
from appliance.models.directory import open_model
from appliance.models.loading import load_model
from appliance.models.machine import ThisMachine
from appliance.models.options import ModelOptions, load_configuration
from appliance.models.plan import plan_runner
import appliance.serve.wiring
options = ModelOptions(device="cpu", threads=1, quantization="int8")
plan = plan_runner(options, open_model(Path(sys.argv[2])), ThisMachine(Path(sys.argv[1])))
loaded = load_model(plan, FileHasher(), Metrics().observer("m"))
loaded.engine.stop()
print(loaded.identity.engine, loaded.identity.dtype, loaded.identity.device)
print([name for name in ("torch", "transformers") if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", script, tmp_path, write_model(tmp_path / "m")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.splitlines() == ["native int8 cpu", "[]"], result.stderr


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_the_cache_is_sized_by_what_the_native_engine_s_weights_really_take(
    quantization: str, is_tied: bool, tmp_path: Path
) -> None:
    """Where the vocabulary is large they take twice what the parameters' bits alone would say."""
    model = open_model(write_model(tmp_path / "m", tie_word_embeddings=is_tied))
    options = ModelOptions(runner="native", quantization=quantization, threads=1)
    plan = plan_runner(options, model, FakeMachine(library=built_library()))
    loaded = load(options, model)
    loaded.engine.stop()
    others = loaded.runner.weight_bytes - plan.demand.weight_bytes
    assert 0 <= others < 0.05 * loaded.runner.weight_bytes  # norms, rotary frequencies


def load_native(path: Path, **changes: object) -> None:
    options = replace(ModelOptions(runner="native"), **changes)  # type: ignore[arg-type]
    load(options, open_model(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "cuda"}, "--device is cuda .* Use --runner torch, or --device cpu"),
        ({"dtype": "float32"}, "--dtype is float32 .* Use --runner torch, or --dtype bfloat16"),
        ({"kv_cache_tokens": 10**9}, "--kv-cache-tokens is 1000000000"),
        (
            {"runner": "auto", "quantization": "int8", "dtype": "float32"},
            "--dtype is float32 and --quantization is int8.* Use --quantization none",
        ),
        (
            {"runner": "torch", "quantization": "int4"},
            "--quantization is int4 and --runner is torch.* Use --runner native, or --quant",
        ),
        (
            {"runner": "transformers", "quantization": "int8"},
            "--runner is transformers, which has no quantized weights",
        ),
    ],
)
def test_what_the_native_engine_cannot_do_is_refused_by_name(
    changes: Mapping[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=words):
        load_native(write_model(tmp_path / "m", hidden_size=1024), **changes)


def test_the_native_engine_refuses_a_model_of_another_family(tmp_path: Path) -> None:
    model = replace(open_model(write_model(tmp_path / "m")), native=None)
    with pytest.raises(ModelRefused, match=r"The native runner .* --runner transformers"):
        load(ModelOptions(runner="native"), model)


def test_without_a_compiler_the_native_engine_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=r"no C compiler .* Install gcc or clang, or use"):
        load(
            ModelOptions(runner="native"),
            open_model(write_model(tmp_path / "m")),
            ThisMachine(tmp_path),
        )


def test_the_native_engine_keeps_two_bytes_an_element_whatever_is_stored(tmp_path: Path) -> None:
    model = open_model(write_model(tmp_path / "m", dtype="F32"))
    plan = plan_runner(ModelOptions(runner="native"), model, FakeMachine(library=built_library()))
    assert (plan.device, plan.dtype) == ("cpu", "bfloat16")
    assert plan.demand.token_bytes == 2 * plan.demand.num_cache_values
    assert BLOCK_SIZE % KEY_TILE == 0


def test_an_option_is_named_as_it_was_written(model: ModelDirectory) -> None:
    [_, small] = load_configuration(
        {}, {"runner": "torch"}, ["embedded", "small=DIR,quantization=int8"]
    ).models
    with pytest.raises(SettingsError) as refusal:
        plan_runner(small, model, FakeMachine())
    assert str(refusal.value).startswith(
        "--model small=DIR: quantization is int8 and --runner is torch, which has no quantized"
    )
