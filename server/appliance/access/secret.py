r"""The form of a key: `ap-`, 256 random bits and a checksum, which secret scanners can recognize.

    \bap-[a-z2-7]{59}\b

52 characters of base32 are the random bits, 7 are their CRC-32. A mistyped or invented key fails
the checksum and is refused without a look-up. The file of keys holds SHA-256 of the whole key: a
slow hash such as bcrypt protects passwords that can be guessed, and 256 random bits cannot be.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import zlib

PREFIX = "ap-"
NUM_RANDOM_BYTES = 32
FORM = re.compile(rf"{PREFIX}([a-z2-7]{{52}})([a-z2-7]{{7}})", re.ASCII)
KEY_ID_CHARS = 12  # of the hash, in the audit log and in `appliance key list`


def new_secret() -> str:
    body = _base32(secrets.token_bytes(NUM_RANDOM_BYTES))
    return PREFIX + body + _checksum(body)


def is_well_formed(text: str) -> bool:
    match = FORM.fullmatch(text)
    return match is not None and match[2] == _checksum(match[1])


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _base32(zlib.crc32(body.encode()).to_bytes(4, "big"))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
