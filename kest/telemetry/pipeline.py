"""Spans on their way out: a bounded queue, a thread that empties it, and counts of what became of them.

OpenTelemetry's own batch processor drops what does not fit, and says how much to nobody. Here a sink on this machine (file,
database) slows its callers down instead; a sink elsewhere may lose spans, which are counted and logged.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kest.locks import Lock

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Limits", "LostError", "Pipeline", "Sink", "UnavailableError"]

log = logging.getLogger("kest.telemetry")

CALLERS_BATCH = 64
"""How many spans a caller writes itself when the queue of a local sink is full: about two milliseconds."""
CALLERS_PATIENCE = 1.0
"""Seconds for which such a caller waits for the writer before its span is dropped."""
SAY_AGAIN = 60.0
"""Seconds between two lines in the log about a sink that keeps failing."""


class LostError(Exception):
    """A sink has lost a batch, for good. The message is for the log."""


class UnavailableError(Exception):
    """A sink cannot take spans now, and may later: the batch is kept. The message is for the log."""


class Sink(Protocol):
    """Takes batches of finished spans, one at a time."""

    local: bool
    """Whether it writes on this machine, quickly: then callers wait rather than lose a span."""

    def export(self, spans: Sequence[ReadableSpan]) -> None:
        """Write them, all or none. Opens what it needs. Any exception but `UnavailableError` loses the batch."""

    def release(self) -> None:
        """Close what a fork must not share; the next export opens it again."""

    def forget(self) -> None:
        """In the child of a fork: what is still open belongs to the parent."""

    def close(self) -> None:
        """No more exports, unless it is opened again by one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a pipeline, and the seconds after which it empties a queue that is not full; 0: nothing waits at all."""

    queue: int = 2048
    batch: int = 512
    delay: float = 5.0


class Pipeline:
    """The queue and the thread of one sink. Survives forks: the child begins with an empty queue and no thread."""

    def __init__(self, sink: Sink, name: str, limits: Limits) -> None:
        self.sink = sink
        self.name = name
        self._limits = limits
        self._counting = Lock()
        self._closed = False
        self._zero()
        _pipelines.add(self)

    def _zero(self) -> None:
        self._spans: deque[ReadableSpan] = deque()
        self._exporting = threading.Lock()  # with a timeout, and held over a fork: more than kest.locks.Lock can do
        self._wake = threading.Event()
        self._flushes: deque[threading.Event] = deque()
        self._in_flight = 0
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._failing_since: float | None = None
        self._said = 0.0
        self.exported = self.failed = self.dropped = 0

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def capacity(self) -> int:
        """How many spans can wait."""
        return self._limits.queue

    def counts(self) -> dict[str, int]:
        """What became of the spans of this process."""
        return {"exported": self.exported, "failed": self.failed, "dropped": self.dropped, "queued": len(self._spans)}

    # --- the caller's side ---

    def add(self, span: ReadableSpan) -> None:
        """Take a span over. Never raises."""
        if self._closed:
            return
        spans = self._spans
        if not self._limits.delay:
            spans.append(span)
            self.flush(CALLERS_PATIENCE)
            return
        if len(spans) >= self._limits.queue and not self._make_room():
            self._count(dropped=1)
            self._say("its queue is full")
            return
        spans.append(span)
        if self._thread is None:
            self._start()
        if len(spans) >= self._limits.batch and self._failing_since is None and not self._wake.is_set():
            self._wake.set()

    def _make_room(self) -> bool:
        if not self.sink.local:
            return False
        while len(self._spans) >= self._limits.queue:
            if self._failing_since is not None or not self._exporting.acquire(timeout=CALLERS_PATIENCE):
                return False
            try:
                if len(self._spans) >= self._limits.queue:
                    self._export(CALLERS_BATCH)
            finally:
                self._exporting.release()
        return True

    def _start(self) -> None:
        with self._counting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name=f"kest-telemetry-{self.name}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending; what is queued goes out when it is flushed
                return
            self._thread = thread
        # Children of multiprocessing end without atexit.
        if (util := sys.modules.get("multiprocessing.util")) is not None:
            util.Finalize(None, _at_exit, args=(weakref.ref(self),), exitpriority=10)

    # --- the thread's side ---

    def _run(self) -> None:
        wake = self._wake
        while not self._stopping:
            wake.wait(self._limits.delay)
            wake.clear()
            waiting = [self._flushes.popleft() for _ in range(len(self._flushes))]
            with self._exporting:
                self._drain()
            for done in waiting:
                done.set()

    def _drain(self) -> None:
        while self._spans and self._export(self._limits.batch):
            pass

    def _export(self, most: int) -> bool:
        """One batch; False when the sink is not available. The caller holds ``_exporting``."""
        spans = self._spans
        batch = [spans.popleft() for _ in range(min(most, len(spans)))]
        self._in_flight = len(batch)
        try:
            with _Uninstrumented():
                self.sink.export(batch)
        except UnavailableError as error:
            spans.extendleft(reversed(batch))
            self._failing_since = self._failing_since or time.monotonic()
            self._say(str(error))
            return False
        except Exception as error:
            self._count(failed=len(batch))
            self._failing_since = self._failing_since or time.monotonic()
            self._say(str(error) if isinstance(error, LostError) else f"it raised {type(error).__name__}")
            return True
        else:
            self._count(exported=len(batch))
        finally:
            self._in_flight = 0
        if self._failing_since is not None:
            self._failing_since = None
            self._said = 0.0
            log.warning("telemetry to %s works again; lost so far: %d spans", self.name, self.failed + self.dropped)
        return True

    def _count(self, exported: int = 0, failed: int = 0, dropped: int = 0) -> None:
        with self._counting:
            self.exported += exported
            self.failed += failed
            self.dropped += dropped

    def _say(self, why: str) -> None:
        now = time.monotonic()
        with self._counting:
            if self._said and now - self._said < SAY_AGAIN:
                return
            self._said = now
        log.error(
            "telemetry to %s fails: %s. Calls go on. Lost so far: %d spans; waiting: %d",
            self.name, why, self.failed + self.dropped, len(self._spans),
        )  # fmt: skip

    # --- the end ---

    def flush(self, timeout: float) -> bool:
        """Write all that waits; whether nothing is left of it. Takes no longer than ``timeout`` seconds with a remote sink,
        whose exporter may try for a minute; a local one is written to here."""
        thread = self._thread
        if (
            not self.sink.local
            and thread is not None
            and thread.is_alive()
            and thread is not threading.current_thread()
        ):
            done = threading.Event()
            self._flushes.append(done)
            self._wake.set()
            return done.wait(timeout) and not self._spans
        if not self._exporting.acquire(timeout=timeout):
            return False
        try:
            self._drain()
        finally:
            self._exporting.release()
        return not self._spans

    def close(self, timeout: float) -> None:
        """Flush, and end. What could not be written is counted as dropped. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.flush(timeout)
        self._stopping = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            if self._in_flight:
                self.sink.close()  # an exporter that waits to try again stops doing so
            thread.join(CALLERS_PATIENCE)
        if lost := len(self._spans) + self._in_flight:
            self._count(dropped=lost)
            self._spans.clear()
            log.error("telemetry to %s ended with %d spans lost", self.name, self.failed + self.dropped)
        self.sink.close()

    # --- forks ---

    def before_fork(self) -> bool:
        """Nothing of a local sink is open while the process forks. Whether the lock is held."""
        if not self.sink.local or not self._exporting.acquire(timeout=CALLERS_PATIENCE):
            return False
        self.sink.release()
        return True

    def after_fork_in_parent(self) -> None:
        self._exporting.release()

    def after_fork_in_child(self) -> None:
        self._zero()  # what waits is the parent's to write
        self.sink.forget()


class _Uninstrumented:
    """What an exporter sends is not traced in turn: by the instrumentation of its HTTP client, say."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        from opentelemetry import context

        key: Any = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
        self._token = context.attach(context.set_value(key, True))

    def __exit__(self, *_: object) -> None:
        from opentelemetry import context

        context.detach(self._token)


def _at_exit(pipeline: weakref.ref[Pipeline]) -> None:
    if (found := pipeline()) is not None:
        found.flush(CALLERS_PATIENCE)


_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()
_forking = threading.local()


def _before_fork() -> None:
    _forking.held = [pipeline for pipeline in list(_pipelines) if pipeline.before_fork()]


def _in_parent() -> None:
    for pipeline in _forking.__dict__.pop("held", ()):
        pipeline.after_fork_in_parent()


def _in_child() -> None:
    _forking.__dict__.pop("held", None)
    for pipeline in list(_pipelines):
        pipeline.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
