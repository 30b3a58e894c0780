# SPDX-License-Identifier: ISC
"""Echo servers of other projects: echoc works the same with each."""

import json
import os
import shutil
import subprocess

import pytest

import client
import echod
import proc

PAYLOAD = os.urandom(1 << 20) * 8


def inetd_conf(tmpdir, port):
    # inetd accepts a port number as the name of a service, but finds its built-in services by name.
    path = os.path.join(tmpdir, "inetd.conf")
    with open(path, "w") as file:
        file.write("127.0.0.1:{0} stream tcp4 nowait root internal\n".format("echo"))
        file.write("127.0.0.1:{0} dgram udp4 wait root internal\n".format("echo"))
    return path


def start_inetd(tmpdir, port):
    program = shutil.which("inetutils-inetd") or shutil.which("inetd")
    if not program:
        pytest.skip("inetutils-inetd is not installed")
    if os.geteuid() != 0:
        pytest.skip("inetd's echo is on port 7, which needs root")
    if not in_namespace():
        pytest.skip("inetd's echo is always on port 7: it needs a network namespace, which is not permitted here")
    return ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", program, "-R", "1000000", "-d", inetd_conf(tmpdir, port)], 7


def start_xinetd(tmpdir, port):
    program = shutil.which("xinetd")
    if not program:
        pytest.skip("xinetd is not installed")
    path = os.path.join(tmpdir, "xinetd.conf")
    with open(path, "w") as file:
        for kind, protocol, wait in (("stream", "tcp", "no"), ("dgram", "udp", "yes")):
            file.write(f"""
service echo
{{
    type = INTERNAL UNLISTED
    id = echo-{kind}
    socket_type = {kind}
    protocol = {protocol}
    wait = {wait}
    port = {port}
    bind = 127.0.0.1
    user = root
    cps = 10000 1
    instances = UNLIMITED
    per_source = UNLIMITED
}}
""")
    return [program, "-dontfork", "-f", path, "-pidfile", os.path.join(tmpdir, "pid")], port


def start_socat(tmpdir, port):
    if not shutil.which("socat"):
        pytest.skip("socat is not installed")
    return ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=128", "PIPE"], port


def start_socat_udp(tmpdir, port):
    if not shutil.which("socat"):
        pytest.skip("socat is not installed")
    return ["socat", f"UDP4-RECVFROM:{port},bind=127.0.0.1,fork", "EXEC:cat"], port


def start_socat_cat(tmpdir, port):
    if not shutil.which("socat"):
        pytest.skip("socat is not installed")
    return ["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=128", "EXEC:cat"], port


def start_ncat(tmpdir, port):
    if not shutil.which("ncat"):
        pytest.skip("ncat is not installed")
    return ["ncat", "-l", "-k", "127.0.0.1", str(port), "--exec", "/bin/cat"], port


def in_namespace():
    return bool(shutil.which("unshare") and shutil.which("ip")) \
        and subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True,
                           timeout=client.LIMIT).returncode == 0


class Peer:
    """A server and its address, which may be in a network namespace."""

    def __init__(self, name, tmpdir, tcp=True):
        self.name = name
        command, self.port = globals()["start_" + name](tmpdir, echod.free_port())
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        self.wrap = []
        try:
            if command[0] == "unshare":
                own = os.readlink("/proc/self/ns/net")
                proc.until(lambda: os.readlink(f"/proc/{self.process.pid}/ns/net") != own, "its namespace")
                self.wrap = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net"]
            proc.until(self.answers if tcp else self.listens_udp, "the server")
        except BaseException:
            self.close()
            raise

    def where(self):
        return ["127.0.0.1", self.port]

    def answers(self):
        assert self.process.poll() is None, f"the server ended: {self.process.returncode}"
        return client.run(*self.where(), data="x", wrap=self.wrap).stdout == "x"

    def listens_udp(self):
        with open(f"/proc/{self.process.pid}/net/udp") as file:
            return f":{self.port:04X} " in file.read()

    def close(self):
        for stat in reversed(proc.tree(self.process.pid)):
            try:
                os.kill(stat.pid, 15)
            except ProcessLookupError:
                pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


@pytest.fixture
def peer(request, tmpdir):
    one = Peer(request.param, tmpdir, tcp=not request.param.endswith("_udp"))
    yield one
    one.close()


streams = pytest.mark.parametrize("peer", ["inetd", "xinetd", "socat", "socat_cat", "ncat"], indirect=True)
datagrams = pytest.mark.parametrize("peer", ["inetd", "xinetd", "socat_udp"], indirect=True)


@streams
def test_filter(peer):
    if peer.name == "ncat":
        slow_filter(peer)
        return
    result = client.run(*peer.where(), data=PAYLOAD, text=False, wrap=peer.wrap)
    assert (result.returncode, result.stderr) == (client.OK, b"")
    assert result.stdout == PAYLOAD


def slow_filter(peer):
    """ncat --exec stops, with any client, when more data is in flight than a pipe holds, and loses the data in flight when the
    input ends: so the test ends the input after all data has come back."""
    payload = PAYLOAD[:40000]
    process = client.start(*peer.where())
    process.stdin.write(payload)
    process.stdin.flush()
    assert process.stdout.read(len(payload)) == payload
    out, err = process.communicate(timeout=client.LIMIT)
    assert (process.returncode, out, err) == (client.OK, b"", b"")


@streams
def test_ping(peer):
    found = client.report("--ping", "-c", 20, "-i", "2ms", *peer.where(), wrap=peer.wrap)
    assert (found["sent"], found["received"]) == (20, 20)


@streams
@pytest.mark.parametrize("mode", ["rr", "stream", "connect"])
def test_load(peer, mode):
    # Not more data in flight than ncat can hold. And inetd -d takes a second before it serves a connection.
    more = ["-P", 2, "-s", 8192] if mode == "stream" else []
    found = client.load("--mode", mode, "-n", 4, "--warmup", "1500ms", "-d", "1", *more, *peer.where(), wrap=peer.wrap)
    assert found["bytes"] > 0


@datagrams
def test_udp(peer):
    # Some servers lose datagrams that arrive while they serve one: echoc reports it, and the copy is exact nevertheless.
    result = client.run("--ping", "--json", "-u", "-c", 20, "-i", "2ms", "-W", "1", *peer.where(), wrap=peer.wrap)
    found = json.loads(result.stdout)
    assert found["sent"] == 20 and found["received"] > 0
    assert found["differing"] == found["strays"] == 0
    assert result.returncode == (client.OK if found["lost"] == 0 else client.DIFFERS)
    result = client.run("-u", "-W", "30", *peer.where(), data=PAYLOAD[:50000], text=False, wrap=peer.wrap)
    assert result.returncode == client.OK, result.stderr
    assert result.stdout == PAYLOAD[:50000]
