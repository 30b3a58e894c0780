#!/usr/bin/env python3
# SPDX-License-Identifier: ISC
"""Claims about concurrency models: for each a sentence, the figure measured on this machine, and whether the claim holds. The
figures of three claims are measured here: how many clients notice a crash, whether a second client is served, and how many
clients select(2) and epoll(7) serve at once."""
import contextlib
import json
import os
import resource
import select
import signal
import socket
import time

import cost
import servers
import stats
from load import Held

CLIENTS = 10
OFFERED = 1100            # connections for the limit of select(2), which is FD_SETSIZE
FD_SETSIZE = 1024
OWN_DESCRIPTORS = 100     # that this program needs besides its connections
QUIET_SECONDS = 1         # without an answer, after which all clients that are served at once have been answered
LEAVE_SECONDS = 30        # limit of the time until another client is answered after clients have left
HOLDS, FAILS, OPEN, UNKNOWN = "holds", "does not hold", "undecided: spreads overlap", "not measured"
SCAN_GROWTH = 2.0  # the least ratio at which a cost counts as growing with idle connections


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
    """Whether a process has an established connection with this local port."""
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


def answered(waiting, timeout, enough=None):
    """Wait for the echoes of the sockets of the set `waiting`, until there was none for `timeout` seconds or `enough` sockets
    had theirs. Remove these from the set; returns (sockets that were answered, sockets whose connection ended)."""
    good, ended = [], []
    with contextlib.closing(select.epoll()) as poller:
        by_fd = {each.fileno(): each for each in waiting}
        for fd in by_fd:
            poller.register(fd, select.EPOLLIN)
        until = time.monotonic() + timeout
        while by_fd and (enough is None or len(good) < enough):
            events = poller.poll(max(0, until - time.monotonic()))
            if not events:
                break
            for fd, _ in events:
                each = by_fd.pop(fd)
                poller.unregister(fd)
                waiting.discard(each)
                (good if echo_of(each) else ended).append(each)
            until = time.monotonic() + timeout
    return good, ended


def echo_of(sock):
    try:
        return sock.recv(1) == b"?"
    except OSError:
        return False


