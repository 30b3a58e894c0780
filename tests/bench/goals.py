# SPDX-License-Identifier: ISC
"""The goals: bounds of ratios that io_uring and epoll must reach, measured in one interleaved run.

Each ratio is of two measurements of the same round; the results are its median over the rounds and its spread.
"""
from dataclasses import dataclass

import stats

PLAIN = "plain loop"


@dataclass(frozen=True)
class Goal:
    text: str
    name: str
    scenario: str
    reference: str
    reference_scenario: str
    bound: float
    at_least: bool = True

    @property
    def pair(self):
        return (self.name, self.scenario), (self.reference, self.reference_scenario)


def against_plain(text, name, scenario, bound):
    return Goal(f"{name}, {text}: echoes per server CPU second against the plain loop", name, scenario, PLAIN, scenario, bound)


def against_itself(name):
    return Goal(f"{name}, 50 connections among 5000 idle ones: CPU per echo against the same without them",
                name, "idle5000", name, "rr50", 1.1, False)


def not_behind(other):
    """The goals of io_uring against the server with the name `other`."""
    return [Goal(f"io_uring, {text}: echoes per server CPU second against {other}", "io_uring", key, other, key, 1.0)
            for key, text in (("rr50", "64 B, 50 connections"), ("rr1000", "64 B, 1000 connections"),
                              ("pipe16", "64 B, 16 in flight"))]


GOALS = [
    against_plain("64 B, 50 connections", "io_uring", "rr50", 1.5),
    against_plain("64 B, 1000 connections", "io_uring", "rr1000", 1.5),
    against_plain("64 B, 16 in flight", "io_uring", "pipe16", 1.5),
    against_plain("64 B, 50 connections", "epoll", "rr50", 0.95),
    against_plain("64 B, 1000 connections", "epoll", "rr1000", 0.95),
    against_plain("64 B, 16 in flight", "epoll", "pipe16", 0.95),
    against_plain("bulk, 8 streams (64 KiB)", "epoll", "stream8", 2.2),
    against_plain("bulk, 8 streams (64 KiB)", "io_uring", "stream8", 2.2),
    against_plain("connect, echo, close", "epoll", "connect", 0.95),
    against_plain("connect, echo, close", "io_uring", "connect", 0.95),
    against_itself("epoll"),
    against_itself("io_uring"),
]


def plan(wanted):
    """The measurements of one round, with those of the same scenario one after the other."""
    found = []
    for goal in wanted:
        for each in goal.pair:
            if each not in found:
                found.append(each)
    return sorted(found, key=lambda each: [goal.scenario for goal in GOALS].index(each[1]))


def evaluate(goal, rounds):
    """The result of a goal, for lines() and goals.json. `rounds`: (name, scenario) → one measurement for each round, None where
    it failed."""
    one, other = (rounds.get(key, []) for key in goal.pair)
    field = "per_cpu_second" if goal.at_least else "cost_us"
    ratios = [a[field] / b[field] for a, b in zip(one, other) if a and b]
    if not ratios:
        return {"goal": goal.text, "bound": goal.bound, "at_least": goal.at_least, "reached": None}
    ratio = stats.summarize(ratios)
    good = (lambda value: value >= goal.bound) if goal.at_least else (lambda value: value <= goal.bound)
    return {"goal": goal.text, "bound": goal.bound, "at_least": goal.at_least, "ratio": ratio.median, "low": ratio.low,
            "high": ratio.high, "least": min(ratios), "most": max(ratios), "rounds": len(ratios),
            "reached": good(ratio.median), "clearly": good(ratio.low) == good(ratio.high)}


def lines(verdicts, rounds):
    yield f"  ratio  [{stats.spread_name(rounds)}]  goal"
    for each in verdicts:
        sign = "≥" if each["at_least"] else "≤"
        if each["reached"] is None:
            yield f"      -                 {sign} {each['bound']:.2f}  NOT MEASURED  {each['goal']}"
            continue
        word = ("reached" if each["reached"] else "MISSED") + ("" if each["clearly"] else ", barely: the spread spans the goal")
        yield (f"  {each['ratio']:5.2f}  [{each['low']:.2f}–{each['high']:.2f}]     {sign} {each['bound']:.2f}  "
               f"{word}  {each['goal']}")
