"""What the gate signs and seals, said again and slowly: docs/formats.md in Python, sharing no code with the library.

Primitives come from ``cryptography``; HChaCha20 and secretstream, which it lacks, are spelled out here.
Everything raises Refused, or another ValueError, where the formats say so.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.poly1305 import Poly1305

from .b64 import Base64Error
from .b64 import decode as b64
from .canonical import canonicalize

ED25519, ML_DSA = -19, -49
HYBRID = [ED25519, ML_DSA]


class Refused(ValueError):
    """The formats say no."""


# --- CBOR ---


def write(value: Any) -> bytes:
    """RFC 8949, section 4.2.1."""
    if value is None or value is True or value is False:
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return _number(0, value) if value >= 0 else _number(1, -1 - value)
    if isinstance(value, bytes):
        return _number(2, len(value)) + value
    if isinstance(value, str):
        return _number(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return _number(4, len(value)) + b"".join(write(item) for item in value)
    rows = sorted([write(key), write(item)] for key, item in value.items())
    return _number(5, len(rows)) + b"".join(key + item for key, item in rows)


def _number(major: int, value: int) -> bytes:
    for info, limit, form in ((24, 1 << 8, ">B"), (25, 1 << 16, ">H"), (26, 1 << 32, ">I"), (27, 1 << 64, ">Q")):
        if value < 24:
            return bytes([major * 32 + value])
        if value < limit:
            return bytes([major * 32 + info]) + struct.pack(form, value)
    raise Refused("too large")


def read(data: bytes) -> Any:
    """One item, which is all there is, in the only form that it has."""
    value, rest = _read(data)
    if rest or write(value) != data:
        raise Refused("CBOR that is not deterministic")
    return value


def _read(data: bytes, depth: int = 0) -> tuple[Any, bytes]:
    if not data or depth > 9:
        raise Refused("CBOR cut short or too deep")
    major, info, data = data[0] >> 5, data[0] & 31, data[1:]
    if major == 7:
        if info not in (20, 21, 22):
            raise Refused("CBOR value that is not used")
        return {20: False, 21: True, 22: None}[info], data
    number = info
    if info > 23:
        size = {24: 1, 25: 2, 26: 4, 27: 8}.get(info)
        if size is None or len(data) < size:
            raise Refused("CBOR length")
        number, data = int.from_bytes(data[:size], "big"), data[size:]
    if major in (0, 1):
        return (number if major == 0 else -1 - number), data
    if major in (2, 3):
        if len(data) < number:
            raise Refused("CBOR cut short")
        chunk, data = data[:number], data[number:]
        try:
            return (chunk if major == 2 else chunk.decode()), data
        except UnicodeDecodeError:
            raise Refused("CBOR text") from None
    if major == 6 or number > len(data):
        raise Refused("CBOR tag or length")
    items: list[Any] = []
    for _ in range(number if major == 4 else 2 * number):
        item, data = _read(data, depth + 1)
        items.append(item)
    if major == 4:
        return items, data
    keys = items[::2]
    if any(type(key) not in (int, str) for key in keys) or len({(type(k), k) for k in keys}) < len(keys):
        raise Refused("CBOR map")
    return dict(zip(keys, items[1::2], strict=True)), data


# --- COSE_Sign ---


class Keys:
    """Public keys under an id, from the members of a bundle."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        self.id = bundle["id"]
        self.bundle = bundle
        self.ed25519 = Ed25519PublicKey.from_public_bytes(b64(bundle["ed25519_verifying_key"]))
        self.ml_dsa = MLDSA65PublicKey.from_public_bytes(b64(bundle["ml_dsa_verifying_key"]))

    def check(self, number: int, message: bytes, signature: bytes) -> None:
        try:
            (self.ed25519 if number == ED25519 else self.ml_dsa).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise Refused("signature") from None


class SecretHalf:
    """The secret keys of the four seeds."""

    def __init__(self, seeds: dict[str, str]) -> None:
        raw = {name: bytes.fromhex(seed) for name, seed in seeds.items()}
        self.ed25519 = Ed25519PrivateKey.from_private_bytes(raw["ed25519"])
        self.ml_dsa = MLDSA65PrivateKey.from_seed_bytes(raw["ml_dsa_65"])
        self.x25519 = X25519PrivateKey.from_private_bytes(raw["x25519"])
        self.ml_kem = MLKEM768PrivateKey.from_seed_bytes(raw["ml_kem_768"])

    def public(self) -> dict[str, bytes]:
        return {
            "ed25519_verifying_key": self.ed25519.public_key().public_bytes_raw(),
            "ml_dsa_verifying_key": self.ml_dsa.public_key().public_bytes_raw(),
            "x25519_public_key": self.x25519.public_key().public_bytes_raw(),
            "ml_kem_encapsulation_key": self.ml_kem.public_key().public_bytes_raw(),
        }

    def sign(self, key_id: str, typ: str, label: str, payload: bytes) -> bytes:
        """A hybrid envelope."""
        header = protected(key_id, typ, HYBRID)
        rows = []
        for number, key in ((ED25519, self.ed25519), (ML_DSA, self.ml_dsa)):
            rows.append([write({1: number}), {}, key.sign(sig_structure(header, number, label, payload))])
        return b"\xd8\x62" + write([header, {}, payload, rows])


