# SPDX-License-Identifier: ISC
"""Network namespaces for tests; only root can create them."""

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import threading

import peer
import proc
import pytest

CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace with a loopback interface; setup(...) adds more."""

    def __init__(self):
        self.name = f"echod-test-{secrets.token_hex(4)}"
        self.ip("netns", "add", self.name)
        self.setup("link", "set", "lo", "up")

    @staticmethod
    def ip(*args):
        subprocess.run(["ip", *args], check=True, timeout=20, capture_output=True)

    def setup(self, *args):
        """Run ip(8) in the namespace."""
        self.ip("-n", self.name, *args)

    def links_up(self):
        """Whether every interface but the loopback is operational: until then the kernel drops packets to them."""
        lines = subprocess.run(["ip", "-n", self.name, "-o", "link"], check=True, timeout=20, capture_output=True, text=True).stdout
        return all(" state UP " in line for line in lines.splitlines() if "LOOPBACK" not in line)

    def nft(self, command):
        """Run nft(8) in the namespace."""
        self.ip(*self.wrap()[1:], "nft", command)

    def sysctl(self, setting):
        self.ip(*self.wrap()[1:], "sysctl", "-qw", setting)

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], timeout=20, capture_output=True)

    def wrap(self):
        """The prefix of a command to run in the namespace, for echod.Daemon."""
        return ["ip", "netns", "exec", self.name]

    def inside(self, act):
        """The result of act() in a thread inside the namespace: a socket belongs to the namespace of the thread that created it."""
        done, wrong = [], []

        def enter():
            fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
            try:
                assert ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) == 0, "setns failed"
                done.append(act())
            except Exception as error:
                wrong.append(error)
            finally:
                os.close(fd)
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if wrong:
            raise wrong[0]
        return done[0]

    def socket(self, *args):
        sock = self.inside(lambda: socket.socket(*args))
        sock.settimeout(peer.PATIENCE)
        return sock

    def connect(self, source, address):
        """A stream connection from the address `source`."""
        sock = self.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
        sock.bind((source, 0))
        sock.connect(address)
        return sock

    def tcp(self, state):
        """The number of sockets in this state: proc_net_tcp(5)."""
        lines = self.inside(lambda: proc.read("/proc/thread-self/net/tcp")).decode().splitlines()
        return sum(line.split()[3] == state for line in lines)


@contextlib.contextmanager
def make(prepare):
    """A Namespace after prepare(namespace), deleted at the end of the context. Skips the test if it cannot be created."""
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    made = None
    try:
        try:
            made = Namespace()
            prepare(made)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no such network namespaces here: {' '.join(error.cmd)}: {error.stderr.decode().strip()}")
        except OSError as error:
            pytest.skip(f"no such network namespaces here: {error}")
        yield made
    finally:
        if made:
            made.close()
