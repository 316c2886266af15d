"""The tables: what was measured beside the goals, as text, and the speed tables of the documents in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from peers import LARGE, NO_RIVALS, PEERS
from workloads import EARLY_STOPPING, PREDICTION, TRAINING, WORKLOADS, Workload

#: By workload, where there is one: how many times as long as nnx the fastest peer shall take, on one core and on two.
TRAINING_GOALS = {
    "spiral": (3.5, 3.0),
    "binary": (2.0, 2.0),
    "sine": (1.15, 1.8),
    "tabular": (2.0, 2.0),
    "regularized": (9.0, 9.0),
    "fashion": (1.15, 1.5),
    "wide": (1.15, 1.05),
    "small": (1.8, 1.8),
    "ragged": (1.8, 1.8),
    "narrow middle": (1.25, 1.25),
}
PREDICTION_GOALS = dict(
    zip((workload.name for workload in PREDICTION), (2.0, 1.0, 0.95, 2.5, 1.5, 1.1, 3.0, 2.5, 3.0), strict=True)
)
PEAK_GOALS = {"fashion": 80.0, "wide": 85.0, "middle": 75.0, "narrow middle": 75.0}
#: What a second thread shall bring; and nowhere shall it cost more than this.
THREAD_GOALS, NO_LOSS = {"fashion": 1.8, "wide": 1.8}, 0.95
#: How much longer the last steps of a long run may take than the first.
LONG_RUN_GOAL = 1.1
SINGLE_STEP_GOAL, PRINTING_GOAL, MEMORY_GOAL = 30.0, 2.0, 30.0

Found = dict[str, Any]


def kept_times(result: Found, peer: str) -> list[float]:
    """Return a peer's microseconds a step in the rounds that count."""
    return [time for time, kept in zip(result["peers"][peer]["times"], result["kept"], strict=True) if kept]


def ratio(result: Found, peer: str, ours: str) -> tuple[float, float]:
    """Return how many times as long a peer takes: the median over rounds, and the ratio of the minima."""
    theirs, mine = kept_times(result, peer), kept_times(result, ours)
    return statistics.median(a / b for a, b in zip(theirs, mine, strict=True)), min(theirs) / min(mine)


def pair(values: tuple[float, float]) -> str:
    """Return the median, and the ratio of minima in brackets."""
    return f"{values[0]:.2f} ({values[1]:.2f})"


def rivals(result: Found) -> dict[str, tuple[float, float]]:
    """Return the ratios of all other libraries, by name."""
    cores = result["cores"]
    names = (name for name in PEERS if name not in NO_RIVALS and f"{name}@{cores}" in result["peers"])
    return {name: ratio(result, f"{name}@{cores}", f"nnx@{cores}") for name in names}


def verdict(reached: bool) -> str:
    """Return what is written behind a goal."""
    return "" if reached else "lost"


def text(report: Found) -> str:
    """Return all tables as text."""
    tables = (machine_lines, training_lines, run_lines, bfloat16_lines, prediction_lines, thread_lines, long_run_lines)
    return "\n".join(line for section in (*tables, other_lines, problem_lines) for line in section(report))


def machine_lines(report: Found) -> Iterator[str]:
    """Yield what it was measured on."""
    machine = report["machine"]
    yield f"{machine['processor']}, {machine['processors']} processors; {machine['system']}; {machine['compiler']}"
    yield f"Python {machine['python']}; " + ", ".join(
        f"{PEERS[name].title} {version}" for name, version in report["versions"].items() if name not in NO_RIVALS[1:]
    )
    load = "" if machine["load"] is None else f"; load {machine['load']:.2f} at the start: it should be near 0"
    yield f"{machine['date']}; {'pinned' if machine['pinned'] else 'not pinned'}{load}"
    if "cache_line" in machine:
        yield f"A cache line: {machine['cache_line']}."
    for name, reason in report["missing"].items():
        yield f"left out: {name}: {reason}"
    yield "Ratios: how many times as long as nnx; the median over rounds (the ratio of minima)."


