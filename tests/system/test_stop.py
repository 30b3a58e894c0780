# SPDX-License-Identifier: ISC
"""SIGTERM and SIGINT: unsent data is sent, idle clients do not delay the stop, and no process or file remains."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import echod
import peer
import proc

AT_ONCE = 30  # seconds: less than a drain-timeout of 60, which must not be waited for, and enough on a busy machine


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_without_connections(start, model, number):
    daemon = start(model, drain_timeout=60)
    daemon.visit()
    daemon.signal(number)
    assert daemon.wait_exit(AT_ONCE) == 0
    assert not proc.tagged(daemon.tag)
    daemon.notify.wait("STOPPING=1")


def test_unsent_data_is_sent(start, model):
    """A slow reader receives all bytes that had reached the server, and then the end of file."""
    daemon = start(model, drain_timeout=30)
    sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    daemon.term()
    daemon.notify.wait("STOPPING=1")
    rest = peer.receive_all(sock, pause=0.001, step=65536)
    peer.same(read + rest, sent)
    sock.close()
    assert daemon.wait_exit() == 0
    assert not proc.tagged(daemon.tag)


def test_half_closed_client_gets_the_rest(start, model):
    daemon = start(model, drain_timeout=30)
    sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    sock.shutdown(1)
    daemon.term()
    daemon.notify.wait("STOPPING=1")
    peer.same(read + peer.receive_all(sock, pause=0.001, step=65536), sent)
    sock.close()
    assert daemon.wait_exit() == 0


def test_idle_connections_do_not_delay_it(start, model):
    daemon = start(model, drain_timeout=60)
    count = {"iterative": 1, "prefork": 4, "prethread": 4}.get(model, 30)
    crowd = [daemon.connect() for _ in range(count)]
    for sock in crowd:
        peer.echo(sock, b"hello")
    endpoints = [peer.endpoint(sock) for sock in crowd]
    daemon.stop(AT_ONCE)
    for sock in crowd:
        assert sock.recv(1) == b"", "an idle connection ends with FIN"
        sock.close()
    for endpoint in endpoints[:5]:
        daemon.connection_line(endpoint, "drain")


def test_a_client_in_the_backlog_does_not_delay_it(start):
    """The client was never accepted; its connection ends with the service."""
    daemon = start("iterative", drain_timeout=60)
    first, waiting = daemon.connect(), daemon.connect()
    peer.echo(first, b"hello")
    waiting.sendall(b"hello?")
    daemon.stop(AT_ONCE)
    assert peer.ended(waiting)


def test_busy_streams_are_ended_in_time(start, model):
    """A client that sends continuously cannot prevent the stop."""
    daemon = start(model, drain_timeout=2)
    count = 1 if model == "iterative" else 3
    streams = [peer.Stream(daemon.address) for _ in range(count)]
    for stream in streams:
        stream.progress()
    daemon.term()
    assert daemon.wait_exit(AT_ONCE) == 0
    for stream in streams:
        stream.abandon()


def test_drain_timeout_ends_connection_that_is_not_read(start, model):
    daemon = start(model, drain_timeout=1)
    sock, _, _ = peer.connect_with_unsent_data(daemon.address)
    began = time.monotonic()
    daemon.term()
    assert daemon.wait_exit(AT_ONCE) == 0
    took = time.monotonic() - began
    assert 0.8 < took, f"{took} s instead of 1 s"
    assert not proc.tagged(daemon.tag)
    assert "Cut off 1 connection at the end of drain-timeout" in daemon.log()
    sock.close()


def test_drain_timeout_zero_ends_at_once(start):
    daemon = start("epoll", drain_timeout=0)
    sock, _, _ = peer.connect_with_unsent_data(daemon.address)
    daemon.stop(AT_ONCE)
    sock.close()


def test_no_client_is_accepted_while_it_drains(start, model):
    daemon = start(model, drain_timeout=30)
    sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    daemon.term()
    daemon.notify.wait("STOPPING=1")
    proc.until(lambda: peer.refused(daemon.address), "the end of the listener")
    peer.same(read + peer.receive_all(sock), sent)
    sock.close()
    assert daemon.wait_exit() == 0


def test_second_sigterm_ends_it_at_once(start, model):
    """The second signal arrives a second or more after the first."""
    daemon = start(model, drain_timeout=60)
    sock, _, _ = peer.connect_with_unsent_data(daemon.address)
    daemon.term()
    daemon.notify.wait("STOPPING=1")
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.popen.wait(1.5)  # it drains
    daemon.term()
    daemon.wait_exit(AT_ONCE)
    proc.until(lambda: not proc.tagged(daemon.tag), "no process left")
    sock.close()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_two_signals_for_one_stop(start, model, second):
    """timeout(1) signals its child and then its process group, npm sends each signal twice: the drain continues."""
    daemon = start(model, drain_timeout=30)
    sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    daemon.term()
    daemon.notify.wait("STOPPING=1")  # wait until the signal was read, so that the next one is not merged with it
    os.killpg(daemon.pid, second)
    daemon.signal(second)
    peer.same(read + peer.receive_all(sock), sent)
    sock.close()
    assert daemon.wait_exit() == 0


def test_hup_while_it_drains_is_harmless(start):
    daemon = start("epoll", drain_timeout=30)
    sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    daemon.term()
    daemon.notify.wait("STOPPING=1")
    daemon.signal(signal.SIGHUP)
    daemon.signal(signal.SIGUSR1)
    peer.same(read + peer.receive_all(sock), sent)
    sock.close()
    assert daemon.wait_exit() == 0


def test_stop_with_old_crews_that_still_serve(start, model):
    """After reloads, the stop ends all crews at the same time."""
    daemon = start(model, drain_timeout=60)
    socks = []
    for _ in range(3):
        sock = daemon.connect()
        if model != "iterative" or not socks:
            peer.echo(sock, b"hello")
        socks.append(sock)
        daemon.hup()
    daemon.stop(AT_ONCE)
    for sock in socks:
        assert peer.ended(sock)
        sock.close()


@pytest.mark.models("process", "prefork")
def test_stop_while_an_old_crew_hands_over(start, visible, model):
    """An old crew that waits for space in the queue sends heartbeats, and the stop ends it in time."""
    wrap = ["prlimit", "--nofile=64:64"]  # about the limit of descriptors in the queue
    if os.geteuid() == 0:
        wrap += echod.as_nobody()
    daemon = start(model, program=visible, wrap=wrap, workers=100, max_connections=100, drain_timeout=60, pidfile="",
                   env={"WATCHDOG_USEC": "400000"})
    crowd = [daemon.connect() for _ in range(100)]
    for sock in crowd:
        peer.echo(sock, b"hello")
    daemon.reload(model="iterative", drain_timeout=1)  # it serves one of them; the queue has no space for all others
    since = daemon.notify.mark()
    proc.until(lambda: len(daemon.notify.all("WATCHDOG", since)) >= 3, "WATCHDOG=1 three times")
    daemon.stop(AT_ONCE)
    for sock in crowd:
        assert peer.ended(sock)
        sock.close()


@pytest.mark.models("process", "thread", "select", "poll", "epoll", "io_uring")
def test_stop_while_connections_are_between_two_crews(start, model):
    """Connections in the queue, which no new worker has taken over yet, are echoed before the end."""
    daemon = start(model, drain_timeout=30)
    crowd = [daemon.connect() for _ in range(40)]
    for sock in crowd:
        peer.echo(sock, b"hello")
    old = [stat.pid for stat in daemon.tree() if stat.pid != daemon.pid]
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    daemon.hup()
    new = [pid for pid in daemon.workers() if pid not in old]
    for pid in new:
        os.kill(pid, signal.SIGSTOP)
    for pid in old:
        os.kill(pid, signal.SIGCONT)
    proc.until(lambda: not {stat.pid for stat in daemon.tree()} & set(old), "the old crew's end")
    for sock in crowd:
        sock.sendall(b"and this?")
    daemon.term()
    daemon.notify.wait("STOPPING=1")
    for pid in new:
        os.kill(pid, signal.SIGCONT)
    for sock in crowd:
        assert peer.receive_all(sock) == b"and this?"
        sock.close()
    assert daemon.wait_exit() == 0


def test_sigterm_before_ready(launch, model):
    """A signal early in the start ends the daemon without a crash, and no process remains."""
    daemon = launch(model)
    proc.until(lambda: proc.status(daemon.pid).get("SigCgt") and daemon.popen.poll() is None, "a process")
    daemon.term()
    status = daemon.wait_exit()
    assert status in (0, -signal.SIGTERM)
    daemon.expect = status
    proc.until(lambda: not proc.tagged(daemon.tag), "no process left")


def test_other_signals_do_not_end_it(start, model):
    """SIGPIPE, SIGCHLD, SIGURG, SIGWINCH and a SIGHUP to a worker."""
    daemon = start(model)
    for number in signal.SIGPIPE, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH:
        for stat in daemon.tree():
            os.kill(stat.pid, number)
    daemon.visit()
    assert daemon.popen.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_terminal_signals_every_process(start, model, number):
    """Control-C and Control-\\ in the foreground reach the whole process group at once; unsent data is sent nevertheless."""
    daemon = start(model, drain_timeout=30)
    sock, sent, read = peer.connect_with_unsent_data(daemon.address)
    os.killpg(daemon.pid, number)
    daemon.notify.wait("STOPPING=1")
    peer.same(read + peer.receive_all(sock), sent)
    sock.close()
    assert daemon.wait_exit() == 0
    assert not proc.tagged(daemon.tag)


def test_crew_ends_when_stopped_processes_are_continued(start):
    """A worker stopped by SIGSTOP cannot drain; the stop of the service ends in time nevertheless."""
    daemon = start("prefork", workers=2, drain_timeout=1)
    daemon.crash_expected = True
    os.kill(daemon.workers()[0], signal.SIGSTOP)
    daemon.term()
    assert daemon.wait_exit(AT_ONCE) == 0
    assert not proc.tagged(daemon.tag)


FAULTS = [signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP, signal.SIGABRT]
HARMLESS = [signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGURG,
            signal.SIGWINCH, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ]
MEANT = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT]
OTHERS = sorted(signal.valid_signals() - set(FAULTS) - set(HARMLESS) - set(MEANT))


def test_signals_that_would_kill_are_ignored_with_one_line(start, model):
    daemon = start(model)
    for number in OTHERS:
        for pid in daemon.workers():
            os.kill(pid, number)
    daemon.visit()
    for number in signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMIN, signal.SIGRTMAX:
        since = len(daemon.log())
        daemon.signal(number)
        daemon.wait_log(rf"Ignored {signal.Signals(number).name if number < 32 or number == signal.SIGRTMIN else 'SIGRT'}",
                        since)
        assert f"process {os.getpid()} " in daemon.log()[since:]
    for number in OTHERS:
        daemon.signal(number)
    daemon.visit()
    assert daemon.popen.poll() is None
    assert len(daemon.lines_about("Ignored SIG")) <= len(OTHERS) + 4


def test_a_flood_of_signals_does_not_flood_the_log(start):
    daemon = start("epoll")
    for _ in range(500):
        daemon.signal(signal.SIGRTMIN)
    daemon.visit()
    daemon.stop()
    assert 1 <= daemon.log().count("Ignored SIG") < 50


def test_sigquit_is_ignored_in_the_background(start):
    daemon = start(daemonize=True)
    daemon.signal(signal.SIGQUIT)
    daemon.hup()
    daemon.visit()


BLOCK = ("import os, signal, sys\n"
         "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
         "for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)\n"
         "os.execv(sys.argv[1], sys.argv[1:])")


@pytest.mark.skipif(echod.SANITIZED, reason="sanitizers handle faults themselves")
@pytest.mark.parametrize("number", FAULTS)
def test_faults_keep_their_default_action(launch, number):
    """Also in workers, and also if the calling process had blocked and ignored them."""
    daemon = launch("prefork", workers=2, wrap=["prlimit", "--core=0", sys.executable, "-I", "-c", BLOCK])
    daemon.crash_expected = True
    daemon.wait_ready()
    worker = daemon.workers()[0]
    os.kill(worker, number)
    daemon.wait_log(rf"{worker} was killed by signal {int(number)}\b")
    daemon.expect = -number
    daemon.signal(number)
    assert daemon.wait_exit() == -number
    daemon.wait_gone()


def test_sighup_during_the_start(launch, tmpdir):
    """The signal stays pending until the start has succeeded, and then leads to a reload."""
    path = f"{tmpdir}/echod.conf"
    os.mkfifo(path)
    daemon = launch("epoll", args=["-c", path])  # blocks until its file is written
    proc.until(lambda: int(proc.status(daemon.pid)["SigBlk"], 16) & 1 << signal.SIGHUP - 1, "the first instructions")
    for number in signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM:
        daemon.signal(number)

    def write():
        with open(path, "w") as file:
            file.write(daemon.config.read_text())
    write()
    daemon.notify.wait("READY=1")
    daemon.notify.wait("RELOADING=1")
    write()
    daemon.wait_log("Reloaded")
    daemon.visit()


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace was found (Debian: apt install strace)")
@pytest.mark.parametrize("call", ["setsid", "bind", "listen", "signalfd4", "wait4", "clone"])
def test_sighup_while_it_daemonizes(launch, call):
    """The signal ends neither the daemon nor the parent that waits for it."""
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=HUP"]
    daemon = launch(daemonize=True, env=echod.TRACED, wrap=["strace", "-f", "-qq", "-o", os.devnull, *inject])
    daemon.pid = daemon.notify.wait("READY=1", timeout=echod.START_TIMEOUT).pid
    daemon.visit()
    daemon.stop()
    assert daemon.popen.wait(echod.START_TIMEOUT) == 0, "the exit status of the process that waited"
