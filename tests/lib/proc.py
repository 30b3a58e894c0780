# SPDX-License-Identifier: ISC
"""Data of /proc about the processes of a daemon under test."""

import ctypes
import os
import resource
import time

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36
LIMIT = 30.0  # seconds; long enough for a busy machine


def until(condition, what, timeout=LIMIT):
    """Poll `condition` until it is true. Returns its value; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def become_subreaper():
    """Make orphans of a daemon our children, so that all are found, and a daemonized process can be waited for."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def limit(pid, name):
    """A soft limit of a process by its name in /proc/PID/limits; None: unlimited."""
    line = next(line for line in read(f"/proc/{pid}/limits").decode().splitlines() if line.startswith(name))
    value = line.removeprefix(name).split()[0]
    return None if value == "unlimited" else int(value)


def hard_nofile():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_nofile():
    hard = hard_nofile()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Stat:
    """The fields of /proc/PID/stat that the tests look at."""

    def __init__(self, pid):
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        self.pid = pid
        self.state = fields[0].decode()
        self.ppid, self.pgrp, self.session, self.tty = (int(f) for f in fields[1:5])
        self.cpu = (int(fields[11]) + int(fields[12])) / TICKS


def stats():
    """The Stat of every process, by pid."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                table[int(name)] = Stat(int(name))
            except (FileNotFoundError, ProcessLookupError):
                pass
    return table


def tree(root):
    """The Stat of `root` and of all its descendants, root first; empty if it does not exist."""
    table = stats()
    if root not in table:
        return []
    children = {}
    for stat in table.values():
        children.setdefault(stat.ppid, []).append(stat)
    found = [table[root]]
    for stat in found:
        found.extend(sorted(children.get(stat.pid, []), key=lambda s: s.pid))
    return found


def children(pid):
    return [stat for stat in stats().values() if stat.ppid == pid]


def alive(pid):
    """Whether a thread of the process runs: its descriptors are closed only after the end of the last thread."""
    try:
        return Stat(pid).state not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def threads(pid):
    """The number of threads of a process, without those the kernel adds for io_uring; 0 if it has ended."""
    count = 0
    try:
        tids = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for tid in tids:
        try:
            count += not read(f"/proc/{pid}/task/{tid}/comm").startswith(b"iou-")
        except (FileNotFoundError, ProcessLookupError):
            pass
    return count


def stopped(pid):
    """Whether every thread of a process is stopped."""
    return all(read(f"/proc/{pid}/task/{tid}/stat").rpartition(b")")[2].split()[0] == b"T"
               for tid in os.listdir(f"/proc/{pid}/task"))


def _running(pids):
    """The numbers of context switches of all threads of the processes, and whether a thread runs or can run."""
    switches, runs = {}, False
    for pid in pids:
        for tid in os.listdir(f"/proc/{pid}/task"):
            fields = status(f"{pid}/task/{tid}")
            switches[tid] = fields["voluntary_ctxt_switches"], fields["nonvoluntary_ctxt_switches"]
            runs |= fields["State"].startswith("R")
    return switches, runs


def asleep(pids, seconds=0.05):
    """Whether no thread of the processes runs for this time."""
    before = _running(pids)
    time.sleep(seconds)
    return not before[1] and before == _running(pids)


def unsent(port):
    """Bytes in the send queues of IPv4 connections from this local port: proc_net_tcp(5)."""
    lines = [line.split() for line in read("/proc/net/tcp").decode().splitlines()[1:]]
    return sum(int(line[4].partition(":")[0], 16) for line in lines if int(line[1].partition(":")[2], 16) == port)


def descriptors(pid):
    """Descriptor numbers and what they refer to."""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
            except FileNotFoundError:
                pass
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def status(pid):
    """/proc/PID/status as a dict."""
    lines = read(f"/proc/{pid}/status").decode().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def memory(pid):
    """Bytes of private memory of this process, and its share of memory in common with related processes. Pages of programs and
    libraries are excluded: unrelated processes share them, so that their shares vary."""
    try:
        lines = read(f"/proc/{pid}/smaps_rollup").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")))


def tagged(tag):
    """Running processes that were started with `tag` in their environment."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if tag in read(f"/proc/{name}/environ"):
                    found.append(int(name))
            except OSError:
                pass
    return [pid for pid in found if alive(pid)]
