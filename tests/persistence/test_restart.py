# SPDX-License-Identifier: ISC
"""systemctl restart, an upgrade, a crash and a stop, under a real systemd and under load."""

import os
import re
import time

import pytest

import crowd as crowds
import echod
import proc
from crowd import ROUNDS
from machine import EVENTS, SERVICE, until

ALL_AT_A_TIME = [model for model in echod.MODELS if model not in echod.SERIAL]


@pytest.fixture
def everybody(machine, streams, seed):
    """everybody(count, ...): a Crowd in the network namespace of the machine."""
    made = []

    def everybody(count=50, **more):
        enter = ["nsenter", "-t", machine.pid, f"--net=/proc/{machine.pid}/ns/net"]
        made.append(crowds.Crowd(streams, seed + len(made), ("127.0.0.1", 7), count, prefix=enter, **more))
        return made[-1]

    yield everybody
    for one in made:
        one.close()


def restart(machine, crowd):
    """Restart the service. Returns the longest pause of any stream and the duration of the restart, in milliseconds."""
    crowd.mark()
    before = time.monotonic()
    machine.systemctl("restart", "echod")
    took = (time.monotonic() - before) * 1000
    return crowd.ask("pass")["pause_ms"], took


def available(machine):
    table = machine.run(machine.echod, "--list-models").stdout.splitlines()
    return [line.split()[0] for line in table[1:] if line.split()[0] in ALL_AT_A_TIME and "  no: " not in line]


def test_restarts_from_model_to_model(machine, everybody):
    """Each restart changes the model."""
    machine.configure('model = "epoll"\n')
    machine.systemctl("start", "echod")
    crowd = everybody(50)
    crowd.settle("the start")
    models = available(machine)
    old, since = "epoll", machine.cursor()
    for model in models[::-1] * ROUNDS:
        machine.configure(f'model = "{model}"\n')
        machine.systemctl("restart", "echod")
        crowd.settle(f"restart from {old} to {model}")
        old = model
    crowd.finish("the end")
    assert not machine.journal(since, MESSAGE_ID=EVENTS["STATE_DAMAGED"])


def test_restarts_of_models_that_serve_few(machine, everybody):
    """Queued connections stay in the queue over a restart."""
    machine.configure('model = "epoll"\n')
    machine.systemctl("start", "echod")
    crowd = everybody(30)
    crowd.settle("the start")
    for model, workers in (("iterative", 1), ("prefork", 2), ("iterative", 1), ("prethread", 2)):
        machine.configure(f'model = "{model}"\nworkers = {workers}\n')
        machine.systemctl("restart", "echod")
        crowd.settle(model, workers)
        machine.systemctl("restart", "echod")
        crowd.settle(f"{model} again", workers)
    machine.configure('model = "poll"\n')
    machine.systemctl("restart", "echod")
    crowd.settle("poll")
    crowd.finish("the end")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("untuned", [False, True])
def test_five_thousand_connections_over_ten_restarts(request, machine, everybody, record_property, untuned):
    """Also with the kernel's default of net.core.wmem_max, where a queue holds 555 messages."""
    if untuned:
        request.getfixturevalue("fault_points")
    count = 5000
    machine.configure('model = "epoll"\nlog-connections = false\n')
    if untuned:
        machine.drop_in(SERVICE, "[Service]\nEnvironment=ECHOD_FAULT_QUEUE=212992\n")
    machine.systemctl("start", "echod")
    crowd = everybody(count, kinds="rrrrrrrriiiiiiiiiihr", think=20000)
    crowd.settle("the start")
    crowd.mark()
    quiet = crowd.ask("pass")["pause_ms"]
    since = machine.cursor()
    pauses, times = [], []
    for i in range(10 * ROUNDS):
        pause, took = restart(machine, crowd)
        pauses.append(pause)
        times.append(took)
        crowd.settle(f"restart {i + 1}")
    crowd.finish("the end")
    told = [entry["MESSAGE"] for entry in machine.journal(since, MESSAGE_ID=EVENTS["HANDOVER"])]
    kept = [int(re.search(r"\d+", line)[0]) for line in told]
    assert len(kept) == len(pauses) and min(kept) > count * 0.9 and max(kept) <= count, told
    crowds.report_pause(record_property, f"of any of {count} streams over {len(pauses)} restarts {max(pauses):.0f} ms, median "
                f"{sorted(pauses)[len(pauses) // 2]:.0f} ms, the restart itself {min(times):.0f} to {max(times):.0f} ms; "
                f"without a restart {quiet:.0f} ms")


def test_the_binary_is_replaced_by_a_newer_one(machine, everybody):
    """Replace the program file and restart, as a package upgrade does, several times."""
    version = machine.run(machine.echod, "--version").stdout.split()[1]
    # the first digit: linkers let other strings share the end of this one
    newer = re.sub(r"^\d", lambda match: str((int(match[0]) + 1) % 10), version)
    path = machine.path(machine.echod)
    original = path.read_bytes()
    other = original.replace(version.encode() + b"\0", newer.encode() + b"\0")
    assert other != original

    def install(program):
        new = path.with_name("echod.dpkg-new")
        new.write_bytes(program)
        new.chmod(0o755)
        os.rename(new, path)

    machine.systemctl("start", "echod")
    crowd = everybody(50)
    crowd.settle("the start")
    try:
        for i in range(4 * ROUNDS):
            since = machine.cursor()
            install(original if i % 2 else other)
            machine.systemctl("restart", "echod")
            told = machine.wait_event("STARTED", since)["MESSAGE"]
            assert told.startswith(f"Starting echod {version if i % 2 else newer} "), told
            crowd.settle(f"upgrade {i + 1}")
        crowd.finish("the end")
    finally:
        install(original)


