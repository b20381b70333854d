"""Moments that a write sets: of those at which it was asked for, none may be left by the time."""

from collections.abc import Callable, Mapping


class AtTurn(dict[str, object]):
    """Parameters of a write, some of which are found out when its turn to write has come.

    The engine binds them with the gate held, and anew at each attempt. What was found out before
    is as old as the wait for the turn was long: a lease that began then could be over.
    """

    _moments: dict[str, Callable[[], object]]

    def __init__(self, row: Mapping[str, object], **moments: Callable[[], object]) -> None:
        super().__init__(row)
        self._moments = moments
        if isinstance(row, AtTurn):
            self._moments |= row._moments

    def __missing__(self, name: str) -> object:
        return self._moments[name]()


def lasting(
    row: dict[str, object], name: str, seconds: float | None, clock: Callable[[], float]
) -> dict[str, object]:
    """That row, with the end of what lasts so many seconds from its turn on; None: for ever."""
    if seconds is None:
        row[name] = None
        return row
    return AtTurn(row, **{name: lambda: clock() + seconds})
