"""Which arithmetic a device gets for what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.engine.model import dtype
from appliance.engine.model.dtype import choose_dtype, has_fast_bfloat16, read_cpu_description

GENOA = "processor: 0\nflags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n"
SAPPHIRE_RAPIDS = "flags\t\t: fpu amx_bf16 amx_tile\n"
GRAVITON3 = "Features\t: fp asimd bf16 i8mm\n"
SKYLAKE = "model name: Xeon bf16\nflags\t\t: fpu avx512f avx512bw\n"


@pytest.mark.parametrize("description", [GENOA, SAPPHIRE_RAPIDS, GRAVITON3])
def test_cpus_with_bfloat16_products_are_recognised(description: str) -> None:
    assert has_fast_bfloat16(description)


@pytest.mark.parametrize("description", [SKYLAKE, ""])
def test_other_cpus_are_not(description: str) -> None:
    assert not has_fast_bfloat16(description)


def test_a_system_without_cpuinfo_describes_nothing(tmp_path: Path) -> None:
    assert read_cpu_description(tmp_path / "absent") == ""


@pytest.mark.parametrize(
    ("requested", "stored", "device", "description", "chosen"),
    [
        ("auto", "float32", "cpu", GENOA, "float32"),
        ("auto", "bfloat16", "cpu", GENOA, "bfloat16"),
        ("auto", "bfloat16", "cpu", SKYLAKE, "float32"),
        ("auto", "float16", "cpu", GENOA, "float32"),
        ("auto", "float16", "cuda", SKYLAKE, "float16"),
        ("auto", "bfloat16", "cuda:0", SKYLAKE, "bfloat16"),
        ("bfloat16", "float32", "cpu", SKYLAKE, "bfloat16"),
        ("float32", "bfloat16", "cpu", GENOA, "float32"),
    ],
)
def test_auto_is_as_stored_unless_the_cpu_is_slow_at_it(
    requested: str,
    stored: str,
    device: str,
    description: str,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dtype, "read_cpu_description", lambda: description)
    assert choose_dtype(requested, stored, device) == chosen
