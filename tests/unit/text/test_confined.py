"""A confined process: knows no secrets, opens nothing, ends when asked and when its server ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from appliance.text.confined import ConfinedProcess, Limits

TEMPLATE = "appliance.text.template_worker"
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def echo() -> Iterator[ConfinedProcess]:
    process = template("{{ text }}")
    yield process
    process.close()


def template(source: str) -> ConfinedProcess:
    return ConfinedProcess(TEMPLATE, {"source": source, "output_chars": 10**7}, Limits())


def render(text: str) -> dict[str, JsonValue]:
    return {"variables": {"text": text}, "now": "2026-01-01T00:00:00+00:00"}


def started(process: ConfinedProcess) -> subprocess.Popen[bytes]:
    process.start()
    assert process._running is not None
    return process._running.process


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_it_starts_with_the_first_question(echo: ConfinedProcess) -> None:
    assert echo._running is None
    assert echo.ask(render("hi")) == {"text": "hi"}


@pytest.mark.parametrize("text", ["", "x" * 5_000_000, "😀\u0000\ud800"])
def test_questions_and_answers_of_any_size_pass_unchanged(echo: ConfinedProcess, text: str) -> None:
    assert echo.ask(render(text)) == {"text": text}


def test_threads_take_turns(echo: ConfinedProcess) -> None:
    answers: list[object] = []

    def ask(text: str) -> None:
        answers.append(echo.ask(render(text)) == {"text": text})

    threads = [threading.Thread(target=ask, args=(str(index) * 999,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 16


@linux
def test_it_is_given_no_secrets_of_the_server(
    echo: ConfinedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPLIANCE_SECRET", "x")
    environment = Path(f"/proc/{started(echo).pid}/environ").read_text()
    names = {entry.partition("=")[0] for entry in environment.split("\0") if entry}
    assert names == {"PYTHONPATH", "LC_ALL"}


@linux
def test_it_can_open_no_file_and_start_no_process(echo: ConfinedProcess) -> None:
    limits = Path(f"/proc/{started(echo).pid}/limits").read_text().splitlines()
    hard = {line[:26].strip(): line[26:].split()[1] for line in limits[1:]}
    assert hard["Max open files"] == "3"
    assert hard["Max processes"] == "0"
    assert hard["Max file size"] == "0"
    assert hard["Max address space"] == str(Limits().memory_bytes)


def test_close_ends_it_and_it_may_start_again(echo: ConfinedProcess) -> None:
    process = started(echo)
    echo.close()
    echo.close()
    assert process.returncode is not None
    assert echo.ask(render("b")) == {"text": "b"}


def test_one_that_was_killed_while_idle_is_started_again(echo: ConfinedProcess) -> None:
    process = started(echo)
    process.kill()
    process.wait()
    assert echo.ask(render("b")) == {"text": "b"}


def test_it_ends_when_nobody_can_ask_any_more() -> None:
    process = started(template("x"))
    gc.collect()
    assert process.returncode is not None


@linux
@pytest.mark.parametrize("text", ["x", "{% for a in range(99999) %}{% for b in range(99999) %}"])
def test_it_ends_with_its_server_whatever_it_is_at(text: str) -> None:
    source = text + "{% endfor %}" * text.count("{% for")
    program = (
        "import os, threading; from appliance.text.confined import ConfinedProcess, Limits\n"
        f"config = {{'source': {source!r}, 'output_chars': 9}}\n"
        f"process = ConfinedProcess({TEMPLATE!r}, config, Limits(cpu_time_s=0.3))\n"
        "process.start(); print(process._running.process.pid, flush=True)\n"
        f"question = {render('x')!r}\n"
        "threading.Thread(target=process.ask, args=(question,)).start(); os._exit(9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    server = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=False
    )
    assert server.returncode == 9
    deadline = time.monotonic() + 10
    while is_alive(int(server.stdout)):
        assert time.monotonic() < deadline
        os.sched_yield()
