# SPDX-License-Identifier: ISC
"""The page: one file, with the plots of gnuplot inside, that says which model to use here."""
import html
import json
import os
import re
import shutil
import subprocess
import textwrap

import anatomy
import curves
import lesson
import live
import stats
import table

COLOURS = {"model": "#2a6f97", "yardstick": "#8d99ae", "peer": "#bc6c25"}
# One for each model, in the order of echod --list-models: the palette of Okabe and Ito, which readers with colour vision
# deficiencies can tell apart, and a grey. Bars have patterns, and lines have points of different shapes as well.
MODEL_COLOURS = ["#888888", "#D55E00", "#E69F00", "#009E73", "#999933", "#CC79A7", "#56B4E9", "#0072B2", "#000000"]
MODEL_POINTS = {"iterative": 1, "process": 4, "prefork": 5, "thread": 6, "prethread": 7, "select": 2, "poll": 8, "epoll": 9,
                "io_uring": 13}
HOLDS_MARKS = {lesson.HOLDS: "✔", lesson.FAILS: "✘", lesson.OPEN: "≈", lesson.UNKNOWN: "–"}

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem } .sub { color: #666; margin-top: 0 }
table { border-collapse: collapse; margin: 1rem 0; font-size: 14px } th, td { padding: .3rem .6rem; text-align: left;
border-bottom: 1px solid #ddd; vertical-align: top } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.advice td:nth-child(2) { font-weight: 600 } .heat td { text-align: right; font-variant-numeric: tabular-nums }
.heat th:first-child { text-align: left } .none { color: #999 } .spread { color: #777; font-size: 12px }
figure { margin: 1rem 0 } pre { overflow-x: auto } svg { max-width: 100%; height: auto } .warn { background: #fff3cd; padding: .6rem 1rem }
.scroll { overflow-x: auto } .claims td:last-child { white-space: nowrap; font-weight: 600 }
@media (max-width: 40rem) { body { margin: 1rem auto; padding: 0 .7rem } .stack, .stack tbody, .stack tr, .stack td { display: block }
.stack tr:first-child { display: none } .stack tr { border-bottom: 1px solid #bbb; padding: .5rem 0 } .stack td { border: 0; padding: .1rem 0 }
h1 { font-size: 1.5rem } figure { overflow-x: auto } figure svg { min-width: 40rem } }
details { margin: .5rem 0 } code { background: #f3f3f3; padding: .1rem .3rem }
"""


def escape(text):
    return html.escape(str(text))


def cell(text, number=False):
    return f"<td{' class=n' if number else ''}>{text}</td>"


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("_", "\\\\_") + '"'


def gnuplot(script):
    """The SVG it draws, ready to stand in a page; None without gnuplot."""
    program = shutil.which("gnuplot")
    if program is None:
        return None
    done = subprocess.run([program], input=script.encode(), capture_output=True, check=False, timeout=60)
    drawn = done.stdout.decode(errors="replace")
    if done.returncode != 0 or "<svg" not in drawn:
        raise RuntimeError("gnuplot: " + done.stderr.decode(errors="replace").strip())
    return re.sub(r"(?m)[ \t]+$", "", drawn[drawn.index("<svg"):])


def head(title, height):
    return (f"set encoding utf8\nset terminal svg size 960,{height} dynamic font 'sans-serif,13' name {quoted(title)}\n"
            "set style fill solid 0.85 noborder\nset grid y lc rgb '#dddddd'\nset border 3 lc rgb '#888888'\n"
            "set tics nomirror out\nset xtics rotate by -35 noenhanced\nunset key\n")


def bars(results, key, field, title, kinds):
    """Commands for one panel of bars with their spread, the best first."""
    summaries = results.summaries(key, field)
    order = sorted(summaries, key=lambda name: summaries[name].median)
    data = "".join(f'{i} {summaries[name].median:.6g} {summaries[name].low:.6g} {summaries[name].high:.6g} '
                   f'{int(COLOURS[kinds[name]][1:], 16)} "{name}"\n' for i, name in enumerate(order))
    highest = max(each.high for each in summaries.values())
    lowest = min(each.median for each in summaries.values())
    scale = "set logscale y\nset yrange [*:*]\n" if highest > 30 * lowest else "unset logscale y\nset yrange [0:*]\n"
    return (f"$D << EOD\n{data}EOD\nset title {quoted(title)}\n{scale}set xrange [-0.6:{len(order) - 0.4}]\n"
            "plot $D using 1:2:(0.7):5:xtic(6) with boxes lc rgb variable, "
            "$D using 1:2:3:4 with yerrorbars lc rgb '#222222' lw 1.2 pt -1\n")


def latency(results, key, kinds):
    p50, p99 = results.summaries(key, "p50_us"), results.summaries(key, "p99_us")
    order = sorted(p50, key=lambda name: p50[name].median)
    data = "".join(f'{i} {max(p50[name].median, .01):.6g} {max(p99[name].median, .01):.6g} '
                   f'{int(COLOURS[kinds[name]][1:], 16)} "{name}"\n' for i, name in enumerate(order))
    return (f"$L << EOD\n{data}EOD\nset title 'latency in µs: from p50 (dot) to p99 (bar)'\nset logscale y\n"
            f"set yrange [*:*]\nset xrange [-0.6:{len(order) - 0.4}]\n"
            "plot $L using 1:2:2:3:4:xtic(5) with yerrorbars lc rgb variable lw 2 pt 7 ps 0.7\n")


def scenario_plot(results, scenario, kinds):
    key = scenario["key"]
    return gnuplot(head(key, 340) + "set multiplot layout 1,3\n"
                   + bars(results, key, "cost_us", f"CPU µs per {scenario['unit']} (less is better)", kinds)
                   + bars(results, key, "rate", f"{scenario['units']}/s (more is better)", kinds)
                   + latency(results, key, kinds) + "unset multiplot\n")


def overview_plot(results, kinds):
    """Echoes per processor second against the best model: one cluster a scenario."""
    names = [each["name"] for each in results.data["contestants"] if kinds[each["name"]] == table.MODEL
             and any(each["name"] in results.of(one["key"]) for one in results.scenarios)]
    if not names or not results.scenarios:
        return None
    rows = []
    colours = "".join(f"set linetype {i + 1} lc rgb {quoted(MODEL_COLOURS[i % len(MODEL_COLOURS)])}\n" for i in range(len(names)))
    for scenario in results.scenarios:
        summaries = results.summaries(scenario["key"], "per_cpu_second", {table.MODEL})
        best = max((each.median for each in summaries.values()), default=1)
        rows.append('"%s" ' % "\\n".join(textwrap.wrap(scenario["title"], 12)) + " ".join(
            f"{summaries[name].median / best * 100:.4g}" if name in summaries else "NaN" for name in names))
    plots = ", ".join(f"$D using {i + 2}{':xtic(1)' if i == 0 else ''} title {quoted(name)} fs pattern {i % 7 + 1}" for i, name in enumerate(names))
    return gnuplot(head("overview", 460) + colours + "$D << EOD\n" + "\n".join(rows) + "\nEOD\nset datafile missing 'NaN'\n"
                   "set style data histogram\nset style histogram clustered gap 1.5\nset xtics norotate font ',11'\n"
                   "set bmargin 6\nset key outside top center horizontal\nset yrange [0:105]\n"
                   "set ylabel 'work per processor second, % of the best model'\n"
                   f"plot {plots}\n")


def memory_plot(results, kinds):
    memory = results.memory()
    order = sorted(memory, key=memory.get)
    data = "".join(f'{i} {max(memory[name], 1):.6g} {int(COLOURS[kinds[name]][1:], 16)} "{name}"\n'
                   for i, name in enumerate(order))
    return gnuplot(head("memory", 340) + f"$D << EOD\n{data}EOD\nset logscale y\nset yrange [10:*]\n"
                   f"set xrange [-0.6:{len(order) - 0.4}]\nset ylabel 'bytes a connection'\n"
                   "plot $D using 1:2:(0.7):3:xtic(4) with boxes lc rgb variable\n")


def curve_plot(curve, values):
    """A line for each model, from the medians, with the spread of the rounds as bars; both axes logarithmic."""
    blocks, plots = "", []
    for number, (name, points) in enumerate(values.items()):
        rows = ((int(x), stats.summarize(found)) for x, found in points.items() if found)
        # 0 has no logarithm: it stands left of everything.
        blocks += f"$M{number} << EOD\n" + "".join(f"{max(x, .7)} {each.median:.6g} {each.low:.6g} {each.high:.6g}\n"
                                                    for x, each in rows) + "EOD\n"
        colour = MODEL_COLOURS[list(MODEL_POINTS).index(name) % len(MODEL_COLOURS)]
        plots.append(f"$M{number} using 1:2:3:4 with yerrorlines lc rgb '{colour}' pt {MODEL_POINTS[name]} ps 0.9 lw 1.5 "
                     f"dt {number % 4 + 1} title {quoted(name)}")
    if not plots:
        return None
    return gnuplot(head(curve.key, 420) + blocks + "set xtics norotate\nset key outside right top\nset logscale xy\n"
                   f"set xlabel {quoted(curve.x_title)}\nset ylabel {quoted(curve.y_title)}\nplot {', '.join(plots)}\n")


def load_plot(data):
    """The 99th percentile over the offered load, as a share of the capacity of each model."""
    blocks, plots = "", []
    for number, (name, points) in enumerate(data.items()):
        blocks += f"$M{number} << EOD\n" + "".join(f"{each['share'] * 100:.0f} {each['p99']}\n" for each in points
                                                    if each["p99"]) + "EOD\n"
        colour = MODEL_COLOURS[list(MODEL_POINTS).index(name) % len(MODEL_COLOURS)]
        plots.append(f"$M{number} using 1:2 with linespoints lc rgb '{colour}' pt {MODEL_POINTS[name]} ps 0.9 lw 1.5 "
                     f"dt {number % 4 + 1} title {quoted(name)}")
    return gnuplot(head("load", 420) + blocks + "set xtics norotate\nset key outside right top\nset logscale y\n"
                   "set xlabel 'offered load, % of the capacity of the model'\nset ylabel 'p99, µs'\n"
                   f"plot {', '.join(plots)}\n") if plots else None


def stored(directory, name):
    path = os.path.join(directory, f"{name}.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def claims_table(directory, results):
    yield "<h2 id=claims>What the models teach, measured</h2>"
    yield "<table class='claims stack'><tr><th>Claim<th>Measured here<th>It</tr>"
    for claim, text, verdict in lesson.claims(directory, results):
        yield f"<tr>{cell(escape(claim))}{cell(escape(text))}{cell(HOLDS_MARKS[verdict] + ' ' + escape(verdict))}</tr>"
    yield "</table>"


def live_section(directory):
    data = stored(directory, "live")
    if data:
        yield "<h2 id=live>One load, nine models</h2>"
        yield figure(live.plot(data, gnuplot, quoted))
        yield (f"<p>{data['clients']} connections, kept while the running daemon was switched by editing its file and reloading: "
               f"{escape(', '.join(f'{number} {name}' for name, number in data['lost'].items()))}. With iterative, all clients but "
               "one wait.</p>")


def curves_section(directory):
    data = stored(directory, "curves")
    if not data:
        return
    for curve in curves.CURVES:
        if curve.key in data["curves"]:
            yield f"<h2 id={curve.key}>{escape(curve.title)}</h2>"
            yield figure(curve_plot(curve, data["curves"][curve.key]["values"]))
    if data.get("load"):
        yield "<h2 id=load>Latency over offered load</h2>"
        yield figure(load_plot(data["load"]))
    yield "<details open><summary>Curves, fairness, memory and balance in numbers</summary><pre>"
    yield escape("\n".join(curves.lines(data))) + "</pre></details>"


def anatomy_section(directory):
    data = stored(directory, "anatomy")
    if data:
        yield "<h2 id=anatomy>Anatomy of an echo and of a connection</h2><pre>"
        yield escape("\n".join(anatomy.lines(data))) + "</pre>"


def figure(svg):
    return f"<figure>{svg}</figure>" if svg else ""


def advice_table(results):
    yield "<table class='advice stack'><tr><th>What you have<th>Use<th>Because it takes</tr>"
    for use, names, why in table.advice(results):
        yield f"<tr>{cell(escape(use))}{cell(escape(table.join(names)))}{cell(escape(why))}</tr>"
    yield "</table>"


def heat_table(results):
    """Every server in every scenario: processor time against the best model; the darker, the more."""
    yield "<div class=scroll><table class=heat><tr><th>server" + "".join(f"<th title='{escape(each['title'])}'>{escape(each['key'])}"
                                                      for each in results.scenarios) + "<th>memory</tr>"
    memory = results.memory()
    for each in results.data["contestants"]:
        name = each["name"]
        yield f"<tr><th>{escape(name)}"
        for scenario in results.scenarios:
            cost = results.summaries(scenario["key"], "cost_us")
            models = [value.median for key, value in cost.items() if results.kind(key) == table.MODEL]
            if name not in cost or not models:
                yield f"<td class=none title='{escape(results.unfit(scenario['key']).get(name, ''))}'>–"
                continue
            ratio = cost[name].median / min(models)
            light = max(55, min(97, 97 - 42 * (ratio - 1) / 4))
            yield f"<td style='background:hsl(210 70% {light:.0f}%)' title='{stats.spread_text(cost[name])} µs'>{ratio:.2f}"
        yield f"<td>{table.bytes_text(memory[name])}</tr>" if name in memory else "<td class=none>–</tr>"
    yield "</table></div>"


def scenario_section(results, scenario, kinds):
    yield f"<h2 id={scenario['key']}>{escape(scenario['title'])}</h2>"
    yield figure(scenario_plot(results, scenario, kinds))
    yield "<details><summary>In numbers</summary><pre>"
    yield escape("\n".join(table.scenario_lines(results, scenario)))
    yield "</pre></details>"


def parts(results, directory):
    data = results.data
    kinds = {each["name"]: each["kind"] for each in data["contestants"]}
    yield f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>echod: which model?</title><style>{STYLE}</style>"
    yield "<h1>Which model should I use here?</h1>"
    yield f"<p class=sub>echod {escape(data['version'])} on {escape(data['machine'])}, {escape(data['date'])}</p>"
    if results.worst_others() > 0.1:
        yield "<p class=warn>Other programs were at work while this was measured. Measure again when the machine is quiet.</p>"
    yield from advice_table(results)
    yield "<p>Without a special need: <b>epoll</b>, the default, runs everywhere."
    if not shutil.which("gnuplot"):
        yield " The plots are missing here because gnuplot is not installed."
    yield "</p>"
    yield from claims_table(directory, results)
    yield from live_section(directory)
    yield "<h2>At a glance</h2>"
    yield figure(overview_plot(results, kinds))
    yield ("<p>Processor time of the server for the same work, 1.00 for the cheapest model; – was not measured, "
           "the reason is shown when pointed at.</p>")
    yield from heat_table(results)
    yield from curves_section(directory)
    yield from anatomy_section(directory)
    for scenario in results.scenarios:
        yield from scenario_section(results, scenario, kinds)
    if data["memory"]:
        yield "<h2 id=memory>Memory for each idle connection</h2>"
        yield figure(memory_plot(results, kinds))
        yield "<details><summary>In numbers</summary><pre>"
        yield escape("\n".join(table.memory_lines(results))) + "</pre></details>"
    yield "<h2>How it was measured</h2>"
    yield f"<p><code>{escape(data['command'])}</code></p>"
    yield (f"<p>Server on processor {data['processors'][0]}, client (echoc --load, {escape(data['engine'])}) on processor "
           f"{data['processors'][1]}; a fresh server for each measurement. Processor time is that of the server's whole "
           "process tree. Event loops have one worker, pools as many as there are connections.</p>")
    for caveat in table.caveats(results):
        yield f"<p>{escape(caveat)}</p>"
    yield "</html>"


def write_overview(results, path):
    """The plot "At a glance" by itself, for a document; nothing where it cannot be drawn."""
    svg = overview_plot(results, {each["name"]: each["kind"] for each in results.data["contestants"]})
    if svg:
        with open(path, "w", encoding="utf-8") as file:
            file.write(svg + "\n")


def write(results, path):
    text = "\n".join(parts(results, os.path.dirname(path)))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
