# SPDX-License-Identifier: ISC
"""Exhaustion of descriptors and memory: the daemon does not spin, does not exit and logs few lines. Accepted connections continue;
waiting clients are served later."""

import re
import resource
import socket
import time

import pytest

import echod
import metrics
import peer
import proc

# Models with all connections in one process; processes of the other models have one or few connections each.
ONE_PROCESS = ("thread", "select", "poll", "epoll", "io_uring")


def small(most):
    return ["prlimit", f"--nofile={most}:{most}"]


def quiet(daemon, seconds, most, what):
    """The daemon must not use more than `most` of a processor in the next `seconds`."""
    began = daemon.cpu()
    time.sleep(seconds)  # the period of the measurement
    used = daemon.cpu() - began
    assert used <= most * seconds, f"{used:.2f} s of CPU in {seconds} s {what}"


@pytest.mark.models(*ONE_PROCESS)
def test_no_descriptor_left(start, model):
    """max-connections is higher than the number of descriptors: accept(2) fails with EMFILE repeatedly."""
    daemon = start(model, max_connections=400, wrap=small(48), log_connections=False)
    crowd, waiting = [], []
    for number in range(70):
        sock = daemon.connect()
        sock.sendall(b"%04d" % number)
        crowd.append(sock)
    daemon.wait_log("Cannot accept connections: Too many open files")
    inside = [sock for sock in crowd if not peer.silent(sock, 0.05)]
    waiting = [sock for sock in crowd if sock not in inside]
    assert 5 <= len(inside) < 48 and waiting, f"{len(inside)} are served"
    quiet(daemon, 1.0, 0.2, "without a free descriptor")
    for sock in inside:
        assert peer.receive(sock, 4)
        peer.echo(sock, b"served as before")
    for sock in inside:
        peer.finish(sock)
    for sock in waiting:
        assert peer.receive(sock, 4)
        peer.finish(sock)
    metrics.wait_line(daemon, "the end of all connections", connections=0, connections_accepted=70, connections_ended__eof=70)
    said = daemon.lines_about("Cannot accept connections")
    assert len(said) <= 3, f"too many lines: {said}"
    daemon.visit()


def test_default_limit_fits_the_descriptors(start, model):
    """max-connections = 0 is the number that the hard limit of descriptors allows: at that number no call fails."""
    daemon = start(model, wrap=small(64), log_connections=False)
    crowd = [daemon.connect() for _ in range(90)]
    for number, sock in enumerate(crowd):
        sock.sendall(b"%04d" % number)
        sock.shutdown(socket.SHUT_WR)
    for number, sock in enumerate(crowd):
        assert peer.receive_all(sock) == b"%04d" % number
        sock.close()
    metrics.wait_line(daemon, "the end of all connections", connections=0, connections_accepted=90)
    assert "resource_exhaustions" not in metrics.line(daemon), daemon.log()


@pytest.mark.parametrize("limit", range(3, 40, 4))
def test_too_few_descriptors_to_start(launch, limit):
    """The daemon serves clients, or it fails to start with an error message."""
    daemon = launch("epoll", workers=2, wrap=small(limit))
    deadline = time.monotonic() + echod.START_TIMEOUT
    while daemon.popen.poll() is None and not daemon.notify.all("READY"):
        assert time.monotonic() < deadline, f"neither ready nor ended with {limit} descriptors:\n{daemon.log()}"
        time.sleep(0.01)
    if daemon.popen.poll() is None:
        daemon.visit()
        return
    said = daemon.failed()
    assert limit < 6 or re.search(r"open files|descriptor|nofile", said, re.I), f"{limit}: {said}"


def test_reload_without_descriptors_changes_nothing(start, model):
    """If the new workers cannot be started, the old workers continue."""
    daemon = start(model)
    with daemon.connect() as sock:
        peer.echo(sock, b"before")
        taken = max(proc.descriptors(daemon.pid)) + 1
        for spare in (1, 2, 3, 4):  # one is needed for the notification of the service manager
            since = len(daemon.log())
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (taken + spare, 4096))
            daemon.hup()
            daemon.wait_log("open files|Reloaded", since)
            peer.echo(sock, b"meanwhile")
            if spare == 1:
                assert "open files" in daemon.log()[since:], f"reloaded without descriptors?\n{daemon.log()}"
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (4096, 4096))
        daemon.reload()
        daemon.wait_log("Reloaded")
        peer.echo(sock, b"after")
        peer.finish(sock)
    daemon.visit()


def test_memory_runs_out(start, model):
    """Little address space: clients with much unsent data wait or lose their connections; other clients are served,
    also afterwards."""
    if echod.SANITIZED:
        pytest.skip("sanitizers need address space of their own")
    daemon = start(model, workers={"prefork": 40, "prethread": 40, "iterative": 1}.get(model, 1 if model in echod.LOOPS else 0),
                   buffer_size=8 << 20, log_connections=False, idle_timeout=60)
    if model == "iterative":
        with daemon.connect() as sock:
            starve(daemon, 6 << 20)
            peer.echo(sock, peer.data(1 << 20))
        daemon.visit()
        return
    good = daemon.connect()
    peer.echo(good, b"before")
    starve(daemon, 6 << 20)
    greedy = []
    for _ in range(20):
        sock = peer.connect(daemon.address, rcvbuf=16384, sndbuf=peer.FILL_SNDBUF)
        peer.fill_path(sock, quiet=0.02, may_end=True)
        greedy.append(sock)
    peer.echo(good, b"in the middle of it")
    quiet(daemon, 0.5, 0.4, "without free memory")
    for sock in greedy:
        peer.reset(sock)
    peer.echo(good, peer.data(100000))
    peer.finish(good)
    metrics.wait_line(daemon, "the end of all connections", connections=0)
    daemon.visit()


def starve(daemon, spare):
    """Limit the address space of each child process to its present size and `spare` bytes."""
    for stat in daemon.tree()[1:]:
        size = int(proc.status(stat.pid)["VmSize"].split()[0]) * 1024 + spare
        resource.prlimit(stat.pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("spare", [0, 64, 256, 512, 1024, 1200, 1400, 2048, 4096])
def test_reload_without_memory_changes_nothing(start, spare):
    """A failed reload does not end the service, although the lexer of libconfuse ends its process when it gets no memory."""
    if echod.SANITIZED:
        pytest.skip("sanitizers need address space of their own")
    daemon = start("epoll", workers=1)
    with daemon.connect() as sock:
        peer.echo(sock, b"before")
        size = int(proc.status(daemon.pid)["VmSize"].split()[0])
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, ((size + spare) * 1024, resource.RLIM_INFINITY))
        daemon.configure(deny=[f"10.{i // 256}.{i % 256}.0/24" for i in range(20000)])
        daemon.hup()
        daemon.wait_log("[Mm]emory|Reloaded")
        peer.echo(sock, b"meanwhile")
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        daemon.reload(deny=[])
        daemon.wait_log("Reloaded")
        peer.echo(sock, b"after")
        peer.finish(sock)
