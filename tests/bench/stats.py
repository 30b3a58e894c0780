# SPDX-License-Identifier: ISC
"""Medians with their spreads, and ranks of values whose spreads do not overlap."""
import statistics
from dataclasses import dataclass

QUARTILES_FROM = 5  # rounds; with fewer the spread is from the least to the most


@dataclass(frozen=True)
class Summary:
    median: float
    low: float
    high: float
    rounds: int

    def overlaps(self, other):
        return self.low <= other.high and other.low <= self.high


def summarize(values):
    values = sorted(values)
    if len(values) >= QUARTILES_FROM:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    else:
        low, high = values[0], values[-1]
    return Summary(statistics.median(values), low, high, len(values))


def spread_name(rounds):
    return "quartiles" if rounds >= QUARTILES_FROM else "least to most"


def ranks(summaries, least_is_best=True):
    """name → (best rank it can have, worst rank it can have). Summaries whose spreads overlap are not
    ranked against each other and have the same ranks."""
    def beats(one, other):
        return one.high < other.low if least_is_best else one.low > other.high

    found = {}
    for name, summary in summaries.items():
        before = sum(beats(other, summary) for key, other in summaries.items() if key != name)
        behind = sum(beats(summary, other) for key, other in summaries.items() if key != name)
        found[name] = (1 + before, len(summaries) - behind)
    return found


def rank_text(rank):
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}"


def number(value):
    """The value with two decimal places below 10, one below 100, and none from 100 on."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def spread_text(summary):
    return f"{number(summary.median)} [{number(summary.low)}–{number(summary.high)}]"
