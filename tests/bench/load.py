# SPDX-License-Identifier: ISC
"""The scenarios, and one measurement of one server."""
import json
import os
import select
import socket
import subprocess
import time
from dataclasses import dataclass

import cost
from servers import Unfit

SAMPLE_EVERY = 0.02  # seconds between two samples of the server's processor time
# Limit of the seconds besides warm-up and measurement, in which connections are made and the last answers arrive. For each new
# connection poll(2) and select(2) scan all others.
PATIENCE, PATIENCE_PER_CONNECTION = 20, 0.004


@dataclass(frozen=True)
class Scenario:
    key: str
    title: str
    use: str              # the load in words, for the question which model to use
    connections: int = 1
    size: int = 64
    mode: str = "rr"
    depth: int = 1
    idle: int = 0

    @property
    def held(self):
        """Connections that must be served at once; those of --mode connect may wait for one another."""
        return self.idle + (1 if self.mode == "connect" else self.connections)

    @property
    def unit(self):
        return {"stream": "MB", "connect": "connection"}.get(self.mode, "echo")

    @property
    def units(self):
        return {"stream": "MB", "connect": "connections"}.get(self.mode, "echoes")

    def arguments(self):
        words = ["-n", self.connections, "-s", self.size, "--mode", self.mode, "--idle", self.idle]
        if self.mode == "rr":
            words += ["-P", self.depth]
        return [str(word) for word in words]


SCENARIOS = [
    Scenario("rr1", "64 B, 1 connection", "one client that sends one message at a time"),
    Scenario("rr50", "64 B, 50 connections", "some dozens of busy clients", 50),
    Scenario("rr1000", "64 B, 1000 connections", "a thousand busy clients", 1000),
    Scenario("pipe16", "64 B, 50 connections, 16 in flight on each", "clients with several messages in flight", 50, depth=16),
    Scenario("msg16k", "16 KiB, 50 connections", "larger messages", 50, 16384),
    Scenario("stream1", "bulk, 1 stream", "one bulk stream", 1, 65536, "stream"),
    Scenario("stream8", "bulk, 8 streams", "several bulk streams", 8, 65536, "stream"),
    Scenario("connect", "connect, 64 B, close; 16 at once", "short connections: connect, one message, close", 16, mode="connect"),
    Scenario("idle5000", "64 B, 50 connections among 5000 idle ones", "thousands of connections, few of them busy", 50, idle=5000),
]


@dataclass(frozen=True)
class Timing:
    rounds: int
    seconds: float
    warmup: float


def echoc(command, server, cpu, limit):
    """Run the client on processor `cpu`, and sample the server. Returns (exit status, stdout, stderr, [(when, CPU seconds)])."""
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
    samples, ended, until = [], os.pidfd_open(client.pid), time.monotonic() + limit
    try:
        while True:
            before = time.monotonic()
            if before > until:
                raise Unfit(f"echoc did not end within {limit:.0f} s")
            used = cost.cpu_seconds(server.pid)
            after = time.monotonic()
            samples.append(((before + after) / 2, used))
            pause = max(SAMPLE_EVERY, min(0.25, 20 * (after - before)))
            if select.select([ended], [], [], pause)[0]:
                break
        samples.append((time.monotonic(), cost.cpu_seconds(server.pid)))
        out, err = client.communicate()
    finally:
        os.close(ended)
        if client.poll() is None:
            client.kill()
            client.wait()
    return client.returncode, out.decode(), err.decode(), samples


def at(samples, when):
    """Processor time at the time `when`, interpolated between the samples before and after it."""
    for (t0, c0), (t1, c1) in zip(samples, samples[1:]):
        if t0 <= when <= t1:
            return c0 + (c1 - c0) * (when - t0) / (t1 - t0) if t1 > t0 else c0
    return samples[-1][1] if when > samples[-1][0] else samples[0][1]


def fault(out, err):
    """The reason of a failure, from the output of echoc."""
    if not out:
        return (err.strip().splitlines() or ["no message"])[-1]
    report = json.loads(out)
    counts = [f"{report[key]} {key}" for key in ("errors", "lost", "mismatches", "idle_lost") if report[key]]
    return ", ".join(counts + [report["first_error"]] if report["first_error"] else counts) or "not all bytes came back"


