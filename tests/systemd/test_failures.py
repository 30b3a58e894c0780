# SPDX-License-Identifier: ISC
"""Failures: crashes, hangs, and starts that cannot succeed."""

import socket

import pytest

from machine import ERR, SERVICE, at_least, echo, until


def test_crash(machine, model):
    """SIGKILL for the supervisor: systemd starts the service again, and no new client is refused meanwhile."""
    machine.configure(f'model = "{model}"\n')
    machine.systemctl("start", "echod")
    since = machine.cursor()
    workers = machine.children()
    assert workers
    machine.kill(machine.main_pid(), "KILL")
    until(lambda: not any(machine.path(f"/proc/{pid}").exists() for pid in workers), "the workers die too")
    with machine.connect() as client:  # waits in the backlog of the socket that systemd keeps
        machine.wait_event("READY", since)
        assert echo(client, b"first\n")
    until(lambda: machine.active() == "active", "systemd has received the notification")
    assert machine.show(SERVICE, "NRestarts") == "1"


def test_worker_crash(machine, model):
    """SIGKILL for each worker process: it is logged and replaced, and the service stays active."""
    machine.configure(f'model = "{model}"\nworkers = 1\n')
    machine.systemctl("start", "echod")
    pid = machine.main_pid()
    since = machine.cursor()
    for worker in machine.children():
        machine.kill(worker, "KILL")
    machine.wait_event("WORKER_DIED", since)
    assert machine.serves()
    assert machine.main_pid() == pid and machine.active() == "active"


def test_watchdog(machine, model):
    """A worker process that hangs (SIGSTOP) ends the WATCHDOG=1 messages, and systemd starts the service again."""
    machine.configure(f'model = "{model}"\n')
    machine.drop_in(SERVICE, "[Service]\nWatchdogSec=1\n")
    machine.systemctl("start", "echod")
    # as long as nothing hangs it is fed
    feeding = machine.show(SERVICE, "WatchdogTimestampMonotonic")
    until(lambda: machine.show(SERVICE, "WatchdogTimestampMonotonic") != feeding, "the watchdog is fed")
    since = machine.cursor()
    machine.kill(machine.children()[-1], "STOP")
    machine.wait_failed("watchdog", since)
    machine.wait_event("READY", since)
    assert machine.serves()
    assert machine.show(SERVICE, "NRestarts") == "1"


@pytest.mark.parametrize("kind", ["client", "datagrams"])
def test_watchdog_of_other_processes(machine, kind):
    """The watchdog also covers the process of one connection, and the reader of datagrams."""
    machine.configure('model = "process"\nprotocols = {"tcp", "udp"}\n')
    machine.drop_in(SERVICE, "[Service]\nWatchdogSec=1\n")
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        assert echo(client, b"hello\n")
        acceptor, *datagrams = machine.children()
        served, = machine.path(f"/proc/{acceptor}/task/{acceptor}/children").read_text().split()
        since = machine.cursor()
        machine.kill(int(served) if kind == "client" else datagrams[0], "STOP")
        machine.wait_failed("watchdog", since)
    machine.wait_event("READY", since)
    assert machine.serves()
    assert machine.show(SERVICE, "NRestarts") == "1"


@pytest.mark.parametrize("hung", [0, 1], ids=["first", "second"])
@pytest.mark.models("thread", "prethread", "select", "poll", "epoll", "io_uring")
def test_watchdog_of_threads(machine, fault_points, model, hung):
    """One hanging thread is enough, although the others run."""
    machine.configure(f'model = "{model}"\nworkers = 2\n')
    machine.drop_in(SERVICE, "[Service]\nWatchdogSec=1\nEnvironment=ECHOD_FAULT_HANG=/run/echod\n")
    machine.systemctl("start", "echod")
    with machine.connect() as client:  # in the model thread, the second worker is the one that serves it
        assert echo(client, b"first\n")
        since = machine.cursor()
        machine.run("touch", f"/run/echod/{hung}")
        machine.wait_failed("watchdog", since)
    machine.wait_event("READY", since)
    assert machine.serves()
    assert machine.show(SERVICE, "NRestarts") == "1"


@pytest.mark.parametrize("status, conf, dropin", [
    (78, 'model = "epol"\n', None),
    (64, "", "--workers=many"),
    (66, "", "-c /no/such/file"),
])
def test_not_restarted(machine, status, conf, dropin):
    """systemd does not start the service again after errors that another start would not fix."""
    machine.configure(conf)
    if dropin:
        machine.drop_in(SERVICE, f"[Service]\nExecStart=\nExecStart={machine.echod} -n {dropin}\n")
    since = machine.cursor()
    assert machine.systemctl("start", "echod", check=False).returncode != 0
    machine.wait_failed("exit-code", since)
    assert machine.active() == "failed"
    assert machine.show(SERVICE, "ExecMainStatus") == str(status)
    assert machine.show(SERVICE, "NRestarts") == "0"
    entries = at_least(ERR, machine.journal(since, SYSLOG_IDENTIFIER="echod"))
    assert entries and all("MESSAGE_ID" in entry for entry in entries)
    if status == 78:
        assert f"{machine.conf_path}:1: " in entries[0]["MESSAGE"] and '"epoll"' in entries[0]["MESSAGE"]


def test_port_taken(machine):
    """Another process uses the port: the reason is in the journal, and systemd tries again."""
    taken = machine.socket(socket.AF_INET6)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier test may linger there
    taken.bind(("::", 7))
    taken.listen()
    since = machine.cursor()
    assert machine.systemctl("start", "echod", check=False).returncode != 0
    failed = machine.wait_event("START_FAILED", since)
    assert "in use" in failed["MESSAGE"] and failed["PRIORITY"] == "3"
    taken.close()
    machine.wait_event("READY", since)
    assert machine.serves()
