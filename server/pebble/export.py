"""Writes the model directory that ships: weights, tokenizer, configuration and the model card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from pebble.corpus import BEGIN, END, Document
from pebble.held_out import held_out_losses
from pebble.llama import Llama, config_of, load_model, save_weights
from pebble.model_card import Measurements, Provenance, model_card
from pebble.tokenizer import PAD, token_id, write_tokenizer

EMBEDDED_DIRECTORY = Path(__file__).parent.parent / "appliance" / "embedded"


def export(
    model: Llama,
    tokenizer: Tokenizer,
    held_out: Sequence[Document],
    provenance: Provenance,
    directory: Path,
) -> None:
    """Writes every file but the chat template, which is source, not output."""
    directory.mkdir(parents=True, exist_ok=True)
    ids = {
        name: token_id(tokenizer, token)
        for name, token in (("bos_id", BEGIN), ("eos_id", END), ("pad_id", PAD))
    }
    _write_json(directory / "config.json", config_of(model.shape, **ids))
    generation = {
        "bos_token_id": ids["bos_id"],
        "eos_token_id": ids["eos_id"],
        "pad_token_id": ids["pad_id"],
    }
    _write_json(
        directory / "generation_config.json",
        generation | {"do_sample": True, "temperature": 0.7, "max_new_tokens": 400},
    )
    save_weights(model, directory / "model.safetensors")
    write_tokenizer(tokenizer, directory, max_context_tokens=model.shape.max_position_embeddings)
    # Measured on what ships: the rounded weights, not the trained ones.
    shipped = load_model(directory)
    measured = Measurements.of(
        shipped, tokenizer, held_out, held_out_losses(shipped, tokenizer, held_out), directory
    )
    (directory / "README.md").write_text(model_card(measured, provenance), encoding="utf-8")


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
