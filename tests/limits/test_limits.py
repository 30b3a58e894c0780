# SPDX-License-Identifier: ISC
"""max-connections, max-per-source, allow, deny and idle-timeout mean the same in every model."""

import os
import signal
import socket
import threading
import time

import pytest

import echod
import metrics
import netns
import peer
import proc

not_iterative = [model for model in echod.MODELS if model != "iterative"]


def connect_from(source, address):
    """A connection from the loopback address `source`."""
    sock = socket.socket()
    sock.settimeout(peer.PATIENCE)
    sock.bind((source, 0))
    sock.connect(address)
    return sock


def served(sock, message=b"am I served?"):
    try:
        peer.echo(sock, message)
        return True
    except (AssertionError, ConnectionResetError, BrokenPipeError):
        return False


def answer(sock):
    """The first bytes of the echo; none if the connection was closed or reset."""
    try:
        return sock.recv(100)
    except ConnectionResetError:
        return b""


def refused_from(source, address):
    """The connection must be refused: closed without a byte."""
    with connect_from(source, address) as sock:
        assert peer.ended(sock), f"{source} is neither served nor refused"


def admitted_from(source, address):
    with connect_from(source, address) as sock:
        peer.echo(sock, b"admitted")
        peer.finish(sock)


# max-connections

def test_beyond_max_connections_clients_wait(start, model):
    """Clients beyond max-connections are not refused. They are neither answered nor closed; when one connection ends, one of them
    is served."""
    most = 1 if model == "iterative" else 3
    daemon = start(model, max_connections=most)
    crowd = [daemon.connect() for _ in range(most)]
    for sock in crowd:
        peer.echo(sock, b"one of the first")
    waiting = [daemon.connect() for _ in range(6)]
    for sock in waiting:
        sock.sendall(b"let me in")
    assert all(peer.silent(sock, 0.1) for sock in waiting), "served or closed beyond max-connections"
    for sock in crowd:
        peer.echo(sock, b"still served")
    while waiting:
        peer.finish(crowd.pop(0))
        inside = proc.until(lambda: [sock for sock in waiting if not peer.silent_now(sock)], "the next one served")
        assert len(inside) == 1, "more than one client was served after the end of one connection"
        assert peer.receive(inside[0], 9) == b"let me in"
        waiting.remove(inside[0])
        crowd.append(inside[0])
    for sock in crowd:
        peer.finish(sock)
    counts = metrics.line(daemon)
    assert "connections_ended limit" not in counts, "waiting is not a refusal"
    if model != "iterative":  # whose worker never needs a second slot
        assert counts.get("limit_pauses", 0) >= 1, counts
        daemon.wait_log("Reached max-connections")
        assert len(daemon.lines_about("Reached max-connections")) <= 3, "too many lines"


@pytest.mark.timeout(180)
def test_max_connections_is_never_passed(start, model):
    """Sixty clients that connect at the same time are all served, at most max-connections at a time."""
    most = 1 if model == "iterative" else 4
    daemon = start(model, max_connections=most, log_connections=False)
    inside, greatest, wrong = 0, 0, []
    lock = threading.Lock()

    def client(number):
        nonlocal inside, greatest
        message = b"client %04d" % number
        try:
            with peer.connect(daemon.address, timeout=60) as sock:
                peer.echo(sock, message)
                with lock:
                    inside += 1
                    greatest = max(greatest, inside)
                peer.echo(sock, message * 10)
                with lock:
                    inside -= 1
                peer.finish(sock)
        except BaseException as error:
            wrong.append(error)

    crowd = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(60)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(90)
    assert not wrong, wrong[0]
    assert not any(thread.is_alive() for thread in crowd), "not every client was served"
    assert 1 <= greatest <= most, f"{greatest} at once"
    metrics.wait_line(daemon, "the end of all connections", connections=0, connections_accepted=60)


def test_idle_timeout_frees_slots(start, model):
    """At max-connections, idle-timeout ends idle connections, and waiting clients are served."""
    most = 1 if model == "iterative" else 2
    daemon = start(model, max_connections=most, idle_timeout=1)
    idle = [daemon.connect() for _ in range(most)]
    for sock in idle:
        peer.echo(sock, b"and then nothing more")
    waiting = daemon.connect()
    waiting.sendall(b"my turn")
    assert peer.receive(waiting, 7) == b"my turn"
    assert peer.ended(idle[0])
    peer.finish(waiting)
    metrics.wait_line(daemon, "the end of the idle connections", connections_ended__idle=most)


