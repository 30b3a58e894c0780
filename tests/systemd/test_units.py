# SPDX-License-Identifier: ISC
"""The unit files and the catalog as text; only systemd's own checks of them are run."""

import re
import shutil
import subprocess

import pytest

from machine import ACTIVATED, BUILDDIR, EVENTS, SERVICE, SOCKET, SRCDIR, booted, make, make_variable

CATALOG = SRCDIR / "systemd/echod.catalog"


def unit_text(name):
    built = f"{BUILDDIR}/systemd/{name}"
    return (SRCDIR / "systemd/echod.socket" if name == SOCKET else type(SRCDIR)(built)).read_text()


def lines_of(text):
    return [line for line in text.splitlines() if line and not line.startswith(("#", ";"))]


def systemd_version():
    return int(re.search(r"^systemd (\d+)", subprocess.run(["systemctl", "--version"], capture_output=True, text=True).stdout)[1])


@pytest.mark.parametrize("unit, most", [(SERVICE, 15), (ACTIVATED, 2)])
@pytest.mark.parametrize("example", [None, "no-io-uring.conf", "systemd-257.conf"])
def test_exposure(unit, most, example, tmp_path, record_property):
    """systemd-analyze security: at most 1.5 for the service that binds its port, of which capset(2) costs 0.1; 0.2 for the other.
    Drop-ins do not make it worse."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    if not BUILDDIR:
        pytest.skip("ECHOD_BUILDDIR names no build")
    # offline analysis needs a program that exists where it runs
    if example == "systemd-257.conf" and systemd_version() < 257:
        pytest.skip("this systemd is older than 257")
    text = unit_text(unit).partition("[Install]")[0]
    if example:
        text += (type(SRCDIR)(BUILDDIR) / "systemd" / example).read_text()
    text = re.sub(r"^(Exec\w+=)\S*/echod\b", r"\1/bin/true", text, flags=re.M)
    (tmp_path / unit).write_text(text)
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", f"--threshold={most}", "--no-pager", tmp_path / unit],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert score, done.stdout
    record_property(f"systemd-analyze security {unit}", score[1])
    assert done.returncode == 0 and float(score[1]) * 10 <= most, done.stdout


def test_memory_max():
    """MemoryMax= is above the formula of the manual with the defaults."""
    if not BUILDDIR:
        pytest.skip("ECHOD_BUILDDIR names no build")
    factors = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    for unit in (SERVICE, ACTIVATED):
        number, factor = re.search(r"^MemoryMax=(\d+)([KMGT]?)$", unit_text(unit), re.M).groups()
        connections = int(re.search(r"^LimitNOFILE=(\d+)$", unit_text(unit), re.M)[1])
        buffer_size = int(re.search(r"^#buffer-size = (\d+)$", (SRCDIR / "etc/echod.conf").read_text(), re.M)[1])
        kernel = (6 << 20) + (4 << 20) + (256 << 10)  # tcp_rmem[2], tcp_wmem[2], which are common defaults
        assert int(number) * factors[factor] >= connections * (144 + buffer_size + kernel)


@pytest.mark.parametrize("name", ["keep-over-stop.conf", "no-io-uring.conf", "notify-reload.conf", "systemd-257.conf"])
def test_examples(name):
    """Each drop-in is in the manual, and its comment has the command that installs it."""
    if not BUILDDIR:
        pytest.skip("ECHOD_BUILDDIR names no build")
    text = (type(SRCDIR)(BUILDDIR) / "systemd" / name).read_text()
    assert f"{make_variable('docdir')}/examples/{name} /etc/systemd/system/echod.service.d/{name}" in text
    assert not re.search(r"@\w+@", text.replace("@aio", ""))
    assert f"examples/{name}" in (SRCDIR / "man/echod.8").read_text()


def test_install_and_uninstall(tmp_path):
    """make install puts each file where systemd looks for it, and make uninstall removes all of them."""
    if not BUILDDIR:
        pytest.skip("ECHOD_BUILDDIR names no build")
    prefix = make_variable("prefix")
    make("install", tmp_path)
    have = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {f"{directory}/{name}".lstrip("/") for directory, name in [
        (make_variable("systemdsystemunitdir"), SERVICE), (make_variable("systemdsystemunitdir"), ACTIVATED),
        (make_variable("systemdsystemunitdir"), "echod@.service"),
        (make_variable("systemdsystemunitdir"), SOCKET), (f"{prefix}/lib/sysusers.d", "echod.conf"),
        (f"{prefix}/lib/systemd/catalog", "echod.catalog"), (make_variable("sysconfdir"), "echod.conf"),
        (make_variable("sbindir"), "echod"), (make_variable("bindir"), "echoc")]} <= have
    for name in have:
        if "systemd/system" in name:
            text = (tmp_path / name).read_text()
            assert not re.search(r"@(\w+@|only)", text), name
            conf = "echod/%i.conf" if "@" in name else "echod.conf"
            assert f"{make_variable('sbindir')}/echod -n -c {make_variable('sysconfdir')}/{conf}\n" in text or name.endswith(".socket")
    make("uninstall", tmp_path)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_install_on_the_running_system(bare_machine, tmp_path):
    """make install, systemctl enable --now; make uninstall: nothing is left, nothing runs, nothing is enabled."""
    with booted(tmp_path / "m") as machine:
        if not machine.path(BUILDDIR).is_dir():
            pytest.skip("the build is below a directory, such as /tmp, that a machine has of its own")
        places = ["find", "/etc", "/run", "/usr/local", "/var", "-xdev", "(", "-name", "*echo[cd]*", "-o", "-lname", "*echo[cd]*", ")",
                  "-not", "-name", "echod-boot*"]
        before = machine.run(*places).stdout
        machine.run("make", "-s", "-C", BUILDDIR, "install")
        machine.systemctl("enable", "--now", SERVICE)
        assert machine.serves()
        assert machine.run("systemd-analyze", "cat-config", "sysusers.d/echod.conf").stdout
        machine.run("make", "-s", "-C", BUILDDIR, "uninstall")
        assert machine.active() == "inactive"
        left = set(machine.run(*places).stdout.splitlines()) - set(before.splitlines())
        assert {path for path in left if not machine.path(path).is_dir() or "systemd" in path} == set()


def test_verify(machine):
    """systemd-analyze verify has no message about the installed units; the manual pages that they name exist."""
    done = machine.run("systemd-analyze", "--man=no", "verify", SERVICE, ACTIVATED, SOCKET)
    assert done.stdout + done.stderr == ""
    for page, section in re.findall(r"man:(echo[\w.]+)\((\d)\)", "".join(map(unit_text, (SERVICE, ACTIVATED, SOCKET)))):
        assert machine.path(f"{make_variable('mandir')}/man{section}/{page}.{section}").is_file(), page


def test_every_restriction_is_explained():
    """Each restriction has a comment with its reason, before the line or before its group."""
    if not BUILDDIR:
        pytest.skip("ECHOD_BUILDDIR names no build")
    for unit in (SERVICE, ACTIVATED):
        lines = unit_text(unit).split("[Service]")[1].split("\n[Install]")[0].splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("User="))
        for before, line in zip(lines[start:], lines[start + 1:]):
            if not line or line.startswith("#") or before.startswith("#"):
                continue
            # the only lines without a comment of their own belong to the one before
            assert (before.split("=")[0], line.split("=")[0]) in {
                ("AmbientCapabilities", "CapabilityBoundingSet"),
                ("PrivateIPC", "RemoveIPC"), ("NoExecPaths", "ExecPaths"), ("ExecPaths", "BindReadOnlyPaths"),
                ("PrivateNetwork", "IPAddressDeny")}, f"{unit}: {line} is not explained"


def test_variants_agree():
    """The two services differ only in settings that depend on the sockets."""
    if not BUILDDIR:
        pytest.skip("ECHOD_BUILDDIR names no build")
    own, activated = set(lines_of(unit_text(SERVICE))), set(lines_of(unit_text(ACTIVATED)))
    assert {line.split("=")[0] for line in own ^ activated} == {
        "Description", "After", "Requires", "Conflicts", "Before", "Sockets", "AmbientCapabilities",
        "CapabilityBoundingSet", "SystemCallFilter", "RestrictAddressFamilies", "PrivateNetwork", "PrivateUsers", "IPAddressDeny",
        "[Install]", "WantedBy"}


def test_catalog_has_every_event():
    """One entry for each MESSAGE_ID of event.h and no other, with the same name, a subject and advice."""
    text = CATALOG.read_text()
    entries = re.findall(r"^# EVENT_(\w+)\n-- ([0-9a-f]{32})\nSubject: ([^\n]+)\nDefined-By: echod\n"
                         r"((?:[\w-]+: [^\n]+\n)*)\n(.+?)\n(?=\n# EVENT|\Z)",
                         text, re.M | re.S)
    assert {name: entry for name, entry, *_ in entries} == EVENTS
    assert len(re.findall(r"^-- ", text, re.M)) == len(entries) == len(EVENTS) == len(set(EVENTS.values()))
    for name, _, subject, headers, body in entries:
        assert not subject.endswith(".") and len(subject) <= 70, name
        assert "Documentation: man:echod" in headers, name
        assert len(body.split("\n\n")) >= 2, f"{name}: what happened, and what to do"
        assert all(len(line) <= 100 for line in body.splitlines()), name


def test_every_event_happens():
    """echod logs each event of the catalog."""
    sources = "".join(path.read_text() for path in (SRCDIR / "src").rglob("*.c"))
    assert [name for name in EVENTS if not re.search(rf"\bEVENT_{name}\b", sources)] == []


def test_catalog_fields_exist():
    """echod logs, or systemd adds, each field of the journal that the catalog refers to."""
    sources = "".join(path.read_text() for path in (SRCDIR / "src").rglob("*.c"))
    for field in set(re.findall(r"@(\w+)@", CATALOG.read_text())):
        assert field == "_SYSTEMD_UNIT" or f'"{field}"' in sources, field
