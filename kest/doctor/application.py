"""Loading an application by name, and seeing which of Kest's hooks it has."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from kest.errors import KestError

__all__ = ["ApplicationError", "hooks_of", "load", "middlewares"]

MOST = 50


class ApplicationError(KestError):
    """There is no such application, or it does not start."""


def load(spec: str) -> Any:
    """The object that ``module:attribute`` names. Importing it runs its code, as a server would.

    Raises:
        ApplicationError: it cannot be imported, or there is no such attribute.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise ApplicationError(f"{spec!r} is not module:application, such as service.main:app")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ApplicationError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ApplicationError(f"{module_name} has no {attribute!r}")
        found = getattr(found, name)
    return found


def middlewares(app: Any) -> Iterator[tuple[type, Any, Mapping[str, Any]]]:
    """The middlewares around an application, from the outside: those that wrap it, and those that Starlette or FastAPI was
    given; each with the instance, or None where there is none yet, and then the arguments that it will be made with."""
    for _ in range(MOST):
        inner = getattr(app, "app", None)
        wsgi = getattr(app, "wsgi_app", None)
        if inner is None and wsgi is not None and not callable(getattr(type(wsgi), "__get__", None)):
            yield type(wsgi), wsgi, {}
            inner = getattr(wsgi, "app", None)
        elif inner is not None:
            yield type(app), app, {}
        for given in getattr(app, "user_middleware", ()):
            if isinstance(cls := getattr(given, "cls", None), type):
                yield cls, None, getattr(given, "kwargs", {})
        if inner is None or not callable(inner):
            return
        app = inner


def hooks_of(app: Any) -> list[str]:
    """The names of Kest's middlewares around an application, from the outside."""
    return [cls.__name__ for cls, _, _ in middlewares(app) if cls.__module__.partition(".")[0] == "kest"]
