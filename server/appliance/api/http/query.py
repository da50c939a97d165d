"""Reads the names and values of queries and forms into values for a model."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl

from appliance.errors import InvalidRequest

MAX_PARAMETERS = 100

Values = dict[str, str | list[str]]


def read_query(query: bytes) -> Values:
    """Return the parameters of a query string: texts, and lists where a name is repeated."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise InvalidRequest(
            f"The query must be UTF-8, percent-encoded, with at most {MAX_PARAMETERS} parameters."
        ) from None
    return gather(pairs)


def gather(pairs: Iterable[tuple[str, str]]) -> Values:
    """Collect values by name; `a[]=1` is a list, as some clients write one, and a repeated name."""
    values: Values = {}
    for written, value in pairs:
        name = written.removesuffix("[]")
        before = values.get(name)
        if isinstance(before, list):
            before.append(value)
        elif before is not None:
            values[name] = [before, value]
        else:
            values[name] = [value] if name != written else value
    return values
