# SPDX-License-Identifier: ISC
"""echoc --load: every mode on every engine; all bytes, losses and delays are in the report."""

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import xml.etree.ElementTree

import pytest

import client
import echod
import proc
import echo_servers as servers
import netns
import paths
import shims

KEYS = {"address", "transport", "mode", "engine", "engine_note", "connections", "idle", "size", "depth", "threads", "rate",
        "warmup_seconds", "measured_from", "seconds", "echoes", "echoes_per_second", "bytes", "mb_per_second",
        "bytes_sent", "bytes_received", "connections_made", "latency_us", "errors", "lost", "mismatches", "duplicates", "idle_lost",
        "due", "unserved", "port_waits", "client_cpu_seconds", "client_cpu_share", "client_wait_share", "client_limited", "interrupted",
        "first_error", "error"}


@pytest.mark.parametrize("more, at_a_time", [
    (["-n", 1], 64),
    (["-n", 20, "-P", 16], 20 * 16 * 64),
    (["-n", 7, "-j", 3], 7 * 64),
    (["-n", 3, "-s", 1], 3),
    (["-n", 4, "-s", "300000"], 4 * 300000),
    (["-n", 4, "-s", "70001", "-P", 3], 4 * 3 * 70001),
    (["-n", 300], 300 * 64),
], ids=["n1", "n20-P16", "n7-j3", "n3-s1", "n4-s300000", "n4-s70001-P3", "n300"])
def test_rr(server, engine, more, at_a_time):
    found = client.load_until(server, 10 * at_a_time, "--engine", engine, *more)
    assert found.keys() == KEYS
    assert (found["engine"], found["mode"], found["transport"]) == (engine, "rr", "tcp")
    assert found["connections_made"] == found["connections"]
    assert found["echoes"] > 0
    assert found["echoes_per_second"] == pytest.approx(found["echoes"] / found["seconds"], rel=0.001, abs=0.1)
    latency = found["latency_us"]
    assert latency["count"] == found["echoes"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p999"] <= latency["max"]
    assert found["bytes"] <= found["bytes_sent"]
    assert 0 < found["client_cpu_seconds"] < 2 * found["seconds"] * found["threads"]


@pytest.mark.parametrize("more", [[], ["-P", 4], ["-s", 64]], ids=lambda more: "".join(map(str, more)))
def test_stream(server, engine, more):
    # more than all buffers on the path can hold, so that messages must have come back
    found = client.load_until(server, 200000000, "--engine", engine, "--mode", "stream", "-n", 4, *more)
    assert found["bytes"] > 100000
    assert found["mb_per_second"] == pytest.approx(found["bytes"] / found["seconds"] / 1e6, rel=0.001, abs=0.001)
    assert found["latency_us"]["count"] > 0


def test_connect(server, engine):
    found = client.load_until(server, 100 * 64, "--engine", engine, "--mode", "connect", "-n", 8)
    assert found["connections_made"] >= found["echoes"] > 0


def test_udp(server):
    found = client.load_until(server, 10 * 5 * 8 * 64, "-u", "-n", 5, "-P", 8)
    assert (found["transport"], found["engine"]) == ("udp", "epoll")
    assert found["echoes"] > 0


def test_udp_without_echod():
    with servers.Datagram() as other:
        found = client.load("-u", "-n", 5, "-P", 8, *other.where)
        assert other.count * 64 == found["bytes_sent"]


def test_unix(start, engine, tmpdir):
    path = os.path.join(tmpdir, "socket")
    start("epoll", listen=["unix:" + path])
    for mode in ("rr", "stream", "connect"):
        found = client.load("--engine", engine, "--mode", mode, "-n", 10, "unix:" + path)
        assert found["transport"] == "unix"


def test_connect_to_a_unix_socket_with_a_short_backlog(engine, tmpdir):
    """Most connections are refused at first and tried again; at the end of the run, connections in progress are completed."""
    with servers.Stream(servers.echo, socket.AF_UNIX, os.path.join(tmpdir, "socket"), backlog=1):
        client.load("--engine", engine, "--mode", "connect", "-n", 50, "unix:" + os.path.join(tmpdir, "socket"))


@pytest.mark.skipif(not echod.have_ipv6(), reason="this host has no IPv6")
def test_ipv6(engine):
    with servers.Stream(servers.echo, socket.AF_INET6) as other:
        assert client.load("--engine", engine, "-n", 3, "::1", other.port)["address"] == f"[::1]:{other.port}"


def test_each_model(start, model):
    daemon = start(model, log_connections=False)
    # A serial worker has one connection at a time: no more connections than workers.
    connections = {"iterative": 1, "prefork": 4, "prethread": 4}.get(model, 20)
    client.load_until(daemon, 10 * connections * 64, "-n", connections)


def test_warmup_is_not_counted(server):
    found = client.report("--load", "--warmup", "1", "-d", "200ms", "-n", 2, "127.0.0.1", server.port)
    assert found["seconds"] == pytest.approx(0.2)
    assert found["bytes_sent"] > 2 * found["bytes"] > 0


def test_text(server):
    result = client.run("--load", "-d", "200ms", "--warmup", 0, "-n", 3, "127.0.0.1", server.port)
    assert result.returncode == client.OK
    assert re.search(r"^  echoes     [\d,]+, that is [\d,]+/s and [\d.]+ MB/s each way$", result.stdout, re.M)
    assert re.search(r"^  bytes .* all as sent$", result.stdout, re.M)
    assert re.search(r"^  latency    p50 .*, p90 .*, p99 .*, p99\.9 .*, max .*, mean ", result.stdout, re.M)
    # The rows of the histogram add up to 100 %. Each is rounded to three decimals.
    shares = [float(share) for share in re.findall(r"^ +[\d.]+ [num]?s - [\d.]+ +[num]?s? *([\d.]+) %", result.stdout, re.M)]
    assert shares and sum(shares) == pytest.approx(100, abs=0.0005 * len(shares) + 1e-6)


def test_text_of_latencies_of_0(server, tmp_path):
    """With a clock of a low resolution most latencies are 0. They are in the first row of the diagram."""
    env = {**os.environ, **shims.preload(shims.compile_shim("coarse_clock", tmp_path))}
    result = client.run("--load", "-d", "200ms", "--warmup", 0, "-n", 3, "127.0.0.1", server.port, env=env)
    assert result.returncode == client.OK
    assert "latency    p50 0 ns" in result.stdout
    shares = [float(share) for share in re.findall(r" - .* ([\d.]+) %", result.stdout)]
    assert shares and sum(shares) == pytest.approx(100, abs=0.0005 * len(shares) + 1e-6)


# Errors. A run ends once all connections are lost, before its configured duration.

def test_a_wrong_byte(engine):
    with servers.Stream(servers.corrupt(6400 + 5)) as other:
        found = client.load("-d", 60, "--engine", engine, "-n", 2, *other.where, status=client.DIFFERS)
    assert found["mismatches"] == 2
    assert "offset 6405 of its stream came back different" in found["first_error"]


def test_a_wrong_byte_in_a_stream(engine):
    with servers.Stream(servers.corrupt(1000003)) as other:
        found = client.load("-d", 60, "--engine", engine, "--mode", "stream", "-n", 1, *other.where, status=client.DIFFERS)
    assert found["mismatches"] == 1
    assert "offset 1000003 of its stream" in found["first_error"]


def test_bytes_of_another_connection(engine):
    """The server swaps the echoes of two connections."""
    together = threading.Barrier(2, timeout=30)
    pair = []

    def swapped(connection):
        data = connection.recv(64, socket.MSG_WAITALL)
        pair.append((connection, data))
        together.wait()
        other = next(c for c, _ in pair if c is not connection)
        other.sendall(data)
        servers.silent(connection)

    with servers.Stream(swapped) as other:
        found = client.load("-d", 60, "--engine", engine, "-n", 2, *other.where, status=client.DIFFERS)
    assert found["mismatches"] == 2


def test_surplus(engine):
    def twice(connection):
        while data := connection.recv(65536):
            connection.sendall(data + data)
    with servers.Stream(twice) as other:
        found = client.load("-d", 60, "--engine", engine, "-n", 1, *other.where, status=client.DIFFERS)
    assert found["mismatches"] == 1


def test_lost_connections(engine):
    with servers.Stream(servers.close_after(6400)) as other:
        found = client.load("-d", 60, "--engine", engine, "-n", 3, *other.where, status=client.DIFFERS)
    assert found["errors"] == 3
    assert found["bytes_received"] == 3 * 6400
    assert re.search("closed by the server|Connection reset|Broken pipe", found["first_error"])


def test_silence(engine):
    with servers.Stream(servers.silent) as other:
        found = client.load("--engine", engine, "-n", 3, "-W", "300ms", *other.where, status=client.DIFFERS)
    assert (found["echoes"], found["bytes_sent"], found["bytes_received"], found["lost"]) == (0, 3 * 64, 0, 3)
    assert found["first_error"] == "outstanding messages did not come back within the timeout at the end"


def test_udp_losses_are_counted():
    answered = []

    def most(data, number):
        answered.append(number % 50 != 7)
        return [data] if answered[-1] else []

    with servers.Datagram(most) as other:
        found = client.load("-u", "-n", 2, "-W", "2s", *other.where, status=client.DIFFERS)
    assert found["lost"] == answered.count(False) > 0
    assert found["bytes_received"] == answered.count(True) * 64


def test_udp_duplicates_are_not_an_error():
    with servers.Datagram(lambda data, number: [data, data]) as other:
        found = client.load("-u", "-n", 2, *other.where)
    assert found["duplicates"] > 0


def test_nobody_there(engine):
    port = echod.free_port()
    result = client.run("--load", "--engine", engine, "-d", "1", "127.0.0.1", port)
    assert result.returncode == client.UNREACHED
    assert result.stderr == f"echoc: cannot connect to 127.0.0.1:{port} over TCP: Connection refused\n"


def test_udp_nobody_there():
    result = client.run("--load", "-u", "-d", "200ms", "--warmup", 0, "-W", "100ms", "127.0.0.1", echod.free_port())
    assert result.returncode == client.UNREACHED
    assert "no service on that port" in result.stdout


def test_more_connections_than_descriptors(server, tmpdir):
    """The limit does not apply to root, so the test runs echoc as user nobody."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    program = shutil.copy(client.ECHOC, tmpdir)
    os.chmod(program, 0o755)
    root = os.geteuid() == 0
    result = subprocess.run([program, "--load", "-n", str(hard), "127.0.0.1", str(server.port)], capture_output=True,
                            text=True, timeout=client.LIMIT, stdin=subprocess.DEVNULL, user=65534 if root else None)
    assert result.returncode == client.USAGE
    assert f"{hard} connections need" in result.stderr and f"only {hard} are allowed (ulimit -Hn)" in result.stderr


# Idle connections

def test_idle_connections_are_held(server):
    process = client.start("--load", "--idle", 200, "-n", 3, "-d", 60, "--warmup", 0, "--report", "100ms", "--json-stream",
                           "127.0.0.1", server.port)
    process.stdout.readline()  # an interval was measured, so all connections are open
    status, out, err = client.interrupt(process)
    assert status == client.OK, err
    found = json.loads(out.splitlines()[-1])
    assert (found["idle"], found["idle_lost"], found["interrupted"]) == (200, 0, True)


def test_idle_connections_that_are_closed(start):
    daemon = start("epoll", idle_timeout=1)
    found = client.report("--load", "--idle", 20, "-n", 2, "-d", "2500ms", "--warmup", 0, "127.0.0.1", daemon.port,
                          status=client.DIFFERS)
    assert found["idle_lost"] == 20
    assert found["errors"] == 0


# The open loop

def all_due(found, due, abs):
    """Each message that was due has a latency, was lost, or was not served."""
    assert found["due"] == pytest.approx(due, abs=abs)
    assert found["latency_us"]["count"] + found["unserved"] + found["lost"] == found["due"]


def test_rate_is_held(server, engine):
    found = client.report("--load", "--engine", engine, "--rate", 500, "-d", 2, "--warmup", "200ms", "-n", 10, "127.0.0.1",
                          server.port)
    all_due(found, 1000, abs=2)
    assert found["unserved"] == found["lost"] == 0


def test_rate_over_threads(server):
    found = client.report("--load", "--rate", 1000, "-d", 1, "--warmup", "100ms", "-n", 7, "-j", 3, "127.0.0.1", server.port)
    all_due(found, 1000, abs=7)
    assert found["unserved"] == 0


def stalled(engine, *args):
    """A load on a server that stalls for 200 ms once after 1000 messages."""
    half = threading.Event()
    lock = threading.Lock()
    counted = [0]
    stall_over = []

    def serve(connection):
        while data := connection.recv(65536):
            with lock:
                counted[0] += len(data) // 64
                if counted[0] >= 1000 and not half.is_set():
                    half.set()
                    time.sleep(0.2)  # this is the stall, and all others wait for the lock
                    stall_over.append(True)
            connection.sendall(data)

    with servers.Stream(serve) as other:
        found = client.report("--load", "--engine", engine, "-n", 10, "-d", 2, "--warmup", 0, *args, *other.where)
    assert stall_over
    return found


def test_a_stall_cannot_hide_from_an_open_loop(engine):
    """1000 messages/s, a stall of 200 ms: one tenth of the messages due in two seconds wait, evenly from 0 to 200 ms."""
    latency = stalled(engine, "--rate", 1000)["latency_us"]
    assert latency["max"] >= 195000
    assert latency["p99"] >= 170000  # 10 % of the messages wait up to 200 ms, so 1 % of all wait 180 ms or more
    assert 50000 < latency["p999"]


def test_a_stall_of_the_daemon_is_measured(start, engine):
    """The same with SIGSTOP on every process of the daemon."""
    daemon = start("epoll", log_connections=False)
    process = client.start("--load", "--engine", engine, "--rate", 1000, "-n", 10, "-d", 3, "--warmup", "100ms", "--json",
                           "127.0.0.1", daemon.port)
    proc.until(lambda: len(proc.descriptors(process.pid)) >= 10, "the connections")
    began = daemon.cpu()
    proc.until(lambda: daemon.cpu() > began, "some work done")
    pids = [stat.pid for stat in daemon.tree()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    time.sleep(0.2)  # the stall to be measured
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    stall = time.monotonic() - stopped
    out, err = process.communicate(timeout=client.LIMIT)
    assert process.returncode == client.OK, err
    found = json.loads(out)
    all_due(found, 3000, abs=2)
    assert 190000 <= found["latency_us"]["max"] <= stall * 1e6 + 2000000  # plus delays of a busy machine
    assert found["latency_us"]["p99"] >= 100000  # 200 of 3000 wait, and 30 of them, 1 % of all, over 170 ms


def stall_after(count, seconds):
    """A server that stalls for `seconds` when it has echoed `count` messages of 64 bytes."""
    lock = threading.Lock()
    counted = [0]

    def serve(connection):
        while data := connection.recv(65536):
            with lock:
                before, counted[0] = counted[0], counted[0] + len(data) // 64
                if before < count <= counted[0]:
                    time.sleep(seconds)  # this is the stall, and all others wait for the lock
            connection.sendall(data)
    return serve


def test_a_stall_at_the_end_of_the_measurement_is_measured(engine):
    """The server stalls from 0.5 s to 1.5 s, and the measurement ends at 1 s: half of the messages wait 0.5 s or more."""
    with servers.Stream(stall_after(500, 1)) as other:
        found = client.report("--load", "--engine", engine, "--rate", 1000, "-n", 10, "-d", 1, "--warmup", 0, *other.where)
    all_due(found, 1000, abs=2)
    assert found["unserved"] == 0
    assert found["latency_us"]["p90"] >= 500000
    assert found["echoes"] < 600  # the rate is that of the measurement, without the drain


def test_a_server_that_stops_for_good(engine):
    with servers.Stream(stall_after(500, 3)) as other:
        found = client.report("--load", "--engine", engine, "--rate", 1000, "-n", 10, "-d", 1, "--warmup", 0, "-W", "500ms",
                              *other.where, status=client.DIFFERS)
    all_due(found, 1000, abs=2)
    assert found["lost"] > 0
    assert found["unserved"] > 400


def slow(connection):
    """100 messages a second."""
    while data := connection.recv(64, socket.MSG_WAITALL):
        time.sleep(0.01)  # the service time
        connection.sendall(data)


def test_rate_that_cannot_be_reached(engine):
    """A rate of 1000 messages/s on a server that can do 100: the latency grows to the run's length, and the rest is reported."""
    with servers.Stream(slow) as other:
        found = client.report("--load", "--engine", engine, "--rate", 1000, "-n", 1, "-d", 1, "--warmup", 0, "-W", 1,
                              *other.where, status=client.DIFFERS)
    all_due(found, 1000, abs=2)
    assert found["unserved"] > 700
    assert found["latency_us"]["max"] > 800000
    assert found["echoes"] < 110


def test_a_warm_up_that_cannot_be_served(engine):
    """All echoes during the measurement were due in the warm-up: the report has throughput without latency, and an error status."""
    with servers.Stream(slow) as other:
        found = client.report("--load", "--engine", engine, "--rate", 1000, "-n", 1, "-d", "500ms", "--warmup", "500ms", "-W",
                              "500ms", *other.where, status=client.DIFFERS)
    assert 0 < found["echoes"] < 60
    assert found["due"] == found["unserved"] == pytest.approx(500, abs=2)
    assert found["latency_us"]["count"] == 0


def test_not_served_is_reported():
    with servers.Stream(slow) as other:
        result = client.run("--load", "--rate", 1000, "-n", 1, "-d", "500ms", "--warmup", 0, "-W", "500ms", *other.where)
    assert result.returncode == client.DIFFERS
    assert re.search(r"rate +1,000/s requested: 500 messages were due, [34]\d\d of them NOT SERVED\n", result.stdout)


def test_messages_of_a_lost_connection_are_not_served(engine):
    """The server closes one of two connections: messages that become due on it are not served."""
    first = threading.Event()

    def serve(connection):
        if not first.is_set():
            first.set()
            servers.close_after(64)(connection)
        else:
            servers.echo(connection)
    with servers.Stream(serve) as other:
        found = client.report("--load", "--engine", engine, "--rate", 1000, "-n", 2, "-d", 1, "--warmup", 0, *other.where,
                              status=client.DIFFERS)
    all_due(found, 1000, abs=2)
    assert found["unserved"] > 400


def test_a_lost_datagram_delays_no_other():
    """Each tenth datagram of one connection is lost, and recognised only after the end: all others are sent and answered."""
    with servers.Datagram(lambda data, number: [] if number % 10 == 0 else [data]) as other:
        found = client.report("--load", "-u", "--rate", 500, "-n", 1, "-d", 1, "--warmup", 0, "-W", 5, *other.where,
                              status=client.DIFFERS)
        assert other.count == found["due"]
    all_due(found, 500, abs=2)
    assert found["unserved"] == 0
    assert found["lost"] == found["due"] // 10


def test_a_lost_datagram_reduces_the_depth_by_one():
    """Closed loop, 4 messages in flight, the second is lost: the other three continue."""
    with servers.Datagram(lambda data, number: [] if number == 2 else [data]) as other:
        found = client.report("--load", "-u", "-n", 1, "-P", 4, "-d", "300ms", "--warmup", 0, "-W", 3, *other.where,
                              status=client.DIFFERS)
    assert found["lost"] == 1
    assert found["echoes"] > 10


@pytest.mark.parametrize("args, said", [
    (["-W", 0], "a lost message is recognised by the timeout"),
    (["--rate", 1000000000], "use a shorter -W"),
])
def test_datagrams_outstanding_without_limit(args, said):
    result = client.run("--load", "-u", "--rate", 1000, *args, "127.0.0.1")
    assert result.returncode == client.USAGE
    assert said in result.stderr


def test_connect_at_a_rate(server, engine):
    found = client.report("--load", "--engine", engine, "--mode", "connect", "--rate", 200, "-d", 1, "--warmup", 0, "-n", 10,
                          "127.0.0.1", server.port)
    all_due(found, 200, abs=2)
    assert found["echoes"] > 100


def test_connect_without_local_ports(engine):
    """16 local ports in a network namespace, each in use for a minute: a limit of the client, not an error of the server."""
    with netns.make(lambda space: space.sysctl("net.ipv4.ip_local_port_range=40000 40015")) as space:
        space.sysctl("net.ipv4.tcp_tw_reuse=0")
        listener = space.socket(socket.AF_INET)
        listener.bind(("0.0.0.0", 7007))  # each address has ports of its own
        with servers.Stream(servers.echo, listener=listener):
            args = ["--load", "--engine", engine, "--mode", "connect", "-n", 4, "-d", "2s", "--warmup", 0, "-W", "300ms"]
            found = client.report(*args, "127.0.0.1", 7007, wrap=space.wrap(), status=client.DIFFERS)
            text = client.run(*args, "127.0.0.2", 7007, wrap=space.wrap())
            other = client.run("--load", "-n", 100, "127.0.0.3", 7007, wrap=space.wrap())
    assert found["connections_made"] == 15  # one port was used to find the address
    assert found["errors"] == 0
    assert found["port_waits"] > 0 and found["client_limited"]
    assert re.search("LIMIT .* no local port is free.*ip_local_port_range.*--source", text.stdout), text
    assert other.returncode == client.UNREACHED
    assert "no local port is free" in other.stderr


def test_ramp():
    """All connections are opened at once, but start to send one after the other."""
    began = {}

    def serve(connection):
        first = connection.recv(65536)
        began[connection] = time.monotonic()
        connection.sendall(first)
        servers.echo(connection)

    with servers.Stream(serve) as other:
        found = client.report("--load", "--ramp", 1, "--warmup", "100ms", "-d", "200ms", "-n", 5, *other.where)
    times = sorted(began.values())
    assert len(times) == 5
    assert 0.6 <= times[-1] - times[0] <= client.LIMIT  # 0.8 s, plus delays of a busy machine
    assert found["seconds"] == pytest.approx(0.2)


@pytest.mark.parametrize("family", [4, 6])
def test_udp_over_a_path_with_a_small_mtu(family):
    """Datagrams that a router drops are sent again, and none is lost."""
    with paths.network() as net:
        net.server_mtu(0, 1280)
        with servers.Datagram(host=paths.SERVER[family], make=net.server.socket) as other:
            found = client.report("--load", "-u", "-s", 1400, "-n", 3, "-P", 2, "-d", "300ms", "--warmup", 0, *other.where,
                                  wrap=net.client.wrap())
    assert found["echoes"] > 6
    assert found["lost"] == found["errors"] == 0


# Intervals

def load_stream(*args, **more):
    result = client.run("--load", "--json-stream", *args, **more)
    assert result.returncode == client.OK, result.stdout + result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["type"] for one in found] == ["interval"] * (len(found) - 1) + ["summary"]
    return found[:-1], found[-1]


