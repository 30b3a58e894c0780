# SPDX-License-Identifier: ISC
"""The service starts with any content of the descriptor store that the service manager passes."""

import os
import pathlib
import select
import signal
import socket
import time

import pytest

import echod
import handover
import metrics
import peer
import proc
from handover import QUEUE, STATE, memory, pair, state


def connection():
    """The client's and the server's socket of a new connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = peer.connect(listener.getsockname())
    server = listener.accept()[0]
    listener.close()
    return client, server


def launch_with(start, model, descriptors, **more):
    """Start the daemon with `descriptors`, [(name, descriptor), ...], in its store."""
    names = ":".join(name for name, _ in descriptors)
    daemon = start(model, **echod.activated([d for _, d in descriptors], names), store=True, **more)
    for _, descriptor in descriptors:
        descriptor.close()
    return daemon


class Descriptor:
    """A descriptor with the methods of a socket that these tests use."""

    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        return self.fd

    def close(self):
        os.close(self.fd)


A_FEW_MODELS = ("epoll", "thread", "iterative", "io_uring", "prefork")


@pytest.mark.models(*A_FEW_MODELS)
def test_valid_connections(start, model):
    """Valid connections that these tests put into a queue are restored: idle, with unsent data, half-closed."""
    inbox, outbox = pair()
    clients = []
    for flags, owed in (0, b""), (0, b"owed "), (1, b"and gone"):
        client, server = connection()
        handover.send_pack(outbox, [server.fileno()], handover.pack([state(len(owed), flags=flags) + owed]))
        server.close()
        clients.append((client, flags, owed))
    outbox.close()
    daemon = launch_with(start, model, [(QUEUE, inbox)])
    for client, flags, owed in clients:
        if flags:
            assert peer.receive_all(client) == owed
        else:
            client.sendall(b"asked")
            assert peer.receive(client, len(owed) + 5) == owed + b"asked"
            peer.finish(client)
        client.close()
    daemon.visit()
    assert not [name for name, _ in daemon.notify.store if name == QUEUE], "the queue is empty, and still in the store"


@pytest.mark.models(*A_FEW_MODELS)
def test_a_later_version_may_write_more(start, model):
    """Fields that are appended to a state are ignored."""
    inbox, outbox = pair()
    client, server = connection()
    owed = b"owed "
    record = state(len(owed), later=bytes(handover.STATE_MAX - STATE.size)) + owed
    handover.send_pack(outbox, [server.fileno()], handover.pack([record]))
    server.close()
    outbox.close()
    daemon = launch_with(start, model, [(QUEUE, inbox)])
    client.sendall(b"asked")
    assert peer.receive(client, 10) == b"owed asked"
    peer.finish(client)
    assert not daemon.lines_about("could not be received"), daemon.log()


@pytest.mark.models(*[name for name in echod.MODELS if name not in echod.SERIAL])
def test_idle_time_is_kept(start, model):
    """Each connection ends when it has been idle for idle-timeout, whatever the order of the connections in the queue."""
    inbox, outbox = pair()
    clients = {}
    for idle in 0, 28, 5, 29, 0, 28, 29:
        client, server = connection()
        handover.send_pack(outbox, [server.fileno()], handover.pack([state(idle=idle)]))
        server.close()
        clients.setdefault(idle, []).append(client)
    outbox.close()
    daemon = launch_with(start, model, [(QUEUE, inbox)], idle_timeout=30, workers=1 if model in echod.LOOPS else 0)
    for client in clients[29] + clients[28]:
        assert peer.ended(client)
    assert all(peer.silent_now(client) for client in clients[0] + clients[5])
    daemon.stop()


def damaged():
    """Connections with an invalid state or descriptor: (what, record, kinds of descriptors)."""
    good = state()
    yield "garbage", os.urandom(STATE.size), "s"
    yield "empty", b"", "s"
    yield "truncated", good[:-1], "s"
    yield "truncated to the header", good[:8], "s"
    yield "next version", state(version=handover.VERSION + 1), "s"
    yield "version 0", state(version=0), "s"
    yield "other magic", state(magic=handover.MAGIC + 1), "s"
    yield "wrong sum", state(check=1), "s"
    yield "unknown flags", state(flags=4), "s"
    yield "unknown family", state(family=99), "s"
    yield "from the future", state(since=1 << 62), "s"
    yield "a size that is too small", state(size=40), "s"
    yield "a size beyond the end", state(size=handover.STATE_MAX), "s"
    yield "a size beyond all versions", state(later=bytes(handover.STATE_MAX - STATE.size + 1)), "s"
    yield "owes more than there is", state(owed=500) + b"owed", "s"
    yield "owes more than any buffer", state(owed=0xffffffff) + b"owed", "s"
    yield "a file for a socket", good, "m"
    yield "a pipe for a socket", good, "p"
    yield "an epoll for a socket", good, "e"
    yield "a listener", good, "l"
    yield "a unix listener", good, "u"
    yield "a datagram socket", good, "d"
    yield "the queue itself", good, "q"


def damaged_packs():
    """Invalid messages: (what, text, content of the file, kinds of descriptors)."""
    good = state()
    yield "no descriptor", b"\0", None, ""
    yield "no connection", b"", handover.pack([]), "m"
    yield "an empty message", b"", handover.pack([good]), "ms"
    yield "no file", b"\0", None, "s"
    yield "a socket for a file", b"\0", None, "ss"
    yield "a pipe for a file", b"\0", None, "ps"
    yield "a directory for a file", b"\0", None, "Ds"
    yield "more bytes than connections", b"\0\0", handover.pack([good]), "ms"
    yield "fewer bytes than connections", b"\0", handover.pack([good] * 2), "mss"
    yield "more bytes than any pack", b"\0" * 300, handover.pack([good]), "ms"
    yield "another count in the file", b"\0", handover.pack([good], count=2), "ms"
    yield "another magic in the file", b"\0", handover.pack([good], magic=1), "ms"
    yield "another version", b"\0", handover.pack([good], version=handover.PACK_VERSION + 1), "ms"
    yield "a header that is too small", b"\0", handover.pack([good], size=8), "ms"
    yield "a header beyond the end", b"\0", handover.pack([good], size=65535), "ms"
    yield "an empty file", b"\0", b"", "ms"


def open_kind(kind, inbox, keep):
    if kind == "s":
        client, server = connection()
        keep.append(client)
        return server.detach()
    if kind == "m":
        return memory(b"owed")
    if kind == "p":
        ends = os.pipe()
        os.close(ends[1])
        return ends[0]
    if kind == "e":
        with select.epoll() as epoll:
            return os.dup(epoll.fileno())
    if kind == "l":
        return socket.create_server(("127.0.0.1", 0)).detach()
    if kind == "u":
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind("")
        listener.listen()
        return listener.detach()
    if kind == "D":
        return os.open("/", os.O_RDONLY)
    if kind == "d":
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()
    return os.dup(inbox.fileno())


def check_damage(daemon, whole, keep, count):
    for what, client in whole:
        client.sendall(b"whole")
        assert peer.receive(client, 5) == b"whole", f"the connection after {what!r}"
        peer.finish(client)
        client.close()
    daemon.visit()
    proc.until(lambda: daemon.log().count("could not be received") == count,
               lambda: f"{count} lines about damage, there are {daemon.log().count('could not be received')}")
    for client in keep:
        assert peer.ended(client), "a connection that could not be received is still open"
        client.close()
    assert not [name for name, _ in daemon.notify.store if name == QUEUE]


def send_damaged(outbox, messages):
    """Send each of `messages`, (what, text, descriptors), and a valid connection behind it; returns [(what, its client)]."""
    whole = []
    for what, text, fds in messages:
        handover.send(outbox, text, fds)
        for fd in fds:
            os.close(fd)
        client, server = connection()
        handover.send_pack(outbox, [server.fileno()])
        server.close()
        whole.append((what, client))
    outbox.close()
    return whole


@pytest.mark.models(*A_FEW_MODELS)
def test_damaged_connections(start, model):
    """Each damaged connection is closed, logged and counted; the valid connections behind it are served."""
    inbox, outbox = pair()
    keep = []

    def messages():
        for what, record, kinds in damaged():
            fds = [open_kind(kind, inbox, keep) for kind in kinds]
            yield what, b"\0" * len(fds), [memory(handover.pack([record])), *fds]
    whole = send_damaged(outbox, messages())
    daemon = launch_with(start, model, [(QUEUE, inbox)])
    before = daemon.descriptors()
    check_damage(daemon, whole, keep, len(whole))
    daemon.signal(signal.SIGUSR1)
    daemon.wait_log(rf"connections_damaged {len(whole)}\b")
    assert daemon.descriptors() <= before, "descriptors of damaged connections are still open"


@pytest.mark.models("epoll", "prefork")
def test_damaged_packs(start, model):
    inbox, outbox = pair()
    keep = []

    def messages():
        for what, text, content, kinds in damaged_packs():
            yield what, text, [memory(content) if kind == "m" else open_kind(kind, inbox, keep) for kind in kinds]
    whole = send_damaged(outbox, messages())
    daemon = launch_with(start, model, [(QUEUE, inbox)])
    check_damage(daemon, whole, keep, len(whole))


@pytest.mark.models("epoll")
def test_damage_in_the_middle_of_a_pack(start, model):
    """Connections before a damaged one are served, and connections behind it whose states can be found."""
    inbox, outbox = pair()
    clients, servers = zip(*[connection() for _ in range(6)])
    records = [state(), state(4) + b"owed", state(check=1), state(flags=4), state(), b"garbage"]
    handover.send_pack(outbox, [server.fileno() for server in servers], handover.pack(records))
    for server in servers:
        server.close()
    outbox.close()
    daemon = launch_with(start, model, [(QUEUE, inbox)])
    for client, owed in (clients[0], b""), (clients[1], b"owed"), (clients[4], b""):
        client.sendall(b"whole")
        assert peer.receive(client, 5 + len(owed)) == owed + b"whole"
        peer.finish(client)
    assert all(peer.ended(clients[i]) for i in (2, 3, 5))
    daemon.signal(signal.SIGUSR1)
    daemon.wait_log(r"connections_damaged 3\b")


def alone(kind):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    b.close()
    return a


STORES = {
    "an empty queue": lambda: [(QUEUE, alone(socket.SOCK_SEQPACKET))],
    "a queue whose writer lives": lambda: [(QUEUE, pair()[0])],
    "a file": lambda: [(QUEUE, Descriptor(memory(b"x")))],
    "a stream": lambda: [(QUEUE, alone(socket.SOCK_STREAM))],
    "datagrams": lambda: [(QUEUE, alone(socket.SOCK_DGRAM))],
    "TCP": lambda: [(QUEUE, connection()[0])],
    "a listener": lambda: [(QUEUE, socket.create_server(("127.0.0.1", 0)))],
    "not connected": lambda: [(QUEUE, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))],
    "two of one name": lambda: [(QUEUE, alone(socket.SOCK_SEQPACKET)) for _ in range(2)],
    "more than any": lambda: [(f"echod-connections-{i}", alone(socket.SOCK_SEQPACKET)) for i in range(130)],
    "an unknown name": lambda: [("echod-something", pair()[0]), ("echod-stream-x", Descriptor(memory(b"x")))],
    "no number": lambda: [("echod-connections-", pair()[0]), ("echod-connections--1", pair()[0])],
    "no sane number": lambda: [("echod-connections-99999999999999999999", pair()[0]), ("echod-connections-1x", pair()[0])],
    "an older version": lambda: list(zip(("echod-queue-in", "echod-queue-out"), pair())),
}


@pytest.mark.parametrize("what", STORES)
@pytest.mark.models("epoll", "thread")
def test_damaged_store(start, model, what):
    """The service starts, serves, and hands connections over on a reload."""
    daemon = launch_with(start, model, STORES[what]())
    client = daemon.connect()
    peer.echo(client, b"before")
    daemon.reload(model="poll")
    peer.echo(client, b"after")
    peer.finish(client)
    daemon.visit()
    # no descriptor of the store makes a process spin: it would use 0.5 s of processor time
    daemon.notify.wait("READY=1", since=1)
    since = daemon.cpu()
    peer.silent(daemon.connect(), 0.5)
    assert daemon.cpu() - since < 0.3, f"{daemon.cpu() - since} s of processor time in half a second without work"
    names = [name for name, _ in daemon.notify.store]
    assert not [name for name in names if not name.startswith("echod-stream-127.0.0.1")], names


def test_order_of_queues(start):
    """Queues are served in the order of their numbers, whatever the order in which the manager passes them."""
    queues, clients = [], []
    for i in range(12):
        inbox, outbox = pair()
        client, server = connection()
        handover.send_pack(outbox, [server.fileno()], owed=[b"owed"])
        server.close()
        outbox.close()
        queues.append((f"echod-connections-{i}", inbox))
        clients.append(client)
    launch_with(start, "iterative", queues[5:] + queues[:5])
    for client in clients:
        assert peer.receive(client, 4) == b"owed"
        assert all(peer.silent_now(other) for other in clients[clients.index(client) + 1:])
        peer.finish(client)


def crash_and_start(start, daemon, model):
    """Kill the supervisor with SIGKILL. Returns the stored descriptors, and a function that starts the daemon with them."""
    daemon.crash_expected = True
    daemon.signal(signal.SIGKILL)
    daemon.expect = -signal.SIGKILL
    daemon.wait_exit()
    kept = [(name, Descriptor(fd)) for name, fd in daemon.notify.take_store()]
    return kept, lambda: launch_with(start, model, kept, listen=["127.0.0.1"], port=daemon.port)


@pytest.mark.models(*A_FEW_MODELS)
def test_clients_connect_after_a_crash(start, model):
    """Clients that connect while no process runs wait in the backlog, and the next process serves them."""
    daemon = start(model, store=True)
    daemon.visit()
    proc.until(lambda: len(daemon.notify.store) >= 1, "the listener is in the store")
    for _ in range(3):
        kept, again = crash_and_start(start, daemon, model)
        early = [daemon.connect() for _ in range(5)]
        for sock in early:
            sock.sendall(b"early")
        port = daemon.port
        daemon = again()
        assert daemon.port == port
        for sock in early:
            assert peer.receive(sock, 5) == b"early"
            peer.finish(sock)
        proc.until(lambda: len(daemon.notify.store) >= 1, "the listener is in the store again")


def test_the_backlog_of_a_removed_listener_at_a_restart(start, model):
    """A restart right after a reload keeps the clients that wait at the address that the reload removed."""
    daemon = start(model, store=True, max_connections=1, env={"FDSTORE": "128"})
    with daemon.connect() as first, daemon.connect() as second:
        peer.echo(first, b"first")
        second.sendall(b"second")
        daemon.reload(port=echod.free_port())
        daemon.term()
        assert daemon.wait_exit() == daemon.expect
        kept = [(name, Descriptor(fd)) for name, fd in daemon.notify.take_store()]
        launch_with(start, model, kept, listen=["127.0.0.1"], port=daemon.port, max_connections=1)
        peer.echo(first, b"again")
        peer.finish(first)
        assert peer.receive(second, 6) == b"second"
        peer.finish(second)


@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_unix_socket_whose_file_is_gone(start, tmpdir, user):
    """Clients cannot find a listener whose file was removed: the next process starts, and makes a new listener with a file."""
    if user and os.getuid():
        pytest.skip("only root can become another user")
    path = pathlib.Path(tmpdir, "echod.sock")
    daemon = start("epoll", store=True, listen=[f"unix:{path}"], user=user, pidfile="", port=None)
    proc.until(lambda: len(daemon.notify.store) >= 1, "the listener is in the store")
    daemon.crash_expected = True
    daemon.signal(signal.SIGKILL)
    daemon.expect = -signal.SIGKILL
    daemon.wait_exit()
    kept = [(name, Descriptor(fd)) for name, fd in daemon.notify.take_store()]
    path.unlink()
    launch_with(start, "epoll", kept, listen=[f"unix:{path}"], user=user, pidfile="", port=None)
    peer.visit(str(path))


def still(socks):
    """The sockets that still get an echo; the others are closed."""
    alive = []
    for sock in socks:
        try:
            peer.echo(sock, b"still here?")
            alive.append(sock)
        except (AssertionError, OSError):
            sock.close()
    return alive


def test_a_killed_worker_loses_only_its_own_connections(start, model):
    """The next worker serves the client in the backlog; the daemon logs one line."""
    daemon = start(model, workers={"prefork": 3, "prethread": 3}.get(model, 0), max_connections=1 if model == "iterative" else 3)
    daemon.crash_expected = True
    socks = [daemon.connect() for _ in range(1 if model == "iterative" else 3)]
    for sock in socks:
        peer.echo(sock, b"here")
    waiting = daemon.connect()
    waiting.sendall(b"let me in")
    lost = 1 if model in echod.PROCESSES else len(socks)
    servers = [stat.pid for stat in daemon.tree()[1:] if model != "process" or stat.pid not in daemon.workers()]
    os.kill(servers[0], signal.SIGKILL)
    daemon.wait_log(rf"killed by signal 9 \(Killed\): {lost} connections? lost")
    assert peer.receive(waiting, 9) == b"let me in"
    peer.finish(waiting)
    alive = still(socks)
    assert len(alive) == len(socks) - lost
    # as many free slots as at first, and no more
    more = [daemon.connect() for _ in range(lost)]
    for sock in more:
        peer.echo(sock, b"there is room")
    waiting = daemon.connect()
    assert peer.silent(waiting, 0.1)
    for sock in alive + more:
        peer.finish(sock)
    peer.echo(waiting, b"now")
    peer.finish(waiting)
    assert daemon.log().count("was killed by signal") == 1, daemon.log()


def test_a_killed_acceptor_loses_no_connection(start):
    """The child processes of a killed acceptor continue, count for max-connections, and hand over their connections at a reload."""
    daemon = start("process", max_connections=5)
    daemon.crash_expected = True
    socks = [daemon.connect() for _ in range(3)]
    for sock in socks:
        peer.echo(sock, b"here")
    os.kill(daemon.workers()[0], signal.SIGKILL)
    daemon.wait_log("Restarted worker process")
    socks += [daemon.connect() for _ in range(2)]
    assert still(socks) == socks
    waiting = daemon.connect()
    waiting.sendall(b"let me in")
    assert peer.silent(waiting, 0.1)
    peer.finish(socks.pop(0))
    assert peer.receive(waiting, 9) == b"let me in"
    peer.finish(waiting)
    daemon.reload(model="epoll")
    assert still(socks) == socks
    for sock in socks:
        peer.finish(sock)


@pytest.mark.parametrize("model", echod.SERIAL)
def test_a_killed_worker_loses_no_queued_connection(start, model):
    """A killed worker loses only the connection that it serves; the next worker serves the queued connections."""
    daemon = start("epoll", workers=1)
    daemon.crash_expected = True
    socks = [daemon.connect() for _ in range(5)]
    for sock in socks:
        peer.echo(sock, b"here")
    old = daemon.workers()
    daemon.reload(model=model, workers=1)
    proc.until(lambda: not any(map(proc.alive, old)), "the old worker has ended")
    for sock in socks:
        sock.sendall(b"served")
    (first,), _, _ = select.select(socks, [], [], peer.PATIENCE)  # any of those that were active in the same tick
    assert peer.receive(first, 6) == b"served"
    os.kill(daemon.workers()[0], signal.SIGKILL)
    assert peer.ended(first)
    socks.remove(first)
    while socks:  # the order of the others is not certain either
        (sock,), _, _ = select.select(socks, [], [], peer.PATIENCE)
        assert peer.receive(sock, 6) == b"served"
        peer.echo(sock, b"after the kill")
        peer.finish(sock)
        socks.remove(sock)


def test_back_off(start):
    """The delay before a worker process is restarted grows each time it dies; clients wait in the backlog meanwhile."""
    daemon = start("epoll")
    daemon.crash_expected = True
    gaps = []
    for _ in range(4):
        pid = proc.until(lambda: daemon.workers(), "a worker")[0]
        since = len(daemon.log())
        os.kill(pid, signal.SIGKILL)
        died = proc.until(lambda: "killed by signal 9" in daemon.log()[since:] and time.monotonic(), "the end of the worker")
        waiting = daemon.connect()
        daemon.wait_log("Restarted worker process", since=since, timeout=30)
        gaps.append(time.monotonic() - died)
        peer.echo(waiting, b"in the meantime")
        peer.finish(waiting)
    assert gaps[3] > gaps[0], gaps


def test_without_keep_connections_nothing_is_kept(start):
    daemon = start("epoll", store=True, keep_connections=False)
    daemon.visit()
    daemon.reload(model="poll")
    assert not daemon.notify.store
    daemon.reload(keep_connections=True)
    proc.until(lambda: len(daemon.notify.store) == 1, lambda: str(daemon.notify.store))
    daemon.reload(keep_connections=False)
    proc.until(lambda: not daemon.notify.store, lambda: str(daemon.notify.store))


@pytest.mark.models(*[name for name in echod.MODELS if name not in echod.SERIAL])
def test_stop_ends_every_connection_properly(start, crowd, model):
    """Each of fifty clients with unsent data gets all of it, and then the end of the stream."""
    daemon = start(model, store=True, drain_timeout=60)
    everybody = crowd(daemon.address, 50)
    everybody.settle("the start")
    everybody.check(everybody.ask("owe"), "owing")
    everybody.begin("end")
    daemon.stop()
    counts = everybody.answer()
    everybody.check(counts, "the stop")
    assert counts["ended"] == 50, counts
    assert not daemon.notify.store


@pytest.mark.parametrize("model", echod.SERIAL)
def test_stop_ends_queued_connections_properly(start, crowd, model):
    """Clients of queued connections, which no worker has taken yet, also get all of their data and then the end of the stream."""
    daemon = start("epoll", drain_timeout=60)
    everybody = crowd(daemon.address, 50)
    everybody.settle("the start")
    everybody.check(everybody.ask("owe"), "owing")
    old = daemon.workers()
    daemon.reload(model=model)
    proc.until(lambda: not any(map(proc.alive, old)), "the old worker has ended", 60)
    everybody.begin("end")
    daemon.stop()
    counts = everybody.answer()
    everybody.check(counts, "the stop")
    assert counts["ended"] == 50, counts
    assert "that waited for a worker, 0 of them before" in daemon.log(), daemon.log()


def waiting(counts):
    """The number of connections that no worker has taken, by the counters."""
    return counts.get("connections_handed_over", 0) - counts.get("connections_taken_over", 0)


@pytest.mark.parametrize("number", [1, 2])
def test_stop_ends_waiting_connections_in_time(start, number):
    """Queued connections whose clients do not read are closed at the end of drain-timeout, or by a second signal."""
    daemon = start("epoll", drain_timeout=2 if number == 1 else 60)
    connections = [peer.connect_with_unsent_data(daemon.address) for _ in range(4)]
    old = daemon.workers()
    daemon.reload(model="iterative")
    proc.until(lambda: not any(map(proc.alive, old)), "the old worker has ended", 60)
    proc.until(lambda: waiting(metrics.line(daemon)) == 3, lambda: f"three wait for the new worker: {metrics.line(daemon)}")
    daemon.term()
    if number == 2:
        daemon.notify.wait("STOPPING=1")
        time.sleep(1.1)  # an earlier signal would count as a repetition of the first
        daemon.term()
    assert daemon.wait_exit() == 0
    daemon.wait_log(r"Closed 3 connections that waited for a worker, 3 of them before")
    for sock, _, _ in connections:
        sock.close()
