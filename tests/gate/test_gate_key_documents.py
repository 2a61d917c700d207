"""The samples of the public documents 003 and 004 about permits, keys, directories, audit and channels.

As printed, but for the import line and the name KeyPair; where the published text had lost its indentation, that alone is
restored.
"""

from __future__ import annotations

import asyncio
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from kest.gate import (
    ActionContext,
    AuditEntry,
    DirectoryTokenVerifier,
    Gate,
    KeyPair,
    PermitToken,
    PqTokenSigner,
    PublicKeyDirectory,
    SecureChannel,
    SignedAuditChain,
)

POLICY = {
    "policies": [
        {
            "name": "agent_small_refunds",
            "effect": "permit",
            "conditions": [
                {"identity_kind": "agent"},
                {"action": "issue_refund"},
                {"param_max": {"field": "amount", "max": 1000.0}},
            ],
        },
    ],
}


def run(sample: str, **names: Any) -> dict[str, Any]:
    """Execute a sample; returns its namespace."""
    namespace: dict[str, Any] = {"__name__": "sample", **names}
    exec(compile(textwrap.dedent(sample), "<sample>", "exec"), namespace)
    return namespace


@pytest.fixture
def ctx() -> ActionContext:
    return ActionContext(
        principal_id="agent-bot", principal_kind="agent", action_name="issue_refund", params={"amount": 500.0}
    )


def test_003_signed_permit_tokens(ctx: ActionContext) -> None:
    run(
        """
        from kest.gate import Gate, PermitToken, PqTokenSigner

        signer = PqTokenSigner.generate_hybrid()   # ML-DSA-65 + Ed25519
        # signer = PqTokenSigner.generate_pq_only()  # ML-DSA-65 only

        gate = Gate.from_dict(POLICY, token_signer=signer)
        verdict = gate.evaluate(ctx)

        if verdict.is_permit:
            pt = verdict.permit_token
            token = PermitToken(
                token_id=pt.token_id,
                evaluation_id=pt.evaluation_id,
                issued_at=pt.issued_at,
                expires_at=pt.expires_at,
                action_name=pt.action_name,
            )
            signer.verify(token, pt.signature)   # raises ValueError on tamper/wrong-key/downgrade
        checked = verdict.is_permit
        """,
        POLICY=POLICY,
        ctx=ctx,
    )["checked"] or pytest.fail("not permitted")


def test_004_signed_permit_tokens(ctx: ActionContext) -> None:
    class Sampled(Gate):
        def evaluate(self, context: Any = ...) -> Any:  # the sample writes evaluate(...)
            return super().evaluate(ctx if context is ... else context)

    sample = """
        from kest.gate import PqTokenSigner, PermitToken

        signer = PqTokenSigner.generate_hybrid()
        gate = Gate.from_dict(POLICY, token_signer=signer)

        verdict = gate.evaluate(...)
        if verdict.is_permit:
            token = PermitToken(
                token_id=verdict.permit_token.token_id,
                evaluation_id=verdict.permit_token.evaluation_id,
                issued_at=verdict.permit_token.issued_at,
                expires_at=verdict.permit_token.expires_at,
                action_name=verdict.permit_token.action_name,
            )
            assert signer.verify(token, verdict.permit_token.signature)
        """
    assert run(sample, POLICY=POLICY, Gate=Sampled)["verdict"].is_permit


def test_003_key_pairs() -> None:
    run(
        """
        from kest.gate import KeyPair

        kp = KeyPair.generate()                   # no expiry
        short = KeyPair.generate_with_expiry(3600)  # 1-hour lifetime

        assert kp.id                       # UUID string, also the signer key_id
        assert kp.created_at > 0           # unix seconds
        assert kp.expires_at is None       # short.expires_at is an int
        assert kp.is_expired is False

        bundle = kp.public_keys()
        bundle.id                         # matches kp.id
        bundle.ml_dsa_verifying_key       # ~1952 bytes, PQ signature VK
        bundle.ed25519_verifying_key      # 32 bytes
        bundle.x25519_public_key          # 32 bytes, KEM recipient
        bundle.ml_kem_encapsulation_key   # ML-KEM-768 EK

        PqTokenSigner.from_keypair_hybrid(kp)
        PqTokenSigner.from_keypair_pq_only(kp)

        PqTokenSigner.pq_only(ml_dsa_signing_key=b"", ml_dsa_verifying_key=bundle.ml_dsa_verifying_key, key_id=kp.id)
        """,
        PqTokenSigner=PqTokenSigner,
    )


