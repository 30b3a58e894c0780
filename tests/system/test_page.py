# SPDX-License-Identifier: ISC
"""The page of `make bench`, made from test data: it begins with the recommendation, claims depend on all their figures, and a
browser displays all parts on a wide and on a narrow screen."""

import copy
import html
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import build
import echod

# Appended after tests/lib, which has modules of the same names.
sys.path.append(str(build.SRCDIR / "tests/bench"))

import curves  # noqa: E402
import lesson  # noqa: E402
import load  # noqa: E402
import page  # noqa: E402
import stats  # noqa: E402
import table  # noqa: E402

# Processor time of an echo; equal numbers lead to spreads that overlap.
COST = {"iterative": 3, "process": 4, "prefork": 3, "thread": 3.5, "prethread": 3, "select": 1.5, "poll": 1.6, "epoll": 1.2,
        "io_uring": 1}
CROWD = 1000


def values(value):
    return [value * 0.99, value, value * 1.01]


def rounds(cost):
    return [{"rate": 1e5 / each, "cost_us": each, "per_cpu_second": 1e6 / each, "p50_us": 10 * each, "p99_us": 40 * each,
             "client_limited": False, "others_share": 0} for each in values(cost)]


def bench(cost):
    """bench.json of a run in which each model costs the same in all scenarios."""
    names = {each.key: [name for name in cost if name != "iterative" or each.held == 1] for each in load.SCENARIOS}
    return {
        "version": "1.0", "date": "2026-01-01T12:00:00+00:00", "machine": "A machine, 2 processors", "command": "make bench",
        "processors": [0, 1], "engine": "epoll", "rounds_wanted": 3, "seconds": 1, "absent": {"inetd": "not installed"},
        "contestants": [{"name": name, "kind": "model"} for name in cost],
        "scenarios": [vars(each) | {"unit": each.unit, "units": each.units} for each in load.SCENARIOS],
        "rounds": {key: {name: rounds(cost[name]) for name in found} for key, found in names.items()},
        "unfit": {}, "memory": {name: {"pss_bytes": 1000 * each, "rss_bytes": 0, "connections": 900} for name, each in cost.items()},
    }


def curves_data():
    grows = {"select": 3, "poll": 3}
    found = {each.key: {"left_out": {}, "values": {
        name: {str(x): values(10 * cost * (grows.get(name, 1) if each.key == "idle" and x else 1)) for x in each.points}
        for name, cost in COST.items() if not each.models or name in each.models}} for each in curves.CURVES}
    part = {"left_out": {"iterative": "it serves one connection at a time"}}
    return {
        "rounds": 3, "curves": found,
        "load": part | {"models": {name: [{"share": share, "p99": values(100 * share)} for share in curves.LOADS] for name in COST}},
        "fairness": part | {"models": {name: {"jain": values(1), "least": values(.9), "most": values(1.1)} for name in COST}},
        "memory": part | {"method": "none", "models": {name: values(1000 * each) for name, each in COST.items()}},
        "balance": part | {"models": {name: {way: [[99, 100, 100, 101]] * 3 for way in ("one by one", "at once")}
                                      for name in curves.LOOPS}},
    }


LESSON = {
    "crash": {"process": 1, "prefork": 1, "thread": 10, "prethread": 10, "select": 10, "poll": 10, "epoll": 10, "io_uring": 10},
    "second": {name: {"meanwhile": name != "iterative", "later": True} for name in COST},
    "capacity": {"select": {"offered": 1100, "at_once": 1000, "later": 100, "refused": 0, "lost": 0},
                 "epoll": {"offered": 1100, "at_once": 1100, "later": 0, "refused": 0, "lost": 0}},
}
COUNTS = {"calls": 2, "switches": 1, "wakeups": 1, "faults": 0}
ANATOMY = {
    "counts": {name: {case: dict(COUNTS) for case in ("echo1", "echo50", "flight", "connection1", "connection50")} for name in COST},
    "sequences": {name: {"echo": ["recvfrom", "sendto"], "connection": ["accept4"] * 25} for name in COST}, "missing": {},
}
LIVE = {
    "switches": [[i, name] for i, name in enumerate([*COST, "process"])], "clients": 16,
    "intervals": [{"time": i / 4, "rate": 1e5, "p99_us": 500} for i in range(40)], "cpu": [[i / 4, 1] for i in range(40)],
    "lost": {"errors": 0, "lost": 0, "mismatches": 0},
}


