"""Workload identity from SPIRE, or from anything else that speaks the SPIFFE Workload API."""

from __future__ import annotations

import base64
import os
import time
from typing import TYPE_CHECKING, Any

from kest import _kestcore
from kest.core.identity.base import BaseIdentity, checked_principal
from kest.core.identity.jws import compact, ecdsa_der_to_raw, signing_input
from kest.errors import ConfigurationError, IdentityError, MissingExtraError
from kest.locks import Lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from spiffe import X509Source, X509Svid

__all__ = ["ENDPOINT_VARIABLE", "SPIREProvider"]

ENDPOINT_VARIABLE = "SPIFFE_ENDPOINT_SOCKET"
_RETRY_AFTER = 1.0  # seconds after a failed connection in which callers get the same error at once


class _Svid:
    """One X.509-SVID, prepared for signing. Immutable, so that threads may share it."""

    __slots__ = ("algorithm", "expires", "jwk", "principal", "sign", "source", "x5c")

    def __init__(self, source: X509Svid) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding

        self.source = source
        self.principal = checked_principal(str(source.spiffe_id), "the Workload API")
        self.x5c = [base64.b64encode(cert.public_bytes(Encoding.DER)).decode("ascii") for cert in source.cert_chain]
        self.expires = source.leaf.not_valid_after_utc.timestamp()
        self.algorithm, self.sign, jwk = _key_of(source)
        self.jwk = {**jwk, "kid": self.principal, "use": "sig", "alg": self.algorithm}


class SPIREProvider(BaseIdentity):
    """Signs with the workload's X.509-SVID; the principal is its SPIFFE ID.

    Entries are ES256 (raw r||s) for SPIRE's usual P-256 keys, RS256 for RSA, and carry the certificate chain as x5c,
    so whoever has the trust domain's bundle can verify them. A rotated SVID is used from the next signature on.
    Nothing is connected before the first use.

    Args:
        socket_path: the Workload API's Unix socket, as a path or a ``unix:`` URI; None: SPIFFE_ENDPOINT_SOCKET.
        spiffe_id: which identity to use if the workload has several; None: the first, as SPIFFE prescribes.
        timeout: seconds to wait for the first SVID.
    """

    __slots__ = ("_endpoint", "_failure", "_lock", "_pid", "_previous", "_source", "_spiffe_id", "_svid", "_timeout")

    def __init__(
        self, socket_path: str | os.PathLike[str] | None = None, *, spiffe_id: str | None = None, timeout: float = 5.0
    ) -> None:
        self._endpoint = None if socket_path is None else os.fspath(socket_path)
        self._spiffe_id = spiffe_id
        self._timeout = timeout
        self._lock = Lock()
        self._pid = os.getpid()
        self._source: X509Source | None = None
        self._svid: _Svid | None = None
        self._previous: _Svid | None = None
        self._failure: tuple[float, str] | None = None

    # -- identity ------------------------------------------------------------------------------------------------

    @property
    def blocking(self) -> bool:
        """True until the first SVID is here, and again after the connection was given up."""
        source = self._source
        return source is None or source.is_closed() or self._pid != os.getpid()

    @property
    def algorithm(self) -> str:
        return self._current().algorithm

    @property
    def x5c(self) -> list[str]:
        """The certificate chain in use, leaf first, standard base64 of DER."""
        return list(self._current().x5c)

    def get_identity(self) -> str:
        return self._current().principal

    def sign_message(self, message: bytes) -> bytes:
        return self._current().sign(message)

    def sign(self, payload: bytes) -> str:
        svid = self._current()  # once: key, chain and name of one signature belong together
        _, message = signing_input(svid.principal, payload, svid.algorithm, svid.x5c)
        return compact(message, svid.sign(message))

    def public_jwk(self) -> dict[str, Any]:
        return dict(self._current().jwk)

    def recent_public_jwks(self) -> list[dict[str, Any]]:
        """The current public key and the one before it: the key may rotate between a signature and its check."""
        current, previous = self._current(), self._previous
        return [dict(svid.jwk) for svid in (current, previous) if svid is not None]

    def open(self) -> None:
        """Connect now instead of at the first use. Raises IdentityError when that fails."""
        self._current()

    def close(self) -> None:
        with self._lock:
            source, self._source = self._source, None
            self._svid = self._previous = None
        if source is not None:
            source.close()

    def __repr__(self) -> str:
        svid = self._svid
        return f"SPIREProvider({svid.principal if svid else 'not connected'!r})"

    # -- the connection ------------------------------------------------------------------------------------------

    def _current(self) -> _Svid:
        from_api = self._newest()
        svid = self._svid
        if svid is None or svid.source is not from_api:
            svid = _Svid(from_api)
            with self._lock:
                known = self._svid
                if known is None or known.source is not from_api:
                    self._previous, self._svid = known, svid
        if svid.expires <= time.time():
            raise IdentityError(
                f"the SVID of {svid.principal} has expired and none has replaced it: is the SPIRE agent running, and "
                "does the workload's registration entry still exist?"
            )
        return svid

    def _newest(self) -> X509Svid:
        source = self._source
        if source is None or source.is_closed() or self._pid != os.getpid():
            source = self._connect()
        try:
            return source.get_x509_context().default_svid
        except Exception as error:  # closed or failed between the two statements
            raise IdentityError(
                f"the SPIFFE Workload API gave no SVID ({error}); check the agent's log. The next call reconnects"
            ) from error

    def _connect(self) -> X509Source:
        with self._lock:
            if self._pid != os.getpid():  # after a fork nothing renews the parent's SVID any more
                self._pid, self._source = os.getpid(), None
            source = self._source
            if source is not None and not source.is_closed():
                return source
            if self._failure is not None and time.monotonic() - self._failure[0] < _RETRY_AFTER:
                raise IdentityError(self._failure[1])
            try:
                from spiffe import X509Source
            except ImportError as error:
                raise MissingExtraError('SPIREProvider needs the SPIFFE client: pip install "kest[spiffe]"') from error
            endpoint = self._endpoint or os.environ.get(ENDPOINT_VARIABLE)
            if not endpoint:
                raise ConfigurationError(
                    f"SPIREProvider has no endpoint: pass socket_path or set {ENDPOINT_VARIABLE}, "
                    "for example unix:///run/spire/sockets/agent.sock"
                )
            try:
                self._source = source = X509Source(
                    socket_path=_as_uri(endpoint), timeout_in_seconds=self._timeout, svid_picker=self._picker()
                )
            except Exception as error:
                text = _unreachable(endpoint, self._timeout, error)
                self._failure = (time.monotonic(), text)
                raise IdentityError(text) from error
            self._failure = None
            return source

    def _picker(self) -> Callable[[list[X509Svid]], X509Svid] | None:
        wanted = self._spiffe_id
        if wanted is None:
            return None

        def pick(svids: list[X509Svid]) -> X509Svid:
            for svid in svids:
                if str(svid.spiffe_id) == wanted:
                    return svid
            raise IdentityError(f"the Workload API offers no SVID for {wanted}")

        return pick


