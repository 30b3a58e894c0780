# SPDX-License-Identifier: ISC
"""Connections are spread evenly over the event loops, and no worker accepts on behalf of another one."""

import contextlib
import os
import signal
import socket

import pytest

import echod
import metrics
import peer
import proc

LOOPS = pytest.mark.models(*echod.LOOPS)
EACH = 100  # connections of a worker


def connections(daemon, path):
    """The connections of each worker, from the metrics file, once their sum is the number of the daemon."""
    found = {}

    def complete():
        found.clear()
        daemon.signal(signal.SIGUSR1)
        samples = metrics.read(path)
        total = samples["echod_connections", None]
        found.update({label: int(number) for (name, label), number in samples.items() if name == "echod_worker_connections"})
        return total == complete.wanted and sum(found.values()) == total

    def wait(wanted):
        complete.wanted = wanted
        proc.until(complete, lambda: f"{wanted} connections over all workers: {found}", 20)
        return sorted(found.values())

    return wait


def spread(counts, workers):
    """The largest distance from the mean, as a part of it; workers without a sample have no connection."""
    counts = [0] * (workers - len(counts)) + counts
    assert len(counts) == workers, counts
    mean = sum(counts) / workers
    return max(abs(count - mean) for count in counts) / mean


def capacity(daemon, workers):
    """The connections to open: EACH for each worker; with select(2), at most the number that its descriptor sets can hold."""
    if daemon.keys["model"] != "select":
        return EACH * workers
    return min(EACH, (1024 - 100 - 8 * workers) // workers) * workers


@pytest.fixture
def balanced(start, tmpdir):
    """balanced(model, workers): a daemon, the connections it is to have, and a function that counts them by worker."""
    if not metrics.parser():
        pytest.skip("python3-prometheus-client is missing")

    def begin(model, workers):
        path = tmpdir + "/metrics"
        daemon = start(model, workers=workers, metrics_file=path, stats_interval=1, log_connections=False)
        return daemon, capacity(daemon, workers), connections(daemon, path)

    return begin


@LOOPS
@pytest.mark.parametrize("workers", [2, 4, 16])
def test_connections_one_after_the_other(balanced, model, workers):
    """They are spread evenly, also after reloads that hand them over to as many workers, and then to twice as many."""
    daemon, wanted, by_worker = balanced(model, workers)
    socks = []
    for _ in range(wanted):
        socks.append(daemon.connect())
        peer.echo(socks[-1], b"x")
    assert spread(by_worker(wanted), workers) <= 0.10
    daemon.reload(idle_timeout=599)
    for sock in socks:
        peer.echo(sock, b"y")
    assert spread(by_worker(wanted), workers) <= 0.10
    for sock in socks:
        sock.close()


@LOOPS
@pytest.mark.parametrize("workers", [2, 4, 16])
def test_connections_that_come_at_once(balanced, model, workers):
    daemon, wanted, by_worker = balanced(model, workers)
    socks = [socket.socket() for _ in range(wanted)]
    for sock in socks:
        sock.setblocking(False)
        sock.connect_ex(daemon.address)
    for sock in socks:
        sock.settimeout(peer.PATIENCE)
        peer.echo(sock, b"x")
    assert spread(by_worker(wanted), workers) <= 0.25
    for sock in socks:
        sock.close()


def take_turns(daemon, free, action):
    """Clients connect during `action`; each is served although no other event could wake a worker."""
    for step in range(20):
        socks = [daemon.connect() for _ in range(free - 1)]
        action(step)
        socks.append(daemon.connect())
        for sock in socks:
            peer.echo(sock, b"%d" % step)
        for sock in socks:
            sock.close()


def test_no_client_waits_while_a_worker_is_free(start, model):
    """Reload at every moment of an accept: the worker that the kernel woke for a client may be a worker that stops."""
    daemon = start(model, **{} if model == "iterative" else {"workers": 3})
    take_turns(daemon, 1 if model == "iterative" else 3, lambda step: daemon.hup() if step % 3 else daemon.signal(signal.SIGHUP))
    daemon.wait_log("Reloaded")


@pytest.mark.models("prefork", "process")
def test_no_client_waits_for_a_killed_worker(start, model):
    """A worker is woken for a client, and killed before it accepts: another worker serves the client."""
    daemon = start(model, workers=4, log_connections=False)
    daemon.crash_expected = True

    def kill(step):
        victims = [process.pid for process in daemon.tree() if process.pid != daemon.pid]
        if victims:  # the one acceptor of `process` may be about to be restarted
            with contextlib.suppress(ProcessLookupError):  # it may just have ended
                os.kill(victims[step % len(victims)], signal.SIGKILL)

    # the same process is restarted after a pause that doubles each time
    for step in range(12 if model == "prefork" else 5):
        kill(step)
        with daemon.connect() as sock:
            peer.echo(sock, b"%d" % step)


@pytest.mark.models("prefork", "prethread")
def test_max_per_source_holds_when_all_are_busy(start, model):
    """Clients of one source connect to several listeners at once, which wakes several workers: only two clients are served."""
    ports = [echod.free_port() for _ in range(4)]
    daemon = start(model, workers=4, max_per_source=2, listen=[f"127.0.0.1:{port}" for port in ports])
    for _ in range(10):
        socks = [peer.connect(("127.0.0.1", port)) for port in ports for _ in range(3)]
        served = 0
        for sock in socks:
            try:
                sock.sendall(b"x")
                served += sock.recv(1) == b"x"
            except ConnectionError:
                pass
            assert metrics.line(daemon).get("connections", 0) <= 2
        assert served == 2
        for sock in socks:
            sock.close()
        metrics.wait_line(daemon, "all gone", connections=0)
