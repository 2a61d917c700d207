"""Rego by Regorus (lakera-regorus 0.1): the faster backend, about 10 µs a decision plus the parsing of its input.

What it does (measured), and what is made of it here:

- An ``Engine`` belongs to the thread that created it. Any use from another thread is a Rust panic, which arrives as a
  BaseException; even being garbage-collected by another thread is refused (the memory leaks and a message goes to
  stderr). So each thread has its own engines, and they are dropped by that thread only: when it ends, or when it next
  builds one and finds that a Rego engine has been closed meanwhile.
- It holds the GIL throughout, so eight threads decide as many times a second as one, no fewer.
- Set from Python objects, ``True`` becomes ``1.0``: input goes in as JSON text only.
- ``sprintf`` drops the space after a verb: modules that could notice are refused, and go to the other backend.
- An integer beyond 64 bits fails to load in some positions; the decision fails and denies.
- Errors carry a backtrace and may quote values; only their position is kept.
- Built-ins are strict: ``1/0`` or ``to_number("x")`` fails the decision (deny) where OPA calls the expression
  undefined.
- It finds unsafe variables when it loads a module, as OPA does; rego-cpp does not, see `unsafe_variable`.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import json
import re
import threading
from importlib import import_module
from typing import Any

from kest.core.engine.rego_source import for_regorus, misformatted, query_path, reason_rules
from kest.errors import ConfigurationError, MissingExtraError, PolicyEngineError

__all__ = ["UNDEFINED", "RegorusBackend", "is_unsafe", "unsafe_variable"]

_tokens = itertools.count(1)
_live: set[int] = set()
"""Tokens of the backends that still exist."""


class _ThreadEngines:
    """The engines of one thread, by backend token."""

    def __init__(self) -> None:
        self.by_token: dict[int, Any] = {}

    def prune(self) -> None:
        for token in [token for token in self.by_token if token not in _live]:
            del self.by_token[token]


_every_thread: set[_ThreadEngines] = set()
"""Keeps the engines of all threads alive, so that only `_ThreadEnd` can drop them, and only in their own thread.
After a fork the child clears the other threads' locals from the surviving one: there this set makes it a silent
leak."""


class _ThreadEnd:
    """Lives in the thread's locals, which the ending thread itself clears."""

    def __init__(self, engines: _ThreadEngines) -> None:
        self.engines = engines
        self.thread = threading.get_ident()

    def __del__(self, get_ident: Any = threading.get_ident, every: set[_ThreadEngines] = _every_thread) -> None:
        if get_ident() == self.thread:
            every.discard(self.engines)


class _Locals(threading.local):
    engines: _ThreadEngines | None = None
    end: _ThreadEnd | None = None


_locals = _Locals()


@atexit.register
def _keep_foreign_engines() -> None:
    """At exit the main thread clears everything; the engines of daemon threads must outlive that."""
    for engines in tuple(_every_thread):
        if engines is not _locals.engines:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(engines))


