# SPDX-License-Identifier: ISC
"""Options and fixtures of all suites; README.md describes them.

Every test that asks for `model` runs once for each concurrency model, or for those of its marker
@pytest.mark.models(...).
"""

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree may be read-only
TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "lib"))

import pytest

import build
import client
import crowd as crowds
import echod
import machine as machines
import proc

PERSISTENCE_TIMEOUT = 200  # seconds for one test of tests/persistence; others have `timeout` of pytest.ini


def pytest_addoption(parser):
    parser.addoption("--models", default=os.environ.get("ECHOD_MODELS", ""),
                     help="only these models, separated by commas")


def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group(name): pytest-xdist runs these in one process")
    for name, program in (("echod", echod.ECHOD), ("echoc", client.ECHOC)):
        if not program:
            raise pytest.UsageError(f"there is no {name} to test: build it, or set {name.upper()} to the built program")
    proc.become_subreaper()
    proc.raise_nofile()
    unknown = set(config.getoption("--models").split(",")) - {"", *echod.MODELS}
    if unknown:
        raise pytest.UsageError(f"--models: there is no model {', '.join(sorted(unknown))}; "
                                f"there are {', '.join(echod.MODELS)}")


def pytest_report_header(config):
    return f"echod: {echod.ECHOD}{' (sanitized)' if echod.SANITIZED else ''}; echoc: {client.ECHOC}; rounds: {crowds.ROUNDS}"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for its marker
def pytest_collection_modifyitems(config, items):
    """Set the time limit of tests/persistence, multiplied by ECHOD_TEST_ROUNDS. With --dist loadgroup, tests of one file that need
    a booted system run in sequence, in the same system."""
    for item in items:
        if "bare_machine" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if item.path.parent.name == "persistence":
            own = item.get_closest_marker("timeout")
            seconds = own.args[0] if own else config.getoption("timeout") or PERSISTENCE_TIMEOUT
            item.add_marker(pytest.mark.timeout(seconds * crowds.ROUNDS), append=False)


# Models

def model_params(config, names):
    wanted = [name for name in config.getoption("--models").split(",") if name] or names
    return [pytest.param(name, marks=[pytest.mark.skip(reason=f"{name}: {echod.REFUSALS[name]}")] if echod.REFUSALS[name] else [])
            for name in names if name in wanted]


def chosen_by_test(metafunc, argument):
    """Whether the test has a @pytest.mark.parametrize of its own for this argument."""
    names = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    return any(argument in (name.replace(" ", "").split(",") if isinstance(name, str) else name) for name in names)


def pytest_generate_tests(metafunc):
    if "model" in metafunc.fixturenames and not chosen_by_test(metafunc, "model"):
        marker = metafunc.definition.get_closest_marker("models")
        metafunc.parametrize("model", model_params(metafunc.config, marker.args if marker else echod.MODELS))
    if "engine" in metafunc.fixturenames:
        skip = pytest.mark.skip(reason="this echoc was built without liburing, or the kernel has no io_uring")
        metafunc.parametrize("engine", [pytest.param(name, marks=[skip] if name == "io_uring" and not client.have_io_uring()
                                                     else []) for name in client.ENGINES])


# The daemon

@pytest.fixture
def tmpdir():
    """The path of a directory for one test, which every user may enter."""
    path = tempfile.mkdtemp(prefix="echod-test-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def launch(tmpdir):
    """launch(model, key=value, ...): an echod.Daemon that has been started, but may not be ready."""
    daemons = []

    def launch(*args, **more):
        daemon = echod.Daemon(tmpdir, *args, **more)
        daemons.append(daemon)
        return daemon

    yield launch
    wrong = []
    for daemon in reversed(daemons):
        try:
            daemon.close()
        except Exception as error:
            wrong.append(error)
    if wrong:
        raise wrong[0]


@pytest.fixture
def start(launch):
    """start(model, key=value, ...): an echod.Daemon that is ready."""
    return lambda *args, **more: launch(*args, **more).wait_ready()


@pytest.fixture
def server(start):
    """A ready echod on epoll, over TCP and UDP, without rate limit."""
    return start("epoll", protocols=["tcp", "udp"], udp_rate=0, log_connections=False)


@pytest.fixture
def visible(tmpdir):
    """A copy of echod that an unprivileged user can reach, wherever the build tree is."""
    path = os.path.join(tmpdir, "echod")
    shutil.copy(echod.ECHOD, path)
    os.chmod(path, 0o755)
    return path


# Streams of many clients

@pytest.fixture(scope="session")
def streams(tmp_path_factory):
    """The program `streams`: as `make check` built it, else built now."""
    built = build.DIRECTORY and build.DIRECTORY / "tests/persistence/streams"
    return str(built) if built and built.exists() else crowds.build(tmp_path_factory.mktemp("streams") / "streams")


@pytest.fixture
def seed():
    """The seed of random choices: ECHOD_TEST_SEED, else a new one; printed, so that the report of a failed test has it."""
    value = int(os.environ.get("ECHOD_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {value}: repeat with ECHOD_TEST_SEED={value}")
    return value


@pytest.fixture
def crowd(streams, seed):
    """crowd(address, count, ...): a running crowds.Crowd of streams."""
    made = []

    def crowd(*args, **more):
        made.append(crowds.Crowd(streams, seed + len(made), *args, **more))
        return made[-1]

    yield crowd
    for one in made:
        one.close()


# A booted system for each file of tests, as after `make install`; it is cleaned before each test

def reason_not_to_boot():
    if os.environ.get("ECHOD_SANITIZERS"):
        return "sanitizers do not work under the restrictions of the units"
    if not build.DIRECTORY or not Path(build.DIRECTORY, "Makefile").is_file():
        return "there is no build to install: ECHOD_BUILDDIR does not name one"
    if machines.make_variable("prefix") not in ("/usr", "/usr/local"):
        return f"systemd does not look below the prefix {machines.make_variable('prefix')} of this build"
    return None


@pytest.fixture(scope="module")
def bare_machine(tmp_path_factory):
    """A booted system in which echod is not installed."""
    reason = reason_not_to_boot()
    if reason:
        pytest.skip(reason)
    try:
        with machines.booted(tmp_path_factory.mktemp("machine") / "m") as machine:
            yield machine
    except machines.CannotBoot as error:
        pytest.skip(f"no systemd can be booted here: {error}")


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """A directory with the files of `make install`, shared by all workers of pytest-xdist."""
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


@pytest.fixture
def fault_points(installed):
    if "fault points" not in installed.run(installed.echod, "-V").stdout:
        pytest.skip("echod was built without fault points (configure --enable-debug-faults)")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the journal to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    machine = item.funcargs.get("machine") if hasattr(item, "funcargs") else None
    if report.when == "call" and report.failed and machine:
        out = machine.run("journalctl", "-q", "-n", "60", "-o", "short-monotonic", "--no-hostname", check=False).stdout
        report.sections.append(("journal", out))
