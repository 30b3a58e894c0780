# SPDX-License-Identifier: ISC
"""Clients and operators of one daemon, in any order: a state machine of python3-hypothesis.

Each rule is one step: it acts, then waits until all events have happened that are due by the reference model (reference.py), and
compares the daemon with the model. No wait depends on a time; PATIENCE only ends a wait that would never end.

Rules name clients by a number modulo the number of clients: any sequence of rules is a valid program.
"""

import collections
import errno
import functools
import os
import random
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import time

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import echod
import failing
import metrics
import peer
import proc
import reference
import sockdiag

PATIENCE = float(os.environ.get("RANDOM_PATIENCE") or 60)
MOST_CLIENTS = 12
SOURCES = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "::1", "unix")
PROXY = "127.0.0.9"  # its connections begin with a PROXY protocol header
LISTENERS = ("IPv4", "IPv6", "unix", "IPv4 again", "abstract")
DATA = random.Random(1).randbytes(1 << 19) * 2
SHRINKING = 100  # seconds to find a shorter program
KILLS = 3       # of workers of one configuration: the daemon waits longer before each restart
SPEED = 3       # of the daemon's clock, for shorter delays; the shortest time limit of the daemon is still longer than 0.6 s
MOST_WAITS = 300  # for events, in a step without traffic; few steps have more than 100
BUFFER = 16384  # of sockets: a client that does not read soon fills the path

# A build with fault points finds more errors: it can be configured to know that a stop is part of a restart, and a worker that
# waits for a slot does not retry without an event.
FAULT_POINTS = "fault points" in echod.run("-V").stdout
SLOT_WAIT = str(10 ** 12)  # microseconds

crowds = st.lists(st.sampled_from(SOURCES), min_size=2, max_size=6)
inet_crowds = st.lists(st.sampled_from(SOURCES[:-1]), min_size=2, max_size=6)
numbers = st.integers(0, MOST_CLIENTS - 1)
models = st.sampled_from((None,) * len(echod.MODELS) + echod.MODELS)  # None: the model of the start
limits = st.sampled_from((0, 1, 2, 3, 5))
denied = st.sampled_from(((), (), ("127.0.0.3",), ("127.0.0.2", "::1")))
sizes = st.sampled_from((1, 100, 5000, 70000))
listeners = st.sampled_from((LISTENERS, LISTENERS, LISTENERS[:3], LISTENERS[2:], ("IPv4",), ("unix", "IPv6")))
headers = st.sampled_from((0, 0, 0, 1, 20, 100))  # 0: not through the proxy; else the bytes of the first segment

steps = collections.Counter()  # of all machines of this process


def step(condition, **strategies):
    """A rule that has no effect unless condition(machine). It is not a precondition of hypothesis: with it the choices would depend
    on the state, which depends on the speed of the daemon."""
    def decorate(function):
        @functools.wraps(function)
        def run(self, **arguments):
            if not condition or condition(self):
                self.program.append(f"state.{function.__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})")
                function(self, **arguments)
        return rule(**strategies)(run)
    return decorate


class TimeOver(BaseException):
    """RANDOM_TIME is over. Not an Exception: that would be a failure of the program under test."""


