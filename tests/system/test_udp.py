# SPDX-License-Identifier: ISC
"""UDP: which datagrams are answered, from which address, up to which rate, and which never are."""

import ctypes
import fcntl
import os
import re
import secrets
import select
import socket
import struct
import subprocess
import threading
import time

import pytest

import datagrams
import echod
import peer
import proc
from datagrams import LARGEST, client, counted, statistics

UDP_SEGMENT = 103
SIOCGIFINDEX = 0x8933

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: low source ports, forged sources, network namespaces")
ipv6 = pytest.mark.skipif(not echod.have_ipv6(), reason="no IPv6 on this host")
READER = pytest.mark.models(*datagrams.READER_MODELS)


@pytest.fixture
def start_udp(start):
    return lambda model="epoll", **keys: start(model, **{"protocols": ["tcp", "udp"], **keys})


def echoes(sock, message):
    sock.send(message)
    peer.same(sock.recv(65536), message)


def nothing_waits(*socks):
    """Whether the sockets have nothing to receive. On the loopback interface, datagrams arrive before the send returns."""
    return not select.select(socks, [], [], 0)[0]


def forge(source, destination, payload, ttl=64):
    """Send a datagram with a forged source, over IPv4 and the loopback interface; `source` and `destination`: (host, port)."""
    udp = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, ttl, socket.IPPROTO_UDP, 0,
                         socket.inet_aton(source[0]), socket.inet_aton(destination[0]))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(header + udp, (destination[0], 0))


# Complete answers, from the address that the client sent to


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=ipv6)])
def test_every_size_comes_back_whole(start_udp, model, host):
    daemon = start_udp(model, listen=[host])
    sizes = (0, 1, 2, 511, 1472, 1473, 8192, 9000, 32768, LARGEST - 1, LARGEST)
    with client(host, connected_to=daemon.port) as sock:
        for size in sizes:
            echoes(sock, peer.data(size))
        counted(daemon, received=len(sizes), echoed=len(sizes))
        proc.until(lambda: statistics(daemon)["datagram_echoed_bytes"] == sum(sizes), lambda: f"{sum(sizes)} bytes: {statistics(daemon)}")
        assert nothing_waits(sock)


@READER
def test_many_at_once(start_udp, model):
    """Datagrams of many sizes from several clients, at most as many at once as fit into the socket's queue."""
    daemon = start_udp(model, udp_rate=0)
    socks = [client(source=f"127.0.0.{i + 1}", connected_to=daemon.port) for i in range(4)]
    for turn in range(20):
        sent = [[peer.data((turn * 7 + i * 131) % 1400, seed=n + 1) for i in range(25)] for n in range(len(socks))]
        for messages in zip(*sent):
            for sock, message in zip(socks, messages):
                sock.send(message)
        for sock, messages in zip(socks, sent):
            assert [sock.recv(65536) for _ in messages] == messages
    counted(daemon, received=2000, echoed=2000)
    assert nothing_waits(*socks)


def test_beside_tcp(start_udp, model):
    daemon = start_udp(model)
    with peer.connect(daemon.address) as stream, client(connected_to=daemon.port) as sock:
        for _ in range(20):
            peer.echo(stream, b"stream")
            echoes(sock, b"datagram")
        peer.finish(stream)


def test_off_by_default(start, model):
    daemon = start(model)
    daemon.visit()
    with client(connected_to=daemon.port) as sock:
        sock.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)


def test_without_tcp(start_udp, model):
    daemon = start_udp(model, protocols=["udp"])
    with client(connected_to=daemon.port) as sock:
        echoes(sock, b"hello")
    assert peer.refused(daemon.address)


@READER
def test_answers_from_the_address_contacted(start_udp, model):
    """The client's socket is connected: it receives only datagrams from the address that it sends to."""
    daemon = start_udp(model, listen=["*"])
    hosts = ["127.0.0.1", "127.0.0.2", "127.1.2.3"] + (["::1"] if echod.have_ipv6() else [])
    for host in hosts:
        with client(host, connected_to=daemon.port) as sock:
            echoes(sock, host.encode())
    counted(daemon, received=len(hosts), echoed=len(hosts))


