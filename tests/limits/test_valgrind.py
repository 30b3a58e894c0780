# SPDX-License-Identifier: ISC
"""valgrind(1): each process of the daemon frees all memory before it ends, and reads no memory that was not initialized."""

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
    pytest.mark.skipif(echod.SANITIZED, reason="valgrind cannot run programs with sanitizers"),
    pytest.mark.timeout(300),
]


@pytest.mark.models(*(model for model in echod.MODELS if model != "io_uring"))  # no completions under valgrind
def test_clean_at_exit(launch, tmpdir, model):
    """A daemon serves streams and datagrams, is reloaded while a connection is open, and stops."""
    reports = pathlib.Path(tmpdir, "reports")
    reports.mkdir()
    valgrind = ["valgrind", "--quiet", "--leak-check=full", "--show-leak-kinds=all", "--errors-for-leak-kinds=all",
                f"--log-file={reports}/%p"]
    # a filter would refuse system calls of valgrind
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
    assert (reports / str(daemon.pid)).exists(), "valgrind wrote no report about the supervisor"
    wrong = []
    for report in reports.iterdir():
        for piece in re.split(r"^==\d+== *\n", report.read_text(), flags=re.M):
            # a child that ends by _exit(2) has a copy of memory that the supervisor frees
            copied = report.name != str(daemon.pid) and " are still reachable in " in piece
            # memory of glibc for a thread that is ending
            glibcs = " are possibly lost in " in piece and "_dl_allocate_tls" in piece
            if piece.strip() and not copied and not glibcs:
                wrong.append(piece)
    assert not wrong, f"{len(wrong)} reports of errors:\n" + "\n".join(wrong)[:6000]
