"""The shapes that stand for what happened; each kind has its own, beside its colour."""

from collections.abc import Callable

from stress.page.markup import Markup, element

Shape = Callable[[float, float], str]


def mark(kind: str, x: float, y: float, said: str = "") -> Markup:
    """The shape of this kind around a point; `said` is told to who points at it."""
    path = element("path", d=_SHAPES.get(kind, _circle)(x, y))
    halo = element("path", d=_SHAPES.get(kind, _circle)(x, y), class_="halo")
    title = element("title", said) if said else None
    return element("g", title, halo, path, class_=f"mark {kind if kind in _SHAPES else 'other'}")


def _cross(x: float, y: float) -> str:
    return f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"


def _pause(x: float, y: float) -> str:
    return f"M{x - 2.5:.1f} {y - 5:.1f}v10m5 -10v10"


def _diamond(x: float, y: float) -> str:
    return f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"


def _branch(x: float, y: float) -> str:
    return f"M{x:.1f} {y + 6:.1f}v-6l-5 -6m5 6l5 -6"


def _clock(x: float, y: float) -> str:
    return f"M{x:.1f} {y - 5:.1f}v5h4{_circle(x, y)}"


def _bolt(x: float, y: float) -> str:
    return f"M{x + 2:.1f} {y - 6:.1f}l-5 7h6l-5 6"


def _circle(x: float, y: float) -> str:
    return f"M{x - 5:.1f} {y:.1f}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0"


_SHAPES: dict[str, Shape] = {
    "kill": _cross,
    "stop": _pause,
    "refused": _diamond,
    "fork": _branch,
    "clock": _clock,
    "io": _bolt,
    "power": _bolt,
}

NAMES = {
    "kill": "SIGKILL",
    "stop": "SIGSTOP",
    "refused": "call of a stale holder, refused",
    "fork": "fork",
    "clock": "clock stepped",
    "io": "I/O error",
    "power": "power lost",
}
