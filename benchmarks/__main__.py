"""The command: `python -m benchmarks --help`."""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace

from benchmarks import counter, locks, machine, mapping, queues, scale
from benchmarks.options import Options
from benchmarks.report import Report, opening, targets

BENCHMARKS: dict[str, Callable[[Options], Report]] = {
    "counter": counter.run,
    "dict": mapping.run,
    "scale": scale.run,
    "lock": locks.run,
    "queue": queues.run,
}


def main() -> None:
    # As by Ctrl-C: whatever runs is ended, the server and the workers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = _parse()
    if arguments.list:
        print("\n".join(BENCHMARKS))
        return
    folder = machine.folder_on_disk(arguments.folder)
    facts = machine.describe(folder)
    with tempfile.TemporaryDirectory(prefix="kvbench-", dir=folder) as place:
        options = _options(arguments, place)
        begin = opening(facts, _method(options))
        print(begin, end="\n\n", flush=True)
        reports = [_run(name, options) for name in arguments.only or BENCHMARKS]
    load = " ".join(f"{load:.2f}" for load in os.getloadavg())
    end = f"{targets(reports).markdown()}\n\n- load after: `{load}`"
    print(end)
    if arguments.markdown:
        tables = [table.markdown() for report in reports for table in report.tables]
        _save(arguments.markdown, "\n\n".join([begin, *tables, end]) + "\n")
    if arguments.json:
        facts["load after"] = load
        found = {"machine": facts, "benchmarks": [report.as_json() for report in reports]}
        _save(arguments.json, json.dumps(found, indent=1) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="may be repeated")
    parser.add_argument("--rounds", type=int, help="rounds of each side (5)")
    parser.add_argument("--seconds", type=float, help="seconds of each round (3)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: figures mean nothing")
    parser.add_argument("--folder", help="where to work: not in memory (the temporary folder)")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there")
    parser.add_argument("--json", metavar="FILE", help="write every round there")
    return parser.parse_args()


def _options(arguments: argparse.Namespace, folder: str) -> Options:
    options = Options(folder)
    if arguments.quick:
        options = options.quick()
    given = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    return replace(options, **{name: value for name, value in given.items() if value})


def _run(name: str, options: Options) -> Report:
    folder = os.path.join(options.folder, name)
    os.makedirs(folder)
    return BENCHMARKS[name](replace(options, folder=folder))


def _method(options: Options) -> str:
    return (
        f"Medians of {options.rounds} rounds of {options.seconds:g} s, the sides in turn in each"
        " round, with (least..most). Ratios are of medians, with (least..most) of the rounds'"
        " own ratios."
    )


def _save(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
