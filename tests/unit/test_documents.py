"""The samples of the public README (000), guide (001) and decorator reference (002) run as printed.

A sample is the document's own lines; where the published text had lost its line breaks or indentation, these alone are
restored. What surrounds a sample (names that it takes for granted, and what is asserted) is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
import io
import sys
import types
from typing import Any

import pytest

from kest.core import LocalEd25519Provider, MockPolicyEngine, PassportVerifier, PolicyDeniedError, configure
from kest.core.context import get_current_passport, lineage
from kest.core.engine import PolicyEngine


def run(sample: str, **names: Any) -> dict[str, Any]:
    """Execute a sample; returns its module namespace."""
    namespace: dict[str, Any] = {"__name__": "sample", **names}
    exec(compile(sample, "<sample>", "exec"), namespace)
    return namespace


@pytest.fixture
def mock() -> MockPolicyEngine:
    engine = MockPolicyEngine(allow=True)
    configure(engine=engine, identity=LocalEd25519Provider())
    return engine


# --- 000 -------------------------------------------------------------------------------------------------------------

QUICK_START = '''
from kest.core import (
    configure,
    kest_verified,
    CedarLocalEngine,
    LocalEd25519Provider,
)
# 1. One-time global configuration
configure(
    identity=LocalEd25519Provider(), # auto-generates an ephemeral Ed25519 key
    engine=CedarLocalEngine(
        policies=[
            """
            permit(
            principal,
            action == Action::"invoke",
            resource
            );
            """
        ]
    ),
)
# 2. Decorate your functions
@kest_verified(policy="invoke")
def ingest_data(payload: dict) -> dict:
    return {"ingested": payload}
@kest_verified(policy="invoke", added_taints=["unverified"])
def fetch_external(url: str) -> dict:
    return {"source": url, "data": "..."}
@kest_verified(policy="invoke", removed_taints=["unverified"])
def validate(data: dict) -> dict:
    return {**data, "validated": True}
# 3. Call them — lineage is automatic
raw = ingest_data({"user": "alice", "amount": 100})
external = fetch_external("https://api.example.com/prices")
result = validate(external)
'''


def test_000_quick_start_makes_one_chain_of_three() -> None:
    pytest.importorskip("cedarpy")
    names = run(QUICK_START)
    assert names["raw"] == {"ingested": {"user": "alice", "amount": 100}}
    assert names["result"] == {"source": "https://api.example.com/prices", "data": "...", "validated": True}
    passport = get_current_passport()
    first, second, third = passport.decode()
    assert first["parent_ids"] == ["0"]
    assert [first["taints"], second["taints"], third["taints"]] == [[], ["unverified"], []]
    assert [e["operation"] for e in (first, second, third)] == ["ingest_data", "fetch_external", "validate"]
    from kest.core import get_active_identity

    identity = get_active_identity()
    verified = PassportVerifier.verify(passport, {identity.get_identity(): identity}, chain_tip=passport.chain_tip)
    assert len(verified) == 3


REGO_GATE = '''
from kest.core import configure, kest_verified, RegoLocalEngine, LocalEd25519Provider
POLICY = """
package kest.allow
import future.keywords
default allow := false
allow if {
    input.trust_score >= 70 # integer, 0-100
    input.is_root == false
}
"""
configure(
    identity=LocalEd25519Provider(),
    engine=RegoLocalEngine(policies={"kest/allow": POLICY}),
)
@kest_verified(policy="kest/allow")
def process(data: dict) -> dict:
    return data
'''


def rego() -> None:
    if importlib.util.find_spec("regopy") is None and importlib.util.find_spec("lakera_regorus") is None:
        pytest.skip("neither regopy nor lakera-regorus is installed")


def test_000_rego_in_process_policy_decides() -> None:
    rego()
    from kest.core import kest_verified

    process = run(REGO_GATE)["process"]
    with lineage(), pytest.raises(PolicyDeniedError):
        process({"a": 1})  # a root

    @kest_verified("any", engine=MockPolicyEngine(allow=True))
    def first() -> None: ...

    @kest_verified("any", engine=MockPolicyEngine(allow=True), source_type="third_party_api")
    def weaker() -> None: ...

    with lineage():
        first()
        assert process({"a": 1}) == {"a": 1}
        weaker()
        with pytest.raises(PolicyDeniedError):
            process({"a": 1})


QUALITY = '''
# Quality gate: block any pipeline where trust has degraded below 80
REGO_POLICY = """
package kest.quality
import future.keywords
default allow := false
allow if {
    input.trust_score >= 80 # integer threshold
}
"""
# Sanitizer: removes a taint and resets trust to 100
@kest_verified(
    policy="sanitizer_policy",
    trust_override=100,
    removed_taints=["unverified_input"],
)
async def input_scanner(data: dict) -> dict:
    # After this hop, trust_score=100 and "unverified_input" is gone from taints
    return {**data, "scanned": True}
'''


async def test_000_quality_gate_and_sanitizer(mock: MockPolicyEngine) -> None:
    rego()
    from kest.core import RegoLocalEngine, kest_verified

    names = run(QUALITY, kest_verified=kest_verified)
    engine = RegoLocalEngine(policies={"kest/quality": names["REGO_POLICY"]})

    @kest_verified("read", source_type="user_input", added_taints=["unverified_input"])
    def read() -> dict[str, Any]:
        return {"text": "x"}

    @kest_verified("kest/quality", engine=engine)
    def gated() -> str:
        return "ran"

    data = read()
    assert (get_current_passport().trust_score, get_current_passport().taints) == (40, ("unverified_input",))
    with pytest.raises(PolicyDeniedError):
        gated()
    assert await names["input_scanner"](data) == {"text": "x", "scanned": True}
    assert (get_current_passport().trust_score, get_current_passport().taints) == (100, ())
    assert gated() == "ran"


FASTAPI = """
from fastapi import FastAPI
from kest.core import KestMiddleware, KestHttpxInterceptor, configure, kest_verified
app = FastAPI()
app.add_middleware(KestMiddleware) # extracts incoming Kest baggage
client = httpx.AsyncClient(transport=KestHttpxInterceptor()) # injects outgoing Kest baggage
@app.post("/process")
@kest_verified(policy="invoke")
async def process(body: dict):
    # The Passport from the caller is automatically extended here.
    result = await client.post("http://next-service/step", json=body)
    return result.json()
