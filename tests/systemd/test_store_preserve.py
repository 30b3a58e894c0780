# SPDX-License-Identifier: ISC
"""What systemd 254 and later keeps in the descriptor store: with the drop-in keep-over-stop.conf connections survive a stop
and the next start, and a soft reboot; without it, and without a system bus, a restart."""

import concurrent.futures
import contextlib
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

import peer
from machine import BUILDDIR, SERVICE, booted, echo, until

CONF = 'model = "%s"\ndrain-timeout = 1\nlisten = {"127.0.0.1", "unix:/run/echod/echod.sock", "unix:@echod-test"}\n'


def require(machine, version=254):
    if machine.version() < version:
        pytest.skip(f"systemd {machine.version()} is older than {version}")


def install_drop_in(machine):
    """Follow the instructions in the comment of the drop-in."""
    text = Path(BUILDDIR, "systemd/keep-over-stop.conf").read_text()
    commands = [line[4:] for line in text.splitlines() if line.startswith("#   ")]
    assert len(commands) == 4 and commands[0].startswith("install ") and commands[-1] == "systemctl daemon-reload"
    machine.run("sh", "-ec", "\n".join(commands))


@pytest.fixture
def keeping(machine):
    """A machine with the drop-in."""
    require(machine)
    install_drop_in(machine)
    yield machine
    machine.systemctl("stop", "echod")
    machine.systemctl("clean", "--what=fdstore", "echod", check=False)
    shutil.rmtree(machine.path("/etc/systemd/system/system.slice.d"))


def environment(machine):
    entries = machine.path(f"/proc/{machine.main_pid()}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def connect(machine):
    return [machine.connect(), machine.connect_unix("/run/echod/echod.sock"), machine.connect_unix("\0echod-test")]


@contextlib.contextmanager
def without_bus(machine):
    units = "dbus.socket", "dbus.service", "dbus-broker.service"
    for unit in units:  # one by one: systemd 262 stops none of several units of which one is missing
        machine.systemctl("stop", unit, check=False)
    assert [machine.active(unit) for unit in units] == ["inactive"] * len(units)
    try:
        yield
    finally:
        machine.systemctl("start", "dbus.socket")


def restored(machine, since):
    return machine.wait_event("RESTORED", since)["MESSAGE"]


def test_environment(machine):
    """The manager sets the size of the store in the environment, so that echod knows it without a system bus."""
    require(machine)
    machine.systemctl("start", "echod")
    assert environment(machine)["FDSTORE"] == machine.show(SERVICE, "FileDescriptorStoreMax") == "128"


@pytest.mark.models("process", "thread", "select", "poll", "epoll", "io_uring")
def test_stop_and_start(keeping, model):
    """No data is lost, including data that clients send while the service is stopped."""
    keeping.configure(CONF % model)
    keeping.systemctl("start", "echod")
    for _ in range(2):
        idle, full = connect(keeping), connect(keeping)
        assert all(echo(client, b"before") for client in idle)
        sent = [peer.fill_path(client) for client in full]
        keeping.systemctl("stop", "echod")
        assert keeping.active() == "inactive" and int(keeping.show(SERVICE, "NFileDescriptorStore")) >= 4
        assert keeping.path("/run/echod/echod.sock").is_socket()
        late = connect(keeping)  # the listeners are in the store, too
        for client in idle + late:
            client.sendall(b"meanwhile")
            assert peer.silent_now(client)
        since = keeping.cursor()
        keeping.systemctl("start", "echod")
        assert "Restored 6 connections and 3 listening sockets" in restored(keeping, since)
        for client in idle + late:
            assert peer.receive(client, 9) == b"meanwhile"
        for client, data in zip(full, sent):
            peer.same(peer.receive(client, len(data)), data)
        for client in idle + full + late:
            peer.finish(client)


def test_clean(keeping):
    """While the service is stopped, "systemctl clean --what=fdstore" ends what is in the store, as the drop-in says."""
    keeping.configure(CONF % "epoll")
    keeping.systemctl("start", "echod")
    clients = connect(keeping)
    assert all(echo(client, b"before") for client in clients)
    keeping.systemctl("stop", "echod")
    assert keeping.show(SERVICE, "NFileDescriptorStore") == "4"
    keeping.systemctl("clean", "--what=fdstore", "echod")
    assert keeping.show(SERVICE, "NFileDescriptorStore") == "0"
    assert all(peer.ended(client) for client in clients)
    keeping.systemctl("start", "echod")
    assert keeping.serves()


def receive_rest(client):
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):  # data that echod had not received is lost
        while piece := client.recv(1 << 20):
            received += piece
    return received


