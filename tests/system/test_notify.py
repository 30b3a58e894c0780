# SPDX-License-Identifier: ISC
"""Notifications to the service manager, and the watchdog."""

import contextlib
import os
import pathlib
import signal
import socket
import time

import pytest

import echod
import failing
import metrics
import peer
import proc


def test_ready_means_that_it_accepts(start, model):
    daemon = start(model)
    daemon.visit()
    ready = daemon.notify.wait("READY=1")
    status = daemon.notify.wait("STATUS")["STATUS"]
    assert model in status, status
    assert ready.pid == daemon.pid
    assert not daemon.notify.all("MAINPID"), "MAINPID sent, although it did not fork"


def test_every_message_is_from_the_main_process(start, model):
    """Units with NotifyAccess=main drop all others."""
    daemon = start(model, env={"WATCHDOG_USEC": "300000"})
    with daemon.connect() as sock:
        peer.echo(sock, b"hello")
        daemon.notify.wait("WATCHDOG=1")
        daemon.hup()
    daemon.stop()
    assert {message.pid for message in daemon.notify.messages} == {daemon.pid}


def test_no_notify_socket(launch):
    """echod works without NOTIFY_SOCKET, as when it is started by hand."""
    daemon = launch(env={"NOTIFY_SOCKET": None})
    proc.until(lambda: not peer.refused(daemon.address), "a listener")
    daemon.visit()
    daemon.stop()


def test_broken_notify_socket(launch):
    """echod works when it cannot reach the service manager."""
    daemon = launch(env={"NOTIFY_SOCKET": "/nonexistent/notify"})
    proc.until(lambda: not peer.refused(daemon.address), "a listener")
    daemon.visit()
    daemon.stop()


def test_reload_is_sent_in_one_message_with_the_monotonic_time(start, model):
    daemon = start(model)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    reloading, ready = daemon.hup()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert before <= int(reloading["MONOTONIC_USEC"]) <= after
    assert "READY" not in reloading
    daemon.visit()


def test_failed_reload_is_in_the_status(start):
    daemon = start()
    good = daemon.notify.wait("STATUS")["STATUS"]
    daemon.config.write_text("port = 0\n")
    _, ready = daemon.hup()
    since = daemon.notify.messages.index(ready)
    bad = daemon.notify.wait("STATUS", since=since)["STATUS"]
    assert bad != good
    daemon.configure()
    _, ready = daemon.hup()
    since = daemon.notify.messages.index(ready)
    assert daemon.notify.wait("STATUS", since=since)["STATUS"] != bad, "the status still has the old failure"


def test_a_lost_worker_is_in_the_status(start, model):
    """STATUS= is sent at once, without a change of counters or the end of an interval; also for the process of one connection."""
    daemon = start(model, stats_interval=0)
    with daemon.connect() as sock:
        peer.echo(sock, b"hello")
        since = daemon.notify.mark()
        worker = proc.children(daemon.workers()[0])[0].pid if model == "process" else daemon.workers()[0]
        os.kill(worker, signal.SIGKILL)
        assert str(worker) in daemon.notify.wait("STATUS", since=since)["STATUS"].partition("last error: ")[2]
    since = daemon.notify.mark()
    daemon.hup()
    assert "last error" not in daemon.notify.wait("STATUS", "READY=1", since=since)["STATUS"]


def test_status_follows_the_model(start):
    daemon = start("poll")
    assert "poll" in daemon.notify.wait("STATUS")["STATUS"]
    _, ready = daemon.reload(model="thread")
    assert "thread" in daemon.notify.wait("STATUS", since=daemon.notify.messages.index(ready))["STATUS"]


def test_status_is_refreshed_with_the_counts(start, model):
    daemon = start(model, stats_interval=1)
    since = daemon.notify.mark()
    daemon.visit(b"x" * 777)
    proc.until(lambda: any("777" in message["STATUS"] for message in daemon.notify.all("STATUS", since)),
               "a new STATUS after a second")


def test_status_is_not_repeated_when_nothing_happened(start):
    daemon = start("epoll", stats_interval=1)
    daemon.visit()
    daemon.notify.wait("STATUS", since=1)
    since = daemon.notify.mark()
    time.sleep(2.5)  # two intervals without an event
    assert len(daemon.notify.all("STATUS", since)) <= 1, [m.text for m in daemon.notify.messages[since:]]


