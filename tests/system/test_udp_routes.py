# SPDX-License-Identifier: ISC
"""UDP on a host with two uplinks: answers follow the routing table, carry the request's DSCP, and are fragmented."""

import os
import re
import socket
import struct
import subprocess

import pytest

import datagrams
import echod
import netns
import peer
import proc

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces, raw sockets")
ipv6 = pytest.mark.skipif(not echod.have_ipv6(), reason="no IPv6 on this host")
READER = pytest.mark.models(*datagrams.READER_MODELS)

IP_RECVTOS, IP_PMTUDISC_OMIT = 13, 5
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, 0x0800, 0x86DD
CLIENT4, CLIENT6 = "10.62.9.2", "fd62:9::2"


class Uplinks:
    """A server with two uplinks to one router, and a client behind that router; 10.62.99.99 and fd62:99::99 are the server's
    anycast addresses, on its loopback interface."""

    def __init__(self):
        self.spaces = []
        self.server, self.router, self.client = (self.space() for _ in range(3))
        self.wire("s1", self.server, "r1", self.router)
        self.wire("s2", self.server, "r2", self.router)
        self.wire("c0", self.client, "r0", self.router)
        for space, device, *addresses in (
                (self.server, "s1", "10.62.1.1/24", "10.62.1.11/24", "10.62.1.12/32", "fd62:1::1/64", "fd62:1::11/64"),
                (self.server, "s2", "10.62.2.1/24", "fd62:2::1/64"),
                (self.server, "lo", "10.62.99.99/32", "fd62:99::99/128"),
                (self.router, "r1", "10.62.1.254/24", "fd62:1::fe/64"),
                (self.router, "r2", "10.62.2.254/24", "fd62:2::fe/64"),
                (self.router, "r0", "10.62.9.254/24", "fd62:9::fe/64"),
                (self.client, "c0", f"{CLIENT4}/24", f"{CLIENT6}/64")):
            for address in addresses:
                if ":" not in address:
                    space.setup("addr", "add", address, "dev", device)
                elif echod.have_ipv6():
                    space.setup("addr", "add", address, "dev", device, "nodad")
        if echod.have_ipv6():
            self.server.setup("addr", "add", "fd62:1::dead/64", "dev", "s1", "nodad", "preferred_lft", "0")
        self.router.sysctl("net.ipv4.ip_forward=1")
        self.router.setup("route", "add", "10.62.99.99/32", "via", "10.62.1.1")
        self.router.setup("route", "add", "10.62.1.12/32", "dev", "r1")
        self.client.setup("route", "add", "default", "via", "10.62.9.254")
        if echod.have_ipv6():
            self.router.sysctl("net.ipv6.conf.all.forwarding=1")
            self.router.setup("-6", "route", "add", "fd62:99::99/128", "via", "fd62:1::1")
            self.client.setup("-6", "route", "add", "default", "via", "fd62:9::fe")
        self.route(1)

    def space(self):
        self.spaces.append(netns.Namespace())
        return self.spaces[-1]

    @staticmethod
    def wire(one, space, other, elsewhere):
        netns.Namespace.ip("link", "add", one, "netns", space.name, "type", "veth", "peer", "name", other, "netns",
                           elsewhere.name)
        for end, where in ((one, space), (other, elsewhere)):
            where.setup("link", "set", end, "up")
            for name in (end, "all"):
                where.sysctl(f"net.ipv4.conf.{name}.rp_filter=0")

    def route(self, uplink):
        """Route all packets of the server over this uplink."""
        self.server.setup("route", "replace", "default", "via", f"10.62.{uplink}.254")
        if echod.have_ipv6():
            self.server.setup("-6", "route", "replace", "default", "via", f"fd62:{uplink}::fe")

    def narrow(self, mtu):
        """The MTU of the wire between router and client."""
        self.router.setup("link", "set", "r0", "mtu", str(mtu))
        self.client.setup("link", "set", "c0", "mtu", str(mtu))
        for space in (self.server, self.router, self.client):
            for family in ("-4", "-6"):
                space.setup(family, "route", "flush", "cache")

    def close(self):
        for space in self.spaces:
            space.close()


@pytest.fixture(scope="module")
def made():
    uplinks = None
    try:
        uplinks = Uplinks.__new__(Uplinks)
        uplinks.spaces = []
        uplinks.__init__()
    except (OSError, subprocess.CalledProcessError) as error:
        uplinks.close()
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', None) or error}")
    yield uplinks
    uplinks.close()


