"""The page of `nnx train --report`: one HTML file that holds everything, and needs neither scripts nor the network."""

from __future__ import annotations

import base64
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import nnx
from nnx import _kernels, plot
from nnx._base import files
from nnx.cli import images, pictures
from nnx.cli.figures import Judgement, spread, told_of_folds
from nnx.cli.tasks import Task
from nnx.data.columns import Ignored
from nnx.data.sheet import count, listed, shown
from nnx.plot.columns import importance_height
from nnx.scoring.answers import gives_probabilities
from nnx.scoring.reports import ClassificationReport, one_line, share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnx.scoring.importance import Importance
    from nnx.scoring.reports import Figure, Report

#: The page names no more columns than this one by one.
MAX_COLUMNS = 100
#: Rows that are drawn as points, at most: more make a larger file, not a better picture.
MAX_POINTS = 5000
#: Width of a picture in inches: its letters are still read where it is as wide as a phone.
WIDTH = 5.0
PACKAGES = ("numpy", "matplotlib")

STYLE = """
:root { color-scheme: light; --line: #d8dde3; --dim: #5b6672; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.25rem clamp(1rem, 4vw, 2.5rem) 3rem; background: #fff;
  color: #1b2127; font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: clamp(1.4rem, 5vw, 1.9rem); line-height: 1.2; margin: .5rem 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
p { margin: .4rem 0; }
.dim { color: var(--dim); }
.score { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; margin: 1rem 0 0; }
.score b { font-size: clamp(2.2rem, 10vw, 3.2rem); line-height: 1; color: var(--accent); }
.warning { border-left: .3rem solid #d55e00; padding: .4rem .8rem; background: #fdf1e9; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--dim); font-size: .9rem; }
.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
td:first-child { min-width: 9rem; overflow-wrap: anywhere; }
td:last-child:not(.number) { min-width: 7rem; }
@media (max-width: 30rem) { table, th { font-size: .85rem; } th, td { padding-right: .6rem; }
  td:first-child { min-width: 6.5rem; } }
.pictures { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: var(--dim); font-size: .9rem; }
pre { overflow-x: auto; white-space: pre-wrap; background: #f4f6f8; border-radius: .3rem; padding: .7rem .9rem; }
code { font: .92rem/1.45 ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
@media print { body { max-width: none; } figure { break-inside: avoid; } }
"""

#: Even if a text got in unescaped, the browser would run and fetch nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Story:
    """What a page tells of a training."""

    task: Task
    model: Any
    judgement: Judgement
    #: How it was trained: sentences.
    training: Sequence[str]
    seconds: float
    command: Sequence[str]
    #: Reports of a cross-validation's folds, if there was one.
    folds: Sequence[Report] = ()
    importance: Importance | None = None


def write(path: str, story: Story) -> None:
    """Write the page, whole or not at all."""
    with files.replacing("argument --report", path) as file:
        file.write(page(story).encode("utf-8", "replace"))


def page(story: Story) -> str:
    """Return the page as HTML."""
    title = _title(story.task)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *_summary(story),
        *_section("Scores", _figures(story.judgement)),
        *_section("Cross-validation", _folds(story.folds)),
        *_section("Pictures", _pictures(story)),
        *_section("Data", _data(story.task)),
        *_section("Training", [_list(story.training), _paragraph(f"It took {_seconds(story.seconds)}.")]),
        *_section("Command", [f"<pre><code>{escape(shlex.join(['nnx', *story.command]))}</code></pre>"]),
        *_section("Versions and machine", [_list(_versions())]),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


# Parts of a page


def _section(title: str, content: Iterable[str]) -> list[str]:
    inside = list(content)
    return [f"<section><h2>{escape(title)}</h2>", *inside, "</section>"] if inside else []


