# SPDX-License-Identifier: ISC
"""The log on standard error, and SIGUSR1."""

import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import time

import pytest

import build
import echod
import metrics
import peer
import proc


def test_one_line_a_connection(start, model):
    """The line has the peer, the bytes, the duration and the reason, but no data of the client."""
    daemon = start(model)
    with daemon.connect() as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, b"SECRET" * 1111)
        peer.finish(sock)
    line = daemon.connection_line(endpoint, "eof")
    assert re.search(r"\b6666\b", line), f"no byte count: {line}"
    assert re.search(r"\d+(\.\d+)? ?(s|ms|us|µs)\b", line), f"no duration: {line}"
    daemon.stop()
    assert len(daemon.lines_about(endpoint)) == 1
    assert "SECRET" not in daemon.log()


def test_connection_without_a_byte_is_logged_at_debug(start, model):
    """A health check connects and closes, with FIN or RST, or is silent until idle-timeout; refusals are logged at info."""
    daemon = start(model, idle_timeout=1)
    endpoints = {}
    for level in ("info", "debug"):
        daemon.reload(log_level=level)
        for reason, end in (("eof", peer.finish), ("reset", peer.reset), ("idle", lambda sock: sock.recv(1))):
            sock = daemon.connect()
            endpoints[peer.endpoint(sock)] = level, reason
            end(sock)
            sock.close()
        with daemon.connect() as sock:  # with one byte it is logged at both levels
            endpoints[peer.endpoint(sock)] = "byte", "eof"
            peer.echo(sock, b"x")
            peer.finish(sock)
    for endpoint, (level, reason) in endpoints.items():
        if level != "info":
            daemon.connection_line(endpoint, reason)
    daemon.reload(log_level="info", deny=["127.0.0.0/8"])
    daemon.wait_processes(echod.processes(model))  # until then a worker without `deny` may accept
    with daemon.connect() as sock:
        endpoint = peer.endpoint(sock)
        assert peer.ended(sock)
    daemon.connection_line(endpoint, "denied")
    daemon.stop()
    for endpoint, (level, reason) in endpoints.items():
        assert len(daemon.end_lines(endpoint)) == (level != "info"), (endpoint, level, reason)


def test_line_about_a_unix_client(start, tmpdir):
    path = f"{tmpdir}/echo.sock"
    daemon = start("epoll", listen=[f"unix:{path}"])
    peer.visit(path, b"x" * 4711)
    match = daemon.wait_log(r"^.*\b4711\b.*$")
    assert "unix:" in match.group(0) and "eof" in match.group(0)


@pytest.mark.skipif(not echod.have_ipv6(), reason="no IPv6 on this host")
def test_line_about_an_ipv6_client(start):
    daemon = start("epoll", listen=["::1"])
    with peer.connect(("::1", daemon.port)) as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    daemon.connection_line(endpoint, "eof")


def test_no_lines_when_switched_off(start, model):
    daemon = start(model, log_connections=False)
    with daemon.connect() as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    daemon.stop()
    assert not daemon.lines_about(endpoint)


@pytest.mark.parametrize("level", ["err", "warning", "notice", "info", "debug"])
def test_log_level(start, level):
    """Connections are logged at info, but not at err, warning or notice."""
    daemon = start("epoll", log_level=level)
    with daemon.connect() as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    if level in ("info", "debug"):
        daemon.connection_line(endpoint, "eof")
    daemon.stop()
    if level in ("err", "warning", "notice"):
        assert not daemon.lines_about(endpoint)
    if level in ("err", "warning"):
        assert not daemon.log(), "a run without errors has messages of level warning or above"


