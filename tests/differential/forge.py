"""Ways to go wrong with one entry. Each takes a draft before it is signed and makes (perhaps) something bad of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from reference import b64, canonical, entry, schema

from .actors import ACTORS, STRANGER, Actor
from .values import texts


@dataclass
class Draft:
    """An entry before signing; a raw text, where set, is signed instead of the canonical form of its object."""

    actor: Actor
    header: Any
    payload: Any
    earlier: Sequence[str]  # hashes of the entries before it
    raw_header: bytes | None = None
    raw_payload: bytes | None = None
    finish: Callable[[str], str] = field(default=lambda jws: jws)

    def build(self) -> str:
        head = canonical.canonicalize(self.header) if self.raw_header is None else self.raw_header
        body = canonical.canonicalize(self.payload) if self.raw_payload is None else self.raw_payload
        return self.finish(entry.sign_raw(head, body, self.actor.private))


HASHES = ["a" * 64, "A" * 64, "a" * 63, "a" * 65, "0", "", "g" * 64, "0" * 64]
ODD_VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        100,
        101,
        0.5,
        1e30,
        canonical.MAX_INT,
        "",
        "0",
        "1",
        "100",
        "x",
        [],
        [""],
        ["a"],
        ["b", "a"],
    ),
    *(
        ["a", "a"],
        [1],
        [None],
        [[]],
        {},
        {"a": 1},
        {"a": "b"},
        {"principal": ""},
        {"name": "x", "version": "y"},
        {"name": 1},
    ),
    *(
        "0.3.0",
        "0.3.1",
        "system",
        "sanitizer",
        "System",
        ["0"],
        ["0", "0"],
        [HASHES[0]],
        [HASHES[1]],
        HASHES[0],
        HASHES[1],
    ),
    *(
        "0192f0c1-7a3b-7c4d-8e5f-0123456789ab",
        "0192F0C1-7A3B-7C4D-8E5F-0123456789AB",
        "0192f0c1-7a3b-4c4d-8e5f-0123456789ab",
    ),
    *(
        "0192f0c1-7a3b-7c4d-ce5f-0123456789ab",
        "0192f0c17a3b7c4d8e5f0123456789ab",
        "0192f0c1-7a3b-7c4d-8e5f-0123456789ab\n",
    ),
    *(["\U0001f600", "\ue000"], ["\ue000", "\U0001f600"]),  # UTF-16 order, code point order
]


def any_member(draw: st.DrawFn, d: Draft) -> None:
    d.payload[draw(st.sampled_from(sorted(schema.MEMBERS)))] = draw(st.sampled_from(ODD_VALUES))


NEAR_MISSES: dict[str, list[Any]] = {
    "schema_version": ["0.3", "0.3.0 ", "0.4.0", "0.2.0", 3],
    "runtime": [
        {"name": "other", "version": ""},
        {"name": "x"},
        {"name": 1, "version": "0.3.0"},
        {"name": "", "version": "", "x": ""},
    ],
    "entry_id": [
        *(
            "0192f0c1-7a3b-7c4d-ce5f-0123456789ab",
            "0192f0c1-7a3b-7c4d-7e5f-0123456789ab",
            "0192f0c1-7a3b-7c4d-be5f-0123456789ab",
        ),
        *(
            "0192f0c1-7a3b-8c4d-8e5f-0123456789ab",
            "0192f0c1-7a3b-7C4d-8e5f-0123456789ab",
            "0192f0c1+7a3b-7c4d-8e5f-0123456789ab",
        ),
    ],
    "classification": ["SYSTEM", "sanitiser", "snapshot", ""],
    "input_hash": ["0" * 63, "0" * 64, "0" * 65, "A" + "0" * 63, "0" * 63 + "g", "0" * 63 + "\n"],
    "timestamp_ms": [-1, 0, True, 0.5, canonical.MAX_INT, "1", None],
    "trust_score": [-1, 0, 100, 101, True, False, 0.5, None, "100", 356, 2**32, canonical.MAX_INT],
    "labels": [{"principal": ""}, {"principal": "", "x": "y"}],
    "environment": [[], None, {"": ""}],
    "otel_context": [[], None, {"a": None}],
    "metadata": [{}, [], "", False, 0],
    "content_hash": [None, "0", "0" * 64],
}


def near_miss(draw: st.DrawFn, d: Draft) -> None:
    name = draw(st.sampled_from(sorted(NEAR_MISSES)))
    d.payload[name] = draw(st.sampled_from(NEAR_MISSES[name]))
    if name == "labels":
        d.header["kid"] = d.payload["labels"]["principal"]


def missing_or_extra(draw: st.DrawFn, d: Draft) -> None:
    if draw(st.booleans()):
        del d.payload[draw(st.sampled_from(sorted(schema.MEMBERS)))]
    else:
        d.payload[draw(st.one_of(st.sampled_from(["zz", "principal", "Taints", ""]), texts))] = draw(
            st.sampled_from(ODD_VALUES)
        )


def trust_score(draw: st.DrawFn, d: Draft) -> None:
    d.payload["trust_score"] = draw(st.one_of(st.integers(0, 100), st.sampled_from([-1, 101, True, 99.5, "50", None])))
    if draw(st.booleans()):
        d.payload["labels"][entry.OVERRIDE_LABEL] = str(d.payload["trust_score"])


def rise(draw: st.DrawFn, d: Draft) -> None:
    """A little or a lot more trust, with nothing that says so (a root may)."""
    score = d.payload["trust_score"]
    d.payload["trust_score"] = draw(st.sampled_from([100, min(100, score + 1)]))
    d.payload["labels"].pop(entry.OVERRIDE_LABEL, None)


def mislabel(draw: st.DrawFn, d: Draft) -> None:
    """An override that is not the decimal text of the score."""
    score = d.payload["trust_score"]
    options = ["", f"0{score}", f" {score}", f"+{score}", f"{score}.0", str(score + 1), str(score), "-0", "true"]
    d.payload["labels"][entry.OVERRIDE_LABEL] = draw(st.sampled_from(options))


def impersonate(draw: st.DrawFn, d: Draft) -> None:
    """The header names one principal, the payload another."""
    other = draw(st.sampled_from([*(a.name for a in (*ACTORS, STRANGER) if a != d.actor), "", d.actor.name + " "]))
    if draw(st.booleans()):
        d.header["kid"] = other
    else:
        d.payload["labels"]["principal"] = other


def labels(draw: st.DrawFn, d: Draft) -> None:
    name = draw(st.sampled_from(["principal", entry.OVERRIDE_LABEL, "kest.continues", "trace_id", "x", ""]))
    score = str(d.payload["trust_score"])
    values: list[Any] = [
        "",
        score,
        "0" + score,
        " " + score,
        "+" + score,
        "100",
        STRANGER.name,
        ACTORS[0].name,
        None,
        1,
        [],
    ]
    d.payload["labels"][name] = draw(st.sampled_from(values))
    if name == "principal" and draw(st.booleans()):
        d.header["kid"] = d.payload["labels"][name]  # consistent, but signed by somebody else


def taints(draw: st.DrawFn, d: Draft) -> None:
    name = draw(st.sampled_from(["taints", "added_taints", "removed_taints"]))
    pool = d.payload["taints"] + d.payload["removed_taints"] + ["a", "z", "\ue000", "\U0001f600", ""]
    chosen = draw(st.lists(st.sampled_from(pool), max_size=4))
    d.payload[name] = sorted(set(chosen) - {""}) if draw(st.booleans()) else chosen


def disorder(draw: st.DrawFn, d: Draft) -> None:
    """Consistent but for the order, or an empty or doubled taint; two of these are fine."""
    options = [["y", "x"], ["x", "x"], [""], ["", "x"], ["\U0001f600", "\ue000"], ["\ue000", "\U0001f600"], ["x", "y"]]
    chosen = draw(st.sampled_from(options))
    if draw(st.booleans()):
        d.payload["removed_taints"] = chosen
        d.payload["taints"] = [taint for taint in d.payload["taints"] if taint not in chosen]
    else:
        d.payload.update(removed_taints=[], added_taints=chosen, taints=sorted({*d.payload["taints"], *chosen}))


def parents(draw: st.DrawFn, d: Draft) -> None:
    now = list(d.payload["parent_ids"])
    known = draw(st.sampled_from([*d.earlier, "b" * 64]))
    odd = draw(st.sampled_from(HASHES))
    options = [[known], [*now, known], [*now, odd], [odd], [], [*now, *now], now[1:], now[::-1], ["0"], [known.upper()]]
    d.payload["parent_ids"] = draw(st.sampled_from(options))


def policy_context(draw: st.DrawFn, d: Draft) -> None:
    good = {"policy": "p", "tier": "app", "reason": "r", "approver": "a"}
    context = {**d.payload["policy_context"]}
    name = draw(st.sampled_from([*entry.TIERS, "deviations", "extra"]))
    bad = [{**good, "policy": 1}, {**good, "x": ""}, {"policy": "p"}]
    context[name] = draw(
        st.sampled_from([[], ["p"], [""], ["p", "p"], "p", None, {}, [1], [good], [good, good], *([b] for b in bad)])
    )
    if draw(st.integers(0, 3)) == 0:
        del context[name]
    d.payload["policy_context"] = context


def header(draw: st.DrawFn, d: Draft) -> None:
    changes: list[dict[str, Any]] = [
        *({"alg": alg} for alg in ("none", "HS256", "ES256", "RS256", "EdDSA", "eddsa", "PS256", "", None, 1)),
        *({"typ": typ} for typ in ("JWT", "jws", "", None, "kest-outcome+jws")),
        *({"kid": kid} for kid in ("", None, STRANGER.name, ACTORS[0].name, 1)),
        *({"x5c": x5c} for x5c in (["MIIB"], ["MIIB", "MIIC"], [], [1], "MIIB", None)),
        *({name: ""} for name in ("jwk", "jku", "x5u", "b64", "zip", "cty", "")),
    ]
    d.header.update(draw(st.sampled_from(changes)))
    if draw(st.integers(0, 5)) == 0:
        del d.header[draw(st.sampled_from(["alg", "kid", "typ"]))]


def respell(draw: st.DrawFn, value: Any) -> bytes:
    """Another text for (nearly) the same object."""
    text = canonical.canonicalize(value)
    members = sorted(value)
    name = json.dumps(draw(st.sampled_from(members))).encode() if members else b'"a"'
    options = [
        *(
            text + b" ",
            b"\n" + text,
            text + b"{}",
            b"\xef\xbb\xbf" + text,
            text[:-1],
            text + b"\x00",
            b"",
            b"[]",
            b"null",
            b"\xff",
        ),
        *(
            text.replace(b":", b": ", 1),
            text.replace(b",", b", ", 1),
            b"{" + name + b":0," + text[1:],
            text[:-1] + b"," + name + b":0}",
        ),
        *(
            text.replace(b'"a', b'"\\u0061', 1),
            text.replace(b"100", b"1e2", 1),
            text.replace(b"100", b"100.0", 1),
            text.replace(b"0", b"-0", 1),
        ),
        *(
            text.replace(b":[]", b":[],", 1),
            text.replace(b"s", b"\xed\xa0\x80", 1),
            text.replace(b"s", b"\\ud800", 1),
            text[:-1] + b",}",
        ),
        json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode("utf-8"),
        json.dumps(dict(reversed(list(value.items()))), ensure_ascii=False, separators=(",", ":")).encode("utf-8"),
        text[:1] + b'"zz":' + b"[" * 64 + b"]" * 64 + b"," + text[1:],
    ]
    return draw(st.sampled_from(options))


def critical(draw: st.DrawFn, d: Draft) -> None:
    """RFC 7515, 4.1.11: what must be understood is refused, since nothing is."""
    d.header["crit"] = draw(st.sampled_from([[], ["b64"], ["exp"], "b64", None, ["alg"]]))


def raw_header(draw: st.DrawFn, d: Draft) -> None:
    d.raw_header = respell(draw, d.header)


def raw_payload(draw: st.DrawFn, d: Draft) -> None:
    d.raw_payload = respell(draw, d.payload)


def signer(draw: st.DrawFn, d: Draft) -> None:
    """Signed by somebody else, perhaps with the same algorithm, perhaps saying so in the header."""
    d.actor = draw(st.sampled_from([a for a in (*ACTORS, STRANGER, Actor(d.actor.name, "EdDSA", 1)) if a != d.actor]))
    if draw(st.booleans()):
        d.header["alg"] = d.actor.alg


def signature(draw: st.DrawFn, d: Draft) -> None:
    kind = draw(st.sampled_from(["empty", "zero", "short", "long", "flip", "der", "double"]))
    at = draw(st.integers(0, 63))

    def finish(jws: str) -> str:
        front, _, last = jws.rpartition(".")
        s = b64.decode(last)
        flipped = bytearray(s)
        flipped[at] ^= 1 << at % 8
        changed = {
            **{
                "empty": b"",
                "zero": bytes(len(s)),
                "short": s[:-1],
                "long": s + b"\0",
                "flip": bytes(flipped),
                "double": s + s,
            },
            "der": b"\x30\x44\x02\x20" + s[:32] + b"\x02\x20" + s[32:64],
        }[kind]
        return front + "." + b64.encode(changed)

    d.finish = finish


def text(draw: st.DrawFn, d: Draft) -> None:
    where = draw(st.integers(0, 1 << 20))
    piece = draw(st.sampled_from(["", "A", "=", ".", "_", " ", "\n", "é", "\x00", "+", "A.", "\U0001f600"]))
    gone = draw(st.integers(0, 2))

    def finish(jws: str) -> str:
        at = where % (len(jws) + 1)
        return jws[:at] + piece + jws[at + gone :]

    d.finish = finish


def parts(draw: st.DrawFn, d: Draft) -> None:
    order = draw(
        st.sampled_from(
            ["", "h", "hp", "hps.", ".hps", "hpss", "phs", "h.s", "..s", "hp.", "h=ps", "hps=", "hps\n", "bits"]
        )
    )

    def finish(jws: str) -> str:
        h, p, s = jws.split(".")
        table = {
            **{
                "": "",
                "h": h,
                "hp": f"{h}.{p}",
                "hps.": f"{jws}.",
                ".hps": f".{jws}",
                "hpss": f"{jws}.{s}",
                "phs": f"{p}.{h}.{s}",
            },
            **{
                "h.s": f"{h}..{s}",
                "..s": f"..{s}",
                "hp.": f"{h}.{p}.",
                "h=ps": f"{h}=.{p}.{s}",
                "hps=": f"{jws}==",
                "hps\n": f"{jws}\n",
            },
            "bits": jws[:-1] + "AQgwBCDE"[len(jws) % 8],  # unused bits of the last character, where there are any
        }
        return table[order]

    d.finish = finish


Forgery = Callable[[st.DrawFn, Draft], None]
FORGERIES: list[Forgery] = [
    *(
        any_member,
        near_miss,
        near_miss,
        missing_or_extra,
        trust_score,
        labels,
        taints,
        disorder,
        parents,
        policy_context,
    ),
    *(rise, mislabel, impersonate, critical, header, raw_header, raw_payload, signer, signature, text, parts),
]