def _paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def _list(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def _lines(texts: Sequence[str]) -> list[str]:
    return ["<pre><code>" + escape("\n".join(texts)) + "</code></pre>"] if texts else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], n_texts: int = 1) -> str:
    """Return a table whose first columns are texts, and the others numbers."""

    def line(tag: str, cells: Sequence[str]) -> str:
        made = (
            f'<{tag} class="number">{escape(cell)}</{tag}>' if place >= n_texts else f"<{tag}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        )
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f'<div class="wide"><table><thead>{line("th", head)}</thead><tbody>{body}</tbody></table></div>'


# What is told


def _title(task: Task) -> str:
    if isinstance(task.table, nnx.Images):
        return f"{task.source}: {count(task.table.n_outputs, 'class')[:-1]}es of images"
    return f"{task.source}: {shown(task.table.target.name)} predicted"


def _summary(story: Story) -> list[str]:
    main, part = story.judgement.main, story.judgement.part
    score = main.figures[0]
    if story.folds:
        return _summary_of_folds(story.folds)
    rows = f"on {main.n_samples:,} {'test rows' if part == 'test' else 'training rows'}"
    told = [
        _score(score.text(score.value), f"{score.name} {rows}"),
        _paragraph(f"The baseline, {main.baseline_answer}, has {score.baseline_text}.", "dim"),
    ]
    if main.verdict:
        told.append(_paragraph(f"This model is {main.verdict} {main.baseline_answer}.", "warning"))
    if part != "test":
        told.append(_paragraph("There were no test rows. Expect a lower score on new rows.", "warning"))
    return told


def _score(value: str, what: str) -> str:
    return f'<p class="score"><b>{escape(value)}</b> <span>{escape(what)}</span></p>'


def _summary_of_folds(reports: Sequence[Report]) -> list[str]:
    scores = [each.figures[0] for each in reports]
    mean = statistics.fmean(each.value for each in scores)
    baseline = statistics.fmean(each.baseline for each in scores)
    told = f"mean {scores[0].name} of {len(reports)} folds, each tested on rows that it was not trained on"
    without = f"The baseline, {reports[0].baseline_answer}, has {scores[0]._replace(baseline=baseline).baseline_text}."
    warning = told_of_folds(reports)
    found = [_score(scores[0].text(mean), told), _paragraph(without, "dim")]
    return [*found, _paragraph(warning[0].upper() + warning[1:], "warning")] if warning else found


def _folds(reports: Sequence[Report]) -> list[str]:
    """Return the figures of each fold, and their mean and spread."""
    if not reports:
        return []
    names = [each.name for each in reports[0].figures]
    rows = [[str(number), *_texts(*each.figures)] for number, each in enumerate(reports, 1)]
    told = (
        "For each fold, a model was trained on the other folds and predicted the rows of this one. "
        "The saved model was then trained on all rows."
    )
    return [_paragraph(told), _table(["fold", *names], rows), *_lines(spread(reports, "folds"))]


def _figures(judgement: Judgement) -> list[str]:
    main, training = judgement.main, judgement.training

    def row(number: int, figure: Figure, baseline: str) -> list[str]:
        of_training = [*training.figures, *training.further][number]
        both = [figure.text(figure.value)] if judgement.test is None else _texts(of_training, figure)
        return [figure.name, *both, baseline]

    rows = [row(number, each, each.baseline_text) for number, each in enumerate(main.figures)]
    start = len(main.figures)
    rows += [row(start + number, each, "") for number, each in enumerate(main.further)]
    head = ["score", "training"] + ["test"] * (judgement.test is not None) + ["baseline"]
    told = [_table(head, rows)]
    if main.table and isinstance(main, ClassificationReport):
        each = zip(main.classes, main.recall, main.precision, main.f1, main.class_counts, strict=True)
        cells = [[one_line(name), *map(share_text, shares), f"{n:,}"] for name, *shares, n in each]
        told.append(_table(["class", "recall", "precision", "F1", "samples"], cells))
    else:
        told += _lines(main.table)
    return told


def _texts(*figures: Figure) -> list[str]:
    return [figure.text(figure.value) for figure in figures]


def _data(task: Task) -> list[str]:
    table = task.table
    if isinstance(table, nnx.Images):
        told = [images.announcement(table, task.source, len(task.X), len(task.X_test)), *task.remarks]
        return [_paragraph(each) for each in told]
    kind = f"{table.n_outputs} classes: {listed(table.classes)}" if table.classes else "a number"
    told = [
        f"{count(task.n_rows, 'row')} to train on"
        + (f", {len(task.X_test):,} to test on." if len(task.X_test) else "."),
        f"To predict: {shown(table.target.name)}, {kind}.",
        *task.remarks,
    ]
    ignored = [shown(each.name) for each in table.columns if isinstance(each, Ignored)]
    if ignored:
        told.append(f"Left out: {listed(ignored)}.")
    rows = [[each.name, each.summary()] for each in table.inputs[:MAX_COLUMNS]]
    more = len(table.inputs) - len(rows)
    told.append(f"{count(len(table.inputs), 'input column')}, which become {count(table.n_inputs, 'input')}:")
    after = [_paragraph(f"and {more:,} more columns.")] if more else []
    return [*map(_paragraph, told), _table(["column", "taken as"], rows, n_texts=2), *after]


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _versions() -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    told = [f"nnx {nnx.__version__}, kernels {_kernels.name}"]
    told.append(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        try:
            told.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    cores = count(os.cpu_count() or 1, "processor")
    told.append(f"{_processor()}; {cores}, at most {count(nnx.get_num_threads(), 'thread')} used")
    return told


def _processor() -> str:
    """Return what the processor calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or sys.platform


# Pictures


def _pictures(story: Story) -> list[str]:
    task, model = story.task, story.model
    X, y = task.held_out or (task.X, task.y)
    part = "test" if task.held_out else "training"
    most = MAX_POINTS if task.picture is plot.predictions else None
    found = [_picture(lambda ax: task.picture(model, X[:most], y[:most], ax), *_of_task(task, part))]
    if gives_probabilities(model):
        caption = f"How often predictions with a given probability are right, on the {part} data."
        found.append(_picture(lambda ax: plot.calibration(model, X, y, ax), "Calibration", caption, (WIDTH, WIDTH)))
    if story.importance is not None:
        ranked = story.importance
        size = WIDTH + 0.6, max(2.5, importance_height(len(ranked.columns)))
        caption = (
            "How far the score falls when the values of a column are shuffled among the rows. Columns with the same "
            "information may all look unimportant."
        )
        found.append(_picture(lambda ax: plot.importance(ranked, ax), "Importance of columns", caption, size))
    if isinstance(model, nnx.Ensemble):
        each = [member.history for member in model.models if member.history is not None]
        caption = f"Loss of the {count(len(each), 'network')} of the ensemble in each epoch."
        found.append(_picture(lambda ax: plot.histories(each, ax, held_out="held-out data"), "Training", caption))
    recorded = getattr(model, "history", None)
    if recorded is not None and len(recorded):
        held_out = "test" if task.validation is None else "held-out data"
        caption = "Loss and, for classes, accuracy in each epoch."
        found.append(_picture(lambda ax: plot.history(recorded, ax, held_out=held_out), "Training", caption))
    drawn = [each for each in found if each]
    return ['<div class="pictures">', *drawn, "</div>"] if drawn else [_paragraph(pictures.HINT)]


def _of_task(task: Task, part: str) -> tuple[str, str, tuple[float, float]]:
    """Return heading, caption and size of the picture of a task."""
    size = WIDTH, WIDTH
    if task.picture is plot.confusion_matrix:
        if task.table.classes is not None:
            size = plot.matrix_size(task.table.classes)
        return "Confusion matrix", f"True and predicted classes of the {part} data.", size
    if task.picture is plot.predictions:
        return "Predictions", f"Predicted against true values of the {part} data.", size
    return "The model", f"The model's predictions and the {part} data.", size


def _picture(
    draw: Callable[[Axes], Any], heading: str, caption: str, size: tuple[float, float] = (WIDTH, WIDTH - 0.4)
) -> str:
    """Return a picture within the page; "" without matplotlib."""
    content = pictures.encoded(draw, size)
    if content is None:
        return ""
    data, width = base64.b64encode(content).decode("ascii"), round(size[0] * 100)
    return (
        f'<figure><img alt="{escape(heading)}" width="{width}" src="data:image/png;base64,{data}">'
        f"<figcaption><b>{escape(heading)}.</b> {escape(caption)}</figcaption></figure>"
    )
