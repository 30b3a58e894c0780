# SPDX-License-Identifier: ISC
"""PROXY protocol: headers of both versions, in pieces, invalid headers, the peer's address, hand-over, and haproxy."""

import re
import shutil
import socket
import struct
import subprocess
import time

import pytest

import echod
import metrics
import peer
import proc

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6 = 0x11, 0x21
PROXIES = ["127.0.0.1", "::1"]


def v1(source="192.0.2.1", port=4711, family="TCP4", destination="198.51.100.7"):
    return f"PROXY {family} {source} {destination} {port} 7\r\n".encode()


def v2(source="192.0.2.1", port=4711, command=PROXY, extensions=b"", kind=None):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    address = socket.inet_pton(family, source)
    addresses = address + address + struct.pack(">HH", port, 7) + extensions
    kind = (TCP6 if family == socket.AF_INET6 else TCP4) if kind is None else kind
    return SIGNATURE + struct.pack(">BBH", command, kind, len(addresses)) + addresses


HEADERS = {
    "v1": (v1(), "192.0.2.1:4711"),
    "v1-ipv6": (v1("2001:db8::1", 1, "TCP6", "2001:db8::2"), "[2001:db8::1]:1"),
    "v1-mapped": (v1("::ffff:192.0.2.1", 4711, "TCP6", "::1"), "192.0.2.1:4711"),
    "v2": (v2(), "192.0.2.1:4711"),
    "v2-ipv6": (v2("2001:db8::1", 65535), "[2001:db8::1]:65535"),
    "v2-extensions": (v2(extensions=b"\x04\0\x64" + bytes(100)), "192.0.2.1:4711"),
    "v2-longest": (v2(extensions=bytes(65535 - 12)), "192.0.2.1:4711"),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1-unknown-rest": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    "v2-local": (SIGNATURE + struct.pack(">BBH", LOCAL, 0, 0), None),
    "v2-local-addresses": (v2(command=LOCAL), None),
    "v2-unix": (SIGNATURE + struct.pack(">BBH", PROXY, 0x31, 216) + bytes(216), None),
}

INVALID = {
    "payload": b"hello, echo",
    "v1-lower": b"proxy TCP4 192.0.2.1 198.51.100.7 1 7\r\n",
    "v1-address": b"PROXY TCP4 192.0.2.256 198.51.100.7 1 7\r\n",
    "v1-family": b"PROXY TCP6 192.0.2.1 198.51.100.7 1 7\r\n",
    "v1-protocol": b"PROXY UDP4 192.0.2.1 198.51.100.7 1 7\r\n",
    "v1-port": b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 7\r\n",
    "v1-leading-zero": b"PROXY TCP4 192.0.2.1 198.51.100.7 01 7\r\n",
    "v1-missing": b"PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n",
    "v1-more": b"PROXY TCP4 192.0.2.1 198.51.100.7 1 7 8\r\n",
    "v1-space": b"PROXY TCP4 192.0.2.1  198.51.100.7 1 7\r\n",
    "v1-newline": b"PROXY TCP4 192.0.2.1 198.51.100.7 1 7\n",
    "v1-long": b"PROXY UNKNOWN " + b"x" * 107,
    "v2-signature": SIGNATURE[:-1] + b"x",
    "v2-version": SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
    "v2-command": SIGNATURE + b"\x22\x11\0\x0c" + bytes(12),
    "v2-family": SIGNATURE + b"\x21\x41\0\x0c" + bytes(12),
    "v2-protocol": SIGNATURE + b"\x21\x13\0\x0c" + bytes(12),
    "v2-short": SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
}


def test_header(start, model):
    """The header is not echoed, the bytes after it are echoed at once, and the log has the peer's address from the header."""
    daemon = start(model, proxy_protocol=PROXIES, buffer_size=512)
    for count, (name, (header, named)) in enumerate(HEADERS.items(), 1):
        since = len(daemon.log())
        with daemon.connect() as sock:
            named = named or peer.endpoint(sock)
            sock.sendall(header + b"behind it")
            assert peer.receive(sock, 9) == b"behind it", name
            peer.echo(sock, peer.data(300000))
            peer.finish(sock)
        daemon.wait_log(rf"{re.escape(named)} to .* ended: eof, 300009 bytes", since)
        metrics.wait_line(daemon, name, connections_accepted=count, connections_ended__eof=count, echoed_bytes=300009 * count)


