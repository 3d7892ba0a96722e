"""Every finding the doctor can make: its usual severity, its cause, its remedy. docs/doctor.md is made from this."""

from __future__ import annotations

from alexnet.doctor.catalogue_of_data import DATA, IMAGES
from alexnet.doctor.entry import NOTE as _N
from alexnet.doctor.entry import PROBLEM as _P
from alexnet.doctor.entry import WARNING as _W
from alexnet.doctor.entry import Entry

RECIPE = {
    "recipe-refused": Entry(_P, "The recipe cannot be read or built; the message says why.", "Do what it says."),
    "unknown-layer": Entry(_P, "A rate or schedule for a layer the network lacks.", "Name one of its layers."),
    "lr-too-high": Entry(
        _W,
        "The learning rate is far above the reference for this batch (0.01 at 128 images, in proportion to the "
        "batch; 0.001 for the CIFAR nets).",
        "Lower optimizer.lr, or warm up (schedule.warmup_epochs).",
    ),
    "lr-too-low": Entry(
        _W, "The learning rate is far below the reference for this batch (as lr-too-high).", "Raise optimizer.lr."
    ),
    "large-batch": Entry(
        _W,
        "A batch of 1,024 or more without a warm-up; AlexNet loses accuracy there.",
        "Use 128 to 512, or schedule.warmup_epochs=5 with the rate in proportion.",
    ),
    "batch-too-large": Entry(
        _P,
        "A batch needs more memory than there is.",
        "Set train.micro_batch_size: the gradient is summed over parts. Without batch norm the result is the same to "
        "rounding.",
    ),
    "image-smaller-than-crop": Entry(
        _P,
        "The stored squares are smaller than the network's input.",
        "Raise data.image_size, or set model.image_size.",
    ),
    "crop-much-smaller": Entry(
        _W,
        "The network sees less than half the side of each square: a detail, not the object.",
        "Lower data.image_size to about 8/7 of the network's input (32 for the CIFAR nets).",
    ),
    "no-room-for-crops": Entry(
        _N,
        "The squares are as large as the network's input, so random crops are all the same.",
        "Raise data.image_size to about 8/7 of the input, or write augment.crop=center.",
    ),
    "after-the-end": Entry(
        _W,
        "Something is set for an epoch at or after the last one, and never happens.",
        "Lower the epoch, or raise train.epochs.",
    ),
    "patience-too-long": Entry(
        _W,
        "The plateau rule waits for more evaluations than the run has: the rate never drops.",
        "Lower schedule.patience_epochs or train.evaluate_every_epochs, or raise train.epochs.",
    ),
    "stops-before-drop": Entry(
        _W,
        "The run stops early before the plateau rule can drop the rate.",
        "Let train.early_stop_evaluations be larger than schedule.patience_epochs.",
    ),
    "nothing-learns": Entry(_P, "Every layer is frozen from the start.", "Raise a factor, or lr_factor, above 0."),
    "frozen-at-random": Entry(
        _W,
        "Layers that are frozen from the start, and whose weights are random: they never become anything else.",
        "Begin with a trained network (--init), or let them learn.",
    ),
    "initial-weights": Entry(_N, "What the network begins with: the layers that are copied, new, frozen.", "Nothing."),
    "initial-image-size": Entry(
        _W,
        "The network to begin with was trained on images of another size: the same things are larger or smaller to "
        "it, and its features fit less well.",
        "Take its sizes (--init does, where data.image_size and model.image_size are left out), unless the things on "
        "the images are that much larger or smaller themselves.",
    ),
    "initial-dropout": Entry(
        _W,
        "Another rate of dropout than the network to begin with was trained with; with the paper's scaling it is a "
        "factor of what the next layer gets.",
        "Leave model.dropout out.",
    ),
    "color-noise-scale": Entry(
        _W,
        "augment.color_noise counts in principal deviations of 0-255 pixels; the paper's is 0.1. This one is out "
        "of scale: as if for 0-1 pixels, or as if it multiplied variances.",
        "Write augment.color_noise=0.1, or 0.0 to turn it off.",
    ),
    "divisor-ignored": Entry(
        _W,
        "augment.color_noise_divisor belongs to nets of pixel scale; a unit-normalised one ignores it.",
        "Leave it out.",
    ),
    "ema-too-long": Entry(
        _W,
        "The average of the weights reaches back over most of the run, to weights that had learnt nothing.",
        "Lower train.ema_decay, so that 1/(1 - decay) is a tenth of the steps or less.",
    ),
    "slow-bfloat16": Entry(
        _W,
        "The machine has no fast bfloat16; it is emulated, and several times slower than float32.",
        "Write runtime.precision=auto.",
    ),
    "device-missing": Entry(_P, "The recipe's device is not there.", "Write runtime.device=auto."),
    "literal-initialization": Entry(
        _N,
        "The text's 0.01 for every layer: the signal shrinks 27-fold up to conv5; expect a long flat start.",
        "model.initialization=as_run is what was run.",
    ),
    "micro-batch-norm": Entry(
        _W,
        "Batch norm with micro-batches: each part is normalised by itself.",
        "Leave train.micro_batch_size out, or choose a network without batch norm.",
    ),
    "num-classes-mismatch": Entry(
        _P, "model.num_classes is not the number of the data's classes.", "Leave model.num_classes out."
    ),
    "batch-larger-than-data": Entry(
        _W, "A batch holds every training image, some of them several times.", "Lower train.batch_size."
    ),
    "too-few-steps": Entry(
        _W,
        "The run has too few weight updates to learn from scratch.",
        "Raise train.epochs, or set train.min_steps=300.",
    ),
    "images-enlarged": Entry(
        _N,
        "Most images are much smaller than the squares they are enlarged to; the time goes into blur.",
        "A smaller network is faster and as good: model.name=cifar_quick data.image_size=32.",
    ),
    "prepared-size": Entry(
        _W,
        "The prepared squares have another side than data.image_size: each image is resized once more, every time.",
        "Set data.image_size to the prepared side, or prepare again with --size.",
    ),
}

