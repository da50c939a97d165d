"""Says what a model's tokenizer files say: its token ids, special tokens and chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ModelRefused
from appliance.models.directory.inventory import CHAT_TEMPLATE, TOKENIZER, TOKENIZER_CONFIG
from appliance.models.directory.json_file import read_bytes, read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from appliance.models.directory.inventory import Inventory
    from appliance.models.directory.json_file import JsonObject

MAX_TOKENIZER_BYTES = 128_000_000
MAX_TEMPLATE_BYTES = 1_000_000
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """What the tokenizer needs to be told besides tokenizer.json itself."""

    num_tokens: int  # the largest token id plus one
    special_tokens: Mapping[str, str]
    bos_token_id: int | None
    eos_token_id: int | None
    add_bos_token: bool
    chat_template: str | None


def read_tokenizer_files(inventory: Inventory) -> TokenizerFiles:
    tokenizer = read_json_object(inventory.files["tokenizer"], max_bytes=MAX_TOKENIZER_BYTES)
    settings = inventory.read_object("tokenizer_config")
    ids = _token_ids(tokenizer)
    special = _special_tokens(settings, inventory.read_object("special_tokens_map"))
    bos = special.get("bos_token")
    return TokenizerFiles(
        num_tokens=max(ids.values()) + 1,
        special_tokens=special,
        bos_token_id=ids.get(bos) if bos is not None else None,
        eos_token_id=ids.get(special["eos_token"]) if "eos_token" in special else None,
        add_bos_token=bos in ids and _adds_bos(settings, tokenizer, bos),
        chat_template=_chat_template(inventory.files.get("chat_template"), settings),
    )


def _token_ids(tokenizer: JsonObject) -> dict[str, int]:
    """Every token and its id, added tokens included."""
    model = tokenizer.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    ids: dict[str, object] = {}
    if isinstance(vocab, dict):
        ids.update(vocab)
    elif isinstance(vocab, list):  # Unigram: [token, score], in the order of ids
        ids.update({_listed_token(entry): index for index, entry in enumerate(vocab)})
    else:
        raise ModelRefused(f"{TOKENIZER} has no model with a vocab; it is not a whole tokenizer.")
    added = tokenizer.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise ModelRefused(f"{TOKENIZER} has an added token without content and id.")
        ids[token["content"]] = token.get("id")
    if not ids:
        raise ModelRefused(f"{TOKENIZER} has an empty vocabulary.")
    return {token: _checked_id(token, token_id) for token, token_id in ids.items()}


def _listed_token(entry: object) -> str:
    if not isinstance(entry, list) or not entry or not isinstance(entry[0], str):
        raise ModelRefused(f"{TOKENIZER} has a vocab entry that is not [token, score].")
    return entry[0]


def _checked_id(token: str, token_id: object) -> int:
    if type(token_id) is not int or not 0 <= token_id < 2**31:
        shown = repr(token_id)[:40]
        raise ModelRefused(f"{TOKENIZER} gives {token[:80]!r} the id {shown}; that is no token id.")
    return token_id


def _special_tokens(settings: JsonObject, fallback: JsonObject) -> dict[str, str]:
    """As strings. What tokenizer_config.json says wins, also when it says null."""
    found: dict[str, str] = {}
    for name in SPECIAL_TOKENS:
        value = settings[name] if name in settings else fallback.get(name)
        if isinstance(value, dict):  # an AddedToken, written out
            value = value.get("content")
        if value is None:
            continue
        if not isinstance(value, str):
            raise ModelRefused(f"{name} in {TOKENIZER_CONFIG} must be a string.")
        found[name] = value
    return found


def _adds_bos(settings: JsonObject, tokenizer: JsonObject, bos: str | None) -> bool:
    """What tokenizer_config.json says; when it is silent, what tokenizer.json's template does."""
    chosen = settings.get("add_bos_token")
    if chosen is None:
        return _begins_with_special(tokenizer.get("post_processor"), bos)
    if not isinstance(chosen, bool):
        raise ModelRefused(f"add_bos_token in {TOKENIZER_CONFIG} must be true or false.")
    return chosen


def _begins_with_special(processor: object, token: str | None) -> bool:
    if not isinstance(processor, dict):
        return False
    nested = processor.get("processors")
    steps = [processor, *(nested if isinstance(nested, list) else [])]
    templates = [step.get("single") for step in steps if isinstance(step, dict)]
    firsts = [template[0] for template in templates if isinstance(template, list) and template]
    specials = [first.get("SpecialToken") for first in firsts if isinstance(first, dict)]
    return any(isinstance(special, dict) and special.get("id") == token for special in specials)


def _chat_template(path: Path | None, settings: JsonObject) -> str | None:
    """The template's source: chat_template.jinja, else the string or the `default` of the list."""
    if path is not None:
        content = read_bytes(path, max_bytes=MAX_TEMPLATE_BYTES)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise ModelRefused(f"{CHAT_TEMPLATE} is not UTF-8 text.") from None
    value = settings.get("chat_template")
    if isinstance(value, list):
        value = _named_templates(value).get("default")
    if value is not None and not isinstance(value, str):
        raise _malformed_template()
    if value is not None and len(value) > MAX_TEMPLATE_BYTES:
        raise ModelRefused(
            f"chat_template in {TOKENIZER_CONFIG} is {len(value):,} characters long; at most"
            f" {MAX_TEMPLATE_BYTES:,} are allowed."
        )
    return value


def _named_templates(entries: list[object]) -> dict[object, object]:
    named: dict[object, object] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise _malformed_template()
        named[entry["name"]] = entry.get("template")
    return named


def _malformed_template() -> ModelRefused:
    return ModelRefused(
        f"chat_template in {TOKENIZER_CONFIG} must be a string or a list of objects with name and"
        " template."
    )