# What the Workload API, gRPC or the operating system say, and what that asks of the operator.
_ADVICE = (
    ("does not exist", "there is no such socket: start the SPIRE agent, or correct the path ({variable})"),
    ("Connection refused", "no SPIRE agent listens there: start it"),
    ("Permission denied", "this process (user id {uid}) may not open the socket"),
    (
        "no identity issued",
        "no registration entry matches this process (user id {uid}): see spire-server entry show; an agent learns of new "
        "entries within seconds",
    ),
    ("offers no SVID for", "see spire-server entry show"),
)


def _unreachable(endpoint: str, timeout: float, error: Exception) -> str:
    """The message for a Workload API that gave no SVID: what happened, and what to do."""
    said = str(error)
    if "Timeout" in said:  # the source keeps to itself what it waited for
        said = _refusal(_as_uri(endpoint)) or said
    uid = os.getuid() if hasattr(os, "getuid") else "unknown"
    advice = next(
        (advice.format(uid=uid, variable=ENDPOINT_VARIABLE) for sign, advice in _ADVICE if sign in said),
        "check that the SPIRE agent runs and is healthy (spire-agent healthcheck)",
    )
    return f"no SVID from the SPIFFE Workload API at {endpoint} within {timeout:g} s: {advice} ({said})"


def _refusal(uri: str) -> str | None:
    """What the Workload API answers to a single request; None if it gives an SVID."""
    from spiffe import WorkloadApiClient

    try:
        with WorkloadApiClient(uri, default_timeout=3.0) as client:
            client.fetch_x509_context()
    except Exception as error:
        return str(error)
    return None


def _as_uri(endpoint: str) -> str:
    return f"unix://{endpoint}" if endpoint.startswith("/") else endpoint


def _key_of(svid: X509Svid) -> tuple[str, Callable[[bytes], bytes], dict[str, Any]]:
    """Algorithm, signing function and public JWK of an SVID's key."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    key = svid.private_key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        ecdsa = ec.ECDSA(hashes.SHA256())
        ec_key = key
        point = key.public_key().public_numbers()
        jwk = {"kty": "EC", "crv": "P-256", "x": _uint(point.x, 32), "y": _uint(point.y, 32)}
        return "ES256", lambda message: ecdsa_der_to_raw(ec_key.sign(message, ecdsa)), jwk
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        rsa_key = key
        public = key.public_key().public_numbers()
        jwk = {"kty": "RSA", "n": _uint(public.n), "e": _uint(public.e)}
        return "RS256", lambda message: rsa_key.sign(message, padding.PKCS1v15(), hashes.SHA256()), jwk
    raise IdentityError(
        f"the SVID of {svid.spiffe_id} has a key that Kest does not sign with; set "
        'workload_x509_svid_key_type = "ec-p256" in the SPIRE agent\'s configuration'
    )


def _uint(number: int, length: int | None = None) -> str:
    """base64url of an unsigned big-endian integer (RFC 7518, sections 6.2.1 and 6.3.1)."""
    return _kestcore.b64url_encode(number.to_bytes(length or (number.bit_length() + 7) // 8, "big"))
