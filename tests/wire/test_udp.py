# SPDX-License-Identifier: ISC
"""Datagrams that a kernel would not send: the valid ones are echoed, the others have no effect."""

import struct

import pytest

import metrics
import peer
from wire import UDP, udp_packet

# A separate process answers datagrams, with the same code in each model.
pytestmark = pytest.mark.models("iterative", "process", "thread", "epoll", "io_uring")

COUNT = 100  # more than one batch, and more than the tolerated number of wake-ups without effect


class Asker:
    """A UDP port behind the wire."""

    def __init__(self, scene):
        self.scene, self.wire = scene, scene.wire
        self.end, self.server = self.wire.endpoint(scene.family), (scene.host().server[0], scene.port)
        self.answers, self.last = [], None
        self.wire.add(UDP, self.end, self)

    def handle(self, packet):
        size, total = struct.unpack_from("!HH", packet.payload, 4)
        assert size == len(packet.payload)
        self.last = packet
        self.answers.append(packet.payload[8:])

    def put(self, data, **more):
        self.wire.write(self.end[0], self.server[0], UDP, udp_packet(self.end, self.server, data, **more))

    def put_fragments(self, data, identification, bounds):
        """Fragments of the datagram with `data`; `bounds`: the begin and the end of each in the packet, UDP header included."""
        whole = udp_packet(self.end, self.server, data)
        for start, end in bounds:
            self.wire.write(self.end[0], self.server[0], UDP, whole[start:end], fragment=(identification, start, end < len(whole)))

    def wait(self, *expected):
        """Wait until these answers have arrived since the last call, in this order, and no others."""
        self.wire.until(lambda: len(self.answers) >= len(expected), f"{len(expected)} answers")
        assert self.answers == list(expected)
        self.answers = []


@pytest.fixture
def served(scene):
    """A scene whose daemon answers datagrams, an Asker, and check()."""
    scene = scene(protocols=["tcp", "udp"], udp_rate=0)
    asker = Asker(scene)
    before = metrics.line(scene.daemon)

    def check(count):
        """The daemon has received and answered `count` datagrams and no other."""
        asker.put(b"last")
        asker.wait(b"last")
        # an answer is counted after it was sent
        metrics.wait_line(scene.daemon, "the datagrams", **{name: before.get(name, 0) + count + 1
                                                            for name in ("datagrams_received", "datagrams_echoed")})
        line = metrics.line(scene.daemon)
        assert not [name for name in line if name.startswith("datagrams_dropped") and line[name]], line
        scene.others()
    return asker, check


def test_bad_checksum(served):
    asker, check = served
    for number in range(COUNT):
        asker.put(b"damaged", bad=1 + number)
    asker.put(b"good")
    asker.wait(b"good")
    for number in range(COUNT):  # each of them may wake the daemon
        asker.put(b"damaged", bad=1 + number)
        asker.put(b"%d" % number)
        asker.wait(b"%d" % number)
    check(1 + COUNT)


def test_no_checksum(served):
    """IPv4 allows datagrams without checksum, IPv6 does not."""
    asker, check = served
    asker.put(b"unchecked", zero=True)
    if asker.scene.family == 4:
        asker.wait(b"unchecked")
    check(asker.scene.family == 4)


def test_empty_datagrams(served):
    asker, check = served
    for _ in range(COUNT):
        asker.put(b"")
    asker.wait(*[b""] * COUNT)
    check(COUNT)


def test_wrong_length(served):
    """The length field is larger than the packet or smaller than the header."""
    asker, check = served
    for length in (8 + 5 + 1, 65535, 7, 1):
        asker.put(b"wrong", length=length)
    check(0)


def test_fragments(served):
    """Fragments in order, in reverse order, interleaved and duplicated; the answers are fragmented as well."""
    asker, check = served
    data = [peer.data(6000, seed) for seed in range(4)]
    bounds = [(at, min(at + 1400, 6008)) for at in range(0, 6008, 1400)]
    asker.put_fragments(data[0], 1, bounds)
    asker.put_fragments(data[1], 2, bounds[::-1])
    asker.wait(*data[:2])
    asker.put_fragments(data[2], 3, bounds[:2])
    asker.put_fragments(data[3], 4, bounds[1:])
    asker.put_fragments(data[2], 3, bounds[2:])
    asker.put_fragments(data[3], 4, bounds[:1])
    asker.wait(*data[2:])
    asker.put_fragments(data[0], 5, [bounds[0], bounds[0], *bounds[1:]])
    asker.wait(data[0])
    check(5)


def test_incomplete_and_overlapping_fragments(served):
    """The kernel drops datagrams with missing or overlapping fragments."""
    asker, check = served
    data = peer.data(3000)
    asker.put_fragments(data, 11, [(0, 1400)])
    asker.put_fragments(data, 12, [(1400, 2800), (2800, 3008)])
    asker.put_fragments(data, 13, [(0, 1400), (1000, 2800), (2800, 3008)])
    asker.put_fragments(data, 14, [(0, 1400), (2000, 3008), (1400, 2800)])
    check(0)


def test_unreachable_ports(served):
    """An ICMP error for each answer does not disturb the daemon's socket, for this client and others."""
    asker, check = served
    other = Asker(asker.scene)
    kind, code = (3, 3) if asker.scene.family == 4 else (1, 4)
    for number in range(COUNT):
        asker.put(b"%d" % number)
        asker.wait(b"%d" % number)
        asker.wire.icmp(kind, code, asker.last)
        other.put(b"other")
        other.wait(b"other")
    check(2 * COUNT)
