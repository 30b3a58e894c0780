# SPDX-License-Identifier: ISC
"""Socket activation: systemd opens sockets of every kind, and the service has tighter restrictions."""

import socket
import time

import pytest

from machine import ACTIVATED, ERR, EVENTS, SERVICE, SOCKET, WARNING, at_least, echo, echo_datagram, until


def wait_active(machine, unit=ACTIVATED):
    """Wait until the unit is active, because the first worker may serve before the last one is ready."""
    until(lambda: machine.active(unit) == "active", f"{unit} is active")


def test_first_client_starts_it(machine):
    machine.systemctl("start", SOCKET)
    assert machine.active(ACTIVATED) == "inactive"
    with machine.connect() as client:
        assert echo(client, b"knock\n")
    wait_active(machine)
    assert machine.serves("::1")
    assert machine.active(SERVICE) == "inactive"


def test_every_model(machine, model):
    """Each model works under the tighter restrictions, including io_uring, and keeps connections over a restart."""
    machine.configure(f'model = "{model}"\n')
    machine.systemctl("start", SOCKET)
    since = machine.cursor()
    with machine.connect() as client:
        for length in (1, 100, 60000):
            assert echo(client, b"abcdefgh" * length)
        wait_active(machine)
        assert model in machine.show(ACTIVATED, "StatusText")
        machine.systemctl("restart", ACTIVATED)
        assert echo(client, b"after\n")
    machine.systemctl("stop", SOCKET)
    until(lambda: machine.active(ACTIVATED) == "inactive", "the service stops with its socket")
    assert not at_least(WARNING, machine.journal(since, _SYSTEMD_UNIT=ACTIVATED))
    assert not at_least(ERR, machine.journal(since))


def test_every_kind_of_socket(machine):
    """Stream and datagram, IPv4, IPv6 and unix, several with names; without any address in the file."""
    machine.drop_in(SOCKET, "[Socket]\nListenStream=\n"
                            "ListenStream=127.0.0.1:7001\nListenStream=[::1]:7002\nListenStream=/run/echo.sock\n"
                            "ListenDatagram=127.0.0.1:7003\nListenDatagram=[::1]:7004\nListenDatagram=/run/echo.dgram\n"
                            "FileDescriptorName=several\nSocketMode=0666\n")
    machine.unit("echod-more.socket", "[Socket]\nService=echod-activated.service\nListenStream=127.0.0.1:7005\n"
                                      "FileDescriptorName=more\n")
    machine.drop_in(ACTIVATED, "[Service]\nSockets=echod-more.socket\n")
    since = machine.cursor()
    machine.systemctl("start", SOCKET, "echod-more.socket")
    for where in (("127.0.0.1", 7001), ("::1", 7002), ("127.0.0.1", 7005)):
        assert machine.serves(*where), where
    with machine.connect_unix("/run/echo.sock") as client:
        assert echo(client, b"unix\n")
    for where in (("127.0.0.1", 7003), ("::1", 7004)):
        with machine.connect(*where, kind=socket.SOCK_DGRAM) as client:
            assert echo_datagram(client, b"datagram"), where
    # run inside the machine: both ends must see the client's address at the same path
    assert machine.run("python3", "-c", "import os, socket; client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
                       "client.bind('/run/client'); os.chmod('/run/client', 0o666); client.connect('/run/echo.dgram'); "
                       "client.settimeout(10); client.send(b'unix datagram'); print(client.recv(100))").stdout == "b'unix datagram'\n"
    said = "\n".join(entry["MESSAGE"] for entry in machine.journal(since, _SYSTEMD_UNIT=ACTIVATED))
    for text in ("127.0.0.1:7001", "[::1]:7002", "unix:/run/echo.sock", "unix:/run/echo.dgram", "127.0.0.1:7003", "[::1]:7004", "127.0.0.1:7005",
                 "several", "more"):
        assert text in said, f"{text} is not in the log"
    assert not machine.journal(since, MESSAGE_ID=EVENTS["LISTENERS_DIFFER"])
    # and again after a restart
    machine.systemctl("restart", ACTIVATED)
    assert machine.serves("::1", 7002) and machine.serves("127.0.0.1", 7005)


