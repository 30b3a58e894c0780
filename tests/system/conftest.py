"""Fixtures of the system tests; every test that asks for `model` runs once for each concurrency model."""

import os
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True  # the source tree may be read-only

import pytest

import echod
import proc


def pytest_addoption(parser):
    parser.addoption("--models", default=os.environ.get("ECHOD_MODELS", ""),
                     help="only these models, separated by commas")


def pytest_configure(config):
    if not echod.ECHOD:
        raise pytest.UsageError("no echod to test: set ECHOD to the built program")
    proc.become_subreaper()
    proc.raise_nofile()
    config.echod_models = echod.models()


def pytest_report_header(config):
    return f"echod: {echod.ECHOD}{' (sanitized)' if echod.SANITIZED else ''}"


def model_params(config, names=echod.MODELS):
    wanted = [name for name in config.getoption("--models").split(",") if name] or names
    params = []
    for name in (name for name in names if name in wanted):
        reason = config.echod_models.get(name, "missing in --list-models")
        if name not in config.echod_models:
            marks = []  # the test fails, as it should
        elif reason:
            marks = [pytest.mark.skip(reason=f"{name}: {reason}")]
        else:
            marks = []
        params.append(pytest.param(name, marks=marks))
    return params


def pytest_generate_tests(metafunc):
    """`model` stands for every model, or for those of the test's marker @pytest.mark.models(...)."""
    if "model" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("models")
        metafunc.parametrize("model", model_params(metafunc.config, marker.args if marker else echod.MODELS))


@pytest.fixture
def debris():
    """A directory of the test's own which every user may enter."""
    path = tempfile.mkdtemp(prefix="echod-test-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def launch(debris):
    """launch(model, key=value, ...): an echod.Daemon that has been started, but need not have come up."""
    daemons = []

    def launch(*args, **more):
        daemon = echod.Daemon(debris, *args, **more)
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
def visible(debris):
    """A copy of echod that an unprivileged user can reach, wherever the build tree is."""
    path = os.path.join(debris, "echod")
    shutil.copy(echod.ECHOD, path)
    os.chmod(path, 0o755)
    return path
