"""What an identity is to Kest, and the one place where a signature that came from outside is checked.

A provider names a workload (its *principal*) and signs for it. Users implement `IdentityProvider`; `BaseIdentity`
saves most of the work where there is a function that signs bytes. Whatever a provider returns is believed only after
`checked_jws` has found in it a JWS (RFC 7515, section 7.1) over exactly the payload that was given.
"""

from __future__ import annotations

import inspect
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol, runtime_checkable

from kest import _kestcore
from kest.core.identity.jws import (
    ALGORITHMS,
    SIGNATURE_BYTES,
    compact,
    ecdsa_der_to_raw,
    jwk_algorithm,
    read_jws,
    signing_input,
)
from kest.core.identity.waiting import answer, answer_async, awaited
from kest.errors import IdentityError, KestError

__all__ = [
    "ALGORITHMS",
    "BaseIdentity",
    "IdentityProvider",
    "async_principal_of",
    "async_sign_payload",
    "checked_jws",
    "checked_principal",
    "ecdsa_der_to_raw",
    "principal_of",
    "sign_payload",
    "signing_input",
]

# A SPIFFE ID is at most 2,048 bytes (SPIFFE-ID, section 2.3); no other form of principal needs more.
MAX_PRINCIPAL_BYTES = 2048


@runtime_checkable
class IdentityProvider(Protocol):
    """A workload that can sign. Implement these two methods; deriving from this class is optional.

    Optional members that Kest looks for:

    * ``public_jwk() -> dict``: the public key (RFC 7517). The first signature of the object is verified under it.
      Required if `sign` returns raw bytes.
    * ``async_sign(payload)``: a coroutine function like `sign`, awaited by async callers.
    * ``blocking = False``: `get_identity` and `sign` never wait for anything. Otherwise they are called in a thread, so
      that the event loop goes on, and given up after ``call_timeout`` seconds (15).
    * ``algorithm``: ``"EdDSA"``, ``"ES256"`` or ``"RS256"``; required if `sign` returns raw bytes.
    * ``sign_message(message) -> bytes``: signs bytes as they are. With ``algorithm`` it is used instead of `sign`.

    `sign` may be called from several threads at once.
    """

    def get_identity(self) -> str:
        """The principal: not empty, globally unique, at most 2,048 bytes of UTF-8, no control characters."""
        getter = getattr(self, "get_workload_id", None)
        if not callable(getter):
            raise IdentityError(f"{_type_name(self)} has neither get_identity() nor get_workload_id(); define one")
        return str(getter())

    @abstractmethod
    def sign(self, payload: bytes) -> str | bytes:
        """A signature over `payload`.

        Returns:
            The whole JWS in compact form: its header is canonical JSON with exactly alg, kid (the principal), typ
            ``"JWS"`` and, where there is a certificate chain, x5c. Or the raw signature bytes over
            ``signing_input(principal, payload, algorithm)[1]``.
        """
        ...