def test_003_persisting_patterns_b_and_a(ctx: ActionContext) -> None:
    handed: list[Any] = []
    given = KeyPair.generate()
    secrets, public = given.secrets(), given.public_keys()
    done = run(
        """
        kp     = KeyPair.generate()
        signer = PqTokenSigner.from_keypair_hybrid(kp)
        gate   = Gate.from_dict(POLICY, token_signer=signer)

        distribute_to_verifiers(kp.public_keys())   # your code

        signer = PqTokenSigner.hybrid(
            ml_dsa_sk, ml_dsa_vk,
            ed_sk, ed_vk,
            key_id="kavach-prod-2026",
        )
        gate = Gate.from_dict(POLICY, token_signer=signer)
        """,
        KeyPair=KeyPair,
        PqTokenSigner=PqTokenSigner,
        Gate=Gate,
        POLICY=POLICY,
        distribute_to_verifiers=handed.append,
        ml_dsa_sk=secrets.ml_dsa,
        ml_dsa_vk=public.ml_dsa_verifying_key,
        ed_sk=secrets.ed25519,
        ed_vk=public.ed25519_verifying_key,
    )
    assert handed[0].id == done["kp"].id
    assert done["gate"].evaluate(ctx).signature


def test_003_public_key_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kp_a, kp_b, kp_c = (KeyPair.generate() for _ in range(3))
    now = int(time.time())
    token = PermitToken(
        "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002", now, now + 30, "x"
    )
    run(
        """
        from pathlib import Path
        from kest.gate import (
            DirectoryTokenVerifier, KeyPair, PublicKeyBundle, PublicKeyDirectory,
        )

        # In-memory, supports insert / remove.
        dir_im = PublicKeyDirectory.in_memory([bundle_a, bundle_b])
        dir_im.insert(bundle_c)
        dir_im.remove(kp_a.id)
        dir_im.reload()    # no-op; kept so callers are polymorphic across variants

        # Plain JSON manifest on disk, fetch works, mutations raise.
        Path("bundles.json").write_bytes(
            PublicKeyDirectory.build_unsigned_manifest([bundle_a, bundle_b]),
        )
        dir_file = PublicKeyDirectory.from_file("bundles.json")
        dir_file.reload()  # re-reads the file

        # Root-signed manifest on disk, tamper-evident.
        signing_key = KeyPair.generate()
        signed = signing_key.build_signed_manifest([bundle_a, bundle_b])
        Path("directory.json").write_bytes(signed)

        dir_signed = PublicKeyDirectory.from_signed_file(
            "directory.json",
            root_ml_dsa_verifying_key=signing_key.public_keys().ml_dsa_verifying_key,
        )

        verifier = DirectoryTokenVerifier(dir_signed, hybrid=True)
        verifier.verify(token, signature)   # raises ValueError on any failure
        """,
        bundle_a=kp_a.public_keys(),
        bundle_b=kp_b.public_keys(),
        bundle_c=kp_c.public_keys(),
        kp_a=kp_a,
        token=token,
        signature=PqTokenSigner.from_keypair_hybrid(kp_a).sign(token),
    )