def test_reloads_and_restarts_at_random(machine, everybody, seed):
    """Reloads and restarts in any order, also before the previous one is complete."""
    import random
    dice = random.Random(seed)
    machine.configure('model = "epoll"\n')
    machine.systemctl("start", "echod")
    crowd = everybody(50)
    crowd.settle("the start")
    models, done = available(machine), []
    for _ in range(12 * ROUNDS):
        model, action = dice.choice(models), dice.choice(["reload", "restart", "both", "hup hup"])
        done.append(f"{action} to {model}")
        machine.configure(f'model = "{model}"\n')
        if action in ("reload", "both"):
            machine.systemctl("reload", "echod")
        if action == "hup hup":
            pid = machine.main_pid()
            machine.kill(pid, "HUP")
            machine.kill(pid, "HUP")
        if action in ("restart", "both"):
            machine.systemctl("restart", "echod")
        crowd.settle(", ".join(done))
    crowd.finish(", ".join(done))


def test_a_killed_service_refuses_no_client(machine, everybody):
    """kill -9 of the main process: its connections are lost, but no new connection is refused; several times."""
    machine.systemctl("start", "echod")
    pid = machine.main_pid()
    for _ in range(3 * ROUNDS):
        machine.kill(pid, "KILL")
        crowd = everybody(20, kinds="c")
        pid = until(lambda: (lambda now: now if now not in (0, pid) else 0)(int(machine.show(SERVICE, "MainPID"))),
                    "systemd has started it again")
        crowd.settle("after the kill")
        crowd.finish("after the kill")


def test_stop_ends_all_connections(machine, everybody):
    """systemctl stop: the service sends all unsent data, then FIN, and no descriptor stays in the store."""
    machine.systemctl("start", "echod")
    crowd = everybody(50)
    crowd.settle("the start")
    crowd.check(crowd.ask("owe"), "owing")
    crowd.begin("end")
    machine.systemctl("stop", "echod")
    counts = crowd.answer()
    crowd.check(counts, "the stop")
    assert counts["ended"] == 50, counts
    assert machine.show(SERVICE, "NFileDescriptorStore") == "0"


def test_without_keep_connections_a_restart_ends_them(machine, everybody):
    machine.configure("keep-connections = false\n")
    machine.systemctl("start", "echod")
    crowd = everybody(50)
    crowd.settle("the start")
    crowd.check(crowd.ask("owe"), "owing")
    crowd.begin("end")
    machine.systemctl("restart", "echod")
    counts = crowd.answer()
    crowd.check(counts, "the restart")
    assert counts["ended"] == 50, counts
    assert machine.serves()


@pytest.mark.parametrize("most", [0, 2])
def test_without_a_store_a_restart_ends_all_connections(machine, everybody, most):
    """With no descriptor store, or one that is too small, a restart drains and closes all connections."""
    machine.drop_in(SERVICE, f"[Service]\nFileDescriptorStoreMax={most}\n")
    machine.systemctl("start", "echod")
    crowd = everybody(50)
    crowd.settle("the start")
    crowd.check(crowd.ask("owe"), "owing")
    since = machine.cursor()
    crowd.begin("end")
    machine.systemctl("restart", "echod")
    counts = crowd.answer()
    crowd.check(counts, "the restart")
    assert counts["ended"] == 50, counts
    assert "FileDescriptorStoreMax" in machine.wait_event("HANDOVER", since)["MESSAGE"]
    assert machine.serves()


def test_connections_beyond_the_limit_are_drained_and_logged(machine, everybody):
    """More connections than a user may have descriptors in flight: the service drains the others."""
    machine.configure('model = "process"\nmax-connections = 300\ndrain-timeout = 20\n')
    machine.drop_in(SERVICE, "[Service]\nLimitNOFILE=100\n")
    machine.systemctl("start", "echod")
    crowd = everybody(250, kinds="i")
    crowd.settle("the start")
    crowd.check(crowd.ask("owe"), "owing")
    since = machine.cursor()
    crowd.begin("end")
    machine.systemctl("restart", "echod")
    told = until(lambda: (lambda lines: lines if len(lines) == 3 else None)(
        [entry["MESSAGE"] for entry in machine.journal(since, MESSAGE_ID=EVENTS["HANDOVER"])]), "three messages about connections")
    assert told[0].startswith("Cannot keep more connections"), told
    kept, drained = (int(re.search(r"\d+", line)[0]) for line in told[1:])
    restored = machine.wait_event("RESTORED", since)["MESSAGE"]
    assert f"Restored {kept} connections and " in restored, (restored, told)
    machine.systemctl("stop", "echod")
    counts = crowd.answer()
    crowd.check(counts, "the end")
    assert counts["ended"] == 250 and kept > 0 and drained > 0 and kept + drained == 250, (told, counts)