class BaseIdentity(ABC):
    """An identity that is made from `get_identity`, `sign_message`, `public_jwk` and `algorithm`."""

    __slots__ = ("__weakref__",)

    @property
    def algorithm(self) -> str:
        """The JWS algorithm of the key: EdDSA, ES256 or RS256. A class attribute does as well."""
        return "EdDSA"

    @property
    def blocking(self) -> bool:
        """Whether `get_identity` or `sign` may wait for another process or host: a class that never does says False (a
        class attribute does as well), and saves the change of threads."""
        return True

    @abstractmethod
    def get_identity(self) -> str:
        """The principal that this identity signs as."""

    @abstractmethod
    def sign_message(self, message: bytes) -> bytes:
        """The signature bytes over `message`: 64 for EdDSA and ES256 (raw r||s), the modulus' length for RS256."""

    @abstractmethod
    def public_jwk(self) -> dict[str, Any]:
        """The public key as a JWK (RFC 7517, RFC 8037) with ``kid`` set to the principal."""

    def get_workload_id(self) -> str:
        """The same as `get_identity`."""
        return self.get_identity()

    def sign(self, payload: bytes) -> str:
        """A compact JWS over `payload`, header {alg, kid, typ}. Raises IdentityError when that is impossible."""
        _, message = signing_input(self.get_identity(), payload, self.algorithm)
        return compact(message, self.sign_message(message))

    async def async_sign(self, payload: bytes) -> str:
        """Like `sign`, without holding up the event loop."""
        if self.blocking:
            return await answer_async(self, self.sign, payload)
        return self.sign(payload)

    @property
    def signer(self) -> _kestcore.Signer | None:
        """The C key behind this identity, when nothing but the key decides what `sign` returns; otherwise None."""
        return None

    def labels(self) -> dict[str, str]:
        """Facts about the identity that are worth recording in an entry's labels. Never secrets."""
        return {}

    def close(self) -> None:  # noqa: B027 (there is nothing to release unless a subclass says so)
        """Release connections. The identity may be used again; it reconnects."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    # An identity is one key in one place: a copy is the same object, and it never leaves the process.
    def __copy__(self) -> BaseIdentity:
        return self

    def __deepcopy__(self, memo: object) -> BaseIdentity:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise IdentityError(
            f"{type(self).__name__} cannot be pickled: keys do not leave the process. "
            "Create the identity in each process (StaticIdentity(key_file=…) shares one key)"
        )


def checked_principal(value: object, source: str = "the identity provider") -> str:
    """`value` if it can stand as a principal, otherwise IdentityError (F-ID-02)."""
    if not isinstance(value, str):
        _discard(value)
        raise IdentityError(f"{source} returned {_kind(value)} instead of a principal (a non-empty string)")
    if not value or value != value.strip():
        raise IdentityError(f"{source} returned an empty principal, or one with white space around it")
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in value):
        raise IdentityError(f"{source} returned a principal with control characters or lone surrogates")
    if len(value.encode()) > MAX_PRINCIPAL_BYTES:
        raise IdentityError(f"{source} returned a principal of more than {MAX_PRINCIPAL_BYTES} bytes")
    return str(value)


def principal_of(provider: object) -> str:
    """The principal of any provider.

    Raises:
        IdentityError: it fails, does not answer in time, or returns something unusable.
    """
    return answer(provider, _principal_of, provider) if _may_wait(provider) else _principal_of(provider)


async def async_principal_of(provider: object) -> str:
    """Like `principal_of`, without holding up the event loop."""
    return await answer_async(provider, _principal_of, provider) if _may_wait(provider) else _principal_of(provider)


def _may_wait(provider: object) -> bool:
    """Whether to call a provider in a thread: unless it says that it never waits for anything."""
    return getattr(provider, "blocking", True) is not False


def _principal_of(provider: object) -> str:
    getter = getattr(provider, "get_identity", None) or getattr(provider, "get_workload_id", None)
    if not callable(getter):
        raise IdentityError(
            f"{_type_name(provider)} is not an identity provider: it needs get_identity() and sign(payload)"
        )
    try:
        value = getter()
    except KestError:
        raise
    except Exception as error:
        raise _failed(provider, "get_identity()", error) from error
    return checked_principal(value, f"{_type_name(provider)}.get_identity()")


def sign_payload(provider: object, payload: bytes, principal: str | None = None) -> str:
    """Let `provider` sign `payload` and return the checked JWS.

    Args:
        provider: an `IdentityProvider`; it is called exactly once.
        payload: the bytes to sign.
        principal: what the JWS must name as its kid; asked of the provider when None.
    Raises:
        IdentityError: the provider failed or did not answer in time, or what it returned is not a JWS over this payload.
    """
    if _may_wait(provider):
        return answer(provider, _sign_payload, provider, payload, principal)
    return _sign_payload(provider, payload, principal)


def _sign_payload(provider: object, payload: bytes, principal: str | None) -> str:
    who = _principal_of(provider) if principal is None else principal
    message = _message_for(provider, who, payload)
    try:
        returned = provider.sign(payload) if message is None else provider.sign_message(message)  # type: ignore[attr-defined]
    except KestError:
        raise
    except Exception as error:
        raise _failed(provider, "sign()", error) from error
    return checked_jws(provider, who, payload, returned)


async def async_sign_payload(provider: object, payload: bytes, principal: str | None = None) -> str:
    """Like `sign_payload`, without holding up the event loop: awaits ``async_sign`` where there is one, and runs
    providers that may wait in a thread."""
    may_wait = _may_wait(provider)
    async_sign = _own_async_sign(provider)
    if async_sign is None:
        if may_wait:
            return await answer_async(provider, _sign_payload, provider, payload, principal)
        return _sign_payload(provider, payload, principal)
    who = await async_principal_of(provider) if principal is None else principal
    try:
        returned = async_sign(payload)
        if inspect.isawaitable(returned):
            returned = await awaited(provider, returned)
    except KestError:
        raise
    except Exception as error:
        raise _failed(provider, "async_sign()", error) from error
    if may_wait and _unverified(provider):  # the first check may have to fetch the public key
        return await answer_async(provider, checked_jws, provider, who, payload, returned)
    return checked_jws(provider, who, payload, returned)


def _own_async_sign(provider: object) -> Any:
    """A provider's `async_sign`, unless it is the one of `BaseIdentity`, which only calls `sign` in a thread."""
    found = getattr(provider, "async_sign", None)
    if not callable(found) or getattr(found, "__func__", None) is BaseIdentity.async_sign:
        return None
    return found


