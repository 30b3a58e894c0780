# SPDX-License-Identifier: ISC
"""echoc --ping: measurements, and lost, late, duplicate and wrong answers."""

import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import client
import echod
import echo_servers as servers
import netns
import paths
import proc


def lines(result, pattern):
    return [line for line in result.stdout.splitlines() if re.search(pattern, line)]


@pytest.mark.parametrize("size", [1, 3, 56, 100000])
def test_tcp(size):
    with servers.Stream(servers.echo) as other:
        result = client.run("--ping", "-c", 5, "-i", "10ms", "-s", size, *other.where)
        assert other.accepted == 1
    assert result.returncode == client.OK, result.stdout + result.stderr
    assert re.search(r"connected in \d+\.\d{3} ms$", result.stdout.splitlines()[0])
    for seq in range(1, 6):
        assert len(lines(result, rf"^{size} byte{'s' if size > 1 else ''} from 127\.0\.0\.1:\d+: seq={seq} time=\d+\.\d+ ms$")) == 1
    assert lines(result, r"^5 sent, 5 received, 0% loss, time \d+ ms$")
    assert lines(result, r"^connect min/avg/max/mdev = ")
    assert lines(result, r"^rtt min/avg/max/mdev = (\d+\.\d{3}/){3}\d+\.\d{3} ms$")
    assert lines(result, r"^rtt p50/p90/p99/p99\.9 = (\d+\.\d{3}/){3}\d+\.\d{3} ms$")


def test_reconnect():
    with servers.Stream(servers.echo) as other:
        result = client.run("--ping", "--reconnect", "-c", 4, "-i", "5ms", *other.where)
        assert other.accepted == 1 + 4  # the first connection shows that the target can be reached
    assert result.returncode == client.OK
    assert len(lines(result, r"seq=\d connect=\d+\.\d+ ms time=\d+\.\d+ ms$")) == 4
    assert lines(result, r"^connect .*\(4 made\)$")


def test_unix(start, tmpdir):
    path = os.path.join(tmpdir, "socket")
    start("epoll", listen=["unix:" + path])
    found = client.report("--ping", "-c", 3, "-i", 0, "unix:" + path)
    assert (found["transport"], found["sent"], found["received"]) == ("unix", 3, 3)


def test_json_adds_up(server):
    found = client.report("--ping", "-c", 200, "-i", 0, "127.0.0.1", server.port)
    assert (found["sent"], found["received"], found["lost"], found["loss_percent"]) == (200, 200, 0, 0)
    rtt = found["rtt_us"]
    assert rtt["count"] == 200
    assert 0 < rtt["min"] <= rtt["p50"] <= rtt["p90"] <= rtt["p99"] <= rtt["p999"] <= rtt["max"]
    assert rtt["min"] <= rtt["mean"] <= rtt["max"]
    assert found["connect_us"]["count"] == 1


def test_json_whatever_the_name(tmpdir):
    """A path is bytes, and JSON is UTF-8 (RFC 8259, 8.1)."""
    path = os.fsencode(tmpdir) + b'/"\\\n\xff\xc0\x80\xed\xa0\x80\xf5\xe2\x82\xc3\xbc\xf0\x9f\x98\x80'
    with servers.Stream(servers.echo, socket.AF_UNIX, path):
        result = client.run("--ping", "-c", 1, "--json", "unix:" + os.fsdecode(path), text=False)
    assert result.returncode == client.OK, result.stderr
    assert json.loads(result.stdout.decode())["target"] == f'unix:{tmpdir}/"\\\n' + 9 * "\ufffd" + "ü😀"


def test_a_text_report_has_no_control_characters(tmpdir):
    path = os.fsencode(tmpdir) + b"/a\n\x1b[2J\xff"
    with servers.Stream(servers.echo, socket.AF_UNIX, path):
        result = client.run("--ping", "-c", 1, "unix:" + os.fsdecode(path), text=False)
    assert result.returncode == client.OK, result.stderr
    assert b"\x1b" not in result.stdout and rb"/a\x0A\x1B[2J\xFF echo statistics ---" in result.stdout
    result = client.run("--ping", "-c", 1, "h\x1b[2J\n")
    assert result.returncode != client.OK and r"h\x1B[2J\x0A" in result.stderr


