# SPDX-License-Identifier: ISC
"""A worker process that runs foreign code harms only the connections that it serves, and its own counters."""

import re
import time

import pytest

import echod
import metrics
import peer
import proc

WRITABLE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .w.s ([0-9a-f]+) (\S+) (\d+) *(.*)$", re.M)


def writable(pid):
    """Parts of the scoreboard that the process can write: [(file, first byte, byte after the last)]."""
    found = []
    for from_, to, offset, device, inode, name in WRITABLE.findall(proc.read(f"/proc/{pid}/maps").decode()):
        if "echod-scoreboard" in name:
            found.append(((device, inode), int(offset, 16), int(offset, 16) + int(to, 16) - int(from_, 16)))
    return found


def size(parts):
    return sum(end - begin for _, begin, end in parts)


def common(some, others):
    """The parts in `some` that overlap a part in `others`."""
    return [(file, begin, end) for file, begin, end in some
            if any(file == other and begin < other_end and other_begin < end for other, other_begin, other_end in others)]


def processes(daemon, model):
    """The processes that serve connections, which an attacker may control: the workers, and in the model process their children."""
    workers = daemon.workers()
    return [stat.pid for pid in workers for stat in proc.children(pid)] if model == "process" else workers


def test_workers_write_no_memory_of_others(start, model):
    """No two workers can write the same part of the scoreboard, and no worker can write the part of the supervisor."""
    daemon = start(model, protocols=["tcp", "udp"], max_per_source=100)
    crowd = [daemon.connect() for _ in range(1 if model == "iterative" else 3)]
    for sock in crowd:
        peer.echo(sock, b"hello")
    seen = []
    pids = processes(daemon, model)
    assert pids
    for pid in pids:
        own = writable(pid)
        assert own and not common(own, seen), pid
        seen += own
    assert size(writable(daemon.pid)) > size(seen)
    daemon.reload(idle_timeout=100)  # the new workers do not share memory with the old ones either
    for sock in crowd:
        peer.echo(sock, b"hello again")
    proc.until(lambda: not any(map(proc.alive, pids)), "the end of the old workers")
    for pid in processes(daemon, model):
        assert not common(writable(pid), seen), pid


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds, workers", [(5, 204)])
def test_a_thousand_hostile_workers(start, tmp_path, rounds, workers):
    """Hostile workers write random values to all shared memory that they can write, send random messages to each of their pipes
    and sockets, and die. The supervisor and the clients of other workers are not affected; the counters are right afterwards."""
    if "fault points" not in echod.run("-V").stdout:
        pytest.skip("echod was built without fault points (configure --enable-debug-faults)")
    path = tmp_path / "echod.prom"
    orders = tmp_path / "hostile"
    orders.mkdir()
    daemon = start("prefork", workers=workers, max_connections=workers - 1, max_per_source=workers, metrics_file=str(path),
                   stats_interval=1, log_connections=False,
                   env={"WATCHDOG_USEC": "2000000", "ECHOD_FAULT_HOSTILE": str(orders)})
    daemon.crash_expected = True
    crowd = [daemon.connect() for _ in range(4)]
    for sock in crowd:
        peer.echo(sock, b"first")

    def gauges():
        return {int(label): number for (name, label), number in metrics.read(path).items() if name == "echod_worker_connections"}
    proc.until(lambda: path.exists() and sum(gauges().values()) == 4, "four connections in the metrics", 30)
    good = {index for index, number in gauges().items() if number == 1}
    assert len(good) == 4
    echoes = 4
    for number in range(rounds):
        hostile = set(range(workers)) - good
        since = len(daemon.log())
        for index in hostile:
            (orders / str(index)).touch()
        end = time.monotonic() + 60
        while any(orders.iterdir()) or len(daemon.workers()) < workers:
            assert time.monotonic() < end, f"round {number}: {daemon.log()[-2000:]}"
            for sock in crowd:
                peer.echo(sock, b"x" * 100)
            echoes += 4
        assert "was killed by signal 9" in daemon.log()[since:]
        with daemon.connect() as sock:  # a new client is served too
            peer.echo(sock, b"new")
            peer.finish(sock)
        # connections that the supervisor has counted stay counted when their worker dies
        metrics.wait_line(daemon, "the new client", connections=4, connections_accepted=5 + number)
    assert daemon.popen.poll() is None
    for sock in crowd:
        peer.finish(sock)
    metrics.wait_line(daemon, "the counters afterwards", connections=0, connections_accepted=4 + rounds,
                      connections_ended__eof=4 + rounds, connections_ended__error=0,
                      echoed_bytes=4 * 5 + (echoes - 4) * 100 + 3 * rounds)
    # every slot can be taken
    full = [daemon.connect() for _ in range(workers - 1)]
    for sock in full:
        peer.echo(sock, b"every slot")
    with daemon.connect() as one_more:
        assert peer.silent(one_more, 0.2)
        peer.finish(full.pop())
        peer.echo(one_more, b"in its place")
    daemon.reload(idle_timeout=100)
    for sock in full:
        peer.echo(sock, b"handed over")
        peer.finish(sock)
