# SPDX-License-Identifier: ISC
"""The daemon under test: find, configure, start, inspect and stop it."""

import os
import pathlib
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import build
import peer
import proc
from notify import Notify

EX_OK, EX_USAGE, EX_NOINPUT, EX_UNAVAILABLE, EX_OSERR, EX_IOERR, EX_NOPERM, EX_CONFIG = 0, 64, 66, 69, 71, 74, 77, 78

KEYS = ("model", "workers", "port", "listen", "freebind", "unix-mode", "unix-group", "mptcp", "proxy-protocol", "protocols", "backlog", "max-connections", "max-per-source",
        "idle-timeout", "tcp-keepalive", "drain-timeout", "buffer-size", "socket-buffer", "allow", "deny", "user", "group", "pidfile", "log-target",
        "log-level", "log-connections", "stats-interval", "keep-connections", "reflect-dscp", "udp-rate", "udp-trusted",
        "metrics-file")

START_TIMEOUT = 30.0  # seconds; long, for busy machines and builds with sanitizers


ECHOD = build.program("echod")
THREAD_SANITIZED = bool(ECHOD) and b"__tsan_init" in proc.read(ECHOD)
SANITIZED = bool(ECHOD) and any(mark in proc.read(ECHOD) for mark in (b"__asan_init", b"__tsan_init"))

# The environment of a daemon under strace(1): LeakSanitizer uses ptrace(2) itself and fails in a traced process.
TRACED = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}

SANITIZER_REPORT = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|SUMMARY: \w+Sanitizer|runtime error:")
CRASH = re.compile(r"SIGSEGV|SIGABRT|SIGBUS|SIGILL|SIGFPE|\bsignal (4|6|7|8|11)\b|[Aa]ssertion .*failed|core dumped")


