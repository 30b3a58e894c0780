# SPDX-License-Identifier: ISC
"""The command line: error messages, help that fits a screen, and agreement of manual, completion and program."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

import build
import client
import echod
import proc
import echo_servers as servers

TOP = str(build.SRCDIR)


@pytest.mark.parametrize("args, said", [
    ([], "no HOST given"),
    ([""], "no HOST given"),
    (["h", "7", "8"], '"8" is one operand too many'),
    (["h", "0"], '"0" is not a port'),
    (["h", "65536"], '"65536" is not a port'),
    (["h", "007"], '"007" is not a port'),
    (["127.0.0.1", "nosuchservice"], '"nosuchservice" is neither a port (1 to 65535) nor the name of a TCP service'),
    (["127.0.0.1:7", "8"], 'names a port already, but "8" was given too'),
    (["unix:/x", "7"], 'unix:/x has no port, but "7" was given'),
    (["unix:x"], "absolute path"),
    (["h", "7\x1b"], r'"7\x1B" is neither a port'),
    (["-u", "unix:/x"], "cannot be asked over UDP"),
    (["-4", "::1"], "not an IPv4 address"),
    (["-6", "127.0.0.1"], "not an IPv6 address"),
    (["--no-such", "h"], "--no-such: no such option"),
    (["--cuont", "3", "h"], "--cuont: no such option; did you mean --count?"),
    (["-X", "h"], "-X: no such option"),
    (["h", "-c"], "-c/--count: it takes a value"),
    (["h", "--count"], "-c/--count: it takes a value"),
    (["--quiet=3", "h"], "-q/--quiet: it takes no value"),
    (["--ping", "--load", "h"], "--ping or --load, not both"),
    (["-c", "3", "h"], "-c/--count is for --ping, not for talking"),
    (["--ping", "-P", "3", "h"], "-P/--depth is for --load, not for --ping"),
    (["--load", "-i", "3", "h"], "-i/--interval is for --ping, not for --load"),
    (["--ping", "-c", "0", "h"], 'invalid value "0": it takes a whole number from 1'),
    (["--ping", "-c", "3x", "h"], 'invalid value "3x"'),
    (["--ping", "-i", "-1", "h"], 'invalid value "-1": it takes a time from 0 to 86400000 seconds, as in'),
    (["--ping", "-w", "999999999", "h"], 'invalid value "999999999": it takes a time from 0.001 to 86400000 seconds'),
    (["--ping", "-s", "0", "h"], 'invalid value "0": it takes 1 to'),
    (["--ping", "-s", "1T", "h"], 'invalid value "1T"'),
    (["--ping", "-u", "-s", "65508", "h"], "at most 65507 bytes"),
    (["--ping", "-u", "-s", "3", "h"], "needs 4 bytes or more"),
    (["--ping", "-u", "--reconnect", "h"], "UDP has no connections"),
    (["--ping", "-Q", "64", "h"], "it takes a DSCP: 0 to 63"),
    (["--ping", "--source", "localhost", "h"], "it takes an IPv4 or IPv6 address of this host"),
    (["--ping", "--source", "127.0.0.1:5", "h"], "without a port"),
    (["--load", "--mode", "strem", "h"], "it takes one of rr, stream or connect; did you mean stream?"),
    (["--load", "--engine", "uring", "h"], "it takes one of auto, epoll or io_uring"),
    (["--load", "-n", "0", "h"], "from 1 to"),
    (["h:7", "8"], 'h:7 names a port already, but "8" was given too'),
    (["h:"], "no name before, or no port after the colon"),
    ([":7"], "no name before, or no port after the colon"),
    (["h:0"], '"0" is not a port'),
    (["h:65536"], '"65536" is not a port'),
    (["localhost:nosuchservice"], '"nosuchservice" is neither a port'),
    (["-t", "256", "h"], "from 1 to 255"),
    (["-M", "maybe", "h"], "it takes one of dont, want or do"),
    (["-M", "do", "unix:/x"], "no IP address"),
    (["-t", "3", "unix:/x"], "no IP address"),
    (["-Q", "0x100", "h"], "a traffic class: 0x00 to 0xff"),
    (["-Q", "0xb9", "h"], "ECN"),
    (["-D", "127.0.0.1"], "a copy on standard output has no lines"),
    (["--ping", "--flows", "0", "h"], "from 1 to 256"),
    (["--ping", "--flows", "2", "--reconnect", "h"], "not with --reconnect"),
    (["--ping", "--flows", "2", "unix:/x"], "no source ports"),
    (["--ping", "--report", "1", "h"], "--report is for --load, not for --ping"),
    (["--load", "--metrics", "f", "h"], "--metrics is for --ping, not for --load"),
    (["--load", "--report", "10ms", "h"], "a time from 0.1 to"),
    (["--ping", "--metrics", "/nowhere/at/all", "127.0.0.1"], "--metrics: cannot write /nowhere/at/all: No such file"),
    (["--load", "-n", "3", "-j", "4", "h"], "fewer connections (-n) than threads"),
    (["--load", "-u", "--mode", "stream", "h"], "only rr can be used with -u"),
    (["--load", "-u", "-s", "7", "h"], "needs 8 bytes or more"),
    (["--load", "-u", "--idle", "7", "h"], "--idle is for TCP"),
    (["--load", "-u", "--engine", "io_uring", "h"], "with -u only epoll can be used"),
    (["--load", "--mode", "stream", "--rate", "7", "h"], "--rate counts messages"),
    (["--load", "--mode", "connect", "-P", "7", "h"], "one message"),
    (["--load", "-d", "0", "h"], 'invalid value "0"'),
], ids=lambda value: "_".join(value) if isinstance(value, list) else "")
def test_refused(args, said):
    result = client.run(*args)
    assert result.returncode == client.USAGE, result.stderr
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("args", [
    ["--ping", "-c", "0", "h"],
    ["-c", "0", "--ping", "h"],
    ["--ping", "--no-such", "h"],
    ["--ping"],
    ["--load", "--ping", "h"],
    ["--load", "-n", "3", "-j", "4", "h"],
    ["--load", "--report", "1", "h"],
    ["--ping", "127.0.0.1", "0"],
    ["--load", "unix:/nowhere/at/all"],
    ["--ping", "unix:/nowhere/at/all"],
    ["--load", "--plot", "/nowhere/at/all", "127.0.0.1"],
    ["--load", "-n", "1000000", "--idle", "1000000", "127.0.0.1"],
], ids="_".join)
def test_json_of_a_failure(args):
    """One object, with the error that is also printed."""
    result = client.run(*args[:-1], "--json", *args[-1:])
    assert result.returncode in (client.USAGE, client.UNREACHED)
    assert json.loads(result.stdout)["error"] == result.stderr.splitlines()[0].removeprefix("echoc: ")


@pytest.mark.parametrize("what", ["--ping", "--load"])
@pytest.mark.parametrize("transport", [[], ["-u"]], ids=["tcp", "udp"])
def test_json_without_a_server(what, transport):
    result = client.run(what, "--json", *transport, "-d" if what == "--load" else "-w", "300ms", "-W", "300ms", "127.0.0.1",
                        echod.free_port())
    assert result.returncode == client.UNREACHED
    found = json.loads(result.stdout)
    assert re.search("refused|no service", found["error"])
    latency = found.get("rtt_us") or found.get("latency_us")
    if latency:
        assert latency["count"] == 0
        assert {value for name, value in latency.items() if name != "count"} == {None}


@pytest.mark.parametrize("args", ["--help", "--version", "--ping -c 1", "--ping --json -c 1", "--load -d 50ms --warmup 0",
                                  "--load -d 50ms --warmup 0 --json", "-q"])
def test_output_that_cannot_be_written(args):
    with servers.Stream(servers.echo) as other, open("/dev/full", "w") as full:
        result = subprocess.run(client.command(*args.split(), *other.where), input="x", stdout=full, stderr=subprocess.PIPE,
                                text=True, timeout=client.LIMIT)
    assert result.returncode == client.DIFFERS
    assert result.stderr == "echoc: standard output: No space left on device\n"


def test_help_fits_a_screen():
    result = client.run("--help")
    assert (result.returncode, result.stderr) == (client.OK, "")
    lines = result.stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) < 80


def test_version():
    result = client.run("-V")
    assert result.returncode == client.OK
    assert re.match(r"echoc \d+\.\d+\.\d+\n", result.stdout)
    assert "epoll" in result.stdout


@pytest.mark.parametrize("host", ["localhost:{}", "127.0.0.1:{}", "[::ffff:127.0.0.1]:{}"])
def test_host_with_a_port(host):
    with servers.Stream(servers.echo) as other:
        result = client.run(host.format(other.port), data="hello")
    assert (result.returncode, result.stdout) == (client.OK, "hello"), result.stderr


def test_host_with_a_service():
    """The port is that of the service's name: without a server there, the connection to it is refused."""
    result = client.run("localhost:echo", data="")
    assert result.returncode in (client.UNREACHED, client.OK)
    assert "is neither a port" not in result.stderr


