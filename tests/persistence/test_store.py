"""The descriptor store, as the service manager passes it: whatever is in it, the service starts."""

import array
import os
import pathlib
import select
import signal
import socket
import struct
import time

import pytest

import echod
import metrics
import peer
import proc

INBOX, OUTBOX = "echod-queue-in", "echod-queue-out"

STATE = struct.Struct("=IHHIIQqq16sIHHII")
MAGIC, VERSION = 0x65636864, 1


def pair():
    """The queue as the daemon makes it: its two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def check_sum(data):
    total = 2166136261
    for byte in data:
        total = (total ^ byte) * 16777619 & 0xffffffff
    return total


def state(owed=0, echoed=0, version=VERSION, size=STATE.size, magic=MAGIC, flags=0, family=socket.AF_INET, check=None,
          idle=0):
    """A message as the daemon would write it."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    text = STATE.pack(magic, version, size, flags, owed, echoed, now - idle * 1000000,
                      now - idle * 1000000, b"\x7f\0\0\1", 0, 1, family, 0, 0)
    check = check_sum(text[:-8]) if check is None else check
    return text[:-8] + struct.pack("=II", check, 0)


def memory(data):
    fd = os.memfd_create("owed")
    os.write(fd, data)
    return fd


def connection():
    """A client and the descriptor that the service would have for it."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = peer.connect(listener.getsockname())
    server = listener.accept()[0]
    listener.close()
    return client, server


def send(outbox, text, fds=()):
    outbox.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def launch_with(start, model, descriptors, **more):
    """The daemon with these (name, descriptor) in its store."""
    names = ":".join(name for name, _ in descriptors)
    daemon = start(model, **echod.activated([d for _, d in descriptors], names), store=True, **more)
    for _, descriptor in descriptors:
        descriptor.close()
    return daemon


class Descriptor:
    """Something with the socket's manners."""

    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        return self.fd

    def close(self):
        os.close(self.fd)


A_FEW_MODELS = ("epoll", "thread", "iterative", "io_uring", "prefork")


@pytest.mark.models(*A_FEW_MODELS)
def test_the_format_is_the_one_we_think_it_is(start, model):
    """What these tests forge is taken up when nothing is wrong with it: with owed bytes, half-closed, waiting."""
    inbox, outbox = pair()
    clients = []
    for flags, owed in (0, b""), (0, b"owed "), (1, b"and gone"):
        client, server = connection()
        fds = [server.fileno(), *([memory(owed)] if owed else [])]
        send(outbox, state(len(owed), flags=flags), fds)
        server.close()
        clients.append((client, flags, owed))
    daemon = launch_with(start, model, [(INBOX, inbox), (OUTBOX, outbox)])
    for client, flags, owed in clients:
        if flags:
            assert peer.receive_all(client) == owed
        else:
            client.sendall(b"asked")
            assert peer.receive(client, len(owed) + 5) == owed + b"asked"
            peer.finish(client)
        client.close()
    daemon.visit()


@pytest.mark.models(*[name for name in echod.MODELS if name not in echod.SERIAL])
def test_idle_time_goes_along(start, model):
    """In whatever order they come: each ends when it has been idle for idle-timeout, and not with the one before it."""
    inbox, outbox = pair()
    clients = {}
    for idle in 0, 28, 5, 29, 0, 28, 29:
        client, server = connection()
        send(outbox, state(idle=idle), [server.fileno()])
        server.close()
        clients.setdefault(idle, []).append(client)
    daemon = launch_with(start, model, [(INBOX, inbox), (OUTBOX, outbox)], idle_timeout=30, workers=1 if model in echod.LOOPS else 0)
    for client in clients[29] + clients[28]:
        assert peer.ended(client)
    assert all(peer.silent_now(client) for client in clients[0] + clients[5])
    daemon.stop()


