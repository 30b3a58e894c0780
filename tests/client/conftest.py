"""Fixtures of the client's tests. The daemon is driven by the module the system tests have for it."""

import os
import pathlib
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True  # the source tree may be read-only
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

import pytest

import client
import echod
import proc


def pytest_configure(config):
    if not client.ECHOC:
        raise pytest.UsageError("no echoc to test: set ECHOC to the built program")
    proc.become_subreaper()
    proc.raise_nofile()
    config.echod_models = echod.models() if echod.ECHOD else {}


def pytest_report_header(config):
    return f"echoc: {client.ECHOC}, echod: {echod.ECHOD}"


def pytest_generate_tests(metafunc):
    if "model" in metafunc.fixturenames:
        params = []
        for name in echod.MODELS:
            reason = metafunc.config.echod_models.get(name, "there is no echod to test with")
            params.append(pytest.param(name, marks=[pytest.mark.skip(reason=f"{name}: {reason}")] if reason else []))
        metafunc.parametrize("model", params)
    if "engine" in metafunc.fixturenames:
        skip = pytest.mark.skip(reason="this echoc was built without liburing, or the kernel has no io_uring")
        metafunc.parametrize("engine", [pytest.param(name, marks=[skip] if name == "io_uring" and not client.have_io_uring()
                                                     else []) for name in client.ENGINES])


@pytest.fixture
def debris():
    path = tempfile.mkdtemp(prefix="echoc-test-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start(debris):
    """start(model, key=value, ...): an echod.Daemon that is ready."""
    if not echod.ECHOD:
        pytest.skip("there is no echod to test with")
    daemons = []

    def start(*args, **more):
        daemon = echod.Daemon(debris, *args, **more)
        daemons.append(daemon)
        return daemon.wait_ready()

    yield start
    for daemon in reversed(daemons):
        daemon.close()


@pytest.fixture
def server(start):
    """An echod on epoll, over TCP and UDP, that is in nobody's way."""
    return start("epoll", protocols=["tcp", "udp"], udp_rate=0, log_connections=False)
