#!/usr/bin/env python3
# SPDX-License-Identifier: ISC
"""make bench and make bench-goals: see tests/bench/local.mk, and --help."""
import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import datetime

import command
import cost
import goals
import lesson
import load
import page
import servers
import table
import where
from load import SCENARIOS, Timing
from servers import Unfit

# Rounds, seconds and warm-up of one measurement.
LONG, SHORT = Timing(3, 1.0, 0.3), Timing(3, 0.15, 0.05)
GOALS_LONG, GOALS_SHORT = Timing(9, 2.0, 0.5), Timing(3, 0.4, 0.15)


def die(text):
    sys.exit(f"bench: {text}")


def other(text):
    name, _, command = text.partition("=")
    if not name.strip() or "{port}" not in command:
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=COMMAND with {{port}} in the command')
    return servers.Other(name.strip(), shlex.split(command))


def parse():
    parser = argparse.ArgumentParser(description="Measure echod's models, other echo servers and a plain loop.")
    for name in ("echod", "echoc", "yardstick"):
        parser.add_argument(f"--{name}", required=True, help="the program")
    parser.add_argument("--output", default="bench", help="directory of the results")
    parser.add_argument("--goals", action="store_true", help="measure the goals, and nothing else")
    parser.add_argument("--short", action="store_true", help="short rounds")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of servers, separated by commas")
    parser.add_argument("--scenarios", type=lambda text: text.split(","),
                        help="some of " + ", ".join(each.key for each in SCENARIOS) + ", memory")
    parser.add_argument("--other", type=other, action="append", default=[], metavar="NAME=COMMAND",
                        help="another echo server to measure, with {port} in its command; with --goals, io_uring must reach "
                             "its echoes per CPU second")
    parser.add_argument("--engine", choices=("auto", "io_uring", "epoll"), default="auto", help="of the client")
    parser.add_argument("--congestion", metavar="NAME",
                        help="measure with this congestion control, in a new network namespace (needs root)")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one measurement")
    parser.add_argument("--warmup", type=float, help="seconds before it")
    parser.add_argument("--redraw", action="store_true", help="make the table and the page again from bench.json")
    return parser.parse_args()


def choose_timing(options):
    standard = {(False, False): LONG, (False, True): SHORT, (True, False): GOALS_LONG, (True, True): GOALS_SHORT}
    timing = standard[options.goals, options.short]
    timing = Timing(options.rounds or timing.rounds, options.seconds or timing.seconds,
                    timing.warmup if options.warmup is None else options.warmup)
    if timing.rounds < 1 or timing.seconds < 0.01 or timing.warmup < 0:
        die("--rounds takes 1 or more, --seconds 0.01 or more, --warmup 0 or more")
    return timing


def choose(wanted, known, what):
    for name in wanted or []:
        if name not in known:
            die(f'there is no {what} "{name}"; there are {", ".join(known)}')
    return [name for name in known if wanted is None or name in wanted]


