# SPDX-License-Identifier: ISC
"""The daemon's counters, in the metrics file and in the statistics line."""

import re
import signal

import proc


def parser():
    """The parser of the OpenMetrics project's client library, or None if it is not installed."""
    try:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
    except ImportError:
        return None
    return text_string_to_metric_families


def parse(text):
    """{(sample name, label value or None): number}, after a complete parse."""
    samples = {}
    for family in parser()(text):
        assert family.documentation, f"{family.name} has no help text"
        for sample in family.samples:
            assert len(sample.labels) <= 1, sample
            key = (sample.name, next(iter(sample.labels.values()), None))
            assert key not in samples, f"{key} twice"
            samples[key] = sample.value
    return samples


def read(path):
    with open(path) as file:
        return parse(file.read())


def line(daemon):
    """The statistics line that SIGUSR1 asks for, as {"connections_ended eof": 12, …}."""
    since = len(daemon.log())
    daemon.signal(signal.SIGUSR1)
    text = daemon.wait_log(r"Statistics: (.*)\n", since).group(1)
    return {name: int(number) for name, number in re.findall(r"([a-z_]+(?: [a-z_]+)?) (\d+)", text)}


def wait_line(daemon, what, timeout=proc.LIMIT, **wanted):
    """Wait until the counters have these values; `connections_ended__eof` stands for "connections_ended eof"."""
    def have():
        found = line(daemon)
        return all(found.get(name.replace("__", " "), 0) == number for name, number in wanted.items())
    proc.until(have, lambda: f"{what}: {wanted} instead of {line(daemon)}", timeout)
