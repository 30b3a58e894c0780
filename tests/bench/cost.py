# SPDX-License-Identifier: ISC
"""The cost of a server: processor time and memory of its whole process tree, read from /proc.

Processor time is the sum of the CPU clocks of the running processes, in nanoseconds and with their ended threads, and of
the times of their reaped children in /proc/PID/stat.
"""
import os
import time

TICK = 1 / os.sysconf("SC_CLK_TCK")


def children(pid):
    """The children of the first thread: no measured server forks in another thread."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def tree(pid):
    found = [pid]
    for each in found:
        found += children(each)
    return found


def _clock(pid):
    """Seconds of the CPU clock of clock_getcpuclockid(3): the processor time of all threads of the process."""
    return time.clock_gettime((~pid << 3) | 2)


def _stat(pid):
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def cpu_seconds(pid):
    total = 0.0
    for each in tree(pid):
        try:
            fields = _stat(each)
            total += _clock(each) + (int(fields[13]) + int(fields[14])) * TICK
        except (OSError, IndexError):
            pass  # it ended meanwhile, and counts with its parent once reaped
    return total


def processes(pid):
    return len(tree(pid))


def memory_kib(pid):
    """(PSS, RSS) of the tree. PSS counts shared pages once; it is None if /proc/PID/smaps_rollup must not be read."""
    pss, rss = 0, 0
    for each in tree(pid):
        try:
            with open(f"/proc/{each}/smaps_rollup", encoding="ascii") as file:
                lines = dict(line.split(":", 1) for line in file.read().splitlines()[1:])
            rss += int(lines["Rss"].split()[0])
            if pss is not None:
                pss += int(lines["Pss"].split()[0])
        except PermissionError:
            pss = None
            with open(f"/proc/{each}/statm", encoding="ascii") as file:
                rss += int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        except (OSError, KeyError):
            pass
    return pss, rss


def processor_busy(cpu):
    """Seconds that this processor was not idle, those taken by the hypervisor included."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"cpu{cpu} "):
                fields = [int(word) for word in line.split()[1:9]]
                return (sum(fields) - fields[3] - fields[4]) * TICK
    return 0.0


def processors():
    """(processor of the server, processor of the client): of different cores if possible. None if only one may be used."""
    usable = sorted(os.sched_getaffinity(0))
    server = usable[0]
    try:
        with open(f"/sys/devices/system/cpu/cpu{server}/topology/thread_siblings_list", encoding="ascii") as file:
            siblings = set()
            for part in file.read().strip().split(","):
                first, _, last = part.partition("-")
                siblings.update(range(int(first), int(last or first) + 1))
    except OSError:
        siblings = {server}
    apart = [cpu for cpu in usable[1:] if cpu not in siblings]
    if not usable[1:]:
        return None
    return server, (apart or usable[1:])[0]
