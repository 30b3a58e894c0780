"""echod.service as an operator meets it."""

import re
import time

import pytest

from machine import EVENTS, SERVICE, echo, receive, until


def test_start(machine):
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
    print(f"from systemctl start to its return {took * 1000:.0f} ms, to READY {(monotonic[1] - monotonic[0]) / 1000:.0f} ms")
    assert took < 5


def test_status(machine):
    """systemctl status says in words what is going on."""
    machine.configure('model = "poll"\nworkers = 3\nstats-interval = 1\n')
    machine.systemctl("start", "echod")
    status = machine.systemctl("status", "echod").stdout
    line = re.search(r'Status: "(.*)"', status)[1]
    assert "poll" in line and "3 workers" in line and "0 connections" in line
    with machine.connect() as client:
        assert echo(client, b"x" * 2048)
        until(lambda: "1 connection " in machine.show(SERVICE, "StatusText") and "2.0 KiB" in machine.show(SERVICE, "StatusText"),
              "the status counts the connection and its bytes")


def test_every_model(machine, model):
    """Each model works with all the restrictions of the unit, from the start."""
    machine.configure(f'model = "{model}"\n')
    machine.systemctl("start", "echod")
    assert model in machine.show(SERVICE, "StatusText")
    with machine.connect() as client:
        for length in (1, 100, 60000):
            assert echo(client, b"abcdefgh" * length)
    machine.systemctl("stop", "echod")
    assert machine.show(SERVICE, "Result") == "success"
    assert not machine.journal("-u", "echod", "-p", "warning", f"_SYSTEMD_INVOCATION_ID={machine.show(SERVICE, 'InvocationID')}")


def test_reload_switches_model(machine, model):
    """Edit the file, reload: the model is another one, and a client noticed nothing."""
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
        text = "\n".join(entry["MESSAGE"] for entry in machine.journal("-u", "echod", since=since))
        assert f"{machine.conf_path}:2: " in text and f"{machine.conf_path}:3: " in text and '"model"' in text
        # the daemon was not even asked
        assert not machine.journal(f"MESSAGE_ID={EVENTS['RELOAD_FAILED']}", since=since)
        machine.configure('model = "poll"\n')
        machine.reload()
        assert echo(client, b"still here\n")


def test_reload_failing_in_the_daemon(machine):
    """What only the daemon can find out, a port that is taken, is logged and shown by systemctl status."""
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        taken = machine.socket(2)
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


def test_restart_keeps_connections(machine, model):
    """A connection, and the order of its bytes, survive systemctl restart."""
    machine.configure(f'model = "{model}"\n')
    machine.systemctl("start", "echod")
    pid = machine.main_pid()
    with machine.connect() as client:
        assert echo(client, b"before\n")
        machine.systemctl("restart", "echod")
        assert machine.main_pid() != pid
        assert echo(client, b"after\n")
        assert machine.serves() or model == "iterative"


def test_many_connections_over_restart(machine):
    machine.systemctl("start", "echod")
    clients = [machine.connect() for _ in range(1000)]
    assert all(echo(client, b"before") for client in clients)
    before = time.monotonic()
    machine.systemctl("restart", "echod")
    print(f"restart with {len(clients)} connections: {(time.monotonic() - before) * 1000:.0f} ms")
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


def test_stop(machine, model):
    """A stop sends what is owed, ends idle connections, and leaves nothing."""
    machine.configure(f'model = "{model}"\n')
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        assert echo(client, b"bytes")
        before = time.monotonic()
        machine.systemctl("stop", "echod")
        assert time.monotonic() - before < 5
        assert client.recv(1) == b""
    assert machine.show(SERVICE, "Result") == "success" and machine.show(SERVICE, "ExecMainStatus") == "0"
    with pytest.raises(ConnectionRefusedError):
        machine.connect()
    assert not machine.path("/run/echod").exists()