def served_at_once(model, directory, cpu):
    """Offer OFFERED connections, each of which sends a byte: how many are answered while all of them are connected, and how
    many of the other ones after answered clients have left."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < OFFERED + OWN_DESCRIPTORS:
        return {"why": f"{OFFERED:,} connections need more than the {hard} descriptors of a process here"}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(model.start(Held(OFFERED), cpu, directory))
        waiting = set()
        for _ in range(OFFERED):
            sock = stack.enter_context(socket.create_connection((server.host, server.port), timeout=LEAVE_SECONDS))
            waiting.add(sock)
            sock.sendall(b"?")
        served, ended = answered(waiting, QUIET_SECONDS)
        at_once, later = len(served), 0
        while waiting and served:
            for each in served:
                each.close()
            served, more = answered(waiting, LEAVE_SECONDS, 1)
            later += len(served)
            ended += more
        return {"offered": OFFERED, "at_once": at_once, "later": later, "refused": len(ended), "lost": len(waiting)}


def measure(models, directory, cpu):
    data = {"crash": {}, "second": {}, "capacity": {}}
    for model in models:
        if model.name in ("select", "epoll"):
            try:
                data["capacity"][model.name] = served_at_once(model, directory, cpu)
            except (servers.Unfit, OSError) as why:
                data["capacity"][model.name] = {"why": str(why)}
        with contextlib.suppress(servers.Unfit, OSError):
            if model.name != "iterative":
                data["crash"][model.name] = clients_that_notice(model, directory, cpu)
            data["second"][model.name] = second_is_served(model, directory, cpu)
    return data


# --- claims -----------------------------------------------------------------------------------------------------------

class Found:
    """The results of the benchmarks in a directory; each part may be missing."""

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
        text = (f"Processor time for each connection: {stats.spread_text(cost_us['process'])} µs in process, "
                f"{stats.spread_text(cost_us['thread'])} µs in thread. ")
    if None not in calls:
        text += (f"System calls: {calls[0]:.0f} in process, {calls[2]:.0f} in thread. "
                 f"Page faults: {calls[1]:.0f} in process, {calls[3]:.0f} in thread.")
        if verdict == UNKNOWN:
            verdict = HOLDS if calls[0] > calls[2] and calls[1] > calls[3] else FAILS
    return "Creating a process costs more than creating a thread.", text, verdict


def crash(found):
    noticed = {name: number for name, number in found.lesson.get("crash", {}).items() if number is not None}
    text = ", ".join(f"{name} {number}" for name, number in noticed.items())
    good = all((number == 1) == (name in ("process", "prefork")) for name, number in noticed.items())
    return ("Processes isolate a crash, threads do not.",
            f"A worker process was killed while {CLIENTS} clients were connected. Connections that ended: {text}." if noticed else "",
            UNKNOWN if not noticed else HOLDS if good else FAILS)


def growth(found, model):
    """(least idle connections, most, cost with the least, cost with the most); None if fewer than two points were measured"""
    points = found.curve("idle").get(model, {})
    return (min(points), max(points), points[min(points)], points[max(points)]) if len(points) > 1 else None


def growth_text(model, each):
    return (f"{model}: {stats.spread_text(each[2])} µs of processor time for each echo with {each[0]} idle connections, "
            f"{stats.spread_text(each[3])} µs with {each[1]:,}.")


def grows(each):
    """Whether the cost grows with idle connections."""
    if each[2].overlaps(each[3]):
        return OPEN
    return HOLDS if each[3].median > each[2].median else FAILS


def worst(verdicts):
    """The verdict of a claim that has several parts."""
    return next(each for each in (UNKNOWN, FAILS, OPEN, HOLDS) if each in verdicts)


def scanning(found):
    each = {model: growth(found, model) for model in ("select", "poll")}
    text = " ".join(growth_text(model, one) if one else f"{model}: not measured with many idle connections."
                    for model, one in each.items())
    return ("select and poll look at every connection each time they wait.", text,
            worst([grows(one) if one else UNKNOWN for one in each.values()]))


def not_scanning(found):
    each = growth(found, "epoll")
    verdict = UNKNOWN
    if each:
        verdict = HOLDS if each[3].median < SCAN_GROWTH * each[2].median or each[2].overlaps(each[3]) else FAILS
    return "The cost of epoll does not grow with idle connections.", growth_text("epoll", each) if each else "", verdict


def capacity_text(model, each):
    if "why" in each:
        return f"{model}: not measured, {each['why']}."
    text = f"Of {each['offered']:,} clients, {model} served {each['at_once']:,} at once"
    if each["at_once"] < each["offered"]:
        text += f" and {each['later']:,} after these had left"
    return text + (f"; {each['refused']} were refused and {each['lost']} never served." if each["refused"] or each["lost"]
                   else "; none was refused or never served.")


def limit_of_select(found):
    each = found.lesson.get("capacity", {})
    text = " ".join(capacity_text(model, one) for model, one in each.items())
    verdicts = []
    for model in ("select", "epoll"):
        one = each.get(model, {"why": ""})
        if "why" in one:
            verdicts.append(UNKNOWN)
            continue
        complete = one["at_once"] + one["later"] == one["offered"]
        stops = one["at_once"] < FD_SETSIZE
        verdicts.append(HOLDS if complete and stops == (model == "select") else FAILS)
    if "at_once" in each.get("select", {}):
        text += " The daemon needs some of the descriptors of select itself."
    return f"select stops at {FD_SETSIZE} descriptors, epoll does not.", text, worst(verdicts)


def readiness(found):
    thread, epoll = (found.count(model, "echo50", "wakeups") for model in ("thread", "epoll"))
    if thread is None or epoll is None:
        return "An event loop saves context switches.", "", UNKNOWN
    return ("An event loop saves context switches.",
            f"Wake-ups for each echo with 50 clients: {thread:.2f} in thread, {abs(epoll):.2f} in epoll.",
            HOLDS if epoll < thread / 2 else FAILS)


def completion(found):
    epoll, uring = (found.count(model, "echo50", "calls") for model in ("epoll", "io_uring"))
    if epoll is None or uring is None:
        return "A completion interface saves system calls.", "", UNKNOWN
    text = f"System calls for each echo with 50 clients: {epoll:.2f} in epoll, {uring:.2f} in io_uring."
    cost_us = found.cost("rr50")
    if "epoll" in cost_us and "io_uring" in cost_us:
        apart = compare(cost_us["io_uring"], cost_us["epoll"])
        text += (f" Processor time for each echo: {stats.spread_text(cost_us['epoll'])} µs in epoll, "
                 f"{stats.spread_text(cost_us['io_uring'])} µs in io_uring"
                 + (f", which is {(1 - cost_us['io_uring'].median / cost_us['epoll'].median) * 100:.0f} % less." if apart == HOLDS
                    else "; this run does not show that io_uring saves time."))
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


CLAIMS = (creation, crash, scanning, limit_of_select, not_scanning, readiness, completion, one_at_a_time)


def claims(directory, results):
    found = Found(directory, results)
    return [claim(found) for claim in CLAIMS]
