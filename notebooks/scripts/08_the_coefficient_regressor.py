# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The coefficient regressor
#
# *A picture goes in, sixty-two numbers come out: what is in between, and what does it need to learn that?*
#
# **You need** [chapter 3](03_sixty_two_numbers.ipynb) (the 62 numbers and their whitening),
# [chapter 7](07_two_worlds.ipynb) (labelled and wild pictures, the landmark map), gradient descent.
#
# **After this chapter you can**
#
# - write a convolution, a batch normalisation and a residual block, and prove that they are those of the library;
# - assemble the ResNet-50 of 2DASL from its parts, and account for each of its 23.6 million parameters;
# - say what whitening does for training, and measure it;
# - find out how much a network relies on the landmark map;
# - read a learning curve, and a network's first steps outside of its world;
# - load weights that somebody else published.
#
# **Time** 40 minutes to read; no GPU needed.

# %% tags=["install"]
# On a machine without the package (Google Colab, for example), fetch it first. Elsewhere this does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("twodasl_lite") is None:
    package = "twodasl_lite[chapters] @ git+https://github.com/twodasl-lite/twodasl_lite@main"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import base64
import tempfile
import time
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import nn
from torch.nn import functional as F

from twodasl_lite import viz
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import landmark_map
from twodasl_lite.networks import count_parameters, load_released, make_regressor
from twodasl_lite.networks.resnet import BasicBlock, Bottleneck
from twodasl_lite.networks.trained import trained_regressor
from twodasl_lite.viz.palette import CATEGORICAL, HOUSE_STYLE
from twodasl_lite.worlds.synthetic import TEST_SEED, SyntheticFaces, whitening_of

plt.rcParams.update(HOUSE_STYLE)

# %%
model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components


def pictures(world, count, seed=0):
    """A number of pictures of a world, with their ground truth."""
    faces = SyntheticFaces(model, world, seed=seed)
    parts = [faces.batch(start, 64, truth=True) for start in range(0, count, 64)]
    return FaceBatch.cat(parts)


train = pictures("labelled", 512)
test = pictures("labelled", 128, TEST_SEED)
wild = pictures("wild", 128, TEST_SEED)  # never trained on in this chapter
whitening = whitening_of(model, "labelled")
print(
    f"in: {tuple(train.inputs().shape[1:])}, out: {whitening.mean.shape[0]} numbers"
)

# %% [markdown]
# The regressor $G$ of 2DASL {cite:p}`tu2021assisted` is a function of four channels: red, green, blue, and
# the {term}`landmark map` of chapter 7. It returns the whitened {term}`coefficients` of chapter 3. Decoding
# them needs no learning, so the regressor is all there is to train.

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 5, figsize=(8, 2.1), layout="constrained")
channels = train.inputs()[1]
for axes, channel, name in zip(
    panels, channels, ("red", "green", "blue", "landmark map"), strict=False
):
    axes.imshow(channel, cmap="gray", vmin=-1, vmax=1)
    axes.set_title(name, fontsize=10)
panels[4].set_title("decoded: 62 numbers", fontsize=10)
vertices = decode(train.coefficients[1:2], model)[0]
viz.shaded_mesh(panels[4], vertices, model.triangles, frame="pixels")
panels[4].set(xlim=(-0.5, 119.5), ylim=(119.5, -0.5))
for axes in panels:
    axes.axis("off")


# %% [markdown]
# **Figure 8.1.** The four inputs, and the answer that belongs to them. *Ask yourself* which of the four you
# would keep if you could keep only one.

# %% [markdown]
# ## Three building blocks
#
# **Convolution.** Each output channel $o$ is a weighted sum over a small window, $k \times k$, with the same
# weights at every position. With padding $p$ (zeros around the picture) and stride $s$ (keep only every
# $s$-th position)
#
# $$ y_o(i, j) = \sum_{c} \sum_{u=0}^{k-1} \sum_{v=0}^{k-1} w_{o c u v}\; x_c(s\,i + u - p,\; s\,j + v - p) . $$
#
# A loop over the positions would take minutes. A loop over the $k^2$ weights of the window is just as easy to
# write: shift the picture, multiply, add.

