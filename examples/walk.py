# %% [markdown]
# # A walk through AlexNet
# One hour for a class, a few minutes for a laptop: the network of Krizhevsky, Sutskever and Hinton (2012) from its
# shapes to its guesses. Every picture is drawn by the package, so nothing has to be downloaded. The numbers in brackets
# are sections of the paper.
#
# This file is a script with cells: run it as it is (`python examples/walk.py`), or cell by cell in an editor that knows
# `# %%`. [walk.ipynb](walk.ipynb) is the same after it was run; `make walk` writes it again.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import alexnet
from alexnet.data.shapes import CLASSES, draw_shape
from alexnet.evaluation.views import cut_views, view_crops
from alexnet.models import get_architecture, layer_table
from alexnet.ops.response_norm import response_norm
from alexnet.reporting.figures import kernel_mosaic
from alexnet.reporting.metrics_log import read_events
from alexnet.training.checkpoint import build_model, load_checkpoint

# ALEXNET_WALK=quick is for tests: the same walk with a training of a few steps.
QUICK = os.environ.get("ALEXNET_WALK") == "quick"

# %% [markdown]
# ## Shapes
# Five convolutions, three fully connected layers [3.5]. Beside each layer: what the paper's Figure 2 prints. One number
# there is wrong. Which?

# %%
PRINTED = {
    "conv1": 253_440, "conv2": 186_624, "conv3": 64_896, "conv4": 64_896, "conv5": 43_264,
    "fc6": 4096, "fc7": 4096, "fc8": 1000,
}  # fmt: skip
network = get_architecture("as_run")
print(f"{'layer':8}{'output':>16}{'neurons':>10}{'printed':>10}{'parameters':>13}")
for row in layer_table(network):
    neurons = int(np.prod(row.output_shape))
    printed = f"{PRINTED[row.name]:,}" if row.name in PRINTED else ""
    output = " x ".join(map(str, row.output_shape))
    parameters = f"{row.parameters:,}" if row.parameters else ""
    print(f"{row.name:8}{output:>16}{neurons:>10,}{printed:>10}{parameters:>13}".rstrip())
rows = [row for row in layer_table(network) if row.parameters]
print(f"\nparameters: {sum(row.parameters for row in rows):,} (the paper: 60 million)")
print(f"neurons: {sum(int(np.prod(row.output_shape)) for row in rows):,} (the paper: 650,000)")

# %% [markdown]
# conv1 has 55 x 55 x 96 = 290,400 neurons. The printed number is 55 x 48 x 96; with the right one the sum is the
# 650,000 of the abstract.
#
# Nearly all parameters are in fc6 and fc7, nearly all work in the convolutions:

# %%
figure, axes = plt.subplots(figsize=(7, 2.2), layout="constrained")
names = [row.name for row in rows]
at = np.arange(len(rows))
axes.bar(at - 0.2, [row.parameters / 1e6 for row in rows], 0.4, label="parameters, millions")
axes.bar(at + 0.2, [row.macs / 1e7 for row in rows], 0.4, label="multiply-adds of an image, 10 millions")
axes.set_xticks(at, names)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## What goes in
# The shorter side becomes 256 pixels, the centre square is kept, the mean over the training set is subtracted from each
# pixel, and that is all [2]. Training sees random 224 x 224 crops and their reflections; testing sees ten of them, four
# corners, the centre, and their reflections [4.1].

# %%
square = draw_shape("val", 7, 256)
views = view_crops("ten_crop", 256, 224)
crops, _, _ = cut_views(torch.from_numpy(square)[None], views, 224)
figure, panels = plt.subplots(2, 5, figsize=(7, 2.9), layout="constrained")
for panel, crop, view in zip(panels.flat, crops, views, strict=True):
    panel.imshow(crop.numpy())
    panel.set_title(f"{view.top}, {view.left}{', mirrored' if view.flipped else ''}", fontsize=8)
    panel.axis("off")
plt.show()

# %% [markdown]
# ## Kernels before training
# 96 kernels of 11 x 11 x 3, in two banks of 48: one bank was on one GPU, one on the other [3.2]. They begin as noise,
# N(0, 0.01) [5].


# %%
def show_kernels(weights: torch.Tensor) -> None:
    """The two banks of 48 kernels beside each other; grey is zero."""
    _, panels = plt.subplots(1, 2, figsize=(7, 2.7), layout="constrained")
    for panel, bank, name in zip(panels, weights.detach().split(48), ("first tower", "second tower"), strict=True):
        panel.imshow(kernel_mosaic(bank.numpy(), columns=8))
        panel.set_title(name, fontsize=9)
        panel.axis("off")
    plt.show()


