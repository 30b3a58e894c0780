# SPDX-License-Identifier: ISC
"""The build under test: the one that `make check` names in the environment, else the newest one in the source tree."""

import os
from pathlib import Path

SRCDIR = Path(os.environ.get("ECHOD_SRCDIR") or Path(__file__).resolve().parents[2]).absolute()


def is_build(directory):
    return (directory / "config.status").is_file() and os.access(directory / "echod", os.X_OK)


def find_directory():
    """The build directory, or None: ECHOD_BUILDDIR, that of ECHOD, the current directory, or the newest build."""
    given = os.environ.get("ECHOD_BUILDDIR")
    if given:
        return Path(given).absolute()
    program = os.environ.get("ECHOD")
    if program:
        directory = Path(program).absolute().parent
        return directory if is_build(directory) else None
    if is_build(Path.cwd()):
        return Path.cwd()
    places = [SRCDIR, *SRCDIR.glob("build*"), *SRCDIR.glob("build*/*")]
    builds = [place for place in places if is_build(place)]
    return max(builds, key=lambda place: (place / "echod").stat().st_mtime, default=None)


DIRECTORY = find_directory()


def program(name):
    """The path of a built program, which ECHOD or ECHOC in the environment may name; None if it does not exist."""
    given = os.environ.get(name.upper())
    path = Path(given).absolute() if given else DIRECTORY / name if DIRECTORY else None
    return str(path) if path and os.access(path, os.X_OK) else None
