"""What is drawn: verdicts, outcomes, denials, parents, and the sources they come from."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kest._kestcore import Signer, b64url_encode, canonicalize
from kest.audit import AuditLog
from kest.audit.records import large_pointer
from kest.core import LocalEd25519Provider, TrustStore
from kest.viz import Source, SourceError, SourceRecord, graph_of, read, to_html
from kest.viz.records import read_record
from kest.viz.style import colour_of, label_of, marks_of


def states(graph: Any) -> list[str]:
    return [node.verdict.state for node in graph.nodes]


def altered(jws: str) -> str:
    head, body, signature = jws.split(".")
    return f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def test_a_chain_that_verifies(records: SimpleNamespace, graph: Any) -> None:
    one = records.entry("one")
    two = records.entry("two", one, trust_score=40, taints=["pii"], added_taints=["pii"])
    made = graph(one, two)
    assert states(made) == ["valid", "valid"]
    assert made.edges == [(0, 1)]
    assert (made.nodes[1].trust, made.nodes[1].taints) == (40, ("pii",))
    assert made.nodes[1].principal == "spiffe://kest.test/alice"
    assert states(graph(one, two, keys=None)) == ["unchecked", "unchecked"]


def test_a_bad_signature_and_what_continues_from_it(records: SimpleNamespace, graph: Any) -> None:
    one = records.entry("one")
    bad = altered(records.entry("bad", one))
    child = records.entry("child", bad)
    other = records.entry("other")
    made = graph(one, bad, child, other)
    assert states(made) == ["valid", "invalid", "signature", "valid"]
    assert made.nodes[1].verdict.reason == "the signature does not match"


def test_an_unknown_key_is_told_from_a_bad_one(records: SimpleNamespace, graph: Any) -> None:
    stranger = LocalEd25519Provider("spiffe://elsewhere.example/x", seed=b"x" * 32)
    one = records.entry("one", by=stranger)
    assert states(graph(one, records.entry("two", one))) == ["unknown_key", "signature"]


def test_a_right_signature_over_a_lie_is_not_valid(records: SimpleNamespace, graph: Any) -> None:
    low = records.entry("low", trust_score=10)
    raised = records.entry("raised", low, trust_score=90)  # more than its parent, and no label that says so
    after = records.entry("after", raised, trust_score=90)
    made = graph(low, raised, after, records.entry("sibling", low, trust_score=10))
    assert states(made) == ["valid", "invalid", "signature", "valid"]
    assert "trust" in made.nodes[1].verdict.reason


def test_a_key_whose_time_is_over(records: SimpleNamespace, graph: Any) -> None:
    store = TrustStore()
    store.add(records.alice.get_identity(), records.alice, not_after=5)
    made = graph(records.entry("late"), keys=store)
    assert made.nodes[0].verdict.state == "invalid"


def test_a_parent_that_is_not_there(records: SimpleNamespace, graph: Any) -> None:
    gone = records.entry("gone")
    made = graph(records.entry("child", gone))
    assert [node.kind for node in made.nodes] == ["entry", "absent"]
    assert made.edges == [(1, 0)]
    assert (made.nodes[1].hash, states(made)) == (records.hash_of(gone), ["signature", "unchecked"])


def test_outcomes_and_their_absence(records: SimpleNamespace, graph: Any) -> None:
    one, two, three = (records.entry(name) for name in ("one", "two", "three"))
    made = graph(one, two, three, records.outcome(one), records.outcome(two, "raised"))
    assert [node.outcome.state for node in made.nodes] == ["returned", "raised", "missing"]
    assert (made.nodes[1].outcome.error, made.nodes[1].outcome.verdict.state) == ("builtins.ValueError", "valid")
    # A passport holds no outcomes: nothing is missing there.
    assert graph(one).nodes[0].outcome.state == "unknown"


def test_denials_hang_where_the_call_would_have(records: SimpleNamespace, graph: Any) -> None:
    one = records.entry("one")
    made = graph(one, records.denial("blocked", one))
    denied = made.nodes[1]
    assert (denied.kind, denied.parents, denied.verdict.state) == ("denial", (0,), "valid")
    assert (denied.denial.policy, denied.denial.tier) == ("kest/strict", "app")


def test_duplicates_are_one_node(records: SimpleNamespace, graph: Any) -> None:
    one = records.entry("one")
    made = graph(one, one, one)
    assert (len(made.nodes), made.nodes[0].copies) == (1, 3)


def test_a_flow_that_was_rolled_over_is_one_drawing(records: SimpleNamespace, graph: Any) -> None:
    one = records.entry("one")
    again = records.entry("again", labels={"kest.continues": records.hash_of(one)})
    assert graph(one, again).edges == [(0, 1)]


def test_children_before_their_parents(records: SimpleNamespace, graph: Any) -> None:
    one = records.entry("one")
    two = records.entry("two", one)
    assert states(graph(two, one)) == ["valid", "valid"]


def test_the_newest_are_kept(records: SimpleNamespace, graph: Any) -> None:
    made = graph(*[records.entry(f"call {i}") for i in range(10)], limit=4)
    assert [node.operation for node in made.nodes] == [f"call {i}" for i in range(6, 10)]
    assert made.left_out == 6


def test_many_lies_do_not_take_for_ever(records: SimpleNamespace, graph: Any) -> None:
    low = records.entry("low", trust_score=10)
    made = graph(low, *[records.entry(f"lie {i}", low, trust_score=90) for i in range(400)])
    assert set(states(made)) == {"valid", "invalid", "signature"}
    assert states(made).count("invalid") == 300


def test_anything_that_a_line_may_hold(records: SimpleNamespace, tmp_path: Path) -> None:
    from kest.viz import graph_of, read

    good = records.entry("good")
    lines = [
        json.dumps(good),
        good,
        json.dumps({"kind": "entry", "jws": records.entry("object")}),
        json.dumps({"name": "span", "attributes": {"kest.signature": records.entry("span")}}),
        json.dumps({"operation": "decoded", "parent_ids": ["0"], "trust_score": True, "taints": ["x"]}),
        "",
        "{broken",
        "[1]",
        '"a.b.c"',
        "null",
        "12",
        '{"operation": 1, "parent_ids": []}',
        '{"parent_ids": [[]], "operation": ""}',
        '{"parent_ids": ["0"], "operation": "x", "taints": {"a": 1}}',
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    made = graph_of(read(path), records.store)
    entries = [node for node in made.nodes if node.kind == "entry"]
    assert [node.operation for node in entries] == ["good", "object", "span", "decoded"]
    assert [node.verdict.state for node in entries] == ["valid", "valid", "valid", "unsigned"]
    assert (entries[0].copies, entries[3].trust) == (2, None)
    assert sum(node.kind == "broken" for node in made.nodes) == 8
    assert made.nodes[4].origin == "line 7"


def test_passports_and_what_inspect_prints(
    records: SimpleNamespace, passport_file: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from kest.cli.main import main
    from kest.viz import graph_of, read

    one = records.entry("one")
    path = passport_file([one, records.entry("two", one), 7])
    made = graph_of(read(path), records.store)
    assert [node.kind for node in made.nodes] == ["entry", "entry", "broken"]
    assert main(["inspect", path, "--json", "--full"]) == 0
    inspected = tmp_path / "inspected.json"
    inspected.write_text(capsys.readouterr().out, encoding="utf-8")
    assert states(graph_of(read(inspected), records.store))[:2] == ["valid", "valid"]


@pytest.mark.parametrize("data", [b"[1,", b"\0\1\2", b"[" * 100_000])
def test_files_that_hold_nothing(tmp_path: Path, data: bytes) -> None:
    from kest.viz import SourceError, read

    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(SourceError):
        read(path)
    with pytest.raises(SourceError, match="cannot read"):
        read(tmp_path / "none")
    with pytest.raises(SourceError, match="folder"):
        read(tmp_path)


def test_another_kind_of_source_is_one_loader(
    records: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kest.viz import LOADERS, Loader, Source, SourceRecord, graph_of, read

    one = records.entry("one")
    loader = Loader(
        "logs",
        lambda path, head: path.suffix == ".log",
        lambda path: Source([SourceRecord(one, verdict=("invalid", "signed after revocation"))], outcomes=True),
    )
    monkeypatch.setattr("kest.viz.sources.LOADERS", [loader, *LOADERS])
    path = tmp_path / "x.log"
    path.write_bytes(b"\0")
    node = graph_of(read(path), records.store).nodes[0]
    assert (node.verdict.state, node.verdict.reason, node.outcome.state) == (
        "invalid",
        "signed after revocation",
        "missing",
    )


def test_an_outcome_by_somebody_else_does_not_count_as_one(records: SimpleNamespace, graph: Any) -> None:
    mallory = LocalEd25519Provider("spiffe://kest.test/mallory", seed=b"m" * 32)
    store = TrustStore(
        {**dict.fromkeys([records.alice.get_identity()], records.alice), mallory.get_identity(): mallory}
    )
    one = records.entry("one")
    forged = records.outcome(one, by=mallory)
    alone = graph(one, forged, keys=store).nodes[0].outcome
    assert (alone.verdict.state, alone.verdict.reason) == ("invalid", "it is signed by another than its call")
    both = graph(one, forged, records.outcome(one, "raised"), keys=store).nodes[0].outcome
    assert (both.state, both.verdict.state) == ("raised", "valid")


def test_what_claims_to_stand_for_an_entry_does_not_hide_it(records: SimpleNamespace, graph: Any) -> None:
    from kest._kestcore import canonicalize

    one = records.entry("one")
    payload = {
        "entry_hash": records.hash_of(one),
        "operation": "fake",
        "parent_ids": ["0"],
        "principal": records.alice.get_identity(),
        "record": "intent",
    }
    intent = records.alice.signer.sign_jws(canonicalize(payload), "kest-intent+jws")
    made = graph(intent, one, records.entry("child", one))
    assert [node.operation for node in made.nodes] == ["fake", "one", "child"]
    assert made.edges == [(1, 2)]
    assert graph(intent, records.entry("child", one)).edges == [(0, 1)]


def test_intents_that_stand_for_each_other_are_drawn(records: SimpleNamespace) -> None:
    """A cycle of hashes cannot be made; one of claims can."""
    from kest.viz import Source, SourceRecord, graph_of, to_html

    def claim(own: str, parent: str) -> SourceRecord:
        return SourceRecord(payload={"record": "intent", "entry_hash": own, "operation": own, "parent_ids": [parent]})

    made = graph_of(Source([claim("a", "b"), claim("b", "a"), claim("c", "c"), claim("d", "a")]))
    assert sorted(made.edges) == [(0, 1), (0, 3), (1, 0), (4, 2)]
    assert to_html(made)


def test_what_is_left_out_was_verified_all_the_same(records: SimpleNamespace, graph: Any) -> None:
    one = records.entry("one")
    made = graph(one, records.entry("two", one), limit=1)
    assert [node.kind for node in made.nodes] == ["entry", "absent"]
    assert made.nodes[0].verdict.state == "valid"


def test_parents_without_number_are_not_drawn_without_number() -> None:
    from kest.viz import Source, SourceRecord, graph_of

    record = SourceRecord(payload={"operation": "x", "parent_ids": [f"{i:064x}" for i in range(100_000)]})
    assert len(graph_of(Source([record]), limit=50).nodes) == 51


# --- what cannot be drawn ---


def test_a_pipe_is_read_once(records: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(json.dumps([records.entry("one")]),), daemon=True)
    writer.start()
    source = read(path)
    writer.join(30)
    assert [record.origin for record in source.records] == ["entry 0"]


def test_more_than_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kest.viz.sources.MAX_BYTES", 4)
    path = tmp_path / "passport.json"
    path.write_text("[   ]")
    with pytest.raises(SourceError, match="more than can be drawn"):
        read(path)
    path.write_text("[  ]")
    assert read(path).records == []


def test_records_that_say_nothing() -> None:
    lists = f"{b64url_encode(b'[]')}.{b64url_encode(b'[]')}.AA"
    why = [
        read_record(record).why
        for record in (SourceRecord(), SourceRecord(lists), SourceRecord(broken="torn"), SourceRecord("a.b"))
    ]
    assert why[:3] == [
        "neither a signed record nor a decoded one",
        "header and payload of a record are JSON objects",
        "torn",
    ]
    assert why[3]
    made = graph_of(Source([SourceRecord(lists, origin="line 1")]))
    (node,) = made.nodes
    assert (node.kind, label_of(node), marks_of(node)) == ("broken", "unreadable record", ["unreadable"])
    assert "header and payload of a record are JSON objects" in to_html(made)


def test_names_that_are_not_the_signers(records: SimpleNamespace, graph: Any) -> None:
    payload = {
        "operation": "o", "parent_ids": ["0"], "policy": "p", "principal": "spiffe://kest.test/bob", "reason": "r",
        "record": "denial", "taints": [], "tier": "app", "timestamp_ms": 1, "trust_score": 10,
    }  # fmt: skip
    made = graph(records.alice.signer.sign_jws(canonicalize(payload), "kest-denial+jws"))
    assert made.nodes[0].verdict.state == "invalid"
    assert "is not that of the principal" in made.nodes[0].verdict.reason


def test_marks_of_what_nobody_vouches_for(records: SimpleNamespace, graph: Any) -> None:
    stranger = LocalEd25519Provider("spiffe://elsewhere.example/x", seed=b"x" * 32)
    one, two = records.entry("one", by=stranger), records.entry("two")
    made = graph(one, two, records.outcome(two, by=stranger))
    assert marks_of(made.nodes[0])[0] == "unknown key"
    assert "outcome not verified" in marks_of(made.nodes[1])
    assert colour_of(made.nodes[0]) == "absent"


def test_an_audit_log_without_its_key_that_holds_odd_records(tmp_path: Path) -> None:
    pointer = large_pointer(b"x" * 70_000)[1].decode()
    with AuditLog(tmp_path / "log", Signer("log.kest.test/viz", bytes(32))) as log:
        log.append(pointer)
    broken = [record.broken for record in read(tmp_path / "log").records if record.broken]
    assert broken == ["kept beside the log, and missing there"]
