"""Interceptors for gRPC: the passport in the ``baggage`` metadata of a call, for sync and asyncio servers and clients.

``grpc.server(pool, interceptors=[KestServerInterceptor()])``, ``grpc.intercept_channel(channel, KestClientInterceptor())``,
``grpc.aio.server(interceptors=[KestAioServerInterceptor()])``, ``grpc.aio.insecure_channel(target,
interceptors=aio_client_interceptors())``.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from kest.errors import KestError, MissingExtraError, PolicyDeniedError
from kest.http.baggage_header import HEADER
from kest.http.edge import Edge
from kest.http.entering import enter as _continue
from kest.http.interceptor import Interceptor, header_bytes
from kest.http.problem import status_of

try:
    import grpc
    import grpc.aio
except ImportError as error:
    raise MissingExtraError("kest.http.grpc needs grpcio: pip install grpcio") from error

__all__ = [
    "KestAioServerInterceptor",
    "KestClientInterceptor",
    "KestServerInterceptor",
    "aio_client_interceptors",
]

log = logging.getLogger("kest.http")

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    424: grpc.StatusCode.FAILED_PRECONDITION,
    503: grpc.StatusCode.UNAVAILABLE,
}


def _lines(metadata: Iterable[tuple[str, str | bytes]] | None) -> list[bytes]:
    return [header_bytes(value) for key, value in metadata or () if key == HEADER]


def _answer(error: KestError) -> tuple[grpc.StatusCode, str]:
    status = status_of(error)
    log.warning("call refused: status=%d reason=%s", status, error)
    return _CODES.get(status, grpc.StatusCode.INTERNAL), str(error) if status < 500 else "Kest error"


def _rebuilt(handler: Any, wrap: Callable[[Any, bool], Any]) -> Any:
    """A handler of the same kind whose behaviour is wrapped."""
    for requests in ("unary", "stream"):
        for responses in ("unary", "stream"):
            behaviour = getattr(handler, f"{requests}_{responses}")
            if behaviour is not None:
                make = getattr(grpc, f"{requests}_{responses}_rpc_method_handler")
                return make(
                    wrap(behaviour, responses == "stream"),
                    request_deserializer=handler.request_deserializer,
                    response_serializer=handler.response_serializer,
                )
    return handler


# --- servers ---


class KestServerInterceptor(grpc.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """What `KestMiddleware` is for HTTP; the arguments are those of `Edge`. Refusals become gRPC status codes."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._edge = Edge(*args, **settings)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """See `grpc.ServerInterceptor`."""
        handler = continuation(handler_call_details)
        return handler if handler is None else _rebuilt(handler, self._wrapped)

    def _wrapped(self, behaviour: Any, streams: bool) -> Any:
        def entered(context: Any) -> contextvars.Context:
            try:
                arrival = self._edge.read(_lines(context.invocation_metadata()))
            except KestError as error:
                _abort(context, error)
            flow = contextvars.copy_context()
            flow.run(_continue, arrival)
            return flow

        def unary(request: Any, context: Any) -> Any:
            try:
                return entered(context).run(behaviour, request, context)
            except PolicyDeniedError as denied:
                _abort(context, denied)

        def stream(request: Any, context: Any) -> Iterator[Any]:
            flow = entered(context)
            try:
                items = flow.run(lambda: iter(behaviour(request, context)))
                try:
                    while (item := flow.run(next, items, _END)) is not _END:
                        yield item
                finally:
                    close = getattr(items, "close", None)
                    if close is not None:
                        flow.run(close)
            except PolicyDeniedError as denied:
                _abort(context, denied)

        return stream if streams else unary


_END = object()


def _abort(context: Any, error: KestError) -> NoReturn:
    context.abort(*_answer(error))  # raises
    raise error


class KestAioServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """`KestServerInterceptor` for ``grpc.aio``."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._edge = Edge(*args, **settings)

    async def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        return handler if handler is None else _rebuilt(handler, self._wrapped)

    def _wrapped(self, behaviour: Any, streams: bool) -> Any:
        async def enter(context: Any) -> None:
            try:
                arrival = await self._edge.read_async(_lines(context.invocation_metadata()))
            except KestError as error:
                await context.abort(*_answer(error))
                raise
            _continue(arrival)  # grpc.aio runs each call in a task of its own

        async def unary(request: Any, context: Any) -> Any:
            await enter(context)
            try:
                if inspect.iscoroutinefunction(behaviour):
                    return await behaviour(request, context)
                result = await asyncio.to_thread(behaviour, request, context)
                return await result if inspect.isawaitable(result) else result
            except PolicyDeniedError as denied:
                await context.abort(*_answer(denied))

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            await enter(context)
            try:
                produced = behaviour(request, context)
                if hasattr(produced, "__aiter__"):
                    async for item in produced:
                        yield item
                elif inspect.isawaitable(produced):  # writes with context.write instead of yielding
                    await produced
                else:
                    for item in produced:
                        yield item
            except PolicyDeniedError as denied:
                await context.abort(*_answer(denied))

        return stream if streams else unary


