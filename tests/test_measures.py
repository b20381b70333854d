"""What is measured of a run: exact while it is short, bounded when it is long."""

import pytest

from stress.history import History, of_thread
from stress.measures import KEPT, QUANTILES, SLICES, SPANS, Latencies, Spans, Throughput
from stress.record import Span
from tests.histories import failed, ok, unknown

pytestmark = pytest.mark.suite

A, B = 1, 2
SECOND = 1_000_000_000


def calls(durations: range) -> History:
    return [ok(A, (0, duration), "read") for duration in durations]


def test_quantiles_of_few_calls_are_exact() -> None:
    latencies = Latencies("seed")
    latencies.look(calls(range(1, 1001)))
    (read,) = latencies.told()
    assert (read.operation, read.calls) == ("read", 1000)
    assert {share: round(time * SECOND) for share, time in read.quantiles.items()} == {
        0.5: 501,
        0.9: 901,
        0.99: 991,
        0.999: 1000,
        1.0: 1000,
    }


def test_of_many_calls_a_sample_is_kept_that_the_seed_decides() -> None:
    """The longest is exact even so, and quantiles are near."""
    told = []
    for _ in range(2):
        latencies = Latencies("seed")
        latencies.look(calls(range(5 * KEPT)))
        told += latencies.told()
    assert told[0] == told[1]
    assert told[0].calls == 5 * KEPT
    assert told[0].quantiles[1.0] * SECOND == pytest.approx(5 * KEPT - 1)
    assert told[0].quantiles[0.5] * SECOND == pytest.approx(2.5 * KEPT, rel=0.1)
    assert list(told[0].quantiles) == list(QUANTILES)


def test_calls_of_unknown_outcome_have_no_latency() -> None:
    latencies = Latencies("seed")
    latencies.look([unknown(A, 0, "read"), failed(A, 0, "read")])
    assert latencies.told() == ()


def test_every_operation_is_in_one_slice() -> None:
    throughput = Throughput()
    for second in range(11):
        throughput.add(second * SECOND, second * 7)
    rate = throughput.rate()
    assert rate is not None
    assert (rate.began, rate.width, rate.counts) == (0, 1.0, (7,) * 10)


def test_a_long_run_has_as_many_slices_as_can_be_shown_and_loses_none_of_its_operations() -> None:
    throughput = Throughput()
    for moment in range(50_000):
        throughput.add(moment * SECOND, moment * 3)
    rate = throughput.rate()
    assert rate is not None
    assert len(rate.counts) == SLICES
    assert max(rate.counts) - min(rate.counts) <= 3
    assert sum(rate.counts) == pytest.approx(150_000, rel=0.01)


def test_a_run_that_did_nothing_has_no_rate() -> None:
    throughput = Throughput()
    assert throughput.rate() is None
    for moment in range(3):
        throughput.add(moment, 0)
    assert throughput.rate() is None


def test_a_stay_lasts_from_the_return_of_acquire_to_the_next_release() -> None:
    """Whatever came of the release; without one, its process was killed inside."""
    spans = Spans()
    spans.look(
        "turn",
        [
            ok(A, (1, 2), "acquire", None, 7),
            failed(B, 2, "acquire"),
            ok(A, (4, 5), "release"),
            ok(B, (6, 7), "acquire", None, 8),
            unknown(A, 8, "acquire"),
        ],
    )
    assert spans.told() == (Span("turn", A, 7, 2, 4), Span("turn", B, 8, 7, None))


def test_a_stay_that_was_begun_again_inside_lasts_to_the_outermost_release() -> None:
    """Under its first token; what nobody heard of was not begun."""
    spans = Spans()
    spans.look(
        "turn",
        [
            ok(A, (1, 2), "acquire", None, 7),
            ok(A, (3, 4), "acquire", None, 7),
            ok(A, (5, 6), "release"),
            ok(A, (7, 8), "acquire", None, 7),
            ok(A, (9, 10), "release"),
            unknown(A, 11, "release"),
            ok(B, (12, 13), "acquire", None, 8),
            ok(B, (14, 15), "acquire", None, 8),
            ok(B, (16, 17), "release"),
        ],
    )
    assert spans.told() == (Span("turn", A, 7, 2, 11), Span("turn", B, 8, 13, None))


def test_a_stay_with_permits_lasts_until_all_of_them_are_back() -> None:
    """A wait that was in vain begins none."""
    spans = Spans()
    spans.look(
        "permits",
        [
            ok(A, (1, 2), "acquire", 3, True),
            ok(A, (3, 4), "release", 1),
            ok(B, (4, 5), "acquire", 2, False),
            ok(A, (5, 6), "release", 2),
            ok(A, (7, 8), "acquire", None, True),
            ok(A, (9, 10), "release"),
        ],
    )
    assert spans.told() == (Span("permits", A, None, 2, 5), Span("permits", A, None, 8, 9))


def test_who_reads_is_told_from_who_writes_and_a_downgrade_makes_one_of_the_other() -> None:
    spans = Spans()
    spans.look(
        "pages",
        [
            ok(A, (1, 2), "write"),
            ok(A, (3, 5), "downgrade"),
            ok(B, (4, 6), "read"),
            ok(A, (7, 8), "release"),
            ok(A, (9, 10), "write"),
        ],
    )
    assert spans.told() == (
        Span("pages", A, None, 2, 3, side="write"),
        Span("pages", A, None, 5, 7, side="read"),
        Span("pages", B, None, 6, None, side="read"),
        Span("pages", A, None, 10, None, side="write"),
    )


def test_a_downgrade_that_nobody_heard_of_ends_the_stay() -> None:
    spans = Spans()
    history = [ok(A, (1, 2), "write"), unknown(A, 3, "downgrade"), unknown(B, 4, "release")]
    spans.look("pages", history)
    assert spans.told() == (Span("pages", A, None, 2, 3, side="write"),)


@pytest.mark.parametrize("function", ["read", "acquire"])
def test_nobody_is_inside_of_what_nobody_gives_back(function: str) -> None:
    """A counter is read, and a rate limiter's units are used up."""
    spans = Spans()
    spans.look("hits", [ok(A, (1, 2), function, None, 7), ok(B, (3, 4), function, None, 8)])
    assert spans.told() == ()


def test_a_thread_has_stays_of_its_own() -> None:
    spans = Spans()
    spans.look(
        "turn",
        [
            ok(A, (1, 2), "acquire", None, 7),
            ok(A, (3, 4), "release"),
            ok(of_thread(A, 1), (5, 6), "acquire", None, 8),
        ],
    )
    assert spans.told() == (Span("turn", A, 7, 2, 3), Span("turn", A, 8, 6, None, thread=1))


def test_the_latest_stays_are_kept_in_whatever_order_they_come() -> None:
    spans = Spans()
    for began in (*range(SPANS, 3 * SPANS), *range(SPANS)):
        spans.add(Span("turn", A, began, began, began + 1))
    assert [span.began for span in spans.told()] == [*range(2 * SPANS, 3 * SPANS)]