def test_udp_through_echod(server):
    found = client.report("--ping", "-u", "-c", 20, "-i", "1ms", "127.0.0.1", server.port)
    assert (found["sent"], found["received"], found["transport"]) == (20, 20, "udp")
    assert found["duplicates"] == found["reordered"] == found["late"] == found["strays"] == found["differing"] == 0


def test_udp_over_a_bad_path_counts_what_happened():
    """The relay counts the faults that it causes, and the counts of echoc must be exactly the same."""
    with servers.Datagram() as other, \
            servers.Path(other.where, loss=0.1, duplication=0.05, delay=0.005) as path:
        found = client.report("--ping", "-u", "-c", 2000, "-i", "1ms", "-W", "4", *path.where, status=client.DIFFERS)
        assert path.lost > 100 and path.doubled > 50
        assert found["sent"] == 2000 == path.passed + path.lost
        assert found["lost"] == path.lost
        assert found["received"] == path.passed
        # The duplicate of the last answer may arrive after the end.
        assert path.doubled - 1 <= found["duplicates"] <= path.doubled
        assert found["loss_percent"] == pytest.approx(100 * path.lost / 2000, abs=0.001)
    # The counts also agree with the configured rates, within five standard deviations.
    assert abs(found["lost"] - 200) < 5 * (2000 * 0.1 * 0.9) ** 0.5
    assert abs(found["duplicates"] - 90) < 5 * (1800 * 0.05 * 0.95) ** 0.5
    assert found["rtt_us"]["min"] >= 5000
    assert found["differing"] == found["strays"] == 0


def test_udp_delay_and_jitter_are_measured():
    with servers.Datagram() as other, servers.Path(other.where, delay=0.04, jitter=0.01) as path:
        found = client.report("--ping", "-u", "-c", 300, "-i", "2ms", *path.where)
    rtt = found["rtt_us"]
    assert 30000 <= rtt["min"] < rtt["max"]
    assert 39000 <= rtt["mean"] and rtt["p50"] < 500000  # plus delays of the machine
    assert rtt["mdev"] >= 5000  # uniform over 20 ms: 5.77


def test_udp_reordering_is_reported():
    """An answer delayed by 20 ms arrives after answers that were sent later."""
    with servers.Datagram() as other, servers.Path(other.where, reordering=0.1, hold=0.1) as path:
        found = client.report("--ping", "-u", "-c", 500, "-i", "2ms", *path.where)
        assert path.held > 20
    assert found["received"] == 500
    # Later answers do not overtake one of the last answers, and two consecutive delayed answers keep their order.
    assert 0.7 * path.held <= found["reordered"] <= path.held


def test_udp_late_answers_count_as_received():
    with servers.Datagram() as other, servers.Path(other.where, reordering=0.5, hold=0.3) as path:
        result = client.run("--ping", "-u", "-c", 40, "-i", "20ms", "-W", "100ms", *path.where)
        assert path.held > 5
    assert re.search(r"seq=\d+ no answer within 0\.1 s", result.stdout)
    assert re.search(r"seq=\d+ ttl=\d+ time=3\d\d\.\d+ ms \(late\)", result.stdout)
    sent, received, late = (int(n) for n in re.search(r"^(\d+) sent, (\d+) received.* (\d+) late", result.stdout, re.M).groups())
    assert sent == 40 and late > 0 and received >= 40 - path.held + late


def wrong_answers(data, number):
    if number == 2:
        return [data[:30] + bytes([data[30] ^ 0xff]) + data[31:]]
    if number == 3:
        return [data[:40]]
    if number == 4:
        return [b"\0" * len(data), data]
    if number == 5:
        return [data, data, data]
    return [data]