def test_store_of_a_unit_that_nothing_refers_to(machine):
    """With the drop-in alone systemd 257 drops the store after the stop, and systemd 262 keeps it. Clients get what is owed
    before their connections end."""
    require(machine)
    machine.drop_in(SERVICE, Path(BUILDDIR, "systemd/keep-over-stop.conf").read_text())
    machine.configure((CONF % "epoll").replace("drain-timeout = 1", "drain-timeout = 60"))
    machine.systemctl("start", "echod")
    clients = connect(machine)
    sent = [peer.fill_path(client) for client in clients]
    since = machine.cursor()
    machine.systemctl("stop", "--no-block", "echod")
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        rest = [pool.submit(receive_rest, client) for client in clients]
        until(lambda: machine.active() == "inactive", "the stop", seconds=60)
        machine.systemctl("clean", "--what=fdstore", "echod", check=False)  # fails where the store was dropped
        for data, future in zip(sent, rest):
            received = future.result()
            assert len(received) > 0 and data.startswith(received)
    statistics = machine.wait_event("STATISTICS", since)["MESSAGE"]
    received, echoed = (int(re.search(rf"{name}_bytes (\d+)", statistics)[1]) for name in ("received", "echoed"))
    assert received == echoed > 0
    until(lambda: machine.show(SERVICE, "NFileDescriptorStore") == "0", "the store is dropped")


def test_stop_and_start_without_bus(keeping):
    """The service cannot ask whether it will be started again."""
    keeping.configure(CONF % "epoll")
    with without_bus(keeping):
        keeping.systemctl("start", "echod")
        clients = connect(keeping)
        assert all(echo(client, b"before") for client in clients)
        keeping.systemctl("stop", "echod")
        since = keeping.cursor()
        keeping.systemctl("start", "echod")
        assert "Restored 3 connections and 3 listening sockets" in restored(keeping, since)
        assert all(echo(client, b"after") for client in clients)
        for client in clients:
            peer.finish(client)


def test_restart_without_bus(machine):
    """Without the drop-in: a restart keeps the connections, a stop ends them, and the service starts without a warning."""
    require(machine)
    machine.configure(CONF % "epoll")
    with without_bus(machine):
        since = machine.cursor()
        machine.systemctl("start", "echod")
        assert not [entry["MESSAGE"] for entry in machine.journal(since, SYSLOG_IDENTIFIER="echod", PRIORITY="4")]
        clients = connect(machine)
        for number in range(3):
            assert all(echo(client, b"%d" % number) for client in clients)
            machine.systemctl("restart", "echod")
        assert all(echo(client, b"after") for client in clients)
        machine.systemctl("stop", "echod")
        assert all(peer.ended(client) for client in clients)
        assert machine.show(SERVICE, "NFileDescriptorStore") == "0"


def test_soft_reboot(installed, stage, tmp_path):
    """All processes except the manager end, and the connections continue afterwards."""
    require(installed)
    with booted(tmp_path / "m") as machine:
        machine.install(stage)
        install_drop_in(machine)
        machine.configure(CONF % "epoll")
        machine.systemctl("enable", "--now", "echod")
        clients = connect(machine)
        assert all(echo(client, b"before") for client in clients)
        pid, since = machine.main_pid(), machine.cursor()
        # By signal, and with no machine.run() before the service is back: see there.
        os.kill(machine.pid, signal.SIGRTMIN + 7)
        assert "Restored 3 connections and 3 listening sockets" in restored(machine, since)
        until(lambda: machine.active() == "active", "the service runs again", seconds=60)
        assert machine.main_pid() != pid
        assert all(echo(client, b"after") for client in clients)
        for client in clients:
            peer.finish(client)
        assert machine.serves()
