"""Reads a multipart/form-data body: its fields into memory, its file into a temporary one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, NoReturn, cast
from urllib.parse import unquote

from appliance.api.http.body import check_encoding, check_length, refuse_size
from appliance.api.http.query import Values, gather
from appliance.api.http.request import Request
from appliance.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

SPOOL_BYTES = 1024 * 1024  # larger files go to the disk
MAX_HEAD_BYTES = 8 * 1024  # of a part
MAX_FILE_NAME = 255

END_OF_HEAD = b"\r\n\r\n"

# `; name="value"` with \" and \\ inside quotes, or `; name=value`.
PARAMETER = re.compile(r';[ \t]*([a-z]+\*?)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """What one upload may take."""

    max_file_bytes: int
    max_fields: int = 32
    max_field_bytes: int = 64 * 1024
    timeout_s: float = 600.0  # for all of the body

    @property
    def max_body_bytes(self) -> int:
        return self.max_file_bytes + (self.max_fields + 1) * (self.max_field_bytes + MAX_HEAD_BYTES)


@dataclass(slots=True, kw_only=True)
class UploadedFile:
    """A file, as long as its request is answered; its name is what the client called it."""

    field: str
    name: str
    media_type: str
    size_bytes: int = 0
    content: IO[bytes]


@dataclass(slots=True)
class Form:
    """What came: the fields by name, and the file if there was one."""

    file: UploadedFile | None = None
    pairs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def values(self) -> Values:
        return gather(self.pairs)

    def close(self) -> None:
        if self.file is not None:
            self.file.content.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHead:
    """What the headers of a part say; only a file has a file name."""

    name: str
    file_name: str | None
    media_type: str


class MultipartReader:
    """Takes a body apart as it arrives: heads of parts, and bytes of the part begun last."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like the others
        self._step = self._read_data
        self._has_part = False
        self.is_over = False

    def feed(self, chunk: bytes) -> Iterator[PartHead | bytes]:
        self._buffer += chunk
        while not self.is_over and (item := self._step()) is not None:
            yield item

    def _read_data(self) -> PartHead | bytes | None:
        """Up to the delimiter, or to where the buffer may hold the beginning of one."""
        end = self._buffer.find(self._delimiter)
        if end >= 0:
            self._step = self._read_border
            return self._take(end, skip=len(self._delimiter))
        spare = len(self._buffer) - len(self._delimiter) + 1
        return self._take(spare) if spare > 0 else None

    def _take(self, size: int, skip: int = 0) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[: size + skip]
        if data and not self._has_part:
            refuse_form("it does not begin with its boundary")
        return data

    def _read_border(self) -> PartHead | bytes | None:
        """A delimiter is followed by the next part, or by two hyphens and nothing that counts."""
        if len(self._buffer) < 2:
            return None
        border = bytes(self._buffer[:2])
        if border == b"--":
            self.is_over = True
            return None
        if border != b"\r\n":
            refuse_form("a boundary is not followed by a part")
        del self._buffer[:2]
        self._step = self._read_head
        return self._read_head()

    def _read_head(self) -> PartHead | bytes | None:
        end = self._buffer.find(END_OF_HEAD, 0, MAX_HEAD_BYTES + len(END_OF_HEAD))
        if end < 0:
            if len(self._buffer) >= MAX_HEAD_BYTES + len(END_OF_HEAD):
                refuse_form(f"a part has headers of more than {MAX_HEAD_BYTES} bytes")
            return None
        head = parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + len(END_OF_HEAD)]
        self._has_part = True
        self._step = self._read_data
        return head


def parse_head(head: bytes) -> PartHead:
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        refuse_form("a part's headers are not UTF-8")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    kind, parameters = parse_parameters(headers.get("content-disposition", ""))
    if kind != "form-data" or "name" not in parameters:
        refuse_form("a part has no header Content-Disposition: form-data with a name")
    return PartHead(
        name=parameters["name"],
        file_name=_file_name(parameters),
        media_type=headers.get("content-type", "application/octet-stream"),
    )