def damaged():
    """Messages in which something is wrong: (text, kinds of descriptors)."""
    good = state()
    yield "empty of descriptors", good, ""
    yield "a byte", b"x", "s"
    yield "garbage", os.urandom(STATE.size), "s"
    yield "garbage without descriptors", os.urandom(200), ""
    yield "truncated", good[:-1], "s"
    yield "truncated to the header", good[:8], "s"
    yield "too long", good + b"more", "s"
    yield "long", good * 100, "s"
    yield "next version", state(version=VERSION + 1), "s"
    yield "version 0", state(version=0), "s"
    yield "other magic", state(magic=MAGIC + 1), "s"
    yield "wrong sum", state(check=1), "s"
    yield "unknown flags", state(flags=2), "s"
    yield "unknown family", state(family=99), "s"
    yield "wrong size", state(size=40), "s"
    yield "no file", state(owed=5), "s"
    yield "file too short", state(owed=500), "sm"
    yield "a file not asked for", state(), "sm"
    yield "a pipe for a file", state(owed=5), "sp"
    yield "a socket for a file", state(owed=5), "ss"
    yield "a file for a socket", state(), "m"
    yield "a pipe for a socket", state(), "p"
    yield "more than any buffer", state(owed=0xffffffff), "sm"
    yield "many descriptors", state(), "ssssssss"
    yield "an epoll for a socket", state(), "e"
    yield "a listener", state(), "l"
    yield "a datagram socket", state(), "d"
    yield "the queue itself", state(), "q"


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
    if kind == "d":
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()
    return os.dup(inbox.fileno())


@pytest.mark.models(*A_FEW_MODELS)
def test_damaged_connections(start, model):
    """Each is closed, told, and followed by those that are whole."""
    inbox, outbox = pair()
    keep, whole = [], []
    count = 0
    for what, text, kinds in damaged():
        fds = [open_kind(kind, inbox, keep) for kind in kinds]
        send(outbox, text, fds)
        for fd in fds:
            os.close(fd)
        client, server = connection()
        send(outbox, state(), [server.fileno()])
        server.close()
        whole.append((what, client))
        count += 1
    daemon = launch_with(start, model, [(INBOX, inbox), (OUTBOX, outbox)])
    for what, client in whole:
        client.sendall(b"whole")
        assert peer.receive(client, 5) == b"whole", f"the one after {what!r}"
        peer.finish(client)
        client.close()
    daemon.visit()
    proc.until(lambda: daemon.log().count("could not be taken up") == count,
               lambda: f"{count} lines about damage, there are {daemon.log().count('could not be taken up')}")
    for client in keep:
        assert peer.ended(client), "one that could not be taken up is still open"
        client.close()


def alone(kind):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    b.close()
    return a


def lonely_inbox():
    """Connections in it, but nobody has kept the other end."""
    inbox, outbox = pair()
    outbox.close()
    return [(INBOX, inbox)]


STORES = {
    "in alone": lonely_inbox,
    "in alone with its writer": lambda: [(INBOX, pair()[0])],
    "out alone": lambda: [(OUTBOX, pair()[1])],
    "files": lambda: [(INBOX, Descriptor(memory(b"x"))), (OUTBOX, Descriptor(memory(b"y")))],
    "a file and a socket": lambda: [(INBOX, Descriptor(memory(b"x"))), (OUTBOX, pair()[1])],
    "streams": lambda: list(zip((INBOX, OUTBOX), socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))),
    "datagrams": lambda: list(zip((INBOX, OUTBOX), socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))),
    "TCP": lambda: list(zip((INBOX, OUTBOX), connection())),
    "a listener": lambda: [(INBOX, socket.create_server(("127.0.0.1", 0))), (OUTBOX, pair()[1])],
    "not connected": lambda: [(name, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for name in (INBOX, OUTBOX)],
    "ends of two pairs": lambda: [(INBOX, alone(socket.SOCK_SEQPACKET)), (OUTBOX, alone(socket.SOCK_SEQPACKET))],
    "two queues": lambda: [(name, end) for _ in range(2) for name, end in zip((INBOX, OUTBOX), pair())],
    "an unknown name": lambda: [("echod-something", pair()[0]), ("echod-stream-x", Descriptor(memory(b"x")))],
    "twice the same": lambda: (lambda ends: [(INBOX, ends[0]), (OUTBOX, ends[0].dup())])(pair()),
}