def write(directory, cost, lesson_data=None, curves_json=None):
    """The results in a directory, and the page made of them; returns its path."""
    anatomy = copy.deepcopy(ANATOMY)
    anatomy["counts"]["epoll"]["echo50"] |= {"wakeups": 0.0}
    anatomy["counts"]["io_uring"]["echo50"] |= {"calls": 0.1}
    anatomy["counts"]["process"]["connection1"] |= {"calls": 24, "faults": 30}
    for name, data in (("lesson", lesson_data or LESSON), ("curves", curves_json or curves_data()), ("anatomy", anatomy),
                       ("live", LIVE)):
        with open(os.path.join(directory, f"{name}.json"), "w", encoding="utf-8") as file:
            json.dump(data, file)
    path = os.path.join(directory, "index.html")
    page.write(table.Results(bench(cost)), path)
    return path


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def words(markup):
    return html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<(svg|style).*?</\1>", "", markup, flags=re.S)))


def test_the_answer_comes_first(tmpdir):
    shown = words(text_of(write(tmpdir, COST))).split("Which model should I use here?")[1]
    assert shown.split()[:2] == ["Use", "epoll,"]
    assert shown.index("io_uring for some dozens of busy clients") < shown.index("Load")


def advised(cost):
    return {use: names for use, names, _ in table.advice(table.Results(bench(cost)))}


def test_no_advice_that_the_manual_excludes():
    """The cheapest models are not recommended for loads for which echod(8) excludes them."""
    cheap = {"select": .1, "poll": .1, "process": .1, "prefork": .1, "prethread": .1, "iterative": .1}
    found = advised({name: cheap.get(name, 5 + i) for i, name in enumerate(COST)})
    for each in load.SCENARIOS:
        names = found[each.use]
        assert "iterative" not in names
        if each.idle + each.connections >= CROWD:
            assert not set(names) & set(cheap), (each.key, names)
        if each.mode == "connect":
            assert "process" not in names
    assert not set(found["as many open connections as possible"]) & set(cheap)


def test_any_where_all_models_are_equal():
    found = advised(dict.fromkeys(COST, 1))
    for each in load.SCENARIOS:
        held = each.idle + each.connections
        if each.mode != "connect":
            assert (found[each.use] == ["any"]) == (held < CROWD), (each.key, found[each.use])


def verdicts(directory):
    return {claim: (text, verdict) for claim, text, verdict in lesson.claims(directory, table.Results(bench(COST)))}


def test_claims_hold(tmpdir):
    write(tmpdir, COST)
    for claim, (text, verdict) in verdicts(tmpdir).items():
        assert verdict == lesson.HOLDS, (claim, text)
        assert claim.endswith(".") and (re.search(r"\d", text) or "served only after" in text), (claim, text)


@pytest.mark.parametrize("model, change, verdict", [
    ("select", {"at_once": 1100, "later": 0}, lesson.FAILS),
    ("select", {"later": 99, "lost": 1}, lesson.FAILS),
    ("select", {"later": 99, "refused": 1}, lesson.FAILS),
    ("epoll", {"at_once": 1000, "later": 100}, lesson.FAILS),
    ("epoll", {"why": "too few descriptors"}, lesson.UNKNOWN),
], ids=str)
def test_limit_of_select(tmpdir, model, change, verdict):
    """The claim has two conditions: select stops, and epoll does not; and no client is refused or lost."""
    data = copy.deepcopy(LESSON)
    data["capacity"][model] |= change
    write(tmpdir, COST, data)
    text, found = next(each for claim, each in verdicts(tmpdir).items() if "1024" in claim)
    assert found == verdict, text


def test_scanning_of_both(tmpdir):
    data = curves_data()
    idle = data["curves"]["idle"]["values"]
    idle["select"] = dict.fromkeys(idle["select"], values(10))
    write(tmpdir, COST, curves_json=data)
    text, found = next(each for claim, each in verdicts(tmpdir).items() if "look at every connection" in claim)
    assert found == lesson.OPEN, text


def test_a_point_has_three_rounds():
    for timing in (curves.LONG, curves.SHORT):
        assert timing.rounds >= 3


def test_spread():
    assert stats.summarize([1, 2, 3]).low == 1
    assert stats.summarize([1, 2, 3, 4, 100]).high == 4