@pytest.mark.parametrize("name", ["v1", "v2-ipv6", "v2-extensions", "v1-unknown"])
def test_header_in_pieces(start, model, name):
    """The header arrives byte by byte; the server echoes nothing before it is complete."""
    header, named = HEADERS[name]
    daemon = start(model, proxy_protocol=PROXIES)
    with daemon.connect() as sock:
        named = named or peer.endpoint(sock)
        for i in range(len(header)):
            sock.sendall(header[i:i + 1])
            if i % 16 == 0:
                time.sleep(0.002)
        assert peer.silent(sock, 0.05)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    daemon.connection_line(named, "eof")


def test_invalid_header(start, model):
    """The connection is closed without a byte; the reason in the log is `proxy`."""
    daemon = start(model, proxy_protocol=PROXIES)
    for count, (name, header) in enumerate(INVALID.items(), 1):
        since = len(daemon.log())
        with daemon.connect() as sock:
            endpoint = peer.endpoint(sock)
            sock.sendall(header)
            assert peer.ended(sock), name
        daemon.wait_log(rf"{re.escape(endpoint)} to .* ended: proxy, 0 bytes echoed", since)
        metrics.wait_line(daemon, name, connections_ended__proxy=count, connections=0)
        with daemon.connect() as sock:
            sock.sendall(v1() + b"works")
            assert peer.receive(sock, 5) == b"works", name
            peer.finish(sock)


@pytest.mark.parametrize("part", [5, 30])
def test_header_cut_off_by_fin(start, model, part):
    daemon = start(model, proxy_protocol=PROXIES)
    with daemon.connect() as sock:
        sock.sendall(v2()[:part] if part < 16 else v2(extensions=bytes(60))[:part])
        sock.shutdown(socket.SHUT_WR)
        assert peer.ended(sock)
        endpoint = peer.endpoint(sock)
    daemon.connection_line(endpoint if part < 28 else "192.0.2.1:4711", "proxy")


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("most", [0, 100])
def test_health_checks(start, model, most, level):
    """Without data after the header, or without a header: logged at debug. The header counts as received, not as echoed."""
    daemon = start(model, proxy_protocol=PROXIES, max_per_source=most, log_level=level)
    headers = [b"", HEADERS["v2-local"][0], v1(), v2()]
    for header in headers:
        with daemon.connect() as sock:
            sock.sendall(header)
            peer.finish(sock)
    metrics.wait_line(daemon, "all", connections_ended__eof=len(headers), connections_accepted=len(headers), connections=0,
                      received_bytes=sum(map(len, headers)), echoed_bytes=0)
    if level == "debug":
        proc.until(lambda: len(daemon.lines_about("ended: eof, 0 bytes")) == len(headers), daemon.log)
        assert len(daemon.lines_about("192.0.2.1:4711 to")) >= 2, daemon.log()
    else:
        assert not daemon.lines_about("ended:"), daemon.log()


def test_slow_sender_meets_idle_timeout(start, model):
    daemon = start(model, proxy_protocol=PROXIES, idle_timeout=1)
    with daemon.connect() as sock:
        sock.sendall(v1()[:20])
        assert sock.recv(1) == b""
        daemon.connection_line(peer.endpoint(sock), "idle")


def test_header_from_elsewhere_is_payload(start, model):
    daemon = start(model, proxy_protocol=["127.0.0.2"])
    with daemon.connect() as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, v1())
        peer.finish(sock)
    daemon.connection_line(endpoint, "eof")


def test_allow_and_deny(start, model):
    """They apply to the address in the header; with LOCAL, to that of the proxy."""
    daemon = start(model, proxy_protocol=PROXIES, allow=["192.0.2.0/24"], deny=["192.0.2.66"])
    for header, served in ((v1("192.0.2.1"), True), (v2("192.0.2.66"), False), (v1("198.51.100.1"), False),
                           (HEADERS["v2-local"][0], False)):
        with daemon.connect() as sock:
            sock.sendall(header + b"hello")
            if served:
                assert peer.receive(sock, 5) == b"hello"
                peer.finish(sock)
            else:
                assert peer.ended(sock)
    daemon.connection_line("192.0.2.66:4711", "denied")
    daemon.connection_line("198.51.100.1:4711", "denied")
    metrics.wait_line(daemon, "three refusals", connections_ended__denied=3, connections_accepted=1, connections=0)


