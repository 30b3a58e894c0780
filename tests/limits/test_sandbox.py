# SPDX-License-Identifier: ISC
"""What a worker process may do: no capabilities, no new privileges, and only the system calls of its model."""

import os
import re
import shutil
import socket
import subprocess

import pytest

import echod
import peer
import proc
import shims

VERSION = echod.run("-V").stdout if echod.ECHOD else ""

needs_filter = pytest.mark.skipif(", libseccomp" not in VERSION, reason="echod was built without libseccomp")
needs_faults = pytest.mark.skipif("fault points" not in VERSION, reason="echod was built without fault points "
                                  "(configure --enable-debug-faults)")
# Calls that end the process. Sanitizers make some of them; builds with sanitizers permit those.
FATAL = ("execve", "execveat") if echod.SANITIZED else ("execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev")


def status(pid):
    return dict(re.findall(r"^(\w+):\t(.*)$", proc.read(f"/proc/{pid}/status").decode(), re.M))


def all_workers(daemon):
    """Every process but the supervisor: children of an acceptor, too."""
    return [stat.pid for stat in daemon.tree() if stat.pid != daemon.pid and stat.state != "Z"]


def check(pid):
    found = status(pid)
    for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(found[field], 16) == 0, f"{field} of a worker is {found[field]}"
    assert found["NoNewPrivs"] == "1"
    return found


@pytest.mark.parametrize("protocols", [["tcp"], ["tcp", "udp"]])
def test_workers_have_no_capabilities(start, model, protocols):
    """Started as root: no capability in any set, the bounding set included; the supervisor continues as before."""
    if os.geteuid() != 0:
        pytest.skip("without root there are no capabilities to drop")
    daemon = start(model, protocols=protocols)
    with daemon.connect() as sock:
        peer.echo(sock, b"a process for this connection")
        workers = all_workers(daemon)
        assert workers
        for pid in workers:
            found = check(pid)
            assert int(found["CapBnd"], 16) == 0, found["CapBnd"]
        peer.finish(sock)
    assert int(status(daemon.pid)["CapEff"], 16) != 0


def test_workers_of_an_unprivileged_user(start, model, visible, tmpdir):
    """The start of the workers needs no privilege."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv to become an unprivileged user")
    daemon = start(model, program=visible, wrap=echod.as_nobody(), pidfile="")
    for pid in all_workers(daemon):
        check(pid)
    daemon.visit()


def test_workers_are_not_dumpable(start, model):
    """Files in /proc/PID of a process that is not dumpable belong to root, whatever its user: see proc(5)."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs root, to run as another user and compare owners")
    daemon = start(model, user="nobody", pidfile="")
    (worker, *_) = all_workers(daemon)
    assert os.stat(f"/proc/{worker}/environ").st_uid == 0
    assert status(worker)["Uid"].split()[0] != "0"


@needs_filter
def test_workers_have_a_filter(start, model):
    daemon = start(model, protocols=["tcp", "udp"])
    with daemon.connect() as sock:
        peer.echo(sock, b"hello")
        for pid in all_workers(daemon):
            assert status(pid)["Seccomp"] == "2"
            # ThreadSanitizer starts a thread of its own before main()
            for task in [] if echod.THREAD_SANITIZED else os.listdir(f"/proc/{pid}/task"):
                assert "\nSeccomp:\t2\n" in proc.read(f"/proc/{pid}/task/{task}/status").decode()
        assert status(daemon.pid)["Seccomp"] == status(os.getpid())["Seccomp"]
        peer.finish(sock)


@needs_filter
@needs_faults
def test_forbidden_calls_are_refused(launch, model):
    """The filter refuses every system call that is not in the table, and some calls of the table with arguments that are not."""
    daemon = launch(model, protocols=["tcp", "udp"], env={"ECHOD_FAULT_SYSCALL": "all"})
    daemon.wait_ready()
    daemon.visit()
    daemon.stop()
    refused = [int(count) for count in re.findall(r"(\d+) forbidden system calls were refused", daemon.log())]
    assert len(refused) >= 2, daemon.log()
    assert min(refused) > (150 if echod.SANITIZED else 200), refused
    assert "is not refused" not in daemon.log(), daemon.log()


