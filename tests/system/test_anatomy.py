# SPDX-License-Identifier: ISC
"""The number of system calls of an echo and of a connection: an additional one fails here.

With one client the numbers are exact. With more, how many messages a wait finds varies, so there are upper bounds.
"""

import contextlib
import os
import time

import pytest

import calls
import echod

pytestmark = [
    pytest.mark.skipif(calls.cannot_trace() is not None, reason=str(calls.cannot_trace())),
    pytest.mark.skipif(echod.SANITIZED, reason="sanitizers make system calls of their own"),
]

CLIENTS, DEPTH, REPEAT = 50, 16, 10

# Calls of an echo with one client: wait, receive, send. io_uring: wait for the message, submit the send and wait for its end.
ECHO = {"iterative": 3, "process": 3, "prefork": 3, "thread": 3, "prethread": 3, "select": 3, "poll": 3, "epoll": 3, "io_uring": 2}


@pytest.fixture
def traced(start, tmpdir):
    """traced(model): a daemon without activity of its own, and the recording of its calls."""
    def begin(model, **keys):
        path = os.path.join(tmpdir, "trace")
        daemon = start(model, **{"wrap": calls.wrap(path), "stats_interval": 0, "log_connections": False, "protocols": ["tcp"], **keys})
        return daemon, calls.Recording(daemon.pid, path)
    return begin


@contextlib.contextmanager
def connected(daemon, count):
    """`count` connections that were accepted."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(daemon.connect()) for _ in range(count)]
        calls.exchange(socks)
        yield socks


def workers(model):
    return 1 if model in echod.LOOPS else echod.default_workers(model)


def test_echo(traced, model):
    daemon, recording = traced(model, workers=workers(model))
    with connected(daemon, 1) as socks:
        for _ in range(REPEAT):
            found = recording.during(lambda: calls.exchange(socks))
            assert len(found) == ECHO[model], found


# Calls of a connection with one echo, those of libc left out (calls.OF_LIBC): accept, wait, receive, send, wait, receive the end
# of file, close, and wait for the next client. Additional calls:
#   process   the acceptor closes the connection, waits, reads the signalfd, and waits for the child; the child closes the epoll
#             set, the signalfd, the ready pipe and the listener, and seals its memory
#   epoll     the connection is put into the epoll set
# io_uring accepts, receives and sends in the ring; the kernel determines how often the program has to enter the ring.
CONNECTION = {"iterative": 8, "process": 17, "prefork": 8, "thread": 8, "prethread": 8, "select": 8, "poll": 8, "epoll": 9,
              "io_uring": 6}

# The most calls of libc for a connection: what creates and ends the thread or process.
CONNECTION_LIBC = {"process": 10, "thread": 12}


def own_calls(names):
    return [name for name in names if name not in calls.OF_LIBC]


def test_connection(traced, model):
    daemon, recording = traced(model, workers=workers(model))
    calls.visit(daemon.address)
    found = [recording.during(lambda: calls.visit(daemon.address)) for _ in range(REPEAT)]
    own = [own_calls(each) for each in found]
    if model == "io_uring":
        assert max(map(len, own)) <= CONNECTION[model] + 2, own
        assert all([name for name in each if name != "io_uring_enter"] == ["getpeername", "close"] for each in own), own
    else:
        # After some iterations that accepted a connection an event loop tries to accept two per iteration: see accept_adapt().
        assert min(map(len, own)) == CONNECTION[model], own
        assert max(map(len, own)) <= CONNECTION[model] + (model in echod.LOOPS), own
    assert max(len(each) - len(mine) for each, mine in zip(found, own)) <= CONNECTION_LIBC.get(model, 0), found


# The limit of log lines about connections per source address: LINES in INTERVAL seconds (src/models/session.c).
LINES, INTERVAL = 250, 10


def test_connection_without_a_line(traced, model):
    """A connection whose log line is suppressed by the rate limit makes no more system calls than one without logging."""
    # each process of a pool has a rate limit of its own
    daemon, recording = traced(model, workers=1 if model == "prefork" else workers(model), log_connections=True)
    for _ in range(6):
        began = time.monotonic() // INTERVAL
        for _ in range(LINES + 1):
            calls.visit(daemon.address)
        # without the supervisor, which reports from time to time how many lines were suppressed
        found = own_calls(recording.during(lambda: calls.visit(daemon.address), [daemon.pid]))
        if time.monotonic() // INTERVAL == began:
            assert len(found) <= CONNECTION[model] + {"io_uring": 2}.get(model, model in echod.LOOPS), found
            return
    pytest.skip(f"{LINES} connections take longer than {INTERVAL} s here")


@pytest.mark.models(*echod.LOOPS)
def test_echoes_of_many(traced, model):
    """One wait of an event loop returns the messages of all clients; in io_uring, one call serves several clients."""
    daemon, recording = traced(model, workers=1)
    with connected(daemon, CLIENTS) as socks:
        found = recording.during(lambda: calls.stopped_exchange(daemon, socks), [daemon.pid])
    assert len(found) <= (0.2 if model == "io_uring" else 2.2) * CLIENTS, found


@pytest.mark.models(*echod.SERIAL[1:], *echod.SPAWN)
def test_echoes_of_many_blocking(traced, model):
    """Each worker has one client: as many calls as with one client."""
    daemon, recording = traced(model, workers=0 if model in echod.SPAWN else CLIENTS)
    with connected(daemon, CLIENTS) as socks:
        found = recording.during(lambda: calls.exchange(socks))
    assert len(found) == ECHO[model] * CLIENTS, found


def test_messages_in_flight(traced, model):
    """One receive returns all messages of a client, and one send echoes them."""
    daemon, recording = traced(model, workers=workers(model))
    with connected(daemon, 1) as socks:
        found = recording.during(lambda: calls.exchange(socks, b"x" * 64 * DEPTH))
    assert len(found) == ECHO[model], found
