# SPDX-License-Identifier: ISC
"""echod-models(7): each model is described in the same form, and the exercises have the results that the page prints."""

import os
import re
import shutil
import subprocess

import pytest

import build
import echod

PAGE = build.SRCDIR / "man/echod-models.7"
ITEMS = ["Calls of a connection with an echo", "Calls of an echo", "Shared between connections", "A crash affects",
         "State of a connection", "Cost", "Limits", "Choose it", "Source", "Exercise"]
PORT = "7007"


def blocks(text):
    """The literal blocks of a piece of the page, as the reader sees them."""
    found = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", text, re.M | re.S)
    return [block.replace(r"\(dq", '"').replace(r"\(aq", "'").replace(r"\e", "\\").replace(r"\&", "") for block in found]


def sections():
    """The text of each model's section."""
    return dict(re.findall(r"^\.Sh THE MODEL (\w+)\n(.*?)(?=^\.Sh )", PAGE.read_text(), re.M | re.S))


def commands(block):
    return "".join(line[2:] + "\n" for line in block.splitlines() if line[:2] in ("$ ", "> "))


def results(block):
    return [line for line in block.splitlines() if line[:2] not in ("$ ", "> ")]


def test_form():
    assert list(sections()) == list(echod.MODELS)
    for name, text in sections().items():
        assert re.findall(r"^\.It Em (.*)$", text, re.M) == ITEMS, name
        assert len(blocks(text)) == 2, f"{name}: a drawing and an exercise"
        for path in re.search(r"^\.Pa (.*)$", text, re.M)[1].split(" , "):
            assert (build.SRCDIR / path).is_file(), path


@pytest.mark.timeout(120)
def test_exercise(model, tmpdir):
    for program in ("pgrep", "ps", "sed", "awk"):
        if not shutil.which(program):
            pytest.skip(f"{program} is missing")
    exercise = blocks(sections()[model])[1]
    if "/proc/" in exercise and os.geteuid() != 0:
        pytest.skip("the exercise is for root")
    if "strace" in exercise and not shutil.which("strace"):
        pytest.skip("no strace was found (Debian: apt install strace)")
    if "strace" in exercise and echod.SANITIZED:
        pytest.skip("sanitizers make system calls of their own")
    if "nlwp" in exercise and echod.THREAD_SANITIZED:
        pytest.skip("ThreadSanitizer adds threads of its own")
    begin, end = blocks(PAGE.read_text().partition(".Sh THE MODEL")[0])
    # The daemon must end, also where a command failed. A daemon that has ended already has removed its file.
    script = (commands(begin) + 'trap \'test ! -f models.pid || kill "$(cat models.pid)"\' EXIT\n' + commands(exercise))
    assert commands(end).startswith("kill $(cat models.pid)")
    port = str(echod.free_port())
    environment = dict(os.environ, PATH=f"{os.path.dirname(echod.ECHOD)}:{os.environ['PATH']}:/usr/sbin:/sbin", LC_ALL="C.UTF-8")
    environment.pop("NOTIFY_SOCKET", None)
    done = subprocess.run(["sh", "-c", script.replace(PORT, port)], cwd=tmpdir, env=environment, capture_output=True, text=True,
                          check=False, timeout=100)
    assert done.stdout.splitlines() == results(exercise), done.stderr
