"""Rego by rego-cpp (regopy 1.5): the backend for modules that Regorus does not load.

What it does (measured), and what is made of it here:

- An interpreter shared by threads mixes their inputs: regopy makes one C call per value with the GIL released between
  them, and of eight threads on one interpreter one decision in twenty was wrong. Here an interpreter is used by one
  thread at a time, taken from a bounded pool; separate interpreters in parallel are sound.
- ``query`` compiles its text every time (670 µs); a bundle compiled once answers in 40 µs, plus its input. ``build``
  must
  run once only on an interpreter: built again with other entry points, undefined rules answer ``true``.
- ``regopy.Input`` passes strings unescaped and cut at NUL, and integers modulo 2^64. JSON text is read correctly, so
  input goes in as JSON, through the C function for it, which regopy itself does not wrap.
- Strings are compared by their escaped spelling; see `kest.core.engine.rego_source`.
- A variable that is never bound is undefined, where OPA refuses the module: ``allow if not denyed.x`` (a misspelt name)
  then always allows. Where lakera-regorus is installed it checks the modules first; in any case
  `kest.core.engine.rego_check` looks for names that nothing binds. ``opa check --strict`` finds more.
- Values of different types are incomparable (``"80" > 70`` is undefined; OPA orders types), so compare what you know
  to be numbers. ``print`` in a policy writes to stdout.
- An interpreter takes about 0.7 MB and 2 ms to build.
- Released around a call of this length, the GIL comes back after a switch interval (5 ms) when another thread computes
  in Python; held, the second core stays idle. So it is released, but held for a while after it came back late twice.
"""

from __future__ import annotations

import collections
import ctypes
import json
import os
import re
import threading
import time
from importlib import import_module
from typing import Any

from kest.core.engine.rego_check import unbound_variable
from kest.core.engine.rego_regorus import UNDEFINED, unsafe_variable
from kest.core.engine.rego_source import entrypoint, reason_rules, with_plain_strings
from kest.errors import ConfigurationError, MissingExtraError, PolicyEngineError

__all__ = ["RegoCppBackend"]

_CODE_OK = 0


class _Library:
    """The few functions of rego-cpp's C API that a decision needs, each with the GIL held and two also without."""

    def __init__(self) -> None:
        rego_shared: Any = import_module("regopy.rego_shared")
        held = ctypes.PyDLL(rego_shared.rego._name)
        free = ctypes.CDLL(rego_shared.rego._name)
        pointer, text, u32 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32

        def function(library: Any, name: str, result: Any, *arguments: Any) -> Any:
            call = getattr(library, name)
            call.restype, call.argtypes = result, arguments
            return call

        self.set_input = {lib: function(lib, "regoSetInputJSON", u32, pointer, text) for lib in (held, free)}
        self.query = {
            lib: function(lib, "regoBundleQueryEntrypoint", pointer, pointer, pointer, text) for lib in (held, free)
        }
        self.output_ok = function(held, "regoOutputOk", ctypes.c_bool, pointer)
        self.output_size = function(held, "regoOutputJSONSize", u32, pointer)
        self.output_json = function(held, "regoOutputJSON", u32, pointer, text, u32)
        self.free_output = function(held, "regoFreeOutput", None, pointer)
        self.held, self.free = held, free


class _LockPolicy:
    """Whether to release the GIL around a call (see the module's docstring). Races between threads only cost speed.

    Normally it is released. Once it came back late twice in a row it is held, and one call at a time probes, at growing
    intervals, whether releasing it has become cheap again.
    """

    LATE = 0.004  # seconds beyond its own CPU time after which a call must have waited for the GIL
    SLOW = 0.001  # seconds of CPU time above which a call always releases it
    SMALL = 4096  # bytes of input above which a call always releases it
    PAUSES = (0.025, 0.2)  # shortest and longest time between probes, seconds
    PROBES = 4  # probes in a row that must come back in time

    def __init__(self) -> None:
        self._late = 0
        self._in_time = 0
        self._holding = False
        self._next_probe = 0.0
        self._pause = self.PAUSES[0]
        self._slow = False

    def release(self, size: int) -> bool:
        if not self._holding or self._slow or size > self.SMALL:
            return True
        now = time.monotonic()
        if now < self._next_probe:
            return False
        self._next_probe = now + self._pause  # this call probes; others go on holding
        return True

    def record(self, size: int, released: bool, wall: float, cpu: float) -> None:
        if size <= self.SMALL:
            self._slow = cpu > self.SLOW
        if not released:
            return
        if wall - cpu >= self.LATE:
            self._late += 1
            self._in_time = 0
            if self._holding:
                self._pause = min(self._pause * 2, self.PAUSES[1])
            elif self._late >= 2:
                self._holding = True
                self._pause = self.PAUSES[0]
                self._next_probe = time.monotonic() + self._pause
            return
        self._late = 0
        if self._holding:
            self._in_time += 1
            self._pause = self.PAUSES[0]
            if self._in_time >= self.PROBES:
                self._holding, self._in_time = False, 0


