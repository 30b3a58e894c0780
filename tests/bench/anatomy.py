#!/usr/bin/env python3
# SPDX-License-Identifier: ISC
"""make anatomy: the cost of an echo and of a connection in each model, counted instead of timed.

System calls, context switches, page faults and wake-ups are those of all processes of the daemon, counted by perf(1); the
calls in their order are recorded by strace(1). With one client the numbers are exact on a busy machine, too, except context
switches, which include preemption by other programs. With 50 clients the numbers depend on how many messages a wait finds.
"""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap

import command

NOTHING = 77                 # exit status where neither perf nor strace can be used
ECHOES, VISITS = 500, 100    # with one client
CLIENTS, DEPTH = 50, 16
SECONDS = 1.0                # of a load with 50 clients
SIZE = 64
EVENTS = ["raw_syscalls:sys_enter", "context-switches", "page-faults", "sched:sched_switch"]
FIELDS = ["calls", "switches", "faults", "wakeups"]
WAKEUP = "prev_state & 3"    # the thread went to sleep and needs a wake-up; in other switches it was preempted or has ended

CASES = [
    ("echo1", "echo, 1 client", "echo"),
    ("echo50", f"echo, {CLIENTS} clients", "echo"),
    ("flight", f"echo, {CLIENTS} clients, {DEPTH} in flight on each", "echo"),
    ("connection1", "connection with an echo, 1 client", "connection"),
    ("connection50", f"connection with an echo, {CLIENTS} clients", "connection"),
]


def parse():
    parser = command.parser("Count system calls, context switches, page faults and wake-ups.", "echod", "echoc", short="shorter loads")
    parser.add_argument("--only", type=command.names, help="names of models, separated by commas")
    options = parser.parse_args()
    os.environ["ECHOD"], os.environ["ECHOC"] = os.path.abspath(options.echod), os.path.abspath(options.echoc)
    return options


def cannot_count():
    """The reason why perf(1) cannot count here, or None."""
    if not shutil.which("perf"):
        return "there is no perf (Debian: apt install linux-perf)"
    done = subprocess.run(["perf", "stat", "-x,", *event_options(), "--", "true"], capture_output=True, text=True,
                          check=False, timeout=60)
    if done.returncode or "<not" in done.stderr:
        return "perf cannot count here: " + (done.stderr.strip().splitlines() or ["no reason given"])[0]
    return None


def event_options():
    words = []
    for event in EVENTS:
        words += ["-e", event] + (["--filter", WAKEUP] if event.startswith("sched") else [])
    return words


class Counter:
    """perf(1) around a daemon. It counts only between begin() and end()."""

    def __init__(self, directory):
        self.output = os.path.join(directory, "perf")
        self.control, self.control_in = os.pipe()
        self.answers, self.answers_in = os.pipe()
        self.wrap = ["perf", "stat", "-x,", "-o", self.output, "-D", "-1",
                     "--control", f"fd:{self.control},{self.answers_in}", *event_options(), "--"]
        self.pass_fds = (self.control, self.answers_in)

    def _command(self, word):
        os.write(self.control_in, word + b"\n")
        answer = b""
        while b"\n" not in answer:
            answer += os.read(self.answers, 100)

    def begin(self):
        self._command(b"enable")

    def end(self):
        self._command(b"disable")

    def result(self):
        """The counts by the names of FIELDS; call it after the end of perf."""
        found = {}
        with open(self.output, encoding="utf-8") as file:
            for line in file:
                words = line.split(",")
                if len(words) > 2 and words[2] in EVENTS:
                    found[FIELDS[EVENTS.index(words[2])]] = int(words[0])
        return found

    def close(self):
        for fd in (self.control, self.control_in, self.answers, self.answers_in):
            os.close(fd)