@pytest.mark.timeout(240)
def test_lines_are_rate_limited_with_a_count(start, model):
    """The lines about thousands of connections are limited; written and suppressed lines add up to the connections."""
    visits = 1200
    daemon = start(model)
    began = time.monotonic()
    for _ in range(visits):
        with daemon.connect() as sock:
            peer.echo(sock, b"x")
            peer.finish(sock)
    took = time.monotonic() - began
    daemon.stop()
    log = daemon.log()
    written = sum(1 for line in log.splitlines() if re.search(r"\beof\b", line) and "127.0.0.1:" in line)
    assert written > 0
    if took < 9:  # a slow machine may not make enough connections in the time to reach the limit
        assert written < visits, f"{written} lines for {visits} connections"
    suppressed = sum(int(match) for match in re.findall(r"Suppressed (\d+) log lines", log))
    assert written + suppressed == visits, f"{written} lines and {suppressed} suppressed of {visits}"


@pytest.mark.timeout(240)
def test_a_flood_from_one_source_leaves_lines_for_others(start, model):
    """Before, among and after thousands of connections from 127.0.0.1, each connection of 127.0.0.2 has its line."""
    daemon = start(model)
    endpoints = []
    for number in range(1300):
        with daemon.connect() as sock:
            peer.echo(sock, b"x")
            peer.finish(sock)
        if number % 100 == 99:
            with socket.create_connection(daemon.address, peer.PATIENCE, source_address=("127.0.0.2", 0)) as sock:
                endpoints.append(peer.endpoint(sock))
                peer.echo(sock, b"not to be overlooked")
                peer.finish(sock)
    daemon.stop()
    for endpoint in endpoints:
        assert len(daemon.lines_about(endpoint)) == 1, f"{endpoint} has no line in:\n{daemon.log()[-3000:]}"


def test_bytes_are_counted_exactly(start, model):
    """The line of each connection has its exact number of bytes."""
    daemon = start(model, log_level="debug")
    for size in (0, 1, 65537, 1048577):
        with daemon.connect() as sock:
            endpoint = peer.endpoint(sock)
            peer.echo(sock, peer.data(size)) if size else None
            peer.finish(sock)
        assert re.search(rf"\b{size}\b", daemon.connection_line(endpoint, "eof"))


def test_sigusr1_logs_the_statistics(start, model):
    daemon = start(model)
    for _ in range(3):
        daemon.visit(b"x" * 41)
    metrics.wait_line(daemon, "the visits", connections=0, connections_ended__eof=3)
    since = len(daemon.log())
    daemon.signal(signal.SIGUSR1)
    match = daemon.wait_log(r"^.*Statistics: .*$", since)
    assert re.search(r"\b3\b", match.group(0)) and re.search(r"\b123\b", match.group(0)), match.group(0)


def test_statistics_are_carried_over_a_reload(start):
    daemon = start("epoll")
    daemon.visit(b"x" * 100)
    daemon.reload(model="thread")
    daemon.visit(b"x" * 23)
    metrics.wait_line(daemon, "the visits", connections=0, connections_ended__eof=2)
    assert metrics.line(daemon)["echoed_bytes"] == 123


# Level debug

def test_debug_lines_follow_a_connection(start, model):
    """The lines: accepted; handed over and taken over, by two workers, in any order; ended."""
    daemon = start(model, log_level="debug")
    with daemon.connect() as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        daemon.replace()  # until it has ended, the old worker may not have written its line
        daemon.wait_log(rf"{re.escape(endpoint)} .*taken over")
        peer.echo(sock, b"again")
        peer.finish(sock)
    daemon.connection_line(endpoint, "eof")
    lines = daemon.lines_about(endpoint)
    assert all("debug: " in line for line in lines[:-1]), lines
    what = [line.split(" to ")[1].split(" ", 1)[1] for line in lines]
    # a worker that has not seen the stop request yet may take it over first, and hand it over again
    assert what[0] == "accepted" and what[-1].startswith("ended: eof"), what
    assert set(what[1:-1]) == {"handed over", "taken over"} and what.count("handed over") == what.count("taken over"), what


