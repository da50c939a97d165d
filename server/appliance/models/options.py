"""Options of one model, and the list of models to serve: from flags, variables and a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance.errors import SettingsError
from appliance.settings import (
    DAY_S,
    Settings,
    known_fields,
    parse_setting,
    read_variables,
    setting,
    variable_name,
)

EMBEDDED = "embedded"  # in place of a directory
MAX_MODELS = 64
MAX_FILE_BYTES = 1_000_000
SPEC_NAME = re.compile(r"([^/=,]+)=(.+)", re.DOTALL)  # a name in front of a directory


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How one model is served. Flags and variables hold for all models, unless one says otherwise.

    `origin` and `own` are where an option was read, so that an error can name it.
    """

    model_path: Path | None = setting(
        None,
        "model directory in the Hugging Face layout, with safetensors; default: embedded. The flag"
        " takes [NAME=]DIR[,OPTION=VALUE...] and can be repeated",
    )
    model_name: str | None = setting(
        None, "name of the model in the API; default: the directory's name"
    )
    runner: str = setting(
        "auto",
        "what computes the model: auto, native, torch or transformers; auto: native (C kernels for"
        " CPUs) if it can, else torch, else transformers",
        choices=("auto", "native", "torch", "transformers"),
    )
    device: str = setting(
        "auto",
        "where to compute; auto: the first CUDA device if there is one",
        choices=("auto", "cpu", "cuda"),
    )
    dtype: str = setting(
        "auto",
        "arithmetic; auto: bfloat16 with the native runner, else as stored",
        choices=("auto", "float32", "bfloat16"),
    )
    quantization: str = setting(
        "none",
        "convert the weights to fewer bits at the start, for speed and memory; native runner only",
        choices=("none", "int8", "int4"),
    )
    threads: int | None = setting(
        None, "CPU threads; default: the cores this process may use", low=1, high=1024
    )
    max_context_tokens: int | None = setting(
        None, "maximum of prompt plus answer of a request; default: the model's", low=8, high=10**8
    )
    kv_cache_tokens: int | None = setting(
        None,
        "size of the key-value cache in tokens; default: fitted to the memory",
        low=64,
        high=10**9,
    )
    cache_share: float = setting(
        0.25,
        "share of the free memory for the key-value cache, if it is fitted",
        low=0.01,
        high=0.95,
    )
    max_batch_tokens: int = setting(
        512,
        "maximum number of tokens in a forward pass; more reads prompts faster",
        low=16,
        high=10**6,
    )
    max_sequences: int = setting(
        32, "maximum number of answers computed at the same time", low=1, high=10_000
    )
    prefix_cache: str = setting(
        "on",
        "reuse the computed beginning of a prompt, where that changes no bit of an answer",
        choices=("on", "off"),
    )
    speculation: str = setting(
        "on",
        "guess tokens from earlier text and check several at once, where that changes no bit",
        choices=("on", "off"),
    )
    max_queued: int = setting(
        256, "maximum number of waiting answers; more are refused with 503", low=0, high=10**6
    )
    queue_timeout_s: float = setting(
        60.0,
        "seconds an answer waits for its turn before it is refused with 503",
        low=0,
        high=DAY_S,
    )
    load: str = setting(
        "start",
        "when to load the model: at the start, or when the first request names it",
        choices=("start", "first-use"),
    )
    idle_unload_s: float = setting(
        0.0,
        "seconds without a request before the model is unloaded; 0: never",
        low=0,
        high=DAY_S,
    )
    required: str = setting(
        "auto",
        "whether the server is ready only while this model answers; auto: if it loads at the start",
        choices=("auto", "on", "off"),
    )
    origin: str = ""
    own: frozenset[str] = frozenset()

    @property
    def is_loaded_at_start(self) -> bool:
        return self.load == "start"

    @property
    def is_required(self) -> bool:
        return self.required == "on" or (self.required == "auto" and self.is_loaded_at_start)

    def named(self, option: str) -> str:
        """Return what the user wrote to set an option: `--threads` or `models.small.threads`."""
        return f"{self.origin}{option}" if option in self.own else flag_name(option)


