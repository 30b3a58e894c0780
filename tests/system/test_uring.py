# SPDX-License-Identifier: ISC
"""The io_uring model: cases in which the order of completions matters. Tests common to all models are in other files."""

import ctypes
import errno
import os
import re
import select
import signal
import socket
import subprocess
import sys

import pytest

import echod
import metrics
import peer
import proc

MODEL = "io_uring"

pytestmark = pytest.mark.models(MODEL)


@pytest.fixture
def faults(model):
    """Faults by name, as the environment of a daemon."""
    if "fault points" not in echod.run("-V").stdout:
        pytest.skip("echod was built without fault points (configure --enable-debug-faults)")
    return lambda **numbers: {f"ECHOD_FAULT_URING_{name.upper()}": str(number) for name, number in numbers.items()}


def rounds(socks, count, size=200):
    """All clients send at once, and each receives its own data, `count` times."""
    for turn in range(count):
        for number, sock in enumerate(socks):
            sock.sendall(peer.data(size, number * 1000 + turn))
        for number, sock in enumerate(socks):
            peer.same(peer.receive(sock, size), peer.data(size, number * 1000 + turn))


# Buffers run out

@pytest.mark.parametrize("buffers", (1, 2, 8))
def test_fewer_buffers_than_connections(start, faults, model, buffers):
    daemon = start(model, workers=1, env=faults(buffers=buffers))
    socks = [daemon.connect() for _ in range(60)]
    rounds(socks, 20)
    for sock in socks:
        peer.finish(sock)


def test_a_stream_with_one_buffer(start, faults, model):
    daemon = start(model, workers=1, env=faults(buffers=1))
    streams = [peer.Stream(daemon.address, seed=seed) for seed in range(4)]
    for _ in range(3):
        for stream in streams:
            stream.progress(1 << 20)
    for stream in streams:
        stream.finish()


def test_idle_connections_hold_no_buffer(start, faults, model):
    daemon = start(model, workers=1, env=faults(buffers=1))
    idle = [daemon.connect() for _ in range(50)]
    rounds(idle, 1)  # each has had the buffer once
    daemon.visit(peer.data(100000))
    rounds(idle, 2)


def test_lack_of_buffers_causes_no_busy_wait(start, faults, model):
    daemon = start(model, workers=1, env=faults(buffers=1))
    socks = [daemon.connect() for _ in range(30)]
    rounds(socks, 5)
    before = daemon.cpu()
    assert peer.silent(socks[0], 1.0), "unexpected bytes"
    assert daemon.cpu() - before < 0.2, "it spins"
    rounds(socks, 1)


# Clients that never read

@pytest.mark.parametrize("buffers", (1, 256))
def test_clients_that_never_read(start, faults, model, buffers):
    """Clients that never read hold only their own share of buffers: the other clients are served to their end."""
    daemon = start(model, workers=1, env=faults(buffers=buffers))
    good = [daemon.connect() for _ in range(5)]
    bad = [peer.connect(daemon.address, rcvbuf=65536, sndbuf=peer.FILL_SNDBUF) for _ in range(4)]
    sent = [peer.fill_path(sock, quiet=0.05) for sock in bad]
    rounds(good, 20, size=5000)
    for sock in good:
        peer.echo(sock, peer.data(1 << 20))
        peer.finish(sock)
    for sock, message in zip(bad[::2], sent[::2]):  # none of their data is lost either
        sock.shutdown(socket.SHUT_WR)
        peer.same(peer.receive_all(sock), message)
    for sock in bad[1::2]:
        peer.reset(sock)
    daemon.visit()


def test_a_client_that_never_reads_uses_only_its_buffer(start, model):
    if echod.SANITIZED:
        pytest.skip("sanitizers keep memory that was freed")
    daemon = start(model, workers=1, buffer_size=4194304)
    daemon.visit(peer.data(1 << 22))
    before = daemon.memory()
    bad = [peer.connect(daemon.address, rcvbuf=4096) for _ in range(4)]
    for sock in bad:
        peer.fill_path(sock)
    held = daemon.memory() - before
    assert held < 4 * (4 << 20) + (8 << 20), f"{held} bytes for four connections of 4 MiB at most"


def test_no_spinning_on_a_send_that_cannot_continue(start, model):
    daemon = start(model, workers=1)
    sock = peer.connect(daemon.address, rcvbuf=8192)
    peer.fill_path(sock)
    before = daemon.cpu()
    other = daemon.connect()
    assert peer.silent(other, 1.0), "unexpected bytes"
    assert daemon.cpu() - before < 0.2, "it spins"


# Short sends

