"""Renders one chat template in a sandboxed Jinja; runs only inside a confined process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from appliance.text.confined_worker import WorkerError, serve


class TemplateWorker:
    """The config is {"source", "output_chars"}, a request {"variables", "now"}."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._source: str = config["source"]
        self._output_chars: int = config["output_chars"]
        self._sandbox = Sandbox()
        self._template: Template

    def prepare(self) -> None:
        self._sandbox.from_string(r"{{ '\n' ~ strftime_now('%Y') ~ [1] | tojson }}").render()

    def start(self) -> str:
        try:
            self._template = self._sandbox.from_string(self._source)
        except TemplateSyntaxError as error:
            raise WorkerError("invalid", f"line {error.lineno}: {error.message}") from None
        return ""

    def answer(self, request: Mapping[str, Any]) -> str:
        self._sandbox.now = datetime.fromisoformat(request["now"])
        try:
            return self._render(request["variables"])
        except SecurityError as error:
            raise WorkerError("forbidden", str(error)) from None

    def _render(self, variables: dict[str, Any]) -> str:
        pieces, num_chars = [], 0
        for piece in self._template.generate(variables):
            num_chars += len(piece)
            if num_chars > self._output_chars:
                raise WorkerError("limit", "output")
            pieces.append(piece)
        return "".join(pieces)


class Sandbox(ImmutableSandboxedEnvironment):
    """The Jinja that chat templates are written for, with a smaller surface."""

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        self.now = datetime.fromtimestamp(0, UTC)
        self.filters["tojson"] = _tojson
        self.globals = {
            "range": self.globals["range"],
            "dict": _make_dict,
            "namespace": _GuardedNamespace,
            "raise_exception": _raise_exception,
            "strftime_now": self._strftime_now,
        }

    def _strftime_now(self, pattern: str) -> str:
        return self.now.strftime(pattern)

    def handle_exception(self, source: str | None = None) -> NoReturn:
        """Let errors through as they are: Jinja would open files to show their lines."""
        raise  # noqa: PLE0704  called while an exception is handled

    def unsafe_undefined(self, obj: object, attribute: str) -> NoReturn:
        """Raise at once, where Jinja would continue with an undefined value."""
        raise SecurityError(f"access to {attribute!r} is not allowed")


class _GenerationTag(Extension):
    """`{% generation %}` marks training data; for a prompt it is only a block."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=lineno)


class _GuardedNamespace(Namespace):
    """A namespace that cannot be given the attributes Python itself looks for."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self=` may be one
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError("a namespace holds names without a leading underscore")


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise_exception(message: object) -> NoReturn:
    raise WorkerError("refused", str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers does; Jinja's own filter would escape HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


if __name__ == "__main__":
    serve(TemplateWorker)
