# SPDX-License-Identifier: ISC
"""A client and a server in network namespaces, joined by one or more paths with a router each."""

import contextlib
import errno
import socket

import netns
import proc

SERVER = {4: "10.99.0.1", 6: "fd99::1"}
CLIENT = {4: "10.97.0.1", 6: "fd97::1"}


class Network:
    """client - router N - server, for each path. The client sends over all paths, chosen by addresses and ports."""

    def __init__(self, stack, paths):
        self.client = stack.enter_context(netns.make(lambda space: self._add_addresses(space, CLIENT)))
        self.server = stack.enter_context(netns.make(lambda space: self._add_addresses(space, SERVER)))
        self.routers = [stack.enter_context(netns.make(lambda space, path=path: self._join(space, path)))
                        for path in range(paths)]
        for family, length, option in ((4, 32, []), (6, 128, ["-6"])):
            for space, own, other, side in ((self.client, CLIENT, SERVER, "c"), (self.server, SERVER, CLIENT, "s")):
                hops = []
                for path in range(paths):
                    hops += ["nexthop", "via", self._address(family, side, path, 2)]
                space.setup(*option, "route", "add", f"{other[family]}/{length}", "src", own[family], *hops)
        proc.until(lambda: self._passes(4) and self._passes(6), "the paths", 20)

    def _passes(self, family):
        """Whether packets pass: there is no service, so connects from several ports must be refused."""
        def attempt():
            results = set()
            for _ in range(8):
                with socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET) as sock:
                    sock.settimeout(1)
                    results.add(sock.connect_ex((SERVER[family], 9)))
            return results
        return self.client.inside(attempt) == {errno.ECONNREFUSED}

    @staticmethod
    def _address(family, side, path, host):
        net = path * 2 + (side == "s")
        return f"10.98.{net}.{host}" if family == 4 else f"fd98:{net}::{host}"

    @staticmethod
    def _add_addresses(space, addresses):
        """Add addresses that do not belong to a path."""
        space.setup("addr", "add", f"{addresses[4]}/32", "dev", "lo")
        space.setup("-6", "addr", "add", f"{addresses[6]}/128", "dev", "lo", "nodad")

    def _join(self, router, path):
        for space in (self.client, self.server, router):  # no delay for duplicate address detection
            space.sysctl("net.ipv6.conf.default.accept_dad=0")
            space.sysctl("net.ipv6.conf.all.accept_dad=0")
        router.sysctl("net.ipv4.ip_forward=1")
        router.sysctl("net.ipv6.conf.all.forwarding=1")
        for space, side in ((self.client, "c"), (self.server, "s")):
            netns.Namespace.ip("link", "add", f"v{side}{path}", "netns", space.name, "type", "veth", "peer", "name",
                               f"r{side}{path}", "netns", router.name)
            for family, length, option in ((4, 24, []), (6, 64, ["-6"])):
                more = ["nodad"] if family == 6 else []
                space.setup(*option, "addr", "add", f"{self._address(family, side, path, 1)}/{length}", "dev", f"v{side}{path}",
                            *more)
                router.setup(*option, "addr", "add", f"{self._address(family, side, path, 2)}/{length}", "dev",
                             f"r{side}{path}", *more)
            space.setup("link", "set", f"v{side}{path}", "up")
            router.setup("link", "set", f"r{side}{path}", "up")
        for family, length, option in ((4, 32, []), (6, 128, ["-6"])):
            router.setup(*option, "route", "add", f"{SERVER[family]}/{length}", "via", self._address(family, "s", path, 1))
            router.setup(*option, "route", "add", f"{CLIENT[family]}/{length}", "via", self._address(family, "c", path, 1))
        for space in (self.client, self.server):
            space.sysctl("net.ipv4.conf.all.rp_filter=0")
            space.sysctl("net.ipv4.fib_multipath_hash_policy=1")
            space.sysctl("net.ipv6.fib_multipath_hash_policy=1")

    def server_mtu(self, path, mtu):
        """The MTU of the link between router and server."""
        self.routers[path].setup("link", "set", f"rs{path}", "mtu", str(mtu))
        self.server.setup("link", "set", f"vs{path}", "mtu", str(mtu))


@contextlib.contextmanager
def network(paths=1):
    """A Network; skips the test if namespaces cannot be created."""
    with contextlib.ExitStack() as stack:
        yield Network(stack, paths)
