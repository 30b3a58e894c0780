# SPDX-License-Identifier: ISC
"""echoc as a filter: an exact copy, full duplex, and an error message for each fault."""

import json
import os
import time
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

import client
import echod
import proc
import echo_servers as servers
import paths

BLOCK = os.urandom(16 << 20)


def pieces(size):
    """Blocks of random bytes, `size` bytes in all, each different from the others."""
    at = 0
    while size > 0:
        block = BLOCK[at:] + BLOCK[:at]
        yield block[:size]
        size -= len(block)
        at = (at + 4099) % len(BLOCK)


def is_copy(stream, size):
    """Whether the stream has pieces(size) and then ends; reads it to its end."""
    exact = True
    for piece in pieces(size):
        at = 0
        while at < len(piece) and (part := stream.read(min(1 << 20, len(piece) - at))):
            exact = exact and part == piece[at:at + len(part)]
            at += len(part)
        exact = exact and at == len(piece)
    while stream.read(1 << 20):
        exact = False
    return exact


def copy_through(size, *args):
    """Stream `size` bytes through echoc by pipes; (exit status, whether the copy is exact, standard error)."""
    process = client.start(*args)

    def feed():
        try:
            for piece in pieces(size):
                process.stdin.write(piece)
        except BrokenPipeError:
            pass
        finally:
            process.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    exact = is_copy(process.stdout, size)
    feeder.join()
    said = process.stderr.read().decode()
    return process.wait(client.LIMIT), exact, said


@pytest.mark.timeout(300)
def test_gigabyte_through_each_model(start, model):
    daemon = start(model, log_connections=False)
    assert copy_through(1 << 30, "127.0.0.1", daemon.port) == (client.OK, True, "")


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 65537, 3 << 20])
def test_files(server, tmpdir, size):
    source = os.path.join(tmpdir, "in")
    with open(source, "wb") as file:
        file.writelines(pieces(size))
    with open(source, "rb") as given, open(os.path.join(tmpdir, "out"), "w+b") as copy:
        result = subprocess.run(client.command("127.0.0.1", server.port), stdin=given, stdout=copy, stderr=subprocess.PIPE,
                                timeout=client.LIMIT)
        copy.seek(0)
        assert (result.returncode, result.stderr) == (client.OK, b"")
        assert is_copy(copy, size)


def test_unix_socket(start, tmpdir):
    path = os.path.join(tmpdir, "socket")
    start("epoll", listen=["unix:" + path])
    assert copy_through(8 << 20, "unix:" + path) == (client.OK, True, "")


