# SPDX-License-Identifier: ISC
"""echoc on a terminal: on a pseudo-terminal of the test, and in tmux."""

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time

import pytest

import client
import echod
import proc
import echo_servers as servers

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x07")


EDITING = "line editing: libedit" in client.run("-V").stdout


class Terminal:
    """echoc on a pseudo-terminal."""

    def __init__(self, *args, home, **environment):
        self.text = ""
        env = {**os.environ, "TERM": "xterm", "HOME": home, "LC_ALL": "C.UTF-8", **environment}
        env.pop("XDG_STATE_HOME", None)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execve(client.ECHOC, client.command(*args), env)
            finally:
                os._exit(127)

    def read(self, limit):
        ready, _, _ = select.select([self.fd], [], [], max(0, limit))
        if not ready:
            raise AssertionError(f"no more output; so far: {self.text!r}")
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the other side is closed
            data = b""
        self.text += data.decode(errors="replace")
        return data

    def expect(self, pattern, timeout=client.LIMIT):
        """Read until the pattern is found in the output since the last match."""
        deadline = time.monotonic() + timeout
        while True:
            match = re.search(pattern, ESCAPES.sub("", self.text))
            if match:
                self.text = ESCAPES.sub("", self.text)[match.end():]
                return match
            if not self.read(deadline - time.monotonic()):
                raise AssertionError(f"it ended without {pattern!r}: {self.text!r}")

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        self.type("\x04")

    def wait(self, timeout=client.LIMIT):
        deadline = time.monotonic() + timeout
        while self.read(deadline - time.monotonic()):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self):
        try:
            if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        except (ChildProcessError, ProcessLookupError):
            pass
        os.close(self.fd)


@pytest.fixture
def terminal(tmpdir):
    made = []

    def terminal(*args, **environment):
        made.append(Terminal(*args, home=tmpdir, **environment))
        return made[-1]

    yield terminal
    for one in made:
        one.close()


needs_editing = pytest.mark.skipif(not EDITING, reason="this echoc was built without libedit")


@pytest.mark.parametrize("udp", [[], ["-u"]], ids=["tcp", "udp"])
def test_lines_come_back(terminal, udp):
    with (servers.Datagram() if udp else servers.Stream(servers.echo)) as other:
        session = terminal(*udp, *other.where)
        session.expect(r"what you type comes back. Ctrl-D ends it\.")
        for line in ("hello", "", "grüße, 世界"):
            if EDITING:
                session.expect("echo> ")
            session.type(line + "\r")
            # The terminal shows the line twice: as typed, and as received.
            session.expect(re.escape(line) + r"\s*\n" + re.escape(line) + r"\s*\n")
        session.end()
        size = len("hello\n\ngrüße, 世界\n".encode())
        session.expect(rf"{size} bytes sent, {size} came back and matched")
        assert session.wait() == client.OK


@needs_editing
def test_editing_and_history(terminal):
    with servers.Stream(servers.echo) as other:
        session = terminal(*other.where)
        session.expect("echo> ")
        session.type("world\x01hello \r")  # Ctrl-A: to the start of the line
        session.expect(r"\nhello world\r?\n")
        session.expect("echo> ")
        session.type("another\r")
        session.expect(r"\nanother\r?\n")
        session.expect("echo> ")
        session.type("\x1b[A\x1b[A\r")  # up, up
        session.expect(r"\nhello world\r?\n")
        session.end()
        assert session.wait() == client.OK


@needs_editing
def test_editing_continues_after_a_stop(terminal):
    """Ctrl-Z stops echoc, the shell changes the modes of the terminal, and fg continues echoc."""
    with servers.Stream(servers.echo) as other:
        session = terminal(*other.where)
        left = termios.tcgetattr(session.fd)
        session.expect("echo> ")
        session.type("half a lin")
        session.expect("half a lin")
        os.kill(session.pid, signal.SIGSTOP)  # not SIGTSTP: there is no shell that could take the terminal
        os.waitpid(session.pid, os.WUNTRACED)
        left[3] |= termios.ICANON | termios.ECHO
        termios.tcsetattr(session.fd, termios.TCSANOW, left)
        os.kill(session.pid, signal.SIGCONT)
        session.expect("echo> half a lin")
        session.type("e\x1b[D\x1b[Dp\r")  # left, left
        session.expect(r"\nhalf a lipne\r?\n")
        session.end()
        assert session.wait() == client.OK


