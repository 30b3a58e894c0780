# SPDX-License-Identifier: ISC
"""The addresses on which echod listens, and its messages when it cannot listen."""

import os
import re
import signal
import socket
import stat

import pytest

import echod
import netns
import peer
import proc

ipv6 = pytest.mark.skipif(not echod.have_ipv6(), reason="no IPv6 on this host")
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")


def listener(address, family=socket.AF_INET):
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    sock.listen(128)
    return sock


def test_ipv4(start, model):
    daemon = start(model, listen=["127.0.0.1"])
    daemon.visit()
    assert peer.refused(("127.0.0.2", daemon.port))


@ipv6
def test_ipv6(start, model):
    daemon = start(model, listen=["::1"])
    peer.visit(("::1", daemon.port))
    assert peer.refused(("127.0.0.1", daemon.port))
    with peer.connect(("::1", daemon.port)) as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    daemon.connection_line(endpoint, "eof")


@ipv6
def test_star_is_both(start, model):
    daemon = start(model, listen=["*"])
    peer.visit(("127.0.0.1", daemon.port))
    peer.visit(("127.0.0.3", daemon.port))
    peer.visit(("::1", daemon.port))
    with daemon.connect() as sock:  # the peer is written as IPv4, not as an IPv4-mapped address
        endpoint = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    assert "::ffff" not in daemon.connection_line(endpoint, "eof")


@ipv6
def test_one_port_on_ipv4_and_ipv6_separately(start):
    daemon = start(listen=["127.0.0.1", "::1"])
    daemon.visit()
    peer.visit(("::1", daemon.port))


@ipv6
def test_wildcards_of_both_families_side_by_side(start):
    """The IPv6 wildcard address takes IPv6 alone, so both may have the same port."""
    daemon = start(listen=["0.0.0.0", "::"])
    daemon.visit()
    peer.visit(("::1", daemon.port))


def test_several_addresses_with_ports_of_their_own(start, model):
    first, second, third = (echod.free_port() for _ in range(3))
    start(model, port=first, listen=["127.0.0.1", f"127.0.0.1:{second}", f"127.0.0.2:{third}"])
    for address in ("127.0.0.1", first), ("127.0.0.1", second), ("127.0.0.2", third):
        peer.visit(address, b"to %d" % address[1])
    assert peer.refused(("127.0.0.2", first))


@ipv6
def test_bracketed_ipv6_with_port(start):
    port = echod.free_port()
    start(listen=[f"[::1]:{port}"])
    peer.visit(("::1", port))


def test_every_listener_is_served_while_another_is_busy(start, model):
    """Fairness: continuous connections to one address do not starve clients of another."""
    second = echod.free_port()
    daemon = start(model, listen=["127.0.0.1", f"127.0.0.1:{second}"])
    for _ in range(20):
        daemon.visit()
        peer.visit(("127.0.0.1", second))


# Unix sockets

def test_unix_socket(start, model, tmpdir):
    path = f"{tmpdir}/echo.sock"
    daemon = start(model, listen=[f"unix:{path}", "127.0.0.1"])
    peer.visit(path, peer.data(1048576))
    daemon.visit()
    mode = os.stat(path).st_mode
    assert stat.S_ISSOCK(mode)
    daemon.stop()
    assert not os.path.exists(path), "the socket's file was not removed"


def test_unix_socket_has_the_same_permissions_whatever_the_umask(start, tmpdir):
    """Read and write for owner and group, independent of the caller's umask."""
    modes = set()
    for umask in (0, 0o022, 0o077):
        path = f"{tmpdir}/echo-{umask}.sock"
        start(listen=[f"unix:{path}"], umask=umask)
        modes.add(stat.S_IMODE(os.stat(path).st_mode))
    assert len(modes) == 1, [oct(mode) for mode in modes]
    assert modes == {0o660}


def test_stale_unix_socket_is_replaced(start, tmpdir):
    path = f"{tmpdir}/echo.sock"
    listener(path, socket.AF_UNIX).close()
    assert os.path.exists(path)
    start(listen=[f"unix:{path}"])
    peer.visit(path)


def test_stale_unix_socket_after_a_crash_is_replaced(start, tmpdir):
    path = f"{tmpdir}/echo.sock"
    first = start(listen=[f"unix:{path}"])
    first.expect = -9
    first.signal(9)
    assert first.wait_exit() == -9
    proc.until(lambda: not proc.tagged(first.tag), "the end of its workers")
    assert os.path.exists(path)
    start(listen=[f"unix:{path}"])
    peer.visit(path)


