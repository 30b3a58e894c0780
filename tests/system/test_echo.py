# SPDX-License-Identifier: ISC
"""A client receives the same bytes, complete and in order, in every model."""

import contextlib
import random
import socket
import time

import pytest

import echod
import metrics
import peer
import proc

SIZES = (1, 64, 1024, 65536, 1048576)


def test_every_byte_comes_back(start, model):
    daemon = start(model)
    daemon.visit(b"")
    for size in SIZES:
        daemon.visit(peer.data(size))


def test_one_connection_carries_many_messages(start, model):
    daemon = start(model)
    chance = random.Random(2)
    with daemon.connect() as sock:
        for _ in range(300):
            peer.echo(sock, peer.data(65536)[:chance.choice((1, 2, 63, 64, 1000, 1460, 4096, 16384, 65535))])
        peer.finish(sock)


def test_chunks_of_random_size(start, model):
    """The sizes of sends and receives, and the points where the sender waits for the echo, are random."""
    daemon = start(model, buffer_size=4096)
    chance = random.Random(3)
    message = peer.data(400000)
    with daemon.connect() as sock:
        sent = received = 0
        back = bytearray()
        while received < len(message):
            if sent < len(message) and sent - received < 200000 and chance.random() < 0.6:
                size = chance.choice((1, 7, 100, 1460, 4096, 4097, 30000))
                sock.sendall(message[sent:sent + size])
                sent = min(sent + size, len(message))
            elif sent > received:
                piece = sock.recv(chance.choice((1, 10, 1000, 65536)))
                assert piece, "closed early"
                back += piece
                received += len(piece)
        peer.same(back, message)
        peer.finish(sock)


def test_half_close_is_answered_in_full(start, model):
    """The server echoes all data that it received before the client's FIN, and then sends its own FIN."""
    daemon = start(model)
    message = peer.data(1048576)
    for size in (1, 65536, len(message)):
        with daemon.connect(rcvbuf=16384) as sock:
            writer = peer.Writer(sock, message[:size], half_close=True)
            peer.same(peer.receive_all(sock), message[:size])
            writer.finish()


def test_fin_with_the_last_byte(start, model):
    """Connect, send and half-close before the server accepts the connection."""
    daemon = start(model)
    for _ in range(50):
        with daemon.connect() as sock:
            sock.sendall(b"x" * 100)
            sock.shutdown(socket.SHUT_WR)
            peer.same(peer.receive_all(sock), b"x" * 100)


@pytest.mark.timeout(240)
def test_full_duplex_stream_of_64_mib(start, model):
    daemon = start(model)
    message = peer.data(64 << 20)
    with daemon.connect() as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, message)
        peer.finish(sock)
    line = daemon.connection_line(endpoint, "eof")
    assert str(len(message)) in line, line


def test_small_buffer_carries_a_large_stream(start, model):
    daemon = start(model, buffer_size=512)
    with daemon.connect() as sock:
        peer.echo(sock, peer.data(2 << 20))
        peer.finish(sock)


def test_one_byte_at_a_time(start, model):
    daemon = start(model)
    with daemon.connect() as sock:
        for byte in peer.data(500):
            peer.echo(sock, bytes([byte]))
        for byte in peer.data(500):  # without waiting for each
            sock.sendall(bytes([byte]))
        peer.same(peer.receive(sock, 500), peer.data(500))
        peer.finish(sock)


def test_urgent_data_does_not_disturb(start, model):
    """The urgent byte may or may not be echoed; all other bytes are."""
    daemon = start(model)
    with daemon.connect() as sock:
        peer.echo(sock, b"before")
        sock.send(b"!", socket.MSG_OOB)
        sock.sendall(b"after")
        back = peer.receive(sock, 5)
        assert back in (b"after", b"!afte"), back
        sock.shutdown(socket.SHUT_WR)
        assert b"".join((back, peer.receive_all(sock))) in (b"after", b"!after")
    daemon.visit()


def bystanders(model, others):
    """The configuration in which one more client is served beside `others` clients; None where the model cannot do that."""
    if model == "iterative":
        return None
    return {"workers": others + 1} if model in echod.SERIAL else {}


