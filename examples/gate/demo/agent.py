"""An agent: asks its gate before every refund, and takes the signed permit to the payment service.

Two of them run in the demo, as replicas: they share limits, sessions and what is over through Redis.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import httpx
from process import Shared, serve, settings_of

from kest import LocalEd25519Provider, PolicyDeniedError, configure, kest_verified
from kest.core.context import get_current_passport, lineage
from kest.gate import (
    ActionContext,
    DeviceFingerprint,
    Gate,
    GeoLocation,
    KeyPair,
    PermitToken,
    PqTokenSigner,
    PublicKeyBundle,
    SecureChannel,
    Verdict,
    envelope_text,
)

HARD_CAP = {"name": "hard_cap", "field": "amount", "max": 50_000, "action": "issue_refund"}


class Agent:
    """The commands."""

    def __init__(self, keypair: KeyPair, settings: dict[str, Any]) -> None:
        self.keypair, self.payments = keypair, settings["payments"]
        self.payments_keys = PublicKeyBundle.from_json(settings["payments_keys"])
        self.http = httpx.Client(trust_env=False, timeout=10)
        self.shared = Shared(settings)
        self.signer = PqTokenSigner.from_keypair_hybrid(keypair)
        options: dict[str, Any] = {
            "invariants": [HARD_CAP], "token_signer": self.signer, "permit_audience": "payments", "geo_drift_max_km": 500.0,
        }  # fmt: skip
        self.gate = self.shared.gate(Path(settings["policies"]), **options)
        self.observing = Gate(Path(settings["policies"]), observe_only=True, invariants=[HARD_CAP])
        self.watch = self.gate.watch(settings["policies"])
        self.permit: dict[str, Any] = {}

    # --- refunds ---

    def refund(self, order: str, amount: Any = None, pay: bool = True, **who: Any) -> dict[str, Any]:
        """Ask the gate; with a permit, go to the payment service."""
        params = {} if amount is None else {"amount": amount}
        context = self._context("issue_refund", resource=f"orders/{order}", params=params, **who)
        verdict = self.gate.evaluate(context)
        told = _told(verdict)
        if verdict.is_permit:
            self.permit = {
                "order": order, "amount": amount, "principal": context.principal_id, "session": context.session_id,
                "permit": envelope_text(verdict.signature or b""),
            }  # fmt: skip
            told["paid"] = self.present() if pay else None
        return told

    def present(self, **changes: Any) -> dict[str, Any]:
        """Present the last permit, perhaps with something changed."""
        response = self.http.post(f"{self.payments}/pay", json={**self.permit, **changes})
        return {"status": response.status_code, **response.json()}

    def forge(self, how: str) -> dict[str, Any]:
        """Present a permit that nobody should honour."""
        signer = {
            "another key": lambda: PqTokenSigner.generate_hybrid(),
            "without Ed25519": lambda: PqTokenSigner.from_keypair_pq_only(self.keypair),
            "of last week": lambda: self.signer,
        }[how]()
        issued = int(time.time()) - (7 * 86_400 if how == "of last week" else 0)
        token = PermitToken(str(uuid.uuid4()), str(uuid.uuid4()), issued, issued + 30, "issue_refund")
        return self.present(permit=envelope_text(signer.sign(token)))

    # --- other actions ---

    def report(self, **who: Any) -> dict[str, Any]:
        """Ask the gate about reading a report."""
        return _told(self.gate.evaluate(self._context("view_report", **who)))

    def observe(self, amount: Any) -> dict[str, Any]:
        """What a gate that only observes says, and what it would have said."""
        verdict = self.observing.evaluate(self._context("issue_refund", params={"amount": amount}))
        assert verdict.observed is not None
        return {**_told(verdict), "observed": _told(verdict.observed)}

    def policies(self) -> dict[str, Any]:
        """What is in force, and why the last reload failed, if it did."""
        error = self.gate.last_reload_error
        return {"digest": self.gate.policy_digest, "error": None if error is None else str(error)}

    def send(self, text: str, times: int) -> list[Any]:
        """Send the payment service a sealed message, the same one several times."""
        sealed = SecureChannel(self.keypair, self.payments_keys).send_signed(text.encode(), "note", "demo")
        return [self.http.post(f"{self.payments}/note", content=sealed).json() for _ in range(times)]

    def governed(self, order: str, amounts: list[float]) -> dict[str, Any]:
        """Refunds as decorated functions, with the gate as their policy engine: decided, signed, linked."""
        identity = LocalEd25519Provider("spiffe://shop.example/agent-1")
        configure(engine=self.gate, identity=identity)

        @kest_verified(
            "issue_refund", agent="agent-lineage", resource_id=f"orders/{order}", context_map={"amount": "amount"}
        )
        def refund(amount: float) -> float:
            return amount

        reasons = []
        with lineage():
            for amount in amounts:
                try:
                    refund(amount)
                except PolicyDeniedError as denied:
                    reasons.append(denied.reason)
            passport = get_current_passport().serialize()
        return {"passport": passport, "jwk": identity.public_jwk(), "denied": reasons}

    def _context(self, action: str, **given: Any) -> ActionContext:
        place, device = given.pop("place", None), given.pop("device", None)
        defaults = {"principal_id": "agent-bot", "principal_kind": "agent"}
        return ActionContext(
            **{**defaults, **given},
            action_name=action,
            current_geo=None if place is None else GeoLocation(**place),
            device=None if device is None else DeviceFingerprint(device),
        )

    def close(self) -> None:
        """Stop what runs in the background."""
        self.watch.stop()
        self.http.close()
        self.shared.close()


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.kind, "code": verdict.code, "evaluator": verdict.evaluator, "reason": verdict.reason,
        "policy": verdict.policy, "permit": verdict.token_id,
    }  # fmt: skip


def main() -> None:
    """Publish the keys, take the settings, do what is asked."""
    keypair = KeyPair.generate()
    agent = Agent(keypair, settings_of(keypair))
    serve(agent)
    agent.close()


if __name__ == "__main__":
    main()