def test_stopping(start, model):
    daemon = start(model)
    since = daemon.notify.mark()
    daemon.stop()
    daemon.notify.wait("STOPPING=1", since=since)
    assert not daemon.notify.all("READY", since)


def quiet_since(daemon):
    """Wait for two consecutive intervals without progress; return the mark of the messages at the second one's begin.

    A worker that begins to drain can still send some bytes, which the supervisor notices up to an interval later.
    """
    def moved():
        return metrics.line(daemon), proc.unsent(daemon.port)

    before, quiet = moved(), 0
    for _ in range(20):
        since = daemon.notify.mark()
        time.sleep(1.2)  # longer than the supervisor's interval: if it asked without progress, a message would arrive
        now = moved()
        quiet = quiet + 1 if now == before else 0
        if quiet == 2:
            return since
        before = now
    raise AssertionError(f"bytes move although no client reads: {before}")


def test_the_supervisor_sleeps_while_it_drains(start, tmpdir):
    """It does not poll busily, also if a warning was logged shortly before the stop, which STATUS= cannot contain any more."""
    calls = failing.Failing(tmpdir, speed=4)
    daemon = start("epoll", stats_interval=0, drain_timeout=300, env=calls.env)
    sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    calls.fail("accept4", 1)
    daemon.connect().close()
    daemon.wait_log("Cannot accept connections")
    daemon.term()
    daemon.notify.wait("STOPPING=1")
    waits, since, read = calls.waits(), daemon.notify.mark(), bytearray(read)
    while len(daemon.notify.all("EXTEND_TIMEOUT_USEC", since)) < 3:  # one message in each interval of the supervisor
        read += peer.receive(sock, 4096)
        time.sleep(0.01)  # so that bytes are left for each interval
    waits = calls.waits() - waits
    assert waits < 1000, f"the daemon waited {waits} times"
    peer.same(read + peer.receive_all(sock), sent)
    sock.close()
    assert daemon.wait_exit() == daemon.expect


