"""The face that clients of OpenAI's API know."""

from __future__ import annotations

from appliance.api.http.face import Face
from appliance.api.openai import chat, completions, embeddings, models

OPENAI = Face(
    name="openai",
    routes=(
        chat.CHAT,
        completions.COMPLETIONS,
        embeddings.EMBEDDINGS,
        models.LIST_MODELS,
        models.MODEL,
    ),
    words={"output": "response_format"},
    tags=({"name": "OpenAI", "description": "For clients that speak OpenAI's API."},),
)
