# SPDX-License-Identifier: ISC
"""Every model runs the same short scenario on each host of a table. LD_PRELOAD (host.c), namespaces and real limits emulate
the limits, processors, kernels, file systems, networks and users of other hosts."""

import contextlib
import fcntl
import os
import pwd
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

import pytest

import build
import echod
import metrics
import netns
import peer
import proc

STOCK_WMEM_MAX = 212992  # default of net.core.wmem_max
LAST_CALL = 439          # faccessat2, the newest of Linux 5.9, the oldest kernel that README names
LAST_CALL_BEFORE_CLOSE_RANGE = 435
TICKS_WRAP = 1 << 47     # microseconds of the monotonic clock: the ticks of sessions are stored modulo 2^29 (session.h)
PIPE_USER = 9            # the uid of a system user whose pipe memory is used up; other tests use 1 to 8
MEMORY = 48 << 20        # maximum of the daemon without connections; tables sized by a limit must not exceed it

TCP, UDP, UNIX = "tcp", "udp", "unix"


@dataclass
class Host:
    """How to start a daemon on this host, and the expected properties."""
    wrap: list = field(default_factory=list)     # prefix of the command
    env: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)     # of echod.conf
    program: Optional[str] = None
    clients: list = field(default_factory=lambda: ["127.0.0.1", *(["::1"] if echod.have_ipv6() else [])])
    inside: Callable = lambda act: act()         # calls act() in the network namespace of the clients
    transports: tuple = (TCP, UDP, UNIX)
    processors: Optional[int] = None             # the event loops that `workers = 0` must give
    connections: int = 1                         # connections that are open during the reload
    forked: bool = False                         # echod is a child of `wrap`
    first_process: bool = False                  # echod is PID 1 of its namespace


# Parts of hosts

def needs_root():
    if os.geteuid() != 0:
        pytest.skip("only root can make this host")


def preload(**settings):
    """Environment for a host that host.c emulates."""
    if echod.SANITIZED:
        pytest.skip("a sanitizer does not run beside LD_PRELOAD")
    library = build.DIRECTORY / "tests/hosts/host.so"
    assert library.is_file(), f"{library} is missing: make check-hosts makes it"
    return {"LD_PRELOAD": str(library), **{f"HOST_{name.upper()}": str(value) for name, value in settings.items()}}


def limited(number):
    """A host with this hard and soft RLIMIT_NOFILE."""
    if number > proc.hard_nofile():
        return Host(env=preload(nofile=number))
    return Host(wrap=["prlimit", f"--nofile={number}:{number}"])


def shell(script, *args):
    """A command prefix: run a shell script, whose last command is exec "$@", in a new mount namespace."""
    needs_root()
    return ["unshare", "--mount", "sh", "-ec", script, "sh", *args]


# Make a root directory at $1 with all of the current one except the paths $2.
ROOT = """
new=$1 without=$2
shift 2
mount -t tmpfs none "$new"
for path in /*; do
	case " $without " in *" $path "*) continue ;; esac
	if [ -L "$path" ]; then cp -P "$path" "$new"
	elif [ -d "$path" ]; then mkdir "$new$path"; mount --rbind "$path" "$new$path"
	fi
done
for path in $without; do ! [ -e "$new$path" ]; done
exec chroot "$new" "$@"
"""

READ_ONLY = """
for path in $(findmnt -rno TARGET | sort -r); do mount -o remount,bind,ro "$path" 2>/dev/null || :; done
if touch "$1/file" 2>/dev/null; then echo "the root is not read-only" >&2; exit 99; fi
shift
exec "$@"
"""

# Join the control group $1.
JOIN = """
echo $$ >"$1/cgroup.procs"
shift
exec "$@"
"""


def without(*paths, **keys):
    def make(directory, stack):
        (directory / "root").mkdir()
        return Host(wrap=shell(ROOT, str(directory / "root"), " ".join(paths)), keys=keys)
    return make


def read_only(directory, stack):
    return Host(wrap=shell(READ_ONLY, str(directory)), transports=(TCP, UDP))


