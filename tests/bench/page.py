# SPDX-License-Identifier: ISC
"""The page: one file, with the plots of gnuplot inside, that says which model to use here."""
import html
import re
import shutil
import subprocess
import textwrap

import stats
import table

COLOURS = {"model": "#2a6f97", "yardstick": "#8d99ae", "peer": "#bc6c25"}
# One for each model, in the order of echod --list-models; kin have kindred ones.
MODEL_COLOURS = ["#bbbbbb", "#7f4f24", "#d4a373", "#386641", "#a7c957", "#9d4edd", "#4895ef", "#1d3557", "#e63946"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem } .sub { color: #666; margin-top: 0 }
table { border-collapse: collapse; margin: 1rem 0; font-size: 14px } th, td { padding: .3rem .6rem; text-align: left;
border-bottom: 1px solid #ddd; vertical-align: top } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.advice td:nth-child(2) { font-weight: 600 } .heat td { text-align: right; font-variant-numeric: tabular-nums }
.heat th:first-child { text-align: left } .none { color: #999 } .spread { color: #777; font-size: 12px }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto } .warn { background: #fff3cd; padding: .6rem 1rem }
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
    colours = "".join(f"set linetype {i + 1} lc rgb {quoted(colour)}\n" for i, colour in enumerate(MODEL_COLOURS))
    for scenario in results.scenarios:
        summaries = results.summaries(scenario["key"], "per_cpu_second", {table.MODEL})
        best = max((each.median for each in summaries.values()), default=1)
        rows.append('"%s" ' % "\\n".join(textwrap.wrap(scenario["title"], 12)) + " ".join(
            f"{summaries[name].median / best * 100:.4g}" if name in summaries else "NaN" for name in names))
    plots = ", ".join(f"$D using {i + 2}{':xtic(1)' if i == 0 else ''} title {quoted(name)}" for i, name in enumerate(names))
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


def figure(svg):
    return f"<figure>{svg}</figure>" if svg else ""


def advice_table(results):
    yield "<table class=advice><tr><th>What you have<th>Use<th>Because it takes</tr>"
    for use, names, why in table.advice(results):
        yield f"<tr>{cell(escape(use))}{cell(escape(table.join(names)))}{cell(escape(why))}</tr>"
    yield "</table>"


def heat_table(results):
    """Every server in every scenario: processor time against the best model, green to red."""
    yield "<table class=heat><tr><th>server" + "".join(f"<th title='{escape(each['title'])}'>{escape(each['key'])}"
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
            hue = max(0, min(120, 120 - 120 * (ratio - 1) / 4))
            yield f"<td style='background:hsl({hue:.0f} 70% 85%)' title='{stats.spread_text(cost[name])} µs'>{ratio:.2f}"
        yield f"<td>{table.bytes_text(memory[name])}</tr>" if name in memory else "<td class=none>–</tr>"
    yield "</table>"


def scenario_section(results, scenario, kinds):
    yield f"<h2 id={scenario['key']}>{escape(scenario['title'])}</h2>"
    yield figure(scenario_plot(results, scenario, kinds))
    yield "<details><summary>In numbers</summary><pre>"
    yield escape("\n".join(table.scenario_lines(results, scenario)))
    yield "</pre></details>"


def parts(results):
    data = results.data
    kinds = {each["name"]: each["kind"] for each in data["contestants"]}
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>echod: which model?</title><style>{STYLE}</style>"
    yield "<h1>Which model should I use here?</h1>"
    yield f"<p class=sub>echod {escape(data['version'])} on {escape(data['machine'])}, {escape(data['date'])}</p>"
    if results.worst_others() > 0.1:
        yield "<p class=warn>Other programs were at work while this was measured. Measure again when the machine is quiet.</p>"
    yield from advice_table(results)
    yield "<p>Without a special need: <b>epoll</b>, the default, runs everywhere."
    if not shutil.which("gnuplot"):
        yield " The plots are missing here because gnuplot is not installed."
    yield "</p><h2>At a glance</h2>"
    yield figure(overview_plot(results, kinds))
    yield ("<p>Processor time of the server for the same work, 1.00 for the cheapest model; – was not measured, "
           "the reason is shown when pointed at.</p>")
    yield from heat_table(results)
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
    text = "\n".join(parts(results))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
