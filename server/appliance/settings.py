"""The only file that reads the environment: one frozen Settings, set by flags and variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from appliance.errors import SettingsError

PREFIX = "APPLIANCE_"

# Variables that users of such servers know already; ours win when both are set.
FAMILIAR_NAMES = {"MODEL_PATH": "model_path", "HOST": "host", "PORT": "port"}

# What Kubernetes tells a pod of a Service called appliance, or appliance-something.
SERVICE_LINK = re.compile(
    PREFIX + r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")  # the value of such a variable that ends in PORT

MAX_SHOWN_CHARS = 80
DAY_S = 86_400


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field of Settings with what `--help`, the parser and the checks need to know about it."""
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    return field(default=default, metadata=metadata)


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
    port: int = setting(8000, "port to listen on; 0 picks a free one", low=0, high=65535)
    allowed_hosts: tuple[str, ...] = setting(
        (), "further Host header names to accept, comma-separated; * for any"
    )
    engine: str = setting(
        "auto",
        "which runner computes; auto: native (own kernels for a CPU) where it can, else torch,"
        " else transformers",
        choices=("auto", "native", "torch", "transformers"),
    )
    device: str = setting("auto", "where it computes", choices=("auto", "cpu", "cuda"))
    dtype: str = setting(
        "auto",
        "arithmetic; auto: bfloat16, and with the torch engine as stored",
        choices=("auto", "float32", "bfloat16"),
    )
    quantization: str = setting(
        "none",
        "bits of a weight, fewer for speed; of the native engine alone",
        choices=("none", "int8", "int4"),
    )
    threads: int | None = setting(
        None, "CPU threads; default: the cores this process may use", low=1, high=1024
    )
    max_context_tokens: int | None = setting(
        None, "prompt plus new tokens of one request; default: the model's", low=8, high=10**8
    )
    kv_cache_tokens: int | None = setting(
        None, "tokens the key-value cache holds; default: fitted to memory", low=64, high=10**9
    )
    max_batch_tokens: int = setting(
        512, "tokens one forward pass computes at most", low=16, high=10**6
    )
    max_sequences: int = setting(32, "sequences that decode at the same time", low=1, high=10_000)
    prefix_cache: str = setting(
        "on",
        "compute what several prompts begin with once; only where that changes no bit of an answer",
        choices=("on", "off"),
    )
    speculation: str = setting(
        "on",
        "guess tokens from what was said before and check them together; only where no bit changes",
        choices=("on", "off"),
    )
    max_queued: int = setting(
        256, "sequences that wait at most; more are answered 503", low=0, high=10**6
    )
    queue_timeout_s: float = setting(
        60.0, "seconds a sequence waits at most before it is answered 503", low=0, high=DAY_S
    )
    ping_interval_s: float = setting(
        15.0,
        "seconds without a token after which a stream says that it lives, so that no proxy cuts it;"
        " 0: never",
        low=0,
        high=DAY_S,
    )
    drain_timeout_s: float = setting(
        30.0, "seconds that running answers get to finish after SIGTERM", low=0, high=DAY_S
    )
    drain_delay_s: float = setting(
        0.0, "seconds to serve on, unready, between SIGTERM and the drain", low=0, high=DAY_S
    )
    max_body_bytes: int = setting(2_000_000, "size of a request body at most", low=1024, high=10**9)
    cache_dir: Path | None = setting(
        None, "where hashes, kernels and packed weights are kept; default: ~/.cache/appliance"
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
        if not variable.startswith(PREFIX) or is_service_link(variable, environ[variable]):
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


def is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes set it, because of a Service's name, and nobody meant us."""
    is_address = variable.endswith("_PORT") and SERVICE_ADDRESS.match(value) is not None
    return is_address or SERVICE_LINK.fullmatch(variable) is not None


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
    if not text.strip():
        raise SettingsError(f"{source} is empty. Give it a value, or leave it out.")
    shown = repr(text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…")
    try:
        value = _convert(str(spec.type), text)
    except ValueError:
        raise SettingsError(
            f"{source} is {shown}, which is not {_describe(str(spec.type))}."
        ) from None
    choices, low, high = (spec.metadata[key] for key in ("choices", "low", "high"))
    if choices and value not in choices:
        raise SettingsError(f"{source} is {shown}; it must be one of {', '.join(choices)}.")
    if low is not None and isinstance(value, int | float) and not value >= low:
        raise SettingsError(f"{source} is {shown}; it must be at least {low}.")
    if high is not None and isinstance(value, int | float) and not value <= high:
        raise SettingsError(f"{source} is {shown}; it must be at most {high}.")
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
