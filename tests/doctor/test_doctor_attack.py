"""``kest doctor --attack``: everything is blocked where Kest protects, and everything is reported where nothing does."""

from __future__ import annotations

import datetime
import json
import logging
import socket
import sys
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from doctor_apps import ALICE, ALICE_SEED, ISSUER, issuing, protected, unprotected
from starlette.middleware import Middleware

from kest.cli.main import main
from kest.doctor import Attack, Result, TargetError, attack
from kest.doctor.forge import Forger
from kest.doctor.target import checked_url

Serving = Callable[..., AbstractContextManager[str]]
ROWS = {"A1", "A2", "A3", "A4", "A5", "A6", "A7", "B3", "D1", "D2", "E1"}


def honest() -> Any:
    return ALICE.signer


def verdicts(results: list[Result]) -> dict[str, int]:
    return {one: sum(result.verdict == one for result in results) for one in {result.verdict for result in results}}


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """``module:app`` for an application."""

    def name(app: Any) -> str:
        module = types.ModuleType("kest_test_application")
        module.app = app  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "kest_test_application", module)
        return "kest_test_application:app"

    return name


# --- over a real server ---


@pytest.mark.parametrize("signer", [None, honest()], ids=["own key", "trusted key"])
def test_a_protected_application_blocks_everything(serving: Serving, signer: Any) -> None:
    with issuing() as jwks, serving(protected(jwks)) as url:
        results = attack(Attack(url, honest=signer))
    assert {result.row for result in results} == ROWS
    assert [result for result in results if result.verdict != "blocked"] == []
    assert len(results) > 70


def test_an_unprotected_application_is_reported(serving: Serving) -> None:
    with serving(unprotected()) as url:
        results = attack(Attack(url))
    blocked = [result.name for result in results if result.verdict == "blocked"]
    assert blocked == ["5,000 baggage members"]  # which nothing can believe
    assert {result.verdict for result in results} == {"blocked", "NOT BLOCKED"}
    assert {result.row for result in results} == ROWS


def test_a_server_that_dies_of_it_is_reported(serving: Serving) -> None:
    state = {"alive": True}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError
        if any(name == b"baggage" and len(value) > 1000 for name, value in scope["headers"]):
            state["alive"] = False
        await send({"type": "http.response.start", "status": 200 if state["alive"] else 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with serving(app) as url:
        results = attack(Attack(url, groups=("resource",)))
    assert results[-1].name == "an honest request, afterwards"
    assert {result.verdict for result in results} == {"NOT BLOCKED"}


def test_redirects_are_not_followed(serving: Serving) -> None:
    asked: list[str] = []

    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with serving(elsewhere) as other:
        asked.clear()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 302, "headers": [(b"location", other.encode())]})
            await send({"type": "http.response.body", "body": b""})

        with serving(app) as url, pytest.raises(TargetError, match="302"):
            attack(Attack(url))
        assert "http" not in asked


