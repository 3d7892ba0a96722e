"""What the 2012 configuration files say about each network, in a notation of our own; `cfg_interpreter` reads it.

A line is a layer: NAME = KIND(INPUTS) numbers. `*` stands for a tower, a and b in turn, and `~` for the other one; a
network without towers, or with one, has none of these.

    filters, size, stride, pad   kernels, their side, step and padding (side and step of pooling windows too)
    outputs                      units of a fully-connected layer; 0 stands for the number of classes
    w, b                         initial weights N(0, w), initial biases
    wc                           weight decay
    scale, pow, div              normalization: x / (div + scale / window * sum of squares)**pow
    keep                         share of the units that dropout keeps
    relu                         applied to the layer's output
"""

from __future__ import annotations

from typing import NamedTuple


class Rates(NamedTuple):
    """Learning rates in the layer-params file: of ImageNet's nets the last ones, of CIFAR-10's the first."""

    weights: float
    biases: float


class Config(NamedTuple):
    """One network of the 2012 code."""

    source: str
    lines: str
    rates: Rates
    exceptions: dict[str, Rates]
    """Layers with other rates."""


_145 = """
conv1* = conv(data) filters=48 size=11 stride=4 pad=0 w=0.01 b=0 wc=0.0005
rnorm1* = cmrnorm(conv1*) size=5 scale=0.0001 pow=0.75 div=2
pool1* = max(rnorm1*) size=3 stride=2 relu
conv2* = conv(pool1*) filters=128 size=5 stride=1 pad=2 w=0.01 b=1 wc=0.0005 relu
rnorm2* = cmrnorm(conv2*) size=5 scale=0.0001 pow=0.75 div=2
cnorm2* = rnorm(rnorm2*) size=5 scale=0.001 pow=0.75 div=1
pool2* = max(cnorm2*) size=3 stride=2
conv3* = conv(pool2a,pool2b) filters=192 size=3 stride=1 pad=1 w=0.03 b=0 wc=0.0005 relu
conv4* = conv(conv3*) filters=192 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005 relu
conv5* = conv(conv4*) filters=128 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005
pool3* = max(conv5*) size=3 stride=2 relu
fc2048* = fc(pool3a,pool3b) outputs=2048 w=0.01 b=1 wc=0.0005 relu
hs1* = hs(fc2048*) keep=0.5
fc2048b* = fc(hs1*,hs1~) outputs=2048 w=0.01 b=1 wc=0.0005 relu
hs2* = hs(fc2048b*) keep=0.5
fc1000 = fc(hs2a,hs2b) outputs=0 w=0.01 b=0 wc=0.0005
"""

# One column, every layer of which sees the whole one before.
_145_HALF = """
conv1a = conv(data) filters=48 size=11 stride=4 pad=0 w=0.01 b=0 wc=0.0005
rnorm1a = cmrnorm(conv1a) size=5 scale=0.0001 pow=0.75 div=2
pool1a = max(rnorm1a) size=3 stride=2 relu
conv2a = conv(pool1a) filters=128 size=5 stride=1 pad=2 w=0.01 b=1 wc=0.0005 relu
rnorm2a = cmrnorm(conv2a) size=5 scale=0.0001 pow=0.75 div=2
cnorm2a = rnorm(rnorm2a) size=5 scale=0.001 pow=0.75 div=1
pool2a = max(cnorm2a) size=3 stride=2
conv3a = conv(pool2a) filters=192 size=3 stride=1 pad=1 w=0.03 b=0 wc=0.0005 relu
conv4a = conv(conv3a) filters=192 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005 relu
conv5a = conv(conv4a) filters=256 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005
pool3a = max(conv5a) size=3 stride=2 relu
fc4096a = fc(pool3a) outputs=4096 w=0.01 b=1 wc=0.0005 relu
hs1a = hs(fc4096a) keep=0.5
fc4096ba = fc(hs1a) outputs=4096 w=0.01 b=1 wc=0.0005 relu
hs2a = hs(fc4096ba) keep=0.5
fc1000 = fc(hs2a) outputs=0 w=0.01 b=0 wc=0.0005
"""

_150 = """
conv1* = conv(data) filters=48 size=11 stride=4 pad=0 w=0.01 b=0 wc=0.0005
rnorm1* = cmrnorm(conv1*) size=5 scale=0.0001 pow=0.75 div=2
pool1* = max(rnorm1*) size=3 stride=2 relu
conv2* = conv(pool1*) filters=160 size=5 stride=1 pad=2 w=0.01 b=1 wc=0.0005 relu
rnorm2* = cmrnorm(conv2*) size=5 scale=0.0001 pow=0.75 div=2
cnorm2* = rnorm(rnorm2*) size=5 scale=0.001 pow=0.75 div=1
pool2* = max(cnorm2*) size=3 stride=2
conv3* = conv(pool2*) filters=192 size=3 stride=1 pad=1 w=0.03 b=0 wc=0.0005 relu
conv4* = conv(conv3*) filters=192 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005 relu
conv5* = conv(conv4*) filters=128 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005
pool3* = max(conv5*) size=3 stride=2 relu
fc4096* = fc(pool3*) outputs=4096 w=0.01 b=1 wc=0.0005 relu
hs1* = hs(fc4096*) keep=0.5
fc2048b* = fc(hs1*) outputs=2048 w=0.01 b=1 wc=0.0005 relu
hs2* = hs(fc2048b*) keep=0.5
fc1000 = fc(hs2a,hs2b) outputs=0 w=0.01 b=0 wc=0.0005
"""

