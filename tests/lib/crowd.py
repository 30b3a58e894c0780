# SPDX-License-Identifier: ISC
"""Many verified streams of the program `streams`; its source explains the kinds and the counts."""

import json
import os
import select
import subprocess

from build import SRCDIR

ROUNDS = int(os.environ.get("ECHOD_TEST_ROUNDS") or 1)

ANSWER = 150  # seconds; longer than `streams` waits for a stalled stream

BAD = ("refused", "reset", "cut", "corrupt", "stalled")


def report_pause(record_property, pause):
    """Report a measurement in the log of make check, and on standard output for pytest -s."""
    record_property("longest pause", pause)
    print("longest pause", pause)


def build(path):
    """Build `streams`, if `make check` has not built it."""
    source = SRCDIR / "tests/persistence/streams.c"
    path.with_name("config.h").touch()
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-D_GNU_SOURCE", f"-I{path.parent}", "-o", path, source],
                   check=True, timeout=120)
    return str(path)


class Crowd:
    def __init__(self, program, seed, address, count=50, *, kinds=None, think=None, prefix=()):
        command = [*prefix, program, "-s", str(seed), "-n", str(count), *(["-k", kinds] if kinds else []),
                   *(["-t", str(think)] if think else []), *map(str, address)]
        self.count = count
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.longest = 0.0

    def begin(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def answer(self):
        ready = select.select([self.process.stdout], [], [], ANSWER)[0]
        assert ready, "no answer from streams"
        line = self.process.stdout.readline()
        assert line, f"streams ended: {self.process.wait(10)}"
        return json.loads(line)

    def ask(self, command):
        self.begin(command)
        return self.answer()

    def settle(self, what, least=0):
        """Wait until `least` streams (0: all) have received the echo of data sent after this call. No stream may have an error."""
        counts = self.ask(f"settle {least}")
        self.check(counts, what)
        self.longest = max(self.longest, counts["pause_ms"])
        return counts

    def check(self, counts, what):
        wrong = {name: counts[name] for name in BAD if counts[name]}
        assert not wrong, f"{what}: {wrong}; all counts: {counts}"

    def mark(self):
        self.ask("mark")

    def finish(self, what):
        """Read every stream to its end."""
        counts = self.ask("finish")
        self.check(counts, what)
        assert counts["live"] == 0 and counts["bytes"] > 0, f"{what}: {counts}"
        return counts

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