def test_debug_lines_about_connections_are_switched_off_with_the_others(start, model):
    daemon = start(model, log_level="debug", log_connections=False)
    with daemon.connect() as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        daemon.reload()
        peer.finish(sock)
    daemon.stop()
    assert not daemon.lines_about(endpoint)


def test_debug_lines_of_workers(start, model):
    """Lines about the start of each worker process, its ready workers, their stop, and the end of the process."""
    daemon = start(model, log_level="debug")
    daemon.visit()

    def found(pattern, since=0):
        return set(re.findall(rf"debug: {pattern}$", daemon.log()[since:], re.M))

    def wait_for(wanted, pattern, what):
        """Wait for the lines: workers write them some time after the event."""
        proc.until(lambda: wanted() <= found(pattern), lambda: f"{what}: {wanted()} in\n{daemon.log()}")

    def started():
        return dict(found(r"Worker (\d+): started as process (\d+)"))
    proc.until(lambda: found(r"Worker (\d+): ready") and started(), "the first worker")
    wait_for(lambda: set(started()), r"Worker (\d+): ready", "ready workers")
    before, ready = set(started().values()), found(r"Worker (\d+): ready")
    daemon.reload(log_level="debug")
    assert found(rf'Asked \d+ workers of model "{model}" to stop \(hand-over\)')
    wait_for(lambda: before, r"Worker process (\d+) ended", "the end of the old workers")
    wait_for(lambda: ready, r"Worker (\d+): stopping \(hand-over\)", "old workers")
    since = len(daemon.log())
    daemon.stop()
    log = daemon.log()[since:]
    assert re.search(r"debug: Asked \d+ workers of model .* to stop \(drain\)$", log, re.M)
    assert set(re.findall(r"debug: Worker (\d+): stopping \(drain\)$", log, re.M)) >= ready


def test_no_debug_lines_at_other_levels(start, model):
    daemon = start(model, log_level="info")
    daemon.visit()
    daemon.reload()
    daemon.visit()
    daemon.stop()
    assert "debug:" not in daemon.log()


def test_probes_are_in_the_program():
    """The probes that HACKING.md lists, if the program was built with sys/sdt.h."""
    config = (build.DIRECTORY / "config.h").read_text()
    if "#define HAVE_SYS_SDT_H 1" not in config:
        pytest.skip("built without sys/sdt.h (Debian: systemtap-sdt-dev)")
    notes = subprocess.run(["readelf", "-n", build.program("echod")], capture_output=True, text=True, check=True).stdout
    assert "Provider: echod" in notes
    assert set(re.findall(r"^ *Name: (\w+)$", notes, re.M)) == {
        "accept", "connection_end", "handover_receive", "handover_send", "stop_request", "worker_state"}


# Errors of the log never stop the service

def test_reader_of_the_log_ends(launch, model):
    """The reader of the pipe closes it while the service runs: EPIPE must not end the service."""
    read, write = os.pipe()
    daemon = launch(model, stderr=write)
    os.close(write)
    daemon.wait_ready()
    os.close(read)
    for _ in range(20):
        daemon.visit()
    daemon.signal(signal.SIGUSR1)
    daemon.hup()
    daemon.visit()
    daemon.stop()


def test_log_is_a_pipe_without_reader(launch):
    """The pipe has no reader from the beginning: the service starts nevertheless."""
    read, write = os.pipe()
    os.close(read)
    daemon = launch("epoll", stderr=write)
    os.close(write)
    daemon.wait_ready()
    daemon.visit()


def test_the_log_is_a_file_that_may_not_grow(launch, model):
    """A log that has reached RLIMIT_FSIZE must not end the service."""
    daemon = launch(model, wrap=["prlimit", "--fsize=1024"])
    daemon.wait_ready()
    for _ in range(20):
        daemon.visit()
    proc.until(lambda: os.stat(daemon.stderr_path).st_size == 1024, "the log to reach its limit")
    daemon.visit()
    daemon.hup()
    daemon.visit()


