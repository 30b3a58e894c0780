# SPDX-License-Identifier: ISC
"""The measured servers: the models of echod, the yardstick, and other echo servers that are installed.

A Contestant reports whether it is available and suitable for a scenario, and starts a new server for each measurement, on
one processor and on a port of its own.
"""
import grp
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


START_WITHIN = 60  # seconds; a pool of a thousand processes starts slowly on a busy machine
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"
APACHE_MODULES = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules"]


class Unfit(Exception):
    """A server cannot be measured; the text is the reason."""


class Server:
    """A running server, as a context at whose end it is stopped."""

    def __init__(self, process, host, port, errors):
        self.process, self.host, self.port, self.errors = process, host, port, errors
        self.pid = process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number, patience in ((signal.SIGTERM, 3), (signal.SIGTERM, 3), (signal.SIGKILL, 10)):
            if self.process.poll() is None:
                self.process.send_signal(number)
                self.ended(patience)
        # Children that are still running are in its process group.
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def ended(self, patience):
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_message(self):
        text = Path(self.errors).read_text(encoding="utf-8", errors="replace").strip()
        return text.splitlines()[-1] if text else "no message"


def free_port(host):
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def answers(host, port):
    """Whether a byte comes back. Raises Unfit for a server that answers only at the end of a line, as Apache's mod_echo does:
    it does not follow RFC 862, and the client would wait for ever."""
    try:
        with socket.create_connection((host, port), timeout=1) as probe:
            probe.settimeout(2)
            probe.sendall(b"?")
            try:
                return probe.recv(1) == b"?"
            except TimeoutError:
                probe.sendall(b"\n")
                if probe.recv(1) == b"?":
                    raise Unfit("it sends back whole lines only, not bytes as they come") from None
    except OSError:
        pass
    return False


class Contestant:
    kind = "peer"
    host = "127.0.0.1"

    def __init__(self, name):
        self.name = name

    def absent(self):
        """The reason why the server cannot be measured here, or None."""
        return None

    def unfit(self, scenario):
        """The reason why the server is not measured in this scenario, or None."""
        return None

    def command(self, scenario, port, directory):
        raise NotImplementedError

    def port(self):
        return free_port(self.host)

    def environment(self, _directory):
        return dict(os.environ, LC_ALL="C")

    def start(self, scenario, cpu, directory):
        port = self.port()
        errors = os.path.join(directory, f"{self.name}.err")
        with open(errors, "wb") as log:
            process = subprocess.Popen(
                self.command(scenario, port, directory), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(directory), start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cpu if isinstance(cpu, set) else {cpu}))
        server = Server(process, self.host, port, errors)
        try:
            self.wait_ready(server)
        except BaseException:
            server.__exit__()
            raise
        return server

    def wait_ready(self, server):
        """Wait by connecting, because other servers do not report when they are ready."""
        until = time.monotonic() + START_WITHIN
        while not answers(server.host, server.port):
            if server.process.poll() is not None:
                raise Unfit(f"it ended at once: {server.last_message()}")
            if time.monotonic() > until:
                raise Unfit(f"it did not answer within {START_WITHIN} s: {server.last_message()}")
            select.select([], [], [], 0.01)


class Model(Contestant):
    kind = "model"

    def __init__(self, name, echod, reason):
        super().__init__(name)
        self.echod, self.reason, self.notify = echod, reason, None

    def absent(self):
        return self.reason

    def unfit(self, scenario):
        if self.name == "iterative" and scenario.held > 1:
            return "it serves one connection at a time"
        if self.name == "select" and scenario.held > 950:
            return "select(2) ends at 1024 descriptors, and the daemon needs some itself"
        if self.name in ("prefork", "prethread") and scenario.held > 1024:
            return f"it would need a pool of {scenario.held}"
        return None

    def workers(self, scenario):
        if self.name in ("prefork", "prethread"):
            return max(scenario.connections, 64)
        return 0 if self.name in ("process", "thread") else 1

    def command(self, scenario, port, directory):
        file = os.path.join(directory, "echod.conf")
        Path(file).write_text(
            f'model = "{self.name}"\nworkers = {self.workers(scenario)}\nlisten = {{"{self.host}:{port}"}}\n'
            'pidfile = ""\nlog-target = "stderr"\ndrain-timeout = 1\n', encoding="ascii")
        return [self.echod, "-n", "-c", file]

    def environment(self, directory):
        path = os.path.join(directory, "notify")
        if os.path.exists(path):
            os.unlink(path)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(path)
        return dict(os.environ, LC_ALL="C", NOTIFY_SOCKET=path)

    def wait_ready(self, server):
        until = time.monotonic() + START_WITHIN
        with self.notify as notify:
            while time.monotonic() < until:
                notify.settimeout(0.2)
                try:
                    if "READY=1" in notify.recv(65536).decode().splitlines():
                        return
                except TimeoutError:
                    if server.process.poll() is not None:
                        raise Unfit(f"it ended at once: {server.last_message()}") from None
        raise Unfit(f"it was not ready within {START_WITHIN} s: {server.last_message()}")