class RegorusBackend:
    """Compiled modules and the queries that may be asked of them.

    Args:
        modules: (name, source, package) of each module.
        rule: the rule that is queried in each package.
        only_to_check: the modules are analysed and never asked.

    Raises:
        ConfigurationError: a module does not load; names it, with line and column.
        MissingExtraError: lakera-regorus is not installed.
    """

    name = "regorus"

    def __init__(
        self, modules: list[tuple[str, str, tuple[str, ...]]], rule: str, *, only_to_check: bool = False
    ) -> None:
        try:
            engine_type: Any = import_module("lakera_regorus").Engine  # it has no type information
        except ImportError as error:
            raise MissingExtraError(
                'RegoLocalEngine(backend="regorus") needs lakera-regorus: pip install "kest[rego]"'
            ) from error
        for name, source, _ in modules:
            if not only_to_check and (line := misformatted(source)):
                raise ConfigurationError(
                    f"Rego module {name!r} does not load: line {line}: Regorus 0.1 drops the space after a verb of "
                    'sprintf, and only literal formats can be looked at; use backend="regopy", or concat()'
                )
        self._new_engine = engine_type
        self._sources = [(name, for_regorus(name, source)) for name, source, _ in modules]
        self._queries = {
            # As text, because Regorus cannot make a Python set of objects.
            (package, name): query_path(package, name) if name == rule else f"json.marshal({query_path(package, name)})"
            for _, source, package in modules
            for name in (rule, *reason_rules(source))
        }
        self._rule = rule
        self._token = next(_tokens)
        _live.add(self._token)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def ask(self, package: tuple[str, ...], document: str, rule: str) -> object:
        """The value of ``rule`` for ``document`` (JSON text); `UNDEFINED` if it has none."""
        engines = _locals.engines
        engine = None if engines is None else engines.by_token.get(self._token)
        if engine is None:
            engine = self._engine_of_this_thread()
        query = self._queries[package, rule]
        try:
            engine.set_input_json(document)
            results = engine.eval_query(query)["result"]
            if not results:
                return UNDEFINED
            value: Any = results[0]["expressions"][0]["value"]
            return value if rule == self._rule else json.loads(value)
        except Exception as error:
            raise PolicyEngineError(f"Rego evaluation of {query} failed{_position(error)}") from None
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            engines = _locals.engines
            if engines is not None:  # a panic may have left it in any state
                engines.by_token.pop(self._token, None)
            raise PolicyEngineError(f"Rego evaluation of {query} panicked in Regorus") from None
        finally:
            engine = None  # not to be kept alive by a traceback that another thread drops

    def close(self) -> None:
        """Let every thread drop its engine of this backend."""
        _live.discard(self._token)
        if _locals.engines is not None:
            _locals.engines.prune()

    def __del__(self, live: set[int] = _live) -> None:
        live.discard(getattr(self, "_token", 0))

    def _engine_of_this_thread(self) -> Any:
        engines = _locals.engines
        if engines is None:
            engines = _locals.engines = _ThreadEngines()
            _every_thread.add(engines)
            _locals.end = _ThreadEnd(engines)
        _live.add(self._token)  # used again after close()
        engines.prune()
        engine = engines.by_token[self._token] = self._build()
        return engine

    def _build(self) -> Any:
        engine: Any = self._new_engine()
        for name, source in self._sources:
            try:
                engine.add_policy(name, source)
            except Exception as error:
                engine = None  # as in ask()
                raise ConfigurationError(f"Rego module {name!r} does not load: {_message(error)}") from None
        return engine

    def _check(self) -> None:
        """Load everything once, so that a bad module is an error at construction: syntax, unsafe variables,
        functions."""
        engine = self._engine_of_this_thread()
        try:
            engine.set_input_json("{}")
            engine.eval_query("true")  # makes Regorus analyse every module
        except Exception as error:
            engine = None
            raise ConfigurationError(f"Rego {_module(error)}does not load: {_message(error)}") from None
        for (_, rule), query in self._queries.items():
            if rule != self._rule:
                continue
            try:
                engine.eval_query(query)
            except Exception as error:
                message = _message(error)
                if "could not find function" in message or "recursion detected" in message:
                    engine = None
                    raise ConfigurationError(f"Rego {_module(error)}does not load: {message}") from None
                # Anything else is what the policy makes of an empty input, and no fault of its text.


def unsafe_variable(modules: list[tuple[str, str, tuple[str, ...]]], rule: str) -> ConfigurationError | None:
    """The error for a variable that is never bound (a misspelt name), which OPA and Regorus refuse to load.

    None if there is none, or if Regorus cannot tell: it is not installed, or complains of something else.
    """
    try:
        RegorusBackend(modules, rule, only_to_check=True).close()
    except MissingExtraError:
        return None
    except ConfigurationError as error:
        return error if is_unsafe(error) else None
    return None


def is_unsafe(error: ConfigurationError) -> bool:
    """Whether ``error`` is about a variable that is never bound."""
    return any(sign in str(error) for sign in ("unsafe", "undefined variable", "before definition"))


class _Undefined:
    def __repr__(self) -> str:
        return "undefined"


UNDEFINED = _Undefined()
"""The rule has no value for this input."""

_AT = re.compile(r"--> (?P<module>.*):(?P<line>[0-9]+):(?P<column>[0-9]+)\n")
_ERROR = re.compile(r"error: (?P<text>[^\n]*)")


def _module(error: Exception) -> str:
    at = _AT.search(str(error))
    return f"module {at.group('module')!r} " if at else ""


def _position(error: Exception) -> str:
    at = _AT.search(str(error))
    return f" in module {at.group('module')!r} at line {at.group('line')}, column {at.group('column')}" if at else ""


def _message(error: Exception) -> str:
    """Regorus's complaint about the text of a policy, with its position, without source excerpt and backtrace."""
    text = str(error)
    at, complaint = _AT.search(text), _ERROR.search(text)
    words = complaint.group("text") if complaint else text.split("\n\nStack backtrace", 1)[0].strip()
    where = f"line {at.group('line')}, column {at.group('column')}: " if at else ""
    return json.dumps(where + words, ensure_ascii=False)[1:-1]
