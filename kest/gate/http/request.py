"""What a gate needs to know of a request, from ASGI's scope or WSGI's environ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from kest._kestcore import parse
from kest.errors import GateRequestError, JSONSyntaxError
from kest.gate.params import gate_params
from kest.http.middleware import ARRIVAL, IDENTITY

__all__ = ["WEBSOCKET", "Asked", "asked_of_environ", "asked_of_scope", "body_params", "parsed"]

WEBSOCKET = "WEBSOCKET"
"""Stands for the method of a WebSocket's handshake, which is GET but begins much more than a reading."""

Headers = list[tuple[str, str]]

_ENCODED = (b"%2f", b"%5c", b"%2e", b"%25")  # slash, backslash, dot, percent


class Asked(NamedTuple):
    """One request. ``plain``: nothing in its path was encoded that changes where it leads. ``native``: scope or environ."""

    method: str
    path: str
    plain: bool
    query: bytes
    headers: Headers
    peer: str | None
    native: Mapping[str, Any]

    def values(self, name: str) -> list[str]:
        """The lines of a header, whose name is given in lower case."""
        return [value for field, value in self.headers if field == name]

    def single(self, name: str) -> str | None:
        """The one line of a header. GateRequestError where there are several: one of them came from somebody else."""
        values = self.values(name)
        if len(values) > 1:
            raise GateRequestError(f"the request has several {name} headers")
        return values[0].strip() if values else None

    @property
    def arrival(self) -> Any:
        """What `KestMiddleware` found, or None."""
        return self.native.get(ARRIVAL)

    @property
    def caller(self) -> Any:
        """Whom `KestIdentityMiddleware` verified, or None."""
        return self.native.get(IDENTITY)

    @property
    def declared_length(self) -> int:
        """Content-Length; 0 where there is none."""
        declared = self.single("content-length") or ""
        return int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 19 else 0

    @property
    def brings_json(self) -> bool:
        """Whether its body says of itself that it is JSON, in no content coding."""
        if any(coding.strip().lower() not in ("", "identity") for coding in self.values("content-encoding")):
            return False
        return any(_is_json(value) for value in self.values("content-type"))


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


def asked_of_scope(scope: Mapping[str, Any]) -> Asked:
    """A request from the scope of an ASGI application, whose path is counted from where that is mounted."""
    path, root, raw = scope["path"], scope.get("root_path", "").rstrip("/"), scope.get("raw_path") or b""
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    client = scope.get("client")
    return Asked(
        scope["method"] if scope["type"] == "http" else WEBSOCKET,
        path or "/",
        not any(code in raw.lower() for code in _ENCODED),
        scope.get("query_string", b""),
        [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]],
        client[0] if client else None,
        scope,
    )


def asked_of_environ(environ: Mapping[str, Any]) -> Asked:
    """A request from the environ of a WSGI application (PEP 3333: text is bytes in the guise of latin-1)."""
    headers = [
        (name[5:].replace("_", "-").lower(), value) for name, value in environ.items() if name.startswith("HTTP_")
    ]
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers.append((name.replace("_", "-").lower(), environ[name]))
    raw = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").partition("?")[0].encode("latin-1", "replace")
    return Asked(
        environ["REQUEST_METHOD"],
        environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace") or "/",
        not any(code in raw.lower() for code in _ENCODED),
        environ.get("QUERY_STRING", "").encode("latin-1"),
        headers,
        environ.get("REMOTE_ADDR"),
        environ,
    )


def parsed(data: bytes) -> Any:
    """JSON as every reader understands it (I-JSON, RFC 7493): UTF-8, no repeated names, no NaN, integers within 2^53.

    Raises:
        GateRequestError: it is not; application and gate might read different things in it.
    """
    try:
        return parse(data) if data else None
    except JSONSyntaxError as error:
        raise GateRequestError(f"the body is not JSON that every reader takes for the same: {error}") from None


def body_params(body: object, query: bytes = b"") -> dict[str, Any]:
    """The members of a JSON object as parameters. One that the query has as well is of no use: which one counts only the
    application knows."""
    if not isinstance(body, Mapping) or not all(isinstance(name, str) for name in body):
        return {}
    params = gate_params(body)
    if query and params:
        try:
            named = {
                name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=1_000)
            }
        except ValueError:
            raise GateRequestError("the query has more than 1000 fields") from None
        params.update(dict.fromkeys(named & params.keys()))
    return params
