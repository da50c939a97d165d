"""What llama-runtime/ says, done by scripts/runtime.py, which is not Flox but does the same."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.flox.runtime_harness import REPOSITORY, RUNTIME, TIMEOUT_S, Service, run, started

CUDA = RUNTIME / "cuda"


def manifest() -> dict[str, Any]:
    return tomllib.loads((RUNTIME / ".flox" / "env" / "manifest.toml").read_text())


def service_command() -> str:
    return str(manifest()["services"]["llama"]["command"])


def variables_in(root: Path, *arguments: str, **environ: str) -> dict[str, str]:
    """What a command sees in the environment; nothing else may be printed."""
    command = ("--", sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")
    result = run(root, *arguments, *command, **environ)
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, str] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runtime")


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def service(root: Path, port: int) -> Iterator[Service]:
    """The service `llama`, started with a PORT of the caller's and a log of an earlier run."""
    log = root / "cache" / "logs" / "llama.log"
    log.parent.mkdir(parents=True)
    log.write_text("the run before\n")
    with started(root, PORT=str(port)) as service:
        yield service


def test_the_service_is_ready_at_the_port_that_the_caller_set(service: Service, port: int) -> None:
    assert service.url == f"http://127.0.0.1:{port}"
    assert service.request("GET", "/readyz")[0] == 200


def test_the_service_answers_with_the_model_of_the_environment(service: Service) -> None:
    status, text = service.request("POST", "/generate", {"prompt": "Once", "max_new_tokens": 4})
    assert status == 200
    assert json.loads(text)["model"] == "pebble"


def test_the_log_lies_in_the_cache_and_the_one_before_beside_it(service: Service) -> None:
    assert "Llama Appliance" in service.log.read_text()
    assert service.log.with_name("llama.log.1").read_text() == "the run before\n"


# The last test of this service: it ends it, as process managers do, by a signal to the group.
def test_sigterm_lets_a_running_answer_finish_and_the_log_tells_it(service: Service) -> None:
    body = json.dumps({"prompt": "Once", "max_new_tokens": 100, "stream": True, "seed": 1})
    address = urlsplit(service.url).netloc
    with closing(http.client.HTTPConnection(address, timeout=TIMEOUT_S)) as connection:
        connection.request("POST", "/generate", body, {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            first = response.readline()
            os.killpg(service.process.pid, signal.SIGTERM)
            rest = response.read().decode()
    assert first.startswith(b"data: ")
    assert rest.rstrip().endswith("data: [DONE]")
    assert service.wait() == 0
    assert '"event":"draining"' in service.log.read_text()


def test_a_drain_fits_into_the_time_that_flox_waits() -> None:
    """10 s, then SIGKILL. A drain takes its timeout and 5 s: see docs/guides/operations.md."""
    found = re.search(r"APPLIANCE_DRAIN_TIMEOUT_S:-(\d+)\}", service_command())
    assert found is not None
    assert int(found[1]) + 5 < 10


def test_a_pod_runs_the_command_that_the_service_ends_in() -> None:
    command = service_command().strip().splitlines()[-1].removeprefix("exec ")
    deployment = (REPOSITORY / "k8s" / "base" / "deployment" / "deployment.yaml").read_text()
    assert f"          command:\n            - {command}\n" in deployment


def test_nothing_starts_by_itself() -> None:
    assert manifest()["services"]["auto-start"] is False


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/dev/null", ""])
def test_a_wrong_model_path_is_named_and_logged_with_the_way_out(tmp_path: Path, path: str) -> None:
    model = path or str(tmp_path)  # a directory, but of no model
    result = run(tmp_path, MODEL_PATH=model)
    assert result.returncode == 3
    assert f"MODEL_PATH is '{model}', which is not a model directory" in result.stdout
    assert "unset MODEL_PATH to serve the model of this environment" in result.stdout
    assert (tmp_path / "cache" / "logs" / "llama.log").read_text() == result.stdout


def test_a_command_sees_the_model_of_the_environment(tmp_path: Path) -> None:
    found = variables_in(tmp_path)
    assert found["MODEL_PATH"] == f"{tmp_path}/env/share/models/pebble"
    assert Path(found["MODEL_PATH"], "config.json").is_file()
    assert found["PATH"].startswith(f"{tmp_path}/env/bin:")


def test_a_command_sees_what_the_caller_set(tmp_path: Path) -> None:
    found = variables_in(tmp_path, MODEL_PATH="/mine", HOST="::1", PORT="1", APPLIANCE_THREADS="3")
    assert (found["MODEL_PATH"], found["HOST"], found["PORT"]) == ("/mine", "::1", "1")
    assert found["APPLIANCE_THREADS"] == "3"


def test_a_command_gets_no_address_from_the_environment(tmp_path: Path) -> None:
    """A pod's own variables decide; a default here could only be in the way."""
    assert not {"HOST", "PORT"} & variables_in(tmp_path).keys()


def test_what_the_environment_brings_is_not_the_callers_to_say(tmp_path: Path) -> None:
    assert variables_in(tmp_path, LLAMA_MODEL="other")["LLAMA_MODEL"] == "pebble"


def test_the_cuda_environment_is_the_same_service_on_another_device(tmp_path: Path) -> None:
    include = ("--include", f"acme/llama-runtime={RUNTIME}")
    found = variables_in(tmp_path, str(CUDA), *include)
    assert found["APPLIANCE_DEVICE"] == "cuda"
    assert found["MODEL_PATH"] == f"{tmp_path}/env/share/models/pebble"
    found = variables_in(tmp_path, str(CUDA), *include, APPLIANCE_DEVICE="cpu")
    assert found["APPLIANCE_DEVICE"] == "cpu"


def test_an_include_from_floxhub_needs_a_place_on_this_machine(tmp_path: Path) -> None:
    result = run(tmp_path, str(CUDA))
    assert result.returncode == 1
    assert "--include acme/llama-runtime=DIR" in result.stderr


def test_a_hook_needs_no_program_and_is_silent(tmp_path: Path) -> None:
    """A pod has no coreutils: nothing but bash may be needed before its command."""
    result = run(tmp_path, "--", "/bin/true", PATH=str(Path("/bin/bash").parent))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    hook = (tmp_path / "hook.sh").read_text()
    silent = subprocess.run(
        ["/bin/bash", "-c", hook],
        env={"PATH": "/none"},
        capture_output=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert (silent.stdout, silent.stderr) == (b"", b"")


def test_a_manifest_that_flox_would_refuse_is_not_run(tmp_path: Path) -> None:
    env = tmp_path / ".flox" / "env"
    env.mkdir(parents=True)
    (env / "manifest.toml").write_text("version = 1\nvars.PORT = 1\n")
    result = run(tmp_path / "root", str(tmp_path))
    assert result.returncode == 1
    assert "manifest.toml:2: error: vars.PORT is 1" in result.stderr


def test_two_packages_with_one_file_are_refused(tmp_path: Path) -> None:
    packages = []
    for name in ("a", "b"):
        tool = tmp_path / name / "bin" / "tool"
        tool.parent.mkdir(parents=True)
        tool.touch()
        packages += ["--package", str(tool.parents[1])]
    result = run(tmp_path / "root", *packages, "--", "true")
    assert result.returncode == 1
    assert "are one file of the environment" in result.stderr