@pytest.mark.parametrize("what", STORES)
@pytest.mark.models("epoll", "thread")
def test_damaged_store(start, model, what):
    """The service starts with a queue of its own, serves, and hands connections over on a reload."""
    daemon = launch_with(start, model, STORES[what]())
    client = daemon.connect()
    peer.echo(client, b"before")
    before = daemon.cpu()
    daemon.reload(model="poll")
    peer.echo(client, b"after")
    peer.finish(client)
    daemon.visit()
    # nothing in it keeps anybody busy: a quarter of a second on the clock is at most a little work
    daemon.notify.wait("READY=1", since=1)
    since = daemon.cpu()
    peer.silent(daemon.connect(), 0.5)
    assert daemon.cpu() - since < 0.3, f"{daemon.cpu() - since} s of processor time in half a second of nothing"
    names = [name for name, _ in daemon.notify.store]
    assert names.count(INBOX) == 1 and names.count(OUTBOX) == 1, names
    assert before >= 0


def crash_and_start(start, daemon, model):
    """kill -9 of the supervisor; the manager starts it again with what it keeps."""
    daemon.crash_expected = True
    daemon.signal(signal.SIGKILL)
    daemon.expect = -signal.SIGKILL
    daemon.wait_exit()
    kept = [(name, Descriptor(fd)) for name, fd in daemon.notify.take_store()]
    return kept, lambda: launch_with(start, model, kept, listen=["127.0.0.1"], port=daemon.port)


@pytest.mark.models(*A_FEW_MODELS)
def test_a_crash_refuses_nobody(start, model):
    """Who comes while nothing runs waits in the backlog, and is served by the next process."""
    daemon = start(model, store=True)
    daemon.visit()
    proc.until(lambda: len(daemon.notify.store) >= 3, "the listener is in the store")
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
        proc.until(lambda: len(daemon.notify.store) >= 3, "the listener is in the store again")


@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_unix_socket_whose_file_is_gone(start, tmpdir, user):
    """Nobody finds it any more: the next process makes a new one, instead of not starting or not being found."""
    if user and os.getuid():
        pytest.skip("only root can become another user")
    path = pathlib.Path(tmpdir, "echod.sock")
    daemon = start("epoll", store=True, listen=[f"unix:{path}"], user=user, pidfile="", port=None)
    proc.until(lambda: len(daemon.notify.store) >= 3, "the listener is in the store")
    daemon.crash_expected = True
    daemon.signal(signal.SIGKILL)
    daemon.expect = -signal.SIGKILL
    daemon.wait_exit()
    kept = [(name, Descriptor(fd)) for name, fd in daemon.notify.take_store()]
    if user:
        proc.until(lambda: not path.exists(), "those that root left behind have removed it")
    else:
        path.unlink()
    launch_with(start, "epoll", kept, listen=[f"unix:{path}"], user=user, pidfile="", port=None)
    peer.visit(str(path))


def still(socks):
    """Those of the sockets that are still served."""
    alive = []
    for sock in socks:
        try:
            peer.echo(sock, b"still here?")
            alive.append(sock)
        except (AssertionError, OSError):
            sock.close()
    return alive


def test_a_killed_worker_costs_its_own_connections_alone(start, model):
    """Whoever waits for it is served by the next one, and one line tells."""
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
    daemon.wait_log(rf"killed by signal 9 \(Killed\): {lost} connections lost")
    assert peer.receive(waiting, 9) == b"let me in"
    peer.finish(waiting)
    alive = still(socks)
    assert len(alive) == len(socks) - lost
    # as much room as at first, and no more
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


