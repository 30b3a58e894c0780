# SPDX-License-Identifier: ISC
"""Hosts behind a tun(4) device; the test creates and reads their packets.

There is no packet library: the tests need few fields of few headers, and a general library takes up to two seconds to load in
each process that runs tests.
"""

import collections
import fcntl
import os
import select
import socket
import struct
import time

import peer

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
DEVICE = "wire"
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
ICMP, TCP, UDP, FRAGMENT, ICMPV6 = 1, 6, 17, 44, 58
SERVER = {4: "10.66.0.1", 6: "fd66::1"}
PREFIX = {4: 16, 6: 64}

# Settings of the namespace that the scenarios need; keys that this kernel does not have are ignored.
SYSCTLS = ("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv4.tcp_fastopen=0", "net.ipv4.tcp_stdurg=0",
           "net.ipv4.tcp_invalid_ratelimit=0", "net.ipv4.tcp_challenge_ack_limit=2147483647", "net.ipv4.tcp_abort_on_overflow=0",
           "net.ipv4.tcp_min_snd_mss=48", "net.ipv4.tcp_mtu_probing=0", "net.ipv4.ip_no_pmtu_disc=0", "net.ipv4.tcp_rfc1337=0",
           "net.ipv4.icmp_ratelimit=0", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0",
           "net.ipv6.conf.default.router_solicitations=0")

Packet = collections.namedtuple("Packet", "source destination protocol payload raw")
Segment = collections.namedtuple("Segment", "seq ack flags window urgent data")


def prepare(namespace):
    """Prepare a netns.Namespace before Wire(namespace)."""
    namespace.ip(*namespace.wrap()[1:], "sysctl", "-eqw", *SYSCTLS)
    namespace.setup("tuntap", "add", DEVICE, "mode", "tun")
    for family, address in SERVER.items():
        namespace.setup(f"-{family}", "addr", "add", f"{address}/{PREFIX[family]}", "dev", DEVICE)
    namespace.setup("link", "set", DEVICE, "up")


def attach():
    """A descriptor of the device; to be called in the namespace."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return fd


def checksum(*parts):
    """RFC 1071; every part but the last has an even length."""
    data = b"".join(parts)
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def family_of(address):
    return 6 if ":" in address else 4


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def pseudo_header(source, destination, protocol, length):
    return packed(source) + packed(destination) + struct.pack("!II", length, protocol)


def ip_packet(source, destination, protocol, payload, fragment=None):
    """`fragment`: (identification, offset in bytes, whether more follow)."""
    identification, offset, more = fragment or (0, 0, False)
    ends = packed(source) + packed(destination)
    if family_of(source) == 6:
        if fragment:
            payload = struct.pack("!BBHI", protocol, 0, offset | more, identification) + payload
            protocol = FRAGMENT
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + ends + payload

    def header(total):
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identification, more << 13 | offset >> 3, 64, protocol, total)
    return header(checksum(header(0), ends)) + ends + payload


def udp_packet(source, destination, data, bad=0, length=None, zero=False):
    """The UDP header and `data` from and to (host, port). `bad` is added to the checksum; `zero`: without checksum."""
    size = 8 + len(data) if length is None else length
    head = struct.pack("!HHH", source[1], destination[1], size)
    total = checksum(pseudo_header(source[0], destination[0], UDP, 8 + len(data)), head, b"\0\0", data) or 0xFFFF
    return head + struct.pack("!H", 0 if zero else (total + bad) & 0xFFFF) + data


class Wire:
    """The server's end is an interface with the addresses SERVER; all other addresses of its networks are behind it."""

    def __init__(self, namespace):
        self.fd = namespace.inside(attach)
        self._hosts = {}  # (protocol, address, port): the object that handles its packets
        self._fragments = {}
        self._ports = 40000

    def close(self):
        os.close(self.fd)

    def endpoint(self, family):
        """A new (address, port) behind the wire."""
        self._ports += 1
        number = self._ports - 40000 + 1
        return (f"10.66.{number >> 8}.{number & 255}" if family == 4 else f"fd66::{number + 0x10:x}"), self._ports

    def add(self, protocol, end, host):
        """host.handle(packet) gets the packets for the port `end`."""
        self._hosts[protocol, *end] = host

    def write(self, *args, **more):
        os.write(self.fd, ip_packet(*args, **more))

    def icmp(self, kind, code, about, rest=0, source=None):
        """An ICMP error about the packet `about` of the server, from its destination or a router `source`."""
        source = source or about.destination
        protocol, start = (ICMP, b"") if family_of(source) == 4 else (ICMPV6, None)
        body = struct.pack("!I", rest) + about.raw[:548]
        if start is None:
            start = pseudo_header(source, about.source, ICMPV6, 4 + len(body))
        total = checksum(start, struct.pack("!BBH", kind, code, 0), body)
        self.write(source, about.source, protocol, struct.pack("!BBH", kind, code, total) + body)

    # Reading

    def _whole(self, key, offset, more, payload):
        """The payload of a datagram once all its fragments were seen, else None."""
        pieces = self._fragments.setdefault(key, {})
        pieces[offset] = (payload, more)
        data, at = b"", 0
        while at in pieces:
            data += pieces[at][0]
            if not pieces[at][1]:
                del self._fragments[key]
                return data
            at += len(pieces[at][0])
        return None

    def _parse(self, raw):
        """A Packet, or None for a fragment."""
        if raw[0] >> 4 == 6:
            source, destination = (socket.inet_ntop(socket.AF_INET6, raw[at:at + 16]) for at in (8, 24))
            protocol, payload = raw[6], raw[40:]
            if protocol == FRAGMENT:
                protocol, _, offset, identification = struct.unpack_from("!BBHI", payload)
                payload = self._whole((source, destination, identification), offset & 0xFFF8, offset & 1, payload[8:])
        else:
            source, destination = (socket.inet_ntoa(raw[at:at + 4]) for at in (12, 16))
            identification, offset = struct.unpack_from("!HH", raw, 4)
            protocol, payload = raw[9], raw[(raw[0] & 15) * 4:]
            if offset & 0x3FFF:
                payload = self._whole((source, destination, identification), (offset & 0x1FFF) << 3, offset & 0x2000, payload)
        return None if payload is None else Packet(source, destination, protocol, payload, raw)

    def pump(self):
        """Handle all packets that can be read now."""
        while True:
            try:
                packet = self._parse(os.read(self.fd, 1 << 16))
            except BlockingIOError:
                return
            if packet and packet.protocol in (TCP, UDP):
                host = self._hosts.get((packet.protocol, packet.destination, int.from_bytes(packet.payload[2:4], "big")))
                if host:
                    host.handle(packet)

    def until(self, condition, what):
        """Handle packets until condition() is true; it must depend on packets only."""
        deadline = time.monotonic() + peer.PATIENCE
        while True:
            self.pump()
            if condition():
                return
            left = deadline - time.monotonic()
            assert left > 0, f"not within {peer.PATIENCE} s: {what() if callable(what) else what}"
            select.select([self.fd], [], [], left)