@pytest.mark.models(*not_iterative)
def test_reloads_do_not_pass_max_connections(start, model):
    """Connections that are handed over keep their slots over reloads. Clients in the backlog are served when a slot is free,
    whichever worker was woken for them."""
    most = 5
    daemon = start(model, max_connections=most, workers=most if model in ("prefork", "prethread") else 2
                   if model in echod.LOOPS else 0)
    crowd = [daemon.connect() for _ in range(4 * most)]
    for sock in crowd:
        sock.sendall(b"let me in")

    def inside():
        return [sock for sock in crowd if not peer.silent_now(sock)]
    proc.until(lambda: len(inside()) == most, "all slots taken")
    for number in range(6):
        daemon.reload(idle_timeout=100 + number)
        # some are handed over twice, if a worker takes one just before it must stop itself
        proc.until(lambda: metrics.line(daemon).get("connections_taken_over", 0) >= most * (number + 1),
                   lambda: f"{most} handed over by reload {number}: {metrics.line(daemon)}, log:\n{daemon.log()}")
        metrics.wait_line(daemon, "all connections", connections=most)
        assert len(inside()) == most, "served beyond max-connections"
    while crowd:
        served = proc.until(inside, f"the next of {len(crowd)} served")
        assert len(served) <= most, "served beyond max-connections"
        assert peer.receive(served[0], 9) == b"let me in"
        peer.finish(served[0])
        crowd.remove(served[0])
    metrics.wait_line(daemon, "the end of all connections", connections=0)


@pytest.mark.models("process", "thread", "prefork", "prethread")
def test_reloads_refuse_no_client_in_the_backlog(start, model):
    """A reload does not refuse clients in the backlog for max-per-source: their source may have fewer connections when they are
    served."""
    daemon = start(model, workers=2, max_per_source=6)
    inside = [daemon.connect() for _ in range(2)]
    for sock in inside:
        peer.echo(sock, b"served")
    crowd = [daemon.connect() for _ in range(12)]
    for sock in crowd:
        sock.sendall(b"wait for me")
        sock.shutdown(socket.SHUT_WR)
    for number in range(3):
        daemon.reload(idle_timeout=100 + number)
    for sock in inside:
        sock.shutdown(socket.SHUT_WR)
    for sock in crowd:
        assert peer.receive_all(sock) == b"wait for me"
    for sock in inside:
        assert peer.ended(sock)
    metrics.wait_line(daemon, "the end of all connections", connections=0)
    assert "connections_ended limit" not in metrics.line(daemon)


def test_max_connections_raised_by_reload(start, model):
    if model == "iterative":
        pytest.skip("serves one at a time whatever the limit")
    daemon = start(model, max_connections=2)
    crowd = [daemon.connect() for _ in range(2)]
    for sock in crowd:
        peer.echo(sock, b"hello")
    waiting = daemon.connect()
    waiting.sendall(b"patience")
    assert peer.silent(waiting, 0.1)
    daemon.reload(max_connections=3)
    assert peer.receive(waiting, 8) == b"patience"
    for sock in [*crowd, waiting]:
        peer.echo(sock, b"all of us")
        peer.finish(sock)


# max-per-source

@pytest.mark.models(*not_iterative)
def test_max_per_source_of_ipv4(start, model):
    daemon = start(model, max_per_source=2, protocols=["tcp"])
    mine = [connect_from("127.0.0.2", daemon.address) for _ in range(2)]
    for sock in mine:
        peer.echo(sock, b"one of two")
    third = connect_from("127.0.0.2", daemon.address)
    name = peer.endpoint(third)
    assert peer.ended(third), "the third from one address was not refused"
    said = proc.until(lambda: daemon.lines_about(name), f"a line about {name}")
    assert len(said) == 1 and "max-per-source" in said[0], said
    admitted_from("127.0.0.3", daemon.address)
    for sock in mine:
        peer.echo(sock, b"not touched")
    metrics.wait_line(daemon, "one refusal", connections_ended__limit=1, connections=2)
    peer.finish(mine.pop())
    metrics.wait_line(daemon, "the end of one connection", connections=1)
    admitted_from("127.0.0.2", daemon.address)
    peer.finish(mine.pop())
    assert metrics.line(daemon)["connections_accepted"] == 4, "the refused one was counted as accepted"


