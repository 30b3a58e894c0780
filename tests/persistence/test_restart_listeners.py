# SPDX-License-Identifier: ISC
"""Multipath TCP and abstract unix sockets over systemctl restart and over a crash, from each model to the next."""

import errno
import socket

import pytest

import peer
from machine import EVENTS, SERVICE, echo, until
from multipath import IPPROTO_MPTCP, is_multipath, why_not
from test_restart import available

NAME = "echod-test"
CONF = 'model = "%s"\nmptcp = %s\nlisten = {"127.0.0.1", "unix:@' + NAME + '"}\n'


def require_multipath():
    reason = why_not()
    if reason:
        pytest.skip(reason)


def multipath(machine):
    return machine.connect(protocol=IPPROTO_MPTCP)


def plain(machine):
    return machine.connect()


def abstract(machine):
    return machine.connect_unix(f"\0{NAME}")


def is_bound(machine):
    """Whether the abstract name is taken. Connections that were accepted do not keep it."""
    with machine.socket(socket.AF_UNIX) as other:
        try:
            other.bind(f"\0{NAME}")
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
            return True
    return False


def test_restart(machine):
    """Connections continue with their unsent data, Multipath TCP connections as such; the listeners stay open."""
    require_multipath()
    models = available(machine)
    machine.configure(CONF % (models[-1], "true"))
    machine.systemctl("start", "echod")
    for model in models:
        idle = [connect(machine) for connect in (multipath, plain, abstract)]
        assert all(echo(client, b"before") for client in idle)
        assert [is_multipath(client) for client in idle] == [True, False, False]
        full = [connect(machine) for connect in (multipath, plain, abstract)]
        sent = [peer.fill_path(client) for client in full]
        since = machine.cursor()
        machine.configure(CONF % (model, "true"))
        machine.systemctl("restart", "echod")
        assert f"Restored {len(idle + full)} connections and 2 listening sockets" in machine.wait_event("RESTORED", since)["MESSAGE"]
        assert all(echo(client, b"after") for client in idle), model
        assert is_multipath(idle[0]) and is_multipath(full[0])
        for client, data in zip(full, sent):
            peer.same(peer.receive(client, len(data)), data)
        for client in idle + full:
            peer.finish(client)
        with multipath(machine) as new, abstract(machine) as local:
            assert is_multipath(new) and echo(new, b"new") and echo(local, b"new")
        assert not machine.journal(since, MESSAGE_ID=EVENTS["STATE_DAMAGED"])


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_restart_with_another_mptcp(machine, wanted):
    """Existing connections keep their protocol; new connections have the configured one."""
    require_multipath()
    before = wanted != "true"
    machine.configure(CONF % ("epoll", str(before).lower()))
    machine.systemctl("start", "echod")
    with multipath(machine) as old, abstract(machine) as local:
        assert echo(old, b"before") and is_multipath(old) == before
        machine.configure(CONF % ("epoll", wanted))
        machine.systemctl("restart", "echod")
        assert echo(old, b"after") and is_multipath(old) == before
        assert echo(local, b"after")
        with multipath(machine) as new:
            assert echo(new, b"new") and is_multipath(new) != before


def test_crash(machine):
    """No new client is refused, since the listeners are in the store; the abstract name stays bound."""
    require_multipath()
    machine.configure(CONF % ("epoll", "true"))
    machine.drop_in(SERVICE, "[Service]\nRestartSec=60\n")
    machine.systemctl("start", "echod")
    machine.kill(machine.main_pid(), "KILL")
    until(lambda: machine.show(SERVICE, "SubState") == "auto-restart", "systemd waits before it restarts the service")
    waiting = [multipath(machine), abstract(machine)]
    for client in waiting:
        client.sendall(b"waiting")
    machine.systemctl("restart", "echod")
    for client in waiting:
        assert peer.receive(client, 7) == b"waiting"
        client.close()


def test_abstract_name_removed_from_the_configuration(machine):
    """A restart unbinds an abstract name that was removed from the configuration; a stop unbinds every name."""
    machine.configure(CONF % ("epoll", "false"))
    machine.systemctl("start", "echod")
    assert is_bound(machine)
    with abstract(machine) as old:
        assert echo(old, b"before")
        machine.configure('listen = {"127.0.0.1"}\n')
        machine.systemctl("restart", "echod")
        until(lambda: not is_bound(machine), "the name is free")
        assert echo(old, b"after")
    machine.configure(CONF % ("epoll", "false"))
    machine.systemctl("restart", "echod")
    with abstract(machine) as new:
        assert echo(new, b"new")
    machine.systemctl("stop", "echod")
    assert not is_bound(machine)
