#!/usr/bin/env python3
# SPDX-License-Identifier: ISC
"""make bench-curves: how the cost of each model grows with connections, idle connections, message sizes and offered load;
memory of a connection with that of the kernel; fairness under overload; balance over workers.

Every point has the median and the spread of at least three rounds. A point that cannot be measured is left out, with the
reason.
"""
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import command
import cost
import load
import servers
import stats
from load import Scenario, Timing
from servers import Unfit

LONG, SHORT = Timing(3, 0.5, 0.15), Timing(3, 0.15, 0.05)
MORE_ROUNDS = 1             # additional rounds where the spreads of two neighbours overlap, not in the short mode
MORE_SECONDS = 120          # limit of the total time of additional rounds
BUSY = 20                   # connections that send, among idle ones and in the curve of sizes
LOADS, LOADS_SHORT = (0.2, 0.5, 0.8, 0.95, 1.2), (0.5, 0.9, 1.2)  # of the capacity
LOAD_SECONDS, LOAD_SECONDS_SHORT = 0.75, 0.15  # of the measurement of one load, and of the capacity
LOOPS = ("select", "poll", "epoll", "io_uring")
WORKERS, EACH = 4, 100      # balance: loops, and connections of each
OVERLOAD, OVERLOAD_DEPTH = 50, 16


@dataclass(frozen=True)
class Curve:
    key: str
    title: str
    x_title: str
    y_title: str
    field: str            # of load.measure()
    points: tuple
    short: tuple
    more_is_better: bool = True
    models: tuple = ()    # names; (): all models


CURVES = [
    Curve("connections", "Work over connections", "connections", "echoes per CPU second", "per_cpu_second",
          (1, 10, 100, 900, 4000, 16000), (1, 50, 400)),
    Curve("idle", f"Cost over idle connections, {BUSY} busy ones", "idle connections", "CPU µs per echo", "cost_us",
          (0, 100, 900, 3000, 8000, 16000), (0, 900, 4000), False, ("thread", "select", "poll", "epoll", "io_uring")),
    Curve("sizes", f"Work over message sizes, {BUSY} connections", "bytes", "echoes per CPU second", "per_cpu_second",
          (1, 256, 4096, 65536, 1048576), (64, 65536)),
    Curve("connects", "Connections per second", "connections at once", "connections/s", "rate", (1, 16, 128), (1, 16)),
]
MOST_THREADS, MOST_PROCESSES = 4000, 900


def scenario(curve, x):
    if curve.key == "connections":
        return Scenario(f"n{x}", f"{x} connection{'' if x == 1 else 's'}", "", x)
    if curve.key == "idle":
        return Scenario(f"idle{x}", f"{BUSY} among {x} idle", "", BUSY, idle=x)
    if curve.key == "sizes":
        return Scenario(f"size{x}", f"{x} bytes", "", BUSY, x)
    return Scenario(f"connect{x}", f"{x} at once", "", x, mode="connect")


def parse():
    parser = command.parser("Measure how the cost of each model grows.", "echod", "echoc", short="fewer points, short rounds")
    parser.add_argument("--only", type=command.names, help="names of models, separated by commas")
    parser.add_argument("--curves", type=command.names, help="some of connections, idle, sizes, connects, load, "
                        "fairness, memory, balance")
    options = parser.parse_args()
    options.engine = "auto"
    options.echod, options.echoc = os.path.abspath(options.echod), os.path.abspath(options.echoc)
    return options


def control_group():
    """The path of a new control group with a memory controller (version 2), or None if it cannot be created here."""
    group = f"/sys/fs/cgroup/echod-bench-{os.getpid()}"
    try:
        os.mkdir(group)
    except OSError:
        return None
    if os.path.exists(f"{group}/memory.current"):
        return group
    os.rmdir(group)
    return None