def quota_v1(directory, stack):
    """A host with half a processor, by a real control group."""
    needs_root()
    parent = Path("/sys/fs/cgroup/cpu")
    if not (parent / "cpu.cfs_quota_us").parent.is_dir() or not os.access(parent / "cgroup.procs", os.W_OK):
        pytest.skip("no control groups of version 1 with the cpu controller at /sys/fs/cgroup/cpu")
    group = parent / f"echod-test-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    # empty once the daemon has ended
    stack.callback(lambda: proc.until(lambda: not (group / "cgroup.procs").read_text() and not group.rmdir(), "an empty group"))
    (group / "cpu.cfs_period_us").write_text("100000")
    (group / "cpu.cfs_quota_us").write_text("50000")
    return Host(wrap=["sh", "-ec", JOIN, "sh", str(group)], processors=1)


def quota_v2(directory, stack):
    """A container that may use three and a half of 64 processors: 4 event loops."""
    files = directory / "files"
    for name, text in {
            "proc/self/mountinfo": "31 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
            "proc/self/cgroup": "0::/machine/container\n",
            "sys/fs/cgroup/machine/cpu.max": "350000 100000\n",
            "sys/fs/cgroup/machine/container/cpu.max": "max 100000\n"}.items():
        path = files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(env=preload(processors=64, files=files), processors=4)


def processors(number, **more):
    def make(directory, stack):
        if number <= len(os.sched_getaffinity(0)) and not more:
            some = sorted(os.sched_getaffinity(0))[:number]
            return Host(wrap=["taskset", "-c", ",".join(map(str, some))], processors=number)
        host = limited(more["nofile"]) if more else Host()
        host.env = {**host.env, **preload(processors=number)}
        host.processors = number
        return host
    return make


def network(setup, clients, **more):
    """A namespace with these sysctls."""
    def make(directory, stack):
        def prepare(namespace):
            for setting in setup:
                namespace.sysctl(setting)
        namespace = stack.enter_context(netns.make(prepare))
        return Host(wrap=namespace.wrap(), inside=namespace.inside, clients=clients, **more)
    return make


