# SPDX-License-Identifier: ISC
"""The report for the terminal: results in sentences and columns."""
import stats

MODEL, YARDSTICK = "model", "yardstick"


class Results:
    """All rounds, as in bench.json, and values computed from them."""

    def __init__(self, data):
        self.data = data
        self.scenarios = [each for each in data["scenarios"] if self.of(each["key"])]

    def of(self, key):
        """name → rounds of one scenario, of all servers that were measured in it."""
        return {name: rounds for name, rounds in self.data["rounds"].get(key, {}).items() if rounds}

    def summaries(self, key, field, kinds=None):
        return {name: stats.summarize([each[field] for each in rounds]) for name, rounds in self.of(key).items()
                if kinds is None or self.kind(name) in kinds}

    def kind(self, name):
        return next(each["kind"] for each in self.data["contestants"] if each["name"] == name)

    def unfit(self, key):
        return self.data["unfit"].get(key, {})

    def first(self, key, field="cost_us", least_is_best=True, excluded=()):
        """The models of rank 1, the best median first, without `excluded`: no other model is better by more than the spreads."""
        summaries = {name: each for name, each in self.summaries(key, field, {MODEL}).items() if name not in excluded}
        ranks = stats.ranks(summaries, least_is_best)
        sign = 1 if least_is_best else -1
        return sorted((name for name in summaries if ranks[name][0] == 1), key=lambda name: sign * summaries[name].median)

    def memory(self):
        """name → bytes a connection, PSS where there is one."""
        return {name: found["pss_bytes"] if found["pss_bytes"] is not None else found["rss_bytes"]
                for name, found in self.data["memory"].items()}

    def limited(self, key, name):
        rounds = self.of(key)[name]
        return sum(each["client_limited"] for each in rounds) * 2 > len(rounds)

    def worst_others(self):
        return max((each["others_share"] for names in self.data["rounds"].values() for rounds in names.values()
                    for each in rounds), default=0)


def bytes_text(value):
    if abs(value) >= 10240:
        return f"{value / 1024:,.0f} KiB"
    return f"{value:,.0f} B"


def join(names):
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


# The most connections for which echod(8) recommends a model ("When to choose which"). prefork and prethread serve as many clients
# as they have workers, 64 by default; process is for few, long connections.
MOST_CONNECTIONS = {"iterative": 0, "process": 100, "prefork": 64, "prethread": 64, "select": 900, "poll": 900, "thread": 5000}
DEFAULT = "epoll"


def held(scenario):
    return scenario["idle"] + (1 if scenario["mode"] == "connect" else scenario["connections"])


def excluded(connections, mode="rr"):
    """The models that echod(8) does not recommend for this number of connections."""
    return ({name for name, most in MOST_CONNECTIONS.items() if connections > most}
            | ({"process"} if mode == "connect" else set()))


def from_to(values):
    low, high = stats.number(min(values)), stats.number(max(values))
    return low if low == high else f"{low} to {high}"


def advice(results):
    """(use, recommended models, reason) for each scenario, for the page and the terminal."""
    found = []
    for scenario in results.scenarios:
        key = scenario["key"]
        without = excluded(held(scenario), scenario["mode"])
        cost = {name: each for name, each in results.summaries(key, "cost_us", {MODEL}).items() if name not in without}
        if not cost:
            continue
        cheapest, fastest = (results.first(key, field, least_is_best, without)
                             for field, least_is_best in (("cost_us", True), ("rate", False)))
        why = f"{from_to([cost[name].median for name in cheapest])} µs of processor time for each {scenario['unit']}"
        if len(cheapest) > 1:
            why += "; their spreads overlap, so they are not ranked"
        others = sorted((each.median, name) for name, each in cost.items() if name not in cheapest)
        if others and others[0][0] > max(cost[name].median for name in cheapest):
            why += f"; next is {others[0][1]} with {stats.number(others[0][0])} µs"
        if set(fastest) - set(cheapest):
            why += f". Most {scenario['units']} per second: {join(fastest)}"
        found.append((scenario["use"], ["any"] if not others and without == {"iterative"} and len(cost) > 1 else cheapest, why + "."))
    models = {name: value for name, value in results.memory().items()
              if results.kind(name) == MODEL and name not in excluded(max(MOST_CONNECTIONS.values()) + 1)}
    if models:
        order = sorted(models, key=models.get)
        near = [name for name in order if models[name] <= models[order[0]] + 64]
        found.append(("as many open connections as possible", near,
                      f"{bytes_text(max(0, models[near[-1]]))} of memory of the server's processes for each, and no limit but "
                      "descriptors and memory."))
    return found