# Errors of lookup and connection

def test_a_name_that_does_not_exist():
    result = client.run("nosuchhost.invalid", data="")
    assert result.returncode == client.UNREACHED
    assert result.stderr.startswith("echoc: cannot look up nosuchhost.invalid: ")


def test_refused_connection():
    port = echod.free_port()
    result = client.run("127.0.0.1", port)
    assert result.returncode == client.UNREACHED
    assert result.stderr == f"echoc: cannot connect to 127.0.0.1:{port} over TCP: Connection refused\n"


def test_unix_socket_that_does_not_exist(tmpdir):
    result = client.run(f"unix:{tmpdir}/none")
    assert result.returncode == client.UNREACHED
    assert result.stderr == f"echoc: cannot connect to unix:{tmpdir}/none: No such file or directory\n"


def test_no_answer_in_time():
    with servers.full() as address:
        result = client.run("-W", "500ms", *address)
    assert result.returncode == client.UNREACHED
    assert result.stderr.endswith("no answer within 0.5 s\n")


@pytest.mark.parametrize("args", [[], ["--ping"], ["--load"]], ids="".join)
@pytest.mark.parametrize("limit", ["300ms", "0"])
def test_a_unix_socket_that_is_full(tmpdir, args, limit):
    """The backlog is full: the time-out ends the wait, and so does Ctrl-C, with and without a time-out."""
    path = os.path.join(tmpdir, "full")
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as first:
        full.bind(path)
        full.listen(0)
        first.connect(path)
        process = client.start(*args, "-W", limit, "unix:" + path)
        if limit == "0":
            proc.until(lambda: client.handles_signals(process), "its signal handler")
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=client.LIMIT)
    assert process.returncode == client.UNREACHED
    if limit == "0":
        assert said.decode() == f"echoc: interrupted while connecting to unix:{path}\n"
    else:
        assert said.decode() == f"echoc: cannot connect to unix:{path}: no answer within 0.3 s\n"


