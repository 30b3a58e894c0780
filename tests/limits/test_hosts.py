# SPDX-License-Identifier: ISC
"""Limits of the host: every model starts, serves and reloads with any RLIMIT_NOFILE; values beyond echod's bounds are rejected."""

import resource

import pytest

import echod
import metrics
import peer
import shims

INFINITY = 2 ** 64 - 1
LIMITS = (256, 1024, 524288, 2 ** 30, INFINITY)
RELOADS = 8


def host(limit, directory):
    """Arguments to start the daemon with this hard limit: a real limit if it is not above the present one, else a simulated one."""
    if limit <= resource.getrlimit(resource.RLIMIT_NOFILE)[1]:
        return {"wrap": ["prlimit", f"--nofile={limit}:{limit}"]}
    return {"env": shims.preload(shims.compile_shim("fake_nofile", directory), FAKE_NOFILE=str(limit))}


@pytest.mark.parametrize("limit", LIMITS)
def test_any_limit_of_descriptors(start, model, limit, tmp_path):
    """Start, serve, reload several times with a connection that is handed over each time, and stop."""
    daemon = start(model, workers=0, log_connections=False, max_per_source=100, **host(limit, tmp_path))
    with daemon.connect() as sock:
        for number in range(RELOADS):
            peer.echo(sock, b"still the same connection")
            daemon.reload(idle_timeout=100 + number)
        peer.echo(sock, b"and after all of them")
        peer.finish(sock)
    daemon.visit()
    assert not daemon.lines_about("Reload failed")
    assert not daemon.lines_about("Cannot start")
    metrics.wait_line(daemon, "the end of all connections", connections=0)


def test_memory_does_not_depend_on_the_limit(start, model, tmp_path):
    """The unlimited value less than doubles the memory that a limit of 1024 needs."""
    used = []
    for limit in (1024, INFINITY):
        daemon = start(model, workers=2 if model != "iterative" else 0, max_per_source=100, **host(limit, tmp_path))
        daemon.visit()
        used.append(daemon.memory())
        daemon.stop()
    assert used[1] < 2 * used[0], used


@pytest.mark.models(*echod.SPAWN)
def test_values_beyond_the_bounds_are_rejected(model, tmp_path):
    """The number of workers is bounded, and so is max-connections if it determines the workers, whatever the resource limits."""
    path = tmp_path / "echod.conf"
    path.write_text(echod.conf_text(model=model, max_connections=524288))
    result = echod.run("-t", "-c", path)
    assert result.returncode == echod.EX_CONFIG, result
    assert f"{path}:2: " in result.stderr and "set max-connections to 100000 or less" in result.stderr, result.stderr
    path.write_text(echod.conf_text(model=model, max_connections=100000))
    assert echod.run("-t", "-c", path).returncode == echod.EX_OK
    path.write_text(echod.conf_text(model=model, max_connections=524288, workers=8))
    assert echod.run("-t", "-c", path).returncode == echod.EX_OK


@pytest.mark.models("process", "thread")
def test_maximum_number_of_workers(start, model):
    """The largest explicit value starts, and reloads."""
    daemon = start(model, max_connections=100000, workers=0)
    for number in range(RELOADS):
        daemon.reload(idle_timeout=100 + number)
    daemon.visit()
    assert not daemon.lines_about("Reload failed")
