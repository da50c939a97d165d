"""Lists the faces of the API and puts them behind one router."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.api.http.edge import Edge
from appliance.api.http.face import Face
from appliance.api.http.router import Router
from appliance.api.http.state import ApplianceState
from appliance.api.native.face import NATIVE
from appliance.api.openai.face import OPENAI
from appliance.api.ops.face import OPS
from appliance.api.web.pages import WEB_FACE

FACES = (OPENAI, NATIVE, OPS, WEB_FACE)  # an unknown path gets the first one's error


def create_app(state: ApplianceState, faces: Sequence[Face] = FACES) -> Edge:
    """Return the application for `state`; it can answer /health before a model is loaded."""
    return Edge(Router(state, faces), state)