def test_tokens_make_an_honest_request_where_they_are_needed(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kest.http import KestIdentityMiddleware

    with issuing() as jwks:
        app = protected()
        app.add_middleware(KestIdentityMiddleware, jwks_uri=jwks, required=True, prefetch=False)
        forger = Forger(None, "issuer")
        forger.thief = ISSUER.signer  # type: ignore[assignment]
        monkeypatch.setenv("THE_TOKEN", forger.token("alice"))
        with serving(app) as url:
            with pytest.raises(TargetError, match="401"):
                attack(Attack(url))
            assert main(["doctor", "--attack", url, "--token-env", "THE_TOKEN"]) == 0
            assert "the token, for another user" in capsys.readouterr().out


def test_a_target_behind_tls(serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate is for the name, and is checked, although the address is what is connected to."""
    certificate, key = _certificate(tmp_path)
    groups = ("caller",)
    with serving(protected(), ssl_certfile=certificate, ssl_keyfile=key) as url:
        url = url.replace("http://127.0.0.1", "https://localhost")
        monkeypatch.setattr("socket.getaddrinfo", _only_v4(socket.getaddrinfo))
        with pytest.raises(TargetError, match="CERTIFICATE_VERIFY_FAILED"):
            attack(Attack(url, groups=groups))
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert verdicts(attack(Attack(url, groups=groups))).keys() == {"blocked"}


def _only_v4(real: Any) -> Any:
    return lambda host, port, *args, **settings: real(host, port, socket.AF_INET, socket.SOCK_STREAM)


def _certificate(folder: Path) -> tuple[str, str]:
    """Of localhost, and its key, as files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
    certificate = builder.add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_a_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "s3cr3t" not in repr(Attack("x:y", headers=((b"authorization", b"Bearer s3cr3t"),)))


# --- in this process ---


def test_in_process_what_was_believed_is_seen(named: Callable[[Any], str]) -> None:
    with issuing() as jwks:
        results = attack(Attack(named(protected(jwks)), honest=honest()))
    assert verdicts(results) == {"blocked": len(results)}


def test_in_process_degraded_lineage_is_told_from_believed_lineage(
    named: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = ("lineage", "caller", "resource")
    results = attack(Attack(named(protected(trust_store=None)), groups=groups))
    assert set(verdicts(results)) == {"blocked", "degraded"}
    monkeypatch.setenv("KEST_INSECURE_NO_VERIFY", "true")
    accepting = protected(trust_store=None, on_unverified="accept")
    believed = [result for result in attack(Attack(named(accepting), groups=groups)) if result.verdict == "NOT BLOCKED"]
    assert {result.row for result in believed} >= {"A1", "A2"}
    assert all("believed: trust" in result.why for result in believed)


def test_in_process_an_application_without_hooks_is_reported(named: Callable[[Any], str]) -> None:
    results = attack(Attack(named(unprotected())))
    assert verdicts(results).keys() == {"NOT BLOCKED"}


def test_tokens_that_are_believed_are_seen(named: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch) -> None:
    from kest.http import KestIdentityMiddleware

    monkeypatch.setenv("KEST_INSECURE_NO_VERIFY", "true")
    app = protected()
    app.add_middleware(KestIdentityMiddleware)
    results = attack(Attack(named(app), groups=("token",)))
    believed = {result.name for result in results if result.verdict == "NOT BLOCKED"}
    assert {"a JWT by an unknown key", "a JWT with HS256 and the secret 'secret'"} <= believed


@pytest.mark.parametrize(("trusting", "verdict"), [(True, "NOT BLOCKED"), (False, "blocked")])
def test_a_gate_that_believes_a_header_is_seen(named: Callable[[Any], str], trusting: bool, verdict: str) -> None:
    from kest.doctor import examine
    from kest.gate import Gate
    from kest.gate.http import GateMiddleware

    gate = Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": []}]})
    app = protected()
    app.user_middleware.append(
        Middleware(GateMiddleware, gate=gate, gate_mutations_only=False, trust_header_identity=trusting)
    )
    results = {result.name: result.verdict for result in attack(Attack(named(app), groups=("caller",)))}
    assert results["X-Principal-Id from outside"] == verdict
    assert results["kest.user that no entry says"] == "blocked"
    assert any(one.subject == "GateMiddleware" for one in examine(app).findings) == trusting


def test_an_application_is_as_it_was_afterwards(named: Callable[[Any], str]) -> None:
    app = protected()
    before = list(app.user_middleware), app.middleware_stack
    attack(Attack(named(app), groups=("caller",)))
    assert (list(app.user_middleware), app.middleware_stack) == before


def test_middleware_that_was_wrapped_by_hand(named: Callable[[Any], str]) -> None:
    from kest.http import KestMiddleware

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    app = KestMiddleware(inner, trust_store={ALICE.get_identity(): ALICE})
    results = attack(Attack(named(app), groups=("lineage",)))
    assert verdicts(results) == {"blocked": len(results)}
    assert app.app is inner


# --- what is attacked ---


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1/",
        "http://[2001:db8::1]/",
        "http://0.0.0.0.invalid/",
        "ftp://127.0.0.1/",
        "http://",
        "http://u:p@127.0.0.1/",
        "http://127.0.0.1:x/",
        "http://[::1/",
    ],
)
def test_only_this_machine_is_attacked(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TargetError):
        checked_url(url)
    assert main(["doctor", "--attack", url]) == 2
    assert "u:p" not in capsys.readouterr().err


def test_another_host_must_be_named_exactly() -> None:
    with pytest.raises(TargetError, match=r"--i-own-this-target 192\.0\.2\.1"):
        checked_url("http://192.0.2.1:8000/x", "192.0.2.2")
    assert checked_url("http://192.0.2.1:8000/x", "192.0.2.1") == ("http://192.0.2.1:8000/x", "192.0.2.1:8000")


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means this machine when it is checked must not mean another when it is connected to."""
    assert checked_url("http://localhost:81/a?b")[0] in ("http://127.0.0.1:81/a?b", "http://[::1]:81/a?b")
    both = [(0, 0, 0, "", ("127.0.0.1", 80)), (0, 0, 0, "", ("192.0.2.1", 80))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **settings: both)
    with pytest.raises(TargetError, match="not this machine"):
        checked_url("http://rebinding.example/")


# --- the command ---


def test_the_table_and_the_exit_status(serving: Serving, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from kest.core.identity.keys import write_private_key

    key = tmp_path / "key.pem"
    write_private_key(key, ALICE_SEED)
    with serving(protected()) as url:
        arguments = [
            "doctor",
            "--attack",
            url,
            "--skip",
            "token",
            "--key",
            str(key),
            "--principal",
            ALICE.get_identity(),
        ]
        assert main(arguments) == 0
        assert "A1  blocked" in capsys.readouterr().out
        assert main([*arguments, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["counts"]["blocked"] == len(document["probes"])
    with serving(unprotected()) as url:
        assert main(["doctor", "--attack", url, "--only", "caller"]) == 1
        assert "D1  NOT BLOCKED" in capsys.readouterr().out


def test_degraded_is_not_enough_for_strict(named: Callable[[Any], str], capsys: pytest.CaptureFixture[str]) -> None:
    spec = named(protected(trust_store=None))
    assert main(["doctor", "--attack", spec, "--only", "lineage"]) == 0
    assert main(["doctor", "--attack", spec, "--only", "lineage", "--strict"]) == 1
    assert capsys.readouterr().err == ""
    assert logging.getLogger("kest").level == logging.NOTSET


@pytest.mark.parametrize(
    "arguments",
    [
        ["--attack", "nothing:app"],
        ["--attack", "json:nothing"],
        ["--attack", "json"],
        ["--attack", "x:y", "a:b"],
        ["--attack", "json:dumps", "--path", "x"],
        ["--attack", "http://127.0.0.1:1/"],
        ["--attack", "http://127.0.0.1:1/", "--token-env", "NOT_SET_HERE"],
        ["--attack", "http://127.0.0.1:1/", "--header", "x"],
        ["--attack", "http://127.0.0.1:1/", "--only", "token", "--skip", "token"],
        ["--attack", "http://127.0.0.1:1/", "--key", "nowhere"],
        ["--attack", "http://127.0.0.1:1/", "--key", "nowhere", "--principal", "x"],
        ["nothing:app"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err


def test_a_key_that_is_not_trusted_is_said(serving: Serving) -> None:
    stranger = Forger(None, "spiffe://elsewhere.example/x").thief
    with serving(protected()) as url, pytest.raises(TargetError, match="not believed"):
        attack(Attack(url, honest=stranger))
