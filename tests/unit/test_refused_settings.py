"""Settings and arguments that the core and its HTTP side refuse, extras that are not installed, and input at the edges."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kest import _kestcore
from kest.core import hashing
from kest.core.binding import Resolver
from kest.core.engine.avp import AVPPolicyEngine
from kest.core.engine.cedar_local import CedarLocalEngine
from kest.core.engine.http_connection import AsyncConnection, Connection, Target
from kest.core.engine.policy_input import input_json
from kest.core.engine.rego_local import RegoLocalEngine
from kest.core.fetch import FetchError, fetch
from kest.core.fetch_backend import DeadlineBackend
from kest.core.identity import BedrockAgentIdentity, LocalEd25519Provider
from kest.core.identity.aws import AWSWorkloadIdentity
from kest.core.identity.jws import _MAX_JWS, compact, ecdsa_der_to_raw, read_jws, signing_input
from kest.core.identity.keys import read_private_key
from kest.core.policies.cedar_validator import CedarValidator
from kest.core.policies.rego_validator import RegoValidator, _regorus_problem, _unshifted
from kest.core.policies.testing import run_tests
from kest.core.redis_cache import RedisCache
from kest.core.tiers import PolicyDeviation
from kest.core.trust_sources import SpiffeBundleSource
from kest.core.x5c import Authorities, ChainError, certificates_of
from kest.errors import (
    CanonicalizationError,
    ClaimCheckError,
    ConfigurationError,
    IdentityError,
    KestError,
    MissingExtraError,
    TokenError,
)
from kest.http.edge import Edge, _fetched, _identity
from kest.http.interceptor import header_bytes
from kest.http.jwks import MAX_BYTES, KeySet
from kest.http.middleware import refuse
from kest.http.outgoing import Packer

PRINCIPAL = "spiffe://example.org/refusing"


# --- extras that are not installed ---


@pytest.mark.parametrize(
    ("module", "extra", "work"),
    [
        ("redis", "redis", lambda: RedisCache()),
        ("cedarpy", "cedar", lambda: CedarValidator().validate("permit(principal, action, resource);")),
        ("cryptography", "spiffe", lambda: certificates_of(b"")),
        ("boto3", "aws", lambda: AWSWorkloadIdentity(region="eu-west-1")._client("kms")),
    ],
)
def test_an_extra_is_missing(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, work: Callable[[], object]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"kest\[{extra}\]"):
        work()


def test_no_rego_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("lakera_regorus", "regopy"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"Rego validation needs a Rego engine: .*kest\[rego\]"):
        RegoValidator().validate("package p\n")
    from kest.core.policies import testing

    with pytest.raises(MissingExtraError, match=r"Rego tests need a Rego engine: .*kest\[rego\]"):
        testing._asker({})


# --- tests in Rego, with either engine ---

REGO_TESTS = """package p
import rego.v1
test_yes if { 1 + 1 == 2 }
test_no if { 1 + 1 == 3 }
test_value := "text"
test_value := "text"
todo_test_later if { false }
"""


@pytest.mark.parametrize("engine", ["lakera_regorus", "regopy"])
def test_rego_tests_run_with_either_engine(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    pytest.importorskip(engine)
    other = {"lakera_regorus": "regopy", "regopy": "lakera_regorus"}[engine]
    monkeypatch.setitem(sys.modules, other, None)
    found = {outcome.name: (outcome.status, outcome.detail) for outcome in run_tests({"p/p_test.rego": REGO_TESTS})}
    assert found == {
        "test_yes": ("passed", ""),
        "test_no": ("failed", "is undefined, not true"),
        "test_value": ("failed", 'is "text", not true'),
        "todo_test_later": ("skipped", "to do"),
    }


@pytest.mark.parametrize("engine", ["lakera_regorus", "regopy"])
def test_rego_tests_that_fail_to_evaluate(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    pytest.importorskip(engine)
    other = {"lakera_regorus": "regopy", "regopy": "lakera_regorus"}[engine]
    monkeypatch.setitem(sys.modules, other, None)
    text = "package p\nimport rego.v1\ntest_two := 1 if { true }\ntest_two := 2 if { true }\n"
    (outcome,) = run_tests({"p/p_test.rego": text})
    assert (outcome.name, outcome.status) == ("test_two", "error")
    assert outcome.detail


def test_positions_of_a_rewritten_line() -> None:
    assert _unshifted("allow if x", "allow { x", 0) == 0
    assert _unshifted("abc", "abcdef", 5) == 3
    assert _unshifted("abcdef", "abc", 7) == 6
    problem = _regorus_problem("package p", "package p", "\n  something else happened\n")
    assert (problem.line, problem.column, problem.message) == (1, 1, "something else happened")
    assert _regorus_problem("package p", "package p", "").message == "the module does not load"


# --- engines ---


def test_schemas_in_every_form() -> None:
    pytest.importorskip("cedarpy")
    policy = 'permit(principal, action == Action::"pay", resource);'
    as_dict: dict[str, Any] = {
        "": {
            "entityTypes": {"Workload": {}, "Resource": {}},
            "actions": {"pay": {"appliesTo": {"principalTypes": ["Workload"], "resourceTypes": ["Resource"]}}},
        }
    }
    for schema in (json.dumps(as_dict), as_dict):
        assert repr(CedarLocalEngine([policy], schema=schema)) == "<CedarLocalEngine with one policy set>"
        with pytest.raises(ConfigurationError, match="fly"):
            CedarLocalEngine(['permit(principal, action == Action::"fly", resource);'], schema=schema)
    assert repr(CedarLocalEngine({"pay": policy})) == "<CedarLocalEngine with 1 named policy sets>"


def test_a_large_input_is_decided_in_another_thread() -> None:
    pytest.importorskip("regopy")
    text = "package p\nimport rego.v1\ndefault allow := false\nallow if input.ok\n"
    engine = RegoLocalEngine({"p": text}, backend="regopy")
    with closing(engine):
        assert repr(engine) == "<RegoLocalEngine on regopy with 1 policies>"
        decision = asyncio.run(engine.async_decide("e", ["p"], {"ok": True, "more": "x" * 500_000}))
        assert decision.allowed


def test_a_verified_permissions_client_is_made_once() -> None:
    pytest.importorskip("boto3")
    engine = AVPPolicyEngine("store", region="eu-west-1", timeout=0.5)
    assert repr(engine) == "<AVPPolicyEngine asking policy store store>"
    client = engine._client()
    assert client.meta.region_name == "eu-west-1"
    assert engine._client() is client
    engine.close()
    engine.close()
    again = engine._client()
    assert again is not client
    engine.close()


def test_mappings_and_sets_in_a_policy_input() -> None:
    class Other(Mapping[str, int]):
        def __getitem__(self, key: str) -> int:
            return {"a": 1}[key]

        def __iter__(self) -> Iterator[str]:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    assert input_json({"m": Other(), "s": {"b", "a"}}) == '{"m":{"a":1},"s":["a","b"]}'
    with pytest.raises(KestError, match=r"has no JSON form \(TypeError\)"):
        input_json({"m": object()})


# --- connections, on real sockets ---


@contextmanager
def listening() -> Iterator[tuple[Target, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Target("127.0.0.1", listener.getsockname()[1], None, None), listener


def test_a_connection_past_its_time() -> None:
    with listening() as (target, _):
        with pytest.raises(TimeoutError):
            Connection(target, time.monotonic() - 1)
        connection = Connection(target, time.monotonic() + 30)
        with closing(connection):
            with pytest.raises(TimeoutError):
                connection.exchange(b"x", time.monotonic() - 1)
            assert not connection.usable(5.0)  # has been idle since 0 on the monotonic clock
            connection.since = time.monotonic()
            assert connection.usable(600.0)


def test_an_async_connection_at_its_edges() -> None:
    async def run() -> None:
        with listening() as (target, listener):
            connection = await AsyncConnection.open(target, time.monotonic() + 30)
            peer, _ = listener.accept()
            with closing(peer):
                connection.since = time.monotonic()
                assert connection.usable(600.0)
                connection.since -= 601.0
                assert not connection.usable(600.0)
                with pytest.raises(TimeoutError):
                    await connection.exchange(b"x", time.monotonic() - 1)
                peer.sendall(b"nobody asked")
                await asyncio.wait_for(connection._ended, 30)  # it talked out of turn
                assert not connection.usable(600.0)
                with pytest.raises(ConnectionResetError):
                    await connection.exchange(b"x", time.monotonic() + 30)
                await connection.close()
        never = AsyncConnection(asyncio.get_running_loop())
        never._late()
        never.abort()
        await never.close()
        assert not never.usable(600.0)
        with pytest.raises(ConnectionResetError):
            await never.exchange(b"x", time.monotonic() + 30)

    asyncio.run(run())


def test_a_response_before_the_whole_request() -> None:
    """The server answers a request of which it has read nothing; the answer cannot be one to it."""

    async def run() -> None:
        with listening() as (target, listener):
            connection = await AsyncConnection.open(target, time.monotonic() + 30)
            peer, _ = listener.accept()
            with closing(peer):
                asking = asyncio.ensure_future(connection.exchange(b"x" * (1 << 25), time.monotonic() + 30))
                await asyncio.sleep(0)
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
                with pytest.raises(Exception, match="it was sent before the request"):
                    await asking
                await connection.close()

    asyncio.run(run())


def test_a_backend_past_its_time() -> None:
    import httpcore

    with listening() as (target, _):
        backend = DeadlineBackend()
        for deadline in (None, time.monotonic() - 1):
            with pytest.raises(httpcore.TimeoutException, match="the deadline has passed"):
                backend.connect_tcp("127.0.0.1", target.port, deadline)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "ftp://127.0.0.1:21"])
def test_a_proxy_of_another_kind(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FetchError, match="only http and https proxies are used here"):
        fetch("https://kest.invalid/", timeout=5, max_bytes=10)


# --- identities ---


def test_signatures_in_der_with_something_behind() -> None:
    body = b"\x02\x01\x01\x02\x01\x02"
    good = bytes([0x30, len(body)]) + body
    assert ecdsa_der_to_raw(good) == bytes(31) + b"\x01" + bytes(31) + b"\x02"
    with pytest.raises(IdentityError, match="bytes follow it"):
        ecdsa_der_to_raw(bytes([0x30, len(body) + 1]) + body + b"\0")


def test_what_is_too_long_or_too_short_for_a_jws() -> None:
    with pytest.raises(IdentityError, match="too long for a JWS"):
        read_jws("x" * (_MAX_JWS + 1), PRINCIPAL, b"{}", "the provider", "JWS")
    _, message = signing_input(PRINCIPAL, b"{}", "EdDSA")
    with pytest.raises(IdentityError, match="3 signature bytes where EdDSA has"):
        read_jws(compact(message, b"abc"), PRINCIPAL, b"{}", "the provider", "JWS")


def test_an_agent_of_a_signer_with_a_chain() -> None:
    class Chained(LocalEd25519Provider):
        x5c = ("MII=",)

    key = Chained.generate(PRINCIPAL) if hasattr(Chained, "generate") else Chained(PRINCIPAL)
    agent = BedrockAgentIdentity("ABCDEFGHIJ", "TSTALIASID", signer=key, account="123456789012", region="eu-west-1")
    with pytest.raises(IdentityError, match="a certificate chain names its own subject"):
        agent.sign(b"{}")
    with pytest.raises(ConfigurationError, match="account must be twelve digits"):
        BedrockAgentIdentity("ABCDEFGHIJ", "TSTALIASID", signer=key, account="12345")


def test_an_identity_of_aws_that_is_not_connected() -> None:
    assert repr(AWSWorkloadIdentity(region="eu-west-1")) == "AWSWorkloadIdentity('not connected')"


def test_key_files_that_cannot_be_read(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ConfigurationError, match="cannot be opened: Too many levels of symbolic links"):
        read_private_key(loop)
    with pytest.raises(ConfigurationError, match=r"is not a regular file|cannot be read"):
        read_private_key(tmp_path)


# --- trust ---


def test_a_source_that_raises() -> None:
    pytest.importorskip("spiffe")

    class Raising:
        def get_bundle_for_trust_domain(self, domain: object) -> object:
            raise ValueError("broken")

    source = SpiffeBundleSource(Raising(), "example.org")
    with closing(source):
        assert source.snapshot().problem == "the source of the bundle of example.org failed (ValueError)"

    class Unready:
        @property
        def x509_authorities(self) -> object:
            raise ValueError("not fetched yet")

    with pytest.raises(ConfigurationError, match=r"the bundle's own x509_authorities failed \(ValueError\)"):
        SpiffeBundleSource(Unready(), "example.org")


def test_authorities_without_basic_constraints() -> None:
    pytest.importorskip("cryptography")
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding

    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "plain")])
    start = datetime.datetime(2026, 1, 1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start)
        .not_valid_after(start + datetime.timedelta(days=9999))
        .sign(key, None)
    )
    with pytest.raises(KestError, match=r"CA certificates \(basicConstraints cA\), and one of these is none"):
        certificates_of(certificate.public_bytes(Encoding.PEM))


def test_a_chain_without_authorities() -> None:
    pytest.importorskip("cryptography")
    with pytest.raises(ChainError, match="the bundle of the trust domain has no authority"):
        Authorities("example.org", ()).leaf("spiffe://example.org/a", ["MII="])


# --- hashing ---


def test_hashing_at_its_edges() -> None:
    from pathlib import PurePosixPath

    odd = hashing.encode(PurePosixPath("\udcff"))[0]
    assert isinstance(odd, dict)
    assert odd["value"] == b"\xff"

    class Rows(tuple):  # type: ignore[type-arg]
        __slots__ = ()
        _fields = ("a",)

    assert hashing.encode(Rows((1, 2)))[0] == [1, 2]  # its names do not fit
    deep: Any = "x"
    for _ in range(2000):
        deep = (deep,)
    with pytest.raises(CanonicalizationError, match="nesting of more than"):
        hashing._expand(deep, 0)
    assert hashing._expand({"a": {1}}, 0) == {"a": {hashing.TAG: "set", "items": [1]}}


# --- settings ---


def test_a_deviation_may_name_an_operation() -> None:
    members = {"policy": "p", "tier": "platform", "operation": "pay", "reason": "r", "approver": "a"}
    assert PolicyDeviation.of(members).scope == "pay"


def test_resolvers() -> None:
    with pytest.raises(TypeError, match="wants 'other'"):
        Resolver(lambda *more, other: other, "user", ("a",))
    assert Resolver(lambda *more, a: (more, a), "user", ("a",))({"a": 1}) == ((), 1)
    assert Resolver(dict, "user", ())({"a": 1}) in ({}, {"a": 1})
    with pytest.raises(Exception, match="the resolver of user returned an awaitable"):
        Resolver(lambda: asyncio.sleep(0), "user", ())({})


def test_redis_settings() -> None:
    pytest.importorskip("redis")
    cache = RedisCache(host="127.0.0.1", port=1, username="u", password="secret", timeout=1.0)
    settings = cache._client().connection_pool.connection_kwargs
    assert (settings["username"], settings["password"]) == ("u", "secret")
    assert "secret" not in repr(cache)
    with pytest.raises(ClaimCheckError, match="ttl is not positive"):
        cache.set("claim", "record", ttl=0)
    with pytest.raises(ClaimCheckError):
        cache.delete("claim")  # nobody listens on port 1

    async def there() -> None:
        with pytest.raises(ClaimCheckError):
            await cache.set_async("claim", "record")
        await cache.aclose()
        await cache.aclose()

    asyncio.run(there())
    cache.close()


# --- HTTP ---


def test_an_edge_refuses_settings() -> None:
    with pytest.raises(ConfigurationError, match=r"on_unverified is one of .*, not 'perhaps'"):
        Edge(on_unverified="perhaps")
    with pytest.raises(ConfigurationError, match="origin 'moon' is unknown"):
        Edge(origin="moon")


def test_labels_that_are_no_identity() -> None:
    assert _identity({"kest.identity": '{"user":"u"}', "kest.actors": '["a",1]'}) == {"user": "u", "actors": ("a",)}
    for labels in ({"kest.identity": "{"}, {"kest.identity": "[]"}, {"kest.actors": "{}"}):
        assert _identity(labels) == {}


class Broken:
    """A cache of somebody else's that fails."""

    def get(self, key: str) -> object:
        raise OSError("no")

    def __setitem__(self, key: str, value: str) -> None:
        raise OSError("no")


