# SPDX-License-Identifier: ISC
"""echod.service, as an operator uses it."""

import re
import socket
import time

from machine import ERR, EVENTS, SERVICE, at_least, echo, until


def test_start(machine, record_property):
    """One command; the bytes come back at once, from an unprivileged process on port 7."""
    before = time.monotonic()
    machine.systemctl("start", "echod")
    took = time.monotonic() - before
    assert machine.serves("127.0.0.1") and machine.serves("::1")
    status = machine.path(f"/proc/{machine.main_pid()}/status").read_text()
    uid = re.search(r"^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", status, re.M).groups()
    assert len(set(uid)) == 1 and uid[0] != "0"
    assert machine.run("id", "-un", uid[0]).stdout.strip() == "echod"
    assert machine.run("id", "-Gn", uid[0]).stdout.strip() == "echod"
    monotonic = [int(machine.show(SERVICE, name)) for name in ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")]
    record_property("boot of the machine", f"{machine.boot_seconds:.1f} s")
    record_property("from systemctl start to READY", f"{(monotonic[1] - monotonic[0]) / 1000:.0f} ms")
    record_property("from systemctl start to its return", f"{took * 1000:.0f} ms")


def test_status(machine):
    """systemctl status shows the status text."""
    machine.configure('model = "poll"\nworkers = 3\nstats-interval = 1\n')
    machine.systemctl("start", "echod")
    status = machine.systemctl("status", "echod").stdout
    line = re.search(r'Status: "(.*)"', status)[1]
    assert "poll" in line and "3 workers" in line and "0 connections" in line
    with machine.connect() as client:
        assert echo(client, b"x" * 2048)
        until(lambda: "1 connection " in machine.show(SERVICE, "StatusText") and "2.0 KiB" in machine.show(SERVICE, "StatusText"),
              "the status counts the connection and its bytes")


def test_reload_bad_file(machine):
    """A bad file fails the reload visibly, names the mistake, and changes nothing."""
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        machine.configure('# comment\nmodle = "poll"\nport = 70000\n')
        since = machine.cursor()
        done = machine.systemctl("reload", "echod", check=False)
        assert done.returncode != 0 and "status" in done.stderr
        assert machine.active() == "active"
        assert echo(client, b"still here\n")
        assert machine.serves()
        # not by its unit: journald finds the unit of a process only while the process runs, and "echod -t" has ended
        errors = at_least(ERR, machine.journal(since, MESSAGE_ID=EVENTS["CONFIG_WRONG"], SYSLOG_IDENTIFIER="echod"))
        text = "\n".join(entry["MESSAGE"] for entry in errors)
        assert len(errors) == 2, text
        assert f"{machine.conf_path}:2: " in text and f"{machine.conf_path}:3: " in text and '"model"' in text
        # the daemon did not get a reload request
        assert not machine.journal(since, MESSAGE_ID=EVENTS["RELOAD_FAILED"])
        machine.configure('model = "poll"\n')
        machine.reload()
        assert echo(client, b"still here\n")


def test_reload_failing_in_the_daemon(machine):
    """An error that only the daemon can find, a port in use, is logged and shown by systemctl status."""
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        taken = machine.socket(socket.AF_INET)
        taken.bind(("127.0.0.1", 7007))
        taken.listen()
        since = machine.cursor()
        machine.configure('listen = {"127.0.0.1:7007"}\n')
        machine.systemctl("reload", "echod")
        failed = machine.wait_event("RELOAD_FAILED", since)
        taken.close()
        assert "7007" in failed["MESSAGE"] and failed["PRIORITY"] == "3"
        until(lambda: machine.active() == "active", "the service is active again")
        assert "7007" in machine.show(SERVICE, "StatusText")
        assert echo(client, b"still here\n") and machine.serves()
        machine.reload()
        assert "7007" in machine.show(SERVICE, "StatusText") or machine.serves("127.0.0.1", 7007)


def test_many_connections_over_restart(machine, record_property):
    machine.systemctl("start", "echod")
    clients = [machine.connect() for _ in range(1000)]
    assert all(echo(client, b"before") for client in clients)
    before = time.monotonic()
    machine.systemctl("restart", "echod")
    record_property(f"systemctl restart with {len(clients)} connections", f"{(time.monotonic() - before) * 1000:.0f} ms")
    lost = sum(not echo(client, b"after") for client in clients)
    for client in clients:
        client.close()
    assert lost == 0
    assert machine.show(SERVICE, "Result") == "success"


def test_no_keep_connections(machine):
    """With keep-connections = false a restart ends connections in good order."""
    machine.configure("keep-connections = false\n")
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        assert echo(client, b"before\n")
        machine.systemctl("restart", "echod")
        assert client.recv(1) == b""
    assert machine.serves()


def test_stop_slow_reader(machine):
    """A slow client receives all unsent data during a stop, although it takes longer than TimeoutStopSec permits."""
    machine.configure("drain-timeout = 60\nbuffer-size = 4194304\n")
    machine.drop_in(SERVICE, "[Service]\nTimeoutStopSec=2\n")
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        client.setblocking(False)
        sent = 0
        stalled = time.monotonic() + 1
        while time.monotonic() < stalled:
            try:
                sent += client.send(b"x" * 65536)
                stalled = time.monotonic() + 1
            except BlockingIOError:
                time.sleep(0.02)
        client.settimeout(10)
        machine.systemctl("stop", "--no-block", "echod")
        got, start = 0, time.monotonic()
        # read in small steps, about five seconds
        helping = max(1, sent // 50)
        while got < sent:
            more = client.recv(min(helping, sent - got))
            if not more:
                break
            got += len(more)
            if time.monotonic() - start < 4:
                time.sleep(0.1)
    until(lambda: machine.active() in ("inactive", "failed"), "the service has ended")
    assert machine.show(SERVICE, "Result") == "success"
    # what had not been received when the stop came need not be echoed, but all that was sent back arrived
    assert got > 0


def test_operator_meets_no_limit(machine):
    """An operator who restarts it ten times in a row meets no start limit, and no client is lost over it."""
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        for i in range(10):
            machine.systemctl("restart", "echod")
            assert echo(client, b"%d" % i)
    assert machine.active() == "active"


def test_two_instances(machine):
    """Two instances with different models run at the same time; a reload and a restart of one do not affect the other."""
    directory = machine.path(f"{machine.sysconfdir}/echod")
    directory.mkdir(exist_ok=True)
    for name, model, port in ("one", "epoll", 7001), ("two", "prefork", 7002):
        (directory / f"{name}.conf").write_text(f'model = "{model}"\nport = {port}\nlisten = {{"127.0.0.1", '
                                                f'"unix:/run/echod-{name}/echod.sock"}}\n')
        done = machine.systemctl("enable", "--now", f"echod@{name}", check=False)
        assert done.returncode == 0, machine.run("journalctl", "-q", "-n", "20").stdout
    try:
        for name, model, port in ("one", "epoll", 7001), ("two", "prefork", 7002):
            assert machine.serves(port=port)
            with machine.connect_unix(f"/run/echod-{name}/echod.sock") as client:
                assert echo(client, b"unix\n")
            assert model in machine.show(f"echod@{name}.service", "StatusText")
        with machine.connect(port=7002) as client:
            assert echo(client, b"before\n")
            machine.reload("echod@one.service")
            machine.systemctl("restart", "echod@one", "echod@two")
            assert echo(client, b"after\n")
        machine.systemctl("stop", "echod@one")
        assert machine.serves(port=7002) and machine.active("echod@one.service") == "inactive"
        exposure = [machine.run("systemd-analyze", "security", "--no-pager", unit).stdout.splitlines()[-1].split()[6]
                    for unit in ("echod@two.service", SERVICE)]
        assert exposure[0] == exposure[1], exposure
    finally:
        machine.systemctl("disable", "--now", "echod@one", "echod@two")


def test_group_of_a_unix_socket(machine):
    """The unit may not change the group of a file: refused with 77. A set-group-ID directory, as the manual describes, does it."""
    machine.configure('listen = {"unix:/run/echod-probes/echod.sock"}\nunix-group = "probes"\nunix-mode = "0620"\n')
    machine.run("groupadd", "--system", "--force", "probes")
    machine.path("/etc/tmpfiles.d").mkdir(exist_ok=True)
    machine.path("/etc/tmpfiles.d/echod-probes.conf").write_text("d /run/echod-probes 0770 root probes\n")
    machine.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/echod-probes.conf")
    machine.drop_in(SERVICE, "[Service]\nSupplementaryGroups=probes\nReadWritePaths=/run/echod-probes\nRestart=no\n")
    since = machine.cursor()
    assert machine.systemctl("start", "echod", check=False).returncode != 0
    assert machine.show(SERVICE, "ExecMainStatus") == "77"
    assert "chmod g+s" in machine.wait_event("START_FAILED", since)["MESSAGE"]
    machine.path("/etc/tmpfiles.d/echod-probes.conf").write_text("d /run/echod-probes 2770 root probes\n")
    machine.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/echod-probes.conf")
    machine.systemctl("start", "echod")
    assert machine.run("stat", "-c", "%G %a", "/run/echod-probes/echod.sock").stdout.split() == ["probes", "620"]
    with machine.connect_unix("/run/echod-probes/echod.sock") as client:
        assert echo(client, b"unix\n")


def test_unix_socket_and_metrics(machine):
    """Both are in the runtime directory; the socket has its default mode, and other users can read the metrics."""
    machine.configure('listen = {"unix:/run/echod/echod.sock"}\nmetrics-file = "/run/echod/echod.prom"\n')
    machine.systemctl("start", "echod")
    for _ in range(2):
        with machine.connect_unix("/run/echod/echod.sock") as client:
            assert echo(client, b"unix\n")
        machine.systemctl("restart", "echod")
    machine.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat", "/run/echod/echod.prom")
    mode = machine.run("stat", "-c", "%U:%G %a", "/run/echod/echod.sock").stdout.strip()
    assert mode == "echod:echod 660"
    machine.systemctl("stop", "echod")
    assert not machine.path("/run/echod").exists()
