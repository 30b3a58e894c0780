# SPDX-License-Identifier: ISC
"""Good and hostile clients connect and disconnect for a given time while the daemon is reloaded. After the end of all connections,
the numbers of descriptors, processes and connections and the memory must be as before."""

import os
import random
import socket
import threading
import time

import pytest

import echod
import metrics
import peer
import proc

SOAK_TIME = float(os.environ.get("SOAK_TIME", "20"))

class Crowd:
    """Threads that repeat their actions until finish(); the first exception of each is kept."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.done = threading.Event()
        self.counts = {}
        self._wrong = []
        self._threads = []

    def add(self, act, number=1):
        for _ in range(number):
            thread = threading.Thread(target=self._run, args=(act, random.Random(len(self._threads))), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, act, dice):
        try:
            while not self.done.is_set():
                act(dice)
                self.counts[act.__name__] = self.counts.get(act.__name__, 0) + 1
        except BaseException as wrong:
            self._wrong.append(wrong)
            self.done.set()

    def check(self):
        if self._wrong:
            raise AssertionError(f"{self._wrong[0]!r}; {metrics.line(self.daemon)}\n{self.daemon.log()[-4000:]}") from self._wrong[0]

    def finish(self):
        self.done.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads), "a client is stuck"
        self.check()

    # Good ones

    def visits(self, dice):
        self.daemon.visit(peer.data(dice.choice((1, 64, 1500, 70000, 400000)), seed=dice.randrange(4)))
        self.done.wait(0.005)

    def stays(self, dice):
        with self.daemon.connect() as sock:
            for _ in range(dice.randrange(5, 40)):
                peer.echo(sock, peer.data(dice.choice((10, 1000, 100000))))
                if self.done.wait(dice.random() / 10):
                    break
            peer.finish(sock)

    # Hostile ones

    def says_nothing(self, dice):
        socks = [self.daemon.connect() for _ in range(4)]
        self.done.wait(dice.random() * 2)
        for sock in socks:
            sock.close()

    def never_reads(self, dice):
        with peer.connect(self.daemon.address, rcvbuf=8192, sndbuf=65536) as sock:
            peer.fill_path(sock, quiet=0.1, may_end=True)
            if dice.randrange(2):
                peer.reset(sock)

    def dribbles(self, dice):
        with self.daemon.connect() as sock:
            for _ in range(10):
                try:
                    sock.send(b"d")
                except OSError:
                    break
                if self.done.wait(0.1):
                    break

    def resets(self, dice):
        sock = self.daemon.connect()
        stage = dice.randrange(4)
        if stage:
            sock.settimeout(0)
            try:
                sock.send(peer.data(dice.choice((1, 70000))))
            except BlockingIOError:
                pass
        if stage == 2:
            sock.shutdown(socket.SHUT_WR)
        peer.reset(sock)
        self.done.wait(0.005)

    def storms(self, dice):
        for _ in range(30):
            try:
                socket.create_connection(self.daemon.address, timeout=5).close()
            except OSError:  # no local port may be free
                pass
        self.done.wait(0.2)


def state(daemon):
    """The numbers that must not grow: processes, descriptors, and bytes of memory."""
    return len(daemon.tree()), daemon.descriptors(), daemon.memory()


def open_files(daemon):
    """The files of the descriptors of each process, as text."""
    return "\n".join(f"{stat.pid}: {sorted(proc.descriptors(stat.pid).items())}" for stat in daemon.tree())


def quiet(daemon, processes):
    metrics.wait_line(daemon, "the end of all connections", timeout=60, connections=0)
    proc.until(lambda: len(daemon.tree()) == processes, lambda: f"{processes} processes, there are "
               f"{[(s.pid, s.ppid, s.state) for s in daemon.tree()]}", 60)


def use(daemon, seconds, reload):
    """Run all kinds of clients at the same time for `seconds`, with reloads. Returns how often each action was done."""
    crowd = Crowd(daemon)
    crowd.add(crowd.visits, 3)
    crowd.add(crowd.stays, 2)
    for act in (crowd.says_nothing, crowd.never_reads, crowd.dribbles, crowd.resets, crowd.storms):
        crowd.add(act)
    until = time.monotonic() + seconds
    reloads = 0
    while not crowd.done.wait(min(2.0, max(0.0, until - time.monotonic()))) and time.monotonic() < until:
        reload(reloads)
        reloads += 1
    crowd.finish()
    return {**crowd.counts, "reloads": reloads}


def test_soak(start, model, record_property):
    pool = {"iterative": 1, "prefork": 24, "prethread": 24}.get(model, 2 if model in echod.LOOPS else 0)
    if model == "iterative":
        pytest.skip("one open connection delays all other clients, as documented")
    daemon = start(model, workers=pool, idle_timeout=30, max_per_source=400, log_connections=False, drain_timeout=5)

    def reload(number):
        daemon.reload(idle_timeout=30 + number % 2)

    quiet(daemon, len(daemon.tree()))
    processes = len(daemon.tree())
    use(daemon, max(4.0, SOAK_TIME / 5), reload)  # until all pools are allocated
    reload(0)
    quiet(daemon, processes)
    before, files = state(daemon), open_files(daemon)
    done = use(daemon, SOAK_TIME, reload)
    reload(0)
    quiet(daemon, processes)
    # a worker process ends shortly before the supervisor closes the descriptors that it shared with it
    proc.until(lambda: daemon.descriptors() <= before[1], lambda: f"as few descriptors as before, {before[1]}:\n"
               f"{files}\nthere are {daemon.descriptors()}:\n{open_files(daemon)}", 60)
    after = state(daemon)
    counts = metrics.line(daemon)
    record_property(f"{model}, soak of {SOAK_TIME:.0f} s", f"{done}; processes, descriptors, memory: {before} before, "
                    f"{after} after; {counts}")

    assert after[0] == before[0], "processes were left behind"
    assert after[2] <= before[2] * 1.1 + (2 << 20), f"memory: {before[2]} bytes before, {after[2]} after"
    ended = sum(number for name, number in counts.items() if name.startswith("connections_ended"))
    assert counts["connections_accepted"] == ended, "connections were lost from the count"
    # every connection that was handed over was taken over
    assert counts.get("connections_handed_over", 0) <= counts.get("connections_taken_over", 0), counts
    assert not counts.get("connections_ended limit"), "counts of max-per-source have leaked"
    assert not counts.get("connections_ended error"), "a connection ended with an error"
    for trouble in ("died", "killed", "failed: ", "failed with status"):
        assert not daemon.lines_about(trouble), daemon.log()
