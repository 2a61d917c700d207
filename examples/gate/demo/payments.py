"""The payment service: believes no agent, only permits that verify, once each, for exactly this payment.

It asks nobody: public keys come from a directory that an operator has signed, what is over from Redis. Whatever it decides
goes into a signed audit chain.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from process import Shared, answer, settings_of

from kest.errors import KestError
from kest.gate import (
    ActionContext,
    AuditEntry,
    DirectoryTokenVerifier,
    KeyPair,
    PermitError,
    PublicKeyBundle,
    PublicKeyDirectory,
    RedisReplayStore,
    SecureChannel,
    SignedAuditChain,
)

ANYBODY_WITH_A_PERMIT = {"policies": [{"name": "payments", "effect": "permit", "conditions": [{"action": "pay"}]}]}


class Payments:
    """What the service does."""

    def __init__(self, keypair: KeyPair, settings: dict[str, Any]) -> None:
        root = PublicKeyBundle.from_json(settings["root"])
        self.used = RedisReplayStore(settings["redis"])
        directory = PublicKeyDirectory.from_signed_file(settings["directory"], root=root)
        self.verifier = DirectoryTokenVerifier(directory, audience="payments", replay_store=self.used)
        self.audit = SignedAuditChain(keypair)
        self.shared = Shared(settings)
        self.gate = self.shared.gate(ANYBODY_WITH_A_PERMIT)
        self.channel = SecureChannel(keypair, directory.fetch(settings["writer"]))

    def pay(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Pay, if the permit is for this principal, order and amount, and neither it nor its session is over."""
        principal, order = request["principal"], f"orders/{request['order']}"
        require = {
            "action": "issue_refund", "principal": principal, "resource": order, "params": {"amount": request["amount"]},
        }  # fmt: skip
        try:
            claims = self.verifier.verify(None, request["permit"], require=require)
        except PermitError as error:
            return self._refused(principal, order, "permit", str(error))
        session = request.get("session")
        kind = claims.principal_kind or "external"
        verdict = self.gate.evaluate(ActionContext(principal, kind, "pay", resource=order, session_id=session))
        if not verdict.is_permit:
            return self._refused(principal, order, verdict.evaluator or "gate", verdict.reason or "")
        detail = f"permit={claims.token_id} policy_set={claims.policy_digest}"
        self.audit.append(AuditEntry(principal, "pay", "permit", detail, resource=order, session_id=session))
        return 200, {"paid": request["amount"], "permit": claims.token_id, "signed_by": claims.key_id}

    def _refused(self, principal: str, order: str, decided_by: str, reason: str) -> tuple[int, dict[str, Any]]:
        self.audit.append(AuditEntry(principal, "pay", "refuse", reason, resource=order, decided_by=decided_by))
        return 403, {"refused": reason}

    def note(self, sealed: bytes) -> tuple[int, dict[str, Any]]:
        """Take a sealed message."""
        try:
            return 200, {"received": self.channel.receive_signed(sealed, "note").decode()}
        except KestError as error:
            return 400, {"refused": str(error)}

    def evidence(self) -> tuple[int, dict[str, Any]]:
        """The audit chain, and a signed statement of how long it is."""
        return 200, {"chain": self.audit.export_jsonl().decode(), "checkpoint": self.audit.checkpoint().hex()}


def handler(payments: Payments) -> type[BaseHTTPRequestHandler]:
    """HTTP around it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.reply(*(payments.note(body) if self.path == "/note" else payments.pay(json.loads(body))))

        def do_GET(self) -> None:
            self.reply(*payments.evidence())

        def reply(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            print(format % args, file=sys.stderr)

    return Handler


def main() -> None:
    """Publish the keys, take the settings, serve until standard input ends."""
    keypair = KeyPair.generate()
    payments = Payments(keypair, settings_of(keypair))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(payments)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        answer("http://{}:{}".format(*server.server_address[:2]))
        sys.stdin.read()
        server.shutdown()
        thread.join()
    payments.used.close()
    payments.shared.close()


if __name__ == "__main__":
    main()
