"""Invalidations for all replicas through Redis Streams: at least once, caught up with after a disconnection, signed."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, final

from kest.errors import ConfigurationError, GateInputError, GateStoreError
from kest.gate.invalidation import (
    MAX_PENDING,
    Deliver,
    InvalidationScope,
    InvalidationTarget,
    checked_scope,
    is_listener,
)
from kest.gate.redis_channel import WAIT, Entry, RedisChannel
from kest.gate.redis_link import CONNECT_TIMEOUT, TIMEOUT, RedisLink, key_digest
from kest.gate.redis_messages import ForgedMessageError, Message, Sealer
from kest.locks import Lock

if TYPE_CHECKING:
    from kest.gate.subscription import InvalidationSubscription

__all__ = ["CHANNEL", "RedisInvalidationBroadcaster"]

log = logging.getLogger("kest.gate")

CHANNEL = "kest:invalidation"
MAX_STREAM = 10_000
MAX_KNOWN = 65_536
MAX_PUBLISHERS = 4_096
PAUSE = 0.2  # seconds between attempts to reach a Redis that does not answer
SUSPENSION = 5.0  # seconds between looks for messages that seem to be missing


class _Known(NamedTuple):
    """The last message for a target, and whether listeners were told."""

    text: str
    told: bool


@final
class RedisInvalidationBroadcaster:
    """Carries invalidations between the gates and listeners of all processes that name the same channel.

    Messages go through a Redis stream. A process that was disconnected, paused or forked goes on where it was. When the
    stream no longer holds what it missed, it reads the last message of every target instead; when Redis has lost its data,
    it gives back what it knows. What could not be published (`publish` says so) is published as soon as Redis answers again.
    Gates also learn what was invalidated in the 30 days before they existed; listeners only hear what comes.

    Without a key, messages are not signed: whoever can write to Redis can then end sessions, though allow nothing; a warning
    says so once. With a key, messages without a good signature are ignored and logged.

    Args:
        url: as redis-py takes it (redis://, rediss://, unix://).
        channel: a name; also that of the stream in Redis.
        key: a secret of 16 bytes or more that all processes share (HMAC-SHA-256); or several, of which the first signs.
        signer: instead, an identity with an Ed25519 key in this process.
        trusted: principals and their public keys, whose messages are believed; the signer's own always are.
        timeout: seconds for connecting and for each answer.
        connect_timeout: seconds that Redis has to answer now; None: it is asked when it is first needed.
        max_stream: about how many messages the stream holds.
        options: further arguments of `redis.Redis`.

    Raises:
        GateInputError: (a ValueError) the URL or the keys are none, or Redis does not answer.
    """

    def __init__(
        self,
        url: str,
        channel: str = CHANNEL,
        *,
        key: bytes | Sequence[bytes] | None = None,
        signer: Any = None,
        trusted: Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        max_stream: int = MAX_STREAM,
        **options: Any,
    ) -> None:
        if not isinstance(channel, str) or not channel:
            raise GateInputError("channel is the name of a Redis stream, and not empty")
        if isinstance(max_stream, bool) or not isinstance(max_stream, int) or max_stream < 1:
            raise ConfigurationError("max_stream is a positive int")
        self._name = channel
        self._sealer = Sealer(channel, key, signer, trusted)
        what = "RedisInvalidationBroadcaster"
        self._link = RedisLink(what, url, timeout=timeout, connect_timeout=connect_timeout, **options)
        self._channel = RedisChannel(self._link, channel, max_stream)
        self._lock = Lock()
        self._deliveries: tuple[Deliver, ...] = ()
        self._known: OrderedDict[InvalidationTarget, _Known] = OrderedDict()
        self._outbox: dict[InvalidationTarget, str] = {}
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._epoch: str | None = None
        self._after, self._count = "0-0", 0
        self._suspicious, self._suspended = False, 0.0
        self._worker: _Worker | None = None
        self.rejected = 0
        """Messages that were ignored because their signature was not good, or they were none."""
        self._sealer.warn_if_unsigned()
        _all.add(self)

    @classmethod
    def from_url(cls, url: str, channel: str = CHANNEL, **options: Any) -> RedisInvalidationBroadcaster:
        """The same as calling the class."""
        return cls(url, channel, **options)

    # --- saying ---

    def publish(self, target_kind: str, target_id: str, reason: str, evaluator: str = "manual") -> None:
        """Tell everybody: this process at once, the others through Redis.

        Raises:
            GateInputError: that is no target.
            GateStoreError: Redis did not take it. It stands in this process, and is published when Redis answers again,
                unless the process ends before that.
        """
        scope = checked_scope(target_kind, target_id, reason, evaluator)
        with self._lock:
            message = self._sealer.seal(scope)
            self._remember(scope.target, _Known(message, True))
        self._tell(scope, self._deliveries)
        try:
            self._send(scope.target, message)
        except GateStoreError as error:
            with self._lock:
                self._outbox[scope.target] = message
                while len(self._outbox) > MAX_PENDING:
                    self._outbox.pop(next(iter(self._outbox)))
                    log.error("more than %d invalidations wait for Redis; one was dropped", MAX_PENDING)
                self._work()
            raise GateStoreError(f"{error}; the invalidation stands here and goes out when Redis answers") from None

    async def publish_async(self, target_kind: str, target_id: str, reason: str, evaluator: str = "manual") -> None:
        """`publish` for callers on an event loop."""
        import asyncio

        await asyncio.to_thread(self.publish, target_kind, target_id, reason, evaluator)

    def _send(self, target: InvalidationTarget, message: str) -> None:
        self._channel.publish(f"{target.kind}:{key_digest(target.id.encode())}", message)

    # --- hearing ---

    @property
    def subscriber_count(self) -> int:
        """Listeners of this process; gates are not counted."""
        return sum(map(is_listener, self._deliveries))

    def attach(self, deliver: Deliver, /) -> Callable[[], None]:
        """Call ``deliver`` for each invalidation from now on; returns what ends that.

        What stands already is delivered first, to gates; it is what Redis says if it answers now, and else later.
        """
        listener = is_listener(deliver)
        with self._lock:
            first = self._epoch is None
            self._deliveries = (*self._deliveries, deliver)
            if listener:
                _listening.add(self)
        if first:
            # Where it goes on from is known before the first message can be missed.
            with contextlib.suppress(GateStoreError):
                self._look()
        elif not listener:
            for known in list(self._known.values()):
                with contextlib.suppress(ForgedMessageError):
                    self._tell(self._sealer.open(known.text).scope, (deliver,))
        with self._lock:
            self._work()

        reference = weakref.ref(self)  # what is delivered to holds this function, and would hold all the rest

        def detach() -> None:
            broadcaster = reference()
            if broadcaster is not None:
                broadcaster._detach(deliver)

        return detach

    def _detach(self, deliver: Deliver) -> None:
        with self._lock:
            self._deliveries = tuple(one for one in self._deliveries if one is not deliver)
            if not self.subscriber_count:
                _listening.discard(self)

    def subscribe(self) -> InvalidationSubscription:
        """The same for async code: ``async with broadcaster.subscribe() as events: async for scope in events: ...``"""
        from kest.gate.subscription import InvalidationSubscription

        return InvalidationSubscription(self)

    def _tell(self, scope: InvalidationScope, whom: tuple[Deliver, ...]) -> None:
        for deliver in whom:
            try:
                deliver(scope)
            except Exception:
                log.exception("an invalidation could not be delivered to one of its subscribers")

    def _remember(self, target: InvalidationTarget, known: _Known) -> None:
        """Under the lock."""
        self._known[target] = known
        self._known.move_to_end(target)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def _take(self, text: str, *, news: bool = False, old: bool = False) -> Message | None:
        """Deliver a message, unless it is known. None: it is not believed.

        Args:
            news: it comes through the stream, and so concerns listeners, even if gates have seen it where it stands.
            old: it stood there before there were subscribers: listeners are not told.
        """
        try:
            message = self._sealer.open(text)
        except ForgedMessageError as error:
            self.rejected += 1
            log.warning("an invalidation on %r was ignored: %s", self._name, error)
            return None
        with self._lock:
            known = self._known.get(message.scope.target)
            same = known is not None and known.text == text and (known.told or not news)
            self._remember(message.scope.target, _Known(text, not old or (same and known is not None and known.told)))
            whom = self._deliveries
        if not same and not self._sealer.is_own(message):
            self._tell(message.scope, tuple(one for one in whom if not is_listener(one)) if old else whom)
        return message

    # --- keeping up: on the worker's thread, and once when the first subscriber comes ---

    def _step(self, client: Any) -> None:
        """One round: what is due is sent, what is new is read. Waits for news up to `WAIT`."""
        for target, message in list(self._outbox.items()):
            self._send(target, message)
            with self._lock:
                if self._outbox.get(target) == message:
                    del self._outbox[target]
        if self._deliveries:
            self._look()
            for entry in self._channel.read(client, self._after):
                self._receive(entry)
            if self._suspicious and time.monotonic() >= self._suspended:
                log.info("messages are missing on %r; reading what stands", self._name)
                self._suspicious, self._suspended = False, time.monotonic() + SUSPENSION
                self._catch_up()

    def _look(self) -> None:
        """Notice that Redis has lost its data, or the stream what was not read yet."""
        state = self._channel.state()
        if self._epoch is None:
            self._catch_up(old=True)
            self._after, self._count = state.last, state.messages
        elif state.epoch != self._epoch:
            log.warning("Redis has lost the invalidations of %r; giving back those that are known here", self._name)
            missing = {target: known.text for target, known in list(self._known.items())}
            for text in self._channel.snapshot():
                message = self._take(text)
                if message is not None and missing.get(message.scope.target) == text:
                    del missing[message.scope.target]
            for target, text in missing.items():
                self._send(target, text)
            self._after, self._count = "0-0", 0
        self._epoch = state.epoch

    def _receive(self, entry: Entry) -> None:
        message = self._take(entry.message, news=True)
        self._after = entry.id
        if message is None:
            return
        last = self._numbers.get(message.publisher, message.number)
        # Those of one publisher can change places on their way, and numbers be forged: no reason to read everything
        # each time.
        self._suspicious |= message.number > last + 1 or entry.number != self._count + 1
        self._count = entry.number
        self._numbers[message.publisher] = max(last, message.number)
        self._numbers.move_to_end(message.publisher)
        while len(self._numbers) > MAX_PUBLISHERS:
            self._numbers.popitem(last=False)

    def _catch_up(self, *, old: bool = False) -> None:
        """Take the last message of every target."""
        for text in self._channel.snapshot():
            self._take(text, old=old)

    # --- the worker ---

    def _work(self) -> None:
        """See to it that somebody keeps up, in this process. Under the lock."""
        worker = self._worker
        if (self._deliveries or self._outbox) and (worker is None or not worker.alive):
            self._worker = _Worker(self)

    def _idle(self, worker: _Worker) -> bool:
        """Whether the worker may end; then it has ended as far as anybody is concerned."""
        with self._lock:
            idle = self._worker is not worker or not (self._deliveries or self._outbox)
            if idle and self._worker is worker:
                self._worker = None
            return idle

    def _forked(self) -> None:
        """In the child of a fork: the parent sends what waits; this process keeps up by itself."""
        self._outbox = {}
        self._worker = None
        with self._lock:
            self._work()

    def close(self) -> None:
        """Detach everybody, end the thread and close the connections. The broadcaster can be used again."""
        with self._lock:
            self._deliveries = ()
            self._outbox = {}
            _listening.discard(self)
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        self._link.close()

    async def aclose(self) -> None:
        """`close` for callers on an event loop."""
        import asyncio

        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"<RedisInvalidationBroadcaster channel={self._name!r}{'' if self._sealer.signed else ', unsigned'}>"


class _Worker:
    """The thread that keeps a broadcaster up to date as long as there is one."""

    def __init__(self, broadcaster: RedisInvalidationBroadcaster) -> None:
        self._broadcaster = weakref.ref(broadcaster)
        self._pid = os.getpid()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kest-redis-invalidations", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._pid == os.getpid() and not self._stopped.is_set()

    def stop(self) -> None:
        """Wait until it has ended, for as long as it can take."""
        self._stopped.set()
        if self._pid == os.getpid() and self._thread is not threading.current_thread():
            self._thread.join(10)

    def _run(self) -> None:
        client: Any = None
        reachable = True
        try:
            while not self._stopped.is_set():
                broadcaster = self._broadcaster()
                if broadcaster is None or broadcaster._idle(self):
                    return
                try:
                    if client is None:
                        client = broadcaster._link.waiting_client(WAIT)
                    broadcaster._step(client)
                    if not reachable:
                        log.info("Redis answers again: invalidations arrive")
                    reachable = True
                except GateStoreError as error:
                    if reachable:
                        log.warning("invalidations do not arrive at the moment: %s", error)
                    reachable = False
                except Exception:
                    log.exception("invalidations do not arrive at the moment")
                    reachable = False
                del broadcaster
                if not reachable:
                    self._stopped.wait(PAUSE)
        finally:
            self._stopped.set()
            if client is not None:
                client.close()


_all: weakref.WeakSet[RedisInvalidationBroadcaster] = weakref.WeakSet()
_listening: set[RedisInvalidationBroadcaster] = set()
"""Those with listeners: they stay until the listeners are aborted, whoever else has forgotten them."""


def _after_fork() -> None:
    for broadcaster in list(_all):
        broadcaster._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
