"""moto as a server: its KMS signs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import boto3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from kest_services.moto import Moto
from kest_services.processes import Processes


def test_kms_signs(processes: Processes, tmp_path: Path, built: Callable[[str], Path]) -> None:
    built("moto")
    with Moto(processes, tmp_path / "moto") as moto:
        session = boto3.Session("any", "any", region_name="eu-west-1")
        kms = session.client("kms", endpoint_url=moto.url)
        try:
            key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
            signed = kms.sign(KeyId=key, Message=b"message", MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256")
            public = load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
        finally:
            kms.close()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(signed["Signature"], b"message", ec.ECDSA(hashes.SHA256()))
        sts = session.client("sts", endpoint_url=moto.url)
        try:
            assert sts.get_caller_identity()["Account"] == "123456789012"
        finally:
            sts.close()