SIGNAL = {
    "predicted-to-stall": Entry(
        _W,
        "At initialisation, on a few of the images, the signal is such that the loss is likely to stay at ln C; "
        "the finding names the reason.",
        "As the finding says.",
    ),
    "signals": Entry(_N, "Activation, spread and gradient scales layer by layer.", "Nothing; they look sound."),
    "loader-bound": Entry(
        _W,
        "The step waits for images.",
        "Prepare the data (alexnet prepare DATA DEST), raise runtime.num_workers, or put it on a faster disk.",
    ),
    "compute-bound": Entry(_N, "Images come faster than the network takes them.", "Nothing."),
}

CHECKPOINT = {
    "not-a-checkpoint": Entry(_P, "The file is no checkpoint of this package.", "Give a run's folder."),
    "checkpoint-damaged": Entry(
        _P, "The file is cut short or overwritten.", "Copy it again; a run keeps last.pt and best.pt."
    ),
    "checkpoint-version": Entry(
        _P, "The checkpoint has another format version.", "Use the version of alexnet that wrote it."
    ),
    "weights-not-finite": Entry(_P, "Weights that are nan or inf: the run diverged.", "Take an earlier checkpoint."),
    "weights-do-not-fit": Entry(
        _P, "The weights, the architecture and the list of classes do not belong together.",
        "Take the checkpoint as it was written.",
    ),
    "input-scale": Entry(
        _P, "The preprocessing gives the network another scale or channel order than it is meant for: 0-255 minus "
        "the mean against unit-normalised, RGB against BGR.",
        "Restore preprocessing.input_scale and channel_order to the architecture's.",
    ),
    "preprocessing-sizes": Entry(
        _P, "The checkpoint's crops do not have the size that its network takes.",
        "Take the checkpoint as it was written.",
    ),
    "untrained": Entry(_W, "The checkpoint is no better than guessing.", "Take a later one; see the run itself."),
    "unknown-classes": Entry(
        _P, "The data has classes that the checkpoint does not know.",
        "Give data with the checkpoint's classes; name the folders as it does (wnids, not ids).",
    ),
    "class-order": Entry(
        _W, "Data and checkpoint have the same classes in another order. This package goes by name; whatever goes by "
        "position gets every label wrong.",
        "Use the class list inside the checkpoint.",
    ),
    "part-of-the-classes": Entry(
        _N, "The data has only some of the checkpoint's classes.", "Nothing; the error is of those alone."
    ),
    "image-size-mismatch": Entry(
        _W, "The prepared squares have another side than the checkpoint was trained with: they are resized once more, "
        "and are not quite the images that it knows.",
        "Prepare the data with --size as the checkpoint's preprocessing.image_size says.",
    ),
    "other-images": Entry(
        _W, "The images are much lighter, darker or of another tint than those of the training.",
        "Look whether they are the same kind of images, read in the same way.",
    ),
    "worse-than-recorded": Entry(
        _W, "On a few of these validation images the error is far above the recorded one: other labels (class order), "
        "other images, or another preprocessing.",
        "Compare a few labels with the predictions: alexnet predict.",
    ),
}  # fmt: skip