def test_live_unix_socket_is_refused(start, launch, tmpdir):
    """The second daemon fails with a message, and the first keeps its socket."""
    path = f"{tmpdir}/echo.sock"
    start(listen=[f"unix:{path}"])
    said = launch(listen=[f"unix:{path}"]).fails(echod.EX_UNAVAILABLE)
    assert path in said
    peer.visit(path)


def test_file_that_is_no_socket_is_not_touched(launch, tmpdir):
    path = f"{tmpdir}/precious"
    with open(path, "w") as file:
        file.write("data")
    said = launch(listen=[f"unix:{path}"]).fails(echod.EX_UNAVAILABLE)
    assert path in said
    with open(path) as file:
        assert file.read() == "data"


def test_unix_socket_in_a_missing_directory(launch, tmpdir):
    path = f"{tmpdir}/nowhere/echo.sock"
    daemon = launch(listen=[f"unix:{path}"])
    said = daemon.failed()
    assert path in said and "tcp" not in said
    assert daemon.returncode in (echod.EX_UNAVAILABLE, echod.EX_OSERR, echod.EX_NOPERM)


# Errors

def test_taken_port(launch):
    """Exit status 69, and the message names the address."""
    port = echod.free_port()
    with listener(("127.0.0.1", port)):
        said = launch(port=port).fails(echod.EX_UNAVAILABLE)
    assert f"127.0.0.1:{port}" in said, said


def test_second_daemon_on_the_same_port(start, launch, model):
    first = start(model)
    said = launch(model, port=first.port).fails(echod.EX_UNAVAILABLE)
    assert str(first.port) in said
    first.visit()


def test_one_taken_port_among_several(launch):
    """The start fails, and no address is served."""
    port, other = echod.free_port(), echod.free_port()
    with listener(("127.0.0.1", port)):
        said = launch(listen=[f"127.0.0.1:{other}", f"127.0.0.1:{port}"]).fails(echod.EX_UNAVAILABLE)
    assert f"127.0.0.1:{port}" in said, said
    assert peer.refused(("127.0.0.1", other))


@pytest.mark.parametrize("address", ["192.0.2.77", pytest.param("2001:db8::77", marks=ipv6)])
def test_address_of_another_host(start, launch, address):
    """With freebind there is a warning, and the address is served once the host has it; without, the start fails."""
    said = launch(listen=[address], freebind=False).fails(echod.EX_UNAVAILABLE)
    assert address in said and "freebind" in said
    daemon = start(listen=[address, "127.0.0.1"], protocols=["tcp", "udp"])
    assert len([line for line in daemon.log().splitlines() if "warning: " in line and address in line]) == 2, daemon.log()
    daemon.visit()


# Addresses and interfaces that appear later

def wire(inside):
    inside.setup("link", "add", "wire", "type", "veth", "peer", "name", "other")


@pytest.fixture
def wired():
    """A namespace with a pair of interfaces, `wire` and `other`, both down."""
    with netns.make(wire) as made:
        yield made


def echoes(namespace, address, kind=socket.SOCK_STREAM):
    """Whether the address answers."""
    with namespace.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, kind) as sock:
        sock.settimeout(1)
        try:
            sock.connect(address)
            sock.sendall(b"hello")
            return sock.recv(16) == b"hello"
        except OSError:
            return False


@root
@pytest.mark.parametrize("address, prefix", [("192.0.2.7", 24), pytest.param("2001:db8::7", 64, marks=ipv6)])
def test_address_that_comes_after_the_start(launch, wired, model, address, prefix):
    """Over TCP and UDP it is served as soon as it appears, also after it was removed and added again."""
    daemon = launch(model, listen=[address], protocols=["tcp", "udp"], wrap=wired.wrap())
    daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)
    for _ in range(2):
        assert not echoes(wired, (address, daemon.port))
        wired.setup("address", "add", f"{address}/{prefix}", "dev", "wire", *(["nodad"] if ":" in address else []))
        wired.setup("link", "set", "wire", "up")
        for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
            proc.until(lambda: echoes(wired, (address, daemon.port), kind), "an echo")
        wired.setup("address", "del", f"{address}/{prefix}", "dev", "wire")


