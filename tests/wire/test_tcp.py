# SPDX-License-Identifier: ISC
"""Segments in any order and at any time: the stream is echoed unchanged, and the connection ends for the right reason."""

import os
import signal

import pytest

import echod
import peer
import proc
from wire import ACK, FIN, PSH, SYN, URG

DATA = peer.data(6000)
ROUTER = {4: "10.66.200.1", 6: "fd66::c8:1"}

# For scenarios that differ only in the kernel: the daemon's calls return the same for them.
segments_only = pytest.mark.models("iterative", "process", "thread", "epoll", "io_uring")


def check_echo(scene, host, data=DATA):
    """The host has sent `data`; it ends the connection."""
    host.wait_stream(data)
    host.send_fin()
    host.wait_fin(data)
    host.wait_acked()
    scene.ended(host, "eof", len(data))


# Order of segments

@segments_only
def test_reordered_segments(scene):
    scene = scene()
    for order in ([4, 3, 2, 1, 0], [1, 0, 3, 2, 4], [0, 4, 1, 3, 2], [2, 4, 0, 1, 3]):
        host = scene.connect()
        for piece in order:
            host.put(DATA[piece * 1200:piece * 1200 + 1200], at=piece * 1200)
        scene.others()
        check_echo(scene, host)


@segments_only
def test_duplicated_segments(scene):
    """Each segment twice, then all of them once more, before and after their echoes were acknowledged."""
    scene = scene()
    host = scene.connect()
    for again in (1, 1, 2):
        for piece in range(5):
            for _ in range(again):
                host.put(DATA[piece * 1200:piece * 1200 + 1200], at=piece * 1200)
        scene.others()
        host.wait_stream(DATA)
    check_echo(scene, host)


@segments_only
def test_overlapping_segments(scene):
    """Retransmissions with other boundaries, to the left, to the right, inside and around."""
    scene = scene()
    for first in (0, 700):  # with 700 the kernel keeps the segments until the first bytes arrive
        host = scene.connect()
        for start, end in ((first, 1400), (1000, 2000), (500, 2400), (1500, 1600), (0, 1400), (2300, 3700), (2400, 3000),
                           (3600, 5000), (4999, 6000), (0, 1400)):
            host.put(DATA[start:end], at=start)
        scene.others()
        check_echo(scene, host)


@segments_only
def test_one_byte_segments(scene):
    scene = scene()
    host = scene.connect()
    host.send_stream(DATA[:600], size=1)
    scene.others()
    check_echo(scene, host, DATA[:600])


@segments_only
@pytest.mark.parametrize("mss", [536, 88])
def test_small_mss(scene, mss):
    """The host neither accepts nor sends larger segments."""
    scene = scene()
    host = scene.connect(mss=mss)
    host.send_stream(DATA)
    scene.others()
    check_echo(scene, host)
    assert host.largest <= mss


@segments_only
def test_damaged_and_fragmented_segments(scene):
    """A segment with a wrong checksum is ignored; a segment in IP fragments is accepted."""
    scene = scene()
    host = scene.connect()
    host.segment(DATA[:1000], flags=PSH | ACK, bad=1)
    host.put(b"x" * 1000, at=1000, bad=0x100)
    host.sent = 0
    host.put(DATA[:1000], fragments=200)
    host.put(DATA[1000:2000], fragments=32)
    scene.others()
    check_echo(scene, host, DATA[:2000])


# Urgent data

URGENT = {  # segments and their urgent pointers
    "middle": [(b"x" * 50, 25)],
    "end": [(b"x" * 50, 50)],
    "alone": [(b"x", 1)],
    "begin": [(b"x" * 50, 1)],
    "zero": [(b"x" * 50, 0)],
    "in the next segment": [(b"x" * 50, 75), (b"y" * 50, None)],
    "never": [(b"x" * 50, 60000), (b"y" * 50, None)],
    "before its segment": [(b"", 10), (b"x" * 50, None)],
    "moving": [(b"", 1), (b"", 30), (b"x" * 50, 20), (b"y" * 50, 10)],
    "several": [(b"x" * 50, 10), (b"y" * 50, 10), (b"z" * 50, 50)],
}


