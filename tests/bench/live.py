#!/usr/bin/env python3
# SPDX-License-Identifier: ISC
"""make bench-live: one continuous load, while the daemon is switched through all models by editing its file and reloading.

The plot shows echoes per second, the 99th percentile of the latency and the processor time of the daemon over time. The
program fails if a byte or a connection was lost.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import command

CLIENTS = 16
EACH, EACH_SHORT = 4.0, 1.0   # seconds in each model
INTERVAL = 0.25               # of the reports of the client
READY_WITHIN = 30


def parse():
    parser = command.parser("Switch the model of a running daemon under load.", "echod", "echoc",
                            short=f"{EACH_SHORT} s in each model instead of {EACH} s")
    parser.add_argument("--redraw", action="store_true", help="make the plot again from live.json")
    options = parser.parse_args()
    os.environ["ECHOD"], os.environ["ECHOC"] = os.path.abspath(options.echod), os.path.abspath(options.echoc)
    return options


class Sampler(threading.Thread):
    """Processor time of the daemon over time."""

    def __init__(self, pid, cpu_seconds):
        super().__init__(daemon=True)
        self.pid, self.cpu_seconds, self.stop, self.samples = pid, cpu_seconds, threading.Event(), []

    def run(self):
        while not self.stop.wait(INTERVAL / 2):
            self.samples.append((time.monotonic(), self.cpu_seconds(self.pid)))

    def shares(self, begin):
        """(seconds since `begin`, processors in use) for each interval."""
        found = []
        for (t0, c0), (t1, c1) in zip(self.samples, self.samples[2:]):
            # Time of a child process counts twice for a moment while it is reaped, or not at all.
            found.append(((t0 + t1) / 2 - begin, max(0.0, (c1 - c0) / (t1 - t0))))
        return found


def workers(echod, model):
    return 0 if model in echod.SPAWN else CLIENTS if model in ("prefork", "prethread") else 1


def run(options, directory):
    echod, cost = __import__("echod"), __import__("cost")
    __import__("proc").raise_nofile()
    cpus = cost.processors()
    if cpus is None:
        sys.exit("bench-live: two processors are needed, one for the server and one for the client")
    models = [model for model, refusal in echod.REFUSALS.items() if not refusal]
    each = EACH_SHORT if options.short else EACH
    # Begin with a model that serves all clients at once. iterative is the last one, in which all clients but one wait.
    order = models[1:] + models[:1]
    daemon = echod.Daemon(directory, order[0], wrap=["taskset", "-c", str(cpus[0])], protocols=["tcp"],
                          workers=workers(echod, order[0]), stats_interval=0, log_connections=False)
    switches = []
    try:
        daemon.wait_ready(READY_WITHIN)
        seconds = each * len(order) + each
        sampler = Sampler(daemon.pid, cost.cpu_seconds)
        sampler.start()
        client = subprocess.Popen(
            ["taskset", "-c", str(cpus[1]), options.echoc, "--load", "-q", "--json-stream", "-n", str(CLIENTS), "-W", "0",
             "--warmup", "0", "-d", str(seconds), "--report", str(INTERVAL), "127.0.0.1", str(daemon.port)],
            stdout=subprocess.PIPE, text=True)
        begin = time.monotonic()
        switches.append((0.0, order[0]))
        for model in [*order[1:], order[0]]:
            until = begin + each * len(switches)
            time.sleep(max(0, until - time.monotonic()))
            print(f"bench-live: {model}", file=sys.stderr)
            daemon.reload(model=model, workers=workers(echod, model))
            switches.append((time.monotonic() - begin, model))
        out, _ = client.communicate(timeout=seconds + READY_WITHIN)
        sampler.stop.set()
        sampler.join()
    finally:
        daemon.returncode = 0
        daemon.popen.send_signal(signal.SIGTERM)
        daemon.popen.wait(30)
        daemon._clean()
    records = [json.loads(line) for line in out.splitlines()]
    summary = records[-1]
    offset = summary["measured_from"] - begin
    intervals = [{"time": (each["start"] + each["end"]) / 2 + offset, "rate": each["echoes_per_second"],
                  "p99_us": each["latency_us"]["p99"]} for each in records if each["type"] == "interval"]
    return {"switches": switches, "intervals": intervals, "cpu": sampler.shares(begin), "clients": CLIENTS,
            "status": client.returncode, "echoes": summary["echoes"], "connections": summary["connections_made"],
            "lost": {key: summary[key] for key in ("errors", "lost", "mismatches")}}


def plot(data, gnuplot, quoted):
    """The SVG of the three curves; None without gnuplot."""
    end = data["intervals"][-1]["time"]
    marks = "".join(f"set arrow from {when:.3f}, graph 0 to {when:.3f}, graph 1 nohead lc rgb '#999999' dt 2\n"
                    for when, _ in data["switches"])
    labels = "".join(f"set label {quoted(model)} at {when + end * .004:.3f}, graph 1.06 font ',12'\n"
                     for when, model in data["switches"])
    rows = "".join(f"{each['time']:.3f} {each['rate']:.6g} {each['p99_us'] if each['p99_us'] else 'NaN'}\n"
                   for each in data["intervals"])
    cpu = "".join(f"{when:.3f} {share:.4g}\n" for when, share in data["cpu"])
    text = ("set encoding utf8\nset terminal svg size 960,560 dynamic font 'sans-serif,13' name 'live'\n"
            "set border 3 lc rgb '#555555'\nset tics nomirror out\nunset key\nset grid y lc rgb '#dddddd'\nset lmargin 14\n"
            f"set datafile missing 'NaN'\nset xrange [0:{end:.3f}]\n$I << EOD\n{rows}EOD\n$C << EOD\n{cpu}EOD\n{marks}"
            "set multiplot layout 3,1\nset format x ''\n"
            f"{labels}set ylabel 'echoes/s'\nset yrange [0:*]\nplot $I using 1:2 with lines lc rgb '#004488' lw 2\n"
            "unset label\nset ylabel 'p99, µs' offset 0,0\nset logscale y\nset yrange [*:*]\nplot $I using 1:3 with lines lc rgb '#004488' lw 2\n"
            "unset logscale y\nset yrange [0:*]\nset format x '%g'\nset xlabel 'seconds'\nset ylabel 'processors'\n"
            "plot $C using 1:2 with lines lc rgb '#004488' lw 2\nunset multiplot\n")
    return gnuplot(text)


def main():
    options = parse()
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
    page = __import__("page")
    os.makedirs(options.output, exist_ok=True)
    path = os.path.join(options.output, "live.json")
    if options.redraw:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    else:
        with tempfile.TemporaryDirectory(prefix="echod-live-") as directory:
            os.chmod(directory, 0o755)
            data = run(options, directory)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
            file.write("\n")
    svg = plot(data, page.gnuplot, page.quoted)
    if svg:
        with open(os.path.join(options.output, "live.svg"), "w", encoding="utf-8") as file:
            file.write(svg + "\n")
    else:
        print("There is no gnuplot (Debian: apt install gnuplot-nox): the plot is missing.")
    lost = ", ".join(f"{number} {name}" for name, number in data["lost"].items())
    print(f"{data['echoes']} echoes on {data['connections']} connections through {len(data['switches'])} models: {lost}. "
          f"{path} has all numbers.")
    return 0 if data["status"] == 0 and not any(data["lost"].values()) else 1


if __name__ == "__main__":
    command.run(main)
