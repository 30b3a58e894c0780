# SPDX-License-Identifier: ISC
"""Connections through a proxy over systemctl restart: headers that have arrived in part, and peers named by complete headers."""

import socket
import struct

from test_restart import available
from machine import EVENTS, echo, receive

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER = SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 12 + 40) + socket.inet_aton("192.0.2.1") * 2 + \
    struct.pack(">HH", 4711, 7) + b"\x04\0\x25" + bytes(37)
CONF = 'model = "%s"\nproxy-protocol = {"127.0.0.1"}\nmax-per-source = 100\n'


def test_restart_in_the_middle_of_headers(machine):
    """A restart from each model to the next, while 0, 7, 14, ... bytes of a header have arrived. ECHOD_PROXY names the proxy."""
    models = available(machine)
    machine.configure(CONF % models[-1])
    machine.systemctl("start", "echod")
    for model in models:
        places = range(0, len(HEADER) + 1, 7)
        socks = [machine.connect() for _ in places]
        for sock, place in zip(socks, places):
            sock.sendall(HEADER[:place])
        named = machine.connect()
        named.sendall(HEADER + b"before")
        assert receive(named, 6) == b"before"
        since = machine.cursor()
        machine.configure(CONF % model)
        machine.systemctl("restart", "echod")
        assert echo(named, b"after")
        for sock, place in zip(socks, places):
            sock.sendall(HEADER[place:] + b"behind it")
            assert receive(sock, 9) == b"behind it", (model, place)
        for sock in [*socks, named]:
            sock.close()
        machine.wait_event("CONNECTION_ENDED", since, count=len(socks) + 1, ECHOD_PEER="192.0.2.1:4711")
        entries = machine.journal(since, MESSAGE_ID=EVENTS["CONNECTION_ENDED"])
        assert len(entries) == len(socks) + 1
        assert {(entry["ECHOD_PROXY"].split(":")[0], entry["ECHOD_REASON"]) for entry in entries} == {("127.0.0.1", "eof")}
        assert not machine.journal(since, MESSAGE_ID=EVENTS["STATE_DAMAGED"])


def test_reason_and_field(machine):
    machine.configure('proxy-protocol = {"127.0.0.1"}\ndeny = {"192.0.2.0/24"}\n')
    machine.systemctl("start", "echod")
    since = machine.cursor()
    with machine.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert receive(client, 1) == b""
    assert machine.wait_event("CONNECTION_ENDED", since, ECHOD_REASON="proxy")["ECHOD_PROXY"].startswith("127.0.0.1:")
    with machine.connect() as client:
        client.sendall(HEADER)
        assert receive(client, 1) == b""
    refused = machine.wait_event("CONNECTION_REFUSED", since, ECHOD_REASON="denied")
    assert refused["ECHOD_PEER"] == "192.0.2.1:4711" and refused["ECHOD_PROXY"].startswith("127.0.0.1:")


def test_field_of_refusals_and_debug_lines(machine):
    """ECHOD_PROXY is in the refusal that the parent process of model process logs, and in each debug line of a connection
    that sent a header only."""
    machine.configure('model = "process"\nlog-level = "debug"\nproxy-protocol = {"127.0.0.1"}\nmax-per-source = 1\n')
    machine.systemctl("start", "echod")
    since = machine.cursor()
    with machine.connect() as first:
        first.sendall(HEADER + b"first")
        assert receive(first, 5) == b"first"
        with machine.connect() as second:
            second.sendall(HEADER)
            assert receive(second, 1) == b""
        refused = machine.wait_event("CONNECTION_REFUSED", since, ECHOD_REASON="limit")
    assert refused["ECHOD_PEER"] == "192.0.2.1:4711" and refused["ECHOD_PROXY"].startswith("127.0.0.1:")
    machine.wait_event("CONNECTION_ENDED", since, ECHOD_PEER="192.0.2.1:4711")
    since = machine.cursor()
    with machine.connect() as probe:
        probe.sendall(HEADER)
        probe.shutdown(socket.SHUT_WR)
        assert receive(probe, 1) == b""
    machine.wait_event("CONNECTION_ENDED", since, ECHOD_PEER="192.0.2.1:4711")
    ids = {EVENTS[name] for name in ("CONNECTION_ACCEPTED", "CONNECTION_SENT", "CONNECTION_ENDED")}
    lines = [entry for entry in machine.journal(since) if entry.get("MESSAGE_ID") in ids]
    assert {entry["MESSAGE_ID"] for entry in lines} == ids
    for entry in lines:
        assert entry["PRIORITY"] == "7" and entry["ECHOD_PROXY"].startswith("127.0.0.1:"), entry
