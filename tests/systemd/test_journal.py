# SPDX-License-Identifier: ISC
"""Records in the journal, and their fields."""

import json
import re

from machine import CATALOG_SUBJECTS, EVENTS, SERVICE, WARNING, at_least, echo, until


def query(machine, *arguments):
    """The output of journalctl with these arguments."""
    machine.run("journalctl", "--sync")
    return machine.run("journalctl", "-q", "--no-pager", *arguments).stdout


def test_connections_of_a_client(machine):
    """journalctl -u echod ECHOD_PEER=… -o json finds a connection, with every field."""
    machine.configure('model = "poll"\n')
    machine.systemctl("start", "echod")
    since = machine.cursor()
    peers = []
    for host, shown in (("127.0.0.1", "127.0.0.1:%d"), ("::1", "[::1]:%d")):
        with machine.connect(host) as client:
            peers.append(shown % client.getsockname()[1])
            assert echo(client, b"x" * 1000)
        machine.wait_event("CONNECTION_ENDED", since, ECHOD_PEER=peers[-1])
    for peer in peers:
        lines = query(machine, "-u", "echod", f"ECHOD_PEER={peer}", "-o", "json").splitlines()
        assert len(lines) == 1
        entry = json.loads(lines[0])
        local = peer.rsplit(":", 1)[0] + ":7"
        assert {name: entry.get(name) for name in ("ECHOD_LOCAL", "ECHOD_BYTES", "ECHOD_REASON", "ECHOD_TRANSPORT", "ECHOD_MODEL",
                                                   "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER")} == {
            "ECHOD_LOCAL": local, "ECHOD_BYTES": "1000", "ECHOD_REASON": "eof", "ECHOD_TRANSPORT": "tcp",
            "ECHOD_MODEL": "poll", "MESSAGE_ID": EVENTS["CONNECTION_ENDED"], "PRIORITY": "6", "SYSLOG_IDENTIFIER": "echod"}
        assert re.fullmatch(r"\d+", entry["ECHOD_WORKER"]) and 0 < int(entry["ECHOD_DURATION_USEC"]) < 60_000_000
        assert peer in entry["MESSAGE"]


def test_reasons(machine):
    """A client that is denied and a client that is silent after a byte have different reasons."""
    machine.configure('deny = {"::1"}\nidle-timeout = 1\n')
    machine.systemctl("start", "echod")
    since = machine.cursor()
    with machine.connect("::1") as client:
        assert client.recv(1) == b""
    refused = machine.wait_event("CONNECTION_REFUSED", since)
    assert refused["ECHOD_REASON"] == "denied" and refused["ECHOD_PEER"].startswith("[::1]:")
    with machine.connect() as client:
        echo(client, b"x")
        assert client.recv(1) == b""
    assert machine.wait_event("CONNECTION_ENDED", since)["ECHOD_REASON"] == "idle"


def test_by_message_id(machine):
    """Each kind of event can be selected by its MESSAGE_ID."""
    machine.systemctl("start", "echod")
    machine.reload()
    machine.systemctl("stop", "echod")
    for name in ("STARTED", "READY", "RELOADED", "STOPPING", "STOPPED"):
        lines = query(machine, "-u", "echod", f"MESSAGE_ID={EVENTS[name]}", "-o", "cat").splitlines()
        assert lines and all(lines), name
    # what the supervisor says while it serves names the model, too
    for name in ("READY", "RELOADED", "STOPPED"):
        lines = query(machine, "-u", "echod", f"MESSAGE_ID={EVENTS[name]}", "ECHOD_MODEL=epoll", "-o", "cat").splitlines()
        assert lines, name


def test_explanations(machine):
    """journalctl -x explains the messages of echod."""
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        peer = "127.0.0.1:%d" % client.getsockname()[1]
        assert echo(client, b"x")
    since = machine.cursor()
    machine.systemctl("stop", "echod")
    text = query(machine, "-x", "-u", "echod")
    for name in ("READY", "CONNECTION_ENDED", "STOPPED"):
        assert CATALOG_SUBJECTS[name] in text
    assert f"journalctl ECHOD_PEER={peer}" in text
    assert since and "@ECHOD" not in text


def test_mistake_at_start(machine):
    """A mistake in the file shows up among the errors, with its explanation."""
    machine.configure("prot = 7\n")
    since = machine.cursor()
    machine.systemctl("start", "echod", check=False)
    until(lambda: machine.active() == "failed", "the start failed")
    wrong = at_least(3, machine.journal(since, MESSAGE_ID=EVENTS["CONFIG_WRONG"]))
    assert len(wrong) == 1 and f"{machine.conf_path}:1:" in wrong[0]["MESSAGE"] and '"port"' in wrong[0]["MESSAGE"]
    told = [entry for entry in machine.journal(since) if "prot" in entry["MESSAGE"]]
    assert len(told) == 1, "not logged exactly once"


def test_priorities_on_standard_error(machine):
    """With log-target = "stderr", records in the journal have their priorities too."""
    machine.configure('model = "prefork"\nlog-target = "stderr"\n')
    machine.systemctl("start", "echod")
    since = machine.cursor()
    worker = machine.children()[0]
    machine.kill(worker, "KILL")
    until(lambda: [entry for entry in at_least(WARNING, machine.journal(since, _SYSTEMD_UNIT=SERVICE))
                   if entry["MESSAGE"].startswith(f"echod: warning: Worker process {worker} ")], "the warning")


def test_nothing_lost_before_the_journal_is_open(machine):
    """The first message of the daemon is in the journal, with its fields."""
    since = machine.cursor()
    machine.systemctl("start", "echod")
    pid = str(machine.main_pid())
    first = next(entry for entry in machine.journal(since, _SYSTEMD_UNIT=SERVICE) if entry["_PID"] == pid)
    assert first["MESSAGE_ID"] == EVENTS["STARTED"] and first["_TRANSPORT"] == "journal"
