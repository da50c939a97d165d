"""The appliance's own face."""

from __future__ import annotations

from appliance.api.http.face import Face
from appliance.api.native import generate, tokens

NATIVE = Face(
    name="native",
    routes=(generate.GENERATE, tokens.TOKENIZE, tokens.DETOKENIZE),
    words={"max_total_tokens": "max_length"},
    tags=(
        {"name": "Native", "description": "A prompt in, its continuation out."},
        {"name": "Tokens", "description": "Text to token ids and back."},
    ),
)