"""


async def test_000_fastapi_extends_the_passport_over_two_hops() -> None:
    pytest.importorskip("fastapi")
    import httpx

    from kest.core import kest_verified

    caller, service = LocalEd25519Provider("spiffe://kest.test/caller"), LocalEd25519Provider("spiffe://kest.test/svc")
    keys = {each.get_identity(): each for each in (caller, service)}
    configure(engine=MockPolicyEngine(allow=True), identity=service, trust_store=keys)
    names = run(FASTAPI, httpx=httpx)
    assert isinstance(names["client"], httpx.AsyncClient)
    assert list(inspect.signature(names["process"]).parameters) == ["body"]

    following = names["FastAPI"]()
    following.add_middleware(names["KestMiddleware"])

    @following.post("/step")
    async def step(body: dict) -> dict:  # type: ignore[type-arg]
        return {"operations": [entry["operation"] for entry in get_current_passport().decode()]}

    interceptor = names["KestHttpxInterceptor"]
    names["client"] = httpx.AsyncClient(transport=interceptor(wrapped=httpx.ASGITransport(following)))

    @kest_verified("invoke", identity=caller)
    async def start() -> Any:
        transport = interceptor(wrapped=httpx.ASGITransport(names["app"]))
        async with httpx.AsyncClient(transport=transport) as outside:
            return await outside.post("http://service/process", json={"a": 1})

    answer = await start()
    assert answer.status_code == 200, answer.text
    operations = answer.json()["operations"]
    assert [operation.rpartition(".")[2] for operation in operations] == ["start", "process"]
    await names["client"].aclose()


REMOTE_ENGINES = """
from kest.core import OPAPolicyEngine, CedarPolicyEngine
# OPA (Open Policy Agent)
engine = OPAPolicyEngine(url="http://opa:8181")
# Remote Cedar service
engine = CedarPolicyEngine(url="http://cedar:8080")
"""

LOCAL_ENGINES = """
from kest.core import CedarLocalEngine, RegoLocalEngine
# Cedar (cedarpy) — requires: uv add "kest[cedar]"
engine = CedarLocalEngine(policies=["permit(principal, action, resource);"])
"""

LOCAL_REGO = """
# Rego (regopy) — requires: uv add "kest[rego]"
engine = RegoLocalEngine(policies={"pkg/name": "package pkg.name\\ndefault allow = true"})
"""

AVP = """
from kest.core import AVPPolicyEngine
engine = AVPPolicyEngine(policy_store_id="ps-abc123", region="us-east-1")
"""

IDENTITIES = """
from kest.core import (
    LocalEd25519Provider, # ephemeral key (dev/test)
    StaticIdentity, # explicit workload ID + key
    SPIREProvider, # SPIRE SVID via Unix socket
    AWSWorkloadIdentity, # AWS STS GetCallerIdentity
    BedrockAgentIdentity, # AWS Bedrock Agent context
    OIDCIdentity, # Generic OIDC JWT
)
# Auto-detect: SPIRE → AWS → local ephemeral key
from kest.core import get_default_identity
identity = get_default_identity()
"""

BUNDLED = """
from importlib.resources import files
# Load a bundled policy
policy_text = files("kest.core.policies").joinpath("bell_lapadula.rego").read_text()
engine = RegoLocalEngine(policies={"kest/blp": policy_text})
"""

INVALIDATE = """
from kest.core import invalidate_policy_cache
invalidate_policy_cache() # flushes all cached decisions
"""

SUBJECT = {"identity": "spiffe://kest.test/unit", "operation": "op", "trust_score": 100}


def test_000_remote_engines_are_made_without_a_server() -> None:
    with contextlib.closing(run(REMOTE_ENGINES)["engine"]) as engine:
        assert isinstance(engine, PolicyEngine)
        assert type(engine).__name__ == "CedarPolicyEngine"


def test_000_local_cedar_engine() -> None:
    pytest.importorskip("cedarpy")
    engine = run(LOCAL_ENGINES)["engine"]
    assert engine.evaluate("id", ["anything"], SUBJECT) is True


def test_000_local_rego_engine() -> None:
    rego()
    from kest.core import RegoLocalEngine

    engine = run(LOCAL_REGO, RegoLocalEngine=RegoLocalEngine)["engine"]
    assert engine.evaluate("id", ["pkg/name"], SUBJECT) is True
    assert engine.evaluate("id", ["pkg/other"], SUBJECT) is False


def test_000_avp_engine() -> None:
    pytest.importorskip("boto3")
    assert isinstance(run(AVP)["engine"], PolicyEngine)


def test_000_identities_and_default(caplog: pytest.LogCaptureFixture) -> None:
    names = run(IDENTITIES)
    assert isinstance(names["identity"], names["LocalEd25519Provider"])
    assert names["identity"].sign(b"{}").count(".") == 2


def test_000_bundled_policy() -> None:
    rego()
    from kest.core import RegoLocalEngine

    names = run(BUNDLED, RegoLocalEngine=RegoLocalEngine)
    assert names["policy_text"].lstrip().startswith(("#", "package"))
    assert names["engine"].evaluate("id", ["kest/blp"], SUBJECT) is False  # no clearance, no access


@pytest.mark.parametrize(
    "name", ["bell_lapadula", "biba", "brewer_nash", "clark_wilson", "goguen_meseguer", "financial", "security"]
)
@pytest.mark.parametrize("language", ["rego", "cedar"])
def test_000_policy_models_are_package_data(name: str, language: str) -> None:
    from importlib.resources import files

    assert "permit" in (text := files("kest.core.policies").joinpath(f"{name}.{language}").read_text()) or (
        language == "rego" and "allow" in text
    )


def test_000_invalidate_asks_again(configured: Any) -> None:
    from kest.core import kest_verified

    @kest_verified("p")
    def f() -> None: ...

    for _ in range(3):
        with lineage():
            f()
    assert len(configured.engine.asked) == 1
    run(INVALIDATE)
    with lineage():
        f()
    assert len(configured.engine.asked) == 2


@pytest.mark.parametrize(("ttl", "asked"), [("1.0", 1), ("0", 3)])
def test_000_cache_ttl_from_the_environment(
    ttl: str, asked: int, monkeypatch: pytest.MonkeyPatch, recording: Any, identity: Any
) -> None:
    from kest.core import kest_verified

    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", ttl)
    configure(engine=recording, identity=identity)

    @kest_verified("p")
    def f() -> None: ...

    for _ in range(3):
        with lineage():
            f()
    assert len(recording.asked) == asked


def test_000_backend_switch_is_ignored_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KEST_BACKEND", "python")
    configure(clear=True)
    configure(engine=MockPolicyEngine())
    configure(app_policies=["a"])
    assert [record.getMessage() for record in caplog.records if "KEST_BACKEND" in record.getMessage()].__len__() == 1


# --- 001 -------------------------------------------------------------------------------------------------------------

VERSION = """
from kest.core import version
print(version()) # → "0.3.0"
"""

CONFIGURE = """
from kest.core import configure, MockPolicyEngine
configure(
    engine=MockPolicyEngine(allow=True),
    # identity is auto-detected by default
)
"""

DEVELOPMENT_AND_PRODUCTION = """
# Development / Unit testing
configure(
    engine=MockPolicyEngine(allow=True),
    # Auto-detects LocalEd25519Provider
)
# Production
from kest.core import OPAPolicyEngine, SPIREProvider
configure(
    engine=OPAPolicyEngine(host="localhost", port=8181),
    identity=SPIREProvider(
        socket_path="/run/spire/sockets/agent.sock"
    ),
    enterprise_policies=["baseline-auth", "data-classification"],
)
"""

PAYMENT = '''
from kest.core import kest_verified
@kest_verified(
    policy="kest/allow_trusted",
    source_type="internal"
)
def process_payment(order_id: str, amount: float) -> dict:
    """Process a payment — now cryptographically verified."""
    return {
        "order_id": order_id,
        "amount": amount,
        "status": "completed"
    }
'''

CALL = """
# Call it like any normal function
result = process_payment("ORD-123", 99.95)
print(result)
# → {"order_id": "ORD-123", "amount": 99.95, "status": "completed"}
"""

INSPECT = """
from kest.core.context import get_current_passport
passport = get_current_passport()
# Number of entries in the chain
print(f"Chain length: {len(passport.entries)}")
# The last JWS entry (raw compact serialization)
print(f"Latest: {passport.entries[-1][:80]}...")
"""

TRUSTED_REGO = """
package kest.allow_trusted
default allow = false
allow {
    input.trust_score >= 40
}
"""

OPA = """
from kest.core import configure, OPAPolicyEngine
configure(
    engine=OPAPolicyEngine(host="localhost", port=8181),
)
"""


def printed(sample: str, **names: Any) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run(sample, **names)
    return out.getvalue()


def test_001_version() -> None:
    assert printed(VERSION) == "0.3.0\n"


def test_001_identity_is_found_and_the_first_function_runs(caplog: pytest.LogCaptureFixture) -> None:
    run(CONFIGURE)
    names = run(PAYMENT)
    assert printed(CALL, process_payment=names["process_payment"]) == (
        "{'order_id': 'ORD-123', 'amount': 99.95, 'status': 'completed'}\n"
    )
    assert names["process_payment"].__doc__ == "Process a payment — now cryptographically verified."
    out = printed(INSPECT).splitlines()
    assert out[0] == "Chain length: 1"
    assert out[1] == f"Latest: {get_current_passport().entries[-1][:80]}..."


def test_001_development_and_production_configuration() -> None:
    from kest.core import get_active_engine, get_active_identity
    from kest.core.config import settings

    run(DEVELOPMENT_AND_PRODUCTION, configure=configure, MockPolicyEngine=MockPolicyEngine)
    assert type(get_active_engine()).__name__ == "OPAPolicyEngine"
    assert type(get_active_identity()).__name__ == "SPIREProvider"
    assert settings().enterprise_policies == ("baseline-auth", "data-classification")


def test_001_parameters_of_configure() -> None:
    parameters = inspect.signature(configure).parameters
    for name in ("engine", "identity", "cache", "enterprise_policies", "deviations", "clear"):
        assert name in parameters
    configure(engine=MockPolicyEngine())
    configure(clear=True)
    from kest.core import get_active_engine
    from kest.errors import ConfigurationError

    with pytest.raises(ConfigurationError):
        get_active_engine()


def test_001_opa_configuration_and_its_policy_in_process() -> None:
    from kest.core import get_active_engine

    run(OPA)
    assert type(get_active_engine()).__name__ == "OPAPolicyEngine"
    rego()
    from kest.core import RegoLocalEngine

    engine = RegoLocalEngine(policies={"kest/allow_trusted": TRUSTED_REGO})
    assert engine.evaluate("id", ["kest/allow_trusted"], {**SUBJECT, "trust_score": 40}) is True
    assert engine.evaluate("id", ["kest/allow_trusted"], {**SUBJECT, "trust_score": 39}) is False


# --- 002 -------------------------------------------------------------------------------------------------------------

REFERENCE = {
    "engine": None, "identity": None, "source_type": "internal", "trust_override": None, "added_taints": [],
    "removed_taints": [], "user": None, "agent": None, "task": None, "resource_attr": None,
}  # fmt: skip


def test_002_parameter_reference_with_its_printed_defaults(mock: MockPolicyEngine) -> None:
    from kest.core import kest_verified

    @kest_verified("p", **REFERENCE)  # type: ignore[arg-type]
    def f() -> int:
        return 1

    assert f() == 1
    entry = get_current_passport().decode()[0]
    assert (entry["trust_score"], entry["taints"]) == (100, [])
    assert "kest.identity" not in entry["labels"]


POLICY_ONE = """
# Single policy
@kest_verified(policy="kest/allow_trusted")
"""

POLICY_SEVERAL = """
# Multiple policies (logical AND — all must pass)
@kest_verified(policy=["kest/allow_trusted", "kest/check_budget"])
"""

BODY = """
def f():
    return "ran"
