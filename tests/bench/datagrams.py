#!/usr/bin/env python3
# SPDX-License-Identifier: ISC
"""make bench-datagrams: datagrams per server CPU second against two plain loops; see tests/bench/local.mk, and --help.

Server and client have a processor each. A round measures each server once, one right after the other, and each round begins
with another one. Ratios are of measurements of the same round: their median, and their quartiles.
"""
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import command
import cost
import servers
import stats
import where

GOAL = 0.95


@dataclass(frozen=True)
class Scenario:
    key: str
    title: str
    size: int
    window: int
    segments: int = 1

    @property
    def yardstick(self):
        return "plain segments" if self.segments > 1 else "plain messages"


SCENARIOS = [
    Scenario("one", "64 B, 1 in flight", 64, 1),
    Scenario("deep32", "64 B, 32 in flight", 64, 32),
    Scenario("deep256", "64 B, 256 in flight", 64, 256),
    Scenario("full", "1400 B, 32 in flight", 1400, 32),
    Scenario("segments", "1400 B, 40 by one call, 320 in flight", 1400, 320, 40),
    Scenario("smallsegments", "64 B, 40 by one call, 320 in flight", 64, 320, 40),
]


class Datagrams:
    """A UDP server, which is ready when it answers a datagram."""

    def wait_ready(self, server):
        until = time.monotonic() + servers.START_WITHIN
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((server.host, server.port))
            probe.settimeout(0.05)
            while time.monotonic() < until:
                try:
                    probe.send(b"?")
                    if probe.recv(10) == b"?":
                        return
                except (ConnectionRefusedError, TimeoutError):
                    if server.process.poll() is not None:
                        raise servers.Unfit(f"it ended at once: {server.last_message()}") from None
                    time.sleep(0.01)
        raise servers.Unfit("it did not answer")


class Model(Datagrams, servers.Contestant):
    def __init__(self, name, program, more):
        super().__init__(name)
        self.program, self.more = program, more

    def command(self, scenario, port, directory):
        file = os.path.join(directory, f"{self.name}.conf")
        Path(file).write_text(
            f'model = "{self.name.split()[-1]}"\nworkers = 1\nlisten = {{"{self.host}:{port}"}}\nprotocols = {{"udp"}}\n'
            f'udp-rate = 0\npidfile = ""\nlog-target = "stderr"\ndrain-timeout = 1\n{self.more}', encoding="ascii")
        return [self.program, "-n", "-c", file]


class Yardstick(Datagrams, servers.Contestant):
    def __init__(self, name, program, *words):
        super().__init__(name)
        self.program, self.words = program, words

    def command(self, scenario, port, directory):
        return [self.program, str(port), *self.words]


def measure(contestant, scenario, options, cpus, directory):
    """One round of one server: datagrams per CPU second and per second, the server's share of its processor, and lost datagrams."""
    with contestant.start(scenario, cpus[0], directory) as server:
        command = [options.load, str(server.port), str(scenario.size), str(scenario.window), str(scenario.segments),
                   str(options.warmup), str(options.seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                              preexec_fn=lambda: os.sched_setaffinity(0, {cpus[1]})) as client:
            marks = []
            for word in ("begin", "end"):
                if not select.select([client.stdout], [], [], options.warmup + options.seconds + 20)[0]:
                    client.kill()
                    raise servers.Unfit("the client did not end")
                marks.append((time.monotonic(), cost.cpu_seconds(server.pid)))
                line = client.stdout.readline()
                if not line.startswith(word):
                    raise servers.Unfit(f"the client failed: {line}")
        (began, before), (ended, after) = marks
        answered, lost = map(int, line.split()[1:])
    if answered == 0 or after <= before:
        raise servers.Unfit("nothing came back while measuring")
    return {"per_cpu_second": answered / (after - before), "rate": answered / (ended - began),
            "server_share": (after - before) / (ended - began), "lost": lost}


def parse():
    parser = command.parser("Measure echod's datagrams against two plain loops.", "echod", "yardstick", "load")
    parser.add_argument("--models", type=command.names, default=["epoll"], help="names, separated by commas")
    parser.add_argument("--other", metavar="ECHOD", help="another echod to measure, such as an older one")
    parser.add_argument("--conf", default="", help="more lines of echod.conf")
    parser.add_argument("--scenarios", type=command.names, default=[each.key for each in SCENARIOS],
                        help="some of " + ", ".join(each.key for each in SCENARIOS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--warmup", type=float, default=0.3, help="seconds before it")
    return parser.parse_args()


def main():
    options = parse()
    cpus = cost.processors()
    if cpus is None:
        sys.exit("bench: two processors are needed, one for the server and one for the client")
    unknown = set(options.scenarios) - {each.key for each in SCENARIOS}
    if unknown:
        sys.exit(f"bench: there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(each.key for each in SCENARIOS)}")
    os.makedirs(options.output, exist_ok=True)
    os.sched_setaffinity(0, {cpus[1]})
    models = [Model(name, os.path.abspath(options.echod), options.conf) for name in options.models]
    if options.other:
        models += [Model(f"other {name}", os.path.abspath(options.other), options.conf) for name in options.models]
    yardsticks = {"plain messages": Yardstick("plain messages", options.yardstick),
                  "plain segments": Yardstick("plain segments", options.yardstick, "segments")}
    missed, data = 0, {"machine": where.machine(), "load_average": os.getloadavg(), "scenarios": {}}
    print(f"  {data['machine']}")
    with tempfile.TemporaryDirectory(prefix="echod-bench-") as directory:
        for scenario in (each for each in SCENARIOS if each.key in options.scenarios):
            taking = [yardsticks[scenario.yardstick], *models]
            rounds = {each.name: [] for each in taking}
            for number in range(options.rounds):
                first = number % len(taking)
                for each in taking[first:] + taking[:first]:
                    rounds[each.name].append(measure(each, scenario, options, cpus, directory))
            data["scenarios"][scenario.key] = rounds
            plain = rounds[scenario.yardstick]
            print(f"{scenario.title}: {scenario.yardstick} {statistics.median(r['per_cpu_second'] for r in plain):,.0f} "
                  f"datagrams per CPU second, {statistics.median(r['server_share'] for r in plain) * 100:.0f} % of its processor")
            for each in models:
                found = rounds[each.name]
                ratio = stats.summarize([a["per_cpu_second"] / b["per_cpu_second"] for a, b in zip(found, plain)])
                reached = ratio.median >= GOAL
                missed += not reached and not each.name.startswith("other ")
                print(f"  {each.name}: {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), "
                      f"{statistics.median(r['per_cpu_second'] for r in found):,.0f} per CPU second, lost "
                      f"{sum(r['lost'] for r in found)}: {'reached' if reached else 'MISSED'} {GOAL}")
    path = os.path.join(options.output, "datagrams.json")
    Path(path).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(f"{path} has every round.")
    return 1 if missed else 0


if __name__ == "__main__":
    command.run(main)