@needs_filter
@needs_faults
@pytest.mark.parametrize("call", FATAL)
def test_some_calls_end_the_worker(launch, model, call):
    daemon = launch(model, env={"ECHOD_FAULT_SYSCALL": call})
    daemon.crash_expected = True
    assert re.search(r"killed by signal \d+ \(Bad system call\)", daemon.fails(echod.EX_OSERR)), daemon.log()


@needs_filter
@needs_faults
@pytest.mark.parametrize("call", ["socket", "openat", "mremap", "kill", "tgkill", "setuid", "unshare", "bpf", "mount", "io_uring_setup"])
def test_single_calls(launch, model, call):
    if echod.SANITIZED and call in ("openat", "kill", "tgkill"):
        pytest.skip("builds with sanitizers permit this call")
    if "coverage" in VERSION and call == "openat":
        pytest.skip("builds for coverage permit this call")
    daemon = launch(model, env={"ECHOD_FAULT_SYSCALL": call}).wait_ready()
    daemon.visit()
    daemon.wait_log(f"System call {call} was refused")


@needs_faults
@pytest.mark.parametrize("setup", [0, 1, 2])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.models("io_uring")
def test_forbidden_operations_of_a_ring(launch, model, setup, workers):
    """System call filters do not see ring operations; the ring itself refuses all but those of the model, with each set-up that
    kernels have."""
    daemon = launch(model, workers=workers, env={"ECHOD_FAULT_URING_FORBIDDEN": "1", "ECHOD_FAULT_URING_SETUP": str(setup)})
    daemon.wait_ready()
    daemon.visit()
    daemon.stop()
    refused = [int(count) for count in re.findall(r"The ring refused (\d+) forbidden operations and registrations", daemon.log())]
    assert len(refused) == workers, daemon.log()
    assert min(refused) > 60, refused
    assert "does not refuse" not in daemon.log(), daemon.log()


def test_a_kernel_without_filters(start, model, tmpdir):
    """The daemon logs that the kernel has no filters, and serves."""
    daemon = start(model, env=shims.preload(shims.compile_shim("no_seccomp", tmpdir)))
    with daemon.connect() as sock:  # a process without a connection may end at any time
        peer.echo(sock, b"served without a filter")
        if ", libseccomp" in VERSION:
            daemon.wait_log("Cannot filter system calls of workers: this kernel cannot filter")
        for pid in all_workers(daemon):
            assert status(pid)["Seccomp"] == status(os.getpid())["Seccomp"]
            check(pid)
        peer.finish(sock)


def test_production_permits_no_more(tmpdir):
    """A build for tests states in -V that it permits more system calls than the manual lists; other builds do not."""
    more = "more system calls permitted than in production" in VERSION
    extended = echod.SANITIZED or "fault points" in VERSION or "coverage" in VERSION
    assert more == (extended and ", libseccomp" in VERSION), VERSION


def test_link_local_names(start, model):
    """A worker, which must not create sockets, can find the name of an interface."""
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    out = subprocess.run(["ip", "-6", "-o", "addr", "show", "scope", "link"], capture_output=True, text=True).stdout \
        if shutil.which("ip") else ""
    found = re.search(r"^\d+: (\S+)\s+inet6 (fe80::[0-9a-f:]+)/", out, re.M)
    if not found or found.group(1) not in names:
        pytest.skip("no interface with a link-local address")
    scoped = f"{found.group(2)}%{found.group(1)}"
    daemon = start(model, listen=[scoped])
    with socket.create_connection((scoped, daemon.port), peer.PATIENCE) as sock:
        port = sock.getsockname()[1]
        peer.echo(sock, b"hello")
        peer.finish(sock)
    daemon.wait_log(re.escape(f"[{scoped}]:{port} to [{scoped}]:{daemon.port} ended"))