# %%
def convolve(x, weight, stride=1, padding=0):
    """Convolution of x (B, Cin, H, W) with weight (Cout, Cin, k, k)."""
    k = weight.shape[-1]
    x = F.pad(x, [padding] * 4)
    height, width = ((n - k) // stride + 1 for n in x.shape[-2:])
    y = 0
    for u in range(k):
        for v in range(k):
            rows = slice(u, u + (height - 1) * stride + 1, stride)
            columns = slice(v, v + (width - 1) * stride + 1, stride)
            y = y + torch.einsum(
                "oc,bchw->bohw", weight[..., u, v], x[..., rows, columns]
            )
    return y


close = {"rtol": 1e-3, "atol": 1e-4}
torch.manual_seed(0)
few = train.inputs()[:8]
weight = torch.randn(6, 4, 7, 7)
torch.testing.assert_close(
    convolve(few, weight, 2, 3), F.conv2d(few, weight, stride=2, padding=3), **close
)
print(tuple(convolve(few, weight, 2, 3).shape), "the 7 x 7 stem halves the picture")

# %% [markdown]
# What can such windows see? Here are four, made by hand: a blur, a difference from left to right, one from
# top to bottom, and one that sums the fourth channel over its 7 × 7 pixels, so that each position knows
# whether a landmark is near.

# %% tags=["hide-input"]
ramp = torch.linspace(-1, 1, 7)
windows = torch.zeros(4, 4, 7, 7)
windows[0, :3] = 1 / 147
windows[1, :3] = ramp.expand(7, 7) / 40
windows[2, :3] = ramp[:, None].expand(7, 7) / 40
windows[3, 3] = 1 / 2
seen = convolve(few[1:2], windows, 2, 3)[0]
seen[3] = convolve(few[1:2, 3:] + 1, windows[3:, 3:], 2, 3)[0, 0].clamp(max=1)
figure, panels = plt.subplots(1, 4, figsize=(8, 2.3), layout="constrained")
titles = ("blur", "left to right", "top to bottom", "a landmark near?")
for axes, picture, title in zip(panels, seen, titles, strict=True):
    reach = picture.abs().quantile(0.99) if title != titles[3] else None
    axes.imshow(
        picture, cmap="gray", vmin=None if reach is None else -reach, vmax=reach
    )
    axes.set_title(title, fontsize=10)
    axes.axis("off")


# %% [markdown]
# **Figure 8.2.** Four windows, each with 60 × 60 outputs. *Try*, in a live notebook, to design a window for
# the dark line between the lips. Nobody designs windows by hand any more; gradient descent finds them,
# sixty-four in the first layer.

# %% [markdown]
# **Normalisation.** If all inputs of a layer become ten times as large, every later layer has to adapt. Batch
# normalisation {cite:p}`ioffe2015batch` gives each channel mean 0 and variance 1 over the mini-batch and all
# positions, and then lets the network choose its own scale $\gamma$ and shift $\beta$:
# $y = \gamma\,(x - \mu) / \sqrt{\sigma^2 + \varepsilon} + \beta$. During training, $\mu$ and $\sigma^2$ are
# those of the mini-batch; at inference, they are running averages. Forgetting to switch between the two
# (`train()` and `eval()`) is one of the most common bugs in deep learning.
#
# **Residual block.** {cite:t}`he2016deep` found that a deeper network can be *worse on its own training set*,
# because a stack of layers finds it hard to learn the identity. So make the identity the starting point and
# learn the difference: $y = \operatorname{relu}(x + r(x))$. Where the block changes the size, a 1 × 1
# convolution on the shortcut changes the size of $x$, too.

# %%
def normalise(x, layer):
    """Batch normalisation of x (B, C, H, W) with a layer's parameters and mode."""
    mean, variance = layer.running_mean, layer.running_var
    if layer.training:
        mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
    scale = layer.weight / (variance + layer.eps).sqrt()  # (C,)
    return (
        (x - mean[:, None, None]) * scale[:, None, None] + layer.bias[:, None, None]
    )


def basic_block(x, block, stride):
    """relu(x + r(x)), with the weights of one of the package's blocks."""
    r = convolve(x, block.conv1.weight, stride, padding=1)
    r = normalise(r, block.bn1).relu()
    r = normalise(convolve(r, block.conv2.weight, padding=1), block.bn2)
    if block.downsample is not None:
        x = convolve(x, block.downsample[0].weight, stride)
        x = normalise(x, block.downsample[1])
    return (x + r).relu()


# %%
with torch.no_grad():
    for stride, channels in ((1, 16), (2, 24)):
        block, x = BasicBlock(
            16, channels, stride, nn.BatchNorm2d
        ), torch.randn(4, 16, 30, 30)
        for mode in (True, False):
            expected = block.train(mode)(x)
            torch.testing.assert_close(
                basic_block(x, block.train(mode), stride), expected, **close
            )
        print(
            f"16 to {channels} channels, stride {stride}: the package's block, in "
            "both modes"
        )


# %% [markdown]
# How does the $x +$ help learning? The derivative of $x + r(x)$ is the identity plus something, so the
# gradient cannot get lost on its way back. We stack freshly initialised blocks with and without the shortcut,
# and compare the gradient at the first layer with the gradient at the last.

# %%
def gradient_growth(depth, shortcut):
    """Norm of the gradient at the input over that at the output of fresh blocks."""
    torch.manual_seed(depth)
    x = torch.randn(16, 16, 12, 12, requires_grad=True)
    y = x
    for _ in range(depth):
        block = BasicBlock(16, 16, 1, nn.BatchNorm2d)
        nn.init.kaiming_normal_(block.conv1.weight, mode="fan_out")
        nn.init.kaiming_normal_(block.conv2.weight, mode="fan_out")
        if shortcut:
            y = block(y)
        else:
            r = block.bn1(block.conv1(y)).relu()
            y = block.bn2(block.conv2(r)).relu()
    direction = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, x, direction)
    return float(gradient.norm() / direction.norm())


growth = {
    kind: [gradient_growth(depth, kind == "with") for depth in (1, 4, 16, 32)]
    for kind in ("with", "without")
}
print("blocks:             1      4     16     32")
for kind, row in growth.items():
    print(f"{kind:>8} shortcut: " + "  ".join(f"{value:<5.3g}" for value in row))
assert growth["without"][-1] > 10 * growth["with"][-1]


