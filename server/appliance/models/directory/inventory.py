"""Lists what lies in a model directory and refuses whatever could run as code."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ModelRefused
from appliance.models.directory.json_file import JsonObject, holds_key, read_shallow_json_object
from appliance.models.directory.weights import find_weight_files

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SMALL_JSON_BYTES = 4_000_000
MAX_ENTRIES = 20_000
CODE_SUFFIXES = frozenset({".py", ".pyc", ".pyo", ".pyw", ".pyd", ".so", ".dll", ".dylib"})

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
CHAT_TEMPLATE = "chat_template.jinja"

# The files a model may have besides its weights; nothing else is ever opened.
FILE_NAMES: Mapping[str, str] = {
    "config": CONFIG,
    "generation_config": GENERATION_CONFIG,
    "tokenizer": TOKENIZER,
    "tokenizer_config": TOKENIZER_CONFIG,
    "special_tokens_map": SPECIAL_TOKENS_MAP,
    "chat_template": CHAT_TEMPLATE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The files of a model that will be read: by role, and the weights in order of name."""

    directory: Path
    files: Mapping[str, Path]
    weight_files: tuple[Path, ...]

    def read_object(self, role: str) -> JsonObject:
        """The JSON file of this role; empty when there is none."""
        path = self.files.get(role)
        if path is None:
            return {}
        found = read_shallow_json_object(path, max_bytes=MAX_SMALL_JSON_BYTES)
        if holds_key(found, "auto_map"):
            raise ModelRefused(
                f"{path.name} has an auto_map: the model wants its own Python code to run, which"
                " never happens here. Use a model whose architecture transformers has built in."
            )
        return found


def take_inventory(directory: Path) -> Inventory:
    """What is in the directory. Links to files are followed (download caches and the Nix store are
    made of them), links to directories are not."""
    names = _list_names(directory)
    if "adapter_config.json" in names:
        raise ModelRefused(
            f"{directory} holds an adapter (adapter_config.json). Merge it into its base model"
            " with peft's merge_and_unload, then save_pretrained."
        )
    _refuse_code(directory)
    weight_files = find_weight_files(directory, names)
    files = {role: directory / name for role, name in FILE_NAMES.items() if name in names}
    if "config" not in files:
        raise ModelRefused(f"{CONFIG} is missing from {directory}. Fetch the model again, whole.")
    if "tokenizer" not in files:
        raise _tokenizer_absent(names)
    return Inventory(directory=directory, files=files, weight_files=weight_files)


def _list_names(directory: Path) -> frozenset[str]:
    try:
        names = frozenset(entry.name for entry in directory.iterdir())
    except FileNotFoundError:
        raise ModelRefused(f"The model directory {directory} does not exist.") from None
    except NotADirectoryError:
        raise ModelRefused(
            f"{directory} is a file; give the directory that holds config.json, tokenizer.json"
            " and the safetensors files."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else "it is not a path"
        raise ModelRefused(f"{directory} cannot be read: {reason}.") from None
    if not names:
        raise ModelRefused(
            f"The model directory {directory} is empty. Put config.json, tokenizer.json and the"
            " safetensors files there."
        )
    return names


def _refuse_code(directory: Path) -> None:
    num_entries = 0
    for parent, _, names in os.walk(directory):
        num_entries += 1 + len(names)
        if num_entries > MAX_ENTRIES:
            raise ModelRefused(
                f"{directory} holds more than {MAX_ENTRIES:,} files; is it a model directory?"
            )
        for name in names:
            if Path(name).suffix.lower() in CODE_SUFFIXES:
                found = Path(parent, name).relative_to(directory)
                raise ModelRefused(
                    f"The model directory holds program code ({found}), which never runs here."
                    " Remove it if the model's architecture is one that transformers has built in."
                )


def _tokenizer_absent(names: frozenset[str]) -> ModelRefused:
    if "tokenizer.model" in names:
        return ModelRefused(
            f"{TOKENIZER} is missing; there is only a sentencepiece tokenizer.model. Convert it"
            " once with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        )
    return ModelRefused(
        f"{TOKENIZER} is missing. Fetch it, or make it once with transformers:"
        " AutoTokenizer.from_pretrained(…).save_pretrained(…)."
    )
