# SPDX-License-Identifier: ISC
"""The configuration file and the command line, and the messages about errors in them."""

import errno
import os
import re
import subprocess

import pytest

import echod
import peer

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")


@pytest.fixture
def conf(tmpdir):
    """conf(text): write the text to a configuration file; returns the path."""
    def write(text, name="echod.conf"):
        path = os.path.join(tmpdir, name)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        return path
    return write


def refuse(path, *args, status=echod.EX_CONFIG):
    """echod -t must refuse the file; returns its messages."""
    result = echod.run("-t", "-c", path, *args)
    assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
    return result.stderr


def dump(path, *args):
    result = echod.run("-T", "-c", path, *args)
    assert result.returncode == 0, result.stderr
    return result.stdout


# -t

def test_empty_file_is_valid(conf):
    result = echod.run("-t", "-c", conf(""))
    assert result.returncode == 0, result.stderr


def test_test_binds_nothing(start):
    daemon = start()
    result = echod.run("-t", "-c", daemon.config)
    assert result.returncode == 0, result.stderr
    daemon.visit()


def test_every_mistake_is_listed_with_its_line(conf):
    path = conf("# a comment\n"
                "model = \"epol\"\n"
                "\n"
                "workers = -1\n"
                "prot = 7\n"
                "backlog = 70000\n"
                "listen = {\"127.0.0.1:99999\"}\n"
                "log-level = \"loud\"\n")
    said = refuse(path)
    for line in (2, 4, 5, 6, 7, 8):
        assert f"{path}:{line}:" in said, f"no message names line {line}:\n{said}"
    assert f"{path}:1:" not in said and f"{path}:3:" not in said
    assert re.search(rf"^.*{re.escape(path)}:2:.*epoll", said, re.M), "the nearest model is not named"
    assert re.search(rf"^.*{re.escape(path)}:5:.*\bport\b", said, re.M), "the nearest key is not named"
    assert re.search(rf"^.*{re.escape(path)}:6:.*65535", said, re.M), "the range is not named"


def test_an_invalid_combination_is_listed_with_the_other_errors(conf):
    path = conf("model = \"iterative\"\nprot = 7\nworkers = 4\n")
    said = refuse(path)
    assert f"{path}:2:" in said and f"{path}:3:" in said, said
    # With invalid values the combination is not checked: the intended values are unknown.
    path = conf("model = \"iterative\"\nworkers = 4x\nmodle = \"epoll\"\n")
    assert len(refuse(path).splitlines()) == 2
    # The file has an error of its own, in addition to the option.
    refuse(conf("model = \"iterative\"\nprot = 7\n"), "-w", "4")


