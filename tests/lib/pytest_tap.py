# SPDX-License-Identifier: ISC
"""A pytest plugin: write a TAP line for each test to the descriptor in ECHOD_TAP_FD.

With pytest-xdist only the controlling process writes; it gets the reports of all workers. Measurements
that a test reports with record_property() become lines "# figure: ".
"""

import os


def pytest_configure(config):
    fd = os.environ.get("ECHOD_TAP_FD")
    if fd is None or hasattr(config, "workerinput"):
        return
    os.set_inheritable(int(fd), False)
    config.pluginmanager.register(TapReporter(int(fd)), "echod-tap-reporter")


def one_line(text):
    return " ".join(str(text).split())


class TapReporter:
    def __init__(self, fd):
        self.fd = fd
        self.count = 0

    def write(self, line):
        os.write(self.fd, (line + "\n").encode("utf-8", "backslashreplace"))

    def result(self, ok, name, directive=""):
        self.count += 1
        self.write(f"{'ok' if ok else 'not ok'} {self.count} - {one_line(name).replace('#', chr(92) + '#')}{directive}")

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.rsplit("/", 1)[-1]
        if hasattr(report, "wasxfail") and report.when == "call":
            self.result(report.passed, name, f" # TODO {one_line(report.wasxfail)}")
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            self.result(True, name, f" # SKIP {one_line(reason).removeprefix('Skipped: ')}")
        elif report.when == "call":
            self.result(report.passed, name)
            for what, value in report.user_properties:
                self.write(f"# figure: {one_line(what)}: {one_line(value)}")
        elif report.failed:
            self.result(False, f"{name} ({report.when})")

    def pytest_collectreport(self, report):
        if report.failed:
            self.result(False, f"collecting {report.nodeid}")

    def pytest_sessionfinish(self, session, exitstatus):
        if self.count:
            self.write(f"1..{self.count}")
