# SPDX-License-Identifier: ISC
"""Every system call of the daemon may fail: it continues or stops with a message; it does not hang, crash or corrupt data.

strace(1) records one run of each model: start, streams and datagrams, a reload while a client has unsent data, a stop. Each
system call in it, of the supervisor and of the workers, is a site. A case lets the call at one site fail with one error that
the call can return; some cases let the call fail several times in succession. ECHOD_FAULTS is the number of cases for each
model; they are drawn evenly from all cases, different ones for each model:

    ECHOD_FAULTS=14     the default
    ECHOD_FAULTS=all    every site of every model; slow
"""

import collections
import os
import re
import shutil
import signal
import socket
import time

import pytest

import echod
import peer
import proc

pytestmark = [
    pytest.mark.skipif(not shutil.which("strace"), reason="no strace was found (Debian: apt install strace)"),
    pytest.mark.skipif(echod.SANITIZED, reason="a sanitizer ends at faults in its own calls"),
    pytest.mark.timeout(3600 if os.environ.get("ECHOD_FAULTS") == "all" else 240),
]

# The errors of each call. A fault may end a connection, but not the service. (brk is missing: strace(1) makes it return a value
# that a kernel does not return. See test_exhaustion.py for memory.)
ERRORS = {
    "accept4": "EMFILE ENFILE ENOBUFS ENOMEM ECONNABORTED EINTR EPROTO EPERM",
    "bind": "EADDRINUSE EACCES ENOMEM",
    "clone": "EAGAIN ENOMEM",
    "clone3": "EAGAIN ENOMEM",
    "close": "EINTR EIO",
    "close_range": "ENOSYS",
    "connect": "EAGAIN",
    "epoll_create1": "EMFILE ENFILE ENOMEM",
    "epoll_ctl": "ENOSPC ENOMEM",
    "epoll_wait": "EINTR",
    "eventfd2": "EMFILE ENFILE ENOMEM",
    "fchmod": "EPERM EROFS",
    "fcntl": "EMFILE EINVAL",
    "getpeername": "ENOTCONN ENOBUFS",
    "getsockname": "ENOBUFS",
    "getsockopt": "ENOBUFS",
    "io_uring_enter": "EINTR EAGAIN EBUSY ENOMEM",
    "io_uring_register": "ENOMEM EINVAL",
    "io_uring_setup": "ENOMEM EMFILE EPERM",
    "ioctl": "EINVAL",
    "listen": "EADDRINUSE",
    "madvise": "ENOMEM",
    "memfd_create": "EMFILE ENOMEM",
    "mmap": "ENOMEM",
    "mprotect": "ENOMEM",
    "munmap": "ENOMEM",
    "newfstatat": "ENOMEM",
    "openat": "EMFILE ENFILE ENOMEM",
    "pipe2": "EMFILE ENFILE",
    "poll": "EINTR ENOMEM",
    "ppoll": "EINTR ENOMEM",
    "prctl": "EINVAL",
    "pread64": "EIO",
    "prlimit64": "EPERM",
    "pselect6": "EINTR ENOMEM",
    "read": "EINTR EIO",
    "readlink": "ENOMEM",
    "recvfrom": "ENOMEM EINTR EAGAIN ECONNRESET ETIMEDOUT",
    "recvmmsg": "ENOMEM EINTR EAGAIN ECONNREFUSED",
    "recvmsg": "ENOMEM EINTR EAGAIN EMFILE",
    "rename": "ENOSPC EROFS",
    "sched_getaffinity": "EINVAL",
    "sendmmsg": "ENOBUFS ENOMEM EINTR EAGAIN EPERM EMSGSIZE ENETUNREACH",
    "sendmsg": "ENOBUFS EAGAIN ENOMEM ETOOMANYREFS",
    "sendto": "ENOBUFS ENOMEM EINTR EAGAIN EPIPE ECONNRESET",
    "setsockopt": "ENOMEM",
    "shutdown": "ENOTCONN",
    "signalfd4": "EMFILE ENFILE ENOMEM",
    "socket": "EMFILE ENFILE EACCES ENOBUFS",
    "socketpair": "EMFILE ENFILE ENOMEM",
    "splice": "ENOMEM EINVAL EAGAIN EINTR",
    "unlink": "EACCES EROFS",
    "wait4": "EINTR",
    "write": "EINTR EAGAIN ENOSPC",
}

