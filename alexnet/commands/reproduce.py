"""`alexnet reproduce`: a table, a figure or an ablation of the paper, done again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alexnet.commands.output import print_json
from alexnet.commands.reproduce_ledger import ledger_command, records_command
from alexnet.errors import UserError
from alexnet.reporting.console import print_table
from alexnet.reporting.progress import Progress
from alexnet.reproduce.catalogue import STUDIES, get_study
from alexnet.reproduce.overrides import is_one_of
from alexnet.reproduce.record import TABLE_HEAD, table_cells, write_record
from alexnet.reproduce.study import Outcome, Study
from alexnet.reproduce.workbench import Interrupted, Scale, Workbench
from alexnet.runtime.text import print_lines
from alexnet.training.checkpoint import load_checkpoint
from alexnet.training.stop_signals import exit_code


def list_studies(*, as_json: bool) -> None:
    """Print every study with the data it needs and what it costs."""
    rows = [
        {
            "name": study.name,
            "title": study.title,
            "section": study.section,
            "data": study.data,
            "cost": study.cost,
            "seeds": list(study.seeds),
            "small": study.small,
        }
        for study in STUDIES.values()
    ]
    if as_json:
        print_json({"studies": rows})
        return
    for row in rows:
        print_lines(row["name"], f"  {row['title']}.")
        for key, title in (("section", "source"), ("data", "data"), ("cost", "cost"), ("small", "small")):
            if row[key] is not None:
                print_lines(f"  {title}: {row[key]}")


def reproduce_command(
    arguments: Sequence[str],
    data: str | None,
    output: Path | None,
    *,
    checkpoint: Path | None = None,
    seeds: str | None,
    scale: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a study, or go on with it; print what was published beside what came out. Returns the exit code."""
    names = [argument for argument in arguments if "=" not in argument]
    overrides = tuple(argument for argument in arguments if "=" in argument)
    if len(names) != 1:
        raise UserError(f"one study is expected, {len(names)} were given; `alexnet reproduce list` lists them")
    if names[0] in ("list", "ledger", "records"):
        if checkpoint is not None or seeds or scale != "full" or overrides:
            raise UserError(f"`alexnet reproduce {names[0]}` trains nothing; leave out what is for a study")
        if names == ["list"]:
            list_studies(as_json=as_json)
        elif names == ["ledger"]:
            ledger_command(data, output, as_json=as_json)
        elif output is not None or as_json:
            raise UserError("`alexnet reproduce records` writes into the records; leave out --output and --json")
        else:
            records_command(data)
        return 0
    study = get_study(names[0])
    _check_overrides(study, overrides)
    if checkpoint is not None:
        _check_checkpoint(study, has_recipe_values=bool(overrides or seeds or scale != "full"))
    folder = output or Path("runs") / study.name
    with Progress("silent" if quiet else "auto") as display:
        bench = Workbench(
            folder=folder,
            data=_choose_data(study, data, checkpoint),
            seeds=_read_seeds(seeds) if seeds else study.seeds,
            overrides=overrides,
            scale=_choose_scale(study, scale),
            display=display,
            checkpoint=checkpoint,
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to --output {folder}: {error.strerror}") from None
        try:
            outcome = study.run(bench)
        except Interrupted as stop:
            display.message("Stopped, everything saved; the same command goes on from there.")
            if as_json:
                print_json({"output": str(folder), "finished": False})
            return exit_code(stop.stopped_by)
        record = write_record(study, bench, outcome)
    if as_json:
        print_json({"output": str(folder), "finished": True, **record})
    else:
        _print(study, outcome, folder)
    return 0


def _print(study: Study, outcome: Outcome, folder: Path) -> None:
    print_table(TABLE_HEAD, [table_cells(row) for row in outcome.rows], title=study.title, numeric=TABLE_HEAD[1:5])
    for note in outcome.notes:
        print_lines(note)
    for name in outcome.figures:
        print_lines(f"Figure: {folder / name}")
    print_lines(f"Record: {folder / 'record'}")


def _check_overrides(study: Study, overrides: Sequence[str]) -> None:
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key == "seed":
            raise UserError("the seeds of a study are given with --seeds, as in --seeds 0,1,2")
        if is_one_of(key, study.sets) or any(is_one_of(own, [key]) for own in study.sets):
            raise UserError(f"{study.name} sets {key} itself, and its numbers say so; leave {text} out")


def _choose_data(study: Study, data: str | None, checkpoint: Path | None) -> str:
    if checkpoint is not None:
        # What it was trained on, as `alexnet evaluate` does; a checkpoint that cannot be read is told here.
        return data or load_checkpoint(checkpoint).data
    chosen = data or study.default_data
    if chosen is None:
        instead = "--checkpoint (a trained network) or " if study.takes_checkpoint else ""
        raise UserError(f"{study.name} needs {instead}--data: {study.data}")
    return chosen


def _check_checkpoint(study: Study, *, has_recipe_values: bool) -> None:
    if not study.takes_checkpoint:
        fitting = ", ".join(other.name for other in STUDIES.values() if other.takes_checkpoint)
        raise UserError(f"{study.name} trains its own networks; --checkpoint is for {fitting}")
    if has_recipe_values:
        raise UserError("with --checkpoint nothing is trained; leave out --seeds, --scale and section.key=value")


def _choose_scale(study: Study, scale: str) -> Scale:
    if scale == "full":
        return "full"
    if scale != "small":
        raise UserError(f"--scale is full or small, not {scale!r}")
    if study.small is None:
        raise UserError(f"{study.name} has no small scale; leave --scale out")
    return "small"


def _read_seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise UserError(f"--seeds are numbers from 0 on with commas between, as in 0,1,2; not {text!r}")
    return seeds
