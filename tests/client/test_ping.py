"""echoc --ping: what it measures, and what it makes of answers that go astray."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest

import client
import echod
import echo_servers as servers
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
        assert len(lines(result, rf"^{size} bytes from 127\.0\.0\.1:\d+: seq={seq} time=\d+\.\d+ ms$")) == 1
    assert lines(result, r"^5 sent, 5 received, 0% loss, time \d+ ms$")
    assert lines(result, r"^connect min/avg/max/mdev = ")
    assert lines(result, r"^rtt min/avg/max/mdev = (\d+\.\d{3}/){3}\d+\.\d{3} ms$")
    assert lines(result, r"^rtt p50/p90/p99/p99\.9 = (\d+\.\d{3}/){3}\d+\.\d{3} ms$")


def test_reconnect():
    with servers.Stream(servers.echo) as other:
        result = client.run("--ping", "--reconnect", "-c", 4, "-i", "5ms", *other.where)
        assert other.accepted == 1 + 4  # the first one tells whether the target can be reached
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


def test_udp_through_echod(server):
    found = client.report("--ping", "-u", "-c", 20, "-i", "1ms", "127.0.0.1", server.port)
    assert (found["sent"], found["received"], found["transport"]) == (20, 20, "udp")
    assert found["duplicates"] == found["reordered"] == found["late"] == found["strays"] == found["differing"] == 0


def test_udp_over_a_bad_path_counts_what_happened():
    """The relay knows what it did to each datagram, so the counts must agree exactly."""
    with servers.Datagram() as other, \
            servers.Path(other.where, loss=0.1, duplication=0.05, delay=0.005) as path:
        found = client.report("--ping", "-u", "-c", 2000, "-i", "1ms", "-W", "4", *path.where, status=client.DIFFERS)
        assert path.lost > 100 and path.doubled > 50
        assert found["sent"] == 2000 == path.passed + path.lost
        assert found["lost"] == path.lost
        assert found["received"] == path.passed
        # The last probe's second answer may come when all is over.
        assert path.doubled - 1 <= found["duplicates"] <= path.doubled
        assert found["loss_percent"] == pytest.approx(100 * path.lost / 2000, abs=0.001)
    # And what the path was told, within five standard deviations.
    assert abs(found["lost"] - 200) < 5 * (2000 * 0.1 * 0.9) ** 0.5
    assert abs(found["duplicates"] - 90) < 5 * (1800 * 0.05 * 0.95) ** 0.5
    assert found["rtt_us"]["min"] >= 5000
    assert found["differing"] == found["strays"] == 0


def test_udp_delay_and_jitter_are_measured():
    with servers.Datagram() as other, servers.Path(other.where, delay=0.04, jitter=0.01) as path:
        found = client.report("--ping", "-u", "-c", 300, "-i", "2ms", *path.where)
    rtt = found["rtt_us"]
    assert 30000 <= rtt["min"] < rtt["max"]
    assert 39000 <= rtt["mean"] and rtt["p50"] < 80000  # what the machine adds comes on top
    assert rtt["mdev"] >= 5000  # uniform over 20 ms: 5.77


def test_udp_reordering_is_told():
    """One held back for 20 ms is overtaken by those that left after it."""
    with servers.Datagram() as other, servers.Path(other.where, reordering=0.1, hold=0.1) as path:
        found = client.report("--ping", "-u", "-c", 500, "-i", "2ms", *path.where)
        assert path.held > 20
    assert found["received"] == 500
    # One among the last is not overtaken by anything, and two held one after the other keep their order.
    assert 0.7 * path.held <= found["reordered"] <= path.held


def test_udp_late_answers_count_as_received():
    with servers.Datagram() as other, servers.Path(other.where, reordering=0.5, hold=0.3) as path:
        result = client.run("--ping", "-u", "-c", 40, "-i", "20ms", "-W", "100ms", *path.where)
        assert path.held > 5
    assert re.search(r"seq=\d+ no answer within 0\.1 s", result.stdout)
    assert re.search(r"seq=\d+ time=3\d\d\.\d+ ms \(late\)", result.stdout)
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


def test_udp_wrong_answers_are_told_as_such():
    with servers.Datagram(wrong_answers) as other:
        result = client.run("--ping", "-u", "-c", 6, "-i", "50ms", "-W", 2, *other.where)
    assert result.returncode == client.DIFFERS
    assert lines(result, r"seq=2 WRONG BYTE at offset 30: sent 0x..")
    assert lines(result, r"^40 bytes .* seq=3 WRONG LENGTH: 56 bytes were sent")
    assert lines(result, r"not an answer to any of our probes")
    assert len(lines(result, r"seq=5 .*\(duplicate\)")) == 2
    assert lines(result, r"^6 sent, 4 received, 0% loss, .*2 differing, 2 duplicates, 1 strays$")


def test_tcp_wrong_byte():
    with servers.Stream(servers.corrupt(56 + 10)) as other:
        result = client.run("--ping", "-c", 3, "-i", "5ms", *other.where)
    assert result.returncode == client.DIFFERS
    assert lines(result, r"seq=2 WRONG BYTE at offset 10")
    assert lines(result, r"^3 sent, 2 received, 0% loss, .*1 differing$")


def test_tcp_goes_on_when_the_server_closes():
    """It connects again. A server on a busy machine may close after more probes have been sent, which are lost then."""
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
    result = client.run("--ping", "-w", "300ms", "-i", "50ms", "127.0.0.1", server.port)
    assert result.returncode == client.OK, result.stdout
    assert 2 <= len(lines(result, r"seq=")) <= 7


@pytest.mark.parametrize("more", [["-u"], [], ["--reconnect"]], ids="".join)
def test_silence_until_the_deadline_is_no_success(more):
    """The probe is still under way, so it is not lost; but nothing came back."""
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
        result = client.run("--ping", *more, "-w", "300ms", "-W", 0, *address, timeout=20)
    assert result.returncode == client.UNREACHED
    assert result.stderr.endswith("no answer within 0.3 s\n")


def test_interrupted(server):
    process = client.start("--ping", "-i", "10ms", "127.0.0.1", server.port)
    while b"seq=3" not in process.stdout.readline():
        pass
    status, out, _ = client.interrupt(process)
    assert status == client.OK
    assert re.search(r"^\d+ sent, \d+ received, 0% loss", out, re.M)


def test_an_output_that_nobody_reads_ends_it(server):
    """As behind "| head"."""
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
def test_nobody_there_is_told_where_probes_are_not(how):
    port = echod.free_port()
    result = client.run("--ping", "-u", how, "-c", 1, "127.0.0.1", port)
    assert result.returncode == client.UNREACHED
    assert result.stderr == f"echoc: no UDP service at 127.0.0.1:{port}: Connection refused\n"


# How the packets leave

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


def test_source_that_is_not_ours():
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


# netem: the kernel's own bad network, in a network namespace of the test's own

NETEM = """
set -e
ip link set lo up
tc qdisc add dev lo root netem {netem}
exec "$@"
"""


def netem_missing():
    if os.geteuid() != 0:
        return "needs root, for a network namespace of its own"
    for tool in ("unshare", "ip", "tc"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    probe = subprocess.run(["unshare", "-n", "sh", "-c", NETEM.format(netem="delay 1ms"), "sh", "true"],
                           capture_output=True, text=True, timeout=20)
    if "qdisc kind is unknown" in probe.stderr:
        return "this kernel was built without netem (CONFIG_NET_SCH_NETEM); the tests with a relay measure the same"
    if probe.returncode != 0:
        return "no netem here: " + " ".join(probe.stderr.split())[:120]
    return None


@pytest.mark.parametrize("netem, check", [
    # Each way, so what a probe meets is both.
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
with servers.Datagram() as other:
    sys.exit(subprocess.call([{client.ECHOC!r}, "--ping", "--json", "-u", "-c", "2000", "-i", "1ms", "-W", "1",
                              *map(str, other.where)]))
""")

    result = subprocess.run(["unshare", "-n", "sh", "-c", NETEM.format(netem=netem), "sh", sys.executable, script],
                            capture_output=True, text=True, timeout=client.LIMIT)
    found = json.loads(result.stdout)
    assert found["sent"] == 2000
    assert check(found), found