@needs_editing
def test_a_resized_terminal_shows_the_line_again(terminal):
    with servers.Stream(servers.echo) as other:
        session = terminal(*other.where)
        session.expect("echo> ")
        session.type("as far as here")
        session.expect("as far as here")
        fcntl.ioctl(session.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        session.expect("echo> as far as here")
        session.type("\r")
        session.expect(r"\nas far as here\r?\n")
        session.end()
        assert session.wait() == client.OK


@needs_editing
def test_no_letter_is_lost_without_a_locale(terminal):
    with servers.Stream(servers.echo) as other:
        session = terminal(*other.where, LC_ALL="", LC_CTYPE="", LANG="")
        session.expect("echo> ")
        session.type("grüße, 世界\r")
        session.expect(r"\ngrüße, 世界\r?\n")
        session.end()
        size = len("grüße, 世界\n".encode())
        session.expect(f"{size} bytes sent, {size} came back and matched")
        assert session.wait() == client.OK


@needs_editing
def test_history_is_kept(terminal, tmpdir):
    os.makedirs(os.path.join(tmpdir, ".local", "state"))
    with servers.Stream(servers.echo) as other:
        session = terminal(*other.where)
        session.expect("echo> ")
        session.type("remember me\r")
        session.expect(r"\nremember me\r?\n")
        session.end()
        assert session.wait() == client.OK
        assert "remember" in open(os.path.join(tmpdir, ".local", "state", "echoc_history")).read()
        session = terminal(*other.where)
        session.expect("echo> ")
        session.type("\x1b[A\r")
        session.expect(r"\nremember me\r?\n")
        session.end()
        assert session.wait() == client.OK


def test_a_wrong_byte_ends_it(terminal):
    with servers.Stream(servers.corrupt(8, 0x20)) as other:
        session = terminal(*other.where)
        session.expect("echo> |comes back")
        session.type("first\r")
        session.expect(r"first\s+first")
        session.type("second\r")
        session.expect(r"differs at byte 9 \(offset 8, 0x8\): sent 0x63, came back 0x43")
        assert session.wait() == client.DIFFERS


def test_the_server_closes_at_the_prompt(terminal):
    with servers.Stream(servers.echo) as other:
        session = terminal(*other.where)
        session.expect("echo> |comes back")
        session.type("x\r")
        session.expect(r"x\s+x")
    session.expect("closed the connection")
    assert session.wait() == client.DIFFERS


def test_control_c_prints_the_summary(terminal):
    with servers.Stream(servers.echo) as other:
        session = terminal(*other.where)
        session.expect("echo> |comes back")
        session.type("x\r")
        session.expect(r"x\s+x")
        session.type("half a li\x03")
        session.expect("2 bytes sent, 2 came back and matched")
        assert session.wait() == client.OK


def test_progress_line(tmpdir, start):
    """Standard error is a terminal, input and output are files: after a second a line shows the estimated remaining time."""
    source = os.path.join(tmpdir, "in")
    with open(source, "wb") as file:
        file.write(os.urandom(1 << 20) * 8)

    def slow(connection):
        while data := connection.recv(262144):
            time.sleep(0.05)  # the service time: the copy takes about two seconds
            connection.sendall(data)

    leader, follower = pty.openpty()
    with servers.Stream(slow) as other, open(source, "rb") as given, open(os.devnull, "wb") as out:
        process = subprocess.Popen(client.command(*other.where), stdin=given, stdout=out, stderr=follower)
        os.close(follower)
        text = b""
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:
                break
            text += data
        assert process.wait(client.LIMIT) == client.OK
    os.close(leader)
    assert re.search(rb"\r[\d.]+ MiB sent, [\d.]+ MiB back and equal, [\d.]+ [KM]iB/s, \d+ %, \d+ s left", text), text


def test_live_line_of_load(server):
    leader, follower = pty.openpty()
    process = subprocess.Popen(client.command("--load", "-n", 2, "-d", "1500ms", "--warmup", "500ms", "127.0.0.1", server.port),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    text = b""
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:
            break
        text += data
    out, _ = process.communicate(timeout=client.LIMIT)
    os.close(leader)
    assert process.returncode == client.OK
    assert re.search(rb"\r +[\d.]+ s of the measurement  [\d,]+ echoes/s  [\d.]+ MB/s", text), text
    assert b"echoes     " in out and b"\r" not in out


# An interactive session in tmux with three programs, one after the other

class Tmux:
    def __init__(self, directory):
        self.command = ["tmux", "-S", os.path.join(directory, "tmux"), "-f", "/dev/null"]
        environment = {**os.environ, "HOME": directory, "LC_ALL": "C.UTF-8", "PS1": "$ "}
        environment.pop("TMUX", None)
        subprocess.run([*self.command, "new-session", "-d", "-x", "100", "-y", "40", "sh"], check=True, env=environment,
                       timeout=client.LIMIT)

    def screen(self):
        return subprocess.run([*self.command, "capture-pane", "-p", "-S", "-200"], check=True, capture_output=True, text=True,
                              timeout=client.LIMIT).stdout

    def keys(self, *keys):
        subprocess.run([*self.command, "send-keys", *keys], check=True, timeout=client.LIMIT)

    def type(self, text):
        self.keys("-l", text)
        self.keys("Enter")

    def wait(self, pattern):
        return proc.until(lambda: re.search(pattern, self.screen(), re.M), lambda: f"{pattern!r} on\n{self.screen()}")

    def close(self):
        subprocess.run([*self.command, "kill-server"], capture_output=True, timeout=client.LIMIT)


@pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
def test_a_session_in_tmux(tmpdir, server):
    tmux = Tmux(tmpdir)
    try:
        where = f"127.0.0.1 {server.port}"
        tmux.type(f"{client.ECHOC} {where}")
        tmux.wait("Ctrl-D ends it")
        tmux.type("is anybody there")
        tmux.wait(r"^is anybody there$")
        tmux.keys("C-d")
        tmux.wait("17 bytes sent, 17 came back and matched")

        tmux.type(f"{client.ECHOC} --ping -i 0.05 {where}")
        tmux.wait(r"seq=3 time=")
        tmux.keys("C-c")
        tmux.wait(r"sent, \d+ received, 0% loss")
        tmux.wait(r"rtt min/avg/max/mdev")

        tmux.type(f"{client.ECHOC} --load -n 4 -d 1 --warmup 0.7 {where}; echo status=$?")
        tmux.wait(r"s (warm-up|of the measurement) .* echoes/s")
        tmux.wait(r"^status=0$")
        screen = tmux.screen()
        assert "all as sent" in screen and re.search(r"latency +p50", screen)
        # The live line has been erased when the report is displayed.
        assert not re.search(r"s of the measurement ", screen)
    finally:
        tmux.close()
