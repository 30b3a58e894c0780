# SPDX-License-Identifier: ISC
"""Shared objects for LD_PRELOAD that simulate another host."""

import os
import pathlib
import shlex
import subprocess

import echod


def compile_shim(name, directory):
    """The path of tests/lib/NAME.c, compiled into `directory`."""
    source = pathlib.Path(__file__).parent / f"{name}.c"
    target = pathlib.Path(directory) / f"{name}.so"
    if not target.exists():
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, "-O", "-shared", "-fPIC", "-o", target, source], check=True, timeout=60)
    return target


def preload(path, **variables):
    """The environment that preloads the shared object."""
    env = {"LD_PRELOAD": str(path), **variables}
    if echod.SANITIZED:  # otherwise the run-time library of the sanitizer must be the first one
        env["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    return env