@root
@ipv6
@pytest.mark.parametrize("freebind", [True, False])
def test_address_in_duplicate_address_detection(launch, wired, freebind):
    """It causes neither an error nor a warning, and is served once the detection has finished."""
    wired.sysctl("net.ipv6.conf.wire.dad_transmits=3")
    wired.setup("link", "set", "wire", "up")
    wired.setup("link", "set", "other", "up")
    wired.setup("address", "add", "2001:db8::8/64", "dev", "wire")
    daemon = launch("epoll", listen=["2001:db8::8"], freebind=freebind, wrap=wired.wrap())
    daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)
    assert "2001:db8::8" in daemon.log() and "warning" not in daemon.log(), daemon.log()
    proc.until(lambda: echoes(wired, ("2001:db8::8", daemon.port)), "an echo")


@ipv6
@pytest.mark.parametrize("protocols", [["tcp"], ["udp"]])
def test_missing_interface(launch, protocols):
    """Exit status 69, not 78, because the file is correct."""
    keys = {"listen": ["fe80::1%missing0", "127.0.0.1"], "protocols": protocols, "port": echod.free_port()}
    said = launch(**keys).fails(echod.EX_UNAVAILABLE)
    assert "missing0" in said and "no such interface" in said
    daemon = launch(daemonize=True, **keys)
    assert "missing0" in daemon.fails(echod.EX_UNAVAILABLE)
    tested = echod.run("-t", "-c", daemon.config)
    assert tested.returncode == 0, tested.stderr
    assert launch(listen=["fe80::1%4294967295"]).fails(echod.EX_UNAVAILABLE)


def test_two_missing_interfaces_are_not_the_same(tmpdir):
    path = f"{tmpdir}/conf"
    for listen, status in (("fe80::1%missing0", 0), ("[fe80::1%missing1]", echod.EX_CONFIG)):
        with open(path, "w") as file:
            file.write(f'listen = {{"[fe80::1%missing1]:7", "{listen}"}}\n')
        assert echod.run("-t", "-c", path).returncode == status


@root
@ipv6
def test_interface_that_comes_while_systemd_waits(launch, wired):
    """The start waits for the interface."""
    wired.setup("link", "set", "wire", "down")
    daemon = launch(listen=["fe80::7%late0"], wrap=wired.wrap(), env={"INVOCATION_ID": "0" * 32})
    proc.until(lambda: proc.status(daemon.pid)["State"].startswith("S"), "a process that waits")
    wired.setup("link", "set", "wire", "name", "late0")
    wired.setup("link", "set", "late0", "up")
    wired.setup("address", "add", "fe80::7/64", "dev", "late0", "nodad")
    daemon.wait_log("Ready: .*late0")


@ipv6
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_it_waits_for_an_interface(launch, number):
    daemon = launch(listen=["fe80::7%missing0"], env={"INVOCATION_ID": "0" * 32})
    assert "missing0" in daemon.notify.wait("STATUS")["STATUS"]
    daemon.signal(signal.SIGHUP)
    daemon.signal(number)
    assert daemon.wait_exit() == 0


@ipv6
def test_reload_with_a_missing_interface(start):
    daemon = start("epoll")
    daemon.configure(listen=["127.0.0.1", "fe80::1%missing0"])
    _, ready = daemon.hup()
    assert "missing0" in ready["STATUS"] and "missing0" in daemon.log()
    daemon.visit()
    daemon.reload(listen=["127.0.0.1"])
    daemon.visit()


@root
def test_privileged_port_without_privilege(launch, visible):
    """Exit status 77, and a message that names the address."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) <= 7:
            pytest.skip("port 7 needs no privilege here")
    said = launch(port=7, listen=["127.0.0.1"], program=visible, wrap=echod.as_nobody()).fails(echod.EX_NOPERM)
    assert "127.0.0.1:7" in said, said


@root
def test_unprivileged_user_serves_a_high_port(start, visible, model):
    daemon = start(model, program=visible, wrap=echod.as_nobody())
    daemon.visit()


def test_port_in_time_wait_can_be_taken_again(start):
    """A restart need not wait for connections in TIME_WAIT, which the first daemon closed itself."""
    first = start()
    socks = [first.connect() for _ in range(5)]
    for sock in socks:
        peer.echo(sock, b"hello")
    first.stop()
    for sock in socks:
        assert peer.ended(sock)
        sock.close()
    start(port=first.port).visit()


# Sockets passed by the service manager

def test_activation_replaces_listen_and_port(start, model, tmpdir):
    port, unused = echod.free_port(), echod.free_port()
    path = f"{tmpdir}/passed.sock"
    passed = [listener(("127.0.0.1", port)), listener(path, socket.AF_UNIX)]
    daemon = start(model, port=unused, **echod.activated(passed, "net:local"))
    for sock in passed:
        sock.close()
    peer.visit(("127.0.0.1", port), peer.data(65536))
    peer.visit(path, peer.data(65536))
    assert peer.refused(("127.0.0.1", unused)), "the file's port is served too"
    daemon.stop()
    assert os.path.exists(path), "a socket file of the manager was removed"


def test_activation_without_names(start):
    port = echod.free_port()
    with listener(("127.0.0.1", port)) as passed:
        start(**echod.activated([passed]))
    peer.visit(("127.0.0.1", port))


@ipv6
def test_activation_with_ipv6(start):
    port = echod.free_port()
    with listener(("::1", port), socket.AF_INET6) as passed:
        start(**echod.activated([passed], "six"))
    peer.visit(("::1", port))


def test_activation_in_a_blocking_socket(start, model):
    """The manager's sockets may be blocking; a client that closes before accept(2) must not delay other clients."""
    port = echod.free_port()
    with listener(("127.0.0.1", port)) as passed:
        passed.setblocking(True)
        start(model, **echod.activated([passed]))
    for _ in range(20):
        peer.reset(peer.connect(("127.0.0.1", port)))
    peer.visit(("127.0.0.1", port))


