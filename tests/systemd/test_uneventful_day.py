# SPDX-License-Identifier: ISC
"""Operation without errors. In a separate file, so that it runs in parallel with the other tests."""

import re
import socket

from machine import EVENTS, SERVICE, WARNING, at_least


def visits(count):
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", 7), 30) as client:
            client.sendall(b"ping")
            assert client.recv(4) == b"ping"


def test_uneventful_day(machine, model):
    """Start, 10,000 connections, two reloads, stop: no message at warning or above, and no byte lost."""
    machine.configure(f'model = "{model}"\n')
    since = machine.cursor()
    machine.systemctl("start", "echod")
    for part in range(2):
        machine.sockets.submit(visits, 5000).result()  # the thread that makes the sockets of the machine
        machine.reload()
    machine.systemctl("stop", "echod")
    entries = machine.journal(since)
    assert not [(entry["PRIORITY"], entry["MESSAGE"]) for entry in at_least(WARNING, entries)
                # of systemd 262 where the machine has no cgroup controller for it
                if not entry["MESSAGE"].endswith("ignoring: No data available")]
    ended = [entry for entry in entries if entry.get("MESSAGE_ID") == EVENTS["CONNECTION_ENDED"]]
    left_out = sum(int(re.search(r"\d+", entry["MESSAGE"])[0]) for entry in entries
                   if entry.get("MESSAGE_ID") == EVENTS["LINES_SUPPRESSED"])
    assert len(ended) + left_out == 10000
    assert all(entry["ECHOD_REASON"] == "eof" and entry["ECHOD_BYTES"] == "4" for entry in ended)
    assert machine.show(SERVICE, "Result") == "success"
