# SPDX-License-Identifier: ISC
"""Every model with all restrictions of echod.service: start, reload, restart, stop."""


import pytest

from machine import SERVICE, WARNING, at_least, echo


def test_every_model(machine, model):
    """Each model works with all the restrictions of the unit, from the start."""
    machine.configure(f'model = "{model}"\n')
    since = machine.cursor()
    machine.systemctl("start", "echod")
    assert model in machine.show(SERVICE, "StatusText")
    with machine.connect() as client:
        for length in (1, 100, 60000):
            assert echo(client, b"abcdefgh" * length)
    machine.systemctl("stop", "echod")
    assert machine.show(SERVICE, "Result") == "success"
    assert not at_least(WARNING, machine.journal(since, _SYSTEMD_UNIT=SERVICE))


def test_reload_switches_model(machine, model):
    """After a change of the file and a reload the model is another one, and a client's connection continues."""
    first = "epoll" if model != "epoll" else "poll"
    machine.configure(f'model = "{first}"\n')
    machine.systemctl("start", "echod")
    pid = machine.main_pid()
    with machine.connect() as client:
        assert echo(client, b"before\n")
        machine.configure(f'model = "{model}"\n')
        assert model in machine.reload()["MESSAGE"]
        assert echo(client, b"after\n")
    assert machine.serves()
    assert machine.main_pid() == pid
    assert model in machine.show(SERVICE, "StatusText")


def test_restart_keeps_connections(machine, model):
    """A connection, and the order of its bytes, survive systemctl restart."""
    machine.configure(f'model = "{model}"\n')
    machine.systemctl("start", "echod")
    pid = machine.main_pid()
    since = machine.cursor()
    with machine.connect() as client:
        assert echo(client, b"before\n")
        machine.reload()
        machine.systemctl("restart", "echod")
        assert machine.main_pid() != pid
        assert echo(client, b"after\n")
        # the journal has it, without connections that an earlier reload handed over
        assert machine.wait_event("HANDOVER", since)["MESSAGE"].startswith("Handed 1 connection ")
        assert "1 connection and 2 listening sockets" in machine.wait_event("RESTORED", since)["MESSAGE"]
    assert machine.serves()


def test_stop(machine, model):
    """A stop sends unsent data and ends idle connections, and no process remains."""
    machine.configure(f'model = "{model}"\ndrain-timeout = 300\n')
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        assert echo(client, b"bytes")
        machine.systemctl("stop", "echod", timeout=60)  # the stop does not wait for an idle connection
        assert client.recv(1) == b""
    assert machine.show(SERVICE, "Result") == "success" and machine.show(SERVICE, "ExecMainStatus") == "0"
    with pytest.raises(ConnectionRefusedError):
        machine.connect()
    assert not machine.path("/run/echod").exists()
