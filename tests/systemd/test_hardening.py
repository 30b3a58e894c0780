# SPDX-License-Identifier: ISC
"""The restrictions of the units are in effect: a program in the place of echod tries forbidden actions, which fail."""

import re

import pytest

from machine import ACTIVATED, EVENTS, SERVICE, SOCKET, echo, make_variable

# A program for the place where echod runs: same user, namespaces and filters, since it runs as
# part of the same unit. Each line of its output is "name: outcome".
PROBE = r"""
import ctypes, errno, os, socket

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
INIT_MODULE = {"x86_64": 175, "aarch64": 105, "riscv64": 105}.get(os.uname().machine, 128)

def outcome(name, attempt):
    try:
        print(f"{name}: {attempt() or 'done'}", flush=True)
    except OSError as error:
        print(f"{name}: {errno.errorcode[error.errno]}", flush=True)

def call(function, *arguments):
    if function(*arguments) in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "")

def write(path):
    with open(path, "w") as file:
        file.write("x")

def run(*command):
    _, status = os.waitpid(os.posix_spawn(command[0], command, {}), 0)
    return f"status {os.waitstatus_to_exitcode(status)}" if status else None

def run_own_file(directory):
    try:
        with open(f"{directory}/own", "w") as file:
            file.write("#!" + ECHOD + " -V\n")
        os.chmod(f"{directory}/own", 0o700)
    except OSError:
        return "nothing"  # it cannot be written
    try:
        run(f"{directory}/own")
    finally:
        os.unlink(f"{directory}/own")

def become_root():
    os.setuid(0)

def bind(port):
    with socket.socket() as made:
        made.bind(("127.0.0.1", port))

outcome("write /etc", lambda: write("/etc/probe"))
outcome("write /usr", lambda: write("/usr/probe"))
outcome("write /usr/lib", lambda: write("/usr/lib/probe"))
outcome("write echod", lambda: os.utime(ECHOD))
outcome("run id", lambda: os.posix_spawn("/usr/bin/id", ["id"], {}) and None)
for directory in "/run/echod", "/tmp", "/var/tmp", "/dev/shm":
    outcome(f"run {directory}", lambda: run_own_file(directory))
outcome("run echod", lambda: run(ECHOD, "-V"))
outcome("write /var/lib", lambda: write("/var/lib/probe"))
outcome("write configuration", lambda: write(CONFIGURATION))
outcome("write /run/echod", lambda: write("/run/echod/probe"))
outcome("read /home", lambda: os.listdir("/home"))
outcome("write sysctl", lambda: write("/proc/sys/net/ipv4/ip_forward"))
outcome("write cgroup", lambda: os.mkdir("/sys/fs/cgroup/probe"))
outcome("see init", lambda: os.listdir("/proc/1"))
outcome("become root", become_root)
outcome("bind 7", lambda: bind(7777))
outcome("mount", lambda: call(libc.mount, b"none", b"/tmp", b"tmpfs", 0, None))
outcome("unshare", lambda: call(libc.unshare, 0x10000000))
outcome("hostname", lambda: call(libc.sethostname, b"probe", 5))
outcome("clock", lambda: call(libc.settimeofday, ctypes.create_string_buffer(16), None))
outcome("reboot", lambda: call(libc.reboot, 0))
outcome("module", lambda: call(libc.syscall, INIT_MODULE, None, 0, b""))
outcome("ptrace", lambda: call(libc.ptrace, 16, os.getppid(), None, None))
outcome("priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
outcome("realtime", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
outcome("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
outcome("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
outcome("netlink socket", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close())
outcome("inet socket", lambda: socket.socket(socket.AF_INET).close())
outcome("unix socket", lambda: socket.socket(socket.AF_UNIX).close())
outcome("write and execute", lambda: call(libc.mmap, None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0)))
outcome("personality", lambda: call(libc.personality, 8))
outcome("device", lambda: os.listdir("/dev/mapper"))
outcome("kernel log", lambda: open("/dev/kmsg").close())
outcome("io_uring", lambda: call(libc.syscall, 425, 4, ctypes.create_string_buffer(120)))
outcome("processes", lambda: str(len([name for name in os.listdir("/proc") if name.isdigit()])))
outcome("umask", lambda: oct(os.umask(0)))
"""

