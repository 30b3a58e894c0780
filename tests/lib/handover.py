# SPDX-License-Identifier: ISC
"""The formats of connections that are handed over and kept, as in src/echo/state.h and src/models/handover/pack.h."""

import array
import fcntl
import os
import socket
import struct
import termios
import time

STATE = struct.Struct("=IHHIIIIQqq16sHHI16sIHHII")
MAGIC, VERSION = 0x65636864, 2
STATE_MAX = 192


def check_sum(record):
    """The checksum of the record without its field `check`."""
    total = 2166136261
    for byte in record[:8] + record[12:]:
        total = (total ^ byte) * 16777619 & 0xffffffff
    return total


def state(owed=0, echoed=0, version=VERSION, size=None, magic=MAGIC, flags=0, family=socket.AF_INET, check=None, idle=0,
          later=b"", since=None):
    """A record as the daemon would write it, or a later version that appends `later`; idle for `idle` seconds."""
    if since is None:
        since = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 - idle * 1000000
    size = STATE.size + len(later) if size is None else size
    record = STATE.pack(magic, version, size, 0, flags, owed, 0, echoed, since, since, b"\x7f\0\0\1", 1, family, 0, b"", 0, 0, 0, 0, 0) + later
    check = check_sum(record) if check is None else check
    return record[:8] + struct.pack("=I", check) + record[12:]


def memory(data, name="owed"):
    """The descriptor of a new file in memory with this content."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    return fd


def send(sock, text, fds=()):
    sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


QUEUE = "echod-connections-0"
PACK = struct.Struct("=IHHII")
PACK_MAGIC, PACK_VERSION, PACK_MAX = 0x65636870, 1, 252


def pair():
    """A queue like those of the daemon: its receiving and its sending end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def pack(records, *, magic=PACK_MAGIC, version=PACK_VERSION, size=PACK.size, count=None):
    """The content of a pack's file; each record is a state and the unsent data, as bytes."""
    records = list(records)
    return PACK.pack(magic, version, size, len(records) if count is None else count, 0) + b"".join(records)


def send_pack(outbox, connections, content=None, text=None, owed=()):
    """Send a pack of these descriptors. Its file has states of connections with the unsent data `owed`, or is `content`."""
    if content is None:
        owed = list(owed) or [b""] * len(connections)
        content = pack(state(len(data)) + data for data in owed)
    file = memory(content)
    send(outbox, b"\0" * len(connections) if text is None else text, [file, *connections])
    os.close(file)


def take_packs(inbox):
    """Receive all packs of a queue: [(content of the file, [descriptors]), ...]."""
    packs = []
    while True:
        try:
            text, fds, flags, _ = socket.recv_fds(inbox, 1000, 253, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return packs
        if not text and not fds:
            return packs
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) and len(text) == len(fds) - 1, (len(text), len(fds), flags)
        with open(fds[0], "rb") as file:
            file.seek(0)
            packs.append((file.read(), fds[1:]))


def waiting(inbox):
    """The number of connections in a queue of packs."""
    value = array.array("i", [0])
    fcntl.ioctl(inbox, termios.FIONREAD, value)
    return value[0]
