# SPDX-License-Identifier: ISC
"""Hostile peers, in every model, and a good client that they must not disturb.

In the models iterative, prefork and prethread a worker serves one connection at a time: when hostile peers occupy all workers,
other clients wait, as documented. So the number of workers is larger here than that of the hostile peers, and the one good
client of `iterative` connects before them.
"""

import errno
import os
import resource
import select
import signal
import socket
import struct
import threading
import time

import pytest

import echod
import metrics
import netns
import peer
import proc

CROWD = 40

# The longest time, in seconds, for which a good client may wait for an echo, on a machine that is busy with other tests too.
LONGEST = 20.0


def pool(model, crowd=CROWD):
    return {"prefork": crowd + 8, "prethread": crowd + 8, "iterative": 1}.get(model, 0)


class Good(threading.Thread):
    """A client that repeatedly sends a small message, checks each byte of the echo, and records the response times."""

    def __init__(self, sock):
        super().__init__(daemon=True)
        self._sock = sock
        self._done = threading.Event()
        self._wrong = None
        self.times = []
        peer.echo(self._sock, b"here I am")
        self.start()

    def run(self):
        try:
            number = 0
            while not self._done.wait(0.005):
                message = b"%08d" % number * 8
                began = time.monotonic()
                peer.echo(self._sock, message)
                self.times.append(time.monotonic() - began)
                number += 1
        except BaseException as wrong:
            self._wrong = wrong

    def finish(self):
        """Close the connection. Returns the 99th percentile and the maximum of the response times, in seconds."""
        self._done.set()
        self.join(peer.PATIENCE)
        assert not self.is_alive(), "the good client is stuck"
        if self._wrong:
            raise self._wrong
        peer.finish(self._sock)
        times = sorted(self.times)
        assert len(times) >= 5, "the good client got too few echoes"
        worst, p99 = times[-1], times[len(times) * 99 // 100]
        assert worst < LONGEST, f"the good client waited {worst:.2f} s"
        return p99, worst


@pytest.fixture
def hold(start, model, record_property, request):
    """hold(behaviour): start a daemon and a good client, and let hostile peers act as `behaviour`(daemon) does."""
    def hold(behaviour, wait_for_all=True, **keys):
        daemon = start(model, workers=pool(model), log_connections=False, **keys)
        good = Good(daemon.connect())
        size = len(good.times) + 20
        hostile = behaviour(daemon)
        proc.until(lambda: len(good.times) >= size or not good.is_alive(), "echoes of the good client", peer.PATIENCE)
        p99, worst = good.finish()
        record_property(request.node.name, f"{len(hostile)} hostile peers held, p99 of the good client {p99 * 1000:.1f} ms, "
                        f"longest {worst * 1000:.1f} ms")
        for sock in hostile:
            peer.reset(sock)
        daemon.visit()
        if wait_for_all:
            metrics.wait_line(daemon, "the end of all connections", connections=0)
        return daemon
    return hold


def test_peers_that_send_nothing(hold):
    hold(lambda daemon: [daemon.connect() for _ in range(CROWD)])


@pytest.mark.timeout(180)
def test_thousands_that_send_nothing(hold, model):
    """More peers than max-connections: the others wait in the backlog."""
    count = 400 if echod.SANITIZED else 2000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < count + 500:
        pytest.skip(f"fewer than {count} descriptors are available")
    hold(lambda daemon: [daemon.connect() for _ in range(count)], max_connections={"process": 150, "iterative": 1}.get(model, count * 9 // 20))


def test_peers_that_send_and_never_read(hold):
    def behaviour(daemon):
        crowd = [peer.connect(daemon.address, rcvbuf=4096, sndbuf=16384) for _ in range(CROWD // 2)]
        for sock in crowd:
            sock.settimeout(0)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            for sock in select.select([], crowd, [], 0.1)[1]:
                try:
                    sock.send(peer.data(1 << 16))
                except BlockingIOError:
                    pass
        return crowd
    hold(behaviour)


def test_peers_that_send_single_bytes(hold):
    def behaviour(daemon):
        crowd = [daemon.connect() for _ in range(CROWD)]
        for number in range(5):
            for sock in crowd:
                sock.send(b"%d" % number)
            time.sleep(0.1)  # the peers are slow
        if daemon.keys["model"] != "iterative":  # which serves only the good client
            for sock in crowd:
                assert peer.receive(sock, 5) == b"01234"
        return crowd
    hold(behaviour)


def test_peers_that_reset_at_every_stage(hold, model):
    def behaviour(daemon):
        for number in range(150):
            sock = daemon.connect(sndbuf=65536)
            stage = number % 6
            if stage >= 1:
                sock.settimeout(0)
                try:
                    sock.send(peer.data(1 if stage == 1 else 60000))
                except BlockingIOError:
                    pass
                sock.settimeout(peer.PATIENCE)
            if stage == 3 and model != "iterative":
                sock.recv(1)
            if stage == 4:
                sock.shutdown(socket.SHUT_WR)
            if stage == 5:
                sock.shutdown(socket.SHUT_RDWR)
            peer.reset(sock)
        return []
    hold(behaviour)


def test_storm_of_connects_and_closes(hold):
    def behaviour(daemon):
        def storm():
            deadline = time.monotonic() + 1.0
            while time.monotonic() < deadline:
                try:
                    socket.create_connection(daemon.address, timeout=1).close()
                except OSError as error:  # no free local port, or the backlog of `iterative` is full
                    assert error.errno in (errno.EADDRNOTAVAIL, errno.ETIMEDOUT, errno.ECONNRESET, None), error
        threads = [threading.Thread(target=storm) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return []
    hold(behaviour, backlog=64)  # so that the connections left there are served before a good client times out


def test_more_than_the_backlog_holds(hold):
    """Connects in such a number that the kernel drops SYNs, which clients send again. The good client is not affected."""
    def behaviour(daemon):
        crowd = []
        for _ in range(CROWD):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(daemon.address)
            crowd.append(sock)
        return crowd
    hold(behaviour, backlog=4)


def syn(source, destination):
    """An IPv4 packet with SYN; `source`, which may be forged, and `destination` are (host, port)."""
    ends = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])

    def segment(checksum):
        return struct.pack("!HHIIBBHHH", source[1], destination[1], 1, 0, 5 << 4, 0x02, 65535, checksum, 0)
    total = sum(struct.unpack("!16H", ends + struct.pack("!HH", socket.IPPROTO_TCP, 20) + segment(0)))
    total = (total & 0xffff) + (total >> 16)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0) + ends
    return header + segment(~(total + (total >> 16)) & 0xffff)


@pytest.fixture
def hole():
    """A network namespace in which packets to some addresses are lost."""
    def prepare(hole):
        hole.setup("link", "add", "hole", "type", "veth", "peer", "name", "bottom")
        for end in ("hole", "bottom"):  # without ARP packets are sent and ignored at the other end
            hole.setup("link", "set", end, "up", "arp", "off")
        hole.setup("addr", "add", "192.0.2.1/24", "dev", "hole")
        hole.setup("route", "add", "198.51.100.0/24", "dev", "hole")
        for where in ("all", "lo", "hole"):
            hole.sysctl(f"net.ipv4.conf.{where}.rp_filter=0")
    with netns.make(prepare) as hole:
        yield hole


def test_flood_of_half_open_connections(launch, hole, model, record_property):
    """Thousands of connections are half-open: established connections are not affected, and new clients are served."""
    daemon = launch(model, listen=["192.0.2.1"], backlog=64, log_connections=False, wrap=hole.wrap())
    daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)  # the manager's socket is in another namespace
    here = ("192.0.2.1", daemon.port)
    good = Good(hole.connect("192.0.2.1", here))
    count, most = 5000, 0
    with hole.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(count):
            raw.sendto(syn((f"198.51.100.{number % 250 + 1}", 10000 + number), here), (here[0], 0))
            if number % 500 == 499:
                most = max(most, hole.tcp("03"))
                if model != "iterative":  # which serves only the good client
                    with hole.connect("192.0.2.1", here) as sock:
                        peer.echo(sock, b"in between")
                        peer.finish(sock)
    assert most > 30, f"too few half-open connections: {most}"
    p99, worst = good.finish()
    record_property(f"{model}, a flood", f"{count} half-open connections, {most} at once, p99 of the good client "
                    f"{p99 * 1000:.1f} ms, longest {worst * 1000:.1f} ms")
    metrics.wait_line(daemon, "the end of all connections", connections=0)


@pytest.mark.models("select", "poll", "epoll", "io_uring", "thread", "process")
@pytest.mark.timeout(180)
def test_all_hostile_peers_together(start, model, record_property):
    """With hostile peers of every kind, good clients are served; afterwards no connection or descriptor is left."""
    daemon = start(model, workers=2 if model in echod.LOOPS else 0, log_connections=False)
    daemon.visit()
    daemon.wait_processes(2)
    proc.until(lambda: metrics.line(daemon)["connections"] == 0, "no connection at the start")
    descriptors = daemon.descriptors()
    good, stream = Good(daemon.connect()), peer.Stream(daemon.address)
    count = 200 if model != "process" else 60
    crowd = [daemon.connect() for _ in range(count)]
    for number, sock in enumerate(crowd):
        sock.settimeout(0)
        if number % 3:
            try:
                sock.send(peer.data(1 if number % 3 == 1 else 200000))
            except BlockingIOError:
                pass
    for _ in range(10):
        peer.reset(daemon.connect())
        daemon.visit()
        stream.progress(16384)
    p99, worst = good.finish()
    stream.finish()
    for sock in crowd:
        peer.reset(sock)
    metrics.wait_line(daemon, "the end of all connections", connections=0)
    record_property(f"{model}, all at once", f"{count} hostile peers held, p99 of the good client {p99 * 1000:.1f} ms, "
                    f"longest {worst * 1000:.1f} ms")
    proc.until(lambda: daemon.descriptors() <= descriptors + 20, lambda: f"{descriptors} descriptors again, not "
               f"{daemon.descriptors()}")  # pipes for splice(2) are kept


# Memory: the formula of echod(8)

BUFFER = 65536
STRUCT = {"thread": 256 << 10, "process": 1 << 20}  # of a connection: see MEMORY
SLACK = 3 << 20  # memory of the workers themselves: scratch buffers, pools, libraries
RING = {"io_uring": 17 << 20}  # of an event loop


@pytest.mark.models("select", "poll", "epoll", "io_uring", "thread", "process")
@pytest.mark.timeout(180)
def test_memory_of_peers_that_never_read(start, model, record_property):
    if echod.SANITIZED:
        pytest.skip("sanitizers keep memory that was freed")
    count = 150 if model != "process" else 30
    daemon = start(model, buffer_size=BUFFER, workers=1 if model in echod.LOOPS else 0, log_connections=False)
    daemon.visit(peer.data(300000))
    daemon.wait_processes(2)
    before = daemon.memory()
    crowd = [peer.connect(daemon.address, rcvbuf=4096, sndbuf=65536) for _ in range(count)]
    for sock in crowd:
        sock.settimeout(0)
    last = time.monotonic()
    while time.monotonic() - last < 0.5:  # until no peer could send for 0.5 s
        for sock in select.select([], crowd, [], 0.1)[1]:
            try:
                sock.send(peer.data(1 << 18))
                last = time.monotonic()
            except BlockingIOError:
                pass
    grown = daemon.memory() - before
    most = count * (STRUCT.get(model, 128) + BUFFER) + RING.get(model, 0) + SLACK
    record_property(f"{model}, memory", f"{grown} bytes for {count} peers that never read; the formula allows {most}")
    assert grown <= most, f"{grown} bytes for {count} peers instead of {most} at most"
    for sock in crowd:
        peer.reset(sock)
    metrics.wait_line(daemon, "the end of all connections", connections=0)


@pytest.mark.models("select", "poll", "epoll", "io_uring")
@pytest.mark.timeout(180)
def test_memory_of_idle_connections(start, model, record_property):
    """A connection without unsent data uses only its struct, also after large messages were echoed."""
    if echod.SANITIZED:
        pytest.skip("sanitizers keep memory that was freed")
    count = 800 if model == "select" else 4000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < count + 200:
        pytest.skip(f"fewer than {count} descriptors are available")
    daemon = start(model, workers=1, log_connections=False)
    daemon.visit(peer.data(300000))
    metrics.wait_line(daemon, "the end of the connection", connections=0)
    crowd = [daemon.connect() for _ in range(count // 2)]  # the workers allocate their pools
    for sock in crowd:
        peer.echo(sock, b"hello")
    for sock in crowd[:300]:  # so that all buffers that are used in turn have been used
        peer.echo(sock, peer.data(300000))
    before = daemon.memory()
    crowd += [daemon.connect() for _ in range(count // 2)]
    for sock in crowd[count // 2:]:
        peer.echo(sock, b"hello")
    for sock in crowd[-50:]:
        peer.echo(sock, peer.data(300000))
    grown = daemon.memory() - before
    record_property(f"{model}, memory", f"{grown / (count // 2):.0f} bytes for each of {count // 2} idle connections")
    assert grown <= count // 2 * 128 + (512 << 10), f"{grown} bytes for {count // 2} idle connections"
    for sock in crowd:
        peer.reset(sock)
    metrics.wait_line(daemon, "the end of all connections", connections=0)


# Urgent data

def bulk(sock, rounds=2, size=1 << 16):
    """Send large messages, so that the daemon changes to splice(2) for this connection."""
    for _ in range(rounds):
        peer.echo(sock, peer.data(size))


def urgent_positions():
    """The number of bytes before and after the urgent byte."""
    return [(0, 0), (0, 1), (1, 0), (1, 1), (1000, 1000), (65536, 1), (65536, 0), (300000, 300000)]


@pytest.mark.parametrize("before, after", urgent_positions())
def test_urgent_byte_is_echoed_in_place(start, model, before, after):
    daemon = start(model)
    with daemon.connect() as sock:
        bulk(sock)
        message = peer.data(before, 2) + b"U" + peer.data(after, 3)
        stream = threading.Thread(target=lambda: (sock.sendall(message[:before]), sock.send(b"U", socket.MSG_OOB),
                                                  sock.sendall(message[before + 1:])))
        stream.start()
        peer.same(peer.receive(sock, len(message)), message)
        stream.join(peer.PATIENCE)
        bulk(sock)
        peer.finish(sock)


def test_many_urgent_bytes(start, model):
    """Each urgent byte moves the urgent mark. No byte is lost, and the stream continues, also after a reload."""
    daemon = start(model)
    with daemon.connect() as sock:
        for number in range(200):
            sock.send(b"%d" % (number % 10), socket.MSG_OOB)
            if number % 7 == 0:
                sock.sendall(b"in between")
        sent = b"".join(b"%d" % (number % 10) + (b"in between" if number % 7 == 0 else b"") for number in range(200))
        peer.same(peer.receive(sock, len(sent)), sent)
        daemon.reload()
        sock.send(b"!", socket.MSG_OOB)
        peer.same(peer.receive(sock, 1), b"!")
        bulk(sock)
        peer.finish(sock)


def test_urgent_data_right_before_the_end(start, model):
    """The stream is echoed to its end, although splice(2) reports the end of file if urgent data are next and FIN has arrived."""
    daemon = start(model)
    message, processes = peer.data(200000), len(daemon.tree())
    for before in 1000, 20000, 60000:
        with daemon.connect() as sock:
            peer.echo(sock, message)
            workers = [stat.pid for stat in daemon.tree()[1:]]
            try:
                for pid in workers:
                    os.kill(pid, signal.SIGSTOP)
                sock.sendall(message[:before])
                sock.send(b"U", socket.MSG_OOB)
                sock.sendall(b"behind it")
                sock.shutdown(socket.SHUT_WR)
            finally:
                for pid in workers:
                    os.kill(pid, signal.SIGCONT)
            assert peer.receive_all(sock) == message[:before] + b"Ubehind it"
        daemon.wait_processes(processes)  # the process of this connection has ended


def test_urgent_byte_of_a_unix_client(start, model, tmpdir):
    """MSG_OOB of a unix socket (Linux 5.15) is an urgent byte as well."""
    path = f"{tmpdir}/echo"
    start(model, listen=[f"unix:{path}"])
    with peer.connect(path) as sock:
        bulk(sock)
        try:
            sock.send(b"U", socket.MSG_OOB)
        except OSError as error:
            pytest.skip(f"unix sockets have no urgent data on this kernel: {error}")
        peer.same(peer.receive(sock, 1), b"U")
        bulk(sock)
        peer.finish(sock)


def test_urgent_byte_before_an_activated_start(launch, model):
    """A connection that waited in the backlog of a socket unit has the options of that socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener, peer.connect(listener.getsockname()) as sock:
        sock.sendall(b"early")
        sock.send(b"U", socket.MSG_OOB)
        sock.sendall(b"late")
        launch(model, listen=None, port=None, **echod.activated([listener])).wait_ready()
        peer.same(peer.receive(sock, 10), b"earlyUlate")
        bulk(sock)
        peer.finish(sock)


def test_time_stamps_of_an_adopted_socket(launch, model):
    """Socket options that were set before the daemon got the listener must not fill the error queue of its connections, which the
    daemon does not read."""
    SO_TIMESTAMPING, TX_SCHED, SOFTWARE = 37, 1 << 8, 1 << 4
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TX_SCHED | 1 << 1 | SOFTWARE)
        with peer.connect(listener.getsockname()) as early:
            daemon = launch(model, listen=None, port=None, **echod.activated([listener])).wait_ready()
            peer.echo(early, b"early")
            if model != "iterative":
                with peer.connect(listener.getsockname()) as sock:
                    bulk(sock)
            for number in range(100):
                peer.echo(early, b"%d" % number)
            assert metrics.line(daemon).get("idle_wakeups", 0) == 0