# Errors that the browser finds: parts of the page outside the screen that cannot be scrolled into it, and texts of a plot that
# overlap or are cut off. Slanted texts are not compared: their boxes are larger than they are.
PROBE = """
<script>
onload = function () {
	const found = [], wide = innerWidth, page = document.documentElement;
	document.querySelectorAll("details").forEach(each => { each.open = true; });
	if (page.scrollWidth > wide)
		found.push("the page is wider than the screen: " + page.scrollWidth);
	document.querySelectorAll("h1, h2, p, td, th, summary").forEach(each => {
		if (!each.closest(".scroll") && each.getBoundingClientRect().right > wide + 1)
			found.push("cut off: " + each.textContent.slice(0, 60));
	});
	const overlap = (one, other) => Math.min(one.right, other.right) - Math.max(one.left, other.left) > 2 &&
		Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 5;
	document.querySelectorAll("svg").forEach(svg => {
		const outer = svg.getBoundingClientRect(), before = [];
		svg.querySelectorAll("text").forEach(each => {
			const box = each.getBoundingClientRect(), text = each.textContent.trim();
			if (!text)
				return;
			if (text.includes("\\\\"))
				found.push("escaped: " + text);
			if (box.left < outer.left - 1 || box.right > outer.right + 1 || box.top < outer.top - 1 || box.bottom > outer.bottom + 1)
				found.push("outside the plot: " + text);
			const slanted = each.closest("[transform*=rotate]");
			if (slanted && !/rotate\\(-?90(\\.0*)?\\)/.test(slanted.getAttribute("transform")))
				return;
			before.filter(other => overlap(box, other.box)).forEach(other => found.push("overlap: " + text + ", " + other.text));
			before.push({box: box, text: text});
		});
	});
	const result = {wide: wide, plots: document.querySelectorAll("svg").length, found: found,
		first: document.querySelector("h1 + p").getBoundingClientRect().bottom};
	parent.postMessage(JSON.stringify(result), "*");
};
</script>
"""
# The screen is a frame, because a window has a minimum width.
SCREEN = """<!doctype html><pre id=result></pre>
<script>onmessage = event => { document.getElementById("result").textContent = event.data; };</script>
<iframe style="border: 0; width: WIDTHpx; height: 900px" src="index.html"></iframe>
"""
BROWSER = shutil.which("chromium")


@pytest.mark.skipif(not BROWSER, reason="no chromium was found (Debian: apt install chromium)")
@pytest.mark.skipif(not shutil.which("gnuplot"), reason="no gnuplot was found (Debian: apt install gnuplot-nox)")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", (1280, 390))
def test_in_a_browser(tmpdir, width):
    path = write(tmpdir, COST)
    with open(path, "a", encoding="utf-8") as file:
        file.write(PROBE)
    screen = os.path.join(tmpdir, "screen.html")
    with open(screen, "w", encoding="utf-8") as file:
        file.write(SCREEN.replace("WIDTH", str(width)))
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmpdir}/profile",
                           "--window-size=1400,1000", "--dump-dom", f"file://{screen}"], capture_output=True, text=True,
                          check=False, timeout=100)
    match = re.search(r"<pre id=.result.>({.*?})</pre>", done.stdout, re.S)
    assert match, done.stderr[-2000:]
    result = json.loads(html.unescape(match[1]))
    assert result["wide"] == width
    assert result["plots"] > len(load.SCENARIOS)
    assert result["first"] < 900, "the recommendation is not on the first screen"
    assert not result["found"]


def test_self_contained(tmpdir):
    """The page loads no scripts or files, and has no URLs but names of XML namespaces."""
    shown = re.sub(r"""xmlns(:\w+)?=["'][^"']*["']""", "", text_of(write(tmpdir, COST)))
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(\s*['\"]?(?!#)", shown)


def test_nothing_by_colour_alone(tmpdir):
    """Results of claims are words, cells of the table have numbers, and lines have points of different shapes."""
    shown = text_of(write(tmpdir, COST))
    assert len(set(page.MODEL_POINTS.values())) == len(echod.MODELS) == len(page.MODEL_POINTS)
    for cell in re.findall(r"<td style='background[^>]*>([^<]*)", shown):
        assert float(cell.replace(",", "")) > 0
    assert shown.count(lesson.HOLDS) >= len(lesson.CLAIMS)
