"""AlexNet as the Hub's own library knows models: `from_pretrained`, `save_pretrained`, `push_to_hub`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from alexnet.errors import UserError
from alexnet.evaluation.array_inputs import Layout, ValueRange
from alexnet.evaluation.inputs import ImageInput
from alexnet.evaluation.predictor import Prediction, Predictor, predict
from alexnet.hub.remote import NEEDS_HUB, PREFIX, fetch_checkpoint, fetch_weights, hub_errors
from alexnet.hub.repository import WEIGHTS, read_weights, sha256_of, shareable, write_weights
from alexnet.models import AlexNet
from alexnet.runtime.device import choose_precision
from alexnet.runtime.files import read_json
from alexnet.training.checkpoint import Checkpoint, load_checkpoint

try:
    from huggingface_hub import ModelCard, ModelHubMixin

    from alexnet.hub.card import TAGS, make_card
except ImportError:
    raise UserError(NEEDS_HUB) from None


class HubAlexNet(AlexNet, ModelHubMixin, library_name="alexnet", pipeline_tag="image-classification", tags=list(TAGS)):
    """The network of a checkpoint together with all that is needed to use it and to hand it on.

    A plain nn.Module in evaluation mode: its inputs are float images (N, 3, H, W) as
    `checkpoint.preprocessing.normalize` makes them, its outputs logits (N, num_classes). `predict` takes files.
    `HubAlexNet.from_pretrained(name or folder)`, `save_pretrained(folder)` and `push_to_hub(name)` are those of
    huggingface_hub; weights are safetensors.
    """

    # The files say all of it; the mixin need not look for a configuration in the arguments.
    _hub_mixin_config: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, checkpoint: Checkpoint, summary: dict[str, Any] | None = None) -> None:
        """summary: the summary.json of the run that a checkpoint is of, for the results on the card."""
        try:
            with torch.device("meta"):
                super().__init__(checkpoint.architecture, checkpoint.num_classes, checkpoint.image_size)
            self.load_state_dict(checkpoint.model_state, assign=True)
        except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:  # a record from a file can be anything
            raise UserError(f"The weights do not fit their architecture: {error}") from None
        self.requires_grad_(True).eval()
        self._checkpoint = replace(checkpoint, model_state={}, training_state=None)
        self._summary = summary
        self._sums = _sums(checkpoint.model_state)
        self._saved: str | None = None

    @classmethod
    def from_checkpoint(cls, path: str | Path | Checkpoint) -> HubAlexNet:
        """The network of a checkpoint file, a loaded checkpoint or a run's folder. Raises UserError.

        A run's folder means the weights that its final evaluation is of (`checkpoint_file`).
        """
        if isinstance(path, Checkpoint):
            return cls(path)
        file = Path(path) / "summary.json"
        return cls(load_checkpoint(path), read_json(file) if file.is_file() else None)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> HubAlexNet:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The network of a repository of the Hub, or of a folder with such files (then nothing is fetched).

        options: as of `huggingface_hub.ModelHubMixin.from_pretrained` (revision, token, cache_dir, ...). Raises
        UserError for what the caller can mend.
        """
        if Path(name).is_dir():
            return cls(read_weights(Path(name) / WEIGHTS))
        if str(name).startswith(PREFIX):  # as the commands take it
            return cls(read_weights(fetch_checkpoint(str(name))))
        with hub_errors(str(name)):
            return super().from_pretrained(str(name), **options)

    @property
    def checkpoint(self) -> Checkpoint:
        """Architecture, classes, preprocessing and recipe with the present weights; results while they are the same.

        Raises UserError where layers were replaced or changed: a checkpoint has the record of the original ones.
        """
        changed = self.changed_layers()
        if changed:
            raise UserError(
                f"this network's {', '.join(changed)} differ from its architecture record, which is what a checkpoint "
                "stores; save the module with torch.save or torch.export, or build a record with the change"
            )
        state = self.state_dict()
        metrics = self._checkpoint.metrics if _sums(state) == self._sums else {}
        return replace(self._checkpoint, model_state=state, metrics=metrics)

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        top: int = 5,
        views: str = "center",
        layout: Layout | None = None,
        value_range: ValueRange | None = None,
    ) -> list[Prediction]:
        """The `top` most probable classes of every image, as `alexnet.predict` takes and gives them."""
        known = self._checkpoint
        device = next(self.parameters()).device
        dtype = choose_precision(str((known.recipe.get("runtime") or {}).get("precision", "auto")), device)
        predictor = Predictor([self], [known.preprocessing], known.classes, known.class_names, device, dtype)
        return predict(predictor, images, top=top, views=views, layout=layout, value_range=value_range)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Upload to a repository of the Hub, which is made where it is not there; returns the commit's address.

        options: as of `huggingface_hub.ModelHubMixin.push_to_hub` (private, token, branch, commit_message, ...);
        model_card_kwargs may have `license`.
        """
        card = {"repo_id": repo_id, **(options.pop("model_card_kwargs", None) or {})}
        options.setdefault("commit_message", "Weights and card by alexnet")
        return super().push_to_hub(repo_id, model_card_kwargs=card, **options)

    def generate_model_card(self, *, repo_id: str | None = None, license: str | None = None) -> ModelCard:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The card; its checksum is that of the file that was saved last. Raises UserError where none was."""
        if self._saved is None:
            raise UserError("the card has the checksum of the weights' file; save_pretrained writes both")
        present = shareable(self.checkpoint)
        summary = self._summary if present.metrics else None  # which is of the weights as they were
        return make_card(present, sha256=self._saved, repo_id=repo_id, license=license, summary=summary)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_weights(self.checkpoint, save_directory)
        self._saved = sha256_of(save_directory / WEIGHTS)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> HubAlexNet:  # pyright: ignore[reportIncompatibleMethodOverride]
        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        return cls(read_weights(fetch_weights(model_id, **{key: options.get(key) for key in known})))


def _sums(state: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """What tells whether weights have been changed."""
    return {name: tensor.cpu().sum(dtype=torch.float64).item() for name, tensor in state.items()}


def from_pretrained(name: str | Path, **options: Any) -> HubAlexNet:
    """The network of a repository of the Hub, or of a folder with its files; see `HubAlexNet.from_pretrained`."""
    return HubAlexNet.from_pretrained(name, **options)


def push_to_hub(
    checkpoint: str | Path | Checkpoint, repo_id: str, *, license: str | None = None, **options: Any
) -> str:
    """Upload a checkpoint, or a run's, with a card that holds its results; returns the commit's address.

    license: of the weights, an identifier of the Hub's list. options: as of `HubAlexNet.push_to_hub`.
    """
    model = HubAlexNet.from_checkpoint(checkpoint)
    with hub_errors(repo_id, writing=True):
        return model.push_to_hub(repo_id, model_card_kwargs={"license": license}, **options)
