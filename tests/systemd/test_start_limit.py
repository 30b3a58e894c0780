# SPDX-License-Identifier: ISC
"""How often systemd starts the service again. In a file of its own, so that its pauses pass beside the other tests."""

import re

import pytest

from machine import SERVICE, until


def test_crash_loop_meets_limit(machine):
    """systemd stops restarting a daemon that ends at once each time."""
    machine.drop_in(SERVICE, "[Service]\nType=exec\nExecStart=\nExecStart=/bin/sh -c 'exit 1'\n")
    since = machine.cursor()
    machine.systemctl("start", "echod", check=False)
    machine.wait_journal(since, MESSAGE="echod.service: Start request repeated too quickly.")
    until(lambda: machine.active() == "failed", "the service has failed")
    assert int(machine.show(SERVICE, "NRestarts")) >= 5


@pytest.mark.timeout(180)
def test_interface_that_comes_late(machine):
    """The service is started again until the interface exists, however long that takes, and no start limit ends it."""
    machine.configure('listen = {"fe80::7%late0", "127.0.0.1"}\n')
    machine.systemctl("start", "echod", check=False, timeout=60)
    starts = [int(machine.show(SERVICE, "ExecMainStartTimestampMonotonic"))]
    for _ in range(2):
        until(lambda: int(machine.show(SERVICE, "ExecMainStartTimestampMonotonic")) not in (0, starts[-1]), "another start")
        starts.append(int(machine.show(SERVICE, "ExecMainStartTimestampMonotonic")))
    limit = machine.run("systemctl", "show", SERVICE, "-p", "StartLimitBurst,StartLimitIntervalUSec").stdout
    burst, interval = (re.search(rf"{name}=(\d+)", limit) for name in ("StartLimitBurst", "StartLimitIntervalUSec"))
    minutes = re.search(r"StartLimitIntervalUSec=(?:(\d+)min)? ?(?:(\d+)s)?$", limit, re.M)
    interval = int(minutes[1] or 0) * 60 + int(minutes[2] or 0)
    assert int(burst[1]) * min(b - a for a, b in zip(starts, starts[1:])) / 1e6 > 1.3 * interval
    since = machine.cursor()
    machine.run("ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
    machine.run("ip", "link", "set", "late0", "up")
    machine.run("ip", "address", "add", "fe80::7/64", "dev", "late0")
    try:
        machine.wait_event("READY", since)
        until(lambda: machine.active() == "active", "systemd has received the notification")
        assert machine.serves("127.0.0.1")
    finally:
        machine.run("ip", "link", "del", "late0")