def test_udp_wrong_answers_are_reported():
    with servers.Datagram(wrong_answers) as other:
        result = client.run("--ping", "-u", "-c", 6, "-i", "50ms", "-W", 2, *other.where)
    assert result.returncode == client.DIFFERS
    assert lines(result, r"seq=2 WRONG BYTE at offset 30: sent 0x..")
    assert lines(result, r"^40 bytes .* seq=3 WRONG LENGTH: sent 56 bytes")
    assert lines(result, r"not an answer to any of our probes")
    assert len(lines(result, r"seq=5 .*\(duplicate\)")) == 2
    assert lines(result, r"^6 sent, 4 received, 0% loss, .*2 differing, 2 duplicates, 1 strays$")


def test_tcp_wrong_byte():
    with servers.Stream(servers.corrupt(56 + 10)) as other:
        result = client.run("--ping", "-c", 3, "-i", "5ms", *other.where)
    assert result.returncode == client.DIFFERS
    assert lines(result, r"seq=2 WRONG BYTE at offset 10")
    assert lines(result, r"^3 sent, 2 received, 0% loss, .*1 differing$")


def test_tcp_continues_when_the_server_closes():
    """echoc connects again. On a busy machine, it may have sent more probes before the server closes, which are lost."""
    with servers.Stream(servers.close_after(2 * 56 + 20)) as other:
        process = client.start("--ping", "-i", "20ms", *other.where)
        proc.until(lambda: other.accepted >= 3, "a third connection, after probes on the second one", 60)
        status, out, err = client.interrupt(process)
    assert status == client.DIFFERS, err
    assert re.search(r"seq=3 the (server closed the connection|connection broke).*seq=\d+ time=", out, re.S), out


def test_silence_is_loss():
    with servers.Stream(servers.silent) as other:
        result = client.run("--ping", "-c", 2, "-i", "10ms", "-W", "200ms", *other.where)
    assert result.returncode == client.DIFFERS
    assert len(lines(result, r"seq=\d no answer within 0\.2 s")) == 2
    assert lines(result, r"^2 sent, 0 received, 100% loss")


def test_deadline(server):
    result = client.run("--ping", "-w", "1s", "-i", "100ms", "127.0.0.1", server.port)
    assert result.returncode == client.OK, result.stdout
    assert 2 <= len(lines(result, r"seq=")) <= 11


@pytest.mark.parametrize("more", [["-u"], [], ["--reconnect"]], ids="".join)
def test_silence_until_the_deadline_is_no_success(more):
    """The probe is still outstanding, so it is not counted as lost, but the exit status is an error without an answer."""
    with (servers.Datagram(lambda data, number: []) if more == ["-u"] else servers.Stream(servers.silent)) as other:
        result = client.run("--ping", "-w", 1, "-i", 30, "-W", 20, *more, *other.where)
    assert result.returncode == client.DIFFERS
    assert lines(result, r"^1 sent, 0 received, 0% loss, .*1 still under way$")


def test_a_count_that_the_deadline_cuts_short_is_no_success(server):
    result = client.run("--ping", "-c", 1000, "-w", 1, "-i", "20ms", "127.0.0.1", server.port)
    assert result.returncode == client.DIFFERS
    assert lines(result, r"^\d+ sent, [1-9]\d* received, 0% loss")


@pytest.mark.parametrize("more", [[], ["--reconnect"]], ids="".join)
def test_the_deadline_holds_for_connecting(more):
    with servers.full() as address:
        result = client.run("--ping", *more, "-w", "300ms", "-W", 0, *address, timeout=client.LIMIT)
    assert result.returncode == client.UNREACHED
    assert result.stderr.endswith("no answer within 0.3 s\n")


def test_interrupted(server):
    process = client.start("--ping", "-i", "10ms", "127.0.0.1", server.port)
    while b"seq=3" not in process.stdout.readline():
        pass
    status, out, _ = client.interrupt(process)
    assert status == client.OK
    assert re.search(r"^\d+ sent, \d+ received, 0% loss", out, re.M)


def test_a_closed_output_ends_it(server):
    """The reader of the output ends, as in "echoc ... | head"."""
    process = client.start("--ping", "-i", "10ms", "127.0.0.1", server.port)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(client.LIMIT) == client.DIFFERS
    assert process.stderr.read() == b"echoc: standard output: Broken pipe\n"


