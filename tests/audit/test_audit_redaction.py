"""One person's fields are erased, and everything still verifies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kest.audit import AuditLog, AuditReader, Redaction, Verdict, verify_log
from kest.core import PolicyDeniedError, configure, kest_verified
from kest.core.context import lineage
from kest.errors import AuditError, ConfigurationError

SECRETS = ("alice@example.org", "bob@example.org", "account-4711", "because of alice")


@pytest.fixture
def redaction(tmp_path: Path) -> Any:
    made = Redaction(tmp_path / "private.db", reasons=True)
    yield made
    made.close()


@pytest.fixture
def log(configured: Any, open_log: Callable[..., AuditLog], redaction: Redaction) -> AuditLog:
    log = open_log(redaction=redaction)
    configure(audit=log)
    return log


def call(user: str) -> None:
    with lineage():
        kest_verified("p", operation_name="op", user=user, resource_id="account-4711")(lambda: 1)()


def everything(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


def written(log: AuditLog, kind: str) -> list[Any]:
    return [record for record in AuditReader(log.path, log.key).records() if record.kind == kind]


def test_nothing_personal_is_in_the_log(log: AuditLog, configured: Any) -> None:
    from kest._kestcore import b64url_decode

    call("alice@example.org")
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError):
        call("bob@example.org")
    log.checkpoint()
    plain = b"".join(b64url_decode(record.jws.split(".")[1]) for record in AuditReader(log.path, log.key).records())
    for secret in SECRETS:
        assert secret.encode() not in plain + everything(log.path)


def test_what_is_known_until_it_is_erased(log: AuditLog, redaction: Redaction, configured: Any) -> None:
    call("alice@example.org")
    call("bob@example.org")
    log.checkpoint()
    alice, bob = written(log, "intent")
    known = redaction.reveal(alice)
    assert json.loads(known.payload["labels"]["kest.identity"])["user"] == "alice@example.org"
    assert known.payload["labels"]["kest.resource_id"] == "account-4711"
    assert known.erased == 0
    assert known.entry is not None
    from kest.core import PassportVerifier

    assert len(PassportVerifier.verify([known.entry], configured.keys)) == 1  # the entry as the workload signed it
    before = log.last
    assert log.erase("alice@example.org") == 3  # identity, resource, entry
    assert "alice" not in str(redaction.reveal(alice))
    assert redaction.reveal(alice).erased == 3
    assert redaction.reveal(alice).entry is None
    assert redaction.reveal(bob).erased == 0
    log.checkpoint()
    report = verify_log(log.path, log.key, configured.keys)
    assert report.ok
    assert report.kinds == {"log": 2, "intent": 2, "outcome": 2}
    assert report.missing_count == 0
    assert before.root != log.last.root
    assert written(log, "log")[-1].payload["event"] == "erased"


def test_the_database_forgets(log: AuditLog, redaction: Redaction, tmp_path: Path) -> None:
    call("alice@example.org")
    log.flush()
    row = redaction._database.execute("select disclosure from disclosures").fetchone()[0][8:40].encode()
    assert row in (tmp_path / "private.db").read_bytes()
    log.erase("alice@example.org")
    assert row not in everything(tmp_path)


def test_denials(log: AuditLog, redaction: Redaction, configured: Any) -> None:
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError):
        call("bob@example.org")
    log.checkpoint()
    (denial,) = written(log, "denial")
    assert "reason" not in denial.payload
    known = redaction.reveal(denial)
    assert known.payload["reason"] == "denied by policy"
    assert json.loads(known.payload["labels"]["kest.identity"])["user"] == "bob@example.org"
    log.erase("bob@example.org")
    assert redaction.reveal(denial).erased == 3
    assert verify_log(log.path, log.key, configured.keys).verdicts[Verdict.VALID] >= 2


def test_a_changed_disclosure_is_not_believed(log: AuditLog, redaction: Redaction) -> None:
    call("alice@example.org")
    log.checkpoint()
    (intent,) = written(log, "intent")
    redaction._database.execute("update disclosures set disclosure = 'WyJhIiwiYiIsImMiXQ'")
    with pytest.raises(AuditError, match="does not match"):
        redaction.reveal(intent)
    with pytest.raises(AuditError, match="no intent"):
        redaction.reveal(written(log, "outcome")[0])


def test_guessing_is_of_no_use(log: AuditLog) -> None:
    """The same user twice: nothing in the log is the same."""
    call("alice@example.org")
    call("alice@example.org")
    log.checkpoint()
    first, second = (set(record.payload["entry"]["labels"]["_sd"]) for record in written(log, "intent"))
    assert not first & second


def test_a_database_that_fails(log: AuditLog, redaction: Redaction) -> None:
    redaction._database.execute("create trigger no before insert on disclosures begin select raise(abort, 'no'); end")
    call("alice@example.org")
    while log.failure is None:
        threading.Event().wait(0.001)
    assert "disclosures" in str(log.failure)
    redaction._database.execute("drop trigger no")
    log.flush()
    log.checkpoint()
    assert len(written(log, "intent")) == 1


def test_settings(tmp_path: Path, open_log: Callable[..., AuditLog]) -> None:
    with pytest.raises(ConfigurationError, match="principal"):
        Redaction(tmp_path / "x", labels=["principal"])
    with pytest.raises(AuditError, match="redaction="):
        open_log().erase("alice")
