# SPDX-License-Identifier: ISC
"""The workers of each model: processes or threads, their number, and the end of a worker."""

import os
import signal

import pytest

import echod
import peer
import proc


def test_list_models_is_the_table():
    """Each of the nine models has a row: the server of a connection, the unit of `workers`, and whether the model runs here."""
    result = echod.run("--list-models")
    assert result.returncode == echod.EX_OK
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.split()}
    for model in echod.MODELS:
        assert model in rows, result.stdout
        assert len(rows[model].split()) > 3, rows[model]
    assert not result.stderr


def test_model_that_cannot_run_is_refused_before_ready(launch):
    """A model whose row has "no" is refused, and not replaced by another model."""
    refused = {name: reason for name, reason in echod.REFUSALS.items() if reason}
    if not refused:
        pytest.skip("every model runs here")
    for name, reason in refused.items():
        said = launch(name).fails(echod.EX_CONFIG)
        assert name in said


# Processes and threads

counts_threads = pytest.mark.skipif(echod.THREAD_SANITIZED, reason="ThreadSanitizer adds threads of its own")


def shape(daemon):
    """The number of the supervisor's children, of their children, and of threads in all of these."""
    children = daemon.workers()
    grandchildren = [stat.pid for child in children for stat in proc.children(child)]
    return len(children), len(grandchildren), sum(proc.threads(pid) for pid in children + grandchildren)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.models("prefork")
def test_prefork_has_the_configured_number_of_processes(start, model, workers):
    daemon = start(model, workers=workers)
    assert shape(daemon) == (workers, 0, workers)


@counts_threads
@pytest.mark.models("prethread", "select", "poll", "epoll", "io_uring")
def test_workers_counts_threads_of_one_process(start, model):
    one, three, five = (shape(start(model, workers=workers)) for workers in (1, 3, 5))
    assert one[:2] == three[:2] == five[:2] == (1, 0)
    assert three[2] - one[2] == 2 and five[2] - one[2] == 4, (one, three, five)
    assert five[2] <= 6, "five workers, and one thread for the crew at most"


@pytest.mark.models("select", "poll", "epoll", "io_uring")
def test_zero_workers_are_as_many_as_processors(start, model):
    available = len(os.sched_getaffinity(0))
    assert shape(start(model, workers=0)) == shape(start(model, workers=available))


@pytest.mark.models("prefork", "prethread")
@pytest.mark.timeout(120)
def test_zero_workers_are_sixty_four_in_a_pool(start, model):
    assert shape(start(model, workers=0)) == shape(start(model, workers=64))


@pytest.mark.models("iterative")
def test_iterative_is_one_worker(start, model):
    daemon = start(model)
    assert shape(daemon)[:2] == (1, 0)
    assert shape(daemon)[2] <= 2
    assert shape(start(model, workers=1)) == shape(daemon)


@counts_threads
@pytest.mark.models("process", "thread")
def test_each_connection_is_a_process_or_thread(start, model):
    daemon = start(model)
    daemon.visit()
    daemon.wait_processes(2)
    base = shape(daemon)
    crowd = [daemon.connect() for _ in range(5)]
    for sock in crowd:
        peer.echo(sock, b"hello")
    with_five = shape(daemon)
    if model == "process":
        assert with_five == (1, 5, base[2] + 5)
    else:
        assert with_five == (1, 0, base[2] + 5)
    for sock in crowd:
        sock.close()
    proc.until(lambda: shape(daemon) == base, lambda: f"{base} again instead of {shape(daemon)}")


def test_the_supervisor_has_one_thread(start, model):
    daemon = start(model)
    daemon.visit()
    assert proc.threads(daemon.pid) == 1


# Limits of the models