def parse_parameters(value: str) -> tuple[str, dict[str, str]]:
    """`form-data; name="a"` as form-data and its parameters; the first of each name counts."""
    kind = value.partition(";")[0].strip().lower()
    parameters: dict[str, str] = {}
    for name, quoted, plain in PARAMETER.findall(value):
        parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) or plain)
    return kind, parameters


def _file_name(parameters: dict[str, str]) -> str | None:
    """The last part of a path, without what no name of a file should hold."""
    written = parameters.get("filename")
    if written is None and "filename*" in parameters:  # utf-8'en'a%20b, from older clients
        written = unquote(parameters["filename*"].rpartition("'")[2])
    if written is None:
        return None
    last = re.split(r"[/\\]", written)[-1]
    return "".join(each for each in last if each.isprintable())[:MAX_FILE_NAME]


def refuse_form(problem: str) -> NoReturn:
    raise InvalidRequest(
        f"The body is not a form this server accepts: {problem}.", code="invalid_form"
    )


class FormWriter:
    """Puts the parts of a form where they belong, within the limits."""

    def __init__(self, limits: UploadLimits) -> None:
        self.form = Form()
        self._limits = limits
        self._head: PartHead | None = None  # of the field that is being read
        self._value = bytearray()

    def begin(self, head: PartHead) -> None:
        self.end()
        if head.file_name is None:
            if len(self.form.pairs) >= self._limits.max_fields:
                refuse_form(f"it has more than {self._limits.max_fields} fields")
            self._head = head
            return
        if self.form.file is not None:
            refuse_form("it has more than one file")
        content = cast("IO[bytes]", SpooledTemporaryFile(max_size=SPOOL_BYTES))  # noqa: SIM115
        self.form.file = UploadedFile(
            field=head.name, name=head.file_name, media_type=head.media_type, content=content
        )

    async def add(self, data: bytes) -> None:
        file = self.form.file
        if self._head is not None:
            if len(self._value) + len(data) > self._limits.max_field_bytes:
                refuse_form(f"a field is larger than {self._limits.max_field_bytes} bytes")
            self._value += data
        elif file is not None:
            file.size_bytes += len(data)
            if file.size_bytes > self._limits.max_file_bytes:
                raise PayloadTooLarge(
                    f"The file is larger than this server's limit of"
                    f" {self._limits.max_file_bytes} bytes."
                )
            if file.size_bytes > SPOOL_BYTES:
                await asyncio.to_thread(file.content.write, data)
            else:
                file.content.write(data)

    def end(self) -> None:
        """Complete the part that was begun last."""
        if self._head is not None:
            try:
                value = self._value.decode()
            except UnicodeDecodeError:
                refuse_form("a field is not UTF-8 text")
            self.form.pairs.append((self._head.name, value))
        self._head = None
        self._value.clear()


async def read_form(request: Request, limits: UploadLimits) -> Form:
    """Read a request's form; the caller closes it."""
    reader = MultipartReader(_boundary(request))
    check_encoding(request)
    check_length(request, limits.max_body_bytes)
    writer = FormWriter(limits)
    try:
        async with asyncio.timeout(limits.timeout_s):
            await _read_parts(request, reader, writer, limits.max_body_bytes)
    except BaseException as error:
        writer.form.close()
        if isinstance(error, TimeoutError):
            raise InvalidRequest(
                f"The body did not arrive within {limits.timeout_s:.0f} seconds.",
                code="body_timeout",
            ) from None
        raise
    return writer.form


def _boundary(request: Request) -> bytes:
    kind, parameters = parse_parameters(request.headers.get("content-type"))
    boundary = parameters.get("boundary", "")
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise UnsupportedMediaType(
            "The body must be a form, sent with the header Content-Type: multipart/form-data and"
            " a boundary."
        )
    return boundary.encode("latin-1")


async def _read_parts(
    request: Request, reader: MultipartReader, writer: FormWriter, max_bytes: int
) -> None:
    num_bytes = 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            refuse_size(max_bytes)
        for item in reader.feed(chunk):
            if isinstance(item, PartHead):
                writer.begin(item)
            elif item:
                await writer.add(item)
    if not reader.is_over:
        refuse_form("it ends before its last boundary")
    writer.end()
    if writer.form.file is not None:
        writer.form.file.content.seek(0)
