"""Whether a peer's distribution is there."""

from importlib import metadata

from benchmarks.peers import Unavailable


def installed(distribution: str) -> str:
    """Name and version of a distribution. Raises: Unavailable if it is not installed."""
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        raise Unavailable(f"{distribution} is not installed") from None
