# SPDX-License-Identifier: ISC
"""The counters: the metrics file is read by the parser of a library, and totals agree with the clients' measurements."""

import os
import pathlib
import random
import signal
import threading

import pytest

import echod
import metrics
import peer
import proc

needs_parser = pytest.mark.skipif(metrics.parser() is None, reason="no OpenMetrics parser was found "
                                  "(Debian: apt install python3-prometheus-client)")


@pytest.fixture
def path(tmpdir):
    """The path of the metrics file, alone in its directory, so that other files there are noticed."""
    directory = pathlib.Path(tmpdir, "metrics")
    directory.mkdir()
    return directory / "echod.prom"


@needs_parser
def test_file_is_valid_and_complete(start, model, path):
    daemon = start(model, metrics_file=str(path), stats_interval=1)
    sizes = [1, 100, 5000, 70000]
    for size in sizes:
        daemon.visit(peer.data(size))
    with daemon.connect() as sock:
        peer.echo(sock, b"and then a reset")
        peer.reset(sock)
    total = sum(sizes) + 16
    proc.until(lambda: path.exists() and metrics.read(path).get(("echod_echoed_bytes_total", None)) == total
               and metrics.read(path)["echod_connections", None] == 0, "the counts in the file")
    found = metrics.read(path)
    assert found["echod_connections_accepted_total", None] == len(sizes) + 1
    assert found["echod_received_bytes_total", None] == total
    assert found["echod_connections_ended_total", "eof"] == len(sizes)
    assert found["echod_connections_ended_total", "reset"] == 1
    assert path.stat().st_mode & 0o777 == 0o644, "a collector may be another user"
    assert os.listdir(path.parent) == [path.name], "other files beside the file"


@needs_parser
def test_status_line_and_file_say_the_same(start, model, path):
    daemon = start(model, metrics_file=str(path), stats_interval=1)
    for _ in range(3):
        daemon.visit()
    proc.until(lambda: metrics.line(daemon)["connections"] == 0, "the end of the visits")
    said = metrics.line(daemon)
    daemon.stop()
    in_file = {}
    for (name, label), number in metrics.read(path).items():
        name = name.removeprefix("echod_").removesuffix("_total")
        in_file[f"{name} {label}" if label else name] = number
    assert {name: number for name, number in in_file.items() if number or name == "connections"} == said


@needs_parser
def test_file_is_replaced_atomically(start, path):
    """A reader gets a complete file at any time, and no counter decreases."""
    daemon = start("epoll", metrics_file=str(path), stats_interval=1)
    daemon.visit()
    proc.until(path.exists, "the first file")
    done, wrong, inodes, written, seen = threading.Event(), [], set(), set(), {}

    def read():
        try:
            while not done.is_set():
                with open(path) as file:
                    text = file.read()
                    status = os.fstat(file.fileno())
                inodes.add(status.st_ino)  # file systems reuse inode numbers
                written.add(status.st_mtime_ns)
                assert text.endswith("# EOF\n"), "half a file"
                for key, number in metrics.parse(text).items():
                    if key[0].endswith("_total"):
                        assert number >= seen.get(key, 0), f"{key} went back from {seen[key]} to {number}"
                        seen[key] = number
        except BaseException as error:
            wrong.append(error)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(15):
            daemon.visit()
            daemon.reload()
    finally:
        done.set()
        reader.join(20)
    assert not wrong, wrong[0]
    assert len(written) > 3 and len(inodes) > 1, "the file was never replaced, or written in place"
    daemon.stop()
    assert metrics.read(path)["echod_connections_accepted_total", None] == 16
    assert os.listdir(path.parent) == [path.name], "other files beside the file"


@needs_parser
@pytest.mark.timeout(180)
def test_totals_agree_with_the_clients(start, path):
    """Over reloads from model to model with connections that continue, the totals are exact."""
    usable = [name for name, reason in echod.REFUSALS.items() if not reason]
    daemon = start(usable[-1], metrics_file=str(path))
    accepted = echoed = 0
    streams = [peer.Stream(daemon.address, seed=seed) for seed in (1, 2)]
    accepted += len(streams)
    for model in usable:
        if model in ("iterative", "prefork", "prethread"):
            continue  # the streams of this test could occupy every worker
        daemon.reload(model=model)
        for number in range(10):
            size = random.Random(number).randrange(1, 100000)
            daemon.visit(peer.data(size))
            accepted, echoed = accepted + 1, echoed + size
        for stream in streams:
            stream.progress()
    for stream in streams:
        stream.finish()
        echoed += stream.echoed
    metrics.wait_line(daemon, "the end of all connections", connections=0)
    daemon.stop()
    found = metrics.read(path)
    assert found["echod_connections_accepted_total", None] == accepted
    assert found["echod_connections_ended_total", "eof"] == accepted
    assert found["echod_echoed_bytes_total", None] == found["echod_received_bytes_total", None] == echoed
    # every connection that was handed over was taken over
    assert found["echod_connections_handed_over_total", None] <= found["echod_connections_taken_over_total", None]