def test_quiet(server):
    result = client.run("--ping", "-q", "-c", 3, "-i", 0, "127.0.0.1", server.port)
    assert result.returncode == client.OK
    assert not lines(result, r"seq=") and lines(result, r"^3 sent, 3 received")


@pytest.mark.parametrize("udp", [[], ["-u"]])
def test_nobody_there(udp):
    result = client.run("--ping", *udp, "-c", 2, "-i", "10ms", "127.0.0.1", echod.free_port())
    assert result.returncode == client.UNREACHED
    assert re.search("refused|no service", result.stdout + result.stderr)


@pytest.mark.parametrize("how", ["-q", "--json"])
def test_no_service_is_reported_on_standard_error(how):
    port = echod.free_port()
    result = client.run("--ping", "-u", how, "-c", 1, "127.0.0.1", port)
    assert result.returncode == client.UNREACHED
    assert result.stderr == f"echoc: no UDP service at 127.0.0.1:{port}: Connection refused\n"


# Jitter, interim summary, streams of objects

def test_jitter_is_the_difference_of_consecutive_round_trips():
    """Every second answer takes 30 ms longer; delays of a busy machine are part of the round-trip times too."""
    with servers.Datagram(lambda data, number: time.sleep(0.03 * (number % 2)) or [data]) as other:
        *probes, found = stream("--ping", "-u", "-c", 11, "-i", "100ms", *other.where)
    times = [probe["rtt_us"] for probe in probes]
    assert len(times) == 11 and max(times) >= 30000
    differences = sorted(abs(one - other) for one, other in zip(times, times[1:]))
    jitter = found["jitter_us"]
    assert jitter["count"] == 10
    assert jitter["min"] <= jitter["p50"] <= jitter["max"]
    for name, value in ("min", differences[0]), ("max", differences[-1]), ("mean", sum(differences) / 10):
        assert jitter[name] == pytest.approx(value, rel=0.05, abs=2), (name, differences)


def test_jitter_needs_two_consecutive_answers():
    with servers.Datagram(lambda data, number: [data] if number % 2 else []) as other:
        found = client.report("--ping", "-u", "-c", 6, "-i", "1ms", "-W", "100ms", *other.where, status=client.DIFFERS)
    assert found["received"] == 3
    assert found["jitter_us"]["count"] == 0 and found["jitter_us"]["mean"] is None


@pytest.mark.parametrize("transport", [[], ["-u"]], ids=["tcp", "udp"])
def test_interim_summary(server, transport):
    """Ctrl-\\ prints the summary so far, and the ping continues."""
    process = client.start("--ping", *transport, "-c", 100000, "-i", "5ms", "127.0.0.1", server.port)
    for line in process.stdout:
        if b"seq=5" in line:
            break
    process.send_signal(signal.SIGQUIT)
    text = b""
    for line in process.stdout:
        text += line
        if b"seq=" in line and b"echo statistics" in text:
            break
    assert re.search(rb"statistics ---\n\d+ sent, \d+ received, 0% loss.*\n(connect .*\n)?rtt min.*\nrtt p50.*\njitter mean", text)
    status, out, _ = client.interrupt(process)
    assert status == client.OK
    assert "echo statistics" in out


def test_interim_summary_beside_json(server):
    process = client.start("--ping", "--json-stream", "-c", 100000, "-i", "5ms", "127.0.0.1", server.port)
    for line in process.stdout:
        if json.loads(line)["seq"] == 5:
            break
    process.send_signal(signal.SIGQUIT)
    for line in process.stderr:
        if b"jitter" in line:
            break
    status, out, _ = client.interrupt(process)
    assert status == client.OK
    assert [json.loads(line)["type"] for line in out.splitlines()][-1] == "summary"


def stream(*args, status=client.OK, **more):
    result = client.run(*args, "--json-stream", **more)
    assert result.returncode == status, result.stdout + result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_stream_of_objects(server):
    found = stream("--ping", "-u", "-c", 3, "-i", "1ms", "127.0.0.1", server.port)
    assert [one["type"] for one in found] == ["probe"] * 3 + ["summary"]
    assert [one["seq"] for one in found[:3]] == [1, 2, 3]
    for one in found[:3]:
        assert (one["status"], one["size"], one["flow"], one["late"], one["reordered"]) == ("answer", 56, 1, False, False)
        assert one["rtt_us"] > 0 and one["ttl"] > 0 and 0 < one["source_port"] < 65536
        assert abs(one["time"] - time.time()) < 60
    assert found[3]["received"] == 3