@pytest.mark.parametrize("more", [["-j", 2], ["--mode", "stream", "-n", 2], ["--mode", "connect", "-n", 5], ["-u"],
                                  ["--rate", 500]], ids=lambda more: "".join(map(str, more)))
def test_intervals_add_up(server, engine, more):
    if more != ["-u"]:
        more = ["--engine", engine, *more]
    intervals, summary = load_stream("-d", "700ms", "--warmup", "100ms", "--report", "200ms", *more, "127.0.0.1", server.port)
    assert [one["start"] for one in intervals] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert [one["end"] for one in intervals] == pytest.approx([0.2, 0.4, 0.6, 0.7])
    # Echoes between the end of the measurement and the moment when a thread notices the end are in the summary only.
    assert 0 < sum(one["bytes"] for one in intervals) <= summary["bytes"]
    assert sum(one["latency_us"]["count"] for one in intervals) <= summary["latency_us"]["count"]
    assert all(one["errors"] == one["lost"] == one["mismatches"] == 0 for one in intervals)


def test_intervals_as_lines(server):
    result = client.run("--load", "-D", "-d", "400ms", "--warmup", 0, "--report", "200ms", "127.0.0.1", server.port)
    assert result.returncode == client.OK
    assert len(re.findall(r"^\[\d+\.\d{6}\]   0\.[02]0 - 0\.[24]0 s +[\d,]+ echoes/s +\d+\.\d\d MB/s  p50 .*  p99 .*  max .*$",
                          result.stdout, re.M)) == 2
    assert "echoes     " in result.stdout


