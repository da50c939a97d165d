"""The pages a browser sees: complete without a network, and with a strict policy."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import httpx2
import pytest

from appliance.api.web.pages import OUR_LOGO, REDOC_LOGO, WEB

PAGES = ["/", "/docs", "/redoc"]
REFERENCE = re.compile(r"""(?:src|href|spec-url|url)\s*[=:]\s*["']([^"'#]+)["']""")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_refers_only_to_what_this_server_has(http: httpx2.Client, path: str) -> None:
    page = http.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    references = REFERENCE.findall(page.text)
    assert references
    for reference in references:
        assert "//" not in reference
        assert http.get(urljoin(path, reference)).status_code == 200, reference
    assert not re.search(r"https?://(?!www\.w3\.org/)", page.text)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_load_nothing_from_elsewhere(http: httpx2.Client, path: str) -> None:
    policy = http.get(path).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "http" not in policy
    [scripts] = re.findall(r"script-src ([^;]+)", policy)
    assert scripts == "'self'"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_script_of_its_own(http: httpx2.Client, path: str) -> None:
    assert not re.search(r"<script(?![^>]*\bsrc=)", http.get(path).text)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/docs/assets/swagger-ui-bundle.js", "text/javascript"),
        ("/docs/assets/swagger-ui.css", "text/css"),
        ("/docs/assets/redoc.standalone.js", "text/javascript"),
        ("/docs/assets/favicon.png", "image/png"),
        ("/docs/start.js", "text/javascript"),
    ],
)
def test_the_assets_come_from_this_server(http: httpx2.Client, path: str, kind: str) -> None:
    response = http.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(kind)
    if "/assets/" in path:
        assert response.headers["cache-control"] == "no-store"


def test_the_reference_asks_nobody_for_a_logo(http: httpx2.Client) -> None:
    script = http.get("/docs/assets/redoc.standalone.js").text
    assert REDOC_LOGO.decode() not in script
    assert OUR_LOGO.decode() in script


@pytest.mark.parametrize("name", sorted(path.name for path in WEB.iterdir() if path.is_file()))
def test_every_file_of_the_chat_page_is_served(http: httpx2.Client, name: str) -> None:
    assert http.get(f"/web/{name}").content == (WEB / name).read_bytes()


@pytest.mark.parametrize(
    "path",
    ["/web/../app.py", "/web/%2e%2e/app.py", "/web/..%2fapp.py", "/docs/assets/..%2fcore.py"],
)
def test_nothing_else_is_served(http: httpx2.Client, path: str) -> None:
    response = http.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_a_range_bomb_on_an_asset_is_harmless(http: httpx2.Client) -> None:
    ranges = ",".join(f"{n}-{n + 1}" for n in range(0, 8000, 2))
    response = http.get("/docs/assets/swagger-ui.css", headers={"Range": f"bytes={ranges}"})
    assert response.status_code in (200, 206, 400, 416)
    assert len(response.content) < 2_000_000
