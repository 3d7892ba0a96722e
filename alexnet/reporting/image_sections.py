"""The sections of a report about single images and classes: guesses, confusions, mistakes; a missing part says so."""

from __future__ import annotations

import numpy as np

from alexnet.evaluation.report import EvaluationReport
from alexnet.reporting import figures
from alexnet.reporting.page import SVG_COLORS, folded, missing, percent, picture, scrollable, svg, table, text
from alexnet.reporting.run_record import RunRecord

MAX_MATRIX_CLASSES = 20
"""Up to here the confusion matrix is a table of counts."""
MAX_HEAT_CLASSES = 200
"""Up to here it is a picture; above, only its worst pairs are listed."""
MAX_PAIRS = 12


def examples(run: RunRecord) -> str:
    """Eight test images with their five best guesses (paper, Figure 4 left)."""
    report, images = run.evaluation, run.images
    if report is None or images is None:
        return missing("The pictures appear when the run is finished.")
    cards = [
        f'<li class="card">{_image(run, index)}{_truth(report, index)}{_guesses(report, index)}</li>'
        for index in images.examples
        if index < report.num_images
    ]
    return (
        '<p class="soft">Drawn at random, of as many classes as possible, before looking at the guesses. '
        f'The true class is printed above its bars and marked among them.</p><ul class="cards">{"".join(cards)}</ul>'
    )


def _image(run: RunRecord, index: int) -> str:
    assert run.evaluation is not None
    square = run.images.squares.get(index) if run.images is not None else None
    if square is None:
        return ""
    return picture(square, f"an image of class {run.evaluation.class_names[run.evaluation.labels[index]]}")


def _truth(report: EvaluationReport, index: int) -> str:
    return f'<p class="truth">{text(report.class_names[report.labels[index]])}</p>'


def _guesses(report: EvaluationReport, index: int) -> str:
    row, label = report.probabilities[index], int(report.labels[index])
    order = np.argsort(-row, kind="stable")
    shown = [int(guess) for guess in order[:5]]
    items = []
    for guess in shown if label in shown else [*shown, label]:
        probability = float(row[guess])
        rank = "" if guess in shown else f" (guess {int(np.flatnonzero(order == guess)[0]) + 1})"
        mark = ' <span aria-hidden="true">&#10003;</span><span class="spoken">, the true class</span>'
        name = f"{text(report.class_names[guess])}{rank}{mark if guess == label else ''}"
        items.append(
            f'<li{" class=true" if guess == label else ""}><span class="row"><span class="name">{name}</span>'
            f'<span class="value">{percent(probability)}</span></span>'
            f'<span class="bar"><i style="width:{100 * probability:.1f}%"></i></span></li>'
        )
    return f'<ol class="guesses">{"".join(items)}</ol>'


def confusion(run: RunRecord) -> str:
    """Which class is taken for which."""
    report = run.evaluation
    if report is None:
        return missing("The confusion matrix appears when the run is finished.")
    parts = []
    if len(report.classes) <= MAX_MATRIX_CLASSES:
        parts.append(_matrix_table(report))
    elif len(report.classes) <= MAX_HEAT_CLASSES:
        drawing = figures.confusion_matrix(report.confusion, report.class_names, SVG_COLORS)
        words = (
            f"Confusion matrix of {len(report.classes)} classes, true class by row; its worst pairs are listed below"
        )
        parts.append(
            f'<figure class="heat">{svg(drawing, "confusion", words)}<figcaption>Each row is a true class; '
            "the opacity is the root of the share of its images that was guessed as the column.</figcaption></figure>"
        )
    else:
        parts.append(
            missing(f"The matrix of {len(report.classes):,} classes is too large to read; its worst pairs are:")
        )
    return "".join(parts) + _confused_pairs(report)


def _matrix_table(report: EvaluationReport) -> str:
    heads = "".join(f'<th scope="col"><span>{text(name)}</span></th>' for name in report.class_names)
    rows = []
    for index, name in enumerate(report.class_names):
        counts = report.confusion[index]
        total = max(int(counts.sum()), 1)
        cells = "".join(
            f'<td class="{"right" if column == index else "wrong" if count else "zero"}"'
            + (f' style="background:rgb(var(--wash)/{0.12 + 0.6 * count / total:.2f})"' if count else "")
            + f">{count}</td>"
            for column, count in enumerate(counts.tolist())
        )
        rows.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>')
    caption = "Number of images: true class by row, first guess by column"
    return scrollable(
        f'<table class="matrix"><caption>{caption}</caption><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>",
        "Confusion matrix",
    )


def confused_pairs(counts: np.ndarray, limit: int = MAX_PAIRS) -> list[tuple[int, int, int]]:
    """(true class, guess, number of images) of the most frequent mistakes, most frequent first."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    flat = mistakes.ravel()
    order = np.argsort(-flat, kind="stable")[:limit]
    return [(int(i) // len(counts), int(i) % len(counts), int(flat[i])) for i in order if flat[i]]


def _confused_pairs(report: EvaluationReport) -> str:
    totals = report.confusion.sum(axis=1)
    rows = [
        (
            text(report.class_names[truth]),
            text(report.class_names[guess]),
            str(count),
            percent(count / int(totals[truth])),
        )
        for truth, guess, count in confused_pairs(report.confusion)
    ]
    if not rows:
        return missing("No image was taken for one of another class.")
    columns = ("true class", "taken for", "images", "share of the class")
    return table(columns, rows, caption="Most frequent confusions", numeric=columns[2:])


def per_class(run: RunRecord) -> str:
    """Errors class by class, worst first."""
    report = run.evaluation
    if report is None:
        return missing("The results by class appear when the run is finished.")
    results = sorted(report.per_class, key=lambda result: -(result.top1_error if result.top1_error is not None else -1))
    columns = ("class", "id", "images", "top-1 error", "most often taken for")
    rows = [
        (
            text(result.name),
            text(result.class_id),
            f"{result.count:,}",
            "-" if result.top1_error is None else percent(result.top1_error),
            text(result.most_confused_with or "-"),
        )
        for result in results
    ]
    if all(result.class_id == result.name for result in results):
        columns, rows = (columns[0], *columns[2:]), [(row[0], *row[2:]) for row in rows]
    return folded(columns, rows, "Error by class, worst first", ("images", "top-1 error"))


def worst_mistakes(run: RunRecord) -> str:
    """The wrong guesses held with the most confidence, with their pictures."""
    report = run.evaluation
    if report is None:
        return missing("The mistakes appear when the run is finished.")
    mistakes = report.worst_mistakes()
    if not mistakes:
        return missing("There is none: the first guess is right for every image.")
    total = report.num_images - int(np.trace(report.confusion))
    cards = [
        f'<li class="card">{_image(run, mistake.index)}<p class="truth">{text(report.class_names[mistake.label])}</p>'
        f'<div class="guesses">taken for <b>{text(report.class_names[mistake.guess])}</b>, '
        f'<span class="value">{percent(mistake.probability)}</span></div>'
        f'<p class="key">{text(mistake.key)}</p></li>'
        for mistake in mistakes
    ]
    return (
        f'<p class="soft">{len(mistakes)} of {total:,} mistakes, the most confident first.</p>'
        f'<ul class="cards small">{"".join(cards)}</ul>'
    )