# Not in models where each connection has a thread or process of its own: strace(1) counts calls in each of them, so that a fault
# would hit every connection. The code that serves a connection is the same in all models.
SERVICE = ("recvfrom", "sendto", "splice")

VISIT = 300000  # bytes: more than buffer-size, so that models with splice(2) use it


class Traced:
    """A daemon under strace -D, which keeps the known process id."""

    def __init__(self, launch, tmpdir, model, options):
        self.trace = os.path.join(tmpdir, "trace")
        wrap = ["strace", "-DDD", "-f", "-qq", "--seccomp-bpf", "-o", self.trace, *options]
        self.daemon = launch(model, wrap=wrap, protocols=["tcp", "udp"], workers={"prefork": 2, "prethread": 2, "iterative": 1}.get(model, 0),
                             stats_interval=1, metrics_file=os.path.join(tmpdir, "metrics"), drain_timeout=2)

    def text(self):
        try:
            return proc.read(self.trace).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def gone(self, timeout=2 * proc.LIMIT):
        """Wait for the end of the daemon and all of its processes, the tracer included. Returns its exit status."""
        status = self.daemon.wait_exit(timeout)
        proc.until(lambda: not proc.tagged(self.daemon.tag),
                   lambda: f"processes left behind: {[proc.status(p) for p in proc.tagged(self.daemon.tag)]}")
        return status


def visits(daemon, count=3, patience=60.0):
    """Make `count` successful visits in a row. A visit may fail because of the fault, but no wrong byte may come back. Returns
    whether the daemon still runs."""
    deadline, good, last = time.monotonic() + patience, 0, None
    while good < count:
        if daemon.popen.poll() is not None:
            return False
        try:
            with peer.connect(daemon.address, timeout=5) as sock:
                peer.echo(sock, peer.data(VISIT if good == 0 else 100))
                peer.finish(sock)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(daemon.address)
                sock.settimeout(2)
                message = peer.data(1000, seed=good + 1)
                sock.send(message)
                peer.same(sock.recv(65536), message)
            good += 1
        except (OSError, AssertionError) as error:
            if "came back" in str(error):
                raise
            good, last = 0, error
            time.sleep(0.02)
        assert time.monotonic() < deadline, f"no service: {last!r}\n{daemon.log()}"
    return True


def live(traced):
    """Start, use, reload and stop a daemon. Returns its exit status."""
    daemon = traced.daemon
    deadline = time.monotonic() + 60  # the daemon itself gives new workers 30 s
    # look for both messages, since the fault may prevent one of them
    while daemon.popen.poll() is None and "Ready: " not in daemon.log() and not daemon.notify.all("READY"):
        assert time.monotonic() < deadline, f"neither ready nor ended:\n{daemon.log()}"
        time.sleep(0.005)
    if daemon.popen.poll() is None and visits(daemon):
        held = []
        try:
            for _ in range(2):
                held.append(daemon.connect(sndbuf=1 << 20, rcvbuf=8192, timeout=5))
            peer.echo(held[0], b"held over the reload")
            peer.fill_path(held[1], quiet=0.02, may_end=True)
        except (OSError, AssertionError):
            pass
        since, told = len(daemon.log()), len(daemon.notify.all("READY"))
        try:
            daemon.signal(signal.SIGHUP)
            proc.until(lambda: daemon.popen.poll() is not None or len(daemon.notify.all("READY")) > told
                       or re.search("Reloaded|Reload failed", daemon.log()[since:]),
                       lambda: f"the end of the reload:\n{daemon.log()}", 40)
            for sock in held:
                sock.close()
            if visits(daemon):
                daemon.term()
        except ProcessLookupError:
            pass
    return traced.gone()


