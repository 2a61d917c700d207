"""Which identity is found when nobody names one."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent import futures
from typing import Any

import pytest
from identity_samples import ROLE, verifies

from kest.core.identity import (
    LocalEd25519Provider,
    detect,
    explain_default_identity,
    get_default_identity,
    sign_payload,
)
from kest.errors import ConfigurationError, KestError

VARIABLES = ("SPIFFE_ENDPOINT_SOCKET", "KEST_KMS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(detect, "_local", None)
    return monkeypatch


def test_default_is_local_with_one_warning(
    bare_environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "kest"):
        first, second = get_default_identity(), get_default_identity()
    assert first is second
    assert isinstance(first, LocalEd25519Provider)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "SPIFFE_ENDPOINT_SOCKET" in warnings[0].getMessage()
    assert warnings[0].name.startswith("kest")


def test_the_first_ephemeral_key_of_a_process_says_so(run_python: Any) -> None:
    script = (
        "import logging, sys; logging.basicConfig(format='%(name)s %(message)s', stream=sys.stdout)\n"
        "from kest.core import LocalEd25519Provider, MockIdentityProvider, StaticIdentity, get_default_identity\n"
        "MockIdentityProvider(); StaticIdentity('a'); LocalEd25519Provider('chosen', b's' * 32); print('--')\n"
        "LocalEd25519Provider('first'); LocalEd25519Provider('second'); print('--')\n"
        "get_default_identity(); get_default_identity()"
    )
    chosen, ephemeral, default = run_python(script).stdout.split("--\n")
    assert chosen == ""
    assert ephemeral.startswith("kest.identity LocalEd25519Provider: an ephemeral Ed25519 key signs as first.")
    assert default.startswith("kest.identity no workload identity is configured: an ephemeral Ed25519 key")
    assert [text.count("\n") for text in (ephemeral, default)] == [1, 1]


def test_explanation_follows_the_documented_order(bare_environment: pytest.MonkeyPatch) -> None:
    def chosen() -> str:
        sources = explain_default_identity()
        assert [source.source for source in sources] == ["spire", "aws", "local"]
        assert all(source.reason for source in sources)
        (only,) = [source.source for source in sources if source.chosen]
        return only

    assert chosen() == "local"
    bare_environment.setenv("AWS_ROLE_ARN", ROLE)
    assert chosen() == "local"
    bare_environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/x")
    assert chosen() == "aws"
    with pytest.raises(ConfigurationError, match="KEST_KMS_KEY_ID"):
        get_default_identity()
    bare_environment.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///x")
    assert chosen() == "spire"
    with pytest.raises(KestError):
        get_default_identity()
    bare_environment.delenv("SPIFFE_ENDPOINT_SOCKET")
    bare_environment.setenv("KEST_KMS_KEY_ID", "k")
    assert chosen() == "aws"


def test_importing_identities_loads_no_optional_stack() -> None:
    script = (
        "import sys, kest.core.identity as i; [getattr(i, name) for name in i.__all__]; "
        "bad = {'boto3', 'botocore', 'spiffe', 'grpc', 'jwt', 'cryptography', 'httpx'} & set(sys.modules); "
        "sys.exit(str(bad) if bad - {'httpx'} else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_threads_share_an_identity() -> None:
    identity = LocalEd25519Provider()
    with futures.ThreadPoolExecutor(8) as pool:
        signed = list(pool.map(lambda n: sign_payload(identity, b"%d" % n), range(400)))
    assert all(verifies(jws, identity.public_jwk()) for jws in signed)
