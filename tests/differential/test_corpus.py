"""What the fuzzers of csrc/fuzz found interesting, once more: the C module against the specification, input by input.

The committed corpus is replayed; with KEST_FUZZ_CORPUS, what a run of tools/fuzz found as well (build/fuzz/found).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from cryptography.hazmat.primitives.asymmetric import ed25519
from reference import b64, canonical, chain, dense, entry, pack, verify
from reference import gate as reference_gate

from .strategies import Suspect
from .test_json_differential import check_parse
from .test_verify_differential import compare

COMMITTED, FOUND = Path(__file__).parents[2] / "csrc" / "fuzz" / "corpus", os.environ.get("KEST_FUZZ_CORPUS")
CORPORA = [COMMITTED, *([Path(FOUND)] if FOUND else [])]
LIMITS = (1 << 18, 64)


def inputs(name: str) -> Iterator[bytes]:
    found = [path for corpus in CORPORA for path in sorted((corpus / name).glob("*"))]
    assert found, f"no corpus of {name}"
    for path in found:
        yield path.read_bytes()


def accepted(read: Callable[[], object], *refusals: type[Exception]) -> tuple[bool, object]:
    try:
        return True, read()
    except refusals:
        return False, None


def test_json(kestcore: ModuleType, errors: ModuleType) -> None:
    """The reader accepts exactly what the specification accepts, and canonical forms are equal."""
    for text in inputs("json"):
        check_parse(kestcore, errors, text)
        sound, value = accepted(lambda text=text: canonical.strict_parse(text), canonical.StrictJSONError)  # type: ignore[misc]
        if sound:
            assert kestcore.canonicalize(kestcore.parse(text)) == canonical.canonicalize(value), text


def percent_decoded(text: bytes) -> str | None:
    if not re.fullmatch(rb"(?:%[0-9A-Fa-f]{2}|[!#$&-+\--:<-\[\]-~])*", text):
        return None
    octets = re.sub(rb"%(..)|\+", lambda found: bytes.fromhex(found[1].decode()) if found[1] else b" ", text)
    try:
        return octets.decode("utf-8")
    except UnicodeError:
        return None


def test_text(kestcore: ModuleType, errors: ModuleType) -> None:
    for data in inputs("text"):
        kind, rest = data[0] % 6 if data else 2, data[1:]
        if kind == 0:
            text = rest.decode("latin-1")
            theirs = accepted(lambda text=text: b64.decode(text), b64.Base64Error)  # type: ignore[misc]
            ours = accepted(lambda rest=rest: kestcore.b64url_decode(rest), errors.KestError)  # type: ignore[misc]
            assert ours == theirs, rest
        elif kind == 1:
            ours = accepted(lambda rest=rest: kestcore.baggage_value(rest), errors.BaggageError)  # type: ignore[misc]
            assert ours[1] == percent_decoded(rest), rest
        elif kind == 4:
            sound, path = accepted(lambda rest=rest: rest.decode("utf-8"), UnicodeError)  # type: ignore[misc]
            if sound and isinstance(path, str):
                assert kestcore.gate_path(path) == reference_gate.normal_path(path), path


# --- passports: the lines that csrc/fuzz/passport.c reads ---

PRINCIPAL = "spiffe://t/a"
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([1, 2, 3]) + bytes(29))
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([3, 2, 1]) + bytes(29))
KEYS = {
    PRINCIPAL: [verify.KeyInfo(KEY.public_key(), max_trust=90, not_before=1000)],
    "b": [verify.KeyInfo(KEY.public_key(), may_sanitise=False, not_before=0, not_after=2000)],
}


def signed(line: bytes, texts: list[bytes], key: ed25519.Ed25519PrivateKey) -> bytes:
    head, tab, payload = line.partition(b"\t")
    if not tab:
        head, payload = b"", line

    def digest(found: re.Match[bytes]) -> bytes:
        at = int(found[1])
        return entry.hashlib.sha256(texts[at]).hexdigest().encode() if at < len(texts) else found[0]

    head = head or canonical.canonicalize(entry.header(PRINCIPAL))
    return entry.sign_raw(head, re.sub(rb"@([0-9])", digest, payload), key).encode()


def edited(line: bytes, texts: list[bytes], change: bool) -> bytes:
    which = line[0] - ord("0") if line else -1
    if not 0 <= which < min(len(texts), 10):
        return line
    text = bytearray(texts[which])
    if change and len(line) >= 4 and text:
        text[((line[1] - 33) * 94 + line[2] - 33) % 2**64 % len(text)] = line[3]
    return bytes(text)


def read_lines(data: bytes) -> list[bytes]:
    texts: list[bytes] = []
    lines = data.split(b"\n")
    for line in (lines[:-1] if not lines[-1] else lines)[:10]:
        kind, rest = line[:1], line[1:]
        if kind in (b"+", b"!"):
            texts.append(signed(rest, texts, KEY if kind == b"+" else OTHER))
        elif kind in (b"~", b"="):
            texts.append(edited(rest, texts, kind == b"~"))
        else:
            texts.append(line)
    return texts


def test_passports(kest_core: ModuleType) -> None:
    """The verifier accepts and refuses what the specification does, and blames the same entry."""
    verified = 0
    for data in inputs("passport"):
        sound, entries = accepted(lambda data=data: [text.decode("utf-8") for text in read_lines(data)], UnicodeError)  # type: ignore[misc]
        if sound and isinstance(entries, list):
            compare(kest_core, Suspect(entries, KEYS))
            verified += bool(entries) and accepted(lambda e=entries: verify.verify(e, KEYS), verify.BadEntry)[0]  # type: ignore[misc]
    assert verified > 3, "a corpus in which nothing verifies tests nothing"


def raw_dense(data: bytes) -> bytes:
    if len(data) < 3 or data[:1] != b"p":
        return data
    size = min(int.from_bytes(data[1:3], "big"), len(data) - 3)
    stream = zlib.compressobj(1, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, dense.dictionary())
    packed = stream.compress(data[3 : 3 + size]) + stream.flush()
    return bytes([dense.VERSION]) + dense.varint(len(packed)) + packed + data[3 + size :]


def test_dense(kestcore: ModuleType, errors: ModuleType) -> None:
    """Ours is the stricter reader: what it takes, the specification takes and reads the same way."""
    read = 0
    for data in inputs("dense"):
        text = b64.encode(raw_dense(data))
        sound, passport = accepted(lambda text=text: kestcore.unpack_dense(text, *LIMITS).entries, errors.KestError)  # type: ignore[misc]
        if sound:
            assert dense.unpack(text) == passport
            read += 1
    assert read > 3


def test_inflate(kestcore: ModuleType, errors: ModuleType) -> None:
    for data in inputs("inflate"):
        text = b64.encode(data)

        def specified(text: str = text) -> list[str]:
            return chain.Passport.deserialize(pack.decompress(text, LIMITS[0])).entries

        theirs = accepted(specified, ValueError)
        ours = accepted(lambda text=text: kestcore.unpack_z(text, *LIMITS).entries, errors.KestError)  # type: ignore[misc]
        assert ours == theirs