# %% [markdown]
# Without shortcuts the gradient at the first layer is *enormous*, and no single learning rate suits both
# ends. (Without normalisation, gradients used to vanish; with it, they explode.) With shortcuts the gradient
# grows slowly. In a network of *three* blocks, though, this hardly matters: our own
# [measurements](https://github.com/twodasl-lite/twodasl_lite/tree/main/benchmarks) of the small network below
# found no gain.
#
# ## The network of the paper
#
# ResNet-50 has a cheaper block, the **bottleneck**: 1 × 1 down to a quarter of the channels, 3 × 3 there, 1 × 1 up
# again.

# %%
def weights(kernel, inputs, outputs):
    return kernel**2 * inputs * outputs


two = 2 * weights(3, 256, 256)
three = weights(1, 256, 64) + weights(3, 64, 64) + weights(1, 64, 256)
print(f"256 channels: {two:,} weights in two 3 x 3, {three:,} in a bottleneck")
assert three == sum(
    p.numel() for n, p in Bottleneck(256, 64, 1, nn.BatchNorm2d).named_parameters()
    if "conv" in n
)


# %% [markdown]
# Now the whole network. It has four stages of 3, 4, 6 and 3 bottlenecks; the first block of a stage reduces
# the resolution and increases the number of channels. The first convolution takes four channels instead of
# three, and the last layer returns 62 numbers instead of a thousand classes. A network is nothing but its
# weights and a sequence of operations. Here is the sequence, written by hand; the weights come from the
# package, under the names that torchvision introduced and that everybody has used since.

# %%
def resnet50(x, state, sizes):
    """ResNet-50 of 2DASL from a dictionary of its weights, for inference."""

    def conv_norm(x, conv, norm, stride=1, padding=0):
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        kept = (
            state[f"{norm}.{name}"]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, *kept)

    x = conv_norm(x, "conv1", "bn1", 2, 3).relu()
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    sizes.append(("stem", x.shape))
    plan = zip((1, 2, 3, 4), (3, 4, 6, 3), (1, 2, 2, 1), strict=True)
    for stage, depth, stride in plan:
        for index in range(depth):
            here, step = f"layer{stage}.{index}", stride if index == 0 else 1
            r = conv_norm(x, f"{here}.conv1", f"{here}.bn1").relu()
            r = conv_norm(r, f"{here}.conv2", f"{here}.bn2", step, 1).relu()
            r = conv_norm(r, f"{here}.conv3", f"{here}.bn3")
            if index == 0:
                x = conv_norm(
                    x, f"{here}.downsample.0", f"{here}.downsample.1", step
                )
            x = (x + r).relu()
        sizes.append((f"stage {stage}", x.shape))
    x = F.avg_pool2d(x, 7, stride=2).flatten(1)
    sizes.append(("average", x.shape))
    return F.linear(x, state["fc.weight"], state["fc.bias"])


# %%
network = make_regressor("resnet50").eval()
sizes = []
with torch.no_grad():
    by_hand = resnet50(few[:2], network.state_dict(), sizes)
    torch.testing.assert_close(by_hand, network(few[:2]), **close)
for name, shape in sizes:
    print(f"{name:8} {tuple(shape[1:])}")

# %% [markdown]
# In the released code the last stage has stride **1**; in the original ResNet it has 2. For a crop of 120
# pixels the difference matters: with stride 2 the last map would be 4 × 4, and the 7 × 7 average at the end,
# designed for pictures of 224 pixels, would not fit. With stride 1 the map is 8 × 8, and the average takes
# its upper left 7 × 7 positions; the last row and column are computed and discarded. The network was trained
# that way, so it must be run that way.

# %%
parts = {"stem": ("conv1", "bn1")} | {
    f"stage {k}": (f"layer{k}.",) for k in (1, 2, 3, 4)
} | {"head": ("fc",)}
counts = {
    part: sum(
        p.numel() for name, p in network.named_parameters()
        if name.startswith(prefixes)
    )
    for part, prefixes in parts.items()
}
print("  ".join(f"{part} {count:,}" for part, count in counts.items()))
total = count_parameters(network)
assert sum(counts.values()) == total == 23_638_206
classes = total - counts["head"] + 2048 * 1000 + 1000 - weights(7, 1, 64)
print(
    f"together {total / 1e6:.2f} million; with 3 channels and 1,000 classes "
    f"{classes / 1e6:.2f} million, as published"
)

# %% [markdown]
# Two thirds of the parameters are in the last stage. The fourth channel costs 3,136.
#
# ## A network for this book
#
# On two CPU cores, ResNet-50 trains at about two dozen pictures a second. So we add a *lite* regressor; it is
# ours, not the paper's. It reduces the resolution at once (one convolution, 8 × 8, stride 4), has three
# residual blocks, and passes on the last 4 × 4 map position by position instead of averaging it. *Where*
# something is seen says more about pose than *whether* it is seen.

# %%
lite = make_regressor("lite").eval()
seconds = {}
with torch.no_grad():
    for name, net in (("resnet50", network), ("lite", lite)):
        net(few)
        start = time.perf_counter()
        net(few)
        seconds[name] = time.perf_counter() - start
        millions, time_each = (
            count_parameters(net) / 1e6, 1e3 * seconds[name] / len(few)
        )
        print(
            f"{name:9} {millions:5.2f} million parameters, {time_each:6.1f} ms a "
            "picture"
        )
    x = lite.stem(few)
    print(
        "lite's maps:", tuple(x.shape[1:]),
        *(tuple((x := stage(x)).shape[1:]) for stage in lite.stages)
    )

