# SPDX-License-Identifier: ISC
"""The expected behaviour of the daemon: a model of the service with clients, limits and counters, but without sockets.

The state machine reports events to it (a client connects, gets bytes, is refused, ends; a reload is applied). After each step
due() returns the events that must still happen, and check() fails if an event has happened that must not happen.

A client is in one of three states:

    waiting     connected, in the backlog of its listener; or, if a reload has removed the listener, `moved`: in the queue
                between workers, and not admitted yet
    admitted    holds a connection slot: a worker serves it, or it waits in the queue after a reload
    gone        refused or ended; `abandoned` clients closed their connections in the backlog: the daemon notices that only when it
                accepts them

A restart with the descriptor store is a reload after which all counters are 0. The model does not predict the order in which
several workers accept, nor the order in which connections leave the queue, but everything that follows from the limits.
"""

import collections

ANY = 10 ** 9  # no limit
SERIAL = ("iterative", "prefork", "prethread")
SPAWN = ("process", "thread")
REASONS = ("eof", "reset", "idle", "limit", "denied", "proxy", "drain", "error")


class Conf:
    """The settings that affect the behaviour. `workers` 0 is the default of the model."""

    def __init__(self, model, workers, max_connections, max_per_source, deny, listen):
        self.model, self.workers, self.max_per_source, self.deny = model, workers, max_per_source, frozenset(deny)
        self.listen = frozenset(listen)
        self.max_connections = max_connections or ANY

    def changed(self, model, workers):
        return Conf(model, workers, self.max_connections % ANY, self.max_per_source, self.deny, self.listen)

    def at_once(self):
        """The number of connections that are served at the same time, without regard to max-connections."""
        if self.model in SERIAL:
            return 1 if self.model == "iterative" else self.workers
        return self.workers or ANY if self.model in SPAWN else ANY

    def capacity(self):
        return min(self.max_connections, self.at_once())


class Client:
    def __init__(self, number, source, listener):
        self.number, self.source, self.listener = number, source, listener
        self.state, self.moved = "waiting", False
        self.sent = self.received = 0
        self.sent_before = self.received_before = 0  # at the last restart
        self.reading = True      # the client reads the echo
        self.half_closed = False
        self.at_risk = False     # the process that is killed in this step may serve this client
        self.early = False       # the client connected during the reload of this step
        self.unsure = False      # a process before the restart may have counted it as accepted or refused
        self.proxied = False     # its stream begins with a PROXY protocol header

    def is_served(self):
        """Whether the client has received everything: the echo of all its bytes and, after a half-close, the end of the stream."""
        return not self.reading or (self.received == self.sent and not self.half_closed)

    def bytes_least(self):
        return max(0, self.received - self.sent_before)

    def bytes_most(self):
        return self.sent - self.received_before