# Names with several addresses (RFC 8305). The names are in a hosts file in a separate mount namespace.

def with_hosts(hosts, *command):
    """Run a command with this /etc/hosts, and a resolver that uses no other source."""
    script = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, "sh", hosts[0], hosts[1], *map(str, command)]


@pytest.fixture
def hosts(tmpdir):
    def hosts(text):
        files = (os.path.join(tmpdir, "hosts"), os.path.join(tmpdir, "nsswitch.conf"))
        for path, content in zip(files, (text, "hosts: files\n")):
            with open(path, "w") as file:
                file.write(content)
        return files
    if os.geteuid() != 0 or not shutil.which("unshare") \
            or subprocess.run(with_hosts(hosts(""), "true"), capture_output=True, timeout=client.LIMIT).returncode != 0:
        pytest.skip("mount namespaces are not permitted here")
    return hosts


SILENT_RESOLVER = """
import signal, socket, subprocess, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
    resolver.settimeout(60)
    resolver.bind(("127.0.0.1", 53))
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    try:
        resolver.recvfrom(512)
        process.send_signal(signal.SIGINT)
        print(process.wait(8))
    finally:
        process.kill()
"""


def test_interrupted_while_a_name_is_looked_up(hosts, tmpdir):
    """The resolver queries a silent server, for ten seconds or more."""
    files = hosts("nameserver 127.0.0.1\n")
    with open(files[1], "w") as file:
        file.write("hosts: dns\n")
    script = 'ip link set lo up && mount --bind "$1" /etc/resolv.conf && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"'
    wrap = ["unshare", "-m", "-n", "sh", "-c", script, "sh", *files]
    if not shutil.which("ip") or subprocess.run([*wrap, "true"], capture_output=True, timeout=client.LIMIT).returncode != 0:
        pytest.skip("network namespaces are not permitted here, or ip is not installed")
    result = subprocess.run([*wrap, sys.executable, "-c", SILENT_RESOLVER, *client.command("nowhere.test", 7)],
                            capture_output=True, text=True, timeout=client.LIMIT)
    assert result.stdout == f"{-signal.SIGINT}\n", result.stderr


