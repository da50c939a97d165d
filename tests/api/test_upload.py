"""A form's fields and its file arrive as they were sent, within limits, however they are cut."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from typing import Annotated, Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from appliance.api.http import upload
from appliance.api.http.face import Face
from appliance.api.http.request import Request
from appliance.api.http.response import JsonResponse, Response
from appliance.api.http.route import Route
from appliance.api.http.upload import Form, MultipartReader, PartHead, UploadLimits
from appliance.errors import InvalidRequest
from tests.api.routed import client_of, face

LIMITS = UploadLimits(max_file_bytes=3_000_000, max_fields=4, max_field_bytes=1000)
KIND = {"Content-Type": "multipart/form-data; boundary=xx"}


class Fields(BaseModel):
    """What comes beside the file."""

    model_config = ConfigDict(extra="forbid")

    purpose: str
    limit: int = 1
    tags: Annotated[list[str], Field(default_factory=list)]


forms: list[Form] = []


async def take(form: Form, request: Request) -> Response:
    forms.append(form)
    file = form.file
    told = file and {
        "field": file.field,
        "name": file.name,
        "type": file.media_type,
        "size": file.size_bytes,
        "content": file.content.read().decode("latin-1"),
    }
    return JsonResponse({"values": form.values, "file": told})


async def take_fields(body: Fields, form: Form, request: Request) -> Response:
    return JsonResponse(body.model_dump())


def uploads() -> Face:
    return face(
        Route(method="POST", path="/any", endpoint=take, form=LIMITS),
        Route(method="POST", path="/fields", endpoint=take_fields, form=LIMITS, body=Fields),
    )


async def send(path: str = "/any", **request: Any) -> httpx2.Response:
    forms.clear()
    async with client_of(uploads()) as client:
        return await client.post(path, **request)


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 1, upload.SPOOL_BYTES - 1, upload.SPOOL_BYTES + 1, 2_900_000])
async def test_a_file_and_fields_arrive(size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    response = await send(
        data={"purpose": "a\r\nb é", "tags": ["x", "y"]},
        files={"file": ("notes.txt", content, "text/plain")},
    )
    answer = response.json()
    assert answer["values"] == {"purpose": "a\r\nb é", "tags": ["x", "y"]}
    assert answer["file"].pop("content").encode("latin-1") == content
    assert answer["file"] == {
        "field": "file", "name": "notes.txt", "type": "text/plain", "size": size,
    }  # fmt: skip


@pytest.mark.anyio
async def test_the_file_is_gone_when_the_answer_is_out() -> None:
    await send(files={"file": ("a", b"b")})
    [form] = forms
    assert form.file is not None
    assert form.file.content.closed


@pytest.mark.anyio
async def test_the_file_is_gone_when_a_field_is_refused() -> None:
    response = await send("/fields", data={"purpos": "a"}, files={"file": ("a", b"b")})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "purpose"


@pytest.mark.anyio
async def test_fields_are_read_into_a_model() -> None:
    data = {"purpose": "a", "limit": "7", "tags[]": "b"}
    response = await send("/fields", data=data, files={"file": ("a", b"b")})
    assert response.json() == {"purpose": "a", "limit": 7, "tags": ["b"]}


def part(head: str, content: bytes = b"a") -> bytes:
    return b"--xx\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def field(name: str = "a", content: bytes = b"b") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', content)


END = b"--xx--\r\n"
FILE = 'Content-Disposition: form-data; name="file"; filename="a"'


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "ends before its last boundary"),
        (field(), "ends before its last boundary"),
        (b"hello" + field() + END, "does not begin with its boundary"),
        (b"--xx" + b"--yy" + END, None),
        (b"--xxyy\r\n", "not followed by a part"),
        (part("Content-Type: text/plain") + END, "Content-Disposition"),
        (part('Content-Disposition: attachment; name="a"') + END, "Content-Disposition"),
        (part("Content-Disposition: form-data") + END, "Content-Disposition"),
        (part("X: " + "a" * upload.MAX_HEAD_BYTES) + END, "headers of more than"),
        (b"--xx\r\nX: " + b"a" * 20_000, "headers of more than"),
        (field(content=b"\xff") + END, "not UTF-8"),
        (field(content=b"a" * 1001) + END, "larger than 1000"),
        (field() * 5 + END, "more than 4 fields"),
        (part(FILE) * 2 + END, "more than one file"),
    ],
)  # fmt: skip
async def test_a_form_that_cannot_be_read_is_refused(body: bytes, problem: str | None) -> None:
    response = await send(content=body, headers=KIND)
    if problem is None:
        assert response.status_code == 200
        return
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "invalid_form")
    assert problem in error["message"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=xx",
        f"multipart/form-data; boundary={'x' * 71}",
        "",
    ],
)
async def test_a_body_that_does_not_say_it_is_a_form_is_refused(kind: str) -> None:
    response = await send(content=field() + END, headers={"Content-Type": kind})
    assert response.status_code == 415


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ['Multipart/Form-Data; charset=utf-8; boundary="xx"'])
async def test_the_boundary_may_be_written_in_several_ways(kind: str) -> None:
    response = await send(content=field() + END, headers={"Content-Type": kind})
    assert response.json()["values"] == {"a": "b"}


@pytest.mark.anyio
async def test_too_large_a_file_is_refused_while_it_arrives() -> None:
    response = await send(files={"file": ("a", b"b" * 3_000_001)})
    assert response.status_code == 413
    assert "3000000" in response.json()["error"]["message"]


@pytest.mark.anyio
async def test_a_body_that_says_it_is_too_large_is_never_read() -> None:
    async def body() -> Any:
        pytest.fail("it was read")
        yield b""

    headers = {**KIND, "Content-Length": str(LIMITS.max_body_bytes + 1)}
    assert (await send(content=body(), headers=headers)).status_code == 413


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('filename="a;b.txt"', "a;b.txt"),
        ('filename="a\\"b.txt"', 'a"b.txt'),
        ("filename=plain.txt", "plain.txt"),
        ('filename="../../etc/passwd"', "passwd"),
        ('filename="C:\\\\dir\\\\b.txt"', "b.txt"),
        ('filename="a\x00\x1bb"', "ab"),
        ('filename="é.txt"', "é.txt"),
        ("filename*=utf-8''a%20%C3%A9.txt", "a é.txt"),
        ('filename=""', ""),
        (f'filename="{"a" * 300}"', "a" * 255),
    ],
)
def test_a_file_is_called_what_the_client_called_it_and_never_a_path(
    disposition: str, name: str
) -> None:
    head = upload.parse_head(f'content-disposition: form-data; name="f"; {disposition}'.encode())
    assert head.file_name == name


def read_in(pieces: Iterable[bytes], boundary: bytes) -> list[tuple[PartHead, bytes]]:
    reader = MultipartReader(boundary)
    parts: list[tuple[PartHead, bytes]] = []
    for piece in pieces:
        for item in reader.feed(piece):
            if isinstance(item, PartHead):
                parts.append((item, b""))
            elif item:
                parts[-1] = parts[-1][0], parts[-1][1] + item
    assert reader.is_over
    return parts


CONTENT = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"x", b"--xx", b"\r\n--x", b"a"])).map(
    b"".join
)


@given(contents=st.lists(CONTENT, max_size=4), cuts=st.lists(st.integers(0, 400), max_size=12))
def test_however_a_body_is_cut_its_parts_are_those_that_were_sent(
    contents: list[bytes], cuts: list[int]
) -> None:
    contents = [each for each in contents if b"\r\n--xx" not in b"\r\n" + each]
    body = (
        b"".join(field(f"name{number}", content) for number, content in enumerate(contents)) + END
    )
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    parts = read_in(pieces, b"xx")
    assert [content for _, content in parts] == contents
    assert [head.name for head, _ in parts] == [f"name{number}" for number in range(len(contents))]


@given(st.binary(max_size=300))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    reader = MultipartReader(b"xx")
    with contextlib.suppress(InvalidRequest):
        list(reader.feed(b"--xx\r\n" + body))