def test_peer_that_never_reads_delays_no_other(start, model):
    """The daemon takes a limited number of bytes from it, uses no processor time for it, and serves other clients meanwhile."""
    deaf = 1 if model == "iterative" else 3
    daemon = start(model, buffer_size=65536, idle_timeout=0, **(bystanders(model, deaf) or {}))
    daemon.visit(peer.data(1048576))
    before = daemon.memory()
    socks = [daemon.connect(rcvbuf=65536, sndbuf=peer.FILL_SNDBUF) for _ in range(deaf)]
    try:
        filled = [peer.fill_path(sock) for sock in socks]
        kernel = sum(int(proc.read(f"/proc/sys/net/ipv4/tcp_{name}").split()[2]) for name in ("rmem", "wmem"))
        assert max(map(len, filled)) < 2 * kernel + (1 << 20), "more than the socket buffers and buffer-size took these bytes"
        if not echod.SANITIZED:
            each = (daemon.memory() - before) / deaf
            assert each < 65536 + (1 << 20), f"{each:.0f} bytes of memory for each of them"
        cpu = daemon.cpu()
        if model == "iterative":
            time.sleep(1)  # the length of the measurement
        else:
            end = time.monotonic() + 1
            for _ in range(5):
                daemon.visit(b"served meanwhile")
            time.sleep(max(0, end - time.monotonic()))
        used = daemon.cpu() - cpu
        assert used <= 0.08, f"{used} s of CPU in a second for peers that do nothing"
        for sock, sent in zip(socks, filled):  # when they read at last, they receive every byte
            sock.shutdown(socket.SHUT_WR)
            peer.same(peer.receive_all(sock), sent)
    finally:
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("family", ["TCP", "unix"])
def test_half_closed_peer_that_never_reads(start, model, tmpdir, family):
    """All processes sleep until it reads, although its FIN has arrived and the daemon could receive it."""
    path = f"{tmpdir}/socket"
    daemon = start(model, listen=["127.0.0.1", f"unix:{path}"], stats_interval=0)
    if family == "TCP":
        sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    else:
        sock = peer.connect(path)
        sent, read = peer.fill_path(sock), b""
    sock.shutdown(socket.SHUT_WR)
    proc.until(lambda: proc.asleep([stat.pid for stat in daemon.tree()]), "the daemon sleeps")
    peer.same(read + peer.receive_all(sock), sent)
    sock.close()
    metrics.wait_line(daemon, "the end", connections=0, connections_ended__eof=1)


def test_peer_that_never_reads_is_closed_when_idle(start, model):
    daemon = start(model, idle_timeout=1)
    with daemon.connect(rcvbuf=16384, sndbuf=peer.FILL_SNDBUF) as sock:
        endpoint = peer.endpoint(sock)
        peer.fill_path(sock, may_end=True)
        daemon.connection_line(endpoint, "idle")
        assert peer.ended(sock)
    daemon.visit()


def test_silent_connection_is_closed_when_idle(start, model):
    daemon = start(model, idle_timeout=1, log_level="debug")
    with daemon.connect() as sock:
        began = time.monotonic()
        assert sock.recv(1) == b"", "an idle connection ends with FIN"
        took = time.monotonic() - began
        assert 0.9 <= took, f"closed after {took} s instead of 1 s"
        daemon.connection_line(peer.endpoint(sock), "idle")
    daemon.visit()


def test_half_closed_peer_that_stops_reading_is_closed_when_idle(start, model):
    """The peer has sent all its data and a FIN, and does not read the echo."""
    daemon = start(model, idle_timeout=1)
    with daemon.connect(rcvbuf=16384, sndbuf=peer.FILL_SNDBUF) as sock:
        endpoint = peer.endpoint(sock)
        peer.fill_path(sock, 0.1, may_end=True)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        daemon.connection_line(endpoint, "idle")
    daemon.visit()


def test_connection_in_use_is_not_idle(start, model):
    """Single bytes that come more often than the time-out keep it open well beyond it."""
    daemon = start(model, idle_timeout=2)
    with daemon.connect() as sock:
        for _ in range(4):
            peer.echo(sock, b".")
            time.sleep(0.8)
        peer.finish(sock)


def test_idle_timeout_zero_means_never(start, model):
    daemon = start(model, idle_timeout=0)
    with daemon.connect() as sock:
        assert peer.silent(sock, 1.5)
        peer.echo(sock, b"still here")
        peer.finish(sock)


