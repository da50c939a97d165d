"""What a scenario tells whoever watches: figures that no assertion holds."""

from __future__ import annotations


def say(text: str) -> None:
    print(f"\n{text}", flush=True)
