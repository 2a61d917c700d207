"""What the gate's stores in Redis have in common: a link, keys that begin alike, and how they are closed and shown."""

from __future__ import annotations

from typing import Any, TypeVar

from kest.errors import ConfigurationError
from kest.gate.redis_link import RedisLink

__all__ = ["RedisStore"]

S = TypeVar("S", bound="RedisStore")


class RedisStore:
    """A store whose keys in Redis begin with ``prefix``. Each store names its own by default: there is none for all.

    Raises:
        ConfigurationError: the prefix is empty or no str.
        GateInputError: (a ValueError) the URL is none, or Redis does not answer.
    """

    def __init__(self, url: str, *, prefix: str, **settings: Any) -> None:
        what = type(self).__name__
        if not isinstance(prefix, str) or not prefix:
            raise ConfigurationError(f"{what} needs a key prefix, so that its keys are told from others")
        self._prefix = prefix
        self._link = RedisLink(what, url, **settings)

    @classmethod
    def from_url(cls: type[S], url: str, **options: Any) -> S:
        """The same as calling the class."""
        return cls(url, **options)

    def close(self) -> None:
        """Close the connections; they open again when they are needed."""
        self._link.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} prefix={self._prefix!r}>"  # a URL may hold a password