def test_stream_of_objects_for_errors():
    answers = {1: lambda data: [data, data], 2: lambda data: [], 3: lambda data: [data[:30] + b"?" + data[31:]],
               4: lambda data: [b"x" * 10]}
    with servers.Datagram(lambda data, number: answers[number](data)) as other:
        found = stream("--ping", "-u", "-c", 4, "-i", "50ms", "-W", "300ms", *other.where, status=client.DIFFERS)
    statuses = {(one["seq"], one["status"]) for one in found if one["type"] == "probe"}
    assert statuses == {(1, "answer"), (1, "duplicate"), (2, "timeout"), (3, "differs"), (None, "stray"), (4, "timeout")}


def test_stream_of_an_error():
    port = echod.free_port()
    found = stream("--ping", "-c", 1, "127.0.0.1", port, status=client.UNREACHED)
    assert len(found) == 1 and found[0]["type"] == "summary" and "refused" in found[0]["error"]


def test_timestamps(server):
    result = client.run("--ping", "-D", "-c", 2, "-i", "1ms", "127.0.0.1", server.port)
    stamps = [float(stamp) for stamp in re.findall(r"^\[(\d+\.\d{6})\] 56 bytes from", result.stdout, re.M)]
    assert len(stamps) == 2 and stamps == sorted(stamps) and abs(stamps[0] - time.time()) < 60


# Fields of the received packets, and ICMP errors

def test_port_unreachable():
    port = echod.free_port()
    result = client.run("--ping", "-u", "-c", 1, "127.0.0.1", port)
    assert result.returncode == client.UNREACHED
    assert lines(result, r"^From 127\.0\.0\.1: seq=1 Port unreachable")
    assert "1 errors" in result.stdout
    found = stream("--ping", "-u", "-c", 1, "127.0.0.1", port, status=client.UNREACHED)
    assert (found[0]["status"], found[0]["seq"], found[0]["from"]) == ("error", 1, "127.0.0.1")


@pytest.mark.parametrize("family, router, text", [(4, "10.98.0.2", "Time to live exceeded"), (6, "fd98:0::2", "Hop limit exceeded")])
def test_a_hop_limit_shows_the_router(family, router, text):
    router = router.replace(":0::", "::") if family == 6 else router
    with paths.network() as net:
        found = stream("--ping", "-u", "-t", 1, "-c", 1, paths.SERVER[family], 9, wrap=net.client.wrap(), status=client.DIFFERS)
    assert (found[0]["status"], found[0]["seq"], found[0]["error"]) == ("error", 1, text)
    assert ipaddress.ip_address(found[0]["from"]) == ipaddress.ip_address(router)
    assert (found[1]["lost"], found[1]["errors"]) == (1, 1)


@pytest.mark.parametrize("family", [4, 6])
def test_a_path_mtu(family):
    """A router reports the MTU of the next link; from then on the kernel of this host reports it."""
    with paths.network() as net:
        net.server_mtu(0, 1280)
        with servers.Datagram(host=paths.SERVER[family], make=net.server.socket) as other:
            args = ["--ping", "-u", "-s", 1400, "-i", "50ms", *other.where]
            never = stream("-M", "do", "-c", 2, *args, wrap=net.client.wrap(), status=client.DIFFERS)
            later = client.report("-M", "want", "-c", 2, *args, wrap=net.client.wrap())
            if family == 4:
                net.client.setup("route", "flush", "cache")
                always = client.report("-M", "dont", "-c", 2, *args, wrap=net.client.wrap())
    routed, local, summary = never
    assert (routed["seq"], routed["mtu"], local["seq"], local["mtu"]) == (1, 1280, 2, 1280)
    assert ipaddress.ip_address(routed["from"]) in map(ipaddress.ip_address, ["10.98.0.2", "fd98:0:0::2"])
    assert local["from"] is None and "(MTU 1280)" in local["error"]
    assert summary["lost"] == 2
    assert later["received"] == 2  # the kernel has stored the path MTU
    if family == 4:
        assert (always["received"], always["errors"]) == (2, 0)