@READER
def test_segments_come_back_as_sent(start_udp, model):
    daemon = start_udp(model)
    message = peer.data(40 * 1000 + 300)
    with client(connected_to=daemon.port) as sock:
        segment = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1000))
        try:
            sock.sendmsg([message], [segment])
        except OSError as error:
            pytest.skip(f"the kernel has no UDP_SEGMENT: {error}")
        for at in range(0, len(message), 1000):
            peer.same(sock.recv(65536), message[at:at + 1000])
        assert nothing_waits(sock)
    counted(daemon, received=41, echoed=41)


# DSCP


def class_of_answer(sock, traffic_class):
    """Send a datagram with this TOS octet or traffic class; returns that of the answer."""
    level, option, receive = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS) \
        if sock.family == socket.AF_INET6 else (socket.IPPROTO_IP, socket.IP_TOS, 13)
    sock.setsockopt(level, receive, 1)
    sock.setsockopt(level, option, traffic_class)
    sock.send(b"class")
    message, ancillary, _, _ = sock.recvmsg(100, 100)
    assert message == b"class"
    return int.from_bytes(ancillary[0][2], "little")


@READER
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=ipv6)])
def test_dscp_is_reflected_when_asked_for(start_udp, model, host):
    """Answers have the upper six bits of each value; the lower two are ECN. A reload switches it on and off."""
    daemon = start_udp(model, listen=[host])

    def reload(**keys):
        """Wait for the old workers: until the reader of the old crew has ended, it may still answer a datagram."""
        old = daemon.workers()
        daemon.reload(**keys)
        proc.until(lambda: not any(map(proc.alive, old)), "the old workers have ended", 30)

    with client(host, connected_to=daemon.port) as sock:
        assert class_of_answer(sock, 0xB8) == 0
        reload(reflect_dscp=True)
        for value in range(0, 256, 3):
            assert class_of_answer(sock, value) == value & 0xFC
        reload(reflect_dscp=False)
        assert class_of_answer(sock, 0xB8) == 0


@READER
@ipv6
def test_dscp_on_a_socket_for_both_families(start, model):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as passed:
        passed.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        passed.bind(("::", 0))
        start(model, protocols=["udp"], reflect_dscp=True, **echod.activated([passed]))
        for host in ("127.0.0.2", "::1"):
            with client(host, connected_to=passed.getsockname()[1]) as sock:
                assert [class_of_answer(sock, value) for value in (0xB8, 0, 0xFF)] == [0xB8, 0, 0xFC]


# Sockets passed by the service manager


@READER
@ipv6
def test_activated_for_both_families(start, model):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as passed:
        passed.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        passed.bind(("::", 0))
        port = passed.getsockname()[1]
        with client("127.0.0.2", connected_to=port) as early:
            early.send(b"the one that wakes it")  # waits in the queue
            daemon = start(model, protocols=["udp"], **echod.activated([passed]))
            assert early.recv(100) == b"the one that wakes it"
            for host in ("127.0.0.2", "127.0.0.3", "::1"):
                with client(host, connected_to=port) as sock:
                    echoes(sock, peer.data(LARGEST))
        counted(daemon, received=4, echoed=4)


@READER
def test_activated_unix_datagrams(start, model, tmpdir):
    path = os.path.join(tmpdir, "datagrams")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as passed:
        passed.bind(path)
        daemon = start(model, protocols=["udp"], **echod.activated([passed]))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named, \
             socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unnamed:
            named.bind(os.path.join(tmpdir, "client"))
            named.settimeout(peer.PATIENCE)
            for size in (0, 1, 65000):
                named.sendto(peer.data(size), path)
                assert named.recvfrom(65536) == (peer.data(size), path)
            unnamed.sendto(b"whom to answer?", path)
            counted(daemon, received=4, echoed=3, dropped_not_unicast=1)