class BrokenAsync:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def set_async(self, key: str, value: str, ttl: float) -> None:
        raise self.error


def test_caches_that_fail() -> None:
    with pytest.raises(ClaimCheckError, match="the claim check could not be redeemed: OSError"):
        asyncio.run(_fetched(Broken(), "claim"))
    words = "the passport could not be stored for a claim check: "
    with pytest.raises(ClaimCheckError, match=words + "OSError"):
        Packer(cache=Broken()).store({"claim": "record"})
    with pytest.raises(ClaimCheckError, match=words + "OSError"):
        asyncio.run(Packer(cache=Broken()).store_async({"claim": "record"}))
    with pytest.raises(ClaimCheckError, match=words + "ValueError"):
        asyncio.run(Packer(cache=BrokenAsync(ValueError("no"))).store_async({"claim": "record"}))
    with pytest.raises(ClaimCheckError, match=r"^mine$"):
        asyncio.run(Packer(cache=BrokenAsync(ClaimCheckError("mine"))).store_async({"claim": "record"}))

    class Items(dict[str, str]):
        set = None

    kept = Items()
    Packer(cache=kept).store({"claim": "record"})
    assert kept == {"claim": "record"}


def test_header_values() -> None:
    assert header_bytes(bytearray(b"a=1")) == b"a=1"
    assert header_bytes("a=é") == b"a=\xe9"
    assert header_bytes("a=\u20ac") == "a=\u20ac".encode()