"""


def test_002_one_policy_and_several(configured: Any) -> None:
    from kest.core import kest_verified

    assert run(POLICY_ONE + BODY, kest_verified=kest_verified)["f"]() == "ran"
    assert configured.engine.asked[-1][0] == ("kest/allow_trusted",)
    several = run(POLICY_SEVERAL + BODY, kest_verified=kest_verified)["f"]
    assert several() == "ran"
    assert configured.engine.asked[-1][0] == ("kest/allow_trusted", "kest/check_budget")
    assert get_current_passport().decode()[-1]["policy_context"]["function_policies"] == [
        "kest/allow_trusted",
        "kest/check_budget",
    ]


OVERRIDE_ENGINE = """
cedar_engine = CedarPolicyEngine(host="localhost", port=8180)
@kest_verified(
    policy="process_payment",
    engine=cedar_engine # This function uses Cedar; others use OPA
)
def process_payment(amount: float):
    ...
"""


def test_002_engine_per_function() -> None:
    from kest.core import CedarPolicyEngine, kest_verified

    names = run(OVERRIDE_ENGINE, CedarPolicyEngine=CedarPolicyEngine, kest_verified=kest_verified)
    names["cedar_engine"].close()
    assert list(inspect.signature(names["process_payment"]).parameters) == ["amount"]


SOURCES = [
    ('@kest_verified(policy="allow", source_type="user_input") # trust=40', 40),
    ('@kest_verified(policy="allow", source_type="system") # trust=100', 100),
    ('@kest_verified(policy="allow", source_type="adversarial") # trust=0', 0),
]


@pytest.mark.parametrize(("line", "trust"), SOURCES)
def test_002_source_types(line: str, trust: int, mock: MockPolicyEngine) -> None:
    from kest.core import kest_verified

    run(line + BODY, kest_verified=kest_verified)["f"]()
    assert get_current_passport().trust_score == trust


SANITIZE = """
@kest_verified(
    policy="allow",
    source_type="user_input",
    trust_override=80, # Sanitized data is now trusted
    removed_taints=["user_input"]
)
def sanitize(data: dict) -> dict:
    return deep_validate(data)
