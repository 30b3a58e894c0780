# SPDX-License-Identifier: ISC
"""The clients of the tests: they check every byte, and all waits are limited."""

import array
import fcntl
import random
import select
import socket
import struct
import threading
import time

SIOCOUTQ = 0x5411  # bytes in the send queue that the peer has not acknowledged yet
PATIENCE = 40.0

# Send buffer of a client that fills the path: with a smaller one than two segments of the loopback interface, each segment waits
# for the delayed acknowledgement of the one before.
FILL_SNDBUF = 131072

_data = {}
_data_lock = threading.Lock()


def data(size, seed=1):
    """`size` bytes without repeated sequences, the same for each call. Any thread can call this."""
    with _data_lock:
        if (size, seed) not in _data:
            while len(_data) >= 16:
                del _data[next(iter(_data))]
            _data[size, seed] = random.Random(seed).randbytes(size)
        return _data[size, seed]


def connect(address, timeout=PATIENCE, rcvbuf=None, sndbuf=None):
    """A connected stream socket; `address` is (host, port) or the path of a unix socket."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    elif ":" in address[0]:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if sndbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        sock.settimeout(timeout)
        sock.connect(address)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def same(received, sent):
    """Fail with the position of the first difference, if there is one."""
    if received == sent:
        return
    for at, (a, b) in enumerate(zip(received, sent)):
        if a != b:
            raise AssertionError(f"byte {at} of {len(sent)} came back as {a:#04x} instead of {b:#04x}")
    raise AssertionError(f"{len(received)} bytes came back for {len(sent)}")


def echo(sock, message):
    """Send `message`, which may be large, while receiving its echo; the connection stays open."""
    if len(message) <= 16384:
        sock.sendall(message)
        same(receive(sock, len(message)), message)
        return
    timeout = sock.gettimeout()
    sock.settimeout(0)
    view, back = memoryview(message), bytearray(len(message))
    into = memoryview(back)
    sent = received = 0
    poller = select.poll()
    poller.register(sock, select.POLLIN | select.POLLOUT)
    writing = True
    while received < len(message):
        events = poller.poll(PATIENCE * 1000)
        assert events, f"nothing moved for {PATIENCE} s after {sent} bytes sent, {received} received"
        event = events[0][1]
        if event & select.POLLOUT and writing:
            sent += sock.send(view[sent:sent + 262144])
            if sent == len(message):
                writing = False
                poller.modify(sock, select.POLLIN)
        if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
            count = sock.recv_into(into[received:received + 1048576])
            assert count, f"closed after {received} of {len(message)} bytes"
            received += count
    sock.settimeout(timeout)
    same(back, message)


def receive(sock, size):
    """Exactly `size` bytes."""
    back = bytearray()
    while len(back) < size:
        piece = sock.recv(min(size - len(back), 1048576))
        assert piece, f"closed after {len(back)} of {size} bytes"
        back += piece
    return bytes(back)


def receive_all(sock, pause=None, step=1048576):
    """Receive until the end of the stream; `pause`: seconds of sleep after each call, as a slow reader."""
    back = bytearray()
    while True:
        piece = sock.recv(step)
        if not piece:
            return bytes(back)
        back += piece
        if pause:
            time.sleep(pause)


def finish(sock):
    """Half-close, and check that the server closes the connection without another byte."""
    sock.shutdown(socket.SHUT_WR)
    rest = sock.recv(1)
    assert rest == b"", "more came back than was sent"
    sock.close()


def visit(address, message=b"hello, echo"):
    """Connect, receive one echo and close."""
    with connect(address) as sock:
        echo(sock, message)
        finish(sock)


def ended(sock):
    """Read until the peer has ended the connection, with FIN or RST. Returns False at the socket's timeout."""
    try:
        while sock.recv(1048576):
            pass
        return True
    except (ConnectionResetError, BrokenPipeError):
        return True
    except (TimeoutError, BlockingIOError):
        return False


def refused(address):
    """Whether there is no listener at `address`."""
    try:
        connect(address, timeout=5).close()
        return False
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except ConnectionResetError:  # the listener was closed while the connection was in its backlog
        return False


def reset(sock):
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def unacknowledged(sock):
    count = array.array("i", [0])
    fcntl.ioctl(sock, SIOCOUTQ, count)
    return count[0]