@pytest.mark.models("iterative", "process", "prefork", "thread", "prethread")
def test_client_beyond_the_workers_waits_for_a_free_worker(start, model):
    """With as many connections as workers, the next client is neither served nor refused until a connection ends."""
    workers = 1 if model == "iterative" else 2
    daemon = start(model, workers=workers)
    served = [daemon.connect() for _ in range(workers)]
    for sock in served:
        peer.echo(sock, b"one of the first")
    waiting = daemon.connect()
    waiting.sendall(b"the next one")
    assert peer.silent(waiting, 0.4), "served although every worker is busy"
    for sock in served:
        peer.echo(sock, b"still served")
    peer.finish(served.pop())
    assert peer.receive(waiting, 12) == b"the next one"
    for sock in served:
        peer.finish(sock)
    peer.finish(waiting)
    daemon.visit()


@pytest.mark.models("select", "poll", "epoll", "io_uring")
def test_one_event_loop_serves_many(start, model):
    daemon = start(model, workers=1)
    crowd = [daemon.connect() for _ in range(50)]
    for _ in range(3):
        for sock in crowd:
            peer.echo(sock, b"hello")
    for sock in crowd:
        peer.finish(sock)


def test_iterative_with_four_workers_is_refused(launch):
    said = launch("iterative", workers=4).fails(echod.EX_CONFIG)
    assert "workers" in said and "iterative" in said, said


def test_select_refuses_more_than_an_fd_set_holds(launch):
    """The start fails before READY, and the message names the settings to change."""
    said = launch("select", max_connections=5000).fails(echod.EX_CONFIG)
    assert "max-connections" in said, said
    assert "poll" in said, f"no other model is proposed: {said}"


@pytest.mark.models("select")
def test_select_at_its_limit_lets_clients_wait(start, model):
    """More clients than an fd_set can hold: further clients are served after the first ones have closed, and no set overflows."""
    daemon = start(model, workers=1, log_connections=False)
    crowd = [daemon.connect() for _ in range(1200)]
    for number, sock in enumerate(crowd):
        sock.sendall(b"%04d" % number)
    answered = set()

    def answers():
        for number, sock in enumerate(crowd):
            if number not in answered and not peer.silent_now(sock):
                assert peer.receive(sock, 4) == b"%04d" % number
                answered.add(number)
        return len(answered)

    proc.until(lambda: answers() >= 900, "nine hundred served at once", 30)
    for pid in daemon.workers():
        assert max(proc.descriptors(pid)) < 1024, "a descriptor that does not fit into an fd_set"
    assert len(answered) < 1024
    for number in list(answered):
        crowd[number].close()
    proc.until(lambda: answers() == 1200, "the rest served after the first clients have closed", 30)
    for sock in crowd:
        sock.close()
    daemon.visit()


@pytest.mark.models("select")
def test_select_with_many_inherited_descriptors(start, model):
    """echod inherits eleven hundred open descriptors: its own descriptors must still fit into an fd_set."""
    with open(os.devnull) as null:
        inherited = [os.dup(null.fileno()) for _ in range(1100)]
        try:
            daemon = start(model, pass_fds=inherited)
        finally:
            for fd in inherited:
                os.close(fd)
    crowd = [daemon.connect() for _ in range(20)]
    for sock in crowd:
        peer.echo(sock, peer.data(1000))
    for sock in crowd:
        peer.finish(sock)


def test_more_clients_than_the_soft_limit_of_descriptors(start, model):
    """RLIMIT_NOFILE is raised to its hard limit."""
    daemon = start(model, wrap=["prlimit", "--nofile=64:4096"])
    if model in echod.SERIAL:
        for pid in daemon.workers():
            assert "4096" in limit(pid).split()[0]
        return
    crowd = [daemon.connect() for _ in range(150)]
    for sock in crowd:
        peer.echo(sock, b"hello")
    for sock in crowd:
        peer.finish(sock)


def limit(pid):
    for line in proc.read(f"/proc/{pid}/limits").decode().splitlines():
        if line.startswith("Max open files"):
            return line.removeprefix("Max open files").strip()
    raise AssertionError("no limit of open files")


