"""With keys on, nothing but probes answers without one, and a key does what its entry says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from appliance.access.grant import EVERYTHING
from appliance.access.secret import new_secret
from appliance.api.http.gate import duration
from appliance.serve.app import FACES
from tests.api.conftest import MODEL, WAIT_S
from tests.api.fake_service import say
from tests.api.guarded import Guarded, guarded_server

ROUTES = [(route.method, route.path) for face in FACES for route in face.routes]
PUBLIC = {"/health", "/livez", "/readyz"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_server(tmp_path_factory.mktemp("keys")) as guarded:
        yield guarded


@pytest.fixture
def guarded(shared: Guarded) -> Guarded:
    shared.service.reset()
    return shared


class Entries:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.found: list[Mapping[str, object]] = []
        self.came = threading.Event()

    def add(self, facts: Mapping[str, object]) -> None:
        self.found.append(facts)
        self.came.set()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def filled(path: str) -> str:
    """A path that fits a template."""
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{m} {p}" for m, p in ROUTES])
def test_every_route_wants_a_key_but_the_probes(guarded: Guarded, method: str, path: str) -> None:
    answer = httpx2.request(method, guarded.url + filled(path), json={})
    if path in PUBLIC:
        assert answer.status_code == 200
        return
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/web/../v1/models", "//v1/models"])
def test_a_path_that_is_not_there_is_no_more_open(guarded: Guarded, path: str) -> None:
    assert httpx2.get(guarded.url + path).status_code == 401
    assert httpx2.delete(guarded.url + "/v1/chat/completions").status_code == 401


def test_a_key_opens_every_route(guarded: Guarded) -> None:
    headers = bearer(guarded.new_key("all-routes"))
    for method, path in ROUTES:
        answer = httpx2.request(method, guarded.url + filled(path), json={}, headers=headers)
        assert answer.status_code not in (401, 403, 500), path


GOOD = new_secret()


def as_basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


HOSTILE: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "no header": lambda key, other: {},
    "an empty header": lambda key, other: {"headers": {"Authorization": ""}},
    "the scheme alone": lambda key, other: {"headers": {"Authorization": "Bearer"}},
    "the key alone": lambda key, other: {"headers": {"Authorization": key}},
    "truncated": lambda key, other: {"headers": bearer(key[:-1])},
    "truncated to half": lambda key, other: {"headers": bearer(key[:30])},
    "its beginning": lambda key, other: {"headers": bearer(key[:3])},
    "without its prefix": lambda key, other: {"headers": bearer(key[3:])},
    "longer by a letter": lambda key, other: {"headers": bearer(key + "a")},
    "twice": lambda key, other: {"headers": bearer(key + key)},
    "two with a comma": lambda key, other: {"headers": bearer(f"{key}, {other}")},
    "in upper case": lambda key, other: {"headers": bearer(key.upper())},
    "one letter in upper case": lambda key, other: {"headers": bearer(swap_case(key))},
    "one letter changed": lambda key, other: {"headers": bearer(change(key, 20))},
    "its checksum changed": lambda key, other: {"headers": bearer(change(key, -1))},
    "one key's half and another's": lambda key, other: {"headers": bearer(key[:30] + other[30:])},
    "another's prefix": lambda key, other: {"headers": bearer(other[:40])},
    "one that was never made": lambda key, other: {"headers": bearer(GOOD)},
    "its hash": lambda key, other: {"headers": bearer(hashlib.sha256(key.encode()).hexdigest())},
    "its hash as a key": lambda key, other: {
        "headers": bearer("ap-" + hashlib.sha256(key.encode()).hexdigest())
    },
    "a space before it": lambda key, other: {"headers": {"Authorization": f"Bearer  {key}"}},
    "a tab before it": lambda key, other: {"headers": {"Authorization": f"Bearer\t{key}"}},
    "a space in it": lambda key, other: {"headers": bearer(f"{key[:9]} {key[9:]}")},
    "in quotes": lambda key, other: {"headers": bearer(f'"{key}"')},
    "in brackets": lambda key, other: {"headers": bearer(f"<{key}>")},
    "with a line end in percent": lambda key, other: {"headers": bearer(f"{key}%0a")},
    "unicode after it": lambda key, other: {
        "headers": [(b"Authorization", f"Bearer {key}é".encode())]
    },
    "a look-alike letter": lambda key, other: {
        "headers": [(b"Authorization", f"Bearer {key[:9]}\u0430{key[10:]}".encode())]
    },
    "full-width letters": lambda key, other: {
        "headers": [(b"Authorization", f"Bearer \uff41\uff50-{key[3:]}".encode())]
    },
    "very long": lambda key, other: {"headers": bearer(key * 200)},
    "another scheme": lambda key, other: {"headers": {"Authorization": f"Token {key}"}},
    "a digest": lambda key, other: {
        "headers": {"Authorization": f'Digest username="x", response="{key}"'}
    },
    "as a user's name": lambda key, other: {"headers": {"Authorization": as_basic(f"{key}:")}},
    "Basic that is not base64": lambda key, other: {"headers": {"Authorization": f"Basic x:{key}"}},
    "Basic without a colon": lambda key, other: {"headers": {"Authorization": as_basic(key)}},
    "two headers": lambda key, other: {
        "headers": [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")]
    },
    "two headers, one wrong": lambda key, other: {
        "headers": [("Authorization", "Bearer x"), ("Authorization", f"Bearer {key}")]
    },
    "in the query": lambda key, other: {"params": {"api_key": key}},
    "in the query as a token": lambda key, other: {"params": {"access_token": key}},
    "in another header": lambda key, other: {"headers": {"X-API-Key": key}},
    "in Azure's header": lambda key, other: {"headers": {"api-key": key}},
    "for a proxy": lambda key, other: {"headers": {"Proxy-Authorization": f"Bearer {key}"}},
    "in a cookie": lambda key, other: {"headers": {"Cookie": f"Authorization=Bearer {key}"}},
    "in the body": lambda key, other: {"json": {**CHAT, "api_key": key}},
    "for the pages, by another site": lambda key, other: {
        "headers": {"Authorization": as_basic(f"x:{key}"), "Sec-Fetch-Site": "cross-site"}
    },
    "for the pages, from another origin": lambda key, other: {
        "headers": {"Authorization": as_basic(f"x:{key}"), "Origin": "https://evil.example"}
    },
}


def swap_case(key: str) -> str:
    index = next(index for index, letter in enumerate(key) if index > 3 and letter.isalpha())
    return key[:index] + key[index].upper() + key[index + 1 :]


def change(key: str, index: int) -> str:
    letters = list(key)
    letters[index] = "a" if letters[index] != "a" else "b"
    return "".join(letters)


@pytest.fixture(scope="module")
def two_keys(shared: Guarded) -> tuple[str, str]:
    return shared.new_key("victim"), shared.new_key("other")


def test_there_are_forty_hostile_uses() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("use", HOSTILE)
def test_a_hostile_use_of_a_key_is_refused(
    guarded: Guarded, two_keys: tuple[str, str], use: str
) -> None:
    arguments = {"json": CHAT, **HOSTILE[use](*two_keys)}
    answer = httpx2.post(f"{guarded.url}/v1/chat/completions", **arguments)
    assert answer.status_code == 401
    assert guarded.service.requests == []
    for key in two_keys:
        assert key not in answer.text


def test_a_scheme_may_be_written_in_any_case(guarded: Guarded) -> None:
    headers = {"Authorization": f"bearer {guarded.new_key('lower')}"}
    assert httpx2.get(f"{guarded.url}/v1/models", headers=headers).status_code == 200


def test_an_expired_key_is_refused(guarded: Guarded) -> None:
    secret, _ = guarded.file.add(
        "brief", expires=datetime.now(UTC) + timedelta(milliseconds=300), grant=EVERYTHING
    )
    guarded.control.refresh()
    deadline = datetime.now(UTC) + timedelta(seconds=WAIT_S)
    while httpx2.get(f"{guarded.url}/v1/key", headers=bearer(secret)).status_code == 200:
        assert datetime.now(UTC) < deadline
    assert httpx2.get(f"{guarded.url}/v1/key", headers=bearer(secret)).status_code == 401


def test_a_revoked_key_is_refused(guarded: Guarded) -> None:
    secret = guarded.new_key("gone")
    assert httpx2.get(f"{guarded.url}/v1/key", headers=bearer(secret)).status_code == 200
    guarded.revoke("gone")
    assert httpx2.get(f"{guarded.url}/v1/key", headers=bearer(secret)).status_code == 401


def test_a_stream_ends_with_an_error_when_its_key_is_revoked(guarded: Guarded) -> None:
    guarded.service.hold = True
    secret = guarded.new_key("streaming")
    body = {**CHAT, "stream": True}
    with httpx2.stream(
        "POST", f"{guarded.url}/v1/chat/completions", json=body, headers=bearer(secret),
        timeout=WAIT_S,
    ) as answer:  # fmt: skip
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        guarded.revoke("streaming")
        loop = guarded.service.streams[0].loop
        loop.call_soon_threadsafe(guarded.control.end_revoked)
        events = [line for line in lines if line]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "invalid_api_key"
    assert guarded.service.has_closed.wait(WAIT_S)


def test_a_browser_gets_the_pages_with_the_key_as_a_password(guarded: Guarded) -> None:
    headers = {
        "Authorization": as_basic(f"anyone:{guarded.new_key('browser')}"),
        "Origin": guarded.url,
        "Sec-Fetch-Site": "same-origin",
    }
    challenges = httpx2.get(guarded.url).headers.get_list("WWW-Authenticate")
    assert [each.split()[0] for each in challenges] == ["Bearer", "Basic"]
    assert "<html" in httpx2.get(guarded.url, headers=headers).text
    assert httpx2.post(f"{guarded.url}/generate", json={"prompt": "a"}, headers=headers).is_success


def test_a_model_that_a_key_may_not_use_does_not_exist_for_it(guarded: Guarded) -> None:
    headers = bearer(guarded.new_key("elsewhere", models=["another"]))
    assert httpx2.get(f"{guarded.url}/v1/models", headers=headers).json()["data"] == []
    assert httpx2.get(f"{guarded.url}/v1/models/{MODEL}", headers=headers).status_code == 404
    for body in (CHAT, {**CHAT, "model": "nothing"}):
        answer = httpx2.post(f"{guarded.url}/v1/chat/completions", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert MODEL not in answer.text
    answer = httpx2.post(f"{guarded.url}/generate", json={"prompt": "a"}, headers=headers)
    assert answer.status_code == 404
    assert MODEL not in httpx2.get(f"{guarded.url}/version", headers=headers).text


def test_the_service_is_told_who_asks(guarded: Guarded) -> None:
    headers = bearer(guarded.new_key("teller", priority=7))
    httpx2.post(f"{guarded.url}/v1/chat/completions", json=CHAT, headers=headers)
    (request,) = guarded.service.requests
    assert (request.owner, request.priority) == ("key:teller", 7)
    assert request.account is not None


def test_two_keys_share_no_cache_and_one_key_its_own(guarded: Guarded) -> None:
    keys = [guarded.new_key(name) for name in ("cache-a", "cache-b")]
    for key in (*keys, keys[0]):
        httpx2.post(f"{guarded.url}/generate", json={"prompt": "a"}, headers=bearer(key))
    first, second, again = (request.cache_salt for request in guarded.service.requests)
    assert (first == again, first == second) == (True, False)


def test_a_caller_is_told_what_is_left(guarded: Guarded) -> None:
    headers = bearer(guarded.new_key("asker", requests_per_minute=10, tokens_per_minute=1000))
    httpx2.post(f"{guarded.url}/v1/chat/completions", json=CHAT, headers=headers)
    answer = httpx2.get(f"{guarded.url}/v1/key", headers=headers).json()
    assert (answer["name"], answer["origin"], answer["expires"]) == ("asker", "key", None)
    assert (answer["requests"]["limit"], answer["requests"]["remaining"]) == (10, 9)
    usage = 5 + 3  # of the fake service
    assert 1000 - usage <= answer["tokens"]["remaining"] < 1000


def test_without_access_control_the_caller_is_anonymous(http: httpx2.Client) -> None:
    answer = http.get("/v1/key").json()
    assert (answer["name"], answer["requests"], answer["models"]) == ("anonymous", None, None)


LIMIT_HEADERS = [
    f"x-ratelimit-{part}-{of}"
    for of in ("requests", "tokens")
    for part in ("limit", "remaining", "reset")
]


@pytest.mark.parametrize("stream", [False, True])
def test_answers_carry_openais_six_headers(guarded: Guarded, stream: bool) -> None:
    name = f"six-{stream}"
    headers = bearer(guarded.new_key(name, requests_per_minute=6, tokens_per_minute=600))
    answer = httpx2.post(
        f"{guarded.url}/v1/chat/completions", json={**CHAT, "stream": stream}, headers=headers
    )
    assert [answer.headers[each] for each in LIMIT_HEADERS[:2]] == ["6", "5"]
    assert answer.headers["x-ratelimit-limit-tokens"] == "600"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 600
    assert answer.headers["x-ratelimit-reset-requests"].endswith("s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.012, "12ms"), (1, "1s"), (7.664, "7.66s"), (59.99, "59.99s"), (60, "1m0s"),
     (360, "6m0s")],
)  # fmt: skip
def test_times_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_beyond_the_requests_of_a_minute_is_429_with_the_time_to_wait(guarded: Guarded) -> None:
    headers = bearer(guarded.new_key("often", requests_per_minute=2))
    url = f"{guarded.url}/v1/chat/completions"
    statuses = [httpx2.post(url, json=CHAT, headers=headers).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    answer = httpx2.post(url, json=CHAT, headers=headers)
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
    assert 25 <= int(answer.headers["Retry-After"]) <= 30
    assert httpx2.get(f"{guarded.url}/v1/models", headers=headers).status_code == 200


def test_more_tokens_than_ever_fit_is_a_quota_that_no_retry_helps(guarded: Guarded) -> None:
    headers = bearer(guarded.new_key("small", tokens_per_minute=20))
    body = {**CHAT, "max_tokens": 16}
    answer = httpx2.post(f"{guarded.url}/v1/chat/completions", json=body, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (429, "insufficient_quota")
    assert (answer.headers["X-Should-Retry"], answer.headers["Retry-After"]) == ("false", "60")


def test_answers_at_the_same_time_are_bounded(guarded: Guarded) -> None:
    guarded.service.hold = True
    headers = bearer(guarded.new_key("parallel", concurrent=1))
    url = f"{guarded.url}/v1/chat/completions"
    with httpx2.stream(
        "POST", url, json={**CHAT, "stream": True}, headers=headers, timeout=WAIT_S
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        refused = httpx2.post(url, json=CHAT, headers=headers)
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    guarded.service.hold = False
    assert guarded.service.has_closed.wait(WAIT_S)


def test_the_official_client_sees_the_limits_and_retries(guarded: Guarded) -> None:
    """`Retry-After` is 1 s here, and the client waits for it by itself."""
    secret = guarded.new_key("official", requests_per_minute=60)
    quota = guarded.control.quota_of(asyncio.run(guarded.control.identify(secret)))
    for _ in range(60):
        quota.admit()
        quota.release()
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=secret, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
        answer = client.with_options(max_retries=3).chat.completions.with_raw_response.create(
            **CHAT  # type: ignore[call-overload]
        )
    assert answer.retries_taken >= 1
    assert answer.headers["x-ratelimit-limit-requests"] == "60"
    assert answer.parse().choices[0].message.content


def test_the_official_client_with_a_wrong_key_raises_its_own_error(guarded: Guarded) -> None:
    with (
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=GOOD, max_retries=2) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_every_answer_leaves_an_entry_that_its_reader_can_check(tmp_path: Path) -> None:
    entries = Entries()
    with guarded_server(tmp_path, entries) as guarded:
        headers = bearer(guarded.new_key("ada"))
        for stream in (False, True):
            entries.came.clear()
            guarded.service.script = lambda _: [*say("a", "b", "c")]
            body = json.dumps({**CHAT, "stream": stream}).encode()
            answer = httpx2.post(
                f"{guarded.url}/v1/chat/completions",
                content=body,
                headers={**headers, "Content-Type": "application/json"},
            )
            assert entries.came.wait(WAIT_S)
            entry = entries.found[-1]
            assert entry["request"] == hashlib.sha256(body).hexdigest()
            assert entry["answer"] == hashlib.sha256(answer.content).hexdigest()
            assert entry["request_id"] == answer.headers["X-Request-Id"]
            assert (entry["who"], entry["model"], entry["status"]) == ("key:ada", MODEL, 200)
            assert str(entry["fingerprint"]).startswith("fp_")
        entries.came.clear()
        httpx2.post(f"{guarded.url}/generate", json={}, headers=headers)
        assert entries.came.wait(WAIT_S)
        assert entries.found[-1]["status"] == 400
        httpx2.post(f"{guarded.url}/generate", json={})
        httpx2.get(f"{guarded.url}/v1/models", headers=headers)
    assert len(entries.found) == 3


ORIGIN = "https://app.example"


def test_pages_of_listed_origins_may_call_and_no_others(tmp_path: Path) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-y"}
    with guarded_server(tmp_path, origins=(ORIGIN,)) as guarded:
        url = f"{guarded.url}/v1/chat/completions"
        allowed = httpx2.options(url, headers={"Origin": ORIGIN, **asked})
        assert allowed.status_code == 204
        assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        other = httpx2.options(url, headers={"Origin": "https://evil.example", **asked})
        assert other.status_code == 401
        assert "Access-Control-Allow-Origin" not in other.headers
        headers = {"Origin": ORIGIN, **bearer(guarded.new_key("page"))}
        answer = httpx2.post(url, json=CHAT, headers=headers)
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "X-RateLimit-Remaining-Tokens" in answer.headers["Access-Control-Expose-Headers"]
        assert answer.headers["Vary"] == "Origin"


def test_without_a_list_no_origin_may_call(http: httpx2.Client) -> None:
    answer = http.options(
        "/v1/models", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    )
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