# Datagrams that are not answered


@READER
def test_drops_for_every_reason(start_udp, model, tmpdir):
    """Reasons that need no privileges to test: own port, deny, few hops; valid datagrams in between are answered."""
    metrics = os.path.join(tmpdir, "metrics")
    daemon = start_udp(model, deny=["127.0.0.66"], metrics_file=metrics, stats_interval=1)
    good, denied = client(connected_to=daemon.port), client(source="127.0.0.66", connected_to=daemon.port)
    own = client(source="127.0.0.7", port=daemon.port, connected_to=daemon.port)
    tired = client(connected_to=daemon.port)
    tired.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 8)
    for i in range(50):
        for sock in (denied, own, tired):
            sock.send(b"x")
        good.send(b"%d" % i)
        if i % 10 == 9:  # so that the queue never overflows
            assert sorted(good.recv(10) for _ in range(10)) == sorted(b"%d" % n for n in range(i - 9, i + 1))
    counted(daemon, received=200, echoed=50, dropped_denied=50, dropped_own_port=50, dropped_loop=50)
    assert nothing_waits(good, denied, own, tired)

    def written():
        text = open(metrics).read() if os.path.exists(metrics) else ""
        return all(f'echod_datagrams_dropped_total{{reason="{reason}"}} 50\n' in text
                   for reason in ("denied", "own_port", "loop"))
    proc.until(written, "the same in the metrics file")


@READER
def test_allow_holds(start_udp, model):
    daemon = start_udp(model, allow=["127.0.1.0/24"])
    with client(connected_to=daemon.port) as stranger, \
         client(source="127.0.1.9", connected_to=daemon.port) as friend:
        stranger.send(b"x")
        echoes(friend, b"y")
        counted(daemon, received=2, echoed=1, dropped_denied=1)
        assert nothing_waits(stranger)


@READER
@root
def test_low_source_ports(start_udp, model):
    """Datagrams from low ports are not answered, except from a network in udp-trusted."""
    daemon = start_udp(model, udp_trusted=["127.88.0.0/16"])
    other = secrets.randbelow(200) + 1  # from here on other tests may use the same ports
    refused, answered = 0, 0
    for port in (1, 7, 13, 19, 53, 1023, 2049):
        with client(source=f"127.77.{other}.1", port=port, connected_to=daemon.port) as sock:
            sock.send(b"x")
            refused += 1
            counted(daemon, dropped_low_port=refused)
            assert nothing_waits(sock)
        with client(source=f"127.88.{other}.1", port=port, connected_to=daemon.port) as sock:
            echoes(sock, b"trusted")
            answered += 1
    for port in (1024, 2048, 2050):
        with client(source=f"127.77.{other}.1", port=port, connected_to=daemon.port) as sock:
            echoes(sock, b"high enough")
            answered += 1
    counted(daemon, received=refused + answered, echoed=answered, dropped_low_port=refused)
    told = [line for line in daemon.log().splitlines() if "Dropped datagram" in line]
    assert len(told) == 1 and f"127.77.{other}.1:1: " in told[0] and "udp-trusted" in told[0], told


@READER
@root
def test_own_address_forged(start_udp, model):
    daemon = start_udp(model)
    forge(daemon.address, daemon.address, b"to myself, from myself")
    counted(daemon, received=1, echoed=0, dropped_own_address=1)


def answered_or_dropped(daemon, number):
    """The statistics, once `number` datagrams were answered or dropped because of the rate, which is later than "received"."""
    def complete():
        found = statistics(daemon)
        return found.get("datagrams_echoed", 0) + found.get("datagrams_dropped rate", 0) == number and found
    return proc.until(complete, lambda: f"{number} answered or dropped: {statistics(daemon)}")