def test_every_address_of_a_name_is_reported(hosts):
    port = echod.free_port()
    files = hosts("127.0.0.1 many\n127.0.0.2 many\n127.0.0.3 many\n")
    result = subprocess.run(with_hosts(files, *client.command("many", port)), capture_output=True, text=True,
                            timeout=client.LIMIT, stdin=subprocess.DEVNULL)
    assert result.returncode == client.UNREACHED
    assert result.stderr.startswith(f"echoc: cannot connect to many port {port} over TCP: ")
    for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        assert f"{address}:{port}: Connection refused" in result.stderr


def test_families_take_turns(hosts):
    """Two addresses of each family, all refused: the message has them in the order of the attempts (RFC 8305, section 4)."""
    files = hosts("127.0.0.1 many\n127.0.0.2 many\n::1 many\nfd00::7 many\n")
    prelude = ["unshare", "-n", "sh", "-c", 'ip link set lo up && ip -6 addr add fd00::7/128 dev lo nodad && exec "$@"', "sh"]
    if not shutil.which("ip") or subprocess.run([*prelude, "true"], capture_output=True, timeout=client.LIMIT).returncode != 0:
        pytest.skip("network namespaces with IPv6 are not permitted here, or ip is not installed")
    result = subprocess.run([*prelude, *with_hosts(files, *client.command("many", 7007))], capture_output=True, text=True,
                            timeout=client.LIMIT, stdin=subprocess.DEVNULL)
    assert result.returncode == client.UNREACHED
    tried = re.findall(r"(\S+):7007: Connection refused", result.stderr)
    assert sorted(tried) == ["127.0.0.1", "127.0.0.2", "[::1]", "[fd00::7]"]
    assert [address[0] for address in tried] in (["[", "1", "[", "1"], ["1", "[", "1", "["])


def test_an_address_that_refuses_is_skipped(hosts):
    files = hosts("127.0.0.2 many\n127.0.0.3 many\n127.0.0.1 many\n")
    with servers.Stream(servers.echo) as other:
        result = subprocess.run(with_hosts(files, *client.command("many", other.port)), capture_output=True, text=True,
                                timeout=client.LIMIT, input="hello")
    assert (result.returncode, result.stdout) == (client.OK, "hello")


def test_an_address_that_is_silent_is_overtaken(hosts):
    """The attempt on the next address starts after 250 ms, not after the time-out of the first one."""
    files = hosts("127.0.0.1 many\n127.0.0.2 many\n")
    with servers.full("127.0.0.1") as (_, port), servers.Stream(servers.echo, address=("127.0.0.2", port)):
        began = time.monotonic()
        result = subprocess.run(with_hosts(files, *client.command("--ping", "-c", 1, "many", port)),
                                capture_output=True, text=True, timeout=client.LIMIT)
        whole = (time.monotonic() - began) * 1000
    assert result.returncode == client.OK, result.stderr
    assert "(127.0.0.2:" in result.stdout
    took = float(re.search(r"connected in ([\d.]+) ms", result.stdout).group(1))
    # The time is that of this connection, without the attempt on the other address.
    assert took + 250 <= whole


def test_an_address_that_was_not_tried_is_not_reported_as_failed(hosts):
    files = hosts("127.0.0.1 many\n127.0.0.2 many\n127.0.0.3 many\n")
    with contextlib.ExitStack() as stack:
        _, port = stack.enter_context(servers.full("127.0.0.1"))
        for host in ("127.0.0.2", "127.0.0.3"):
            stack.enter_context(servers.full(host, port))
        result = subprocess.run(with_hosts(files, *client.command("-W", "100ms", "many", port)), capture_output=True,
                                text=True, timeout=client.LIMIT, stdin=subprocess.DEVNULL)
    assert result.returncode == client.UNREACHED
    assert re.fullmatch(rf"echoc: cannot connect to many port {port} over TCP: 127\.0\.0\.\d:{port}: no answer within 0\.1 s; "
                        "2 further addresses were not tried within that time\n", result.stderr)


# Manual, completion and program name the same options

