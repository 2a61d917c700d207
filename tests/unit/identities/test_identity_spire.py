"""SPIRE identities against a Workload API on a real socket: SVIDs, rotation, what is unreachable."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from identity_samples import PAYLOAD, parts, verifies

from kest import _kestcore
from kest.core.identity import SPIREProvider, async_sign_payload, checked_jws, get_default_identity, sign_payload
from kest.errors import ConfigurationError, IdentityError


class WorkloadAPI:
    """A Workload API on a real socket, with a certificate authority behind it."""

    def __init__(self, path: Path) -> None:
        import grpc
        from spiffe._proto import workload_pb2, workload_pb2_grpc

        self.messages = workload_pb2
        self.changed = threading.Condition()
        self.response: Any = None
        self.generation = 0
        self.ca_key, self.ca = self._authority()
        api = self

        class Servicer(workload_pb2_grpc.SpiffeWorkloadAPIServicer):  # type: ignore[misc]
            def FetchX509SVID(self, request: Any, context: Any) -> Iterator[Any]:
                sent = 0
                while context.is_active():
                    with api.changed:
                        api.changed.wait_for(lambda: api.generation > sent, timeout=0.2)
                        if api.generation == sent:
                            continue
                        sent, response = api.generation, api.response
                    yield response

        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(Servicer(), self.server)
        assert self.server.add_insecure_port(f"unix:{path}")
        self.server.start()

    @staticmethod
    def _name(text: str) -> Any:
        from cryptography import x509

        return x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, text)])

    def _authority(self) -> tuple[Any, Any]:
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        return key, self._certificate(key.public_key(), key, "CA", "spiffe://example.test", True, 3600)

    def _certificate(self, public: Any, signer: Any, name: str, uri: str, ca: bool, seconds: float) -> Any:
        import datetime

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.timezone.utc)
        usage = dict.fromkeys(
            (
                "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
            ),
            False,
        )  # fmt: skip
        usage["key_cert_sign" if ca else "digital_signature"] = True
        return (
            x509.CertificateBuilder()
            .subject_name(self._name(name))
            .issuer_name(self._name("CA"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.KeyUsage(**usage), True)
            .sign(signer, hashes.SHA256())
        )

    def publish(self, *ids: str, seconds: float = 600, key: Any = None) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        svids = []
        for spiffe_id in ids:
            own = key or ec.generate_private_key(ec.SECP256R1())
            leaf = self._certificate(own.public_key(), self.ca_key, "workload", spiffe_id, False, seconds)
            svids.append(
                self.messages.X509SVID(
                    spiffe_id=spiffe_id,
                    x509_svid=leaf.public_bytes(Encoding.DER),
                    x509_svid_key=own.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
                    bundle=self.ca.public_bytes(Encoding.DER),
                )
            )
        with self.changed:
            self.response = self.messages.X509SVIDResponse(svids=svids)
            self.generation += 1
            self.changed.notify_all()

    def stop(self) -> None:
        self.server.stop(0).wait()


@pytest.fixture
def workload_api(tmp_path: Path) -> Iterator[tuple[WorkloadAPI, Path]]:
    pytest.importorskip("spiffe", reason="the SPIFFE client (kest[spiffe]) is not installed")
    socket = tmp_path / "agent.sock"
    api = WorkloadAPI(socket)
    yield api, socket
    api.stop()


def leaf_key(jws: str) -> Any:
    from cryptography import x509

    return x509.load_der_x509_certificate(base64.b64decode(parts(jws)[0]["x5c"][0])).public_key()


def test_spire_signs_with_the_svid(workload_api: tuple[WorkloadAPI, Path]) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    api, socket = workload_api
    api.publish("spiffe://example.test/app")
    identity = SPIREProvider(str(socket))  # a bare path, as the documents write it
    assert identity.blocking
    assert repr(identity) == "SPIREProvider('not connected')"
    jws = sign_payload(identity, PAYLOAD)
    assert not identity.blocking
    header, _, signature = parts(jws)
    assert (header["alg"], header["kid"], header["typ"]) == ("ES256", "spiffe://example.test/app", "JWS")
    assert header["x5c"] == identity.x5c
    assert len(signature) == 64
    der = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    leaf_key(jws).verify(der, jws.rpartition(".")[0].encode(), ec.ECDSA(hashes.SHA256()))
    assert verifies(jws, identity.public_jwk())
    assert repr(identity) == "SPIREProvider('spiffe://example.test/app')"
    identity.close()
    assert identity.blocking
    assert sign_payload(identity, PAYLOAD)  # opens again
    identity.close()


async def test_spire_rotation_loses_no_signature(workload_api: tuple[WorkloadAPI, Path]) -> None:
    api, socket = workload_api
    api.publish("spiffe://example.test/app")
    identity = SPIREProvider(f"unix://{socket}")
    assert await async_sign_payload(identity, PAYLOAD)
    done = threading.Event()

    def rotate() -> None:
        while not done.is_set():
            api.publish("spiffe://example.test/app")
            time.sleep(0.005)

    rotating = threading.Thread(target=rotate)
    rotating.start()
    keys = set()
    try:
        for _ in range(1000):
            jws = checked_jws(object(), "spiffe://example.test/app", PAYLOAD, identity.sign(PAYLOAD))
            # The chain that an entry carries always belongs to the key that signed it.
            numbers = leaf_key(jws).public_numbers()
            jwk = {"kty": "EC", "crv": "P-256"}
            jwk["x"] = _kestcore.b64url_encode(numbers.x.to_bytes(32, "big"))
            jwk["y"] = _kestcore.b64url_encode(numbers.y.to_bytes(32, "big"))
            assert verifies(jws, jwk)
            keys.add(jwk["x"])
    finally:
        done.set()
        rotating.join()
        identity.close()
    assert len(keys) > 3


def test_spire_first_check_survives_a_rotation(workload_api: tuple[WorkloadAPI, Path]) -> None:
    api, socket = workload_api
    api.publish("spiffe://example.test/app")
    identity = SPIREProvider(socket)
    jws = identity.sign(PAYLOAD)
    before = identity.public_jwk()
    api.publish("spiffe://example.test/app")
    deadline = time.monotonic() + 5
    while identity.public_jwk() == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert checked_jws(identity, "spiffe://example.test/app", PAYLOAD, jws) == jws
    identity.close()


def test_spire_chooses_and_refuses_svids(workload_api: tuple[WorkloadAPI, Path]) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    api, socket = workload_api
    api.publish("spiffe://example.test/a", "spiffe://example.test/b")
    for wanted, got in ((None, "a"), ("spiffe://example.test/b", "b")):
        identity = SPIREProvider(socket, spiffe_id=wanted)
        assert identity.get_identity() == f"spiffe://example.test/{got}"
        identity.close()
    with pytest.raises(IdentityError, match="no SVID for spiffe://"):
        SPIREProvider(socket, spiffe_id="spiffe://example.test/c").get_identity()
    api.publish("spiffe://example.test/a", key=rsa.generate_private_key(65537, 2048))
    identity = SPIREProvider(socket)
    jws = sign_payload(identity, PAYLOAD)
    assert parts(jws)[0]["alg"] == "RS256"
    identity.close()
    api.publish("spiffe://example.test/a", key=ec.generate_private_key(ec.SECP384R1()))
    identity = SPIREProvider(socket)
    with pytest.raises(IdentityError, match="ec-p256"):
        identity.sign(PAYLOAD)
    identity.close()
    api.publish("spiffe://example.test/a", seconds=-5)
    identity = SPIREProvider(socket)
    with pytest.raises(IdentityError, match="expired"):
        identity.sign(PAYLOAD)
    identity.close()


def test_spire_unreachable_is_an_error_that_says_what_to_do(
    workload_api: tuple[WorkloadAPI, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, socket = workload_api
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    with pytest.raises(ConfigurationError, match="SPIFFE_ENDPOINT_SOCKET"):
        SPIREProvider().get_identity()
    identity = SPIREProvider(tmp_path / "none.sock")
    with pytest.raises(IdentityError, match="does not exist"):
        identity.get_identity()
    silent = SPIREProvider(socket, timeout=1.0)  # the agent is up, and has no SVID for us
    with pytest.raises(IdentityError, match=r"within 1 s"):
        silent.get_identity()
    started = time.monotonic()
    with pytest.raises(IdentityError):  # at once: callers do not queue up behind a dead agent
        silent.get_identity()
    assert time.monotonic() - started < 0.8
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", str(tmp_path / "none.sock"))
    with pytest.raises(IdentityError):  # never a silent fallback
        get_default_identity()
    api.publish("spiffe://example.test/app")
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{socket}")
    found = get_default_identity()
    assert isinstance(found, SPIREProvider)
    assert found.get_identity() == "spiffe://example.test/app"
    found.close()
