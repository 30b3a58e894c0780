#!/usr/bin/env python3
# SPDX-License-Identifier: ISC
"""make bench-attacks: round-trip times of a good client without and beside attacks; see tests/bench/local.mk, and --help.

Each attack runs in processes of its own against a new daemon on the loopback interface, as fast as it can. The good client is
echoc: one connection with 64-byte messages, one after the other. The attacker uses processors of this host, too, which increases
the round-trip times; a remote attacker would not. After each attack the counters of the daemon are compared with those of the
attacker.
"""
import argparse
import contextlib
import json
import multiprocessing
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

import command

MODELS = ("epoll", "io_uring", "poll", "select", "process", "prefork", "thread", "prethread")
HOST = "127.0.0.1"
START_WITHIN = 10
BURST = 65536


class Attack:
    """The attacker's connections and datagrams, counted for the comparison."""

    def __init__(self, port, stop, counts):
        self.port, self.stop, self.counts = port, stop, counts

    def connect(self, source=None):
        sock = socket.create_connection((HOST, self.port), 10, (source, 0) if source else None)
        with self.counts.get_lock():
            self.counts[0] += 1
        return sock

    def sent_datagram(self):
        with self.counts.get_lock():
            self.counts[1] += 1


def urgent(attack):
    """Connections that send urgent bytes, and read."""
    socks = [attack.connect() for _ in range(50)]
    for sock in socks:
        sock.setblocking(False)
    while not attack.stop.is_set():
        for sock in socks:
            with contextlib.suppress(BlockingIOError):
                sock.send(b"x", socket.MSG_OOB)
                sock.send(b"y" * 100)
            with contextlib.suppress(BlockingIOError):
                sock.recv(BURST)


def stalled(attack):
    """Connections that fill the buffers of the kernel and never read."""
    socks = [attack.connect() for _ in range(200)]
    data = b"z" * BURST
    for sock in socks:
        sock.setblocking(False)
    while not attack.stop.is_set():
        for sock in select.select([], socks, [], 0.1)[1]:
            with contextlib.suppress(BlockingIOError):
                sock.send(data)


def addresses(last):
    """Source addresses without end, with the fourth bytes `last`: max-per-source counts each address, udp-rate each /24 network."""
    while True:
        for second in range(1, 255):
            for third in range(256):
                for fourth in last:
                    yield f"127.{second}.{third}.{fourth}"


def sources(attack):
    """Connections from new sources all the time, to fill the table of max-per-source."""
    for source in addresses(range(1, 255)):
        if attack.stop.is_set():
            return
        with attack.connect(source) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def udp_sources(attack):
    """Datagrams from new /24 networks all the time, to fill the table of udp-rate."""
    for source in addresses((1,)):
        if attack.stop.is_set():
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            sock.sendto(b"x" * 64, (HOST, attack.port))
            attack.sent_datagram()


