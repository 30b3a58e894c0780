# SPDX-License-Identifier: ISC
"""UDP: each datagram socket has one reader, which keeps the order, also over reloads, and counts lost datagrams."""

import os
import signal
import socket

import pytest

import datagrams
import echod
import peer
import proc

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: SO_RCVBUFFORCE")
ipv6 = pytest.mark.skipif(not echod.have_ipv6(), reason="no IPv6 on this host")
READER = pytest.mark.models(*datagrams.READER_MODELS)


@pytest.fixture
def start_udp(start):
    return lambda model="epoll", **keys: start(model, **{"protocols": ["tcp", "udp"], "udp_rate": 0, **keys})


def reader(daemon):
    """The process that reads the only socket, once its predecessor before a reload has ended."""
    pids = []

    def only_one():
        pids[:] = datagrams.readers(daemon)
        return len(pids) == 1

    proc.until(only_one, lambda: f"one process that reads the socket, there are {pids}")
    return pids[0]


def echoes(sock, message):
    sock.send(message)
    peer.same(sock.recv(65536), message)


# One reader


def test_one_process_for_each_socket(start_udp, model):
    """Each reader has only its own socket open; the other workers have none of them."""
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    daemon = start_udp(model, listen=hosts)
    pids = datagrams.readers(daemon)
    assert len(pids) == len(hosts)
    held = [{name for name in proc.descriptors(pid).values() if name.startswith("socket:")} for pid in pids]
    mine = [{name for name in names if sum(name in other for other in held) == 1} for names in held]
    assert all(len(names) == 1 for names in mine), held
    for host in hosts:
        with datagrams.client(host, connected_to=daemon.port) as sock:
            echoes(sock, host.encode())
    datagrams.counted(daemon, received=len(hosts), echoed=len(hosts))


@pytest.mark.skipif(echod.THREAD_SANITIZED, reason="ThreadSanitizer adds threads of its own")
@pytest.mark.models(*echod.LOOPS)
def test_a_reader_is_no_worker(start_udp, model):
    daemon = start_udp(model, workers=3)
    daemon.wait_log("3 workers")
    assert len(daemon.workers()) == 2
    serving = next(pid for pid in daemon.workers() if pid not in datagrams.readers(daemon))
    assert proc.threads(serving) == 3
    assert proc.threads(reader(daemon)) == 1


def test_killed_reader_is_replaced(start_udp, model):
    daemon = start_udp(model)
    daemon.crash_expected = True
    with datagrams.client(connected_to=daemon.port) as sock, peer.connect(daemon.address) as stream:
        echoes(sock, b"before")
        first = reader(daemon)
        os.kill(first, signal.SIGKILL)
        echoes(sock, b"while there is no reader")
        assert reader(daemon) != first
        peer.echo(stream, b"connections did not notice")
        peer.finish(stream)


