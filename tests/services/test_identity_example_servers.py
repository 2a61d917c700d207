"""examples/identities: those that need a server, with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from kest_services.moto import Moto
from kest_services.oidc_issuer import OidcIssuer
from kest_services.processes import Processes
from kest_services.spire import SpireAgent, SpireServer

Built = Callable[[str], Path]
SHIPPED = "order 7 is on its way"


def test_spire(processes: Processes, tmp_path: Path, built: Built, run_example: Any) -> None:
    built("spire")
    with SpireServer(processes, tmp_path / "server", trust_domain="example.org") as server:
        shop = server.register("/shop")
        with SpireAgent(processes, tmp_path / "agent", server) as agent:
            agent.wait_for_svid(shop)
            done = run_example("identities/spire.py", SPIFFE_ENDPOINT_SOCKET=agent.url)
    assert done.stdout.splitlines() == [SHIPPED, "verified: spiffe://example.org/shop"]
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["aws", "bedrock"])
def test_aws_and_bedrock(name: str, processes: Processes, tmp_path: Path, built: Built, run_example: Any) -> None:
    built("moto")
    with Moto(processes, tmp_path / "moto") as moto:
        settings = {
            "AWS_ENDPOINT_URL": moto.url, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1", "AWS_CONFIG_FILE": "/dev/null",
        }  # fmt: skip
        kms = boto3.client("kms", "eu-central-1", None, True, None, moto.url, "any", "any")
        try:
            made = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        finally:
            kms.close()
        settings |= {"KEST_KMS_KEY_ID": made["KeyMetadata"]["KeyId"]}
        agent = {"BEDROCK_AGENT_ID": "ABCDEFGHIJ", "BEDROCK_AGENT_ALIAS_ID": "TSTALIASID"}
        done = run_example(f"identities/{name}.py", **settings, **agent)
    lines = done.stdout.splitlines()
    assert lines[0] == SHIPPED
    if name == "aws":
        assert sorted(lines[1:4]) == [f"parcel {number} is packed" for number in range(3)]
        assert lines[-1] == "verified: arn:aws:sts::123456789012:user/moto"
    else:
        principal = "arn:aws:bedrock:eu-central-1:123456789012:agent-alias/ABCDEFGHIJ/TSTALIASID"
        assert lines[-1] == f"verified: {principal}"
    assert done.stderr == ""


def test_oidc(processes: Processes, tmp_path: Path, built: Built, run_example: Any) -> None:
    built("oidc-issuer")
    clients = [{"id": "shop", "secret": "shop-secret", "targets": []}]
    with OidcIssuer(processes, tmp_path / "issuer", audiences={}, clients=clients) as issuer:
        settings = {"OIDC_ISSUER": issuer.url, "OIDC_CLIENT": "shop", "OIDC_SECRET": "shop-secret"}
        for _ in range(2):  # the second time with the same key
            done = run_example("identities/oidc.py", "token.jwt", "client.key", **settings)
            assert done.stdout.splitlines() == [
                SHIPPED, "the key is bound by cnf", f"verified: oidc:{issuer.url}#shop",
            ]  # fmt: skip
            assert done.stderr == ""
