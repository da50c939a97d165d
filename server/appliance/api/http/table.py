"""The table of all routes: finds what answers a method on a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from appliance.api.http.face import Face
from appliance.api.http.route import Route

MAX_DIGITS = 19
KINDS = ("int", "str", "path")  # of parameters, the narrowest first

Parameters = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Handler:
    """A route and the face it belongs to."""

    route: Route
    face: Face


Handlers = dict[str, Handler]  # by method


@dataclass(frozen=True, slots=True)
class Found:
    """What answers, and the parameters that the path holds."""

    handler: Handler
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing answers: whose error it is, and the methods that this path has."""

    face: Face
    allowed: tuple[str, ...]


@dataclass(slots=True)
class Place:
    """What answers at one path, and what may follow; `face` is that of its first route."""

    face: Face
    handlers: Handlers = field(default_factory=dict)
    literals: dict[str, Place] = field(default_factory=dict)
    parameters: dict[tuple[str, str], Place] = field(default_factory=dict)  # by name and kind


class RouteTable:
    """Exact paths are looked up; templates are followed segment by segment. The narrowest template
    that fits answers; the order of the routes does not matter."""

    def __init__(self, faces: Sequence[Face]) -> None:
        self._root = Place(faces[0])
        self._exact: dict[str, Handlers] = {}
        for face in faces:
            for route in face.routes:
                self._add(route, face)

    def _add(self, route: Route, face: Face) -> None:
        place = self._root
        for segment in route.path.split("/")[1:]:
            if segment.startswith("{"):
                name, _, kind = segment[1:-1].partition(":")
                following = place.parameters.setdefault((name, kind or "str"), Place(face))
                place.parameters = dict(sorted(place.parameters.items(), key=_breadth))
                place = following
            else:
                place = place.literals.setdefault(segment, Place(face))
        if route.method in place.handlers:
            raise ValueError(f"{route.method} {route.path} has two routes")
        place.handlers[route.method] = Handler(route, face)
        if "{" not in route.path:
            self._exact[route.path] = place.handlers

    def find(self, method: str, path: str) -> Found | Missing:
        handler = self._exact.get(path, {}).get(method)
        if handler is not None:
            return Found(handler, {})
        segments = path.split("/")[1:]
        others: Handlers = {}
        for handlers, parameters in _matches(self._root, segments):
            if method in handlers:
                return Found(handlers[method], parameters)
            others = handlers | others
        if others:
            return Missing(next(iter(others.values())).face, tuple(sorted(others)))
        return Missing(self._nearest_face(segments), ())

    def _nearest_face(self, segments: Sequence[str]) -> Face:
        """The face of the longest path that is there."""
        place = self._root
        for segment in segments:
            following = place.literals.get(segment)
            if following is None:
                break
            place = following
        return place.face


def _matches(place: Place, segments: Sequence[str]) -> Iterator[tuple[Handlers, Parameters]]:
    if not segments:
        if place.handlers:
            yield place.handlers, {}
        return
    first, rest = segments[0], segments[1:]
    if (literal := place.literals.get(first)) is not None:
        yield from _matches(literal, rest)
    for (name, kind), following in place.parameters.items():
        value = parse_parameter("/".join(segments) if kind == "path" else first, kind)
        if value is not None:
            for handlers, parameters in _matches(following, () if kind == "path" else rest):
                yield handlers, {name: value, **parameters}


def _breadth(parameter: tuple[tuple[str, str], Place]) -> int:
    return KINDS.index(parameter[0][1])


def parse_parameter(text: str, kind: str) -> str | int | None:
    """None if it cannot be one of this kind; then the path is not that of the route."""
    if kind != "int":
        return text or None
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    return int(text) if is_number else None