def two_uplinks(directory, stack):
    """A client behind a router that has two links to the host; the host's default route is the first link.

        client 10.62.9.2 -- router -- 10.62.1.1 host
                                   \\- 10.62.2.1
    """
    host, router, client = (stack.enter_context(netns.make(lambda namespace: None)) for _ in range(3))
    tag = secrets.token_hex(3)
    for end, other, near, far in ((host, router, "10.62.1.1/24 fd62:1::1/64", "10.62.1.254/24 fd62:1::fe/64"),
                                  (host, router, "10.62.2.1/24 fd62:2::1/64", "10.62.2.254/24 fd62:2::fe/64"),
                                  (client, router, "10.62.9.2/24 fd62:9::2/64", "10.62.9.254/24 fd62:9::fe/64")):
        names = f"a{tag}{near[6]}", f"b{tag}{near[6]}"
        host.ip("link", "add", names[0], "netns", end.name, "type", "veth", "peer", "name", names[1], "netns", other.name)
        for namespace, name, addresses in (end, names[0], near), (other, names[1], far):
            for address in addresses.split():
                namespace.setup("addr", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
            namespace.sysctl(f"net.ipv4.conf.{name}.rp_filter=0")
            namespace.setup("link", "set", name, "up")
    for setting in "net.ipv4.conf.all.rp_filter=0", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1":
        router.sysctl(setting)
    host.sysctl("net.ipv4.conf.all.rp_filter=0")
    for namespace, gateways in (host, ("10.62.1.254", "fd62:1::fe")), (client, ("10.62.9.254", "fd62:9::fe")):
        for gateway in gateways:
            namespace.setup("route", "add", "default", "via", gateway)
    for namespace in host, router, client:
        proc.until(lambda: namespace.links_up(), lambda: f"links of {namespace.name} carry packets", 20)
    return Host(wrap=host.wrap(), inside=client.inside, clients=["10.62.2.1", "10.62.1.1", "fd62:2::1", "fd62:1::1"],
                transports=(TCP, UDP))


def first_process(directory, stack):
    needs_root()
    return Host(wrap=["unshare", "--mount-proc", "--pid", "--fork", "--kill-child"], forked=True, first_process=True)


def unprivileged(directory, stack):
    needs_root()
    program = directory / "echod"
    shutil.copy(echod.ECHOD, program)
    program.chmod(0o755)
    directory.chmod(0o777)
    return Host(wrap=echod.as_nobody(), program=str(program))


def root(directory, stack):
    needs_root()
    return Host(keys={"user": "root"})


def no_bus(directory, stack):
    """A host without system bus and journal, but with a service manager that stores descriptors."""
    (directory / "root").mkdir()
    return Host(wrap=shell(ROOT, str(directory / "root"), "/run /var"),
                env={"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={directory}/no-bus"})


def pipe_memory_used_up(directory, stack):
    """Other programs of the user have more pipes than fs.pipe-user-pages-soft permits: a new pipe has two pages, and no pipe
    may grow (pipe(7))."""
    needs_root()
    soft = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    pipe, other = os.pipe()
    pages = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) // resource.getpagesize()
    os.close(pipe)
    os.close(other)
    count = soft // pages + 1
    if soft == 0 or 2 * count + 100 > proc.hard_nofile():
        pytest.skip(f"{count} pipes cannot be made here: fs.pipe-user-pages-soft is {soft}")
    # the kernel counts all pipes of a user, so only one daemon at a time may use this host
    lock = stack.enter_context(open(__file__, "rb"))
    fcntl.flock(lock, fcntl.LOCK_EX)
    user = pwd.getpwuid(PIPE_USER)
    holder = subprocess.Popen([sys.executable, "-c", PIPES, str(count), str(user.pw_uid)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    stack.callback(holder.wait)
    stack.callback(holder.stdin.close)
    assert int(holder.stdout.readline()) <= 2 * resource.getpagesize()
    return Host(keys={"user": user.pw_name})


# Make $1 pipes as the user $2, print the size of the last, and keep them until standard input ends.
PIPES = """
import fcntl, os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
os.setuid(int(sys.argv[2]))
pipes = [os.pipe() for _ in range(int(sys.argv[1]) + 1)]
print(fcntl.fcntl(pipes[-1][0], fcntl.F_GETPIPE_SZ), flush=True)
sys.stdin.read()
"""


def uptime(seconds):
    """A host whose monotonic clock is at `seconds` when the daemon starts."""
    def make(directory, stack):
        needs_root()
        if not Path("/proc/self/ns/time").exists():
            pytest.skip("the kernel has no time namespaces (CONFIG_TIME_NS)")
        offset = str(int(seconds - time.monotonic()))
        return Host(wrap=["unshare", "--time", "--monotonic", offset, "--boottime", offset, "--fork", "--kill-child"], forked=True)
    return make


HOSTS = {
    "plain": lambda directory, stack: Host(),
    **{f"{number}-descriptors": lambda directory, stack, number=number: limited(number)
       for number in (256, 1024, 20000, 524288, 1 << 30)},
    "stock-wmem_max": lambda directory, stack: Host(env=preload(wmem_max=STOCK_WMEM_MAX), connections=700),
    "1-processor": processors(1),
    "2-processors": processors(2),
    "64-processors": processors(64),
    "64-processors-1024-descriptors": processors(64, nofile=1024),
    "quota-cgroup-v1": quota_v1,
    "quota-cgroup-v2": quota_v2,
    "no-ipv6-address": network(["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"], ["127.0.0.1"]),
    "no-ipv6-in-kernel": lambda directory, stack: Host(env=preload(no_ipv6=1), clients=["127.0.0.1"]),
    "bindv6only": network(["net.ipv6.bindv6only=1"], ["127.0.0.1", "::1"]),
    "no-bus": no_bus,
    "no-proc": without("/proc"),
    "no-run": without("/run"),
    "no-passwd": without("/etc", user=None),  # `user` cannot be "root", which has no name without /etc
    "read-only-root": read_only,
    "pid-1": first_process,
    "two-uplinks": two_uplinks,
    "linux-5.9": lambda directory, stack: Host(env=preload(last_call=LAST_CALL)),
    "no-close_range": lambda directory, stack: Host(env=preload(last_call=LAST_CALL_BEFORE_CLOSE_RANGE)),
    "just-booted": uptime(2),
    "up-for-fifty-years": uptime(50 * 365 * 86400),
    "pipe-memory-used-up": pipe_memory_used_up,
    "root": root,
    "unprivileged": unprivileged,
}


@pytest.fixture(params=HOSTS)
def host(request, tmpdir):
    with contextlib.ExitStack() as stack:
        yield HOSTS[request.param](Path(tmpdir), stack)


# The scenario

def command(host, daemon, *args):
    """Run echod on this host until it exits."""
    result = subprocess.run([*host.wrap, host.program or echod.ECHOD, "-c", daemon.config, *args], env={**os.environ, **host.env},
                            capture_output=True, text=True, timeout=echod.START_TIMEOUT, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, f"echod {' '.join(args)}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


def dumps_consistently(host, daemon, directory):
    """-T prints every key; its output is a valid file with the same meaning."""
    text = command(host, daemon, "-T")
    found = echod.parse_dump(text)
    assert found["port"] == str(daemon.port) and found["idle-timeout"] == "100"
    again = directory / "again.conf"
    again.write_text(text)
    result = subprocess.run([echod.ECHOD, "-T", "-c", again], capture_output=True, text=True, timeout=echod.START_TIMEOUT)
    assert (result.returncode, result.stdout) == (0, text), result.stderr


def datagram(address):
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(peer.PATIENCE)
        sock.connect(address)
        sock.send(b"a datagram")
        assert sock.recv(100) == b"a datagram"


def visit(host, daemon, path):
    for client in host.clients:
        if TCP in host.transports:
            host.inside(lambda: peer.visit((client, daemon.port), peer.data(100000)) or True)
        if UDP in host.transports:
            host.inside(lambda: datagram((client, daemon.port)) or True)
    if UNIX in host.transports:
        peer.visit(path)


def test_host(launch, model, host, tmpdir):
    directory = Path(tmpdir)
    path = str(directory / "echo.sock")
    listen = ["*", *([f"unix:{path}"] if UNIX in host.transports else [])]
    count = host.connections if model not in echod.SERIAL else 1
    keys = {"workers": 0 if model not in echod.SERIAL else echod.default_workers(model), "listen": listen,
            "protocols": ["tcp", "udp"], "idle_timeout": 100, "pidfile": "", **host.keys}
    daemon = launch(model, wrap=host.wrap, env=host.env, program=host.program, notify_file=True, **keys)
    daemon.wait_ready()
    if host.forked:
        daemon.pid = daemon.notify.all("READY")[0].pid
    if host.first_process:
        assert Path(f"/proc/{daemon.pid}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
    assert command(host, daemon, "-t") is not None
    dumps_consistently(host, daemon, directory)
    if host.processors and model in echod.LOOPS:
        workers = int(daemon.wait_log(rf"Ready: model {model}, (\d+) workers?\b").group(1))
        # the rings of io_uring also have to fit into the memory that may be locked
        locked = proc.limit(daemon.pid, "Max locked memory") if model == "io_uring" else None
        assert workers == host.processors if locked is None else 1 <= workers <= host.processors, workers
        assert workers == host.processors or locked < host.processors << 20
    assert daemon.memory() < MEMORY
    visit(host, daemon, path)

    live = [host.inside(lambda: peer.connect((host.clients[0], daemon.port))) for _ in range(count)]
    for sock in live:
        peer.echo(sock, b"before the reload")
    daemon.reload(idle_timeout=200)
    for sock in live:
        peer.echo(sock, b"after the reload")
    if model not in echod.SERIAL:
        visit(host, daemon, path)
    for sock in live:
        peer.finish(sock)
    visit(host, daemon, path)
    counts = metrics.line(daemon)
    assert counts.get("connections", 0) == 0 or proc.until(lambda: metrics.line(daemon).get("connections", 0) == 0, "no connection")
    assert not [name for name in counts if name.startswith(("connections_damaged", "resource_exhaustions"))], counts
    daemon.stop()
    assert "killed by signal" not in daemon.log(), daemon.log()  # every worker ends after the stop request


def test_idle_timeout_when_ticks_wrap(launch, model, tmpdir):
    """After four and a half years of uptime the ticks of the last activity restart at 0: a connection from before that is closed
    after its idle-timeout, not earlier and not later."""
    with contextlib.ExitStack() as stack:
        host = uptime(TICKS_WRAP // 1000000 - 1)(Path(tmpdir), stack)
        started = time.monotonic()
        daemon = launch(model, wrap=host.wrap, idle_timeout=3, pidfile="").wait_ready()
        daemon.pid = daemon.notify.all("READY")[0].pid
        with daemon.connect() as sock:
            peer.echo(sock, b"before")
            last = time.monotonic()
            assert sock.recv(1) == b""
            assert time.monotonic() - last >= 3
            assert time.monotonic() - started > 2  # after the wrap
            daemon.connection_line("%s:%d" % sock.getsockname(), "idle")
        daemon.stop()