@READER
def test_rate(start_udp, model):
    """The elapsed time limits the number of answers, in the sum over all workers."""
    rate, burst, step = 100, 1000, 40
    daemon = start_udp(model, udp_rate=rate)
    socks = [client(source=f"127.0.0.{i + 1}", connected_to=daemon.port) for i in range(8)]
    began = time.monotonic()
    for sent in range(step, burst + 1, step):
        for i in range(step):
            socks[i % len(socks)].send(b"x")
        counted(daemon, received=sent)  # none was lost in the socket's queue
    found = answered_or_dropped(daemon, burst)
    took = time.monotonic() - began
    assert rate <= found["datagrams_echoed"] <= rate + rate * took + 1
    if took < 5:
        assert found.get("datagrams_dropped rate", 0) > 0
    back = 0
    while ready := select.select(socks, [], [], 0)[0]:
        for sock in ready:
            assert sock.recv(10) == b"x"
            back += 1
    assert back == found["datagrams_echoed"]


def test_rate_is_separate_for_each_network(start_udp):
    daemon = start_udp(udp_rate=5)
    for i in range(1, 4):
        socks = [client(source=f"127.7.{i}.{n}", connected_to=daemon.port) for n in (1, 2)]
        for sock in socks:
            for _ in range(4):
                sock.send(b"x")
        counted(daemon, received=8 * i)
    assert answered_or_dropped(daemon, 24)["datagrams_echoed"] >= 15


def test_no_rate(start_udp):
    daemon = start_udp(udp_rate=0)
    with client(connected_to=daemon.port) as sock:
        for _ in range(3000):
            echoes(sock, b"x")
    counted(daemon, received=3000, echoed=3000)


def test_a_flood_from_one_source_leaves_log_lines_to_others(start_udp):
    """Each hash of a source network has its own limit; of eight other networks, at least one has another hash."""
    daemon = start_udp(deny=["127.0.0.0/8"])
    with client(connected_to=daemon.port) as flood:
        for _ in range(300):
            flood.send(b"x")
    total = 300
    for i in range(1, 9):
        with client(source=f"127.8.{i}.1", connected_to=daemon.port) as sock:
            sock.send(b"x")
            total += 1
    counted(daemon, received=total, dropped_denied=total)
    daemon.stop()  # all lines are written
    lines = [line for line in daemon.log().splitlines() if "Dropped datagram" in line]
    assert sum("127.0.0.1:" in line for line in lines) == 1
    assert 1 <= sum("127.8." in line for line in lines) <= 8


# Loops


def all_counted(daemons):
    """The sums of the statistics of several daemons."""
    total = {}
    for daemon in daemons:
        for name, value in statistics(daemon).items():
            total[name] = total.get(name, 0) + value if isinstance(value, int) else 0
    return total


def end_of_loop(daemons):
    """Wait until the one datagram in the loop was dropped. Returns how often it was answered."""
    def ended():
        if all_counted(daemons).get("datagrams_dropped loop") != 1:
            return None
        # from now on nothing is received; an answer is counted once it was sent
        total = all_counted(daemons)
        return total["datagrams_received"] == total.get("datagrams_echoed", 0) + 1 and total
    return proc.until(ended, lambda: f"the end of the loop: {all_counted(daemons)}").get("datagrams_echoed", 0)


@READER
@root
@pytest.mark.parametrize("ttl", [1, 9, 64, 255])
def test_two_on_different_high_ports_end_their_loop_soon(start_udp, model, ttl):
    """Neither daemon knows the other's port; only the low number of remaining hops shows that the sender is not a client."""
    daemons = [start_udp(model), start_udp(model, listen=["127.0.0.2"])]
    forge(("127.0.0.2", daemons[1].port), daemons[0].address, b"round and round", ttl)
    assert end_of_loop(daemons) == {1: 0, 9: 1, 64: 7, 255: 7}[ttl]
    with client(connected_to=daemons[0].port) as sock:
        echoes(sock, b"still there for others")


