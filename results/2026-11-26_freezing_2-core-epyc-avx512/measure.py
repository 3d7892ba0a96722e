"""Processor seconds of a training step of as_run, 32 images of random bytes, with layers frozen; medians of five.

OMP_NUM_THREADS=1 python measure.py
"""

import itertools
import json
import statistics
import time

import torch

from alexnet.benchmark.contestants import ours, random_batches
from alexnet.benchmark.job import Job
from alexnet.training.freezing import freeze_by_rate

torch.set_num_threads(1)
CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
FROZEN = {
    "nothing": (),
    "conv1": CONVOLUTIONS[:1],
    "all convolutions": CONVOLUTIONS,
    "all but fc8": (*CONVOLUTIONS, "fc6", "fc7"),
}

contestants = {}
for name, layers in FROZEN.items():
    contestant = ours(Job("train", "as_run", 32, "bfloat16", "cpu", 1))
    names = {id(parameter): key for key, parameter in contestant.model.named_parameters()}
    for group in contestant.optimizer.param_groups:
        if all(names[id(parameter)].split(".")[0] in layers for parameter in group["params"]):
            group["lr"] = 0.0
        else:
            assert not any(names[id(parameter)].split(".")[0] in layers for parameter in group["params"]), name
    freeze_by_rate(contestant.model, contestant.optimizer)
    contestants[name] = contestant
batches = itertools.cycle(random_batches(contestants["nothing"].architecture, 32))
seconds = {name: [] for name in FROZEN}
for round_number in range(6):
    for name, contestant in contestants.items():
        began = time.process_time()
        contestant.step(next(batches))
        if round_number:  # the first is a warm-up
            seconds[name].append(time.process_time() - began)
print(json.dumps({name: {"median": statistics.median(each), "all": each} for name, each in seconds.items()}, indent=1))
