# SPDX-License-Identifier: ISC
"""socket-buffer, and the kernel memory of a connection: the formula of echod(8)."""

import os
import pathlib
import re
import select
import shutil
import socket
import subprocess
import time

import pytest

import echod
import peer
import proc

SLACK = 256 << 10  # by which memory may exceed the bounds of both directions, as echod(8) states


def sysctl(name):
    return [int(number) for number in pathlib.Path("/proc/sys", name.replace(".", "/")).read_text().split()]


def limits():
    return {name: sysctl(f"net.core.{name}")[0] for name in ("rmem_max", "wmem_max")}


def sockets(where):
    """The memory of the TCP or unix sockets that `where` selects, as ss(8) lists it: [{"r": bytes, "rb": bytes, ...}]."""
    out = subprocess.run(["ss", "-Hnm", *where], capture_output=True, text=True, timeout=30, check=True).stdout
    return [{name: int(value) for name, value in re.findall(r"([a-z]+)(\d+)", text)}
            for text in re.findall(r"skmem:\(([^)]*)\)", out)]


def server_side(daemon):
    return sockets(["-t", "state", "established", "sport", "=", f":{daemon.port}"])


def wait_sizes(daemon, sock, size):
    """Wait for the new sizes after a reload: the old workers may serve the connection for a short time."""
    def sizes():
        peer.echo(sock, b"still here")
        return [(s["rb"], s["tb"]) for s in server_side(daemon)] == [(2 * size, 2 * size)]

    proc.until(sizes, lambda: f"a connection with {size} bytes, doubled by the kernel, there is {server_side(daemon)}")


needs_ss = pytest.mark.skipif(not shutil.which("ss"), reason="ss (iproute2) is not installed")


# Values

@pytest.mark.parametrize("name", ["rmem_max", "wmem_max"])
def test_values_beyond_the_kernels_limit_are_rejected(tmpdir, name):
    path = os.path.join(tmpdir, "echod.conf")
    value = limits()[name] + 1
    if value > 1 << 30:
        pytest.skip(f"net.core.{name} allows every value of the key")
    pathlib.Path(path).write_text(f"\n\nsocket-buffer = {value}\n")
    result = echod.run("-t", "-c", path)
    assert result.returncode == echod.EX_CONFIG, result.stderr
    assert re.search(rf"{re.escape(path)}:3: .*net\.core\.{name}, which is {value - 1};", result.stderr), result.stderr


def test_the_largest_value_is_accepted(tmpdir):
    path = os.path.join(tmpdir, "echod.conf")
    pathlib.Path(path).write_text(f"socket-buffer = {min(*limits().values(), 1 << 30)}\n")
    result = echod.run("-t", "-c", path)
    assert result.returncode == echod.EX_OK, result.stderr


# Effect

@needs_ss
def test_it_is_set_on_every_connection(start, model):
    """The buffers have twice the value, as socket(7) states; a reload sets the new value also on existing connections."""
    daemon = start(model, socket_buffer=16384)
    with daemon.connect() as sock:
        peer.echo(sock, peer.data(300000))
        assert [(s["rb"], s["tb"]) for s in server_side(daemon)] == [(32768, 32768)]
        daemon.reload(socket_buffer=32768)
        wait_sizes(daemon, sock, 32768)
        peer.finish(sock)
    with daemon.connect() as sock:
        wait_sizes(daemon, sock, 32768)
        peer.finish(sock)


@needs_ss
def test_back_to_automatic_sizes(start, model):
    """After a reload with socket-buffer = 0 the kernel makes buffers larger again, also those of existing connections."""
    daemon = start(model, socket_buffer=4096)
    old = daemon.connect()
    peer.echo(old, b"old")
    daemon.replace(socket_buffer=0)

    def grown():
        peer.echo(old, b"still here")
        (found,) = server_side(daemon)
        return found["tb"] > 2 * 4096 and found["rb"] > 2 * 4096

    proc.until(grown, lambda: server_side(daemon))  # once the new worker has taken over the connection
    if model != "iterative":  # which serves only the old connection
        with daemon.connect() as sock:
            peer.echo(sock, peer.data(4 << 20))
            assert max(s["tb"] for s in server_side(daemon)) > 65536
            peer.finish(sock)
    peer.finish(old)
    old.close()