@pytest.mark.skipif(not echod.have_ipv6(), reason="this host has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6(host):
    with servers.Stream(servers.echo, socket.AF_INET6) as other:
        assert client.run(host, other.port, data="six").stdout == "six"


def test_address_with_port():
    with servers.Stream(servers.echo) as other:
        assert client.run(f"127.0.0.1:{other.port}", data="seven").stdout == "seven"


def test_a_server_that_holds_all_back_does_not_block_it():
    """The input exceeds all buffers, and the server echoes only at its end: echoc must continue to read its input."""
    with servers.Stream(servers.hold) as other:
        assert copy_through(64 << 20, *other.where) == (client.OK, True, "")


def test_a_slow_reader_loses_nothing(server):
    process = client.start("127.0.0.1", server.port)
    size = 24 << 20
    feeder = threading.Thread(target=lambda: (process.stdin.writelines(pieces(size)), process.stdin.close()))
    feeder.start()
    # Without a reader, wait until the writer of the input blocks in full pipes, then read all.
    select.select([process.stdout], [], [], client.LIMIT)
    assert is_copy(process.stdout, size)
    feeder.join(client.LIMIT)
    assert process.wait(client.LIMIT) == client.OK


def test_the_answer_comes_while_the_input_is_open(server):
    process = client.start("127.0.0.1", server.port)
    for word in (b"one\n", b"two\n", b"three\n"):
        process.stdin.write(word)
        process.stdin.flush()
        assert process.stdout.read(len(word)) == word
    process.stdin.close()
    assert process.stdout.read() == b""
    assert process.wait(client.LIMIT) == client.OK


@pytest.mark.parametrize("offset", [0, 1, 65535, 65536, 3000000])
def test_the_first_wrong_byte_is_reported(offset):
    data = BLOCK[:4 << 20]
    with servers.Stream(servers.corrupt(offset, 0x40)) as other:
        result = client.run(*other.where, data=data, text=False)
    assert result.returncode == client.DIFFERS
    said = result.stderr.decode()
    assert f"differs at byte {offset + 1} (offset {offset}, {offset:#x})" in said or offset == 0 and "(offset 0, 0)" in said
    assert f"sent 0x{data[offset]:02x}, came back 0x{data[offset] ^ 0x40:02x}" in said
    assert result.stdout == data[:offset]


def test_a_server_that_closes_early():
    with servers.Stream(servers.close_after(1000)) as other:
        result = client.run(*other.where, data=BLOCK[:1 << 20], text=False)
    assert result.returncode == client.DIFFERS
    assert re.search(rb"closed the connection|the connection to .* broke", result.stderr)
    assert re.search(rb"\b1000 bytes came back of", result.stderr)
    assert result.stdout == BLOCK[:1000]


def test_a_server_that_closes_while_the_input_is_open():
    with servers.Stream(servers.close_after(5)) as other:
        process = client.start(*other.where)
        process.stdin.write(b"hello")
        process.stdin.flush()
        assert process.wait(client.LIMIT) == client.DIFFERS
        assert b"closed the connection before the end of the input" in process.stderr.read()


def test_a_server_that_sends_more():
    with servers.Stream(servers.surplus) as other:
        result = client.run(*other.where, data="hello")
    assert result.returncode == client.DIFFERS
    assert "sent back more than it was sent" in result.stderr
    assert result.stdout == "hello"


def test_a_silent_server():
    with servers.Stream(servers.silent) as other:
        result = client.run("-W", "300ms", *other.where, data="hello")
    assert result.returncode == client.DIFFERS
    assert "nothing from" in result.stderr and "5 bytes sent, 0 came back" in result.stderr


def test_a_silent_server_while_the_input_is_open():
    """The time-out for outstanding bytes applies also while the input is open."""
    with servers.Stream(servers.silent) as other:
        process = client.start("-W", "300ms", *other.where)
        process.stdin.write(b"hello")
        process.stdin.flush()
        assert process.wait(client.LIMIT) == client.DIFFERS
        assert b"for 0.3 s: 5 bytes sent, 0 came back" in process.stderr.read()


def test_an_input_that_takes_its_time(server):
    """The pauses of the input are longer than the time-out, but no bytes are outstanding then."""
    process = client.start("-W", 1, "127.0.0.1", server.port)
    for word in (b"one", b"two"):
        process.stdin.write(word)
        process.stdin.flush()
        assert process.stdout.read(3) == word
        assert not select.select([process.stdout, process.stderr], [], [], 1.3)[0]  # the pause of the input
    process.stdin.close()
    assert process.wait(client.LIMIT) == client.OK


def test_a_server_that_does_not_close():
    held = []
    def serve(connection):
        servers.echo(connection)
        held.append(connection.dup())  # the end is never sent
    with servers.Stream(serve) as other:
        result = client.run(*other.where, data="hello")
        assert (result.returncode, result.stdout) == (client.OK, "hello")
        assert "did not close the connection" in result.stderr
        held[0].close()


def test_a_closed_output():
    with servers.Stream(servers.echo) as other:
        process = client.start(*other.where)
        process.stdout.close()
        process.stdin.write(b"hello")
        process.stdin.close()
        assert process.wait(client.LIMIT) == client.DIFFERS
        assert b"standard output: Broken pipe" in process.stderr.read()


@pytest.mark.parametrize("closed, said", [("<&-", "standard input"), (">&-", "standard output")])
def test_started_without_a_descriptor(closed, said):
    """The socket must not get the number of the closed descriptor."""
    with servers.Stream(servers.echo) as other:
        result = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *client.command(*other.where)], input="x", text=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=client.LIMIT)
    assert result.returncode == client.DIFFERS
    assert result.stderr == f"echoc: {said}: Bad file descriptor\n"


