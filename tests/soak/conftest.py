"""The fixtures of the system tests."""

import importlib.util
import pathlib
import sys

sys.dont_write_bytecode = True  # the source tree may be read-only
_tests = pathlib.Path(__file__).resolve().parents[1]
_system = _tests / "system"
sys.path[:0] = [str(_system), str(_tests / "hold")]

# Under a name of its own: this file is called conftest too.
_spec = importlib.util.spec_from_file_location("system_conftest", _system / "conftest.py")
system_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(system_conftest)

pytest_addoption = system_conftest.pytest_addoption
pytest_configure = system_conftest.pytest_configure
pytest_report_header = system_conftest.pytest_report_header
pytest_generate_tests = system_conftest.pytest_generate_tests
debris, launch, start = system_conftest.debris, system_conftest.launch, system_conftest.start