@READER
@root
def test_a_flood_of_loops_ends(start_udp, model):
    daemons = [start_udp(model), start_udp("epoll", listen=["127.0.0.2"])]
    for i in range(100):
        forge(("127.0.0.2", daemons[1].port), daemons[0].address, b"%d" % i, 255)

    def quiet():
        """No datagram is in the loop any more; some may have been lost in a full queue, which also ends their loops."""
        total = all_counted(daemons)
        return total == all_counted(daemons) and total.get("datagrams_dropped loop", 0) > 0 and total
    total = proc.until(quiet, lambda: f"an end: {all_counted(daemons)}")
    assert 0 < total["datagrams_echoed"] <= 700


@READER
@root
def test_two_on_the_same_port_end_their_loop_at_once(start_udp, model):
    port = echod.free_port()
    daemons = [start_udp(model, port=port), start_udp(model, port=port, listen=["127.0.0.2"])]
    forge(("127.0.0.2", port), ("127.0.0.1", port), b"round and round", 255)
    counted(daemons[0], received=1, echoed=0, dropped_own_port=1)
    counted(daemons[1], received=0, echoed=0)


class Parrot(threading.Thread):
    """An echo service without protection against loops."""

    def __init__(self):
        super().__init__(daemon=True)
        self.sock = client()
        self.sock.settimeout(0.2)
        self.address = self.sock.getsockname()
        self.done = threading.Event()

    def run(self):
        while not self.done.is_set():
            try:
                message, source = self.sock.recvfrom(65536)
                self.sock.sendto(message, source)
            except TimeoutError:
                pass

    def close(self):
        self.done.set()
        self.join(peer.PATIENCE)
        self.sock.close()


@READER
@root
def test_the_rate_ends_a_loop_with_others(start_udp, model):
    """The answers of another service have their full number of hops again; the loop ends at the first one beyond the rate."""
    daemon, parrot = start_udp(model, udp_rate=20), Parrot()
    parrot.start()
    began = time.monotonic()
    try:
        forge(parrot.address, daemon.address, b"round and round", 64)
        found = counted(daemon, dropped_rate=1)
        took = time.monotonic() - began
        assert 20 <= found["datagrams_echoed"] <= 20 + 20 * took + 1
    finally:
        parrot.close()
    assert statistics(daemon)["datagrams_received"] == found["datagrams_received"], "the loop continued"


# Reloads and the stop


def test_reload_loses_no_datagram(start_udp, model):
    """The new crew uses the same socket, which stays open."""
    daemon = start_udp(model, udp_rate=1000000)
    stop, wrong, count = threading.Event(), [], [0]

    def ask():
        try:
            with client(connected_to=daemon.port) as sock:
                while not stop.is_set():
                    echoes(sock, b"%d" % count[0])
                    count[0] += 1
        except BaseException as error:  # raised again below
            wrong.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    for _ in range(2):
        before = count[0]
        proc.until(lambda: count[0] > before + 50 or wrong, "echoes")
        daemon.reload(udp_rate=1000000 + before)
    daemon.reload(model="poll" if model != "poll" else "thread")
    before = count[0]
    proc.until(lambda: count[0] > before + 50 or wrong, "echoes after the last reload")
    stop.set()
    thread.join(peer.PATIENCE)
    assert not thread.is_alive() and not wrong, wrong


def test_reload_turns_it_on_and_off(start, model):
    daemon = start(model, keep_connections=False)  # the test's descriptor store never closes a descriptor
    daemon.reload(protocols=["tcp", "udp"])
    with client(connected_to=daemon.port) as sock:
        echoes(sock, b"on")
    daemon.reload(protocols=["tcp"])

    def refused():
        with client(connected_to=daemon.port, timeout=0.2) as sock:
            sock.send(b"off?")
            try:
                sock.recv(10)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                pass
            return False
    proc.until(refused, "the socket is closed")


