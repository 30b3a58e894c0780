# SPDX-License-Identifier: ISC
"""At the end of every process of the daemon all its memory has been freed, and none was read that had not been set."""

import pathlib
import re
import shutil
import socket

import pytest

import echod
import peer
import shims

pytestmark = [
    pytest.mark.skipif(not shutil.which("valgrind"), reason="no valgrind was found (Debian: apt install valgrind)"),
    pytest.mark.skipif(echod.SANITIZED, reason="a sanitizer's own memory is not valgrind's to look at"),
    pytest.mark.timeout(300),
]


@pytest.mark.models(*(model for model in echod.MODELS if model != "io_uring"))  # under valgrind no completion comes
def test_clean_at_exit(launch, tmpdir, model):
    """The whole life of a daemon: streams and datagrams, a reload with a connection that lives on, a stop."""
    reports = pathlib.Path(tmpdir, "reports")
    reports.mkdir()
    valgrind = ["valgrind", "--quiet", "--leak-check=full", "--show-leak-kinds=all", "--errors-for-leak-kinds=all",
                f"--log-file={reports}/%p"]
    # a filter of system calls would refuse those of valgrind
    env = shims.preload(shims.compile_shim("no_seccomp", tmpdir))
    daemon = launch(model, wrap=valgrind, env=env, protocols=["tcp", "udp"], metrics_file=str(pathlib.Path(tmpdir, "metrics")),
                    deny=["192.0.2.0/24"], max_per_source=100)
    daemon.wait_ready(120)
    for size in (1, 100000, 300000):
        daemon.visit(peer.data(size))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(peer.PATIENCE)
        sock.connect(daemon.address)
        sock.send(b"datagram")
        assert sock.recv(100) == b"datagram"
    with daemon.connect() as held:
        peer.echo(held, b"held over the reload")
        daemon.reload(deny=["198.51.100.0/24"])
        peer.echo(held, b"still here")
        peer.finish(held)
    daemon.stop(60)
    assert (reports / str(daemon.pid)).exists(), "valgrind has said nothing about the supervisor"
    wrong = []
    for report in reports.iterdir():
        for piece in re.split(r"^==\d+== *\n", report.read_text(), flags=re.M):
            # a child that ends by _exit(2) has a copy of what is the supervisor's to free
            copied = report.name != str(daemon.pid) and " are still reachable in " in piece
            # of a thread that has done its work and is on its way out
            glibcs = " are possibly lost in " in piece and "_dl_allocate_tls" in piece
            if piece.strip() and not copied and not glibcs:
                wrong.append(piece)
    assert not wrong, f"{len(wrong)} complaints:\n" + "\n".join(wrong)[:6000]
