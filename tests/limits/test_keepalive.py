# SPDX-License-Identifier: ISC
"""tcp-keepalive: the connection of a dead peer ends, that of a silent peer continues."""

import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

import echod
import netns
import peer
import proc

pytestmark = pytest.mark.skipif(not shutil.which("nft"), reason="no nft was found (Debian: apt install nftables)")

EARLY, LATE = 0.5, 3.0  # seconds; a busy machine may be late


class Network:
    """A network namespace in which clients can die: their packets do not arrive any more, and neither do errors."""

    def __init__(self, namespace, port):
        self.namespace, self.port = namespace, port
        namespace.nft("add table inet echod")
        namespace.nft("add chain inet echod input { type filter hook input priority 0 ; }")
        namespace.nft("add chain inet echod output { type filter hook output priority 0 ; }")
        namespace.nft(f"add rule inet echod output tcp sport {port} tcp flags & (rst|syn) == 0 counter")

    def kill_clients(self):
        self.namespace.nft(f"add rule inet echod input tcp dport {self.port} drop")
        self.namespace.nft("add rule inet echod input tcp flags rst drop")

    def sent(self):
        """Packets that the server has sent."""
        text = subprocess.run([*self.namespace.wrap(), "nft", "list", "table", "inet", "echod"], check=True, timeout=20,
                              capture_output=True, text=True).stdout
        return int(re.search(r"counter packets (\d+)", text)[1])


@pytest.fixture
def hole(launch):
    """start(model, ...): a daemon and its Network."""
    with netns.make(lambda inside: None) as namespace:
        def start(model, **keys):
            daemon = launch(model, wrap=namespace.wrap(), idle_timeout=0, **keys)
            daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)
            return daemon, Network(namespace, daemon.port)
        yield start


def connect(network):
    sock = network.namespace.connect("127.0.0.1", ("127.0.0.1", network.port))
    peer.echo(sock, b"hello")
    return sock


def dies(daemon, sock, since, seconds):
    daemon.connection_line(peer.endpoint(sock), "reset", 2 * seconds + LATE)
    took = time.monotonic() - since
    assert seconds - EARLY < took < 2 * seconds + LATE, f"closed after {took:.1f} s"


@pytest.mark.parametrize("seconds", [1, 3])
def test_dead_idle_peer(hole, model, seconds):
    daemon, network = hole(model, tcp_keepalive=seconds)
    sock = connect(network)
    since = time.monotonic()
    network.kill_clients()
    dies(daemon, sock, since, seconds)


def test_three_probes(hole):
    """Three probes are sent, so that a lost packet does not end a connection."""
    daemon, network = hole("epoll", tcp_keepalive=4)
    sock = connect(network)
    network.kill_clients()
    before = network.sent()
    daemon.connection_line(peer.endpoint(sock), "reset", 8 + proc.LIMIT)
    assert network.sent() - before == 3


def test_dead_peer_with_data_in_flight(hole, model):
    """The peer dies before it has acknowledged an echo: keepalive probes are not sent then."""
    daemon, network = hole(model, tcp_keepalive=2)
    sock = connect(network)
    network.namespace.nft("add rule inet echod input tcp dport %d tcp flags & psh == 0 drop" % network.port)
    sock.sendall(b"no acknowledgement of this echo gets through")
    since = time.monotonic()
    dies(daemon, sock, since, 2)


def test_dead_peer_that_did_not_read(hole, model):
    """The peer's window is closed, and the server has unsent data for it."""
    daemon, network = hole(model, tcp_keepalive=2)
    sock = connect(network)
    peer.fill_path(sock)
    since = time.monotonic()
    network.kill_clients()
    dies(daemon, sock, since, 2)


def test_silent_peer_stays(hole, model):
    daemon, network = hole(model, tcp_keepalive=1)
    sock = connect(network)
    before = network.sent()
    proc.until(lambda: network.sent() - before >= 5, "five probes")
    peer.echo(sock, b"still here")
    endpoint = peer.endpoint(sock)
    peer.finish(sock)
    daemon.connection_line(endpoint, "eof")


def test_no_probes(hole):
    daemon, network = hole("epoll", tcp_keepalive=0)
    sock = connect(network)
    with pytest.raises(AssertionError):
        daemon.connection_line(peer.endpoint(sock), "reset", 3)
    sock.close()


def test_reload_applies_to_live_connections(hole, model):
    daemon, network = hole(model, tcp_keepalive=0)
    sock = connect(network)
    daemon.configure(tcp_keepalive=1)
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("Reloaded: ")
    peer.echo(sock, b"taken over")
    since = time.monotonic()
    network.kill_clients()
    dies(daemon, sock, since, 1)


def test_kept_and_passed_listeners(hole, launch):
    """tcp-keepalive applies to new connections of a listener that was kept over a reload, or passed by the service manager."""
    daemon, network = hole("epoll", tcp_keepalive=0)
    daemon.configure(tcp_keepalive=1)
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("Reloaded: ")
    sock = connect(network)
    with network.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as passed:
        passed.bind(("127.0.0.1", 0))
        passed.listen()
        port = passed.getsockname()[1]
        activated = echod.activated([passed])
        activated["wrap"] = network.namespace.wrap() + activated["wrap"]
        # LISTEN_PID is that of ip(8), which executes the other daemon
        other = launch("epoll", tcp_keepalive=1, idle_timeout=0, **activated)
        other.wait_log("Ready: ", timeout=echod.START_TIMEOUT)
    second = network.namespace.connect("127.0.0.1", ("127.0.0.1", port))
    peer.echo(second, b"hello")
    since = time.monotonic()
    network.namespace.nft(f"add rule inet echod input tcp dport {port} drop")
    network.kill_clients()
    dies(daemon, sock, since, 1)
    other.connection_line(peer.endpoint(second), "reset", 2 + LATE)


def test_unix_sockets_have_no_keepalive(start, tmpdir):
    daemon = start("epoll", listen=[f"unix:{tmpdir}/echo.sock"], tcp_keepalive=1)
    peer.visit(f"{tmpdir}/echo.sock")
    daemon.hup()
    peer.visit(f"{tmpdir}/echo.sock")
    assert "warning" not in daemon.log()