def answer(rows):
    """The answer in sentences, from the rows of advice(): the default, and the loads for which other models take less."""
    others = [f"{join(names)} for {use}" for use, names, _ in rows if DEFAULT not in names and names != ["any"]]
    yield f"Use {DEFAULT}, the default: it is available on every Linux host, and descriptors and memory alone limit its connections."
    if others:
        yield f"Only where one of these loads is the main one, another model costs less here: {'; '.join(others)}."
    elif rows:
        yield "No other model costs less here under any of the loads that were measured."


def columns(rows, right):
    """Rows of text as aligned lines; `right`: which columns are numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  " + "  ".join(cell.rjust(width) if i in right else cell.ljust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))).rstrip()


def scenario_lines(results, scenario):
    key = scenario["key"]
    cost, rate = results.summaries(key, "cost_us"), results.summaries(key, "rate")
    p50, p99 = results.summaries(key, "p50_us"), results.summaries(key, "p99_us")
    ranks = stats.ranks(cost)
    rows = [["rank", "server", f"CPU µs/{scenario['unit']}", f"{scenario['units']}/s", "p50 µs", "p99 µs", ""]]
    for name in sorted(cost, key=lambda each: cost[each].median):
        rows.append([stats.rank_text(ranks[name]), name, stats.spread_text(cost[name]), stats.spread_text(rate[name]),
                     stats.number(p50[name].median), stats.number(p99[name].median),
                     "client-bound" if results.limited(key, name) else ""])
    yield ""
    yield scenario["title"]
    yield from columns(rows, {2, 3, 4, 5})
    for name, why in results.unfit(key).items():
        yield f"    {name}: {'it failed in some rounds' if name in cost else 'not measured'}, {why}"


def memory_lines(results):
    memory = results.memory()
    rows = [["server", "bytes", "measured with"]]
    for name in sorted(memory, key=memory.get):
        rows.append([name, bytes_text(memory[name]), f"{results.data['memory'][name]['connections']} connections"])
    yield ""
    yield "Memory of the server's processes for each connection that is idle (PSS)"
    yield from columns(rows, {1})
    for name, why in results.unfit("memory").items():
        yield f"    {name}: not measured, {why}"


def caveats(results):
    data = results.data
    yield (f"{data['rounds_wanted']} rounds of {data['seconds']:g} s, interleaved; medians, in brackets "
           f"{stats.spread_name(data['rounds_wanted'])}. Ranks are by processor time; servers whose spreads overlap are "
           "not ranked against each other.")
    if any(results.limited(each["key"], name) for each in results.scenarios for name in results.of(each["key"])):
        yield ("client-bound: the client's processor was full, so the rate is a lower bound; the processor time of the "
               "server for each echo is valid.")
    if results.worst_others() > 0.1:
        yield (f"OTHER PROGRAMS WERE RUNNING: they used up to {results.worst_others() * 100:.0f} % of the server's processor. "
               "Measure again when the machine is idle.")
    for name, why in data["absent"].items():
        yield f"{name} was not measured: {why}."


def lines(results):
    for scenario in results.scenarios:
        yield from scenario_lines(results, scenario)
    if results.data["memory"]:
        yield from memory_lines(results)
    yield ""
    yield "Which model should I use here?"
    rows = advice(results)
    for sentence in answer(rows):
        yield f"  {sentence}"
    for use, names, why in rows:
        yield f"  {use}: {join(names)}"
        yield f"      {why}"
    yield ""
    yield results.data["machine"] + "."
    yield from caveats(results)
