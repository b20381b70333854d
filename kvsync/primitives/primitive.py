"""What every primitive is: a name in a store. Cheap to make, picklable, usable from any thread."""

from typing import Any, Protocol

from kvsync.engine import Engine
from kvsync.errors import InvalidKeyError, InvalidNameError, KeyTypeError
from kvsync.session import Session

NAME_LENGTH = 1000
"""Characters in a name, at most."""


class Home(Protocol):
    """What a primitive needs of the store that made it."""

    @property
    def engine(self) -> Engine: ...

    @property
    def session(self) -> Session: ...


class Primitive:
    """A named object in a store; two with the same name are the same thing."""

    def __init__(self, store: Home, name: str) -> None:
        self._store = store
        self._engine = store.engine
        self._name = check_name(name)

    @property
    def name(self) -> str:
        """What it is called in the store."""
        return self._name

    @property
    def store(self) -> Any:
        """The Store that this object lives in."""
        return self._store

    def _options(self) -> dict[str, Any]:
        """The constructor's other arguments, for pickle and repr."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (type(self), self._store, self._name, self._options())

    def __repr__(self) -> str:
        options = "".join(f", {key}={value!r}" for key, value in self._options().items())
        return f"<kvsync.{type(self).__name__} {self._name!r}{options} in {self._store!r}>"


def _remake(kind: Any, store: Home, name: str, options: dict[str, Any]) -> Primitive:
    made: Primitive = kind(store, name, **options)
    return made


def check_name(name: object) -> str:
    """The name itself. Raises: TypeError, InvalidNameError."""
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {name!r}")
    if not name:
        raise InvalidNameError("a name cannot be empty")
    if len(name) > NAME_LENGTH:
        raise InvalidNameError(f"a name has at most {NAME_LENGTH} characters, not {len(name)}")
    if flaw := _flaw(name):
        raise InvalidNameError(f"the name {name[:80]!r} {flaw}")
    return name


def check_key(key: object) -> str:
    """The key itself. Raises: KeyTypeError, InvalidKeyError."""
    if not isinstance(key, str):
        raise KeyTypeError(f"a key is a str, not {type(key).__name__}: {key!r}")
    if flaw := _flaw(key):
        raise InvalidKeyError(f"the key {key[:80]!r} {flaw}")
    return key


def _flaw(text: str) -> str | None:
    """Why the database could not hold `text` as it is, or None."""
    if "\0" in text:
        return "holds a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "holds a lone surrogate, which UTF-8 cannot express"
    return None