def test_urgent_pointer(scene):
    """Urgent data are echoed in their place in the stream, also with FIN in the last segment."""
    scene = scene()
    for name, pieces in URGENT.items():
        print(name)
        data = b"".join(piece for piece, _ in pieces)
        for at_once in (True, False):
            host = scene.connect()
            for piece, urgent in pieces:
                host.put(piece, PSH | ACK | (0 if urgent is None else URG), urgent=urgent or 0)
                if not at_once:
                    host.wait_stream(data[:host.sent])
            check_echo(scene, host, data)
        host = scene.connect()
        host.put(data, PSH | ACK | FIN | URG, urgent=len(data))
        host.wait_fin(data)
        scene.ended(host, "eof", len(data))
    scene.others()


# The host ends the connection

def test_fin_in_the_segment_of_the_data(scene):
    scene = scene()
    host = scene.connect()
    host.put(DATA[:1000], FIN | PSH | ACK)
    host.wait_fin(DATA[:1000])
    host.wait_acked()
    scene.ended(host, "eof", 1000)


def test_fin_with_data_in_flight(scene):
    """The FIN overtakes data that were sent before it, and arrives while no byte of the echo is acknowledged."""
    scene = scene()
    host = scene.connect()
    host.acks = False
    for start in range(0, 4800, 1200):
        host.put(DATA[start:start + 1200])
    host.send_fin(at=6000)
    host.put(DATA[4800:], at=4800)
    scene.others()
    host.wait_acked()
    host.acks = True
    host.segment()
    host.wait_fin(DATA)
    scene.ended(host, "eof", 6000)


def test_fin_lost_and_sent_again(scene):
    """The host's FIN is lost, and then sent twice. The server's FIN is lost, and sent again."""
    scene = scene()
    host = scene.connect()
    host.put(DATA[:1000])
    host.wait_stream(DATA[:1000])
    host.sent += 1  # the lost FIN
    scene.others()
    lost = []
    host.loses = lambda segment: segment.flags & FIN and (len(lost) < 2 and not lost.append(segment))
    host.send_fin(at=1000)
    host.wire.until(lambda: lost, "the server's FIN")
    host.send_fin(at=1000)
    host.wait_fin(DATA[:1000])
    assert len(lost) == 2, "the server sent its FIN once"
    scene.ended(host, "eof", 1000)


@segments_only
def test_data_after_the_fin_of_the_host(scene):
    """Data after the FIN of the host are ignored."""
    scene = scene()
    host = scene.connect()
    host.put(DATA[:1000], FIN | PSH | ACK)
    host.segment(b"more", PSH | ACK, at=1001)
    host.segment(b"more", PSH | ACK | FIN, at=1001)
    scene.others()
    host.wait_fin(DATA[:1000])
    scene.ended(host, "eof", 1000)


def test_reset_with_data_in_flight(scene):
    """RST directly after the data; and RST while the data of the server are not acknowledged."""
    scene = scene()
    host = scene.connect()
    for start in range(0, 6000, 1200):
        host.put(DATA[start:start + 1200])
    host.send_reset()
    scene.ended(host, "reset")
    assert DATA.startswith(host.stream)
    host = scene.connect()
    host.acks = False
    host.put(DATA[:1000])
    host.wait_stream(DATA[:1000])
    scene.others()
    host.send_reset()
    scene.ended(host, "reset", 1000)


def test_reset_after_the_fin(scene):
    """RST behind a FIN, with data of the server in flight."""
    scene = scene(socket_buffer=4096, buffer_size=4096)
    host = scene.connect(window=0)
    sent = host.fill(peer.data(100000))
    host.send_fin()
    scene.others()
    host.send_reset()
    scene.ended(host, "reset")
    assert 0 < sent and not host.stream


def test_reset_in_answer_to_data(scene):
    """The host has closed its socket with unread data, and answers the echo with RST."""
    scene = scene()
    host = scene.connect()
    host.put(DATA[:500])
    host.wait_stream(DATA[:500])
    host.put(DATA[500:1000])
    host.forgotten = True
    scene.others()
    scene.wire.until(lambda: host.answers >= 3, "the echo")
    scene.ended(host, "reset", 1000)


