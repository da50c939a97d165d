"""Reads server-sent events, strictly."""

from __future__ import annotations

import json
from typing import Any

import httpx2


def read_events(response: httpx2.Response) -> list[Any]:
    """The parsed data of each event, and [DONE] as it is."""
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in response.headers
    *events, rest = response.text.split("\n\n")
    assert rest == ""
    data = []
    for event in events:
        assert event.startswith("data: ")
        assert "\n" not in event
        data.append(event.removeprefix("data: "))
    return [text if text == "[DONE]" else json.loads(text) for text in data]
