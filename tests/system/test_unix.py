# SPDX-License-Identifier: ISC
"""Unix sockets: permissions and group of their files, and abstract names."""

import grp
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess

import pytest

import client
import echod
import peer
import proc

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def group(path):
    return grp.getgrgid(os.stat(path).st_gid).gr_name


def another_group(*but):
    """A group of which the test process is not a member."""
    return next(entry.gr_name for entry in grp.getgrall() if entry.gr_gid not in (*os.getgroups(), os.getegid(), *but))


# unix-mode

@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
@pytest.mark.parametrize("text, bits", [("0600", 0o600), ("666", 0o666), ("0777", 0o777), ("0000", 0), ("0620", 0o620)])
def test_mode(start, tmpdir, umask, text, bits):
    """The mode is independent of the umask."""
    path = f"{tmpdir}/echo.sock"
    start(listen=[f"unix:{path}"], unix_mode=text, umask=umask)
    assert mode(path) == bits
    if os.geteuid() == 0 or bits & 0o200:
        peer.visit(path)


def test_mode_from_the_first_moment(start, tmpdir):
    """The file is created with its mode, and has no other mode at any moment."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    path, trace = f"{tmpdir}/echo.sock", f"{tmpdir}/trace"
    start(listen=[f"unix:{path}"], unix_mode="0606", umask=0, env=echod.TRACED,
          wrap=["strace", "-D", "-o", trace, "-e", "trace=umask,bind,chmod,fchmod,fchmodat,listen"])
    calls = [line for line in proc.read(trace).decode().splitlines() if "(" in line]
    at = next(i for i, line in enumerate(calls) if line.startswith("bind(") and path in line)
    assert calls[at - 1].startswith("umask(0171)"), calls[:at + 2]
    assert not [line for line in calls if "chmod" in line], calls
    assert mode(path) == 0o606


def test_mode_where_the_directory_has_a_default_acl(start, tmpdir):
    """A default ACL replaces the umask; the file nevertheless has its mode once the socket listens."""
    if not shutil.which("setfacl"):
        pytest.skip("setfacl is not installed")
    if subprocess.run(["setfacl", "-d", "-m", "u::rwx,g::---,o::---", tmpdir], capture_output=True).returncode:
        pytest.skip("the file system of the tests has no ACLs")
    path = f"{tmpdir}/echo.sock"
    start(listen=[f"unix:{path}"], unix_mode="0666")
    assert mode(path) == 0o666


def test_reload_changes_the_mode(start, model, tmpdir):
    """The mode of an existing socket, whose clients stay connected, and of a new one."""
    paths = [f"{tmpdir}/{name}.sock" for name in ("old", "new")]
    daemon = start(model, listen=[f"unix:{paths[0]}", "127.0.0.1"])
    inode = os.stat(paths[0]).st_ino
    with peer.connect(paths[0]) as sock:
        peer.echo(sock, b"before")
        daemon.reload(unix_mode="0666", listen=[f"unix:{path}" for path in paths])
        peer.echo(sock, b"after")
        assert [mode(path) for path in paths] == [0o666, 0o666] and os.stat(paths[0]).st_ino == inode
    for path in paths:
        peer.visit(path)


@root
def test_reload_that_may_not_change_the_mode_logs_it(start, tmpdir):
    """The file belongs to another user; the reload logs that it cannot change the mode."""
    path = f"{tmpdir}/echo.sock"
    os.chmod(tmpdir, 0o777)
    daemon = start(listen=[f"unix:{path}"], user="nobody", group=grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name)
    os.chown(path, 0, -1)
    daemon.reload(unix_mode="0666")
    daemon.wait_log(r"cannot apply unix-mode and unix-group to unix:.*Operation not permitted")
    assert mode(path) == 0o660


# unix-group

@root
@pytest.mark.parametrize("user", ["", "nobody"])
def test_group(start, tmpdir, user):
    path = f"{tmpdir}/echo.sock"
    name = another_group()
    start(listen=[f"unix:{path}"], unix_group=name, **({"user": user} if user else {}))
    assert group(path) == name and mode(path) == 0o660
    assert not user or os.stat(path).st_uid == pwd.getpwnam(user).pw_uid


@root
def test_reload_changes_the_group(start, model, tmpdir):
    path = f"{tmpdir}/echo.sock"
    daemon = start(model, listen=[f"unix:{path}"], port=None)
    name = another_group()
    with peer.connect(path) as sock:
        daemon.reload(unix_group=name)
        peer.echo(sock, b"after")
    assert group(path) == name


@root
def test_group_that_the_process_may_not_give(launch, tmpdir):
    """Exit status 77, with advice in the message; no file remains."""
    name = another_group()
    directory = f"{tmpdir}/open"
    os.mkdir(directory)
    os.chmod(directory, 0o777)
    os.chmod(tmpdir, 0o755)
    path = f"{directory}/echo.sock"
    daemon = launch(listen=[f"unix:{path}"], unix_group=name, pidfile="", group=None, wrap=echod.as_nobody())
    said = daemon.fails(echod.EX_NOPERM)
    assert name in said and "chmod g+s" in said and path in said
    assert not os.path.exists(path)
    os.chown(directory, -1, grp.getgrnam(name).gr_gid)
    os.chmod(directory, 0o2777)
    daemon = launch(listen=[f"unix:{path}"], unix_group=name, pidfile="", group=None, wrap=echod.as_nobody())
    daemon.wait_log("Ready: ", timeout=echod.START_TIMEOUT)
    assert group(path) == name and mode(path) == 0o660


def test_group_that_does_not_exist(launch, tmpdir):
    said = launch(listen=[f"unix:{tmpdir}/echo.sock"], unix_group="no-such-group").fails(echod.EX_CONFIG)
    assert "unix-group" in said and "no-such-group" in said and "no such group" in said


# Abstract names

def is_free(name):
    """Whether no process has a socket of this name."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.bind(name)
        except OSError:
            return False
    return True