"""

TAINTS = """
@kest_verified(
    policy="allow",
    added_taints=["contains_pii", "financial_data"],
)
def receive_payment_form(form: dict):
    ...
@kest_verified(
    policy="allow",
    removed_taints=["contains_pii"], # PII has been redacted
)
def redact_and_forward(data: dict):
    ...
"""


def test_002_sanitizer_and_taints(mock: MockPolicyEngine) -> None:
    from kest.core import kest_verified

    names = run(TAINTS, kest_verified=kest_verified)
    names["receive_payment_form"]({})
    assert get_current_passport().taints == ("contains_pii", "financial_data")
    names["redact_and_forward"]({})
    assert get_current_passport().taints == ("financial_data",)
    sanitize = run(SANITIZE, kest_verified=kest_verified, deep_validate=lambda data: {**data, "ok": True})["sanitize"]
    assert sanitize({"a": 1}) == {"a": 1, "ok": True}
    entry = get_current_passport().decode()[-1]
    assert entry["trust_score"] == 80
    assert entry["removed_taints"] == ["user_input"]


CHECKOUT = """
from flask import g
@kest_verified(
    policy="kest/check_access",
    user=lambda: g.current_user, # Resolved at call time
    agent="checkout-service", # Static value
    task=lambda: f"order-{g.request_id}",
)
def process_checkout():
    ...
