"""What is fired: each probe is one request, after a row of the threat list in ``docs/doctor.md``."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from kest._kestcore import b64url_decode, b64url_encode
from kest.doctor.forge import Forger, hash_of, header_of, inline
from kest.errors import KestError

__all__ = ["GROUPS", "Headers", "Probe", "probes"]

Headers = list[tuple[bytes, bytes]]

GROUPS = ("lineage", "caller", "token", "resource")


@dataclass(frozen=True)
class Probe:
    """One request.

    Attributes:
        row: of the threat list, such as ``A1``.
        name: what is sent, in words.
        group: one of `GROUPS`.
        headers: that it has besides those of an honest request.
        marker: what an application that believes it would know: a name that stands nowhere else.
        harmless: there is nothing in it to believe; it must only not hurt, and may be served.
    """

    row: str
    name: str
    group: str
    headers: Headers
    marker: str = ""
    harmless: bool = False


def probes(forger: Forger, token: str | None = None) -> Iterator[Probe]:
    """All of them; with a valid token, also what can be made of it."""
    for made in (_signatures, _forms, _chains, _carriers):
        for row, name, value in made(forger):
            yield Probe(
                row, name, "lineage", [(b"baggage", line) for line in (value if isinstance(value, list) else [value])]
            )
    yield from _callers(forger)
    yield from _tokens(forger)
    if token is not None and token.count(".") == 2:
        yield from _altered_tokens(token)
    for row, name, value in _sizes(forger):
        yield Probe(row, name, "resource", [(b"baggage", value)])
    many = b",".join(b"kest.x%d=1" % number for number in range(5000))
    yield Probe("E1", "5,000 baggage members", "resource", [(b"baggage", many)], harmless=True)


_Made = Iterator[tuple[str, str, "bytes | list[bytes]"]]


def _signatures(f: Forger) -> _Made:
    good = f.entry()
    head, _, signature = good.split(".")
    other = b64url_encode(f.body(operation="another.operation"))
    turned = ("B" if signature[0] == "A" else "A") + signature[1:]
    yield "A1", "an entry without signature", inline([f.unsigned("EdDSA")])
    yield "A1", "an entry with alg none", inline([f.unsigned("none")])
    yield "A1", "an entry with alg none and a signature", inline([f.signed(f.body(), f.header(alg="None"))])
    yield "A1", "an entry with HS256 over the public key", inline([f.mac()])
    yield "A1", "an entry by the computable key of a mock identity", inline([f.mock()])
    yield "A1", "an entry by another key under a name that is not its own", inline([f.signed(f.body(), signer=f.thief)])
    yield "A1", "an entry whose payload was exchanged", inline([f"{head}.{other}.{signature}"])
    yield "A1", "an entry whose signature was changed", inline([f"{good.rpartition('.')[0]}.{turned}"])
    yield "A1", "an entry of two parts", inline([good.rpartition(".")[0]])
    yield "A1", "an entry of four parts", inline([f"{good}.{signature}"])
    chain = f.chain(2)
    chain.append(f.signed(f.body(chain[-1]), signer=f.thief))
    yield "A1", "a forged last entry after others", inline(chain)
    stranger = Forger(None, f"spiffe://kest.invalid/{uuid.uuid4().hex}")
    yield "A2", "an entry of a principal that nobody knows", inline([stranger.entry()])
    yield "A2", "a kid that is not the principal", inline([f.signed(f.body(), f.header(kid="spiffe://kest.invalid/x"))])
    payload = f.payload(labels={}, principal=f.principal)
    yield (
        "A2",
        "a principal outside labels",
        inline([f.signed(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode())]),
    )
    x5c = ["MIIBAzCBtqADAgECAgEBMAUGAytlcDAAMB4XDTI0MDEwMTAwMDAwMFo="]
    yield "A6", "a certificate chain that proves nothing", inline([f.signed(f.body(), f.header(x5c=x5c), f.thief)])


def _forms(f: Forger) -> _Made:
    body = f.body()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(f.thief.public_key)}
    yield "A3", "a crit header", inline([f.signed(body, f.header(crit=["b64"], b64=False))])
    yield "A3", "a header that brings its own key (jwk)", inline([f.signed(body, f.header(jwk=jwk), f.thief)])
    yield (
        "A3",
        "a header that says where its key is (jku)",
        inline([f.signed(body, f.header(jku="https://kest.invalid/"), f.thief)]),
    )
    yield "A3", "a duplicate JSON key", inline([f.signed(body[:-1] + b',"trust_score":100}')])
    yield "A3", "data after the payload", inline([f.signed(body + b"{}")])
    yield "A3", "base64 with padding", inline([f.entry() + "=="])
    yield (
        "A3",
        "an over-long integer",
        inline([f.signed(body.replace(b'"trust_score":100', b'"trust_score":1' + b"0" * 400))]),
    )
    nested = body.replace(b'"environment":{}', b'"environment":' + b"[" * 900 + b"]" * 900)
    yield "A3", "a payload nested 900 deep", inline([f.signed(nested)])
    yield "A3", "a payload that is not UTF-8", inline([f.signed(body.replace(b"kest.doctor", b"\xff\xfe"))])
    yield "A3", "a lone surrogate", inline([f.signed(body.replace(b"kest.doctor", b"\\ud800"))])
    yield "A5", "a trust of 101", inline([f.signed(body.replace(b'"trust_score":100', b'"trust_score":101'))])
    yield (
        "A5",
        "a trust that is a string",
        inline([f.signed(body.replace(b'"trust_score":100', b'"trust_score":"100"'))]),
    )
    low = f.entry(trust_score=10)
    yield "A5", "a trust above that of its parent", inline([low, f.entry(low, trust_score=90)])
    tainted = f.entry(added_taints=["pii"], taints=["pii"])
    yield "A5", "a taint that vanishes", inline([tainted, f.entry(tainted)])


def _chains(f: Forger) -> _Made:
    entries, other = f.chain(3), f.chain(1)
    yield "A4", "a chain without its first entry", inline(entries[1:])
    yield "A4", "a chain without a middle entry", inline([entries[0], entries[2]])
    yield "A4", "a chain in the wrong order", inline([entries[1], entries[0], entries[2]])
    yield "A4", "an entry that stands twice", inline([*entries, entries[-1]])
    yield "A4", "a chain whose end was cut off (another chain tip)", inline(entries[:2], hash_of(entries[2]))
    yield "A4", "entries that the tip does not descend from", inline([*other, *entries], hash_of(entries[-1]))
    yield "A7", "a chain tip that is no hash", inline(entries, "x" * 64)
    yield "A7", "a chain tip in upper case", inline(entries, hash_of(entries[-1]).upper())
    yield "A7", "a chain tip alone", header_of({"kest.chain_tip": "a" * 64})


def _carriers(f: Forger) -> _Made:
    one, two = f.chain(2)
    packed = b64url_encode(zlib.compress(json.dumps([one]).encode()))
    tip = hash_of(one)
    yield "B3", "a passport that is not JSON", header_of({"kest.passport": "[truncated", "kest.chain_tip": tip})
    yield "B3", "a passport of the wrong type", header_of({"kest.passport": '{"entries": 1}', "kest.chain_tip": tip})
    yield (
        "B3",
        "a compressed passport cut in half",
        header_of({"kest.passport_z": packed[: len(packed) // 2], "kest.chain_tip": tip}),
    )
    yield "B3", "a compressed passport that is not zlib", header_of({"kest.passport_z": "AAAA", "kest.chain_tip": tip})
    yield "B3", "the same member twice, with different values", inline([one]) + b"," + inline([two])
    yield "B3", "two baggage headers of different passports", [inline([one]), inline([one, two])]
    yield "B3", "a member that is not UTF-8", b"kest.passport=%ff%fe\xff,kest.chain_tip=" + tip.encode()
    claim = str(uuid.uuid4())
    yield "B3", "a claim check that was never issued", header_of({"kest.claim_check": claim, "kest.chain_tip": tip})
    yield "B3", "a claim check without a chain tip", header_of({"kest.claim_check": claim})
    yield (
        "B3",
        "a claim check that is a path",
        header_of({"kest.claim_check": "../../etc/passwd", "kest.chain_tip": tip}),
    )
    yield (
        "B3",
        "a claim check in place of the passport of another tip",
        header_of({"kest.passport": json.dumps([one]), "kest.claim_check": claim, "kest.chain_tip": hash_of(two)}),
    )


def _callers(f: Forger) -> Iterator[Probe]:
    def probe(row: str, name: str, make: Callable[[str], Headers]) -> Probe:
        marker = f"doctor-{uuid.uuid4().hex[:12]}"
        return Probe(row, name, "caller", make(marker), marker)

    for member in ("user", "agent", "task"):
        yield probe("D1", f"kest.{member} that no entry says", partial(_baggage_of, f"kest.{member}"))
    yield probe("D1", "kest.jwt in baggage", lambda marker: _baggage_of("kest.jwt", f.token(marker)))
    for header in ("X-Principal-Id", "X-User", "X-Forwarded-User", "X-Remote-User", "X-Kest-User"):
        yield probe("D1", f"{header} from outside", partial(_header_of, header))


def _baggage_of(member: str, value: str) -> Headers:
    return [(b"baggage", header_of({member: value}))]


def _header_of(name: str, value: str) -> Headers:
    return [(name.lower().encode(), value.encode())]


def _tokens(f: Forger) -> Iterator[Probe]:
    def probe(name: str, make: Callable[[str], list[str]]) -> Probe:
        marker = f"doctor-{uuid.uuid4().hex[:12]}"
        return Probe(
            "D2", name, "token", [(b"authorization", f"Bearer {one}".encode()) for one in make(marker)], marker
        )

    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(f.thief.public_key)}
    yield probe("a token that is none", lambda m: [m])
    yield probe("a JWT with alg none", lambda m: [f.token(m, {"alg": "none"})])
    yield probe("a JWT with alg nOnE", lambda m: [f.token(m, {"alg": "nOnE"})])
    yield probe("a JWT by an unknown key", lambda m: [f.token(m)])
    yield probe("a JWT with HS256 and the secret 'secret'", lambda m: [f.token(m, secret=b"secret")])
    yield probe("a JWT with HS256 and an empty secret", lambda m: [f.token(m, secret=b"")])
    yield probe("a JWT that brings its own key (jwk)", lambda m: [f.token(m, {"jwk": jwk})])
    yield probe("a JWT that says where its key is (jku)", lambda m: [f.token(m, {"jku": "https://kest.invalid/jwks"})])
    yield probe("an expired JWT", lambda m: [f.token(m, exp=1)])
    yield probe("a JWT without exp", lambda m: [f.token(m, exp=None)])
    yield probe("a JWT that is not valid yet", lambda m: [f.token(m, nbf=1 << 33)])
    yield probe("two Authorization headers", lambda m: [f.token(m), f.token(m, exp=1)])


def _altered_tokens(token: str) -> Iterator[Probe]:
    head, body, signature = token.split(".")
    marker = f"doctor-{uuid.uuid4().hex[:12]}"
    claims = _claims(body)
    other = b64url_encode(json.dumps({**claims, "sub": marker, "client_id": marker}).encode())
    none = b64url_encode(b'{"alg":"none","typ":"JWT"}')
    turned = ("B" if signature[:1] == "A" else "A") + signature[1:]
    made = {
        "the token, its signature cut off": f"{head}.{body}.",
        "the token, its signature changed": f"{head}.{body}.{turned}",
        "the token, for another user": f"{head}.{other}.{signature}",
        "the token, with alg none": f"{none}.{body}.",
        "the token, with alg none, for another user": f"{none}.{other}.",
    }
    for name, text in made.items():
        yield Probe("D2", name, "token", [(b"authorization", f"Bearer {text}".encode())], marker)


def _claims(body: str) -> dict[str, object]:
    try:
        claims = json.loads(b64url_decode(body))
    except (KestError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _sizes(f: Forger) -> Iterator[tuple[str, str, bytes]]:
    tip = "a" * 64

    def packed(data: bytes) -> bytes:
        return header_of({"kest.passport_z": b64url_encode(zlib.compress(data, 9)), "kest.chain_tip": tip})

    yield "E1", "a zip bomb of 4 MB", packed(b"[" + b'"' + b"A" * (4 << 20) + b'"]')
    yield "E1", "400,000 tiny entries, compressed", packed(b"[" + b'"",' * 400_000 + b'""]')
    yield "E1", "a baggage header of 60 kB", header_of({"kest.passport": "A" * 60_000, "kest.chain_tip": tip})