@pytest.mark.parametrize("buffer_size", (512, 65536, 1048576))
def test_short_sends_continue_where_they_stopped(start, model, buffer_size):
    daemon = start(model, workers=1, buffer_size=buffer_size)
    sock = peer.connect(daemon.address, rcvbuf=4096)
    message = peer.data(3000000)
    writer = peer.Writer(sock, message, half_close=True)
    peer.same(peer.receive_all(sock, step=30011), message)
    writer.finish()


def test_echo_after_short_sends(start, faults, model):
    """A session that could not send for some time echoes again afterwards, several times."""
    daemon = start(model, workers=1, env=faults(buffers=2))
    sock = peer.connect(daemon.address, rcvbuf=65536, sndbuf=peer.FILL_SNDBUF)
    for turn in range(3):
        sent = peer.fill_path(sock, quiet=0.05, seed=turn)
        peer.same(peer.receive(sock, len(sent)), sent)
        rounds([sock], 10)
    peer.finish(sock)


# Multishot receive: one operation with many results

@pytest.mark.parametrize("step", (64, 1023, 1024, 3000))
@pytest.mark.parametrize("buffer_size", (512, 65536))
def test_short_messages_that_the_client_does_not_read(start, model, step, buffer_size):
    """Data that multishot receive delivers while nothing can be sent is kept, in order, also over a reload; other clients are
    served meanwhile."""
    daemon = start(model, workers=1, buffer_size=buffer_size)
    good = [daemon.connect() for _ in range(20)]
    rounds(good, 3)
    bad = [peer.connect(daemon.address, rcvbuf=8192, sndbuf=65536) for _ in range(4)]
    sent = [peer.fill_path(sock, quiet=0.05, seed=seed, step=step) for seed, sock in enumerate(bad)]
    rounds(good, 10)
    for before_reload in (True, False):
        sock, message = bad.pop(), sent.pop()
        sock.shutdown(socket.SHUT_WR)
        peer.same(peer.receive_all(sock, step=30011), message)
        if before_reload:
            daemon.reload()
            rounds(good, 3)
    daemon.reload()
    peer.reset(bad.pop())
    sent.pop()
    peer.same(peer.receive(bad[0], len(sent[0])), sent[0])
    rounds(good + bad, 10)  # the client that reads again is served again
    for sock in good + bad:
        peer.finish(sock)


@pytest.mark.parametrize("count", (1, 2, 5, 12, 300))
def test_fin_behind_short_messages(start, model, count):
    daemon = start(model, workers=1)
    for turn in range(20):
        with daemon.connect() as sock:
            message = peer.data(700 * count, turn)
            for at in range(0, len(message), 700):
                sock.sendall(message[at:at + 700])
            sock.shutdown(socket.SHUT_WR)
            peer.same(peer.receive_all(sock), message)


def test_fin_during_a_reload(start, model):
    """A connection whose data and FIN were sent when the worker stops has ended, and is not handed over."""
    daemon = start(model, workers=1, log_connections=True)
    for turn in range(15):
        socks = [daemon.connect() for _ in range(40)]
        rounds(socks, 1)
        daemon.signal(signal.SIGHUP)
        for sock in socks:
            sock.sendall(b"the last")
            sock.shutdown(socket.SHUT_WR)
        for sock in socks:
            assert peer.receive_all(sock) == b"the last"
            sock.close()
        proc.until(lambda: len(daemon.lines_about("Reloaded")) == turn + 1, "the reload")
    metrics.wait_line(daemon, "all have ended", connections_ended__eof=600)
    assert set(re.findall(r"ended: (\w+)", daemon.log())) == {"eof"}


@pytest.mark.parametrize("buffers", (1, 2, 256))
def test_messages_of_every_length(start, faults, model, buffers):
    """Messages for multishot receive, for single receives and for bulk transfer, in both directions of change."""
    daemon = start(model, workers=1, env=faults(buffers=buffers))
    socks = [daemon.connect() for _ in range(3)]
    for turn in range(4):
        for size in (1, 64, 1023, 1024, 1025, 2048, 5000, 65536, 300000, 10):
            rounds(socks, 1 + turn * 4, size)
    for sock in socks:
        peer.finish(sock)


def test_many_short_messages_at_once(start, model):
    """Many clients send more messages than multishot receive can deliver before the first one is sent."""
    daemon = start(model, workers=1)
    socks = [daemon.connect() for _ in range(40)]
    for turn in range(10):
        messages = [peer.data(90 * (number + 1), turn) for number in range(len(socks))]
        for at in range(0, 90 * len(socks), 90):
            for sock, message in zip(socks, messages):
                if at < len(message):
                    sock.sendall(message[at:at + 90])
        for sock, message in zip(socks, messages):
            peer.same(peer.receive(sock, len(message)), message)
    for sock in socks:
        peer.finish(sock)