_146 = """
conv1* = conv(data) filters=48 size=11 stride=4 pad=0 w=0.01 b=0 wc=0.0005
rnorm1* = cmrnorm(conv1*) size=5 scale=0.0001 pow=0.75 div=2
pool1* = max(rnorm1*) size=3 stride=2 relu
conv2* = conv(pool1*) filters=128 size=5 stride=1 pad=2 w=0.01 b=1 wc=0.0005 relu
rnorm2* = cmrnorm(conv2*) size=5 scale=0.0001 pow=0.75 div=2
cnorm2* = rnorm(rnorm2*) size=5 scale=0.001 pow=0.75 div=1
pool2* = max(cnorm2*) size=3 stride=2
conv3* = conv(pool2a,pool2b) filters=192 size=3 stride=1 pad=1 w=0.03 b=0 wc=0.0005 relu
conv4* = conv(conv3*) filters=192 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005 relu
conv5* = conv(conv4*) filters=128 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005
pool3* = max(conv5*) size=3 stride=2 relu
conv6* = conv(pool3*,pool3~) filters=128 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005 relu
fc2048* = fc(conv6a,conv6b) outputs=2048 w=0.01 b=1 wc=0.0005 relu
hs1* = hs(fc2048*) keep=0.5
fc2048b* = fc(hs1*,hs1~) outputs=2048 w=0.01 b=1 wc=0.0005 relu
hs2* = hs(fc2048b*) keep=0.5
fc1000 = fc(hs2a,hs2b) outputs=0 w=0.01 b=0 wc=0.0005
"""

_147 = """
conv1* = conv(data) filters=48 size=11 stride=4 pad=0 w=0.01 b=0 wc=0.0005
rnorm1* = cmrnorm(conv1*) size=5 scale=0.0001 pow=0.75 div=2
pool1* = max(rnorm1*) size=2 stride=2 relu
conv2* = conv(pool1*) filters=128 size=5 stride=1 pad=1 w=0.01 b=1 wc=0.0005 relu
rnorm2* = cmrnorm(conv2*) size=5 scale=0.0001 pow=0.75 div=2
cnorm2* = rnorm(rnorm2*) size=5 scale=0.001 pow=0.75 div=1
pool2* = max(cnorm2*) size=2 stride=2
conv3* = conv(pool2a,pool2b) filters=192 size=3 stride=1 pad=1 w=0.03 b=0 wc=0.0005 relu
conv4* = conv(conv3*) filters=192 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005 relu
conv5* = conv(conv4*) filters=128 size=3 stride=1 pad=0 w=0.03 b=1 wc=0.0005
pool3* = max(conv5*) size=2 stride=2 relu
fc2048* = fc(pool3a,pool3b) outputs=2048 w=0.01 b=1 wc=0.0005 relu
hs1* = hs(fc2048*) keep=0.5
fc2048b* = fc(hs1*,hs1~) outputs=2048 w=0.01 b=1 wc=0.0005 relu
hs2* = hs(fc2048b*) keep=0.5
fc1000 = fc(hs2a,hs2b) outputs=0 w=0.01 b=0 wc=0.0005
"""

_148 = """
conv1* = conv(data) filters=48 size=11 stride=4 pad=0 w=0.01 b=0 wc=0.0005
pool1* = max(conv1*) size=3 stride=2 relu
conv2* = conv(pool1*) filters=128 size=5 stride=1 pad=2 w=0.01 b=1 wc=0.0005 relu
pool2* = max(conv2*) size=3 stride=2
conv3* = conv(pool2a,pool2b) filters=192 size=3 stride=1 pad=1 w=0.03 b=0 wc=0.0005 relu
conv4* = conv(conv3*) filters=192 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005 relu
conv5* = conv(conv4*) filters=128 size=3 stride=1 pad=1 w=0.03 b=1 wc=0.0005
pool3* = max(conv5*) size=3 stride=2 relu
fc2048* = fc(pool3a,pool3b) outputs=2048 w=0.01 b=1 wc=0.0005 relu
hs1* = hs(fc2048*) keep=0.5
fc2048b* = fc(hs1*,hs1~) outputs=2048 w=0.01 b=1 wc=0.0005 relu
hs2* = hs(fc2048b*) keep=0.5
fc1000 = fc(hs2a,hs2b) outputs=0 w=0.01 b=0 wc=0.0005
"""

