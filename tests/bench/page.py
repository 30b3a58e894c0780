# SPDX-License-Identifier: ISC
"""The page: one file, with the plots of gnuplot inside, that says which model to use here and why."""
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
# A colour for each model, in the order of echod --list-models: the palette of Okabe and Ito, which readers with colour vision
# deficiencies can tell apart, and a grey. Bars have patterns, and lines have points of different shapes as well.
MODEL_COLOURS = ["#888888", "#D55E00", "#E69F00", "#009E73", "#999933", "#CC79A7", "#56B4E9", "#0072B2", "#000000"]
MODEL_POINTS = {"iterative": 1, "process": 4, "prefork": 5, "thread": 6, "prethread": 7, "select": 2, "poll": 8, "epoll": 9,
                "io_uring": 13}
HOLDS_MARKS = {lesson.HOLDS: "✔", lesson.FAILS: "✘", lesson.OPEN: "≈", lesson.UNKNOWN: "–"}

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: .5rem } h2 { margin-top: 2.5rem } .sub { color: #555; font-size: 14px } .answer { font-size: 1.15rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: 14px } th, td { padding: .3rem .6rem; text-align: left;
border-bottom: 1px solid #ddd; vertical-align: top } .advice td:nth-child(2) { font-weight: 600 }
.heat td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } .heat tr:first-child th { vertical-align: bottom }
.heat tr:first-child th:not(:first-child) span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 11rem;
font-weight: 400; line-height: 1.2 } .heat th:first-child { position: sticky; left: 0; background: #fff } .none { color: #555 }
figure { margin: 1rem 0; overflow-x: auto } svg { max-width: 100%; height: auto } .warn { background: #fff3cd; padding: .6rem 1rem }
pre { overflow-x: auto; font-size: 13px; line-height: 1.35 } .scroll { overflow-x: auto }
.claims td:last-child { min-width: 6rem; font-weight: 600 } .narrow { display: none }
details { margin: .5rem 0 } code { background: #f3f3f3; padding: .1rem .3rem; overflow-wrap: anywhere }
@media (max-width: 40rem) { body { margin: 1rem auto; padding: 0 .7rem } h1 { font-size: 1.5rem } figure svg { min-width: 40rem }
.stack, .stack tbody, .stack tr, .stack td { display: block } .stack tr:first-child { display: none }
.narrow { display: block } .advice td:nth-child(2)::before { content: "Use: " }
.stack tr { border-bottom: 1px solid #bbb; padding: .5rem 0 } .stack td { border: 0; padding: .1rem 0 }
.heat { font-size: 12px } .heat th, .heat td { padding: .2rem .25rem } }
"""


def escape(text):
    return html.escape(str(text))


def cell(text):
    return f"<td>{text}</td>"


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("_", "\\\\_") + '"'


def gnuplot(script):
    """The SVG that gnuplot draws, to be included in a page; None without gnuplot."""
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
            "set style fill solid 0.85 noborder\nset grid y lc rgb '#dddddd'\nset border 3 lc rgb '#444444'\n"
            "set tics nomirror out\nset xtics rotate by 90 right noenhanced\nset format y '%.10g'\nunset key\n")


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
            "$D using 1:3:(0):($4-$3) with vectors heads size screen 0.004,90 lc rgb '#222222' lw 1.2\n")


def latency(results, key, kinds):
    p50, p99 = results.summaries(key, "p50_us"), results.summaries(key, "p99_us")
    order = sorted(p50, key=lambda name: p50[name].median)
    data = "".join(f'{i} {max(p50[name].median, .01):.6g} {max(p99[name].median, .01):.6g} '
                   f'{int(COLOURS[kinds[name]][1:], 16)} "{name}"\n' for i, name in enumerate(order))
    return (f"$L << EOD\n{data}EOD\nset title 'µs, from p50 (dot) to p99 (bar)'\nset logscale y\n"
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
                   "set style data histogram\nset style histogram clustered gap 1.5\nset xtics norotate center font ',11'\n"
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


def line_plot(key, x_title, y_title, axes, series):
    """A line for each model with the spread of its rounds as bars. `axes`: commands for gnuplot; series: model → (x, values of
    all rounds). None where there is nothing to draw."""
    blocks, plots = "", []
    for number, name in enumerate(name for name in MODEL_POINTS if name in series):
        points = series[name]
        rows = ((x, stats.summarize(found)) for x, found in points)
        blocks += f"$M{number} << EOD\n" + "".join(f"{x} {each.median:.6g} {each.low:.6g} {each.high:.6g}\n" for x, each in rows)
        blocks += "EOD\n"
        plots.append(f"$M{number} using 1:2:3:4 with yerrorlines lc rgb '{colour_of(name)}' pt {MODEL_POINTS[name]} ps 0.9 lw 1.5 "
                     f"dt {number % 4 + 1} title {quoted(name)}")
    return gnuplot(head(key, 420) + blocks + f"set xtics norotate center\nset key outside right top\n{axes}\n"
                   f"set xlabel {quoted(x_title)}\nset ylabel {quoted(y_title)}\nplot {', '.join(plots)}\n") if plots else None


def colour_of(model):
    return MODEL_COLOURS[list(MODEL_POINTS).index(model)]


def curve_plot(curve, values):
    # 0 has no logarithm: it is drawn at the left end.
    zero = "\nset xrange [0.5:*]\nset xtics add ('0' 0.5, '' 1)" if 0 in curve.points else ""
    return line_plot(curve.key, curve.x_title, curve.y_title, "set logscale xy" + zero,
                     {name: [(max(int(x), .5), found) for x, found in points.items()] for name, points in values.items() if points})


def load_plot(models):
    """The 99th percentile over the offered load, as a share of the capacity of each model."""
    return line_plot("load", "offered load, % of the capacity of the model", "p99, µs", "set logscale y",
                     {name: [(each["share"] * 100, each["p99"]) for each in points] for name, points in models.items()})


def pairs_plot(key, y_title, series, columns):
    """Two or more marks for each model, with the spread of the rounds as bars. series: model → values of all rounds, one list
    for each of `columns`, which are (title, point type)."""
    if not series:
        return None
    blocks, plots = "", []
    for number, (title, point) in enumerate(columns):
        shift = 0.15 * (number - (len(columns) - 1) / 2)
        rows = ((i + shift, stats.summarize(found[number])) for i, found in enumerate(series.values()))
        blocks += f"$P{number} << EOD\n" + "".join(f"{x:.3f} {each.median:.6g} {each.low:.6g} {each.high:.6g}\n" for x, each in rows)
        blocks += "EOD\n"
        plots.append(f"$P{number} using 1:2:3:4 with yerrorbars lc rgb '{'#2a6f97' if number % 2 else '#bc6c25'}' pt {point} ps 1 lw 1.5 "
                     f"title {quoted(title)}")
    names = ", ".join(f"'{name}' {i}" for i, name in enumerate(series))  # the labels of this axis are "noenhanced"
    return gnuplot(head(key, 340) + blocks + f"set xtics norotate center ({names})\nset key outside top center horizontal\n"
                   f"set xrange [-0.6:{len(series) - 0.4}]\nset yrange [0:*]\nset ylabel {quoted(y_title)}\nplot {', '.join(plots)}\n")


def fairness_plot(models):
    return pairs_plot("fairness", "bytes echoed, share of the mean", {name: (each["least"], each["most"]) for name, each in models.items()},
                      (("least served connection", 11), ("most served connection", 9)))


def balance_plot(models):
    ways = ("one by one", "at once")
    return pairs_plot("balance", "connections of a loop, share of the mean",
                      {name: [curves.extremes(each[way], pick) for way in ways for pick in (min, max)]
                       for name, each in models.items() if all(way in each for way in ways)},
                      [(f"{which} loaded, {way}", point) for way, points in zip(ways, ((10, 8), (11, 9)))
                       for which, point in zip(("least", "most"), points)])


def kernel_memory_plot(models):
    # Other programs may have freed memory meanwhile: a negative value is drawn at the lower end of the logarithmic axis.
    order = sorted(models, key=lambda name: stats.summarize(models[name]).median)
    data = "".join("{} {:.6g} {:.6g} {:.6g} \"{}\"\n".format(i, *(max(value / 1024, .01) for value in (each.median, each.low, each.high)), name)
                   for i, name in enumerate(order) for each in (stats.summarize(models[name]),))
    return gnuplot(head("kernelmemory", 340) + f"$D << EOD\n{data}EOD\nset logscale y\nset yrange [1:*]\n"
                   f"set xrange [-0.6:{len(order) - 0.4}]\nset ylabel 'KiB for each connection'\n"
                   f"plot $D using 1:2:(0.7):xtic(5) with boxes lc rgb '{COLOURS['model']}', "
                   "$D using 1:3:(0):($4-$3) with vectors heads size screen 0.004,90 lc rgb '#222222' lw 1.2\n") if order else None


def stored(directory, name):
    path = os.path.join(directory, f"{name}.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def claims_table(directory, results):
    yield "<h2 id=claims>Claims about the models, measured on this machine</h2>"
    yield "<table class='claims stack'><tr><th>Claim<th>Measured<th>Result</tr>"
    for claim, text, verdict in lesson.claims(directory, results):
        yield f"<tr>{cell(escape(claim))}{cell(escape(text))}{cell(HOLDS_MARKS[verdict] + ' ' + escape(verdict))}</tr>"
    yield "</table>"


def live_section(directory):
    data = stored(directory, "live")
    if data:
        lost = data["lost"]
        yield "<h2 id=live>One load, while the daemon is switched through all models</h2>"
        yield figure(live.plot(data, gnuplot, quoted),
                     f"{data['clients']} connections stayed open while the model of the running daemon was changed by reloads: "
                     f"{lost['errors']} errors, {lost['lost']} lost messages, {lost['mismatches']} wrong echoes. "
                     "In iterative, all clients but one wait.")


def curves_section(directory):
    data = stored(directory, "curves")
    if not data:
        return
    spread = f"The bars are the spread of {data['rounds']} or more rounds ({stats.spread_name(data['rounds'])})."
    for curve in curves.CURVES:
        if curve.key in data["curves"]:
            yield f"<h2 id={curve.key}>{escape(curve.title)}</h2>"
            better = "More is better." if curve.more_is_better else "Less is better."
            yield figure(curve_plot(curve, data["curves"][curve.key]["values"]), f"{better} {spread}")
    for key, title, text, plot in OTHER_CURVES:
        if data.get(key):
            yield f"<h2 id={key}>{title}</h2>"
            yield figure(plot(data[key]["models"]), f"{text} {spread}")
    yield "<details><summary>Curves, fairness, memory and balance in numbers</summary><pre>"
    yield escape("\n".join(curves.lines(data))) + "</pre></details>"


OTHER_CURVES = (
    ("load", "Latency over offered load",
     "Messages are due at fixed times, and wait where the server is late (open loop). Less is better.", load_plot),
    ("fairness", "Fairness under overload",
     f"{curves.OVERLOAD} connections with {curves.OVERLOAD_DEPTH} messages in flight on each. The nearer to 1, the fairer.",
     fairness_plot),
    ("memory", "Memory of an idle connection, with that of the kernel", "Less is better.", kernel_memory_plot),
    ("balance", "Balance over event loops",
     f"{curves.WORKERS * curves.EACH} connections to {curves.WORKERS} loops. The nearer to 1, the more even.", balance_plot),
)


def anatomy_section(directory):
    data = stored(directory, "anatomy")
    if data:
        yield "<h2 id=anatomy>System calls, context switches, wake-ups and page faults</h2><pre>"
        yield escape("\n".join(anatomy.lines(data)).strip()) + "</pre>"


def figure(svg, caption=""):
    if not svg:
        return f"<p>{escape(caption)} The plot is missing.</p>" if caption else ""
    # The figure scrolls on a narrow screen, and the caption must not.
    return f"<figure tabindex=0>{svg}</figure>" + (f"<p class=sub>{escape(caption)}</p>" if caption else "")


def answer(rows):
    sentences = list(table.answer(rows))
    yield f"<p class=answer><b>{escape(sentences[0])}</b> {escape(' '.join(sentences[1:]))}</p>"


def advice_table(rows):
    yield "<table class='advice stack'><tr><th>Load<th>Use<th>Reason</tr>"
    for use, names, why in rows:
        yield f"<tr>{cell(escape(use))}{cell(escape(table.join(names)))}{cell(escape(why))}</tr>"
    yield "</table>"


def heat_table(results):
    """Every server in every scenario: processor time against the cheapest model; darker cells mean more time."""
    memory = results.memory()
    yield ("<div class=scroll tabindex=0><table class=heat><tr><th>server"
           + "".join(f"<th><span>{escape(title)}</span>" for title in [each["title"] for each in results.scenarios] + ["memory"]) + "</tr>")
    for each in results.data["contestants"]:
        name = each["name"]
        if name not in memory and not any(name in results.of(scenario["key"]) for scenario in results.scenarios):
            continue
        yield f"<tr><th>{escape(name)}"
        for scenario in results.scenarios:
            cost = results.summaries(scenario["key"], "cost_us")
            models = [value.median for key, value in cost.items() if results.kind(key) == table.MODEL]
            if name not in cost or not models:
                yield f"<td class=none title='{escape(results.unfit(scenario['key']).get(name, ''))}'>–"
                continue
            ratio = cost[name].median / min(models)
            light = max(55, min(97, 97 - 42 * (ratio - 1) / 4))
            yield f"<td style='background:hsl(210 70% {light:.0f}%)' title='{stats.spread_text(cost[name])} µs'>{stats.number(ratio)}"
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
    rows = table.advice(results)
    yield ("<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'>"
           f"<title>echod: which model?</title><style>{STYLE}</style>")
    yield "<h1>Which model should I use here?</h1>"
    yield from answer(rows)
    if results.worst_others() > 0.1:
        yield "<p class=warn>Other programs were running during the measurement. Measure again while the machine is idle.</p>"
    yield from advice_table(rows)
    yield ("<p>“Any”: the spreads of all models overlap. Models that echod(8) does not recommend for that number of "
           "connections are left out.</p>")
    yield (f"<p class=sub>echod {escape(data['version'])} on {escape(data['machine'])}; {escape(data['date'][:16].replace('T', ' '))}."
           f"{'' if shutil.which('gnuplot') else ' The plots are missing because gnuplot is not installed.'}</p>")
    yield "<p class='sub narrow'>Plots and wide tables can be moved sideways.</p>"
    yield from claims_table(directory, results)
    yield from live_section(directory)
    yield "<h2 id=overview>All loads</h2>"
    yield figure(overview_plot(results, kinds), "Work for each second of processor time, as a share of the best model. More is better.")
    yield ("<p>Processor time of the server for the same work, relative to the cheapest model (1.00); less is better. “–”: not "
           "measured; the reason is below, in the numbers of that load. Memory: of the server's processes for each idle connection.</p>")
    yield from heat_table(results)
    yield from curves_section(directory)
    yield from anatomy_section(directory)
    for scenario in results.scenarios:
        yield from scenario_section(results, scenario, kinds)
    if data["memory"]:
        yield "<h2 id=processmemory>Memory of the server's processes for each idle connection</h2>"
        yield figure(memory_plot(results, kinds), "Without the memory of the kernel. Less is better.")
        yield "<details><summary>In numbers</summary><pre>"
        yield escape("\n".join(table.memory_lines(results)).strip()) + "</pre></details>"
    yield "<h2>How it was measured</h2>"
    yield f"<p><code>{escape(data['command'])}</code></p>"
    yield (f"<p>The server ran on processor {data['processors'][0]}, the client (echoc --load, {escape(data['engine'])}) on processor "
           f"{data['processors'][1]}, with a new server process for each measurement. Processor time is that of all processes of "
           "the server. Event loops have one worker, pools as many workers as there are connections, at least 64.</p>")
    for caveat in table.caveats(results):
        yield f"<p>{escape(caveat)}</p>"
    yield "</html>"


def write_overview(results, path):
    """Write the overview plot as a file, for README; nothing if it cannot be drawn."""
    svg = overview_plot(results, {each["name"]: each["kind"] for each in results.data["contestants"]})
    if svg:
        with open(path, "w", encoding="utf-8") as file:
            file.write(svg + "\n")


def write(results, path):
    text = "\n".join(parts(results, os.path.dirname(path)))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