@pytest.fixture
def uplinks(made):
    yield made
    made.route(1)
    made.narrow(1500)


@pytest.fixture
def start_server(launch, uplinks):
    """Wait by the log, because the manager's abstract socket is in another network namespace."""
    def start_server(model="epoll", **keys):
        daemon = launch(model, **{"protocols": ["udp"], "listen": ["*"], "wrap": uplinks.server.wrap(), "udp_rate": 0, **keys})
        daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)
        return daemon
    return start_server


ADDRESSES = ["10.62.1.1", "10.62.1.11", "10.62.1.12", "10.62.2.1", "10.62.99.99"]
ADDRESSES6 = ["fd62:1::1", "fd62:1::11", "fd62:1::dead", "fd62:2::1", "fd62:99::99"]


def addresses():
    return ADDRESSES + (ADDRESSES6 if echod.have_ipv6() else [])


def dial(uplinks, host, port):
    """A connected socket of the client: it receives only from the address that it sends to."""
    sock = uplinks.client.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((host, port))
    return sock


def echoes(sock, message):
    sock.send(message)
    peer.same(sock.recv(65536), message)


# Routes


@READER
@pytest.mark.parametrize("uplink", [1, 2])
def test_answers_follow_the_routing_table(start_server, uplinks, model, uplink):
    """Requests arrive over the first or the second uplink; all answers leave over one of them."""
    uplinks.route(uplink)
    daemon = start_server(model)
    for host in addresses():
        with dial(uplinks, host, daemon.port) as sock:
            for size in (0, 1, 1400, 4000, datagrams.LARGEST):
                echoes(sock, peer.data(size))


@pytest.mark.parametrize("uplink", [1, 2])
def test_answers_of_each_address_follow_the_routing_table(start_server, uplinks, uplink):
    """The same with a socket for each address."""
    uplinks.route(uplink)
    daemon = start_server(listen=addresses())
    assert len(datagrams.readers(daemon)) == len(addresses())
    for host in addresses():
        with dial(uplinks, host, daemon.port) as sock:
            for size in (0, 1400, datagrams.LARGEST):
                echoes(sock, peer.data(size))


@READER
def test_route_that_changes(start_server, uplinks, model):
    daemon = start_server(model)
    for uplink in (1, 2, 1):
        uplinks.route(uplink)
        for host in addresses():
            with dial(uplinks, host, daemon.port) as sock:
                echoes(sock, host.encode())


@ipv6
@pytest.mark.parametrize("device, other", [("s1", "r1"), ("s2", "r2")])
def test_link_local_answers_leave_by_their_own_link(start_server, uplinks, device, other):
    daemon = start_server()
    listed = subprocess.run(["ip", "-n", uplinks.server.name, "-6", "addr", "show", "dev", device, "scope", "link"], check=True,
                            timeout=20, capture_output=True, text=True).stdout
    address = re.search(r"inet6 (fe80::[0-9a-f:]+)", listed).group(1)
    scope = uplinks.router.inside(lambda: socket.if_nametoindex(other))

    def answered():  # once duplicate address detection is over, on both sides
        with uplinks.router.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((address, daemon.port, 0, scope))
                sock.settimeout(0.3)
                echoes(sock, peer.data(3000))
                return True
            except OSError:
                return False
    proc.until(answered, "an answer from the link-local address")


# Fragments


class Tap:
    """The packets of the server's port that reach the client's wire, as (length, more fragments or an offset)."""

    def __init__(self, uplinks):
        self.sock = uplinks.client.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)))
        self.sock.bind(("c0", ETH_P_ALL))
        self.sock.setblocking(False)

    def fragments(self, source):
        """Lengths of the packets from this host that arrived since the last call."""
        found = []
        while True:
            try:
                packet, address = self.sock.recvfrom(65536)
            except BlockingIOError:
                return found
            if address[2] == socket.PACKET_OUTGOING:
                continue
            if address[1] == ETH_P_IP and socket.inet_ntop(socket.AF_INET, packet[12:16]) == source and packet[9] == 17:
                found.append(len(packet))
            if address[1] == ETH_P_IPV6 and socket.inet_ntop(socket.AF_INET6, packet[8:24]) == source and packet[6] in (17, 44):
                found.append(len(packet))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()