@pytest.mark.models("prefork", "prethread", "process", "thread", "select", "poll", "epoll", "io_uring")
def test_max_per_source(start, model):
    """It counts by the address in the header, not by that of the proxy; a reload keeps the counts."""
    daemon = start(model, proxy_protocol=PROXIES, max_per_source=1)

    def enter(source):
        sock = daemon.connect()
        sock.sendall(v2(source) + b"hello")
        return sock

    socks = [enter(f"192.0.2.{n}") for n in range(1, 4)]
    for sock in socks:
        assert peer.receive(sock, 5) == b"hello"
    for _ in range(2):
        with enter("192.0.2.2") as sock:
            assert peer.ended(sock)
        metrics.wait_line(daemon, "refusals", connections=3)
        old = set(daemon.workers())
        daemon.reload()
        # while a connection is between two workers, neither counts its source
        proc.until(lambda: not old & set(daemon.workers()), "the end of the old workers")
        for sock in socks:
            peer.echo(sock, b"still here")
    assert [line for line in daemon.lines_about("192.0.2.2:4711") if "refused" in line and "max-per-source" in line]
    peer.finish(socks[1])

    def admitted():
        with enter("192.0.2.2") as sock:
            return sock.recv(5) == b"hello"
    proc.until(admitted, "a free slot for the source")
    metrics.wait_line(daemon, "the others", connections=2)