def test_003_and_004_audit() -> None:
    run(
        """
        from kest.gate import AuditEntry, KeyPair, SignedAuditChain

        kp = KeyPair.generate()
        chain = SignedAuditChain(kp, hybrid=True)

        chain.append(AuditEntry("agent-alice", "issue_refund", "permit", "token=abc"))
        chain.append(AuditEntry("agent-bob",   "issue_refund", "refuse", "[POLICY_DENIED] no match"))
        chain.append(AuditEntry("agent-bob",   "delete_customer", "invalidate", "drift detected"))

        chain.verify(kp.public_keys())
        assert chain.length == 3
        assert chain.head_hash != "genesis"

        # Portable JSONL for off-node storage.
        blob = chain.export_jsonl()
        SignedAuditChain.verify_jsonl(blob, kp.public_keys())             # mode inferred
        SignedAuditChain.verify_jsonl(blob, kp.public_keys(), hybrid=True) # strict assertion
        """
    )
    run(
        """
        from kest.gate import AuditEntry, SignedAuditChain

        chain = SignedAuditChain(kp, hybrid=True)
        chain.append(AuditEntry(
            principal_id="agent-bot",
            action_name="issue_refund",
            verdict="permit",
            verdict_detail="within policy",
        ))
        chain.verify(kp.public_keys())

        # Portable JSONL for off-node storage:
        blob = chain.export_jsonl()
        SignedAuditChain.verify_jsonl(blob, kp.public_keys())
        """,
        kp=KeyPair.generate(),
    )


def test_003_and_004_secure_channel() -> None:
    run(
        """
        from kest.gate import KeyPair, SecureChannel

        alice = KeyPair.generate()
        bob   = KeyPair.generate()

        alice_ch = SecureChannel(alice, bob.public_keys())
        bob_ch   = SecureChannel(bob,   alice.public_keys())

        sealed = alice_ch.send_signed(b"permit: issue_refund", context_id="issue_refund", correlation_id="eval-1")
        payload = bob_ch.receive_signed(sealed, expected_context_id="issue_refund")
        assert payload == b"permit: issue_refund"

        # Unsigned helper for cases where the caller signs its own payload.
        enc = alice_ch.send_data(b"opaque")
        raw = bob_ch.receive_data(enc)
        """
    )
    run(
        """
        from kest.gate import SecureChannel

        alice, bob = KeyPair.generate(), KeyPair.generate()
        alice_ch = SecureChannel(alice, bob.public_keys())
        bob_ch = SecureChannel(bob, alice.public_keys())

        sealed = alice_ch.send_signed(b"hello bob", context_id="greeting")
        plaintext = bob_ch.receive_signed(sealed, expected_context_id="greeting")
        assert plaintext == b"hello bob"
        """,
        KeyPair=KeyPair,
    )


def test_004_public_key_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = KeyPair.generate(), KeyPair.generate()
    now = int(time.time())
    token = PermitToken(
        "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002", now, now + 30, "x"
    )
    run(
        """
        from kest.gate import PublicKeyDirectory, DirectoryTokenVerifier

        # Root-signed manifest on disk (tamper-evident):
        signing_key = KeyPair.generate()
        manifest = signing_key.build_signed_manifest([bundle_a, bundle_b])
        Path("directory.json").write_bytes(manifest)

        directory = PublicKeyDirectory.from_signed_file(
            "directory.json",
            root_ml_dsa_verifying_key=signing_key.public_keys().ml_dsa_verifying_key,
        )

        verifier = DirectoryTokenVerifier(directory, hybrid=True)
        verifier.verify(token, signed_envelope)  # raises on tamper/miss/downgrade
        """,
        KeyPair=KeyPair,
        Path=Path,
        bundle_a=one.public_keys(),
        bundle_b=other.public_keys(),
        token=token,
        signed_envelope=PqTokenSigner.from_keypair_hybrid(other).sign(token),
    )