def test_stop_slow_reader(machine):
    """A client that takes what it is owed only slowly gets all of it, for longer than TimeoutStopSec would allow."""
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
        # about as much as goes in five seconds, in small helpings
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


def test_crash(machine, model):
    """kill -9 of the supervisor: systemd starts it again, and no new client is refused meanwhile."""
    machine.configure(f'model = "{model}"\n')
    machine.systemctl("start", "echod")
    since = machine.cursor()
    workers = machine.children()
    assert workers
    machine.kill(machine.main_pid(), "KILL")
    with machine.connect() as client:  # waits in the backlog of the socket that systemd keeps
        machine.wait_event("READY", since)
        assert echo(client, b"first\n")
    assert machine.active() == "active" and machine.show(SERVICE, "NRestarts") == "1"
    for pid in workers:
        assert not machine.path(f"/proc/{pid}").exists()


def test_worker_crash(machine, model):
    """kill -9 of a worker process: told, replaced, and the service was never away."""
    machine.configure(f'model = "{model}"\nworkers = 1\n')
    machine.systemctl("start", "echod")
    pid = machine.main_pid()
    since = machine.cursor()
    for worker in machine.children():
        machine.kill(worker, "KILL")
    machine.wait_event("WORKER_DIED", since)
    assert machine.serves()
    assert machine.main_pid() == pid and machine.active() == "active"


def test_crash_loop_meets_limit(machine):
    """A daemon that dies at once each time is given up after a while ..."""
    machine.drop_in(SERVICE, "[Service]\nType=exec\nExecStart=\nExecStart=/bin/sh -c 'exit 1'\n")
    since = machine.cursor()
    machine.systemctl("start", "echod", check=False)
    machine.wait_failed("start-limit-hit", since, seconds=40)
    assert int(machine.show(SERVICE, "NRestarts")) >= 5


def test_operator_meets_no_limit(machine):
    """... but an operator who restarts ten times in a row is not, and no client is lost over it."""
    machine.systemctl("start", "echod")
    with machine.connect() as client:
        for i in range(10):
            machine.systemctl("restart", "echod")
            assert echo(client, b"%d" % i)
    assert machine.active() == "active"


@pytest.mark.parametrize("status, conf, dropin", [
    (78, 'model = "epol"\n', None),
    (64, "", "--workers=many"),
    (66, "", "-c /no/such/file"),
])
def test_not_restarted(machine, status, conf, dropin):
    """What another start would not cure is not tried again."""
    machine.configure(conf)
    if dropin:
        machine.drop_in(SERVICE, f"[Service]\nExecStart=\nExecStart={machine.echod} -n {dropin}\n")
    since = machine.cursor()
    assert machine.systemctl("start", "echod", check=False).returncode != 0
    machine.wait_failed("exit-code", since)
    assert machine.active() == "failed"
    assert machine.show(SERVICE, "ExecMainStatus") == str(status)
    assert machine.show(SERVICE, "NRestarts") == "0"
    if status == 78:
        entries = machine.journal("-u", "echod", "-p", "err", "SYSLOG_IDENTIFIER=echod", since=since)
        assert f"{machine.conf_path}:1: " in entries[0]["MESSAGE"] and '"epoll"' in entries[0]["MESSAGE"]


def test_port_taken(machine):
    """Somebody else has the port: the reason is in the journal, and systemd tries again."""
    taken = machine.socket(10)
    taken.bind(("::", 7))
    taken.listen()
    since = machine.cursor()
    assert machine.systemctl("start", "echod", check=False).returncode != 0
    failed = machine.wait_event("START_FAILED", since)
    assert "in use" in failed["MESSAGE"] and failed["PRIORITY"] == "3"
    taken.close()
    machine.wait_event("READY", since)
    assert machine.serves()


def test_watchdog(machine, model):
    """A worker process that hangs (SIGSTOP) starves the watchdog, and systemd starts the service anew."""
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


def test_unix_socket_and_metrics(machine):
    """The runtime directory is for both, and others can reach them."""
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