def test_reload_in_the_middle_of_headers(start, model):
    """A reload at each byte of the header, from one model to another."""
    header = v2(extensions=bytes(40))
    daemon = start(model, proxy_protocol=PROXIES)
    count = {"iterative": 1, "prefork": 4, "prethread": 4}.get(model, 20)
    places = [len(header) * i // count for i in range(count)]
    socks = [daemon.connect() for _ in places]
    for sock, place in zip(socks, places):
        sock.sendall(header[:place])
    metrics.wait_line(daemon, "all", connections=count)
    daemon.reload(model="epoll" if model != "epoll" else "io_uring" if not echod.REFUSALS["io_uring"] else "poll")
    for sock, place in zip(socks, places):
        sock.sendall(header[place:] + b"behind it")
        assert peer.receive(sock, 9) == b"behind it"
        peer.finish(sock)
        sock.close()
    proc.until(lambda: len(daemon.lines_about("192.0.2.1:4711")) == count, lambda: daemon.log())


def test_counters_of_hand_overs(start, model):
    """A connection counts as handed over and as taken over, by both workers, once its header was received. In model process, a
    child that passes a connection back to its parent does not count it as handed over."""
    daemon = start(model, proxy_protocol=PROXIES, max_per_source=100)
    count = {"iterative": 1, "prefork": 4, "prethread": 4}.get(model, 6)
    socks = [daemon.connect() for _ in range(count)]
    named, waiting = socks[:-1] or socks, socks[-1:]
    for sock in named:
        sock.sendall(v2() + b"hello")
        assert peer.receive(sock, 5) == b"hello"
    if waiting != named:
        waiting[0].sendall(v2()[:10])
        metrics.wait_line(daemon, "all", connections=count, received_bytes=len(named) * len(v2() + b"hello") + 10)
    metrics.wait_line(daemon, "no hand-over", connections=count, connections_accepted=len(named), connections_handed_over=0)
    old = daemon.workers()
    daemon.reload(model="epoll" if model != "epoll" else "poll")
    proc.until(lambda: not any(map(proc.alive, old)), "the end of the old workers")

    def handed_over():
        """There are more hand-overs than connections if an old worker took one from the queue before it saw the stop request."""
        line = metrics.line(daemon)
        both = [line.get(f"connections_{way}_over", 0) for way in ("handed", "taken")]
        return line if both[0] == both[1] >= len(named) else None
    line = proc.until(handed_over, lambda: f"equal counts of connections handed over and taken over: {metrics.line(daemon)}")
    if waiting != named:
        waiting[0].sendall(v2()[10:] + b"hello")
        assert peer.receive(waiting[0], 5) == b"hello"
    metrics.wait_line(daemon, "all accepted", connections=count, connections_accepted=count,
                      connections_handed_over=line["connections_handed_over"],
                      connections_taken_over=line["connections_taken_over"])
    for sock in socks:
        peer.finish(sock)
    metrics.wait_line(daemon, "the end", connections=0, connections_accepted=count, connections_ended__eof=count)


def test_headers_of_queued_connections_at_a_stop(start):
    """The supervisor drains queued connections: it receives the rest of a header, and echoes the data after it."""
    daemon = start("epoll", proxy_protocol=PROXIES)
    socks = [daemon.connect()]
    socks[0].sendall(v1() + b"hello")
    assert peer.receive(socks[0], 5) == b"hello"
    headers = {"complete": v1(), "denied": v1("192.0.2.66"), "invalid": v1("192.0.2.256"), "incomplete": v1()[:-5]}
    for header in headers.values():
        socks.append(daemon.connect())
        socks[-1].sendall(header[:6])
    metrics.wait_line(daemon, "all", connections=5, received_bytes=len(v1()) + 5 + 4 * 6)
    old = daemon.workers()
    daemon.reload(model="iterative", deny=["192.0.2.66"])  # it serves one of them; the others stay in the queue
    proc.until(lambda: not any(map(proc.alive, old)), "the end of the old workers")
    for sock, header in zip(socks[1:], headers.values()):
        sock.sendall(header[6:] + b"behind it" * (header != headers["incomplete"]))
    daemon.stop()
    echoed = dict(zip(headers, map(peer.receive_all, socks[1:])))
    assert echoed == {"complete": b"behind it", "denied": b"", "invalid": b"", "incomplete": b""}
    last = [line for line in daemon.log().splitlines() if "Statistics:" in line][-1]
    for counter in ("connections_accepted 4", "connections_ended denied 1", "connections_ended proxy 1", "connections_ended drain 3"):
        assert re.search(rf" {counter}(,|$)", last), last
    assert [line for line in daemon.lines_about("192.0.2.66:4711") if "refused" in line]


def test_reload_changes_the_list(start, model):
    daemon = start(model)
    daemon.reload(proxy_protocol=PROXIES)
    daemon.wait_processes(echod.processes(model))  # the old workers may still accept until they have ended
    with daemon.connect() as sock:
        sock.sendall(v1() + b"hello")
        assert peer.receive(sock, 5) == b"hello"
        peer.finish(sock)
    daemon.reload(proxy_protocol=[])
    daemon.wait_processes(echod.processes(model))
    with daemon.connect() as sock:
        peer.echo(sock, v1())


HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


@pytest.mark.skipif(not HAPROXY, reason="haproxy is not installed")
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
def test_haproxy(start, model, tmpdir, send):
    """Peers are the clients of haproxy; its health checks are not logged; streams continue during a reload."""
    daemon = start(model, proxy_protocol=["127.0.0.1"])
    port = echod.free_port()
    with open(f"{tmpdir}/haproxy.cfg", "w") as file:
        file.write(f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen echo
    bind 127.0.0.1:{port}
    server echod 127.0.0.1:{daemon.port} {send} check check-send-proxy inter 200ms
""")
    with subprocess.Popen([HAPROXY, "-f", f"{tmpdir}/haproxy.cfg", "-db"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as haproxy:
        try:
            proc.until(lambda: not peer.refused(("127.0.0.1", port)), "haproxy")
            sock = proc.until(lambda: try_connect(("127.0.0.1", port)), "a connection through haproxy")
            endpoint = peer.endpoint(sock)
            peer.echo(sock, peer.data(1 << 20))
            daemon.reload()
            peer.echo(sock, b"after")
            peer.finish(sock)
            sock.close()
            daemon.connection_line(endpoint, "eof")
            if model != "iterative":
                counts = metrics.line(daemon)
                proc.until(lambda: metrics.line(daemon)["connections_accepted"] > counts["connections_accepted"], "a health check")
            assert "proxy," not in daemon.log()
        finally:
            haproxy.terminate()


def try_connect(address):
    """A connection that is echoed, or None while there is none."""
    sock = peer.connect(address)
    try:
        peer.echo(sock, b"hello")
        return sock
    except (OSError, AssertionError):
        sock.close()
        return None