@pytest.mark.parametrize("blocking", [True, False])
def test_passed_socket_keeps_its_flag(start, model, blocking):
    """The flag O_NONBLOCK is common to all processes that have the socket. With and without it, each datagram is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as passed:
        passed.bind(("127.0.0.1", 0))
        os.set_blocking(passed.fileno(), blocking)
        daemon = start(model, protocols=["udp"], udp_rate=0, **echod.activated([passed]))
        result = datagrams.Flow(passed.getsockname()[1], 1000).wait()
        assert (result["sent"], result["reordered"], result["lost"], result["twice"]) == (1000, 0, 0, 0)
        assert os.get_blocking(passed.fileno()) == blocking
        daemon.stop()
        assert os.get_blocking(passed.fileno()) == blocking


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the system call of a process that is not dumpable")
def test_idle_reader_waits_without_time_limit(start_udp, model):
    """While datagrams arrive, the reader waits with a short time limit; afterwards without one, as before the first datagram."""
    daemon = start_udp(model)
    pid = reader(daemon)

    def waits():
        """The system call in which the reader sleeps, with three arguments; None: the reader runs."""
        words = proc.read(f"/proc/{pid}/syscall").split()
        return words[:4] if len(words) > 4 else None

    idle = proc.until(waits, "the reader to wait")
    assert datagrams.Flow(daemon.port, 1000).wait()["lost"] == 0
    proc.until(lambda: waits() == idle, lambda: f"the reader to wait in {idle}, but it is in {waits()}")


# Order


@READER
@pytest.mark.parametrize("interval, count", [(0, 10000), (0.00001, 5000), (0.0001, 3000), (0.001, 300)],
                         ids=["no interval", "10 us", "100 us", "1 ms"])
def test_flow_in_order(start_udp, model, interval, count):
    daemon = start_udp(model, workers=echod.default_workers(model) or (1 if model == "iterative" else 4))
    result = datagrams.Flow(daemon.port, count, interval).wait()
    assert (result["sent"], result["reordered"], result["twice"]) == (count, 0, 0)
    datagrams.counted(daemon, dropped_queue_full=result["lost"])


def test_flow_in_order_over_reloads(start_udp, model):
    daemon = start_udp(model)
    flow = datagrams.Flow(daemon.port, datagrams.ENDLESS, 0.0001)
    for turn in range(4):
        flow.more(200)
        daemon.reload(idle_timeout=100 + turn)
    daemon.reload(model="poll" if model != "poll" else "thread")
    flow.more(200)
    result = flow.end()
    assert (result["reordered"], result["lost"], result["twice"]) == (0, 0, 0)


@READER
def test_flow_in_order_over_other_addresses(start_udp, model):
    """A flow moves from one socket to another: the new one has its later datagrams, the old one may still have earlier ones."""
    daemon = start_udp(model, drain_timeout=60)  # the stopped readers are not killed
    flow = datagrams.Flow(daemon.port, datagrams.ENDLESS, 0.0001)
    for listen in (["*"], ["127.0.0.1", "127.0.0.2"], ["*"], ["127.0.0.1"]):
        flow.more(200)
        old = datagrams.readers(daemon)
        for pid in old:
            stop(pid)
        daemon.configure(listen=listen)
        daemon.hup()
        proc.until(lambda: len(datagrams.readers(daemon)) > len(old), "new readers")
        flow.send(50)  # to the new sockets
        for pid in old:
            os.kill(pid, signal.SIGCONT)
        proc.until(lambda: not set(old) & set(datagrams.readers(daemon)), "the end of the old readers")
    flow.more(200)
    result = flow.end()
    assert (result["reordered"], result["lost"], result["twice"]) == (0, 0, 0)


@READER
def test_flow_in_order_over_crashes(start_udp, model):
    """When a reader is killed, at most one batch of datagrams is lost."""
    daemon = start_udp(model)
    daemon.crash_expected = True
    flow = datagrams.Flow(daemon.port, datagrams.ENDLESS, 0.0001)
    for _ in range(2):
        flow.more(200)
        pid = reader(daemon)
        os.kill(pid, signal.SIGKILL)
        proc.until(lambda: datagrams.readers(daemon) not in ([], [pid]), "another reader")
    flow.more(200)
    result = flow.end()
    assert (result["reordered"], result["twice"]) == (0, 0)
    assert result["lost"] <= 2 * 32


# The successor waits


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    proc.until(lambda: proc.stopped(pid), "the reader to stop")


@READER
def test_successor_waits_for_its_predecessor(start_udp, model):
    """The reload is complete, but the new reader reads nothing before the old process has ended, without a time limit."""
    daemon = start_udp(model, drain_timeout=60)
    daemon.crash_expected = True
    with datagrams.client(connected_to=daemon.port) as sock:
        echoes(sock, b"the old one")
        old = reader(daemon)
        stop(old)
        daemon.reload(idle_timeout=99)
        proc.until(lambda: len(datagrams.readers(daemon)) == 2, "the old and the new reader")
        for i in range(10):
            sock.send(b"%d" % i)
        daemon.reload(idle_timeout=98)  # its reader waits for both
        proc.until(lambda: len(datagrams.readers(daemon)) == 2, "the old and the newest reader")
        assert datagrams.statistics(daemon)["datagrams_received"] == 1
        os.kill(old, signal.SIGKILL)
        assert [sock.recv(10) for _ in range(10)] == [b"%d" % i for i in range(10)]
        proc.until(lambda: len(datagrams.readers(daemon)) == 1, "one reader")


@READER
def test_old_reader_ends_its_work(start_udp, model):
    """The old reader receives the datagrams in the queue when it has to stop, its successor later ones: none is lost."""
    daemon = start_udp(model)
    with datagrams.client(connected_to=daemon.port) as sock:
        old = reader(daemon)
        stop(old)
        daemon.reload(idle_timeout=99)
        for i in range(100):
            sock.send(b"%d" % i)
        os.kill(old, signal.SIGCONT)
        assert [sock.recv(10) for _ in range(100)] == [b"%d" % i for i in range(100)]
        echoes(sock, b"the new one")
    datagrams.counted(daemon, received=101, echoed=101)


@READER
def test_old_reader_goes_on_after_a_failed_reload(start_udp, model):
    daemon = start_udp(model)
    old = reader(daemon)
    with datagrams.client(connected_to=daemon.port) as sock:
        daemon.configure(listen=["192.0.2.254"], freebind=None)
        daemon.configure(udp_rate=-1)
        daemon.hup()
        echoes(sock, b"still there")
        assert datagrams.readers(daemon) == [old]
        daemon.configure(udp_rate=0, listen=["127.0.0.1"])


@READER
def test_stop_while_a_successor_waits(start_udp, model):
    """The successor, which waits, ends at once; the old reader, which hangs, is killed."""
    daemon = start_udp(model, drain_timeout=1)
    daemon.crash_expected = True
    old = reader(daemon)
    stop(old)
    daemon.reload(idle_timeout=99)
    proc.until(lambda: len(datagrams.readers(daemon)) == 2, "the old and the new reader")
    daemon.stop()


@READER
def test_successor_reads_when_its_predecessor_crashes(start_udp, model):
    """The old reader is killed before its crew gets the stop request; its replacement and the reader of the new crew wait for
    each other's end, and one of them reads."""
    daemon = start_udp(model)
    daemon.crash_expected = True
    with datagrams.client(connected_to=daemon.port) as sock:
        for turn in range(3):
            old = reader(daemon)
            daemon.configure(idle_timeout=100 + turn)
            os.kill(old, signal.SIGKILL)
            daemon.hup()
            for i in range(10):
                echoes(sock, b"%d" % i)
            proc.until(lambda: len(datagrams.readers(daemon)) == 1, "one reader")