class Unread:
    """A pipe, terminal or socket for standard error, of which this test reads only what read() is asked for."""

    def __init__(self, kind):
        if kind == "pipe":
            self.end, self.stderr = os.pipe()
            fcntl.fcntl(self.stderr, fcntl.F_SETPIPE_SZ, 16384)
        elif kind == "terminal":
            self.end, self.stderr = pty.openpty()
        else:
            ends = socket.socketpair()
            ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            self.end, self.stderr = (end.detach() for end in ends)
        self.flags = fcntl.fcntl(self.stderr, fcntl.F_GETFL)

    def read(self, size):
        return os.read(self.end, size)

    def close(self):
        os.close(self.end)
        os.close(self.stderr)


@pytest.fixture(params=["pipe", "terminal", "socket"])
def unread(request):
    made = Unread(request.param)
    yield made
    made.close()


def lost_records(path):
    match = re.search(r"^echod_log_records_lost_total (\d+)", path.read_text(), re.M) if path.exists() else None
    return int(match.group(1)) if match else 0


def test_the_log_is_not_read(launch, unread, tmpdir):
    """A full pipe on standard error delays neither clients nor the handling of signals. Lost lines are counted."""
    path = pathlib.Path(tmpdir, "metrics")
    daemon = launch("epoll", stderr=unread.stderr, metrics_file=str(path), stats_interval=1, log_level="debug")
    daemon.wait_ready()

    def lost():
        for _ in range(20):
            daemon.signal(signal.SIGUSR1)
            daemon.visit()
        return lost_records(path) > 0
    proc.until(lost, "a lost line", 60)
    for _ in range(20):  # each time there is space for less than one line
        assert unread.read(20)
        daemon.signal(signal.SIGUSR1)
        daemon.visit()
    daemon.hup()
    assert fcntl.fcntl(unread.stderr, fcntl.F_GETFL) == unread.flags, "flags of an inherited descriptor were changed"
    daemon.stop()


def test_lines_are_whole_after_the_log_was_not_read(launch, unread, tmpdir):
    """A line that was written in part ends before the next line begins."""
    path = pathlib.Path(tmpdir, "metrics")
    daemon = launch("epoll", stderr=unread.stderr, metrics_file=str(path), stats_interval=1, log_level="debug")
    daemon.wait_ready()

    def lost():
        for _ in range(20):
            daemon.signal(signal.SIGUSR1)
            daemon.visit()
        return lost_records(path) > 0
    proc.until(lost, "a lost line", 60)
    daemon.configure(log_level="info")  # the debug lines of a reload fill the buffer of the socket before its last line
    written = b""

    def reloaded():
        nonlocal written
        daemon.hup()
        while select.select([unread.end], [], [], 0.2)[0]:
            written += unread.read(65536)
        return re.search(rb"echod: Reloaded.*\n", written)
    proc.until(reloaded, "a line about a reload")
    for line in written.splitlines():
        assert line.count(b"echod: ") <= 1, f"two records in one line: {line}"


# A log service that does not read its sockets