def test_interrupted():
    with servers.Stream(servers.echo) as other:
        process = client.start(*other.where)
        process.stdin.write(b"hello")
        process.stdin.flush()
        assert process.stdout.read(5) == b"hello"
        status, _, said = client.interrupt(process)
    assert status == client.OK
    assert "interrupted: 5 bytes read, 5 sent, 5 came back and matched" in said


def test_interrupted_with_bytes_owed():
    got = threading.Semaphore(0)

    def serve(connection):
        if connection.recv(5, socket.MSG_WAITALL):
            got.release()
        servers.silent(connection)

    with servers.Stream(serve) as other:
        process = client.start(*other.where)
        process.stdin.write(b"hello")
        process.stdin.flush()
        got.acquire()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=client.LIMIT)
    assert process.returncode == client.DIFFERS
    assert b"interrupted: 5 bytes read, 5 sent, 0 came back and matched" in err


def all_received(port):
    """Whether the send queues of a server on this port are empty, and then the receive queues of its clients."""
    def queues(end, which):
        with open("/proc/net/tcp") as file:
            rows = [row.split() for row in file.readlines()[1:]]
        return [int(row[4].split(":")[which], 16) for row in rows if int(row[end].split(":")[1], 16) == port]
    return not any(queues(1, 0)) and not any(queues(2, 1))


def test_interrupted_with_the_output_stuck():
    """All bytes came back, but echoc cannot write all of them: the output is a full pipe without a reader."""
    size = 200000
    sent = threading.Event()

    def serve(connection):
        left = size
        while left > 0 and (data := connection.recv(65536)):
            connection.sendall(data)
            left -= len(data)
        sent.set()
        servers.echo(connection)

    with servers.Stream(serve) as other:
        process = client.start(*other.where)
        process.stdin.write(BLOCK[:size])
        process.stdin.flush()
        assert sent.wait(client.LIMIT)
        proc.until(lambda: all_received(other.port), "all to be received")
        process.send_signal(signal.SIGINT)
        assert process.wait(client.LIMIT) == client.DIFFERS
        assert f"{size} came back and matched" in process.stderr.read().decode()


# UDP

def test_udp_interrupted_with_the_output_stuck():
    """The pipe has space for two datagrams; a signal must interrupt the write of the third."""
    with servers.Datagram() as other, tempfile.TemporaryFile() as given:
        given.write(BLOCK[:3 * 32768])
        given.seek(0)
        process = client.start("-u", "-s", "32K", *other.where, stdin=given)
        proc.until(lambda: other.count == 3, "the third datagram")
        process.send_signal(signal.SIGINT)
        assert process.wait(client.LIMIT) == client.DIFFERS
        assert "interrupted" in process.stderr.read().decode()


def test_udp_interrupted_with_bytes_owed():
    with servers.Datagram(lambda data, number: []) as other:
        process = client.start("-u", "-W", 0, *other.where)
        process.stdin.write(b"hello")
        process.stdin.flush()
        proc.until(lambda: other.count > 0, "the datagram")
        status, _, said = client.interrupt(process)
        port = other.where[1]
    assert status == client.DIFFERS
    assert said == f"echoc: interrupted while waiting for 127.0.0.1:{port}: 5 bytes sent, 0 came back and matched\n"


@pytest.mark.parametrize("size", [0, 1, 1199, 1200, 1201, 300000])
def test_udp(size):
    data = BLOCK[:size]
    with servers.Datagram() as other:
        result = client.run("-u", *other.where, data=data, text=False)
    assert (result.returncode, result.stderr) == (client.OK, b"")
    assert result.stdout == data


def test_udp_through_echod(server):
    result = client.run("-u", "127.0.0.1", server.port, data=BLOCK[:50000], text=False)
    assert (result.returncode, result.stderr) == (client.OK, b"")
    assert result.stdout == BLOCK[:50000]


def test_udp_copy_is_exact_over_a_bad_path():
    data = BLOCK[:60000]
    with servers.Datagram() as other, \
            servers.Path(other.where, loss=0.1, duplication=0.2, reordering=0.1) as path:
        result = client.run("-u", "-W", "20", *path.where, data=data, text=False)
        assert result.returncode == client.OK, result.stderr
        assert result.stdout == data
        assert path.lost > 0 and path.doubled > 0
        assert re.search(rb"note: \d+ datagrams? lost and sent again", result.stderr)