def kernel_kib():
    """KiB of kernel memory of the whole machine of the kinds that sockets, threads and processes need."""
    with open("/proc/meminfo", encoding="ascii") as file:
        lines = dict(line.split(":") for line in file)
    return sum(int(lines[name].split()[0]) for name in ("Slab", "KernelStack", "PageTables"))


class Curves:
    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.timing = SHORT if options.short else LONG
        self.cpus = cost.processors()
        if self.cpus is None:
            sys.exit("bench-curves: two processors are needed, one for the server and one for the client")
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.descriptors = hard
        os.sched_setaffinity(0, {self.cpus[1]})
        self.models = [each for each in servers.models(options.echod) if not options.only or each.name in options.only]
        self.unfit = {each.name: each.absent() for each in self.models if each.absent()}
        self.more_seconds = 0 if options.short else MORE_SECONDS
        self.models = [each for each in self.models if not each.absent()]

    def wanted(self, key):
        return not self.options.curves or key in self.options.curves

    def cannot(self, model, each):
        """The reason why a model cannot serve this scenario, or None."""
        if each.held + 200 > self.descriptors:
            return f"{each.held} connections need more than the {self.descriptors} descriptors of a process here"
        if model.name == "thread" and each.held > MOST_THREADS:
            return f"it would need {each.held} threads"
        if model.name == "process" and each.held > MOST_PROCESSES:
            return f"it would need {each.held} processes"
        return model.unfit(each)

    def measure(self, model, each):
        return load.measure(model, each, self.timing, self.options, self.cpus, self.directory)

    def curve(self, curve):
        """model → x → the values of all rounds."""
        found, left_out = {}, {}
        models = [each for each in self.models if not curve.models or each.name in curve.models]
        for x in curve.short if self.options.short else curve.points:
            each = scenario(curve, x)
            taking = []
            for model in models:
                why = self.cannot(model, each)
                if why:
                    left_out[f"{model.name}, {each.title}"] = why
                else:
                    taking.append(model)
            rounds = 0
            while rounds < self.timing.rounds or (rounds < self.timing.rounds + MORE_ROUNDS and self.more_seconds > 0
                                                  and self.spreads_overlap(found, x)):
                begin = time.monotonic()
                first = rounds % len(taking) if taking else 0
                for model in taking[first:] + taking[:first]:
                    try:
                        value = self.measure(model, each)[curve.field]
                        found.setdefault(model.name, {}).setdefault(x, []).append(value)
                    except Unfit as why:
                        left_out[f"{model.name}, {each.title}"] = str(why)
                        found.get(model.name, {}).pop(x, None)
                        taking = [other for other in taking if other is not model]
                if rounds >= self.timing.rounds:
                    self.more_seconds -= time.monotonic() - begin
                rounds += 1
        return {"values": found, "left_out": left_out}

    @staticmethod
    def spreads_overlap(found, x):
        """Whether the spreads of two models overlap that are neighbours in the order of their medians at this point."""
        summaries = sorted((stats.summarize(each[x]) for each in found.values() if x in each), key=lambda each: each.median)
        return any(one.overlaps(other) for one, other in zip(summaries, summaries[1:]))

    def each_round(self, scenario, measure):
        """(model → the results of measure(model) in all rounds, model → why it was not measured). The order changes with each
        round. A model that fails in a round is left out."""
        found, left_out = {}, {}
        taking = []
        for model in self.models:
            why = self.cannot(model, scenario)
            if why:
                left_out[model.name] = why
            else:
                taking.append(model)
        for number in range(self.timing.rounds):
            first = number % len(taking) if taking else 0
            for model in taking[first:] + taking[:first]:
                if model.name in left_out:
                    continue
                try:
                    found.setdefault(model.name, []).append(measure(model))
                except (Unfit, OSError) as why:
                    left_out[model.name] = str(why)
        return {model.name: found[model.name] for model in taking if model.name not in left_out}, left_out

    # Latency over offered load

    def echoc(self, server, *arguments):
        done = subprocess.run([self.options.echoc, "--load", "--json", "-q", *map(str, arguments), server.host, str(server.port)],
                              capture_output=True, text=True, check=False, timeout=120)
        if not done.stdout:
            raise Unfit(done.stderr.strip())
        return json.loads(done.stdout)

    def load(self):
        """model → [{share, and the values of all rounds: offered, rate, unserved, p50, p99, p999}]: requests are due at fixed
        times, and late ones wait (open loop)."""
        each = Scenario("load", "open loop", "", OVERLOAD)
        rounds, left_out = self.each_round(each, lambda model: self.load_of(model, each))
        return {"models": {name: merge(found) for name, found in rounds.items()}, "left_out": left_out}

    def load_of(self, model, each):
        """One round: share → the values of load()."""
        found = {}
        seconds = LOAD_SECONDS_SHORT if self.options.short else LOAD_SECONDS
        arguments = ["-n", OVERLOAD, "-d", seconds, "--warmup", self.timing.warmup]
        with model.start(each, self.cpus[0], self.directory) as server:
            capacity = self.echoc(server, *arguments)["echoes_per_second"]
            for share in LOADS_SHORT if self.options.short else LOADS:
                report = self.echoc(server, *arguments, "--rate", max(1, int(capacity * share)))
                latency = report["latency_us"]
                if latency["p99"] is None:
                    raise Unfit(f"nothing came back while {share:.0%} of the capacity was offered")
                found[share] = {"offered": capacity * share, "rate": report["echoes_per_second"],
                                "unserved": report["unserved"], **{key: latency[key] for key in ("p50", "p99", "p999")}}
        return found

    # Fairness: the bytes of each connection, as the daemon logs them

    def fairness(self):
        """model → the values of all rounds: Jain's index, and the share of the least and of the most served connection of the
        mean."""
        each = Scenario("fair", "overload", "", OVERLOAD, depth=OVERLOAD_DEPTH)
        rounds, left_out = self.each_round(each, lambda model: self.fairness_of(model, each))
        return {"models": {name: {key: [one[key] for one in found] for key in found[0]} for name, found in rounds.items()},
                "left_out": left_out}

    def fairness_of(self, model, each):
        with model.start(each, self.cpus[0], self.directory) as server:
            self.echoc(server, "-n", OVERLOAD, "-P", OVERLOAD_DEPTH, "-d", self.timing.seconds * 2)
            server.process.send_signal(signal.SIGTERM)
            server.ended(10)
            with open(server.errors, encoding="utf-8", errors="replace") as file:
                counts = [int(word) for word in re.findall(r", (\d+) bytes echoed", file.read()) if int(word)]
        if len(counts) != OVERLOAD:
            raise Unfit(f"the log has {len(counts)} connections instead of {OVERLOAD}")
        mean = sum(counts) / len(counts)
        return {"jain": sum(counts) ** 2 / (len(counts) * sum(each * each for each in counts)),
                "least": min(counts) / mean, "most": max(counts) / mean}

    # Memory with that of the kernel

    def memory(self):
        """model → bytes of an idle connection, of the processes and of the kernel, in all rounds; and how the latter was
        found."""
        group = control_group()
        found = {"models": {}, "left_out": {}, "method": f"control group {group}" if group else
                 "growth of slab, kernel stacks and page tables of the machine, with the client's end of the connection"}
        try:
            for model in self.models:
                held = load.held_for(model.name, True)
                why = self.cannot(model, held)
                try:
                    if why:
                        raise Unfit(why)
                    found["models"][model.name] = [self.memory_of(model, held, group) for _ in range(self.timing.rounds)]
                except (Unfit, OSError) as reason:
                    found["left_out"][model.name] = str(reason)
        finally:
            if group:
                os.rmdir(group)
        return found

    def memory_of(self, model, held, group):
        sockets, floor = [], held.connections // 10
        pool = model.name in ("prefork", "prethread")

        def enter():
            os.sched_setaffinity(0, {self.cpus[0]})
            if group:
                with open(f"{group}/cgroup.procs", "w", encoding="ascii") as file:
                    file.write("0")

        def used(server):
            if group:
                with open(f"{group}/memory.current", encoding="ascii") as file:
                    return int(file.read())
            return ((cost.memory_kib(server.pid)[0] or 0) + kernel_kib()) * 1024

        try:
            # A pool needs its memory before there are connections: compare it with the smallest pool.
            if pool:
                floor = model.workers(load.Held(1))
                with self.started(model, load.Held(1), enter) as server:
                    before = used(server)
            with self.started(model, held, enter) as server:
                if not pool:
                    load.hold(server, sockets, floor, held.size)
                    load.use_shared_buffers(sockets, held.size)
                    before = used(server)
                load.hold(server, sockets, held.connections, held.size)
                return (used(server) - before) / (held.connections - floor)
        finally:
            for each in sockets:
                each.close()

    def started(self, model, held, enter):
        """Like Contestant.start(), but the child calls enter() before it executes the server."""
        port, errors = model.port(), os.path.join(self.directory, f"{model.name}.err")
        with open(errors, "wb") as log:
            process = subprocess.Popen(model.command(held, port, self.directory), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=model.environment(self.directory), start_new_session=True, preexec_fn=enter)
        server = servers.Server(process, model.host, port, errors)
        try:
            model.wait_ready(server)
        except BaseException:
            server.__exit__()
            raise
        return server

    # Balance over workers, from the metrics file

    def balance(self):
        """model → way → the connections of each of WORKERS loops in all rounds, after WORKERS * EACH clients connected one by
        one, and at once."""
        found, left_out = {}, {}
        for model in self.models:
            if model.name not in LOOPS:
                continue
            for way in ("one by one", "at once"):
                try:
                    found.setdefault(model.name, {})[way] = [self.balance_of(model, way) for _ in range(self.timing.rounds)]
                except (Unfit, OSError) as why:
                    left_out[f"{model.name}, {way}"] = str(why)
        return {"models": found, "left_out": left_out}

    def balance_of(self, model, way):
        metrics = os.path.join(self.directory, "metrics")
        file = os.path.join(self.directory, "echod.conf")
        port, sockets = model.port(), []
        with open(file, "w", encoding="ascii") as conf:
            conf.write(f'model = "{model.name}"\nworkers = {WORKERS}\nlisten = {{"{model.host}:{port}"}}\npidfile = ""\n'
                       f'log-target = "stderr"\nlog-connections = false\nmetrics-file = "{metrics}"\nstats-interval = 1\n')
        process = subprocess.Popen([self.options.echod, "-n", "-c", file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=model.environment(self.directory), start_new_session=True)
        server = servers.Server(process, model.host, port, os.devnull)
        try:
            model.wait_ready(server)
            for _ in range(WORKERS * EACH):
                sockets.append(socket.create_connection((model.host, port), timeout=30))
                if way == "one by one":
                    sockets[-1].sendall(b"?")
                    sockets[-1].recv(1)
            until, counts = time.monotonic() + 10, []
            while sum(counts) != len(sockets) and time.monotonic() < until:
                process.send_signal(signal.SIGUSR1)
                time.sleep(0.1)
                with contextlib.suppress(OSError), open(metrics, encoding="ascii") as text:
                    counts = [int(float(number)) for number in
                              re.findall(r'^echod_worker_connections\{[^}]*\} (\S+)$', text.read(), re.M)]
            if sum(counts) != len(sockets):
                raise Unfit(f"the metrics file has {sum(counts)} connections instead of {len(sockets)}")
            return sorted(counts + [0] * (WORKERS - len(counts)))
        finally:
            for each in sockets:
                each.close()
            server.__exit__()
            with contextlib.suppress(OSError):
                os.unlink(metrics)

    def run(self):
        data = {"curves": {}, "unfit": self.unfit, "rounds": self.timing.rounds, "seconds": self.timing.seconds}
        begin = time.monotonic()
        for curve in CURVES:
            if self.wanted(curve.key):
                self.say(curve.title, begin)
                data["curves"][curve.key] = self.curve(curve)
        for key in ("load", "fairness", "memory", "balance"):
            if self.wanted(key):
                self.say(key, begin)
                data[key] = getattr(self, key)()
        data["took_seconds"] = round(time.monotonic() - begin, 1)
        return data

    @staticmethod
    def say(what, begin):
        print(f"{time.monotonic() - begin:6.0f} s  {what}", file=sys.stderr)


def merge(rounds):
    """Rounds of share → field → value, as a list of {share, and field → the values of all rounds}."""
    return [{"share": share, **{field: [each[share][field] for each in rounds] for field in rounds[0][share]}}
            for share in rounds[0]]


def spread(values):
    return stats.spread_text(stats.summarize(values))


def extremes(counts, pick):
    """The connections of the least (`pick` is min) or most loaded loop as a share of the mean, in each round."""
    return [pick(each) * len(each) / sum(each) for each in counts]


def left_out_lines(part):
    for what, why in part["left_out"].items():
        yield f"    {what}: not measured, {why}"


def lines(data):
    rounds = data["rounds"]
    yield f"Medians of at least {rounds} rounds; in brackets: {stats.spread_name(rounds)}."
    for curve in CURVES:
        if curve.key not in data["curves"]:
            continue
        yield ""
        yield f"{curve.title}: {curve.y_title}"
        for model, values in data["curves"][curve.key]["values"].items():
            yield f"  {model:10s} " + "  ".join(f"{x}: {spread(found)}" for x, found in values.items())
        yield from left_out_lines(data["curves"][curve.key])
    if data.get("load"):
        yield ""
        yield "Latency over offered load (open loop): p99 in µs at shares of the capacity"
        for model, points in data["load"]["models"].items():
            yield f"  {model:10s} " + "  ".join(f"{each['share']:.0%}: {spread(each['p99'])}" for each in points)
        yield from left_out_lines(data["load"])
    if data.get("fairness"):
        yield ""
        yield (f"Fairness, {OVERLOAD} connections with {OVERLOAD_DEPTH} messages in flight: bytes of the least and of the most "
               "served connection, as a share of the mean")
        for model, each in data["fairness"]["models"].items():
            yield (f"  {model:10s} least {spread(each['least'])}  most {spread(each['most'])}  Jain's index "
                   f"{stats.summarize(each['jain']).median:.3f}")
        yield from left_out_lines(data["fairness"])
    if data.get("memory"):
        yield ""
        yield "Memory of an idle connection in KiB, with that of the kernel"
        for model, sizes in data["memory"]["models"].items():
            yield f"  {model:10s} {spread([size / 1024 for size in sizes])}"
        yield from left_out_lines(data["memory"])
        yield f"    method: {data['memory']['method']}"
    if data.get("balance"):
        yield ""
        yield f"Connections of the least and of the most loaded of {WORKERS} loops, as a share of the mean"
        for model, ways in data["balance"]["models"].items():
            for way, counts in ways.items():
                yield f"  {model:10s} {way:10s} least {spread(extremes(counts, min))}  most {spread(extremes(counts, max))}"
        yield from left_out_lines(data["balance"])


def main():
    options = parse()
    os.makedirs(options.output, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="echod-curves-") as directory:
        os.chmod(directory, 0o755)
        data = Curves(options, directory).run()
    path = os.path.join(options.output, "curves.json")
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.write("\n")
    os.replace(path + ".tmp", path)
    print("\n".join(lines(data)))
    print(f"\n{path} has every round; it took {data['took_seconds']:.0f} s.")


if __name__ == "__main__":
    command.run(main)
