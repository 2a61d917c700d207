"""The strategies produce what they promise, so that the comparisons are not about nothing. Needs no C module."""

from __future__ import annotations

from collections import Counter
from functools import partial

from hypothesis import given, seed, settings
from reference import verify

from .forge import FORGERIES
from .strategies import Suspect, distrusted, passports, rearranged
from .values import SETTINGS

# Every reason the specification knows, but "limit" (a 16 MiB entry).
CODES = [
    "jws_parts",
    "b64",
    "jws_header",
    "jws_crit",
    "jws_alg",
    "json",
    "not_canonical",
    "schema",
    "trust_range",
    "kid",
    "duplicate",
    "parent_missing",
    "trust_label",
    "taints",
    "trust_rise",
    "principal",
    "key",
    "key_time",
    "may_not_sanitise",
    "trust_max",
    "signature",
    "tip",
]


@settings(SETTINGS)
@given(passports())
def test_passports_verify(suspect: Suspect) -> None:
    verify.verify(suspect.entries, suspect.keys)


def test_every_reason_to_refuse_is_reached() -> None:
    """Each kind of forgery by itself, so that this does not hang on what a random mixture happens to hold. Which values
    Hypothesis tries also depends on what else is imported, so what was not reached is looked for again."""
    verdicts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    later = 0

    def judge(name: str, suspect: Suspect) -> None:
        nonlocal later
        try:
            verify.verify(suspect.entries, suspect.keys, suspect.chain_tip)
            verdicts["accepted"] += 1
        except verify.BadEntry as bad:
            verdicts[bad.code] += 1
            refused[name] += 1
            later += bool(bad.index)

    kinds = {forgery.__name__: passports(forgeries=[forgery]) for forgery in FORGERIES}
    kinds.update(rearranged=rearranged(), distrusted=distrusted())

    def enough() -> bool:
        return set(CODES) <= set(verdicts) and min(refused[name] for name in kinds) >= 8 and later >= 150

    for attempt in range(12):
        for name, strategy in kinds.items():
            judge_one = partial(judge, name)

            @seed(20250721 + attempt)
            @settings(SETTINGS, max_examples=300 if name == "distrusted" else 40, database=None)
            @given(strategy)
            def collect(suspect: Suspect) -> None:
                judge_one(suspect)

            collect()
        if enough():
            break
    assert [name for name in kinds if refused[name] < 8] == []
    assert set(CODES) <= set(verdicts), sorted(set(CODES) - set(verdicts))
    assert verdicts["accepted"] >= 60
    assert later >= 150  # the first bad entry is often not the first entry