def training_lines(report: Found) -> Iterator[str]:
    """Yield a table for each number of cores."""
    for cores in report["cores"]:
        rows = [r for r in report["results"] if r["cores"] == cores and in_float32(WORKLOADS[r["workload"]], "train")]
        names = [name for name in PEERS if any(name in rivals(row) for row in rows)]
        if not rows:
            continue
        yield f"\nTraining, {'one core' if cores == 1 else f'{cores} cores'}; nnx in µs a step: median (minimum)"
        yield f"{'':<12} {'nnx':>20}" + "".join(f"{name:>17}" for name in names) + "   fastest: goal"
        for row in rows:
            mine, others, name = kept_times(row, f"nnx@{cores}"), rivals(row), row["workload"]
            line = f"{name:<12} {statistics.median(mine):>10.2f} ({min(mine):.2f})".ljust(33)
            line += "".join(f"{pair(others[peer]) if peer in others else '-':>17}" for peer in names)
            if others:
                fastest = min(others, key=lambda peer: others[peer][0])
                line += f"   {fastest} {others[fastest][0]:.2f}"
                if cores <= 2 and name in TRAINING_GOALS:
                    goal = TRAINING_GOALS[name][cores - 1]
                    line += f": {goal:g} {verdict(others[fastest][0] >= goal)}"
            yield line + dropped(row)


def run_lines(report: Found) -> Iterator[str]:
    """Yield how long whole runs take, which end when a loss on held-out samples no longer falls."""
    for row in report["results"]:
        if WORKLOADS[row["workload"]].kind == "run":
            cores = row["cores"]
            mine, epochs = kept_times(row, f"nnx@{cores}"), row["peers"][f"nnx@{cores}"]["epochs"]
            yield f"\nA run with {row['workload']} after {epochs} epochs, one core: median (minimum)" + dropped(row)
            yield f"{'nnx':<17} {statistics.median(mine) / 1e6:.4f} s ({min(mine) / 1e6:.4f})"
            for name, found in rivals(row).items():
                theirs = kept_times(row, f"{name}@{cores}")
                seconds = f"{statistics.median(theirs) / 1e6:.4f} s ({min(theirs) / 1e6:.4f})"
                yield f"{name:<17} {seconds}, {pair(found)} times as long"


def in_float32(workload: Workload, kind: str) -> bool:
    """Return whether it is of this kind, and has float32 products."""
    return workload.kind == kind and workload.precision == "float32"


def bfloat16_lines(report: Found) -> Iterator[str]:
    """Yield what bfloat16 brings nnx, what the fastest peer takes, and how near a step is to what the processor can."""
    rows = [row for row in report["results"] if WORKLOADS[row["workload"]].precision == "bfloat16"]
    if rows:
        yield "\nProducts of bfloat16; nnx in µs a step or call: median (minimum)"
        yield "float32: nnx in it; roof: what the processor could do (peak.py); ways that name no precision are float32"
        yield f"{'':<32} {'nnx':>20}{'float32':>17}          roof   the others and how, the fastest first"
    for row in rows:
        mine, others, name = kept_times(row, f"nnx@{row['cores']}"), rivals(row), row["workload"]
        line = f"{name.removesuffix(' bfloat16')}, {row['cores']} core{'s' * (row['cores'] > 1)}".ljust(32)
        line += f" {statistics.median(mine):>10.2f} ({min(mine):.2f})".ljust(21)
        line += f"{beside(row, 'nnx_float32', pair):>17}{beside(row, 'peak', percent):>14}   "
        ordered = sorted(others, key=lambda peer: others[peer][0])
        line += "; ".join(f"{PEERS[peer].title} ({way(row, peer)}) {pair(others[peer])}" for peer in ordered)
        yield line + dropped(row)


def beside(row: Found, peer: str, form: Callable[[tuple[float, float]], str]) -> str:
    """Return how many times as long as nnx somebody takes who is no rival, or a dash."""
    name = f"{peer}@{row['cores']}"
    return form(ratio(row, name, f"nnx@{row['cores']}")) if name in row["peers"] else "-"


def way(row: Found, peer: str) -> str:
    """Return which of its ways was the fastest."""
    return str(row["peers"][f"{peer}@{row['cores']}"]["way"])


def percent(values: tuple[float, float]) -> str:
    """Return the median as a percentage."""
    return f"{100 * values[0]:.0f} %"


