"""Figures: kvsync beside its peers, measured in one run on one machine.

    python -m benchmarks                          everything: tables as they come, targets
    python -m benchmarks --only counter --rounds 9 --markdown figures.md

peers/      the sides: how each counts, maps, locks and queues, at its own default setting
crew        worker processes that stand ready and are let go together
rounds      rounds in turn over all sides, medians, spreads and ratios
machine     what it ran on
report      tables, targets, their Markdown and JSON
counter, mapping, scale, locks, queues    one benchmark each
"""
