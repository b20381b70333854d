"""The whole page, and how it is written."""

import os
from collections.abc import Iterator
from pathlib import Path

from stress import output
from stress.page.books import books
from stress.page.chart import cut, empty, figure, section
from stress.page.excerpt import excerpt
from stress.page.figures import number, plural, seconds
from stress.page.grid import grid
from stress.page.lanes import lanes
from stress.page.latency import latency
from stress.page.machine import machine
from stress.page.markup import Markup, element, together
from stress.page.mutants import mutants
from stress.page.scenarios import scenarios
from stress.page.summary import summary
from stress.page.throughput import throughput
from stress.page.tokens import lowest, tokens
from stress.page.violations import violations
from stress.record import Run, ScenarioResult

_STYLE = Path(__file__).with_name("page.css")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may do for the page: nothing but apply its style. No script, no network."""

_PLACES = {
    "violations": "violations",
    "scenarios": "scenarios",
    "books": "books",
    "holders": "holders and tokens",
    "latency": "latency",
    "throughput": "throughput",
    "grid": "faults and primitives",
    "mutants": "mutants",
    "machine": "machine",
}


def write(path: str | os.PathLike[str], run: Run) -> None:
    """Raises: OSError; the old file, if any, is then as it was."""
    output.write(path, page(run))


def page(run: Run) -> str:
    """The text of the file."""
    whole = element("html", _head(run), element("body", *_body(run)), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _head(run: Run) -> Markup:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"kvsync stress report, {run.date}"),
        element("style", Markup(_STYLE.read_text(encoding="utf-8"))),
    )


def _body(run: Run) -> Iterator[Markup]:
    found = violations(run)
    places = [name for name in _PLACES if found or name != "violations"]
    yield summary(run)
    yield element("nav", [_link(name) for name in places], aria_label="parts of the report")
    sections = (
        found,
        scenarios(run),
        books(run),
        _holders(run),
        _latency(run),
        _throughput(run),
        grid(run),
        mutants(run),
        machine(run),
    )
    yield element("main", sections)


def _link(name: str) -> Markup:
    return element("a", _PLACES[name], href=f"#{name}")


def _holders(run: Run) -> Markup:
    title = "Who held the lock when"
    figures = [_held(f"held-{place}", result) for place, result in enumerate(run.scenarios)]
    drawn = [each for each in figures if each]
    if not drawn:
        return section("holders", title, "", empty("No stays inside of a lock were recorded."))
    hint = element("span", " Point at a bar or a mark for its times.", class_="hovering")
    return section(
        "holders", title, ("A lane for each process, or each thread of it.", hint), drawn
    )


def _held(name: str, result: ScenarioResult) -> Markup | None:
    shown = excerpt(result)
    if shown is None:
        return None
    part = "" if len(shown.stays) == shown.of else f" of {shown.of:,}"
    hidden = f"; {plural(shown.more, 'lane')} with faults alone left out" if shown.more else ""
    said = (
        f"{cut(shown.key, 80)}: {plural(len(shown.stays), 'stay')}{part}, within"
        f" {seconds((shown.ended - shown.began) / 1e9)}{hidden}."
    )
    over_time = tokens(f"{name}-tokens", result, shown)
    heading = element("h4", _counted(result)) if over_time else None
    return figure(result.name, said, lanes(name, shown), heading, over_time)


def _counted(result: ScenarioResult) -> str:
    least = lowest(result)
    return f"Its tokens, as far as they were recorded, counted from {number(least)}"


def _latency(run: Run) -> Markup:
    drawn = latency("latencies", run.scenarios)
    if drawn is None:
        return section("latency", "Latency", "", empty("No latencies were measured."))
    lead = (
        "How long a call took, waiting for others included; each rule is ten times the one before."
    )
    return section("latency", "Latency", lead, drawn)


def _throughput(run: Run) -> Markup:
    pictures = [
        (result, throughput(f"rate-{place}", result)) for place, result in enumerate(run.scenarios)
    ]
    drawn = [figure(result.name, "", svg) for result, svg in pictures if svg]
    if not drawn:
        return section("throughput", "Throughput", "", empty("No throughput was measured."))
    lead = (
        "Operations per second. Bands: what lasted, such as a stop, a full disk, or I/O that fails."
        " Below: each kind of fault, at its moments."
    )
    return section("throughput", "Throughput", lead, element("div", together(drawn), class_="many"))
