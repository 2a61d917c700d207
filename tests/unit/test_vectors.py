"""The C module against vectors that no one here wrote: RFC 8785, JSON parsing, Wycheproof.

They are read from the folder that ``KEST_VECTORS`` names and are not part of this tree. Every group is counted, so that
an empty or moved file fails instead of passing with nothing tried.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def vectors() -> Path:
    folder = os.environ.get("KEST_VECTORS")
    if not folder:
        pytest.skip("KEST_VECTORS is not set: it names the folder that holds jcs/, json-parsing/ and wycheproof/")
    assert Path(folder).is_dir(), f"KEST_VECTORS names {folder!r}, which is not a folder"
    return Path(folder)


@pytest.fixture(scope="module")
def kestcore() -> ModuleType:
    module: ModuleType = pytest.importorskip("kest._kestcore", reason="the C module kest._kestcore is not built")
    return module


def wycheproof(vectors: Path, name: str) -> list[dict[str, Any]]:
    """Groups of a file, all of whose tests are there."""
    document = json.loads((vectors / "wycheproof" / name).read_text(encoding="utf-8"))
    groups: list[dict[str, Any]] = document["testGroups"]
    count = sum(len(group["tests"]) for group in groups)
    assert count > 0, f"{name} holds no case"
    assert count == document["numberOfTests"], f"{name} is not complete"
    return groups


# --- RFC 8785 -----------------------------------------------------------------------------------------------------


def test_rfc8785(vectors: Path, kestcore: ModuleType) -> None:
    tried = 0
    for path in sorted((vectors / "jcs" / "input").glob("*.json")):
        expected = bytes.fromhex((vectors / "jcs" / "outhex" / f"{path.stem}.txt").read_text())
        assert (vectors / "jcs" / "output" / path.name).read_bytes() == expected, "the vectors disagree with themselves"
        value = kestcore.parse(path.read_bytes())
        assert kestcore.canonicalize(value) == expected, path.name
        assert kestcore.canonicalize(json.loads(path.read_bytes())) == expected, path.name
        assert kestcore.canonicalize(kestcore.parse(expected)) == expected, path.name
        tried += 1
    assert tried == 6


# --- JSON parsing -------------------------------------------------------------------------------------------------

# Kest is stricter than RFC 8259 here: one value for a key (RFC 7493, 2.3).
DUPLICATE_KEYS = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}
# Of the texts that a reader may take or leave, Kest takes those that only lose precision; it leaves lone surrogates,
# bytes that are not UTF-8, byte order marks, integers without an exact double, overflow and deep nesting.
TAKEN = {"i_number_double_huge_neg_exp.json", "i_number_real_underflow.json"}


def accepts(kestcore: ModuleType, text: bytes) -> bool:
    from kest.errors import JSONSyntaxError

    try:
        kestcore.parse(text)
    except JSONSyntaxError:
        return False
    return True


@pytest.mark.parametrize(("group", "count"), [("y", 95), ("n", 188), ("i", 35)])
def test_json_parsing(vectors: Path, kestcore: ModuleType, group: str, count: int) -> None:
    paths = sorted((vectors / "json-parsing").glob(f"{group}_*.json"))
    assert len(paths) == count
    for path in paths:
        expected = path.name in TAKEN or (group == "y" and path.name not in DUPLICATE_KEYS)
        assert accepts(kestcore, path.read_bytes()) is expected, path.name
        if expected:
            text = kestcore.canonicalize(kestcore.parse(path.read_bytes()))
            assert kestcore.canonicalize(kestcore.parse(text)) == text, path.name


# --- Wycheproof: Ed25519 ------------------------------------------------------------------------------------------


def test_ed25519(vectors: Path, kestcore: ModuleType) -> None:
    tried: Counter[str] = Counter()
    for group in wycheproof(vectors, "ed25519_test.json"):
        assert group["type"] == "EddsaVerify"
        keys = [
            kestcore.PublicKey.from_raw(bytes.fromhex(group["publicKey"]["pk"])),
            kestcore.PublicKey.from_jwk(group["publicKeyJwk"]),
            kestcore.PublicKey.from_pem(group["publicKeyPem"].encode("ascii")),
        ]
        assert {key.alg for key in keys} == {"EdDSA"}
        for test in group["tests"]:
            message, signature = bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"])
            for key in keys:
                assert key.verify(message, signature) is (test["result"] == "valid"), (test["tcId"], test["comment"])
            tried[test["result"]] += 1
    assert tried == {"valid": 88, "invalid": 63}


# --- Wycheproof: JSON Web Signature -------------------------------------------------------------------------------

ALGORITHMS = ("EdDSA", "ES256", "RS256")


def holds(kestcore: ModuleType, key: Any, kid: object, jws: object) -> bool:
    """Whether a compact JWS is one of this key, read with Kest's strict building blocks."""
    from kest.errors import KestError

    parts = jws.split(".") if isinstance(jws, str) else []
    if len(parts) != 3:
        return False
    try:
        head = kestcore.parse(kestcore.b64url_decode(parts[0]))
        kestcore.b64url_decode(parts[1])
        signature = kestcore.b64url_decode(parts[2])
    except (KestError, ValueError):
        return False
    # The key says which algorithm is used, never the header. Only members that are understood.
    if (
        not isinstance(head, dict)
        or head.get("alg") != key.alg
        or head.get("kid") != kid
        or not set(head) <= {"alg", "kid", "typ"}
    ):
        return False
    return bool(key.verify(f"{parts[0]}.{parts[1]}".encode("ascii"), signature))


def supported(jwk: dict[str, Any]) -> bool:
    """A key that Kest verifies with: named for signatures (RFC 7517, 4.2 to 4.4) and for one of its algorithms."""
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        return False
    if jwk["kty"] == "EC" and jwk["crv"] != "P-256":
        return False
    return jwk["kty"] in ("EC", "RSA") and jwk.get("alg", "ES256") in ALGORITHMS


def test_json_web_signature(vectors: Path, kestcore: ModuleType) -> None:
    from kest.errors import KeyFormatError

    tried: Counter[tuple[str, str]] = Counter()
    refused_keys = 0
    for group in wycheproof(vectors, "json_web_signature_test.json"):
        jwk: dict[str, Any] = group["public"] if "public" in group else group["private"]
        if not supported(jwk):  # symmetric, other algorithms, encryption keys: no key of ours, so nothing holds
            with pytest.raises(KeyFormatError):
                kestcore.PublicKey.from_jwk(jwk)
            refused_keys += 1
            continue
        key = kestcore.PublicKey.from_jwk(jwk)
        assert key.alg == jwk["alg"]
        for test in group["tests"]:
            actual = holds(kestcore, key, jwk["kid"], test["jws"])
            assert actual is (test["result"] == "valid"), (test["tcId"], test["comment"])
            tried[jwk["alg"], test["result"]] += 1
    assert tried == {("ES256", "valid"): 2, ("ES256", "invalid"): 37, ("RS256", "valid"): 8, ("RS256", "invalid"): 225}
    assert refused_keys > 10