def test_activation_mismatch_is_logged(start):
    """The unit's socket has another port than the configuration file: a line in the log names it."""
    port = echod.free_port()
    with listener(("127.0.0.1", port)) as passed:
        daemon = start(**echod.activated([passed]))
    assert re.search(rf"\b{port}\b", daemon.log()), daemon.log()


def test_activation_for_another_process_is_ignored(start):
    """LISTEN_PID is the pid of another process: echod ignores the variables."""
    daemon = start(env={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    daemon.visit()


def test_activation_with_an_unusable_descriptor(launch, tmpdir):
    """A passed descriptor that is not a listening socket is refused."""
    with open(f"{tmpdir}/file", "w") as file:
        daemon = launch(**echod.activated([file]))
        said = daemon.failed()
    assert daemon.returncode in (echod.EX_UNAVAILABLE, echod.EX_CONFIG, echod.EX_OSERR), said
    assert said.strip()


def test_activated_connections_survive_a_reload(start):
    """Passed sockets stay in use, independent of `listen` in the new file."""
    port = echod.free_port()
    with listener(("127.0.0.1", port)) as passed:
        daemon = start("epoll", **echod.activated([passed]))
    stream = peer.Stream(("127.0.0.1", port))
    stream.progress()
    daemon.reload(model="thread")
    peer.visit(("127.0.0.1", port))
    stream.progress()
    stream.finish()


# The descriptor store of the service manager

def test_listener_survives_a_crash_in_the_store(start, model, tmpdir):
    """SIGKILL for the service: clients that connect meanwhile wait in the backlog, and the next process serves them."""
    path = f"{tmpdir}/echo.sock"
    keys = {"listen": ["127.0.0.1", f"unix:{path}"], "port": echod.free_port()}
    first = start(model, store=True, **keys)
    first.visit()
    first.expect = -signal.SIGKILL
    first.signal(signal.SIGKILL)
    assert first.wait_exit() == -signal.SIGKILL
    proc.until(lambda: not proc.tagged(first.tag), "the end of its workers")
    waiting = first.connect()
    waiting.sendall(b"is anybody there?")
    kept = first.notify.take_store()
    assert kept, "nothing in the store"
    second = start(model, store=True, **echod.activated([fd for _, fd in kept], ":".join(name for name, _ in kept)),
                   **keys)
    for _, fd in kept:
        os.close(fd)
    assert peer.receive(waiting, 17) == b"is anybody there?"
    peer.finish(waiting)
    second.visit()
    peer.visit(path)
    second.stop()
    assert not os.path.exists(path), "the file of a stored socket was not removed"


def test_stored_listeners_are_given_back_at_a_stop(start):
    """A stored socket would keep the port in use during the stop. Without it, new clients are refused at once."""
    daemon = start("epoll", store=True, drain_timeout=30)
    sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    daemon.term()
    daemon.notify.wait("STOPPING=1")
    proc.until(lambda: peer.refused(daemon.address), "the end of the listener")
    peer.same(read + peer.receive_all(sock), sent)
    sock.close()
    assert daemon.wait_exit() == 0


def test_port_that_is_no_longer_served_is_removed_from_the_store(start):
    daemon = start("epoll", store=True)
    old = daemon.address
    daemon.reload(port=echod.free_port())
    daemon.visit()
    proc.until(lambda: peer.refused(old), "the end of the old listener")