@pytest.mark.parametrize("host", ["10.62.1.1", "10.62.99.99", pytest.param("fd62:1::1", marks=ipv6),
                                  pytest.param("fd62:99::99", marks=ipv6)])
@pytest.mark.parametrize("mtu", [1280, 1400, 1500])
def test_answers_of_any_size_arrive(start_server, uplinks, host, mtu):
    """The first datagram of each size is answered, also if a later link has a smaller MTU than the server's. Sizes that fit the
    server's own MTU only are left out over IPv6: only the server could fragment them, and Linux does not."""
    uplinks.narrow(mtu)
    daemon = start_server()
    with dial(uplinks, host, daemon.port) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6 if ":" in host else socket.IPPROTO_IP, 23 if ":" in host else 10, 0)  # not DF
        for size in (1, 1200, 1231, 1232, 1233, 1300, 1452, 1453, 1472, 1473, 3000, 20000, datagrams.LARGEST):
            if not (":" in host and mtu < 48 + size <= 1500):
                echoes(sock, peer.data(size))
    assert datagrams.statistics(daemon).get("datagrams_dropped send_failed", 0) == 0


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def heard(uplinks, name):
    """A counter of ICMP errors in the server's namespace."""
    family = name.partition(" ")[0]
    if family == "Icmp6":
        text = uplinks.server.inside(lambda: proc.read("/proc/thread-self/net/snmp6")).decode()
        return int(re.search(r"^Icmp6InPktTooBigs\s+(\d+)", text, re.M).group(1))
    lines = uplinks.server.inside(lambda: proc.read("/proc/thread-self/net/snmp")).decode().splitlines()
    heading, values = (line.split() for line in lines if line.startswith("Icmp: "))
    return int(values[heading.index("InDestUnreachs")])


def forge_too_big(uplinks, host, port, client, mtu):
    """Send the server a forged ICMP message, as from a router, that its answers are too big."""
    udp = struct.pack("!HHHH", port, client[1], 1408, 0)
    if ":" in host:
        quoted = struct.pack("!IHBB16s16s", 6 << 28, 1408, 17, 60, socket.inet_pton(socket.AF_INET6, host),
                             socket.inet_pton(socket.AF_INET6, client[0])) + udp
        message, kind, name = struct.pack("!BBHI", 2, 0, 0, mtu) + quoted, (socket.AF_INET6, 58), "Icmp6"
    else:
        quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1428, 1, 0, 60, 17, 0, socket.inet_aton(host),
                             socket.inet_aton(client[0])) + udp
        message, kind, name = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted, (socket.AF_INET, 1), "Icmp"
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    before = heard(uplinks, name)
    with uplinks.router.socket(kind[0], socket.SOCK_RAW, kind[1]) as raw:
        raw.sendto(message, (host, 0))
    proc.until(lambda: heard(uplinks, name) > before, "the forged message to arrive")


@pytest.mark.parametrize("host, mtu", [("10.62.1.1", 600), pytest.param("fd62:1::1", 1280, marks=ipv6)])
def test_forged_too_big_has_no_effect(start_server, uplinks, host, mtu):
    """The message must not make the server fragment its answers, because firewalls may drop fragments."""
    daemon = start_server()
    with dial(uplinks, host, daemon.port) as sock, Tap(uplinks) as tap:
        message = peer.data(1400)
        for turn in range(3):
            echoes(sock, message)
            assert len(tap.fragments(host)) == 1
            forge_too_big(uplinks, host, daemon.port, sock.getsockname(), mtu)


# DSCP


@READER
@pytest.mark.parametrize("host", ["10.62.1.1", pytest.param("fd62:1::1", marks=ipv6)])
def test_dscp_on_a_wire(start_server, uplinks, model, host):
    daemon = start_server(model, reflect_dscp=True)
    level, option, receive = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS) if ":" in host else \
        (socket.IPPROTO_IP, socket.IP_TOS, IP_RECVTOS)
    with dial(uplinks, host, daemon.port) as sock:
        sock.setsockopt(level, receive, 1)
        for traffic_class in (0xB8, 0x00, 0x28, 0xBB, 0xFF, 0x01):
            sock.setsockopt(level, option, traffic_class)
            sock.send(b"class")
            message, ancillary, _, _ = sock.recvmsg(100, 100)
            value = ancillary[0][2]
            assert (message, int.from_bytes(value, "little")) == (b"class", traffic_class & 0xFC)