SETTINGS = known_fields(Settings)
OPTIONS = {
    name: spec for name, spec in known_fields(ModelOptions).items() if name not in ("origin", "own")
}
KNOWN = {**SETTINGS, **OPTIONS}
ALIASES = {"engine": "runner"}  # by the older name of a field
KEYS = {"path": "model_path"} | {name: name for name in OPTIONS if not name.startswith("model_")}
SWITCH = {True: "on", False: "off"}
SPEC_OPTIONS = re.compile(rf",(?=(?:{'|'.join(key for key in KEYS if key != 'path')})=)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that a server is started with."""

    settings: Settings
    models: tuple[ModelOptions, ...]


def load_configuration(
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
    models: Sequence[str] = (),
) -> Configuration:
    """Read variables, then flags that were given; `models` are the values of `--model`."""
    values = read_variables(environ, KNOWN, ALIASES)
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    settings = Settings(**_part(values, SETTINGS))
    defaults = ModelOptions(**_part(values, OPTIONS))
    if defaults.model_path is not None and not models:
        models = [str(defaults.model_path)]
    if settings.models is not None:
        if models:
            raise SettingsError(
                f"--models is {settings.models} and --model names models, too. Use one of them."
            )
        found = read_models_file(settings.models, defaults)
    else:
        found = [parse_spec(text, defaults) for text in models or [EMBEDDED]]
    return Configuration(settings=settings, models=_check(found))


def parse_spec(text: str, defaults: ModelOptions) -> ModelOptions:
    """Return the model of `DIR`, `NAME=DIR` or `NAME=DIR,option=value,...`."""
    path, *options = SPEC_OPTIONS.split(text)
    named = SPEC_NAME.fullmatch(path)
    name, path = (named[1], named[2]) if named else (defaults.model_name, path)
    if not path.strip():
        raise SettingsError("--model is empty. Give it a directory, or leave it out.")
    origin = f"--model {text.partition(',')[0]}: "
    given = dict(option.split("=", maxsplit=1) for option in options)
    own = {key: parse_setting(origin + key, OPTIONS[key], value) for key, value in given.items()}
    return _with(defaults, {"model_path": _directory(path), "model_name": name, **own}, origin, own)


def read_models_file(path: Path, defaults: ModelOptions) -> list[ModelOptions]:
    """Return the models of a TOML file, a table `[models.NAME]` each, in its order."""
    tables = _read_toml(path).get("models")
    if not isinstance(tables, dict) or not tables:
        raise SettingsError(f"{path} lists no models. Write a table [models.NAME] for each.")
    return [_read_table(path, name, table, defaults) for name, table in tables.items()]


def _read_table(path: Path, name: str, table: object, defaults: ModelOptions) -> ModelOptions:
    origin = f"{path.name}: models.{name}."
    if not isinstance(table, dict):
        raise SettingsError(f"{origin[:-1]} is not a table. Write [models.{name}].")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in KEYS:
            raise SettingsError(f"{origin}{key} is not an option. Known: {', '.join(KEYS)}.")
        if not isinstance(value, str | int | float):
            raise SettingsError(f"{origin}{key} must be a text or a number.")
        text = SWITCH[value] if isinstance(value, bool) else str(value)
        values[KEYS[key]] = parse_setting(origin + key, OPTIONS[KEYS[key]], text)
    directory = _directory(str(values.pop("model_path", EMBEDDED)))
    if directory is not None:
        directory = path.parent / directory
    chosen = {**values, "model_path": directory, "model_name": name}
    return _with(defaults, chosen, origin, values)


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES} bytes.")
        return tomllib.loads(text.decode())
    except OSError as error:
        raise SettingsError(
            f"--models is {path}, which cannot be read: {error.strerror}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}.") from None


def _with(
    defaults: ModelOptions, values: Mapping[str, Any], origin: str, own: Mapping[str, object]
) -> ModelOptions:
    return replace(defaults, **values, origin=origin, own=frozenset(own))


def _directory(text: str) -> Path | None:
    """Return the path of a model; not every shell expands ~ behind a name."""
    return None if text == EMBEDDED else Path(text).expanduser()


def _part(values: Mapping[str, object], known: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in known}


def _check(models: Sequence[ModelOptions]) -> tuple[ModelOptions, ...]:
    if len(models) > MAX_MODELS:
        raise SettingsError(f"{len(models)} models are listed; at most {MAX_MODELS} can be served.")
    for model in models:
        if model.required == "on" and not model.is_loaded_at_start:
            raise SettingsError(
                f"{model.named('required')} is on and {model.named('load')} is first-use: the"
                " server would never be ready. Load the model at the start, or do not require it."
            )
    return tuple(models)


def flag_name(field_name: str) -> str:
    return "--" + field_name.replace("_", "-")


def variables_of(field_name: str) -> list[str]:
    """Return the variables that set a field, the one to use first."""
    older = [name for name, field in ALIASES.items() if field == field_name]
    return [variable_name(name) for name in (field_name, *older)]