def run(*args, timeout=START_TIMEOUT, **more):
    """Run echod to its end; a CompletedProcess with text."""
    return subprocess.run([ECHOD, *map(str, args)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, **more)


def list_models():
    """The table of --list-models: {name: None, or the reason why it cannot run here}, in its order."""
    result = run("--list-models")
    assert result.returncode == EX_OK, f"--list-models: {result.stderr}"
    heading, *lines = result.stdout.splitlines()
    at = heading.index("CAN RUN HERE")
    table = {}
    for line in lines:
        verdict = line[at:].strip()
        assert verdict == "yes" or verdict.startswith("no: "), line
        table[line.split()[0]] = None if verdict == "yes" else verdict.removeprefix("no: ")
    return table


# The models and of which kind each is:
#   SERIAL  a worker serves one connection at a time, to its end; there are `workers` of them
#   SPAWN   each connection gets a worker of its own
#   LOOPS   `workers` event loops share all connections
REFUSALS = list_models() if ECHOD else {}  # by model: the reason why it cannot run here, or None
MODELS = tuple(REFUSALS)
SERIAL = ("iterative", "prefork", "prethread")
SPAWN = ("process", "thread")
LOOPS = tuple(name for name in MODELS if name not in SERIAL + SPAWN)
PROCESSES = ("process", "prefork")  # the workers are processes; threads of one process otherwise


def conf_value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "{" + ", ".join(map(conf_value, value)) + "}"
    return '"%s"' % value


def conf_text(**keys):
    """echod.conf from keyword arguments, in their order; `max_connections` stands for `max-connections`."""
    return "".join(f"{key.replace('_', '-')} = {conf_value(value)}\n" for key, value in keys.items())


def parse_dump(text):
    """The output of -T as {key: text of the value}, without comments. No key may occur twice."""
    found = {}
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    for key, value in re.findall(r"^\s*([a-z-]+)\s*=\s*(\{[^}]*\}|\"[^\"]*\"|[^\s#]+)", text, flags=re.M):
        assert key not in found, f"{key} twice in\n{text}"
        found[key] = value
    return found


# The ports of this pytest process, below the range of outgoing connections, which thus cannot use them.
def own_ports():
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT") or 1)
    number = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % count
    each = 20000 // count
    return range(10000 + number * each, 10000 + (number + 1) * each)


_taken = set()


def free_port():
    """A port that no process uses. A port that was returned before is returned again only when there is no other one."""
    ports = own_ports()
    for _ in range(10000):
        port = random.SystemRandom().choice(ports)
        if len(_taken) >= len(ports) - 10:
            _taken.clear()
        if port in _taken:
            continue
        try:
            for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                with socket.socket(family) as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind((host, port))
                    sock.listen(1)
        except OSError as error:
            if family == socket.AF_INET6 and error.errno in (97, 99):  # no IPv6 here
                pass
            else:
                continue
        _taken.add(port)
        return port
    raise AssertionError("no free port")


def have_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


def default_workers(model):
    """A small number of workers: the default of sixty-four processes would make tests slow."""
    return {"prefork": 4, "prethread": 4}.get(model, 0)


def processes(model):
    """The number of processes of a daemon with default_workers() and without connections, the supervisor included."""
    return 1 + (default_workers(model) if model == "prefork" else 1)


class Daemon:
    """One echod, started and stopped by the fixture `start`.

    Keyword arguments are keys of echod.conf (with "_" for "-"); a list for `listen` replaces the default, one
    loopback port. `args` are added to the command line, `env` to the environment (None removes a variable).
    With `store` the service manager keeps descriptors of the daemon; with `notify_file` the manager's socket can be reached from
    other network namespaces.
    """

    _started = set()  # process ids whose exit statuses a Popen gets

    def __init__(self, directory, model=None, *, args=(), env=None, wrap=(), pass_fds=(), daemonize=False,
                 text=None, program=None, umask=-1, cwd=None, stderr=None, store=False, notify_file=False, **keys):
        self.directory = pathlib.Path(tempfile.mkdtemp(dir=directory))
        self.directory.chmod(0o755)
        self.config = self.directory / "echod.conf"
        self.stderr_path = self.directory / "stderr"
        self.notify = Notify(store, str(self.directory / "notify") if notify_file else None)
        self.tag = b"ECHOD_TEST=" + secrets.token_hex(8).encode()
        self.returncode = None
        self.crash_expected = False
        self.expect = EX_OK
        self.port = None
        if text is None:
            self.keys = self._defaults(model, daemonize, keys)
            if os.geteuid() == 0 and "setpriv" not in "".join(map(str, wrap)) and "group" not in self.keys and "user" not in keys:
                self.keys.setdefault("user", "root")  # intended: no warning
            text = conf_text(**self.keys)
        else:
            self.keys = {}
        self.config.write_text(text)

        environment = {**os.environ, "NOTIFY_SOCKET": self.notify.address, "LC_ALL": "C.UTF-8"}
        key, _, value = self.tag.decode().partition("=")
        environment[key] = value
        for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"):
            environment.pop(name, None)
        for name, value in (env or {}).items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value

        command = [*wrap, program or ECHOD, *([] if daemonize else ["-n"]), "-c", str(self.config), *map(str, args)]
        self.daemonize = daemonize
        self._log, self._log_read = "", 0  # complete lines of standard error, and the number of their bytes
        self._log_lock = threading.Lock()
        self._stderr = open(self.stderr_path, "wb") if stderr is None else stderr
        self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr,
                                      env=environment, pass_fds=pass_fds, umask=umask, cwd=cwd or self.directory,
                                      start_new_session=True)
        self.pid = self.popen.pid
        self._started.add(self.pid)
        if stderr is None:
            self._stderr.close()

    def _defaults(self, model, daemonize, given):
        keys = {}
        if model:
            keys["model"] = model
            keys["workers"] = default_workers(model)
        keys["listen"] = ["127.0.0.1"]
        keys["drain-timeout"] = 5
        keys["log-target"] = "syslog" if daemonize else "stderr"
        keys["pidfile"] = str(self.directory / "echod.pid")
        keys.update((key.replace("_", "-"), value) for key, value in given.items())
        if "port" not in keys:
            keys["port"] = free_port()
        self.port = keys["port"]
        return {key: value for key, value in keys.items() if value is not None}

    # Starting

    def wait_ready(self, timeout=START_TIMEOUT):
        message = self.notify.wait("READY=1", timeout=timeout, given_up=self._gone)
        if self.daemonize:
            self.returncode_of_parent = self.popen.wait(timeout)
            assert self.returncode_of_parent == EX_OK, f"the parent exited {self.popen.returncode}: {self.log()}"
            self.pid = message.pid
        return self

    def _gone(self):
        status = self.popen.poll()  # called once: the daemon may end at any time
        if status is not None and not (self.daemonize and status == 0):
            return f"echod exited {self.popen.returncode}; its log:\n{self.log()}"
        return None

    def fails(self, status, timeout=START_TIMEOUT):
        """Check that the start fails with this exit status. Returns the log."""
        self.failed(timeout)
        assert self.returncode == status, f"exit {self.returncode} instead of {status}:\n{self.log()}"
        assert not self.notify.all("READY"), "READY=1 before the failure"
        return self.log()

    def failed(self, timeout=START_TIMEOUT):
        """Wait for the end of a start that must fail, with any exit status. Returns the log."""
        try:
            self.returncode = self.expect = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon runs, although the start should have failed:\n{self.log()}") from None
        assert self.returncode != 0, f"it exited 0:\n{self.log()}"
        return self.log()

    # Looking

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    def connect(self, **more):
        return peer.connect(self.address, **more)

    def visit(self, message=b"hello, echo"):
        peer.visit(self.address, message)

    def log(self):
        """The complete lines that the daemon wrote to standard error; nothing if the test gave it another file. Only complete
        lines, because a line across two pages of the file can be visible in part. Any thread can call this."""
        with self._log_lock:
            ended = self.popen.poll() is not None
            if self.stderr_path.exists():
                with open(self.stderr_path, "rb") as file:
                    file.seek(self._log_read)
                    lines, newline, rest = file.read().rpartition(b"\n")
                self._log += (lines + newline).decode(errors="replace")
                self._log_read += len(lines + newline)
                if rest and ended:  # the last line may be incomplete
                    return self._log + rest.decode(errors="replace")
            return self._log

    def wait_log(self, pattern, since=0, timeout=proc.LIMIT):
        """The match of a regular expression in the log after `since` characters."""
        regex = re.compile(pattern, re.M)
        return proc.until(lambda: regex.search(self.log()[since:]),
                          lambda: f"log line /{pattern}/ in:\n{self.log()[since:]}", timeout)

    def lines_about(self, text, since=0):
        """Log lines with `text` that no digit follows (so that only the whole port matches)."""
        regex = re.compile(re.escape(text) + r"(?!\d)")
        return [line for line in self.log()[since:].splitlines() if regex.search(line)]

    def end_lines(self, endpoint):
        """Lines about the end or the refusal of the connection of `endpoint`, without other lines of level debug."""
        return [line for line in self.lines_about(endpoint) if re.search(r" (ended|refused): ", line)]

    def connection_line(self, endpoint, reason, timeout=proc.LIMIT):
        """Wait for the line about the end or refusal of the connection of `endpoint` for `reason`; there must be exactly one."""
        lines = proc.until(lambda: self.end_lines(endpoint), lambda: f"a line about {endpoint} in:\n{self.log()}",
                           timeout)
        assert len(lines) == 1, lines
        assert re.search(rf"\b{reason}\b", lines[0]), f"no reason {reason!r} in: {lines[0]}"
        return lines[0]

    def tree(self):
        return proc.tree(self.pid)

    def workers(self):
        """The pids of the supervisor's children."""
        return [stat.pid for stat in proc.children(self.pid) if stat.state != "Z"]

    def descriptors(self):
        return sum(len(proc.descriptors(stat.pid)) for stat in self.tree())

    def memory(self):
        return sum(proc.memory(stat.pid) for stat in self.tree())

    def cpu(self):
        return sum(stat.cpu for stat in self.tree())

    def wait_processes(self, processes, timeout=proc.LIMIT):
        """Wait until the daemon has exactly this number of processes and no zombie."""
        def counts():
            tree = self.tree()
            return len(tree) == processes and all(stat.state != "Z" for stat in tree)
        return proc.until(counts, lambda: f"{processes} processes, there are "
                          f"{[(s.pid, s.ppid, s.state) for s in self.tree()]}", timeout)

    # Acting

    def signal(self, number):
        os.kill(self.pid, number)

    def configure(self, **changes):
        """Rewrite the file with changed keys; the daemon does not read it yet."""
        for key, value in changes.items():
            key = key.replace("_", "-")
            if value is None:
                self.keys.pop(key, None)
            else:
                self.keys[key] = value
        self.config.write_text(conf_text(**self.keys))

    def hup(self, timeout=START_TIMEOUT):
        """SIGHUP, and wait for the end of the reload. Returns the two messages."""
        since = self.notify.mark()
        self.signal(signal.SIGHUP)
        reloading = self.notify.wait("RELOADING=1", since=since, timeout=timeout, given_up=self._gone)
        at = self.notify.messages.index(reloading)
        ready = self.notify.wait("READY=1", since=at, timeout=timeout, given_up=self._gone)
        return reloading, ready

    def reload(self, **changes):
        """Change keys of the file and reload, which must succeed."""
        if "model" in changes and "workers" not in changes:
            changes["workers"] = default_workers(changes["model"])
        since = len(self.log())
        self.configure(**changes)
        messages = self.hup()
        if "port" in changes:
            self.port = changes["port"]
        assert not re.search(r"echod\.conf:\d+:", self.log()[since:]), f"the reload failed:\n{self.log()[since:]}"
        return messages

    def replace(self, **changes):
        """reload(), and wait until the old workers have ended: until then they may accept clients under the old configuration."""
        old = self.workers()
        self.reload(**changes)
        proc.until(lambda: not any(map(proc.alive, old)), lambda: f"the end of the old workers {old}", 2 * proc.LIMIT)

    def term(self):
        self.signal(signal.SIGTERM)

    def wait_exit(self, timeout=proc.LIMIT):
        """Wait for the end; the exit status, negative for a signal."""
        if self.returncode is None:
            if self.daemonize:
                self.returncode = self._wait_adopted(timeout)
            else:
                try:
                    self.returncode = self.popen.wait(timeout)
                except subprocess.TimeoutExpired:
                    raise AssertionError(f"still running after {timeout} s; log:\n{self.log()}") from None
        return self.returncode

    def _wait_adopted(self, timeout):
        """Wait for a daemon, which is our child since its parent ended: proc.become_subreaper()."""
        def reaped():
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return pid and (os.waitstatus_to_exitcode(status),)
        return proc.until(reaped, "the daemon's end", timeout)[0]

    def stop(self, timeout=None):
        """Send SIGTERM. The daemon must exit 0 within drain-timeout, and leave no process. Returns the time in seconds."""
        began = time.monotonic()
        self.term()
        status = self.wait_exit(timeout or self.keys.get("drain-timeout", 10) + proc.LIMIT)
        took = time.monotonic() - began
        assert status == self.expect, f"exit {status} instead of {self.expect}:\n{self.log()}"
        left = proc.tagged(self.tag)
        assert not left, f"processes left behind: {left}"
        return took

    def wait_gone(self, timeout=proc.LIMIT):
        """Wait until no process of the daemon is left."""
        proc.until(lambda: not proc.tagged(self.tag), lambda: f"processes left behind: {proc.tagged(self.tag)}", timeout)

    def close(self):
        """At the end of the test: stop the daemon if it runs, and check its log."""
        try:
            if self.returncode is None:
                if self.daemonize and self.popen.poll() is None:
                    self.popen.wait(START_TIMEOUT)
                if not self.daemonize and self.popen.poll() is not None:
                    raise AssertionError(f"echod exited {self.popen.returncode} by itself:\n{self.log()}")
                if self.daemonize and self.pid == self.popen.pid:
                    self.returncode = self.popen.returncode  # it never became ready, or the test did not wait for that
                else:
                    self.stop()
            self._check_log()
            self.wait_gone()
        finally:
            self._clean()

    def _check_log(self):
        log = self.log()
        assert not SANITIZER_REPORT.search(log), f"sanitizer report:\n{log}"
        assert "idle_wakeups" not in log, f"a worker was woken for a descriptor from which it took nothing:\n{log}"
        if not self.crash_expected:
            assert not CRASH.search(log), f"a process of the daemon crashed:\n{log}"

    def _clean(self):
        for pid in proc.tagged(self.tag):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(10)
        for stat in proc.children(os.getpid()):  # orphans that became our children
            if stat.state == "Z" and stat.pid not in self._started:
                os.waitpid(stat.pid, os.WNOHANG)
        self.notify.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def own_user(number):
    """The key `user` with a system user for a test with its own `number`, 1 to 8: the kernel limits descriptors in flight for each
    user (unix(7)), and daemons of tests that run at the same time have many. Only root can choose the user."""
    return {"user": pwd.getpwuid(number).pw_name} if os.geteuid() == 0 else {}


def as_nobody():
    """A command prefix that runs a command as an unprivileged user without any capability."""
    return [shutil.which("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all",
            "--inh-caps=-all", "--no-new-privs"]


# The exec wrapper that passes listening sockets as systemd does: file descriptors 3 and up, and our own pid.
ACTIVATE = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
high = [os.dup(fd) for fd in fds]
while min(high) < 3 + len(fds):
    high = [os.dup(fd) for fd in high]
for number, fd in enumerate(high):
    os.dup2(fd, 3 + number, inheritable=True)
os.environ["LISTEN_FDS"] = str(len(fds))
os.environ["LISTEN_PID"] = str(os.getpid())
if sys.argv[2]:
    os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.argv[3], sys.argv[3:])
"""


def activated(sockets, names=""):
    """`wrap` and `pass_fds` for Daemon, to start it with these sockets (or descriptors) as systemd would."""
    fds = [sock if isinstance(sock, int) else sock.fileno() for sock in sockets]
    return {"wrap": [sys.executable, "-I", "-S", "-c", ACTIVATE, ",".join(map(str, fds)), names], "pass_fds": fds}
