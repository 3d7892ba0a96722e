"""`alexnet export --format web`: the page of `alexnet serve`, with the networks in it instead of a server behind it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet import _version
from alexnet.evaluation.predictor import load_predictor
from alexnet.exporting.formats import FORMATS, ExportReport, ExportSettings
from alexnet.exporting.network import ImageClassifier
from alexnet.exporting.onnx_file import check_installed, open_session, trace_onnx
from alexnet.exporting.program import Program, write_program
from alexnet.exporting.verification import Runner
from alexnet.exporting.web.folder import MARK, check_replaceable, new_folder
from alexnet.exporting.web.insights import BEST_GUESS, Insights
from alexnet.exporting.web.runtime import find_runtime
from alexnet.exporting.web.trial import Differences, try_insights
from alexnet.reporting.progress import Progress
from alexnet.runtime.files import write_text
from alexnet.serve import answers, cards
from alexnet.serve.encoding import png_of
from alexnet.serve.examples import Example, examples_of_run
from alexnet.serve.networks import Network, titles_of
from alexnet.serve.policy import content_security_policy
from alexnet.serve.settings import Settings
from alexnet.training.checkpoint import Checkpoint, load_checkpoint
from alexnet.training.checkpoint_files import checkpoint_file, run_folder

MAX_FILE_BYTES = 100_000_000
"""Of an image: nothing is sent anywhere, but the browser holds it in memory."""
FORMATS_OF_BROWSERS = ["JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF"]
_POLICY = content_security_policy(script_src="'self' 'wasm-unsafe-eval'", worker_src="'self'")
_CHARSET = '<meta charset="utf-8">'
_FOOTER = "<footer>\n  <p>The network runs in your browser: no image leaves it.</p>\n</footer>"


def write_web(checkpoint: Checkpoint, output: Path, settings: ExportSettings, display: Progress) -> ExportReport:
    """Write the folder; see `formats.Writer`.

    Raises UserError where something is missing that is needed, and for a folder that holds other files.
    """
    check_installed("web")
    check_replaceable(output)
    runtime = find_runtime(settings.runtime, display.message)
    networks = _networks(checkpoint, settings)
    with new_folder(output) as folder:
        written = []
        for network in networks:
            # A second network may know other classes than the data set has.
            own = settings if network.id == "a" else replace(settings, data=None)
            written.append(_write_network(network, folder, own, display))
        _write_page(folder, runtime)
        _write_description(folder, networks, examples_of_run(run_folder(networks[0].file)))
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    first, trials = written[0][0], [trial for _, trial in written]
    return replace(
        first,
        output=output,
        num_bytes=sum(sizes.values()),
        notes=[*_sizes(sizes), *first.notes, *_agreement(trials)],
        next_steps=_next_steps(output),
        details={**first.details, "files": sizes, "insights": [trial._asdict() for trial in trials]},
    )


def _networks(checkpoint: Checkpoint, settings: ExportSettings) -> list[Network]:
    """The networks as the page knows them, a and perhaps b."""
    sources: list[tuple[Path | None, Checkpoint]] = [(settings.source, checkpoint)]
    if settings.compare is not None:
        sources.append((settings.compare, load_checkpoint(settings.compare)))
    files = [Path(each.architecture.name) if path is None else checkpoint_file(path) for path, each in sources]
    return [
        Network(identifier, title, file, each, load_predictor(each, device="cpu", precision="float32"))
        for identifier, title, file, (_, each) in zip("ab", titles_of(files), files, sources, strict=False)
    ]


def _write_network(
    network: Network, folder: Path, settings: ExportSettings, display: Progress
) -> tuple[ExportReport, Differences]:
    """Its ONNX file, run and compared in all that it gives, and its kernels."""
    checkpoint = network.checkpoint

    def trace(classifier: ImageClassifier, description: Mapping[str, Any]) -> Program:
        insights = Insights(classifier.model, checkpoint.preprocessing)
        examples = {"images": insights.example(), "class_index": torch.full((2,), BEST_GUESS, dtype=torch.int32)}
        return trace_onnx(insights, description, examples, _open)

    path = folder / _network_file(network)
    report = write_program(FORMATS["web"], trace, checkpoint, path, settings, display)
    differences = try_insights(open_session(path), checkpoint, settings.weights, settings.tolerance)
    kernels = cards.kernels(network).model_dump(exclude={"network"})
    write_text(folder / f"kernels-{network.id}.json", json.dumps(kernels))
    return report, differences


def _open(path: Path) -> Runner:
    session = open_session(path)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        feeds = {"images": images, "class_index": np.full(len(images), BEST_GUESS, np.int32)}
        return {"probabilities": np.asarray(session.run(["probabilities"], feeds)[0])}

    return run


def _network_file(network: Network) -> str:
    return f"network-{network.id}.onnx"


def _write_page(folder: Path, runtime: Mapping[str, bytes]) -> None:
    """The server's page with another network.js, and what runs the network."""
    for page in (resources("alexnet.serve") / "page", resources("alexnet.exporting.web") / "page"):
        for file in page.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    index = folder / "index.html"
    index.write_text(for_static_host(index.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "onnxruntime").mkdir()
    for name, contents in runtime.items():
        (folder / "onnxruntime" / name).write_bytes(contents)


def for_static_host(page: str) -> str:
    """index.html with the policy inside, since a static host sends no header for it, and without the server's API."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    page, charsets = re.subn(re.escape(_CHARSET), f"{_CHARSET}\n{policy}", page)
    page, footers = re.subn(r"<footer>.*?</footer>", _FOOTER, page, flags=re.DOTALL)
    assert (charsets, footers) == (1, 1), "the page has changed"
    return page


def _write_description(folder: Path, networks: Sequence[Network], examples: Sequence[Example]) -> None:
    """What `describe` of network.js gives, the examples' pictures, and where each network is."""
    for index, example in enumerate(examples):
        (folder / "examples").mkdir(exist_ok=True)
        (folder / "examples" / f"{index}.png").write_bytes(png_of(example.pixels))
    limits = answers.Limits(
        max_upload_bytes=MAX_FILE_BYTES, max_pixels=Settings().max_pixels, formats=FORMATS_OF_BROWSERS
    )
    description = answers.Description(
        version=_version.__version__,
        networks=[cards.network_card(network) for network in networks],
        limits=limits,
        data=None,
        examples=[
            answers.ExampleCard(
                index=index,
                class_id=example.class_id,
                class_name=example.class_name,
                picture=f"examples/{index}.png",
            )
            for index, example in enumerate(examples)
        ],
    )
    paths = {network.id: folder / _network_file(network) for network in networks}
    # With its checksum in the address, a network is never an older one of the same name from a cache.
    files = {
        name: {"file": f"{path.name}?{_digest(path)}", "bytes": path.stat().st_size} for name, path in paths.items()
    }
    write_text(folder / MARK, json.dumps({**description.model_dump(), "files": files}))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sizes(sizes: Mapping[str, int]) -> list[str]:
    large = {name: size for name, size in sizes.items() if size >= 1_000_000}
    rest = sum(sizes.values()) - sum(large.values())
    return [f"  {name}: {size / 1e6:.1f} MB" for name, size in large.items()] + [f"  the rest: {rest / 1e6:.1f} MB"]


def _agreement(trials: Sequence[Differences]) -> list[str]:
    return [
        f"network-{identifier}.onnx: the layers are the network's to {trial.layers:.1e} of their largest value, "
        f"Grad-CAM to {trial.heat:.1e}."
        for identifier, trial in zip("ab", trials, strict=False)
    ]


def _next_steps(output: Path) -> list[str]:
    return [
        f"To look at it: python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(output))} 8000",
        "and then http://127.0.0.1:8000/ in a browser. Any static host will do: upload the folder as it is.",
    ]
