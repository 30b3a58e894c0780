"""The daemon as the system tests start it, the machine as the systemd tests boot it, and crowds of clients."""

import importlib.util
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree may be read-only

import pytest

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / "system"), str(TESTS / "systemd")]

import crowd as crowds
import echod
import proc


def load(path):
    spec = importlib.util.spec_from_file_location("conftest_" + path.parent.name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_machines = load(TESTS / "systemd" / "conftest.py")
bare_machine, stage, installed, machine = (getattr(_machines, name)
                                           for name in ("bare_machine", "stage", "installed", "machine"))
_system = load(TESTS / "system" / "conftest.py")
debris, launch, start, visible = (getattr(_system, name) for name in ("debris", "launch", "start", "visible"))


def pytest_configure(config):
    if not echod.ECHOD:
        raise pytest.UsageError("no echod to test: set ECHOD to the built program")
    proc.become_subreaper()
    proc.raise_nofile()


def pytest_collection_modifyitems(config, items):
    """N times as long may take N times as long."""
    for item in items if crowds.ROUNDS > 1 else ():
        own = item.get_closest_marker("timeout")
        seconds = own.args[0] if own else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(seconds * crowds.ROUNDS), append=False)


def pytest_report_header(config):
    return f"echod: {echod.ECHOD}; ECHOD_KEEP_ROUNDS={crowds.ROUNDS}"


@pytest.fixture(scope="session")
def streams(tmp_path_factory):
    """The program that keeps streams going: as `make check` built it, else built now."""
    given = os.environ.get("ECHOD_BUILDDIR")
    built = Path(given or TESTS.parent / "build", "tests/keep/streams")
    return str(built) if built.exists() else crowds.build(tmp_path_factory.mktemp("streams") / "streams")


@pytest.fixture
def seed():
    """Told when the test fails (pytest shows what was printed), and by -s."""
    value = int(os.environ.get("ECHOD_KEEP_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {value}: repeat with ECHOD_KEEP_SEED={value}")
    return value


@pytest.fixture
def crowd(streams, seed):
    """crowd(address, count, ...): a crowds.Crowd of streams that is going."""
    made = []

    def crowd(*args, **more):
        made.append(crowds.Crowd(streams, seed + len(made), *args, **more))
        return made[-1]

    yield crowd
    for one in made:
        one.close()
