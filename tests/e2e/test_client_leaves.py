"""A client that leaves takes its work along: queued, in prefill or decoding, streaming or not."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import uvicorn

from appliance.api.http.state import ApplianceState
from appliance.completion import CompletionService, ListedModel, Served
from appliance.completion.service import SamplingDefaults, TextModel
from appliance.engine.engine import Engine
from appliance.engine.sequence import Batch, ChunkOutput
from appliance.metrics import Metrics
from appliance.models.directory import embedded_model_path
from appliance.models.identity import Identity
from appliance.models.table import ModelTable
from appliance.serve.app import create_app
from appliance.text.chat_template import ChatTemplate
from appliance.text.grammar import GrammarCompiler
from appliance.text.tokenizer import Tokenizer
from tests.fakes import FakeRunner

WAIT_S = 60.0  # for what happens at once, on a machine that may be busy
IDENTITY = Identity(
    model="fake", weights="0" * 64, tokenizer="0" * 64, template=None, server="0" * 64,
    root=None, generation=None, version="0", engine="fake", dtype="float32", device="cpu",
    num_threads=1, isa="", arithmetic="0" * 64,
)  # fmt: skip


class GatedRunner(FakeRunner):
    """Computes a batch only when the test lets it."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size=vocab_size, num_blocks=512, max_context_tokens=1024)
        self.steps = threading.Semaphore(0)
        self.num_started = 0

    def forward(self, batch: Batch) -> list[ChunkOutput]:
        self.num_started += 1
        self.steps.acquire(timeout=WAIT_S)
        return super().forward(batch)


class GatedServer:
    """A whole server on a free port whose forward passes the test lets through one by one."""

    def __init__(self, *, max_sequences: int) -> None:
        tokenizer = Tokenizer.from_file(embedded_model_path() / "tokenizer.json")
        vocab_size = tokenizer.vocab_size
        self.runner = GatedRunner(vocab_size)
        self.engine = Engine(
            self.runner,
            max_batch_tokens=16,
            max_sequences=max_sequences,
            max_queued=8,
            queue_timeout_s=60,
        )
        text = TextModel(
            tokenizer=tokenizer,
            template=ChatTemplate(None, {}, added_tokens={}),
            grammars=GrammarCompiler(tokenizer, []),
            tool_format=None,
            bos_token_id=None,
            stop_token_ids=frozenset(),
            vocab_size=vocab_size,
            max_context_tokens=1024,
            defaults=SamplingDefaults(),
        )
        metrics = Metrics()
        service = CompletionService(self.engine, text)
        served = Served(
            completions=service, embedder=service, identity=IDENTITY, max_context_tokens=1024
        )
        state = ApplianceState(
            metrics=metrics,
            models=ModelTable(ListedModel(name=IDENTITY.model, status="ready", served=served)),
            max_body_bytes=100_000,
            bound_host="127.0.0.1",
        )
        state.become_ready()
        metrics.watch(IDENTITY, self.engine)
        self.metrics = metrics
        self.engine.start()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(create_app(state), log_config=None, lifespan="off")
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}
        )
        self._thread.start()

    def close(self) -> None:
        self.runner.steps.release(100_000)
        self._server.should_exit = True
        self._thread.join(WAIT_S)
        self.engine.stop()
        self._listener.close()

    def ask(self, prompt: str, *, is_streaming: bool) -> socket.socket:
        """A connection that has sent its request and reads nothing."""
        body = {"prompt": prompt, "max_new_tokens": 500, "stream": is_streaming, "temperature": 0}
        data = json.dumps(body).encode()
        head = (
            f"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)
        connection.sendall(head.encode() + data)
        return connection

    def used_blocks(self) -> float:
        lines = self.metrics.render().decode().splitlines()
        [line] = [line for line in lines if line.startswith("appliance_kv_used_blocks{")]
        return float(line.split()[1])


@pytest.fixture
def server() -> Iterator[GatedServer]:
    server = GatedServer(max_sequences=1)
    yield server
    server.close()


def wait_until(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)


@pytest.mark.parametrize("is_streaming", [True, False], ids=["streaming", "whole"])
@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_a_running_sequence_whose_client_left_frees_its_blocks_within_one_step(
    server: GatedServer, stage: str, is_streaming: bool
) -> None:
    prompt = "one two three four five six seven eight nine ten " * 8
    connection = server.ask(prompt, is_streaming=is_streaming)
    wait_until(lambda: server.runner.num_started == 1, "the first pass")
    if stage == "decode":
        server.runner.steps.release(30)
        wait_until(lambda: server.runner.num_started == 31, "thirty passes")
        assert len(server.runner.batches[-1]) == 1
        assert server.runner.batches[-1][0][2] == 1, "a decode pass computes one token"
    else:
        assert server.runner.batches == []
    assert server.used_blocks() > 0

    connection.close()
    wait_until(lambda: server.engine._cancelled_ids, "the engine hears of it")
    server.runner.steps.release()  # the pass under way ends, and no other is started

    wait_until(lambda: server.used_blocks() == 0, "the blocks come back")
    assert server.runner.num_started == (31 if stage == "decode" else 1)


@pytest.mark.parametrize("is_streaming", [True, False], ids=["streaming", "whole"])
def test_a_queued_sequence_whose_client_left_is_never_computed(
    server: GatedServer, is_streaming: bool
) -> None:
    with closing(server.ask("first in line", is_streaming=False)):
        wait_until(lambda: server.runner.num_started == 1, "the first pass")
        waiting = server.ask("second in line", is_streaming=is_streaming)
        wait_until(lambda: server.engine.num_waiting == 1, "the second waits")
        waiting.close()
        wait_until(lambda: server.engine._cancelled_ids, "the engine hears of it")
        server.runner.steps.release()
        wait_until(lambda: server.engine.num_waiting == 0, "the queue is empty")
        assert {chunk[0] for batch in server.runner.batches for chunk in batch} == {1}
