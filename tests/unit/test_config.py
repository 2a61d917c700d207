"""`configure`, ``KEST_CONFIG``, tiers, deviations and the getters."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from kest.core import (
    LocalEd25519Provider,
    MockPolicyEngine,
    PolicyDeniedError,
    PolicyDeviation,
    SimpleCache,
    TrustStore,
    configure,
    get_active_cache,
    get_active_engine,
    get_active_identity,
    kest_verified,
)
from kest.core.config import Settings, get_active_trust_store, settings
from kest.core.context import get_current_passport, lineage
from kest.errors import ConfigurationError


def everything(identity: Any, sink: Any) -> dict[str, Any]:
    return {
        "engine": MockPolicyEngine(),
        "identity": identity,
        "cache": SimpleCache(),
        "enterprise_policies": ["e"],
        "platform_policies": ["p"],
        "app_policies": ["a"],
        "deviations": [PolicyDeviation("e", "enterprise", "op", "why", "who")],
        "trust_store": TrustStore(),
        "on_unverified": "reject",
        "audit": sink,
        "max_entries": 7,
    }


def test_a_call_changes_only_what_it_names(identity: Any, sink: Any) -> None:
    given = everything(identity, sink)
    for name, value in given.items():
        before = settings()
        configure(**{name: value})
        after = settings()
        changed = {
            field for field in Settings.__dataclass_fields__ if getattr(before, field) is not getattr(after, field)
        } - {"detect_identity"}
        assert changed == {name}
    assert settings().engine is given["engine"]
    assert settings().identity is given["identity"]
    assert settings().max_entries == 7
    before = settings()
    configure()
    assert settings() == before


def test_an_identity_is_never_swapped_by_a_call_that_omits_it(identity: Any, caplog: pytest.LogCaptureFixture) -> None:
    configure(identity=identity)
    configure(engine=MockPolicyEngine())
    assert get_active_identity() is identity
    configure(clear=True)
    configure(engine=MockPolicyEngine())
    found = get_active_identity()
    configure(app_policies=["x"])
    assert get_active_identity() is found


def test_default_identity_is_found_with_a_warning(run_python: Any) -> None:
    done = run_python(
        "import logging; logging.basicConfig()\n"
        "from kest.core import configure, MockPolicyEngine, get_active_identity\n"
        "configure(engine=MockPolicyEngine())\n"
        "print(get_active_identity().get_identity(), get_active_identity() is get_active_identity())\n"
    )
    assert done.stdout == "spiffe://kest.internal/local-workload True\n"
    assert done.stderr.count("WARNING") == 1


def test_clear_forgets_everything(identity: Any, sink: Any) -> None:
    configure(**everything(identity, sink))
    configure(clear=True)
    for getter in (get_active_engine, get_active_identity):
        with pytest.raises(ConfigurationError, match="configure"):
            getter()
    assert get_active_cache() is None
    assert get_active_trust_store() is None
    assert [settings().tier(name) for name in ("enterprise", "platform", "app")] == [(), (), ()]
    assert settings().deviations == ()
    assert settings().max_entries == 1000
    assert settings().on_unverified == "degrade"


def test_clear_and_set_in_one_call(identity: Any, sink: Any) -> None:
    configure(**everything(identity, sink))
    engine = MockPolicyEngine()
    configure(engine=engine, clear=True)
    assert get_active_engine() is engine
    assert get_active_cache() is None


def test_nothing_configured_in_a_new_process(run_python: Any) -> None:
    run_python(
        "from kest.core import *\n"
        "from kest.errors import ConfigurationError\n"
        "for getter in (get_active_engine, get_active_identity):\n"
        "    try: getter()\n"
        "    except ConfigurationError as e: assert 'configure' in str(e)\n"
        "    else: raise SystemExit('no error')\n"
        "assert get_active_cache() is None\n"
    )


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"engine": object()}, "engine"),
        ({"engine": MockPolicyEngine}, "engine"),
        ({"identity": "me"}, "identity"),
        ({"cache": 5}, "cache"),
        ({"audit": object()}, "audit"),
        ({"enterprise_policies": "one"}, "enterprise_policies"),
        ({"platform_policies": [1]}, "platform_policies"),
        ({"app_policies": ["a", ""]}, "app_policies"),
        ({"deviations": [{"policy": "p"}]}, "deviation"),
        ({"deviations": ["p"]}, "deviation"),
        ({"on_unverified": "ignore"}, "on_unverified"),
        ({"on_unverified": "accept"}, "KEST_INSECURE_NO_VERIFY"),
        ({"max_entries": 0}, "max_entries"),
        ({"max_entries": True}, "max_entries"),
        ({"max_entries": 1.5}, "max_entries"),
    ],
)
def test_wrong_settings_name_the_argument_and_change_nothing(kwargs: dict[str, Any], names: str) -> None:
    engine = MockPolicyEngine()
    configure(engine=engine, app_policies=["a"])
    before = settings()
    with pytest.raises(ConfigurationError, match=names):
        configure(**{"clear": True, "platform_policies": ["x"], **kwargs})
    assert settings() is before


def test_accepting_unverified_lineage_needs_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEST_INSECURE_NO_VERIFY", "true")
    configure(on_unverified="accept")
    assert settings().on_unverified == "accept"
    monkeypatch.setenv("KEST_INSECURE_NO_VERIFY", "1")
    with pytest.raises(ConfigurationError):
        configure(on_unverified="accept")


def test_trust_store_from_a_mapping(identity: Any) -> None:
    configure(trust_store={"spiffe://x/y": identity})
    store = get_active_trust_store()
    assert store is not None
    assert "spiffe://x/y" in store


# --- deviations ------------------------------------------------------------------------------------------------------

DEVIATION = {"policy": "e1", "tier": "enterprise", "scope": "op", "reason": "migration", "approver": "ciso"}


def context_of(operation: str, policy: Any = "f") -> Any:
    with lineage():
        kest_verified(policy, operation_name=operation)(lambda: None)()
        return get_current_passport().decode()[0]["policy_context"]


def test_a_deviation_skips_exactly_that_policy_for_that_operation(configured: Any) -> None:
    configure(enterprise_policies=["e1", "e2"], platform_policies=["e1"], deviations=[DEVIATION])
    context = context_of("op", ["f", "e1"])
    assert context["enterprise_policies"] == ["e2"]
    assert context["platform_policies"] == ["e1"]  # another tier
    assert context["function_policies"] == ["f", "e1"]  # never deviated from
    recorded = {name: DEVIATION[name] for name in ("policy", "tier", "reason", "approver")}
    assert context["deviations"] == [recorded]
    assert [names for names, _ in configured.engine.asked] == [("e2",), ("e1",), ("f", "e1")]
    assert configured.engine.asked[0][1]["environment"]["active_deviations"] == ["e1"]
    other = context_of("other")
    assert other["enterprise_policies"] == ["e1", "e2"]
    assert other["deviations"] == []


def test_a_deviation_from_a_policy_that_is_not_configured_is_not_recorded(configured: Any) -> None:
    configure(enterprise_policies=["e2"], deviations=[DEVIATION])
    assert context_of("op")["deviations"] == []


def test_a_tier_that_is_skipped_whole_still_signs_the_entry(configured: Any) -> None:
    configure(enterprise_policies=["e1"], deviations=[PolicyDeviation(**DEVIATION)])
    context = context_of("op")
    assert context["enterprise_policies"] == []
    assert len(context["deviations"]) == 1
    assert [names for names, _ in configured.engine.asked] == [("f",)]


def test_a_deviation_that_denies_nothing_else(configured: Any) -> None:
    configure(enterprise_policies=["e1", "e2"], deviations=[DEVIATION])
    configured.engine.answer = lambda names, context: "e2" not in names
    with pytest.raises(PolicyDeniedError):
        context_of("op")


@pytest.mark.parametrize(
    "change",
    [{"tier": "function"}, {"tier": "Enterprise"}, {"policy": ""}, {"scope": ""}, {"reason": ""}, {"approver": ""},
     {"approver": None}, {"policy": 1}, {"extra": "x"}],
)  # fmt: skip
def test_malformed_deviations(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        configure(deviations=[{**DEVIATION, **change}])
    with pytest.raises((ConfigurationError, TypeError)):
        PolicyDeviation(**{**DEVIATION, **change})


@pytest.mark.parametrize("missing", sorted(DEVIATION))
def test_a_deviation_needs_every_member(missing: str) -> None:
    with pytest.raises(ConfigurationError, match=missing):
        configure(deviations=[{name: value for name, value in DEVIATION.items() if name != missing}])


# --- the file --------------------------------------------------------------------------------------------------------

TOML = """
enterprise_policies = ["baseline", "classification"]
app_policies = ["app"]
on_unverified = "reject"
max_entries = 50