@pytest.mark.parametrize("text, line, hint", [
    ("port = 010\n", 1, "zero"),
    ("port = 0x10\n", 1, ""),
    ("port = 0\n", 1, "65535"),
    ("port = 65536\n", 1, "65535"),
    ("port = \"echo\"\n", 1, ""),
    ("workers = \"\"\n", 1, ""),
    ("workers = 4294967297\n", 1, "100000"),
    ("workers = 99999999999999999999\n", 1, ""),
    ("workers = 1.5\n", 1, ""),
    ("\nport = 7\n\nport = 8\n", 4, "2"),
    ("model = \"\"\n", 1, "epoll"),
    ("model = \"EPOLLL\"\n", 1, "epoll"),
    ("listen = {}\n", 1, ""),
    ("listen = {\"localhost\"}\n", 1, ""),
    ("listen = {\"127.0.0.1\", \"300.0.0.1\"}\n", 1, "300.0.0.1"),
    ("listen = {\"unix:relative\"}\n", 1, ""),
    ("listen = {\"unix:/" + "x" * 200 + "\"}\n", 1, ""),
    ("listen = {\"unix:@\"}\n", 1, "1 to 107 bytes"),
    ("listen = {\"unix:@" + "x" * 108 + "\"}\n", 1, "1 to 107 bytes"),
    ("listen = {\"unix:@a\", \"unix:@a\"}\n", 1, "listed before"),
    ("unix-mode = \"0888\"\n", 1, "\"0000\" to \"0777\""),
    ("unix-mode = 66\n", 1, "\"0000\" to \"0777\""),
    ("unix-mode = \"1777\"\n", 1, "\"0000\" to \"0777\""),
    ("unix-mode = \"\"\n", 1, "\"0000\" to \"0777\""),
    ("unix-group = \"no-such-group\"\n", 1, "no such group"),
    ("protocols = {\"tpc\"}\n", 1, "tcp"),
    ("protocols = {}\n", 1, ""),
    ("buffer-size = 511\n", 1, "512"),
    ("socket-buffer = 1\n", 1, "0 or a whole number from 4096"),
    ("socket-buffer = 4095\n", 1, "0 or a whole number from 4096"),
    ("\nsocket-buffer = 1073741825\n", 2, "1073741824"),
    ("idle-timeout = -5\n", 1, ""),
    ("drain-timeout = 86401\n", 1, "86400"),
    ("deny = {\"192.0.2.1/24\"}\n", 1, "192.0.2"),
    ("allow = {\"10.0.0.0/33\"}\n", 1, ""),
    ("pidfile = \"relative.pid\"\n", 1, "absolute"),
    ("log-target = \"stdout\"\n", 1, "stderr"),
    ("log-connections = maybe\n", 1, "true"),
    ("max_connections = 7\n", 1, "max-connections"),
    ("model = \"iterative\"\nworkers = 4\n", 2, "iterative"),
    ("model = \"select\"\nmax-connections = 5000\n", 2, "select"),
    ("/* never closed\nport = 7\n", 1, ""),
    ("port = 7\nmodel = \"epoll\n", 2, ""),
    ("port\n", 1, ""),
    ("port = \n", 1, ""),
    ("= 7\n", 1, ""),
    ("section { port = 7 }\n", 1, ""),
    ("include(\"/etc/passwd\")\n", 1, ""),
    ("listen = {\"127.0.0.1\"\n", 1, ""),
    ("user = \"no-such-user-here\"\n", 1, "no-such-user-here"),
])
def test_mistake(conf, text, line, hint):
    path = conf(text)
    said = refuse(path)
    assert re.search(rf"{re.escape(path)}:\d+:", said), said
    if line:
        assert f"{path}:{line}:" in said, said
    assert hint in said, said


@pytest.mark.parametrize("junk", [b"\0", b"port = 7\0\n", b"\xff\xfe\x00p", b"{" * 10000, b"%s%n = %s\n",
                                  b"a" * 100000, b"port = 7\n}\n"],
                         ids=["nul", "nul-in-line", "utf-16", "braces", "percents", "one-long-word", "brace"])
def test_junk_is_refused_and_never_crashes(conf, junk):
    said = refuse(conf(junk))
    assert said.strip()
    assert not echod.SANITIZER_REPORT.search(said), said


def test_file_name_is_never_a_format(conf):
    path = conf("port = x\n", name="100%s%n.conf")
    assert path in refuse(path)


def test_a_mistake_also_stops_a_start(launch):
    daemon = launch(text="port = 99999\n")
    assert f"{daemon.config}:1:" in daemon.fails(echod.EX_CONFIG)


def test_values_are_not_taken_from_the_library_default(conf):
    """Comments of all kinds, white space and quotes as libconfuse has them."""
    path = conf("# one\n// two\n/* three\n */ port=4711 # four\n\tmodel   =  'poll'\nlisten = {\n\"127.0.0.1\",\n"
                "\"::1\"\n}\n")
    found = echod.parse_dump(dump(path))
    assert found["port"] == "4711" and found["model"] == '"poll"'
    assert re.findall(r'"([^"]*)"', found["listen"]) == ["127.0.0.1", "::1"]


# The file itself

def test_missing_file():
    said = refuse("/nonexistent/echod.conf", status=echod.EX_NOINPUT)
    assert "/nonexistent/echod.conf" in said


def test_directory_instead_of_a_file(tmpdir):
    result = echod.run("-t", "-c", tmpdir)
    assert result.returncode in (echod.EX_NOINPUT, echod.EX_CONFIG)
    assert tmpdir in result.stderr


@root
def test_unreadable_file(conf, visible):
    path = conf("port = 7007\n")
    os.chmod(path, 0o600)
    result = subprocess.run([*echod.as_nobody(), visible, "-t", "-c", path], capture_output=True, text=True,
                                  timeout=30)
    assert result.returncode == echod.EX_NOINPUT
    assert path in result.stderr


# -T