@segments_only
def test_forged_segments(scene):
    """RFC 5961: RST, SYN and data that do not fit exactly are answered with ACK, and the connection continues."""
    scene = scene()
    host = scene.connect()
    host.put(DATA[:1000])
    host.wait_stream(DATA[:1000])
    for forge in (lambda: host.send_reset(at=1010), lambda: host.segment(flags=SYN, at=1010),
                  lambda: host.segment(flags=SYN | ACK, at=1000),
                  lambda: host.segment(b"forged", PSH | ACK, at=1000, ack=5000)):
        before = host.answers
        forge()
        host.wire.until(lambda: host.answers > before, "a challenge ACK")
    host.send_reset(at=-5000)
    host.segment(b"forged", PSH | ACK, at=1000 + (1 << 20))
    host.segment(b"forged", PSH, at=1000)  # without ACK
    scene.others()
    host.put(DATA[1000:2000])
    check_echo(scene, host, DATA[:2000])


# Windows

def test_zero_window_that_opens(scene):
    """The server sends no byte into a closed window, as many bytes as fit into a small window, and all bytes into an open one."""
    scene = scene(socket_buffer=4096, buffer_size=4096)
    host = scene.connect(window=0)
    data = peer.data(200000)
    sent = host.fill(data)
    assert not host.stream
    scene.others()
    allowed = 0
    for window in (1, 2000):
        allowed += window
        before = len(host.stream)
        host.segment(window=window)  # the next acknowledgement of the host closes the window again
        host.wire.until(lambda: len(host.stream) > before, lambda: f"bytes for a window of {window}")
        assert len(host.stream) <= allowed < sent
    host.window = 65535
    host.segment()
    host.send_stream(data[sent:])
    check_echo(scene, host, data)


def test_window_closed_for_ever(scene):
    """idle-timeout ends the connection: window probes and their answers are no activity."""
    scene = scene(socket_buffer=4096, buffer_size=4096, idle_timeout=1)
    host = scene.connect(window=0)
    host.fill(peer.data(100000))
    scene.others()
    scene.ended(host, "idle")
    host.wait_reset()  # RST, because the server has unread data
    assert not host.stream


def test_window_that_opens_too_late(scene):
    """The window opens after idle-timeout: the server's kernel then sends the data that the daemon has sent."""
    scene = scene(idle_timeout=1)
    host = scene.connect(window=0)
    host.put(DATA[:1000])
    scene.others()
    scene.ended(host, "idle", 1000)
    assert not host.stream
    host.window = 65535
    host.segment()
    host.wait_fin(DATA[:1000])


# The server ends the connection

def test_simultaneous_close(scene):
    """The server's FIN crosses that of the host, with all data acknowledged or not."""
    scene = scene(idle_timeout=1)
    for hosts in scene.turns(2):
        for count, host in hosts:
            host.put(DATA[:1000])
            host.wait_stream(DATA[:1000])
            host.acks = False
            host.put(DATA[1000:1000 + 500 * count])
        scene.others()
        for count, host in hosts:
            data = DATA[:1000 + 500 * count]
            scene.ended(host, "idle", len(data))
            host.send_fin(ack=1000)
            host.wait_acked()
            host.acks = True
            host.segment()
            host.wait_fin(data)


def test_data_after_the_fin_of_the_server(scene):
    """The daemon has closed the socket, so the kernel answers data with RST."""
    scene = scene(idle_timeout=1)
    host = scene.connect()
    host.put(DATA[:1000])
    scene.others()
    host.wait_fin(DATA[:1000])
    host.put(DATA[1000:2000])
    host.wait_reset()
    scene.ended(host, "idle", 1000)


# Half-open connections

def test_host_that_forgets(scene):
    """The host has restarted, and answers a keepalive probe with RST."""
    scene = scene(tcp_keepalive=1)
    host = scene.connect()
    host.put(DATA[:1000])
    host.wait_stream(DATA[:1000])
    host.forgotten = True
    scene.others()
    scene.ended(host, "reset", 1000)


def test_host_that_forgets_and_connects_again(scene):
    """The host has restarted, and connects from the same port: RFC 9293, 3.5.1, figure 9."""
    scene = scene()
    old = scene.connect()
    old.put(DATA[:1000])
    old.wait_stream(DATA[:1000])
    new = scene.host(end=old.end)
    new.forgotten = True
    new.send_syn()
    scene.ended(old, "reset", 1000)
    new.forgotten = False
    new.connect()
    new.put(DATA)
    scene.others()
    new.send_fin()
    new.wait_fin(DATA)
    proc.until(lambda: len(scene.daemon.end_lines(new.name)) == 2, "the end of the second connection")
    assert "eof, 6000 bytes" in scene.daemon.end_lines(new.name)[1]
    scene.account("eof")