def test_stop_is_extended_while_it_drains(start, model):
    """Once bytes are sent, and not before, echod asks the manager to extend the time-out to the end of the drain."""
    daemon = start(model, drain_timeout=300)
    sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    daemon.term()
    stopping = daemon.notify.wait("STOPPING=1")
    since = quiet_since(daemon)
    assert not daemon.notify.all("EXTEND_TIMEOUT_USEC", since)
    read += peer.receive(sock, (len(sent) - len(read)) // 2)
    message = daemon.notify.wait("EXTEND_TIMEOUT_USEC", since=since)
    end = message.time + int(message["EXTEND_TIMEOUT_USEC"]) / 1e6
    assert stopping.time + 300 < end < stopping.time + 306
    peer.same(read + peer.receive_all(sock), sent)
    sock.close()
    assert daemon.wait_exit() == 0


# Watchdog

def fed(daemon, times, since):
    return len(daemon.notify.all("WATCHDOG", since)) >= times


def test_watchdog_is_fed(start, model):
    """WATCHDOG=1 is sent also while all workers are idle, and while a worker serves a silent client."""
    daemon = start(model, env={"WATCHDOG_USEC": "400000"})
    since = daemon.notify.mark()
    proc.until(lambda: fed(daemon, 3, since), "WATCHDOG=1 three times")
    with daemon.connect() as sock:
        peer.echo(sock, b"hello")
        since = daemon.notify.mark()
        proc.until(lambda: fed(daemon, 3, since), "WATCHDOG=1 with a silent client")
    gaps = [b.time - a.time for a, b in zip(daemon.notify.all("WATCHDOG"), daemon.notify.all("WATCHDOG")[1:])]
    assert max(gaps) < 2, gaps


def test_watchdog_with_a_client_that_never_reads(start, model):
    """A worker that waits to send must not be reported as hanging."""
    daemon = start(model, env={"WATCHDOG_USEC": "400000"})
    with daemon.connect(rcvbuf=16384, sndbuf=peer.FILL_SNDBUF) as sock:
        peer.fill_path(sock)
        since = daemon.notify.mark()
        proc.until(lambda: fed(daemon, 4, since), "WATCHDOG=1 four times")


@pytest.mark.models("process", "thread")
def test_watchdog_while_clients_come(start, model):
    """A new process or thread for a connection must not be taken as hanging because it has no heartbeat yet."""
    daemon = start(model, env={"WATCHDOG_USEC": "3000000"})
    since = daemon.notify.mark()
    end = time.monotonic() + 2 * proc.LIMIT
    while not fed(daemon, 4, since):  # the time of three intervals, unless a message is missing
        assert time.monotonic() < end, "WATCHDOG=1 is missing"
        with daemon.connect() as sock:
            peer.echo(sock, b"hello")
            time.sleep(0.02)  # most of the time there is a new connection
    times = [message.time for message in daemon.notify.all("WATCHDOG", since)]
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    assert max(gaps) < 2.9, gaps


def test_watchdog_is_off_by_default(start):
    daemon = start("epoll")
    daemon.visit()
    daemon.hup()
    assert not daemon.notify.all("WATCHDOG")


def test_watchdog_starves_when_a_worker_is_stopped(start, model):
    """One stopped worker ends the WATCHDOG=1 messages; they resume when the worker continues."""
    daemon = start(model, env={"WATCHDOG_USEC": "400000"})
    since = daemon.notify.mark()
    proc.until(lambda: fed(daemon, 2, since), "WATCHDOG=1")
    worker = daemon.workers()[-1]
    os.kill(worker, signal.SIGSTOP)
    try:
        proc.until(lambda: time.monotonic() - daemon.notify.all("WATCHDOG")[-1].time > 1.2,
                   "three missing WATCHDOG=1")
    finally:
        os.kill(worker, signal.SIGCONT)
    since = daemon.notify.mark()
    proc.until(lambda: fed(daemon, 2, since), "WATCHDOG=1 again")
    daemon.visit()


@pytest.mark.models("thread", "prethread", "select", "poll", "epoll", "io_uring")
@pytest.mark.parametrize("hung", [0, 1], ids=["first", "second"])
def test_watchdog_starves_when_a_thread_hangs(start, model, hung, tmp_path):
    """A fault point makes one thread hang while the others run."""
    if "fault points" not in echod.run("-V").stdout:
        pytest.skip("echod was built without fault points (configure --enable-debug-faults)")
    daemon = start(model, workers=2, drain_timeout=1,
                   env={"WATCHDOG_USEC": "400000", "ECHOD_FAULT_HANG": str(tmp_path)})
    with daemon.connect() as sock:  # in the model thread, the second worker is the one that serves it
        peer.echo(sock, b"hello")
        since = daemon.notify.mark()
        proc.until(lambda: fed(daemon, 2, since), "WATCHDOG=1")
        (tmp_path / str(hung)).touch()
        proc.until(lambda: not (tmp_path / str(hung)).exists(), "the thread to hang")
        proc.until(lambda: time.monotonic() - daemon.notify.all("WATCHDOG")[-1].time > 1.2, "three missing WATCHDOG=1")


def test_watchdog_over_a_reload(start):
    """WATCHDOG=1 continues after each reload, whether the old crew has ended or still serves."""
    daemon = start("epoll", env={"WATCHDOG_USEC": "400000"})
    with daemon.connect() as sock:
        peer.echo(sock, b"hello")
        for model in "thread", "process", "prefork", "epoll":
            daemon.reload(model=model)
            since = daemon.notify.mark()
            proc.until(lambda: fed(daemon, 3, since), f"WATCHDOG=1 in {model}")
        peer.echo(sock, b"still here")


def test_a_manager_that_does_not_read(launch, tmpdir):
    """echod does not block, and the manager receives the state once it reads again."""
    address = f"{tmpdir}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        daemon = launch("epoll", env={"NOTIFY_SOCKET": address}, log_level="debug")
        proc.until(lambda: not peer.refused(daemon.address), "a listener")
        daemon.wait_log("Ready")
        queue = int(pathlib.Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1
        for _ in range(queue):  # each reload sends two messages
            since = len(daemon.log())
            daemon.signal(signal.SIGHUP)
            daemon.wait_log("Reloaded", since)
        daemon.visit()
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                manager.recv(65536)
        manager.settimeout(proc.LIMIT)
        while b"READY=1" not in manager.recv(65536):
            pass
        daemon.term()
        assert daemon.wait_exit() == 0
