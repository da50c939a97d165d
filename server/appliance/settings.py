"""Reads the environment, alone in this package: frozen settings from flags and variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from appliance.errors import SettingsError

PREFIX = "APPLIANCE_"

# Variables that other servers read; ours win if both are set.
FAMILIAR_NAMES = {"MODEL_PATH": "model_path", "HOST": "host", "PORT": "port"}

# Variables that Kubernetes sets in pods for a Service called appliance or appliance-….
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
    """Return a dataclass field with what `--help`, the parser and the checks need."""
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the process. `APPLIANCE_<FIELD>` sets a field; a flag of `serve` wins over it."""

    host: str = setting("127.0.0.1", "address to listen on; 0.0.0.0 for all interfaces")
    port: int = setting(8000, "port to listen on; 0 picks a free one", low=0, high=65535)
    allowed_hosts: tuple[str, ...] = setting(
        (), "additional names to accept in the Host header, comma-separated; * for any"
    )
    ping_interval_s: float = setting(
        15.0,
        "seconds without a token before a stream sends a comment, so that no proxy cuts it; 0:"
        " never",
        low=0,
        high=DAY_S,
    )
    drain_timeout_s: float = setting(
        30.0,
        "seconds that running answers get after SIGTERM to finish and be read",
        low=0,
        high=DAY_S,
    )
    drain_delay_s: float = setting(
        0.0,
        "seconds between SIGTERM and the drain in which an unready server still answers",
        low=0,
        high=DAY_S,
    )
    keys: Path | None = setting(
        None, "file of keys, made by `appliance key new`; with it, requests need a key"
    )
    jwt: Path | None = setting(
        None,
        "JSON file with the JSON Web Tokens to accept; with it, requests need one or a key",
    )
    token_review: Path | None = setting(
        None, "JSON file with the callers of a Kubernetes cluster to accept"
    )
    audit_log: Path | None = setting(
        None, "directory of the audit log: who asked what, without texts"
    )
    tls_certificate: Path | None = setting(None, "certificate chain (PEM); with it, HTTPS only")
    tls_key: Path | None = setting(None, "private key of the certificate (PEM)")
    cors_origins: tuple[str, ...] = setting(
        (), "origins whose pages may call from a browser, comma-separated, as https://app.example"
    )
    metrics_port: int | None = setting(
        None, "port that serves only /metrics, without a key", low=1, high=65535
    )
    max_body_bytes: int = setting(2_000_000, "maximum size of a request body", low=1024, high=10**9)
    cache_dir: Path | None = setting(
        None, "directory for file hashes, kernels and packed weights; default: ~/.cache/appliance"
    )
    generation: str | None = setting(
        None, "generation of the environment that starts this process, for /version"
    )
    log_level: str = setting(
        "info", "least severe level to log", choices=("debug", "info", "warning", "error")
    )
    models: Path | None = setting(None, "TOML file with the models to serve and their options")


def known_fields(*kinds: type[Any]) -> dict[str, Field[Any]]:
    """Return the fields of dataclasses whose fields are made by `setting`, by name."""
    return {field.name: field for kind in kinds for field in fields(kind)}


def read_variables(
    environ: Mapping[str, str], known: Mapping[str, Field[Any]], aliases: Mapping[str, str]
) -> dict[str, object]:
    """Return the values that variables set, by field; `aliases` maps older names to fields."""
    values: dict[str, object] = {}
    for variable, name in FAMILIAR_NAMES.items():
        if environ.get(variable) and name in known:
            values[name] = parse_setting(variable, known[name], environ[variable])
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or is_service_link(variable, environ[variable]):
            continue
        name = variable.removeprefix(PREFIX).lower()
        name = aliases.get(name, name)
        if name not in known:
            names = ", ".join(sorted(map(variable_name, known)))
            raise SettingsError(f"{variable} is not a setting. Known: {names}.")
        if environ[variable]:
            values[name] = parse_setting(variable, known[name], environ[variable])
    if "cache_dir" not in values and (parent := cache_parent(environ)) is not None:
        values["cache_dir"] = parent / "appliance"
    return values


def is_service_link(variable: str, value: str) -> bool:
    """Tell whether Kubernetes set the variable for a Service; it is not meant for this program."""
    is_address = variable.endswith("_PORT") and SERVICE_ADDRESS.match(value) is not None
    return is_address or SERVICE_LINK.fullmatch(variable) is not None


def cache_parent(environ: Mapping[str, str]) -> Path | None:
    """Return the directory for caches of this user, or None for a user without a home."""
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"])
    return Path(environ["HOME"]) / ".cache" if environ.get("HOME") else None


def variable_name(field_name: str) -> str:
    return PREFIX + field_name.upper()


def parse_setting(source: str, spec: Field[Any], text: str) -> object:
    """Return the value of a field written as `text`; errors name `source`, a flag or variable."""
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
