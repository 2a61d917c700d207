"""``kest doctor``: what is said, how bad it is, and that no secret is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from doctor_apps import ALICE, protected

from kest.cli.main import main
from kest.core import (
    LocalEd25519Provider,
    MockIdentityProvider,
    MockPolicyEngine,
    OPAPolicyEngine,
    PolicyDeviation,
    SimpleCache,
    StaticIdentity,
    TrustStore,
    configure,
)
from kest.doctor import examine
from kest.doctor.detect import EXTRAS
from kest.doctor.redact import redacted

APP = object()


def found(report: Any, subject: str) -> list[tuple[str, str]]:
    return [(one.severity, one.reason) for one in report.findings if one.subject == subject]


def severities(report: Any, subject: str) -> list[str]:
    return [severity for severity, _ in found(report, subject)]


def test_mocks_are_dangers() -> None:
    mock = MockIdentityProvider("spiffe://kest.test/mock")
    configure(engine=MockPolicyEngine(), identity=mock, trust_store={"spiffe://kest.test/mock": mock})
    report = examine(APP)
    for subject in ("policy engine", "identity", "trust store"):
        assert "danger" in severities(report, subject)
    assert report.worst() == "danger"


def test_what_is_safe_is_not_complained_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: Any) -> None:
    monkeypatch.setenv("KEST_ALLOWED_HOSTS", "api.example.org")
    monkeypatch.setattr("kest.doctor.detect._limits", lambda report: None)  # those of this machine
    monkeypatch.setattr("kest.doctor.detect._synchronised", lambda: True)
    identity = StaticIdentity("spiffe://kest.test/service", key_file=tmp_path / "key.pem")
    configure(
        engine=OPAPolicyEngine("https://opa.example.org"),
        identity=identity,
        trust_store={"spiffe://kest.test/service": identity},
        on_unverified="reject",
        audit=sink,
        app_policies=["app/base"],
    )
    report = examine(protected())
    assert report.findings == []
    facts = dict(report.sections["configuration"])
    assert facts["policy engine"] == "OPAPolicyEngine at https://opa.example.org:443"
    assert facts["identity"] == "StaticIdentity, spiffe://kest.test/service"
    assert facts["app policies"] == "app/base"
    assert facts["hooks"] == "KestMiddleware"


def test_what_is_not_set_is_a_finding_only_where_the_application_is_known() -> None:
    alone, known = examine(), examine(APP)
    assert not found(alone, "policy engine")
    assert not found(alone, "audit sink")
    for subject in ("policy engine", "audit sink", "trust store", "hooks", "identity"):
        assert "warning" in severities(known, subject), subject


@pytest.mark.parametrize(
    ("settings", "subject", "severity"),
    [
        ({"engine": OPAPolicyEngine("http://opa.example.org:8181")}, "policy engine", "warning"),
        ({"identity": LocalEd25519Provider("spiffe://kest.test/x", seed=b"1" * 32)}, "identity", "warning"),
        ({"cache": SimpleCache()}, "cache", "note"),
        ({"deviations": [PolicyDeviation("p", "app", "op", "why", "who")]}, "deviation", "note"),
        ({"trust_store": {"spiffe://kest.test/a": ALICE, "spiffe://kest.test/b": ALICE}}, "trust store", "note"),
    ],
)
def test_settings(settings: dict[str, Any], subject: str, severity: str) -> None:
    configure(**settings)
    assert severity in severities(examine(APP), subject)


def test_a_key_whose_time_is_over() -> None:
    store = TrustStore()
    store.add("spiffe://kest.test/a", ALICE, not_after=5)
    configure(trust_store=store)
    assert any("time of 1 keys is over" in reason for _, reason in found(examine(), "trust store"))


def test_accepting_what_is_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEST_INSECURE_NO_VERIFY", "true")
    configure(on_unverified="accept")
    report = examine()
    assert severities(report, "on_unverified") == ["danger"]
    assert severities(report, "KEST_INSECURE_NO_VERIFY") == ["danger"]


@pytest.mark.parametrize(
    ("name", "value", "severity"),
    [
        ("KEST_POLICY_CACHE_TTL", "3600", "warning"),
        ("KEST_ALLOWED_HOSTS", "a.example.org,*", "warning"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example.org:4317", "warning"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317", ""),
        ("OTEL_PROPAGATORS", "tracecontext,baggage", "note"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage,kest", ""),
    ],
)
def test_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str, severity: str) -> None:
    monkeypatch.setenv(name, value)
    assert severities(examine(), name) == ([severity] if severity else [])


def test_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kest.json"
    path.write_text(json.dumps({"app_policies": ["a"]}))
    path.chmod(0o666)
    monkeypatch.setenv("KEST_CONFIG", str(path))
    configure(clear=True)
    assert severities(examine(), "KEST_CONFIG") == ["danger"]
    path.chmod(0o644)
    assert severities(examine(), "KEST_CONFIG") == []


def test_a_configuration_file_that_is_wrong(tmp_path: Path, run_python: Any) -> None:
    path = tmp_path / "kest.json"
    path.write_text('{"unknown": 1}')
    script = "import sys; from kest.cli.main import main; sys.exit(main(['doctor', '--json']))"
    done = run_python(script, env={"KEST_CONFIG": str(path)}, expect=1)
    assert any(one["subject"] == "KEST_CONFIG" for one in json.loads(done.stdout)["findings"])


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "s3cr3t-value-of-this-test"
    values = {
        "KEST_USER_SALT": secret,
        "KEST_SOMETHING_NEW": secret,
        "KEST_REDIS_URL": f"redis://user:{secret}@localhost/0?password={secret}#{secret}",
        "KEST_ODD_URL": f"//user:{secret}@host",
        "KEST_BAD_URL": f"http://[{secret}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={secret}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://user:{secret}@collector.example.org/{'x'}?key={secret}",
        "KEST_CONFIG": f"/nowhere?//user:{secret}@host",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for arguments in (["doctor"], ["doctor", "--json"]):
        assert main(arguments) in (0, 1)
        said = capsys.readouterr()
        assert secret not in said.out + said.err
        assert "KEST_SOMETHING_NEW" in said.out
        assert "collector.example.org" in said.out
    with pytest.raises(AssertionError):  # what the test looks for would be found
        assert secret not in values["KEST_REDIS_URL"]


def test_redaction() -> None:
    assert redacted("redis://:pw@host:1/0") == "redis://host:1/0"
    assert redacted("https://host/path?x=1#y") == "https://host/path?…"
    assert redacted("spiffe://example.org/a") == "spiffe://example.org/a"
    assert redacted("cannot reach //u:p@host/x") == "cannot reach //host/x"


def test_exit_statuses_and_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["doctor"]) == 0
    assert main(["doctor", "--strict"]) == 1  # KEST_ALLOWED_HOSTS is not set
    assert "KEST_ALLOWED_HOSTS" in capsys.readouterr().out
    monkeypatch.setenv("KEST_INSECURE_NO_VERIFY", "true")
    assert main(["doctor", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["findings"][0] == {
        "severity": "danger",
        "subject": "KEST_INSECURE_NO_VERIFY",
        "reason": "forged lineage and unsigned tokens may be accepted",
        "fix": "unset it; configure a trust store and jwks_uri",
    }
    assert {"name": "Ed25519", "value": "signs and verifies"} in document["facts"]["C core"]


def test_an_application_is_imported_and_looked_at(tmp_path: Path, run_python: Any) -> None:
    (tmp_path / "service.py").write_text(
        "from fastapi import FastAPI\nfrom kest.core import MockPolicyEngine, configure\n"
        "from kest.http import KestMiddleware\nconfigure(engine=MockPolicyEngine())\napp = FastAPI()\n"
        "app.add_middleware(KestMiddleware)\n"
    )
    script = f"import os, sys; os.chdir({str(tmp_path)!r}); from kest.cli.main import main; "
    script += "sys.exit(main(['doctor', 'service:app']))"
    done = run_python(script, expect=1)
    assert "hooks                     KestMiddleware" in done.stdout
    assert "MockPolicyEngine allows everything" in done.stdout


def test_the_extras_are_those_of_the_project() -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    path = Path(__file__).resolve().parents[2] / "pyproject.toml"
    project = tomllib.loads(path.read_text("utf-8"))["project"]

    def names(requirements: list[str]) -> tuple[str, ...]:
        import re

        found = [re.match(r"([A-Za-z0-9_-]+)(\[crypto\])?", one) for one in requirements]
        return tuple(name for one in found if one for name in (one[1], *(["cryptography"] if one[2] else [])))

    extras = {
        name: names(given)
        for name, given in project["optional-dependencies"].items()
        if name not in ("all", "coverage", "dev", "docs")
    }
    assert {"(always)": names(project["dependencies"]), **extras} == EXTRAS
