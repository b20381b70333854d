"""Cells that are kept in a file, a line each, so that a long run can be cut off and go on later.

The first line says of which seed and which code they are, and where they were run: cells of other
code would prove nothing, and those of another machine nothing about this one.
"""

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from stress.mutants import cells
from stress.mutants.cells import Cell
from stress.version import code


class Kept:
    """What came of each cell; one runs only if it has not run yet."""

    def __init__(self, path: Path | None, seed: int, found: Sequence[Cell] = ()) -> None:
        self.seed = seed
        self._path = path
        self._cells = {_key(cell): cell for cell in found}

    @classmethod
    def opened(cls, path: Path | None, seed: int | None, facts: Mapping[str, str]) -> "Kept":
        """Those of a file, if it is there; of a seed at random, if neither says which.

        Which commit the code is of does not matter, if it is the same code.

        Raises: OSError; ValueError if it is of another seed, of other code, of a machine or of
            versions that other facts are told of, or something else.
        """
        where = {name: fact for name, fact in facts.items() if name != "code"}
        if path is not None and path.exists() and path.stat().st_size:
            return cls._read(path, seed, where)
        kept = cls(path, random.randrange(2**32) if seed is None else seed)
        kept._append({"seed": kept.seed, "code": code(), "facts": where})
        return kept

    @classmethod
    def _read(cls, path: Path, seed: int | None, where: Mapping[str, str]) -> "Kept":
        lines = path.read_bytes().splitlines(keepends=True)
        if not lines[-1].endswith(b"\n"):  # it was being written when the run was cut off
            del lines[-1]
        try:
            head, *found = map(json.loads, lines)
            kept = cls(path, head["seed"], [Cell(**each) for each in found])
            of, there = head["code"], head["facts"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not what `mutants --keep` writes") from error
        if seed not in (None, kept.seed):
            raise ValueError(f"{path} is of another seed: {kept.seed}")
        if of != code():
            raise ValueError(f"{path} is of other code: begin anew, with another file")
        if there != where:
            raise ValueError(f"{path} is of another machine: begin anew, with another file")
        os.truncate(path, sum(map(len, lines)))
        return kept

    def run(self, mutant: str, scenario: str, seed: int, seconds: float) -> Cell:
        """As `cells.run`."""
        cell = self._cells.get((mutant, scenario, seed))
        if cell is None:
            cell = cells.run(mutant, scenario, seed, seconds)
            self._cells[_key(cell)] = cell
            self._append(asdict(cell))
        return cell

    def _append(self, line: object) -> None:
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _key(cell: Cell) -> tuple[str, str, int]:
    return cell.mutant, cell.scenario, cell.seed