def prediction_lines(report: Found) -> Iterator[str]:
    """Yield the table of predictions."""
    rows = [r for r in report["results"] if r["workload"] in PREDICTION_GOALS and rivals(r)]
    if rows:
        yield "\nPrediction, one core; nnx in µs a call: median (minimum)"
    for row in rows:
        mine, goal = kept_times(row, "nnx@1"), PREDICTION_GOALS[row["workload"]]
        found = rivals(row)["onnxruntime"]
        way = row["peers"]["onnxruntime@1"]["way"]
        line = f"{row['workload']:<22} {statistics.median(mine):>10.2f} ({min(mine):.2f})".ljust(44)
        yield line + f"onnxruntime ({way}) {pair(found)}: {goal:g} {verdict(found[0] >= goal)}" + dropped(row)


def thread_lines(report: Found) -> Iterator[str]:
    """Yield what more cores bring nnx."""
    rows = [r for r in report["results"] if r["cores"] > 1 and "nnx@1" in r["peers"]]
    if rows:
        yield "\nnnx with more threads: how many times as fast as with one"
    for row in rows:
        found, goal = ratio(row, "nnx@1", f"nnx@{row['cores']}"), THREAD_GOALS.get(row["workload"], NO_LOSS)
        yield f"{row['workload']:<12} {row['cores']} threads: {pair(found)}: {goal:g} {verdict(found[0] >= goal)}"


def long_run_lines(report: Found) -> Iterator[str]:
    """Yield how much slower a step is at the end of a long run."""
    rows = report.get("long_runs", [])
    if rows:
        yield "\nA long run with a penalty: how many times as long a step takes in the end (µs at first, in the end)"
    for row in rows:
        workload = WORKLOADS[row["workload"]]
        what = f"{workload.network}, batch {workload.batch}, {workload.epochs} epochs, L2 {workload.l2:g}"
        yield f"{what}, {'one core' if row['cores'] == 1 else str(row['cores']) + ' cores'}"
        for name, peer in row["peers"].items():
            found = peer["last"] / peer["first"]
            goal = f": at most {LONG_RUN_GOAL:g} {verdict(found <= LONG_RUN_GOAL)}" if name.startswith("nnx@") else ""
            yield f"  {name:<17} {found:.2f} ({peer['first']:.1f}, {peer['last']:.1f}){goal}"


def other_lines(report: Found) -> Iterator[str]:
    """Yield the single figures."""
    yield ""
    by_name = {row["workload"]: row for row in report["results"] if row["cores"] == 1}
    for name in LARGE:
        if name in by_name and "peak@1" in by_name[name]["peers"]:
            row, goal = by_name[name], PEAK_GOALS[name]
            found = tuple(100 * value for value in ratio(row, "peak@1", "nnx@1"))
            rate = WORKLOADS[name].product_operations / min(kept_times(row, "peak@1")) / 1e3
            yield (
                f"{name}: products at {found[0]:.1f} ({found[1]:.1f}) % of the peak of {rate:.1f} GFLOP/s: "
                f"{goal:g} {verdict(found[0] >= goal)}"
            )
    if "single step" in by_name:
        row = by_name["single step"]
        mine = statistics.median(kept_times(row, "nnx@1"))
        yield f"a training call of one step: {mine:.2f} µs: at most {SINGLE_STEP_GOAL:g} " + verdict(
            mine <= SINGLE_STEP_GOAL
        )
        for peer, found in rivals(row).items():
            mark = verdict(found[0] > 1) if peer == "torch" else ""
            yield f"  {peer}: {statistics.median(kept_times(row, f'{peer}@1')):.2f} µs, {pair(found)} {mark}"
    if "printing" in by_name and "nnx_printing@1" in by_name["printing"]["peers"]:
        found = ratio(by_name["printing"], "nnx_printing@1", "nnx@1")
        yield f"printing each step beside silence: {pair(found)}: at most {PRINTING_GOAL:g} " + verdict(
            found[0] <= PRINTING_GOAL
        )
    if report.get("memory") is not None:
        yield f"memory beside 60,000 x 784: {report['memory']:.1f} MB: at most {MEMORY_GOAL:g} " + verdict(
            report["memory"] <= MEMORY_GOAL
        )


