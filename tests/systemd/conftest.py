"""One machine for each file of tests, as it is after `make install`; each test finds it clean."""

import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree may be read-only

import pytest

import machine as machines
from machine import CannotBoot, Machine

MODELS = ("iterative", "process", "prefork", "thread", "prethread", "select", "poll", "epoll", "io_uring")


def reason_to_skip():
    if os.environ.get("ECHOD_SANITIZERS"):
        return "sanitizers need what the units forbid"
    if not Path(machines.BUILDDIR, "Makefile").is_file() or not machines.BUILDDIR:
        return "there is no build to install: ECHOD_BUILDDIR does not name one"
    if machines.make_variable("prefix") not in ("/usr", "/usr/local"):
        return f"systemd does not look below the prefix {machines.make_variable('prefix')} of this build"
    return None


@pytest.fixture(scope="module")
def bare_machine(tmp_path_factory):
    """Nothing installed."""
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    try:
        with machines.booted(tmp_path_factory.mktemp("machine") / "m") as machine:
            yield machine
    except CannotBoot as error:
        pytest.skip(f"no systemd can be booted here: {error}")


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """A directory with what `make install` makes; for all the workers of pytest-xdist together, if there are any."""
    base = tmp_path_factory.getbasetemp()
    return machines.make_stage((base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "stage")


@pytest.fixture(scope="module")
def installed(bare_machine, stage):
    bare_machine.install(stage)
    return bare_machine


@pytest.fixture
def machine(installed):
    installed.clean()
    return installed


@pytest.fixture(scope="module")
def unavailable(installed):
    """Why a model cannot run here, by model."""
    lines = installed.run(installed.echod, "--list-models").stdout.splitlines()
    return {line.split()[0]: line.rsplit("  no: ", 1)[1] for line in lines if "  no: " in line}


@pytest.fixture(params=MODELS)
def model(request, unavailable):
    if request.param in unavailable:
        pytest.skip(f"{request.param}: {unavailable[request.param]}")
    return request.param


@pytest.fixture
def fault_points(installed):
    if "fault points" not in installed.run(installed.echod, "-V").stdout:
        pytest.skip("echod was built without fault points (configure --enable-debug-faults)")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """The journal belongs to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    machine = item.funcargs.get("machine")
    if report.when == "call" and report.failed and machine:
        out = machine.run("journalctl", "-q", "-n", "60", "-o", "short-monotonic", "--no-hostname", check=False).stdout
        report.sections.append(("journal", out))