@pytest.fixture
def abstract():
    return f"echod-test-{os.getpid()}-{secrets.token_hex(6)}"


def test_abstract(start, model, abstract):
    """The socket is served and logged with its name, and ends with the service."""
    daemon = start(model, listen=[f"unix:@{abstract}", "127.0.0.1"])
    assert f"unix:@{abstract}" in daemon.log()
    with peer.connect("\0" + abstract) as sock:
        peer.echo(sock, peer.data(1 << 20))
        peer.finish(sock)
    daemon.wait_log(rf"unix: to unix:@{abstract} ended: eof, {1 << 20} bytes")
    daemon.stop()
    assert peer.refused("\0" + abstract)


def test_name_of_an_abstract_peer(start, model, abstract):
    daemon = start(model, listen=[f"unix:@{abstract}"], port=None)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(peer.PATIENCE)
        sock.bind(f"\0{abstract}\0peer")
        sock.connect("\0" + abstract)
        peer.echo(sock, b"hello")
        peer.finish(sock)
    daemon.wait_log(rf"unix:@{abstract}@peer to unix:@{abstract} ended: eof, 5 bytes")


def test_longest_abstract_name(start, launch):
    name = secrets.token_hex(53) + "x"
    start(listen=[f"unix:@{name}"])
    peer.visit("\0" + name)
    said = launch(listen=[f"unix:@{name}y"]).fails(echod.EX_CONFIG)
    assert "1 to 107 bytes" in said


def test_abstract_name_in_use(start, launch, abstract):
    start(listen=[f"unix:@{abstract}"])
    said = launch(listen=[f"unix:@{abstract}"]).fails(echod.EX_UNAVAILABLE)
    assert f"unix:@{abstract}: the address is in use" in said
    peer.visit("\0" + abstract)


def test_reload_keeps_and_removes_abstract_names(start, model, abstract):
    """A name that remains keeps its socket and clients; clients already connected to a removed name are still served."""
    daemon = start(model, listen=[f"unix:@{abstract}", f"unix:@{abstract}-b"])
    with peer.connect("\0" + abstract) as sock:
        peer.echo(sock, b"before")
        daemon.reload(listen=[f"unix:@{abstract}"])
        peer.echo(sock, b"after")
        peer.finish(sock)
    peer.visit("\0" + abstract)
    proc.until(lambda: peer.refused(f"\0{abstract}-b"), "the end of the other name")
    daemon.reload(listen=["127.0.0.1"])
    proc.until(lambda: is_free("\0" + abstract), "the end of the name")
    daemon.visit()
    daemon.reload(listen=[f"unix:@{abstract}"])
    peer.visit("\0" + abstract)


@pytest.mark.models("select", "poll", "epoll", "io_uring")
def test_clients_in_the_backlog_of_an_abstract_name_that_goes(start, model, abstract):
    """Clients that wait in the backlog are served after the reload that removes the name."""
    daemon = start(model, listen=[f"unix:@{abstract}", "127.0.0.1"], max_connections=1)
    with peer.connect("\0" + abstract) as first:
        peer.echo(first, b"the only one")
        waiting = peer.connect("\0" + abstract)
        waiting.sendall(b"served later")
        daemon.reload(listen=["127.0.0.1"], max_connections=1)
        proc.until(lambda: peer.refused("\0" + abstract), "the end of the name")
        peer.finish(first)
    with waiting:
        assert peer.receive(waiting, 12) == b"served later"


def test_abstract_listener_survives_a_crash_in_the_store(start, model, abstract):
    """SIGKILL for the service: a client that connects meanwhile waits in the backlog, and the next process serves it."""
    keys = {"listen": [f"unix:@{abstract}"], "port": echod.free_port()}
    first = start(model, store=True, **keys)
    peer.visit("\0" + abstract)
    first.expect = -signal.SIGKILL
    first.signal(signal.SIGKILL)
    assert first.wait_exit() == -signal.SIGKILL
    proc.until(lambda: not proc.tagged(first.tag), "the end of its workers")
    waiting = peer.connect("\0" + abstract)
    waiting.sendall(b"is anybody there?")
    kept = first.notify.take_store()
    assert len(kept) == 1 and kept[0][0].endswith(f"unix_@{abstract}"), kept
    start(model, store=True, **echod.activated([fd for _, fd in kept], ":".join(name for name, _ in kept)), **keys)
    for _, fd in kept:
        os.close(fd)
    assert peer.receive(waiting, 17) == b"is anybody there?"
    peer.finish(waiting)


@pytest.mark.parametrize("args", [["--ping", "-c", "2", "-i", "0.05"], ["--load", "-d", "0.2", "-n", "2"]])
def test_echoc_connects_to_an_abstract_name(start, abstract, args):
    start(listen=[f"unix:@{abstract}"])
    done = subprocess.run([client.ECHOC, *args, f"unix:@{abstract}"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([client.ECHOC, f"unix:@{abstract}"], input="through\n", capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "through\n"), done.stderr
