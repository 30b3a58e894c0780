# SPDX-License-Identifier: ISC
"""The life of the Debian package on a fresh system: installed, started, upgraded, removed, purged."""

import os
import shutil
import subprocess

import pytest

from machine import ACTIVATED, SERVICE, SOCKET, echo

DEB = os.environ.get("ECHOD_DEB", "")

pytestmark = pytest.mark.timeout(300)  # dpkg takes its time


@pytest.fixture
def fresh(bare_machine):
    """A machine without files of the package or of an earlier test; the package is at /tmp/echod.deb."""
    if not DEB:
        pytest.skip('ECHOD_DEB names no package; "make check-deb" builds one and tests it')
    bare_machine.path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)  # a container's, to forbid starts
    bare_machine.path("/var/lib/man-db/auto-update").unlink(missing_ok=True)  # no index of all manual pages each time
    dpkg(bare_machine, "--purge", "echod", check=False)
    shutil.copy(DEB, bare_machine.path("/tmp/echod.deb"))
    bare_machine.conf_path = "/etc/echod.conf"
    return bare_machine


def dpkg(machine, *arguments, **more):
    return machine.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--force-unsafe-io", *arguments,
                       timeout=120, **more)


def newer(tmp_path):
    """The same package as a later version of it."""
    tree = tmp_path / "tree"
    subprocess.run(["dpkg-deb", "-R", DEB, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 9:"))
    subprocess.run(["dpkg-deb", "-b", tree, tmp_path / "newer.deb"], check=True, stdout=subprocess.DEVNULL)
    return tmp_path / "newer.deb"


def files(machine):
    return set(machine.run("dpkg", "-L", "echod").stdout.split("\n"))


def test_install(fresh):
    """After dpkg -i the service runs and is enabled, and all files are where the distribution expects them."""
    dpkg(fresh, "-i", "/tmp/echod.deb")
    assert fresh.active() == "active" and fresh.serves() and fresh.serves("::1")
    enabled = {unit: fresh.systemctl("is-enabled", unit, check=False).stdout.strip() for unit in (SERVICE, ACTIVATED, SOCKET)}
    assert enabled[SERVICE] == "enabled" and enabled[SOCKET] == "disabled" and enabled[ACTIVATED] not in ("enabled", "enabled-runtime")
    assert fresh.active(SOCKET) == "inactive"
    assert {"/usr/sbin/echod", "/usr/bin/echoc", "/etc/echod.conf", "/usr/lib/sysusers.d/echod.conf",
            "/usr/lib/systemd/catalog/echod.catalog", "/usr/share/man/man8/echod.8.gz",
            "/usr/share/man/man5/echod.conf.5.gz", "/usr/share/man/man1/echoc.1.gz", "/usr/share/man/man7/echod-models.7.gz",
            "/usr/share/bash-completion/completions/echod",
            "/usr/share/zsh/vendor-completions/_echod"} <= files(fresh)
    assert not [path for path in files(fresh) if path.startswith(("/usr/local", "/opt"))]
    # the catalog is known without anything more being done
    assert "echod is ready" in fresh.run("journalctl", "-x", "-u", "echod").stdout
    assert fresh.systemctl("--failed", "--quiet").stdout == ""
    assert fresh.run("systemd-analyze", "--man=no", "verify", SERVICE, ACTIVATED, SOCKET).stderr == ""


def test_upgrade(fresh, tmp_path):
    """An upgrade restarts the service; live connections and changes of the administrator survive it."""
    dpkg(fresh, "-i", "/tmp/echod.deb")
    fresh.configure('# mine\nmodel = "poll"\n')
    fresh.reload()
    pid = fresh.main_pid()
    shutil.copy(newer(tmp_path), fresh.path("/tmp/newer.deb"))
    with fresh.connect() as client:
        assert echo(client, b"before\n")
        dpkg(fresh, "-i", "/tmp/newer.deb")
        assert fresh.main_pid() != pid
        assert echo(client, b"after\n")
    assert fresh.path("/etc/echod.conf").read_text() == '# mine\nmodel = "poll"\n'
    assert "poll" in fresh.show(SERVICE, "StatusText") and fresh.serves()


def test_upgrade_with_socket(fresh, tmp_path):
    """The socket-activated service is restarted by an upgrade as well, and its socket is not."""
    dpkg(fresh, "-i", "/tmp/echod.deb")
    fresh.systemctl("disable", "--now", SERVICE)
    fresh.systemctl("enable", "--now", SOCKET)
    since = fresh.show(SOCKET, "ActiveEnterTimestampMonotonic")
    shutil.copy(newer(tmp_path), fresh.path("/tmp/newer.deb"))
    with fresh.connect() as client:
        assert echo(client, b"before\n")
        pid = fresh.main_pid(ACTIVATED)
        dpkg(fresh, "-i", "/tmp/newer.deb")
        assert echo(client, b"after\n")
        assert fresh.main_pid(ACTIVATED) != pid
    assert fresh.show(SOCKET, "ActiveEnterTimestampMonotonic") == since
    assert fresh.active(SERVICE) == "inactive" and fresh.systemctl("is-enabled", SERVICE, check=False).stdout.strip() == "disabled"


def test_instances(fresh, tmp_path):
    """An upgrade restarts the instances that run, and no other; a removal stops them, and a purge leaves none enabled."""
    dpkg(fresh, "-i", "/tmp/echod.deb")
    directory = fresh.path("/etc/echod")
    directory.mkdir()
    ports = {"one": 7001, "two": 7002, "stopped": 7003}
    try:
        for name, port in ports.items():
            (directory / f"{name}.conf").write_text(f"port = {port}\n")
            fresh.systemctl("enable", "--now", f"echod@{name}")
        fresh.systemctl("disable", "echod@two")
        fresh.systemctl("stop", "echod@stopped")
        pids = {name: fresh.main_pid(f"echod@{name}") for name in ("one", "two")}
        shutil.copy(newer(tmp_path), fresh.path("/tmp/newer.deb"))
        with fresh.connect(port=7001) as one, fresh.connect(port=7002) as two:
            assert echo(one, b"before\n") and echo(two, b"before\n")
            dpkg(fresh, "-i", "/tmp/newer.deb")
            assert {name: fresh.main_pid(f"echod@{name}") for name in pids}.items().isdisjoint(pids.items())
            assert echo(one, b"after\n") and echo(two, b"after\n")
        assert fresh.active("echod@stopped") == "inactive"
        dpkg(fresh, "--remove", "echod")
        assert [fresh.active(f"echod@{name}") for name in ports] == ["inactive"] * len(ports)
        dpkg(fresh, "--purge", "echod")
        assert list(fresh.path("/etc/systemd/system").glob("*.wants/echod@*")) == []
        assert all((directory / f"{name}.conf").is_file() for name in ports)  # written by the administrator
    finally:
        shutil.rmtree(directory)


def test_stopped_stays_stopped(fresh, tmp_path):
    """An upgrade does not start what the administrator has stopped and disabled."""
    dpkg(fresh, "-i", "/tmp/echod.deb")
    fresh.systemctl("disable", "--now", SERVICE)
    shutil.copy(newer(tmp_path), fresh.path("/tmp/newer.deb"))
    dpkg(fresh, "-i", "/tmp/newer.deb")
    assert fresh.active() == fresh.active(SOCKET) == fresh.active(ACTIVATED) == "inactive"


def test_remove_and_purge(fresh):
    """A removal stops the service and keeps the configuration; after a purge only the user remains."""
    dpkg(fresh, "-i", "/tmp/echod.deb")
    shipped = {path for path in files(fresh) if path.startswith("/") and fresh.path(path).is_file()}
    dpkg(fresh, "--remove", "echod")
    assert fresh.active() in ("inactive", "unknown")
    with pytest.raises(ConnectionRefusedError):
        fresh.connect()
    left = {path for path in shipped if fresh.path(path).exists()}
    assert left == {"/etc/echod.conf"}
    dpkg(fresh, "--purge", "echod")
    found = fresh.run("find", "/etc", "/run", "/var", "/usr", "/lib/systemd", "-xdev", "-name", "*echod*", "-not", "-name", "echod-boot*",
                      "-not", "-path", "/usr/src/*", "-not", "-path", "/run/udev/*").stdout.split()
    assert [path for path in found if not fresh.path(path).is_dir() or "systemd" in path] == []
    assert fresh.systemctl("--failed", "--quiet").stdout == ""
