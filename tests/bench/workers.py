#!/usr/bin/env python3
# SPDX-License-Identifier: ISC
"""make bench-workers: event loops with one and with several workers; see tests/bench/local.mk, and --help.

Echoes per second with each number of workers, and how evenly connections are spread over them. Server and client share all
processors. A round measures each number of workers once, one right after the other, and each round begins with another one.
Ratios are of measurements of the same round.
"""
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import command
import cost
import servers
import stats
import where
from load import Scenario

CONNECTIONS = 50  # for each worker, while the balance is measured
PATIENCE = 20     # seconds until the metrics file shows all connections


class Model(servers.Model):
    def __init__(self, name, program, count):
        super().__init__(name, program, None)
        self.count = count

    def workers(self, scenario):
        return self.count

    def command(self, scenario, port, directory):
        command = super().command(scenario, port, directory)
        with open(command[-1], "a", encoding="ascii") as file:
            file.write(f'stats-interval = 1\nlog-connections = false\nmetrics-file = "{directory}/metrics"\n')
        return command


def echoes(contestant, scenario, options, directory):
    """One round: echoes per second, and the number of processors that the server used on average."""
    with contestant.start(scenario, os.sched_getaffinity(0), directory) as server:
        command = [options.echoc, "--load", "--json", "-q", "-d", f"{options.seconds}", "--warmup", f"{options.warmup}",
                   *scenario.arguments(), server.host, str(server.port)]
        before = cost.cpu_seconds(server.pid)
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds + options.warmup + 60, check=False)
        used = cost.cpu_seconds(server.pid) - before
    if done.returncode != 0:
        raise servers.Unfit(f"echoc ended with {done.returncode}: {done.stderr.strip() or done.stdout[-200:]}")
    report = json.loads(done.stdout)
    return {"rate": report["echoes"] / report["seconds"], "server_share": used / (report["seconds"] + options.warmup)}


def balance(contestant, pause, directory):
    """The number of connections of each worker, of clients that connect `pause` seconds apart."""
    count = contestant.count * CONNECTIONS
    with contestant.start(Scenario("", "", "", count), os.sched_getaffinity(0), directory) as server:
        socks = []
        for _ in range(count):
            socks.append(socket.create_connection((server.host, server.port)))
            time.sleep(pause)
        until = time.monotonic() + PATIENCE
        found = []
        while sum(found) != count:
            if time.monotonic() > until:
                raise servers.Unfit(f"the metrics file shows {sum(found)} of {count} connections")
            time.sleep(0.1)
            text = Path(directory, "metrics").read_text(encoding="ascii") if Path(directory, "metrics").exists() else ""
            found = [int(number) for number in re.findall(r'^echod_worker_connections{.*} (\d+)$', text, re.M)]
        for sock in socks:
            sock.close()
    return found


def parse():
    parser = command.parser("Measure event loops with one and with several workers.", "echod", "echoc", short="short rounds")
    parser.add_argument("--models", type=command.names, default=["epoll", "io_uring", "poll", "select"],
                        help="names, separated by commas")
    parser.add_argument("--workers", type=lambda text: [int(word) for word in text.split(",")], default=[1, 2],
                        help="numbers of workers, separated by commas; the first one is what the others are compared with")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one measurement")
    parser.add_argument("--warmup", type=float, help="seconds before it")
    options = parser.parse_args()
    for name, long, short in ("rounds", 7, 3), ("seconds", 1.5, 0.25), ("warmup", 0.4, 0.1):
        if getattr(options, name) is None:
            setattr(options, name, short if options.short else long)
    return options


def measure(name, options, directory):
    """Print the results of one model, and return all rounds."""
    taking = [Model(name, os.path.abspath(options.echod), count) for count in options.workers]
    scenario = Scenario("rr50", "64 B, 50 connections", "", 50)
    rounds = {each.count: [] for each in taking}
    for number in range(options.rounds):
        first = number % len(taking)
        for each in taking[first:] + taking[:first]:
            rounds[each.count].append(echoes(each, scenario, options, directory))
    for each in taking:
        found = rounds[each.count]
        rate = stats.summarize([one["rate"] for one in found])
        ratio = stats.summarize([a["rate"] / b["rate"] for a, b in zip(found, rounds[taking[0].count])])
        print(f"  {name}, workers = {each.count}: {rate.median:,.0f} echoes/s ({rate.low:,.0f} to {rate.high:,.0f}), "
              f"{ratio.median:.2f} times workers = {taking[0].count} ({ratio.low:.2f} to {ratio.high:.2f})")
    spread = {}
    for each in taking:
        if each.count > 1:
            for title, pause in ("one by one", 0.002), ("at once", 0):
                found = balance(each, pause, directory)
                spread[f"{each.count} {title}"] = found
                off = max(abs(one - CONNECTIONS) for one in found) / CONNECTIONS
                print(f"  {name}, workers = {each.count}, connections {title}: {' / '.join(map(str, found))}, at most "
                      f"{off * 100:.0f} % from the mean")
    return {"rounds": rounds, "balance": spread}


def main():
    options = parse()
    os.makedirs(options.output, exist_ok=True)
    data = {"machine": where.machine(), "load_average": os.getloadavg(), "models": {}}
    print(f"  {data['machine']}; 64 B, 50 connections, {options.rounds} rounds of {options.seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="echod-bench-") as directory:
        for name in options.models:
            try:
                data["models"][name] = measure(name, options, directory)
            except servers.Unfit as why:
                data["models"][name] = {"unfit": str(why)}
                print(f"  {name}: not measured: {why}")
    path = os.path.join(options.output, "workers.json")
    Path(path).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(f"{path} has every round.")
    return 1 if all("unfit" in found for found in data["models"].values()) else 0


if __name__ == "__main__":
    command.run(main)
