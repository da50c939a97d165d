"""A conversation in the terminal, with scripted input and a scripted server."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.cli.chat_session import ChatSession, Meter
from appliance.cli.client import Client
from appliance.cli.main import main
from appliance.console.ink import Ink, printable
from tests.unit.cli.scripted_server import (
    ScriptedServer,
    chat_event,
    chat_events,
    json_reply,
    refused,
    stream_reply,
)

CHAT = "POST /v1/chat/completions"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.routes["GET /v1/models"] = lambda _: json_reply({"data": [{"id": "embedded"}]})
        server.routes[CHAT] = lambda _: stream_reply(chat_events("Hello", " you."))
        yield server


def typing(*lines: str) -> Callable[[str], str]:
    """What a person types, line by line, and then Ctrl-D. The line ^C is Ctrl-C."""
    rest = iter(lines)

    def read_line(_: str) -> str:
        line = next(rest, None)
        if line is None:
            raise EOFError
        if line == "^C":
            raise KeyboardInterrupt
        return line

    return read_line


def talk(server: ScriptedServer, *lines: str, system: str | None = None) -> str:
    output = io.StringIO()
    session = ChatSession(
        Client(server.url),
        options={"model": "embedded", "temperature": 0.7},
        system=system,
        output=output,
        ink=Ink(is_coloured=False),
    )
    assert session.run(typing(*lines)) == 0
    return output.getvalue()


def messages_of(server: ScriptedServer, request: int) -> object:
    return server.bodies(CHAT)[request]["messages"]


def test_an_answer_is_shown_with_its_tokens(server: ScriptedServer) -> None:
    assert "Hello you.\n  2 tokens" in talk(server, "Hi")


def test_the_server_is_told_model_and_temperature(server: ScriptedServer) -> None:
    talk(server, "Hi")
    assert server.bodies(CHAT)[0]["model"] == "embedded"
    assert server.bodies(CHAT)[0]["temperature"] == 0.7


def test_a_second_question_carries_the_conversation(server: ScriptedServer) -> None:
    talk(server, "Hi", "", "And you?", system="Be kind.")
    assert messages_of(server, 1) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello you."},
        {"role": "user", "content": "And you?"},
    ]


def test_reset_forgets_the_conversation(server: ScriptedServer) -> None:
    talk(server, "Hi", "/reset", "Who are you?")
    assert messages_of(server, 1) == [{"role": "user", "content": "Who are you?"}]


def test_system_sets_and_removes_the_system_prompt(server: ScriptedServer) -> None:
    talk(server, "/system Be brief.", "Hi", "/reset", "/system", "Hi")
    assert messages_of(server, 0) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    assert messages_of(server, 1) == [{"role": "user", "content": "Hi"}]


def test_save_writes_the_conversation(server: ScriptedServer, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    assert f"Saved 2 messages to {file}." in talk(server, "Hi", f"/save {file}")
    document = json.loads(file.read_text())
    assert document["model"] == "embedded"
    assert [message["role"] for message in document["messages"]] == ["user", "assistant"]


def test_save_overwrites_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text("mine")
    assert "could not be written: File exists." in talk(server, "Hi", f"/save {file}")
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("/help", "/reset          forget the conversation"),
        ("/save", "/save needs the name of a file."),
        ("/fly", "/fly is not a command; /help lists them."),
        ("^C", "Ctrl-D or /exit leaves."),
    ],
)
def test_a_line_that_is_no_question_asks_nobody(
    server: ScriptedServer, line: str, reply: str
) -> None:
    assert reply in talk(server, line)
    assert server.received == []


def test_exit_leaves(server: ScriptedServer) -> None:
    talk(server, "/exit", "Hi")
    assert server.received == []


def test_a_refused_question_is_one_sentence_and_is_forgotten(server: ScriptedServer) -> None:
    replies = iter([refused(400, "Too long."), stream_reply(chat_events("Yes."))])
    server.routes[CHAT] = lambda _: next(replies)
    output = talk(server, "Long", "Short")
    assert "\nToo long. (HTTP 400)\n" in output
    assert messages_of(server, 1) == [{"role": "user", "content": "Short"}]


def test_an_answer_that_was_cut_says_so(server: ScriptedServer) -> None:
    server.routes[CHAT] = lambda _: stream_reply(chat_events("One", finish_reason="length"))
    assert "1 token, cut at the length limit" in talk(server, "Count")


class InterruptedOutput(io.StringIO):
    """Ctrl-C is pressed while the word `stop` is being shown."""

    def write(self, text: str) -> int:
        if text == "stop":
            raise KeyboardInterrupt
        return super().write(text)


def test_ctrl_c_stops_the_answer_and_keeps_what_came(server: ScriptedServer) -> None:
    server.routes[CHAT] = lambda _: stream_reply(map(chat_event, ("So ", "far ", "stop", "more")))
    output = InterruptedOutput()
    session = ChatSession(
        Client(server.url),
        options={"model": "m"},
        system=None,
        output=output,
        ink=Ink(is_coloured=False),
    )
    session.run(typing("Go", "Go on"))
    assert "So far \n  3 tokens" in output.getvalue()
    assert ", stopped\n" in output.getvalue()
    assert {"role": "assistant", "content": "So far stop"} in list(messages_of(server, 1))  # type: ignore[call-overload]


def test_an_answer_cannot_send_escape_sequences(server: ScriptedServer) -> None:
    server.routes[CHAT] = lambda _: stream_reply(chat_events("a\x1b[2J\x9bb\r\n\tc"))
    assert "a[2Jb\n\tc" in talk(server, "Hi")


def test_printable_text_keeps_every_letter() -> None:
    assert printable("grün ✓ 你好\n") == "grün ✓ 你好\n"


def test_the_rate_leaves_out_the_wait_for_the_first_token() -> None:
    clock = iter([100.0, 100.5, 101.0])
    meter = Meter(lambda: next(clock))
    for text in ("a", "b", "c"):
        meter.count(text, None)
    meter.count("", 21)
    assert str(meter) == "21 tokens, 20 tokens/s"


def test_the_command_finds_the_model_and_reads_questions_from_a_pipe(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    assert main(["chat", "--max-tokens", "9"], {"APPLIANCE_CLIENT_URL": server.url}) == 0
    assert "Hello you." in capsys.readouterr().out
    assert server.bodies(CHAT)[0]["max_tokens"] == 9


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        (["--temperature", "hot"], {}, "--temperature is 'hot', which is not a number."),
        ([], {"APPLIANCE_CLIENT_SEED": "x"}, "APPLIANCE_CLIENT_SEED is 'x', which is not a whole"),
        ([], {"APPLIANCE_CLIENT_TEMP": "1"}, "APPLIANCE_CLIENT_TEMP is not known. Known: "),
        (["--url", "ftp://x"], {}, "--url is 'ftp://x'; it must look like"),
    ],
)
def test_a_bad_flag_is_one_message_and_exit_code_2(
    flags: list[str], environ: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", *flags], environ) == 2
    assert message in capsys.readouterr().err


def test_an_absent_server_is_one_message_and_exit_code_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["chat", "--url", "http://127.0.0.1:9"], {}) == 1
    assert capsys.readouterr().err.startswith("appliance: Nothing listens at http://127.0.0.1:9.")