def protected(key_id: str, typ: str, algs: list[int], extra: dict[str, Any] | None = None) -> bytes:
    return write({2: ["algs", *(extra or {})], 4: key_id.encode(), 16: typ, "algs": algs, **(extra or {})})


def sig_structure(header: bytes, number: int, label: str, payload: bytes) -> bytes:
    """RFC 9052, section 4.4."""
    return write(["Signature", header, write({1: number}), label.encode(), payload])


def cose(data: bytes, keys: Keys, typ: str, label: str, algs: list[int], extra: Any = None, only: Any = None) -> Any:
    """Protected header, unprotected header and payload of a verified envelope."""
    if data[:2] != b"\xd8\x62":
        raise Refused("no COSE_Sign")
    parts = read(data[2:])
    if not isinstance(parts, list) or [type(part) for part in parts] != [bytes, dict, bytes, list]:
        raise Refused("no COSE_Sign")
    header, loose, payload, rows = parts
    if header != protected(keys.id, typ, algs, extra) or (loose and only is None):
        raise Refused("header")
    expected = [write({1: number}) for number in (only or algs)]
    for row in rows:
        if not isinstance(row, list) or [type(part) for part in row] != [bytes, dict, bytes] or row[1]:
            raise Refused("signatures")
    if [row[0] for row in rows] != expected:
        raise Refused("signatures")
    for number, row in zip(only or algs, rows, strict=True):
        keys.check(number, sig_structure(header, number, label, payload), row[2])
    return header, loose, payload


# --- permits ---

PERMIT = ("kest-permit+cwt", "kest.gate permit v1")
PROOF = ("kest-permit-batch+cbor", "kest.gate permit batch v1")
CLAIMS = {
    2: "principal_id", 3: "audience", 4: "expires_at", 6: "issued_at", 7: "token_id", "act": "action_name",
    "evl": "evaluation_id", "kind": "principal_kind", "pol": "policy_digest", "prm": "params_hash", "res": "resource",
    "tip": "passport_tip",
}  # fmt: skip


def permit(data: bytes, keys: Keys, now: int, algs: list[int] = HYBRID, proof: bytes | None = None) -> dict[str, Any]:
    """The claims of a permit that counts at a time (leeway 5 s); what its reader demands of them comes on top."""
    if proof is None:
        payload = cose(data, keys, *PERMIT, algs)[2]
    else:
        header, loose, payload = cose(data, keys, *PERMIT, HYBRID, {"batch": True}, [ED25519])
        root = read(cose(proof, keys, *PROOF, HYBRID)[2])
        if set(loose) != {"i", "n", "path"}:
            raise Refused("path")
        if root != {"n": loose["n"], "root": climb(leaf(write(header) + write(payload)), loose)}:
            raise Refused("path")
    claims = {CLAIMS[name]: value for name, value in read(payload).items()}
    if not claims["issued_at"] - 5 <= now <= claims["expires_at"] + 5:
        raise Refused("time")
    for name in ("token_id", "evaluation_id"):
        text = claims[name].hex()
        claims[name] = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    for name in ("policy_digest", "params_hash"):
        if name in claims:
            claims[name] = claims[name].hex()
    if "passport_tip" in claims:
        claims["passport_tip"] = ",".join(tip.hex() for tip in claims["passport_tip"])
    return claims


# --- Merkle trees: RFC 9162, section 2.1.1, as its definition reads ---


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def tree(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + tree(leaves[:split]) + tree(leaves[split:])).digest()


def climb(found: bytes, loose: dict[str, Any]) -> bytes:
    """The root that a path leads to: RFC 9162, section 2.1.3.2, step by step."""
    path = [loose["path"][i : i + 32] for i in range(0, len(loose["path"]), 32)]
    fn, sn = loose["i"], loose["n"] - 1
    if not 0 <= fn <= sn or len(loose["path"]) % 32:
        raise Refused("path")
    for step in path:
        if sn == 0:
            raise Refused("path")
        if fn % 2 or fn == sn:
            found = hashlib.sha256(b"\x01" + step + found).digest()
            while fn % 2 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + step).digest()
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Refused("path")
    return found