def test_max_per_source_leaks_no_count(start, model):
    """Connections of one source, one after the other, end with FIN, RST or close(2); the source is admitted each time."""
    daemon = start(model, max_per_source=1 if model == "iterative" else 4, log_connections=False)
    for number in range(40):
        sock = connect_from("127.0.0.2", daemon.address)
        assert served(sock), f"visit {number} was refused"
        if number % 3 == 0:
            peer.finish(sock)
        elif number % 3 == 1:
            peer.reset(sock)
        else:
            sock.close()
        metrics.wait_line(daemon, "the end of the connection", connections=0)
    assert metrics.line(daemon)["connections_accepted"] == 40


@pytest.mark.parametrize("others", [0, 1])
def test_max_per_source_counts_no_ended_connection(start, model, others):
    """A client that has seen the end of its connection can connect again at once, in whatever way the connection ended."""
    if model == "iterative" and others:
        pytest.skip("iterative serves one at a time")
    daemon = start(model, workers=0 if model == "iterative" else 4, max_per_source=1 + others, log_connections=False)
    crowd = [connect_from("127.0.0.2", daemon.address) for _ in range(others)]
    for sock in crowd:
        peer.echo(sock, b"stays")
    for number in range(200):
        with connect_from("127.0.0.2", daemon.address) as sock:
            sock.sendall(b"%d" % number)
            sock.shutdown(socket.SHUT_WR)
            assert peer.receive_all(sock) == b"%d" % number, f"connection {number} was refused"
    for sock in crowd:
        peer.finish(sock)
    metrics.wait_line(daemon, "the end of all connections", connections=0, connections_accepted=200 + others,
                      connections_ended__eof=200 + others)


@pytest.mark.models(*not_iterative)
def test_max_per_source_of_a_removed_listener(start, model):
    """Clients in the backlog of a listener that a reload removes are refused beyond max-per-source, when a worker takes them."""
    removed = echod.free_port()
    stays = echod.free_port()
    daemon = start(model, workers=2, max_connections=1, max_per_source=3, port=stays,
                   listen=[f"127.0.0.1:{stays}", f"127.0.0.1:{removed}"])
    with peer.connect(("127.0.0.1", stays)) as first:
        peer.echo(first, b"takes the only slot")
        crowd = [connect_from("127.0.0.2", ("127.0.0.1", removed)) for _ in range(5)]
        for sock in crowd:
            sock.sendall(b"me")
        daemon.reload(workers=8, max_connections=100, listen=[f"127.0.0.1:{stays}"])
        peer.echo(first, b"handed over")
        answers = [answer(sock) for sock in crowd]
        assert sorted(answers) == [b"", b"", b"me", b"me", b"me"]
        peer.finish(first)
    for sock, received in zip(crowd, answers):
        if received:
            peer.finish(sock)
    metrics.wait_line(daemon, "two refused", connections=0, connections_accepted=4, connections_ended__limit=2)


@pytest.mark.models(*not_iterative)
def test_max_per_source_over_reloads(start, model):
    """Connections that were handed over stay counted; a limit that the reload adds counts them as well."""
    daemon = start(model)
    mine = [connect_from("127.0.0.2", daemon.address) for _ in range(2)]
    for sock in mine:
        peer.echo(sock, b"hello")
    daemon.replace(max_per_source=2)
    for sock in mine:
        peer.echo(sock, b"handed over")
    refused_from("127.0.0.2", daemon.address)
    daemon.replace()
    for sock in mine:
        peer.echo(sock, b"handed over again")
    refused_from("127.0.0.2", daemon.address)
    peer.finish(mine.pop())
    metrics.wait_line(daemon, "the end of one connection", connections=1)
    admitted_from("127.0.0.2", daemon.address)


@pytest.fixture
def addresses():
    """A network namespace whose loopback interface has addresses of two IPv6 /64 networks."""
    if not echod.have_ipv6():
        pytest.skip("no IPv6 here")

    def prepare(addresses):
        for address in ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"):
            addresses.setup("addr", "add", f"{address}/128", "dev", "lo", "nodad")
    with netns.make(prepare) as addresses:
        yield addresses


