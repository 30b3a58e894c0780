# SPDX-License-Identifier: ISC
"""Datagrams: numbered flows, the process that reads a socket, and the counters of the daemon."""

import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import peer
import proc

# The process that reads a datagram socket has the same code in every model (src/models/datagram.h): it is tested together with
# workers that are processes and with workers that are threads.
READER_MODELS = ("process", "epoll")

SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
LARGEST = 65507
ENDLESS = 10 ** 9  # number of datagrams of a Flow that end() ends


def client(host="127.0.0.1", source=None, port=0, connected_to=None, timeout=peer.PATIENCE):
    """A datagram socket on the loopback, bound to `source`:`port`; with `connected_to` it receives from that peer only."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(timeout)
    sock.bind((source or ("::1" if family == socket.AF_INET6 else "127.0.0.1"), port))
    if connected_to:
        sock.connect((host, connected_to))
    return sock


def grow(sock, size):
    """Set the receive buffer of a socket to `size` bytes; without root, net.core.rmem_max is the limit."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def dropped(sock):
    """The datagrams that the kernel has dropped because the queue of this socket was full."""
    return struct.unpack("=9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))[8]


def statistics(daemon):
    """The statistics line as {"datagrams_echoed": 3, "datagrams_dropped rate": 1, …}; counters that are 0 may be missing."""
    since = len(daemon.log())
    daemon.signal(signal.SIGUSR1)
    line = daemon.wait_log(r"Statistics: connections \d+(?:, (.*))?$", since).group(1) or ""
    found = {}
    for item in line.split(", "):
        name, _, value = item.rpartition(" ")
        found[name] = int(value) if value.isdigit() else value
    return found


def counted(daemon, **expected):
    """Wait until the counters in the statistics have exactly these values; `dropped_rate` stands for "datagrams_dropped rate"."""
    wanted = {}
    for name, value in expected.items():
        kind, _, reason = name.partition("_")
        wanted[f"datagrams_{kind} {reason}" if kind == "dropped" else f"datagrams_{kind}"] = value
    seen = {}

    def agree():
        seen.clear()
        seen.update(statistics(daemon))
        return all(seen.get(name, 0) == value for name, value in wanted.items())

    proc.until(agree, lambda: f"statistics {wanted}, they are {seen}")
    return seen


def accounted(daemon, sent):
    """Wait until `sent` datagrams have been echoed or counted as dropped in full queues, and no others."""
    seen = {}

    def agree():
        seen.clear()
        seen.update(statistics(daemon))
        total = seen.get("datagrams_received", 0) + seen.get("datagrams_dropped queue_full", 0)
        assert total <= sent, f"{total} counted of {sent}: {seen}"
        return total == sent and seen.get("datagrams_echoed", 0) == seen.get("datagrams_received", 0)

    proc.until(agree, lambda: f"{sent} datagrams accounted for, the statistics are {seen}", 30)
    return seen


def readers(daemon):
    """The processes that read datagram sockets: they have one open, and are not the supervisor."""
    udp = set()
    for name in ("udp", "udp6"):
        lines = proc.read(f"/proc/{daemon.pid}/net/{name}").decode().splitlines()[1:]
        udp |= {f"socket:[{line.split()[9]}]" for line in lines}
    return [pid for pid in daemon.workers() if udp & set(proc.descriptors(pid).values())]


class Flow:
    """Datagrams with the numbers 0, 1, 2, … from one socket, one each `interval` seconds (0: as fast as possible) while no
    more than WINDOW are unanswered, and their echoes. It runs in a separate process, because its threads are busy."""

    def __init__(self, port, count, interval=0.0, host="127.0.0.1"):
        self.progress = os.memfd_create("progress")
        os.ftruncate(self.progress, PROGRESS_SIZE)
        self.map = mmap.mmap(self.progress, PROGRESS_SIZE)
        self.popen = subprocess.Popen([sys.executable, __file__, host, str(port), str(count), str(interval), str(self.progress)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[self.progress])
        os.close(self.progress)

    def sent(self):
        return struct.unpack_from("=Q", self.map, 0)[0]

    def back(self):
        return struct.unpack_from("=Q", self.map, 8)[0]

    def more(self, count):
        """Wait until `count` more datagrams have come back."""
        before = self.back()
        proc.until(lambda: self.back() >= before + count or self.popen.poll() is not None,
                   lambda: f"{count} echoes; {self.sent()} sent, {self.back()} came back", 30)
        assert self.popen.poll() is None, "the flow has ended"

    def send(self, count):
        """Wait until `count` more datagrams have been sent, also without answers."""
        target = self.sent() + count
        struct.pack_into("=Q", self.map, 16, count)
        proc.until(lambda: self.sent() >= target or self.popen.poll() is not None, lambda: f"{count} datagrams to be sent", 30)
        struct.pack_into("=Q", self.map, 16, 0)
        assert self.popen.poll() is None, "the flow has ended"

    def wait(self, timeout=100):
        """Wait until all datagrams have been sent and have come back, or none has come back for ten seconds. Returns the numbers of
        those sent, back, reordered (received after one that was sent later), lost, twice."""
        try:
            out = self.popen.communicate(timeout=timeout)[0]
        finally:
            self.popen.kill()
        self.map.close()
        assert self.popen.returncode == 0, "the flow failed"
        result = json.loads(out)
        assert result["dropped"] == 0, f"the test's own queue was full {result['dropped']} times"
        return result

    def end(self, timeout=100):
        """Stop sending, then like wait()."""
        return self.wait(timeout)  # communicate() closes its standard input


# Maximum number of unanswered datagrams. They fit into a receive buffer of twice the smallest net.core.rmem_max (212992), where
# one occupies 768 bytes; so none is lost while the reader does not run. Flow.send() uses a part of the buffer.
WINDOW = 400
PROGRESS_SIZE = 24  # sent, came back, may be sent beyond the window


class Stream:
    """The code of a Flow in its process."""

    def __init__(self, host, port, count, interval, progress):
        self.sock = client(host, connected_to=int(port), timeout=1.0)
        grow(self.sock, 8 << 20)
        self.count, self.interval, self.map = int(count), float(interval), mmap.mmap(int(progress), PROGRESS_SIZE)
        self.sent, self.back, self.stop = 0, [], False
        self.sender = threading.Thread(target=self.send)

    def watch(self):
        """Stop at the end of standard input; used without a limit of datagrams."""
        sys.stdin.read()
        self.stop = True

    def send(self):
        due = time.perf_counter()
        while self.sent < self.count and not self.stop:
            if self.sent - len(self.back) >= WINDOW + struct.unpack_from("=Q", self.map, 16)[0]:
                time.sleep(0.0001)
                due = time.perf_counter()
                continue
            if self.interval:
                due += self.interval
                while (left := due - time.perf_counter()) > 0:
                    if left > 0.0002:
                        time.sleep(left / 2)
            self.sock.send(struct.pack("=Q", self.sent))
            self.sent += 1
            struct.pack_into("=Q", self.map, 0, self.sent)

    def receive(self):
        quiet = 0
        while quiet < 10:
            try:
                self.back.append(struct.unpack("=Q", self.sock.recv(100))[0])
                struct.pack_into("=Q", self.map, 8, len(self.back))
                quiet = 0
            except TimeoutError:
                quiet += not self.sender.is_alive()
            if not self.sender.is_alive() and len(self.back) >= self.sent:
                return

    def run(self):
        if self.count >= ENDLESS:
            threading.Thread(target=self.watch, daemon=True).start()
        self.sender.start()
        self.receive()
        highest, reordered = -1, 0
        for number in self.back:
            reordered += number < highest
            highest = max(highest, number)
        once = len(set(self.back))
        json.dump({"sent": self.sent, "back": len(self.back), "reordered": reordered, "lost": self.sent - once,
                   "twice": len(self.back) - once, "dropped": dropped(self.sock)}, sys.stdout)


if __name__ == "__main__":
    Stream(*sys.argv[1:]).run()
