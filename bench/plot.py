"""Records as pictures: one SVG a metric, a group of bars for each model and precision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from bench.goals import ARITHMETIC_LIMIT, FIXED, MEMORY_LIMIT
from bench.summary import OURS, Record
from bench.table import quantity

TITLES = {
    "decode_tokens_per_s": "Decode, one sequence: tokens a second (longer is better)",
    "prefill_tokens_per_s": "Reading a prompt of 512: tokens a second (longer is better)",
    "throughput_tokens_per_s": "Under load, 64 in and 64 out: tokens a second (longer is better)",
    "ttft_p99_s": "Under load: time to first token, 99th percentile (shorter is better)",
    "itl_p99_s": "Under load: gap between tokens, 99th percentile (shorter is better)",
    "start_to_first_token_s": "From process start to first token (shorter is better)",
    "peak_memory_bytes": "Peak memory of the process tree (shorter is better)",
}
WIDTH, LABEL_WIDTH, BAR_WIDTH = 860, 300, 420
BAR_HEIGHT, BAR_GAP, GROUP_GAP, TOP = 16, 4, 30, 56
COLOURS = {"ours": "#1a7f5a", "peer": "#9aa7b4", "limit": "#e3e7eb"}
NOT_PEERS = (MEMORY_LIMIT, ARITHMETIC_LIMIT, FIXED)

Bar = tuple[str, str, float, str]  # name, colour, value, value as text


def draw_all(records: Sequence[Record], folder: Path) -> list[Path]:
    """A picture of each metric that has figures."""
    written = []
    for metric, title in TITLES.items():
        groups = dict(_groups([record for record in records if record["metric"] == metric]))
        if groups:
            path = folder / f"{metric}.svg"
            path.write_text(draw(title, groups), encoding="utf-8")
            written.append(path)
    return written


def _groups(records: Sequence[Record]) -> Iterator[tuple[str, list[Bar]]]:
    by_place: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        place = f"{record['model']}, {record['precision']}"
        if record["concurrency"] is not None:
            place += f", {record['concurrency']} at a time"
        by_place[place].append(record)
    for place, group in by_place.items():
        bars = []
        for record in group:
            bar = _bar(record, OURS, "ours", "ours")
            if bar is not None and bar not in bars:
                bars.append(bar)
        for record in group:
            name = str(record["peer_name"])
            bar = _bar(record, name, "peer", "limit" if name in NOT_PEERS else "peer")
            bars += [bar] if bar is not None else []
        if bars:
            yield place, bars


def _bar(record: Record, name: str, figure: str, colour: str) -> Bar | None:
    value = record[figure]
    if not isinstance(value, float | int):
        return None
    return name, COLOURS[colour], float(value), quantity(record, figure)


def draw(title: str, groups: dict[str, list[Bar]]) -> str:
    """Bars to the scale of their own group: models of very different sizes share a picture."""
    parts, y = [_text(16, 30, title, size=17, weight="bold")], TOP
    for place, bars in groups.items():
        parts.append(_text(16, y + 12, place, weight="bold"))
        y += 20
        longest = max(value for _, _, value, _ in bars)
        for name, colour, value, shown in bars:
            width = max(BAR_WIDTH * value / longest, 1) if longest else 1
            parts.append(_text(LABEL_WIDTH - 8, y + 12, name, anchor="end"))
            parts.append(
                f'<rect x="{LABEL_WIDTH}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}"'
                f' fill="{colour}"/>'
            )
            parts.append(_text(LABEL_WIDTH + width + 6, y + 12, shown))
            y += BAR_HEIGHT + BAR_GAP
        y += GROUP_GAP - BAR_GAP
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}"'
        f' viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>\n{body}\n</svg>\n'
    )


def _text(
    x: float, y: float, text: str, *, size: int = 13, weight: str = "normal", anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )
