"""The report as a page: any run can be told, no text of it is markup, any screen can show it."""

import html
import math
import os
import re
import shutil
import stat
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stress.page import marks, write
from stress.page.excerpt import KILLED, LANES, LEFT, MARKS, UNSEEN, Lane, excerpt
from stress.page.figures import number, seconds, short
from stress.page.lanes import lanes
from stress.page.page import page
from stress.page.scale import Linear, log_around, up_to
from stress.page.throughput import throughput
from stress.record import EVERYBODY, Books, Fault, Latency, Matrix, MutantRow, Rate, Run, Span
from tests.made_runs import BOOT, HOSTILE, full, matrix, matrix_of, result, run
from tests.processes import PATIENCE

pytestmark = pytest.mark.suite

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
STYLE = Path(__file__).parent.parent / "stress" / "page" / "page.css"
VOID = {"meta", "br", "wbr"}
SCHEMES = {"light": (1, "false", "rgb(252, 252, 250)"), "dark": (0, "true", "rgb(21, 24, 28)")}
"""The number by which Blink knows each, whether the page is told dark, and what its paper is."""

RUNS = {
    "full": run(
        full(),
        result("counters_in_transactions", books=Books(12_454_286, 0, None, 30_861, 3_317, 34_173)),
        result("semaphore", books=Books(recovered=12_345, unknown=30_861)),
        matrix=matrix(True, False, None),
    ),
    "nothing": run(),
    "no facts": replace(run(), facts={}, command="", date="", seconds=math.nan),
    "bare": run(result()),
    "skipped": run(result(verdict="SKIPPED", skipped="no strace")),
    "violated": run(result(verdict="VIOLATED", violations=("two were inside",)), full()),
    "violated often": run(result(verdict="VIOLATED", violations=("again",) * 500)),
    "hole": run(full(), matrix=matrix(False, None)),
    "no mutants": run(full(), matrix=matrix_of(())),
    "one process": run(full(processes=1, stays=3)),
    "200 processes": run(full(processes=200, stays=8000)),
    "one stay": run(result(spans=(Span("k", 0, None, BOOT, None),))),
    "stay of no time": run(result(spans=(Span("k", 0, 1, BOOT, BOOT),))),
    "stay that ends before it began": run(result(spans=(Span("k", 0, 1, BOOT, BOOT - 5),))),
    "no number": run(
        result(
            seconds=math.nan,
            figures={"kills": math.nan, "worst": math.inf},
            latencies=(
                Latency("get", 0, {}),
                Latency("put", 0, {0.5: math.nan, 0.99: math.inf, 1.0: -1.0}),
                Latency("ack", 1, {0.5: 0.0}),
            ),
            rate=Rate(BOOT, math.nan, (1, 2)),
        )
    ),
    "no throughput": run(
        result("a", rate=Rate(BOOT, 0.1, ())), result("b", rate=Rate(BOOT, 1, (0,)))
    ),
    "faults outside": run(
        result(
            faults=(Fault("kill", 0, BOOT - 1), Fault("stop", 0, BOOT - 5, BOOT + 10**12)),
            rate=Rate(BOOT, 0.5, (3, 4)),
        )
    ),
    "lost": run(result(books=Books(10, 3))),
}


def hostile() -> Run:
    """One whose every text would like to be markup."""
    cursed = replace(
        full(processes=3, stays=40),
        name=HOSTILE,
        invariant=HOSTILE,
        primitives=(HOSTILE,),
        faults_used=(HOSTILE,),
        verdict=HOSTILE,
        figures={HOSTILE: 1},
        remarks=(HOSTILE,),
        violations=(HOSTILE * 20,),
        repeat=HOSTILE,
        faults=(Fault(HOSTILE, 1, BOOT + 1, BOOT + 9**9),),
        spans=(Span(HOSTILE, 1, 5, BOOT, BOOT + 10**9, (BOOT + 5,)),),
        latencies=(Latency(HOSTILE, 1, {0.5: 1.0}),),
    )
    skipped = result(HOSTILE, verdict="SKIPPED", skipped=HOSTILE)
    rows, facts = (MutantRow(HOSTILE, HOSTILE, {HOSTILE: True}),), {HOSTILE: HOSTILE}
    twins = Matrix((HOSTILE,), rows, HOSTILE, 8, HOSTILE, facts)
    return Run(HOSTILE, 7, HOSTILE, 1.0, facts, (cursed, skipped), twins)