def test_resets_at_every_stage(start, model):
    """The service continues, and each reset leads to at most one line in the log."""
    daemon = start(model)
    endpoints = []

    def abandon(sock):
        endpoints.append(peer.endpoint(sock))
        peer.reset(sock)

    for _ in range(8):
        abandon(daemon.connect())  # at once
        sock = daemon.connect()
        peer.echo(sock, b"hello")
        abandon(sock)  # after a message
        sock = daemon.connect()
        sock.sendall(peer.data(65536))
        abandon(sock)  # while the echo is being sent
        sock = daemon.connect()
        sock.shutdown(socket.SHUT_WR)
        abandon(sock)  # after a half-close
    sock = daemon.connect(rcvbuf=16384)
    peer.fill_path(sock, 0.1)
    abandon(sock)  # with all socket buffers full
    sock = daemon.connect()
    sock.sendall(peer.data(65536))
    endpoints.append(peer.endpoint(sock))
    sock.close()  # closed without reading: the client's kernel answers the echo with a RST
    daemon.visit(peer.data(65536))
    daemon.stop()
    for endpoint in endpoints:
        assert len(daemon.lines_about(endpoint)) <= 1, daemon.lines_about(endpoint)


def test_reset_is_the_reason_in_the_log(start, model):
    daemon = start(model)
    sock = daemon.connect()
    endpoint = peer.endpoint(sock)
    peer.echo(sock, b"hello")
    peer.reset(sock)
    daemon.connection_line(endpoint, "reset")


def crowd_size():
    return 100 if echod.SANITIZED else 1000


@pytest.mark.models("process", "thread", "poll", "epoll", "io_uring")
@pytest.mark.timeout(180)
def test_a_thousand_clients_at_once(start, model):
    daemon = start(model, log_connections=False)
    crowd = []
    try:
        for _ in range(crowd_size()):
            crowd.append(daemon.connect(timeout=60))
        for _ in range(2):
            for number, sock in enumerate(crowd):
                sock.sendall(b"I am number %d" % number)
            for number, sock in enumerate(crowd):
                message = b"I am number %d" % number
                assert peer.receive(sock, len(message)) == message
    finally:
        for sock in crowd:
            sock.close()
    daemon.wait_processes(2)


@pytest.mark.models("iterative", "prefork", "prethread", "select")
def test_clients_beyond_the_workers_wait_and_are_served(start, model):
    """Forty clients connect at once; each waits until the server has served the clients before it."""
    daemon = start(model, workers=1 if model == "iterative" else 3)
    crowd = [daemon.connect() for _ in range(40)]
    for number, sock in enumerate(crowd):
        sock.sendall(b"I am number %d" % number)
        sock.shutdown(socket.SHUT_WR)
    for number, sock in enumerate(crowd):
        assert peer.receive_all(sock) == b"I am number %d" % number
        sock.close()


def test_500_visits_leak_nothing(start, model):
    """No descriptor, no process, no zombie, no thread."""
    daemon = start(model, log_connections=False)
    for _ in range(30):
        daemon.visit()
    daemon.wait_processes(echod.processes(model))
    descriptors = daemon.descriptors()
    threads = sum(proc.threads(pid) for pid in daemon.workers())
    for number in range(500):
        daemon.visit(b"visit %d" % number)
    daemon.wait_processes(echod.processes(model))
    proc.until(lambda: daemon.descriptors() <= descriptors,
               lambda: f"{daemon.descriptors()} descriptors instead of {descriptors}")
    proc.until(lambda: sum(proc.threads(pid) for pid in daemon.workers()) <= threads, f"no more than {threads} threads")


def test_storm_of_connects_and_closes(start, model):
    """Bursts of connections that are closed without a byte, three hundred in all; the server echoes other clients meanwhile."""
    daemon = start(model)
    for _ in range(10):
        for sock in [daemon.connect() for _ in range(30)]:
            sock.close()
        daemon.visit()


def test_idling_takes_no_cpu(start, model):
    daemon = start(model)
    daemon.visit()
    quiet = [daemon.connect() for _ in range(1 if model == "iterative" else 3)]
    try:
        for sock in quiet:
            peer.echo(sock, b"hello")
        before = daemon.cpu()
        time.sleep(1.5)  # the length of the measurement
        used = daemon.cpu() - before
        assert used <= 0.03, f"{used} s of CPU in 1.5 s of idling"
    finally:
        for sock in quiet:
            sock.close()


def test_slow_reader_gets_everything(start, model):
    """The client has a small receive window, and pauses between reads."""
    daemon = start(model)
    message = peer.data(300000)
    with daemon.connect(rcvbuf=4096) as sock:
        writer = peer.Writer(sock, message, half_close=True)
        peer.same(peer.receive_all(sock, pause=0.002, step=4096), message)
        writer.finish()


def test_many_streams_at_once(start, model):
    """Verified streams at the same time; in the pools, as many as there are workers."""
    count = 1 if model == "iterative" else 4
    daemon = start(model)
    streams = [peer.Stream(daemon.address, seed=20 + number) for number in range(count)]
    for stream in streams:
        stream.progress(1 << 20)
    for stream in streams:
        stream.finish()