MOUNT = """
set -e
mkdir -p "$1/dev" /run/systemd/journal
mount -t tmpfs tmpfs "$1/dev"
for name in null zero full random urandom tty; do cp -a /dev/$name "$1/dev"; done
touch "$1/dev/log"
mount --bind "$1/log" "$1/dev/log"
mount --move "$1/dev" /dev
mount -t tmpfs tmpfs /run/systemd/journal
touch /run/systemd/journal/socket
mount --bind "$1/journal" /run/systemd/journal/socket
shift
exec "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("text, arguments, status", [
    ("", ["--nonsense"], echod.EX_USAGE),
    ("", ["-w", "x"], echod.EX_USAGE),
    ("model = \"none\"", ["-t"], echod.EX_CONFIG),
    (None, ["-n"], echod.EX_NOINPUT),
    ("listen = {\"127.0.0.1\"}\nfreebind = false\nmodel = \"iterative\"\nworkers = 7", ["-n"], echod.EX_CONFIG),
    ("listen = {\"192.0.2.1\"}\nfreebind = false\nport = 7007", ["-n"], echod.EX_UNAVAILABLE),
    ("listen = {\"192.0.2.1\"}\nfreebind = false\nport = 7007\npidfile = \"\"", [], echod.EX_UNAVAILABLE),
    ("", ["-T"], echod.EX_IOERR),
])
def test_no_failure_without_a_message(tmpdir, text, arguments, status):
    """Standard error is closed: whichever step of the start fails, the reason is in the system log."""
    directory = pathlib.Path(tmpdir, "mounts")
    directory.mkdir()
    conf = pathlib.Path(tmpdir, "echod.conf")
    if text is not None:
        conf.write_text(text + "\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        journal.bind(str(directory / "journal"))
        log.bind(str(directory / "log"))
        for sock in journal, log:
            sock.settimeout(peer.PATIENCE)
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", str(directory),
                   "sh", "-c", 'exec "$@" >/dev/full 2>&-', "sh", echod.ECHOD, "-c", str(conf), *arguments]
        assert subprocess.run(command, timeout=60, check=False).returncode == status
        # once it has started, log-target = "auto" chooses the journal
        ready = select.select([journal, log], [], [], peer.PATIENCE)[0]
        assert ready, "no message"
        assert b"echod" in ready[0].recv(65536)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("target, kind", [("journal", socket.SOCK_DGRAM), ("syslog", socket.SOCK_DGRAM),
                                          ("syslog", socket.SOCK_STREAM)], ids=["journal", "syslog", "syslog-stream"])
def test_the_log_service_does_not_read(launch, tmpdir, target, kind):
    directory = pathlib.Path(tmpdir, "mounts")
    directory.mkdir()
    path = pathlib.Path(tmpdir, "metrics")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal, socket.socket(socket.AF_UNIX, kind) as log:
        journal.bind(str(directory / "journal"))
        log.bind(str(directory / "log"))
        if kind == socket.SOCK_STREAM:
            log.listen(0)
        daemon = launch("epoll", log_target=target, metrics_file=str(path), stats_interval=1, log_level="debug",
                        wrap=["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", str(directory)])
        daemon.wait_ready()

        def lost():
            for _ in range(50):
                daemon.signal(signal.SIGUSR1)
                daemon.visit()
            return lost_records(path) > 0
        proc.until(lost, "a lost line", 60)
        daemon.hup()
        daemon.visit()
        daemon.stop()


def test_standard_error_in_the_background(start, tmpdir):
    """In the background, standard error is /dev/null: echod logs a warning before it detaches from the terminal."""
    daemon = start(daemonize=True, log_target="stderr")
    assert re.search(r"warning: .*log-target.*/dev/null", daemon.log()), daemon.log()


def test_the_log_is_on_a_full_disk(launch):
    with open("/dev/full", "wb") as full:
        daemon = launch("epoll", stderr=full)
    daemon.wait_ready()
    for _ in range(20):
        daemon.visit()
    daemon.stop()


@pytest.mark.parametrize("target", ["journal", "syslog", "auto"])
def test_other_targets(start, target):
    """The service works whether or not a log service is running."""
    daemon = start("epoll", log_target=target)
    for _ in range(5):
        daemon.visit()
    daemon.hup()
    daemon.visit()
    daemon.stop()


def test_auto_is_standard_error_in_the_foreground_without_a_journal(start):
    if os.path.exists("/run/systemd/journal/socket"):
        pytest.skip("a journal runs here")
    daemon = start("epoll", log_target="auto")
    with daemon.connect() as sock:
        endpoint = peer.endpoint(sock)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    daemon.connection_line(endpoint, "eof")
