# SPDX-License-Identifier: ISC
"""Live connections over a stop and the next start, with a service manager that keeps descriptors ($FDSTORE)."""

import concurrent.futures
import contextlib
import os
import re
import select
import signal
import socket

import pytest

import echod
import handover
import metrics
import peer
import proc

ALL_AT_A_TIME = [model for model in echod.MODELS if model not in echod.SERIAL]

# Send buffers of queues: the kernel's default of net.core.wmem_max, and the smallest that the kernel allows
STOCK, TINY = "212992", "1"


@pytest.fixture(params=["restart", "unknown"])
def small_queues(request):
    """small_queues(size): environment of a daemon whose queues have a send buffer of twice `size` bytes. The daemon knows
    that a stop is part of a restart, or does not know it."""
    if "fault points" not in echod.run("-V").stdout:
        pytest.skip("echod was built without fault points (configure --enable-debug-faults)")
    env = {"FDSTORE": "128", "ECHOD_FAULT_RESTART": "1" if request.param == "restart" else None}
    return lambda size: {**env, "ECHOD_FAULT_QUEUE": size}


class Kept:
    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        return self.fd


def stop(daemon, timeout=60):
    """Stop the service. Returns the descriptors that the manager keeps: [(name, descriptor), ...]."""
    daemon.term()
    assert daemon.wait_exit(timeout) == daemon.expect, daemon.log()
    return daemon.notify.take_store()


def start_again(start, daemon, kept, model=None, **more):
    """Start the service with the descriptors `kept` and the same configuration, changed by `more`."""
    names = ":".join(name for name, _ in kept)
    keys = {key: value for key, value in daemon.keys.items() if key != "pidfile"}
    if model:
        keys.update(model=model, workers=echod.default_workers(model))
    env = more.pop("env", {"FDSTORE": "128"})
    keys.update((key.replace("_", "-"), value) for key, value in more.items())
    passed = echod.activated([Kept(fd) for _, fd in kept], names) if kept else {}
    new = start(keys.pop("model"), **{key.replace("-", "_"): value for key, value in keys.items()}, env=env, store=True,
                **passed)
    for _, fd in kept:
        os.close(fd)
    return new


