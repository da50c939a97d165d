"""What a container's limits make of the machine."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.machine import (
    available_cores,
    available_memory_bytes,
    has_accelerator_driver,
    process_age_s,
)


def test_a_cpu_quota_is_rounded_down_but_never_below_one(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert available_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert available_cores(tmp_path) == 1


def test_no_quota_leaves_every_core(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_cores(tmp_path) == available_cores(tmp_path / "absent") >= 1


@pytest.mark.parametrize(
    ("limit", "expected"), [("1000000", 400_000), ("max", 2_048_000), ("100", 0)]
)
def test_memory_is_the_smaller_of_the_machine_and_the_container(
    tmp_path: Path, limit: str, expected: int
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:    2000 kB\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("600000")
    assert available_memory_bytes(tmp_path, meminfo) == expected


def test_a_system_that_does_not_tell_its_memory_gives_none(tmp_path: Path) -> None:
    assert available_memory_bytes(tmp_path, tmp_path / "absent") is None


def test_a_device_is_worth_asking_for_where_a_driver_made_its_file(tmp_path: Path) -> None:
    driver = tmp_path / "nvidiactl"
    assert not has_accelerator_driver([driver])
    driver.touch()
    assert has_accelerator_driver([tmp_path / "other", driver])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_process_knows_how_long_ago_it_was_started() -> None:
    code = "import time, appliance.machine as m; time.sleep(0.2); print(m.process_age_s())"
    before = time.monotonic()
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert 0.2 <= float(told.stdout) <= time.monotonic() - before + 0.02  # it counts hundredths


def test_without_proc_the_age_of_a_process_is_not_known(tmp_path: Path) -> None:
    assert process_age_s(tmp_path / "stat") is None