def test_dump_of_the_defaults(conf):
    """Every key of the manual, in its order, with its default."""
    found = echod.parse_dump(dump(conf("")))
    assert tuple(found) == echod.KEYS
    for key, value in {"model": '"epoll"', "workers": "0", "port": "7", "backlog": "4096", "max-connections": "0",
                       "max-per-source": "0", "idle-timeout": "600", "drain-timeout": "10", "buffer-size": "65536", "socket-buffer": "0",
                       "unix-mode": '"0660"', "unix-group": '""', "mptcp": "false", "user": '""', "group": '""', "pidfile": '"/run/echod.pid"', "log-target": '"auto"',
                       "log-level": '"info"', "log-connections": "true", "stats-interval": "60",
                       "keep-connections": "true", "reflect-dscp": "false", "udp-rate": "1000", "metrics-file": '""'}.items():
        assert found[key] == value, key
    for key, items in {"listen": ["*"], "protocols": ["tcp"], "allow": [], "deny": [], "udp-trusted": []}.items():
        assert re.findall(r'"([^"]*)"', found[key]) == items, key


@pytest.mark.parametrize("text", [
    "",
    "model = \"prefork\"\nworkers = 12\nport = 7007\nlisten = {\"127.0.0.1\", \"[::1]:9\", \"unix:/run/a b.sock\", \"unix:@a b\"}\nunix-mode = 606\n",
    "protocols = {\"tcp\", \"udp\"}\nallow = {\"10.0.0.0/8\", \"2001:db8::/32\"}\ndeny = {\"10.1.2.3\"}\n"
    "udp-trusted = {\"192.0.2.0/24\"}\nlog-connections = false\nlog-level = \"debug\"\nlog-target = \"syslog\"\n",
    "pidfile = \"\"\nmetrics-file = \"/run/\\\"odd\\\" \\\\ name\"\nbuffer-size = 16777216\nidle-timeout = 0\n",
    "metrics-file = \"/run/${HOME}\"\n",
])
def test_dump_fed_back_gives_the_same(conf, text):
    first = dump(conf(text))
    again = dump(conf(first, name="again.conf"))
    assert again == first
    assert echod.run("-t", "-c", conf(first, name="third.conf")).returncode == 0


def test_dump_shows_the_overrides(conf):
    path = conf("model = \"poll\"\nworkers = 3\nport = 7007\nlog-level = \"err\"\n")
    found = echod.parse_dump(dump(path, "-m", "thread", "-w", "9", "-p", "4711", "-l", "debug"))
    assert (found["model"], found["workers"], found["port"], found["log-level"]) == \
        ('"thread"', "9", "4711", '"debug"')


def test_dump_of_long_options(conf):
    path = conf("")
    long = dump(path, "--model=thread", "--workers=9", "--port=4711", "--log-level=debug")
    short = dump(path, "-mthread", "-w9", "-p4711", "-ldebug")
    assert long == short
    assert echod.run("--dump", f"--config={path}").stdout == dump(path)
    assert echod.run("--test", f"--config={path}").returncode == 0


def test_dump_of_a_bad_file(conf):
    path = conf("port = x\n")
    result = echod.run("-T", "-c", path)
    assert result.returncode == echod.EX_CONFIG and not result.stdout
    assert f"{path}:1:" in result.stderr


@pytest.mark.parametrize("value", [r'"/run/\e[2Jx"', r'"/run/a\nport = 9"', "'/run/\x07'"])
def test_dump_of_control_characters(conf, value):
    """They are refused, and printed as escapes: the output can be read back, and has no effect on a terminal."""
    result = echod.run("-T", "-c", conf(f"pidfile = {value}\n"))
    assert result.returncode == echod.EX_CONFIG and not result.stdout
    assert re.search(r"pidfile: .* has the control character \\x(1B|0A|07)", result.stderr), result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr[:-1].isprintable()


def test_name_of_the_file_with_control_characters(conf):
    """Every message that names the file is one line of printable text."""
    for text, options, status in [("", "-t", 0), ("port = x\n", "-t", echod.EX_CONFIG)]:
        result = echod.run(options, "-c", conf(text, name="a\nb\x1b[2J.conf"))
        assert result.returncode == status, result.stderr
        printed = result.stdout + result.stderr
        assert printed.count("\n") == 1 and printed[:-1].isprintable(), repr(printed)
        assert r"a\x0Ab\x1B[2J.conf" in printed