@needs_parser
@pytest.mark.models("process", "prefork", "thread", "prethread", "poll", "epoll", "io_uring")
def test_connections_of_each_worker(start, model, path):
    """There is a gauge for each running worker; their sum is the number of connections."""
    daemon = start(model, metrics_file=str(path), workers=4, stats_interval=1)
    crowd = [daemon.connect() for _ in range(4)]
    for sock in crowd:
        peer.echo(sock, b"one of four")

    def gauges():
        found = metrics.read(path) if path.exists() else {}
        return {label: number for (name, label), number in found.items() if name == "echod_worker_connections"}
    proc.until(lambda: sum(gauges().values()) == 4, lambda: f"four connections: {gauges()}")
    assert all(number <= 1 or model in echod.LOOPS for number in gauges().values()), gauges()
    if model not in echod.SPAWN:
        assert sorted(gauges()) == ["0", "1", "2", "3"]
    for sock in crowd:
        peer.finish(sock)
    proc.until(lambda: sum(gauges().values()) == 0, lambda: f"no connection: {gauges()}")


@needs_parser
@pytest.mark.timeout(180)
def test_totals_survive_the_death_of_workers(start, model, path):
    """The counts of killed workers are kept; their connections are counted as ended by errors."""
    most = 1 if model == "iterative" else 3
    daemon = start(model, metrics_file=str(path), max_connections=most)
    daemon.crash_expected = True
    accepted = echoed = killed = 0
    for size in (1000, 200000):
        daemon.visit(peer.data(size))
        crowd = [daemon.connect() for _ in range(most)]
        for sock in crowd:
            peer.echo(sock, peer.data(size))
        accepted, echoed = accepted + 1 + most, echoed + size * (1 + most)
        # counted after the last byte was sent
        metrics.wait_line(daemon, "the echoed bytes", connections=most, echoed_bytes=echoed)
        children = daemon.workers()
        for pid in ([stat.pid for child in children for stat in proc.children(child)]
                    if model == "process" else children):
            os.kill(pid, signal.SIGKILL)
        assert all(peer.ended(sock) for sock in crowd)
        killed += most
        metrics.wait_line(daemon, "the connections of killed workers", connections=0, connections_ended__error=killed)
    daemon.visit()
    accepted, echoed = accepted + 1, echoed + 11
    metrics.wait_line(daemon, "the end of the last connection", connections=0, connections_accepted=accepted)
    daemon.stop()
    found = metrics.read(path)
    assert found["echod_connections_accepted_total", None] == accepted
    assert found["echod_connections_ended_total", "error"] == killed
    assert found["echod_connections_ended_total", "eof"] == accepted - killed
    assert found["echod_echoed_bytes_total", None] == echoed


@pytest.mark.models("process", "thread")
def test_no_counter_decreases_while_workers_start_and_end(start, model):
    """With one worker for each connection, many workers end while the totals are computed. Their counts are never missing."""
    daemon = start(model, log_connections=False)
    done, wrong, seen = threading.Event(), [], {}

    def visits():
        try:
            while not done.is_set():
                daemon.visit()
        except BaseException as error:
            wrong.append(error)
    crowd = [daemon.connect() for _ in range(100)]  # the totals are sums over this number of workers
    clients = [threading.Thread(target=visits) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        for _ in range(1500):
            found = metrics.line(daemon)
            for name, number in found.items():
                assert name == "connections" or number >= seen.get(name, 0), f"{name}: {seen[name]}, then {number}"
            assert found["connections"] < 2 * len(crowd), "more connections than there are clients"
            seen = found
    finally:
        done.set()
        for thread in clients:
            thread.join(20)
    assert not wrong, wrong[0]
    for sock in crowd:
        sock.close()


def test_file_that_cannot_be_written_is_logged_once(start, tmpdir):
    """If the metrics file cannot be written, the service continues and logs the error once."""
    directory = pathlib.Path(tmpdir, "missing")
    daemon = start("epoll", metrics_file=str(directory / "echod.prom"), stats_interval=1)
    daemon.visit()
    daemon.wait_log("Cannot write metrics-file .*missing/echod.prom.*: No such file")
    for _ in range(3):
        daemon.visit()
        daemon.reload()
    assert len(daemon.lines_about("Cannot write metrics-file")) == 1, daemon.log()
    directory.mkdir()
    daemon.visit()
    proc.until((directory / "echod.prom").exists, "the file, now that it can be written")
    daemon.stop()