# Lost in a full queue


def fill(daemon, sock, count):
    """Send `count` datagrams while the reader is stopped."""
    pid = reader(daemon)
    stop(pid)
    for _ in range(count):
        sock.send(b"x" * 100)
    os.kill(pid, signal.SIGCONT)


@READER
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=ipv6)])
def test_full_queue_is_counted_exactly(start_udp, model, host, tmpdir):
    metrics = os.path.join(tmpdir, "metrics")
    daemon = start_udp(model, listen=[host], metrics_file=metrics, stats_interval=1)
    with datagrams.client(host, connected_to=daemon.port) as sock:
        fill(daemon, sock, 40000)
        found = datagrams.accounted(daemon, 40000)
        lost = found["datagrams_dropped queue_full"]
        assert 0 < lost < 40000
        # reloads do not count them again
        daemon.reload(idle_timeout=99)
        daemon.reload(idle_timeout=98)
        assert datagrams.accounted(daemon, 40000)["datagrams_dropped queue_full"] == lost
        fill(daemon, sock, 40000)
        daemon.reload(idle_timeout=97)
        found = datagrams.accounted(daemon, 80000)
    expected = f'echod_datagrams_dropped_total{{reason="queue_full"}} {found["datagrams_dropped queue_full"]}\n'
    proc.until(lambda: os.path.exists(metrics) and expected in open(metrics).read(), "the same in the metrics file")


@READER
def test_overload_is_counted_exactly(start_udp, model):
    """Two senders that never wait, one of them with a small send buffer, and a reader that is stopped at times."""
    daemon = start_udp(model)
    sent = 0
    with datagrams.client(connected_to=daemon.port) as one, datagrams.client(source="127.0.0.2", connected_to=daemon.port) as two:
        one.setblocking(False)
        two.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        two.setblocking(False)
        for turn in range(40):
            if turn in (10, 20, 30):
                pid = reader(daemon)
                stop(pid)
            for sock in (one, two):
                for _ in range(500):
                    try:
                        sent += sock.send(b"x" * 200) == 200
                    except BlockingIOError:
                        pass
            if turn in (18, 28, 38):
                os.kill(pid, signal.SIGCONT)
        datagrams.accounted(daemon, sent)


@READER
def test_history_of_a_passed_socket_is_not_counted(start, model):
    """The kernel's counter belongs to the socket, and includes losses before the start."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as passed:
        passed.bind(("127.0.0.1", 0))
        port = passed.getsockname()[1]
        with datagrams.client(connected_to=port) as sock:
            for _ in range(5000):
                sock.send(b"x" * 100)
            before = datagrams.dropped(passed)
            assert 0 < before < 5000
            daemon = start(model, protocols=["udp"], udp_rate=0, **echod.activated([passed]))
            datagrams.counted(daemon, received=5000 - before, echoed=5000 - before, dropped_queue_full=0)
            fill(daemon, sock, 40000)
            found = datagrams.accounted(daemon, 45000 - before)
            assert found["datagrams_dropped queue_full"] == datagrams.dropped(passed) - before > 0


# The receive buffer


def largest_buffer():
    """The receive buffer, as the kernel reports it, of a socket with the largest size for an unprivileged process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, (1 << 30) - 1)
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def passed_socket(family=socket.AF_INET, address=("127.0.0.1", 0)):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(address)
    return sock


def buffer_of(sock):
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_receive_buffer_is_as_large_as_allowed(start):
    with passed_socket() as passed:
        start("epoll", protocols=["udp"], **echod.activated([passed]))
        assert buffer_of(passed) >= largest_buffer()
        if os.geteuid() == 0:
            assert buffer_of(passed) >= 16 << 20


@root
def test_receive_buffer_without_privileges(start, visible):
    """The receive buffer is as large as net.core.rmem_max permits."""
    with passed_socket() as passed:
        activated = echod.activated([passed])
        activated["wrap"] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *activated["wrap"]]
        start("epoll", protocols=["udp"], program=visible, **activated)
        assert buffer_of(passed) == largest_buffer()


@root
def test_receive_buffer_is_never_made_smaller(start):
    """ReceiveBuffer= in a socket unit may be larger than echod has permission to set."""
    with passed_socket() as passed:
        passed.setsockopt(socket.SOL_SOCKET, datagrams.SO_RCVBUFFORCE, 64 << 20)
        before = buffer_of(passed)
        start("epoll", protocols=["udp"], **echod.activated([passed]))
        assert buffer_of(passed) == before >= 128 << 20
