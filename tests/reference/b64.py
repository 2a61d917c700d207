"""Strict base64url without padding (RFC 4648, section 5; RFC 7515, appendix C; PRODUCT section 4).

Every byte string has exactly one spelling: no padding, no white space, no ``+`` or ``/``, no set trailing bits.
"""

from __future__ import annotations

import base64
import re

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")


class Base64Error(ValueError):
    """Text is not the one base64url spelling of some byte string."""


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    if not _ALPHABET.fullmatch(text):
        raise Base64Error("a character outside the base64url alphabet")
    if len(text) % 4 == 1:
        raise Base64Error("no byte string has an encoding of this length")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(data) != text:
        raise Base64Error("trailing bits are set")
    return data
