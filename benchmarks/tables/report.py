"""From cells to the table: means over seeds, ranks, and what nnx lost."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Iterable
from typing import Any

from peers import PEERS
from sets import SETS

Cell = dict[str, Any]
#: By data set, method and seed.
Cells = dict[tuple[str, str, int], Cell]

#: A score that differs by less is the same: printed so, and of the same rank.
DIGITS = 4


def read(paths: Iterable[pathlib.Path]) -> Cells:
    """Return all cells of the files that are there; of several of the same name the last."""
    lines = [line for path in paths if path.exists() for line in path.read_text().splitlines() if line.strip()]
    found = [json.loads(line) for line in lines]
    return {(cell["set"], cell["peer"], cell["seed"]): cell for cell in found}


def chosen(cells: Cells, names: list[str], peers: list[str], seeds: list[str]) -> Cells:
    """Return the cells of some data sets, methods and seeds."""
    return {key: c for key, c in cells.items() if key[0] in names and key[1] in peers and str(key[2]) in seeds}


def of(cells: Cells, name: str, peer: str) -> list[Cell]:
    """Return the cells of a data set and a method, by seed."""
    return [cells[key] for key in sorted(cells) if key[:2] == (name, peer)]


def mean(found: list[Cell], figure: str) -> float | None:
    """Return the mean of a figure over seeds; None if there is no cell, or one has failed."""
    if not found or any("failed" in cell for cell in found):
        return None
    return statistics.fmean(cell[figure] for cell in found)


def summary(cells: Cells) -> dict[str, Any]:
    """Return means and deviations over seeds, the ranks, and all cells."""
    names, peers = listed(cells)
    rows = []
    for name in names:
        for peer in peers:
            found = of(cells, name, peer)
            if mean(found, "score") is None:
                continue
            scores = [cell["score"] for cell in found]
            rows.append(
                {
                    "set": name,
                    "peer": peer,
                    "kind": SETS[name][0],
                    "seeds": len(found),
                    "score": mean(found, "score"),
                    "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
                    "cpu_seconds": mean(found, "cpu_seconds"),
                    "wall_seconds": mean(found, "wall_seconds"),
                }
            )
            if SETS[name][0] == "classes":
                rows[-1]["log_loss"] = mean(found, "log_loss")
    return {"means": rows, "mean_ranks": mean_ranks(cells), "cells": list(cells.values())}


def listed(cells: Cells) -> tuple[list[str], list[str]]:
    """Return the data sets and the methods of the cells, in their order."""
    return [name for name in SETS if any(key[0] == name for key in cells)], [
        peer for peer in PEERS if any(key[1] == peer for key in cells)
    ]


def common_seeds(cells: Cells) -> dict[str, set[int]]:
    """Return the data sets on which all methods have been measured, with the seeds that they have in common."""
    names, peers = listed(cells)
    found = {name: set.intersection(*({c["seed"] for c in of(cells, name, peer)} for peer in peers)) for name in names}
    return {name: seeds for name, seeds in found.items() if seeds}


def mean_ranks(cells: Cells) -> dict[str, float]:
    """Return each method's mean rank over these: 1 is the best; equals share a rank; who failed comes last."""
    ranks: dict[str, list[float]] = {peer: [] for peer in listed(cells)[1]}
    for name, seeds in common_seeds(cells).items():
        shared = {peer: [cell for cell in of(cells, name, peer) if cell["seed"] in seeds] for peer in ranks}
        scores = {peer: rounded(mean(found, "score")) for peer, found in shared.items()}
        for peer, score in scores.items():
            better = sum(other > score for other in scores.values())
            equal = sum(other == score for other in scores.values())
            ranks[peer].append(better + (1 + equal) / 2)
    return {peer: statistics.fmean(found) for peer, found in ranks.items() if found}


def rounded(score: float | None) -> float:
    """Return a score as it is printed."""
    return float("-inf") if score is None else round(score, DIGITS)


def markdown(cells: Cells) -> str:
    """Return the tables of scores and of seconds."""
    if not cells:
        return "There are no cells."
    names, peers = listed(cells)
    seeds = sorted({key[2] for key in cells})
    title = f"R² or accuracy, mean of {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    lines = head(title, peers)
    for name in names:
        scores = {peer: mean(of(cells, name, peer), "score") for peer in peers}
        texts = [score_text(cells, name, peer, scores, len(seeds)) for peer in peers]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    ranks, counted = mean_ranks(cells), common_seeds(cells)
    if ranks:
        texts = [f"{ranks[peer]:.2f}" for peer in peers]
        lines.append(f"| mean rank over {len(counted)} sets | {' | '.join(texts)} |")
    lines += ["", *head("CPU seconds of `fit`", peers)]
    for name in names:
        seconds = [mean(of(cells, name, peer), "cpu_seconds") for peer in peers]
        lines.append(f"| {name} | {' | '.join(time_text(value) for value in seconds)} |")
    return "\n".join([*lines, "", *notes(cells, names, len(seeds), counted)])


def head(title: str, peers: list[str]) -> list[str]:
    """Return a table's first two lines."""
    return [f"| {title} | {' | '.join(PEERS[peer].title for peer in peers)} |", "|---|" + "---:|" * len(peers)]


def score_text(cells: Cells, name: str, peer: str, scores: dict[str, float | None], seeds: int) -> str:
    """Return a cell: bold where it is nnx's and another method's is better; how many seeds if not all."""
    found, score = of(cells, name, peer), scores[peer]
    if score is None:
        return "failed" if found else ""
    rivals = [rounded(value) for other, value in scores.items() if not other.startswith("nnx")]
    lost = peer.startswith("nnx") and rivals and max(rivals) > rounded(score)
    text = f"{score:.{DIGITS}f}"
    return (f"**{text}**" if lost else text) + (f" ({len(found)})" if len(found) < seeds else "")


def time_text(value: float | None) -> str:
    """Return seconds with two digits, or three."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def notes(cells: Cells, names: list[str], n_seeds: int, counted: dict[str, set[int]]) -> list[str]:
    """Return what stands below the tables: marks, versions, failures."""
    versions = {f"{PEERS[cell['peer']].distribution} {cell['version']}" for cell in cells.values()}
    processors = {cell["processor"] for cell in cells.values() if "processor" in cell}
    place = ", ".join([*sorted(processors), "one core"])
    lines = [f"{place}; {', '.join(sorted(versions))}. Bold: lost, another method is better."]
    if len(counted) < len(names) or any(len(seeds) < n_seeds for seeds in counted.values()):
        lines.append(
            "In brackets: how many seeds, if not all. Ranks are of the sets that all methods have been measured on, "
            "and of the seeds that they have in common there."
        )
    failures = [
        f"{c['set']}, {PEERS[c['peer']].title}, seed {c['seed']}: {c['failed']}"
        for c in cells.values()
        if "failed" in c
    ]
    return [*lines, *(f"- {line}" for line in failures)]