"""


def test_002_identity_context(mock: MockPolicyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from kest.core import kest_verified

    flask = types.ModuleType("flask")  # the sample needs an object with two attributes, not a web framework
    flask.g = types.SimpleNamespace(current_user="alice", request_id=7)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flask", flask)
    run(CHECKOUT, kest_verified=kest_verified)["process_checkout"]()
    labels = get_current_passport().decode()[0]["labels"]
    assert labels["kest.identity"] == '{"agent":"checkout-service","task":"order-7","user":"alice"}'


RESOURCE = """
@kest_verified(
    policy="kest/data_access",
    resource_attr=lambda: {
        "document_id": request.args.get("doc_id"),
        "sensitivity": lookup_sensitivity(request.args.get("doc_id")),
    }
)
def read_document(doc_id: str):
    ...
"""


def test_002_resource_attributes(configured: Any) -> None:
    from kest.core import kest_verified

    request = types.SimpleNamespace(args={"doc_id": "d-1"})
    read = run(RESOURCE, kest_verified=kest_verified, request=request, lookup_sensitivity=lambda doc: "high")
    read["read_document"]("d-1")
    assert configured.engine.asked[-1][1]["object"]["attributes"] == {"document_id": "d-1", "sensitivity": "high"}
    labels = get_current_passport().decode()[0]["labels"]
    assert labels["kest.resource_attr"] == '{"document_id":"d-1","sensitivity":"high"}'


ASYNC = """
@kest_verified(policy="kest/allow_trusted")
async def async_process(data: dict):
    result = await external_service.call(data)
    return result