def silent(sock, seconds):
    """Whether the peer neither sends data nor ends the connection for this time."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return not poller.poll(seconds * 1000)


def silent_now(sock):
    return silent(sock, 0)


def fill_path(sock, quiet=0.3, seed=7, may_end=False, step=65536):
    """Send, `step` bytes at a time, without reading until the path to the server and back is full. Returns the bytes
    that were sent.

    With `may_end` the server may end the connection meanwhile, by a time limit: the kernels may still accept more bytes
    while none passes through the server.
    """
    source, sent = data(1 << 20, seed), bytearray()
    timeout = sock.gettimeout()
    sock.settimeout(0)
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    while poller.poll(quiet * 1000):
        try:
            at = len(sent) % len(source)
            sent += source[at:at + sock.send(source[at:at + step])]
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            if not may_end:
                raise
            break
    sock.settimeout(timeout)
    return bytes(sent)


def wait_acknowledged(sock, quiet=0.05):
    """Wait at most `quiet` seconds for the acknowledgement of all bytes."""
    deadline = time.monotonic() + quiet
    while unacknowledged(sock) and time.monotonic() < deadline:
        time.sleep(0.001)


def connect_with_unsent_data(address):
    """A connection for which the server has unsent data: all bytes have arrived there, but not all echoes fit into the path.

    Returns the socket, the bytes that were sent, and those of their echo that have been read.
    """
    sock = connect(address, rcvbuf=16384, sndbuf=FILL_SNDBUF)
    sent, read = fill_path(sock), bytearray()
    wait_acknowledged(sock, 0.2)
    while unacknowledged(sock):
        read += sock.recv(16384)
        wait_acknowledged(sock, 0.005)
    return sock, sent, bytes(read)


def endpoint(sock):
    """The client's address as the daemon logs it: "127.0.0.1:4711", "[::1]:4711"."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Writer(threading.Thread):
    """A thread that sends `message` while the test reads."""

    def __init__(self, sock, message, half_close=False):
        super().__init__(daemon=True)
        self._sock, self._message, self._half_close, self._wrong = sock, message, half_close, None
        self.start()

    def run(self):
        try:
            self._sock.sendall(self._message)
            if self._half_close:
                self._sock.shutdown(socket.SHUT_WR)
        except OSError as wrong:
            self._wrong = wrong

    def finish(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "the writer is stuck"
        if self._wrong:
            raise self._wrong


class Stream(threading.Thread):
    """A client that sends a stream continuously and verifies its echo, with at most `window` bytes in flight.

    finish() half-closes, waits for the last byte of the echo, and raises the first exception of the thread.
    """

    def __init__(self, address, seed=1, window=65536, pace=0.0):
        super().__init__(daemon=True)
        self.sock = connect(address)
        self.peer = endpoint(self.sock) if self.sock.family != socket.AF_UNIX else "unix:"
        self.echoed = 0
        self._source = data(1 << 20, seed)
        self._window, self._pace = window, pace
        self._finishing = threading.Event()
        self._wrong = None
        self.start()

    def run(self):
        try:
            self._run()
        except BaseException as wrong:  # check() raises it again
            self._wrong = wrong

    def _run(self):
        source, size, sent, received, done = self._source, len(self._source), 0, 0, False
        sock = self.sock
        sock.settimeout(0)
        poller = select.poll()
        poller.register(sock)
        while True:
            if self._finishing.is_set() and not done:
                done = True
                sock.shutdown(socket.SHUT_WR)
            want = select.POLLIN
            if not done and sent - received < self._window:
                want |= select.POLLOUT
            poller.modify(sock, want)
            events = poller.poll(200)
            if not events:
                if done and time.monotonic() > self._deadline:
                    raise AssertionError(f"stalled: {received} of {sent} bytes came back")
                continue
            event = events[0][1]
            if event & select.POLLOUT and want & select.POLLOUT:
                at = sent % size
                most = min(self._window - (sent - received), 16384)
                sent += sock.send(source[at:at + most])
            if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                at = received % size
                piece = sock.recv(min(65536, size - at))
                if not piece:
                    if done and received == sent:
                        return
                    raise AssertionError(f"closed by the server after {received} of {sent} bytes")
                if piece != source[at:at + len(piece)]:
                    raise AssertionError(f"wrong bytes after {received}")
                received += len(piece)
                self.echoed = received
                if self._pace:
                    time.sleep(self._pace)

    def check(self):
        if self._wrong:
            raise self._wrong

    def progress(self, size=65536, timeout=PATIENCE):
        """Wait until `size` bytes more have come back."""
        goal, deadline = self.echoed + size, time.monotonic() + timeout
        while self.echoed < goal:
            self.check()
            assert time.monotonic() < deadline, f"the stream stalled after {self.echoed} bytes"
            time.sleep(0.002)

    def abandon(self):
        """End a stream whose server has ended."""
        self.join(PATIENCE)
        self.sock.close()
        assert not self.is_alive(), "the connection did not end, although the server has ended"

    def finish(self, timeout=PATIENCE):
        self._deadline = time.monotonic() + timeout
        self._finishing.set()
        self.join(timeout + 5)
        self.sock.close()
        assert not self.is_alive(), "the stream did not end"
        self.check()
