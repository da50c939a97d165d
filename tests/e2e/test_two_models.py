"""Two models in one real process: the bits of each, loading, unloading, and what does not fit."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from bench.checkpoints import open_checkpoint
from tests.e2e.test_process import Running, run, started

Json = Mapping[str, object]

NAMES = ("pebble", "random")  # the embedded one, and one of 134 million parameters
NUM_REQUESTS = 10
NUM_CLIENTS = 4
WAIT_S = 60
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def random_model() -> Path:
    return open_checkpoint("M").path


def request_of(model: str, number: int) -> Json:
    """Prompts that share a beginning, greedy and sampled, short and long."""
    return {
        "model": model,
        "prompt": "Once upon a time there was " + "a fox and a bird, " * (number % 4) + "a",
        "max_tokens": 8 + 3 * number,
        "temperature": 0 if number % 2 else 0.9,
        "seed": number,
        "logprobs": 2,
    }


def ask(server: Running, body: Json) -> tuple[int, Json]:
    with closing(http.client.HTTPConnection(server.address, timeout=TIMEOUT_S)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def answer(server: Running, body: Json) -> object:
    status, found = ask(server, body)
    assert status == 200, found
    return found["choices"]  # text, and each log-probability to the last digit


def answers(server: Running, model: str) -> list[object]:
    return [answer(server, request_of(model, number)) for number in range(NUM_REQUESTS)]


def spec(path: Path, options: str = "") -> str:
    return f"random={path}{options}"


def test_under_load_on_both_each_model_gives_the_bits_that_it_gives_alone(
    random_model: Path,
) -> None:
    with started("--model", "embedded") as server:
        alone = {"pebble": answers(server, "pebble")}
    with started("--model", spec(random_model)) as server:
        alone["random"] = answers(server, "random")
    with started("--model", "embedded", "--model", spec(random_model)) as server:
        listed = json.loads(fetch(server, "/v1/models"))["data"]
        assert [model["id"] for model in listed] == list(NAMES)
        jobs = [
            (model, number) for _ in range(3) for number in range(NUM_REQUESTS) for model in NAMES
        ]
        with ThreadPoolExecutor(NUM_CLIENTS) as clients:
            found = clients.map(lambda job: answer(server, request_of(*job)), jobs)
            differing = [
                job
                for job, choices in zip(jobs, found, strict=True)
                if choices != alone[job[0]][job[1]]
            ]
        assert differing == []
        assert "no-such-model" not in NAMES
        status, error = ask(server, {"model": "no-such-model", "prompt": "a"})
        assert (status, error["error"]["code"]) == (404, "model_not_found")  # type: ignore[index]
        metrics = fetch(server, "/metrics")
        for name in NAMES:
            assert f'appliance_generated_tokens_total{{model="{name}"}}' in metrics


def test_a_model_is_loaded_by_its_first_request_and_unloaded_when_idle(
    random_model: Path,
) -> None:
    options = ",load=first-use,idle_unload_s=1"
    with started("--model", "embedded", "--model", spec(random_model, options)) as server:
        assert statuses(server) == {"pebble": "ready", "random": "unloaded"}
        assert answer(server, {"model": "pebble", "prompt": "Once", "max_tokens": 3})
        before = resident_bytes(server)
        with ThreadPoolExecutor(NUM_CLIENTS) as clients:  # all wait for one load
            first, *others = clients.map(
                lambda _: answer(server, request_of("random", 3)), range(NUM_CLIENTS)
            )
        assert others == [first] * len(others)
        assert statuses(server) == {"pebble": "ready", "random": "ready"}
        assert resident_bytes(server) > before + 100_000_000
        wait_until(lambda: statuses(server)["random"] == "unloaded")
        assert 'appliance_running_sequences{model="random"}' not in fetch(server, "/metrics")
        wait_until(lambda: resident_bytes(server) < before + 60_000_000)
        assert answer(server, request_of("random", 3)) == first


def test_a_model_that_does_not_fit_is_refused_with_numbers_and_the_others_serve_on(
    random_model: Path,
) -> None:
    too_large = ",kv_cache_tokens=100000000"
    ended = run("--port", "0", "--model", "embedded", "--model", spec(random_model, too_large))
    assert ended.returncode == 1
    assert "The model random needs" in ended.stderr
    assert " GB are free beside pebble (" in ended.stderr
    on_use = f"{too_large},load=first-use"
    with started("--model", "embedded", "--model", spec(random_model, on_use)) as server:
        status, body = ask(server, request_of("random", 1))
        error = body["error"]
        assert isinstance(error, dict)
        assert (status, error["code"]) == (503, "model_unavailable")
        assert "The model random needs" in error["message"]
        assert str(random_model) not in error["message"]
        assert statuses(server) == {"pebble": "ready", "random": "failed"}
        assert answer(server, {"model": "pebble", "prompt": "Once", "max_tokens": 3})


def test_a_model_that_is_not_required_may_fail_and_one_that_is_ends_the_start(
    random_model: Path,
) -> None:
    optional = ",kv_cache_tokens=100000000,required=off"
    with started("--model", "embedded", "--model", spec(random_model, optional)) as server:
        wait_until(lambda: statuses(server)["random"] != "loading")
        assert statuses(server) == {"pebble": "ready", "random": "failed"}
        assert server.get("/health")[0] == 200
        assert ask(server, request_of("random", 1))[0] == 503


def test_two_models_of_one_name_end_the_start(random_model: Path) -> None:
    ended = run("--model", "embedded", "--model", f"pebble={random_model}")
    assert ended.returncode == 2
    assert "Two models are called pebble" in ended.stderr


@pytest.fixture
def models_file(tmp_path: Path, random_model: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(
        '[models.small]\npath = "embedded"\nquantization = "int8"\n\n'
        f'[models.random]\npath = "{random_model}"\nload = "first-use"\n'
    )
    return path


def test_a_file_lists_models_each_with_its_options(models_file: Path) -> None:
    with started("--models", str(models_file)) as server:
        _, version = server.get("/version")
        models = version["models"]
        assert isinstance(models, list)
        assert [model["model"] for model in models] == ["small", "random"]
        assert models[0]["runtime"]["dtype"] == "int8"
        assert version["model"] == "small"


def fetch(server: Running, path: str) -> str:
    with closing(http.client.HTTPConnection(server.address, timeout=TIMEOUT_S)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def statuses(server: Running) -> dict[str, str]:
    models = server.get("/health")[1]["models"]
    assert isinstance(models, list)
    return {model["model"]: model["status"] for model in models}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def resident_bytes(server: Running) -> int:
    """Memory of the process, files that it has mapped included."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
