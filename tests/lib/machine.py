# SPDX-License-Identifier: ISC
"""A machine with its own systemd (see boot), into which the build is installed with `make install`."""

import concurrent.futures
import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import subprocess
import time
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, socket as make_socket

import build

SRCDIR = build.SRCDIR
BUILDDIR = str(build.DIRECTORY or "")
BOOT = str(SRCDIR / "tests/systemd/boot")

CLONE_NEWNET = 0x40000000

ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
               "TERM=dumb", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", "SYSTEMD_LOG_COLOR=0"]

EVENTS = dict(re.findall(r'X\(EVENT_(\w+), "([0-9a-f]{32})"\)', (SRCDIR / "src/base/event.h").read_text()))
CATALOG_SUBJECTS = dict(re.findall(r"^# EVENT_(\w+)\n-- .*\nSubject: (.*)", (SRCDIR / "systemd/echod.catalog").read_text(), re.M))

SERVICE = "echod.service"
ACTIVATED = "echod-activated.service"
SOCKET = "echod.socket"

ERR, WARNING = 3, 4


class CannotBoot(Exception):
    """This computer cannot boot a machine; the text is the reason."""


def until(condition, what, seconds=60):
    """Poll until the condition is true, for conditions without an event. Returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def make_variable(name):
    """A variable of the build, such as its prefix, expanded."""
    text = (Path(BUILDDIR) / "Makefile").read_text()
    values = dict(re.findall(r"^(\w+) = (.*)$", text, re.M))
    value = values[name]
    while "$" in value:
        value = re.sub(r"\$[({](\w+)[)}]", lambda match: values.get(match[1], ""), value)
    return value


def make(target, destdir):
    """`make install` or the like. One at a time: make checks whether the units in the build are up to date."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    with open(Path(BUILDDIR) / "config.status") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "-C", BUILDDIR, target, f"DESTDIR={destdir}"], check=True, timeout=120,
                       env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def make_stage(stage):
    """`make install` into the directory `stage`, unless another process has done so already."""
    with open(f"{stage}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not Path(stage).exists():
            make("install", f"{stage}.new")
            os.rename(f"{stage}.new", stage)
    return stage


def matches(entry, fields):
    return all(entry.get(name) == value for name, value in fields.items())


def at_least(priority, entries):
    """The entries that `journalctl -p PRIORITY` would show."""
    return [entry for entry in entries if int(entry.get("PRIORITY", 6)) <= priority]


class Machine:
    def __init__(self, directory):
        self.directory = str(directory)
        began = time.monotonic()
        self.log = open(self.directory + ".log", "w+")
        self.process = subprocess.Popen([BOOT, "run", self.directory, "sh", "-c", "echo up; exec cat >/dev/null"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        if self.process.stdout.readline() != "up\n":
            status = self.process.wait(60)
            self.log.seek(0)
            text = self.log.read().strip()
            if status == 77:
                raise CannotBoot(text)
            raise RuntimeError(f"boot: exit status {status}: {text}")
        self.boot_seconds = time.monotonic() - began
        self.pid = int(Path(self.directory, "pid").read_text().split()[0])
        self.root = Path(f"/proc/{self.pid}/root")
        # like `boot exec`, without the shell
        self.enter = ["nsenter", "-t", str(self.pid), "-a", "--", "env", "-i", *ENVIRONMENT]
        self.sockets = concurrent.futures.ThreadPoolExecutor(1, initializer=self.enter_network)
        self.sbindir = self.sysconfdir = None

    def close(self):
        self.process.stdin.close()
        status = self.process.wait(120)
        self.log.seek(0)
        text = self.log.read()
        self.log.close()
        assert status == 0 and not text, f"boot: exit status {status}, {text}"

    def run(self, *command, check=True, timeout=60, **more):
        """Run a command in the machine; its output is text.

        Do not call it while the manager ends all processes, as in a soft reboot: it sends SIGSTOP, SIGTERM, SIGCONT, and waits
        for each process. nsenter(1) stops itself when its child is stopped, and then does not reap the child: a deadlock.
        """
        done = subprocess.run([*self.enter, *map(str, command)], timeout=timeout, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def systemctl(self, *arguments, **more):
        return self.run("systemctl", *arguments, **more)

    # --- installation ------------------------------------------------------------------------

    def install(self, stage):
        """Install the files in `stage` (make_stage()), and do the steps that an operator does afterwards."""
        subprocess.run(["cp", "-a", f"{stage}/.", f"{self.root}/"], check=True, timeout=60)
        self.run("systemd-sysusers")
        self.run("journalctl", "--update-catalog")
        self.systemctl("daemon-reload")
        self.sbindir, self.sysconfdir = make_variable("sbindir"), make_variable("sysconfdir")
        self.echod = f"{self.sbindir}/echod"
        self.conf_path = f"{self.sysconfdir}/echod.conf"

    def path(self, path):
        """The path outside of the machine for a path inside."""
        return Path(str(self.root) + str(path))

    def configure(self, text=""):
        self.path(self.conf_path).write_text(text)

    def drop_in(self, unit, text):
        """Write the drop-in file that `systemctl edit UNIT` would write."""
        directory = self.path(f"/etc/systemd/system/{unit}.d")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "override.conf").write_text(text)
        self.systemctl("daemon-reload")

    def unit(self, name, text):
        self.path(f"/etc/systemd/system/{name}").write_text(text)
        self.systemctl("daemon-reload")

    def clean(self):
        """Stop the service and remove its configuration."""
        self.systemctl("stop", "echod*.service", "echod*.socket")
        self.systemctl("reset-failed")
        made = [path for path in self.path("/etc/systemd/system").glob("echod*") if path.name != "echod-boot"]
        for path in made:
            if path.is_dir() and not path.is_symlink():
                for file in path.iterdir():
                    file.unlink()
                path.rmdir()
            else:
                path.unlink()
        if made:
            self.systemctl("daemon-reload")
        self.configure()

    # --- processes ---------------------------------------------------------------------------

    def show(self, unit, name):
        return self.systemctl("show", "-p", name, "--value", unit).stdout.strip()

    def main_pid(self, unit=SERVICE):
        pid = int(self.show(unit, "MainPID"))
        assert pid > 0, f"{unit} has no main process"
        return pid

    def active(self, unit=SERVICE):
        return self.systemctl("is-active", unit, check=False).stdout.strip()

    def children(self, unit=SERVICE):
        pid = self.main_pid(unit)
        return [int(child) for child in self.path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self, pid, name):
        assert pid > 1
        self.run("kill", f"-{name}", pid)

    # --- clients -----------------------------------------------------------------------------

    def enter_network(self):
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{self.pid}/ns/net") as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) < 0:
                raise OSError(ctypes.get_errno(), "setns")

    def socket(self, family, kind=SOCK_STREAM, protocol=0):
        """A socket in the network of the machine."""
        made = self.sockets.submit(make_socket, family, kind, protocol).result()
        made.settimeout(30)
        return made

    def connect(self, host="127.0.0.1", port=7, kind=SOCK_STREAM, protocol=0):
        made = self.socket(AF_INET6 if ":" in host else AF_INET, kind, protocol)
        try:
            made.connect((host, port))
        except OSError:
            made.close()
            raise
        return made

    def connect_unix(self, path, kind=SOCK_STREAM):
        """Connect to a path, or to an abstract name of the network namespace, which begins with a null character."""
        made = self.socket(AF_UNIX, kind)
        try:
            made.connect(path if path.startswith("\0") else str(self.path(path)))
        except OSError:
            made.close()
            raise
        return made

    def version(self):
        """The version of systemd."""
        return int(re.match(r"systemd (\d+)", self.systemctl("--version").stdout)[1])

    def serves(self, *where, **more):
        """Whether a new client gets an echo; raises OSError if it cannot connect."""
        with self.connect(*where, **more) as client:
            return echo(client, b"Is there an echo?\r\n")

    # --- the journal -------------------------------------------------------------------------

    def cursor(self):
        """The cursor of the last entry in the journal."""
        self.run("journalctl", "--sync")
        return json.loads(self.run("journalctl", "-q", "-n", "1", "-o", "json").stdout)["__CURSOR"]

    def journal(self, since=None, **fields):
        """Entries that have all these fields, oldest first, each a dictionary."""
        self.run("journalctl", "--sync")
        # journalctl gets no matches together with a cursor: it would skip the first matching entry
        after = [f"--after-cursor={since}"] if since else []
        out = self.run("journalctl", "-q", "-o", "json", "--all", *after).stdout
        return [entry for entry in map(json.loads, out.splitlines()) if matches(entry, fields)]

    def wait_journal(self, since, count=1, seconds=60, **fields):
        """Follow the journal from `since` until `count` entries match; returns the last of them."""
        # journalctl runs outside of the machine, so that this process can reap it
        with subprocess.Popen(["journalctl", "-D", f"{self.root}/run/log/journal", "-q", "-f", "-n", "all", "-o", "json",
                               f"--after-cursor={since}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as follow:
            try:
                for entry in self.read_entries(follow.stdout.fileno(), time.monotonic() + seconds):
                    count -= matches(entry, fields)
                    if count == 0:
                        return entry
            finally:
                follow.kill()
        tail = self.run("journalctl", "-q", "-n", "30").stdout
        raise AssertionError(f"not in the journal within {seconds} s: {fields}\n{tail}")

    @staticmethod
    def read_entries(fd, end):
        data = b""
        while select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
            more = os.read(fd, 1 << 16)
            assert more, "journalctl ended"
            *lines, data = (data + more).split(b"\n")
            yield from map(json.loads, lines)

    def wait_event(self, name, since, **more):
        return self.wait_journal(since, MESSAGE_ID=EVENTS[name], **more)

    def wait_failed(self, result, since, unit=SERVICE, **more):
        """Wait until systemd says that the unit failed with this result."""
        return self.wait_journal(since, UNIT=unit, UNIT_RESULT=result, **more)

    def reload(self, unit=SERVICE):
        """`systemctl reload`, and wait until the new configuration is in effect."""
        since = self.cursor()
        self.systemctl("reload", unit)
        return self.wait_event("RELOADED", since)


def receive(client, length):
    data = b""
    while len(data) < length:
        more = client.recv(length - len(data))
        if not more:
            break
        data += more
    return data


def echo(client, data):
    client.sendall(data)
    return receive(client, len(data)) == data


def echo_datagram(client, data):
    client.send(data)
    return client.recv(65536) == data


@contextlib.contextmanager
def booted(directory):
    machine = Machine(directory)
    try:
        yield machine
    finally:
        machine.close()
