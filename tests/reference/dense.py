"""The dense form of a passport, version 1 (docs/formats.md), written and read slowly.

A writer may compress as it likes, so two writers are compared by what a reader gets back, not by their bytes.
"""

from __future__ import annotations

import ast
import json
import re
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

from . import b64
from .canonical import canonicalize
from .entry import header

VERSION = 1
MAX_ENTRIES = 4096
OWN_TIME, INPUT, LISTED, ROOT = 1, 2, 4, 8
TABLES = ("template", "principal", "operation", "policies", "taints", "added", "removed", "class")
# In the order in which they stand in a payload: what is left behind, and the table that fills it.
CUTS = (
    ('{"added_taints":[]', "added"),
    (',"classification":""', "class"),
    (',"entry_id":""', None),
    (',"input_hash":""', None),
    ('"principal":""', "principal"),
    (',"operation":""', "operation"),
    (',"parent_ids":[]', None),
    (',"function_policies":[]', "policies"),
    (',"removed_taints":[]', "removed"),
    (',"taints":[]', "taints"),
    (',"timestamp_ms":,', None),
    (',"trust_score":}', None),
)
_SOURCE = Path(__file__).parents[2] / "csrc" / "core" / "dense_dictionary.c"


class NotDense(ValueError):
    """These entries have no dense form, or this text is not one."""


def dictionary() -> bytes:
    """The preset dictionary: part of the format, kept in one place."""
    literal = re.search(r"kest_dense_dictionary\[\] =\n(.*?);\n", _SOURCE.read_text(encoding="ascii"), re.DOTALL)
    assert literal
    return b"".join(ast.literal_eval("b" + line.strip()) for line in literal[1].splitlines() if line.strip())


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1


def unzigzag(value: int) -> int:
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise NotDense("cut off")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            if shift and byte == 0:
                raise NotDense("not the shortest varint")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def split_id(text: str) -> tuple[int, int, int]:
    """Milliseconds, counter and origin of a UUIDv7."""
    value = int(text.replace("-", ""), 16)
    return value >> 80, (value >> 64 & 0xFFF) << 10 | (value >> 52 & 0x3FF), value & (1 << 52) - 1


def join_id(ms: int, counter: int, origin: int) -> str:
    value = ms << 80 | 7 << 76 | counter >> 10 << 64 | 2 << 62 | (counter & 0x3FF) << 52 | origin
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def inner(value: Any) -> str:
    """The canonical text of a string or list without its quotes or brackets."""
    return canonicalize(value).decode()[1:-1]


def template(payload: dict[str, Any], head: str) -> bytes:
    cut: dict[str, Any] = json.loads(json.dumps(payload))
    cut["labels"]["principal"] = cut["operation"] = cut["entry_id"] = cut["input_hash"] = cut["classification"] = ""
    cut["policy_context"]["function_policies"] = cut["parent_ids"] = []
    cut["added_taints"] = cut["removed_taints"] = cut["taints"] = []
    cut["timestamp_ms"] = cut["trust_score"] = 0
    text = canonicalize(cut).decode()
    text = text[: text.rindex('"timestamp_ms":0,"trust_score":0}')] + '"timestamp_ms":,"trust_score":}'
    usual = b64.encode(canonicalize(header(payload["labels"]["principal"])))
    head_bytes = b"" if head == usual else head.encode("ascii")
    return varint(len(head_bytes)) + head_bytes + text.encode()


def pack(entries: list[str]) -> str:
    """The dense form; NotDense when there is none."""
    if not 0 < len(entries) <= MAX_ENTRIES:
        raise NotDense("no entries, or too many")
    tables: dict[str, list[bytes]] = {name: [] for name in TABLES}
    indices: dict[str, bytes] = dict.fromkeys(TABLES, b"")
    origins: list[int] = []
    inputs: list[str] = []
    hashes: list[str] = []
    origin_column = flags = parents = ms_column = counters = input_column = times = trusts = tail_sigs = b""
    last = 0
    for i, jws in enumerate(entries):
        head, body, signature = jws.split(".")
        payload = json.loads(b64.decode(body))
        texts = {
            "template": template(payload, head),
            "principal": inner(payload["labels"]["principal"]).encode(),
            "operation": inner(payload["operation"]).encode(),
            "policies": inner(payload["policy_context"]["function_policies"]).encode(),
            "taints": inner(payload["taints"]).encode(),
            "added": inner(payload["added_taints"]).encode(),
            "removed": inner(payload["removed_taints"]).encode(),
            "class": inner(payload["classification"]).encode(),
        }
        for name, text in texts.items():
            if text not in tables[name]:
                tables[name].append(text)
            indices[name] += varint(tables[name].index(text))
        flag = 0
        if payload["parent_ids"] == ["0"]:
            flag |= ROOT
        elif not (i and payload["parent_ids"] == hashes[-1:]):
            flag |= LISTED
            if not set(payload["parent_ids"]) <= set(hashes):
                raise NotDense("a parent is not there")
            parents += varint(len(payload["parent_ids"]))
            for parent in payload["parent_ids"]:
                parents += varint(i - max(at for at, known in enumerate(hashes) if known == parent))
        ms, counter, origin = split_id(payload["entry_id"])
        if origin not in origins:
            origins.append(origin)
            origin_column += varint(len(origins) - 1)
        else:
            origin_column += varint(origins.index(origin))
        ms_column += varint(zigzag(ms - last))
        last = ms
        counters += varint(counter)
        if payload["timestamp_ms"] != ms:
            flag |= OWN_TIME
            times += varint(zigzag(payload["timestamp_ms"] - ms))
        if payload["input_hash"]:
            flag |= INPUT
            if payload["input_hash"] not in inputs:
                inputs.append(payload["input_hash"])
            input_column += varint(inputs.index(payload["input_hash"]))
        flags += bytes([flag])
        trusts += bytes([payload["trust_score"]])
        raw = b64.decode(signature)
        if len(raw) != 64:
            raise NotDense("a signature of another length")
        tail_sigs += raw
        hashes.append(sha256(jws.encode("ascii")).hexdigest())
    plain = varint(len(entries)) + b"".join(varint(len(tables[name])) for name in TABLES)
    plain += b"".join(varint(len(text)) + text for name in TABLES for text in tables[name])
    plain += b"".join(indices[name] for name in TABLES)
    plain += origin_column + flags + parents + ms_column + counters + input_column + times + trusts
    stream = zlib.compressobj(6, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, dictionary())
    packed = stream.compress(plain) + stream.flush()
    tail = b"".join(origin.to_bytes(7, "big") for origin in origins) + bytes.fromhex("".join(inputs)) + tail_sigs
    text = b64.encode(bytes([VERSION]) + varint(len(packed)) + packed + tail)
    if unpack(text) != entries:
        raise NotDense("does not give every byte back")
    return text