@pytest.mark.parametrize("reflect", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_dscp_of_the_answers(start, reflect, host):
    daemon = start("epoll", listen=[host], protocols=["tcp", "udp"], udp_rate=0,
                   reflect_dscp=reflect, log_connections=False)
    found = client.report("--ping", "-u", "-c", 3, "-i", "1ms", "-Q", "EF", host, daemon.port)
    assert found["dscp"] == 46
    assert (found["dscp_kept"], found["dscp_changed"]) == ((3, 0) if reflect else (0, 3))
    result = client.run("--ping", "-u", "-c", 3, "-i", "1ms", "-Q", "0xb8", host, daemon.port)
    assert f"dscp 46: {3 if reflect else 0} of 3 replies had it" in result.stdout
    assert len(lines(result, r"\(dscp=0\)$")) == (0 if reflect else 3)


def test_ttl_of_the_answers(server):
    result = client.run("--ping", "-u", "-c", 1, "127.0.0.1", server.port)
    ttl = int(re.search(r"seq=1 ttl=(\d+) time=", result.stdout).group(1))
    found = client.report("--ping", "-u", "-c", 1, "127.0.0.1", server.port)
    assert found["ttl_min"] == found["ttl_max"] == ttl


# Flows

@pytest.mark.parametrize("transport", [[], ["-u"]], ids=["tcp", "udp"])
def test_flows_have_ports_of_their_own(server, transport):
    found = client.report("--ping", *transport, "--flows", 4, "-c", 42, "-i", "1ms", "127.0.0.1", server.port)
    assert (found["sent"], found["received"]) == (42, 42)
    flows = found["flows"]
    assert [flow["flow"] for flow in flows] == [1, 2, 3, 4]
    assert len({flow["source_port"] for flow in flows}) == 4
    assert [flow["sent"] for flow in flows] == [11, 11, 10, 10]
    assert [flow["rtt_us"]["count"] for flow in flows] == [11, 11, 10, 10]
    assert found["jitter_us"]["count"] == 42 - 4
    assert found["reordered"] == 0


def test_a_flow_that_breaks_does_not_break_the_others():
    first = threading.Event()

    def serve(connection):
        if not first.is_set():
            first.set()
            servers.close_after(56 + 20)(connection)
        else:
            servers.echo(connection)
    with servers.Stream(serve) as other:
        found = client.report("--ping", "--flows", 2, "-c", 8, "-i", "20ms", *other.where, status=client.DIFFERS)
        assert other.accepted == 3  # the failed flow is opened again
    assert found["flows"][1]["lost"] == 0
    assert found["worst_flow"] == 1


@pytest.mark.skipif(not shutil.which("nft"), reason="nft (nftables) is not installed")
@pytest.mark.parametrize("family", [4, 6])
def test_flows_show_the_path_that_loses(family):
    """Two paths of equal cost; the router of the second drops half of the datagrams: only flows on that path have losses."""
    rule = "add table inet t; add chain inet t f { type filter hook forward priority 0; }; " \
           "add rule inet t f meta l4proto udp iifname rc1 numgen random mod 2 0 drop"
    with paths.network(2) as net:
        made = subprocess.run([*net.routers[1].wrap(), "nft", rule], capture_output=True, text=True, timeout=client.LIMIT)
        if made.returncode != 0:
            pytest.skip(f"nftables does not work here: {made.stderr}")
        with servers.Datagram(host=paths.SERVER[family], make=net.server.socket) as other:
            args = ["--ping", "-u", "--flows", 16, "-c", 320, "-i", "2ms", "-W", "500ms", *other.where]
            found = client.report(*args, wrap=net.client.wrap(), status=client.DIFFERS)
            text = client.run(*args, wrap=net.client.wrap())
    losses = [flow["loss_percent"] for flow in found["flows"]]
    bad = [loss for loss in losses if loss > 0]
    assert 0 < len(bad) < 16, losses  # each port takes one of the paths
    assert sum(flow["lost"] for flow in found["flows"]) == found["lost"]
    assert min(bad) > 5 and max(bad) < 95  # half of 20 probes in each flow
    assert losses[found["worst_flow"] - 1] == max(losses)
    assert re.search(r"^\d+ of 16 flows had losses; worst: flow \d+ \(source port \d+\), \d+\.?\d*% loss", text.stdout, re.M)


# Metrics

def parse_metrics(path):
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="python3-prometheus-client is not installed")
    with open(path) as file:
        return {(sample.name, *(sample.labels.get(name) for name in ("result", "quantile", "flow") if name in sample.labels)):
                sample for family in parser.text_string_to_metric_families(file.read()) for sample in family.samples}


