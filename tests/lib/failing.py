# SPDX-License-Identifier: ISC
"""Let system calls of the daemon fail a given number of times, with failing.c in LD_PRELOAD."""

import atexit
import errno
import os
import shutil
import struct
import tempfile

import shims

# Calls that can be made to fail, in the order of failing.c, and their error.
CALLS = {"accept4": errno.EMFILE, "fork": errno.EAGAIN, "pthread_create": errno.EAGAIN, "recvmsg": errno.ENOMEM,
         "sendmsg": errno.ENOBUFS, "memfd_create": errno.ENOMEM, "mmap": errno.ENOMEM}

_shim = {}


def _compiled():
    if not _shim:
        directory = tempfile.mkdtemp(prefix="echod-failing-")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        os.chmod(directory, 0o755)
        _shim["path"] = shims.compile_shim("failing", directory)
    return _shim["path"]


class Failing:
    """The calls of one daemon. `queue`: size of the send buffer of the queue between workers; 1: the smallest, 0: unchanged.
    `speed`: factor for the daemon's clock."""

    def __init__(self, directory, queue=0, speed=1):
        self.path = f"{directory}/calls"
        with open(self.path, "wb") as file:
            file.truncate(4096)
        os.chmod(self.path, 0o666)
        self.env = shims.preload(_compiled(), FAILING_CALLS=self.path, FAILING_QUEUE=str(queue), FAILING_SPEED=str(speed))

    def fail(self, call, count):
        """Let the next `count` calls fail; 0: none."""
        with open(self.path, "r+b") as file:
            file.seek(8 * list(CALLS).index(call))
            file.write(struct.pack("=ii", count, CALLS[call]))

    def left(self, call):
        """The number of these failures that have not happened yet."""
        return self._number(8 * list(CALLS).index(call))

    def waits(self):
        """The number of calls that waited for events, of all processes of the daemon, modulo 2^32."""
        return self._number(8 * len(CALLS))

    def _number(self, offset):
        with open(self.path, "rb") as file:
            file.seek(offset)
            return struct.unpack("=I", file.read(4))[0]