model = alexnet.create_model("as_run").eval()
show_kernels(model.conv1.weight)

# %% [markdown]
# ## ReLU, and why not tanh
# Pixels reach from 0 to 255. With the mean subtracted and weights of 0.01, most outputs of conv1 are beyond 3,
# where tanh is flat: no gradient comes back. ReLU lets it through wherever the output is positive [3.1].

# %%
pictures = np.stack([draw_shape("train", i, 256) for i in range(8 if QUICK else 32)])
mean = pictures.mean(axis=0)
images = torch.from_numpy((pictures - mean)[:, 16:240, 16:240]).float().permute(0, 3, 1, 2)
with torch.inference_mode():
    outputs = model.activations(images, ["conv1", "norm1"])
responses = outputs["conv1"].flatten().numpy()
flat = np.mean(1 - np.tanh(responses) ** 2 < 0.01)
print(f"conv1: root mean square {np.sqrt(np.mean(responses**2)):.1f}")
print(f"tanh passes less than 1 % of the gradient at {flat:.0%} of the outputs; ReLU passes all of it at "
      f"{np.mean(responses > 0):.0%}, none at the others")  # fmt: skip

figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
axes.hist(responses, bins=np.linspace(-40, 40, 161), density=True, color="#c9d6e6", label="outputs of conv1")
x = np.linspace(-40, 40, 801)
slopes = axes.twinx()
slopes.plot(x, 1 - np.tanh(x) ** 2, color="#c2571a", label="slope of tanh")
slopes.plot(x, (x > 0).astype(float), color="#1f5fa8", label="slope of ReLU")
figure.legend(loc="outside upper center", ncols=3, frameon=False)
plt.show()

# %% [markdown]
# ## Response normalisation
# Each output is divided by (2 + alpha * sum of squares over five neighbouring maps) ** 0.75 [3.3]. A unit alone grows
# less than linearly; beside strong neighbours it is held down. The text has alpha = 1e-4 on the sum; the program that
# ran divided it by 5.

# %%
x = torch.linspace(0, 400, 200)


def normalised(own: torch.Tensor, neighbours: float, alpha: float) -> torch.Tensor:
    """A unit's output between two neighbours on each side; alpha is on the sum of squares."""
    maps = torch.full((len(own), 5, 1, 1), neighbours)
    maps[:, 2, 0, 0] = own
    return response_norm(maps, 5, alpha, 0.75, 2.0, alpha_convention="sum")[:, 2, 0, 0]


figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.7), layout="constrained")
for neighbours in (0, 100, 300):
    left.plot(x.numpy(), normalised(x, neighbours, 2e-5).numpy(), label=f"neighbours at {neighbours}")
left.plot(x.numpy(), normalised(x, 0, 1e-4).numpy(), "k:", label="alone, alpha 1e-4")
left.set_xlabel("before")
left.set_ylabel("after")
left.legend(frameon=False, fontsize=8)

# One position of a real picture, its 48 maps of the first tower, as strong as in a trained network.
before = 10 * outputs["conv1"][0, :48, 27, 27].reshape(1, 48, 1, 1)
after = response_norm(before, 5, 1e-4, 0.75, 2.0, alpha_convention="mean")
right.bar(np.arange(48), before.flatten().numpy(), color="#c9d6e6", label="before, ten times as at the start")
right.bar(np.arange(48), after.flatten().numpy(), color="#1f5fa8", label="after")
right.set_xlabel("map")
right.legend(frameon=False, fontsize=8)
plt.show()
ratio = (outputs["norm1"] / outputs["conv1"]).nanmedian().item()
print(f"at the start all outputs are small, and the norm multiplies them by {ratio:.3f}; 2 ** -0.75 = {2**-0.75:.3f}")

# %% [markdown]
# ## A short training
# The same layers on smaller pictures of the ten drawn shapes, so that a laptop does it in a minute or two. Nothing else
# is simplified: the update of [5], crops and reflections [4.1], dropout [4.2].