def udp_flood(attack):
    """Datagrams from one source, far above udp-rate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((HOST, attack.port))
        while not attack.stop.is_set():
            with contextlib.suppress(ConnectionRefusedError):
                sock.send(b"x" * 64)
                attack.sent_datagram()


def log_flood(attack):
    """Connections that end at once: a line in the log for each."""
    while not attack.stop.is_set():
        with attack.connect() as sock:
            sock.sendall(b"x")
            sock.recv(1)


ATTACKS = {
    "none": (None, ""),
    "urgent data": (urgent, ""),
    "stalled connections": (stalled, ""),
    "sources of connections": (sources, "max-per-source = 1000\n"),
    "sources of datagrams": (udp_sources, ""),
    "flood of datagrams": (udp_flood, ""),
    "flood of log lines": (log_flood, ""),
}


def run_attack(function, port, stop, counts):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        function(Attack(port, stop, counts))


@contextlib.contextmanager
def daemon(options, directory, extra):
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    conf, metrics, log = (os.path.join(directory, name) for name in ("echod.conf", "metrics", "log"))
    with open(conf, "w") as file:
        file.write(f'model = "{options.model}"\nport = {port}\nlisten = {{"{HOST}"}}\nprotocols = {{"tcp", "udp"}}\npidfile = ""\n'
                   f'log-target = "stderr"\nstats-interval = 1\nmetrics-file = "{metrics}"\n{extra}')
    with open(log, "w") as err:
        process = subprocess.Popen([options.echod, "-n", "-c", conf], stderr=err, stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_WITHIN
        while socket.socket().connect_ex((HOST, port)) != 0:
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"bench-attacks: echod does not start: {open(log).read()}")
            time.sleep(0.02)
        yield port, metrics, process
    finally:
        process.terminate()
        process.wait()


def good_client(options, port):
    """Round-trip times in microseconds."""
    done = subprocess.run([options.echoc, "--load", "--json", "-q", "-n", "1", "-s", "64", "--warmup", "0.2", "-d", str(options.seconds),
                           HOST, str(port)], stdout=subprocess.PIPE, check=True, timeout=60 + options.seconds)
    return json.loads(done.stdout)


def counters(path):
    with open(path) as file:
        return {name: float(value) for name, value in re.findall(r"^(echod_\S+) (\S+)$", file.read(), re.M)}


def wait_counters(metrics, process):
    """Wait until the counters do not change any more: all ends of connections are counted then. Returns the counters."""
    before = None
    for _ in range(100):
        process.send_signal(signal.SIGUSR1)
        time.sleep(1.1)
        now = counters(metrics)
        if now == before:
            return now
        before = now
    sys.exit("bench-attacks: the counters still change after 110 s")


def total(found, name):
    return int(sum(value for key, value in found.items() if key.split("{")[0] == name))


def check(found, counts):
    """The differences between the counters of the daemon and those of the attacker, and idle wake-ups, as texts."""
    wrong = []
    made = counts[0] + 2  # the good client, and the probe at the start
    accepted, ended = total(found, "echod_connections_accepted_total"), total(found, "echod_connections_ended_total")
    if accepted != made or ended != made:
        wrong.append(f"{made} connections made, {accepted} accepted, {ended} ended")
    if total(found, "echod_idle_wakeups_total"):
        wrong.append(f"{total(found, 'echod_idle_wakeups_total')} idle wake-ups")
    datagrams = total(found, "echod_datagrams_echoed_total") + total(found, "echod_datagrams_dropped_total")
    if datagrams != counts[1]:
        wrong.append(f"{counts[1]} datagrams sent, {datagrams} echoed or dropped")
    return wrong


def measure(options, name):
    function, extra = ATTACKS[name]
    with tempfile.TemporaryDirectory(prefix="echod-attacks-") as directory, \
            daemon(options, directory, extra) as (port, metrics, process):
        stop, counts = multiprocessing.Event(), multiprocessing.Array("q", 2)
        attackers = [multiprocessing.Process(target=run_attack, args=(function, port, stop, counts))] if function else []
        for attacker in attackers:
            attacker.start()
        report = good_client(options, port)
        stop.set()
        for attacker in attackers:
            attacker.join()
        return report, list(counts), wait_counters(metrics, process)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--echod", required=True)
    parser.add_argument("--echoc", required=True)
    parser.add_argument("--model", choices=MODELS, default="epoll")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--only", help="one of: " + ", ".join(ATTACKS))
    options = parser.parse_args()
    failed = False
    print(f"{options.model}: round-trip times of one client, 64 bytes\n")
    print(f"{'attack':<24}{'p50':>10}{'p99':>10}{'max':>10}  connections and datagrams of the attacker")
    for name in ATTACKS:
        if options.only and name not in ("none", options.only):
            continue
        report, counts, found = measure(options, name)
        rtt = report["latency_us"]
        print(f"{name:<24}{rtt['p50']:>7.0f} us{rtt['p99']:>7.0f} us{rtt['max']:>7.0f} us  {counts[0]}, {counts[1]}", flush=True)
        for text in check(found, counts):
            failed = True
            print(f"    wrong: {text}")
    return failed


if __name__ == "__main__":
    command.run(main)
