# SPDX-License-Identifier: ISC
"""A daemon in a network namespace, scripted hosts behind a tun device, and the record of the connections."""

import collections
import re

import pytest

import echod
import metrics
import netns
import peer
import proc
import wire as wires

IPV6_MODELS = ("epoll", "io_uring")  # the daemon's code is the same for both address families
KEPT = 6  # daemons that run at the same time


def pytest_generate_tests(metafunc):
    if "scene" in metafunc.fixturenames:
        metafunc.parametrize("family", [4, 6] if echod.have_ipv6() else [4], ids=lambda family: f"ipv{family}")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks in the same hook
def pytest_collection_modifyitems(config, items):
    """All models over IPv4, some over IPv6; the tests of each one after the other and, with pytest-xdist, in one process, since
    they share daemons."""
    def params(item):  # of a test of this directory; others, in the same run of pytest, have none
        return item.callspec.params if "scene" in getattr(item, "fixturenames", ()) else {}
    dropped = [item for item in items if params(item).get("family") == 6 and params(item)["model"] not in IPV6_MODELS]
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=dropped)
    items.sort(key=lambda item: (params(item).get("family", 0), echod.MODELS.index(params(item).get("model", "epoll"))))
    for item in items:
        if "family" in params(item):
            item.add_marker(pytest.mark.xdist_group(f"{params(item)['model']}-{params(item)['family']}"))


@pytest.fixture(scope="session")
def network():
    """A netns.Namespace and its Wire."""
    with netns.make(wires.prepare) as namespace:
        try:
            wire = wires.Wire(namespace)
        except OSError as error:
            pytest.skip(f"no tun device here: {error}")
        yield namespace, wire
        wire.close()


class Scene:
    """One daemon, for one or more tests. ended() records each connection; finish() compares the record with the daemon's
    metrics, and checks that no resource of the connections is left."""

    def __init__(self, network, directory, model, family, keys):
        self.namespace, self.wire = network
        self.model, self.family = model, family
        self.daemon = echod.Daemon(directory, model, **{
            "listen": ["*"], "log_level": "debug", "wrap": self.namespace.wrap(), "notify_file": True,
            "workers": 1 if model in echod.LOOPS else echod.default_workers(model), **keys})
        self.one_at_a_time = model == "iterative" or keys.get("max_connections") == 1
        self.reasons = collections.Counter()
        self.refusals = 0
        self.waiting = []

    def begin(self):
        self.daemon.wait_ready()
        self.port = self.daemon.port
        self.processes = {stat.pid for stat in self.daemon.tree()}
        self._visit()
        metrics.wait_line(self.daemon, "the end of the first visit", connections=0)
        self.descriptors = self.daemon.descriptors()
        return self

    def host(self, **more):
        return wires.Host(self.wire, self.family, self.port, **more)

    def connect(self, **more):
        return self.host(**more).connect()

    def turns(self, count):
        """Numbered and connected hosts, in lists of at most as many as the daemon serves at the same time."""
        most = 1 if self.one_at_a_time else count
        for first in range(0, count, most):
            yield [(number, self.connect()) for number in range(first, first + most)]

    # Other clients

    def _begin_visit(self):
        self.waiting.append(self.namespace.connect("127.0.0.1", ("127.0.0.1", self.port)))
        self.waiting[-1].sendall(b"another client")
        self.reasons["eof"] += 1

    def _end_visit(self):
        sock = self.waiting.pop(0)
        peer.same(peer.receive(sock, 14), b"another client")
        peer.finish(sock)

    def _end_visits(self):
        while self.waiting:
            self._end_visit()

    def _visit(self):
        self._begin_visit()
        self._end_visits()

    def others(self):
        """Another client is served, now or, where the daemon serves one at a time, after the hosts' connections."""
        self._begin_visit()
        if not self.one_at_a_time:
            self._end_visits()

    # The end of connections

    def account(self, reason):
        """Expect the daemon to count one more connection that ended for `reason`."""
        self.reasons[reason] += 1

    def refused(self, reason):
        """Like account(), for a connection that is not counted as accepted."""
        self.account(reason)
        self.refusals += 1

    def ended(self, host, reason, echoed=None):
        """The daemon has logged the end of the host's connection for `reason`, after `echoed` bytes."""
        proc.until(lambda: self.wire.pump() or self.daemon.end_lines(host.name),
                   lambda: f"the end of {host.name} in:\n{self.daemon.log()}")
        line = self.daemon.connection_line(host.name, reason)
        assert re.search(rf"ended: {reason},", line), line
        if echoed is not None:
            assert f" {echoed} bytes echoed" in line, line
        self.account(reason)
        if self.one_at_a_time:
            self._end_visits()

    def finish(self):
        """Check that the daemon serves other clients, that its counters are right, and that no descriptor or process is left."""
        self._end_visits()
        self._visit()
        counts = {f"connections_ended__{reason}": count for reason, count in self.reasons.items()}
        metrics.wait_line(self.daemon, "the record of connections", connections=0,
                          connections_accepted=sum(self.reasons.values()) - self.refusals, **counts)
        line = metrics.line(self.daemon)
        known = {f"connections_ended {reason}" for reason in self.reasons}
        assert not [name for name in line if name.startswith("connections_ended") and name not in known and line[name]], line
        assert not line.get("idle_wakeups"), f"a worker spins: {line}"
        proc.until(lambda: self.daemon.descriptors() <= self.descriptors,
                   lambda: f"{self.descriptors} descriptors again, there are {self.daemon.descriptors()}")
        proc.until(lambda: {stat.pid for stat in self.daemon.tree()} == self.processes, "the processes of the start")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.passed = outcome.get_result().passed


@pytest.fixture(scope="session")
def scenes():
    """The scenes with running daemons, by model, address family and configuration."""
    running = {}
    yield running
    for one in running.values():
        one.daemon.close()


@pytest.fixture
def scene(network, scenes, tmp_path_factory, model, family, request):
    """scene(key=value, ...): a Scene with a daemon of this configuration, possibly one that other tests have used. After
    a test that has passed, finish() is called."""
    used = []

    def scene(**keys):
        name = (model, family, str(sorted(keys.items())))
        used.append(name)
        if name not in scenes:
            while len(scenes) >= KEPT:
                scenes.pop(next(iter(scenes))).daemon.close()
            directory = tmp_path_factory.mktemp("scene")
            directory.chmod(0o755)
            scenes[name] = Scene(network, directory, model, family, keys)
            scenes[name].begin()
        return scenes[name]
    yield scene
    for name in used:
        passed = getattr(request.node, "passed", False)
        try:
            if passed and scenes[name].daemon.returncode is None:
                scenes[name].finish()
                continue
        except BaseException:
            scenes.pop(name).daemon.close()
            raise
        scenes.pop(name).daemon.close()
