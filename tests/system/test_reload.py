# SPDX-License-Identifier: ISC
"""SIGHUP: all settings may change, without effect on connected clients."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import threading

import pytest

import echod
import netns
import peer
import proc


@pytest.mark.timeout(180)
def test_from_this_model_to_every_other(request, start, model):
    """A verified stream is in flight across each change, and is finished under the next model.

    The test changes from `model` to each other model and back, so that all parameters together cover all ordered pairs.
    """
    daemon = start(model)
    refusals = echod.REFUSALS
    for other in [name for name in echod.MODELS if name != model and not refusals.get(name)]:
        for change in other, model:
            stream = peer.Stream(daemon.address, seed=40)
            stream.progress(200000)
            daemon.reload(model=change)
            stream.progress(200000)
            stream.finish()
            daemon.visit(b"served by " + change.encode())
    daemon.wait_processes(echod.processes(model))


def test_idle_and_half_closed_connections_live_on(start, model):
    """An idle connection, and a half-closed one that the server still sends to, survive a reload."""
    target = "epoll" if model != "epoll" else "thread"
    daemon = start(model, **({"workers": 3} if model in ("prefork", "prethread") else {}))
    quiet = daemon.connect()
    peer.echo(quiet, b"before")
    slow = None
    if model != "iterative":
        slow = daemon.connect(rcvbuf=16384, sndbuf=peer.FILL_SNDBUF)
        sent = peer.fill_path(slow)
        slow.shutdown(1)
    daemon.reload(model=target)
    peer.echo(quiet, b"after")
    peer.finish(quiet)
    if slow:
        peer.same(peer.receive_all(slow), sent)
        slow.close()


def test_reload_without_a_change(start, model):
    """Twenty reloads during a stream; processes and descriptors do not accumulate."""
    daemon = start(model)
    daemon.hup()
    daemon.visit()
    daemon.wait_processes(echod.processes(model))
    descriptors = daemon.descriptors()
    stream = peer.Stream(daemon.address)
    for _ in range(20):
        stream.progress(10000)
        daemon.hup()
    stream.finish()
    daemon.hup()  # a new crew, in the state that the first one had
    daemon.visit()
    daemon.wait_processes(echod.processes(model))
    proc.until(lambda: daemon.descriptors() <= descriptors,
               lambda: f"{daemon.descriptors()} descriptors instead of {descriptors}")


def test_workers_change(start, model):
    if model == "iterative":
        pytest.skip("iterative has one worker always")
    daemon = start(model, workers=2)
    stream = peer.Stream(daemon.address)
    stream.progress()
    for workers in 4, 1, 3:
        daemon.reload(workers=workers)
        stream.progress()
    stream.finish()
    daemon.visit()
    if model == "prefork":
        daemon.wait_processes(4)


def given_up(address):
    """Wait until the listener is closed: the old crew has it open until it has handed over its last connection."""
    proc.until(lambda: peer.refused(address), f"the end of the listener at {address}")


def test_port_change(start, model):
    """The old port is closed, its connections survive, and the new port is served."""
    daemon = start(model)
    old, port = daemon.address, echod.free_port()
    stream = peer.Stream(old)
    stream.progress()
    daemon.reload(port=port)
    stream.progress()
    given_up(old)
    stream.finish()
    peer.visit(("127.0.0.1", port))


def test_listen_change(start, tmpdir):
    """Addresses are added and removed; clients of the other addresses are never refused."""
    second, third = echod.free_port(), echod.free_port()
    path = f"{tmpdir}/echo.sock"
    daemon = start(listen=["127.0.0.1", f"127.0.0.1:{second}"])
    daemon.reload(listen=["127.0.0.1", f"127.0.0.1:{third}", f"unix:{path}"])
    daemon.visit()
    peer.visit(("127.0.0.1", third))
    peer.visit(path)
    given_up(("127.0.0.1", second))
    daemon.reload(listen=["127.0.0.1"])
    daemon.visit()
    given_up(("127.0.0.1", third))
    assert not os.path.exists(path), "the file of a closed socket was not removed"


def test_between_star_and_one_address(start):
    """The same port, first on one address, then on all, then on one again: the sockets overlap."""
    daemon = start(listen=["127.0.0.1"])
    daemon.reload(listen=["*"])
    peer.visit(("127.0.0.2", daemon.port))
    daemon.visit()
    daemon.reload(listen=["127.0.0.1"])
    daemon.visit()
    given_up(("127.0.0.2", daemon.port))


class Visitors:
    """Threads whose clients connect and close continuously. `refused`: whether connections may be refused."""

    def __init__(self, addresses, refused=False):
        self.wrong, self.visits, self.stop = [], [0] * len(addresses), threading.Event()
        self.refused = refused
        self.threads = [threading.Thread(target=self._run, args=pair, daemon=True) for pair in enumerate(addresses)]
        for thread in self.threads:
            thread.start()

    def _run(self, number, address):
        while not self.stop.is_set():
            try:
                peer.visit(address, b"is anybody there?")
                self.visits[number] += 1
            except ConnectionRefusedError as error:
                if not self.refused:
                    self.wrong.append((address, error))
                    return
            except Exception as error:
                self.wrong.append((address, error))
                return

    def come(self):
        """Wait until the clients of each address have been served again, or one has failed."""
        seen = list(self.visits)
        proc.until(lambda: self.wrong or all(now > before + 5 for now, before in zip(self.visits, seen)), "visits")

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(peer.PATIENCE)
        assert not self.wrong, self.wrong


def test_overlapping_listen_refuses_no_client(start, model):
    """Clients connect during changes from an address to "*" and back, and to the wildcard address of one family."""
    addresses = ["127.0.0.1"] + (["::1"] if echod.have_ipv6() else [])
    wildcards = ["0.0.0.0"] + (["::"] if echod.have_ipv6() else [])
    daemon = start(model, listen=addresses)
    visitors = Visitors([(address, daemon.port) for address in addresses])
    for listen in (["*"], addresses, wildcards, ["*"], [*addresses[1:], wildcards[0]], addresses):
        for _ in range(2):
            daemon.reload(listen=listen)
            visitors.come()
    visitors.finish()


def test_listener_that_a_wildcard_covers_is_closed_with_it(start):
    daemon = start(listen=["127.0.0.1"])
    old, port = daemon.address, echod.free_port()
    daemon.reload(listen=["*"])
    daemon.reload(port=port)
    given_up(old)
    peer.visit(("127.0.0.1", port))


def test_an_address_that_is_removed_resets_no_client(start, model):
    """Clients of an address that is removed are served or refused, but not reset."""
    second = echod.free_port()
    daemon = start(model, listen=["127.0.0.1", f"127.0.0.1:{second}"])
    visitors = Visitors([("127.0.0.1", second)] * 3, refused=True)
    for _ in range(5):
        visitors.come()
        daemon.reload(listen=["127.0.0.1"])
        given_up(("127.0.0.1", second))
        daemon.reload(listen=["127.0.0.1", f"127.0.0.1:{second}"])
    visitors.finish()


@pytest.mark.skipif(not shutil.which("nft"), reason="no nft was found (Debian: apt install nftables)")
def test_a_handshake_that_has_begun_completes(launch):
    """Clients have sent their SYN when the address is removed, and their ACK arrives later: none is reset."""
    with netns.make(lambda inside: inside.nft("add table inet echod")) as network:
        second = echod.free_port()
        daemon = launch("epoll", listen=["127.0.0.1", f"127.0.0.1:{second}"], wrap=network.wrap())
        daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)
        daemon.configure(listen=["127.0.0.1"])
        network.nft("add chain inet echod input { type filter hook input priority 0 ; }")
        network.nft(f"add rule inet echod input tcp dport {second} tcp flags & syn == 0 drop")
        clients = [network.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(20)]
        for sock in clients:
            sock.connect(("127.0.0.1", second))
            sock.sendall(b"hello")
        assert network.tcp("03") == len(clients), "incomplete handshakes (TCP_SYN_RECV)"
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("Reloaded: ")
        network.nft("delete table inet echod")
        for sock in clients:
            assert peer.receive(sock, 5) == b"hello"
            peer.finish(sock)
        late = network.socket(socket.AF_INET, socket.SOCK_STREAM)
        assert late.connect_ex(("127.0.0.1", second)) == errno.ECONNREFUSED
        late.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_unix_socket_whose_file_is_gone_is_made_again(start, tmpdir, replaced):
    path, second = f"{tmpdir}/echo.sock", f"{tmpdir}/second.sock"
    daemon = start("epoll", store=True, listen=[f"unix:{path}", f"unix:{second}"])
    stream = peer.Stream(path)
    stream.progress()
    inode = os.stat(second).st_ino
    os.unlink(path)
    if replaced:  # by a socket that does not listen
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
    daemon.hup()
    peer.visit(path)
    stream.progress()
    stream.finish()
    assert os.stat(second).st_ino == inode, "the other socket was replaced too"
    assert sorted(name for name, _ in daemon.notify.store if "echo" in name and "sock" in name).__len__() == 2
    daemon.stop()
    assert not os.path.exists(path)


def test_unix_socket_whose_place_is_taken(start, tmpdir):
    """The reload fails with a message."""
    path = f"{tmpdir}/echo.sock"
    daemon = start("epoll", listen=[f"unix:{path}", "127.0.0.1"])
    os.unlink(path)
    with open(path, "w"):
        pass
    said, ready = failed_reload(daemon)
    assert path in said and path in ready["STATUS"]
    daemon.visit()
    daemon.stop()
    assert os.path.exists(path)


def test_reload_refuses_no_client(start, model):
    """Clients connect and close continuously; none is refused during a reload, which may change the model."""
    daemon = start(model)
    wrong, visits, stop = [], [0], threading.Event()

    def come_and_go():
        while not stop.is_set():
            try:
                daemon.visit(b"is anybody there?")
                visits[0] += 1
            except Exception as error:
                wrong.append(error)
                return

    visitor = threading.Thread(target=come_and_go, daemon=True)
    visitor.start()
    for change in ("epoll", model, "poll", model):
        daemon.reload(model=change)
        seen = visits[0]
        proc.until(lambda: visits[0] > seen + 5 or wrong, "visits after the reload")
    stop.set()
    visitor.join(peer.PATIENCE)
    assert not wrong, wrong
    assert visits[0] > 20


def test_backlog_of_waiting_clients_is_kept(start):
    """Clients that wait in the backlog for an iterative worker are served by the next crew."""
    daemon = start("iterative")
    first = daemon.connect()
    peer.echo(first, b"hello")
    waiting = [daemon.connect() for _ in range(10)]
    for number, sock in enumerate(waiting):
        sock.sendall(b"number %d" % number)
    daemon.reload(model="epoll")
    for number, sock in enumerate(waiting):
        assert peer.receive(sock, 8) == b"number %d" % number
    peer.echo(first, b"still here")
    peer.finish(first)
    for sock in waiting:
        sock.close()


def test_time_outs_change(start):
    """The new time-out applies to a new connection."""
    daemon = start("epoll", idle_timeout=600, log_level="debug")
    daemon.reload(idle_timeout=1)
    with daemon.connect() as sock:
        assert sock.recv(1) == b""
        daemon.connection_line(peer.endpoint(sock), "idle")


def test_log_level_changes_with_the_reload(start, model):
    """The new level applies to the workers too."""
    daemon = start(model, log_level="notice")
    for level in "info", "notice", "debug":
        daemon.replace(log_level=level)
        with daemon.connect() as sock:
            endpoint = peer.endpoint(sock)
            peer.echo(sock, b"hello")
            peer.finish(sock)
        if level != "notice":
            daemon.connection_line(endpoint, "eof")
    daemon.stop()
    assert daemon.log().count("127.0.0.1:") and len(re.findall(r"\beof\b", re.sub("Statistics.*", "", daemon.log()))) == 2


def test_log_level_and_log_connections_change(start):
    daemon = start("epoll", log_connections=False)
    with daemon.connect() as sock:
        unseen = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    daemon.replace(log_connections=True)
    with daemon.connect() as sock:
        seen = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    daemon.connection_line(seen, "eof")
    assert not daemon.lines_about(unseen)


# An invalid configuration changes nothing

def failed_reload(daemon):
    since = len(daemon.log())
    reloading, ready = daemon.hup()
    return daemon.log()[since:], ready


def test_bad_file_changes_nothing(start, model):
    """The error is in the log with its file and line, and in the status; the stream continues."""
    daemon = start(model)
    before = daemon.workers()
    stream = peer.Stream(daemon.address)
    stream.progress()
    good = daemon.config.read_text()
    daemon.config.write_text("model = \"poll\"\nport = 99999\nnonsense = 1\n")
    since = len(daemon.log())
    reloading, ready = daemon.hup()
    daemon.wait_log(re.escape(f"{daemon.config}:2:"), since)
    daemon.wait_log(re.escape(f"{daemon.config}:3:"), since)
    status = daemon.notify.wait("STATUS", since=daemon.notify.messages.index(ready))
    assert re.search(r"fail|error|wrong|mistake|invalid|not reloaded|kept", status["STATUS"], re.I), status.text
    stream.progress()
    assert daemon.workers() == before, "the workers were replaced"
    daemon.config.write_text(good)
    daemon.hup()
    stream.progress()
    stream.finish()
    daemon.visit()


def test_missing_file_changes_nothing(start):
    daemon = start()
    text = daemon.config.read_text()
    daemon.config.unlink()
    said, _ = failed_reload(daemon)
    daemon.wait_log(re.escape(str(daemon.config)))
    daemon.visit()
    daemon.config.write_text(text)
    daemon.hup()
    daemon.visit()


def test_taken_port_changes_nothing(start, model):
    """No setting of the file is applied, not even the model."""
    daemon = start(model)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = daemon.workers()
        since = len(daemon.log())
        daemon.configure(model="poll" if model != "poll" else "epoll", workers=0, port=port)
        daemon.hup()
        daemon.wait_log(rf"127\.0\.0\.1:{port}", since)
        daemon.visit()
        assert daemon.workers() == before, "the workers were replaced"
        # once the port is free, the same file is applied
    daemon.hup()
    peer.visit(("127.0.0.1", port))
    given_up(daemon.address)


@pytest.mark.skipif(not shutil.which("ss"), reason="no ss was found (Debian: apt install iproute2)")
def test_backlog_changes_with_the_rest_or_not_at_all(start):
    def backlog():
        return int(subprocess.run(["ss", "-Hltn", f"sport = :{daemon.port}"], capture_output=True, text=True, timeout=proc.LIMIT,
                                  check=True).stdout.split()[2])

    daemon = start(backlog=11)
    assert backlog() == 11
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        since = len(daemon.log())
        daemon.configure(backlog=12, listen=["127.0.0.1", f"127.0.0.1:{port}"])
        daemon.hup()
        daemon.wait_log(rf"127\.0\.0\.1:{port}", since)
        assert backlog() == 11
    daemon.hup()
    assert backlog() == 12


def test_impossible_combination_changes_nothing(start):
    daemon = start("epoll", workers=4)
    daemon.configure(model="iterative")
    since = len(daemon.log())
    daemon.hup()
    daemon.wait_log("iterative", since)
    daemon.visit()
    daemon.configure(model="select", workers=1, max_connections=5000)
    since = len(daemon.log())
    daemon.hup()
    daemon.wait_log("max-connections", since)
    daemon.visit()


def test_user_cannot_be_changed_and_that_is_logged(start):
    daemon = start()
    daemon.configure(user="nobody")
    since = len(daemon.log())
    daemon.hup()
    daemon.wait_log(r"\buser\b", since)
    daemon.visit()


def test_many_hups_at_once(start, model):
    """After a burst of signals the daemon serves clients with one crew."""
    daemon = start(model)
    since = daemon.notify.mark()
    for _ in range(20):
        daemon.signal(signal.SIGHUP)
    daemon.notify.wait("RELOADING=1", since=since)
    daemon.hup()
    daemon.visit()
    daemon.wait_processes(echod.processes(model))


def test_stop_during_a_reload(start, model):
    daemon = start(model)
    daemon.visit()
    daemon.signal(signal.SIGHUP)
    daemon.stop()


def test_stop_during_a_reload_removes_new_sockets_too(start, tmpdir):
    """A stop during a reload removes the socket file that the reload has just created."""
    daemon = start("prefork", workers=64)  # this number of workers takes some time to become ready
    path = f"{tmpdir}/echo.sock"
    daemon.configure(listen=["127.0.0.1", f"unix:{path}"])
    daemon.signal(signal.SIGHUP)
    proc.until(lambda: os.path.exists(path), "the new socket")
    daemon.stop()
    assert not os.path.exists(path)


def test_reload_after_a_worker_was_killed(start, model):
    daemon = start(model)
    daemon.crash_expected = True
    os.kill(daemon.workers()[0], signal.SIGKILL)
    daemon.hup()
    daemon.visit()
    daemon.stop()


def test_a_thousand_idle_connections_live_on(start):
    """Each connection is echoed after the reload."""
    count = 100 if echod.SANITIZED else 1000
    daemon = start("epoll", log_connections=False)
    crowd = [daemon.connect() for _ in range(count)]
    for sock in crowd:
        peer.echo(sock, b"before")
    daemon.reload(model="poll")
    for sock in crowd:
        peer.echo(sock, b"after")
    for sock in crowd:
        sock.close()
    daemon.visit()