@pytest.mark.models(*not_iterative)
def test_max_per_source_of_an_ipv6_network(launch, addresses, model):
    """All addresses of one /64 are one source; those of the next /64 are another."""
    daemon = launch(model, max_per_source=2, listen=["*"], wrap=addresses.wrap())
    daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)  # the manager's socket is in another namespace
    here = ("2001:db8:0:1::1", daemon.port)
    first = addresses.connect("2001:db8:0:1::1", here)
    second = addresses.connect("2001:db8:0:1::2", here)
    for sock in (first, second):
        peer.echo(sock, b"two of one network")
    for source in ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::1"):
        assert peer.ended(addresses.connect(source, here)), f"{source} was not refused"
    other = addresses.connect("2001:db8:0:2::1", here)
    peer.echo(other, b"of the next network")
    peer.finish(first)
    metrics.wait_line(daemon, "the end of one connection", connections=2, connections_ended__limit=2)
    third = addresses.connect("2001:db8:0:1:ffff:ffff:ffff:ffff", here)
    peer.echo(third, b"in its place")
    for sock in (second, third, other):
        peer.finish(sock)


def test_unix_clients_have_no_source(start, model, tmpdir):
    path = os.path.join(tmpdir, "sock")
    daemon = start(model, max_per_source=1, allow=["192.0.2.0/24"], deny=["0.0.0.0/0", "::/0"], listen=["unix:" + path],
                   port=None)
    count = 1 if model == "iterative" else 3
    crowd = [peer.connect(path) for _ in range(count)]
    for sock in crowd:
        peer.echo(sock, b"hello")
    for sock in crowd:
        peer.finish(sock)


# allow and deny

@pytest.mark.parametrize("allow, deny, admitted, refused", [
    ([], ["127.0.0.4/31"], ["127.0.0.3", "127.0.0.6"], ["127.0.0.4", "127.0.0.5"]),
    (["127.0.0.0/29"], [], ["127.0.0.1", "127.0.0.7"], ["127.0.0.8", "127.1.0.1"]),
    (["127.0.0.0/8"], ["127.0.0.64/26", "127.0.0.2"], ["127.0.0.1", "127.0.0.63", "127.0.0.128"],
     ["127.0.0.2", "127.0.0.64", "127.0.0.127"]),
    (["::1", "2001:db8::/32"], [], [], ["127.0.0.1"]),
    (["127.0.0.5"], ["127.0.0.0/24"], [], ["127.0.0.5", "127.0.0.6"]),  # deny has precedence
], ids=["deny", "allow", "both", "other-family", "deny-wins"])
def test_allow_and_deny(start, model, allow, deny, admitted, refused):
    daemon = start(model, allow=allow, deny=deny)
    for source in admitted:
        admitted_from(source, daemon.address)
    for source in refused:
        with connect_from(source, daemon.address) as sock:
            name = peer.endpoint(sock)
            assert peer.ended(sock), f"{source} is neither served nor refused"
        said = proc.until(lambda: daemon.lines_about(name), f"a line about {name}")
        assert len(said) == 1 and "denied" in said[0], said
    metrics.wait_line(daemon, "refusals", connections=0, connections_ended__denied=len(refused),
                      connections_accepted=len(admitted))


def test_ipv4_clients_of_an_ipv6_socket(start):
    """A client with the address ::ffff:127.0.0.2 is treated as 127.0.0.2."""
    if not echod.have_ipv6():
        pytest.skip("no IPv6 here")
    daemon = start("epoll", listen=["*"], deny=["127.0.0.2/32"], max_per_source=1)
    refused_from("127.0.0.2", daemon.address)
    sock = connect_from("127.0.0.3", daemon.address)
    peer.echo(sock, b"the one")
    refused_from("127.0.0.3", daemon.address)
    peer.visit(("::1", daemon.port))


def test_allow_and_deny_by_reload(start, model):
    """A new list applies to new clients: admitted connections continue."""
    daemon = start(model)
    with connect_from("127.0.0.2", daemon.address) as sock:
        peer.echo(sock, b"hello")
        daemon.replace(deny=["127.0.0.2"])
        peer.echo(sock, b"still here")
        peer.finish(sock)
    refused_from("127.0.0.2", daemon.address)
    daemon.visit()
    daemon.replace(deny=[])
    admitted_from("127.0.0.2", daemon.address)


def in_backlog(port):
    """The number of connections in the backlog of a port of 127.0.0.1: proc_net_tcp(5)."""
    local = f"0100007F:{port:04X}"
    for line in proc.read("/proc/net/tcp").decode().splitlines():
        fields = line.split()
        if fields[1] == local and fields[3] == "0A":
            return int(fields[4].partition(":")[2], 16)
    return 0


