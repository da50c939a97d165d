"""Every request has one way to its endpoint: exact paths, templates, methods, queries, bodies."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from appliance.access.principal import Principal
from appliance.api.http.asgi import Scope
from appliance.api.http.face import Face
from appliance.api.http.gate import Gate, Visit
from appliance.api.http.request import Headers, Request
from appliance.api.http.response import JsonResponse, Response
from appliance.api.http.route import Route
from appliance.api.http.table import Found, Missing, RouteTable
from appliance.api.schema.fields import RequestModel
from appliance.errors import ContextLengthExceeded, InvalidRequest, NotReady
from appliance.serve.app import FACES
from tests.api.conftest import make_state
from tests.api.fake_service import FakeService
from tests.api.routed import client_of, detail, face, route

pytestmark = pytest.mark.anyio

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@pytest.mark.parametrize("method", METHODS)
async def test_a_path_answers_each_method_with_its_own_endpoint(method: str) -> None:
    routes = [route(each, "/things/{thing}") for each in METHODS]
    async with client_of(face(*routes)) as client:
        response = await client.request(method, "/things/a%20b")
    assert response.json() == {"endpoint": f"{method} /things/{{thing}}", "thing": "a b"}


TEMPLATES = face(
    route("GET", "/things"),
    route("GET", "/things/new"),
    route("DELETE", "/things/{thing}"),
    route("GET", "/things/{thing}"),
    route("GET", "/things/{thing}/parts/{name}"),
    route("GET", "/things/{thing}/parts/{number:int}"),
    route("GET", "/models/{model:path}"),
    route("GET", "/models/{model}/card"),
)


@pytest.mark.parametrize(
    ("path", "endpoint", "parameters"),
    [
        ("/things", "GET /things", {}),
        ("/things/new", "GET /things/new", {}),
        ("/things/old", "GET /things/{thing}", {"thing": "old"}),
        (
            "/things/a/parts/7",
            "GET /things/{thing}/parts/{number:int}",
            {"thing": "a", "number": 7},
        ),
        ("/things/a/parts/x", "GET /things/{thing}/parts/{name}", {"thing": "a", "name": "x"}),
        ("/things/new/parts/x", "GET /things/{thing}/parts/{name}", {"thing": "new", "name": "x"}),
        ("/models/a", "GET /models/{model:path}", {"model": "a"}),
        ("/models/a/b::c", "GET /models/{model:path}", {"model": "a/b::c"}),
        ("/models/a/card", "GET /models/{model}/card", {"model": "a"}),
        ("/models/a%2Fb", "GET /models/{model:path}", {"model": "a/b"}),
    ],
)
async def test_the_most_literal_template_that_fits_answers(
    path: str, endpoint: str, parameters: dict[str, Any]
) -> None:
    async with client_of(TEMPLATES) as client:
        response = await client.get(path)
    assert response.json() == {"endpoint": endpoint, **parameters}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/thing",
        "/things/",
        "/things//parts/1",
        "/things/a/parts",
        "/things/a/parts/",
        "/models",
    ],
)
async def test_a_path_that_fits_nothing_is_not_found_and_redirects_nowhere(path: str) -> None:
    async with client_of(TEMPLATES) as client:
        response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("number", ["-1", "+1", "1.0", "٣", "1" * 20, "0x1", " 1"])
async def test_what_is_no_plain_number_is_no_number(number: str) -> None:
    async with client_of(face(route("GET", "/parts/{number:int}"))) as client:
        response = await client.get(f"/parts/{number}")
    assert response.status_code == 404


async def test_a_literal_path_without_the_method_leaves_it_to_a_template() -> None:
    async with client_of(TEMPLATES) as client:
        response = await client.delete("/things/new")
        assert response.json() == {"endpoint": "DELETE /things/{thing}", "thing": "new"}
        refused = await client.patch("/things/new")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET")


def test_no_method_of_a_path_can_have_two_routes() -> None:
    with pytest.raises(ValueError, match=r"POST /a/\{b\} has two routes"):
        RouteTable([face(route("POST", "/a/{b}")), face(route("POST", "/a/{b}"), name="other")])


def test_finding_a_route_takes_as_long_as_the_template_and_not_the_path() -> None:
    table = RouteTable([TEMPLATES])
    assert isinstance(table.find("GET", "/a" * 30_000), Missing)
    found = table.find("GET", "/models" + "/a" * 30_000)
    assert isinstance(found, Found)
    assert found.parameters == {"model": "/".join("a" * 30_000)}


async def test_an_unknown_path_gets_the_error_of_the_face_that_it_is_near_to() -> None:
    other = Face(name="other", routes=[route("GET", "/v2/things/{thing}")], write_error=detail)
    async with client_of(TEMPLATES, other) as client:
        assert (await client.get("/v2/things")).json()["detail"].startswith("No such path")
        assert (await client.get("/v2/nothing")).json()["where"] is None
        assert (
            (await client.put("/v2/things/a")).json()["detail"].startswith("This path answers GET")
        )
        assert (await client.get("/v3")).json()["error"]["code"] == "not_found"


async def fail(request: Request) -> Response:
    raise ContextLengthExceeded(
        "`prompt` and `max_new_tokens` are too much; `other` is not.", field="prompt"
    )


async def test_a_domains_error_says_the_words_of_the_route_and_then_of_the_face() -> None:
    routes = [
        Route(method="GET", path="/a", endpoint=fail),
        Route(method="GET", path="/b", endpoint=fail, words={"prompt": "input"}),
    ]
    words = {"prompt": "text", "max_new_tokens": "length"}
    shaped = Face(name="a", routes=routes, words=words, write_error=detail)
    async with client_of(shaped) as client:
        first, second = (await client.get("/a")).json(), (await client.get("/b")).json()
    assert first == {
        "detail": "`text` and `length` are too much; `other` is not.",
        "where": "text",
    }
    assert second == {
        "detail": "`input` and `length` are too much; `other` is not.",
        "where": "input",
    }


async def test_a_clients_own_words_are_not_translated() -> None:
    async def refuse(request: Request) -> Response:
        raise InvalidRequest("`prompt` is too much.", param="prompt")

    routes = [Route(method="GET", path="/a", endpoint=refuse)]
    async with client_of(Face(name="a", routes=routes, words={"prompt": "text"})) as client:
        error = (await client.get("/a")).json()["error"]
    assert (error["message"], error["param"]) == ("`prompt` is too much.", "prompt")


async def test_what_nobody_expected_has_the_shape_of_the_face() -> None:
    async def break_down(request: Request) -> Response:
        raise RuntimeError("secret")

    routes = [Route(method="GET", path="/a", endpoint=break_down)]
    async with client_of(Face(name="a", routes=routes, write_error=detail)) as client:
        response = await client.get("/a")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert set(response.json()) == {"detail", "where"}


class Page(RequestModel):
    """What part of a list."""

    model_config = ConfigDict(strict=False)

    limit: int = 20
    order: str = "desc"
    include: Annotated[list[str], Field(default_factory=list)]


async def list_page(query: Page, request: Request) -> Response:
    return JsonResponse(query.model_dump())


PAGED = face(Route(method="GET", path="/a", endpoint=list_page, query=Page), route("GET", "/b"))


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("", {}),
        ("?limit=3&order=asc", {"limit": 3, "order": "asc"}),
        ("?include=a&include=b", {"include": ["a", "b"]}),
        ("?include[]=a", {"include": ["a"]}),
        ("?include%5B%5D=a&include%5B%5D=b", {"include": ["a", "b"]}),
        ("?order=%C3%A9+%2B", {"order": "é +"}),
    ],
)
async def test_a_query_is_read_into_its_model(query: str, page: dict[str, Any]) -> None:
    async with client_of(PAGED) as client:
        response = await client.get(f"/a{query}")
    assert response.json() == {"limit": 20, "order": "desc", "include": [], **page}


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limits=3", "limits", "unsupported_parameter"),
        ("limit=three", "limit", "invalid_type"),
        ("limit=1&limit=2", "limit", "invalid_type"),
        ("order=%FF", None, "invalid_value"),
        ("&".join(f"include={n}" for n in range(101)), None, "invalid_value"),
    ],
)
async def test_a_query_that_does_not_fit_is_refused_by_name(
    query: str, param: str | None, code: str
) -> None:
    async with client_of(PAGED) as client:
        response = await client.get(f"/a?{query}")
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)


async def test_a_route_without_a_query_ignores_it() -> None:
    async with client_of(PAGED) as client:
        assert (await client.get("/b?limit=x&%FF")).json() == {"endpoint": "GET /b"}


class Thing(BaseModel):
    """Something to make."""

    model_config = ConfigDict(extra="forbid")

    name: str = "nameless"


async def make_thing(body: Thing, request: Request) -> Response:
    return JsonResponse({"name": body.name})


def making(*, allows_empty: bool) -> Face:
    made = Route(
        method="POST", path="/a", endpoint=make_thing, body=Thing, allows_empty=allows_empty
    )
    return face(made)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}])
async def test_a_body_may_be_left_out_where_the_route_says_so(headers: dict[str, str]) -> None:
    async with client_of(making(allows_empty=True)) as client:
        response = await client.post("/a", headers=headers)
        assert response.json() == {"name": "nameless"}
        assert (await client.post("/a", json={"name": "b"})).json() == {"name": "b"}
        assert (await client.post("/a", content=b"name=b")).status_code == 415
    async with client_of(making(allows_empty=False)) as client:
        assert (await client.post("/a", headers=headers)).status_code in (400, 415)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("content", [b"", b"{", b"x" * 300_000])
async def test_a_body_that_no_endpoint_takes_is_never_read(method: str, content: bytes) -> None:
    async with client_of(face(route(method, "/a"))) as client:
        response = await client.request(method, "/a", content=content)
    assert response.json() == {"endpoint": f"{method} /a"}


class Doorkeeper(Gate):
    """Lets in who sends any name at all."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bool, str]] = []

    async def enter(self, scope: Scope, headers: Headers, route: Route | None) -> Visit:
        assert route is not None
        name = headers.get("authorization")
        self.asked.append((route.is_public, name))
        if not route.is_public and not name:
            raise NotReady("Who are you?")
        scope["visit"] = Visit(Principal(name=name, origin="key", cache_salt=b""))
        return scope["visit"]  # type: ignore[no-any-return]


async def test_who_asks_is_known_before_anything_of_the_request_is_read() -> None:
    state = make_state(FakeService())
    state.gate = gate = Doorkeeper()

    async def tell(request: Request) -> Response:
        return JsonResponse(request.visit.principal.name)

    routes = [
        Route(method="GET", path="/open", endpoint=tell, is_public=True),
        Route(method="POST", path="/closed", endpoint=make_thing, body=Thing),
        Route(method="GET", path="/who", endpoint=tell),
    ]
    async with client_of(face(*routes), state=state) as client:
        assert (await client.get("/open")).json() == ""
        assert (await client.post("/closed", content=b"{")).status_code == 503
        assert (await client.get("/who", headers={"Authorization": "me"})).json() == "me"
    assert gate.asked == [(True, ""), (False, ""), (False, "me")]


def test_only_probes_answer_without_asking_who_it_is() -> None:
    public = {route.path for each in FACES for route in each.routes if route.is_public}
    assert public == {"/health", "/readyz", "/livez"}


def test_two_routes_never_share_an_operations_name() -> None:
    names = [
        route.endpoint.__name__ for each in FACES for route in each.routes if route.is_described
    ]
    assert len(names) == len(set(names))
