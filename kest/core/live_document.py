"""A document that may change while the process runs: a file that is read again, or a URL that is fetched again.

Callers only ever get what is there already. A URL is fetched once at construction; from the first use on, a daemon thread
fetches it again, and ends when its owner is closed or collected. In the child of a fork, which has no such thread, the next
use starts one. What cannot be fetched or read leaves the last good value in force until it has outlived its lifetime.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypedDict, TypeVar

from kest.core.fetch import Fetched, FetchError, check_url, fetch, is_url, shown
from kest.errors import ConfigurationError, KestError, KeyFormatError
from kest.locks import Lock

__all__ = ["LIFETIME", "MAX_BYTES", "REFRESH", "TIMEOUT", "LiveDocument", "LiveSettings"]

log = logging.getLogger("kest")

T = TypeVar("T")

REFRESH = 300.0
LIFETIME = 86400.0
TIMEOUT = 5.0
MIN_INTERVAL = 10.0
MAX_BYTES = 4 * 1024 * 1024
STAT_INTERVAL = 1.0


class LiveSettings(TypedDict, total=False):
    """The settings of a `LiveDocument`, as those pass them on who make one."""

    refresh: float
    lifetime: float
    timeout: float
    min_interval: float
    allow_http: bool


Parser = Callable[[bytes], tuple[T, float | None]]


class LiveDocument(Generic[T]):
    """The newest good value of a document.

    Args:
        place: an https URL, or the path of a file. A file is looked at again (modification time, size, inode) at most once a
            second, when it is used; a broken new file leaves the old value in force, without a limit of time.
        parse: makes the value of the bytes, and says after how many seconds its author wants it read again (None: whenever).
        what: what messages call it, such as ``keys``.
        refresh: seconds between fetches at most. Cache-Control: max-age and the author's wish make it less, never more: what
            may be kept longer may also be asked for sooner, and revocations should not wait.
        lifetime: seconds for which a value that cannot be refreshed is believed.
        timeout: seconds for one fetch.
        min_interval: seconds between two fetches at least, whoever asks for them.
        allow_http: take http URLs of other machines.

    Raises:
        ConfigurationError: it cannot be read or fetched now, or the settings are impossible.
        KestError: from `parse`, for a document that is not what it should be.
    """

    def __init__(
        self,
        place: str | Path,
        parse: Parser[T],
        *,
        what: str,
        refresh: float = REFRESH,
        lifetime: float = LIFETIME,
        timeout: float = TIMEOUT,
        min_interval: float = MIN_INTERVAL,
        allow_http: bool = False,
    ) -> None:
        if not 0 < refresh <= lifetime < math.inf or not 0 < timeout < math.inf or not 0 <= min_interval < math.inf:
            raise ConfigurationError(
                f"{what}: refresh, lifetime and timeout are seconds above 0, min_interval is not below 0, and lifetime not "
                "below refresh"
            )
        self._place, self._parse, self._what = str(place), parse, what
        self._remote = isinstance(place, str) and is_url(place)
        if self._remote:
            check_url(self._place, what, allow_http=allow_http)
        self.name = shown(self._place) if self._remote else self._place
        self._refresh, self._lifetime, self._timeout, self._min = refresh, lifetime, timeout, min(min_interval, refresh)
        self._lock = Lock()
        self._closed = self._failing = self._said_expired = False
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._pid = 0
        self._failures = 0
        self._stamp: tuple[int, int, int] | None = None
        self._value: T
        self._good = self._tried = self._due = 0.0
        self._load()

    # --- for callers ---

    def current(self) -> T | None:
        """The value, or None when it was not to be refreshed for its lifetime. Never waits for a network."""
        now = time.monotonic()
        if not self._remote:
            if now - self._tried >= STAT_INTERVAL:
                self._reread()
            return self._value
        if self._pid != os.getpid() and not self._closed:
            self._start()
        if now - self._good <= self._lifetime:
            return self._value
        if not self._said_expired:
            self._said_expired = True
            log.error("the %s at %s could not be fetched for %g s and are no longer believed", self._what, self.name,
                      self._lifetime)  # fmt: skip
        return None

    def refresh_soon(self) -> None:
        """Ask for a fetch in the background, for something may be missing; it happens once in ``min_interval`` at most."""
        if not self._remote:
            return
        with self._lock:
            self._due = min(self._due, max(time.monotonic(), self._tried + self._min))
        self._wake.set()

    def close(self) -> None:
        """Fetch no more. Waits for a fetch that is under way, which its timeout bounds."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and self._pid == os.getpid() and thread is not threading.current_thread():
            thread.join()

    # --- reading ---

    def _load(self) -> None:
        """Read now. The new value counts only when all of it is good."""
        self._tried = time.monotonic()
        if self._remote:
            try:
                document = fetch(self._place, timeout=self._timeout, max_bytes=MAX_BYTES)
            except FetchError as error:
                raise ConfigurationError(
                    f"cannot fetch the {self._what} at {self.name}: {error}. Check the URL, and that its server can be "
                    "reached from here"
                ) from None
            stamp = None
        else:
            document, stamp = self._read_file()
        try:
            value, hint = self._parse(document.body)
        except KestError as error:
            raise type(error)(f"{self.name}: {error}") from None
        wishes = [wish for wish in (document.max_age, hint) if wish is not None]
        now = time.monotonic()
        with self._lock:
            self._value, self._good, self._stamp = value, now, stamp
            self._due = now + min(self._refresh, max(self._min, min(wishes, default=self._refresh)))

    def _read_file(self) -> tuple[Fetched, tuple[int, int, int]]:
        try:
            with open(self._place, "rb") as file:
                status = os.fstat(file.fileno())
                body = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(f"cannot read the {self._what} in {self.name}: {error.strerror}") from None
        if len(body) > MAX_BYTES:
            raise KeyFormatError(f"{self.name}: more than {MAX_BYTES} bytes")
        return Fetched(body), _stamp(status)

    def _reread(self) -> None:
        with self._lock:
            if time.monotonic() - self._tried < STAT_INTERVAL:
                return
            self._tried = time.monotonic()
            try:
                stamp = _stamp(os.stat(self._place))
            except OSError:
                stamp = (0, 0, 0)
            if stamp == self._stamp:
                return
            self._attempt()
            if self._failing:
                self._stamp = stamp  # this state of the file was tried

    def _attempt(self) -> None:
        """`_load`, with failures logged: once for each outage."""
        try:
            self._load()
        except Exception as error:
            self._failures += 1
            if not self._failing:
                self._failing = True
                log.warning("the last good %s stay in force: %s", self._what, error)
        else:
            self._failures = 0
            if self._failing:
                log.info("the %s at %s are up to date again", self._what, self.name)
            self._failing = self._said_expired = False

    # --- the thread ---

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid() or self._closed:
                return
            wake = threading.Event()
            me = weakref.ref(self, lambda _: wake.set())
            thread = threading.Thread(target=_refresh, args=(me, wake), name="kest-refresh", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads, or the interpreter ends; the next use tries again
                log.warning("the %s at %s cannot be refreshed: %s", self._what, self.name, error)
                return
            self._thread, self._wake, self._pid = thread, wake, os.getpid()

    def _turn(self) -> float | None:
        """Fetch if it is time to; seconds until the next time, None when there is none."""
        if self._closed:
            return None
        left = self._due - time.monotonic()
        if left > 0:
            return left
        self._attempt()
        if self._failing:
            pause = min(self._refresh, max(self._min, 1.0) * 2.0 ** min(self._failures - 1, 10))
            with self._lock:
                self._due = time.monotonic() + pause
        return max(0.0, self._due - time.monotonic())


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _refresh(owner: weakref.ref[LiveDocument[T]], wake: threading.Event) -> None:
    while True:
        document = owner()
        pause = None if document is None else document._turn()
        if pause is None:
            return
        del document  # nothing here keeps the owner alive while it waits
        wake.wait(min(pause, threading.TIMEOUT_MAX))
        wake.clear()
