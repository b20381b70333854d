"""A run as one HTML file with pictures: `write(path, run)`.

It needs no network and runs no script, and its content security policy forbids both. All text of
a run is hostile: it reaches the page through `markup` alone, which escapes it.

    page         the whole, and how it is written
    markup       elements; text that is not markup is escaped
    figures      numbers, durations and shares as people read them
    scale        from values to places in a picture, and the ticks of an axis
    chart        what all pictures share: title and description, axes, legends, boxes that scroll
    summary      the verdict, first of all, and the figures that carry it
    violations   what was found wrong, with the shortest history that shows it
    scenarios    every scenario: its verdict, invariant and figures
    books        acknowledged, lost, unheard, cut off
    excerpt      which part of a long run a picture of it shows
    lanes        who held the lock when
    tokens       the fencing tokens over time
    latency      the quantiles of each operation
    throughput   operations per second, with the faults
    grid         faults x primitives
    mutants      broken twins x scenarios
    machine      where it ran
"""

from stress.page.page import write

__all__ = ["write"]
