"""Recipes: what a run is, as data.

A recipe is a TOML file that states every value in which it differs from the defaults below; `config_io` reads and
writes them. This module does not import torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MODEL_NAMES = (
    "as_run", "paper", "one_tower", "caffe", "caffenet", "torchvision", "conv6", "half", "no_communication", "bn",
    "cifar_quick", "cifar_19pct", "cifar_18pct", "cifar_13pct", "cifar_11pct",
)  # fmt: skip
INITIALIZATIONS = ("as_run", "paper", "caffe", "torch_default")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveInt = Annotated[int, Field(ge=1)]
# A TOML array arrives as a list, which strict validation would refuse where a tuple is meant.
Epochs = Annotated[tuple[NonNegative, ...], Field(strict=False)]
Factors = Annotated[tuple[NonNegative, ...], Field(strict=False)]
LayerNames = Annotated[tuple[str, ...], Field(strict=False)]


class Section(BaseModel):
    """A recipe section: frozen, and an unknown key is an error at every level."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelConfig(Section):
    name: Literal[MODEL_NAMES] = "as_run"  # type: ignore[valid-type]
    """The variant (see `alexnet info NAME`)."""
    num_classes: PositiveInt | None = None
    """Outputs of the last layer; None takes the number of classes of the data."""
    image_size: PositiveInt | None = None
    """Side of the network's input in pixels; None takes the variant's own (224; 227 for caffe; 32 or 24 for CIFAR)."""
    initialization: Literal[INITIALIZATIONS] | None = None  # type: ignore[valid-type]
    """None takes the variant's own."""
    dropout: Fraction | None = None
    """Probability of dropping a unit; None takes the variant's own (0.5)."""
    input_scale: Literal["pixels", "unit"] | None = None
    """pixels: 0-255 minus the mean; unit: 0-1, then minus the mean and divided by the deviation of each channel. None
    takes the variant's own; the nets of 2012 hardly learn from the other one."""
    activation: Literal["relu", "tanh", "silu"] | None = None
    """Instead of every ReLU (paper 3.1); None takes the variant's own."""
    pooling: Literal["overlapping", "non_overlapping"] = "overlapping"
    """overlapping: the variant's own pools, 3 x 3 with stride 2; non_overlapping: 2 x 2 with stride 2 (paper 3.4),
    where that keeps the size of the last maps (224 and 128 px do)."""
    without: LayerNames = ()
    """Layers that are left out; a convolution goes together with its activation (paper 3.3 and 7)."""
    init: str | None = None
    """A checkpoint to begin with instead of random weights: a file, or a run's folder. Layers of the data's own
    classes begin at random all the same. None: all do."""
    init_sha256: str | None = None
    """SHA-256 of that file. A run fills it in; where it is given, a file with other contents is refused."""
    init_without: LayerNames = ()
    """Layers that begin at random although model.init has them."""


class DataConfig(Section):
    image_size: PositiveInt = 256
    """Side of the stored squares: the shorter side is resized to this, then the centre square is kept (paper 2)."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the images of each class held out where the data set has no validation split of its own."""
    split_seed: int = 0
    """Chooses which images are held out; not the run's seed, so that seeds are compared on one split."""
    shuffle: Literal["each_epoch", "once", "never"] = "each_epoch"
    """The 2012 code went through its batch files in one fixed order ("once" or "never")."""
    shuffle_window: PositiveInt | None = None
    """For sets that do not fit on the disk: take the shards in random order, and shuffle the images of so many shards
    among themselves. None shuffles all images. No effect on data without shards."""
    cache_gb: NonNegative | None = None
    """Most that the shards of a data set on the network may take on this machine's disk; None: half of what is free
    there. Has no effect on the result."""
    max_train_images: PositiveInt | None = None
    """Use only so many training images, drawn by split_seed; None uses all."""
    first_images: PositiveInt | None = None
    """Begin with only so many training images, the first in the data set's own order; until first_images_until_epoch.
    (The 2012 author trained on four of CIFAR-10's five files while the fifth told him when to stop, then on all.)"""
    first_images_until_epoch: NonNegative = 0.0
    """Epochs are passes over all training images here as everywhere."""
    max_unreadable: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The run fails when a larger share of a split's images cannot be decoded."""
    memory_limit_gb: NonNegative | None = None
    """Decoded images are held in memory up to this size; None: half of what is free. 0 decodes every time."""


