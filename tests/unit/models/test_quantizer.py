"""A quantized directory is served bit for bit as its original would be, and by nothing else."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from appliance.cli.main import main
from appliance.errors import ModelRefused, SettingsError
from appliance.models.directory import open_model
from appliance.models.hashing import FileHasher
from appliance.models.machine import ThisMachine
from appliance.models.options import ModelOptions
from appliance.models.plan import plan_runner
from appliance.models.quantizer import Quantizer, build_quantizer
from tests.engine.native_harness import BLOCK_SIZE, native_runner
from tests.engine.runner_harness import Sequences, random_tokens, run_chunks
from tests.kernel_cache import KERNEL_CACHE
from tests.machines import FakeMachine
from tests.model_factory import (
    change_json,
    model_config,
    random_weights,
    read_safetensors,
    write_lock,
    write_model,
    write_weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = ("a line", "The quick brown fox jumps over the lazy dog. " * 10)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m", dtype="BF16", hidden_size=48, intermediate_size=72)


@pytest.fixture
def quantizer() -> Quantizer:
    machine = ThisMachine(KERNEL_CACHE)
    return build_quantizer(machine, 1, FileHasher(), lambda done, total: None)


def quantized(quantizer: Quantizer, path: Path, to: str = "int8") -> Path:
    out = path.with_name(f"{path.name}-{to}")
    quantizer.quantize(open_model(path), to, out, TEXT)
    return out


def logits(path: Path, quantization: str, cache_dir: Path | None = None) -> bytes:
    runner = native_runner(path, quantization=quantization, cache_dir=cache_dir)
    sequence = Sequences(block_size=BLOCK_SIZE).make(random_tokens(20))
    return run_chunks(runner, sequence, [20]).tobytes()


@pytest.mark.parametrize("to", ["int8", "int4"])
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_it_computes_the_bits_of_quantizing_at_the_start(
    to: str, model_type: str, dtype: str, quantizer: Quantizer, tmp_path: Path
) -> None:
    is_tied = model_type == "qwen3"
    original = write_model(
        tmp_path / "m",
        model_type=model_type,
        dtype=dtype,
        tie_word_embeddings=is_tied,
        intermediate_size=152,
    )
    out = quantized(quantizer, original, to)
    assert logits(out, to) == logits(original, to) != logits(original, "none")


def test_the_directory_is_whole_locked_and_says_what_it_is(
    original: Path, quantizer: Quantizer
) -> None:
    out = quantized(quantizer, original, "int4")
    model = open_model(out)
    assert (model.quantization, model.is_locked, model.dtype) == ("int4", True, "bfloat16")
    assert model.num_parameters == open_model(original).num_parameters
    assert model.weight_bytes < open_model(original).weight_bytes
    report = json.loads((out / "quantization.json").read_text())
    assert report["quality"]["num_tokens"] == len(TEXT[1]) - 1
    assert 0 < report["quality"]["mean_kl"] < 0.1
    assert [path.name for path in original.parent.iterdir() if path.name.startswith(".")] == []


def test_a_byte_of_it_that_changes_is_found_by_its_lock(
    original: Path, quantizer: Quantizer
) -> None:
    out = quantized(quantizer, original)
    weights = bytearray((out / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (out / "model.safetensors").write_bytes(weights)
    with pytest.raises(ModelRefused, match=r"model\.safetensors is not the file"):
        open_model(out)


def test_the_lock_keeps_the_licence_of_the_originals(original: Path, quantizer: Quantizer) -> None:
    write_lock(original, original / "model.lock.json")
    change_json(original / "model.lock.json", license="Apache-2.0")
    lock = json.loads((quantized(quantizer, original) / "model.lock.json").read_text())
    assert (lock["license"], lock["name"], lock["lock"]) == ("Apache-2.0", "m-int8", 1)
    assert len(lock["revision"]) == 40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ModelOptions(runner="torch"),
            "stored as int8 and --runner is torch.* or the original model",
        ),
        (ModelOptions(runner="transformers"), "stored as int8 and --runner is transformers"),
        (ModelOptions(device="cuda"), "--device is cuda and the model is stored as int8"),
        (ModelOptions(dtype="float32"), "--dtype is float32 and the model is stored as int8"),
        (
            ModelOptions(quantization="int4"),
            "--quantization is int4 and the model is stored as int8",
        ),
    ],
)
def test_settings_that_quantized_weights_cannot_follow_are_refused(
    options: ModelOptions, words: str, original: Path, quantizer: Quantizer
) -> None:
    model = open_model(quantized(quantizer, original))
    with pytest.raises(SettingsError, match=words):
        plan_runner(options, model, FakeMachine())


def test_it_is_served_natively_without_being_told(original: Path, quantizer: Quantizer) -> None:
    model = open_model(quantized(quantizer, original))
    plan = plan_runner(ModelOptions(), model, ThisMachine(KERNEL_CACHE))
    assert (plan.runner, plan.quantization) == ("native", "int8")


def drop_scales(out: Path) -> None:
    rename_tensor(out, b"lm_head.scales", b"lm_head.scalez")


def rename_tensor(out: Path, name: bytes, new: bytes) -> None:
    content = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(content.replace(name, new, 1))


def set_quantization(**changes: object) -> Callable[[Path], None]:
    def change(out: Path) -> None:
        config = json.loads((out / "config.json").read_text())
        note = {**config["quantization_config"], **changes}
        change_json(out / "config.json", quantization_config=note)

    return change


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            set_quantization(layout=2),
            r"quantized to 'int8' in layout '2'; .* Quantize the original",
        ),
        (set_quantization(weights="int3"), "quantized to 'int3'"),
        (set_quantization(weights="int4"), r"missing, first .*\.codes"),
        (set_quantization(quant_method="gptq"), "in a way that is not supported"),
        (drop_scales, r"missing, first lm_head\.scales"),
        (
            lambda out: rename_tensor(out, b'"dtype":"I8"', b'"dtype":"U8"'),
            "stored as U8; in a quantized model it must be I8",
        ),
        (lambda out: change_json(out / "config.json", hidden_act="gelu"), "describes none that"),
    ],
)
def test_a_directory_that_does_not_fit_is_refused(
    spoil: Callable[[Path], None], words: str, original: Path, quantizer: Quantizer
) -> None:
    out = quantized(quantizer, original)
    (out / "model.lock.json").unlink()
    spoil(out)
    with pytest.raises(ModelRefused, match=words):
        open_model(out)


def test_the_widest_elements_come_first_so_that_each_is_aligned(
    original: Path, quantizer: Quantizer
) -> None:
    header, _ = read_safetensors(quantized(quantizer, original) / "model.safetensors")
    kinds = [str(entry["dtype"]) for entry in header.values()]
    assert kinds == sorted(kinds, key=lambda kind: kind == "I8")


def test_what_cannot_be_quantized_is_refused(
    original: Path, quantizer: Quantizer, tmp_path: Path
) -> None:
    out = quantized(quantizer, original)
    with pytest.raises(SettingsError, match=r"--out is .*, which exists"):
        quantized(quantizer, original)
    with pytest.raises(ModelRefused, match="quantized to int8 already"):
        quantizer.quantize(open_model(out), "int4", tmp_path / "n", TEXT)
    with pytest.raises(SettingsError, match="does not exist"):
        quantizer.quantize(open_model(original), "int4", tmp_path / "a" / "b", TEXT)
    with pytest.raises(SettingsError, match="fewer than 2 tokens"):
        quantizer.quantize(open_model(original), "int4", tmp_path / "n", ("", "x"))
    change_json(original / "config.json", hidden_act="gelu")
    with pytest.raises(ModelRefused, match="Models of type llama cannot be quantized"):
        quantizer.quantize(open_model(original), "int4", tmp_path / "n", TEXT)


def test_a_model_that_predicts_no_numbers_is_refused_and_nothing_is_left(
    quantizer: Quantizer, tmp_path: Path
) -> None:
    original = write_model(tmp_path / "m")
    weights = random_weights(model_config())
    weights["model.norm.weight"][:] = np.nan
    write_weights(original / "model.safetensors", weights)
    with pytest.raises(ModelRefused, match=r"predicts no finite numbers.* perplexity nan"):
        quantized(quantizer, original)
    assert list(tmp_path.iterdir()) == [original]


def test_a_command_that_is_told_to_end_leaves_nothing(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_there(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("appliance.models.quantizer.copy_files", end_there)
    before = sorted(original.parent.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(
            ["quantize", str(original), "--to", "int8"], {"APPLIANCE_CACHE_DIR": str(KERNEL_CACHE)}
        )
    assert ended.value.code == 128 + signal.SIGTERM
    assert sorted(original.parent.iterdir()) == before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_command_prints_what_it_costs(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text(TEXT[1])
    arguments = ["quantize", str(original), "--to", "int8", "--text", str(tmp_path / "text")]
    assert main([*arguments], {"APPLIANCE_CACHE_DIR": str(KERNEL_CACHE)}) == 0
    printed = capsys.readouterr().out
    assert "perplexity" in printed
    assert f"appliance serve --model {original}-int8" in printed
    assert main([*arguments[:-1], "/no/text"], {"APPLIANCE_CACHE_DIR": str(KERNEL_CACHE)}) == 2
    assert "--text is /no/text, which cannot be read" in capsys.readouterr().err