def test_a_killed_acceptor_costs_nobody(start):
    """Its processes go on without it, are counted, and hand over at a reload."""
    daemon = start("process", max_connections=5)
    daemon.crash_expected = True
    socks = [daemon.connect() for _ in range(3)]
    for sock in socks:
        peer.echo(sock, b"here")
    os.kill(daemon.workers()[0], signal.SIGKILL)
    daemon.wait_log("takes the place")
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
def test_a_killed_worker_leaves_the_queue_alone(start, model):
    """Those who wait in it are not its own."""
    daemon = start("epoll", workers=1)
    daemon.crash_expected = True
    socks = [daemon.connect() for _ in range(5)]
    for sock in socks:
        peer.echo(sock, b"here")
    old = daemon.workers()
    daemon.reload(model=model, workers=1)
    proc.until(lambda: not any(map(proc.alive, old)), "the old worker has left")
    peer.echo(socks[0], b"served")
    os.kill(daemon.workers()[0], signal.SIGKILL)
    assert peer.ended(socks.pop(0))
    for sock in socks:
        peer.echo(sock, b"after the kill")
        peer.finish(sock)


def test_back_off(start):
    """A worker process that dies again and again is replaced later each time, and everybody waits for it."""
    daemon = start("epoll")
    daemon.crash_expected = True
    gaps = []
    for _ in range(4):
        pid = proc.until(lambda: daemon.workers(), "a worker")[0]
        since = len(daemon.log())
        os.kill(pid, signal.SIGKILL)
        died = proc.until(lambda: "killed by signal 9" in daemon.log()[since:] and time.monotonic(), "its end")
        waiting = daemon.connect()
        daemon.wait_log("takes the place", since=since, timeout=30)
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
    proc.until(lambda: len(daemon.notify.store) == 3, lambda: str(daemon.notify.store))
    daemon.reload(keep_connections=False)
    proc.until(lambda: not daemon.notify.store, lambda: str(daemon.notify.store))


@pytest.mark.models(*[name for name in echod.MODELS if name not in echod.SERIAL])
def test_stop_ends_every_connection_properly(start, crowd, model):
    """Fifty clients to whom the service owes: each gets all of it, and then the end."""
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
def test_stop_ends_connections_that_wait_properly(start, crowd, model):
    """Likewise for those that wait in the queue for one of few workers, to whom nobody has listened yet."""
    daemon = start("epoll", drain_timeout=60)
    everybody = crowd(daemon.address, 50)
    everybody.settle("the start")
    everybody.check(everybody.ask("owe"), "owing")
    old = daemon.workers()
    daemon.reload(model=model)
    proc.until(lambda: not any(map(proc.alive, old)), "the old worker has left", 60)
    everybody.begin("end")
    daemon.stop()
    counts = everybody.answer()
    everybody.check(counts, "the stop")
    assert counts["ended"] == 50, counts
    assert "were ended, 0 of them before" in daemon.log(), daemon.log()


def waiting(counts):
    """Connections that no worker has taken, by the counters."""
    return counts.get("connections_handed_over", 0) - counts.get("connections_taken_over", 0)


@pytest.mark.parametrize("number", [1, 2])
def test_stop_ends_waiting_connections_in_time(start, number):
    """Those who do not read what they are owed are cut at the end of drain-timeout, or by a second signal."""
    daemon = start("epoll", drain_timeout=2 if number == 1 else 60)
    laden = [peer.laden(daemon.address) for _ in range(4)]
    old = daemon.workers()
    daemon.reload(model="iterative")
    proc.until(lambda: not any(map(proc.alive, old)), "the old worker has left", 60)
    proc.until(lambda: waiting(metrics.line(daemon)) == 3, lambda: f"three wait for the new worker: {metrics.line(daemon)}")
    daemon.term()
    if number == 2:
        daemon.notify.wait("STOPPING=1")
        daemon.term()
    assert daemon.wait_exit() == 0
    daemon.wait_log(r"3 connections that waited for a worker were ended, 3 of them before")
    for sock, _, _ in laden:
        sock.close()
