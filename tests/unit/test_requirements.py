"""Each id of requirements.md that the call path covers, once. Other ids: see `REQUIRES`."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from kest._kestcore import PublicKey, b64url_decode, b64url_encode, canonicalize, sha256
from kest.core import (
    BaggageManager,
    DefaultTrustEvaluator,
    IdentityProvider,
    KestEntry,
    LocalEd25519Provider,
    MockIdentityProvider,
    MockPolicyEngine,
    OPAPolicyEngine,
    Passport,
    PassportVerifier,
    PolicyDeniedError,
    SimpleCache,
    SPIREProvider,
    TrustEvaluator,
    VerificationError,
    configure,
    get_active_cache,
    get_active_engine,
    get_active_identity,
    kest_verified,
    register_origin_trust,
    sign_entry,
    version,
)
from kest.core.context import (
    Caller,
    caller_var,
    get_current_agent,
    get_current_jwt,
    get_current_passport,
    get_current_task,
    get_current_user,
    lineage,
)
from kest.errors import ConfigurationError, IdentityError, PassportTooLargeError, PolicyEngineError

REQUIRES = {
    "F-CP-02": "test_documents.py::test_000_fastapi_extends_the_passport_over_two_hops",
    "F-CP-03": "test_documents.py::test_000_fastapi_extends_the_passport_over_two_hops",
    "F-TE-03": "../telemetry/test_telemetry_setup.py::test_what_a_process_did_is_in_the_file_when_it_has_ended",
    "NF-OBS-02": "../telemetry/test_telemetry_setup.py::test_the_service_comes_from_the_environment_too",
}
"""Ids that are covered elsewhere, and where."""

pytestmark = pytest.mark.usefixtures("configured")


def call(**kwargs: Any) -> dict[str, Any]:
    kest_verified(kwargs.pop("policy", "p"), **kwargs)(lambda: None)()
    return get_current_passport().decode()[-1]


def header_of(jws: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(b64url_decode(jws.split(".")[0]))
    return result


def chain(identity: Any, n: int) -> list[str]:
    entries: list[str] = []
    for i in range(n):
        parents = (sha256(entries[-1].encode()).hex(),) if entries else ("0",)
        entries.append(sign_entry(KestEntry(f"op{i}", parent_ids=parents), identity))
    return entries


# --- identity --------------------------------------------------------------------------------------------------------


def test_f_id_01(identity: Any) -> None:
    assert isinstance(identity, IdentityProvider)
    assert identity.get_workload_id() == identity.get_identity() == "spiffe://kest.test/unit"
    assert identity.sign(b"{}").count(".") == 2


def test_f_id_02() -> None:
    for name in ("", " ", None, 5):
        with pytest.raises(IdentityError):
            LocalEd25519Provider(name)  # type: ignore[arg-type]


def test_f_id_03(identity: Any) -> None:
    jws = identity.sign(b'{"a":1}')
    message, _, signature = jws.rpartition(".")
    assert header_of(jws) == {"alg": "EdDSA", "kid": identity.get_identity(), "typ": "JWS"}
    assert PublicKey.from_jwk(identity.public_jwk()).verify(message.encode(), b64url_decode(signature))


def test_f_id_04(identity: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call()
    assert list(tmp_path.iterdir()) == []
    secret = identity.signer.export_seed()
    everything = json.dumps([get_current_passport().serialize(), identity.public_jwk(), repr(identity)])
    assert secret.hex() not in everything
    assert b64url_encode(secret) not in everything


def test_f_id_05() -> None:
    assert isinstance(SPIREProvider(socket_path="/run/spire/sockets/agent.sock"), IdentityProvider)
    missing = SPIREProvider(socket_path="/nonexistent/agent.sock")
    with pytest.raises((IdentityError, ConfigurationError)):
        missing.sign(b"{}")


# --- entries ---------------------------------------------------------------------------------------------------------


def test_f_ae_01() -> None:
    for expected in (1, 2, 3):
        call()
        assert len(get_current_passport()) == expected


def test_f_ae_02() -> None:
    assert sorted(call()) == [
        "added_taints", "classification", "content_hash", "entry_id", "environment", "input_hash", "labels", "metadata",
        "operation", "otel_context", "parent_ids", "policy_context", "removed_taints", "runtime", "schema_version", "taints",
        "timestamp_ms", "trust_score",
    ]  # fmt: skip


def test_f_ae_03() -> None:
    entry = call(user="ü")
    payload = b64url_decode(get_current_passport().entries[0].split(".")[1])
    assert payload == canonicalize(entry)


def test_f_ae_04() -> None:
    assert uuid.UUID(call()["entry_id"]).version == 7


def test_f_ae_05() -> None:
    assert call()["schema_version"] == "0.3.0"


def test_f_ae_06() -> None:
    assert call()["runtime"] == {"name": "kest-c", "version": version()}


def test_f_ae_07() -> None:
    assert call()["operation"] == "call.<lambda>"
    assert call(operation_name="label")["operation"] == "label"


def test_f_ae_08() -> None:
    assert call()["parent_ids"] == ["0"]
    first = get_current_passport().entries[0]
    assert call()["parent_ids"] == [sha256(first.encode()).hex()]


def test_f_ae_09() -> None:
    for override in (0, 100):
        assert type(call(trust_override=override)["trust_score"]) is int


def test_f_ae_10() -> None:
    call(added_taints=["a", "b"])
    assert call(added_taints=["c"], removed_taints=["b"])["taints"] == ["a", "c"]


def test_f_ae_11() -> None:
    assert call()["labels"]["principal"] == "spiffe://kest.test/unit"
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), sdk.TracerProvider):
        trace.set_tracer_provider(sdk.TracerProvider())
    with trace.get_tracer("app").start_as_current_span("request") as span:
        assert call()["labels"]["trace_id"] == f"{span.get_span_context().trace_id:032x}"


def test_f_ae_12() -> None:
    before = time.time_ns() // 1_000_000
    at = call()["timestamp_ms"]
    assert before - 1 <= at <= time.time_ns() // 1_000_000 + 1


def test_f_ae_13() -> None:
    assert call()["policy_context"] == {
        "enterprise_policies": [], "platform_policies": [], "app_policies": [], "function_policies": ["p"], "deviations": [],
    }  # fmt: skip


# --- passport --------------------------------------------------------------------------------------------------------


def test_f_pa_01(identity: Any) -> None:
    entries = chain(identity, 3)
    assert Passport(entries).entries == entries
    assert all(type(jws) is str and jws.count(".") == 2 for jws in entries)


def test_f_pa_02(identity: Any) -> None:
    entries = chain(identity, 3)
    text = Passport(entries).serialize()
    assert json.loads(text) == entries
    assert Passport.deserialize(text).entries == entries


def test_f_pa_03() -> None:
    assert len(PassportVerifier.verify(Passport(), {})) == 0


def test_f_pa_04(identity: Any) -> None:
    entries = chain(identity, 3)
    assert len(PassportVerifier.verify(entries, {identity.get_identity(): identity})) == 3
    with pytest.raises(VerificationError):
        PassportVerifier.verify(entries, {identity.get_identity(): LocalEd25519Provider()})


def test_f_pa_05(identity: Any) -> None:
    entries = chain(identity, 3)
    forged = chain(LocalEd25519Provider(identity.get_identity()), 1)
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify([forged[0], *entries], {identity.get_identity(): identity})
    assert caught.value.index == 0


def test_f_pa_06(identity: Any) -> None:
    entries = chain(identity, 3)
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify([entries[0], entries[2]], {identity.get_identity(): identity})
    assert caught.value.index == 1


def test_f_pa_07(identity: Any) -> None:
    entry = KestEntry("op", parent_ids=("0",))
    assert PassportVerifier.verify([sign_entry(entry, identity)], {identity.get_identity(): identity}).tips
    with pytest.raises(Exception, match="parent_ids"):
        sign_entry(KestEntry("op", parent_ids=("0", "0" * 64)), identity)


# --- policy ----------------------------------------------------------------------------------------------------------


def test_f_pe_01(configured: Any) -> None:
    configure(enterprise_policies=["e"])
    seen: list[Any] = []
    configured.engine.answer = lambda names, context: seen.append((names, len(get_current_passport()))) is None
    kest_verified("p")(lambda: seen.append(("body", len(get_current_passport()))))()
    assert seen == [(("e",), 0), (("p",), 0), ("body", 1)]


def test_f_pe_02(configured: Any) -> None:
    def broken(names: Any, context: Any) -> bool:
        raise OSError

    for answer in (False, broken):
        configured.engine.answer = answer
        with pytest.raises(PermissionError):
            call()


def test_f_pe_03(configured: Any) -> None:
    configured.engine.answer = lambda names, context: set(names) == {"a", "b"}
    call(policy=["a", "b"])
    with pytest.raises(PolicyDeniedError):
        call(policy=["a"])


def test_f_pe_04(configured: Any) -> None:
    configured.engine.answer = False
    ran: list[int] = []
    with pytest.raises(PolicyDeniedError):
        kest_verified("p")(lambda: ran.append(1))()
    assert not ran


def test_f_pe_05(configured: Any, recording_engine: Any) -> None:
    engine, other = recording_engine(), LocalEd25519Provider("spiffe://kest.test/other")

    class Evaluator:
        def calculate(self, self_score: int, parent_scores: Any) -> int:
            return 7

    entry = call(engine=engine, identity=other, trust_evaluator=Evaluator())
    assert (entry["labels"]["principal"], entry["trust_score"]) == ("spiffe://kest.test/other", 7)
    assert (len(engine.asked), len(configured.engine.asked)) == (1, 0)


def test_f_pe_06(configured: Any) -> None:
    call()
    given = configured.engine.asked[0][1]
    assert {"subject", "object", "environment"} <= set(given)
    assert given["subject"]["workload"] == "spiffe://kest.test/unit"


def test_f_pe_07(configured: Any) -> None:
    configure(enterprise_policies=["e"], platform_policies=["l"], app_policies=["a"])
    call()
    assert [names for names, _ in configured.engine.asked] == [("e",), ("l",), ("a",), ("p",)]


def test_f_pe_08(configured: Any) -> None:
    configure(enterprise_policies=["e"])
    configured.engine.answer = lambda names, context: "e" not in names
    with pytest.raises(PolicyDeniedError):
        call(trust_override=100)


def test_f_pe_09(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kest.json").write_text('{"platform_policies": ["deployed"]}')
    monkeypatch.setenv("KEST_CONFIG", str(tmp_path / "kest.json"))
    configure(clear=True)
    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider())
    assert call()["policy_context"]["platform_policies"] == ["deployed"]


def test_f_pe_10(configured: Any) -> None:
    configure(app_policies=["a"])
    call(policy=["a", "p"])
    assert configured.engine.asked[-1][0] == ("a", "p")


DEVIATION = {"policy": "e", "tier": "enterprise", "scope": "op", "reason": "why", "approver": "who"}


def test_f_pe_11() -> None:
    with pytest.raises(TypeError):
        kest_verified("p", deviations=[DEVIATION])  # type: ignore[call-arg]
    configure(deviations=[DEVIATION])


def test_f_pe_12() -> None:
    configure(enterprise_policies=["e"], deviations=[DEVIATION])
    recorded = call(operation_name="op")["policy_context"]["deviations"]
    assert recorded == [{"policy": "e", "tier": "enterprise", "reason": "why", "approver": "who"}]


def test_f_pe_13(configured: Any) -> None:
    configure(enterprise_policies=["e"], deviations=[DEVIATION])
    call(operation_name="op")
    assert len(PassportVerifier.verify(get_current_passport(), configured.keys)) == 1


# --- trust -----------------------------------------------------------------------------------------------------------


def test_f_ts_01() -> None:
    register_origin_trust("requirements.origin", 77)
    assert call(source_type="requirements.origin")["trust_score"] == 77


def test_f_ts_02() -> None:
    for name, score in (("system", 100), ("internal", 100), ("verified_rag", 90), ("third_party_api", 60),
                        ("user_input", 40), ("internet", 10), ("llm", 0)):  # fmt: skip
        with lineage():
            assert call(source_type=name)["trust_score"] == score
        with pytest.raises(ValueError):
            register_origin_trust(name, 55)


def test_f_ts_03() -> None:
    call(source_type="verified_rag")
    assert call(source_type="verified_rag")["trust_score"] == 81
    assert call(source_type="verified_rag")["trust_score"] == 72  # 72.9


def test_f_ts_04() -> None:
    assert isinstance(DefaultTrustEvaluator(), TrustEvaluator)
    assert DefaultTrustEvaluator().calculate(50, [60, 70]) == 30


def test_f_ts_05() -> None:
    call(source_type="llm")
    assert call(trust_override=85)["trust_score"] == 85


def test_f_ts_06(configured: Any) -> None:
    call(source_type="third_party_api")
    assert type(configured.engine.asked[0][1]["trust_score"]) is int
    assert configured.engine.asked[0][1]["subject"]["trust_score"] == 60


# --- taints ----------------------------------------------------------------------------------------------------------


def test_f_tt_01() -> None:
    for name in ("added_taints", "removed_taints"):
        for taint in ("", 1, None, b"x"):
            with pytest.raises((TypeError, ValueError)):
                kest_verified("p", **{name: [taint]})(lambda: 1)  # type: ignore[arg-type]


def test_f_tt_02() -> None:
    assert call(added_taints=["x"])["added_taints"] == ["x"]


def test_f_tt_03() -> None:
    call(added_taints=["x"])
    removing = call(removed_taints=["x"], trust_override=90, classification="sanitizer")
    assert (removing["removed_taints"], removing["taints"]) == (["x"], [])


def test_f_tt_04() -> None:
    call(added_taints=["a"])
    call(added_taints=["b"])
    assert call(added_taints=["c"], removed_taints=["a"])["taints"] == ["b", "c"]


def test_f_tt_05() -> None:
    entry = call(added_taints=["a"], removed_taints=["b"])
    assert (entry["added_taints"], entry["removed_taints"], entry["taints"]) == (["a"], ["b"], ["a"])


def test_f_tt_06(configured: Any) -> None:
    call(added_taints=["b", "a"])
    assert configured.engine.asked[0][1]["taints"] == configured.engine.asked[0][1]["subject"]["taints"] == ["a", "b"]


# --- identity context ------------------------------------------------------------------------------------------------


def test_f_ic_01(configured: Any) -> None:
    call(user="u", agent="a", task="t", resource_id="r", resource_attr={"k": 1})
    given = configured.engine.asked[0][1]
    assert (given["user"], given["agent"], given["task"], given["object"]) == (
        "u",
        "a",
        "t",
        {"id": "r", "attributes": {"k": 1}},
    )


def test_f_ic_02(configured: Any) -> None:
    kest_verified("p", user=lambda who: who, resource_id=lambda: "r")(lambda who: None)("alice")
    assert configured.engine.asked[0][1]["user"] == "alice"
    assert configured.engine.asked[0][1]["object"]["id"] == "r"


def test_f_ic_03(configured: Any) -> None:
    caller_var.set(Caller(user="carried", agent="by", task="request"))
    call(agent="own")
    given = configured.engine.asked[0][1]
    assert (given["user"], given["agent"], given["task"]) == ("carried", "own", "request")


def test_f_ic_04() -> None:
    labels = call(user="u", resource_attr={"b": 1, "a": [None]})["labels"]
    assert labels["kest.identity"] == '{"agent":null,"task":null,"user":"u"}'
    assert labels["kest.resource_attr"] == '{"a":[null],"b":1}'


# --- propagation -----------------------------------------------------------------------------------------------------


def test_f_cp_01(identity: Any) -> None:
    passport = Passport(chain(identity, 2))
    assert json.loads(BaggageManager.pack(passport)["kest.passport"]) == passport.entries


def test_f_cp_04(identity: Any) -> None:
    long = Passport(chain(identity, 40))
    with pytest.raises(PassportTooLargeError):
        BaggageManager.pack(long)
    assert "kest.claim_check" in BaggageManager.pack(long, SimpleCache())
    assert "kest.claim_check" in BaggageManager.pack(Passport(chain(identity, 2)), SimpleCache(), limit=500)


def test_f_cp_05(identity: Any) -> None:
    passport, cache = Passport(chain(identity, 40)), SimpleCache()
    assert BaggageManager.unpack(BaggageManager.pack(passport, cache), cache).chain_tip == passport.chain_tip


def test_f_cp_06() -> None:
    caller_var.set(Caller("u", "a", "t", "token"))
    assert (get_current_user(), get_current_agent(), get_current_task(), get_current_jwt()) == ("u", "a", "t", "token")
    assert len(get_current_passport()) == 0


def test_f_cp_07(identity: Any) -> None:
    assert "kest.passport_z" in BaggageManager.pack(Passport(chain(identity, 6)), SimpleCache())


def test_f_cp_08(identity: Any) -> None:
    passport = Passport(chain(identity, 6))
    packed = BaggageManager.pack(passport)
    assert BaggageManager.unpack(packed).entries == passport.entries
    with pytest.raises(ValueError):
        BaggageManager.unpack({**packed, "kest.passport_z": packed["kest.passport_z"][:-9]})


# --- telemetry -------------------------------------------------------------------------------------------------------


@pytest.fixture
def spans() -> Any:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), sdk.TracerProvider):
        trace.set_tracer_provider(sdk.TracerProvider())
    exporter = memory.InMemorySpanExporter()
    trace.get_tracer_provider().add_span_processor(export.SimpleSpanProcessor(exporter))  # type: ignore[attr-defined]
    yield exporter.get_finished_spans
    exporter.shutdown()


def test_f_te_01(spans: Any) -> None:
    call(operation_name="op")
    (span,) = spans()
    assert span.instrumentation_scope.name == "kest.core"


def test_f_te_02(spans: Any) -> None:
    call()
    (span,) = spans()
    assert {"kest.signature", "kest.parent_hash", "kest.passport"} <= set(span.attributes)


# --- configuration ---------------------------------------------------------------------------------------------------


def test_f_gc_01() -> None:
    engine, identity, cache = MockPolicyEngine(), LocalEd25519Provider(), SimpleCache()
    configure(engine, identity, cache)
    assert get_active_engine() is engine
    assert get_active_identity() is identity
    assert get_active_cache() is cache


def test_f_gc_02(configured: Any) -> None:
    assert get_active_engine() is configured.engine
    assert get_active_identity() is configured.identity
    assert get_active_cache() is None


def test_f_gc_03(configured: Any) -> None:
    call(engine=MockPolicyEngine())
    assert not configured.engine.asked


def test_f_gc_04() -> None:
    configure(clear=True)
    with pytest.raises(ConfigurationError, match="configure"):
        call()


# --- performance, security, correctness ------------------------------------------------------------------------------


def best(times: int, fn: Any) -> float:
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        fn()
        durations.append(time.perf_counter() - start)
    return min(durations)


def test_nf_perf_02(identity: Any) -> None:
    assert best(50, lambda: sign_entry(KestEntry("op", labels={"a": "b"}), identity)) < 1e-3


def test_nf_perf_03() -> None:
    decorated = kest_verified("p")(lambda: 1)
    durations = sorted(best(1, decorated) for _ in range(300))
    assert durations[len(durations) // 2] < 2e-3


def test_nf_perf_04(identity: Any) -> None:
    entries = chain(identity, 100)
    assert best(3, lambda: PassportVerifier.verify(entries, {identity.get_identity(): identity})) < 0.5


def test_nf_sec_01(identity: Any, caplog: pytest.LogCaptureFixture, configured: Any) -> None:
    caplog.set_level(0)
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError):
        call()
    assert identity.signer.export_seed().hex() not in caplog.text


class Broken:
    def __init__(self, value: Any = OSError("down")) -> None:
        self.value = value

    def get_identity(self) -> str:
        return "spiffe://kest.test/broken"

    def sign(self, payload: bytes) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_nf_sec_02() -> None:
    ran: list[int] = []
    for value in (OSError("down"), None, "", "pending", "a.b.c"):
        with pytest.raises(IdentityError):
            kest_verified("p", identity=Broken(value))(lambda: ran.append(1))()
    assert not ran
    assert len(get_current_passport()) == 0


def test_nf_sec_03(configured: Any) -> None:
    def broken(names: Any, context: Any) -> bool:
        raise TimeoutError

    configured.engine.answer = broken
    with pytest.raises(PolicyDeniedError) as caught:
        call()
    assert isinstance(caught.value.__cause__, PolicyEngineError)


def test_nf_sec_04(identity: Any) -> None:
    payload = canonicalize(json.loads(KestEntry("op").payload("spiffe://kest.test/unit")))
    header = canonicalize({"alg": "none", "kid": "spiffe://kest.test/unit", "typ": "JWS"})
    with pytest.raises(VerificationError):
        PassportVerifier.verify(
            [f"{b64url_encode(header)}.{b64url_encode(payload)}."], {identity.get_identity(): identity}
        )


def test_nf_sec_05(identity: Any) -> None:
    """A child may be older than its parent by the clock: only hashes order entries."""
    first = sign_entry(KestEntry("a", timestamp_ms=2_000_000_000_000), identity)
    second = sign_entry(KestEntry("b", timestamp_ms=1, parent_ids=(sha256(first.encode()).hex(),)), identity)
    verified = PassportVerifier.verify([first, second], {identity.get_identity(): identity})
    assert verified.tips == (sha256(second.encode()).hex(),)


def test_nf_sec_06(identity: Any) -> None:
    entries = chain(identity, 1)
    for _ in range(2):  # replay is for the application to notice; verification has no memory
        PassportVerifier.verify(entries, {identity.get_identity(): identity})


def test_nf_corr_01() -> None:
    rfc8785 = pytest.importorskip("rfc8785")
    value = {"\U0001f600": 1, "\ufb33": 1.5e300, "a": [None, True, 1e-7, "\u2028é"], "": {}}
    assert canonicalize(value) == rfc8785.dumps(value)


def test_nf_corr_02(identity: Any) -> None:
    (jws,) = chain(identity, 1)
    assert Passport([jws]).chain_tip == sha256(jws.encode()).hex() == Passport.deserialize(f'["{jws}"]').chain_tip


def test_nf_corr_03() -> None:
    for own in range(101):
        assert DefaultTrustEvaluator().calculate(own, (97,)) == own * 97 // 100


def test_nf_obs_01(configured: Any, caplog: pytest.LogCaptureFixture) -> None:
    configured.engine.answer = False
    with caplog.at_level(logging.WARNING, "kest"), pytest.raises(PolicyDeniedError) as caught:
        call(policy=["p", "q"])
    for part in (caught.value.entry_id, "p, q", "spiffe://kest.test/unit"):
        assert part in caplog.text


def test_nf_obs_03(spans: Any) -> None:
    call(operation_name="op")
    assert [span.name for span in spans()] == ["kest.verified.op"]


def test_nf_inter_01(identity: Any) -> None:
    value = json.loads(Passport(chain(identity, 2)).serialize())
    assert type(value) is list
    assert all(type(item) is str for item in value)


def test_nf_inter_03(identity: Any) -> None:
    packed = BaggageManager.pack(Passport(chain(identity, 1)))
    assert packed["kest.passport"].startswith('["ey')


def test_nf_test_01() -> None:
    assert MockIdentityProvider().sign(b"{}") == MockIdentityProvider().sign(b"{}")


def test_nf_test_02() -> None:
    assert MockPolicyEngine(allow=True).evaluate("id", ["p"], {}) is True
    assert MockPolicyEngine(allow=False).evaluate("id", ["p"], {}) is False


# --- the specification's test cases ----------------------------------------------------------------------------------


def test_tc_01(identity: Any) -> None:
    assert len(PassportVerifier.verify(chain(identity, 1), {identity.get_identity(): identity})) == 1


def test_tc_02(identity: Any) -> None:
    entries = chain(identity, 3)
    header, payload, signature = entries[1].split(".")
    altered = b64url_decode(payload).replace(b'"op1"', b'"opX"')
    entries[1] = f"{header}.{b64url_encode(altered)}.{signature}"
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify(entries, {identity.get_identity(): identity})
    assert caught.value.index == 1


def test_tc_03(identity: Any) -> None:
    entries = chain(identity, 1)
    message, _, signature = entries[0].rpartition(".")
    raw = bytearray(b64url_decode(signature))
    raw[0] ^= 1
    with pytest.raises(VerificationError, match="signature"):
        PassportVerifier.verify([f"{message}.{b64url_encode(raw)}"], {identity.get_identity(): identity})


def test_tc_04() -> None:
    call(source_type="internet")
    assert call(source_type="internal")["trust_score"] == 10


def test_tc_05() -> None:
    call(source_type="internet")
    assert call(trust_override=100)["trust_score"] == 100


def test_tc_06() -> None:
    call(added_taints=["a", "b"])
    assert call(added_taints=["c"], removed_taints=["b"])["taints"] == ["a", "c"]


def test_tc_07(configured: Any) -> None:
    configured.engine.answer = False
    ran: list[int] = []
    with pytest.raises(PolicyDeniedError):
        kest_verified("p")(lambda: ran.append(1))()
    assert not ran


def test_tc_08(configured: Any) -> None:
    configure(enterprise_policies=["allowed"])
    configured.engine.answer = lambda names, context: "allowed" in names
    ran: list[int] = []
    with pytest.raises(PolicyDeniedError):
        kest_verified("denied")(lambda: ran.append(1))()
    assert not ran


def test_tc_09() -> None:
    with OPAPolicyEngine(url="http://127.0.0.1:9", timeout=0.5) as engine, pytest.raises(PolicyEngineError):
        engine.evaluate("id", ["p"], {"identity": "w"})


def test_tc_10() -> None:
    assert canonicalize({"z": 1, "a": 2, "m": 3}) == b'{"a":2,"m":3,"z":1}'


def test_tc_11(identity: Any) -> None:
    passport, cache = Passport(chain(identity, 40)), SimpleCache()
    assert BaggageManager.restore(BaggageManager.store(passport, cache), cache).entries == passport.entries


def test_tc_12() -> None:
    caller_var.set(Caller(user="alice"))
    assert kest_verified("p")(get_current_user)() == "alice"

    async def inside() -> Any:
        return get_current_user()

    assert asyncio.run(kest_verified("p")(inside)()) == "alice"


@pytest.mark.parametrize("id", REQUIRES)
def test_what_is_covered_elsewhere_is_there(id: str) -> None:
    file, _, name = REQUIRES[id].partition("::")
    assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")


# --- text without an id ----------------------------------------------------------------------------------------------


def test_hashes_are_lower_case_hex_without_prefix() -> None:
    call()
    assert all(c in "0123456789abcdef" for c in get_current_passport().chain_tip)
    assert len(get_current_passport().chain_tip) == 64


def test_no_passport_is_shared_between_concurrent_tasks() -> None:
    @kest_verified("p")
    async def work() -> str:
        await asyncio.sleep(0)
        return get_current_passport().chain_tip

    async def main() -> list[str]:
        return await asyncio.gather(*(work() for _ in range(20)))

    assert len(set(asyncio.run(main()))) == 20