def difference(one, other):
    """The difference of two sequence numbers."""
    return (one - other + (1 << 31)) % (1 << 32) - (1 << 31)


class Host:
    """The TCP of a host behind the wire, for one connection to the server.

    It acknowledges segments, but sends nothing else by itself: no data, no FIN, no retransmission. Positions in its stream
    (`at`) count bytes; the sequence numbers wrap around after 512 of them. A test can change at any time:

      window     the window that the host advertises
      acks       whether it acknowledges
      vanished   whether it ignores all packets, as after a power failure
      forgotten  whether it has no state of the connection, as after a restart, and answers all packets with RST
      loses      loses(segment): whether this segment is lost on its way to the host
    """

    ISN = 0xFFFFFDFF

    def __init__(self, wire, family, port, mss=1460, window=65535, end=None):
        self.wire, self.mss, self.window = wire, mss, window
        self.end, self.server = end or wire.endpoint(family), (SERVER[family], port)
        self.name = f"[{self.end[0]}]:{self.end[1]}" if family == 6 else f"{self.end[0]}:{self.end[1]}"
        self.acks, self.vanished, self.forgotten = True, False, False
        self.loses = lambda segment: False
        self.sent = self.acked = self.limit = 0  # positions in the own stream: end, acknowledged, end of the server's window
        self.stream = bytearray()  # bytes that the server has sent
        self.early = {}  # segments behind a lost one
        self.server_isn, self.fin, self.was_reset = None, False, False
        self.answers = 0  # number of segments received
        self.largest = 0  # the most bytes of one segment
        self.last = None  # the last packet with data or FIN
        wire.add(TCP, self.end, self)

    # Sending

    def segment(self, data=b"", flags=ACK, at=None, ack=None, window=None, urgent=0, options=b"", bad=0, fragments=0):
        """Send one segment, and do not change `sent`. `ack`: position in the server's stream; `bad` is added to the checksum."""
        seq = (self.ISN + 1 + (self.sent if at is None else at)) % (1 << 32)
        if flags & ACK and self.server_isn is not None:
            ack = (self.server_isn + 1 + (len(self.stream) + self.fin if ack is None else ack)) % (1 << 32)
        head = struct.pack("!HHIIBBH", self.end[1], self.server[1], seq, ack or 0, (5 + len(options) // 4) << 4, flags,
                           self.window if window is None else window)
        tail = struct.pack("!H", urgent) + options + data
        length = len(head) + 2 + len(tail)
        total = checksum(pseudo_header(self.end[0], self.server[0], TCP, length), head, b"\0\0", tail)
        payload = head + struct.pack("!H", (total + bad) & 0xFFFF) + tail
        if not fragments:
            self.wire.write(self.end[0], self.server[0], TCP, payload)
            return
        for offset in range(0, len(payload), fragments):
            self.wire.write(self.end[0], self.server[0], TCP, payload[offset:offset + fragments],
                            fragment=(self.end[1], offset, offset + fragments < len(payload)))

    def put(self, data=b"", flags=PSH | ACK, at=None, **more):
        """Send a segment of the host's stream, at its end or again at position `at`."""
        at = self.sent if at is None else at
        self.segment(data, flags, at, **more)
        self.sent = max(self.sent, at + len(data) + bool(flags & FIN))

    def send_fin(self, **more):
        self.put(flags=FIN | ACK, **more)

    def send_reset(self, **more):
        self.segment(flags=RST | ACK, **more)

    def send_syn(self, data=b"", flags=SYN):
        self.segment(data, flags, at=-1, options=struct.pack("!BBH", 2, 4, self.mss))

    def connect(self, **more):
        self.send_syn(**more)
        self.wire.until(lambda: self.server_isn is not None or self.was_reset, "SYN and ACK of the server")
        assert not self.was_reset, "the server refused the connection"
        return self

    def send_stream(self, data, size=None):
        """Send `data` in segments of at most `size` bytes, as the server's window allows."""
        rest = memoryview(data)
        while rest:
            self.wire.until(lambda: self.limit > self.sent, lambda: f"the server's window, {len(rest)} bytes left")
            count = min(len(rest), self.limit - self.sent, size or self.mss)
            self.put(bytes(rest[:count]))
            rest = rest[count:]

    def fill(self, data):
        """Send `data` until the server's window is closed. Returns how much of it was sent."""
        at = 0
        while self.limit > self.sent:
            count = min(len(data) - at, self.limit - self.sent, self.mss)
            assert count, f"the server accepts more than {len(data)} bytes"
            self.put(data[at:at + count])
            at += count
            self.wire.until(lambda: self.acked == self.sent, "an acknowledgement")
        return at

    # Receiving

    def handle(self, packet):
        if self.vanished:
            return
        fields = struct.unpack_from("!IIBBHHH", packet.payload, 4)
        segment = Segment(fields[0], fields[1], fields[3], fields[4], fields[6], packet.payload[(fields[2] >> 4) * 4:])
        self.answers += 1
        if self.forgotten:
            if not segment.flags & RST:
                self._reject(segment)
        elif segment.flags & RST:
            self.was_reset = True
        elif segment.flags & SYN:
            self._received_syn(segment)
        elif not self.loses(segment):
            if segment.data or segment.flags & FIN:
                self.last = packet
            self._received(segment)

    def _reject(self, segment):
        """RFC 9293, 3.5.2, group 1: answer a segment with ACK by RST, whose sequence number is the acknowledgement."""
        self.segment(flags=RST, at=difference(segment.ack, self.ISN + 1))

    def _received_syn(self, segment):
        self.server_isn = segment.seq
        self._acknowledged(segment)
        if self.acks:
            self.segment()

    def _acknowledged(self, segment):
        self.acked = max(self.acked, difference(segment.ack, self.ISN + 1))
        self.limit = max(self.limit, self.acked + segment.window)

    def _received(self, segment):
        self._acknowledged(segment)
        at, expected = difference(segment.seq, self.server_isn + 1), len(self.stream) + self.fin
        self.largest = max(self.largest, len(segment.data))
        if segment.data or segment.flags & FIN:
            self.early[at] = segment
        while True:
            start = next((start for start in sorted(self.early) if start <= len(self.stream)), None)
            if start is None:
                break
            self._take(start, self.early.pop(start))
        if self.acks and (segment.data or segment.flags & FIN or at != expected):
            self.segment()

    def _take(self, at, segment):
        known = self.stream[at:at + len(segment.data)]
        assert segment.data[:len(known)] == known, "the server retransmitted other bytes than before"
        assert not self.fin or at + len(segment.data) <= len(self.stream), "the server sent data after its FIN"
        self.stream += segment.data[len(known):]
        self.fin |= bool(segment.flags & FIN)

    # Waiting

    def wait_stream(self, expected):
        """Wait until the server has sent exactly these bytes."""
        self.wire.until(lambda: len(self.stream) >= len(expected), lambda: f"{len(expected)} bytes, there are {len(self.stream)}")
        peer.same(bytes(self.stream), expected)

    def wait_fin(self, expected):
        """Wait until the server has sent exactly these bytes and FIN."""
        self.wire.until(lambda: self.fin or self.was_reset, lambda: f"FIN, after {len(self.stream)} of {len(expected)} bytes")
        peer.same(bytes(self.stream), expected)
        assert self.fin, "RST instead of FIN"

    def wait_reset(self):
        self.wire.until(lambda: self.was_reset, "RST")

    def wait_acked(self):
        """Wait until the server's kernel has acknowledged everything, FIN included."""
        self.wire.until(lambda: self.acked >= self.sent, lambda: f"acknowledgement of {self.sent}, there is {self.acked}")
