# SPDX-License-Identifier: ISC
"""echod without -n: the exit status and messages of the parent, the pid file, and how the daemon detaches itself."""

import errno
import grp
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys

import pytest

import echod
import peer
import proc

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")


def pidfile(daemon):
    return daemon.keys["pidfile"]


def test_parent_returns_when_the_daemon_accepts(launch, model):
    daemon = launch(model, daemonize=True)
    assert daemon.popen.wait(echod.START_TIMEOUT) == 0, daemon.log()
    daemon.visit()  # without waiting for anything else
    daemon.wait_ready()
    assert not daemon.log(), "a successful start prints nothing on the terminal"
    with open(pidfile(daemon)) as file:
        assert file.read() == f"{daemon.pid}\n"
    daemon.stop()
    assert not os.path.exists(pidfile(daemon)), "the pid file was not removed"


def test_parent_passes_on_the_failure(launch):
    """The reason on the terminal, its exit status from the parent, and no pid file."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = launch(daemonize=True, port=port)
        said = daemon.fails(echod.EX_UNAVAILABLE)
    assert f"127.0.0.1:{port}" in said
    assert len([line for line in said.splitlines() if str(port) in line]) == 1, f"printed more than once:\n{said}"
    assert not os.path.exists(pidfile(daemon))


def test_parent_passes_on_a_bad_configuration(launch):
    daemon = launch(daemonize=True, text="port = 0\n")
    assert f"{daemon.config}:1:" in daemon.fails(echod.EX_CONFIG)


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace was found (Debian: apt install strace)")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_parent_reports_the_end_of_a_daemon_that_was_not_ready(launch, number):
    """A signal stops or kills the daemon while it locks its pid file: the parent prints the reason on the terminal."""
    inject = ["-e", "trace=/ftruncate", "-e", f"inject=/ftruncate:signal={number.name}"]  # or ftruncate64(2)
    daemon = launch(daemonize=True, env=echod.TRACED, wrap=["strace", "-f", "-qq", "-o", os.devnull, *inject])
    assert "before it was ready" in daemon.fails(echod.EX_OSERR)


@root
def test_parent_reports_that_fork_failed(launch, visible):
    """RLIMIT_NPROC permits only the first of the two forks, or neither."""
    # (A sanitizer starts a process of its own when the program exits after the first fork has failed.)
    for most in (2,) if echod.SANITIZED else (2, 1):
        wrap = ["setpriv", f"--reuid={60000 + os.getpid() % 5000}", "--clear-groups", "prlimit", f"--nproc={most}"]
        daemon = launch(daemonize=True, program=visible, wrap=wrap, pidfile="")
        assert os.strerror(errno.EAGAIN) in daemon.fails(echod.EX_OSERR)


def test_detached(start, model):
    """No terminal, no session to lead, / as working directory, descriptors 0 to 2 on /dev/null, no other inherited."""
    leak, end = os.pipe()
    try:
        daemon = start(model, daemonize=True, pass_fds=(leak,), umask=0o137)
        daemon.visit()
        daemon.wait_processes(echod.processes(model))
        leaked = os.readlink(f"/proc/self/fd/{leak}")
        for stat in daemon.tree():
            assert stat.tty == 0
            assert os.readlink(f"/proc/{stat.pid}/cwd") == "/"
            fds = proc.descriptors(stat.pid)
            assert [fds.get(fd) for fd in range(3)] == ["/dev/null"] * 3
            assert leaked not in fds.values(), "an inherited descriptor is still open"
            assert proc.status(stat.pid)["Umask"] in ("0000", "0022", "0027", "0077"), "the umask is the parent's"
        leader = daemon.tree()[0]
        assert leader.session not in (leader.pid, os.getsid(0), daemon.popen.pid)
        assert leader.ppid == os.getpid()  # an orphan: these tests are its reaper
    finally:
        os.close(leak)
        os.close(end)


def test_main_pid_is_sent(start):
    daemon = start(daemonize=True)
    assert daemon.notify.wait("MAINPID")["MAINPID"] == str(daemon.pid)


def test_second_daemon_is_refused_by_the_pid_file(start, launch):
    first = start(daemonize=True)
    second = launch(daemonize=True, pidfile=pidfile(first))
    said = second.failed()
    assert second.returncode not in (0, None)
    assert pidfile(first) in said, said
    first.visit()
    with open(pidfile(first)) as file:
        assert file.read() == f"{first.pid}\n"


def test_stale_pid_file_is_taken_over(start, tmpdir):
    path = os.path.join(tmpdir, "stale.pid")
    with open(path, "w") as file:
        file.write("4194303 and some rubbish\n")
    daemon = start(daemonize=True, pidfile=path)
    with open(path) as file:
        assert file.read() == f"{daemon.pid}\n"


def test_pid_file_after_a_crash_is_taken_over(start):
    first = start(daemonize=True)
    first.expect = -signal.SIGKILL
    first.signal(signal.SIGKILL)
    first.wait_exit()
    proc.until(lambda: not proc.tagged(first.tag), "the end of its workers")
    assert os.path.exists(pidfile(first))
    second = start(daemonize=True, pidfile=pidfile(first))
    with open(pidfile(first)) as file:
        assert file.read() == f"{second.pid}\n"


def test_pid_file_that_cannot_be_written(launch, tmpdir):
    daemon = launch(daemonize=True, pidfile=os.path.join(tmpdir, "nowhere", "echod.pid"))
    said = daemon.failed()
    assert daemon.returncode not in (0, None)
    assert "nowhere" in said
    assert peer.refused(daemon.address)


def test_pid_file_of_another_daemon_is_not_removed(start, tmpdir):
    """The administrator removed the daemon's pid file, and another daemon created its own with the same name."""
    path = os.path.join(tmpdir, "echod.pid")
    first = start(daemonize=True, pidfile=path)
    os.unlink(path)
    second = start(daemonize=True, pidfile=path)
    first.stop()
    with open(path) as file:
        assert file.read() == f"{second.pid}\n"
    second.stop()
    assert not os.path.exists(path)


