# SPDX-License-Identifier: ISC
"""The system calls of a daemon, recorded by strace(1) and divided at times at which all of its threads sleep.

The calls between two such times are exact, also on a busy machine: they do not depend on time.
"""

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import peer
import proc

ENTRY = re.compile(rb"^(?P<pid>\d+) +(?P<name>\w+)\(", re.M)

# Calls by which libc makes and ends threads and processes and gets memory: their number depends on its version.
OF_LIBC = {"arch_prctl", "brk", "clone", "clone3", "exit", "exit_group", "futex", "getpid", "gettid", "madvise", "mmap", "mprotect",
           "munmap", "rseq", "rt_sigprocmask", "set_robust_list", "set_tid_address"}

# Other names in the output of strace(1): old versions print the number of a call that they do not know; on i386, where glibc makes
# some calls with socketcall(2), strace prints the function.
NAMES = {"syscall_0x1ce": "mseal", "recv": "recvfrom", "send": "sendto"}

# The kernel continues a wait with this call after the process was stopped; programs do not make it.
CONTINUED = "restart_syscall"

SLEEPING = "SDI"


@functools.lru_cache
def cannot_trace():
    """The reason why strace(1) cannot trace a process here, or None."""
    if not shutil.which("strace"):
        return "no strace was found (Debian: apt install strace)"
    done = subprocess.run(["strace", "-f", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False, timeout=60)
    return None if done.returncode == 0 else f"strace cannot trace here: {done.stderr.strip()}"


# The newest system call that echod or a C library makes, mseal(2); the number is the same on all architectures.
NEWEST_CALL = 462


def cannot_count():
    """The reason why "strace -c" cannot count the system calls of echod, or None. strace(1) 6.1 crashes on i386 at a call that it
    does not know."""
    done = subprocess.run(["strace", "-c", "-o", os.devnull, sys.executable, "-c",
                           f"import ctypes; ctypes.CDLL(None).syscall({NEWEST_CALL}, 0, 0, 0)"],
                          capture_output=True, text=True, check=False, timeout=60)
    return None if done.returncode == 0 else f"strace -c ends with {done.returncode} at a system call that it does not know"


def wrap(path):
    """`wrap` of echod.Daemon: record in the file `path`. The daemon keeps the process id of the command."""
    return ["strace", "-DDD", "-f", "-qq", "-s", "0", "-o", path]


def states(pid):
    """The state of every thread of a process and its descendants, zombies included."""
    found = []
    for stat in proc.tree(pid):
        try:
            for tid in os.listdir(f"/proc/{stat.pid}/task"):
                found.append(proc.read(f"/proc/{stat.pid}/task/{tid}/stat").rpartition(b")")[2].split()[0].decode())
        except (FileNotFoundError, ProcessLookupError):
            found.append("X")
    return found


class Recording:
    """The record of the daemon with this process id in the file of wrap()."""

    def __init__(self, pid, path):
        self.pid, self.path = pid, path

    def mark(self):
        """Wait until all threads sleep in a system call. Returns the size of the record."""
        last = [None]

        def asleep():
            now = (os.path.getsize(self.path), states(self.pid))
            same, last[0] = now == last[0], now
            return same and now[1] and all(state in SLEEPING for state in now[1])

        proc.until(asleep, lambda: f"all threads asleep: {last[0]}", 30)
        return last[0][0]

    def between(self, begin, end, without=()):
        """Names of the calls between two marks, in their order, except those of the processes `without`."""
        with open(self.path, "rb") as file:
            record = file.read()
        # A call that was entered before the first mark has only the rest of its line here, which does not match.
        names = [match["name"].decode() for match in ENTRY.finditer(record, begin, end) if int(match["pid"]) not in without]
        return [NAMES.get(name, name) for name in names if name != CONTINUED]

    def during(self, action, without=()):
        begin = self.mark()
        action()
        return self.between(begin, self.mark(), without)


def exchange(socks, message=b"x" * 64):
    """Send a message on each connection, then receive all echoes."""
    for sock in socks:
        sock.sendall(message)
    for sock in socks:
        peer.receive(sock, len(message))


def stopped_exchange(daemon, socks, message=b"x" * 64):
    """Like exchange(), with the worker processes stopped until all messages are sent, so that they receive them together. (The
    supervisor gets SIGCHLD when they stop.)"""
    pids = [stat.pid for stat in proc.tree(daemon.pid)[1:]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    proc.until(lambda: all(state in "Tt" for pid in pids for state in states(pid)), "the stop of the workers")
    for sock in socks:
        sock.sendall(message)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for sock in socks:
        peer.receive(sock, len(message))


def visit(address, message=b"x" * 64):
    """A connection with one echo, to its end."""
    with peer.connect(address) as sock:
        exchange([sock], message)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