def unpack(text: str) -> list[str]:
    """The entries, byte for byte."""
    try:
        return _unpack(b64.decode(text))
    except (b64.Base64Error, zlib.error, UnicodeError) as error:
        raise NotDense(str(error)) from error


def _unpack(raw: bytes) -> list[str]:
    outer = Cursor(raw)
    if outer.take(1)[0] != VERSION:
        raise NotDense("another version")
    stream = zlib.decompressobj(-15, dictionary())
    plain = Cursor(stream.decompress(outer.take(outer.varint())))
    if not stream.eof or stream.unused_data:
        raise NotDense("not exactly one deflate stream")
    count = plain.varint()
    if not 0 < count <= MAX_ENTRIES:
        raise NotDense("number of entries")
    sizes = [plain.varint() for _ in TABLES]
    tables = {name: [plain.take(plain.varint()) for _ in range(size)] for name, size in zip(TABLES, sizes, strict=True)}
    indices = {name: [plain.varint() for _ in range(count)] for name in TABLES}
    origin_of = [plain.varint() for _ in range(count)]
    flags = plain.take(count)
    parents = [
        [plain.varint() for _ in range(plain.varint())] if flag & LISTED else [] if flag & ROOT else [1]
        for flag in flags
    ]
    ms_of = [unzigzag(plain.varint()) for _ in range(count)]
    counter_of = [plain.varint() for _ in range(count)]
    input_of = [plain.varint() if flag & INPUT else None for flag in flags]
    time_of = [unzigzag(plain.varint()) if flag & OWN_TIME else 0 for flag in flags]
    trusts = plain.take(count)
    if plain.at != len(plain.data):
        raise NotDense("data after the columns")
    origins = [int.from_bytes(outer.take(7), "big") for _ in range(max(origin_of) + 1)]
    known = [index for index in input_of if index is not None]
    inputs = [outer.take(32).hex() for _ in range(max(known, default=-1) + 1)]

    entries: list[str] = []
    ms = 0
    for i in range(count):
        ms += ms_of[i]
        try:
            texts = {name: tables[name][indices[name][i]] for name in TABLES}
            listed = [sha256(entries[i - back].encode("ascii")).hexdigest() for back in parents[i]]
        except IndexError:
            raise NotDense("an index beyond its table") from None
        cursor = Cursor(texts["template"])
        head = cursor.take(cursor.varint()).decode("ascii")
        rest = cursor.data[cursor.at :]  # bytes: what is wrong with a payload is for a verifier to say
        values = {
            ',"entry_id":""': join_id(ms, counter_of[i], origins[origin_of[i]]),
            ',"input_hash":""': "" if input_of[i] is None else inputs[input_of[i]],  # type: ignore[index]
            ',"parent_ids":[]': ",".join(f'"{parent}"' for parent in listed) or '"0"',
            ',"timestamp_ms":,': str(ms + time_of[i]),
            ',"trust_score":}': str(trusts[i]),
        }
        payload = b""
        for marker, table in CUTS:
            at = rest.find(marker.encode())
            if at < 0:
                raise NotDense("a marker is missing")
            at += len(marker) - 1
            payload += rest[:at] + (values[marker].encode() if table is None else texts[table])
            rest = rest[at:]
        payload += rest
        if not head:  # the principal is spelled there as it is here
            head = b64.encode(b'{"alg":"EdDSA","kid":"' + texts["principal"] + b'","typ":"JWS"}')
        entries.append(f"{head}.{b64.encode(payload)}.{b64.encode(outer.take(64))}")
    if outer.at != len(outer.data):
        raise NotDense("data after the signatures")
    return entries