class Yardstick(Contestant):
    kind = "yardstick"

    def __init__(self, program):
        super().__init__("plain loop")
        self.program = program

    def command(self, scenario, port, directory):
        return [self.program, str(port), "65536" if scenario.size > 4096 else "16384"]


class Peer(Contestant):
    """An installed echo server of another project. `programs`: its possible names."""
    programs = ()

    def program(self):
        return next(filter(None, (shutil.which(name, path=PATH) for name in self.programs)), None)

    def absent(self):
        return None if self.program() else f"not installed ({' or '.join(self.programs)})"

    def unfit(self, scenario):
        if scenario.held > 2000:
            return f"it would need a process or a thread for each of {scenario.held} connections"
        return None


class Inetd(Peer):
    programs = ("inetutils-inetd",)
    host = "127.0.0.1"

    def port(self):
        return 7  # its internal services use only the ports of /etc/services

    def absent(self):
        why = super().absent()
        if why is None:
            try:
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((self.host, 7))
            except OSError as error:
                why = f"it can use only port 7, which is not available: {error.strerror}"
        return why

    def command(self, scenario, port, directory):
        file = os.path.join(directory, "inetd.conf")
        Path(file).write_text(f"{self.host}:echo stream tcp nowait root internal\n", encoding="ascii")
        return [self.program(), "-d", "-R", "1000000000", f"--pidfile={directory}/inetd.pid", file]


class Xinetd(Peer):
    programs = ("xinetd",)

    def command(self, scenario, port, directory):
        file = os.path.join(directory, "xinetd.conf")
        Path(file).write_text(
            "defaults\n{\n\tlog_type = FILE /dev/null\n\tinstances = UNLIMITED\n\tper_source = UNLIMITED\n"
            "\tcps = 1000000000 1\n}\n"
            "service echo\n{\n\ttype = INTERNAL UNLISTED\n\tid = echo-stream\n\tsocket_type = stream\n\tprotocol = tcp\n"
            f"\twait = no\n\tuser = root\n\tbind = {self.host}\n\tport = {port}\n\tdisable = no\n}}\n", encoding="ascii")
        return [self.program(), "-dontfork", "-f", file, "-pidfile", f"{directory}/xinetd.pid"]


class Socat(Peer):
    programs = ("socat",)

    def command(self, scenario, port, directory):
        return [self.program(), f"TCP-LISTEN:{port},bind={self.host},fork,reuseaddr,nodelay,backlog=4096", "PIPE"]


class Apache(Peer):
    programs = ("apache2", "httpd")

    def modules(self):
        known = [os.environ.get("APACHE_MODULES", "")] + APACHE_MODULES
        return next((path for path in known if path and os.path.exists(os.path.join(path, "mod_echo.so"))), None)

    def absent(self):
        why = super().absent()
        if why is None and self.modules() is None:
            why = f"its mod_echo.so is not in {', '.join(APACHE_MODULES)}"
        return why

    def command(self, scenario, port, directory):
        threads = max(64, scenario.held + 16)
        group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
        user = f"User nobody\nGroup {group}\n" if os.geteuid() == 0 else ""
        file = os.path.join(directory, "apache.conf")
        Path(file).write_text(
            f"ServerName localhost\nServerRoot {directory}\nPidFile {directory}/apache.pid\nListen {self.host}:{port}\n"
            f"LoadModule mpm_worker_module {self.modules()}/mod_mpm_worker.so\n"
            f"LoadModule echo_module {self.modules()}/mod_echo.so\n"
            f"ErrorLog {directory}/{self.name}.err\n{user}ProtocolEcho On\nListenBackLog 4096\n"
            f"ServerLimit 1\nStartServers 1\nThreadLimit {threads}\nThreadsPerChild {threads}\n"
            f"MaxRequestWorkers {threads}\nMinSpareThreads 1\nMaxSpareThreads {threads}\n", encoding="ascii")
        return [self.program(), "-DFOREGROUND", "-f", file]


class Other(Contestant):
    """A server given by its command (--other); it must echo bytes as they arrive."""

    def __init__(self, name, words):
        super().__init__(name)
        self.words = words

    def absent(self):
        return None if shutil.which(self.words[0], path=PATH) else f"there is no program {self.words[0]}"

    def command(self, scenario, port, directory):
        return [word.replace("{port}", str(port)) for word in self.words]


def models(echod):
    """The models of echod --list-models, with the reasons of those that cannot run here."""
    listing = subprocess.run([echod, "--list-models"], check=True, capture_output=True, text=True,
                             env=dict(os.environ, LC_ALL="C")).stdout.splitlines()
    at = listing[0].index("CAN RUN HERE")
    found = []
    for line in listing[1:]:
        match = re.match(r"(\w+)\s", line)
        verdict = line[at:].strip()
        if match:
            found.append(Model(match.group(1), echod, None if verdict == "yes" else verdict))
    return found


def contestants(echod, yardstick):
    return models(echod) + [Yardstick(yardstick), Inetd("inetd"), Xinetd("xinetd"), Socat("socat"),
                            Apache("mod_echo")]
