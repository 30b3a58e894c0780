# SPDX-License-Identifier: ISC
"""The machine of a measurement: properties that affect the results, a new network namespace, and the end by signals."""
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
    """SIGTERM and SIGHUP raise KeyboardInterrupt, so that no server is left running at the end by a signal."""
    def interrupt(*_):
        raise KeyboardInterrupt
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def congestion_control():
    with open(CONGESTION, encoding="ascii") as file:
        return file.read().strip()


def own_network(congestion):
    """Enter a new network namespace with a loopback interface and this congestion control. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN;
    raises OSError with the reason of a failure."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot create a network namespace: {os.strerror(error)}")
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
    """Microseconds that a system call without effect takes, without the time of a call from Python."""
    return max(0.0, _least_us(os.getppid) - _least_us(gc.isenabled))


def machine():
    """One line of text: the processors, the kernel, and properties of the kernel that limit how much a model can save."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return (f"{model}, {os.cpu_count()} processors, Linux {platform.release()}; a system call costs {system_call_us():.2f} µs, "
            f"congestion control {congestion_control()}")