def measure(contestant, scenario, timing, options, cpus, directory):
    """One round of one contestant, as a dict. Raises Unfit with the reason if it cannot be measured."""
    with contestant.start(scenario, cpus[0], directory) as server:
        command = [options.echoc, "--load", "--json", "-q", "--engine", options.engine, "-d", f"{timing.seconds}",
                   "--warmup", f"{timing.warmup}", *scenario.arguments(), server.host, str(server.port)]
        busy, began = cost.processor_busy(cpus[0]), time.monotonic()
        limit = timing.warmup + timing.seconds + PATIENCE + scenario.held * PATIENCE_PER_CONNECTION
        status, out, err, samples = echoc(command, server, cpus[1], limit)
        busy, took = cost.processor_busy(cpus[0]) - busy, time.monotonic() - began
        if status != 0:
            raise Unfit(f"echoc ended with {status}: {fault(out, err)}")
    report = json.loads(out)
    begin = report["measured_from"]
    used = at(samples, begin + report["seconds"]) - at(samples, begin)
    amount = report["bytes"] / 1e6 if scenario.mode == "stream" else report["echoes"]
    if amount == 0 or used <= 0 or report["latency_us"]["p50"] is None:
        raise Unfit("nothing came back while measuring")
    return {
        "rate": amount / report["seconds"],
        "cost_us": used / amount * 1e6,
        "per_cpu_second": amount / used,
        "server_share": used / report["seconds"],
        "p50_us": report["latency_us"]["p50"],
        "p99_us": report["latency_us"]["p99"],
        "client_share": report["client_cpu_share"],
        "client_limited": report["client_limited"],
        "others_share": max(0, busy - (samples[-1][1] - samples[0][1])) / took,
        "engine": report["engine"],
    }


# --- memory -----------------------------------------------------------------------------------------------------------

WARM_ECHOES = 1000


@dataclass(frozen=True)
class Held:
    """A scenario for memory(): open connections without load."""
    connections: int
    idle: int = 0
    size: int = 64
    mode: str = "rr"

    @property
    def held(self):
        return self.connections


def held_for(name, short):
    many = {"epoll": 5000, "io_uring": 5000, "poll": 5000, "plain loop": 5000}.get(name, 900)
    return Held(min(many, 900) if short else many)


def hold(server, sockets, count, size):
    """Make connections until `sockets` has `count`. Each new one echoes once, so that the server has accepted it."""
    fresh = [socket.create_connection((server.host, server.port), timeout=30) for _ in range(count - len(sockets))]
    sockets += fresh
    for each in fresh:
        each.sendall(b"?" * size)
    for each in fresh:
        if len(each.recv(size, socket.MSG_WAITALL)) != size:
            raise Unfit("a connection was closed")


def use_shared_buffers(sockets, size):
    """Echo WARM_ECHOES messages, so that buffers that connections share are in memory."""
    for number in range(WARM_ECHOES):
        each = sockets[number % len(sockets)]
        each.sendall(b"?" * size)
        if len(each.recv(size, socket.MSG_WAITALL)) != size:
            raise Unfit("a connection was closed")


def memory(contestant, held, cpus, directory):
    """The growth of the process tree for each connection that has echoed once and is idle since. Memory that only the first
    connections need, such as shared buffers, is not counted."""
    sockets = []
    empty, floor = Held(1), held.connections // 10
    pool = contestant.name in ("prefork", "prethread")
    try:
        # A pool needs its memory before there are connections: compare it with the smallest pool.
        if pool:
            with contestant.start(empty, cpus[0], directory) as least:
                before, floor = cost.memory_kib(least.pid), contestant.workers(empty)
        with contestant.start(held, cpus[0], directory) as server:
            if not pool:
                hold(server, sockets, floor, held.size)
                use_shared_buffers(sockets, held.size)
                before = cost.memory_kib(server.pid)
            hold(server, sockets, held.connections, held.size)
            after = cost.memory_kib(server.pid)
            count = held.connections - floor
            for each in sockets:
                each.close()
    except OSError as error:
        raise Unfit(f"after {len(sockets)} connections: {error}") from error
    finally:
        for each in sockets:
            each.close()

    def growth(i):
        return None if before[i] is None or after[i] is None else (after[i] - before[i]) * 1024 / count

    return {"connections": held.connections, "pss_bytes": growth(0), "rss_bytes": growth(1),
            "pss_before_kib": before[0], "pss_after_kib": after[0]}