def test_no_pid_file(start):
    daemon = start(daemonize=True, pidfile="")
    daemon.visit()


def test_foreground_writes_no_pid_file(start):
    daemon = start()
    assert not os.path.exists(pidfile(daemon))


def test_pid_file_is_not_writable_by_others(start):
    daemon = start(daemonize=True, umask=0)
    assert os.stat(pidfile(daemon)).st_mode & 0o022 == 0


def test_reload_of_a_relative_path(start):
    """A relative path of -c refers to the directory where echod was started, although the daemon has changed to /."""
    daemon = start(daemonize=True, args=["-c", "echod.conf"])
    daemon.configure(port=echod.free_port())
    daemon.hup()
    peer.visit(("127.0.0.1", daemon.keys["port"]))


def test_reload_and_stop(start, model):
    daemon = start(model, daemonize=True)
    stream = peer.Stream(daemon.address)
    stream.progress()
    daemon.hup()
    stream.progress()
    stream.finish()
    daemon.visit()
    daemon.stop()


def test_started_with_closed_descriptors(launch):
    """Descriptors 0, 1 and 2 are closed at the start: echod must not use these numbers for its sockets."""
    daemon = launch(daemonize=True, wrap=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"])
    assert daemon.popen.wait(echod.START_TIMEOUT) == 0
    daemon.wait_ready()
    daemon.visit()
    daemon.wait_processes(2)
    for stat in daemon.tree():
        fds = proc.descriptors(stat.pid)
        assert [fds.get(fd) for fd in range(3)] == ["/dev/null"] * 3


def test_started_with_signals_blocked_and_ignored(start):
    """Some shells and nohup(1) start programs with blocked or ignored signals: stop and reload work nevertheless."""
    block = ("import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals());"
             "signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
             "os.execv(sys.argv[1], sys.argv[1:])")
    for model in ("epoll", "process"):
        daemon = start(model, wrap=[sys.executable, "-I", "-c", block])
        for _ in range(5):
            daemon.visit()
        daemon.wait_processes(2)
        daemon.hup()
        daemon.visit()
        daemon.stop()


# user and group

@root
def test_user_and_group_are_dropped(start, model, visible):
    """In every process, the supplementary groups too, after the privileged port was bound."""
    daemon = start(model, program=visible, user="nobody", port=echod.free_port(), pidfile="",
                   wrap=["setpriv", "--groups=0,1,2"])
    daemon.visit()
    daemon.wait_processes(echod.processes(model))  # a process that is ending has no status
    with daemon.connect() as sock:
        peer.echo(sock, b"hello")
        for stat in daemon.tree():
            status = proc.status(stat.pid)
            assert status["Uid"].split() == ["65534"] * 4, f"{stat.pid} is {status['Uid']}"
            assert "0" not in status["Gid"].split()
            assert not {"0", "1", "2"} & set(status["Groups"].split())
            assert int(status["CapEff"], 16) & ~(1 << 10) == 0, f"capabilities {status['CapEff']} are left"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.parametrize("groups", ["--clear-groups", "--groups=0", "--groups=0,1"])
def test_root_without_capabilities_remains_root(start, groups):
    """As in a container without CAP_SETUID and CAP_SETGID: user = "root" does not need them."""
    without = "-setuid,-setgid,-setpcap"
    daemon = start("epoll", user="root", wrap=["setpriv", groups, f"--bounding-set={without}", f"--inh-caps={without}"])
    daemon.visit()
    assert "warning" not in daemon.log()


@root
def test_group_alone_and_group_with_user(start, visible):
    group = subprocess.run(["getent", "group", "daemon"], capture_output=True, text=True).stdout.split(":")
    if len(group) < 3:
        pytest.skip("no group daemon")
    daemon = start("epoll", program=visible, user="nobody", group="daemon", pidfile="")
    for stat in daemon.tree():
        assert proc.status(stat.pid)["Gid"].split() == [group[2]] * 4


@root
def test_privileged_port_with_dropped_user(start, visible):
    """Port below 1024 bound as root, served as nobody; the connection after the drop included."""
    port = next(p for p in range(1023, 600, -1) if bindable(p))
    daemon = start("epoll", program=visible, user="nobody", port=port, pidfile="")
    daemon.visit()
    reloading, ready = daemon.hup()
    daemon.visit()


def bindable(port):
    try:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
        return True
    except OSError:
        return False


@root
def test_pid_file_of_a_daemon_that_dropped_privileges(start, visible):
    daemon = start(daemonize=True, program=visible, user="nobody")
    with open(pidfile(daemon)) as file:
        assert file.read() == f"{daemon.pid}\n"
    daemon.stop()
    if os.path.exists(pidfile(daemon)):  # the daemon cannot remove the file from root's directory, but must have emptied it
        with open(pidfile(daemon)) as file:
            assert file.read() == ""


@root
def test_files_of_a_daemon_that_dropped_privileges(start, visible, tmpdir):
    """It does not remove files for which it lacks permission; the next daemon replaces them. No process remains root for this."""
    path, pid = os.path.join(tmpdir, "echo.sock"), os.path.join(tmpdir, "echod.pid")
    for _ in range(2):
        daemon = start(daemonize=True, program=visible, user="nobody", listen=[f"unix:{path}"], pidfile=pid)
        peer.visit(path)
        assert {proc.status(one)["Uid"].split()[0] for one in proc.tagged(daemon.tag)} == {"65534"}
        assert os.stat(path).st_uid == 65534
        daemon.stop()
        with open(pid) as file:
            assert file.read() == ""


@root
def test_standard_error_is_closed_by_a_daemon_that_dropped_privileges(visible, tmpdir):
    """A reader of its standard error gets the end of file once the daemon has started."""
    with open(f"{tmpdir}/conf", "w") as file:
        file.write(echod.conf_text(listen=["127.0.0.1"], port=echod.free_port(), user="nobody", log_target="syslog",
                                   pidfile=f"{tmpdir}/echod.pid"))
    read, write = os.pipe()
    started = subprocess.run([visible, "-c", f"{tmpdir}/conf"], stdout=write, stderr=write, timeout=echod.START_TIMEOUT)
    os.close(write)
    try:
        with open(f"{tmpdir}/echod.pid") as file:
            daemon = int(file.read())
        try:
            assert started.returncode == 0
            assert select.select([read], [], [], proc.LIMIT)[0], "standard error is still open"
            assert os.read(read, 1000) == b""
        finally:
            os.kill(daemon, signal.SIGTERM)
            proc.until(lambda: os.waitpid(daemon, os.WNOHANG)[0], "the daemon's end")
    finally:
        os.close(read)


@root
@pytest.mark.parametrize("how", ["flock", "fcntl"])
def test_a_reader_of_the_pid_file_cannot_lock_it(start, visible, tmpdir, how):
    """A process with read permission must not be able to prevent the start of the next daemon."""
    path = os.path.join(tmpdir, "echod.pid")
    start(daemonize=True, pidfile=path).stop()
    with open(path, "w"):
        os.chmod(path, 0o644)
    lock = ("import fcntl, sys, struct\n"
            "fd = open(sys.argv[1])\n"
            "try: fcntl.flock(fd, fcntl.LOCK_EX) if sys.argv[2] == 'flock' else fcntl.fcntl(fd, 37,\n"
            "    struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))\n"
            "except OSError: pass\n"
            "print(flush=True); sys.stdin.read()")
    holder = subprocess.Popen(["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-I", "-c", lock, path, how],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.read(1) == b"\n"
    start(daemonize=True, pidfile=path).visit()
    holder.communicate(timeout=proc.LIMIT)


@root
@pytest.mark.parametrize("user", [None, "root", "nobody"])
def test_root_without_a_user_is_warned(start, launch, visible, tmpdir, user):
    text = echod.conf_text(listen=["127.0.0.1"], port=echod.free_port(), log_target="stderr", **({"user": user} if user else {}))
    daemon = launch(program=visible, text=text).wait_ready()
    assert bool(re.search("warning: .*root", daemon.log())) == (user is None), daemon.log()


@root
@pytest.mark.parametrize("stale", [False, True])
def test_unix_socket_is_created_by_its_owner(start, visible, tmpdir, stale):
    """bind(2) as root and chown(2) would be a race in a directory of another user. No write permission is needed there."""
    directory = os.path.join(tmpdir, "sockets")
    os.mkdir(directory, 0o755)
    path = os.path.join(directory, "echo.sock")
    if stale:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
    wrap = ["strace", "-D", "-f", "-qq", "-o", f"{tmpdir}/trace", "-e", "trace=/chown"] if shutil.which("strace") else []
    daemon = start("epoll", program=visible, user="nobody", group="daemon", listen=[f"unix:{path}"], wrap=wrap,
                   env=echod.TRACED if wrap else None)
    made = os.stat(path)
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (65534, grp.getgrnam("daemon").gr_gid, 0o660)
    peer.visit(path)
    daemon.term()
    assert daemon.wait_exit() == 0
    daemon.wait_gone()  # strace(1) ends after the daemon
    if wrap:
        with open(f"{tmpdir}/trace") as file:
            assert "chown" not in file.read()


def test_user_without_root_is_refused(launch, visible):
    """A daemon that cannot change to the configured user fails with a message; it does not run as the invoking user."""
    if os.geteuid() == 0:
        daemon = launch(program=visible, wrap=echod.as_nobody(), user="daemon", pidfile="")
    else:
        daemon = launch(user="nobody", pidfile="")
    said = daemon.failed()
    assert daemon.returncode in (echod.EX_NOPERM, echod.EX_CONFIG)
    assert "user" in said