def test_refused_from_the_backlog_by_a_reload(start, model):
    """A denied client in the backlog of a removed listener is refused as any other one: it is counted and logged."""
    daemon = start(model, deny=["127.0.0.2"])
    stopped = daemon.workers()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    proc.until(lambda: all(proc.stopped(pid) for pid in stopped), "every thread has stopped")
    with connect_from("127.0.0.2", daemon.address) as sock, connect_from("127.0.0.3", daemon.address) as good:
        name = peer.endpoint(sock)
        proc.until(lambda: in_backlog(daemon.port) == 2, "two connections in the backlog")
        daemon.reload(port=echod.free_port())
        assert peer.ended(sock)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        peer.echo(good, b"from the backlog")
        peer.finish(good)
        said = proc.until(lambda: daemon.lines_about(name), f"a line about {name}")
        assert len(said) == 1 and "denied" in said[0], said
    metrics.wait_line(daemon, "one refused, one served", connections=0, connections_ended__denied=1, connections_accepted=1)


def test_log_lines_of_refusals_are_limited(start):
    """The first refusals are logged; further refusals are only counted."""
    daemon = start("epoll", deny=["127.0.0.2"])
    for _ in range(1500):
        refused_from("127.0.0.2", daemon.address)
    metrics.wait_line(daemon, "all refusals", connections_ended__denied=1500)
    daemon.stop()  # all lines are written
    assert 100 < len(daemon.lines_about("denied")) <= 1100, "lines are not limited"


def cost(daemon, visits):
    before = daemon.cpu()
    for _ in range(visits):
        admitted_from("127.0.0.9", daemon.address)
    return daemon.cpu() - before


def test_thousands_of_networks_are_cheap(start):
    """With twenty thousand networks the start and each connection are as fast as without."""
    deny = [f"{10 + i // 65536}.{i // 256 % 256}.{i % 256}.{i % 2 * 128}/25" for i in range(0, 20000)]
    deny += [f"2001:db8:{i:x}::/48" for i in range(5000)] + ["127.0.0.2/32"]
    with_many, with_none = start("epoll", workers=1, deny=deny), start("epoll", workers=1)
    refused_from("127.0.0.2", with_many.address)
    none = many = 0
    for _ in range(10):  # alternately: other work on the machine makes both slower
        none, many = none + cost(with_none, 150), many + cost(with_many, 150)
    assert many < 2 * none + 0.1, f"{many:.2f} s of CPU instead of {none:.2f} s"
    with_many.reload(deny=deny[1:])
    refused_from("127.0.0.2", with_many.address)


# Killed processes

def victims(daemon, model):
    """The processes that serve connections."""
    children = daemon.workers()
    return [stat.pid for child in children for stat in proc.children(child)] if model == "process" else children


def test_killed_processes_leak_no_count(start, model):
    """All processes that serve connections are killed, three times. Then there are as many free slots as at first."""
    most = 1 if model == "iterative" else 3
    daemon = start(model, max_connections=most, max_per_source=most)
    daemon.crash_expected = True
    for _ in range(3):
        crowd = [daemon.connect() for _ in range(most)]
        for sock in crowd:
            peer.echo(sock, b"hello")
        waiting = daemon.connect()
        assert peer.silent(waiting, 0.1)
        # all at the same time: else the last process may serve the waiting client before it is killed
        doomed = victims(daemon, model)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in doomed:
                os.kill(pid, number)
        assert all(peer.ended(sock) for sock in crowd)
        peer.echo(waiting, b"there is room")
        peer.finish(waiting)
        for sock in crowd:
            sock.close()
        metrics.wait_line(daemon, "the end of all connections", connections=0)
    crowd = [daemon.connect() for _ in range(most)]
    for sock in crowd:
        peer.echo(sock, b"as many as at first")
    metrics.wait_line(daemon, "connections of killed processes", connections_ended__error=3 * most)
    for sock in crowd:
        peer.finish(sock)


@pytest.mark.models("process", "prefork")
def test_processes_killed_at_any_moment_leak_no_count(start, model):
    """Processes are killed while they start, serve or end."""
    kill_at_any_moment(start, model, lambda daemon: victims(daemon, model))


