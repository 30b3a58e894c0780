# SPDX-License-Identifier: ISC
"""The common part of the command lines of the benchmark programs, and their end by signals."""
import argparse
import os
import sys

import where


def names(text):
    return text.split(",")


def parser(description, *programs, short=None):
    """A parser with a required option for the path of each program, with --output, and with --short if `short`, its help text, is
    given."""
    made = argparse.ArgumentParser(description=description)
    for name in programs:
        made.add_argument(f"--{name}", required=True, type=os.path.abspath, help="the program")
    made.add_argument("--output", default="bench", help="directory of the results")
    if short:
        made.add_argument("--short", action="store_true", help=short)
    return made


def run(main):
    """Run the program. SIGINT, SIGTERM and SIGHUP end it with status 130, after the processes it started."""
    where.end_by_exception()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