@needs_ss
def test_adopted_sockets(launch, model):
    """The listener of a socket unit keeps its sizes unless socket-buffer is set; then connections get that size."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
        with peer.connect(listener.getsockname()) as sock:
            daemon = launch(model, listen=None, port=None, **echod.activated([listener])).wait_ready()
            daemon.port = listener.getsockname()[1]
            peer.echo(sock, b"kept")
            assert [s["rb"] for s in server_side(daemon)] == [40000]
            daemon.reload(socket_buffer=8192)
            wait_sizes(daemon, sock, 8192)
            peer.finish(sock)


@needs_ss
def test_unix_sockets(start, model, tmpdir):
    path = f"{tmpdir}/echo"
    start(model, listen=[f"unix:{path}"], socket_buffer=8192)
    with peer.connect(path) as sock:
        peer.echo(sock, peer.data(100000))
        found = sockets(["-x", "state", "connected", "src", path])
        assert [s["tb"] for s in found] == [16384], found
        peer.finish(sock)


def test_bulk_through_small_buffers(start, model):
    daemon = start(model, socket_buffer=4096, buffer_size=512)
    daemon.visit(peer.data(1 << 20))


# Memory

def fill(crowd):
    """Send, without reading, until no connection accepts more bytes."""
    for sock in crowd:
        sock.settimeout(0)
    last = time.monotonic()
    while time.monotonic() - last < 1.0:
        for sock in select.select([], crowd, [], 0.1)[1]:
            try:
                sock.send(peer.data(1 << 18))
                last = time.monotonic()
            except BlockingIOError:
                pass


@needs_ss
@pytest.mark.models("epoll", "io_uring", "thread")
@pytest.mark.parametrize("buffer", [0, 4096, 65536])
def test_kernel_memory_of_stalled_connections(start, model, buffer, record_property):
    """Clients receive large echoes at full speed, so that the kernel's buffers grow, and then stop reading."""
    daemon = start(model, socket_buffer=buffer, buffer_size=65536, log_connections=False)
    crowd = [peer.connect(daemon.address, rcvbuf=1 << 20, sndbuf=1 << 20) for _ in range(8)]
    for sock in crowd:
        for _ in range(4):
            peer.echo(sock, peer.data(2 << 20))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    fill(crowd)
    found = server_side(daemon)
    assert len(found) == len(crowd)
    held = [s["r"] + s["w"] + s["f"] for s in found]
    bound = 4 * buffer if buffer else sysctl("net.ipv4.tcp_rmem")[2] + sysctl("net.ipv4.tcp_wmem")[2]
    record_property(f"{model}, socket-buffer {buffer}", f"up to {max(held)} bytes of kernel memory for a stalled connection, "
                    f"{sum(held) // len(held)} on average; the formula allows {bound + SLACK}")
    assert max(held) <= bound + SLACK, found
    if buffer == 4096:
        assert max(held) > 0
    for sock in crowd:
        peer.reset(sock)


@needs_ss
def test_the_formula_matters(start):
    """Without socket-buffer a stalled connection uses more memory than the formula allows: the test above can fail."""
    daemon = start("epoll", log_connections=False)
    sock = peer.connect(daemon.address, rcvbuf=1 << 20, sndbuf=1 << 20)
    for _ in range(8):
        peer.echo(sock, peer.data(2 << 20))
    fill([sock])
    (found,) = server_side(daemon)
    assert found["r"] + found["w"] > 4 * 4096 + SLACK, found
    peer.reset(sock)