class Bench:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.timing = choose_timing(options)
        self.cpus = cost.processors()
        if self.cpus is None:
            die("two processors are needed, one for the server and one for the client, and only one may be used here")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # This program shares the client's processor: it must not disturb the server.
        os.sched_setaffinity(0, {self.cpus[1]})
        self.limits = (soft, hard)
        self.known = servers.contestants(os.path.abspath(options.echod), os.path.abspath(options.yardstick))
        self.known += options.other
        self.goals = goals.GOALS + [goal for each in options.other for goal in goals.not_behind(each.name)]
        names = choose(options.only, [each.name for each in self.known], "server")
        self.absent = {each.name: each.absent() for each in self.known if each.name in names and each.absent()}
        self.taking = [each for each in self.known if each.name in names and each.name not in self.absent]
        keys = choose(options.scenarios, [each.key for each in SCENARIOS] + ["memory"], "scenario")
        self.scenarios = [each for each in SCENARIOS if each.key in keys]
        self.with_memory = "memory" in keys
        self.rounds, self.unfit, self.memory, self.lesson = {}, {}, {}, {}
        self.engine = options.engine
        self.began = time.monotonic()

    def say(self, text):
        """Show the progress on a line of the terminal, which the next call replaces."""
        if sys.stderr.isatty():
            print(f"\r{time.monotonic() - self.began:6.0f} s  {text}\033[K", end="", file=sys.stderr, flush=True)

    def clear(self):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def left_out(self, contestant, scenario):
        if self.options.short and scenario.held > 2000 and contestant.name == "process":
            return f"{scenario.held} processes take too long for the short mode"
        if self.options.short and contestant.kind == "peer" and not self.options.only and contestant not in self.options.other:
            return "the short mode leaves out other echo servers"
        return contestant.unfit(scenario)

    def measure(self, contestant, scenario):
        """Measure one round. Returns None if it cannot be measured, with the reason in `unfit`."""
        try:
            found = load.measure(contestant, scenario, self.timing, self.options, self.cpus, self.directory)
        except Unfit as why:
            self.unfit.setdefault(scenario.key, {})[contestant.name] = str(why)
            return None
        self.engine = found["engine"]
        return found

    def run_scenario(self, scenario):
        taking = []
        self.unfit.setdefault(scenario.key, {})
        self.rounds[scenario.key] = {}
        for contestant in self.taking:
            why = self.left_out(contestant, scenario)
            if why:
                self.unfit[scenario.key][contestant.name] = why
            else:
                taking.append(contestant)
                self.rounds[scenario.key][contestant.name] = []
        failures = dict.fromkeys(self.rounds[scenario.key], 0)
        for number in range(self.timing.rounds):
            # Each round begins with another server, so that none is always the first one.
            first = number % len(taking) if taking else 0
            for contestant in taking[first:] + taking[:first]:
                if failures[contestant.name] > 1:
                    continue  # two rounds have failed
                self.say(f"{scenario.title}: round {number + 1} of {self.timing.rounds}, {contestant.name}")
                found = self.measure(contestant, scenario)
                if found:
                    self.rounds[scenario.key][contestant.name].append(found)
                failures[contestant.name] += found is None

    def run_memory(self):
        self.unfit["memory"] = {}
        for contestant in self.taking:
            held = load.held_for(contestant.name, self.options.short)
            why = contestant.unfit(held)
            if why is None:
                self.say(f"memory: {contestant.name}")
                try:
                    self.memory[contestant.name] = load.memory(contestant, held, self.cpus, self.directory)
                except Unfit as reason:
                    why = str(reason)
            if why:
                self.unfit["memory"][contestant.name] = why

    def run(self):
        try:
            if self.with_memory:
                self.run_memory()
            for scenario in self.scenarios:
                self.run_scenario(scenario)
            if not self.options.scenarios:
                self.say("clients after a crash, a second client, and the limit of select and epoll")
                self.lesson = lesson.measure([each for each in self.taking if each.kind == "model"], self.directory, self.cpus[0])
        finally:
            self.clear()

    def run_goals(self):
        """Measure all rounds of the goals: (name, scenario) → one measurement for each round."""
        scenarios = {each.key: each for each in self.scenarios}
        taking = {each.name: each for each in self.taking}
        wanted = [goal for goal in self.goals
                  if all(name in taking and key in scenarios for name, key in goal.pair)]
        plan = goals.plan(wanted)
        rounds = {each: [] for each in plan}
        try:
            for number in range(self.timing.rounds):
                for name, key in plan if number % 2 == 0 else reversed(plan):
                    self.say(f"round {number + 1} of {self.timing.rounds}: {scenarios[key].title}, {name}")
                    rounds[name, key].append(self.measure(taking[name], scenarios[key]))
        finally:
            self.clear()
        return rounds

    def facts(self):
        version = subprocess.run([self.options.echod, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
        return {
            "version": version, "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": where.machine(),
            "command": "make " + ("bench-goals" if self.options.goals else "bench") + (" BENCH_SHORT=1" if self.options.short else "")
                       + flags_text(),
            "processors": list(self.cpus), "engine": self.engine, "load_average": os.getloadavg(),
            "took_seconds": round(time.monotonic() - self.began, 1),
            "rounds_wanted": self.timing.rounds, "seconds": self.timing.seconds, "warmup": self.timing.warmup,
            "contestants": [{"name": each.name, "kind": each.kind} for each in self.known],
            "absent": self.absent,
        }


def flags_text():
    """The argument BENCH_FLAGS of make, from the command line; "" if it was empty."""
    own, words, skip = {"--echod", "--echoc", "--yardstick", "--output"}, [], False
    for word in sys.argv[1:]:
        if skip:
            skip = False
        elif word in own:
            skip = True
        elif word not in ("--goals", "--short"):
            words.append(shlex.quote(word))
    return f" BENCH_FLAGS={shlex.quote(' '.join(words))}" if words else ""


def save(data, path):
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1, ensure_ascii=False)
        file.write("\n")
    os.replace(path + ".tmp", path)


def report(data, output):
    results = table.Results(data)
    print("\n".join(table.lines(results)))
    page.write(results, os.path.join(output, "index.html"))
    page.write_overview(results, os.path.join(output, "overview.svg"))
    print(f"\n{output}/index.html has the plots, {output}/bench.json every round; it took {data['took_seconds']:.0f} s.")


def run_all(bench, output):
    interrupted = False
    try:
        bench.run()
    except KeyboardInterrupt:
        interrupted = True
    if not any(rounds for names in bench.rounds.values() for rounds in names.values()) and not bench.memory:
        for key, names in bench.unfit.items():
            for name, why in names.items():
                print(f"bench: {key}, {name}: {why}", file=sys.stderr)
        die("nothing could be measured")
    data = bench.facts()
    data |= {"interrupted": interrupted, "scenarios": [asdict(each) | {"unit": each.unit, "units": each.units} for each in SCENARIOS],
             "rounds": bench.rounds, "unfit": bench.unfit, "memory": bench.memory}
    save(data, os.path.join(output, "bench.json"))
    if bench.lesson:
        save(bench.lesson, os.path.join(output, "lesson.json"))
    report(data, output)
    return 130 if interrupted else 0


def run_goals(bench, output):
    rounds = bench.run_goals()
    verdicts = [goals.evaluate(goal, rounds) for goal in bench.goals]
    data = bench.facts()
    data |= {"goals": verdicts, "unfit": bench.unfit,
             "rounds": {f"{name} {key}": found for (name, key), found in rounds.items()}}
    save(data, os.path.join(output, "goals.json"))
    print(f"  {data['machine']}")
    print("\n".join(goals.lines(verdicts, bench.timing.rounds)))
    for key, names in bench.unfit.items():
        for name, why in names.items():
            print(f"{name}, {key}: {why}")
    others = max((each["others_share"] for found in rounds.values() for each in found if each), default=0)
    if others > 0.1:
        print(f"OTHER PROGRAMS USED the server's processor up to {others * 100:.0f} % of the time: measure again when it is idle.")
    missed = sum(not each["reached"] for each in verdicts)
    print(f"{len(verdicts) - missed} of {len(verdicts)} goals reached, in {bench.timing.rounds} rounds of "
          f"{bench.timing.seconds:g} s; it took {data['took_seconds']:.0f} s. {output}/goals.json has every round.")
    return 1 if missed else 0


def main():
    options = parse()
    os.makedirs(options.output, exist_ok=True)
    if options.redraw:
        with open(os.path.join(options.output, "bench.json"), encoding="utf-8") as file:
            report(json.load(file), options.output)
        return 0
    if options.congestion:
        try:
            where.own_network(options.congestion)
        except OSError as error:
            die(error.strerror)
    with tempfile.TemporaryDirectory(prefix="echod-bench-") as directory:
        bench = Bench(options, directory)
        return (run_goals if options.goals else run_all)(bench, options.output)


if __name__ == "__main__":
    command.run(main)