_80SEC = """
conv1 = conv(data) filters=32 size=5 stride=1 pad=2 w=0.0001 b=0 wc=0.004
pool1 = max(conv1) size=3 stride=2 relu
conv2 = conv(pool1) filters=32 size=5 stride=1 pad=2 w=0.01 b=0 wc=0.004 relu
pool2 = avg(conv2) size=3 stride=2
conv3 = conv(pool2) filters=64 size=5 stride=1 pad=2 w=0.01 b=0 wc=0.004 relu
pool3 = avg(conv3) size=3 stride=2
fc64 = fc(pool3) outputs=64 w=0.1 b=0 wc=0.03 relu
fc10 = fc(fc64) outputs=0 w=0.1 b=0 wc=0.03
"""

_19PCT = """
conv1 = conv(data) filters=32 size=5 stride=1 pad=2 w=0.0001 b=0 wc=0.004
pool1 = max(conv1) size=3 stride=2 relu
conv2 = conv(pool1) filters=32 size=5 stride=1 pad=2 w=0.01 b=0 wc=0.004 relu
pool2 = avg(conv2) size=3 stride=2
conv3 = conv(pool2) filters=64 size=5 stride=1 pad=2 w=0.01 b=0 wc=0.004 relu
pool3 = avg(conv3) size=3 stride=2
fc10 = fc(pool3) outputs=0 w=0.01 b=0 wc=3
"""

_18PCT = """
conv1 = conv(data) filters=32 size=5 stride=1 pad=2 w=0.0001 b=0 wc=0.004
pool1 = max(conv1) size=3 stride=2 relu
rnorm1 = rnorm(pool1) size=3 scale=0.00005 pow=0.75 div=1
conv2 = conv(rnorm1) filters=32 size=5 stride=1 pad=2 w=0.01 b=0 wc=0.004 relu
pool2 = avg(conv2) size=3 stride=2
rnorm2 = rnorm(pool2) size=3 scale=0.00005 pow=0.75 div=1
conv3 = conv(rnorm2) filters=64 size=5 stride=1 pad=2 w=0.01 b=0 wc=0.004 relu
pool3 = avg(conv3) size=3 stride=2
fc10 = fc(pool3) outputs=0 w=0.01 b=0 wc=1
"""

_13PCT = """
conv1 = conv(data) filters=64 size=5 stride=1 pad=2 w=0.0001 b=0 wc=0 relu
pool1 = max(conv1) size=3 stride=2
conv2 = conv(pool1) filters=64 size=5 stride=1 pad=2 w=0.01 b=0 wc=0 relu
pool2 = max(conv2) size=3 stride=2
local3 = local(pool2) filters=32 size=3 stride=1 pad=1 w=0.04 b=0 wc=0.004 relu
local4 = local(local3) filters=32 size=3 stride=1 pad=1 w=0.04 b=0 wc=0.004 relu
fc10 = fc(local4) outputs=0 w=0.01 b=0 wc=0.004
"""

_11PCT = """
conv1 = conv(data) filters=64 size=5 stride=1 pad=2 w=0.0001 b=0 wc=0 relu
pool1 = max(conv1) size=3 stride=2
rnorm1 = cmrnorm(pool1) size=9 scale=0.001 pow=0.75 div=1
conv2 = conv(rnorm1) filters=64 size=5 stride=1 pad=2 w=0.01 b=0 wc=0 relu
rnorm2 = cmrnorm(conv2) size=9 scale=0.001 pow=0.75 div=1
pool2 = max(rnorm2) size=3 stride=2
local3 = local(pool2) filters=64 size=3 stride=1 pad=1 w=0.04 b=0 wc=0.004 relu
local4 = local(local3) filters=32 size=3 stride=1 pad=1 w=0.04 b=0 wc=0.004 relu
fc10 = fc(local4) outputs=0 w=0.01 b=0 wc=0.01
"""

_FROZEN = {"conv1": Rates(0.0, 0.0)}
_CIFAR = Rates(0.001, 0.002)
CONFIGS = {
    "145": Config("layers-145.cfg", _145, Rates(1e-5, 0.02), _FROZEN),
    "145-half": Config(
        "layers-145-half.cfg", _145_HALF, Rates(1e-5, 0.02), dict.fromkeys(("conv1", "conv2"), Rates(1e-5, 0.002))
    ),
    # conv6's 0.022 looks like a slip: 0.002 in layer-params-146-2012-2009.cfg.
    "146": Config("layers-146-2012-2011.cfg", _146, Rates(1e-5, 0.02), {**_FROZEN, "conv6": Rates(1e-5, 0.022)}),
    "147": Config("layers-147.cfg", _147, Rates(1e-5, 0.002), _FROZEN),
    "148": Config("layers-148.cfg", _148, Rates(1e-5, 0.02), _FROZEN),
    "150": Config("layers-150.cfg", _150, Rates(1e-5, 0.02), _FROZEN),
    "80sec": Config("layers-80sec.cfg", _80SEC, _CIFAR, {}),
    "19pct": Config("layers-19pct.cfg", _19PCT, _CIFAR, {}),
    "18pct": Config("layers-18pct.cfg", _18PCT, _CIFAR, {}),
    "13pct": Config("layers-conv-local-13pct.cfg", _13PCT, _CIFAR, {}),
    "11pct": Config("layers-conv-local-11pct.cfg", _11PCT, _CIFAR, {}),
}
