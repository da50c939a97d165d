"""Every event is one line of JSON, and nothing a user wrote gets into it."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import warnings
from collections.abc import Iterator

import pytest

from appliance.logs import MAX_TEXT_CHARS, JsonFormatter, configure_logging, request_id

CANARY = "the purple canary sings at noon"

logger = logging.getLogger("appliance.test")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Put back what configure_logging changes for the whole process."""
    names = ("", "appliance")
    loggers = [logging.getLogger(name) for name in names]
    kept = [(each.handlers, each.level, each.propagate) for each in loggers]
    yield
    logging.captureWarnings(capture=False)
    for each, (handlers, level, propagate) in zip(loggers, kept, strict=True):
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


class Output:
    """What has been written to stderr since the last look."""

    def __init__(self, capture: pytest.CaptureFixture[str], level: str) -> None:
        self._capture = capture
        configure_logging(level)

    def text(self) -> str:
        return self._capture.readouterr().err

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    return Output(capsys, "info")


def test_an_event_is_one_line_with_time_level_and_fields(output: Output) -> None:
    logger.info("model_loaded", extra={"num_parameters": 7, "device": "cpu", "is_tied": True})
    [line] = output.lines()
    assert str(line.pop("ts")).endswith("+00:00")
    assert line == {
        "level": "info",
        "event": "model_loaded",
        "num_parameters": 7,
        "device": "cpu",
        "is_tied": True,
    }


def test_the_id_of_the_request_is_on_every_event_of_it(output: Output) -> None:
    token = request_id.set("req-1")
    logger.info("inside")
    request_id.reset(token)
    logger.info("outside")
    logger.info("named", extra={"request_id": "req-2"})
    assert [line.get("request_id") for line in output.lines()] == ["req-1", None, "req-2"]


def test_events_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(capsys, "warning")
    logger.info("quiet")
    logger.warning("loud")
    assert [line["event"] for line in output.lines()] == ["loud"]


def test_libraries_are_heard_from_warnings_up(output: Output) -> None:
    logging.getLogger("httpx").info("GET /")
    logging.getLogger("httpx").warning("slow %s", "server")
    [line] = output.lines()
    assert (line["event"], line["logger"]) == ("library_message", "httpx")
    assert line["message"] == "slow server"


def test_python_warnings_are_events(output: Output) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old way", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    [line] = output.lines()
    assert line["logger"] == "py.warnings"
    assert "DeprecationWarning: old way" in str(line["message"])


def test_uvicorn_keeps_quiet_until_something_goes_wrong(output: Output) -> None:
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 1)
    logging.getLogger("uvicorn.access").info('"GET /?prompt=%s HTTP/1.1" 200', CANARY)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    [line] = output.lines()
    assert (line["logger"], line["message"]) == ("uvicorn.error", "Invalid HTTP request received.")


@pytest.mark.parametrize(
    "extra",
    [
        {"prompt": CANARY},
        {"messages": [{"role": "user", "content": CANARY}]},
        {"detail": {"content": CANARY}},
        {"answer": CANARY},
        {"choices": [{"text": CANARY}]},
        {"thing": ValueError(CANARY)},
        {"raw": CANARY.encode()},
    ],
)
def test_fields_that_could_hold_a_users_words_hold_none(
    output: Output, extra: dict[str, object]
) -> None:
    logger.info("event", extra=extra)
    assert CANARY not in output.text()


def test_the_name_of_an_event_is_never_formatted(output: Output) -> None:
    logger.info("prompt was %s", CANARY)
    assert CANARY not in output.text()


@pytest.mark.parametrize("kind", [ValueError, KeyError, TypeError, UnicodeError])
def test_an_exception_that_quotes_its_input_is_logged_without_its_words(
    output: Output, kind: type[Exception]
) -> None:
    try:
        try:
            raise kind(CANARY)
        except kind as cause:
            raise LookupError(CANARY) from cause
    except LookupError:
        logger.exception("step_failed")
    written = output.text()
    assert CANARY not in written
    outer, inner = json.loads(written)["error"]
    assert (outer["type"], inner["type"]) == ("LookupError", kind.__name__)
    assert "test_logs.py:" in outer["frames"][0]


def test_an_exception_of_torch_or_the_system_keeps_its_message(output: Output) -> None:
    try:
        raise RuntimeError("out of memory")
    except RuntimeError:
        logger.exception("step_failed")
    [line] = output.lines()
    assert "out of memory" in json.dumps(line["error"])


def test_a_task_that_died_unheard_does_not_tell_its_words(output: Output) -> None:
    async def fail() -> None:
        raise ValueError(CANARY)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(fail())
        await asyncio.wait([task])
        loop.call_exception_handler(
            {
                "message": "Task exception was never retrieved",
                "future": task,
                "exception": task.exception(),
            }
        )

    asyncio.run(main())
    written = output.text()
    assert CANARY not in written
    assert json.loads(written)["message"] == "Task exception was never retrieved"


def test_a_text_cannot_grow_a_line_without_end(output: Output) -> None:
    logger.info("event", extra={"name_of_thing": "x" * 10_000, "ids": list(range(10_000))})
    assert len(output.text()) < MAX_TEXT_CHARS + 500


@pytest.mark.parametrize(
    "value", ["two\nlines", "\ud800", "\x1b[31m", math.nan, math.inf, object()]
)
def test_no_value_breaks_the_line(output: Output, value: object) -> None:
    logger.info("event", extra={"value": value})
    written = output.text()
    assert written.isascii()
    assert written.count("\n") == 1
    assert "\x1b" not in written
    json.loads(written, parse_constant=pytest.fail)


def test_without_standard_error_an_event_is_lost_and_nothing_else(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr("sys.stderr", None)
    logger.info("event")
    monkeypatch.undo()
    assert output.text() == ""


def test_a_message_whose_arguments_do_not_fit_is_still_an_event() -> None:
    record = logging.LogRecord("lib", logging.WARNING, "", 1, "%d things", ("many",), None)
    assert json.loads(JsonFormatter().format(record))["message"] == "%d things"
