# SPDX-License-Identifier: ISC
"""Reloads under load: any model to any model, and back."""

import os
import resource
import select
import signal
import socket

import pytest

import crowd as crowds
import echod
import failing
import metrics
import peer
import proc
from crowd import ROUNDS

STREAMS = 50

# number of streams that each model serves at a time; the others wait in the queue
AT_A_TIME = {"iterative": 1, "prefork": 4, "prethread": 4}

SEGMENTS = 3


def walk(models):
    """A path through the models with each ordered pair once, pairs of equal models included."""
    left = {model: list(models) for model in models}
    path, circuit = [models[0]], []
    while path:
        if left[path[-1]]:
            path.append(left[path[-1]].pop())
        else:
            circuit.append(path.pop())
    return circuit[::-1]


def test_the_walk_is_complete():
    steps = walk(echod.MODELS)
    assert len(steps) == 82 and len(set(zip(steps, steps[1:]))) == 81


@pytest.mark.parametrize("segment", range(SEGMENTS))
def test_every_pair_of_models(start, crowd, segment):
    """Fifty streams over reloads from every model to every model: all continue, or as many as the new model serves at a time."""
    refusals = echod.REFUSALS
    steps = walk([model for model in echod.MODELS if not refusals.get(model)])
    share = -(-(len(steps) - 1) // SEGMENTS)
    steps = steps[segment * share:segment * share + share + 1]
    daemon = start("epoll", backlog=1000)
    everybody = crowd(daemon.address, STREAMS)
    everybody.settle("the start")
    for _ in range(ROUNDS):
        daemon.reload(model=steps[0])
        everybody.settle(f"epoll to {steps[0]}", AT_A_TIME.get(steps[0], 0))
        for old, new in zip(steps, steps[1:]):
            daemon.reload(model=new)
            everybody.settle(f"{old} to {new}", AT_A_TIME.get(new, 0))
    daemon.reload(model="epoll")
    everybody.settle("the end")
    everybody.finish("the end")
    assert "damaged" not in daemon.log() and "lost" not in daemon.log()


@pytest.mark.models("epoll", "io_uring", "thread")
@pytest.mark.timeout(400)
def test_a_thousand_connections_over_twenty_reloads(start, crowd, record_property, model):
    count = 200 if echod.SANITIZED else 1000
    daemon = start(model)
    everybody = crowd(daemon.address, count, kinds="rrrrrrrrrrrrrribhmcc", think=1000)
    everybody.settle("the start")
    everybody.mark()
    before = everybody.ask("pass")["pause_ms"]
    pauses = []
    for i in range(20 * ROUNDS):
        old = daemon.workers()
        everybody.mark()
        daemon.reload(model=model, workers=1 + i % 2 if model != "thread" else 0)
        proc.until(lambda: not any(map(proc.alive, old)), "the end of the old workers", 60)
        pauses.append(everybody.ask("pass")["pause_ms"])
        everybody.settle(f"reload {i + 1}")
    everybody.finish("the end")
    crowds.report_pause(record_property, f"of any of {count} streams over {len(pauses)} reloads {max(pauses):.0f} ms, median "
                f"{sorted(pauses)[len(pauses) // 2]:.0f} ms; without a reload {before:.0f} ms")


def leave_one_by_one(socks, daemon):
    """Send a message on each socket, and close each one after its echo, which frees its slot for the next one."""
    poll, waiting = select.poll(), {}
    for sock in socks:
        sock.sendall(b"after")
        poll.register(sock, select.POLLIN)
        waiting[sock.fileno()] = sock
    while waiting:
        ready = poll.poll(peer.PATIENCE * 1000)
        assert ready, f"{len(waiting)} of {len(socks)} got no echo"
        for fd, _ in ready:
            sock = waiting.pop(fd)
            poll.unregister(fd)
            endpoint = peer.endpoint(sock)
            try:
                assert peer.receive(sock, 5) == b"after"
                peer.finish(sock)
            except (AssertionError, OSError) as error:
                lines = proc.until(lambda: daemon.lines_about(endpoint), f"a line about {endpoint}")
                raise AssertionError(f"{error}: {lines}") from error


def served(socks, timeout):
    """Wait until at least one of the sockets has an echo to read; return all sockets that have one."""
    ready = set()
    proc.until(lambda: ready.update(s for s in socks if peer_has(s)) or ready, "an echo on any of them", timeout)
    return ready


def peer_has(sock):
    return bool(select.select([sock], [], [], 0)[0])


@pytest.mark.parametrize("model,workers", [("iterative", 1), ("prefork", 2), ("prethread", 2)])
def test_queued_connections_are_served_in_order(start, model, workers):
    """New workers that serve fewer connections at a time take the others from the queue in the order of their last activity."""
    daemon = start("epoll", workers=1)
    socks = []
    for i in range(8):
        sock = daemon.connect()
        peer.echo(sock, b"before %d" % i)
        socks.append(sock)
    old = daemon.workers()
    daemon.reload(model=model, workers=workers)
    proc.until(lambda: not any(map(proc.alive, old)), "the old worker, which would answer all clients, has ended")
    for i, sock in enumerate(socks):
        sock.sendall(b"%d" % i)
    queue = list(socks)
    for i, sock in enumerate(socks):
        ready = served(queue, 20)
        assert sock in ready or workers > 1, f"not number {i}, but {[socks.index(s) for s in ready]}"
        assert {socks.index(s) for s in ready} <= set(range(i, i + workers)), "not in the order of the queue"
        proc.until(lambda: peer_has(sock), f"number {i} is served")
        assert sock.recv(10) == b"%d" % i
        peer.finish(sock)
        queue.remove(sock)


def test_waiting_connections_survive_reloads(start):
    """Queued connections stay in the queue over ten reloads, and are served after a reload to a model that can serve them all."""
    daemon = start("epoll", workers=1)
    socks = [daemon.connect() for _ in range(20)]
    for sock in socks:
        peer.echo(sock, b"before")
    for _ in range(10):
        daemon.reload(model="iterative")
    daemon.reload(model="epoll")
    for sock in socks:
        peer.echo(sock, b"after")
        peer.finish(sock)


@pytest.mark.models("thread", *echod.LOOPS)
def test_connections_beyond_the_descriptors_wait(start, model):
    """A reload from many processes to one, which has too few descriptors: the remaining connections wait; none is lost."""
    number = 1 + ["thread", *echod.LOOPS].index(model)
    daemon = start("process", max_connections=300, workers=300, wrap=("prlimit", "--nofile=160:160"), **echod.own_user(number))
    socks = [daemon.connect() for _ in range(200)]
    for sock in socks:
        peer.echo(sock, b"before")
    old = [stat.pid for stat in daemon.tree()[1:]]
    daemon.reload(model=model, workers=1 if model in echod.LOOPS else 300)
    proc.until(lambda: not any(map(proc.alive, old)), "the end of the old processes", 60)
    leave_one_by_one(socks, daemon)
    daemon.visit()


def test_connections_beyond_select_wait(start):
    """A reload to select(2), which cannot watch all descriptors: the remaining connections wait; none is lost."""
    daemon = start("epoll")
    socks = [daemon.connect() for _ in range(1200)]
    for sock in socks:
        peer.echo(sock, b"before")
    for model in "select", "select", "epoll":
        daemon.reload(model=model)
    old = daemon.workers()
    daemon.reload(model="select")
    proc.until(lambda: not any(map(proc.alive, old)), "the end of the old worker", 60)
    leave_one_by_one(socks, daemon)
    daemon.visit()


@pytest.fixture
def small_queue():
    """The environment of a daemon whose queue has space for few connections, as with a low net.core.wmem_max."""
    if "fault points" not in echod.run("-V").stdout:
        pytest.skip("echod was built without fault points (configure --enable-debug-faults)")
    return {"ECHOD_FAULT_QUEUE": "4096"}


@pytest.mark.models("process", "thread", *echod.LOOPS)
def test_a_small_queue_is_no_limit(start, crowd, small_queue, model):
    """A queue with space for few connections is enough if the new workers receive from it at once."""
    daemon = start("epoll", workers=2, env=small_queue)
    everybody = crowd(daemon.address, 200, kinds="rrrribmhhccc")
    everybody.settle("the start")
    for _ in range(3):
        for new in model, "epoll":
            daemon.reload(model=new)
            everybody.settle(f"to {new}")
    everybody.finish("the end")
    assert "could not be handed over" not in daemon.log()


@pytest.mark.parametrize("workers", [1, 4])
def test_a_backlog_larger_than_the_queue(start, small_queue, workers):
    """All clients in the backlog of a listener that a reload removes are served, also if the queue has space for few of them."""
    daemon = start("epoll", env=small_queue, workers=1, log_connections=False)
    stopped = daemon.workers()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    proc.until(lambda: all(proc.stopped(pid) for pid in stopped), "stopped workers")
    socks = [daemon.connect() for _ in range(1500)]
    for number, sock in enumerate(socks):
        sock.sendall(b"%d" % number)
        sock.shutdown(socket.SHUT_WR)
    daemon.reload(model="prethread", workers=workers, port=echod.free_port())
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    for number, sock in enumerate(socks):
        assert peer.receive_all(sock) == b"%d" % number
        sock.close()
    metrics.wait_line(daemon, "all connections", connections_accepted=1500, connections_ended__eof=1500, connections=0)


def test_a_backlog_while_connections_cannot_be_sent(start, tmpdir):
    """Clients in the backlog of a listener that a reload removes are served, also if sendmsg(2) fails for some of them."""
    calls = failing.Failing(tmpdir)
    daemon = start("epoll", workers=1, env=calls.env)
    stopped = daemon.workers()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    proc.until(lambda: all(proc.stopped(pid) for pid in stopped), "stopped workers")
    socks = [daemon.connect() for _ in range(20)]
    for sock in socks:
        sock.sendall(b"from the backlog")
    calls.fail("sendmsg", 7)
    daemon.reload(port=echod.free_port())
    proc.until(lambda: calls.left("sendmsg") == 0, "7 failures")
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    for sock in socks:
        assert peer.receive(sock, 16) == b"from the backlog"
        peer.finish(sock)
    metrics.wait_line(daemon, "all connections", connections_accepted=20, connections_ended__eof=20, connections_damaged=0,
                      connections=0)


@pytest.mark.parametrize("listener, event", [("port", "no event"), ("path", "a reload"), ("abstract name", "a restart")])
def test_a_backlog_while_connections_cannot_be_accepted(start, model, tmpdir, listener, event):
    """Clients in the backlog of a listener that a reload removes wait while accept4(2) fails, also longer than the listener would
    stay open, during another reload and at a restart; then they are served."""
    calls = failing.Failing(tmpdir, speed=4)
    second = echod.free_port()
    path = f"{tmpdir}/echo.sock"
    removed, address = {"port": (f"127.0.0.1:{second}", ("127.0.0.1", second)), "path": (f"unix:{path}", path),
                        "abstract name": (f"unix:@{path}", f"\0{path}")}[listener]
    daemon = start(model, listen=["127.0.0.1", removed], max_connections=1, store=True, env={**calls.env, "FDSTORE": "128"})
    with daemon.connect() as served:
        peer.echo(served, b"served")
        socks = [peer.connect(address) for _ in range(3)]
        for sock in socks:
            sock.sendall(b"from the backlog")
        calls.fail("accept4", 10 ** 9)
        daemon.reload(listen=["127.0.0.1"])
        if event == "a reload":
            daemon.reload(stats_interval=1)
        elif event == "a restart":
            daemon.term()
        daemon.wait_log("Cannot take the clients of 1 removed listener: Too many open files; trying again every 50 ms")
        calls.fail("accept4", 0)
        if event != "a restart":  # a restart keeps this connection
            peer.finish(served)
        for sock in socks:
            assert peer.receive(sock, 16) == b"from the backlog"
            peer.finish(sock)
        if event == "a restart":
            assert daemon.wait_exit() == daemon.expect


@pytest.mark.parametrize("workers", [1, 4])
def test_hand_back_waits_for_space_in_the_queue(start, small_queue, workers):
    """A child process of `process` hands a connection back to its parent once the PROXY header is complete. While connections
    of the old workers fill the queue, it waits for space; no connection ends with an error."""
    daemon = start("epoll", env=small_queue, proxy_protocol=["127.0.0.1"], max_per_source=100)
    header = b"PROXY TCP4 192.0.2.1 198.51.100.7 4711 7\r\n"
    socks = [daemon.connect() for _ in range(50)]
    for sock in socks:
        sock.sendall(header[:20])
    metrics.wait_line(daemon, "all connections", connections=50)
    old = daemon.workers()
    daemon.reload(model="process", workers=workers)
    proc.until(lambda: not any(map(proc.alive, old)), "the end of the old workers", 60)
    for sock in socks:
        sock.sendall(header[20:])
    leave_one_by_one(socks, daemon)
    metrics.wait_line(daemon, "all connections", connections_accepted=50, connections_ended__error=0, connections_ended__eof=50,
                      connections=0)
    counts = metrics.line(daemon)
    assert counts.get("connections_handed_over") == counts.get("connections_taken_over"), counts


@pytest.mark.parametrize("model,workers", [("iterative", 1), ("prefork", 4), ("prethread", 4)])
def test_many_connections_wait_for_a_model_that_serves_few(start, small_queue, model, workers):
    """With the kernel's default of net.core.wmem_max the queue holds 555 connections. No connection of 2000 is lost, also over
    another reload while most of them wait."""
    daemon = start("epoll", workers=2, env={"ECHOD_FAULT_QUEUE": "212992"}, log_connections=False)
    socks = [daemon.connect() for _ in range(2000)]
    for sock in socks:
        peer.echo(sock, b"before")
    for change in {"model": model, "workers": workers}, {"idle_timeout": 1000}:
        old = daemon.workers()
        daemon.reload(**change)
        proc.until(lambda: not any(map(proc.alive, old)), "the end of the old workers", 60)
    leave_one_by_one(socks, daemon)
    assert "could not be handed over" not in daemon.log()


def test_connections_that_the_supervisor_cannot_keep_are_drained(start, crowd, small_queue):
    """A supervisor without free descriptors drains the connections that it cannot keep, and logs their number. It notifies the
    watchdog meanwhile."""
    count = 50
    daemon = start("epoll", workers=1, env={**small_queue, "WATCHDOG_USEC": "4000000"}, drain_timeout=30)
    everybody = crowd(daemon.address, count, kinds="i")
    everybody.settle("the start")
    everybody.check(everybody.ask("owe"), "owing")
    everybody.begin("end")
    since = daemon.notify.mark()
    spare = max(map(int, os.listdir(f"/proc/{daemon.pid}/fd"))) + 30
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (spare, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    daemon.reload(model="iterative")
    drained = int(daemon.wait_log(r"Drained (\d+) connections that could not be handed over", timeout=40)[1])
    assert len(daemon.notify.all("WATCHDOG", since)) >= 3, "the watchdog was not notified"
    daemon.stop(40)
    counts = everybody.answer()
    everybody.check(counts, "the end")
    assert counts["ended"] == count and 0 < drained < count, (drained, counts)
