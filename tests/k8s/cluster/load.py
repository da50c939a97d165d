"""Constant load through the Service: short answers, and streams that last; counts what is lost."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Self

from tests.k8s.cluster.processes import wait

TIMEOUT_S = 60.0
JSON_BODY = {"Content-Type": "application/json"}
RECEIVE_BUFFER_BYTES = 8192
NUM_SLOW_READERS = 4
PAUSE_S = 14.0  # longer than a pod serves on after it was told to end


@dataclass(frozen=True)
class Question:
    path: str
    body: dict[str, Any]


SHORT = Question("/generate", {"prompt": "Once upon a time", "max_new_tokens": 8, "temperature": 0})
LONG = Question(
    "/v1/completions",
    {  # 800 tokens, since the token that would end it is forbidden
        "model": "pebble",
        "prompt": "Once upon a time",
        "max_tokens": 800,
        "seed": 7,
        "logit_bias": {"2": -100},
        "stream": True,
    },
)


@dataclass(slots=True)
class Answer:
    """One request and what came of it; `fault` says why it counts as lost."""

    kind: str
    sent_at: float
    ended_at: float = 0.0
    generation: int | None = None  # of the short ones, which name it
    fault: str | None = None


@dataclass
class Load:
    """Clients that keep a connection, make one a request, read a stream at once, pause in it."""

    host: str
    pause_s: float = 0.1
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._may_read_on = threading.Event()
        self._may_read_on.set()
        self._pausing = threading.Lock()
        self._num_pausing = 0
        habits = [self._keep] * 2 + [self._reconnect] * 2 + [self._stream]
        habits += [self._stream_slowly] * NUM_SLOW_READERS
        self._clients = [threading.Thread(target=habit, daemon=True) for habit in habits]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Lets every request that was sent come to its end."""
        self._ended.set()
        for client in self._clients:
            client.join()

    @contextlib.contextmanager
    def streams_held(self) -> Iterator[None]:
        """Every slow reader is in its pause, and stays there until the end of this."""
        self._may_read_on.clear()
        try:
            wait("slow readers pause", lambda: self._num_pausing == NUM_SLOW_READERS, TIMEOUT_S)
            yield
        finally:
            self._may_read_on.set()

    def since(self, moment: float) -> list[Answer]:
        return [answer for answer in list(self.answers) if answer.sent_at >= moment]

    def first_answer_at(self, generation: int, since: float) -> float | None:
        found = [each.ended_at for each in self.since(since) if each.generation == generation]
        return min(found, default=None)

    def _keep(self) -> None:
        connection: HTTPConnection | None = None
        while not self._ended.wait(self.pause_s):
            connection = connection or HTTPConnection(self.host, timeout=TIMEOUT_S)
            if not self._ask(connection, "kept connection", SHORT, read_short):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _reconnect(self) -> None:
        while not self._ended.wait(self.pause_s):
            with contextlib.closing(HTTPConnection(self.host, timeout=TIMEOUT_S)) as connection:
                self._ask(connection, "new connection", SHORT, read_short)

    def _stream(self) -> None:
        while not self._ended.wait(self.pause_s):
            with contextlib.closing(HTTPConnection(self.host, timeout=TIMEOUT_S)) as connection:
                self._ask(connection, "stream", LONG, read_stream)

    def _stream_slowly(self) -> None:
        while not self._ended.wait(self.pause_s):
            with contextlib.closing(NarrowConnection(self.host)) as connection:
                self._ask(connection, "slow stream", LONG, self._read_slowly)

    def _ask(self, connection: HTTPConnection, kind: str, question: Question, read: Reader) -> bool:
        """Takes down what came; whether the connection may be used again."""
        answer = Answer(kind, time.monotonic())
        will_close = True
        try:
            connection.request("POST", question.path, json.dumps(question.body), JSON_BODY)
            response = connection.getresponse()
            will_close = response.will_close
            if response.status == 200:
                read(response, answer)
            else:
                answer.fault = f"{response.status} {response.read(300).decode(errors='replace')}"
        except (OSError, HTTPException, ValueError, LookupError) as error:
            answer.fault = f"{type(error).__name__}: {error}"
        answer.ended_at = time.monotonic()
        self.answers.append(answer)
        return answer.fault is None and not will_close

    def _read_slowly(self, response: HTTPResponse, answer: Answer) -> None:
        read_stream(response, answer, meanwhile=self._pause)

    def _pause(self) -> None:
        with self._pausing:
            self._num_pausing += 1
        time.sleep(PAUSE_S)
        self._may_read_on.wait()
        with self._pausing:
            self._num_pausing -= 1


class NarrowConnection(HTTPConnection):
    """The server cannot hand a long answer over at once."""

    def connect(self) -> None:
        """Narrow from the start: a window that was promised wider cannot be taken back.

        What then does not fit is dropped, and the server's kernel tries again ever less often:
        after a pause of half a minute it would hand nothing over for another half.
        """
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect((self.host, self.port))


Reader = Callable[[HTTPResponse, Answer], None]


def read_short(response: HTTPResponse, answer: Answer) -> None:
    made_by = json.loads(response.read())["identity"]["generation"]
    answer.generation = int(made_by.rpartition(":")[2])


def read_stream(
    response: HTTPResponse, answer: Answer, *, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Fails unless the stream comes to the end that the model gave it."""
    begun = response.read1()
    meanwhile()
    last, done, after = (begun + response.read()).split(b"\n\n")[-3:]
    if (done, after) != (b"data: [DONE]", b"") or b'"finish_reason":"length"' not in last:
        raise ValueError(f"the stream ends in {(after or done)[:150]!r}")


def lost(answers: Sequence[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.fault is not None]


def summary(answers: Sequence[Answer]) -> str:
    """Such as: 99 sent, 0 lost (new connection 90, stream 9), the longest 20.3 s; ..."""
    kinds = Counter(answer.kind for answer in answers)
    generations = Counter(answer.generation for answer in answers if answer.generation is not None)
    text = f"{len(answers)} sent, {len(lost(answers))} lost"
    text += f" ({', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))})"
    longest_s = max((answer.ended_at - answer.sent_at for answer in answers), default=0.0)
    text += f", the longest {longest_s:.1f} s"
    text += "; by generation " + ", ".join(f"{n}: {c}" for n, c in sorted(generations.items()))
    faults = Counter(f"{answer.kind}: {answer.fault}" for answer in lost(answers))
    return text + "".join(f"\n  lost {count} x {fault}" for fault, count in faults.items())
