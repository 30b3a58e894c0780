# SPDX-License-Identifier: ISC
"""What the daemon must do: a model of the service that knows clients, limits and counters, but no sockets.

The machine reports events to it (a client connects, gets bytes, is refused, ends; a reload is applied) and asks after each
step whether everything that is due has happened: due(). check() then fails where the daemon did what it must not do.

A client is in one of three states:

    waiting     connected, in the backlog of its listener
    admitted    holds a connection slot: a worker serves it, or it waits in the queue between workers after a reload
    gone        refused or ended

The order in which several workers accept is not predicted, nor in which order connections leave the queue; all that follows
from the limits is.
"""

import collections

ANY = 10 ** 9  # no limit
SERIAL = ("iterative", "prefork", "prethread")
SPAWN = ("process", "thread")
REASONS = ("eof", "reset", "idle", "limit", "denied", "drain", "error")


class Conf:
    """The settings that decide about service. `workers` 0 is the default of the model."""

    def __init__(self, model, workers=0, max_connections=0, max_per_source=0, deny=()):
        self.model, self.workers, self.max_per_source, self.deny = model, workers, max_per_source, frozenset(deny)
        self.max_connections = max_connections or ANY

    def at_once(self):
        """How many connections are served at the same time, whatever max-connections is."""
        if self.model in SERIAL:
            return 1 if self.model == "iterative" else self.workers
        return self.workers or ANY if self.model in SPAWN else ANY

    def capacity(self):
        return min(self.max_connections, self.at_once())


class Client:
    def __init__(self, number, source, listener):
        self.number, self.source, self.listener = number, source, listener
        self.state = "waiting"
        self.sent = self.received = 0
        self.reading = True      # it takes what comes back
        self.half_closed = False

    def is_served(self):
        """Got all that is due to it: the echo of what it sent and, after a half-close, the end."""
        return not self.reading or (self.received == self.sent and not self.half_closed)


class Reference:
    def __init__(self, conf):
        self.conf = conf
        self.waiting, self.admitted = [], []  # in the order of their arrival
        self.counters = collections.Counter()  # exact
        self.unsure = []                       # ends for one of several reasons, which depend on what was in flight
        self.bytes_least = self.bytes_most = 0  # of clients that are gone
        self._step()

    def _step(self):
        """A new step begins."""
        self.before = collections.Counter(client.source for client in self.admitted)
        self.admitted_before = len(self.admitted)
        self.left, self.refused_now, self.passed = collections.Counter(), [], []
        self.most = self.conf.capacity()

    # Events

    def begin(self):
        self._step()

    def reload(self, conf):
        """New workers may accept connections of their own before they take those of their predecessors."""
        self.conf = conf
        self.most = min(conf.max_connections, conf.at_once() + len(self.admitted))

    def connected(self, client):
        self.waiting.append(client)

    def accepted(self, client):
        """It got its first byte, or the end in good order."""
        self.waiting.remove(client)
        self.admitted.append(client)
        self.passed.append(client)
        client.state = "admitted"
        self.counters["connections_accepted"] += 1
        assert client.source not in self.conf.deny, f"client {client.number} is served, although {client.source} is denied"

    def refused(self, client):
        self.waiting.remove(client)
        self.passed.append(client)
        client.state = "gone"
        if client.source in self.conf.deny:
            self.counters["connections_ended denied"] += 1
        else:
            self.counters["connections_ended limit"] += 1
            self.refused_now.append(client)

    def ended(self, client, *reasons):
        """An admitted client is gone; the daemon counts one of the reasons."""
        self.admitted.remove(client)
        self.left[client.source] += 1
        client.state = "gone"
        if len(reasons) == 1:
            self.counters["connections_ended " + reasons[0]] += 1
        else:
            self.unsure.append(reasons)
        self.bytes_least += client.received
        self.bytes_most += client.sent

    # Questions

    def unserved(self):
        return [client for client in self.admitted if not client.is_served()]

    def in_queue(self):
        """How many admitted connections wait because the workers are busy with others."""
        return max(0, len(self.admitted) - self.conf.at_once())

    def due(self):
        """What must still happen, in words; empty when the step is complete."""
        if self.waiting and len(self.admitted) < self.conf.capacity():
            return f"a client waits while {len(self.admitted)} of {self.conf.capacity()} slots are taken"
        if len(self.unserved()) > self.in_queue():
            return f"{len(self.unserved())} clients are not served, of which {self.in_queue()} may wait"
        return ""

    def check(self):
        """The step is complete: nothing has happened that must not happen."""
        conf = self.conf
        assert len(self.admitted) <= max(self.most, self.admitted_before), \
            f"{len(self.admitted)} clients are admitted, {self.most} may be"
        for source, count in collections.Counter(client.source for client in self.admitted).items():
            most = conf.max_per_source if conf.max_per_source and source != "unix" else ANY
            assert count <= max(most, self.before[source]), f"{count} connections from {source}, {most} may be"
        for client in self.refused_now:
            admitted = sum(other.source == client.source for other in self.admitted) + self.left[client.source]
            assert 0 < conf.max_per_source <= admitted and client.source != "unix", \
                f"client {client.number} was refused, although {client.source} has {admitted} of {conf.max_per_source} connections"
        for client in self.passed:
            earlier = [other for other in self.waiting if other.listener == client.listener and other.number < client.number]
            assert not earlier, f"client {client.number} was accepted before client {earlier[0].number}, which waits"

    def disagreements(self, line):
        """What the statistics line says otherwise; each with whether the counter may still grow to what is right."""
        least = {**self.counters, "connections": len(self.admitted) - self.in_queue()}
        most = dict(least)
        most["connections"] = len(self.admitted)
        for reason in REASONS:
            name = "connections_ended " + reason
            least[name] = self.counters[name]
            most[name] = least[name] + sum(reason in reasons for reasons in self.unsure)
        received = [sum(client.received for client in self.admitted), sum(client.sent for client in self.admitted)]
        for name in ("received_bytes", "echoed_bytes"):
            least[name], most[name] = self.bytes_least + received[0], self.bytes_most + received[1]
        most["connections_damaged"] = most["connections_cut_off"] = 0
        found = []
        for name, limit in most.items():
            if not least.get(name, 0) <= line.get(name, 0) <= limit:
                final = line.get(name, 0) > limit and name != "connections"
                found.append((f"{name} is {line.get(name, 0)} instead of {least.get(name, 0)} to {limit}", final))
        ends = sum(line.get("connections_ended " + reason, 0) for reason in REASONS)
        right = sum(self.counters["connections_ended " + reason] for reason in REASONS) + len(self.unsure)
        if ends != right:
            found.append((f"{ends} connections ended instead of {right}", ends > right))
        return found