def test_a_stall_shows_in_its_interval():
    with servers.Stream(stall_after(300, 0.6)) as other:
        intervals, summary = load_stream("-n", 1, "--rate", 1000, "-d", 1, "--warmup", 0, "--report", "200ms", *other.where)
    assert 0 in [one["echoes"] for one in intervals]
    assert max(one["echoes"] for one in intervals) > 0
    assert summary["latency_us"]["count"] == summary["due"]


def test_intervals_when_all_connections_are_lost():
    with servers.Stream(servers.close_after(64 * 10)) as other:
        result = client.run("--load", "--json-stream", "-n", 2, "-d", 60, "--warmup", 0, "--report", 30, *other.where)
    assert result.returncode == client.DIFFERS
    interval, summary = (json.loads(line) for line in result.stdout.splitlines())
    assert interval["end"] < 30 and interval["errors"] == summary["errors"] == 2


def test_interrupted_between_intervals(server):
    process = client.start("--load", "--json-stream", "-d", 60, "--warmup", 0, "--report", "200ms", "127.0.0.1", server.port)
    first = json.loads(process.stdout.readline())
    status, out, _ = client.interrupt(process)
    found = [json.loads(line) for line in out.splitlines()]
    assert status == client.OK and found[-1]["interrupted"]
    assert [one["start"] for one in [first, *found[:-1]]] == sorted(one["start"] for one in [first, *found[:-1]])
    assert found[-2]["end"] <= found[-1]["seconds"] + 0.001