# --- the audit chain ---

AUDIT_ALGS = {"hybrid": HYBRID, "pq": [ML_DSA]}


def audit(data: bytes, keys: Keys, mode: str = "hybrid", checkpoint: bytes | None = None) -> int:
    """How many entries a chain has that is whole."""
    before, waiting, hashes = "genesis", [], []
    for number, line in enumerate(line.rstrip(b"\r") for line in data.split(b"\n") if line.strip()):
        try:
            whole = json.loads(line)
            entry, seal = whole["entry"], whole.get("seal")
            same = canonicalize(whole) == line and set(whole) <= {"entry", "seal"}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Refused(f"line {number}") from None
        if not same or set(entry) != {"index", "previous_hash", "key_id", "mode", "time_ms", "content"}:
            raise Refused(f"line {number}")
        if (entry["index"], entry["previous_hash"], entry["key_id"], entry["mode"]) != (number, before, keys.id, mode):
            raise Refused(f"entry {number}")
        waiting.append(leaf(canonicalize(entry)))
        before = waiting[-1].hex()
        hashes.append(before)
        if seal is not None:
            _audit_seal(seal, number + 1 - len(waiting), waiting, keys, mode)
            waiting = []
    if waiting:
        raise Refused("truncated")
    if checkpoint is not None:
        mark = read(
            cose(checkpoint, keys, "kest-audit-checkpoint+cbor", "kest.gate audit checkpoint v1", AUDIT_ALGS[mode])[2]
        )
        if mark["length"] > len(hashes) or mark["head"] != ["genesis", *hashes][mark["length"]]:
            raise Refused("checkpoint")
    return len(hashes)


def _audit_seal(seal: dict[str, Any], first: int, leaves: list[bytes], keys: Keys, mode: str) -> None:
    names = {ED25519: "ed25519", ML_DSA: "ml_dsa_65"}
    if set(seal) != {"first", *(names[number] for number in AUDIT_ALGS[mode])} or seal["first"] != first:
        raise Refused("seal")
    header = protected(keys.id, "kest-audit-seal+cbor", AUDIT_ALGS[mode])
    payload = write({"count": len(leaves), "first": first, "head": leaves[-1].hex(), "root": tree(leaves)})
    for number in AUDIT_ALGS[mode]:
        try:
            signature = b64(seal[names[number]])
        except (Base64Error, TypeError):
            raise Refused("seal") from None
        keys.check(number, sig_structure(header, number, "kest.gate audit seal v1", payload), signature)


# --- directories ---