class Peer(reference.Client):
    """A client with its socket."""

    def __init__(self, number, source, listener, sock):
        super().__init__(number, source, listener)
        self.sock = sock
        self.ends = source != "unix" and (sock.getpeername()[:2], sock.getsockname()[:2])
        self.asked = 0  # bytes that were sent before a step in which connections may be lost
        self.offset = number * 1000  # of its stream in DATA

    def stream(self, begin, size):
        at = (self.offset + begin) % (len(DATA) // 2)
        return DATA[at:at + size]

    def send(self, size, flags=0):
        """Send as many of `size` bytes as the kernel accepts now. Returns the number."""
        try:
            count = self.sock.send(self.stream(self.sent, size), flags)
        except (BlockingIOError, ConnectionError):  # receive() finds the reason
            return 0
        self.sent += count
        return count

    def end(self):
        """Half-close. The connection may have ended before, if the daemon has refused the client."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        self.half_closed = True

    def receive(self):
        """Receive and check bytes. Returns True; None if there are none yet, False at the end of the stream."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return False
        assert data == self.stream(self.received, len(data)), f"client {self.number}: wrong bytes after {self.received}"
        self.received += len(data)
        assert self.received <= self.sent, f"client {self.number}: {self.received} bytes came back for {self.sent}"
        return bool(data)


class Machine(RuleBasedStateMachine):
    model = "epoll"      # of the start; subclasses below
    until = float("inf")  # no example begins later than this
    began = time.monotonic()
    failure, failed_program = None, []  # of the shortest program that failed

    def __init__(self):
        super().__init__()
        if time.monotonic() > self.until:
            raise TimeOver
        self.directory = tempfile.mkdtemp(prefix="echod-random-")
        os.chmod(self.directory, 0o755)
        self.program = [f"state = {type(self).__name__}()"]
        self.clients, self.ever, self.made, self.finishing = [], [], 0, False
        self.kills = KILLS
        self.waits = (0, 0)    # calls that waited for events, and bytes that moved, until the last step
        self.may_lose = False  # failures may end connections, but not lose bytes of them
        self.path, self.port = f"{self.directory}/socket", 0
        self.initial = dict(model=self.model, workers=1 if self.model == "iterative" else 2, max_connections=5, max_per_source=3,
                            deny=(), listen=LISTENERS)
        self.reference, self.daemon = reference.Reference(reference.Conf(**self.initial)), None

    @initialize(queue=st.sampled_from((0, 1)), knows=st.booleans())
    def start(self, queue, knows):
        """`queue`: the size of the queue between workers; 1: the smallest, 0: the largest that the kernel allows. `knows`: whether
        the daemon knows that a stop is part of a restart, if the build has fault points."""
        self.program.append(f"state.start(queue={queue}, knows={knows})")
        self.knows_restart = knows and FAULT_POINTS
        self.failing = failing.Failing(self.directory, queue=queue, speed=SPEED)
        self.env = {**self.failing.env, "FDSTORE": "128", "ECHOD_FAULT_RESTART": str(int(knows)), "ECHOD_FAULT_SLOT_WAIT": SLOT_WAIT}
        self.port, self.second = echod.free_port(), echod.free_port()
        self.daemon = echod.Daemon(self.directory, port=self.port, log_connections=False, idle_timeout=0, stats_interval=0,
                                   socket_buffer=BUFFER, drain_timeout=30 * SPEED, proxy_protocol=[PROXY], env=self.env,
                                   store=True, **self.keys(self.initial))
        self.daemon.wait_ready(PATIENCE)
        self.settle()
        self.descriptors = self.daemon.descriptors()

    def addresses(self):
        """The addresses for clients, by listener."""
        return {"IPv4": ("127.0.0.1", self.port), "IPv6": ("::1", self.port), "unix": self.path,
                "IPv4 again": ("127.0.0.1", self.second), "abstract": f"\0{self.path}"}

    def keys(self, changes):
        """Keys of echod.conf from the arguments of reference.Conf."""
        found = dict(changes)
        if "listen" in changes:
            names = {"IPv4": "127.0.0.1", "IPv6": "[::1]", "unix": f"unix:{self.path}", "IPv4 again": f"127.0.0.1:{self.second}",
                     "abstract": f"unix:@{self.path}"}
            found["listen"] = [names[listener] for listener in changes["listen"]]
        return found

    # Waiting for events that are due

    def settle_after_reload(self, old):
        """Wait until the `old` processes have ended, then until daemon and model agree: an old worker may have sent an echo to a
        client before it handed the connection over."""
        proc.until(lambda: not any(map(proc.alive, old)), lambda: f"the end of the old processes {old}" + self.log(), PATIENCE)
        self.agree()
        self.settle()

    def settle(self):
        """Wait until daemon and model agree at the end of a step."""
        steps[self.model] += not self.finishing
        if self.reference.in_queue():  # any client may be served now, and then gets an echo
            for client in self.reference.admitted:
                if client.is_served() and client.reading:
                    client.send(1)
        line = self.agree()
        self.check_waits()
        self.clients = [client for client in self.clients if client.state != "gone"]
        for client in self.clients:
            client.at_risk = client.early = False
        try:
            self.reference.check()
        except AssertionError as error:
            raise AssertionError(f"{error}" + self.log()) from None
        self.reference.begin(line)

    def check_waits(self):
        """Check that the processes do not wait for events and time-outs more often in a step than the number of bytes explains."""
        before, self.waits = self.waits, (self.failing.waits(), sum(client.sent + client.received for client in self.ever))
        waits, moved = self.waits[0] - before[0], self.waits[1] - before[1]
        assert waits <= MOST_WAITS + moved // 100, f"the daemon waited {waits} times, while {moved} bytes moved" + self.log()

    def agree(self):
        """Wait until everything that is due has happened, and daemon and model agree. Returns the statistics."""
        model = self.reference
        self.connections = [client for client in self.clients if client.ends]
        deadline, pause = time.monotonic() + PATIENCE, 0.0005
        poll, by_fd = select.poll(), {}
        for client in self.clients:
            if client.reading and client.state != "gone":
                poll.register(client.sock, select.POLLIN)
                by_fd[client.sock.fileno()] = client
        while True:
            ready = poll.poll(0 if not model.due() else 200)
            for fd, _ in ready:
                if self.hear(by_fd[fd]):
                    poll.unregister(fd)
            if ready or model.due():
                assert time.monotonic() < deadline, model.due() + self.log()
                continue
            # in this order: after the end of a process its connections have ended and are counted
            self.look_for_accepted()
            wrong = self.wrong_processes() + self.wrong_sockets()
            if not wrong:
                line = metrics.line(self.daemon)
                wrong = model.disagreements(line)
            if not wrong:
                return line
            # a client in the queue or in a backlog may have been served after its socket was checked
            final = any(final for _, final in wrong) and not (self.may_lose or model.unserved() or model.waiting)
            assert not final and time.monotonic() < deadline, "; ".join(text for text, _ in wrong) + self.log()
            time.sleep(pause)
            pause = min(2 * pause, 0.02)

    def look_for_accepted(self):
        """Find clients that old workers have accepted, and handed over before they sent an echo."""
        for client in list(self.reference.waiting):
            if client.early and client.source not in self.reference.conf.deny and sockdiag.inode(client.sock.family, *client.ends):
                self.reference.accepted(client)

    def hear(self, client):
        """Handle a client's readable socket. Returns whether the connection has ended."""
        more = client.receive()
        if more is None:
            return False
        if client.early and not more and client.received == 0 and client.state == "admitted":
            self.reference.accepted_undo(client)
        if client.state == "waiting" and (more or client.half_closed and client.received == client.sent == 0):
            self.reference.accepted(client)
        if more:
            return False
        if client.at_risk:
            self.reference.lost(client, "error", "limit", "denied")
        elif client.state == "waiting":
            self.reference.refused(client)
        else:
            least = client.asked if self.may_lose else client.sent  # bytes that arrive while the daemon ends a connection are lost
            assert client.received >= least and (client.half_closed or self.may_lose), \
                f"client {client.number} lost its connection after {client.received} of {client.sent} bytes" + self.log()
            self.reference.ended(client, *(["eof", "drain", "error"] if self.may_lose else ["eof"]))
        client.sock.close()
        return True

    def log(self):
        return "; the log:\n" + "".join(line for line in self.daemon.log().splitlines(True) if "Statistics:" not in line)

    def wrong_sockets(self):
        """Check that processes have the connections of admitted clients open, and no others: those are in a backlog, or closed."""
        held = [client for client in self.connections if sockdiag.inode(client.sock.family, *client.ends)]
        right = [client for client in self.connections
                 if client.state == "admitted" or client.moved and client.state == "waiting"]
        return [] if held == right else [(f"the daemon has the connections of clients {[client.number for client in held]} instead of "
                                          f"{[client.number for client in right]}", False)]

    def wrong_processes(self):
        conf, served = self.reference.conf, len(self.reference.admitted) - self.reference.in_queue()
        right = 1 + (conf.workers if conf.model == "prefork" else 1) + (served if conf.model == "process" else 0)
        count = 1 + len(self.victims())
        return [] if count == right else [(f"{count} processes instead of {right}", False)]

    # Clients

    def pick(self, number, among=None):
        among = self.clients if among is None else among
        return among[number % len(among)] if among else None

    def has_room(self):
        return len(self.clients) < MOST_CLIENTS

    @step(has_room, sources=st.lists(st.sampled_from(SOURCES), min_size=1, max_size=3), size=sizes, header=headers)
    def connect(self, sources, size, header):
        """Several clients connect at the same time."""
        for source in sources:
            self.arrive(source, size, header)
        self.settle()

    def arrive(self, source, size, header=0):
        """Connect to a listener of the family, each time to the next one. Returns None if there is none."""
        proxied = header and source != "unix"
        family = "unix" if source == "unix" else "IPv4" if "." in source or proxied else "IPv6"
        fitting = [name for name in LISTENERS if name in self.reference.conf.listen and
                   (name == "abstract" if family == "unix" and name == "abstract" else name.startswith(family))]
        if not fitting:
            return None
        listener = fitting[self.made % len(fitting)]
        if family == "unix":
            sock = socket.socket(socket.AF_UNIX)
        else:
            sock = socket.socket(socket.AF_INET6 if family == "IPv6" else socket.AF_INET)
            sock.bind((PROXY if proxied else source, 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(PATIENCE)
        sock.connect(self.addresses()[listener])
        self.made += 1
        client = Peer(self.made, source, listener, sock)
        self.clients.append(client)
        self.ever.append(client)
        self.reference.connected(client)
        if proxied:
            client.proxied = True
            text = f"PROXY TCP{6 if ':' in source else 4} {source} {source} {self.made} 7\r\n".encode()
            sock.sendall(text[:header])
            sock.sendall(text[header:])
            self.reference.header_bytes += len(text)
        sock.setblocking(False)
        client.send(size)
        return client

    @step(lambda self: self.reference.waiting, which=numbers)
    def vanish(self, which):
        """A waiting client closes its connection."""
        client = self.pick(which, self.reference.waiting)
        self.reference.vanished(client)
        self.clients.remove(client)
        client.sock.close()
        self.settle()

    @step(None, which=numbers, size=sizes)
    def send(self, which, size):
        client = self.pick(which, [client for client in self.clients if not client.half_closed])
        if client and client.sent - client.received < 200000:
            client.send(size)
            self.settle()

    @step(None, which=numbers)
    def send_urgent(self, which):
        """The urgent byte stays in its place in the stream."""
        client = self.pick(which, [client for client in self.clients if not client.half_closed and client.ends])
        if client:
            client.send(1, socket.MSG_OOB)
            self.settle()

    @step(None, which=numbers)
    def half_close(self, which):
        client = self.pick(which, [client for client in self.clients if client.reading and not client.half_closed])
        if client:
            client.end()
            self.settle()

    def leave(self, client, *reasons):
        self.reference.ended(client, *reasons)
        self.settle()

    def served_clients(self):
        """Clients that a worker certainly serves: the end of a queued connection is noticed only when a worker takes it. If as
        many clients wait for an echo as connections are in the queue, the other clients are served."""
        model = self.reference
        if model.in_queue():
            known = len(model.unserved()) == model.in_queue()
            return [client for client in model.admitted if client.reading and client.is_served()] if known else []
        return self.reference.admitted

    @step(None, which=numbers)
    def close(self, which):
        client = self.pick(which, self.served_clients())
        if client:
            client.sock.close()
            if client.reading and client.is_served():
                self.leave(client, "eof")
            else:
                self.leave(client, "eof", "reset")

    @step(None, which=numbers)
    def reset(self, which):
        client = self.pick(which, [client for client in self.served_clients() if client.ends])
        if client:
            peer.reset(client.sock)
            self.leave(client, *(["eof", "reset"] if client.half_closed else ["reset"]))

    @step(None, which=numbers)
    def stop_reading(self, which):
        """A client sends until the path is full, and does not read the echo."""
        client = self.pick(which, [client for client in self.served_clients() if client.reading and client.is_served()])
        if client:
            client.reading = False
            while client.send(1 << 16):
                pass
            self.settle()

    @step(None, which=numbers)
    def read_again(self, which):
        client = self.pick(which, [client for client in self.clients if not client.reading])
        if client:
            client.send(1)  # other bytes may come from buffers, not from a worker: see served_clients()
            client.reading = True
            self.settle()

    # Operators

    def can_reload(self):
        """No reload while clients of the proxy wait: a child may take such a client, and send it back to the end of the queue."""
        return not any(client.proxied for client in self.reference.waiting)

    def can_restart(self):
        """If a stop may be final, the supervisor first sends the unsent data of queued connections, and waits for the clients; it
        also counts the end of half-closed ones."""
        return self.can_reload() and (self.knows_restart or not self.reference.moved() and
                                      all(client.reading and not client.half_closed for client in self.clients))

    def crew(self, model, workers):
        """Keys for a model; empty if the model cannot run here."""
        model = model or self.model
        return {} if echod.REFUSALS[model] else dict(model=model, workers=1 if model == "iterative" else workers)

    @step(can_reload, model=models, workers=st.integers(1, 4), max_connections=limits, max_per_source=limits,
          deny=denied, listen=listeners)
    def reload(self, model, workers, max_connections, max_per_source, deny, listen):
        changes = self.crew(model, workers)
        if not changes:
            return
        changes.update(max_connections=max_connections, max_per_source=max_per_source, deny=deny, listen=listen)
        old = self.victims()
        self.daemon.reload(**self.keys(changes))
        self.reference.reload(reference.Conf(**changes))
        self.kills = KILLS
        self.settle_after_reload(old)

    @step(lambda self: self.can_reload() and self.has_room(), model=models, workers=st.integers(1, 4),
          sources=inet_crowds, size=sizes)
    def connect_while_reloading(self, model, workers, sources, size):
        """Clients that connect during a reload are served by the old or the new workers, with the same limits."""
        old, half, changes = self.victims(), len(sources) // 2, self.crew(model, workers)
        if not changes:
            return
        self.connect_early(sources[:half], size)
        since = self.daemon.notify.mark()
        self.daemon.configure(**changes)
        self.daemon.signal(signal.SIGHUP)
        self.connect_early(sources[half:], size)
        self.daemon.notify.wait("RELOADING=1", since=since, timeout=PATIENCE)
        self.daemon.notify.wait("READY=1", since=since, timeout=PATIENCE)
        self.reference.reload_among_clients(self.reference.conf.changed(**changes))
        self.kills = KILLS
        self.settle_after_reload(old)

    def connect_early(self, sources, size):
        for source in sources:
            client = self.arrive(source, size)
            if client:
                client.early = True

    @step(can_reload, level=st.sampled_from(("info", "debug")), connections=st.booleans(), size=st.sampled_from((512, 4096, 65536)))
    def reload_without_consequences(self, level, connections, size):
        """A reload with other log and buffer settings does not affect clients. The metrics file, written at its end, is right."""
        path = f"{self.directory}/metrics"
        before, old = metrics.line(self.daemon), self.victims()
        self.daemon.reload(log_level=level, log_connections=connections, buffer_size=size, metrics_file=path)
        self.reference.reload(self.reference.conf)
        after = metrics.line(self.daemon)
        with open(path) as file:
            found = re.findall(r'^echod_(\w+)_total(?:{reason="(\w+)"})? (\d+)$', file.read(), re.M)
        assert found, "no counters in the metrics file"
        for name, reason, count in found:
            name = f"{name} {reason}" if reason else name
            assert before.get(name, 0) <= int(count) <= after.get(name, 0), f"metrics file: {name} is {count}: {before} {after}"
        self.settle_after_reload(old)

    @step(can_restart, model=models, workers=st.integers(1, 4), max_connections=limits,
          max_per_source=limits, deny=denied, which=st.sampled_from((None, None, None, *range(MOST_CLIENTS))))
    def restart(self, model, workers, max_connections, max_per_source, deny, which):
        """A restart with the descriptor store does not affect clients. One client may reset its connection meanwhile."""
        changes = self.crew(model, workers)
        if not changes:
            return
        changes.update(max_connections=max_connections, max_per_source=max_per_source, deny=deny)
        old = self.daemon
        conf = reference.Conf(**changes, listen=self.reference.conf.listen)
        leaver = None
        # only if its end is noticed, and no other client gets its slot, or its worker, before all counters begin from 0
        before = self.reference
        others = before.waiting or before.in_queue() or before.abandoned or before.old_abandoned
        if which is not None and not others and len(before.admitted) <= conf.at_once():
            leaver = self.pick(which, [client for client in self.served_clients() if client.ends])
        old.term()
        if leaver:
            peer.reset(leaver.sock)
        proc.until(lambda: self.read_admitted(leaver) or old.popen.poll() is not None, "the end of the old process", PATIENCE)
        assert old.wait_exit(PATIENCE) == old.expect, self.log()
        kept = old.notify.take_store()
        old.configure(**changes)
        keys = {key.replace("-", "_"): value for key, value in old.keys.items() if key != "pidfile"}
        self.daemon = echod.Daemon(self.directory, env=self.env, store=True, **keys,
                                   **echod.activated([fd for _, fd in kept], ":".join(name for name, _ in kept)))
        self.daemon.wait_ready(PATIENCE)
        for _, fd in kept:
            os.close(fd)
        old.close()
        self.kills = KILLS
        self.reference.restart(conf)
        if leaver:
            restored = int(self.daemon.wait_log(r"Restored (\d+) connection").group(1))
            metrics.wait_line(self.daemon, "all restored connections", PATIENCE, connections_taken_over=restored)
            self.reference.lost(leaver, "reset", "eof", "drain", "error")
            self.reference.hand_overs_known = False
        self.settle_after_reload(())

    def read_admitted(self, leaver):
        """A daemon that does not know that a restart follows waits until all clients have their echo."""
        for client in self.reference.admitted:
            if client.reading and client is not leaver:
                client.receive()

    @step(None, text=st.sampled_from(("workers = many\n", "no-such-key = 1\n", "listen = {}\n", "/* no end",
                                      'model = "iterative"\nworkers = 4\n')))
    def reload_invalid(self, text):
        """A reload with an invalid configuration has no effect."""
        since = len(self.daemon.log())
        self.daemon.config.write_text(text)
        self.daemon.hup()
        self.daemon.wait_log(r"echod\.conf:\d+: ", since)
        self.settle()

    def victims(self):
        """The processes that may be killed: all except the supervisor."""
        return [pid for pid in descendants(self.daemon.pid)[1:] if proc.alive(pid)]

    def can_kill(self):
        """Whether a kill is possible, and it is certain which connections each process has."""
        conf = self.reference.conf
        return self.kills > 0 and not self.reference.in_queue() and not self.reference.moved() and \
            (conf.model not in echod.PROCESSES or all(client.ends for client in self.reference.admitted))

    @step(can_kill, which=numbers)
    def kill(self, which):
        """A killed process loses its own connections only."""
        self.kill_among_clients(which, (), 1)

    @step(lambda self: self.can_kill() and self.has_room(), which=numbers, sources=crowds, size=sizes)
    def connect_while_killing(self, which, sources, size):
        """Clients that connect while a process is killed lose their connections, or are served."""
        self.kill_among_clients(which, sources, size)

    def kill_among_clients(self, which, sources, size):
        model, pid = self.reference.conf.model, self.pick(which, self.victims())
        if model in echod.PROCESSES:
            lost = [client for client in self.reference.admitted if self.owner(client) == pid]
        else:
            lost = list(self.reference.admitted)
        accepts = model != "process" or not lost
        self.daemon.crash_expected = True
        self.reference.hand_overs_known = False
        self.kills -= 1
        half = len(sources) // 2
        self.connect_at_risk(sources[:half], size, accepts)
        os.kill(pid, signal.SIGKILL)
        self.connect_at_risk(sources[half:], size, accepts)
        proc.until(lambda: not proc.alive(pid), "the end of the process", PATIENCE)
        for client in lost:
            self.reference.ended(client, "error")
        self.settle()

    def owner(self, client):
        """The process that has the connection. An acceptor closes that of a child right after fork(2)."""
        def owners():
            inode = f"socket:[{sockdiag.inode(client.sock.family, *client.ends)}]"
            found = [pid for pid in self.victims() if inode in proc.descriptors(pid).values()]
            return found if len(found) == 1 else None
        return proc.until(owners, f"one process has client {client.number}", PATIENCE)[0]

    def connect_at_risk(self, sources, size, at_risk):
        for source in sources:
            client = self.arrive(source, size)
            if client:
                client.at_risk = at_risk

    @step(has_room, which=numbers, source=st.sampled_from(SOURCES), size=sizes)
    def stop_and_continue(self, which, source, size):
        """A client connects while a process is stopped."""
        pid = self.pick(which, self.victims())
        os.kill(pid, signal.SIGSTOP)
        try:
            proc.until(lambda: proc.stopped(pid), "the process has stopped", PATIENCE)
            self.arrive(source, size)
        finally:
            os.kill(pid, signal.SIGCONT)
        self.settle()

    @step(has_room, start=st.booleans(), count=st.integers(1, 2), source=st.sampled_from(SOURCES), size=sizes)
    def connect_while_failing(self, start, count, source, size):
        """A client waits until the daemon can accept it, or start a process or thread for it."""
        call = {"process": "fork", "thread": "pthread_create"}.get(self.reference.conf.model, "accept4") if start else "accept4"
        self.failing.fail(call, count)
        self.arrive(source, size)
        self.settle()
        self.failing.fail(call, 0)

    # connections of other clients are cut off after drain-timeout
    @step(lambda self: self.can_reload() and all(client.reading for client in self.clients),
          call=st.sampled_from(tuple(failing.CALLS)), count=st.integers(1, 5), model=models, workers=st.integers(1, 4))
    def reload_while_failing(self, call, count, model, workers):
        """A reload during failures succeeds, or has no effect. Connections may be drained and closed."""
        since, conf, old = len(self.daemon.log()), self.reference.conf, self.victims()
        changes = self.crew(model, workers)
        # when connections end, old workers may accept waiting clients, and hand them over before they send an echo
        waiting = [client for client in self.reference.waiting if not client.moved]
        if not changes or call in ("sendmsg", "recvmsg", "memfd_create") and not all(client.ends for client in waiting):
            return
        for client in waiting:
            client.early = bool(client.ends)
        changes.update(max_connections=conf.max_connections % reference.ANY, max_per_source=conf.max_per_source,
                       deny=sorted(conf.deny), listen=[name for name in LISTENERS if name in conf.listen])
        self.reference.sources_in_queue |= call == "recvmsg"
        self.may_lose, self.reference.hand_overs_known = True, False
        for client in self.clients:
            client.asked = client.sent
        for client in self.reference.moved():  # still in the backlog, if there is neither space in the queue nor memory
            client.at_risk = call == "memfd_create"
        self.failing.fail(call, count)
        self.daemon.configure(**self.keys(changes))
        self.daemon.signal(signal.SIGHUP)  # the notification may fail as well
        said = self.daemon.wait_log("(Reloaded|Reload failed)", since, PATIENCE).group(1)
        if said == "Reloaded":
            self.reference.reload(reference.Conf(**changes))
        else:
            self.daemon.configure(model=conf.model, workers=conf.workers)
            old = ()
        self.settle_after_reload(old)
        self.failing.fail(call, 0)
        self.may_lose = False

    # The end

    def teardown(self):
        """Record each failure, also those that hypothesis does not report: an error of close() after the end of a program, or a
        failure that does not happen again when hypothesis repeats the program."""
        pending = sys.exc_info()[1]  # of a rule; not an Exception if hypothesis ends the program
        failure = pending if isinstance(pending, Exception) else None
        try:
            if self.daemon and not pending:
                self.finish()
        except Exception as error:
            failure = error
            raise
        finally:
            try:
                self.close_all()
            except Exception as error:
                failure = failure or error
                raise
            finally:
                if failure:
                    self.report(failure)

    def close_all(self):
        for client in self.clients:
            client.sock.close()
        try:
            if self.daemon:
                self.daemon.close()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def report(self, failure):
        """Record a failure. The first one ends the search; SHRINKING seconds remain to find a shorter program."""
        machine = type(self)
        if not machine.failure:
            machine.until = time.monotonic() + SHRINKING
            print(f"First failure, of {machine.__name__}, after {steps[self.model]} steps and {time.monotonic() - self.began:.0f} s: "
                  f"{failure}", *self.program, sep="\n    ", flush=True)
        if not machine.failure or len(self.program) < len(machine.failed_program):
            machine.failure, machine.failed_program = failure, self.program

    def all_leave(self):
        for client in self.clients:
            client.reading = True
            if not client.half_closed:
                client.end()
        self.settle()
        assert not self.clients and not self.reference.admitted, "clients are left"

    def finish(self):
        """End all connections. Check that all slots and sources are free, and no descriptor, process or connection is left."""
        self.finishing = True
        self.all_leave()
        conf = self.reference.conf
        for source in SOURCES:
            if source not in conf.deny:
                for _ in range(min(conf.capacity(), conf.max_per_source or 2)):
                    self.arrive(source, 1)
                self.settle()
                self.all_leave()
        self.reload(**self.initial)
        proc.until(lambda: self.daemon.descriptors() <= self.descriptors,
                   lambda: f"{self.daemon.descriptors()} descriptors instead of {self.descriptors}", PATIENCE)


def descendants(pid):
    """The pids of a process and of all its descendants."""
    found = [pid]
    for one in found:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, proc.read(f"/proc/{one}/task/{task}/children").split())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


# A class for each model, so that a failing program names it: `state = Epoll()`.
MACHINES = {model: type(model.capitalize(), (Machine,), {"model": model, "__module__": __name__}) for model in echod.MODELS}
globals().update({machine.__name__: machine for machine in MACHINES.values()})
