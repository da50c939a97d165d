"""Packed weights are written once, shared, and never half there."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from appliance.engine.native.packing import plan_matrices
from appliance.engine.native.stored_tensors import to_bfloat16, to_float32
from appliance.errors import ModelRefused
from appliance.models.directory import open_model
from tests.engine.native_harness import BLOCK_SIZE, native_library, native_runner
from tests.engine.runner_harness import Sequences, random_tokens, run_chunks
from tests.model_factory import write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", dtype="BF16")


def compute(path: Path, cache_dir: Path | None, quantization: str = "none") -> bytes:
    runner = native_runner(path, cache_dir=cache_dir, quantization=quantization)
    sequence = Sequences(block_size=BLOCK_SIZE).make(random_tokens(20))
    return run_chunks(runner, sequence, [20]).tobytes()


def packed_files(cache_dir: Path) -> list[Path]:
    return sorted((cache_dir / "packed").iterdir())


def test_a_second_start_maps_what_the_first_has_packed(model_path: Path, tmp_path: Path) -> None:
    expected = compute(model_path, None)
    assert compute(model_path, tmp_path) == expected
    (packed,) = packed_files(tmp_path)
    inode = packed.stat().st_ino
    assert compute(model_path, tmp_path) == expected
    assert [file.stat().st_ino for file in packed_files(tmp_path)] == [inode]


def test_each_quantisation_and_each_set_of_weights_has_its_own_file(
    model_path: Path, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other", dtype="BF16", seed=1)
    assert compute(model_path, tmp_path) != compute(other, tmp_path)
    compute(model_path, tmp_path, "int8")
    compute(model_path, tmp_path, "int4")
    assert len(packed_files(tmp_path)) == 4


def test_a_file_that_was_cut_short_is_packed_anew(model_path: Path, tmp_path: Path) -> None:
    expected = compute(model_path, tmp_path)
    (packed,) = packed_files(tmp_path)
    packed.write_bytes(packed.read_bytes()[:1000])
    assert compute(model_path, tmp_path) == expected


def test_writers_at_the_same_time_leave_one_whole_file(model_path: Path, tmp_path: Path) -> None:
    expected = compute(model_path, None)
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(compute(model_path, tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4
    assert len(packed_files(tmp_path)) == 1


def test_a_cache_that_cannot_be_written_is_done_without(model_path: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    assert compute(model_path, blocked) == compute(model_path, None)


def test_a_directory_that_others_may_write_to_is_not_trusted(
    model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed").chmod(0o777)
    assert compute(model_path, tmp_path) == compute(model_path, None)
    assert packed_files(tmp_path) == []


def test_rounding_to_bfloat16_is_to_nearest_and_to_even_in_a_tie() -> None:
    bits = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F800000, 0x7FC00001])
    floats = bits.astype(np.uint32).view(np.float32)
    expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x7FC0]
    assert to_bfloat16(floats, "F32").tolist() == expected
    assert to_float32(to_bfloat16(floats, "F32"), "BF16")[1] == 1.0


@pytest.mark.parametrize(
    "changes",
    [{"intermediate_size": 2**30}, {"num_heads": 2**20, "head_dim": 2**11}, {"vocab_size": 2**25}],
)
def test_a_matrix_beyond_the_kernels_indices_is_refused(
    changes: dict[str, int], model_path: Path
) -> None:
    config = open_model(model_path).native
    assert config is not None
    with pytest.raises(ModelRefused, match=r"native engine computes .* Use --engine torch"):
        plan_matrices(native_library(), replace(config, **changes), "none")  # type: ignore[arg-type]