class Reference:
    def __init__(self, conf):
        self.conf = conf
        self.waiting, self.admitted = [], []  # in the order of their arrival
        self._count_from(0)
        self.abandoned, self.old_abandoned = [], []  # old: a process before a restart may have counted them
        self.header_bytes = 0  # PROXY protocol headers, and bytes after them if the client was refused: received and not echoed
        self.hand_overs_known = True  # no process was killed, no call failed
        self._step()

    def _count_from(self, restored):
        self.counters = collections.Counter()  # exact
        self.unsure = []                       # ends for one of several reasons, which depend on the bytes in flight
        self.maybe_accepted = 0                # of clients that were abandoned or at risk
        self.maybe_ended = []                  # reasons of ends that a killed process may have left uncounted
        self.bytes_least = self.bytes_most = 0  # of clients in the state gone
        self.restored = restored

    def _step(self):
        """A new step begins."""
        self.before = collections.Counter(client.source for client in self.admitted)
        self.left, self.refused_now, self.passed = collections.Counter(), [], []
        # moved clients are not limited by capacity(): a worker may take any of them before admitted ones that are in the queue
        self.most = max(self.conf.capacity(), len(self.admitted)) + len(self.moved())
        # clients may be accepted while others of the same source are in the queue, where they do not count
        self.sources_in_queue = self.in_queue() + len(self.moved()) > 0
        # an acceptor counts the connection of a child until it has reaped the child, also if a new worker counts it already
        self.sources_count_twice = False

    # Events

    def begin(self, line):
        """Begin a step: daemon and model agree. `line` has the counters for ends that could be counted in several ways."""
        self._step()
        if not self.abandoned + self.old_abandoned:
            for name in ["connections_accepted"] + ["connections_ended " + reason for reason in REASONS]:
                self.counters[name] = line.get(name, 0)
            self.maybe_accepted, self.maybe_ended, self.unsure = 0, [], []

    def reload(self, conf):
        """New workers may accept connections before they take those of the old workers; connections from the backlogs of removed
        listeners are added to them. A client of such a backlog that is still in the queue at the next reload may leave it before
        the connections of old workers, which are counted for their sources when new workers take them."""
        self.sources_count_twice |= self.conf.model == "process"
        self.conf, self.sources_in_queue = conf, True
        for client in self.waiting:
            client.moved |= client.listener not in conf.listen
        self.most = max(min(conf.max_connections, conf.at_once() + len(self.admitted)), len(self.admitted)) + len(self.moved())

    def reload_among_clients(self, conf):
        """Old workers may have accepted clients that connected in this step."""
        old = self.conf.capacity()
        self.reload(conf)
        self.most = max(self.most, min(conf.max_connections, conf.at_once() + max(old, len(self.admitted))))

    def restart(self, conf):
        self.reload(conf)
        self._count_from(len(self.admitted))
        self.old_abandoned, self.abandoned = self.old_abandoned + self.abandoned, []
        for client in self.moved():  # taken from the queue, or an abandoned one was: the counters are the same
            client.unsure |= bool(self.old_abandoned)
        for client in self.admitted + self.waiting:  # the supervisor may have echoed bytes of queued connections
            client.sent_before, client.received_before = client.sent, client.received

    def connected(self, client):
        self.waiting.append(client)

    def accepted(self, client):
        """The client received its first byte or, without having sent any, the end of the stream."""
        self.waiting.remove(client)
        self.admitted.append(client)
        self.passed.append(client)
        client.state = "admitted"
        if client.at_risk or client.unsure:
            self.maybe_accepted += 1
        else:
            self.counters["connections_accepted"] += 1
        assert client.source not in self.conf.deny, f"client {client.number} is served, although {client.source} is denied"

    def accepted_undo(self, client):
        """Undo accepted(): the client was accepted, but then refused."""
        self.admitted.remove(client)
        self.passed.remove(client)
        self.waiting.append(client)
        client.state = "waiting"
        self.counters["connections_accepted"] -= 1

    def vanished(self, client):
        """The client has closed its connection before it was served."""
        self.waiting.remove(client)
        client.state = "gone"
        self.abandoned.append(client)

    def refused(self, client):
        self.waiting.remove(client)
        self.passed.append(client)
        client.state = "gone"
        self.header_bytes += client.sent if client.proxied else 0
        reason = "denied" if client.source in self.conf.deny else "limit"
        if client.unsure:
            self.maybe_ended.append(("denied", "limit"))
        else:
            self.counters["connections_ended " + reason] += 1
        if reason == "limit":
            self.refused_now.append(client)

    def ended(self, client, *reasons):
        """The connection of an admitted client has ended; the daemon counts one of the reasons."""
        self.admitted.remove(client)
        self.left[client.source] += 1
        client.state = "gone"
        if len(reasons) == 1:
            self.counters["connections_ended " + reasons[0]] += 1
        else:
            self.unsure.append(reasons)
        self.bytes_least += client.bytes_least()
        self.bytes_most += client.bytes_most()

    def lost(self, client, *reasons):
        """The connection of a client at risk has ended: it was refused, or lost with the killed process, which may have counted it
        or not. Or the client closed it while the daemon restarted."""
        if client.state == "waiting":
            self.maybe_accepted += 1
            self.waiting.remove(client)
        else:
            self.admitted.remove(client)
        client.state = "gone"
        self.left[client.source] += 1
        self.maybe_ended.append(reasons)
        self.bytes_most += client.bytes_most()

    # Questions

    def unserved(self):
        return [client for client in self.admitted if not client.is_served()]

    def moved(self):
        return [client for client in self.waiting if client.moved]

    def slots_are_free(self):
        return len(self.admitted) + len(self.moved()) < self.conf.capacity()

    def in_queue(self):
        """The number of admitted connections in the queue: the workers serve others."""
        return max(0, len(self.admitted) - self.conf.at_once())

    def due(self):
        """A text about an event that must still happen; empty if the step is complete."""
        if self.waiting and (self.slots_are_free() or self.moved() and len(self.admitted) < self.conf.at_once()):
            return f"a client waits while {len(self.admitted)} of {self.conf.capacity()} slots are taken"
        if len(self.unserved()) > self.in_queue():
            return f"{len(self.unserved())} clients are not served, of which {self.in_queue()} may wait"
        return ""

    def check(self):
        """Check a complete step: no event has happened that must not happen."""
        conf = self.conf
        assert len(self.admitted) <= self.most, f"{len(self.admitted)} clients are admitted, {self.most} may be"
        for source, count in collections.Counter(client.source for client in self.admitted).items():
            most = conf.max_per_source if conf.max_per_source and source != "unix" else ANY
            more = most if self.sources_in_queue else 0
            assert count <= max(most, self.before[source]) + more, f"{count} connections from {source}, {most} may be"
        for client in self.refused_now:
            sources = [other.source for other in self.admitted + self.abandoned + self.old_abandoned]
            admitted = sources.count(client.source) * (2 if self.sources_count_twice else 1) + self.left[client.source]
            assert 0 < conf.max_per_source <= admitted and client.source != "unix", \
                f"client {client.number} was refused, although {client.source} has {admitted} of {conf.max_per_source} connections"
        for client in self.passed:
            earlier = [other for other in self.waiting if other.listener == client.listener and other.number < client.number
                       and not other.moved]
            assert not earlier, f"client {client.number} was accepted before client {earlier[0].number}, which waits"

    def abandoned_noticed(self):
        """When a slot is free, the daemon has accepted all abandoned connections: each was refused, or has ended."""
        for client in self.abandoned:
            self.unsure.append(("eof", "reset", "limit", "denied"))
            self.bytes_most += client.sent
            self.left[client.source] += 1
        self.maybe_accepted += len(self.abandoned)
        self.abandoned = []

    def disagreements(self, line):
        """Differences between the statistics line and the model: [(text, final)]. Those that are not final may disappear."""
        if self.slots_are_free():
            self.abandoned_noticed()
        queue, abandoned = self.in_queue(), len(self.abandoned + self.old_abandoned)
        least = {**self.counters, "connections": len(self.admitted) - queue}
        most = {**least, "connections": len(self.admitted), "connections_damaged": 0, "connections_cut_off": 0}
        most["connections_accepted"] = self.counters["connections_accepted"] + self.maybe_accepted + abandoned
        unsure = self.unsure + self.maybe_ended + [("eof", "reset", "limit", "denied")] * abandoned
        for reason in REASONS:
            name = "connections_ended " + reason
            most[name] = self.counters[name] + sum(reason in reasons for reasons in unsure)
        least["echoed_bytes"] = least["received_bytes"] = self.bytes_least + sum(client.bytes_least() for client in self.admitted)
        most["echoed_bytes"] = self.bytes_most + sum(client.bytes_most() for client in self.admitted) + \
            sum(client.sent for client in self.abandoned + self.old_abandoned)
        most["received_bytes"] = most["echoed_bytes"] + self.header_bytes + \
            sum(client.sent for client in self.waiting if client.proxied)
        found = []
        for name, limit in most.items():
            if not least.get(name, 0) <= line.get(name, 0) <= limit:
                final = line.get(name, 0) > limit and name != "connections"
                found.append((f"{name} is {line.get(name, 0)} instead of {least.get(name, 0)} to {limit}", final))
        ends = sum(line.get("connections_ended " + reason, 0) for reason in REASONS)
        right = sum(self.counters["connections_ended " + reason] for reason in REASONS) + len(self.unsure)
        more = abandoned + len(self.maybe_ended)
        if not right <= ends <= right + more:
            found.append((f"{ends} connections ended instead of {right} to {right + more}", ends > right + more))
        passed = self.restored + line.get("connections_handed_over", 0) - line.get("connections_taken_over", 0)
        if self.hand_overs_known and passed != queue:
            found.append((f"{passed} connections were handed over and not taken over, instead of {queue}", False))
        return found
