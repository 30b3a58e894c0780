# SPDX-License-Identifier: ISC
"""The client under test: run to its end, or started."""

import json
import os
import signal
import subprocess

import build
import metrics
import proc

ECHOC = build.program("echoc")
OK, DIFFERS, UNREACHED, USAGE = 0, 1, 2, 64
LIMIT = 60.0

ENGINES = ("epoll", "io_uring")


def command(*args):
    return [ECHOC, *map(str, args)]


def run(*args, stdin=subprocess.DEVNULL, data=None, timeout=LIMIT, text=True, wrap=(), **more):
    """Run echoc to its end; a CompletedProcess."""
    if data is not None:
        more["input"] = data
    else:
        more["stdin"] = stdin
    return subprocess.run([*wrap, *command(*args)], capture_output=True, text=text, timeout=timeout, **more)


def report(*args, status=OK, **more):
    """Run echoc with --json; the object it printed."""
    result = run(*args, "--json", **more)
    assert result.returncode == status, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return json.loads(result.stdout)


def load(*args, status=OK, **more):
    """Make a short load run. Returns its report; all bytes must be accounted for unless it must fail."""
    found = report("--load", "--warmup", "100ms", "-d", "300ms", *args, status=status, **more)
    return checked(found) if status == OK else found


def load_until(daemon, size, *args, **more):
    """Make a load run that lasts until the daemon has echoed `size` bytes. Returns its report."""
    def echoed():
        counts = metrics.line(daemon)
        return counts.get("echoed_bytes", 0) + counts.get("datagram_echoed_bytes", 0)

    least = echoed() + size
    process = start("--load", "--json", "--warmup", 0, "-d", 3600, *args, "127.0.0.1", daemon.port, **more)
    try:
        proc.until(lambda: process.poll() is not None or echoed() >= least, lambda: f"{echoed()} of {least} bytes echoed", LIMIT)
    finally:
        status, out, err = interrupt(process)
    assert status == OK, f"exit {status}\n{out}\n{err}"
    return checked(json.loads(out))


def checked(found):
    """Check that the report has no errors, and return it."""
    assert found["bytes_sent"] == found["bytes_received"] > 0
    assert found["errors"] == found["lost"] == found["mismatches"] == found["idle_lost"] == 0
    assert found["first_error"] is None
    return found


def start(*args, **more):
    more.setdefault("stdin", subprocess.PIPE)
    return subprocess.Popen(command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def interrupt(process, timeout=LIMIT):
    """Send SIGINT. Returns (exit status, output, errors)."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out.decode(), err.decode()


def handles_signals(process):
    """Whether the process has installed its handler of SIGINT."""
    return bool(int(proc.status(process.pid)["SigCgt"], 16) >> (signal.SIGINT - 1) & 1)


def have_io_uring():
    return "io_uring (liburing)" in run("--version").stdout and os.path.exists("/proc/sys/kernel/io_uring_disabled")