RUNS["hostile"] = hostile()

every_run = pytest.mark.parametrize("made", RUNS.values(), ids=RUNS)


class Outline(HTMLParser):
    """Elements that are opened and closed in order; raises where they are not."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def pictures(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def headline(text: str) -> str:
    found = re.search(r"<h1>.*?<span>(.*?)</span></h1>", text)
    assert found
    return found.group(1)


@every_run
def test_any_run_is_a_well_formed_page(made: Run) -> None:
    outline = Outline(page(made))
    assert not outline.open
    ids = [attributes["id"] for _, attributes in outline.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes.get("href") for tag, attributes in outline.seen if tag == "a"]
    assert {f"#{each}" for each in ids} >= set(links)


@every_run
def test_every_picture_is_well_formed_and_says_what_it_shows(made: Run) -> None:
    for svg in pictures(page(made)):
        if svg.get("aria-hidden") == "true":
            continue
        assert svg.get("role") == "img"
        named = {child.get("id"): child.text for child in svg if child.tag in ("title", "desc")}
        assert named.get(svg.get("aria-labelledby"))
        assert named.get(svg.get("aria-describedby"))


@every_run
def test_every_place_in_a_picture_is_a_number_inside_of_it(made: Run) -> None:
    for svg in pictures(page(made)):
        box = [float(each) for each in svg.get("viewBox", "").split()]
        for mark in svg.iter():
            places = [float(mark.get(name, 0)) for name in ("x", "y", "x1", "x2", "y1", "y2")]
            places += [float(mark.get("width", 0)) - 2, float(mark.get("height", 0)) - 2]
            numbers = re.findall(r"-?[\d.]+|nan|inf", mark.get("d", ""))
            assert all(-20 <= place <= max(box) for place in places), mark.attrib
            assert all(math.isfinite(float(each)) for each in numbers), mark.attrib


@every_run
def test_the_page_asks_nothing_of_the_network_and_runs_nothing(made: Run) -> None:
    outline = Outline(page(made))
    tags = {tag for tag, _ in outline.seen}
    names = {name for _, attributes in outline.seen for name in attributes}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "image", "use", "base"}
    assert not names & {"src", "srcset", "style", "data", "action"}
    assert not [name for name in names if name.startswith(("on", "xlink"))]
    assert "http" not in page(made).replace("http-equiv", "")
    assert "url(" not in page(made)
    assert "@import" not in page(made)


def test_hostile_text_is_shown_and_stays_text() -> None:
    text = page(RUNS["hostile"])
    assert "<script" not in text
    assert text.count("</style>") == 1
    assert "&lt;/style&gt;&lt;/svg&gt;&lt;script&gt;" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", text)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("full", "Every invariant held"),
        ("violated", "Violated: 1 invariant did not hold"),
        ("skipped", "Nothing was proved"),
        ("nothing", "Nothing was proved"),
        ("hole", "Every invariant held"),
        ("hostile", "Violated: 1 invariant did not hold"),  # a verdict that nobody knows
    ],
)
def test_the_verdict_is_the_first_thing_that_is_said(made: str, said: str) -> None:
    text = page(RUNS[made])
    assert headline(text) == said
    assert text.index("<h1>") < text.index("<dl") < text.index("<main>")


def test_an_ok_with_a_violation_is_violated() -> None:
    text = page(run(result(violations=("two were inside",))))
    assert headline(text).startswith("Violated")
    assert text.index("two were inside") < text.index('id="scenarios"')


def test_violations_come_first_with_history_and_command() -> None:
    history = "the history of k:\n   0.000 s  acquire() -> 1\n   0.001 s  acquire() -> 2 <<<"
    violated = result("b", verdict="VIOLATED", violations=(history,), repeat="python -m stress b")
    text = page(run(result("a"), violated))
    part = text[text.index('id="violations"') : text.index('id="scenarios"')]
    assert html.escape(history) in part
    assert "python -m stress b" in part
    rows = re.findall(r'<tr class="(\w+)" role="row"', text)
    assert rows == ["violated", "held"]


def test_a_long_violation_is_cut_and_says_so() -> None:
    text = page(run(result(violations=("x" * 10**6,))))
    assert len(text) < 200_000
    assert "980,000 characters more" in text


def test_a_run_of_many_events_stays_small_enough_to_be_sent() -> None:
    assert len(page(run(full(processes=200, stays=100_000)))) < 500_000


def test_a_narrow_screen_has_the_figures_of_the_latencies_in_a_table() -> None:
    """The picture, which is wider, is not shown there, nor is the table elsewhere."""
    text = page(RUNS["full"])
    (told,) = re.findall(r'<table class="latencies">.*?</table>', text)
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", told)
    assert cells[:5] == ["operation", "calls", "half", "99 %", "worst"]
    drawn = text[text.index('id="latencies-title"') : text.index('class="narrow"')]
    assert all(f">{each}<" in drawn for each in cells[6:])
    style = STYLE.read_text()
    narrow = style[style.index("max-width: 760px") :]
    assert ".narrow { display: none; }" in style.replace(narrow, "")
    assert ".broad { display: none; }" in narrow


def test_the_books_say_what_they_count_by_the_names_that_the_figures_have() -> None:
    made = run(result(figures={"unheard": 7}, books=Books(100, 0, 9, 23, unheard=7, cut_off=68)))
    text = page(made)
    part = text[text.index('id="books"') : text.index('id="holders"')]
    assert re.findall(r'scope="col">([^<]*)<', part)[1:] == [
        "acknowledged",
        "lost",
        "recovered",
        "unknown",
        "unheard",
    ]
    assert _numbers(part) == ["100", "0", "9", "23", "7"]
    assert "where the unknown are counted, no more are unheard" in part
    assert "<b>7</b> unheard" in text


def _numbers(part: str) -> list[str]:
    return re.findall(r'class="number">(?:<[^>]*>)?([^<]*)<', part)


def test_a_book_that_a_scenario_does_not_keep_is_a_dash_and_not_a_nought() -> None:
    """Nor is it one among the first figures, or in a sum."""
    made = run(result("lock", books=Books(recovered=9, unknown=23)))
    text = page(made)
    part = text[text.index('id="books"') : text.index('id="holders"')]
    assert _numbers(part) == ["–", "–", "9", "23", "–"]  # noqa: RUF001
    assert "<dt>acknowledged</dt>" not in text
    text = page(run(*made.scenarios, result("counter", books=Books(100, 0, None, 4, 1, 5))))
    part = text[text.index('class="total"') : text.index('id="holders"')]
    assert _numbers(part) == ["100", "0", "9", "27", "1"]
    assert "<dt>acknowledged</dt><dd>100</dd>" in text


def test_lost_and_missed_are_marked_by_more_than_colour() -> None:
    assert re.search(r"✗ </span>3</td>", page(RUNS["lost"]))
    assert "✗ not caught" in page(RUNS["hole"])
    assert "no scenario caught 1 broken twin" in page(RUNS["hole"])


@pytest.mark.parametrize("made", ["bare", "no mutants"])
def test_without_mutants_the_page_says_how_to_have_them(made: str) -> None:
    """By two commands that the program takes."""
    text = html.unescape(page(RUNS[made]))
    part = text[text.index('id="mutants"') : text.index('id="machine"')]
    (told,) = re.findall(r"<code>(.*?)</code>", part, re.DOTALL)
    assert told.splitlines() == [
        "python -m stress mutants --json mutants.json",
        "python -m stress --report report.html --mutants mutants.json",
    ]


def test_the_mutants_have_the_evidence_of_their_own_run() -> None:
    text = page(RUNS["full"])
    part = text[text.index('id="mutants"') : text.index('id="machine"')]
    assert "2026-01-03 04:05 UTC · seed 8 · Python 3.12.1 · SQLite 3.40.1" in part
    assert "<code>python -m stress mutants --seed 8</code>" in part


def test_how_to_point_at_a_bar_is_said_only_where_one_can() -> None:
    assert re.search(r'<span class="hovering">[^<]*[Pp]oint', page(RUNS["full"]))
    rule = re.search(
        r"@media \(hover: none\) \{\s*\.hovering \{ display: none; \}", STYLE.read_text()
    )
    assert rule


def test_a_token_that_falls_is_marked() -> None:
    spans = [
        Span("k", 0, token, BOOT + 10 * place, BOOT + 10 * place + 5)
        for place, token in enumerate((5, 6, 6, 4, 7))
    ]
    text = page(run(result(spans=tuple(spans))))
    assert "2 tokens did not rise." in text
    assert "Every token rose." in page(run(result(spans=tuple(spans[:2]))))


def test_the_excerpt_shows_where_most_kinds_of_things_happen() -> None:
    spans = [
        Span("k", place % 3, place, BOOT + place * 100, BOOT + place * 100 + 90)
        for place in range(1000)
    ]
    at = BOOT + 70_050
    faults = (Fault("kill", 1, at), Fault("stop", 2, at + 1, at + 9), Fault("kill", 0, BOOT + 10))
    shown = excerpt(result(spans=tuple(spans), faults=faults))
    assert shown is not None
    assert {event.kind for event in shown.events} == {"kill", "stop"}
    assert shown.began <= at <= shown.ended
    assert len(shown.stays) > MARKS / 2


def test_the_excerpt_has_a_lane_for_everybody_who_is_inside() -> None:
    shown = excerpt(full(processes=200, stays=8000))
    assert shown is not None
    assert len(shown.lanes) <= LANES
    assert {stay.lane for stay in shown.stays} <= set(shown.lanes)


def test_who_was_killed_inside_stays_until_its_death() -> None:
    spans = (Span("k", 1, 1, BOOT, None), Span("k", 2, 2, BOOT + 50, BOOT + 90))
    shown = excerpt(
        result(spans=spans, faults=(Fault("kill", 1, BOOT + 40), Fault("kill", 1, BOOT + 80)))
    )
    assert shown is not None
    assert [(stay.ended, stay.ending) for stay in shown.stays] == [
        (BOOT + 40, KILLED),
        (BOOT + 90, LEFT),
    ]


def test_nothing_is_made_up_of_who_was_not_seen_to_leave() -> None:
    spans = (Span("k", 1, 1, BOOT, None), Span("k", 1, 2, BOOT + 50, BOOT + 90))
    shown = excerpt(result(spans=spans, faults=(Fault("kill", 1, BOOT + 80),)))
    assert shown is not None
    assert [(stay.ended, stay.ending) for stay in shown.stays] == [
        (BOOT, UNSEEN),
        (BOOT + 90, LEFT),
    ]


def test_faults_of_who_works_at_other_locks_are_not_in_the_picture() -> None:
    """Nor does another lock seem eventful by them."""
    spans = (
        Span("mine", 1, 1, BOOT, BOOT + 90),
        Span("mine", 3, 2, BOOT + 95, BOOT + 99, (BOOT + 98,)),
        Span("other", 2, 1, BOOT + 10, BOOT + 80),
    )
    faults = (Fault("stop", 2, BOOT + 20, BOOT + 50), Fault("stop", 1, BOOT + 60, BOOT + 70))
    shown = excerpt(result(spans=spans, faults=faults))
    assert shown is not None
    assert (shown.key, list(shown.lanes), shown.more) == ("mine", [Lane(1), Lane(3)], 0)
    assert [(event.lane, event.kind) for event in shown.events] == [
        (Lane(1), "stop"),
        (Lane(3), "refused"),
    ]


def test_a_process_is_killed_with_all_its_threads() -> None:
    """Each of them has a lane with the mark; it counts once."""
    spans = (
        Span("k", 4, 1, BOOT, BOOT + 20),
        Span("k", 4, 2, BOOT + 30, None, thread=1),
        Span("k", 5, 3, BOOT + 95, BOOT + 99),
    )
    made = result(spans=spans, faults=(Fault("kill", 4, BOOT + 90),))
    shown = excerpt(made)
    assert shown is not None
    assert list(shown.lanes) == [Lane(4), Lane(4, 1), Lane(5)]
    assert [stay.ending for stay in shown.stays] == [LEFT, KILLED, LEFT]
    assert [event.lane for event in shown.events] == [Lane(4), Lane(4, 1)]
    text = page(run(made))
    assert "SIGKILL (1)" in text
    assert "process 4, thread 1, token 2, killed inside" in text
    assert "4, thread 1<" in text


def test_a_key_is_eventful_by_the_faults_of_those_who_were_inside() -> None:
    calm = [Span("calm", process, 1, BOOT + process, BOOT + 90) for process in (1, 2)]
    struck = [Span("struck", process, 1, BOOT + process, BOOT + 90) for process in (3, 4)]
    faults = (Fault("kill", 3, BOOT + 20), Fault("stop", 4, BOOT + 30, BOOT + 40))
    shown = excerpt(result(spans=(*calm, *struck), faults=faults))
    assert shown is not None
    assert shown.key == "struck"


@pytest.mark.parametrize("kind", ["kill", "stop", "refused"])
def test_a_mark_is_on_the_lane_of_its_process(kind: str) -> None:
    spans = [Span("k", process, 1, BOOT + process, BOOT + 90) for process in (1, 2, 3)]
    faults = (Fault(kind, 2, BOOT + 40),)
    shown = excerpt(result(spans=tuple(spans), faults=faults))
    assert shown is not None
    drawn = ElementTree.fromstring(lanes("held", shown))
    lines = [float(each.get("y1", 0)) for each in drawn.iter("line") if each.get("class") == "lane"]
    every = [each for each in drawn.iter("g") if each.get("class") == f"mark {kind}"]
    (mark,) = [each for each in every if each.find("title") is not None]
    path, expected = mark.find("path"), marks.mark(kind, 0, lines[1])
    assert path is not None
    assert path.get("d", "").split()[1] == expected.split('d="M')[1].split()[1]


def _bands(*faults: Fault) -> list[tuple[float, float]]:
    """Where they begin and how wide they are, in a picture of ten seconds."""
    drawn = throughput("rate", result(faults=faults, rate=Rate(BOOT, 1.0, (5,) * 10)))
    assert drawn is not None
    found = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"[^>]*fault-band', drawn)
    return [(float(left), float(width)) for left, width in found]


@pytest.mark.parametrize("kind", ["stop", "io", "power", "something new"])
def test_a_fault_that_lasted_is_a_band_of_the_throughput(kind: str) -> None:
    ((left, width),) = _bands(Fault(kind, EVERYBODY, BOOT + 2 * 10**9, BOOT + 4 * 10**9))
    whole = width * 5
    assert left == pytest.approx(62 + whole / 5, abs=1)
    assert _bands(Fault(kind, EVERYBODY, BOOT + 2 * 10**9)) == []


def test_faults_that_lasted_at_the_same_time_are_one_band() -> None:
    """Whoever they were of: ten thousand of them are not as many shapes."""
    many = [Fault("io", n % 2, BOOT + n * 10**6, BOOT + n * 10**6 + 5 * 10**6) for n in range(5000)]
    assert len(_bands(*many)) == 1
    assert len(_bands(*many, Fault("io", 1, BOOT + 9 * 10**9, BOOT + 9 * 10**9 + 10**8))) == 2


def test_readers_and_writers_are_told_apart_by_colour_and_by_name() -> None:
    spans = (
        Span("pages", 1, None, BOOT, BOOT + 90, side="write"),
        Span("pages", 2, None, BOOT + 95, BOOT + 190, side="read"),
    )
    text = page(run(result(spans=spans)))
    assert "process 1, writes, inside for 90" in text
    assert "process 2, reads, inside for 95" in text
    assert re.search(r'class="stay t-write[^"]*".*class="stay t-read', text, re.DOTALL)
    legend = text[text.index('class="legend"') : text.index("Picture: who held")]
    assert "reads" in legend
    assert "writes" in legend
    assert "token" not in legend
    assert {"t-read", "t-write"} <= set(re.findall(r"\.(t-\w+)", STYLE.read_text()))


def _legend_of_bars(*spans: Span) -> str:
    text = page(run(result(spans=spans)))
    return text[text.index('class="legend"') : text.index("Picture: who held")]


def test_the_legend_of_the_bars_says_what_they_show_and_no_more() -> None:
    """Digits only where one is wide enough, colours only where there are tokens."""
    wide = _legend_of_bars(Span("k", 1, 7, BOOT, BOOT + 90))
    narrow = [Span("k", 1, n, BOOT + 999 * n, BOOT + 999 * n + 2) for n in range(MARKS)]
    assert "its colour is its token" in wide
    assert "digits" in wide
    assert "its colour is its token" in _legend_of_bars(*narrow)
    assert "digits" not in _legend_of_bars(*narrow)
    assert "token" not in _legend_of_bars(Span("k", 1, None, BOOT, BOOT + 90))


def test_what_a_stale_holder_was_refused_is_called_what_it_is() -> None:
    """A write, an extension or a release."""
    text = page(
        run(result(spans=(Span("k", 0, 1, BOOT, BOOT + 5, (BOOT + 2, BOOT + 3, BOOT + 4)),)))
    )
    assert "call of a stale holder, refused (3)" in text
    assert "stale write" not in text


def test_a_refusal_after_the_last_stay_is_in_the_excerpt() -> None:
    shown = excerpt(result(spans=(Span("k", 0, 1, BOOT, BOOT + 5, (BOOT + 40,)),)))
    assert shown is not None
    assert [event.at for event in shown.events] == [BOOT + 40]


def test_the_excerpt_is_of_the_key_with_refusals() -> None:
    many = [Span("calm", 0, place, BOOT + place, BOOT + place) for place in range(9)]
    shown = excerpt(result(spans=(*many, Span("fenced", 1, 1, BOOT, BOOT + 5, (BOOT + 4,)))))
    assert shown is not None
    assert shown.key == "fenced"


def test_the_excerpt_is_of_the_key_that_many_had_if_none_was_refused() -> None:
    alone = [Span("alone", 0, place, BOOT + place, BOOT + place) for place in range(99)]
    many = [Span("many", place, place, BOOT + place, BOOT + place) for place in range(5)]
    shown = excerpt(result(spans=(*alone, *many)))
    assert shown is not None
    assert shown.key == "many"


def test_of_parts_with_as_much_to_see_the_shortest_is_shown() -> None:
    moments = [BOOT + n * 1000 for n in range(MARKS)]
    moments += [moments[-1] + 100_000 + n * 10 for n in range(MARKS + 8)]
    shown = excerpt(
        result(spans=tuple(Span("k", 0, n, at, at + 9) for n, at in enumerate(moments)))
    )
    assert shown is not None
    assert shown.began >= moments[MARKS]
    assert len(shown.stays) == MARKS


def test_the_more_there_is_to_mark_the_shorter_is_the_excerpt() -> None:
    def refused(times: int) -> int:
        spans = [
            Span("k", 0, n, BOOT + n * 100, BOOT + n * 100 + 90, (BOOT + n * 100 + 80,) * times)
            for n in range(MARKS)
        ]
        shown = excerpt(result(spans=tuple(spans)))
        assert shown is not None
        assert len(shown.stays) + len(shown.events) <= MARKS + 1 + times
        return len(shown.stays)

    assert refused(0) == MARKS
    assert 0 < refused(4) < MARKS / 3
    assert refused(4 * MARKS) == 1


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (number(1234567), "1,234,567"),
        (number(0.12345), "0.123"),
        (number(math.nan), "n/a"),
        (number(-math.inf), "n/a"),
        (short(40_000), "40 k"),
        (short(2_500_000), "2.5 M"),
        (seconds(0), "0"),
        (seconds(0.000_25), "250 µs"),
        (seconds(0.9996), "1 s"),
        (seconds(3e-12), "0.003 ns"),
        (seconds(59.97), "1 min"),
        (seconds(1832.4), "30 min 32 s"),
        (seconds(7260), "2 h 1 min"),
        (seconds(math.nan), "n/a"),
    ],
)
def test_figures_read_as_people_write_them(shown: str, said: str) -> None:
    assert shown.replace("\N{NARROW NO-BREAK SPACE}", " ") == said


def test_scales_take_any_values() -> None:
    assert Linear(5, 5, 0, 100)(5) == 0
    assert Linear(0, 10, 0, 100).ticks(5) == [0, 2, 4, 6, 8, 10]
    assert up_to(0, 0, 1).high > 0
    assert up_to(31, 0, 1).high == 40
    nothing = log_around([math.nan, 0.0, -1.0], 0, 100)
    assert nothing(0.0) == 0
    assert log_around([0.002, 0.3], 0, 100).ticks() == pytest.approx([0.001, 0.01, 0.1, 1])


def _colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_stands_out_from_what_is_behind_it(place: int) -> None:
    """WCAG 2: 4.5 to 1 for text."""
    colours = _colours(STYLE.read_text(encoding="utf-8").split(":root {")[place + 1].split("}")[0])
    behind = {
        "ink": ("paper", "raised", "bad-soft"),
        "muted": ("paper", "bad-soft"),
        "accent": ("paper", "bad-soft"),
        "held": ("paper", "held-soft"),
        "bad": ("paper", "bad-soft"),
        "doubt": ("paper", "band"),
        "on-token": ("t0", "t1", "t2", "t3", "t4"),
        "paper": ("held", "bad", "muted"),
    }
    pairs = [(front, back) for front, backs in behind.items() for back in backs]
    weak = [pair for pair in pairs if _contrast(colours[pair[0]], colours[pair[1]]) < 4.5]
    assert not weak


def test_writing_replaces_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write(path, RUNS["full"])
    assert path.read_text(encoding="utf-8") == page(RUNS["full"])
    assert os.listdir(tmp_path) == ["report.html"]


def test_others_may_read_the_report_as_any_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    write(tmp_path / "report.html", RUNS["bare"])
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == stat.S_IMODE(
        plain.stat().st_mode
    )


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no room"):
        write(path, RUNS["bare"])
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def _looked_at(folder: Path, text: str, width: int, scheme: str) -> tuple[list[str], str]:
    """What Chromium says of the page in a frame of this width: its measures, and its complaints.

    In a frame, as a window has a least width; from outside of it, as the page runs no script.
    """
    frame = folder / "frame.html"
    measure = (
        "const inside = frame.contentDocument; const root = inside.documentElement;"
        "const wide = [...inside.querySelectorAll('body *')].filter(each =>"
        " !each.closest('.scrolls, pre, svg, .unseen') &&"
        " each.getBoundingClientRect().right > root.clientWidth + 1);"
        "const cut = [...inside.querySelectorAll('.scrolls:has(> .books)')].filter(each =>"
        " each.scrollWidth > each.clientWidth);"
        "const style = each => frame.contentWindow.getComputedStyle(each);"
        "const small = [...inside.querySelectorAll('.scrolls > svg, .many svg')].filter(each =>"
        " each.getClientRects().length &&"
        " parseFloat(style(each).fontSize) * each.getScreenCTM().a < 11);"
        "const names = some => some.map(each => each.tagName + '.' + each.className).join(' ');"
        "document.title = [root.scrollWidth, root.clientWidth, inside.styleSheets.length,"
        " frame.contentWindow.matchMedia('(prefers-color-scheme: dark)').matches,"
        " style(inside.body).backgroundColor,"
        " names(wide), names(cut), small.length].join('|');"
    )
    frame.write_text(
        '<!doctype html><meta name="color-scheme" content="light dark">'
        f'<iframe id="frame" style="width:{width}px;height:900px;border:0"'
        f' onload="{html.escape(measure)}" srcdoc="{html.escape(text)}"></iframe>',
        encoding="utf-8",
    )
    assert CHROMIUM
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme][0]}",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,1000",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return title.group(1).split("|") if title else [], "\n".join(complaints)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("made", ["full", "violated", "hostile", "200 processes", "nothing"])
def test_a_browser_shows_it_without_complaint_and_without_scrolling_sideways(
    tmp_path: Path, made: str, width: int, scheme: str
) -> None:
    """Nor without small letters or a cut table of the books, in the colours that are asked for."""
    if not CHROMIUM:
        pytest.skip("SKIPPED: nobody looks at the page without chromium")
    measures, complaints = _looked_at(tmp_path, page(RUNS[made]), width, scheme)
    assert not complaints
    scroll, window, styles, dark, paper, wide, cut, small = measures
    assert styles == "1"
    assert (dark, paper) == SCHEMES[scheme][1:]
    assert int(scroll) <= int(window) <= width
    assert not wide
    assert not cut
    assert small == "0"