def connection():
    """The client's and the server's socket of a new connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = peer.connect(listener.getsockname())
    server = listener.accept()[0]
    listener.close()
    return client, server


def connect(daemon, count):
    clients = [daemon.connect() for _ in range(count)]
    for client in clients:
        client.sendall(b"a")
    return clients


def queues(kept):
    return [name for name, _ in kept if name.startswith("echod-connections-")]


@pytest.mark.models(*ALL_AT_A_TIME)
def test_restarts_on_a_host_that_is_not_tuned(start, small_queues, model):
    """More connections than a queue holds survive two restarts, with all bytes in flight."""
    count = {"process": 300, "select": 700}.get(model, 700)
    env = small_queues(TINY)
    daemon = start(model, env=env, store=True, log_connections=False)
    clients = connect(daemon, count)
    assert all(peer.receive(client, 1) == b"a" for client in clients)
    for i in range(2):
        for client in clients:
            client.sendall(b"before")
        kept = stop(daemon)
        assert f"Handed {count} connections over" in daemon.log(), daemon.log()
        daemon = start_again(start, daemon, kept, env=env)
        for client in clients:
            client.sendall(b"after%d" % i)
        assert all(peer.receive(client, 12) == b"beforeafter%d" % i for client in clients)
        assert not daemon.lines_about("could not"), daemon.log()
        proc.until(lambda: not queues(daemon.notify.store), lambda: f"empty queues in the store: {daemon.notify.store}")
    for client in clients:
        peer.finish(client)


def reload_to_iterative(daemon):
    """One connection is served then; the others wait in the queue and, because the queue is small, in the supervisor."""
    old = daemon.workers()
    daemon.reload(model="iterative")
    proc.until(lambda: not any(map(proc.alive, old)), "the end of the old workers", 60)


@pytest.mark.parametrize("small_queues", ["restart"], indirect=True)
def test_connections_that_wait_in_the_supervisor_are_kept(start, small_queues):
    env = small_queues(TINY)
    daemon = start("epoll", env=env, store=True, log_connections=False)
    clients = connect(daemon, 700)
    assert all(peer.receive(client, 1) == b"a" for client in clients)
    reload_to_iterative(daemon)
    kept = stop(daemon)
    assert "Handed 700 connections over" in daemon.log(), daemon.log()
    daemon = start_again(start, daemon, kept, model="epoll", env=env)
    for client in clients:
        peer.echo(client, b"b")
        peer.finish(client)


@pytest.mark.parametrize("small_queues", ["restart"], indirect=True)
def test_connections_that_wait_in_the_supervisor_are_drained(start, small_queues):
    """A stop that is no restart sends the unsent data of these connections, and closes them."""
    daemon = start("epoll", env={"ECHOD_FAULT_QUEUE": small_queues(TINY)["ECHOD_FAULT_QUEUE"]}, log_connections=False)
    clients = connect(daemon, 700)
    assert all(peer.receive(client, 1) == b"a" for client in clients)
    reload_to_iterative(daemon)
    for client in clients:
        client.sendall(b"last")
    daemon.stop()
    assert all(peer.receive_all(client) == b"last" for client in clients)


@pytest.mark.models("epoll")
def test_several_queues(start, small_queues, model):
    """When a queue is full, the daemon stores another queue."""
    env = small_queues(TINY)
    daemon = start(model, env=env, store=True, log_connections=False)
    clients = connect(daemon, 2000)
    assert all(peer.receive(client, 1) == b"a" for client in clients)
    kept = stop(daemon)
    assert len(queues(kept)) > 1, kept
    assert sum(handover.waiting(fd) for name, fd in kept if name in queues(kept)) == 2000
    daemon = start_again(start, daemon, kept, env=env)
    for client in clients:
        peer.echo(client, b"b")
        peer.finish(client)


@pytest.mark.parametrize("small_queues", ["restart"], indirect=True)
@pytest.mark.models(*echod.SERIAL)
def test_waiting_connections_keep_their_order(start, small_queues, model):
    """With a model that serves few connections at a time, queued connections keep their order over restarts."""
    env = small_queues(TINY)
    inbox, outbox = handover.pair()
    clients = []
    for _ in range(3):
        part = [connection() for _ in range(100)]
        handover.send_pack(outbox, [server.fileno() for _, server in part])
        for client, server in part:
            server.close()
            client.sendall(b"second")
            clients.append(client)
    outbox.close()
    daemon = start(model, store=True, workers=1, log_connections=False, env=env,
                   **echod.activated([inbox], handover.QUEUE))
    inbox.close()
    # a connection that a worker serves at a stop goes to the end of the queue
    for client in clients[:2]:
        assert select.select([client], [], [], 30)[0]
        daemon = start_again(start, daemon, stop(daemon), env=env)
        assert peer.receive(client, 6) == b"second"
        client.shutdown(socket.SHUT_WR)
    order, waiting = [], clients[2:]
    while waiting:
        client, = select.select(waiting, [], [], 30)[0]
        assert peer.receive(client, 6) == b"second"
        peer.finish(client)
        waiting.remove(client)
        order.append(clients.index(client))
    assert order == list(range(2, len(clients)))
    assert all(peer.ended(client) for client in clients[:2])


@pytest.mark.models(*ALL_AT_A_TIME)
def test_unsent_data_survives(start, small_queues, model):
    """Connections with as much unsent data as buffer-size allows, and more in the socket buffers, survive restarts."""
    env = small_queues(TINY)
    daemon = start(model, env=env, store=True, log_connections=False, drain_timeout=1)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        connections = list(threads.map(peer.connect_with_unsent_data, [daemon.address] * 8))
    for _ in range(2):
        daemon = start_again(start, daemon, stop(daemon), env=env)
    for sock, sent, read in connections:
        peer.same(read + peer.receive(sock, len(sent) - len(read)), bytes(sent))
        peer.echo(sock, b"and more")
        peer.finish(sock)


def test_a_killed_service_loses_only_connections_it_has_taken(start, small_queues):
    """Connections that the killed process has not taken stay in the queues of the store, for the next process."""
    env = small_queues(TINY)
    daemon = start("epoll", env=env, store=True, workers=1, log_connections=False)
    clients = [daemon.connect() for _ in range(700)]
    for client in clients:
        peer.echo(client, b"first")
    kept = stop(daemon)
    ends = [os.dup(fd) for _, fd in kept]  # the descriptors that the manager keeps
    names = [name for name, _ in kept]
    daemon = start_again(start, daemon, kept, model="iterative", env=env, workers=1)
    daemon.crash_expected = True
    daemon.signal(signal.SIGKILL)
    daemon.expect = -signal.SIGKILL
    daemon.wait_exit()
    left = sum(handover.waiting(fd) for name, fd in zip(names, ends) if name in queues(kept))
    assert 0 < left < 700
    daemon = start_again(start, daemon, list(zip(names, ends)), model="epoll", env=env)
    alive = 0
    for client in clients:
        try:
            peer.echo(client, b"second")
            alive += 1
        except (AssertionError, OSError):  # it has ended
            pass
        client.close()
    assert alive == left


@pytest.mark.models("epoll", "process", "io_uring")
@pytest.mark.parametrize("what", ["no files in memory", "a store that is full"])
def test_connections_that_cannot_be_kept_are_drained(start, small_queues, model, what):
    """Each client gets all of its data and then the end of the stream; the log gives the reason."""
    env = small_queues(TINY)
    if what == "no files in memory":
        env["ECHOD_FAULT_MEMFILE"] = "12"
    else:
        env["FDSTORE"] = "1"
    daemon = start(model, env=env, store=True, log_connections=False)
    clients = connect(daemon, 100)
    assert all(peer.receive(client, 1) == b"a" for client in clients)
    for client in clients:
        client.sendall(b"before")
    kept = stop(daemon)
    for client in clients:
        assert peer.receive_all(client) == b"before"
    if what == "no files in memory":
        assert "Cannot keep more connections" in daemon.log(), daemon.log()
        assert re.search(r"Drained 100 connections that could not be handed over", daemon.log()), daemon.log()
    else:
        assert "FileDescriptorStoreMax" in daemon.log(), daemon.log()
    assert not queues(kept), kept


@pytest.mark.models("process", "epoll")
def test_few_descriptors(start, small_queues, model):
    """The kernel limits descriptors in flight to RLIMIT_NOFILE. Also with a low limit, all connections of the service are kept."""
    env = small_queues(STOCK)
    limit = 256
    daemon = start(model, env=env, store=True, log_connections=False, max_connections=150,
                   wrap=["prlimit", f"--nofile={limit}:{limit}"], **echod.own_user(6 if model == "process" else 7))
    clients = connect(daemon, 150)
    assert all(peer.receive(client, 1) == b"a" for client in clients)
    kept = stop(daemon)
    daemon = start_again(start, daemon, kept, env=env)
    for client in clients:
        peer.echo(client, b"b")
        peer.finish(client)


def test_a_barrier_only_for_stored_descriptors(start, small_queues):
    """No BARRIER=1 without stored descriptors: a manager that does not know it would delay the stop."""
    daemon = start("epoll", store=True, keep_connections=False)
    daemon.visit()
    daemon.stop()
    assert not daemon.notify.all("BARRIER")
    daemon = start("epoll", store=True, env=small_queues(STOCK))
    daemon.visit()
    stop(daemon)
    assert daemon.notify.all("BARRIER")


def test_headers_of_connections_that_wait(start, small_queues):
    """A PROXY protocol header that arrives while the connection waits in the queue is received before or after the restart, and
    the peer that it names is admitted by the next process."""
    header = b"PROXY TCP4 192.0.2.1 198.51.100.7 4711 7\r\n"
    env = small_queues(STOCK)
    daemon = start("epoll", env=env, store=True, proxy_protocol=["127.0.0.1"], max_per_source=2)
    clients = [daemon.connect() for _ in range(4)]
    clients[0].sendall(header + b"first")
    assert peer.receive(clients[0], 5) == b"first"
    for client in clients[1:]:
        client.sendall(header[:10])
    metrics.wait_line(daemon, "all connections", connections=4, received_bytes=len(header) + 5 + 30)
    reload_to_iterative(daemon)
    for client in clients[1:]:
        client.sendall(header[10:])
    kept = stop(daemon)
    assert "Handed 4 connections over" in daemon.log(), daemon.log()
    # the first one, and another if the worker of iterative has received its header
    before = int(re.findall(r"connections_accepted (\d+)", daemon.log())[-1])
    assert 1 <= before <= 2
    daemon = start_again(start, daemon, kept, model="epoll", env=env)
    for client in clients:
        client.sendall(b"after")

    def is_served(client):
        with contextlib.suppress(ConnectionResetError):  # refused with its bytes unread
            return client.recv(5) == b"after"
        return False

    echoed = [is_served(client) for client in clients]
    # a connection that was admitted before is not refused, even if it leaves the queue as the last one
    assert echoed[0] and 2 <= sum(echoed) <= 2 + before
    metrics.wait_line(daemon, "others refused", connections=sum(echoed), connections_accepted=sum(echoed) - before,
                      connections_ended__limit=4 - sum(echoed))


def test_a_stop_that_may_be_a_restart(start, crowd, model):
    """If the manager drops the store after the stop, each client has received all of its data and then the end of the stream;
    also the clients of queued connections."""
    waiting = model in echod.SERIAL
    daemon = start("epoll" if waiting else model, store=True, drain_timeout=60, env={"FDSTORE": "128"})
    everybody = crowd(daemon.address, 50)
    everybody.settle("the start")
    everybody.check(everybody.ask("owe"), "owing")
    if waiting:
        old = daemon.workers()
        daemon.reload(model=model)
        proc.until(lambda: not any(map(proc.alive, old)), "the old worker has ended", 60)
    everybody.begin("end")
    kept = stop(daemon, 90)
    assert sum(handover.waiting(fd) for name, fd in kept if name in queues(kept)) == 50, daemon.log()
    for _, fd in kept:
        os.close(fd)
    counts = everybody.answer()
    everybody.check(counts, "the stop")
    assert counts["ended"] == 50, counts