def problem_lines(report: Found) -> Iterator[str]:
    """Yield who could not be measured, or computed something else."""
    for row, problem in report["failed"].items():
        yield f"{row}: {problem}"
    for row in report["results"] + report.get("long_runs", []):
        for peer, problem in row["problems"].items():
            yield f"{row['workload']}, {peer}: {problem}"


def dropped(row: Found) -> str:
    """Return how many rounds count, if not all do."""
    n = sum(row["kept"])
    return "" if n == len(row["kept"]) else f"   [{n} of {len(row['kept'])} rounds count]"


def markdown(report: Found) -> str:
    """Return the tables of docs/reference/speed.md; of products in bfloat16, that of their page."""
    lines = bfloat16_markdown(report)
    for cores in report["cores"]:
        rows = {row["workload"]: row for row in report["results"] if row["cores"] == cores}
        training = [workload for workload in (*TRAINING, EARLY_STOPPING) if workload.name in rows]
        if not training:
            continue
        names = [name for name in PEERS if any(name in rivals(rows[workload.name]) for workload in training)]
        title = "one core" if cores == 1 else "two cores" if cores == 2 else f"{cores} cores"
        lines += [
            f"| a training step, {title} | nnx | " + " | ".join(PEERS[name].title for name in names) + " |",
            "|---|" + "---:|" * (len(names) + 1),
        ]
        for workload in training:
            others = rivals(rows[workload.name])
            cells = [times_as_long(others[name][0]) if name in others else "" for name in names]
            mine = statistics.median(kept_times(rows[workload.name], f"nnx@{cores}"))
            lines.append(f"| {workload.title} | {microseconds(mine)} | " + " | ".join(cells) + " |")
        lines.append("")
    rows = {row["workload"]: row for row in report["results"] if row["workload"] in PREDICTION_GOALS and rivals(row)}
    if rows:
        lines += ["| a prediction, one core | nnx | ONNX Runtime |", "|---|---:|---:|"]
    for name, row in rows.items():
        workload, found = WORKLOADS[name], rivals(row)["onnxruntime"]
        mine = statistics.median(kept_times(row, "nnx@1"))
        what = f"{workload.network}, batch {workload.batch}"
        lines.append(f"| {what} | {microseconds(mine)} | {times_as_long(found[0])} |")
    machine = report["machine"]
    libraries = ", ".join(
        f"{PEERS[name].title} {version}" for name, version in report["versions"].items() if name not in NO_RIVALS[1:]
    )
    lines.append(f"\n{machine['processor']}; {libraries}; {machine['date'][:10]}. Bold: lost, a peer is faster.")
    return "\n".join(lines)


def bfloat16_markdown(report: Found) -> list[str]:
    """Return the table of products in bfloat16."""
    rows = [row for row in report["results"] if WORKLOADS[row["workload"]].precision == "bfloat16"]
    if not rows:
        return []
    names = [name for name in PEERS if any(name in rivals(row) for row in rows)]
    titles = ["nnx", PEERS["nnx_float32"].title, *(PEERS[name].title for name in names), "of the roof"]
    lines = [f"| products in bfloat16 | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for row in rows:
        workload, others, cores = WORKLOADS[row["workload"]], rivals(row), row["cores"]
        cells = [times_as_long(others[name][0]) if name in others else "" for name in names]
        mine = microseconds(statistics.median(kept_times(row, f"nnx@{cores}")))
        own = beside(row, "nnx_float32", lambda values: times_as_long(values[0]))
        what = workload.title if workload.kind == "train" else f"prediction: {workload.network}, batch {workload.batch}"
        what += ", one core" if cores == 1 else f", {cores} cores"
        lines.append(f"| {' | '.join([what, mine, own, *cells, beside(row, 'peak', percent)])} |")
    return lines


def times_as_long(value: float) -> str:
    """Return how many times as long a peer takes; bold where it takes less, a lost cell."""
    return f"**{value:.2f}×**" if value < 1 else f"{value:.2f}×"


def microseconds(value: float) -> str:
    """Return a time with three digits."""
    if value >= 1000:
        return f"{value / 1000:.3g} ms"
    return f"{value:.3g} µs"
