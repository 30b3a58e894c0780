# SPDX-License-Identifier: ISC
"""Echo servers with intended faults, and a path that loses, delays, duplicates and reorders datagrams."""

import contextlib
import heapq
import os
import random
import select
import socket
import threading
import time


class Stream:
    """A TCP (or unix) server; `serve(connection)` is called for each connection, in a thread of its own."""

    def __init__(self, serve, family=socket.AF_INET, address=None, backlog=128, listener=None):
        """`listener` is a bound socket; without it a new one is made."""
        self.listener = listener or socket.socket(family)
        if not listener:
            self.listener.bind(address or (("::1", 0) if family == socket.AF_INET6 else ("127.0.0.1", 0)))
        self.listener.listen(backlog)
        self.serve = serve
        self.connections = []
        self.accepted = 0
        self.problem = None
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    @property
    def port(self):
        return self.listener.getsockname()[1]

    @property
    def where(self):
        return [self.listener.getsockname()[0], self.port]

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.connections.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        try:
            with connection:
                self.serve(connection)
        except OSError:
            pass  # the client went away

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join(10)


def echo(connection, size=65536):
    """Echo until the end of the stream, as a correct server does."""
    while data := connection.recv(size):
        connection.sendall(data)


def corrupt(offset, mask=0x01):
    """Echo, but flip bits of the byte at `offset`."""
    def serve(connection):
        at = 0
        while data := bytearray(connection.recv(65536)):
            if at <= offset < at + len(data):
                data[offset - at] ^= mask
            at += len(data)
            connection.sendall(data)
    return serve


def hold(connection):
    """Receive until the end of the stream, then send everything back."""
    held = []
    while data := connection.recv(1 << 20):
        held.append(data)
    for data in held:
        connection.sendall(data)


def close_after(count):
    """Echo `count` bytes, then close."""
    def serve(connection):
        left = count
        while left > 0 and (data := connection.recv(min(left, 65536))):
            connection.sendall(data)
            left -= len(data)
    return serve


def silent(connection):
    """Receive everything and send nothing; do not close the connection."""
    while connection.recv(65536):
        pass
    threading.Event().wait()


def surplus(connection):
    """Echo, and send one more byte at the end."""
    echo(connection)
    connection.sendall(b"!")


@contextlib.contextmanager
def full(host="127.0.0.1", port=0):
    """The address of a listener whose backlog is full: it answers nothing."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((host, port))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


class Datagram:
    """A UDP server; `answer(data, number)` gives the datagrams to send back (number counts from 1)."""

    def __init__(self, answer=lambda data, number: [data], host="127.0.0.1", make=socket.socket):
        """`make` creates the socket, for example in another network namespace (netns.Namespace.socket)."""
        self.socket = make(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        if ":" not in host:
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        self.socket.bind((host, 0))
        self.answer = answer
        self.count = 0
        self.tos = set()
        self.peers = set()
        self.stop = os.pipe()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def where(self):
        return list(self.socket.getsockname()[:2])

    def _run(self):
        while True:
            ready, _, _ = select.select([self.socket, self.stop[0]], [], [])
            if self.stop[0] in ready:
                return
            data, ancillary, _, peer = self.socket.recvmsg(65536, 256)
            self.count += 1
            self.peers.add(peer[0])
            self.tos.update(value[0] for level, kind, value in ancillary if kind == socket.IP_TOS)
            for answer in self.answer(data, self.count):
                self.socket.sendto(answer, peer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.write(self.stop[1], b"x")
        self.thread.join(10)
        self.socket.close()
        for fd in self.stop:
            os.close(fd)


class Path:
    """A relay to the UDP address `to` that treats datagrams on their way back as a bad network does.

    loss, duplication and reordering are probabilities; delay and jitter are seconds; a reordered datagram is delayed
    by `hold` more seconds. Losses, duplicates and reordered datagrams are counted, so that a test can compare exactly.
    """

    def __init__(self, to, loss=0.0, duplication=0.0, reordering=0.0, delay=0.0, jitter=0.0, hold=0.02, seed=862):
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.front.bind(("127.0.0.1", 0))
        self.back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.back.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.back.connect(tuple(to))
        self.loss, self.duplication, self.reordering = loss, duplication, reordering
        self.delay, self.jitter, self.hold = delay, jitter, hold
        self.random = random.Random(seed)
        self.client = None
        self.passed = self.lost = self.doubled = self.held = 0
        self.queue = []  # (when, number, datagram)
        self.number = 0
        self.stop = os.pipe()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def where(self):
        return list(self.front.getsockname())

    def _enqueue(self, when, data):
        self.number += 1
        heapq.heappush(self.queue, (when, self.number, data))

    def _take_back(self, data):
        if self.random.random() < self.loss:
            self.lost += 1
            return
        when = time.monotonic() + self.delay + self.random.uniform(-self.jitter, self.jitter)
        if self.random.random() < self.reordering:
            self.held += 1
            when += self.hold
        self.passed += 1
        self._enqueue(when, data)
        if self.random.random() < self.duplication:
            self.doubled += 1
            self._enqueue(when, data)

    def _run(self):
        while True:
            now = time.monotonic()
            while self.queue and self.queue[0][0] <= now:
                self.front.sendto(heapq.heappop(self.queue)[2], self.client)
            wait = max(0, self.queue[0][0] - now) if self.queue else None
            ready, _, _ = select.select([self.front, self.back, self.stop[0]], [], [], wait)
            if self.stop[0] in ready:
                return
            if self.front in ready:
                data, self.client = self.front.recvfrom(65536)
                self.back.send(data)
            if self.back in ready:
                self._take_back(self.back.recv(65536))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.write(self.stop[1], b"x")
        self.thread.join(10)
        self.front.close()
        self.back.close()
        for fd in self.stop:
            os.close(fd)
