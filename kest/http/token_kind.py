"""What kind of token a JWT is: access tokens identify a caller here, and other tokens of the same issuer do not.

ID tokens, refresh tokens and logout tokens are signed with the same keys as access tokens, and an attacker may have one where
he has no access token (RFC 8725, section 2.8). Issuers mark access tokens in different ways, or not at all:

- header ``typ`` ``at+jwt`` (RFC 9068): oidc-provider, Auth0 with that profile, others;
- header ``typ`` ``JWT`` or none: Keycloak, Entra, Auth0's and Okta's own profiles;
- a claim besides: ``typ`` ``Bearer`` or ``DPoP`` (Keycloak), ``token_use`` ``access`` (Cognito).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kest.errors import ConfigurationError, TokenError

__all__ = ["TOKEN_TYPES", "check_kind", "token_types_of"]

TOKEN_TYPES = ("at+jwt", "JWT", "")

_ACCESS = frozenset(("bearer", "dpop", "access", "at+jwt"))
_OTHER = frozenset(
    ("id", "serialized-id", "refresh", "offline", "logout", "initialaccesstoken", "registrationaccesstoken")
)  # fmt: skip
# Claims that say it: Keycloak's, Cognito's, and those of some frameworks' own issuers.
_KIND_CLAIMS = ("typ", "token_use", "token_type")
# OpenID Connect Core, sections 2, 3.1.3.6 and 3.3.2.11; FAPI 1.0 part 2, section 5.1.1.
_ID_TOKEN_CLAIMS = ("at_hash", "c_hash", "s_hash", "nonce")


def token_types_of(given: Sequence[str]) -> frozenset[str]:
    """The setting ``token_types``, as `check_kind` compares it.

    Raises:
        ConfigurationError: not a list of media types, or an empty one.
    """
    if isinstance(given, str) or not given or not all(isinstance(name, str) for name in given):
        raise ConfigurationError("token_types is a list of JWT header types such as ['at+jwt']; '' stands for none")
    return frozenset(_media_type(name) for name in given)


def check_kind(header: Mapping[str, Any], claims: Mapping[str, Any], types: frozenset[str]) -> None:
    """Raise TokenError unless this can be an access token.

    A token that says that it is one is believed in that: older releases of Keycloak copy ``nonce`` into access tokens.
    """
    named = header.get("typ", "")
    kind = _media_type(named) if isinstance(named, str) else None
    if kind is None or kind not in types:
        raise TokenError("the token is of another type than this service takes (header typ)")
    said = {str(claims[name]).lower() for name in _KIND_CLAIMS if isinstance(claims.get(name), str)}
    if said & _OTHER:
        raise TokenError("the token is no access token: it says that it is for something else")
    if "events" in claims:  # Back-Channel Logout 1.0, section 2.4; RFC 8417
        raise TokenError("the token is no access token: it reports an event")
    if kind != "at+jwt" and not said & _ACCESS and any(name in claims for name in _ID_TOKEN_CLAIMS):
        raise TokenError("the token is no access token: it has claims of an ID token")


def _media_type(name: str) -> str:
    """RFC 7515, section 4.1.9: compared without case, and ``application/`` may be left out."""
    return name.lower().removeprefix("application/")
