# SPDX-License-Identifier: ISC
"""Multipath TCP: listeners, clients with and without it, and reloads that change it."""

import os
import signal
import socket
import threading

import pytest

import echod
import metrics
import netns
import peer
import proc
from multipath import IPPROTO_MPTCP, is_multipath, why_not

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a network namespace")
pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

ADDRESSES = ["127.0.0.1", *(["::1"] if echod.have_ipv6() else [])]


def connect(address, protocol=IPPROTO_MPTCP, timeout=peer.PATIENCE):
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM, protocol)
    sock.settimeout(timeout)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize("host", ADDRESSES)
def test_clients_with_and_without(start, model, host):
    """Clients with and without Multipath TCP get the same echo, half-close and log line."""
    daemon = start(model, listen=[host], mptcp=True)
    assert "(mptcp)" in daemon.log()
    for protocol in (IPPROTO_MPTCP, socket.IPPROTO_TCP):
        with connect((host, daemon.port), protocol) as sock:
            endpoint = peer.endpoint(sock)
            if protocol == IPPROTO_MPTCP:
                assert is_multipath(sock)
            peer.echo(sock, b"hello")
            peer.echo(sock, peer.data(8 << 20))  # through a pipe
            peer.finish(sock)
        assert str(5 + (8 << 20)) in daemon.connection_line(endpoint, "eof")
    metrics.wait_line(daemon, "both", connections_ended__eof=2)


def test_switched_off(start, model):
    """The server answers a client that offers Multipath TCP with plain TCP."""
    daemon = start(model)
    with connect(daemon.address) as sock:
        peer.echo(sock, b"hello")
        assert not is_multipath(sock)
        peer.finish(sock)


def test_limits_and_idle_timeout(start, model):
    daemon = start(model, mptcp=True, idle_timeout=1, tcp_keepalive=5, socket_buffer=65536, max_per_source=1,
                   deny=["127.0.0.2"], log_level="debug")
    with connect(daemon.address) as sock:
        peer.echo(sock, peer.data(1 << 20))
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as denied:
            denied.settimeout(peer.PATIENCE)
            denied.bind(("127.0.0.2", 0))
            denied.connect(daemon.address)
            if model not in ("iterative",):
                assert peer.ended(denied)
        assert sock.recv(1) == b""
        daemon.connection_line(peer.endpoint(sock), "idle")


def test_keepalive_is_set(start, model):
    """Keep-alive is set, but not TCP_USER_TIMEOUT, which Multipath TCP does not support."""
    daemon = start(model, mptcp=True, tcp_keepalive=77)
    with connect(daemon.address) as sock:
        peer.echo(sock, b"hello")
        timers = os.popen(f"ss -Htno state established 'sport = :{daemon.port}'").read()
        assert "keepalive" in timers, timers


def listeners(port):
    """The number of sockets that listen on the port."""
    return len(os.popen(f"ss -Htln 'sport = :{port}'").read().splitlines())


@pytest.mark.parametrize("host, before", list(zip(ADDRESSES, [False, True])))  # each model changes it in both directions
def test_reload_that_changes_it_loses_no_client(start, model, host, before):
    """Clients connect continuously, with and without Multipath TCP: none is refused, reset or delayed."""
    daemon = start(model, listen=[host], mptcp=before)
    old = connect((host, daemon.port))
    peer.echo(old, b"before")
    failed, stop, done = [], threading.Event(), [0]

    def visit(protocol):
        while not stop.is_set():
            try:
                with connect((host, daemon.port), protocol) as sock:
                    peer.echo(sock, b"hello")
                    peer.finish(sock)
                done[0] += 1
            except (OSError, AssertionError) as error:
                failed.append(error)
                return

    def some():
        base = done[0]
        proc.until(lambda: failed or done[0] >= base + 20, "clients")

    threads = [threading.Thread(target=visit, args=(protocol,)) for protocol in (IPPROTO_MPTCP, socket.IPPROTO_TCP)]
    if model in ("iterative",):
        peer.finish(old)  # there is one worker
    for thread in threads:
        thread.start()
    try:
        for wanted in (not before, before):
            some()
            daemon.reload(mptcp=wanted)
            daemon.wait_log(r"Reloaded: .*" + (r"\(mptcp\)" if wanted else rf":{daemon.port}$"))
            some()
            proc.until(lambda: listeners(daemon.port) == 1, "the end of the old listener")
            some()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed, failed
    if model != "iterative":
        peer.echo(old, b"after")
        peer.finish(old)
    with connect((host, daemon.port)) as sock:
        peer.echo(sock, b"hello")
        assert is_multipath(sock) == before


def test_crash_with_the_store(start, model):
    """The next process uses the stored listener if it has the configured protocol, and otherwise opens a new one."""
    port = echod.free_port()
    first = start(model, store=True, port=port, mptcp=True)
    first.visit()
    for wanted in (True, False):
        first.expect = -signal.SIGKILL
        first.signal(signal.SIGKILL)
        assert first.wait_exit() == -signal.SIGKILL
        proc.until(lambda: not proc.tagged(first.tag), "the end of its workers")
        waiting = connect(first.address)
        waiting.sendall(b"is anybody there?")
        kept = first.notify.take_store()
        first = start(model, store=True, port=port, mptcp=wanted,
                      **echod.activated([fd for _, fd in kept], ":".join(name for name, _ in kept)))
        for _, fd in kept:
            os.close(fd)
        assert peer.receive(waiting, 17) == b"is anybody there?"
        peer.finish(waiting)


@root
def test_kernel_where_it_is_switched_off(launch):
    """The start fails with exit status 69, and the message names the sysctl; a reload fails and changes nothing."""
    with netns.make(lambda inside: inside.sysctl("net.mptcp.enabled=0")) as namespace:
        said = launch(mptcp=True, wrap=namespace.wrap()).fails(echod.EX_UNAVAILABLE)
        assert "net.mptcp.enabled" in said and "mptcp = false" in said
        daemon = launch(wrap=namespace.wrap())
        daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)
        daemon.configure(mptcp=True)
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("Reload failed.*net.mptcp.enabled")
        with namespace.connect("127.0.0.1", ("127.0.0.1", daemon.port)) as sock:
            peer.echo(sock, b"still here")