def test_a_web_socket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(refuse({"type": "websocket"}, send, KestError("no")))
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "refused by Kest"}]


def test_key_sets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for wrong in ({"refresh": 0.0}, {"refresh": 10.0, "keep": 5.0}, {"timeout": 0.0}, {"min_interval": -1.0}):
        with pytest.raises(ConfigurationError, match="refresh, keep and timeout are positive"):
            KeySet(str(tmp_path / "keys"), **wrong)
    file = tmp_path / "keys.json"
    for content, words in (
        (b"[]", "not a JWK set"),
        (b'{"keys": {}}', "not a JWK set"),
        (b'{"keys": []}', "no usable signing key in it"),
        (b" " * (MAX_BYTES + 1), f"more than {MAX_BYTES} bytes"),
    ):
        file.write_bytes(content)
        caplog.clear()
        with pytest.raises(TokenError, match="the issuer's keys are not available"):
            KeySet(str(file)).find("a")
        assert words in caplog.text
    key = LocalEd25519Provider(PRINCIPAL).public_jwk()
    file.write_bytes(_kestcore.canonicalize({"keys": [key]}))
    keys = KeySet(str(file), refresh=1e-9, min_interval=0.0)
    assert len(keys.find(key["kid"])) == 1
    file.write_bytes(b"[]")
    assert len(keys.find(key["kid"])) == 1  # stale: fetched again in the background, and kept as it does not arrive
    keys.prefetch()
    patient = KeySet(str(file), min_interval=3600.0)
    with pytest.raises(TokenError):
        patient.find(None)
    patient._fetch_later()
    assert patient._runner == 0  # too soon