@pytest.mark.models("process")
def test_acceptors_killed_at_any_moment_leak_no_count(start, model):
    """Acceptors are killed while they start child processes. The child processes continue."""
    kill_at_any_moment(start, model, lambda daemon: daemon.workers())


@pytest.mark.models("process")
def test_sources_of_a_killed_acceptor_stay_counted(start, model):
    """The child processes of a killed acceptor continue, and max-per-source counts their connections as before."""
    daemon = start(model, max_per_source=2)
    daemon.crash_expected = True
    socks = [connect_from("127.0.0.2", daemon.address) for _ in range(2)]
    for sock in socks:
        peer.echo(sock, b"counted")
    acceptor, = daemon.workers()
    for number in range(2):
        since = len(daemon.log())
        os.kill(acceptor, signal.SIGKILL)
        acceptor = int(daemon.wait_log(r"Restarted worker process (\d+)", since).group(1))
        refused_from("127.0.0.2", daemon.address)
        admitted_from("127.0.0.3", daemon.address)
        peer.echo(socks[number], b"still here")
    peer.finish(socks.pop())
    admitted_from("127.0.0.2", daemon.address)
    peer.echo(socks[0], b"still here")
    peer.finish(socks.pop())
    for _ in range(2):
        socks.append(connect_from("127.0.0.2", daemon.address))
        peer.echo(socks[-1], b"room for two")


@pytest.mark.models("process")
def test_acceptor_killed_before_its_child_is_registered(start, model, tmp_path):
    """The acceptor ends right after fork(2), and the supervisor finds the slot before the child has written its process id.
    The connection ends, and its slot is free."""
    if "fault points" not in echod.run("-V").stdout:
        pytest.skip("echod was built without fault points (configure --enable-debug-faults)")
    daemon = start(model, max_connections=2, env={"ECHOD_FAULT_ORPHAN": str(tmp_path)})
    daemon.crash_expected = True
    for number in range(1, 4):
        (tmp_path / "0").touch()
        with daemon.connect() as lost:
            assert peer.ended(lost)
        metrics.wait_line(daemon, "no connection is left", connections=0, connections_ended__error=number)
    served = [daemon.connect() for _ in range(2)]
    for sock in served:
        peer.echo(sock, b"both slots are free")
    for sock in served:
        peer.finish(sock)
    metrics.wait_line(daemon, "no connection is left", connections=0, connections_ended__eof=2)


@pytest.mark.models("process")
@pytest.mark.parametrize("most", [0, 3], ids=["workers", "max-connections"])
def test_connections_outlive_a_killed_acceptor(start, model, most):
    """The connections of a killed acceptor continue; their slots are free for the next acceptor only when they end."""
    daemon = start(model, workers=2, max_connections=most)
    daemon.crash_expected = True
    crowd = [daemon.connect() for _ in range(2)]
    for sock in crowd:
        peer.echo(sock, b"hello")
    acceptor, = daemon.workers()
    os.kill(acceptor, signal.SIGKILL)
    daemon.wait_log("Restarted worker process")
    waiting = daemon.connect()
    waiting.sendall(b"let me in")
    assert peer.silent(waiting, 0.2), "served beyond the number of workers"
    for sock in crowd:
        peer.echo(sock, b"still here")
    peer.finish(crowd.pop())
    assert peer.receive(waiting, 9) == b"let me in"
    for sock in (*crowd, waiting):
        peer.finish(sock)
    metrics.wait_line(daemon, "all connections", connections_accepted=3, connections_ended__eof=3)
    assert "resource_exhaustions" not in metrics.line(daemon)


def kill_at_any_moment(start, model, whom):
    most = 4
    daemon = start(model, max_connections=most, max_per_source=most, log_connections=False)
    daemon.crash_expected = True
    done = threading.Event()

    def kill():
        while not done.is_set():
            for pid in whom(daemon)[:2]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            done.wait(0.02)
    killer = threading.Thread(target=kill)
    killer.start()
    survived = 0
    deadline = time.monotonic() + 4
    try:
        while time.monotonic() < deadline:
            try:
                daemon.visit()
                survived += 1
            except (AssertionError, OSError):
                pass
    finally:
        done.set()
        killer.join()
    metrics.wait_line(daemon, "the end of all connections", timeout=30, connections=0)
    crowd = [daemon.connect() for _ in range(most)]
    for sock in crowd:
        peer.echo(sock, b"as many as at first")
    for sock in crowd:
        peer.finish(sock)