def test_interim_line(server):
    process = client.start("--load", "-d", 60, "--warmup", 0, "--report", "100ms", "127.0.0.1", server.port)
    process.stdout.readline()
    process.send_signal(signal.SIGQUIT)
    assert re.match(rb"\d+\.\d s measured: [\d,]+ echoes, [\d,]+/s, ", process.stderr.readline())
    assert client.interrupt(process)[0] == client.OK


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("args, option, value", [(["-t", 70], "IP_TTL", 70), (["-Q", "0x28"], "IP_TOS", 0x28),
                                                 (["-M", "do"], "IP_MTU_DISCOVER", 2)])
@pytest.mark.parametrize("transport", [[], ["-u"]], ids=["tcp", "udp"])
def test_packets_of_a_load(server, transport, args, option, value):
    """The settings apply to each socket."""
    result = client.run("--load", *transport, *args, "-n", 3, "-d", "50ms", "--warmup", 0, "127.0.0.1", server.port,
                        wrap=["strace", "-f", "-e", "trace=setsockopt"], env={**os.environ, **echod.TRACED})
    assert result.returncode == client.OK, result.stderr
    values = re.findall(rf"SOL_IP, {option}, \[(\w+)\]", result.stderr)
    assert len(values) >= 3 and {int(one, 0) for one in values} == {value}, result.stderr