@pytest.mark.parametrize("more", [[], ["-u"], ["-u", "--flows", "3"]], ids="".join)
def test_metrics(server, tmpdir, more):
    path = os.path.join(tmpdir, "ping.prom")
    found = client.report("--ping", *more, "-c", 9, "-i", "1ms", "--metrics", path, "127.0.0.1", server.port)
    samples = parse_metrics(path)
    assert samples["echoc_ping_success",].value == 1
    assert samples["echoc_ping_probes", "sent"].value == samples["echoc_ping_probes", "received"].value == 9
    assert samples["echoc_ping_loss_ratio",].value == 0
    assert samples["echoc_ping_rtt_seconds_count",].value == 9
    assert samples["echoc_ping_rtt_seconds", "0.5"].value == pytest.approx(found["rtt_us"]["p50"] / 1e6, rel=1e-3)
    assert samples["echoc_ping_rtt_seconds_sum",].value == pytest.approx(found["rtt_us"]["mean"] * 9 / 1e6, rel=1e-3)
    assert samples["echoc_ping_success",].labels == {"target": f"127.0.0.1:{server.port}",
                                                    "transport": "udp" if "-u" in more else "tcp"}
    assert (("echoc_ping_connect_seconds_count",) in samples) == (not more)
    assert (("echoc_ping_flow_loss_ratio", "3") in samples) == ("--flows" in more)
    assert abs(samples["echoc_ping_timestamp_seconds",].value - time.time()) < 60
    assert os.listdir(tmpdir).count("ping.prom") == 1 and not [name for name in os.listdir(tmpdir) if name.startswith("ping.prom.")]


def test_metrics_of_a_failure(tmpdir):
    path = os.path.join(tmpdir, 'ping"\\.prom')
    socket_path = os.path.join(tmpdir, 'so"ck\\et')
    assert client.run("--ping", "-c", 1, "--metrics", path, "unix:" + socket_path).returncode == client.UNREACHED
    samples = parse_metrics(path)
    assert samples["echoc_ping_success",].value == 0
    assert samples["echoc_ping_success",].labels["target"] == "unix:" + socket_path
    assert samples["echoc_ping_rtt_seconds_count",].value == 0
    with servers.Datagram(lambda data, number: []) as other:
        client.report("--ping", "-u", "-c", 2, "-i", 0, "-W", "50ms", "--metrics", path, *other.where, status=client.DIFFERS)
    samples = parse_metrics(path)
    assert samples["echoc_ping_success",].value == 0 and samples["echoc_ping_loss_ratio",].value == 1
    assert samples["echoc_ping_probes", "lost"].value == 2


def test_reconnect_without_local_ports():
    """Probes wait until a local port is free, and are not counted as lost."""
    with netns.make(lambda space: space.sysctl("net.ipv4.ip_local_port_range=40000 40015")) as space:
        space.sysctl("net.ipv4.tcp_tw_reuse=0")
        listener = space.socket(socket.AF_INET)
        listener.bind(("127.0.0.1", 7007))
        with servers.Stream(servers.echo, listener=listener):
            result = client.run("--ping", "--reconnect", "-i", 0, "-w", 3, "127.0.0.1", 7007, wrap=space.wrap())
    assert "no local port is free" in result.stdout
    assert re.search(r"^15 sent, 15 received, 0% loss", result.stdout, re.M)


