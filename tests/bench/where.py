# SPDX-License-Identifier: ISC
"""Where it is measured: what of this machine decides the result, and a network of its own where that is wanted."""
import ctypes
import fcntl
import gc
import os
import platform
import signal
import socket
import struct
import time

CLONE_NEWNET = 0x40000000  # unshare(2)
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # netdevice(7)

CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"


def end_by_exception():
    """SIGTERM and SIGHUP raise KeyboardInterrupt: however a measurement is ended, no server is left running."""
    def interrupt(*_):
        raise KeyboardInterrupt
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def congestion_control():
    with open(CONGESTION, encoding="ascii") as file:
        return file.read().strip()


def own_network(congestion):
    """Go on in a network namespace that has nothing but a loopback interface and this congestion control. Takes
    CAP_SYS_ADMIN and CAP_NET_ADMIN; OSError says what is missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"no network namespace of its own: {os.strerror(error)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    try:
        with open(CONGESTION, "w", encoding="ascii") as file:
            file.write(congestion)
    except OSError as error:
        with open("/proc/sys/net/ipv4/tcp_allowed_congestion_control", encoding="ascii") as file:
            raise OSError(error.errno, f'no congestion control "{congestion}" ({error.strerror}); a namespace may have '
                                       f"{', '.join(file.read().split())}") from error


def _least_us(call, times=20000, tries=9):
    def once():
        began = time.perf_counter()
        for _ in range(times):
            call()
        return time.perf_counter() - began
    return min(once() for _ in range(tries)) / times * 1e6


def system_call_us():
    """What a system call costs that does nothing, beyond a call from Python that makes none."""
    return max(0.0, _least_us(os.getppid) - _least_us(gc.isenabled))


def machine():
    """One line for people: what it is, and what of its kernel decides how much a model can save."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return (f"{model}, {os.cpu_count()} processors, Linux {platform.release()}; a system call costs {system_call_us():.2f} µs, "
            f"congestion control {congestion_control()}")