def checked_jws(
    provider: object,
    principal: str,
    payload: bytes,
    returned: object,
    public_key: Mapping[str, Any] | None = None,
    *,
    typ: str = "JWS",
) -> str:
    """The JWS that `provider` returned, or that is built around the raw signature it returned.

    Args:
        provider: who signed; its `algorithm`, `x5c` and `public_jwk` are read as needed.
        principal: what the header must name as kid.
        payload: the bytes that were to be signed.
        returned: what came back.
        public_key: the JWK to verify under; None: the provider's own, once for each provider object.
        typ: the header's typ.
    Raises:
        IdentityError: anything but a valid signature of this principal over this payload (ATTACKS D5).
    """
    who = _type_name(provider)
    if isinstance(returned, str):
        jws = str(returned)
        alg, message, signature = read_jws(jws, principal, payload, who, typ)
        raw = False
    elif isinstance(returned, (bytes, bytearray)):
        alg = _declared_algorithm(provider)
        if not _length_fits(alg, len(returned)):
            raise IdentityError(
                f"{who} returned {len(returned)} bytes where a raw {alg} signature has {SIGNATURE_BYTES[alg]} "
                "(an ECDSA signature in DER form: convert it with ecdsa_der_to_raw)"
            )
        signature = bytes(returned)
        _, message = signing_input(principal, payload, alg, getattr(provider, "x5c", None), typ=typ)
        jws = compact(message, signature)
        raw = True
    else:
        _discard(returned)
        raise IdentityError(
            f"{who} returned {_kind(returned)} where a compact JWS (str) or signature bytes were expected"
            + ("; an asynchronous sign belongs in async_sign" if inspect.isawaitable(returned) else "")
        )
    if public_key is not None:
        _verify([public_key], alg, message, signature, who, raw)
    elif _unverified(provider):
        keys = _own_keys(provider, who)
        if keys:
            _verify(keys, alg, message, signature, who, raw)
            _remember(provider)
        elif raw:
            raise IdentityError(f"{who} returns raw signatures, so it must also have public_jwk() to check them with")
    return jws


# Providers whose first signature was verified under their own key. Objects that cannot be held weakly, or that do not
# hash by identity, are verified every time: slower, never less safe.
_verified: weakref.WeakSet[Any] = weakref.WeakSet()


def _unverified(provider: object) -> bool:
    if type(provider).__hash__ is not object.__hash__:
        return True
    try:
        return provider not in _verified
    except TypeError:
        return True


def _remember(provider: object) -> None:
    if type(provider).__hash__ is object.__hash__:
        try:
            _verified.add(provider)
        except TypeError:
            return


def _own_keys(provider: object, who: str) -> Sequence[Mapping[str, Any]]:
    # A provider whose key rotates lists the keys that a signature made a moment ago may still belong to.
    for name in ("recent_public_jwks", "public_jwk"):
        getter = getattr(provider, name, None)
        if callable(getter):
            break
    else:
        return ()
    try:
        found = getter()
    except KestError:
        raise
    except Exception as error:
        raise _failed(provider, f"{name}()", error) from error
    listed: Sequence[Any] = found if isinstance(found, (list, tuple)) else [found]
    keys: list[Mapping[str, Any]] = [key for key in listed if isinstance(key, Mapping)]
    if not keys or len(keys) != len(listed):
        _discard(found)
        raise IdentityError(f"{who}.{name}() must return a JWK as a dict, not {_kind(found)}")
    return keys


def _verify(keys: Sequence[Mapping[str, Any]], alg: str, message: bytes, signature: bytes, who: str, raw: bool) -> None:
    fitting = [key for key in keys if jwk_algorithm(key) == alg]
    if not fitting:
        raise IdentityError(f"{who} signed with {alg}, which is not what its public key is for")
    for key in fitting:
        if _kestcore.PublicKey.from_jwk(dict(key)).verify(message, signature) is True:
            return
    raise IdentityError(
        f"{who} returned a signature that does not verify under its own public key"
        + ("; sign the bytes signing_input(principal, payload, algorithm)[1], not the payload" if raw else "")
    )


def _message_for(provider: object, principal: str, payload: bytes) -> bytes | None:
    """What to give to `sign_message`, or None where `sign` is to be called."""
    if isinstance(provider, BaseIdentity):
        return None  # its sign() does this, and a subclass may have replaced it
    # A provider that is not one of ours says with sign_message that it signs bytes as they are.
    if not callable(getattr(provider, "sign_message", None)):
        return None
    alg = _declared_algorithm(provider)
    return signing_input(principal, payload, alg, getattr(provider, "x5c", None))[1]


def _declared_algorithm(provider: object) -> str:
    alg = getattr(provider, "algorithm", None)
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise IdentityError(
            f"{_type_name(provider)} returns raw signatures, so its attribute `algorithm` must be one of "
            f"{', '.join(ALGORITHMS)}"
        )
    return alg


def _length_fits(alg: str, length: int) -> bool:
    return length >= 256 if alg == "RS256" else length == 64


def _failed(provider: object, what: str, error: BaseException) -> IdentityError:
    # The text of a foreign exception may hold a credential: name its type, keep the rest as the cause.
    return IdentityError(f"{_type_name(provider)}.{what} failed with {type(error).__name__}; nothing was signed")


def _discard(value: object) -> None:
    if inspect.iscoroutine(value):
        value.close()  # otherwise the interpreter warns, later and elsewhere, that it was never awaited


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__qualname__}"


def _type_name(provider: object) -> str:
    return type(provider).__qualname__
