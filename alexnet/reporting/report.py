"""report.html: one page a run, made of the files in its folder, that opens anywhere without a network or a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alexnet._version import __version__
from alexnet.reporting import image_sections, sections
from alexnet.reporting.page import page, text
from alexnet.reporting.report_images import save_report_images
from alexnet.reporting.run_record import RunRecord, read_run

__all__ = ["save_report_images", "write_report"]

SECTIONS: tuple[tuple[str, str, Callable[[RunRecord], str]], ...] = (
    ("curves", "Training", sections.curves),
    ("kernels", "First-layer kernels", sections.kernels),
    ("examples", "Eight test images", image_sections.examples),
    ("confusion", "Confusion", image_sections.confusion),
    ("classes", "Classes", image_sections.per_class),
    ("mistakes", "Worst mistakes", image_sections.worst_mistakes),
    ("skipped", "Skipped images", sections.skipped),
    ("recipe", "Recipe", sections.recipe),
    ("environment", "Environment", sections.environment),
)


def write_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run's folder from the files there; returns its path.

    A run that is unfinished, or lacks optional files, gets a report of what there is. Raises UserError when the folder
    is not a run's, RunError when the disk is full.
    """
    from alexnet.runtime.files import write_atomically

    run = read_run(Path(run_folder))
    path = run.folder / "report.html"
    contents = render(run).encode("utf-8")
    write_atomically(path, lambda file: file.write(contents), len(contents))
    return path


def render(run: RunRecord) -> str:
    """The report as one HTML document."""
    title = report_title(run)
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in SECTIONS)
    problems = "".join(f'<p class="note">{text(problem)}</p>' for problem in run.problems)
    header = (
        f'<header><h1>{text(title)}</h1><p class="soft">{text(_subtitle(run))}</p>{problems}'
        f'{sections.headline(run)}<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
    )
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{heading}</h2>{section(run)}</section>'
        for name, heading, section in SECTIONS
    )
    footer = f"<footer>Written by alexnet {text(__version__)} from the files of this run alone.</footer>"
    return page(title, f"{header}<main>{body}</main>{footer}")


def report_title(run: RunRecord) -> str:
    """ "as_run on digits", as far as it is known."""
    model = run.summary.get("model") or run.settings.get("model", {}).get("name") or "a network"
    data = run.summary.get("data") or run.data.get("source")
    return f"{model} on {Path(str(data)).name or data}" if data else str(model)


def _subtitle(run: RunRecord) -> str:
    parts = []
    classes = run.data.get("classes")
    if classes:
        parts.append(f"{len(classes):,} classes")
    for key, name in (("num_train", "training images"), ("num_val", "validation images")):
        if run.data.get(key) is not None:
            parts.append(f"{run.data[key]:,} {name}")
    if run.environment.get("started"):
        parts.append(f"begun {str(run.environment['started']).replace('T', ' ').removesuffix('+00:00')} UTC")
    return ", ".join(parts)