# Settings of the sent packets

@pytest.mark.parametrize("dscp, tos", [("EF", 0xb8), ("46", 0xb8), ("cs1", 0x20), ("AF41", 0x88), ("0", 0)])
def test_dscp(dscp, tos):
    with servers.Datagram() as other:
        assert client.run("--ping", "-u", "-c", 1, "-Q", dscp, *other.where).returncode == client.OK
        assert other.tos == {tos}


def test_source():
    with servers.Datagram() as other:
        assert client.run("--ping", "-u", "-c", 1, "--source", "127.0.0.77", *other.where).returncode == client.OK
        assert other.peers == {"127.0.0.77"}
    with servers.Stream(servers.echo) as other:
        assert client.run("--ping", "-c", 1, "--source", "127.0.0.78", *other.where).returncode == client.OK
        assert other.connections and other.accepted == 1


def test_source_of_another_host():
    with servers.Stream(servers.echo) as other:
        result = client.run("--ping", "-c", 1, "--source", "192.0.2.77", *other.where)
    assert result.returncode == client.UNREACHED
    assert "cannot bind to the source address: Cannot assign requested address" in result.stderr


def test_interface():
    with servers.Datagram() as other:
        result = client.run("--ping", "-u", "-c", 1, "-I", "lo", *other.where)
        if "Operation not permitted" in result.stderr:
            pytest.skip("binding to an interface is not permitted here")
        assert result.returncode == client.OK
        result = client.run("--ping", "-u", "-c", 1, "-I", "nowhere7", *other.where)
    assert result.returncode == client.UNREACHED
    assert "cannot bind to the interface: No such device" in result.stderr


# netem: the kernel's network emulator, in a separate network namespace

NETEM = """
set -e
ip link set lo up
tc qdisc add dev lo root netem {netem}
exec "$@"
"""


def netem_missing():
    if os.geteuid() != 0:
        return "needs root, for a network namespace"
    for tool in ("unshare", "ip", "tc"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    probe = subprocess.run(["unshare", "-n", "sh", "-c", NETEM.format(netem="delay 1ms"), "sh", "true"],
                           capture_output=True, text=True, timeout=client.LIMIT)
    if "qdisc kind is unknown" in probe.stderr:
        return "this kernel was built without netem (CONFIG_NET_SCH_NETEM); the tests with a relay measure the same"
    if probe.returncode != 0:
        return "no netem here: " + " ".join(probe.stderr.split())[:120]
    return None


@pytest.mark.parametrize("netem, check", [
    # In both directions, so each probe is affected twice.
    ("loss 5%", lambda f: abs(f["loss_percent"] - 9.75) < 5 * 100 * (0.0975 * 0.9025 / 2000) ** 0.5),
    ("delay 10ms", lambda f: f["rtt_us"]["min"] >= 20000 and f["rtt_us"]["p50"] < 25000 and f["lost"] == 0),
    ("duplicate 5%", lambda f: f["lost"] == 0 and 100 < f["duplicates"] < 320),
    ("delay 10ms reorder 75% gap 5", lambda f: f["lost"] == 0 and f["reordered"] > 100),
], ids=["loss", "delay", "duplicate", "reorder"])
def test_netem(netem, check, tmpdir):
    reason = netem_missing()
    if reason:
        pytest.skip(reason)
    script = os.path.join(tmpdir, "both")
    with open(script, "w") as file:
        file.write(f"""
import subprocess, sys
sys.path.insert(0, {os.path.dirname(servers.__file__)!r})
import echo_servers as servers
import netns
import paths
with servers.Datagram() as other:
    sys.exit(subprocess.call([{client.ECHOC!r}, "--ping", "--json", "-u", "-c", "2000", "-i", "1ms", "-W", "1",
                              *map(str, other.where)]))
""")

    result = subprocess.run(["unshare", "-n", "sh", "-c", NETEM.format(netem=netem), "sh", sys.executable, script],
                            capture_output=True, text=True, timeout=client.LIMIT)
    found = json.loads(result.stdout)
    assert found["sent"] == 2000
    assert check(found), found
