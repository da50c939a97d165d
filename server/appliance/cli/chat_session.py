"""Runs a conversation: reads a line, then runs a command or streams the model's answer."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.client import ServerError
from appliance.console.ink import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from appliance.cli.client import Client
    from appliance.console.ink import Ink

PROMPT = "> "
HELP = """\
  /reset          forget the conversation
  /system TEXT    set the system prompt; without TEXT, remove it
  /save FILE      write the conversation to FILE as JSON
  /exit           exit, as Ctrl-D does
  Ctrl-C          stop the current answer"""


class ChatSession:
    """Keeps the messages and sends all of them with every question, as the API requires."""

    def __init__(
        self,
        client: Client,
        *,
        options: Mapping[str, str | int | float],
        system: str | None,
        output: TextIO,
        ink: Ink,
    ) -> None:
        self._client = client
        self._options = options
        self._system = system
        self._messages: list[dict[str, str]] = []
        self._output = output
        self._ink = ink
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: self._say(HELP),
            "/reset": self._reset,
            "/system": self._set_system,
            "/save": self._save,
        }

    def run(self, read_line: Callable[[str], str]) -> int:
        """Answer lines until the input ends or says /exit. `read_line` takes the prompt to show."""
        self._say(f"{self._options['model']} at {self._client.url}; /help lists the commands")
        while True:
            try:
                line = read_line(PROMPT).strip()
            except EOFError:
                self._say("")
                return 0
            except KeyboardInterrupt:
                self._say("\nCtrl-D or /exit leaves.")
                continue
            if line == "/exit":
                return 0
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._ask(line)

    def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        if name in self._commands:
            self._commands[name](argument.strip())
        else:
            self._say(f"{name} is not a command; /help lists them.")

    def _ask(self, question: str) -> None:
        """Ask; forget a question that fails, and keep what came of an answer that was stopped."""
        self._messages.append({"role": "user", "content": question})
        try:
            answer = self._stream()
        except ServerError as error:
            self._messages.pop()
            self._output.write("\n")
            self._say(self._ink.warning(error.message), dim=False)
        else:
            self._messages.append({"role": "assistant", "content": answer})

    def _stream(self) -> str:
        system = [{"role": "system", "content": self._system}] if self._system else []
        body = {**self._options, "messages": [*system, *self._messages]}
        meter, answer = Meter(), ""
        note = ""
        try:
            with closing(self._client.stream("/chat/completions", body)) as pieces:
                for piece in pieces:
                    meter.count(piece.text, piece.completion_tokens)
                    answer += piece.text
                    self._output.write(printable(piece.text))
                    self._output.flush()
                    if piece.finish_reason == "length":
                        note = ", cut at the length limit"
        except KeyboardInterrupt:
            note = ", stopped"
        self._say(f"\n  {meter}{note}\n")
        return answer

    def _reset(self, _: str) -> None:
        self._messages.clear()
        self._say("The conversation is forgotten.")

    def _set_system(self, text: str) -> None:
        self._system = text or None
        self._say("The system prompt is set." if text else "The system prompt is removed.")

    def _save(self, name: str) -> None:
        if not name:
            self._say("/save needs the name of a file.")
            return
        system = [{"role": "system", "content": self._system}] if self._system else []
        document = {"model": self._options["model"], "messages": [*system, *self._messages]}
        try:
            with Path(name).expanduser().open("x", encoding="utf-8") as file:
                file.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        except OSError as error:
            self._say(f"{name} could not be written: {error.strerror}.")
        else:
            self._say(f"Saved {len(self._messages)} messages to {name}.")

    def _say(self, text: str, *, dim: bool = True) -> None:
        self._output.write((self._ink.dim(text) if dim and text else text) + "\n")
        self._output.flush()


class Meter:
    """Counts tokens and their rate, without the wait for the first one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_pieces = 0
        self._num_tokens: int | None = None  # as the server counted, once it says so
        self._first_s = self._last_s = 0.0

    def count(self, text: str, completion_tokens: int | None) -> None:
        self._num_tokens = completion_tokens or self._num_tokens
        if not text:
            return
        self._last_s = self._clock()
        self._first_s = self._first_s if self._num_pieces else self._last_s
        self._num_pieces += 1

    def __str__(self) -> str:
        num_tokens = self._num_tokens or self._num_pieces
        words = f"{num_tokens} token{'' if num_tokens == 1 else 's'}"
        elapsed_s = self._last_s - self._first_s
        return f"{words}, {(num_tokens - 1) / elapsed_s:.0f} tokens/s" if elapsed_s > 0 else words
