# SPDX-License-Identifier: ISC
"""echod-models(7): each model is described in the same form, and the exercises have the results that the page prints."""

import collections
import os
import re
import shutil
import subprocess

import pytest

import build
import calls
import echod

PAGE = build.SRCDIR / "man/echod-models.7"
ITEMS = ["Calls of a connection with an echo", "Calls of an echo", "Shared between connections", "A crash affects",
         "State of a connection", "Cost", "Limits", "Choose it", "Source", "Exercise"]
PORT = "7007"


def blocks(text):
    """The literal blocks of a part of the page, as they are displayed."""
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
        assert commands(blocks(text)[1]) and results(blocks(text)[1]), f"{name}: an exercise with a command and its result"
        for path in re.search(r"^\.Pa (.*)$", text, re.M)[1].split(" , "):
            assert (build.SRCDIR / path).is_file(), path


def named_calls(model, item):
    """The system calls that an item of the page names, in their order; those of all processes and threads."""
    text = re.search(rf"^\.It Em {item}\n(.*?)^\.It ", sections()[model], re.M | re.S)[1]
    return re.sub(r"in the (child|thread):", " ", text.replace(";", " ")).split()


def same_cycle(one, other):
    """Whether two lists are equal after a rotation."""
    return len(one) == len(other) and any(one[i:] + one[:i] == other for i in range(len(one)))


@pytest.mark.skipif(calls.cannot_trace() is not None, reason=str(calls.cannot_trace()))
@pytest.mark.skipif(echod.SANITIZED, reason="sanitizers make system calls of their own")
def test_named_calls(start, tmpdir, model):
    """The daemon makes the calls that the page names. Calls of libc are left out, because they differ between its versions."""
    path = os.path.join(tmpdir, "trace")
    daemon = start(model, wrap=calls.wrap(path), stats_interval=0, log_connections=False, protocols=["tcp"],
                   workers=1 if model in echod.LOOPS else echod.default_workers(model))
    recording = calls.Recording(daemon.pid, path)

    def own(names):
        return [name for name in names if name not in calls.OF_LIBC]

    named = own(named_calls(model, "Calls of a connection with an echo"))
    calls.visit(daemon.address)
    # After some iterations that accepted a connection an event loop tries to accept two per iteration: see accept_adapt().
    found = [own(recording.during(lambda: calls.visit(daemon.address))) for _ in range(3)]
    if model in echod.SPAWN:
        assert any(collections.Counter(each) == collections.Counter(named) for each in found), found
    elif model == "io_uring":
        # the kernel determines how often the program enters the ring
        assert any(set(each) == set(named) for each in found), found
    else:
        assert any(same_cycle(each, named) for each in found), found
    with daemon.connect() as sock:
        calls.exchange([sock])
        found = recording.during(lambda: calls.exchange([sock]))
    assert same_cycle(found, named_calls(model, "Calls of an echo")), found


@pytest.mark.timeout(120)
def test_exercise(model, tmpdir):
    for program in ("pgrep", "ps", "sed", "awk"):
        if not shutil.which(program):
            pytest.skip(f"{program} is missing")
    exercise = blocks(sections()[model])[1]
    if "/proc/" in exercise and os.geteuid() != 0:
        pytest.skip("the exercise needs root")
    if "strace" in exercise and not shutil.which("strace"):
        pytest.skip("no strace was found (Debian: apt install strace)")
    if "strace" in exercise and echod.SANITIZED:
        pytest.skip("sanitizers make system calls of their own")
    if "strace" in exercise and " -c " in exercise and calls.cannot_count():
        pytest.skip(calls.cannot_count())
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
