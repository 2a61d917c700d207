"""examples/lab/compose.yaml describes the same lab as ``make lab-up``, with the versions that are pinned for it."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples/lab"))

from parts import CHAIN, DOMAIN, POLICIES, REALM, WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "examples/lab"
ONCE = {"spire-entries", "alice", "auditor"}
SERVERS = {"keycloak", "redis", "opa", "collector", "spire-server", "spire-agent"}
TOOLS = ROOT / "tools/services"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((LAB / "compose.yaml").read_text("utf-8"))
    return found


def pinned(file: str, pattern: str) -> str:
    found = re.search(pattern, (TOOLS / file).read_text("utf-8"), re.MULTILINE)
    assert found is not None, file
    return found[1]


def test_every_part_of_the_lab_is_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) - ONCE == SERVERS | set(CHAIN)
    named = {volume.partition(":")[0] for one in compose["services"].values() for volume in one.get("volumes", ())}
    assert {name for name in named if not name.startswith(".")} == set(compose["volumes"])
    for one in compose["services"].values():
        assert set(one.get("depends_on", ())) <= set(compose["services"])
        assert one["network_mode"] == "host"
        assert "ports" not in one


def test_images_have_the_pinned_versions(compose: dict[str, Any]) -> None:
    opa = pinned("opa/go.mod", r"open-policy-agent/opa v(\S+)")
    spire = pinned("spire/go.mod", r"spiffe/spire v(\S+)")
    collector = pinned("collector/builder.yaml", r"^  version: (\S+)")
    keycloak = pinned("keycloak/keycloak.sha256", r"keycloak-quarkus-dist-(\S+)\.zip")
    redis = pinned("../../docs/services.md", r"Redis \| Debian's \((\S+) in bookworm\)")
    images = {name: one["image"] for name, one in compose["services"].items() if name in SERVERS}
    assert images == {
        "spire-server": f"ghcr.io/spiffe/spire-server:{spire}",
        "spire-agent": f"ghcr.io/spiffe/spire-agent:{spire}",
        "keycloak": f"quay.io/keycloak/keycloak:{keycloak}",
        "redis": f"redis:{redis}",
        "opa": f"openpolicyagent/opa:{opa}",
        "collector": f"otel/opentelemetry-collector-contrib:{collector}",
    }
    assert f"FROM ghcr.io/spiffe/spire-server:{spire} AS spire" in (LAB / "Dockerfile").read_text("utf-8")


def test_what_is_mounted_and_copied_exists(compose: dict[str, Any]) -> None:
    mounted = [volume.split(":") for one in compose["services"].values() for volume in one.get("volumes", ())]
    files = [(LAB / source).resolve() for source, *_ in mounted if source.startswith(".")]
    assert all(file.exists() for file in files), files
    assert all(options == ["ro"] for source, _, *options in mounted if source.startswith("."))
    copied = re.findall(r"^COPY ([^-].*) \S+$", (LAB / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
    scripts = [word for one in compose["services"].values() for word in one.get("command", ()) if "/app/" in str(word)]
    assert len(scripts) == 8
    assert all((ROOT / script.removeprefix("/app/")).exists() for script in scripts)
    policies = [
        (LAB / volume.partition(":")[0]).resolve() for volume in compose["services"]["opa"]["volumes"]
    ]  # one by one: the other policies of the demo are Cedar's
    ours = [file for path in POLICIES for file in (sorted(path.glob("*.rego")) if path.is_dir() else [path])]
    assert sorted(policies) == sorted(file.resolve() for file in ours)


def test_services_are_who_they_are_registered_as(compose: dict[str, Any]) -> None:
    services = compose["services"]
    entries = [word.split("=") for word in services["spire-entries"]["command"] if "=" in word]
    assert {name: int(seconds) for name, _, seconds in entries} == WORKLOADS
    uids = {name: uid for name, uid, _ in entries}
    assert len(set(uids.values())) == len(uids)
    assert services["spire-entries"]["environment"]["TRUST_DOMAIN"] == DOMAIN
    for name in (*CHAIN, "auditor"):
        assert services[name]["user"] == f"{uids[name]}:{uids[name]}"
    assert services["alice"]["user"].partition(":")[0] not in uids.values()
    assert services["spire-agent"]["pid"] == "host"


def test_each_service_calls_the_next(compose: dict[str, Any]) -> None:
    services = compose["services"]
    realm = json.loads((LAB / "config/realms/lab-realm.json").read_text("utf-8"))
    secrets = {client["clientId"]: client.get("secret") for client in realm["clients"]}
    at = {name: f"http://{services[name]['environment']['LISTEN']}" for name in CHAIN}
    assert len(set(at.values())) == len(at)
    for name, following in zip(CHAIN, (*CHAIN[1:], None), strict=True):
        variables = services[name]["environment"]
        assert services[name]["command"][-1] == name
        assert variables["PEERS"] == (f"{following}={at[following]}" if following else "")
        assert variables["OIDC_CLIENT_SECRET"] == secrets[name]
        assert variables["OIDC_ISSUER"].endswith(f"/realms/{REALM}")
    assert realm["realm"] == REALM
    assert services["alice"]["command"][-1] == at["kest-agent"]


def test_services_are_told_all_that_they_ask_for(compose: dict[str, Any]) -> None:
    tree = ast.parse((LAB / "service.py").read_text("utf-8"))
    asked = {
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and ast.unparse(node.value) == "os.environ"
        and isinstance(node.slice, ast.Constant)
    }
    assert "OPA_URL" in asked
    for name in CHAIN:
        assert asked | {"SPIFFE_ENDPOINT_SOCKET", "OTEL_EXPORTER_OTLP_ENDPOINT"} <= set(
            compose["services"][name]["environment"]
        )
