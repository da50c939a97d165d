"""The wheel lock: which file is chosen, and that the repository's lock fits the requirements."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.locks import wheel_lock
from appliance_release.locks.requirements_file import Requirement, read_requirements
from appliance_release.locks.wheel_lock import MACHINES, PYTHON, VARIANTS, WheelLock, lock_wheels

REPOSITORY = Path(__file__).parents[4]
REQUIREMENTS = REPOSITORY / "requirements"
LOCK: WheelLock = json.loads((REPOSITORY / "llama-build" / "wheels.lock.json").read_text())

HASHES = {letter: letter * 64 for letter in "abcdef"}


def choose(published: dict[str, str], machine: str = "x86_64", *, allowed: str = "abcdef") -> str:
    hashes = frozenset(HASHES[letter] for letter in allowed)
    requirement = Requirement("thing", "1.0", None, hashes)
    files = {file: HASHES[letter] for file, letter in published.items()}
    (wheel,) = wheel_lock._choose_all([requirement], machine, {"thing": files})
    return wheel.file


def test_the_wheel_made_for_the_machine_wins_over_one_for_any() -> None:
    files = {
        "thing-1.0-py3-none-any.whl": "a",
        "thing-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl": "b",
        "thing-1.0-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl": "c",
        "thing-1.0-cp312-cp312-manylinux_2_17_x86_64.whl": "d",
        "thing-1.0-cp311-cp311-musllinux_1_2_x86_64.whl": "e",
    }
    assert choose(files).endswith("manylinux_2_17_x86_64.manylinux2014_x86_64.whl")
    assert choose(files, "aarch64").endswith("manylinux_2_17_aarch64.manylinux2014_aarch64.whl")


def test_the_exact_python_wins_over_the_stable_interface() -> None:
    files = {
        "thing-1.0-cp39-abi3-manylinux_2_28_x86_64.whl": "a",
        "thing-1.0-cp311-cp311-manylinux2014_x86_64.whl": "b",
    }
    assert choose(files) == "thing-1.0-cp311-cp311-manylinux2014_x86_64.whl"


def test_a_wheel_for_a_newer_c_library_than_debian_12_has_is_passed_over() -> None:
    files = {
        "thing-1.0-cp311-cp311-manylinux_2_39_x86_64.whl": "a",
        "thing-1.0-cp311-cp311-manylinux_2_28_x86_64.whl": "b",
    }
    assert choose(files) == "thing-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"


def test_a_wheel_whose_hash_is_not_locked_is_never_chosen() -> None:
    files = {
        "thing-1.0-cp311-cp311-manylinux_2_28_x86_64.whl": "a",
        "thing-1.0-py3-none-any.whl": "b",
    }
    assert choose(files, allowed="b") == "thing-1.0-py3-none-any.whl"
    with pytest.raises(ReleaseError, match=r"thing 1\.0 has no wheel that is in the lock"):
        choose(files, allowed="c")


def test_a_wheel_with_a_build_number_is_refused() -> None:
    with pytest.raises(ReleaseError, match="build number"):
        choose({"thing-1.0-1-py3-none-any.whl": "a"})


def test_a_package_that_the_system_does_not_want_has_no_wheel() -> None:
    requirement = Requirement("thing", "1.0", "sys_platform == 'win32'", frozenset())
    assert list(wheel_lock._choose_all([requirement], "x86_64", {})) == []


def test_a_missing_uv_is_named_with_the_way_out() -> None:
    with pytest.raises(ReleaseError, match=r"/no/uv cannot be run .*make lock"):
        lock_wheels(REQUIREMENTS, Path("/no/uv"))


def test_what_uv_says_of_a_failure_is_passed_on(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'the registry is away' >&2\nexit 2\n")
    uv.chmod(0o755)
    with pytest.raises(ReleaseError, match="the registry is away"):
        lock_wheels(REQUIREMENTS, uv)


def test_only_file_names_and_hashes_come_out_of_what_uv_says(tmp_path: Path) -> None:
    """And torch, which uv is not asked for, comes from the comments of torch-cpu.txt."""
    a, b = HASHES["a"], HASHES["b"]
    torch = "torch-1+cpu-cp311-cp311-manylinux_2_28_{}.whl"
    thing = f"thing==1 --hash=sha256:{a}\n"
    for file in VARIANTS.values():
        (tmp_path / file).write_text(thing)
    (tmp_path / "cpu.txt").write_text(f"{thing}torch==1+cpu --hash=sha256:{b}\n")
    names = "".join(f"# {b}  {torch.format(machine)}\n" for machine in MACHINES.values())
    (tmp_path / "torch-cpu.txt").write_text(names)
    answer = f"""
        [[packages]]
        name = "Thing"
        [[packages.wheels]]
        url = "https://mirror.example/a/thing-1-py3-none-any.whl"
        hashes = {{ sha256 = "{a}" }}
    """
    (tmp_path / "answer").write_text(answer)
    uv = tmp_path / "uv"
    uv.write_text(
        '#!/bin/sh\nwhile [ "$1" != --output-file ]; do shift; done\n'
        f'grep -qx "thing==1" "$3" && cp "{tmp_path}/answer" "$2"\n'
    )
    uv.chmod(0o755)
    lock = lock_wheels(tmp_path, uv)
    assert "mirror.example" not in json.dumps(lock)
    files = {
        name: [each["file"] for each in lock["variants"][name]["x86_64-linux"]] for name in VARIANTS
    }
    assert files["lean"] == files["cuda"] == ["thing-1-py3-none-any.whl"]
    assert files["cpu"] == [*files["lean"], torch.format("x86_64")]


def test_the_lock_names_no_host() -> None:
    assert "://" not in (REPOSITORY / "llama-build" / "wheels.lock.json").read_text()


@pytest.mark.parametrize("system", MACHINES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_lock_has_each_wanted_version_once_with_a_locked_hash(
    variant: str, system: str
) -> None:
    wanted = {
        each.name: each
        for each in read_requirements(REQUIREMENTS / VARIANTS[variant])
        if each.holds_on(MACHINES[system], PYTHON)
    }
    wheels = {
        str(each["pname"]).lower().replace("_", "-"): each
        for each in LOCK["variants"][variant][system]
    }
    assert wheels.keys() == wanted.keys(), "requirements changed: run `make lock`"
    for name, wheel in wheels.items():
        assert wheel["version"] == wanted[name].version
        assert wheel["sha256"] in wanted[name].hashes


def test_every_file_name_is_made_of_its_parts() -> None:
    for systems in LOCK["variants"].values():
        for wheel in (each for wheels in systems.values() for each in wheels):
            parts = [str(wheel[part]) for part in ("pname", "version", "python", "abi", "platform")]
            assert wheel["file"] == "-".join(parts) + ".whl"


def test_only_torch_comes_from_another_index_and_only_without_cuda() -> None:
    for variant, systems in LOCK["variants"].items():
        for wheels in systems.values():
            others = [each["pname"] for each in wheels if each["index"] is not None]
            assert others == (["torch"] if variant == "cpu" else [])


def test_the_lean_lock_is_the_runtime_without_what_only_torch_and_transformers_want() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    runtime = {line.split(">")[0] for line in project["dependencies"]}
    lines = (REQUIREMENTS / "lean.in").read_text().splitlines()
    lean = {line for line in lines if not line.startswith("#")}
    assert runtime - lean == {"accelerate", "safetensors", "torch", "transformers"}
    assert lean <= runtime


def test_the_release_lock_is_the_extra_of_that_name_and_what_it_uses_of_the_runtime() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extra = {line.split(">")[0] for line in project["optional-dependencies"]["release"]}
    lines = (REQUIREMENTS / "release.in").read_text().splitlines()
    release = {line for line in lines if not line.startswith("#")}
    assert release == extra | {"prometheus-client"}
