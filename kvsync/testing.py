"""What a program's own tests need beside `kvsync.temporary()`."""


class ManualClock:
    """A clock that stands still until it is told to move: for `kvsync.open(clock=...)`.

    Example:
        >>> clock = ManualClock()
        >>> store = kvsync.temporary(clock=clock)
        >>> store.dict("nonces").set("a", 1, ttl=60)
        >>> clock.advance(61)
        >>> "a" in store.dict("nonces")
        False

    Args:
        seconds: what both clocks show at first.
    """

    def __init__(self, seconds: float = 1_000_000.0) -> None:
        self._seconds = seconds

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._seconds

    def boot(self) -> float:
        """Seconds that never jump."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Move both clocks on by that many seconds."""
        self._seconds += seconds