def test_rate_holds_over_a_reload(start_udp):
    daemon = start_udp(udp_rate=30)
    began = time.monotonic()
    with client(connected_to=daemon.port) as sock:
        for turn in range(1, 4):
            for _ in range(60):
                sock.send(b"x")
            counted(daemon, received=60 * turn)
            daemon.reload(idle_timeout=turn * 100)
    found = statistics(daemon)
    assert 30 <= found["datagrams_echoed"] <= 30 + 30 * (time.monotonic() - began) + 1


def test_a_flood_does_not_delay_streams_or_the_stop(start_udp, model):
    daemon = start_udp(model, udp_rate=0)
    done = threading.Event()

    def flood():
        with client(connected_to=daemon.port) as sock:
            sock.settimeout(0)
            while not done.is_set():
                try:
                    sock.send(b"flood")
                except (BlockingIOError, ConnectionRefusedError):
                    pass

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        with peer.connect(daemon.address) as stream:
            for _ in range(50):
                peer.echo(stream, b"through the flood")
            peer.finish(stream)
        daemon.stop()
    finally:
        done.set()
        thread.join(peer.PATIENCE)


# In separate network namespaces


class Network:
    """Two hosts connected by a virtual wire: network namespaces `inside`, where the daemon runs, and `outside`."""

    CLONE_NEWNET = 0x40000000

    def __init__(self):
        token = secrets.token_hex(4)
        self.names = {where: f"echod-{where}-{token}" for where in ("inside", "outside")}
        self.ip("netns", "add", self.names["inside"])
        self.ip("netns", "add", self.names["outside"])
        self.ip("link", "add", "wire", "netns", self.names["inside"], "type", "veth",
                "peer", "name", "wire", "netns", self.names["outside"])
        for number, where in ((1, "inside"), (2, "outside")):
            self.ip("-n", self.names[where], "link", "set", "lo", "up")
            self.ip("-n", self.names[where], "link", "set", "wire", "up")
            self.ip("-n", self.names[where], "addr", "add", f"192.0.2.{number}/24", "brd", "+", "dev", "wire")
            if echod.have_ipv6():
                self.ip("-n", self.names[where], "addr", "add", f"2001:db8::{number}/64", "dev", "wire", "nodad")
        self.ip("-n", self.names["inside"], "addr", "add", "192.0.2.9/24", "dev", "wire")
        self.ip("-n", self.names["inside"], "addr", "add", "198.51.100.1/32", "dev", "lo")
        self.ip("-n", self.names["outside"], "route", "add", "198.51.100.1/32", "via", "192.0.2.1")

    @staticmethod
    def ip(*args):
        subprocess.run(["ip", *args], check=True, timeout=20, capture_output=True)

    def close(self):
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], timeout=20, capture_output=True)

    def sysctl(self, where, setting):
        self.run(where, "sysctl", "-qw", setting)

    def run(self, where, *args):
        self.ip("netns", "exec", self.names[where], *args)

    def socket(self, where, family=socket.AF_INET, kind=socket.SOCK_DGRAM, protocol=0):
        """A socket in a namespace: it belongs to the namespace in which its thread was when it created the socket."""
        made = []

        def make():
            libc = ctypes.CDLL(None, use_errno=True)
            fd = os.open(f"/run/netns/{self.names[where]}", os.O_RDONLY)
            if libc.setns(fd, self.CLONE_NEWNET) == 0:
                made.append(socket.socket(family, kind, protocol))
            os.close(fd)
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        assert made, "setns failed"
        made[0].settimeout(peer.PATIENCE)
        return made[0]

    def index(self, where):
        """The index of the wire's interface."""
        with self.socket(where) as sock:
            request = fcntl.ioctl(sock, SIOCGIFINDEX, struct.pack("=16sI12x", b"wire", 0))
            return struct.unpack("=16sI12x", request)[1]

    def wrap(self):
        return ["ip", "netns", "exec", self.names["inside"]]


@pytest.fixture
def network():
    network = None
    try:
        network = Network.__new__(Network)
        network.names = {}
        network.__init__()
    except (OSError, subprocess.CalledProcessError) as error:
        network.close()
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', None) or error}")
    yield network
    network.close()