def manual_options():
    with open(os.path.join(TOP, "man", "echoc.1")) as file:
        text = file.read()
    options = set()
    for line in re.findall(r"^\.It (Fl .*)$", text, re.M):
        options.update("-" + name for name in re.findall(r"Fl (-?[a-zA-Z0-9][a-z0-9-]*)", line))
    return options


def test_the_program_knows_what_the_manual_describes():
    options = manual_options()
    assert len(options) > 30
    for option in sorted(options):
        result = client.run(option)
        assert "no such option" not in result.stderr, option


def test_completion_offers_what_the_manual_describes():
    script = f"""
        source {TOP}/etc/completions/bash/echoc
        for before in --ping --load; do
            COMP_WORDS=(echoc $before --) COMP_CWORD=2
            _echoc
            printf '%s\\n' "${{COMPREPLY[@]}}"
        done
        COMP_WORDS=(echoc --) COMP_CWORD=1; _echoc; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=client.LIMIT)
    assert result.stderr == ""
    long = {option for option in manual_options() if option.startswith("--")} | {"--ping", "--load"}
    assert set(result.stdout.split()) == long
    with open(os.path.join(TOP, "etc", "completions", "zsh", "_echoc")) as file:
        text = file.read()
    assert set(re.findall(r"--[a-z0-9-]+", text)) >= long


@pytest.mark.parametrize("words, offered", [
    (["--load", "--mode", ""], {"rr", "stream", "connect"}),
    (["--load", "--engine", "e"], {"epoll"}),
    (["--load", "--mode", "=", "s"], {"stream"}),
    (["--ping", "--dscp", "AF4"], {"AF41", "AF42", "AF43"}),
    (["--ping", "-c", ""], set()),
    (["-M", "d"], {"do", "dont"}),
    (["--load", "--report", ""], set()),
])
def test_completion_of_values(words, offered):
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"source {TOP}/etc/completions/bash/echoc; COMP_WORDS=(echoc {quoted}) COMP_CWORD={len(words)}; _echoc; " \
             "printf '%s\\n' \"${COMPREPLY[@]}\""
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=client.LIMIT)
    assert set(result.stdout.split()) == offered


def manual_examples():
    """The commands of the manual's EXAMPLES, from the one that starts the server to the one that stops it."""
    with open(os.path.join(TOP, "man", "echoc.1")) as file:
        text = file.read().split(".Sh EXAMPLES")[1].split(".Sh SEE ALSO")[0].replace("\\(aq", "'")
    assert text.count(".Dl ") + text.count(".Bd ") >= 9
    commands = []
    for one, several in re.findall(r"^\.Dl (.*)$|^\.Bd -literal -offset indent\n((?:[^.].*\n)*)\.Ed$", text, re.M):
        commands += [one] if one else several.splitlines()
    return commands


def test_examples_work_when_pasted(tmpdir):
    """All examples run in order, on a free port, in a temporary directory, and with shorter durations."""
    if not echod.ECHOD:
        pytest.skip("no echod was built")
    port = echod.free_port()
    os.mkdir(os.path.join(tmpdir, "bin"))
    for name, program in (("echoc", client.ECHOC), ("echod", echod.ECHOD)):
        os.symlink(program, os.path.join(tmpdir, "bin", name))
    examples = manual_examples()
    assert sum(example.startswith("echoc ") for example in examples) >= 7
    pidfile = os.path.join(tmpdir, "echod.pid")
    try:
        for example in examples:
            if "--plot" in example and not shutil.which("gnuplot"):
                continue
            if example.startswith("echod -c ") and os.geteuid() == 0:  # the examples are written for an unprivileged user
                example = f"echo 'user = \"root\"' >> {example.split()[-1]}; {example}"
            # As in the manual page on a terminal: indented.
            pasted = "      " + example.replace("7007", str(port)).replace("-d 3", "-d 0.2 --warmup 0").replace("/tmp/", tmpdir + "/")
            result = subprocess.run(["bash", "-o", "pipefail", "-c", pasted], text=True, timeout=client.LIMIT,
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    env={**os.environ, "PATH": os.path.join(tmpdir, "bin") + ":" + os.environ["PATH"]})
            assert (result.returncode, result.stderr) == (0, ""), example
        proc.until(lambda: not os.path.exists(pidfile), "the daemon's end")
    finally:
        if os.path.exists(pidfile):
            with open(pidfile) as file:
                os.kill(int(file.read()), signal.SIGKILL)