def test_udp_wrong_byte():
    with servers.Datagram(lambda data, number: [data if number != 3 else data[:7] + b"\0" + data[8:]]) as other:
        result = client.run("-u", *other.where, data=b"x" * 5000, text=False)
    assert result.returncode == client.DIFFERS
    assert b"differs at byte 2408 (offset 2407, 0x967): sent 0x78, came back 0x00" in result.stderr
    assert result.stdout == b"x" * 2400


def test_udp_cut_short():
    with servers.Datagram(lambda data, number: [data[:1000]]) as other:
        result = client.run("-u", *other.where, data=b"x" * 1200, text=False)
    assert result.returncode == client.DIFFERS
    assert b"came back from" in result.stderr and b"with 1000 bytes instead of 1200" in result.stderr


@pytest.mark.parametrize("family", [4, 6])
def test_udp_over_a_path_with_a_small_mtu(family):
    """A router drops the first datagram and reports the MTU; the kernel fragments the next ones."""
    data = BLOCK[:20000]
    with paths.network() as net:
        net.server_mtu(0, 1280)
        with servers.Datagram(host=paths.SERVER[family], make=net.server.socket) as other:
            result = client.run("-u", "-s", 1400, *other.where, wrap=net.client.wrap(), data=data, text=False)
    assert result.returncode == client.OK, result.stderr
    assert result.stdout == data
    assert result.stderr == b"echoc: note: 1 datagram lost and sent again\n"


def test_udp_answers_that_are_only_late():
    """Each answer takes longer than the first retransmission time-out: none is lost, and only the first datagram is sent twice,
    except others whose answer a busy machine delays even more."""
    def slow(data, number):
        time.sleep(0.3)
        return [data]
    with servers.Datagram(slow) as other:
        result = client.run("-u", "-s", 10, "-W", 20, *other.where, data=BLOCK[:80], text=False)
        assert 9 <= other.count <= 13
    assert (result.returncode, result.stdout, result.stderr) == (client.OK, BLOCK[:80], b"")


def test_udp_last_answer_that_is_only_late():
    with servers.Datagram(lambda data, number: time.sleep(0.3) or [data]) as other:
        result = client.run("-u", "--json", "-W", 20, *other.where, data="hello")
    assert (result.returncode, result.stdout) == (client.OK, "hello")
    found = json.loads(result.stderr)
    assert found["retransmits"] >= 1
    assert (found["lost"], found["error"]) == (0, None)


def test_udp_losses_are_counted():
    """Each third datagram is not answered, and is counted as lost."""
    dropped = []
    with servers.Datagram(lambda data, number: dropped.append(1) or [] if number % 3 == 0 else [data]) as other:
        result = client.run("-u", "-s", 10, "--json", "-W", 20, *other.where, data=BLOCK[:60], text=False)
    assert (result.returncode, result.stdout) == (client.OK, BLOCK[:60])
    assert json.loads(result.stderr)["lost"] == len(dropped) > 0


def test_json_of_a_copy(server):
    """The JSON report is on standard error, because standard output has the copy."""
    for transport in ([], ["-u"]):
        result = client.run(*transport, "--json", "127.0.0.1", server.port, data="hello")
        assert (result.returncode, result.stdout) == (client.OK, "hello")
        found = json.loads(result.stderr)
        assert (found["bytes_sent"], found["bytes_matched"], found["error"]) == (5, 5, None)
        assert found["transport"] == ("udp" if transport else "tcp")


def test_json_of_a_copy_that_fails():
    with servers.Stream(servers.corrupt(3)) as other:
        result = client.run("--json", *other.where, data="hello")
    assert (result.returncode, result.stdout) == (client.DIFFERS, "hel")
    assert "differs at byte 4" in json.loads(result.stderr)["error"]


def test_udp_nobody_there():
    result = client.run("-u", "127.0.0.1", echod.free_port(), data="hello")
    assert result.returncode == client.UNREACHED
    assert "no UDP service" in result.stderr