FORBIDDEN = {
    "write /etc": "EROFS", "write /usr": "EROFS", "write /usr/lib": "EROFS", "write echod": "EROFS",
    "run id": "EACCES", "run /run/echod": "EACCES", "run /tmp": "EACCES", "run /var/tmp": "EACCES", "run /dev/shm": {"EACCES", "nothing"},
    "write /var/lib": "EROFS", "write configuration": "EROFS",
    "read /home": "EACCES", "write sysctl": "ENOENT", "write cgroup": "EROFS", "see init": "ENOENT",
    "become root": "EPERM", "mount": "EPERM", "unshare": "EPERM", "hostname": "EPERM", "clock": "EPERM",
    "reboot": "EPERM", "module": "EPERM", "ptrace": "EPERM", "priority": "EPERM", "realtime": "EPERM",
    "packet socket": "EAFNOSUPPORT", "netlink socket": "EAFNOSUPPORT", "raw socket": "EPERM",
    "write and execute": {"EPERM", "EACCES"},  # by a system call filter, or from systemd 253 on by PR_SET_MDWE
    "personality": "EPERM", "device": "ENOENT", "kernel log": "ENOENT",
}
PERMITTED = {"run echod": "done", "write /run/echod": "done", "unix socket": "done", "umask": "0o77"}


def probe(machine, unit):
    """Run the probe as the unit's own ExecReload= command would be run; its outcomes by name."""
    path = machine.path("/usr/local/lib/probe.py")
    path.write_text(PROBE.replace("CONFIGURATION", repr(machine.conf_path)).replace("ECHOD", repr(machine.echod)))
    python = machine.run("realpath", "/usr/bin/python3").stdout.strip()
    machine.drop_in(unit, f"[Service]\nExecPaths={python}\nExecReload=\nExecReload=/usr/bin/python3 -B /usr/local/lib/probe.py\nStandardError=journal\n")
    since = machine.cursor()
    machine.systemctl("reload", unit)
    entries = machine.journal(since, _SYSTEMD_UNIT=unit)
    return dict(entry["MESSAGE"].split(": ", 1) for entry in entries if re.match(r"[\w /]+: \w+$", entry["MESSAGE"]))


def start(machine, unit):
    if unit == SERVICE:
        machine.systemctl("start", SERVICE)
    else:
        machine.systemctl("start", ACTIVATED)


@pytest.mark.parametrize("unit", [SERVICE, ACTIVATED])
def test_what_it_may_not_do(machine, unit):
    start(machine, unit)
    outcomes = probe(machine, unit)
    assert "umask" in outcomes, outcomes  # it came to its end
    inet = {SERVICE: "done", ACTIVATED: "EAFNOSUPPORT"}[unit]
    expected = {**FORBIDDEN, **PERMITTED, "inet socket": inet}
    if unit == ACTIVATED:
        expected["raw socket"] = "EAFNOSUPPORT"
    wrong = {name: (outcomes.get(name), want) for name, want in expected.items()
             if outcomes.get(name) not in (want if isinstance(want, set) else {want})}
    assert not wrong, f"got, wanted: {wrong}"
    assert int(outcomes["processes"]) < 8, "it sees processes of others"
    assert outcomes["io_uring"] in ("done", "ENOSYS"), "the filter must not forbid io_uring"


