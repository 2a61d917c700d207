"""The verifier accepts and refuses what the specification does, and blames the same entry."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from hypothesis import currently_in_test_context, event, given, settings
from reference import entry, verify

from .actors import ALICE, encoded
from .strategies import KeyList, Suspect, passports, suspects
from .values import SETTINGS

Verdict = verify.Facts | tuple[str, int | None]


def trust_store(kest_core: ModuleType, keys: KeyList) -> Any:
    store = kest_core.TrustStore({})
    for principal, infos in keys.items():
        for info in infos:
            store.add(
                principal,
                encoded(info.public_key),
                max_trust=info.max_trust,
                may_sanitise=info.may_sanitise,
                not_before=info.not_before,
                not_after=info.not_after,
            )
    return store


def expected_verdict(suspect: Suspect) -> tuple[Verdict, str]:
    try:
        return verify.verify(suspect.entries, suspect.keys, suspect.chain_tip), "accepted"
    except verify.BadEntry as bad:
        return ("refused", bad.index), bad.code


def kest_verdict(kest_core: ModuleType, passport: object, keys: object, chain_tip: str | None) -> tuple[Verdict, str]:
    """Any other exception is a finding."""
    refusal: type[ValueError] = kest_core.VerificationError
    try:
        v = kest_core.PassportVerifier.verify(passport, keys, chain_tip=chain_tip)
    except refusal as error:
        reason: str = getattr(error, "reason", "")
        index: int | None = getattr(error, "index", -1)
        if not reason:
            raise
        return ("refused", index), reason
    tips = list(v.tips)
    trust = v.trust_score if tips else None  # an empty passport has no score
    return verify.Facts(trust=trust, taints=list(v.taints), tips=tips, principals=sorted(set(v.principals))), "accepted"


def compare(kest_core: ModuleType, suspect: Suspect) -> None:
    expected, code = expected_verdict(suspect)
    actual, reason = kest_verdict(kest_core, suspect.entries, trust_store(kest_core, suspect.keys), suspect.chain_tip)
    if currently_in_test_context():
        event(f"{code}: {reason[:60]}")  # --hypothesis-show-statistics shows which reasons go together
    assert actual == expected, (code, reason)


@settings(SETTINGS)
@given(passports(max_size=12))
def test_valid_passports(kest_core: ModuleType, suspect: Suspect) -> None:
    compare(kest_core, suspect)


@settings(SETTINGS, max_examples=SETTINGS.max_examples * 10)
@given(suspects())
def test_suspect_passports(kest_core: ModuleType, suspect: Suspect) -> None:
    compare(kest_core, suspect)


@settings(SETTINGS)
@given(suspects())
def test_a_passport_object_is_judged_like_its_entries(
    kest_core: ModuleType, errors: ModuleType, suspect: Suspect
) -> None:
    expected, code = expected_verdict(suspect)
    try:
        passport = kest_core.Passport(suspect.entries)
    except errors.KestError:
        assert code != "accepted"
        return
    actual, reason = kest_verdict(kest_core, passport, trust_store(kest_core, suspect.keys), suspect.chain_tip)
    assert actual == expected, (code, reason)


@settings(SETTINGS)
@given(suspects())
def test_a_plain_mapping_is_a_trust_store(kest_core: ModuleType, suspect: Suspect) -> None:
    """With one unrestricted key for each principal, {principal: key} says the same."""
    keys: KeyList = {
        name: [verify.KeyInfo(infos[0].public_key, alg=infos[0].alg)] for name, infos in suspect.keys.items()
    }
    plain = {name: encoded(infos[0].public_key) for name, infos in keys.items()}
    expected, code = expected_verdict(Suspect(suspect.entries, keys, suspect.chain_tip))
    actual, reason = kest_verdict(kest_core, suspect.entries, plain, suspect.chain_tip)
    assert actual == expected, (code, reason)
    actual, reason = kest_verdict(kest_core, suspect.entries, kest_core.TrustStore(plain), suspect.chain_tip)
    assert actual == expected, (code, reason)


def simple_entry(at: int, parents: list[str]) -> str:
    fields: dict[str, Any] = {
        "operation": "op",
        "entry_id": "0192f0c1-7a3b-7c4d-8e5f-0123456789ab",
        "timestamp_ms": at,
    }
    return entry.sign_entry(
        entry.build_payload(principal=ALICE.name, parent_ids=parents, **fields), ALICE.private, ALICE.name
    )


def test_long_chains_blame_the_same_entry(kest_core: ModuleType) -> None:
    """Long enough for several threads; the first of two bad entries wins wherever it stands."""
    entries, parents = [], ["0"]
    for at in range(200):
        entries.append(simple_entry(at, parents))
        parents = [entry.jws_hash(entries[-1])]
    keys: KeyList = {ALICE.name: [ALICE.info()]}
    compare(kest_core, Suspect(entries, keys, parents[0]))
    loose = [simple_entry(at, ["0"]) for at in range(200)]  # roots, so that a bad one breaks no links
    for first in (0, 1, 63, 64, 65, 127, 128, 198):
        for second in (first + 1, 199):
            bad = list(loose)
            bad[first] = bad[first][:-6] + "AAAAAA"
            bad[second] = bad[second].rpartition(".")[0]
            compare(kest_core, Suspect(bad, keys))
            bad[first], bad[second] = loose[first].rpartition(".")[0], loose[second][:-6] + "AAAAAA"
            compare(kest_core, Suspect(bad, keys))