"""


async def test_002_async(mock: MockPolicyEngine) -> None:
    from kest.core import kest_verified

    class External:
        async def call(self, data: Any) -> Any:
            await asyncio.sleep(0)
            return [data]

    process = run(ASYNC, kest_verified=kest_verified, external_service=External())["async_process"]
    assert inspect.iscoroutinefunction(process)
    assert await process({"a": 1}) == [{"a": 1}]


COMPUTE = """
@kest_verified(policy="allow", source_type="internal")
def compute(x: int, y: int) -> int:
    return x + y
result = compute(3, 4)
assert result == 7 # Decorator doesn't alter the return value
"""

ERRORS = """
from kest.core.engine import PolicyDeniedError
try:
    result = protected_function()
except PolicyDeniedError as e:
    print(f"Policy {e.policy} denied: {e.reason}")
except Exception as e:
    print(f"Kest error: {e}")
"""


def test_002_return_value(mock: MockPolicyEngine) -> None:
    from kest.core import kest_verified

    assert run(COMPUTE, kest_verified=kest_verified)["result"] == 7


def test_002_error_handling() -> None:
    from kest.core import kest_verified

    configure(engine=MockPolicyEngine(allow=False), identity=LocalEd25519Provider())
    ran = []

    @kest_verified("kest/allow_trusted")
    def protected_function() -> None:
        ran.append(1)

    out = printed(ERRORS, protected_function=protected_function)
    assert out.startswith("Policy kest/allow_trusted denied: ")
    assert not ran
    configure(clear=True)
    assert printed(ERRORS, protected_function=protected_function).startswith("Kest error: no policy engine")


# --- every name that the documents and PRODUCT import -------------------------------------------------------------------

LINEAGE_NAMES = [
    "version",
    "configure",
    "kest_verified",
    "invalidate_policy_cache",
    "KestEntry",
    "sign_entry",
    "Passport",
    "PassportVerifier",
    "VerificationError",
    "BaggageManager",
    "TrustEvaluator",
    "DefaultTrustEvaluator",
    "register_origin_trust",
    "PolicyDeviation",
    "PolicyEngine",
    "PolicyDeniedError",
    "MockPolicyEngine",
    "OPAPolicyEngine",
    "CedarPolicyEngine",
    "CedarLocalEngine",
    "RegoLocalEngine",
    "AVPPolicyEngine",
    "IdentityProvider",
    "LocalEd25519Provider",
    "StaticIdentity",
    "SPIREProvider",
    "AWSWorkloadIdentity",
    "BedrockAgentIdentity",
    "OIDCIdentity",
    "MockIdentityProvider",
    "get_default_identity",
    "CacheProvider",
    "SimpleCache",
    "TrustStore",
    "KestMiddleware",
    "KestIdentityMiddleware",
    "KestHttpxInterceptor",
    "KestTelemetry",
    "RedisCache",
    "get_active_engine",
    "get_active_identity",
    "get_active_cache",
]


@pytest.mark.parametrize("name", LINEAGE_NAMES)
def test_public_names(name: str) -> None:
    import kest
    import kest.core

    found = getattr(kest.core, name)
    assert callable(found)
    assert getattr(kest, name) is found
    assert name in dir(kest.core)


def test_names_of_the_submodules() -> None:
    context = importlib.import_module("kest.core.context")
    for name in ("passport", "user", "agent", "task", "jwt"):
        assert callable(getattr(context, f"get_current_{name}"))
    engine = importlib.import_module("kest.core.engine")
    assert issubclass(engine.PolicyDeniedError, PermissionError)
    policies = importlib.import_module("kest.core.policies")
    assert callable(policies.RegoValidator)
    assert callable(policies.CedarValidator)
    with pytest.raises(AttributeError):
        importlib.import_module("kest.core").no_such_name