[[deviations]]
policy = "classification"
tier = "enterprise"
scope = "op"
reason = "legacy"
approver = "ciso"
"""

CONTENT = {
    "enterprise_policies": ["baseline", "classification"],
    "app_policies": ["app"],
    "on_unverified": "reject",
    "max_entries": 50,
    "deviations": [
        {"policy": "classification", "tier": "enterprise", "scope": "op", "reason": "legacy", "approver": "ciso"}
    ],
}


@pytest.fixture(params=["toml", "json"])
def config_file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "toml" and sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    path = tmp_path / f"kest.{request.param}"
    path.write_text(TOML if request.param == "toml" else json.dumps(CONTENT))
    monkeypatch.setenv("KEST_CONFIG", str(path))
    configure(clear=True)
    return path


def test_kest_config(config_file: Path) -> None:
    assert settings().enterprise_policies == ("baseline", "classification")
    assert settings().platform_policies == ()
    assert settings().app_policies == ("app",)
    assert settings().on_unverified == "reject"
    assert settings().max_entries == 50
    assert settings().deviations == (PolicyDeviation("classification", "enterprise", "op", "legacy", "ciso"),)


def test_the_operators_tiers_stay_first_and_cannot_be_taken_away(
    config_file: Path, recording: Any, identity: Any
) -> None:
    configure(engine=recording, identity=identity, enterprise_policies=["mine", "baseline"], app_policies=[])
    assert settings().enterprise_policies == ("baseline", "classification", "mine")
    assert settings().app_policies == ("app",)
    context = context_of("another")
    assert context["enterprise_policies"] == ["baseline", "classification", "mine"]
    assert context_of("op")["enterprise_policies"] == ["baseline", "mine"]


def test_code_cannot_deviate_from_the_operators_policies(config_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="operator"):
        configure(deviations=[{**DEVIATION, "policy": "baseline"}])
    configure(enterprise_policies=["mine"], deviations=[{**DEVIATION, "policy": "mine"}])
    assert len(settings().deviations) == 2
    configure(deviations=[])
    assert len(settings().deviations) == 1  # the operator's stays


def test_clear_reads_the_file_again(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_file.write_text('{"app_policies": ["b"]}' if config_file.suffix == ".json" else 'app_policies = ["b"]')
    assert settings().app_policies == ("app",)
    configure(clear=True)
    assert settings().app_policies == ("b",)
    monkeypatch.delenv("KEST_CONFIG")
    configure(clear=True)
    assert settings().app_policies == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kest.toml", "enterprise_policies = ["),
        ("kest.json", "{"),
        ("kest.json", "[]"),
        ("kest.toml", "enterprise_policy = ['typo']"),
        ("kest.toml", "enterprise_policies = 'one'"),
        ("kest.toml", "enterprise_policies = [1]"),
        ("kest.toml", "max_entries = '5'"),
        ("kest.toml", "on_unverified = 'accept'"),
        ("kest.toml", "on_unverified = 'nothing'"),
        ("kest.json", '{"deviations": [{"policy": "x"}]}'),
        ("kest.json", '{"deviations": {"policy": "x"}}'),
        ("kest.json", '{"deviations": 5}'),
        ("kest.json", '{"trust_store": "missing.json"}'),
        ("kest.json", '{"trust_store": 5}'),
        ("kest.json", '{"enterprise_policies": null}'),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith("toml") and sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    path = tmp_path / name
    path.write_text(text)
    monkeypatch.setenv("KEST_CONFIG", str(path))
    with pytest.raises(ConfigurationError, match=name):
        configure(clear=True)
    monkeypatch.delenv("KEST_CONFIG")


def test_a_missing_file_stops_calls(tmp_path: Path, run_python: Any) -> None:
    run_python(
        "from kest.core import *\n"
        "from kest.errors import ConfigurationError\n"
        "ran = []\n"
        "f = kest_verified('p', engine=MockPolicyEngine(), identity=LocalEd25519Provider())(lambda: ran.append(1))\n"
        "try: f()\n"
        "except ConfigurationError as e: assert 'nowhere.toml' in str(e), e\n"
        "else: raise SystemExit('no error')\n"
        "assert not ran\n",
        env={"KEST_CONFIG": str(tmp_path / "nowhere.toml")},
    )


def test_trust_store_of_the_file_is_relative_to_it(
    tmp_path: Path, identity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [identity.public_jwk()]}))
    (tmp_path / "kest.json").write_text('{"trust_store": "keys.json"}')
    monkeypatch.setenv("KEST_CONFIG", str(tmp_path / "kest.json"))
    configure(clear=True)
    store = get_active_trust_store()
    assert store is not None
    assert identity.get_identity() in store


# --- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "warnings"), [("c", 0), ("", 0), ("python", 1), ("rust", 1), ("C++", 1)])
def test_backend(value: str, warnings: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("KEST_BACKEND", value)
    with caplog.at_level(logging.WARNING, "kest"):
        configure(clear=True)
        configure(engine=MockPolicyEngine())
        configure(identity=LocalEd25519Provider())
    assert sum("KEST_BACKEND" in record.getMessage() for record in caplog.records) == warnings


@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", "1e9", "5s"])
def test_cache_ttl_must_be_seconds(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", value)
    with pytest.raises(ConfigurationError, match="KEST_POLICY_CACHE_TTL"):
        configure(clear=True)
    monkeypatch.delenv("KEST_POLICY_CACHE_TTL")