def test_mismatch_is_logged_once(machine):
    machine.configure("port = 7777\n")
    since = machine.cursor()
    machine.systemctl("start", SOCKET)
    assert machine.serves()
    wait_active(machine)
    with pytest.raises(ConnectionRefusedError):
        machine.connect(port=7777)
    machine.reload(ACTIVATED)
    told = machine.journal(since, MESSAGE_ID=EVENTS["LISTENERS_DIFFER"])
    assert len(told) == 1 and "7" in told[0]["MESSAGE"] and machine.conf_path in told[0]["MESSAGE"]


def test_mismatch_that_a_reload_brings(machine):
    """The reload logs it; also if the file has more addresses than there are sockets."""
    machine.configure("port = 7\n")
    since = machine.cursor()
    machine.systemctl("start", SOCKET)
    assert machine.serves()
    wait_active(machine)
    machine.configure('listen = {"*", "127.0.0.1:7777"}\n')
    machine.reload(ACTIVATED)
    machine.reload(ACTIVATED)
    assert len(machine.journal(since, MESSAGE_ID=EVENTS["LISTENERS_DIFFER"])) == 1


def test_agreeing_file_is_not_a_mismatch(machine):
    machine.configure('port = 7\nlisten = {"*"}\n')
    since = machine.cursor()
    machine.systemctl("start", SOCKET)
    assert machine.serves()
    assert not machine.journal(since, MESSAGE_ID=EVENTS["LISTENERS_DIFFER"])


def test_unusable_socket(machine):
    """A socket of a kind that cannot be served is refused; the error names its unit and a kind that can be served."""
    machine.unit("echod-other.socket", "[Socket]\nService=echod.service\nListenSequentialPacket=/run/other.sock\n")
    machine.systemctl("start", "echod-other.socket")
    since = machine.cursor()
    assert machine.systemctl("start", SERVICE, check=False).returncode != 0
    failed = machine.wait_event("START_FAILED", since)
    assert failed["PRIORITY"] == str(ERR) and "echod-other.socket" in failed["MESSAGE"] and "stream" in failed["MESSAGE"]


def test_reload(machine):
    machine.systemctl("start", SOCKET)
    with machine.connect() as client:
        assert echo(client, b"before\n")
        wait_active(machine)
        machine.configure('model = "thread"\n')
        assert "thread" in machine.reload(ACTIVATED)["MESSAGE"]
        assert echo(client, b"after\n")
        machine.configure("model = \n")
        assert machine.systemctl("reload", ACTIVATED, check=False).returncode != 0
        assert echo(client, b"still\n") and machine.serves()


def test_crash(machine):
    """After a crash the sockets still exist, and the next client starts the service again."""
    machine.systemctl("start", SOCKET)
    assert machine.serves()
    pid = machine.main_pid(ACTIVATED)
    machine.kill(pid, "KILL")
    until(lambda: machine.show(ACTIVATED, "MainPID") != str(pid), "systemd notices")
    assert machine.serves()


def test_mistake_and_its_correction(machine):
    """A bad file closes the socket for the first client; corrected, the socket can be started again, without reset-failed."""
    machine.configure('model = "epol"\n')
    machine.systemctl("start", SOCKET)
    with machine.connect() as client, pytest.raises(ConnectionResetError):
        client.recv(1)
    until(lambda: machine.active(SOCKET) == "failed", "the socket has failed")
    machine.configure()

    def started_again():
        time.sleep(2.5)  # the start limit of the socket applies for some seconds
        machine.systemctl("start", SOCKET, check=False)
        try:
            return machine.serves()
        except ConnectionError:
            return False

    until(started_again, "it serves")


def test_other_unit_takes_over(machine):
    """The two services exclude each other: a start of one stops the other."""
    machine.systemctl("start", SERVICE)
    machine.systemctl("start", SOCKET)
    assert machine.active(SERVICE) == "inactive" and machine.active(SOCKET) == "active"
    assert machine.serves()
    machine.systemctl("start", SERVICE)
    assert machine.active(SERVICE) == "active" and machine.active(SOCKET) == "inactive"
    assert machine.active(ACTIVATED) == "inactive"
    assert machine.serves()


def test_plain_service_with_sockets(machine):
    """echod.service itself accepts sockets too."""
    machine.unit("echod-plain.socket", "[Socket]\nService=echod.service\nListenStream=127.0.0.1:7010\n")
    machine.systemctl("start", "echod-plain.socket")
    assert machine.serves("127.0.0.1", 7010)
    wait_active(machine, SERVICE)
