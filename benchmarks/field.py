"""The field of peers of one benchmark: who takes part, and why the others do not."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.crew import Crew, Task
from benchmarks.peers import Peer, Unavailable
from benchmarks.report import Report
from benchmarks.rounds import Measured, Round, in_turn


class Field:
    """Peers that are ready, each with a folder of its own."""

    def __init__(self, folder: str, report: Report) -> None:
        self.ready: dict[str, Peer] = {}
        self.versions: dict[str, str] = {}
        self._folder = folder
        self._report = report

    def folder(self, peer: Peer) -> str:
        return os.path.join(self._folder, peer.name.replace(" ", "-"))

    def make_folder(self, peer: Peer) -> str:
        os.makedirs(self.folder(peer))
        return self.folder(peer)

    def admit(self, peer: Peer, stack: ExitStack) -> None:
        """Start the peer, or note why it cannot take part."""
        try:
            self.versions[peer.name] = peer.version()
            stack.enter_context(peer.serving(self.make_folder(peer)))
            self.ready[peer.name] = peer
        except Unavailable as reason:
            self._report.skipped[peer.name] = str(reason)

    def compare(
        self,
        tasks: Callable[[Peer], Task],
        *,
        size: int,
        rounds: int,
        seconds: float,
        tells: bool = False,
    ) -> dict[str, Measured]:
        """A crew for each peer, then rounds in turn. A peer whose worker fails is noted so."""
        with ExitStack() as stack:
            crews: dict[str, Crew] = {}
            for name, peer in list(self.ready.items()):
                crew = stack.enter_context(Crew([tasks(peer)] * size, tells=tells))
                try:
                    crew.ready()
                    crew.run(min(seconds, 0.2))  # warms up
                    crews[name] = crew
                except RuntimeError as error:
                    del self.ready[name]
                    self._report.skipped[name] = str(error).strip().splitlines()[-1]
            sides = {
                name: _round(crew, seconds, self.ready[name].weight) for name, crew in crews.items()
            }
            return in_turn(sides, rounds)


def _round(crew: Crew, seconds: float, weight: int) -> Callable[[], Round]:
    return lambda: Round.of(crew.run(seconds), seconds, weight)


@contextmanager
def gather(peers: Sequence[Peer], folder: str, report: Report) -> Iterator[Field]:
    """Start all peers that can be started; stop them at the end."""
    field = Field(folder, report)
    with ExitStack() as stack:
        for peer in peers:
            field.admit(peer, stack)
        yield field
