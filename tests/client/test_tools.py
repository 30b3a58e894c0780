# SPDX-License-Identifier: ISC
"""echoc and other programs: through proxies, and on the same path as ping, fping, irtt and iperf3, whose results must agree."""

import contextlib
import ipaddress
import json
import os
import random
import re
import shutil
import subprocess

import pytest

import client
import echo_servers as servers
import echod
import paths
import proc

PAYLOAD = os.urandom(1 << 20)
NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"


def needs(*programs):
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@contextlib.contextmanager
def running(command, answers, **more):
    """Context manager: run a program until the end of the block, which begins when answers() is true."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               start_new_session=True, **more)
    try:
        def ready():
            assert process.poll() is None, f"{command[0]} ended: {process.stderr.read()}"
            return answers()
        proc.until(ready, command[0])
        yield process
    finally:
        for stat in reversed(proc.tree(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(stat.pid, 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        process.stderr.close()


# Proxies

def nginx(tmpdir, port, backend):
    if not os.path.exists(NGINX_STREAM):
        pytest.skip(f"{NGINX_STREAM} is not installed")
    path = os.path.join(tmpdir, "nginx.conf")
    with open(path, "w") as file:
        file.write(f"""load_module {NGINX_STREAM};
daemon off;
worker_processes 1;
pid {tmpdir}/nginx.pid;
error_log stderr error;
events {{ worker_connections 2000; }}
stream {{
    server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{backend}; proxy_half_close on; }}
    server {{ listen 127.0.0.1:{port} udp; proxy_pass 127.0.0.1:{backend}; }}
}}
""")
    return ["nginx", "-p", tmpdir, "-c", path, "-e", "stderr"]


def haproxy(tmpdir, port, backend):
    path = os.path.join(tmpdir, "haproxy.cfg")
    with open(path, "w") as file:
        file.write(f"""global
    maxconn 2000
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen echo
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{backend}
""")
    return ["haproxy", "-db", "-f", path]


@pytest.fixture(params=[pytest.param(nginx, marks=needs("nginx")), pytest.param(haproxy, marks=needs("haproxy"))],
                ids=["nginx", "haproxy"])
def proxy(request, tmpdir, server):
    """The port of a proxy in front of an echod."""
    port = echod.free_port()
    with running(request.param(tmpdir, port, server.port), lambda: client.run("127.0.0.1", port, data="x").stdout == "x"):
        yield port


def test_filter_through_a_proxy(proxy):
    result = client.run(f"localhost:{proxy}", data=PAYLOAD, text=False)
    assert (result.returncode, result.stderr) == (client.OK, b"")
    assert result.stdout == PAYLOAD


@pytest.mark.parametrize("more", [[], ["--flows", 4], ["--reconnect"]], ids=lambda more: "".join(map(str, more)) or "plain")
def test_ping_through_a_proxy(proxy, more):
    found = client.report("--ping", "-c", 20, "-i", "1ms", "-Q", "0xb8", "-t", 100, "-M", "do", *more, "127.0.0.1", proxy)
    assert (found["sent"], found["received"]) == (20, 20)
    assert found["jitter_us"]["count"] == (16 if "--flows" in more else 19)


@pytest.mark.parametrize("more", [["--mode", "rr", "-P", 4], ["--mode", "stream"], ["--mode", "connect"], ["--rate", 500]],
                         ids=lambda more: "".join(map(str, more)))
def test_load_through_a_proxy(proxy, more):
    result = client.run("--load", "--json-stream", "-n", 4, "-d", "400ms", "--warmup", "100ms", "--report", "200ms", *more,
                        "127.0.0.1", proxy)
    assert result.returncode == client.OK, result.stdout + result.stderr
    *intervals, summary = map(json.loads, result.stdout.splitlines())
    assert len(intervals) == 2
    assert summary["bytes_sent"] == summary["bytes_received"] > 0


@needs("nginx")
def test_udp_through_nginx(tmpdir, server):
    port = echod.free_port()
    with running(nginx(tmpdir, port, server.port), lambda: client.run("127.0.0.1", port, data="x").stdout == "x"):
        found = client.report("--ping", "-u", "--flows", 3, "-c", 30, "-i", "2ms", "127.0.0.1", port)
        copy = client.run("-u", "127.0.0.1", port, data=PAYLOAD[:50000], text=False)
    assert (found["sent"], found["received"], found["strays"]) == (30, 30, 0)
    assert (copy.returncode, copy.stdout) == (client.OK, PAYLOAD[:50000])


# The same path

@pytest.fixture
def net():
    with paths.network() as one:
        yield one


def udp_server(net, family=4):
    return servers.Datagram(host=paths.SERVER[family], make=net.server.socket)


def in_client(net, *command):
    return subprocess.run([*net.client.wrap(), *map(str, command)], capture_output=True, text=True, timeout=client.LIMIT)


def drop_every_fourth(net, protocol):
    """Drop packets on the path to the server. Each rule has its own counter."""
    net.routers[0].nft("add table inet t; add chain inet t f { type filter hook forward priority 0; }; "
                       f"add rule inet t f iifname rc0 meta l4proto {protocol} numgen inc mod 4 3 drop")


@needs("ping")
@pytest.mark.parametrize("family", [4, 6])
def test_ping_sees_the_same_hops(net, family):
    """The router at which a TTL of 1 expires, the TTL of replies, and the MTU of the path."""
    net.server_mtu(0, 1280)
    headers = 28 if family == 4 else 48
    with udp_server(net, family) as other:
        hop = client.report("--ping", "-u", "-t", 1, "-c", 1, *other.where, wrap=net.client.wrap(), status=client.DIFFERS)
        lines = client.run("--ping", "-u", "-t", 1, "-c", 1, *other.where, wrap=net.client.wrap()).stdout
        plain = client.report("--ping", "-u", "-c", 1, *other.where, wrap=net.client.wrap())
        large = client.run("--ping", "-u", "-c", 1, "-M", "do", "-s", 1400 - headers, *other.where, wrap=net.client.wrap()).stdout
    assert hop["errors"] == 1
    theirs = in_client(net, "ping", "-n", "-c", 1, "-t", 1, paths.SERVER[family]).stdout
    assert ipaddress.ip_address(re.search(r"^From ([0-9a-f.:]+[0-9a-f]):? ", theirs, re.M).group(1)) \
        == ipaddress.ip_address(re.search(r"^From ([0-9a-f.:]+): ", lines, re.M).group(1))
    theirs = in_client(net, "ping", "-n", "-c", 1, paths.SERVER[family]).stdout
    assert plain["ttl_min"] == int(re.search(r"ttl=(\d+)", theirs).group(1)) == 63
    # ping runs second: the kernel has stored the path MTU and reports it itself.
    theirs = in_client(net, "ping", "-n", "-c", 1, "-M", "do", "-s", 1400 - headers, paths.SERVER[family])
    assert re.search(r"mtu[ =:]*1280", theirs.stdout + theirs.stderr)
    assert "(MTU 1280)" in large


@needs("fping", "nft")
def test_fping_counts_the_same_loss(net):
    drop_every_fourth(net, "udp")
    with udp_server(net) as other:
        found = client.report("--ping", "-u", "-c", 40, "-i", "5ms", "-W", "500ms", *other.where, wrap=net.client.wrap(),
                              status=client.DIFFERS)
    net.routers[0].nft("flush ruleset")
    drop_every_fourth(net, "icmp")
    theirs = in_client(net, "fping", "-q", "-c", 40, "-p", 5, "-t", 2000, paths.SERVER[4])
    assert re.search(r"= 40/30/25%", theirs.stderr), theirs.stderr
    assert (found["sent"], found["received"], found["loss_percent"]) == (40, 30, 25)


@needs("irtt")
def test_irtt_measures_the_same_jitter():
    """Both through a relay that delays each answer by 20 ms plus or minus 10: the mean difference of two is 6.7 ms."""
    port = echod.free_port()
    with running(["irtt", "server", "-b", f"127.0.0.1:{port}"], lambda: listens_udp(port)), \
            servers.Datagram() as other, \
            servers.Path(["127.0.0.1", port], delay=0.02, jitter=0.01) as theirs, \
            servers.Path(other.where, delay=0.02, jitter=0.01, seed=random.randrange(1000)) as ours:
        result = subprocess.run(["irtt", "client", "-Q", "-i", "20ms", "-d", "6s", "-o", "-", f"127.0.0.1:{theirs.where[1]}"],
                                capture_output=True, text=True, timeout=client.LIMIT)
        found = client.report("--ping", "-u", "-c", 300, "-i", "20ms", *ours.where)
    assert result.returncode == 0, result.stderr
    ipdv = json.loads(result.stdout)["stats"]["ipdv_round_trip"]["mean"] / 1e3
    # A busy machine increases both, by different amounts.
    assert ipdv > 5000 and found["jitter_us"]["mean"] > 5000
    assert ipdv / 2 < found["jitter_us"]["mean"] < ipdv * 2


def listens_udp(port):
    with open("/proc/net/udp") as file:
        return f":{port:04X} " in file.read()


@needs("nft", "ping", "iperf3")
def test_the_dscp_is_that_of_other_tools(net):
    """ping -Q and iperf3 -S set the same traffic class; a router counts the packets."""
    net.routers[0].nft("add table inet t; add chain inet t f { type filter hook forward priority 0; }; "
                       "add rule inet t f iifname rc0 ip dscp ef counter")

    def packets():
        listing = subprocess.run([*net.routers[0].wrap(), "nft", "list", "ruleset"], capture_output=True, text=True, timeout=client.LIMIT)
        return int(re.search(r"counter packets (\d+)", listing.stdout).group(1))
    counts = [packets()]
    in_client(net, "ping", "-c", 3, "-i", "0.2", "-Q", "0xb8", paths.SERVER[4])
    counts.append(packets())
    with running([*net.server.wrap(), "iperf3", "-s", "-1", "-p", "7010"],
                 lambda: net.server.inside(lambda: b":1B62 " in proc.read("/proc/thread-self/net/tcp6"))):
        theirs = in_client(net, "iperf3", "-c", paths.SERVER[4], "-p", 7010, "-u", "-b", "1M", "-t", 1, "-S", "0xb8")
    assert theirs.returncode == 0, theirs.stdout + theirs.stderr
    counts.append(packets())
    with udp_server(net) as other:
        for value in ("0xb8", "46", "EF"):
            client.report("--ping", "-u", "-c", 3, "-i", "1ms", "-Q", value, *other.where, wrap=net.client.wrap())
            counts.append(packets())
    with servers.Stream(servers.echo, listener=listener(net)) as other:
        client.report("--load", "-Q", "0xb8", "-n", 1, "-d", "50ms", "--warmup", 0, *other.where, wrap=net.client.wrap())
        counts.append(packets())
    assert counts[0] == 0
    assert counts[1] == 3
    assert counts[2] > counts[1]
    assert [b - a for a, b in zip(counts[2:5], counts[3:6])] == [3, 3, 3]
    assert counts[6] > counts[5]


def listener(net):
    one = net.server.socket()
    one.bind((paths.SERVER[4], 0))
    return one