# FIN with the last data

@pytest.mark.parametrize("size", (1, 511, 65535, 65536, 65537, 200000))
def test_fin_with_the_last_data(start, model, size):
    daemon = start(model, workers=1)
    for turn in range(10):
        message = peer.data(size, turn)
        sock = daemon.connect()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # so that the FIN travels with the data
        writer = peer.Writer(sock, message, half_close=True)
        peer.same(peer.receive_all(sock), message)
        writer.finish()
        sock.close()


# Reuse of descriptors

def test_descriptors_used_again_at_once(start, model):
    """Remaining data of a connection that was reset never reaches the next connection with the same descriptor and slot."""
    daemon = start(model, workers=1)
    stays = [daemon.connect() for _ in range(3)]
    for turn in range(60):
        socks = [daemon.connect() for _ in range(12)]
        for number, sock in enumerate(socks):
            sock.sendall(peer.data(3000, turn * 100 + number))
        for sock in socks[::2]:
            peer.reset(sock)
        fresh = [daemon.connect() for _ in range(6)]
        rounds(fresh, 1, size=700)
        for number, sock in list(enumerate(socks))[1::2]:
            peer.same(peer.receive(sock, 3000), peer.data(3000, turn * 100 + number))
            peer.finish(sock)
        rounds(fresh, 1, size=700)
        rounds(stays, 1)
        for sock in fresh:
            peer.finish(sock)


def test_descriptors_used_again_after_the_idle_timeout(start, model):
    """The daemon itself closes connections that have a receive in flight."""
    daemon = start(model, workers=1, idle_timeout=1)
    for _ in range(3):
        idle = [daemon.connect() for _ in range(40)]
        rounds(idle, 1)
        for sock in idle:
            assert peer.ended(sock), "an idle connection was not ended"
            sock.close()
        daemon.visit(peer.data(10000))


# Resets in flight

def test_resets_in_flight(start, model):
    daemon = start(model, workers=1, log_connections=True)
    good = peer.Stream(daemon.address)
    for turn in range(40):
        socks = [peer.connect(daemon.address, rcvbuf=8192) for _ in range(4)]
        for number, sock in enumerate(socks):
            sock.setblocking(False)
            for _ in range(turn % 4 + 1):
                try:
                    sock.send(peer.data(1 << 18, number))
                except BlockingIOError:
                    break
        good.progress(1)
        for sock in socks:
            peer.reset(sock)
    good.finish()
    daemon.visit()
    proc.until(lambda: len(re.findall(r"ended: reset\b", daemon.log())) == 160,
               lambda: f"160 resets in:\n{daemon.log()}")


# Limits and multishot accept, which does not observe them

@pytest.mark.parametrize("spare", (0, None))
def test_multishot_accept_and_max_connections(start, faults, model, spare):
    """At most max-connections clients are served, although all were accepted (`spare` 0); the others are served later."""
    most, more = 50, 40
    daemon = start(model, workers=1, max_connections=most, backlog=16 if spare is None else 512,
                   env=faults(spare=spare) if spare is not None else None)
    socks = {}
    poller = select.poll()
    for _ in range(most):
        sock = daemon.connect()
        peer.echo(sock, b"in")
        socks[sock.fileno()] = sock
    waiting = [daemon.connect() for _ in range(more if spare is not None else 10)]
    for sock in waiting:
        sock.sendall(b"waits")
        poller.register(sock, select.POLLIN)
    assert not poller.poll(300), "more than max-connections are served"
    while waiting:
        for _ in range(min(7, len(waiting))):
            peer.finish(socks.popitem()[1])
        served = set()
        proc.until(lambda: served.update(fd for fd, _ in poller.poll(100)) or len(served) >= min(7, len(waiting)),
                   lambda: f"{len(served)} of 7 waiting clients are served")
        assert len(served) == min(7, len(waiting)), f"{len(served)} clients are served after 7 have closed"
        for sock in [sock for sock in waiting if sock.fileno() in served]:
            poller.unregister(sock)
            waiting.remove(sock)
            peer.same(peer.receive(sock, 5), b"waits")
            socks[sock.fileno()] = sock
    for sock in socks.values():
        peer.finish(sock)
    daemon.visit()


def test_accepted_without_a_slot_and_reload(start, faults, model):
    """Accepted connections that wait for a slot survive a reload, and the next crew serves them."""
    daemon = start(model, workers=1, max_connections=5, env=faults(spare=0))
    inside = [daemon.connect() for _ in range(5)]
    rounds(inside, 1)
    waiting = [daemon.connect() for _ in range(10)]
    for sock in waiting:
        sock.sendall(b"waits")
    assert peer.silent(waiting[0], 0.2), "more than max-connections are served"
    daemon.reload(model="epoll", max_connections=100)
    for sock in waiting:
        peer.same(peer.receive(sock, 5), b"waits")
    rounds(inside + waiting, 2)