@pytest.mark.parametrize("unit, capability", [(SERVICE, 1 << 10), (ACTIVATED, 0)])
def test_process_status(machine, unit, capability):
    """The supervisor has only the one capability, cannot gain others, and has a system call filter; workers have no capability."""
    start(machine, unit)
    assert machine.children(unit), "there are no workers"
    for pid in [machine.main_pid(unit), *machine.children(unit)]:
        worker = pid != machine.main_pid(unit)
        status = dict(line.split(":\t", 1) for line in machine.path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", pid
        for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"):
            # only CAP_SETPCAP may empty the bounding set; with no_new_privs it gives nothing
            assert int(status[name], 16) == (0 if worker and name != "CapBnd" else capability), (pid, name)
        assert "0" not in status["Uid"].split() and "0" not in status["Gid"].split()
        assert status["Groups"].split() in ([], [status["Gid"].split()[0]])


def test_no_network_of_its_own(machine):
    """The socket-activated service runs in an empty network namespace, and serves clients nevertheless."""
    start(machine, ACTIVATED)
    pid = machine.main_pid(ACTIVATED)
    assert machine.run("readlink", f"/proc/{pid}/ns/net").stdout != machine.run("readlink", "/proc/1/ns/net").stdout
    assert machine.run("readlink", f"/proc/{pid}/ns/user").stdout != machine.run("readlink", "/proc/1/ns/user").stdout
    with machine.connect("::1") as client:
        assert echo(client, b"over IPv6\n")


def test_files(machine):
    """Installed files belong to root, and other users may not write them."""
    for path in (machine.echod, machine.conf_path, "/usr/local/lib/systemd/system", "/usr/local/lib/sysusers.d"):
        if machine.path(path).exists():
            mode = machine.run("find", path, "(", "-perm", "/022", "-o", "-not", "-user", "root", ")").stdout
            assert mode == ""


def use_example(machine, unit, name):
    """Install a drop-in as its comment says."""
    text = machine.path(f"{make_variable('docdir')}/examples/{name}").read_text()
    directory = machine.path(f"/etc/systemd/system/{unit}.d")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(text)
    machine.systemctl("daemon-reload")


@pytest.mark.parametrize("unit", [SERVICE, ACTIVATED])
def test_drop_in_without_io_uring(machine, unit):
    """echod serves in another model; the calls are refused, and the message for io_uring has the reason."""
    use_example(machine, unit, "no-io-uring.conf")
    start(machine, unit)
    assert machine.serves()
    assert probe(machine, unit)["io_uring"] == "EPERM"
    machine.systemctl("stop", unit, SOCKET)
    machine.configure('model = "io_uring"\n')
    since = machine.cursor()
    assert machine.systemctl("start", unit, check=False).returncode != 0
    assert any("io_uring is forbidden" in entry["MESSAGE"] for entry in machine.journal(since, _SYSTEMD_UNIT=unit))


@pytest.mark.parametrize("unit", [SERVICE, ACTIVATED])
def test_drop_in_of_systemd_257(machine, unit):
    """Reload, restart with live connections, and stop work as without it; the restrictions are in effect."""
    if int(machine.systemctl("--version").stdout.split()[1]) < 257:
        pytest.skip("this systemd is older than 257")
    use_example(machine, unit, "systemd-257.conf")
    start(machine, unit)
    pid = machine.main_pid(unit)
    assert machine.run("readlink", f"/proc/{pid}/ns/cgroup").stdout != machine.run("readlink", "/proc/1/ns/cgroup").stdout
    assert re.search(r" /tmp [^\n]* - tmpfs ", machine.path(f"/proc/{pid}/mountinfo").read_text())
    with machine.connect() as client:
        assert echo(client, b"before the reload\n")
        machine.configure("workers = 2\n")
        machine.reload(unit)
        assert echo(client, b"after the reload\n")
        machine.systemctl("restart", unit)
        assert machine.main_pid(unit) != pid
        assert echo(client, b"after the restart\n")
    since = machine.cursor()
    machine.systemctl("stop", unit)
    assert machine.show(unit, "Result") == "success"
    assert machine.journal(since, MESSAGE_ID=EVENTS["STOPPED"])