# --- clients ---


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Sender:
    """Puts the passport into the metadata of one call."""

    def __init__(self, target: str | None, settings: dict[str, Any]) -> None:
        self.kest = Interceptor(**settings)
        self.host, self.port = _address(target)

    def prepare(self, metadata: Any) -> tuple[list[tuple[str, Any]], dict[str, str]]:
        present = [] if metadata is None else list(metadata)
        prepared = self.kest.prepare("grpc", self.host, self.port, _lines(present))
        kept = [(key, value) for key, value in present if key != HEADER]
        if prepared.baggage:
            kept.append((HEADER, prepared.baggage.decode("ascii", "replace")))
        return kept, prepared.claims


def _address(target: str | None) -> tuple[str | None, int | None]:
    if target is None:
        return None, None
    name = target.rpartition("/")[2]  # dns:///host:port and the like
    host, colon, port = name.rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else (name, None)


class KestClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc, unused-ignore]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc, unused-ignore]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc, unused-ignore]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc, unused-ignore]
):
    """Attaches the passport to the calls of a channel: ``grpc.intercept_channel(channel, KestClientInterceptor())``.

    Args:
        target: the channel's address. An interceptor is not told, and ``allowed_hosts`` compares with it.
        settings: see `kest.http.KestHttpxInterceptor`.
    """

    def __init__(self, target: str | None = None, **settings: Any) -> None:
        self._sender = _Sender(target, settings)

    def _call(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        metadata, claims = self._sender.prepare(details.metadata)
        self._sender.kest.packer.store(claims)
        changed = _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )
        return continuation(changed, request)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See `grpc.UnaryUnaryClientInterceptor`."""
        return self._call(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See `grpc.UnaryStreamClientInterceptor`."""
        return self._call(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See `grpc.StreamUnaryClientInterceptor`."""
        return self._call(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """See `grpc.StreamStreamClientInterceptor`."""
        return self._call(continuation, client_call_details, request_iterator)


def aio_client_interceptors(target: str | None = None, **settings: Any) -> list[Any]:
    """Interceptors, one for each kind of call, for ``grpc.aio.insecure_channel(target, interceptors=...)``.

    The arguments are those of `KestClientInterceptor`.
    """
    sender = _Sender(target, settings)

    async def call(self: Any, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        metadata, claims = sender.prepare(details.metadata)
        await sender.kest.packer.store_async(claims)
        changed = grpc.aio.ClientCallDetails(
            details.method, details.timeout, grpc.aio.Metadata(*metadata), details.credentials, details.wait_for_ready
        )
        return await continuation(changed, request)

    kinds = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
    methods = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    return [
        type(f"Kest{kind}", (getattr(grpc.aio, f"{kind}ClientInterceptor"),), {f"intercept_{method}": call})()
        for kind, method in zip(kinds, methods, strict=True)
    ]