# The client itself

def test_it_reports_when_it_is_the_limit(server):
    """Client and server share one processor. The scheduler determines which of them is the limit, but the report must agree with
    the measured shares."""
    cpu = min(os.sched_getaffinity(0))
    for stat in server.tree():
        for thread in os.listdir(f"/proc/{stat.pid}/task"):
            os.sched_setaffinity(int(thread), {cpu})
    found = client.load("-n", 200, "-s", "16K", "-P", 4, "-d", 1, "127.0.0.1", server.port,
                        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
    wanted = found["client_cpu_share"] + found["client_wait_share"]
    assert wanted > 0
    if abs(wanted - 0.95) > 0.001:  # the shares are rounded
        assert found["client_limited"] == (wanted > 0.95), wanted


def test_it_is_not_the_limit_of_a_slow_server():
    def slow(connection):
        while data := connection.recv(65536):
            time.sleep(0.02)  # the service time
            connection.sendall(data)
    with servers.Stream(slow) as other:
        assert not client.load("-n", 2, *other.where)["client_limited"]


def test_interrupted(server, engine):
    process = client.start("--load", "--engine", engine, "-d", 60, "--warmup", 0, "-n", 5, "127.0.0.1", server.port)
    proc.until(lambda: len(proc.descriptors(process.pid)) >= 8, "the connections")
    began = server.cpu()
    proc.until(lambda: server.cpu() > began, "some work done")
    status, out, err = client.interrupt(process)
    assert status == client.OK, err
    assert "(interrupted)" in out and "all as sent" in out


def test_interrupted_in_the_warmup(server):
    process = client.start("--load", "-d", 60, "--warmup", 60, "-n", 5, "127.0.0.1", server.port)
    began = server.cpu()
    proc.until(lambda: len(proc.descriptors(process.pid)) >= 8 and server.cpu() > began, "some work done")
    status, out, err = client.interrupt(process)
    assert status == client.OK, err
    assert "0.00 s after 60 s of warm-up (interrupted before that was over)" in out and "nothing came back in that time" in out


def test_interrupted_with_a_silent_server(engine):
    """The signal arrives after all connections were made: the client has sent on each."""
    heard = []

    def silent(connection):
        heard.append(connection.recv(1))
        servers.silent(connection)

    with servers.Stream(silent) as other:
        process = client.start("--load", "--engine", engine, "-d", 120, "--warmup", 0, "-n", 5, *other.where)  # twice the time limit
        proc.until(lambda: len(heard) == 5, "a byte on each connection")
        status, out, _ = client.interrupt(process)
    assert status == client.DIFFERS
    assert "(interrupted)" in out


# io_uring refused

class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def refuse_io_uring():
    """Load a seccomp filter, as in a container: io_uring_setup(2) fails with EPERM."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = b"".join(struct.pack("=HBBI", *op) for op in [
        (0x20, 0, 0, 0),            # load the number of the system call
        (0x15, 0, 1, 425),          # io_uring_setup, on every architecture
        (0x06, 0, 0, 0x00050001),   # errno EPERM
        (0x06, 0, 0, 0x7fff0000),   # allow
    ])
    buffer = ctypes.create_string_buffer(code, len(code))
    program = Filter(len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


@pytest.mark.skipif(not client.have_io_uring(), reason="no io_uring here that could be refused")
def test_io_uring_refused(server):
    found = client.load_until(server, 10 * 3 * 64, "-n", 3, preexec_fn=refuse_io_uring)
    assert found["engine"] == "epoll"
    assert "the kernel denies it" in found["engine_note"]
    result = client.run("--load", "--engine", "io_uring", "127.0.0.1", server.port, preexec_fn=refuse_io_uring)
    assert result.returncode == client.USAGE
    assert "--engine io_uring: the kernel denies it" in result.stderr and "use --engine epoll" in result.stderr


# The plot

def test_plot(server, tmpdir):
    if not shutil.which("gnuplot"):
        pytest.skip("gnuplot is not installed")
    path = os.path.join(tmpdir, "it's a picture.svg")
    result = client.run("--load", "-d", "200ms", "--warmup", 0, "-n", 3, "--plot", path, "127.0.0.1", server.port)
    assert result.returncode == client.OK, result.stderr
    root = xml.etree.ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"latency" in open(path, "rb").read()


def test_plot_of_a_single_value(server, tmpdir):
    if not shutil.which("gnuplot"):
        pytest.skip("gnuplot is not installed")
    path = os.path.join(tmpdir, "one.svg")
    # The second message would be due after the end.
    result = client.run("--load", "--rate", 1, "-d", "500ms", "--warmup", 0, "-n", 1, "--plot", path, "127.0.0.1", server.port)
    assert (result.returncode, result.stderr) == (client.OK, "")
    assert xml.etree.ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_plot_that_cannot_be_written(server, tmpdir):
    """echoc itself, not gnuplot, reports the error before the run."""
    if not shutil.which("gnuplot"):
        pytest.skip("gnuplot is not installed")
    path = os.path.join(tmpdir, "nowhere", "x.svg")
    result = client.run("--load", "-d", 60, "--plot", path, "127.0.0.1", server.port, timeout=30)
    assert result.returncode == client.USAGE
    assert result.stderr == f"echoc: --plot: cannot write {path}: No such file or directory\n"
    assert result.stdout == ""


def test_no_empty_plot_remains(tmpdir):
    """No empty file remains if there is nothing to draw, or if the client is killed; an older plot is not changed."""
    if not shutil.which("gnuplot"):
        pytest.skip("gnuplot is not installed")
    old = os.path.join(tmpdir, "old.svg")
    with open(old, "w") as file:
        file.write("old")
    with servers.Stream(servers.silent) as other:
        for name in ("new.svg", "old.svg"):
            result = client.run("--load", "-n", 1, "-d", "50ms", "--warmup", 0, "-W", "50ms", "--plot",
                                os.path.join(tmpdir, name), *other.where)
            assert result.returncode == client.DIFFERS
            assert "nothing to draw" in result.stderr
        process = client.start("--load", "-n", 1, "-d", 60, "--plot", os.path.join(tmpdir, "killed.svg"), *other.where)
        proc.until(lambda: other.accepted == 3, "the connection")
        process.kill()
        process.communicate(timeout=client.LIMIT)
    assert [entry for entry in os.listdir(tmpdir) if "svg" in entry] == ["old.svg"]
    with open(old) as file:
        assert file.read() == "old"


def test_plot_without_the_tool(server, tmpdir):
    result = client.run("--load", "-d", "200ms", "--plot", os.path.join(tmpdir, "x.svg"), "127.0.0.1", server.port,
                        env={**os.environ, "PATH": tmpdir})
    assert result.returncode == client.USAGE
    assert "gnuplot is needed and is not installed" in result.stderr