class Anatomy:
    def __init__(self, options, directory):
        # These modules look for the programs when they are imported.
        self.echod, self.calls, self.proc = __import__("echod"), __import__("calls"), __import__("proc")
        self.cost = __import__("cost")
        self.options, self.directory = options, directory
        self.seconds = SECONDS / 3 if options.short else SECONDS
        usable = self.cost.processors()
        if usable is None:
            sys.exit("anatomy: two processors are needed, one for the server and one for the client")
        self.cpus = usable
        os.sched_setaffinity(0, {self.cpus[1]})

    def workers(self, model, clients):
        if model in self.echod.SPAWN:
            return 0
        return max(clients, 4) if model in ("prefork", "prethread") else 1

    def start(self, model, clients, wrap, pass_fds=()):
        pin = ["taskset", "-c", str(self.cpus[0])]
        daemon = self.echod.Daemon(self.directory, model, wrap=[*wrap, *pin], pass_fds=pass_fds, protocols=["tcp"],
                                   workers=self.workers(model, clients), stats_interval=0, log_connections=False,
                                   log_level="warning")
        return daemon.wait_ready(60)

    # The loads. Each counts its units between begin() and end() of the counter, and returns the number of units and the number of
    # connections whose cost counts() subtracts.

    def echo1(self, daemon, counter):
        with daemon.connect() as sock:
            for _ in range(20):
                self.calls.exchange([sock])
            counter.begin()
            for _ in range(ECHOES):
                self.calls.exchange([sock])
            counter.end()
        return ECHOES, 0

    def connection1(self, daemon, counter):
        for _ in range(20):
            self.calls.visit(daemon.address)
        counter.begin()
        for _ in range(VISITS):
            self.calls.visit(daemon.address)
        self.idle(daemon)
        counter.end()
        return VISITS, 0

    def idle(self, daemon):
        """Wait until all threads of the server sleep and no child is a zombie."""
        pid = daemon.server
        self.proc.until(lambda: all(state in self.calls.SLEEPING for state in self.calls.states(pid)), "the workers to be idle")

    def load(self, daemon, counter, *arguments):
        counter.begin()
        done = subprocess.run([self.options.echoc, "--load", "--json", "-q", "-s", str(SIZE), "-n", str(CLIENTS), "-d",
                               str(self.seconds), "--warmup", "0", *arguments, "127.0.0.1", str(daemon.port)],
                              capture_output=True, text=True, timeout=60, check=True)
        self.idle(daemon)
        counter.end()
        return json.loads(done.stdout)

    def echo50(self, daemon, counter):
        return self.load(daemon, counter)["bytes_received"] // SIZE, CLIENTS

    def flight(self, daemon, counter):
        return self.load(daemon, counter, "-P", str(DEPTH))["bytes_received"] // SIZE, CLIENTS

    def connection50(self, daemon, counter):
        return self.load(daemon, counter, "--mode", "connect")["connections_made"], 0

    def count(self, model, key):
        """Run one case. Returns the units, the connections and the total counts."""
        counter = Counter(self.directory)
        try:
            daemon = self.start(model, 1 if key.endswith("1") else CLIENTS, counter.wrap, counter.pass_fds)
            try:
                daemon.server = self.proc.children(daemon.pid)[0].pid
                units, connections = getattr(self, key)(daemon, counter)
                os.kill(daemon.server, signal.SIGTERM)
                daemon.popen.wait(30)
            finally:
                daemon.returncode = 0
                daemon._clean()
            return units, connections, counter.result()
        finally:
            counter.close()

    def counts(self, model):
        """Case → field → number for each unit, without the cost of the connections of a load."""
        found = {}
        for key in ("echo1", "connection1", "echo50", "flight", "connection50"):
            if model == "iterative" and key in ("echo50", "flight"):
                continue  # it serves one client at a time
            units, connections, total = self.count(model, key)
            found[key] = {field: (total[field] - connections * max(0, self.setup(found, field))) / units for field in FIELDS}
            found[key]["units"] = units
        return found

    @staticmethod
    def setup(found, field):
        """The cost of a connection without its echo."""
        return found["connection1"][field] - found["echo1"][field] if "connection1" in found else 0

    def sequences(self, model):
        """The calls of one echo and of one connection with an echo, in their order."""
        path = os.path.join(self.directory, f"{model}.trace")
        daemon = self.start(model, 1, self.calls.wrap(path))
        try:
            recording = self.calls.Recording(daemon.pid, path)
            self.calls.visit(daemon.address)
            connection = recording.during(lambda: self.calls.visit(daemon.address))
            with daemon.connect() as sock:
                self.calls.exchange([sock])
                echo = recording.during(lambda: self.calls.exchange([sock]))
        finally:
            daemon.close()
        return {"echo": echo, "connection": connection}


def number(value):
    if abs(value) < 0.005:
        return "0.00"  # not "-0.00" where slightly too much was subtracted for connections
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}"


def lines(data):
    """The result as text."""
    counts = data["counts"]
    for key, title, unit in CASES if counts else []:
        yield ""
        yield f"For each {unit}: {title}"
        yield f"  {'model':10s} {'system calls':>13s} {'context switches':>17s} {'wake-ups':>9s} {'page faults':>12s}"
        for model, found in counts.items():
            if key in found:
                each = found[key]
                yield (f"  {model:10s} {number(each['calls']):>13s} {number(each['switches']):>17s} "
                       f"{number(each['wakeups']):>9s} {number(each['faults']):>12s}")
    for unit in ("echo", "connection") if data["sequences"] else ():
        yield ""
        yield f"System calls of one {'echo' if unit == 'echo' else 'connection with an echo'}, 1 client, in their order"
        for model, found in data["sequences"].items():
            yield from textwrap.wrap(" ".join(found[unit]), 100, initial_indent=f"  {model:10s} {len(found[unit]):2d}  ",
                                     subsequent_indent=16 * " ")
    for name, why in data["missing"].items():
        yield f"{name}: {why}"


def main():
    options = parse()
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
    os.makedirs(options.output, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="echod-anatomy-") as directory:
        os.chmod(directory, 0o755)
        anatomy = Anatomy(options, directory)
        anatomy.proc.raise_nofile()
        data = {"counts": {}, "sequences": {}, "missing": {}, "kernel": os.uname().release}
        why_count, why_trace = cannot_count(), anatomy.calls.cannot_trace()
        if why_count:
            data["missing"]["no counts"] = why_count
        if why_trace:
            data["missing"]["no lists of calls"] = why_trace
        for model, refusal in anatomy.echod.REFUSALS.items():
            if options.only and model not in options.only:
                continue
            if refusal:
                data["missing"][model] = refusal
                continue
            with contextlib.suppress(BrokenPipeError):
                print(f"anatomy: {model}", file=sys.stderr)
            if not why_count:
                data["counts"][model] = anatomy.counts(model)
            if not why_trace:
                data["sequences"][model] = anatomy.sequences(model)
    path = os.path.join(options.output, "anatomy.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.write("\n")
    print("\n".join(lines(data)))
    print(f"\n{path} has all numbers.")
    return 0 if data["counts"] or data["sequences"] else NOTHING


if __name__ == "__main__":
    command.run(main)
