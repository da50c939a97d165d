"""The only file that reads the environment: one frozen Settings, set by flags and variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from appliance.errors import SettingsError

PREFIX = "APPLIANCE_"

# Variables that users of such servers know already; ours win when both are set.
FAMILIAR_NAMES = {"MODEL_PATH": "model_path", "HOST": "host", "PORT": "port"}


def setting(
    default: Any, help: str, *, choices: tuple[str, ...] = (), low: float | None = None
) -> Any:
    """A field of Settings with what `--help`, the parser and the checks need to know about it."""
    return field(default=default, metadata={"help": help, "choices": choices, "low": low})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this process runs. `APPLIANCE_<FIELD>` sets a field; a flag of `serve` wins over it."""

    model_path: Path | None = setting(
        None, "model directory (Hugging Face layout, safetensors); default: embedded"
    )
    model_name: str | None = setting(
        None, "name the API serves the model under; default: the directory's name"
    )
    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for all interfaces")
    port: int = setting(8000, "port to listen on; 0 picks a free one", low=0)
    allowed_hosts: tuple[str, ...] = setting(
        (), "further Host header names to accept, comma-separated; * for any"
    )
    engine: str = setting(
        "auto", "which runner computes", choices=("auto", "torch", "transformers")
    )
    device: str = setting("auto", "where it computes", choices=("auto", "cpu", "cuda"))
    dtype: str = setting(
        "auto", "arithmetic; auto: as stored", choices=("auto", "float32", "bfloat16")
    )
    threads: int | None = setting(
        None, "CPU threads; default: the cores this process may use", low=1
    )
    max_context_tokens: int | None = setting(
        None, "prompt plus new tokens of one request; default: the model's", low=8
    )
    kv_cache_tokens: int | None = setting(
        None, "tokens the key-value cache holds; default: fitted to memory", low=64
    )
    max_batch_tokens: int = setting(512, "tokens one forward pass computes at most", low=16)
    max_sequences: int = setting(32, "sequences that decode at the same time", low=1)
    max_queued: int = setting(256, "sequences that wait at most; more are answered 503", low=0)
    queue_timeout_s: float = setting(
        60.0, "seconds a sequence waits at most before it is answered 503", low=0
    )
    drain_timeout_s: float = setting(
        30.0, "seconds that running answers get to finish after SIGTERM", low=0
    )
    drain_delay_s: float = setting(
        0.0, "seconds to serve on, unready, between SIGTERM and the drain", low=0
    )
    max_body_bytes: int = setting(2_000_000, "size of a request body at most", low=1024)
    cache_dir: Path | None = setting(
        None, "where file hashes are remembered; default: ~/.cache/appliance"
    )
    generation: str | None = setting(
        None, "the environment generation this process was started from, for /version"
    )
    log_level: str = setting(
        "info", "least severe event to log", choices=("debug", "info", "warning", "error")
    )


def load_settings(environ: Mapping[str, str] = os.environ, **overrides: object) -> Settings:
    """Settings from the environment, then `overrides` (parsed flags; None means not given)."""
    known = {field.name: field for field in fields(Settings)}
    values: dict[str, object] = {}
    for variable, name in FAMILIAR_NAMES.items():
        if environ.get(variable):
            values[name] = parse_setting(variable, name, environ[variable])
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known:
            names = ", ".join(sorted(map(variable_name, known)))
            raise SettingsError(f"{variable} is not a setting. Known: {names}.")
        if environ[variable]:
            values[name] = parse_setting(variable, name, environ[variable])
    if "cache_dir" not in values and (parent := cache_parent(environ)) is not None:
        values["cache_dir"] = parent / "appliance"
    values.update({name: value for name, value in overrides.items() if value is not None})
    return replace(Settings(), **values)  # type: ignore[arg-type]


def cache_parent(environ: Mapping[str, str]) -> Path | None:
    """Where programs of this user keep what they can make again; None for a user without a home."""
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"])
    return Path(environ["HOME"]) / ".cache" if environ.get("HOME") else None


def variable_name(field_name: str) -> str:
    return PREFIX + field_name.upper()


def parse_setting(source: str, name: str, text: str) -> object:
    """The value of field `name` written as `text`; errors name `source`, a flag or variable."""
    spec = next(field for field in fields(Settings) if field.name == name)
    try:
        value = _convert(str(spec.type), text)
    except ValueError:
        raise SettingsError(
            f"{source} is {text!r}, which is not {_describe(str(spec.type))}."
        ) from None
    choices, low = spec.metadata["choices"], spec.metadata["low"]
    if choices and value not in choices:
        raise SettingsError(f"{source} is {text!r}; it must be one of {', '.join(choices)}.")
    if low is not None and isinstance(value, int | float) and not value >= low:
        raise SettingsError(f"{source} is {text!r}; it must be at least {low}.")
    if name == "port" and isinstance(value, int) and value > 65535:
        raise SettingsError(f"{source} is {text!r}; a port is at most 65535.")
    return value


def _convert(type_name: str, text: str) -> object:
    base = type_name.removesuffix(" | None")
    if base == "int":
        return int(text)
    if base == "float":
        return float(text)
    if base == "Path":
        return Path(text)
    if base.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _describe(type_name: str) -> str:
    return {"int": "a whole number", "float": "a number"}.get(
        type_name.removesuffix(" | None"), "usable"
    )