def directory(data: bytes, root: Keys) -> dict[str, Any]:
    """The manifest of a signed directory."""
    try:
        whole = json.loads(data)
        signed = canonicalize(whole["manifest"])
        same = canonicalize(whole) == data and set(whole) == {"manifest", "ed25519", "ml_dsa_65"}
        header = protected(whole["manifest"]["root"], "kest-directory+json", HYBRID)
        signatures = {ED25519: b64(whole["ed25519"]), ML_DSA: b64(whole["ml_dsa_65"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("manifest") from None
    if not same:
        raise Refused("manifest")
    for number, signature in signatures.items():
        root.check(number, sig_structure(header, number, "kest.gate key directory v1", signed), signature)
    manifest: dict[str, Any] = whole["manifest"]
    return manifest


# --- XChaCha20-Poly1305, secretstream ---


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """draft-irtf-cfrg-xchacha-03, section 2.2."""

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] ^= s[x]
            s[z] = (s[z] << turn | s[z] >> (32 - turn)) & 0xFFFFFFFF

    s = list(struct.unpack("<4I8I4I", b"expand 32-byte k" + key + nonce))
    for _ in range(10):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *s[:4], *s[12:])


def xchacha_open(key: bytes, nonce: bytes, sealed: bytes, ad: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(hchacha20(key, nonce[:16])).decrypt(bytes(4) + nonce[16:], sealed, ad)
    except (InvalidTag, ValueError):
        raise Refused("decryption") from None


class Pull:
    """The receiving end of libsodium's crypto_secretstream_xchacha20poly1305."""

    def __init__(self, key: bytes, header: bytes) -> None:
        self.key, self.inner, self.counter = hchacha20(key, header[:16]), header[16:24], 1

    def _keystream(self, block: int, data: bytes, key: bytes | None = None) -> bytes:
        nonce = struct.pack("<II", block, self.counter) + self.inner
        return Cipher(ChaCha20(key or self.key, nonce), None).encryptor().update(data)

    def pull(self, sealed: bytes, ad: bytes) -> tuple[bytes, bool]:
        first, body, mac = sealed[:1], sealed[1:-16], sealed[-16:]
        block = self._keystream(1, first + bytes(63))
        poly = Poly1305(self._keystream(0, bytes(64))[:32])
        # The length of the last padding is libsodium's own: (16 - 64 + length) mod 16.
        poly.update(ad + bytes(-len(ad) % 16) + first + block[1:] + body + bytes((16 - 64 + len(body)) % 16))
        poly.update(struct.pack("<QQ", len(ad), 64 + len(body)))
        if poly.finalize() != mac:
            raise Refused("frame")
        data, tag = self._keystream(2, body), block[0]
        self.inner = bytes(a ^ b for a, b in zip(self.inner, mac[:8], strict=True))
        self.counter += 1
        if tag & 2:
            fresh = self._keystream(0, self.key + self.inner)
            self.key, self.inner, self.counter = fresh[:32], fresh[32:], 1
        return data, tag == 3


# --- the secure channel ---


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)


def channel(sealed: bytes, kind: int, recipient: SecretHalf, own: Keys, sender: Keys) -> dict[str, Any]:
    """Header, data and the session's secrets of a message. Whether it is new, and of the right context, is for the reader."""
    parts = read(sealed)
    if not isinstance(parts, list) or len(parts) != 6 or parts[:3] != ["KSC1", kind, own.id]:
        raise Refused("envelope")
    ahead = sealed[: len(sealed) - len(write(parts[5]))]
    try:
        shared = recipient.ml_kem.decapsulate(parts[3]) + recipient.x25519.exchange(
            X25519PublicKey.from_public_bytes(parts[4])
        )
    except (ValueError, TypeError):
        raise Refused("key") from None
    bound = (
        b"kest.gate channel v1", ahead, sender.id.encode(), own.id.encode(), b64(own.bundle["ml_kem_encapsulation_key"]),
        b64(own.bundle["x25519_public_key"]),
    )  # fmt: skip
    transcript = hashlib.sha256(b"".join(struct.pack(">Q", len(part)) + part for part in bound)).digest()
    key = hkdf(shared, transcript, b"kest.gate channel v1 message", 56)
    header, data = read(xchacha_open(key[:32], key[32:], parts[5], ahead))
    if kind:
        header = cose(header, sender, "kest-channel+cbor", "kest.gate secure channel v1", HYBRID)[2]
    members = read(header)
    if (members["bnd"], members["snd"], members["rcp"]) != (transcript, sender.id, own.id):
        raise Refused("header")
    if members["dig"] != hashlib.sha256(data).digest():
        raise Refused("data")
    return {
        "header": members,
        "data": data,
        "session": hkdf(shared, transcript, b"kest.gate channel v1 session", 64),
        "session_id": hashlib.sha256(b"kest.gate session id v1" + transcript).digest(),
    }


class Session:
    """The frames that the accepting end receives."""

    def __init__(self, opened: dict[str, Any]) -> None:
        self.name, self.key, self.number = opened["session_id"], opened["session"][:32], 0
        self.stream: Pull | None = None

    def receive(self, frame: bytes) -> tuple[bytes, bool]:
        if frame[:5] != b"KSS1\x00":
            raise Refused("frame")
        frame = frame[5:]
        if self.stream is None:
            self.stream, frame = Pull(self.key, frame[:24]), frame[24:]
        found = self.stream.pull(frame, self.name + b"\x00" + struct.pack(">Q", self.number))
        self.number += 1
        return found


# --- key files ---


def key_file(data: bytes, passphrase: bytes) -> tuple[dict[str, Any], SecretHalf]:
    """The header and the secret keys in a key file."""
    whole, checksum = data[:-32], data[-32:]
    if data[:5] != b"KVSK\x02" or hashlib.sha256(whole).digest() != checksum:
        raise Refused("key file")
    header_bytes, sealed = read(b"\x82" + whole[5:])
    header = read(header_bytes)
    name, passes, memory, salt = header["kdf"]
    if name != "argon2id":
        raise Refused("key file")
    key = Argon2id(salt=salt, length=32, iterations=passes, lanes=1, memory_cost=memory // 1024).derive(passphrase)
    secret = xchacha_open(key, header["nonce"], sealed, whole[: 5 + len(write(header_bytes))])
    names = (("ed25519", 32), ("x25519", 32), ("ml_dsa_65", 32), ("ml_kem_768", 64))
    seeds, at = {}, 0
    for seed, length in names:
        seeds[seed], at = secret[at : at + length].hex(), at + length
    keys = SecretHalf(seeds)
    if at != len(secret) or keys.public() != header["public"]:
        raise Refused("key file")
    return header, keys
