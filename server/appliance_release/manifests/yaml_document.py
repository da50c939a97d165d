"""Reads YAML as plain data, with the line of every value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from appliance.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]

MAX_BYTES = 4_000_000
MAX_DEPTH = 60
MAPPING = "tag:yaml.org,2002:map"
SEQUENCE = "tag:yaml.org,2002:seq"


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: its value, and the line of each value in it."""

    value: object
    lines: dict[Path, int]

    def line_of(self, path: Path) -> int:
        """Returns the line of the value at a path, or of the nearest value around it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


class _Reader(yaml.SafeLoader):
    """A YAML reader that knows the tags of plain data alone."""


def read_documents(text: str, source: str) -> list[Document]:
    """Yields every document that is not empty; a ReleaseError names `source` and the line."""
    if len(text) > MAX_BYTES:
        raise ReleaseError(
            f"{source} has {len(text)} characters; a manifest has {MAX_BYTES} at most."
        )
    try:
        return list(_documents(_Reader(text), source))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = source if mark is None else f"{source}:{mark.line + 1}"
        problem = getattr(error, "problem", None) or "unreadable"
        raise ReleaseError(f"{where}: this is not YAML: {problem}.") from None
    except RecursionError:
        raise ReleaseError(f"{source}: values are nested deeper than {MAX_DEPTH}.") from None


def _documents(reader: _Reader, source: str) -> Iterator[Document]:
    while reader.check_node():
        node = reader.get_node()
        if node is None:
            continue
        walk = _Walk(reader, source)
        value = walk.read(node, ())
        if value is not None:
            yield Document(value, walk.lines)


class _Walk:
    """A walk over one document that turns nodes into values."""

    def __init__(self, reader: _Reader, source: str) -> None:
        self.lines: dict[Path, int] = {}
        self._reader = reader
        self._source = source
        self._seen: set[int] = set()

    def read(self, node: yaml.Node, path: Path) -> object:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if id(node) in self._seen or len(path) > MAX_DEPTH:
            raise ReleaseError(
                f"{self._source}:{line}: anchors and values nested deeper than {MAX_DEPTH} are not "
                "read here. Write the value out."
            )
        self._seen.add(id(node))
        if node.tag == MAPPING and isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, path)
        if node.tag == SEQUENCE and isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode):
            raise ReleaseError(f"{self._source}:{line}: the tag {node.tag} is not read here.")
        return self._reader.construct_object(node)

    def _read_mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
                raise ReleaseError(f"{self._source}:{line}: a key here is not a plain word.")
            key = str(key_node.value)
            if key in found:
                raise ReleaseError(
                    f"{self._source}:{line}: {key!r} comes a second time here; the first would be "
                    "lost. Remove one."
                )
            self.lines[(*path, key)] = line
            found[key] = self.read(value_node, (*path, key))
        return found
