"""Reads from config.json whether a model's weights were quantized by us, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.engine.model.quantized import LAYOUT, QUANT_METHOD, QUANTIZATIONS
from appliance.errors import ModelRefused

if TYPE_CHECKING:
    from appliance.models.directory.json_file import JsonObject

CONFIG = "config.json"
FIELD = "quantization_config"


def read_quantization(config: JsonObject) -> str:
    """`none`, `int8` or `int4`; any other way of quantizing is refused."""
    for field in (FIELD, "compression_config"):
        value = config.get(field)
        is_ours = isinstance(value, dict) and value.get("quant_method") == QUANT_METHOD
        if value is not None and not (field == FIELD and is_ours):
            raise ModelRefused(
                f"The model is quantized ({field} in {CONFIG}) in a way that is not supported. Use"
                " the original in bfloat16, float16 or float32; `appliance quantize` can make it"
                " smaller."
            )
    value = config.get(FIELD)
    if not isinstance(value, dict):
        return "none"
    layout, weights = value.get("layout"), value.get("weights")
    if layout != LAYOUT or weights not in QUANTIZATIONS:
        raise ModelRefused(
            f"The model was quantized to {str(weights)[:40]!r} in layout {str(layout)[:40]!r}; this"
            f" release reads {' and '.join(QUANTIZATIONS)} in layout {LAYOUT}. Quantize the"
            " original again."
        )
    return str(weights)