def test_shipped_file_equals_the_defaults(conf):
    """etc/echod.conf shows every key with its default: the file without the comment signs has the same effect."""
    shipped = os.path.join(os.path.dirname(__file__), "..", "..", "etc", "echod.conf")
    with open(shipped) as file:
        text = file.read()
    assert dump(shipped) == dump(conf(""))
    keys = "|".join(echod.KEYS)
    uncommented, count = re.subn(rf"^#\s?((?:{keys})\s*=)", r"\1", text, flags=re.M)
    active = re.findall(rf"^\s*({keys})\s*=", uncommented, re.M)
    assert sorted(active) == sorted(echod.KEYS), "keys that are missing, or duplicate"
    assert dump(conf(uncommented, name="uncommented.conf")) == dump(conf(""))


# The command line

@pytest.mark.parametrize("args, hint", [
    (["-m", "epol"], "epoll"),
    (["-m", ""], ""),
    (["-w", "-1"], ""),
    (["-w", "abc"], "abc"),
    (["-w", "1x"], "1x"),
    (["-w", ""], ""),
    (["-w", "100001"], "100000"),
    (["-w", "4294967297"], "100000"),
    (["-p", "0"], "65535"),
    (["-p", "65536"], "65535"),
    (["-p", "echo"], "echo"),
    (["-p", " 7"], ""),
    (["-l", "loud"], "loud"),
    (["-c"], ""),
    (["--nonsense"], "nonsense"),
    (["-Z"], "Z"),
    (["extra"], "extra"),
])
def test_usage_error(conf, args, hint):
    path = [] if args == ["-c"] else ["-c", conf("")]
    result = echod.run("-t", *path, *args)
    assert result.returncode == echod.EX_USAGE, (result.returncode, result.stderr)
    assert result.stderr.strip() and hint in result.stderr
    assert not result.stdout


def test_impossible_override(conf):
    """The file and the option are both valid, but their combination is not."""
    result = echod.run("-t", "-c", conf("model = \"iterative\"\n"), "-w", "4")
    assert result.returncode in (echod.EX_USAGE, echod.EX_CONFIG)
    assert "iterative" in result.stderr


def test_version():
    for option in ("-V", "--version"):
        result = echod.run(option)
        assert result.returncode == 0
        assert re.match(r"echod \d+\.\d+\.\d+\b", result.stdout), result.stdout
        assert len(result.stdout.splitlines()) > 1, "the features of the build are missing"


def test_help():
    for option in ("-h", "--help"):
        result = echod.run(option)
        assert result.returncode == 0
        for word in ("--config", "--foreground", "--test", "--dump", "--model", "--workers", "--port", "--log-level",
                     "--list-models", "--version", "--help"):
            assert word in result.stdout, word
        lines = result.stdout.splitlines()
        assert lines[-1] == next(line for line in echod.run("-V").stdout.splitlines() if "Configuration file" in line)
        # the path is as long as the installation prefix
        assert len(lines) <= 40 and max(map(len, lines[:-1])) <= 80, "the help does not fit a terminal of 40 lines and 80 columns"


@pytest.mark.parametrize("option", ["-T", "-t", "-h", "-V", "--list-models"])
def test_output_that_cannot_be_written_is_an_error(conf, option):
    """On a full disk the exit status is EX_IOERR, and the message has the reason."""
    with open("/dev/full", "w") as full:
        result = subprocess.run([echod.ECHOD, "-c", conf(""), option], stdout=full, stderr=subprocess.PIPE, text=True,
                                timeout=30)
    assert result.returncode == echod.EX_IOERR
    assert os.strerror(errno.ENOSPC) in result.stderr


# Overrides

def test_override_of_the_port(start):
    port = echod.free_port()
    daemon = start(args=["-p", port])
    peer.visit(("127.0.0.1", port))
    assert peer.refused(daemon.address)


def test_overrides_hold_over_a_reload(start):
    port, other = echod.free_port(), echod.free_port()
    daemon = start("epoll", args=["-m", "prefork", "-w", "3", "-p", port])
    assert len(daemon.workers()) == 3
    daemon.configure(model="thread", workers=9, port=other, idle_timeout=5)
    daemon.hup()
    daemon.wait_processes(1 + 3)
    peer.visit(("127.0.0.1", port))
    assert peer.refused(("127.0.0.1", other))
