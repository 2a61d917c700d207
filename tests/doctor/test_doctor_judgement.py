"""How answers to probes are judged, and findings that need another machine or configuration than this one."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kest.doctor import TargetError
from kest.doctor.application import middlewares
from kest.doctor.attack import Attack, _came, _judged, _token
from kest.doctor.environment import _check_ttl, is_local
from kest.doctor.findings import Report
from kest.doctor.probes import Probe
from kest.doctor.target import Answer, Seen, application_target

HONEST = Answer(200, b"hello 1")
HOOKS = ["KestMiddleware", "KestIdentityMiddleware"]


def probe(group: str = "lineage", marker: str = "", harmless: bool = False) -> Probe:
    return Probe("A1", "something", group, [], marker, harmless)


def seen(**facts: Any) -> Seen:
    return Seen(**{"edge": True, "gated": False, "entries": 0, "trust": 100, "taints": (), "names": (), **facts})


@pytest.mark.parametrize(
    ("sent", "answer", "verdict", "why"),
    [
        (probe(marker="mallory"), Answer(200, b"hello mallory"), "NOT BLOCKED", "it was believed"),
        (probe(), Answer(None, ran=True), "NOT BLOCKED", "the application ran"),
        (probe("resource"), Answer(None), "blocked", "the server ended the connection"),
        (probe(), Answer(None), "unclear", "no answer"),
        (probe(), Answer(401), "blocked", "refused"),
        (probe(), Answer(401, ran=True), "NOT BLOCKED", "only after the application had begun"),
        (probe(), Answer(401, seconds=6.0), "NOT BLOCKED", "refused, but it took 6.0 s"),
        (probe(), Answer(500, ran=False), "blocked", "with a server error in place of a refusal"),
        (probe(), Answer(500), "NOT BLOCKED", "a server error is no refusal"),
        (probe(), Answer(302), "unclear", "neither served nor refused"),
        # What an application in this process knew.
        (probe(marker="mallory"), Answer(200, seen=seen(names=("mallory",))), "NOT BLOCKED", "it was believed"),
        (probe("token"), Answer(200, seen=seen()), "NOT BLOCKED", "as if there were no token"),
        (probe("caller"), Answer(200, seen=seen(edge=False)), "unclear", "no hook of Kest's saw it"),
        (probe("caller"), Answer(200, b"hello 2", seen=seen()), "blocked", "ignored"),
        (probe("caller"), Answer(200, b"who?", seen=seen(edge=False, gated=True)), "unclear", "another answer"),
        (probe(), Answer(200, seen=seen(edge=False)), "NOT BLOCKED", "no hook of Kest's saw it"),
        (probe(harmless=True), Answer(200, seen=seen()), "blocked", "nothing of it was believed"),
        (probe(), Answer(200, seen=seen(entries=1)), "NOT BLOCKED", "believed: trust 100"),
        (probe(), Answer(200, seen=seen()), "NOT BLOCKED", "as if nothing had come"),
        # Only the answer is to be seen.
        (probe("caller"), Answer(200, b"hello 77"), "blocked", "ignored"),
        (probe("caller"), Answer(200, b"bye"), "unclear", "another answer than to an honest request"),
        (probe(harmless=True), Answer(200), "blocked", "served without harm"),
        (probe("token"), Answer(200), "NOT BLOCKED", "a token that does not verify must be refused"),
        (probe(), Answer(200), "NOT BLOCKED", "if it only degraded the lineage"),
    ],
)
def test_verdicts(sent: Probe, answer: Answer, verdict: str, why: str) -> None:
    result = _judged(sent, answer, HONEST, SimpleNamespace(hooks=HOOKS))  # type: ignore[arg-type]
    assert result.verdict == verdict
    assert why in result.why


def test_a_token_that_no_hook_verifies_proves_nothing() -> None:
    for hooks in (None, ["KestMiddleware"]):
        result = _judged(probe("token"), Answer(200, seen=seen()), HONEST, SimpleNamespace(hooks=hooks))  # type: ignore[arg-type]
        assert (result.verdict, result.why) == (
            "unclear",
            "no hook of Kest's verifies tokens here; does the application?",
        )


def test_what_came_in_words() -> None:
    assert _came(Answer(None, error="it hung up")) == "it hung up"
    assert _came(Answer(403, b'{"reason": "no \\"key\\""}')) == '403 no \\"key\\"'
    assert _came(Answer(204)) == "204"


def test_the_token_of_honest_requests() -> None:
    assert _token(Attack("http://localhost/", headers=((b"authorization", b"bearer abc"),))) == "abc"
    assert _token(Attack("http://localhost/", headers=((b"authorization", b"Basic abc"),))) is None
    assert _token(Attack("http://localhost/")) is None


# --- targets in this process ---


def attacked(app: Any, *headers: tuple[bytes, bytes]) -> Answer:
    async def run() -> Answer:
        async with application_target(app, "GET", "/", []) as target:
            return await target.send(list(headers))

    return asyncio.run(run())


@pytest.mark.parametrize("app", ["no application", SimpleNamespace(wsgi_app=lambda *_: [])])
def test_only_asgi_runs_in_this_process(app: Any) -> None:
    with pytest.raises(TargetError, match="is an ASGI one; start others, and give their URL"):
        attacked(app)


def test_an_application_that_does_not_start() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(TargetError, match="the application does not start: no database"):
        attacked(app)


def test_an_application_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("kest.doctor.target.TIMEOUT", 0.01)
    with pytest.raises(TargetError, match="does not start or end in time"):
        attacked(app)


async def _plain(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
    await send({"type": "http.response.body", "body": b"y" * (1 << 20)})


def test_an_application_without_any_middleware_is_observed_too() -> None:
    from kest.doctor.target import MAX_BODY

    answer = attacked(_plain)
    assert answer.status == 200
    assert answer.ran
    assert len(answer.body) == MAX_BODY  # the rest is not read
    assert answer.seen is not None
    assert not answer.seen.edge


def test_middlewares_of_wsgi_applications() -> None:
    class Outer:
        def __init__(self, app: Any) -> None:
            self.app = app

        def __call__(self, *_: Any) -> Any:
            raise AssertionError

    flask = SimpleNamespace(wsgi_app=Outer(None))
    assert [cls for cls, _, _ in middlewares(flask)] == [Outer]
    given = SimpleNamespace(user_middleware=[SimpleNamespace(cls="text"), SimpleNamespace(cls=Outer, kwargs={"a": 1})])
    assert list(middlewares(given)) == [(Outer, None, {"a": 1})]


# --- this machine ---


def findings(report: Report) -> list[tuple[str, str]]:
    return [(finding.severity, finding.subject) for finding in report.findings]


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, []), ("0", []), ("5", []), ("soon", ["danger"]), ("-1", ["danger"]), ("inf", ["danger"]),
     ("nan", ["danger"]), ("86400", ["warning"])],
)  # fmt: skip
def test_the_time_to_live_of_decisions(text: str | None, found: list[str]) -> None:
    report = Report()
    _check_ttl(report, text)
    assert findings(report) == [(severity, "KEST_POLICY_CACHE_TTL") for severity in found]


def test_what_is_this_machine() -> None:
    assert [is_local(url) for url in ("http://127.9.9.9:1", "https://[::1]/", "http://localhost", "http://[")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert not is_local("http://localhost.example/")


def test_limits_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    from kest.doctor.detect import detect

    limits = {resource.RLIMIT_CORE: (resource.RLIM_INFINITY, -1), resource.RLIMIT_MEMLOCK: (8192, -1)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    report = Report()
    detect(report)
    assert {("note", "core dumps"), ("warning", "locked memory"), ("danger", "clock")} <= set(findings(report))
    limits.update({resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_MEMLOCK: (resource.RLIM_INFINITY, -1)})
    report = Report()
    detect(report)
    assert not {"core dumps", "locked memory"} & {subject for _, subject in findings(report)}


def test_a_system_without_limits_and_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    from kest.doctor import detect

    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "plan9")
    report = Report()
    detect.detect(report)
    assert detect._synchronised() is None
    assert not [finding for finding in report.findings if finding.subject in ("core dumps", "locked memory")]
    assert detect._version("kest-no-such-distribution") is None


# --- telemetry ---


def test_an_endpoint_of_the_environment_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    from kest.doctor.telemetry import _otlp

    target = SimpleNamespace(endpoint=None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "True")
    found = []
    for address in ("collector.example:4317", "localhost:4317", "https://collector.example:4317", ""):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        report = Report()
        _otlp(report, "otlp", target)
        found.append(findings(report))
    assert found == [[("warning", "OTEL_EXPORTER_OTLP_INSECURE")], [], [], []]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector.example:4317")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_INSECURE")
    report = Report()
    _otlp(report, "otlp", target)
    assert findings(report) == []


def test_telemetry_that_is_not_there(tmp_path: Path) -> None:
    from kest.doctor.telemetry import _ends_well, check_file

    report = Report()
    check_file(report, tmp_path / "t.jsonl")
    (finding,) = report.findings
    assert "it cannot be looked at: No such file" in finding.reason
    assert _ends_well(tmp_path / "t.jsonl")
    (tmp_path / "t.jsonl").write_bytes(b"{")
    assert not _ends_well(tmp_path / "t.jsonl")


# --- settings ---


def test_a_cache_in_the_clear() -> None:
    from kest.doctor.checks import _cache

    for url, found in (
        ("redis://cache.example/0", ["warning"]),
        ("redis://localhost/0", []),
        ("rediss://c.example/0", []),
    ):
        report = Report()
        _cache(report, SimpleNamespace(_url=url))
        assert [severity for severity, subject in findings(report) if subject == "cache"] == found


def test_where_an_engine_is() -> None:
    from kest.doctor.checks import _server_of

    def engine(**target: Any) -> Any:
        return SimpleNamespace(_server=SimpleNamespace(_target=SimpleNamespace(**target)))

    assert _server_of(engine(uds="/run/opa.sock")) == "unix:/run/opa.sock"
    assert _server_of(engine(uds=None, tls=None, host="h", port=1)) == "http://h:1"
    assert _server_of(engine(uds=None, tls=object(), host="h", port=1)) == "https://h:1"
    assert _server_of(object()) == ""


def test_an_identity_that_does_not_answer() -> None:
    from kest.doctor.checks import _identity
    from kest.errors import IdentityError

    class Gone:
        def get_identity(self) -> str:
            raise IdentityError("the agent is away")

    report = Report()
    _identity(report, SimpleNamespace(identity=Gone()), True)  # type: ignore[arg-type]
    (finding,) = report.findings
    assert (finding.severity, finding.subject) == ("danger", "identity")
    assert "it does not answer" in finding.reason


def test_tokens() -> None:
    from kest.doctor.checks import _hooks

    class KestIdentityMiddleware:
        pass

    said = []
    for given in ({"required": True}, {}):
        app = SimpleNamespace(user_middleware=[SimpleNamespace(cls=KestIdentityMiddleware, kwargs=given)])
        report = Report()
        _hooks(report, app)
        said += [fact.value for facts in report.sections.values() for fact in facts if fact.name == "tokens"]
    assert said == ["required", "verified if present"]


# --- audit logs ---


def test_a_log_of_which_little_is_there(tmp_path: Path) -> None:
    from kest.audit.layout import Layout
    from kest.doctor.audit import _is_held, _journal, _published

    layout = Layout(tmp_path)
    assert _published(layout) == 0
    assert not _is_held(tmp_path / "lock")
    (tmp_path / "journal").mkdir()
    layout.segment(1).write_bytes(b"no head, KJF1 and a frame behind it" * 9)
    report = Report()
    _journal(report, "log", layout, False)
    (finding,) = report.findings
    assert finding.severity == "danger"
    assert "its journal is damaged: the head of journal segment" in finding.reason