class AugmentConfig(Section):
    crop: Literal["random", "center", "random_resized"] = "random"
    """random: one of all offsets of the square (paper 4.1); random_resized: 8-100 % of the area, aspect 3/4 to 4/3."""
    crop_shared_by: PositiveInt = 1
    """So many consecutive images of a batch share one crop offset and one flip (32 in the 2012 code)."""
    flip: bool = True
    """Horizontal reflection with probability 1/2."""
    color_noise: NonNegative = 0.1
    """Noise along the principal components of RGB: this many of their standard deviations (paper 4.1); 0 is off."""
    color_noise_divisor: Positive = 1.0
    """The image is divided by this while colour noise is on (1.1 in the 2012 code)."""
    color_noise_until_epoch: NonNegative | None = None
    """Colour noise (and its divisor) end at this epoch; None keeps them to the end."""
    mean: Literal["center_crop", "at_crop", "channel"] = "at_crop"
    """Subtract the mean image's centre crop whatever the crop (2012 code), its same crop (paper), or 3 numbers."""


class LayerOptimizerConfig(Section):
    lr_factor: NonNegative = 1.0
    """Multiplies the layer's learning rates (and copied_lr_factor, where that applies); 0 freezes the layer: it costs
    no gradient, and a batch norm keeps its statistics."""
    weight_decay: NonNegative | None = None
    """L2 coefficient of the layer's weights; None takes optimizer.weight_decay."""


class OptimizerConfig(Section):
    rule: Literal["krizhevsky_2012", "sgd", "lars"] = "krizhevsky_2012"
    """krizhevsky_2012 folds lr into the velocity (paper 5); sgd is torch's form. They differ when lr changes. lars:
    krizhevsky_2012 with each parameter's rate in proportion to |weight| / (|gradient| + weight_decay * |weight|), for
    batches of thousands."""
    lars_eta: Positive = 0.001
    """lars: the proportion."""
    lr: Positive = 0.01
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 5e-4
    decay_biases: bool = False
    bias_lr_factor: NonNegative = 2.0
    """The biases' learning rate over the weights' (2 in the 2012 code, 1 in the paper's text)."""
    copied_lr_factor: NonNegative = 0.1
    """Multiplies the learning rates of the layers that are copied from model.init; 0 trains the new ones alone."""
    layers: dict[str, LayerOptimizerConfig] = {}
    """Per-layer exceptions, by layer name: optimizer.layers.fc8.weight_decay=0.03."""


class LayerScheduleConfig(Section):
    """A learning rate over time, as a factor of its base rate."""

    name: Literal["constant", "steps", "plateau", "dexp", "cosine", "poly"] = "constant"
    milestones: Epochs = ()
    """steps: epochs at which the factor changes."""
    factors: Factors = ()
    """steps: the factor from each milestone on (1 before the first); 0 freezes."""
    target_factor: Positive = 250.0
    """dexp: the last level is 1/target_factor of the first."""
    num_levels: PositiveInt = 4
    """dexp: number of equal levels (S: numSteps)."""
    drop_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """plateau: multiply by this when the validation error stops improving."""
    patience_epochs: PositiveInt = 3
    """plateau: how many evaluations without improvement are waited for."""
    min_improvement: NonNegative = 0.001
    """plateau: a smaller fall of the error (as a fraction) counts as none."""
    max_drops: PositiveInt = 3
    """plateau: number of drops (three in the paper)."""
    final_factor: NonNegative = 0.0
    """cosine: the factor at the end."""
    power: Positive = 2.0
    """poly: the factor is the share of the run that is left, to this power."""
    freeze_epoch: NonNegative | None = None
    """Any: the factor is 0 from this epoch on."""

    @model_validator(mode="after")
    def _steps_are_complete(self) -> LayerScheduleConfig:
        if len(self.milestones) != len(self.factors):
            raise ValueError("milestones and factors must have the same length")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError("milestones must be in ascending order")
        if self.name != "steps" and self.milestones:
            raise ValueError('milestones belong to name = "steps"')
        if self.name == "steps" and not self.milestones:
            raise ValueError('name = "steps" needs milestones and factors')
        return self


class BiasScheduleConfig(LayerScheduleConfig):
    layers: dict[str, LayerScheduleConfig] = {}
    """The schedule of one layer's biases, by the layer's name (schedule.bias.layers.conv1)."""