@pytest.fixture
def start_inside(launch, network):
    """Wait by the log, because the manager's abstract socket is in another network namespace."""
    def start_inside(model, **keys):
        daemon = launch(model, **{"protocols": ["udp"], "listen": ["*"], "wrap": network.wrap(), **keys})
        daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)
        return daemon
    return start_inside


@READER
@root
def test_from_each_address_over_a_wire(start_inside, network, model):
    daemon = start_inside(model)
    hosts = ["192.0.2.1", "192.0.2.9", "198.51.100.1"] + (["2001:db8::1"] if echod.have_ipv6() else [])
    for where in ("outside", "inside"):
        for host in hosts:
            with network.socket(where, socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
                sock.connect((host, daemon.port))
                for size in (0, 1, 1472, 1473, LARGEST):
                    echoes(sock, peer.data(size))
    counted(daemon, echoed=2 * 5 * len(hosts))


@READER
@root
@ipv6
def test_link_local_over_a_wire(start_inside, network, model):
    daemon = start_inside(model)
    listed = subprocess.run(["ip", "-n", network.names["inside"], "-6", "addr", "show", "dev", "wire", "scope", "link"],
                            check=True, timeout=20, capture_output=True, text=True).stdout
    address = re.search(r"inet6 (fe80::[0-9a-f:]+)", listed).group(1)
    scope = network.index("outside")

    def answered():  # once duplicate address detection is over, on both sides
        with network.socket("outside", socket.AF_INET6) as sock:
            try:
                sock.connect((address, daemon.port, 0, scope))
                sock.settimeout(0.3)
                echoes(sock, peer.data(LARGEST))
                return True
            except OSError:
                return False
    proc.until(answered, "an answer from the link-local address")


@READER
@root
def test_segments_over_a_wire(start_inside, network, model):
    daemon = start_inside(model)
    message = peer.data(30 * 1400 + 77)
    with network.socket("outside") as sock:
        sock.connect(("192.0.2.9", daemon.port))
        sock.sendmsg([message], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1400))])
        for at in range(0, len(message), 1400):
            peer.same(sock.recv(65536), message[at:at + 1400])
    counted(daemon, received=31, echoed=31)


@READER
@root
def test_no_answer_to_broadcast_or_multicast(start_inside, network, model):
    daemon = start_inside(model)
    with network.socket("outside") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(("192.0.2.2", 0))
        for count, host in enumerate(("192.0.2.255", "192.0.2.255", "224.0.0.1"), 1):
            sock.sendto(b"everybody", (host, daemon.port))
            counted(daemon, received=count, echoed=0, dropped_not_unicast=count)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wire\0")
        sock.sendto(b"everybody", ("255.255.255.255", daemon.port))
        counted(daemon, received=4, echoed=0, dropped_not_unicast=4)
        assert nothing_waits(sock)
    if echod.have_ipv6():
        with network.socket("outside", socket.AF_INET6) as sock:
            sock.bind(("2001:db8::2", 0))
            sock.sendto(b"everybody", ("ff02::1", daemon.port, 0, network.index("outside")))
            counted(daemon, received=5, echoed=0, dropped_not_unicast=5)


@READER
@root
def test_no_answer_to_loopback_from_outside(start_inside, network, model):
    """Such a packet is not answered even if the host's sysctls permit it."""
    daemon = start_inside(model)
    for setting in ("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.wire.rp_filter=0",
                    "net.ipv4.conf.wire.route_localnet=1", "net.ipv4.conf.wire.accept_local=1"):
        network.sysctl("inside", setting)
        network.sysctl("outside", setting)
    payload = b"from 127.0.0.1, says it"
    udp = struct.pack("!HHHH", 40000, daemon.port, 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0,
                         socket.inet_aton("127.0.0.1"), socket.inet_aton("192.0.2.1"))
    with network.socket("outside", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(header + udp, ("192.0.2.1", 0))
    counted(daemon, received=1, echoed=0, dropped_not_unicast=1)