RUN = {
    "not-a-run": Entry(_P, "The folder of the run lacks what a run always has.", "Give the --output of a training."),
    "run-interrupted": Entry(_N, "The run was stopped and has saved everything.", "The same command goes on."),
    "run-unfinished": Entry(
        _W,
        "The log ends without a word: the process was killed, or the machine went down.",
        "The same command goes on from the last checkpoint; out of memory is the usual reason (dmesg says).",
    ),
    "run-active": Entry(_N, "The run is going on.", "Nothing."),
    "diverged": Entry(
        _P,
        "The loss became nan or inf.",
        "Lower optimizer.lr, or add schedule.warmup_epochs, in a new --output; --replay shows where it began.",
    ),
    "replay-diverged": Entry(
        _P,
        "The steps before a loss that was not finite, repeated from the last checkpoint (--replay), end as they did.",
        "Weights that have grown: lower optimizer.lr or add schedule.warmup_epochs. A few images: look at them, and at "
        "diverged.npz. Neither: runtime.precision=float32.",
    ),
    "replay-finite": Entry(
        _W,
        "The steps before a loss that was not finite, repeated (--replay), end well this time.",
        "Go on with the same command. Rounding differs between numbers of processes and between machines; if it comes "
        "again at another step, test the machine's memory.",
    ),
    "stuck": Entry(
        _P,
        "The loss stays as high as that of guessing (ln C for equal classes).",
        "The finding says why, from the activations of the last checkpoint on the run's data.",
    ),
    "disk-nearly-full": Entry(_P, "No room for the next checkpoint.", "Free some space before going on."),
    "torn-log": Entry(_W, "The log's last line is cut off: a full disk or a kill.", "Nothing, once there is room."),
    "validation-at-chance": Entry(
        _P,
        "The network learns its training images, and the validation error stays at guessing: other labels there.",
        "Run alexnet doctor on the data; compare the class folders of train and val.",
    ),
    "overfits": Entry(
        _N,
        "The training loss is near zero while the validation error does not fall any more.",
        "More images or more augmentation; checkpoints/best.pt holds the best weights.",
    ),
    "slowed-down": Entry(
        _N, "The last part of the run is less than half as fast as it was.", "Look what else the machine does."
    ),
    "data-changed": Entry(
        _W, "The data is not what the run was trained on.", "Restore it before going on; the run will refuse otherwise."
    ),
}

MACHINE = {
    "machine": Entry(_N, "What the machine has.", "Nothing."),
    "no-fast-bfloat16": Entry(
        _N, "No fast bfloat16 (AMX, AVX512-BF16, Ampere or later); float32 is used.", "Nothing; auto chooses rightly."
    ),
    "kernels-missing": Entry(
        _W,
        "The package's own CPU kernels are not in use; training is slower.",
        "Install a C compiler and then the package again; ALEXNET_NATIVE=0 also turns them off.",
    ),
    "little-memory": Entry(
        _W,
        "Less than 3 GB of memory are free; the as_run network at batch 128 needs about that.",
        "Close other programs, or set train.micro_batch_size=32.",
    ),
    "little-disk": Entry(
        _W, "Less than 2 GB are free here; two checkpoints of as_run take 0.8 GB.", "Free some space."
    ),
    "few-threads": Entry(
        _W, "torch uses fewer threads than half the cores.", "Unset OMP_NUM_THREADS, or set runtime.num_threads."
    ),
    "cuda-not-used": Entry(
        _W,
        "There is an NVIDIA card, but this build of torch cannot use it.",
        "Install torch's CUDA build for the driver; see the start page of pytorch.org.",
    ),
}

SECTIONS: dict[str, tuple[str, dict[str, Entry]]] = {
    "data": ("Data", DATA),
    "images": ("Images", IMAGES),
    "recipe": ("Recipe, alone and with data", RECIPE),
    "signal": ("Signal and speed", SIGNAL),
    "checkpoint": ("Checkpoint, alone and with data", CHECKPOINT),
    "run": ("Run", RUN),
    "machine": ("Machine", MACHINE),
}

CATALOGUE: dict[str, Entry] = {id: entry for _, entries in SECTIONS.values() for id, entry in entries.items()}


def catalogue_markdown() -> str:
    """The tables of docs/doctor.md."""
    lines = []
    for title, entries in SECTIONS.values():
        lines += [f"## {title}", "", "| finding | severity | cause | remedy |", "|---|---|---|---|"]
        lines += [f"| `{id}` | {entry.severity} | {entry.cause} | {entry.remedy} |" for id, entry in entries.items()]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(catalogue_markdown())