class RegoCppBackend:
    """Compiled modules and the entry points that may be asked of them; see `RegorusBackend` for the
    arguments."""

    name = "regopy"

    def __init__(self, modules: list[tuple[str, str, tuple[str, ...]]], rule: str) -> None:
        try:
            regopy: Any = import_module("regopy")  # it has no type information
            self._library = _Library()
        except ImportError as error:
            raise MissingExtraError(
                'RegoLocalEngine(backend="regopy") needs regopy: pip install "kest[rego]"'
            ) from error
        except AttributeError as error:
            raise MissingExtraError('this regopy is too old: pip install "regopy>=1.5"') from error
        self._regopy = regopy
        unsafe = unsafe_variable(modules, rule)
        if unsafe is not None:
            raise unsafe
        for name, source, _ in modules:
            unbound = unbound_variable(source)
            if unbound is not None:
                variable, line, column = unbound
                raise ConfigurationError(
                    f"Rego module {name!r} does not load: line {line}, column {column}: "
                    f"nothing gives variable {variable!r} a value (it is unsafe)"
                )
        self._sources = [(name, with_plain_strings(source)) for name, source, _ in modules]
        self._rule = rule
        self._entrypoints = {
            (package, name): entrypoint(package, name)
            for _, source, package in modules
            for name in (rule, *reason_rules(source))
        }
        for package, _ in self._entrypoints:
            if any("/" in segment for segment in package):
                raise ConfigurationError(
                    f"package {'.'.join(package)} has a slash in a segment, which regopy cannot name"
                )
        self._encoded = {question: text.encode() for question, text in self._entrypoints.items()}
        self._limit = min(8, max(2, os.cpu_count() or 2))
        self._gil = _LockPolicy()
        self._reset()
        first = self._build()
        self._check(first)
        self._idle.append(first)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: collections.deque[tuple[Any, Any]] = collections.deque()
        self._slots = threading.BoundedSemaphore(self._limit)

    def ask(self, package: tuple[str, ...], document: str, rule: str) -> object:
        """The value of ``rule`` for ``document`` (JSON text); `UNDEFINED` if it has none."""
        if self._pid != os.getpid():
            self._reset()  # the parent's interpreters may have been in use when it forked
        data = document.encode()
        idle, slots = self._idle, self._slots
        with slots:
            try:
                interpreter = idle.pop()
            except IndexError:
                interpreter = self._build()
            text = self._run(interpreter, self._encoded[package, rule], data)
            idle.append(interpreter)  # not after an exception: its state is then unknown
        if text == "undefined":
            return UNDEFINED
        try:
            answer = json.loads(text)
            return answer["expressions"][0]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            # An error report instead of a result. It may quote the input.
            raise PolicyEngineError(
                f"Rego evaluation of {self._entrypoints[package, rule]} failed in rego-cpp"
            ) from None

    def _run(self, interpreter: tuple[Any, Any], point: bytes, data: bytes) -> str:
        library = self._library
        release = self._gil.release(len(data))
        how = library.free if release else library.held
        wall, cpu = time.monotonic(), time.thread_time()
        if library.set_input[how](interpreter[0]._impl, data) != _CODE_OK:
            raise PolicyEngineError("rego-cpp could not read the policy input")
        output = library.query[how](interpreter[0]._impl, interpreter[1]._impl, point)
        self._gil.record(len(data), release, time.monotonic() - wall, time.thread_time() - cpu)
        if not output:
            raise PolicyEngineError(f"rego-cpp gave no answer for {point.decode()}")
        try:
            if not library.output_ok(output):
                raise PolicyEngineError(f"Rego evaluation of {point.decode()} failed in rego-cpp")
            size = library.output_size(output)
            buffer = ctypes.create_string_buffer(size)
            if library.output_json(output, buffer, size) != _CODE_OK:
                raise PolicyEngineError(f"rego-cpp gave no answer for {point.decode()}")
            return buffer.value.decode()
        finally:
            library.free_output(output)

    def _build(self) -> tuple[Any, Any]:
        interpreter = self._regopy.Interpreter()
        interpreter.log_level = self._regopy.LogLevel.NONE  # it prints errors to stdout otherwise
        for name, source in self._sources:
            try:
                interpreter.add_module(name, source)
            except self._regopy.RegoError as error:
                raise ConfigurationError(f"Rego module {name!r} does not load: {_message(error, source)}") from None
        try:
            bundle = interpreter.build(None, list(self._entrypoints.values()))
            if bundle.ok():
                return interpreter, bundle
            problem = "it does not compile"
        except self._regopy.RegoError as error:
            problem = _message(error, "")
        names = ", ".join(repr(name) for name, _ in self._sources)
        raise ConfigurationError(f"Rego modules {names} do not compile together: {problem}") from None

    def _check(self, interpreter: tuple[Any, Any]) -> None:
        """rego-cpp notices an unknown function or a recursion only when it evaluates: so evaluate each rule once."""
        for (package, rule), point in self._encoded.items():
            if rule != self._rule:
                continue
            try:
                answer = self._run(interpreter, point, b"{}")
            except PolicyEngineError:
                continue  # what the policy makes of an empty input, and no fault of its text
            fault = _FAULT.search(answer)
            if fault is not None:
                raise ConfigurationError(f"Rego package {'.'.join(package)} does not compile: {fault.group('text')}")

    def close(self) -> None:
        """Free the idle interpreters; those in use are freed when their decision is made and the backend is gone."""
        self._idle.clear()


_COMPLAINT = re.compile(r"\(errormsg [0-9]+:(?P<text>[^)]*)\)")
_FAULT = re.compile(r"\(errormsg [0-9]+:(?P<text>(?:Function not found|Recursion detected)[^)]*)\)")


def _message(error: Exception, source: str) -> str:
    """rego-cpp's first complaint, with line and column computed from its byte offset where it gives one."""
    text = str(error)
    complaint = _COMPLAINT.search(text)
    words = complaint.group("text") if complaint else "it does not parse"
    at = re.search(r"\|([0-9]+)\|[0-9]+", text)
    if at is None or not source:
        return words
    before = source.encode()[: int(at.group(1))].decode(errors="replace")
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}: {words}"
