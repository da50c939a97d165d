"""Which engine computes a model: what auto chooses, what is refused, and without which imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.engine.native.kernels.build import Found, find_compiler, load_library
from appliance.engine.native.kernels.library import KEY_TILE, NativeLibrary
from appliance.engine.runners.sizing import BLOCK_SIZE
from appliance.errors import ModelRefused, SettingsError
from appliance.metrics import Metrics
from appliance.models import plan as placement
from appliance.models.directory import ModelDirectory, open_model
from appliance.models.hashing import FileHasher
from appliance.models.plan import Place, build_demand, choose_place
from appliance.serve.wiring import load_model
from appliance.settings import Settings
from tests.kernel_cache import KERNEL_CACHE
from tests.model_factory import write_model


@pytest.fixture
def model(tmp_path: Path) -> ModelDirectory:
    return open_model(write_model(tmp_path / "m"))


def library() -> NativeLibrary:
    found = load_library(KERNEL_CACHE)
    if find_compiler() is None:
        pytest.skip(found.reason)
    assert found.library is not None, found.reason
    return found.library


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that were built before."""
    found = Found(library(), "made for the tests")
    monkeypatch.setattr("appliance.engine.native.kernels.build.load_library", lambda _: found)


def install_only(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    monkeypatch.setattr(placement, "is_installed", lambda name: name in modules)


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole installation, without a CUDA device: for choices that compute nothing."""
    install_only(monkeypatch, "torch", "transformers")
    monkeypatch.setattr(placement, "cuda_memory_bytes", lambda: None)


@pytest.mark.usefixtures("kernels")
def test_auto_is_the_native_engine_for_a_model_it_knows(model: ModelDirectory) -> None:
    place = choose_place(Settings(), model)
    assert (place.engine, place.device, place.dtype) == ("native", "cpu", "bfloat16")
    assert place.note is None


@pytest.mark.usefixtures("kernels", "everything")
@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        (Settings(engine="torch"), "torch"),
        (Settings(engine="transformers"), "transformers"),
        (Settings(dtype="float32"), "torch"),
        (Settings(quantization="int4"), "native"),
    ],
)
def test_what_the_settings_name_decides(
    settings: Settings, engine: str, model: ModelDirectory
) -> None:
    assert choose_place(settings, model).engine == engine


@pytest.mark.usefixtures("everything")
def test_auto_is_transformers_for_a_model_that_we_do_not_know(model: ModelDirectory) -> None:
    assert choose_place(Settings(), replace(model, native=None)).engine == "transformers"


@pytest.mark.usefixtures("everything")
def test_without_kernels_auto_is_torch_and_the_banner_says_why(
    model: ModelDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    place = choose_place(Settings(cache_dir=tmp_path), model)
    assert place.engine == "torch"
    assert place.note == "not native: there is no C compiler on the PATH (cc, gcc or clang)"


@pytest.mark.usefixtures("kernels", "everything")
def test_on_a_cpu_without_fast_code_auto_is_torch_if_it_is_there(
    model: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    native, best = library(), library().variant
    native.choose_variant("scalar")
    try:
        assert choose_place(Settings(), model).note is not None
        install_only(monkeypatch)
        assert choose_place(Settings(), model).engine == "native"
    finally:
        native.choose_variant(best)


@pytest.mark.usefixtures("kernels", "everything")
def test_a_device_that_torch_finds_is_preferred_and_asked_for_only_with_a_driver(
    model: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "cuda_memory_bytes", lambda: 2**30)
    assert choose_place(Settings(device="cpu"), model).engine == "native"
    monkeypatch.setattr(placement, "has_accelerator_driver", lambda: False)
    assert choose_place(Settings(), model).engine == "native"
    monkeypatch.setattr(placement, "has_accelerator_driver", lambda: True)
    place = choose_place(Settings(), model)
    assert (place.engine, place.device, place.free_bytes) == ("torch", "cuda:0", 2**30)


@pytest.mark.parametrize(
    ("settings", "missing"),
    [(Settings(engine="torch"), "torch"), (Settings(engine="transformers"), "transformers")],
)
def test_an_engine_whose_library_is_not_installed_is_refused_with_the_way_out(
    settings: Settings, missing: str, model: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_only(monkeypatch, *({"torch", "transformers"} - {missing}))
    with pytest.raises(SettingsError, match=f"needs {missing}, which is not installed here"):
        choose_place(settings, model)


def test_without_kernels_and_torch_the_error_says_both(
    model: ModelDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    install_only(monkeypatch)
    with pytest.raises(SettingsError, match=r"no C compiler.* needs torch, which is not installed"):
        choose_place(Settings(), model)


def test_a_model_for_transformers_is_sized_by_memory_too(tmp_path: Path) -> None:
    model = open_model(write_model(tmp_path / "m"))
    place = Place(
        engine="transformers", device="cpu", dtype="float32", num_threads=1, free_bytes=None
    )
    native = build_demand(Settings(), model, place)
    plain = build_demand(Settings(), replace(model, native=None), place)
    assert plain.num_cache_values == native.num_cache_values


@pytest.mark.usefixtures("everything")
def test_a_cache_beyond_the_machine_ends_a_load_with_one_sentence(tmp_path: Path) -> None:
    settings = Settings(engine="torch", kv_cache_tokens=10**9, device="cpu")
    model = open_model(write_model(tmp_path / "m", hidden_size=1024))
    with pytest.raises(SettingsError, match="--kv-cache-tokens is 1000000000"):
        load_model(settings, model, FileHasher(), Metrics())


def test_by_default_a_start_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    """In a process of its own, as this one has both already."""
    (tmp_path / "kernels").symlink_to(library().path.parent)
    script = """
import sys
from pathlib import Path
from appliance.models.hashing import FileHasher
from appliance.metrics import Metrics
from appliance.models.directory import open_model
from appliance.settings import Settings
from appliance.serve.wiring import load_model
settings = Settings(cache_dir=Path(sys.argv[1]), device="cpu", threads=1, quantization="int8")
loaded = load_model(settings, open_model(Path(sys.argv[2])), FileHasher(), Metrics())
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


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_the_cache_is_sized_by_what_the_native_engine_s_weights_really_take(
    quantization: str, is_tied: bool, tmp_path: Path
) -> None:
    """Where the vocabulary is large they take twice what the parameters' bits alone would say."""
    model = open_model(write_model(tmp_path / "m", tie_word_embeddings=is_tied))
    settings = Settings(engine="native", quantization=quantization, threads=1)
    place = choose_place(settings, model)
    demand = build_demand(settings, model, place)
    loaded = load_model(settings, model, FileHasher(), Metrics())
    loaded.engine.stop()
    others = loaded.runner.weight_bytes - demand.weight_bytes
    assert 0 <= others < 0.05 * loaded.runner.weight_bytes  # norms, rotary frequencies


def load_native(path: Path, **changes: object) -> None:
    settings = replace(Settings(engine="native"), **changes)  # type: ignore[arg-type]
    load_model(settings, open_model(path), FileHasher(), Metrics())


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "cuda"}, "--device is cuda .* Use --engine torch, or --device cpu"),
        ({"dtype": "float32"}, "--dtype is float32 .* Use --engine torch, or --dtype bfloat16"),
        ({"kv_cache_tokens": 10**9}, "--kv-cache-tokens is 1000000000"),
        (
            {"engine": "auto", "quantization": "int8", "dtype": "float32"},
            "--dtype is float32 and --quantization is int8.* Use --quantization none",
        ),
        (
            {"engine": "torch", "quantization": "int4"},
            "--quantization is int4 and --engine is torch.* Use --engine native, or --quant",
        ),
        (
            {"engine": "transformers", "quantization": "int8"},
            "--engine is transformers, which has no quantized weights",
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
    with pytest.raises(ModelRefused, match=r"The native engine .* --engine transformers"):
        load_model(Settings(engine="native"), model, FileHasher(), Metrics())


def test_without_a_compiler_the_native_engine_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=r"no C compiler .* Install gcc or clang, or use"):
        load_native(write_model(tmp_path / "m"), cache_dir=tmp_path)


@pytest.mark.usefixtures("kernels")
def test_the_native_engine_keeps_two_bytes_an_element_whatever_is_stored(tmp_path: Path) -> None:
    model = open_model(write_model(tmp_path / "m", dtype="F32"))
    place = choose_place(Settings(engine="native"), model)
    assert (place.device, place.dtype) == ("cpu", "bfloat16")
    demand = build_demand(Settings(engine="native"), model, place)
    assert demand.token_bytes == 2 * demand.num_cache_values
    assert BLOCK_SIZE % KEY_TILE == 0