def test_limit_of_descriptors_is_reached(start, model):
    """At the hard limit of descriptors clients wait in the backlog; the service neither ends nor floods the log."""
    daemon = start(model, max_connections=500, wrap=["prlimit", "--nofile=40:40"])
    crowd = [daemon.connect() for _ in range(80)]
    for number, sock in enumerate(crowd):
        sock.sendall(b"%04d" % number)
        sock.shutdown(1)
    for number, sock in enumerate(crowd):
        assert peer.receive_all(sock) == b"%04d" % number
        sock.close()
    assert len(daemon.log().splitlines()) < 200, "a flood of log lines"
    daemon.visit()


# Workers that die

def test_killed_worker_is_replaced(start, model):
    """The listener serves all clients meanwhile, and the supervisor logs the end of the process in one line."""
    daemon = start(model, workers=2 if model in ("prefork", "prethread") else 0)
    daemon.visit()
    daemon.crash_expected = True
    before = daemon.workers()
    with daemon.connect() as sock:
        peer.echo(sock, b"hello")
        os.kill(before[0], signal.SIGKILL)
    for number in range(20):
        daemon.visit(b"visit %d" % number)
    after = proc.until(lambda: len(daemon.workers()) == len(before) and before[0] not in daemon.workers()
                       and daemon.workers(), "a new worker in place of the killed one")
    assert set(before[1:]) <= set(after), "other workers were replaced too"
    daemon.visit()
    daemon.wait_log(f"process {before[0]} ")
    lines = daemon.lines_about(f"process {before[0]}")
    assert len(lines) == 1 and "kill" in lines[0].lower(), f"not logged exactly once for the process:\n{daemon.log()}"


@pytest.mark.models("prefork")
def test_killed_worker_closes_only_its_own_connection(start, model):
    daemon = start(model, workers=2)
    daemon.crash_expected = True
    socks = [daemon.connect() for _ in range(2)]
    for sock in socks:
        peer.echo(sock, b"hello")
    os.kill(daemon.workers()[0], signal.SIGKILL)
    proc.until(lambda: any(not peer.silent_now(sock) for sock in socks), "the end of one connection")
    lost = [sock for sock in socks if not peer.silent_now(sock)]
    assert len(lost) == 1 and peer.ended(lost[0])
    kept = next(sock for sock in socks if sock is not lost[0])
    peer.echo(kept, peer.data(65536))
    daemon.visit()
    peer.finish(kept)


@pytest.mark.models("process")
def test_killed_connection_process_releases_its_slot(start, model):
    """Two connections are permitted and the process of one is killed: a third client is served, because the parent corrects
    the count."""
    daemon = start(model, workers=2)
    daemon.crash_expected = True
    acceptor, = daemon.workers()
    for _ in range(4):
        first = daemon.connect()
        peer.echo(first, b"hello")
        first_process = {stat.pid for stat in proc.children(acceptor)}
        second = daemon.connect()
        peer.echo(second, b"hello")
        assert len(first_process) == 1
        os.kill(first_process.pop(), signal.SIGKILL)
        assert peer.ended(first)
        third = daemon.connect()
        peer.echo(third, b"served in its place")
        peer.echo(second, b"not touched")
        for sock in (first, second, third):
            sock.close()
        daemon.wait_processes(2)


def test_workers_end_with_a_killed_supervisor(start, model):
    """All processes of the daemon end, although a connection is open."""
    daemon = start(model)
    sock = daemon.connect()
    peer.echo(sock, b"hello")
    pids = [stat.pid for stat in daemon.tree()]
    assert len(pids) > 1
    daemon.expect = -signal.SIGKILL
    os.kill(daemon.pid, signal.SIGKILL)
    assert daemon.wait_exit() == -signal.SIGKILL
    # a process that is ending loses its environment, by which tagged() finds it, before its sockets
    proc.until(lambda: not any(map(proc.alive, pids)), lambda: f"still running: {[p for p in pids if proc.alive(p)]}")
    assert not proc.tagged(daemon.tag)
    assert peer.ended(sock)
    # the kernel frees an io_uring instance after the end of its process
    proc.until(lambda: peer.refused(daemon.address), "nothing listens")
    sock.close()