# %% [markdown]
# ## Does whitening matter?
#
# Training is the usual loop: predict, compare, compute the gradient, take a step. For the comparison we use
# the simplest of all losses, the mean squared difference between prediction and target. (Chapter 9 asks
# whether that is wise.) Should the network predict the numbers of $\mathbf c$ as they are, centred only, or
# *whitened*? Look at their sizes.

# %%
names = model.layout.names
shown = [
    "pose[0,0]", "pose[0,2]", "pose[0,3]", "pose[2,3]", "shape[0]", "expression[0]"
]
print("                mean     std   share of the sum of squared std")
share = whitening.std.square() / whitening.std.square().sum()
for name in shown:
    k = names.index(name)
    print(
        f"{name:14} {whitening.mean[k]:6.2f} {whitening.std[k]:7.3f} "
        f"{share[k]:10.2%}"
    )
shift = [names.index(f"pose[{row},3]") for row in range(3)]
print(
    f"the three shifts make up {share[shift].sum():.0%} of a raw squared error"
)

# %% [markdown]
# The yaw of the head, `pose[0,2]`, would make up a few hundredths of a per cent of the loss. A network could
# call every face frontal, and the loss would hardly change. And the mean of `pose[0,3]` is 60, while a
# freshly initialised network predicts zero.
#
# ## Four trainings
#
# We train four times, with the same pictures, seed and number of steps: on raw numbers; on whitened ones; on
# whitened ones with the *Gaussian* landmark map instead of the binary one; and on whitened ones without any
# map (the fourth channel is then $-1$ everywhere). 140 steps with mini-batches of 32 are far too few for a
# good network, but enough to see differences.

# %%
STEPS, BATCH, RATE, EVERY = 140, 32, 2e-3, 35


def inputs_of(batch, kind):
    """(B, 4, 120, 120), with a binary, a Gaussian or no landmark map."""
    if kind is not None:
        return batch.inputs(kind)
    x = batch.inputs()
    x[:, 3] = -1
    return x


@torch.no_grad()
def predict(network, whitening, x):
    """Landmarks (B, 68, 3) in pixels."""
    raw = whitening.unwhiten(network.eval()(x))
    network.train()
    return decode_landmarks(raw, model)


def percent(points, batch):
    """NME (B,) in per cent, of the landmarks in the picture."""
    return 100 * nme(points[..., :2], batch.landmarks[..., :2])


