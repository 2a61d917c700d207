"""Policy servers behind TLS."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from typing import Any

import pytest
from answering_servers import ENGINES, OPA_ALLOW, WIRE_FAULTS, response, saying, serving, with_allow
from engine_samples import CONTEXT

from kest.core.engine import OPAPolicyEngine, decide_async
from kest.errors import PolicyEngineError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Files of a certificate authority, and of a certificate and key that it issued to 127.0.0.1."""
    pytest.importorskip("cryptography")
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("Test CA", "opa")]
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    usage["decipher_only"] = False
    files: list[str] = []
    for index, (name, key) in enumerate(zip(names, keys, strict=True)):
        is_authority = index == 0
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=is_authority, path_length=None), True),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), False),
            (
                x509.KeyUsage(digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority, **usage),
                True,
            ),
        ]
        if not is_authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            extensions.append((x509.SubjectAlternativeName([address]), False))
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(names[0]).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        path = tmp_path_factory.mktemp("tls") / "certificate.pem"
        path.write_bytes(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        files.append(str(path))
    path = tmp_path_factory.mktemp("tls") / "key.pem"
    path.write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files[0], files[1], str(path)


@pytest.fixture
def server_tls(authority: tuple[str, str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority[1], authority[2])
    return context


@pytest.fixture
def client_tls(authority: tuple[str, str, str]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority[0])


async def test_tls(ask: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    for make, allow in ENGINES.values():
        with serving(saying(response(allow)), server_tls) as server, make(server.url, tls=client_tls) as engine:
            for _ in range(3):
                assert (await ask(engine, "e", ["a", "b"], CONTEXT)).allowed is True
            assert (server.connections, len(server.requests)) == (1, 6)


async def test_tls_is_verified(ask: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with serving(saying(response(OPA_ALLOW)), server_tls) as server:
        for url, context in (
            (server.url, None),  # an unknown authority
            (server.url.replace("127.0.0.1", "localhost"), client_tls),  # another host's certificate
        ):
            with (
                OPAPolicyEngine(url, tls=context) as engine,
                pytest.raises(PolicyEngineError, match="SSLCertVerificationError"),
            ):
                await ask(engine, "e", ["a"], CONTEXT)
        assert server.requests == []
    with serving(saying(response(OPA_ALLOW))) as server:  # not TLS at all
        engine = OPAPolicyEngine(server.url.replace("http:", "https:"), timeout=0.5)
        with pytest.raises(PolicyEngineError):
            await ask(engine, "e", ["a"], CONTEXT)
        assert server.requests == []


@pytest.mark.parametrize(
    "fault", ["stall", "stall in body", "stall in head", "endless", "closed", "truncated body", "reset"]
)
async def test_tls_server_faults_deny_within_the_timeout(
    ask: Any, fault: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    behave = with_allow(WIRE_FAULTS[fault], OPA_ALLOW)
    with (
        serving(behave, server_tls) as server,
        OPAPolicyEngine(server.url, timeout=0.4, tls=client_tls) as engine,
    ):
        start = time.monotonic()
        with pytest.raises(PolicyEngineError):
            await ask(engine, "e", ["a"], CONTEXT)
        assert time.monotonic() - start < 4
        assert len(server.requests) == 1


async def test_a_stalled_handshake_is_late_and_leaves_nothing(ask: Any, client_tls: ssl.SSLContext) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with OPAPolicyEngine(url, timeout=0.3, tls=client_tls) as engine:
            start = time.monotonic()
            with pytest.raises(PolicyEngineError, match=r"0\.3 s"):
                await ask(engine, "e", ["a"], CONTEXT)
            assert time.monotonic() - start < 4
            asking = asyncio.ensure_future(decide_async(engine, "e", ["a"], CONTEXT))
            await asyncio.sleep(0.05)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
    gc.collect()  # a connection that nobody closed would warn here, and warnings are errors