class ScheduleConfig(LayerScheduleConfig):
    warmup_epochs: NonNegative = 0.0
    """All rates rise linearly over so many epochs."""
    warmup_start_factor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor that they rise from."""
    bias: BiasScheduleConfig | None = None
    """The biases' own schedule; None follows the weights'."""
    layers: dict[str, LayerScheduleConfig] = {}
    """A layer's own schedule, by its name (schedule.layers.conv1). Its biases keep schedule.bias where there is one,
    but a factor of 0 freezes weights and biases alike, as in the 2012 code, which then skips the update."""


class TrainConfig(Section):
    epochs: Positive = 90.0
    min_steps: PositiveInt | None = None
    """Train at least so many steps, however few images there are. Evaluations, dexp, cosine and poly are stretched
    with the run; what is given in epochs (milestones, warm-up, freezing, the end of colour noise) is not."""
    batch_size: PositiveInt = 128
    """Images per weight update, over all devices."""
    micro_batch_size: PositiveInt | Literal["auto"] | None = None
    """Images per forward pass of a process; fewer than it has of a batch accumulate gradients, which changes nothing
    but rounding (batch norm normalizes each part by itself). None: all at once; "auto": as many as fit the memory that
    is free when the run begins."""
    label_smoothing: Fraction = 0.0
    ema_decay: Fraction | None = None
    """Keep an exponential moving average of the weights, and evaluate that."""
    early_stop_evaluations: PositiveInt | None = None
    """Stop after so many evaluations without a new best; None never does."""
    stop_at_train_error: Fraction | None = None
    """Stop at an evaluation when the training batches since the one before had at most this top-1 error (a fraction);
    None never does."""
    evaluate_every_epochs: Positive = 1.0
    checkpoint_minutes: NonNegative = 10.0
    """Save at least this often (and at the end and when stopped); has no effect on the result."""
    keep_checkpoints: PositiveInt = 2
    """So many checkpoints to go on from are kept: checkpoints/last.pt, last-1.pt, ... If one turns out damaged, the run
    goes on from the one before; has no effect on the result."""
    on_stuck: Literal["warn", "stop"] = "warn"
    """What to do when the loss stays where guessing would put it: say so with the likely cause, or stop as well."""


class EvaluateConfig(Section):
    views: Literal["center", "flip", "ten_crop"] = "ten_crop"
    """Views of the final evaluation; while training, the centre crop is used."""
    checkpoint: Literal["best", "last"] = "last"
    """Which weights the final evaluation is of: the best by validation error, or the last, as in the paper."""
    batch_size: PositiveInt = 128
    """Views per forward pass."""


class RuntimeConfig(Section):
    device: str = "auto"
    """auto: cuda, then mps, then cpu; or any torch device."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of activations; weights and their updates are float32. auto: bfloat16 where the machine is fast at it."""
    conv1: Literal["auto", "direct", "space_to_depth"] = "auto"
    """How the first convolution is computed; both give the same sums. auto: space_to_depth on CUDA."""
    kernels: Literal["auto", "plain"] = "auto"
    """auto: the package's own kernels where they could be built; plain: torch's operations only."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Threads that read ahead; 0 reads in the training thread, None chooses. Has no effect on the result."""
    num_threads: PositiveInt | None = None
    """Threads of torch's own kernels; None leaves torch's choice."""
    deterministic: bool = False
    """Only deterministic kernels (matters on GPUs; on a CPU they all are)."""


class ParallelConfig(Section):
    """How several processes train together; how many there are is torchrun's or --devices' to say.

    The result is the same to rounding in every way. Without a word here each process has the whole network and a part
    of the images.
    """

    towers: Literal[1, 2] = 1
    """2: each of two processes has one of the paper's towers, and all images (paper 3.2)."""
    classifier: Literal["replicate", "shard"] = "replicate"
    """shard: each process has a part of the fully-connected layers, for the images of all; convolutions are whole."""
    weights: Literal["replicate", "shard"] = "replicate"
    """shard: each process keeps a part of all weights, gradients and velocities; a layer is put together for its turn
    (FSDP2)."""
    timeout_minutes: Positive = 30.0
    """A process that waits longer than this for another gives up, and with it the run. Has no effect on the result."""


class LoggingConfig(Section):
    log_every_steps: PositiveInt = 10
    tensorboard: bool = False
    wandb: bool = False
    wandb_project: str = "alexnet"


class Recipe(Section):
    """Everything that determines a run, except the data."""

    seed: Annotated[int, Field(ge=0)] = 0
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    parallel: ParallelConfig = ParallelConfig()
    logging: LoggingConfig = LoggingConfig()