def test_host_that_vanishes(scene):
    """tcp-keepalive ends a connection that is idle, has data in flight, or a closed window."""
    scene = scene(tcp_keepalive=1)
    for hosts in scene.turns(3):
        for state, host in hosts:
            host.put(DATA[:1000])
            host.wait_stream(DATA[:1000])
            host.acks = state == 0
            if state == 2:
                host.segment(window=0)
            host.put(DATA[1000:2000], window=0 if state == 2 else None)
            host.wait_acked()
            scene.wire.until(lambda: state == 2 or len(host.stream) == 2000, "the echo")
            host.vanished = True
        scene.others()
        for _, host in hosts:
            scene.ended(host, "reset", 2000)


# Before the daemon has accepted

@pytest.fixture
def paused(scene):
    """paused(scene): stop all processes of the daemon with SIGSTOP until resume()."""
    stopped = []

    class Paused:
        def __init__(self, scene):
            self.pids = [stat.pid for stat in scene.daemon.tree()]
            stopped.append(self)
            for pid in self.pids:
                os.kill(pid, signal.SIGSTOP)
            proc.until(lambda: all(proc.stopped(pid) for pid in self.pids), "a daemon that is stopped")

        def resume(self):
            for pid in self.pids:
                os.kill(pid, signal.SIGCONT)
            self.pids = []
    yield Paused
    for one in stopped:
        one.resume()


def test_reset_before_accept(scene, paused):
    """RST for connections in the backlog, with and without data, and before the handshake is complete."""
    scene = scene()
    pause = paused(scene)
    hosts = [scene.connect() for _ in range(4)]
    for host, count in zip(hosts, (0, 0, 1000, 1000)):
        if count:
            host.put(DATA[:count])
        host.wait_acked()
        host.send_reset()
    half = scene.host()
    half.acks = False
    half.connect()
    half.send_reset(at=0)
    last = scene.connect()
    last.put(DATA[:1000])
    pause.resume()
    check_echo(scene, last, DATA[:1000])
    for host in hosts:
        scene.ended(host, "reset", 0)
        assert not host.stream


def test_reset_before_accept_of_a_denied_host(scene, paused):
    """A denied host resets its connection in the backlog: the daemon still knows its address."""
    scene = scene(deny=["10.66.0.0/16", "fd66::/64"])
    pause = paused(scene)
    host = scene.connect()
    host.put(DATA[:1000])
    host.wait_acked()
    host.send_reset()
    pause.resume()
    scene.daemon.connection_line(host.name, "denied")
    scene.others()
    scene.refused("denied")


def test_all_before_accept(scene, paused):
    """Data, urgent data and FIN wait in the backlog."""
    scene = scene()
    pause = paused(scene)
    hosts = [scene.connect() for _ in range(3)]
    for host in hosts:
        host.put(DATA[:1000])
        host.put(DATA[1000:1100], PSH | ACK | URG, urgent=50)
        host.put(DATA[1100:2000], FIN | ACK)
        host.wait_acked()
    pause.resume()
    for host in hosts:
        host.wait_fin(DATA[:2000])
        scene.ended(host, "eof", 2000)


def test_reset_in_the_backlog_at_max_connections(scene):
    """A connection that was reset in the backlog uses the slot for a short time; then the next connection is served."""
    scene = scene(max_connections=1, workers=1)
    first = scene.connect()
    first.put(DATA[:1000])
    first.wait_stream(DATA[:1000])
    gone, next_one = scene.connect(), scene.connect()
    for host in (gone, next_one):
        host.put(DATA[:500])
        host.wait_acked()
    gone.send_reset()
    check_echo(scene, first, DATA[:1000])
    check_echo(scene, next_one, DATA[:500])
    scene.ended(gone, "reset", 0)


@segments_only
def test_data_in_the_syn(scene):
    """Without TCP Fast Open the kernel ignores data in a SYN, and accepts them when they are sent again."""
    scene = scene()
    host = scene.host()
    host.connect(data=DATA[:100])
    assert host.acked == 0
    host.put(DATA[:1000])
    scene.others()
    check_echo(scene, host, DATA[:1000])


# SIGTERM

