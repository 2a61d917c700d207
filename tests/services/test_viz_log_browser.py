"""The page drawn of an audit log in a real Chromium: denials, calls without an outcome, redacted fields, revoked keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import Page, browsing, installed

from kest._kestcore import Signer, sha256
from kest.audit import AuditLog, Redaction, key_event
from kest.core import (
    KestEntry,
    LocalEd25519Provider,
    MockPolicyEngine,
    TrustStore,
    configure,
    kest_verified,
    sign_entry,
)
from kest.core.context import lineage
from kest.errors import PolicyDeniedError
from kest.viz import graph_of, read, to_html

SERVICE = LocalEd25519Provider("spiffe://example.org/orders", seed=b"a" * 32)
AGENT = LocalEd25519Provider("spiffe://example.org/agent", seed=b"b" * 32)
OLD = LocalEd25519Provider("spiffe://example.org/batch", seed=b"c" * 32)
NEW = LocalEd25519Provider("spiffe://example.org/batch", seed=b"d" * 32)

pytestmark = pytest.mark.skipif(installed() is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("viz-log")
    log = _log(folder)
    store = TrustStore({SERVICE.get_identity(): SERVICE, AGENT.get_identity(): AGENT, OLD.get_identity(): OLD})
    page_file = folder / "log.html"
    page_file.write_text(to_html(graph_of(read(log.path, log.key, store), store), "Lineage of audit"), encoding="utf-8")
    with browsing(folder) as page:
        yield SimpleNamespace(page=page, folder=folder, url=page_file.as_uri())


def _log(folder: Path) -> AuditLog:
    log = AuditLog(
        folder / "audit", Signer("log.example.org/orders", bytes(range(32))), redaction=Redaction(folder / "private.db")
    )
    try:
        configure(engine=MockPolicyEngine(), identity=SERVICE, audit=log)
        _calls()
        configure(clear=True)
        _without_outcome(log)
        _lives_of_keys(log)
    finally:
        log.close()
    return log


def _calls() -> None:
    """Two flows: what returned, what raised, and what was denied."""
    fetch = kest_verified("orders/read", operation_name="orders.fetch", added_taints=["pii"])(lambda: 1)
    total = kest_verified("orders/read", operation_name="orders.total")(lambda: 2)
    fails = kest_verified("orders/write", operation_name="orders.store", trust_override=60)(lambda: 1 // 0)
    refuses = kest_verified("orders/refund", operation_name="orders.refund", engine=MockPolicyEngine(allow=False))(
        lambda: 3
    )
    for _ in range(2):
        with lineage():
            fetch()
            total()
            with pytest.raises(ZeroDivisionError):
                fails()
            with pytest.raises(PolicyDeniedError):
                refuses()


def _without_outcome(log: AuditLog) -> None:
    """A process that ended within a call; personal fields in its entries."""
    labels = {"principal": SERVICE.get_identity(), "kest.identity": '{"user":"alice@example.org"}'}
    first = sign_entry(
        KestEntry("invoice.send", labels=labels, trust_score=30, taints=["pii"], added_taints=["pii"]), SERVICE
    )
    log.record("entry", first)
    then = sign_entry(KestEntry("mail.deliver", parent_ids=[sha256(first.encode()).hex()], labels=labels, trust_score=30,
                                taints=["pii"]), SERVICE)  # fmt: skip
    log.record("entry", then)


def _lives_of_keys(log: AuditLog) -> None:
    log.append(sign_entry(KestEntry("agent.before"), AGENT))
    log.append(sign_entry(KestEntry("batch.before"), OLD))
    log.record_event("key", key_event("revoked", AGENT.get_identity(), AGENT, reason="laptop lost"))
    log.record_event("key", key_event("rotated", NEW.get_identity(), NEW, replaces=OLD), OLD)
    log.append(sign_entry(KestEntry("agent.after"), AGENT))
    log.append(sign_entry(KestEntry("batch.after"), NEW))
    log.append(sign_entry(KestEntry("stranger.came"), LocalEd25519Provider("spiffe://example.org/stranger")))


@pytest.fixture
def page(site: SimpleNamespace) -> Page:
    shown: Page = site.page
    shown.open(site.url)
    shown.until("document.getElementById('canvas').dataset.painted > 0")
    return shown


def find(page: Page, text: str) -> str:
    """What is said of the first record that is found."""
    page.run(f"document.getElementById('search').value = {json.dumps(text)}")
    page.run("document.getElementById('search').dispatchEvent(new Event('input'))")
    page.run("document.querySelector('.row').click()")
    return str(page.run("document.getElementById('detail').innerText"))


def shown(page: Page, what: str) -> str:
    """How many are left when *Show* is set."""
    page.run(
        f"(() => {{ const f = document.getElementById('filter'); f.value = {json.dumps(what)}; "
        "f.dispatchEvent(new Event('change')); })()"
    )
    return str(page.run("document.getElementById('found').textContent"))


def test_all_of_it_is_there_without_a_word(site: SimpleNamespace, page: Page) -> None:
    page.picture(site.folder / "log.png")
    assert page.run("document.getElementById('found').textContent") == "15 records"
    assert "unreadable" not in page.run("document.getElementById('list').innerText")
    assert page.complaints() == []
    assert page.requested() == [site.url]


def test_redacted_entries_are_entries(page: Page) -> None:
    said = find(page, "invoice.send")
    assert "withheld\n1 personal field: only commitments are here" in said
    assert "call of\nspiffe://example.org/orders" in said
    assert "signed by\nlog.example.org/orders, the log, in place of the entry" in said
    assert "trust\n30" in said
    assert "MISSING: it began, and nothing says how it ended" in said
    assert "alice@example.org" not in page.run("document.documentElement.outerHTML")
    assert page.run("[...document.querySelectorAll('.links button')].map(one => one.innerText)") == ["10 mail.deliver"]
    page.run("document.querySelector('.links button').click()")
    assert "Continues from" in page.run("document.getElementById('detail').innerText")
    assert page.complaints() == []


def test_denials_and_outcomes(page: Page) -> None:
    said = find(page, "orders.refund")
    assert "denied\norders/refund (function): MockPolicyEngine(allow=False)" in said
    assert "Continues from\n3 orders.store" in said
    assert "outcome\nraised builtins.ZeroDivisionError" in find(page, "orders.store")
    assert "outcome\nreturned" in find(page, "orders.total")
    assert page.complaints() == []


def test_lives_of_keys(site: SimpleNamespace, page: Page) -> None:
    said = {name: find(page, name).splitlines()[2] for name in (
        "agent.before", "agent.after", "batch.before", "batch.after", "stranger.came",
    )}  # fmt: skip
    page.picture(site.folder / "keys.png")
    assert "valid, key since revoked" in said["agent.before"]
    assert said["agent.after"].startswith("NOT VALID: signed after the key was revoked")
    assert "valid, key since rotated" in said["batch.before"]
    assert said["batch.after"].startswith("the signature is right")
    assert said["stranger.came"] == "the signer's key is not known"
    assert page.complaints() == []


def test_show_picks_them(page: Page) -> None:
    assert shown(page, "denial") == "2 of 15 found"
    assert shown(page, "missing") == "7 of 15 found"
    assert shown(page, "failed") == "2 of 15 found"
    assert shown(page, "bad") == "5 of 15 found"
    assert page.complaints() == []