def test_multishot_accept_stops_without_descriptors(start, faults, model):
    """No client is lost when the limit of descriptors is reached during multishot accept."""
    wrap = [sys.executable, "-I", "-c", "import os, resource, sys\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))\nos.execv(sys.argv[1], sys.argv[1:])"]
    daemon = start(model, workers=1, max_connections=500, wrap=wrap, env=faults(spare=0))
    socks = [daemon.connect() for _ in range(120)]
    for sock in socks:
        sock.sendall(b"knock")
    daemon.wait_log("Cannot accept connections: ")
    proc.until(lambda: not peer.silent_now(socks[0]), "an answer to the first")
    assert peer.silent_now(socks[-1]), "more are served than there are descriptors"
    for sock in socks:  # each connection that ends frees a descriptor
        peer.same(peer.receive(sock, 5), b"knock")
        peer.finish(sock)


def test_every_worker_gets_connections(start, model):
    """With several workers no worker accepts all connections: each uses some of the processor time of bursts of clients."""
    daemon = start(model, workers=2)
    tasks = f"/proc/{daemon.workers()[0]}/task"

    def shared():
        socks = [socket.socket() for _ in range(100)]
        for sock in socks:
            sock.setblocking(False)
            assert sock.connect_ex(daemon.address) == errno.EINPROGRESS
        for sock in socks:
            sock.settimeout(peer.PATIENCE)
            poller = select.poll()
            poller.register(sock, select.POLLOUT)
            assert poller.poll(peer.PATIENCE * 1000), "no connection"
        rounds(socks, 10)
        for sock in socks:
            peer.finish(sock)
        spent = sorted(int(proc.read(f"{tasks}/{tid}/schedstat").split()[0]) for tid in os.listdir(tasks))
        return len(spent) >= 2 and spent[-2] > spent[-1] / 10
    proc.until(shared, "work for the second worker", 30)


# Older kernels, and kernels that refuse

@pytest.mark.parametrize("setup", (1, 2))
def test_older_set_ups(start, faults, model, setup):
    """io_uring without DEFER_TASKRUN, and without any flag."""
    daemon = start(model, env=faults(setup=setup))
    socks = [daemon.connect() for _ in range(30)]
    rounds(socks, 10)
    peer.echo(socks[0], peer.data(1 << 21))
    daemon.hup()
    rounds(socks, 2)
    for sock in socks:
        peer.finish(sock)


# A program that loads a seccomp filter and then executes echod: io_uring_setup(2), number 425 except on Alpha,
# fails with the given error.
FILTER = """
import ctypes, os, struct, sys
def step(code, true, false, value):
    return struct.pack("HBBI", code, true, false, value)
program = (step(0x20, 0, 0, 0) + step(0x15, 0, 1, 425) + step(0x06, 0, 0, 0x00050000 | int(sys.argv[1])) +
           step(0x06, 0, 0, 0x7fff0000))
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("steps", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0) == 0, "PR_SET_SECCOMP"
os.execv(sys.argv[2], sys.argv[2:])
"""


def forbidding(error):
    return [sys.executable, "-I", "-c", FILTER, str(int(error))]


@pytest.fixture
def seccomp(model):
    PR_GET_SECCOMP = 21
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        pytest.skip(f"no seccomp here: {errno.errorcode[ctypes.get_errno()]}")


@pytest.mark.parametrize("error, remedy", ((errno.EPERM, "SystemCallFilter"), (errno.ENOSYS, "admit it")))
def test_a_kernel_that_refuses(launch, seccomp, model, error, remedy):
    daemon = launch(model, wrap=forbidding(error))
    said = daemon.fails(echod.EX_CONFIG)
    assert "io_uring" in said and remedy in said, said


def test_a_refusal_in_the_list_of_models(seccomp, model):
    listed = subprocess.run([*forbidding(errno.EPERM), echod.ECHOD, "--list-models"], capture_output=True, text=True,
                            timeout=30)
    line, = (line for line in listed.stdout.splitlines() if line.startswith(model))
    assert re.search(r"\bno: .*SystemCallFilter", line), line


def test_reload_to_a_model_that_is_refused(start, seccomp, model):
    """The reload fails, and the running configuration is not changed."""
    daemon = start("epoll", wrap=forbidding(errno.EPERM))
    sock = daemon.connect()
    daemon.configure(model=model)
    daemon.hup()
    daemon.wait_log("SystemCallFilter")
    rounds([sock], 3)
    daemon.visit()
