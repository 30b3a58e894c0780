#!/usr/bin/env python3
# SPDX-License-Identifier: ISC
"""The claims of the lesson about concurrency models: each a sentence, the figure measured on this machine, and whether it
holds. Two of them are measured here: who notices a crash, and whether a second client is served."""
import contextlib
import json
import os
import signal
import socket

import cost
import servers
import stats
from load import Held

CLIENTS = 10
HOLDS, FAILS, OPEN, UNKNOWN = "holds", "does not hold", "cannot be told apart", "not measured"
SCAN_GROWTH = 2.0  # from this ratio on a cost counts as growing with idle connections


# --- crash and delay --------------------------------------------------------------------------------------------------

def echoes(sock, timeout):
    """Whether a byte comes back in time."""
    sock.settimeout(timeout)
    try:
        sock.sendall(b"?")
        return sock.recv(1) == b"?"
    except OSError:
        return False


def clients_that_notice(model, directory, cpu):
    """Kill the process that serves the first of CLIENTS connections, and count the connections that end."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(model.start(Held(CLIENTS), cpu, directory))
        socks = [stack.enter_context(socket.create_connection((server.host, server.port))) for _ in range(CLIENTS)]
        if not all(echoes(each, 10) for each in socks):
            return None
        crew = cost.children(server.pid)
        victim = (cost.children(crew[0]) or crew)[0] if model.name == "process" else crew[0]
        if model.name == "prefork":
            victim = next((pid for pid in crew if serves(pid, server.port)), crew[0])
        ended = os.pidfd_open(victim)
        os.kill(victim, signal.SIGKILL)
        servers.select.select([ended], [], [], 10)
        os.close(ended)
        return sum(not echoes(each, 10) for each in socks)


def serves(pid, port):
    """Whether a process has a connection: a socket beyond those that all workers have."""
    try:
        sockets = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        with open(f"/proc/{pid}/net/tcp", encoding="ascii") as file:
            rows = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return False
    return any(row[1].endswith(f":{port:04X}") and row[3] == "01" and f"socket:[{row[9]}]" in sockets for row in rows)


def second_is_served(model, directory, cpu):
    """Whether a second client is served while the first one is connected, and after it has left."""
    with model.start(Held(1), cpu, directory) as server, socket.create_connection((server.host, server.port)) as first, \
            socket.create_connection((server.host, server.port)) as second:
        if not echoes(first, 10):
            return None
        meanwhile = echoes(second, 1)
        first.close()
        second.settimeout(10)
        later = meanwhile or second.recv(1) == b"?"
        return {"meanwhile": meanwhile, "later": later}


def measure(models, directory, cpu):
    data = {"crash": {}, "second": {}}
    for model in models:
        with contextlib.suppress(servers.Unfit, OSError):
            if model.name != "iterative":
                data["crash"][model.name] = clients_that_notice(model, directory, cpu)
            data["second"][model.name] = second_is_served(model, directory, cpu)
    return data


# --- claims -----------------------------------------------------------------------------------------------------------

class Found:
    """All that the benchmarks have left in a directory; each part may be missing."""

    def __init__(self, directory, results):
        self.results = results
        for name in ("anatomy", "curves", "lesson"):
            path = os.path.join(directory, f"{name}.json")
            data = {}
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    data = json.load(file)
            setattr(self, name, data)

    def count(self, model, case, field):
        return self.anatomy.get("counts", {}).get(model, {}).get(case, {}).get(field)

    def cost(self, scenario):
        return self.results.summaries(scenario, "cost_us")

    def curve(self, key):
        """model → {x: Summary}"""
        values = self.curves.get("curves", {}).get(key, {}).get("values", {})
        return {model: {int(x): stats.summarize(found) for x, found in points.items()} for model, points in values.items()}


def compare(less, more):
    """Whether the first of two summaries is the smaller one."""
    if less.overlaps(more):
        return OPEN
    return HOLDS if less.median < more.median else FAILS


def creation(found):
    cost_us = found.cost("connect")
    calls = [found.count(model, "connection1", field) for model in ("process", "thread") for field in ("calls", "faults")]
    text, verdict = "", UNKNOWN
    if "process" in cost_us and "thread" in cost_us:
        verdict = compare(cost_us["thread"], cost_us["process"])
        text = (f"{stats.spread_text(cost_us['process'])} µs of a processor for each connection in process, "
                f"{stats.spread_text(cost_us['thread'])} µs in thread. ")
    if None not in calls:
        text += f"{calls[0]:.0f} system calls and {calls[1]:.0f} page faults in process, {calls[2]:.0f} and {calls[3]:.0f} in thread."
        if verdict == UNKNOWN:
            verdict = HOLDS if calls[0] > calls[2] and calls[1] > calls[3] else FAILS
    return "Creating a process costs more than creating a thread.", text, verdict


def crash(found):
    noticed = {name: number for name, number in found.lesson.get("crash", {}).items() if number is not None}
    text = ", ".join(f"{number} in {name}" for name, number in noticed.items())
    good = all((number == 1) == (name in ("process", "prefork")) for name, number in noticed.items())
    return ("Processes isolate a crash, threads do not.",
            f"One worker process was killed. Of {CLIENTS} clients lost their connection: {text}." if noticed else "",
            UNKNOWN if not noticed else HOLDS if good else FAILS)


def growth(found, model):
    """(least idle connections, most, cost there, cost here)"""
    points = found.curve("idle").get(model, {})
    return (min(points), max(points), points[min(points)], points[max(points)]) if len(points) > 1 else None


def growth_text(model, each):
    return (f"{model}: {stats.spread_text(each[2])} µs for each echo with {each[0]} idle connections, "
            f"{stats.spread_text(each[3])} µs with {each[1]:,}.")


def scanning(found):
    each = {model: growth(found, model) for model in ("select", "poll")}
    text = " ".join(growth_text(model, one) for model, one in each.items() if one)
    poll = each["poll"]
    verdict = UNKNOWN
    if poll:
        verdict = OPEN if poll[2].overlaps(poll[3]) else HOLDS if poll[3].median > SCAN_GROWTH * poll[2].median else FAILS
    return "select and poll look at every connection each time, and select stops at 1024.", text, verdict


def not_scanning(found):
    each = growth(found, "epoll")
    verdict = UNKNOWN
    if each:
        verdict = HOLDS if each[3].median < SCAN_GROWTH * each[2].median or each[2].overlaps(each[3]) else FAILS
    return "The cost of epoll does not grow with idle connections.", growth_text("epoll", each) if each else "", verdict


def readiness(found):
    thread, epoll = (found.count(model, "echo50", "wakeups") for model in ("thread", "epoll"))
    if thread is None or epoll is None:
        return "An event loop saves context switches.", "", UNKNOWN
    return ("An event loop saves context switches.",
            f"With 50 clients a thread is woken {thread:.2f} times for each echo in thread, {max(0, epoll):.2f} times in epoll.",
            HOLDS if epoll < thread / 2 else FAILS)


def completion(found):
    epoll, uring = (found.count(model, "echo50", "calls") for model in ("epoll", "io_uring"))
    if epoll is None or uring is None:
        return "A completion interface saves system calls.", "", UNKNOWN
    text = f"With 50 clients epoll makes {epoll:.2f} system calls for each echo, io_uring {uring:.2f}."
    cost_us = found.cost("rr50")
    if "epoll" in cost_us and "io_uring" in cost_us:
        apart = compare(cost_us["io_uring"], cost_us["epoll"])
        text += (f" Processor time for each echo: {stats.spread_text(cost_us['epoll'])} and "
                 f"{stats.spread_text(cost_us['io_uring'])} µs"
                 + (f", {(1 - cost_us['io_uring'].median / cost_us['epoll'].median) * 100:.0f} % less." if apart == HOLDS else
                    ": this run does not show that it saves time."))
    return "A completion interface saves system calls.", text, HOLDS if uring < epoll / 2 else FAILS


def one_at_a_time(found):
    second = {name: each for name, each in found.lesson.get("second", {}).items() if each}
    if "iterative" not in second:
        return "One client at a time delays the next one.", "", UNKNOWN
    one = second["iterative"]
    others = [name for name, each in second.items() if name != "iterative" and not each["meanwhile"]]
    text = (f"In iterative the second client was {'served at once' if one['meanwhile'] else 'served only after the first one had left'}"
            f"; in the other models it was served at once{' except in ' + ', '.join(others) if others else ''}.")
    return "One client at a time delays the next one.", text, HOLDS if not one["meanwhile"] and one["later"] else FAILS


CLAIMS = (creation, crash, scanning, not_scanning, readiness, completion, one_at_a_time)


def claims(directory, results):
    found = Found(directory, results)
    return [claim(found) for claim in CLAIMS]