# %%
folder = tempfile.TemporaryDirectory(prefix="alexnet-walk-")
size = ["data.image_size=80", "model.image_size=67"]
length = ["train.epochs=2", "data.max_train_images=64"] if QUICK else ["train.epochs=16"]
run = alexnet.train(
    "folder",
    data="shapes:80",
    output=Path(folder.name) / "walk",
    overrides=[
        *size,
        *length,
        "train.min_steps=1",
        "train.label_smoothing=0.0",
        "optimizer.lr=0.01",
        "logging.log_every_steps=4",
    ],
    progress="silent",
)
events = read_events(run.output / "metrics.jsonl")
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.5), layout="constrained")
for kind, label in (("step", "training"), ("evaluation", "validation")):
    chosen = [event for event in events if event["event"] == kind]
    epochs = [event["epoch"] for event in chosen]
    left.plot(epochs, [event["loss"] for event in chosen], label=label)
    right.plot(epochs, [100 * event["top1_error"] for event in chosen], label=label)
left.axhline(np.log(10), color="#9a9a9a", linestyle=":", label="guessing, ln 10")
left.set_ylabel("loss, nats")
right.set_ylabel("top-1 error, %")
for axes in (left, right):
    axes.set_xlabel("epoch")
left.legend(frameon=False, fontsize=8)
plt.show()
print(f"{run.values['top1_error']:.1%} of {run.values['num_images']} pictures wrong, after {run.values['step']} steps")

# %% [markdown]
# A thousand pictures and a minute are not 1.2 million and six days, yet the kernels have begun to leave noise. Which
# have taken on a colour, which a light and a dark side? In the paper's Figure 3 one bank has the colours and the other
# has none [6.1]. Is it so here?

# %%
checkpoint = load_checkpoint(run.checkpoint)
trained = build_model(checkpoint).eval()
show_kernels(trained.conv1.weight)

# %% [markdown]
# ## Ten views of one picture
# Each view has an opinion of its own; the answer is the mean of the ten softmax outputs [4.1].

# %%
preprocessing = checkpoint.preprocessing
index = 12
square = torch.from_numpy(draw_shape("val", index, preprocessing.image_size))[None]
views = view_crops("ten_crop", preprocessing.image_size, preprocessing.crop_size)
crops, offsets, flips = cut_views(square, views, preprocessing.crop_size)
with torch.inference_mode():
    probabilities = trained(preprocessing.normalize(crops, offsets, flips)).softmax(dim=1)
figure, panels = plt.subplots(2, 5, figsize=(7, 3.1), layout="constrained")
for panel, crop, row in zip(panels.flat, crops, probabilities, strict=True):
    panel.imshow(crop.numpy())
    panel.set_title(f"{CLASSES[row.argmax()].replace('_', ' ')}, {row.max():.0%}", fontsize=7)
    panel.axis("off")
plt.show()
together = probabilities.mean(dim=0)
print(f"truth: {CLASSES[index % 10]}; all together: {CLASSES[together.argmax()]}, {together.max():.0%}")

# %%
reports = {name: alexnet.evaluate(run.checkpoint, views=name) for name in ("center", "ten_crop")}
for name, report in reports.items():
    low, high = report.top1_interval
    print(f"{name:9} {report.top1_error:.1%} of {report.num_images} wrong (95 % interval {low:.1%} to {high:.1%})")

# %% [markdown]
# ## Guesses
# As in the paper's Figure 4: eight test pictures with the five best guesses; the true class is dark.

# %%
report = reports["ten_crop"]
figure, panels = plt.subplots(2, 8, figsize=(9, 3.1), layout="constrained", height_ratios=[1, 1.1])
for column, index in enumerate(range(30, 38)):
    picture, bars = panels[:, column]
    picture.imshow(draw_shape("val", index, 80))
    picture.set_title(CLASSES[index % 10].replace("_", " "), fontsize=7)
    picture.axis("off")
    best = np.argsort(-report.probabilities[index])[:5]
    colors = ["#1f5fa8" if guess == report.labels[index] else "#c9d6e6" for guess in best]
    bars.barh(range(5), report.probabilities[index][best], color=colors)
    for row, guess in enumerate(best):
        bars.text(0.02, row, CLASSES[guess].replace("_", " "), va="center", fontsize=6)
    bars.set_xlim(0, 1)
    bars.set_ylim(4.5, -0.5)
    bars.axis("off")
plt.show()
folder.cleanup()

# %% [markdown]
# ## From here
# - `alexnet info as_run paper`: in what the program that ran differs from the text.
# - `make demo`: all 56.9 million parameters (ten classes) at 224 pixels on handwritten digits, with a report.
# - [docs/reproduction.md](../docs/reproduction.md): the paper sentence by sentence;
#   [docs/ledger.md](../docs/ledger.md): its numbers beside ours.
# - `alexnet train folder --data photos`: your own pictures.