def sites(text):
    """Every (call, its number in its process) of the supervisor's main() and of the workers."""
    loading, found, counts = collections.Counter(), {}, {}
    supervisor, loaded = None, False
    for line in text.splitlines():
        match = re.match(r"(\d+) +([a-z0-9_]+)\(", line)
        if not match:
            continue
        pid, name = int(match.group(1)), match.group(2)
        supervisor = supervisor or pid
        count = counts.setdefault(pid, collections.Counter())
        count[name] += 1
        if pid == supervisor and not loaded:
            loaded = "echod.conf" in line and name == "openat"
            if not loaded:
                loading[name] += 1
                continue
        if name in ERRORS and count[name] > loading[name]:
            found[name, count[name]] = True
    return sorted(found)


def draw(found, model):
    """The cases of this model: (call, when, error)."""
    wanted = os.environ.get("ECHOD_FAULTS", "14")
    found = [(name, number) for name, number in found if model not in echod.SPAWN or name not in SERVICE]
    cases = [(name, str(number), error) for name, number in found for error in ERRORS[name].split()]
    # a resource that is exhausted for several calls
    first = {name: min(n for other, n in found if other == name) for name, _ in found}
    cases += [(name, f"{number}..{number + 5}", ERRORS[name].split()[0]) for name, number in first.items()]
    if wanted == "all":
        return cases
    number = min(int(wanted), len(cases))
    # drawn by call, then evenly, since some calls are made much more often than others
    by_call = collections.defaultdict(list)
    for case in cases:
        by_call[case[0]].append(case)
    phase = echod.MODELS.index(model)
    names = sorted(by_call)
    drawn = []
    for step in range(number):
        name = names[(phase * number + step) % len(names)]
        of_call = by_call[name]
        drawn.append(of_call[(phase * 7 + step * 3) % len(of_call)])
    return list(dict.fromkeys(drawn))


def test_faults(launch, tmp_path, model, record_property):
    recording = tmp_path / "recording"
    recording.mkdir()
    traced = Traced(launch, str(recording), model, [])
    assert live(traced) == 0, f"not even without a fault:\n{traced.daemon.log()}"
    cases = draw(sites(traced.text()), model)
    assert len(cases) >= 10, "the recording has too few calls"
    outcomes, wrong = collections.Counter(), []
    for name, when, error in cases:
        place = tmp_path / f"{name}-{when}-{error}"
        place.mkdir()
        try:
            outcomes[inject(launch, str(place), model, name, f"{name}:error={error}:when={when}")] += 1
        except AssertionError as failure:
            wrong.append(str(failure)[:4000])
    record_property(f"{model}, faults injected", f"{len(cases)}: {dict(outcomes)}")
    assert not wrong, f"{len(wrong)} of {len(cases)} cases went wrong:\n" + "\n\n".join(wrong)
    assert outcomes["not reached"] <= len(cases) / 2, outcomes


def inject(launch, place, model, name, case):
    """Run a daemon with one fault. Returns the outcome."""
    traced = Traced(launch, place, model, ["-e", f"trace={name}", "-e", f"inject={case}"])
    daemon = traced.daemon
    try:
        status = live(traced)
    except AssertionError as failure:
        daemon._clean()
        daemon.returncode = daemon.expect = 0
        raise AssertionError(f"{case}: {failure}\n{traced.text()[-1000:]}") from None
    log = daemon.log()
    assert status >= 0, f"{case}: killed by signal {-status}\n{log}"
    assert not echod.CRASH.search(log), f"{case}: a process crashed\n{log}"
    assert len(log.splitlines()) < 100, f"{case}: too many lines\n{log[:3000]}"
    if "(INJECTED)" not in traced.text():
        return "not reached"  # the calls of this run differ from those of the recording
    if status == 0:
        return "carried on"
    assert re.search(r"^(echod: error: |/).*: \S+", log, re.M), f"{case}: exit {status} without a clear message:\n{log}"
    return "stopped with a message"