@pytest.mark.parametrize("state", ["window", "unacknowledged"])
def test_reset_during_a_drain(scene, state):
    """The daemon waits until the host has received its data; RST ends the wait long before drain-timeout."""
    scene = scene(socket_buffer=4096, buffer_size=4096, drain_timeout=3600)
    host = scene.connect(window=0 if state == "window" else 65535)
    host.acks = state == "window"
    if state == "window":
        host.fill(peer.data(100000))
    else:
        host.put(DATA[:1000])
        host.wait_stream(DATA[:1000])
    scene.daemon.term()
    scene.daemon.wait_log("Stopping|Draining")
    host.send_reset()
    assert scene.daemon.wait_exit(30) == 0
    scene.ended(host, "reset" if state == "window" else "(reset|drain)")


def test_simultaneous_close_at_a_stop(scene):
    """The FIN of a daemon that stops crosses that of the host; then the daemon exits."""
    scene = scene(drain_timeout=3600)
    host = scene.connect()
    host.put(DATA[:1000])
    host.wait_stream(DATA[:1000])
    host.acks = False
    host.put(DATA[1000:2000])
    host.wire.until(lambda: len(host.stream) == 2000, "the echo")
    scene.daemon.term()
    host.wait_fin(DATA[:2000])
    host.send_fin(ack=1000)
    host.wait_acked()
    host.segment()
    assert scene.daemon.wait_exit(30) == 0
    scene.ended(host, "(drain|eof)", 2000)


def test_data_after_the_fin_of_a_daemon_that_stops(scene):
    """Data that the host sends after the FIN of the daemon are not echoed, and do not delay the exit."""
    scene = scene(drain_timeout=3600)
    host = scene.connect()
    host.acks = False
    host.put(DATA[:1000])
    host.wait_stream(DATA[:1000])
    scene.daemon.term()
    host.wait_fin(DATA[:1000])
    for start in range(1000, 6000, 1000):
        host.put(DATA[start:start + 1000])
    host.segment()
    assert scene.daemon.wait_exit(30) == 0
    assert bytes(host.stream) == DATA[:1000]
    scene.ended(host, "drain", 1000)


# ICMP

# Type, code: RFC 792, 1122, 1812; RFC 4443. "Fragmentation needed" has a test of its own.
ERRORS = {4: [(3, code) for code in range(16) if code != 4] + [(11, 0), (12, 0)],
          6: [(1, code) for code in range(8)] + [(3, 0), (4, 0), (4, 1)]}


def test_icmp_errors(scene, family):
    """ICMP errors about an established connection do not end it: any host can send them."""
    scene = scene()
    host = scene.connect()
    for number, (kind, code) in enumerate(ERRORS[family]):
        host.put(DATA[number * 100:number * 100 + 100])
        host.wire.until(lambda: len(host.stream) == host.sent, "the echo")
        scene.wire.icmp(kind, code, host.last)
    scene.others()
    check_echo(scene, host, DATA[:host.sent])


def test_icmp_errors_about_a_host_that_vanished(scene, family):
    """The host's network is down: a router reports errors until tcp-keepalive ends the connection. The reason is "reset", as
    without ICMP errors, though the kernel then returns another error number for each kind."""
    scene = scene(tcp_keepalive=1)
    errors = ERRORS[family] if scene.model not in echod.SERIAL else ERRORS[family][2:3]
    for hosts in scene.turns(len(errors)):
        for number, host in hosts:
            host.acks = False
            host.put(DATA[:1000])
            host.wait_stream(DATA[:1000])
            host.vanished = True
            scene.wire.icmp(*errors[number], host.last, source=ROUTER[family])
        scene.others()
        for _, host in hosts:
            scene.ended(host, "reset", 1000)


@segments_only
def test_path_with_a_smaller_mtu(scene, family):
    """A router reports the MTU behind it: the server sends smaller segments from then on."""
    scene = scene()
    host, mtu = scene.connect(), {4: 600, 6: 1280}[family]
    host.loses = lambda segment: len(segment.data) > mtu - 40
    host.acks = False
    lost = []
    handle = host.handle

    def router(packet):
        if len(packet.raw) > mtu:
            lost.append(packet)
            scene.wire.icmp(*((3, 4) if family == 4 else (2, 0)), packet, rest=mtu, source=ROUTER[family])
        else:
            handle(packet)
    host.handle = router
    host.acks = True
    host.send_stream(DATA)
    scene.others()
    check_echo(scene, host)
    assert lost and host.largest <= mtu - 40