# %%
def train_with(whitening, kind, faces=train, steps=STEPS, seed=0):
    torch.manual_seed(seed)
    network = make_regressor("lite")
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=steps
    )
    sets = {"training": faces.take(slice(0, 128)), "unseen": test, "wild": wild}
    sets = {name: (inputs_of(batch, kind), batch) for name, batch in sets.items()}
    x, answers = inputs_of(faces, kind), whitening.whiten(faces.coefficients)
    log = []
    for step in range(steps + 1):
        if step % EVERY == 0:
            log.append(
                [
                    float(percent(predict(network, whitening, a), b).mean())
                    for a, b in sets.values()
                ]
            )
        index = torch.randperm(faces.size)[:BATCH]
        loss = (network(x[index]) - answers[index]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step < steps:
            schedule.step()
    return network, np.array(log)


# %%
nothing = Whitening(torch.zeros(62), torch.ones(62))
kinds = {
    "raw, binary map": (nothing, "binary"),
    "whitened, binary map": (whitening, "binary"),
    "whitened, Gaussian map": (whitening, "gaussian"),
    "whitened, no map": (whitening, None),
}
start = time.perf_counter()
trained = {name: train_with(*kind) for name, kind in kinds.items()}
print(f"{time.perf_counter() - start:.0f} s for four trainings")

# %%
final = {name: log[-1, 1:] for name, (_, log) in trained.items()}
mean_face = decode_landmarks(whitening.mean[None], model)  # (1, 68, 3)
final["always the mean face"] = [
    percent(mean_face.expand(b.size, -1, -1), b).mean() for b in (test, wild)
]
print("NME in %                unseen labelled   wild")
for name, (labelled_error, wild_error) in final.items():
    print(f"{name:22} {labelled_error:16.1f} {wild_error:6.1f}")
assert final["raw, binary map"][0] > 2 * final["whitened, binary map"][0]
assert final["whitened, binary map"][0] < final["always the mean face"][0]

# %% tags=["hide-input"]
fig = make_subplots(
    1, 2, shared_yaxes=True, subplot_titles=("unseen labelled", "wild"),
    horizontal_spacing=0.04
)
for colour, (name, (_, log)) in zip(CATEGORICAL, trained.items(), strict=False):
    for column in (1, 2):
        line = {"color": colour}
        values = {
            "x": np.arange(len(log)) * EVERY, "y": log[:, column].round(2),
            "name": name, "legendgroup": name
        }
        fig.add_scatter(
            **values, mode="lines", line=line, showlegend=column == 1, row=1,
            col=column
        )
ticks = [3, 5, 10, 20, 50, 100]
fig.update_yaxes(type="log", range=[0.4, 2.15], tickvals=ticks)
fig.update_yaxes(title="NME (%)", row=1, col=1)
fig.update_xaxes(title="step")
fig.update_layout(
    height=420, margin={"l": 60, "r": 15, "t": 40, "b": 50},
    legend={"orientation": "h", "y": -0.25}
)
fig

# %% [markdown]
# **Figure 8.3.** Error on unseen pictures during training (logarithmic). *Look for* the run that hardly gets
# as far as the mean face. *Compare* both maps with no map, on the left and on the right. *Try*, in a live
# notebook, to centre without scaling: `Whitening(whitening.mean, torch.ones(62))`.

# %% [markdown]
# *Whitening* makes the difference. With raw numbers, the network spends its time learning that faces are in
# the middle of the picture. Whitened, all coefficients count equally, and a short run already gets somewhere.
# That is not the last word: the coefficients do not matter equally, and chapter 9 does better.
#
# The *binary map* is a surprise: with it, the network is hardly better than without. Does the network use it
# at all? There is a simple test for any input of any network: change the input and see whether the prediction
# changes. We shift the points of the map sideways and leave the photo where it is.

# %%
pushes = list(range(-16, 17, 2))


def pushed(name, push):
    """Predicted landmarks (B, 68, 3) when only the map moves, by push pixels."""
    network, kind = trained[name][0], kinds[name][1]
    x = test.inputs()
    moved = test.detected + torch.tensor([float(push), 0.0])
    x[:, 3:] = landmark_map(moved, test.detected_visible, kind=kind)
    return predict(network, whitening, x)


answers, follow = {}, {}
print(
    "map moved by      " + "".join(f"{push:6}" for push in pushes[::4]) + "  pixels"
)
for name in ("whitened, binary map", "whitened, Gaussian map"):
    answers[name] = {push: pushed(name, push) for push in pushes}
    follow[name] = {
        push: float((answers[name][push] - answers[name][0])[..., 0].mean())
        for push in pushes
    }
    print(
        f"{name.split(', ')[1]:12} face"
        + "".join(f"{follow[name][push]:6.1f}" for push in pushes[::4])
    )
assert follow["whitened, Gaussian map"][8] > 3 * abs(
    follow["whitened, binary map"][8]
)

# %% [markdown]
# The network nearly ignores the binary map: 18 of 14,400 pixels are too faint a signal this early in
# training. The Gaussian map is a stronger signal, and the network follows it. (With time a network finds the
# binary map, too: after a thousand steps, the networks of chapter 14 follow it by a quarter to a third of its
# shift. The published network was trained with it for much longer.)
#
# Relying on the map has a price. What if the detector finds no face, so that the map is empty?

# %%
network = trained["whitened, Gaussian map"][0]
blind = {
    name: float(percent(predict(network, whitening, inputs_of(b, None)), b).mean())
    for name, b in (("unseen labelled", test), ("wild", wild))
}
for (name, error), usual, never in zip(
    blind.items(), final["whitened, Gaussian map"], final["whitened, no map"],
    strict=True
):
    print(
        f"{name:16} with map {usual:5.1f} %, map empty {error:5.1f} %, "
        f"trained without {never:5.1f} %"
    )


# %% tags=["hide-input"]
def jpeg(photo, scale=3):
    """A picture (3, H, W) for plotly, enlarged."""
    rgb = cv2.resize(
        photo.permute(1, 2, 0).numpy(), None, fx=scale, fy=scale,
        interpolation=cv2.INTER_CUBIC
    )
    data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    source = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return go.Image(
        source=source, dx=1 / scale, dy=1 / scale, x0=-1 / 3, y0=-1 / 3,
        hoverinfo="skip"
    )


def marks(push, index):
    """The shifted points of the map and the predicted ones, as lists."""
    spots = test.detected[index] + torch.tensor([float(push), 0.0])
    for points in (spots, answers["whitened, Gaussian map"][push][index][:, :2]):
        x, y = points.numpy().round(1).T
        yield {"x": x.tolist(), "y": y.tolist()}


# %% tags=["hide-input"]
chosen = (1, 6)
fig = make_subplots(1, 2, horizontal_spacing=0.03)
styles = (
    {"size": 7, "color": "#F0E442", "line": {"width": 1, "color": "black"}},
    {"size": 4, "color": "#56B4E9"}
)
for column, index in enumerate(chosen, start=1):
    fig.add_trace(jpeg(test.images[index]), 1, column)
    for values, style, name in zip(
        marks(0, index), styles, ("map", "answer"), strict=True
    ):
        look = {
            "mode": "markers", "marker": style, "name": name,
            "showlegend": column == 1, "hoverinfo": "skip"
        }
        fig.add_trace(go.Scatter(values, **look), 1, column)
frames = {
    push: [go.Scatter(v) for index in chosen for v in marks(push, index)]
    for push in pushes
}

# %% tags=["hide-input"]
fig.frames = [
    go.Frame(data=data, traces=[1, 2, 4, 5], name=str(push))
    for push, data in frames.items()
]
play = {
    "mode": "immediate", "frame": {"duration": 0, "redraw": True},
    "transition": {"duration": 0}
}
steps = [
    {"label": f"{push}", "method": "animate", "args": [[str(push)], play]}
    for push in pushes
]
slider = {
    "active": len(pushes) // 2, "steps": steps,
    "currentvalue": {"prefix": "map moved by (pixels): "}
}
fig.update_xaxes(range=[-0.5, 119.5], visible=False)
fig.update_yaxes(range=[119.5, -0.5], visible=False)
fig.update_layout(
    height=430, margin={"l": 5, "r": 5, "t": 10, "b": 10}, sliders=[slider]
)
fig.update_layout(legend={"orientation": "h", "y": 1.08})
fig

# %% [markdown]
# **Figure 8.4.**<a id="map-moves"></a> The photo stays, the map moves: predictions of the network with the Gaussian map. *Try*
# moving it far: does the prediction follow the points, stay with the photo, or stop half way? *Ask yourself*
# what that means for a picture on which the detector failed.

# %% [markdown]
# A network that relies on the map does worse without it than one that never had it. There are three remedies:
# train with the real noise of the detector (as in chapter 7), hide the map in a fraction of the training
# pictures (`map_dropout`, chapter 14), and look twice, first with an empty map, then with the map of the
# network's own first prediction ({py:func}`twodasl_lite.networks.prediction.predict`).
#
# ## Learning curves
#
# Are 512 pictures enough? We repeat the training with only the first 64 of them.

# %%
_, log = train_with(whitening, "gaussian", faces=train.take(slice(0, 64)))
curves = {"512 pictures": trained["whitened, Gaussian map"][1], "64 pictures": log}
print("NME in %        training  unseen")
for name, log in curves.items():
    print(f"{name:14} {log[-1, 0]:9.2f} {log[-1, 1]:7.2f}")
gap = {name: log[-1, 1] / log[-1, 0] for name, log in curves.items()}
assert gap["64 pictures"] > gap["512 pictures"]

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
for colour, (name, log) in zip(CATEGORICAL, curves.items(), strict=False):
    steps = np.arange(len(log)) * EVERY
    axes.plot(
        steps, log[:, 0], "--", color=colour, label=f"{name}: training"
    )
    axes.plot(steps, log[:, 1], color=colour, label=f"{name}: unseen")
axes.set(yscale="log", xlabel="step", ylabel="NME (%)", ylim=(0.15, 25))
ticks = (0.2, 0.5, 1, 2, 5, 10, 20)
axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
axes.set_yticks([], minor=True)
axes.spines[["top", "right"]].set_visible(False)
_ = axes.legend(frameon=False, fontsize=9)

# %% [markdown]
# **Figure 8.5.** Two learning curves. *Look at* the gap between the dashed and the solid line of each colour,
# the generalisation gap: how much the network has memorised. It is larger when there are fewer pictures. More
# steps would not close it; more pictures do.

# %% [markdown]
# ## The faces
#
# Numbers hide what pictures show. Here are decoded predictions for pictures that the network has not seen,
# beside the truth. For contrast we add a network that ships with the package: the same architecture, trained
# for about a thousand steps on more pictures, with the losses of chapters 9 and 10.

# %% tags=["hide-input"]
shipped = trained_regressor("+landmarks_2d")
skin = model.decode_albedo()[0]  # the average skin, (V, 3)


@torch.no_grad()
def heads_of(batch, chosen):
    """Raw coefficients for some pictures: two predictions and the truth."""
    some = batch.take(chosen)
    short = whitening.unwhiten(network.eval()(some.inputs("gaussian")))
    long = shipped.whitening.unwhiten(shipped.network(some.inputs()))
    return {"140 steps": short, "1,000 steps": long, "the truth": some.coefficients}


# %% tags=["hide-input"]
def show_faces(batch, chosen):
    """Photos, predicted heads and true heads, one column for each picture."""
    rows = {"photo": None, **heads_of(batch, chosen)}
    _, panels = plt.subplots(4, 4, figsize=(8, 8.4), layout="constrained")
    for line, (title, raw) in zip(panels, rows.items(), strict=True):
        line[0].set_ylabel(title, fontsize=11)
        for k, axes in enumerate(line):
            if raw is None:
                axes.imshow(batch.images[chosen[k]].permute(1, 2, 0))
            else:
                vertices = decode(raw[k : k + 1], model)[0]
                look = {"frame": "pixels", "pixels": 400}
                viz.shaded_mesh(axes, vertices, model.triangles, skin, **look)
                points = decode_landmarks(raw[k : k + 1], model)
                error = float(percent(points, batch.take(chosen[k : k + 1]))[0])
                axes.set_xlabel("" if title == "the truth" else f"{error:.1f} %")
            axes.set_axis_on()
            axes.set(xlim=(-0.5, 119.5), ylim=(119.5, -0.5), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)


# %% tags=["hide-input"]
show_faces(test, [0, 1, 2, 3])

# %% [markdown]
# **Figure 8.6.** Four pictures of the labelled world (the first four, not the best), two predictions with
# their NME, and the truth. *Look for* what our short run gets right (position, size, roll, yaw) and what it
# misses: would you recognise the person? And whose mouth is open?

# %% [markdown]
# The heads of the wild world are turned, badly lit, half hidden. The network has never seen one.

# %%
table = summarise(
    percent(predict(network, whitening, wild.inputs("gaussian")), wild), wild.yaw,
    intervals=False
)
print("NME on wild pictures:")
for name, value, count in zip(
    ("to 30°", "30° to 60°", "beyond 60°"), table.bins, table.counts, strict=True
):
    print(f"  {name:11} {value:5.1f} %  ({count} pictures)")
assert table.bins[2] > 2 * table.bins[0]

# %% tags=["hide-input"]
order = wild.yaw.abs().argsort()
chosen = order[torch.linspace(4, len(order) - 6, 4).long()].tolist()
show_faces(wild, chosen)

# %% [markdown]
# **Figure 8.7.** Four wild pictures, from frontal to profile. *Look at* where the noses point. Our network
# can only predict what its training set taught it, and that set had no profiles. The second network learned
# profiles from 2D landmarks.

# %% [markdown]
# Why not label some profiles? Because fitting a model to them fails. What we can get for them is eighteen
# points. Chapters 10 to 14 show how these points can teach 3D.
#
# ## Loading published weights
#
# The authors published two checkpoints of ResNet-50. Three details stand between such a file and a
# prediction. The last two raise no error if you get them wrong; they just give bad faces:
#
# 1. the names begin with `module.`, because the network was wrapped for several GPUs;
# 2. it was trained on pictures as OpenCV reads them, **blue first**;
# 3. its outputs are whitened with the mean and standard deviation of *its* training set, for *its* face
#    model, the Basel one.
#
# {py:func}`twodasl_lite.networks.load_released` takes care of the first two: it drops the prefix and permutes
# the *weights* of the first layer from blue-green-red to red-green-blue, once, so that nobody has to permute
# pictures. We write a file in the released format, with random weights, and read it back.

# %%
original = make_regressor("resnet50").eval()
state = {f"module.{name}": value for name, value in original.state_dict().items()}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "released.pth.tar"
    torch.save({"res_state_dict": state}, path)
    loaded = load_released(path)
rgb = few[:2]
bgr = rgb[:, [2, 1, 0, 3]]
with torch.no_grad():
    torch.testing.assert_close(loaded(rgb), original(bgr), **close)
    wrong = (loaded(bgr) - original(bgr)).norm() / original(bgr).norm()
print(
    "RGB into the loaded network = BGR into the original; the wrong order changes "
    f"the prediction by {wrong:.0%}"
)

# %% [markdown]
# Reading is safe: `weights_only=True` admits tensors and plain containers but no code. Without it, a `.pth`
# file from the web can run any program on your machine. We store our own networks as safetensors, together
# with their whitening and the kind of map ({py:func}`twodasl_lite.networks.save_regressor`). For other
# programs and languages there is ONNX:

# %% tags=["live-only"]
from twodasl_lite.networks import export_onnx

# Needs the extra "onnx". Checks the file with onnxruntime before keeping it. With
# the whitening, the exported network returns raw coefficients.
print(
    "largest difference:",
    export_onnx(network, "regressor.onnx", whitening=whitening)
)


# %% [markdown]
# ## Summary
#
# * A convolution is a sum of shifted, weighted pictures; normalisation keeps activations in range; the
#   shortcut keeps gradients in range.
# * 2DASL's regressor is ResNet-50 with four input channels, a last stage of stride 1, and 62 outputs: 23.64
#   million parameters.
# * Whitening brings all coefficients to the same scale. Without it, the loss sees little more than a few
#   shifts.
# * To find out whether a network uses an input, change the input. A network learns to use a binary map late
#   and a Gaussian one soon; once it does, it depends on the map.
# * A small training set is memorised, and a narrow one does not generalise to other conditions.
# * A checkpoint consists of weights, names, channel order, whitening and face model.
#
# The layout of ResNet-50 and its map are those of the released code; the lite regressor is ours.
#
# ## Exercises
#
# ### Exercise 8.1 · How many in a stage?
#
# Compute the number of parameters in a stage of bottlenecks: convolutions without bias, two numbers per
# channel for each normalisation, and, in the first block only, a shortcut with a 1 × 1 convolution and a
# normalisation.

# %% tags=["exercise"]
def stage_parameters(inputs, width, depth):
    """Parameters of depth bottlenecks from inputs to 4 width channels."""
    return 0


# %% tags=["solution"]
def stage_parameters(inputs, width, depth):
    """Parameters of depth bottlenecks from inputs to 4 width channels."""
    outputs = 4 * width
    total = inputs * outputs + 2 * outputs  # the shortcut of the first block
    for index in range(depth):
        first = inputs if index == 0 else outputs
        total += first * width + 9 * width**2 + width * outputs
        total += 2 * (width + width + outputs)
    return total


# %% tags=["check"]
truth = [counts[f"stage {k}"] for k in (1, 2, 3, 4)]
given = [(64, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3)]
mine = [stage_parameters(*sizes) for sizes in given]
short = 2 * 256 + 64 * 256
assert mine[0] != truth[0] - short, (
    "The shortcut of the first block has parameters, too."
)
assert mine == truth, (
    f"Off by {[a - b for a, b in zip(mine, truth, strict=True)]} in the four stages."
)
print(f"✓ {sum(mine):,} of {total:,} parameters are in the four stages")


# %% [markdown]
# ### Exercise 8.2 · A normalisation that costs nothing
#
# At inference, batch normalisation is a fixed scale and shift per channel, and a convolution can absorb both.
# Fold the two into one convolution with a bias.

# %% tags=["exercise"]
def fold(conv, norm):
    """Weight and bias of one convolution equal to conv then norm, at inference."""
    return conv.weight, torch.zeros(len(conv.weight))


# %% tags=["solution"]
def fold(conv, norm):
    """Weight and bias of one convolution equal to conv then norm, at inference."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (
        conv.weight * scale[:, None, None, None],
        norm.bias - norm.running_mean * scale
    )


# %% tags=["check"]
conv, norm = network.stem[0], network.stem[1].eval()
with torch.no_grad():
    weight, bias = fold(conv, norm)
    folded, wanted = (
        F.conv2d(few, weight, bias, stride=4, padding=2), norm(conv(few))
    )
assert folded.shape == wanted.shape, (
    f"Found {tuple(folded.shape)}, expected {tuple(wanted.shape)}."
)
error = float((folded - wanted).abs().max())
shift = (folded - wanted).mean(dim=(0, 2, 3), keepdim=True)
assert error < 1e-3 or (folded - wanted - shift).abs().max() > 1e-3, (
    "The scale is right, the shift is not."
)
assert error < 1e-3, f"Off by up to {error:.3g}."
print(f"✓ the same to {error:.0e}, with one operation less")

# %% [markdown]
# ### Exercise 8.3 · How far does one position see?
#
# A position in a layer's output depends on a window of the picture, its *receptive field*. A layer with
# kernel $k$ and stride $s$ enlarges the window from $r$ to $r + (k - 1)\,j$, where $j$ is the distance, in
# pixels, between neighbouring positions before this layer; $j$ then becomes $j s$. Compute $r$ after a list
# of layers, and find the receptive field of one position in the last map of the lite regressor.

# %% tags=["exercise"]
lite_layers = [(8, 4)]  # kernel and stride along the longest path, the stem first


def receptive_field(layers):
    """Side in pixels of the receptive field after layers of (kernel, stride)."""
    return 1


# %% tags=["solution"]
lite_layers = [(8, 4)] + 3 * [(3, 2), (3, 1)]


def receptive_field(layers):
    """Side in pixels of the receptive field after layers of (kernel, stride)."""
    field, distance = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * distance
        distance *= stride
    return field


# Wider than the picture: the central positions see nearly all of it.

# %% tags=["check"]
assert receptive_field([(3, 1), (3, 1)]) == 5, "Two 3 x 3 convolutions see 5 x 5."
assert receptive_field([(7, 2), (3, 2)]) == 11, (
    "The stem of ResNet-50 with its pooling sees 11 x 11."
)
blocks = 6  # 3 x 3 convolutions of the lite regressor
assert len(lite_layers) == 1 + blocks, (
    f"Three blocks of two convolutions, after the stem: found {len(lite_layers)} "
    "layers."
)
net = make_regressor("lite").eval()  # the truth, from the gradient of one place
long = torch.zeros(1, 4, 480, 480, requires_grad=True)
at = net.stages(net.stem(long + torch.randn(long.shape)))
at[0, :, 7, 7].sum().backward()
rows = long.grad.abs().sum(dim=(0, 1, 3)).nonzero()
side = int(rows.max() - rows.min()) + 1
assert receptive_field(lite_layers) == side, (
    f"{receptive_field(lite_layers)} pixels; the gradient says {side}."
)
print(f"✓ {side} pixels: wider than the crop of 120")

# %% [markdown]
# ### Exercise 8.4 · A file from elsewhere
#
# A colleague sends you the weights of a lite regressor as a dictionary `sent`. It was trained on two GPUs,
# with OpenCV's channel order. Turn it into one that `load_state_dict` accepts and that gives the right
# predictions for `train.inputs()`. Do not change `sent` itself.

# %% tags=["exercise"]
sent = {
    f"module.{name}": value.clone() for name, value in network.state_dict().items()
}
sent["module.stem.0.weight"] = sent["module.stem.0.weight"][:, [2, 1, 0, 3]]


def translate(sent):
    """The same weights with this package's names and channel order."""
    return network.state_dict()


# %% tags=["solution"]
def translate(sent):
    """The same weights with this package's names and channel order."""
    state = {name.removeprefix("module."): value for name, value in sent.items()}
    state["stem.0.weight"] = state["stem.0.weight"][:, [2, 1, 0, 3]]  # a new tensor
    return state


# %% tags=["check"]
before = {name: value.clone() for name, value in sent.items()}
other = {name: value.clone() for name, value in sent.items()}
other["module.fc.bias"] += 1
received = make_regressor("lite").eval()
received.load_state_dict(translate(other))
with torch.no_grad():
    difference = received(few) - network.eval()(few) - 1
assert (difference + 1).abs().max() > 1e-3, (
    "These are not the weights that were sent."
)
assert difference.abs().max() < 1e-3, (
    "Different predictions: in what order are the channels?"
)
translate(sent)
assert all(torch.equal(before[name], sent[name]) for name in before), (
    "sent was changed."
)
print("✓ and no picture had to be permuted")

# %% [markdown]
# ## Further reading
#
# {cite:t}`he2016deep` on residual networks is still a pleasure to read. {cite:t}`ioffe2015batch` introduced
# batch normalisation. {cite:t}`zhu2016face` were the first to regress these coefficients with a network; they
# feed its estimate back as a picture (PNCC) instead of a landmark map. {cite:t}`guo2020towards` do without
# such a channel and use MobileNet. {cite:t}`tu2021assisted`, section 3, describes the network of this
# chapter.
