# SPDX-License-Identifier: ISC
"""The work of one iteration of the supervisor is bounded (HACKING.md, Bounded work): counted in its system calls."""

import os
import re
import signal

import pytest

import calls
import echod
import proc

VERSION = echod.run("-V").stdout if echod.ECHOD else ""

SIGNAL_BATCH = 64  # supervisor.c
SIGINFO_SIZE = 128  # sizeof(struct signalfd_siginfo)
READY_SIZE = 4096  # crew_note_ready()
TRACED = "poll,ppoll,ppoll_time64,read,wait4,waitpid,sendto,sendmsg,sendmmsg,socketcall"

pytestmark = [
    pytest.mark.skipif(bool(calls.cannot_trace()), reason=calls.cannot_trace() or "-"),
    pytest.mark.skipif(bool(echod.SANITIZED), reason="LeakSanitizer does not work in a traced process"),
]


class Trace:
    """The system calls of the supervisor, one list for each iteration, which begins with poll(2)."""

    def __init__(self, path):
        self.path = path

    def wrap(self):
        return [*calls.wrap(self.path), "-e", f"trace={TRACED}"]

    def iterations(self, pid):
        found = [[]]
        for line in proc.read(self.path).decode().splitlines():
            match = re.match(rf"{pid} +(?:<\.\.\. )?(\w+)(.*)", line)
            if not match or match[2].endswith("<unfinished ...>"):
                continue
            if "poll" in match[1] and not re.match(r".*\], 1, ", match[2]):  # one descriptor: writing to the log
                found.append([])
            elif "poll" not in match[1]:
                found[-1].append(re.sub(r"\) +=", ") =", match[1] + match[2]))
        return found

    def counts(self, pid, pattern):
        """The number of calls in each iteration that match."""
        return [sum(bool(re.search(pattern, call)) for call in iteration) for iteration in self.iterations(pid)]


@pytest.fixture
def trace(tmpdir):
    return Trace(os.path.join(str(tmpdir), "trace"))


class Stopped:
    """Stop the supervisor with SIGSTOP, so that events accumulate."""

    def __init__(self, daemon):
        self.pid = daemon.pid

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)
        proc.until(lambda: proc.read(f"/proc/{self.pid}/stat").rpartition(b")")[2].split()[0] in (b"T", b"t"), "the supervisor is stopped")

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGCONT)


@pytest.mark.models("epoll")
def test_signals(launch, model, trace):
    """Of 500 pending signals one iteration takes at most 64; all are taken."""
    daemon = launch(model, wrap=trace.wrap(), env=echod.TRACED).wait_ready()
    taken = rf"^read\(\d+, .*, {SIGINFO_SIZE}\) = {SIGINFO_SIZE}"
    with Stopped(daemon):
        for _ in range(500):
            os.kill(daemon.pid, signal.SIGRTMIN + 5)
    proc.until(lambda: sum(trace.counts(daemon.pid, taken)) >= 500, "all signals are taken")
    assert max(trace.counts(daemon.pid, taken)) <= SIGNAL_BATCH
    daemon.visit()


@pytest.mark.models("prefork")
@pytest.mark.skipif("fault points" not in VERSION, reason="echod was built without fault points (configure --enable-debug-faults)")
def test_ended_processes(launch, model, trace):
    """Of 40 processes that have ended, one iteration reaps as many as the limit, here 4; all are reaped and replaced. It sends two
    notifications at most."""
    daemon = launch(model, workers=40, wrap=trace.wrap(), env={**echod.TRACED, "ECHOD_FAULT_REAP_BATCH": "4"}).wait_ready()
    daemon.crash_expected = True
    reaped = r"^wait(4|pid)\(.*\) = [1-9]"
    with Stopped(daemon):
        for worker in daemon.workers():
            os.kill(worker, signal.SIGKILL)
    proc.until(lambda: sum(trace.counts(daemon.pid, reaped)) >= 40, "all processes are reaped")
    assert max(trace.counts(daemon.pid, reaped)) <= 4
    proc.until(lambda: len(daemon.workers()) == 40, "all processes are replaced")
    assert max(trace.counts(daemon.pid, r"^send(to|msg|mmsg)\(")) <= 2
    daemon.visit()


@pytest.mark.models("prefork")
def test_readiness(launch, model, trace):
    """One iteration makes one read(2) call for the messages of all workers that became ready, whatever their number."""
    daemon = launch(model, workers=100, wrap=trace.wrap(), env=echod.TRACED).wait_ready()
    before, *counts = trace.counts(daemon.pid, rf"^read\(\d+, .*, {READY_SIZE}\) = [1-9]")
    assert sum(counts) >= 1, f"{before} reads before the first iteration, which may be of files"
    assert max(counts) == 1
    daemon.visit()