def test_003_end_to_end(tmp_path: Path, ctx: ActionContext) -> None:
    """Steps 1, 2, 6, 7, 8 and 9 of the script. Its permit is of 2023: refused as printed, honoured with current times."""
    script = """
    async def main() -> None:
        # 1. Signed gate.
        signer = PqTokenSigner.generate_hybrid()
        gate = Gate.from_dict(
            POLICY,
            invariants=[("hard_cap", "amount", 10_000.0)],
            token_signer=signer,
            geo_drift_max_km=500.0,
        )

        # 2. Direct evaluate, permit path.
        v = gate.evaluate(ctx)
        assert v.is_permit
        pt = v.permit_token
        signer.verify(PermitToken(
            token_id=pt.token_id, evaluation_id=pt.evaluation_id,
            issued_at=pt.issued_at, expires_at=pt.expires_at,
            action_name=pt.action_name,
        ), pt.signature)

        # 6. Signed audit chain.
        kp = KeyPair.generate()
        chain = SignedAuditChain(kp, hybrid=True)
        chain.append(AuditEntry("agent-alice", "issue_refund", "permit", "token=abc"))
        chain.append(AuditEntry("agent-alice", "issue_refund", "refuse", "over cap"))
        chain.verify(kp.public_keys())
        blob = chain.export_jsonl()
        SignedAuditChain.verify_jsonl(blob, kp.public_keys())

        # 7. Directory + DirectoryTokenVerifier.
        root = KeyPair.generate()
        signed_manifest = root.build_signed_manifest([kp.public_keys()])
        Path("/tmp/kavach-directory.json").write_bytes(signed_manifest)
        directory = PublicKeyDirectory.from_signed_file(
            "/tmp/kavach-directory.json",
            root_ml_dsa_verifying_key=root.public_keys().ml_dsa_verifying_key,
        )
        svc_signer = PqTokenSigner.from_keypair_hybrid(kp)
        tok = PermitToken(
            token_id=str(uuid.uuid4()),
            evaluation_id=str(uuid.uuid4()),
            issued_at=1_700_000_000,
            expires_at=1_700_000_030,
            action_name="issue_refund",
        )
        sig = svc_signer.sign(tok)
        verifier = DirectoryTokenVerifier(directory, hybrid=True)
        verifier.verify(tok, sig)
        print("directory-backed verify ok")

        # 8. Secure channel.
        alice = KeyPair.generate()
        bob   = KeyPair.generate()
        alice_ch = SecureChannel(alice, bob.public_keys())
        bob_ch   = SecureChannel(bob, alice.public_keys())
        sealed = alice_ch.send_signed(b"hello bob", context_id="greet", correlation_id="c-1")
        plaintext = bob_ch.receive_signed(sealed, expected_context_id="greet")
        assert plaintext == b"hello bob"
        print("secure channel roundtrip ok")

        # 9. Hot reload.
        gate.reload("")                    # default-deny everything
        assert gate.evaluate(ctx).is_refuse
        # Re-hydrate back into the full policy set from the dict form.
        gate2 = Gate.from_dict(POLICY, invariants=[("hard_cap", "amount", 10_000.0)])
        assert gate2.evaluate(ctx).is_permit
        print("reload roundtrip ok")
    """.replace("/tmp/kavach-directory.json", str(tmp_path / "directory.json"))
    import uuid

    names: dict[str, Any] = {
        "PqTokenSigner": PqTokenSigner,
        "Gate": Gate,
        "POLICY": POLICY,
        "ctx": ctx,
        "PermitToken": PermitToken,
        "KeyPair": KeyPair,
        "SignedAuditChain": SignedAuditChain,
        "AuditEntry": AuditEntry,
        "Path": Path,
        "PublicKeyDirectory": PublicKeyDirectory,
        "DirectoryTokenVerifier": DirectoryTokenVerifier,
        "SecureChannel": SecureChannel,
        "uuid": uuid,
    }
    with pytest.raises(ValueError, match="verify failed: permit expired at 1700000030"):
        asyncio.run(run(script, **names)["main"]())
    now = int(time.time())
    current = script.replace("1_700_000_000", str(now)).replace("1_700_000_030", str(now + 30))
    asyncio.run(run(current, **names)["main"]())


def test_the_page_on_permits_runs_as_printed(run_python: Any) -> None:
    import re

    root = Path(__file__).resolve().parents[2]
    program = (root / "examples" / "gate" / "permits.py").read_text()
    printed = re.search(r"```python\n(.*?)```", (root / "docs" / "permits.md").read_text(), re.DOTALL)
    assert printed is not None
    assert printed.group(1) == program
    assert run_python(program).stdout == "agent-7 may refund orders/ORD-42\n"
