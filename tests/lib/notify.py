# SPDX-License-Identifier: ISC
"""The service manager's end of NOTIFY_SOCKET."""

import array
import os
import secrets
import socket
import struct
import threading
import time

import proc


class Message(dict):
    """One datagram: its assignments; `time` is monotonic, `pid` is the sender's process id, `fds` are its descriptors."""

    def __init__(self, text, pid, fds):
        super().__init__(line.partition("=")[::2] for line in text.splitlines())
        self.text, self.pid, self.fds, self.time = text, pid, fds, time.monotonic()


class Notify:
    """Collects every message in the order of arrival.

    With `store` it keeps descriptors under their names, like the manager of a unit with FileDescriptorStoreMax=, until
    FDSTOREREMOVE=1 or the end of the service. Without `store` they are closed at once.

    mark(), all(), `store` and take_store() first receive all messages that were sent before the call: messages of a daemon that
    has ended may still be in the queue.
    """

    def __init__(self, store=False, path=None):
        """`path`: of a socket in the file system, for a daemon in another network namespace; default: an abstract name."""
        self._store = [] if store else None  # (name, descriptor)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"echod-test-{os.getpid()}-{secrets.token_hex(6)}"
        self._bound = path or "\0" + name
        self.sock.bind(self._bound)
        self.address = path or "@" + name
        if path:
            os.chmod(path, 0o666)
        self.messages = []
        self._changed = threading.Condition()
        self._asked = self._answered = 0  # sync()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self):
        fds = array.array("i")
        while True:
            text, ancillary, _, _ = self.sock.recvmsg(65536, 8192)
            if text == b"close":
                return
            if text == b"sync":
                with self._changed:
                    self._answered += 1
                    self._changed.notify_all()
                continue
            pid, fds = 0, []
            for level, kind, content in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("iII", content[:12])[0]
                elif kind == socket.SCM_RIGHTS:
                    fds = array.array("i", content[:len(content) // 4 * 4]).tolist()
            message = Message(text.decode(), pid, fds)
            with self._changed:
                self._keep(message)
                self.messages.append(message)
                self._changed.notify_all()

    def _keep(self, message):
        if self._store is not None and message.get("FDSTORE") == "1":
            for fd in message.fds:
                self._add(message.get("FDNAME", "stored"), fd)
            return
        for fd in message.fds:  # a barrier waits for this
            os.close(fd)
        if self._store is not None and message.get("FDSTOREREMOVE") == "1":
            gone = [kept for kept in self._store if kept[0] == message.get("FDNAME")]
            self._store = [kept for kept in self._store if kept not in gone]
            for _, fd in gone:
                os.close(fd)

    def _add(self, name, fd):
        """Store a descriptor, unless its file is already stored."""
        def identity(fd):
            stat = os.fstat(fd)
            return stat.st_dev, stat.st_ino

        if identity(fd) in [identity(kept) for _, kept in self._store]:
            os.close(fd)
        else:
            self._store.append((name, fd))

    def _send(self, text):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(proc.LIMIT)
            sock.connect(self._bound)
            sock.send(text)

    def sync(self):
        """Wait until all messages that have been sent are received."""
        if not self._thread.is_alive():
            return
        with self._changed:
            self._asked += 1
            number = self._asked
        self._send(b"sync")
        with self._changed:
            assert self._changed.wait_for(lambda: self._answered >= number, proc.LIMIT), "messages are not received"

    @property
    def store(self):
        """[(name, descriptor), ...], or None without a store."""
        self.sync()
        with self._changed:
            return self._store

    def take_store(self):
        """Empty the store. Returns [(name, descriptor), ...] for the next start of the service; the caller closes them."""
        self.sync()
        with self._changed:
            taken, self._store = self._store or [], None if self._store is None else []
        return taken

    def mark(self):
        """The number of messages so far, for `since`."""
        self.sync()
        return len(self.messages)

    def wait(self, *assignments, since=0, timeout=proc.LIMIT, given_up=lambda: None):
        """The first message after `since` which has all of the `assignments` ("READY=1", or "STATUS" for any value).

        `given_up` is called repeatedly: a text ends the wait as the reason of a failure.
        """
        def fits(message):
            return all(message.get(key) == value if equals else key in message
                       for key, equals, value in (a.partition("=") for a in assignments))

        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for message in self.messages[since:]:
                    if fits(message):
                        return message
                left = deadline - time.monotonic()
                why = given_up()
                if why or left <= 0:
                    seen = "\n".join(repr(m.text) for m in self.messages[since:])
                    raise AssertionError(f"no {' '.join(assignments)}: {why or f'not within {timeout} s'}; "
                                         f"messages:\n{seen}")
                self._changed.wait(min(left, 0.05))

    def all(self, key, since=0):
        self.sync()
        return [message for message in self.messages[since:] if key in message]

    def close(self):
        self._send(b"close")
        self._thread.join(proc.LIMIT)
        for _, fd in self.take_store():
            os.close(fd)
        self.sock.close()
