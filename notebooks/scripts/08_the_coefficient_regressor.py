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
# **Time** 40 minutes to read; about 60 s on a CPU, no GPU needed.

# %% tags=["install"]
# On a machine without the package (Google Colab, for example), fetch it first. Elsewhere this does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("twodasl_lite") is None:
    package = "twodasl_lite[book] @ git+https://github.com/twodasl-lite/twodasl_lite@main"
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
from twodasl_lite.coefficients import CoefficientLayout, Whitening
from twodasl_lite.data.faces import FaceBatch
from twodasl_lite.data.synthetic import TEST_SEED, SyntheticFaces, whitening_of
from twodasl_lite.decode import decode, decode_landmarks
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.landmarks import landmark_map
from twodasl_lite.morphable import load_face_model
from twodasl_lite.networks import count_parameters, load_released, make_regressor
from twodasl_lite.networks.resnet import BasicBlock, Bottleneck
from twodasl_lite.viz.palette import CATEGORICAL

# %%
model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components


def pictures(world, count, seed=0):
    """So many pictures of a world, with everything that is known about them."""
    faces = SyntheticFaces(model, world, seed=seed)
    parts = [faces.batch(start, 64, truth=True) for start in range(0, count, 64)]
    return FaceBatch.cat(parts)


train = pictures("labelled", 512)
test = pictures("labelled", 128, TEST_SEED)
wild = pictures("wild", 128, TEST_SEED)  # nobody trains on these in this chapter
whitening = whitening_of(model, "labelled")
print(f"in: {tuple(train.inputs().shape[1:])}, out: {whitening.mean.shape[0]} numbers")

# %% [markdown]
# The regressor $G$ of 2DASL {cite:p}`tu2021assisted` is a function of four channels: red, green, blue, and the
# {term}`landmark map` of chapter 7. What it gives back are the whitened {term}`coefficients` of chapter 3. Decoding
# them needs no learning, so that is all.

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 5, figsize=(8, 2.1), layout="constrained")
channels = train.inputs()[1]
for axes, channel, name in zip(panels, channels, ("red", "green", "blue", "landmark map"), strict=False):
    axes.imshow(channel, cmap="gray", vmin=-1, vmax=1)
    axes.set_title(name, fontsize=10)
panels[4].set_title("decoded: 62 numbers", fontsize=10)
vertices = decode(train.coefficients[1:2], model)[0]
viz.shaded_mesh(panels[4], vertices, model.triangles, frame="pixels")
panels[4].set(xlim=(-0.5, 119.5), ylim=(119.5, -0.5))
for axes in panels:
    axes.axis("off")


# %% [markdown]
# **Figure 8.1.** The four inputs, and the answer that belongs to them. *Ask yourself* which of the four you would
# keep if you could keep only one.

# %% [markdown]
# ## Three small parts
#
# **Convolution.** Each output channel $o$ is a sum over a small window, $k \times k$, with the same weights at every
# place. With padding $p$ (zeros around the picture) and stride $s$ (take each $s$-th place only)
#
# $$ y_o(i, j) = \sum_{c} \sum_{u=0}^{k-1} \sum_{v=0}^{k-1} w_{o c u v}\; x_c(s\,i + u - p,\; s\,j + v - p) . $$
#
# A loop over the places would take minutes. A loop over the $k^2$ weights of the window is as easy to write: shift the
# picture, multiply, add.

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
            y = y + torch.einsum("oc,bchw->bohw", weight[..., u, v], x[..., rows, columns])
    return y


close = {"rtol": 1e-3, "atol": 1e-4}
torch.manual_seed(0)
few = train.inputs()[:8]
weight = torch.randn(6, 4, 7, 7)
torch.testing.assert_close(convolve(few, weight, 2, 3), F.conv2d(few, weight, stride=2, padding=3), **close)
print(tuple(convolve(few, weight, 2, 3).shape), "the 7 x 7 stem halves the picture")

# %% [markdown]
# What can such windows see? Four of them, made by hand: a blur, a difference from left to right, one from above to
# below, and one that adds up the fourth channel in its 7 × 7 pixels, so that a place learns of a landmark near it.

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
titles = ("blur", "left to right", "above to below", "a landmark near?")
for axes, picture, title in zip(panels, seen, titles, strict=True):
    reach = picture.abs().quantile(0.99) if title != titles[3] else None
    axes.imshow(picture, cmap="gray", vmin=None if reach is None else -reach, vmax=reach)
    axes.set_title(title, fontsize=10)
    axes.axis("off")


# %% [markdown]
# **Figure 8.2.** Four windows, sixty by sixty answers each. *Try* in a live notebook to make a window for the dark line
# between the lips. Nobody makes windows by hand any more; gradient descent does, sixty-four of them in the first layer.

# %% [markdown]
# **Normalisation.** If all of a layer's inputs become ten times as large, all that follow have to learn anew. Batch
# normalisation {cite:p}`ioffe2015batch` brings each channel to mean 0 and variance 1, over batch and places, and then
# lets the network choose its own scale $\gamma$ and shift $\beta$: $y = \gamma\,(x - \mu) / \sqrt{\sigma^2 +
# \varepsilon} + \beta$. During training, $\mu$ and $\sigma^2$ are those of the batch; for use, running means of them.
# Forgetting the switch between the two (`train()` and `eval()`) is perhaps the commonest bug of the trade.
#
# **Residual block.** {cite:t}`he2016deep` found that a deeper network can be *worse on its training set*, because a
# stack of layers finds it hard to learn to do nothing. So let it do nothing from the start, and learn the
# difference: $y = \operatorname{relu}(x + r(x))$. Where the block changes the size, a 1 × 1 convolution changes the
# size of $x$, too.

# %%
def normalise(x, layer):
    """Batch normalisation of x (B, C, H, W) with a layer's parameters and mode."""
    mean, variance = layer.running_mean, layer.running_var
    if layer.training:
        mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
    scale = layer.weight / (variance + layer.eps).sqrt()  # (C,)
    return (x - mean[:, None, None]) * scale[:, None, None] + layer.bias[:, None, None]


def basic_block(x, block, stride):
    """relu(x + r(x)), with the weights of one of the package's blocks."""
    r = convolve(x, block.conv1.weight, stride, padding=1)
    r = normalise(r, block.bn1).relu()
    r = normalise(convolve(r, block.conv2.weight, padding=1), block.bn2)
    if block.downsample is not None:
        x = convolve(x, block.downsample[0].weight, stride)
        x = normalise(x, block.downsample[1])
    return (x + r).relu()


with torch.no_grad():
    for stride, channels in ((1, 16), (2, 24)):
        block, x = BasicBlock(16, channels, stride, nn.BatchNorm2d), torch.randn(4, 16, 30, 30)
        for mode in (True, False):
            expected = block.train(mode)(x)
            torch.testing.assert_close(basic_block(x, block.train(mode), stride), expected, **close)
        print(f"16 to {channels} channels, stride {stride}: the package's block, in both modes")


# %% [markdown]
# What does the $x +$ do for learning? The gradient of $x + r(x)$ is one plus something: it cannot get lost on its way
# back. We stack blocks with and without the shortcut, fresh from their initialisation, and compare the gradient that
# arrives at the first layer with the one that set out at the last.

# %%
def gradient_growth(depth, shortcut):
    """Length of the gradient at the input over that at the output of fresh blocks."""
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


growth = {kind: [gradient_growth(depth, kind == "with") for depth in (1, 4, 16, 32)] for kind in ("with", "without")}
print("blocks:             1      4     16     32")
for kind, row in growth.items():
    print(f"{kind:>8} shortcut: " + "  ".join(f"{value:<5.3g}" for value in row))
assert growth["without"][-1] > 10 * growth["with"][-1]


# %% [markdown]
# Without shortcuts the gradient at the first layer is *enormous* and depends on everything; no learning rate suits both
# ends. (Normalisation turned the vanishing of old into exploding.) With them it grows slowly. In a network of *three*
# blocks, though, this hardly matters: our own
# [measurements](https://github.com/twodasl-lite/twodasl_lite/tree/main/benchmarks) of the small network below found no
# gain.
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
assert three == sum(p.numel() for n, p in Bottleneck(256, 64, 1, nn.BatchNorm2d).named_parameters() if "conv" in n)


# %% [markdown]
# Now the whole. Four stages of 3, 4, 6 and 3 bottlenecks; a stage's first block makes the picture smaller, and the
# channels more. The first convolution takes four channels in place of three, the last layer gives 62 numbers in place
# of a thousand classes. A network is nothing but its weights and an order of operations. Here is the order, by hand;
# the weights come from the package, under the names that torchvision gave them and that everybody has used since.

# %%
def resnet50(x, state, sizes):
    """ResNet-50 of 2DASL from a dictionary of its weights, for use (not for training)."""

    def conv_norm(x, conv, norm, stride=1, padding=0):
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        kept = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *kept)

    x = conv_norm(x, "conv1", "bn1", 2, 3).relu()
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    sizes.append(("stem", x.shape))
    for stage, (depth, stride) in enumerate(zip((3, 4, 6, 3), (1, 2, 2, 1), strict=True), start=1):
        for index in range(depth):
            here, step = f"layer{stage}.{index}", stride if index == 0 else 1
            r = conv_norm(x, f"{here}.conv1", f"{here}.bn1").relu()
            r = conv_norm(r, f"{here}.conv2", f"{here}.bn2", step, 1).relu()
            r = conv_norm(r, f"{here}.conv3", f"{here}.bn3")
            if index == 0:
                x = conv_norm(x, f"{here}.downsample.0", f"{here}.downsample.1", step)
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
# The last stage has stride **1** in the released code, where the ResNet of the paper that named it has 2. For a crop of
# 120 pixels that is no detail: with stride 2 its map would be 4 × 4, and the 7 × 7 average at the end, made for
# pictures of 224 pixels, would not fit in. With stride 1 it is 8 × 8, and the average takes its upper left 7 × 7
# places; the last row and column are computed and thrown away. That is how it was trained, so that is how it must be
# run.

# %%
parts = {"stem": ("conv1", "bn1")} | {f"stage {k}": (f"layer{k}.",) for k in (1, 2, 3, 4)} | {"head": ("fc",)}
counts = {
    part: sum(p.numel() for name, p in network.named_parameters() if name.startswith(prefixes))
    for part, prefixes in parts.items()
}
print("  ".join(f"{part} {count:,}" for part, count in counts.items()))
total = count_parameters(network)
assert sum(counts.values()) == total == 23_638_206
classes = total - counts["head"] + 2048 * 1000 + 1000 - weights(7, 1, 64)
print(
    f"together {total / 1e6:.2f} million; with 3 channels and 1,000 classes {classes / 1e6:.2f} million, as published"
)

# %% [markdown]
# Two thirds of the parameters are in the last stage. The fourth channel costs 3,136.
#
# ## A network for this book
#
# ResNet-50 learns from two dozen pictures a second on two CPU cores. So we have a *lite* regressor; it is ours, not the
# paper's. It makes the picture small at once (one convolution, 8 × 8, stride 4), has three residual blocks, and keeps
# the last 4 × 4 map place by place instead of averaging it. *Where* something is seen tells more about pose than
# *whether* it is.

# %%
lite = make_regressor("lite").eval()
seconds = {}
with torch.no_grad():
    for name, net in (("resnet50", network), ("lite", lite)):
        net(few)
        start = time.perf_counter()
        net(few)
        seconds[name] = time.perf_counter() - start
        millions, time_each = count_parameters(net) / 1e6, 1e3 * seconds[name] / len(few)
        print(f"{name:9} {millions:5.2f} million parameters, {time_each:6.1f} ms a picture")
    x = lite.stem(few)
    print("lite's maps:", tuple(x.shape[1:]), *(tuple((x := stage(x)).shape[1:]) for stage in lite.stages))

# %% [markdown]
# ## Does whitening matter?
#
# Training is the loop that you know: predict, compare, take the gradient, step. To compare we take the plainest of all
# losses, the mean square of the difference between what comes out and what should. (Chapter 9 asks whether that is
# wise.) Should the network give the numbers of $\mathbf c$ as they are, only centred, or *whitened*? Look at their
# sizes.

# %%
names = model.layout.names
shown = ["pose[0,0]", "pose[0,2]", "pose[0,3]", "pose[2,3]", "shape[0]", "expression[0]"]
print("                mean   deviation   share of the squared deviations")
share = whitening.std.square() / whitening.std.square().sum()
for name in shown:
    k = names.index(name)
    print(f"{name:14} {whitening.mean[k]:6.2f} {whitening.std[k]:10.3f} {share[k]:12.2%}")
shift = [names.index(f"pose[{row},3]") for row in range(3)]
print(f"three shifts together: {share[shift].sum():.0%} of what a network without whitening is asked for")

# %% [markdown]
# The turn of the head, `pose[0,2]`, would be a few hundredths of a per cent of the loss. A network could call every
# face frontal, and its loss would hardly notice. And the mean of `pose[0,3]` is 60, while a fresh network answers with
# zero.
#
# ## Four trainings
#
# We train four times, with the same pictures, seed and number of steps: raw numbers; whitened ones; whitened with the
# *Gaussian* landmark map instead of the binary one; and whitened without any map (the fourth channel is then $-1$
# everywhere). 140 steps of 32 pictures are far too few, and enough to see differences.

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
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    sets = {"training": faces.take(slice(0, 128)), "unseen": test, "wild": wild}
    sets = {name: (inputs_of(batch, kind), batch) for name, batch in sets.items()}
    x, answers = inputs_of(faces, kind), whitening.whiten(faces.coefficients)
    log = []
    for step in range(steps + 1):
        if step % EVERY == 0:
            log.append([float(percent(predict(network, whitening, a), b).mean()) for a, b in sets.values()])
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
final["always the mean face"] = [percent(mean_face.expand(b.size, -1, -1), b).mean() for b in (test, wild)]
print("NME in %                unseen labelled   wild")
for name, (labelled_error, wild_error) in final.items():
    print(f"{name:22} {labelled_error:16.1f} {wild_error:6.1f}")
assert final["raw, binary map"][0] > 2 * final["whitened, binary map"][0]
assert final["whitened, binary map"][0] < final["always the mean face"][0]

# %% tags=["hide-input"]
fig = make_subplots(1, 2, shared_yaxes=True, subplot_titles=("unseen labelled", "wild"), horizontal_spacing=0.04)
for colour, (name, (_, log)) in zip(CATEGORICAL, trained.items(), strict=False):
    for column in (1, 2):
        line = {"color": colour}
        values = {"x": np.arange(len(log)) * EVERY, "y": log[:, column].round(2), "name": name, "legendgroup": name}
        fig.add_scatter(**values, mode="lines", line=line, showlegend=column == 1, row=1, col=column)
ticks = [3, 5, 10, 20, 50, 100]
fig.update_yaxes(type="log", range=[0.4, 2.15], tickvals=ticks)
fig.update_yaxes(title="NME (%)", row=1, col=1)
fig.update_xaxes(title="step")
fig.update_layout(height=420, margin={"l": 60, "r": 15, "t": 40, "b": 50}, legend={"orientation": "h", "y": -0.25})
fig

# %% [markdown]
# **Figure 8.3.** Error on pictures that the network has not seen, as training goes on (logarithmic). *Look for* the
# training that has hardly got as far as the mean face. *Compare* the two maps with none, on the left and on the right.
# *Try*, in a live notebook, to centre without scaling: `Whitening(whitening.mean, torch.ones(62))`.

# %% [markdown]
# *Whitening* decides. Raw numbers make a network spend its time on finding out that faces are in the middle of the
# picture. Whitened, all coefficients count the same, and a few seconds get somewhere. It is not the last word: counting
# the same is not what coefficients deserve, and chapter 9 does better.
#
# The *binary map* is a surprise: with it, the network is hardly better than without. Is it used at all? There is a
# simple test, for any input of any network: change the input, and see whether the answer changes. We push the points of
# the map to the side, and leave the photo where it is.

# %%
pushes = list(range(-16, 17, 2))


def pushed(name, push):
    """Landmarks (B, 68, 3) of a network when the map alone is moved by so many pixels."""
    network, kind = trained[name][0], kinds[name][1]
    x = test.inputs()
    moved = test.detected + torch.tensor([float(push), 0.0])
    x[:, 3:] = landmark_map(moved, test.detected_visible, kind=kind)
    return predict(network, whitening, x)


answers, follow = {}, {}
print("map moved by      " + "".join(f"{push:6}" for push in pushes[::4]) + "  pixels")
for name in ("whitened, binary map", "whitened, Gaussian map"):
    answers[name] = {push: pushed(name, push) for push in pushes}
    follow[name] = {push: float((answers[name][push] - answers[name][0])[..., 0].mean()) for push in pushes}
    print(f"{name.split(', ')[1]:12} face" + "".join(f"{follow[name][push]:6.1f}" for push in pushes[::4]))
assert follow["whitened, Gaussian map"][8] > 3 * abs(follow["whitened, binary map"][8])

# %% [markdown]
# The binary map is nearly ignored: 18 of 14,400 pixels are too faint a signal for a network that has just begun. The
# Gaussian one speaks louder, and is heard. (With time the binary map is found, too: the networks of chapter 14, after a
# thousand steps, follow it by a quarter to a third of its way. The published network was trained with it, for much
# longer.)
#
# Being heard has a price. What if the detector finds no face, so that the map is empty?

# %%
network = trained["whitened, Gaussian map"][0]
blind = {
    name: float(percent(predict(network, whitening, inputs_of(b, None)), b).mean())
    for name, b in (("unseen labelled", test), ("wild", wild))
}
for (name, error), usual, never in zip(
    blind.items(), final["whitened, Gaussian map"], final["whitened, no map"], strict=True
):
    print(f"{name:16} with its map {usual:5.1f} %, map empty {error:5.1f} %, never had one {never:5.1f} %")


# %% tags=["hide-input"]
def jpeg(photo, scale=3):
    """A picture (3, H, W) for plotly, enlarged."""
    rgb = cv2.resize(photo.permute(1, 2, 0).numpy(), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    source = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return go.Image(source=source, dx=1 / scale, dy=1 / scale, x0=-1 / 3, y0=-1 / 3, hoverinfo="skip")


def marks(push, index):
    """The pushed map's points and the answer, as lists."""
    spots = test.detected[index] + torch.tensor([float(push), 0.0])
    for points in (spots, answers["whitened, Gaussian map"][push][index][:, :2]):
        x, y = points.numpy().round(1).T
        yield {"x": x.tolist(), "y": y.tolist()}


# %% tags=["hide-input"]
chosen = (1, 6)
fig = make_subplots(1, 2, horizontal_spacing=0.03)
styles = ({"size": 7, "color": "#F0E442", "line": {"width": 1, "color": "black"}}, {"size": 4, "color": "#56B4E9"})
for column, index in enumerate(chosen, start=1):
    fig.add_trace(jpeg(test.images[index]), 1, column)
    for values, style, name in zip(marks(0, index), styles, ("map", "answer"), strict=True):
        look = {"mode": "markers", "marker": style, "name": name, "showlegend": column == 1, "hoverinfo": "skip"}
        fig.add_trace(go.Scatter(values, **look), 1, column)
frames = {push: [go.Scatter(v) for index in chosen for v in marks(push, index)] for push in pushes}
fig.frames = [go.Frame(data=data, traces=[1, 2, 4, 5], name=str(push)) for push, data in frames.items()]
play = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
steps = [{"label": f"{push}", "method": "animate", "args": [[str(push)], play]} for push in pushes]
slider = {"active": len(pushes) // 2, "steps": steps, "currentvalue": {"prefix": "map moved by (pixels): "}}
fig.update_xaxes(range=[-0.5, 119.5], visible=False)
fig.update_yaxes(range=[119.5, -0.5], visible=False)
fig.update_layout(height=430, margin={"l": 5, "r": 5, "t": 10, "b": 10}, sliders=[slider])
fig.update_layout(legend={"orientation": "h", "y": 1.08})
fig

# %% [markdown]
# **Figure 8.4.** The photo stays, the map moves: the network with the Gaussian map. *Try* to move it far: does the
# answer follow the points, stay with the photo, or stop on the way? *Ask yourself* what that means for a picture on
# which the detector failed.

# %% [markdown]
# A network that has learnt to lean on the map falls when it is taken away, deeper than one that never had it. Three
# remedies: train with the detector's real noise (chapter 7 did), hide the map in a share of the training pictures
# (`map_dropout`, chapter 14), and look twice: an empty map first, then the map of the network's own first answer
# ({py:func}`twodasl_lite.prediction.predict`).
#
# ## Learning curves
#
# Is 512 pictures enough? The same training again, with the first 64 of them only.

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
    axes.plot(steps, log[:, 0], "--", color=colour, label=f"{name}: on those trained with")
    axes.plot(steps, log[:, 1], color=colour, label=f"{name}: unseen")
axes.set(yscale="log", xlabel="step", ylabel="NME (%)", ylim=(0.15, 25))
ticks = (0.2, 0.5, 1, 2, 5, 10, 20)
axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
axes.set_yticks([], minor=True)
axes.spines[["top", "right"]].set_visible(False)
_ = axes.legend(frameon=False, fontsize=9)


# %% [markdown]
# **Figure 8.5.** Two learning curves. *Look for* the distance between the dashed and the solid line of a colour: what a
# network has learnt by heart. It grows when pictures are few. More steps would not close it; more pictures do.

# %% [markdown]
# ## Faces, at last
#
# Numbers hide what pictures show. The network's answers, decoded and drawn over pictures that it has not seen:

# %% tags=["hide-input"]
def show_faces(panels, batch, chosen):
    with torch.no_grad():
        raw = whitening.unwhiten(network.eval()(batch.inputs("gaussian")[chosen]))
    error = percent(decode_landmarks(raw, model), batch.take(chosen))
    for (above, below), index, vertices, value in zip(panels.T, chosen, decode(raw, model), error, strict=True):
        photo = batch.images[index].permute(1, 2, 0)
        above.imshow(photo)
        viz.overlay(below, photo, vertices, model.triangles, alpha=0.75)
        below.text(60, 130, f"{value:.1f} %", ha="center", fontsize=9)
        for axes in (above, below):
            axes.set(xlim=(-0.5, 119.5), ylim=(119.5, -0.5))
            axes.axis("off")


figure, panels = plt.subplots(2, 6, figsize=(8, 3.1), layout="constrained")
show_faces(panels, test, [0, 1, 2, 3, 4, 5])

# %% [markdown]
# **Figure 8.6.** Six pictures of the labelled world, the first six and not the best, with the NME of each below. *Look
# for* what is met (place, size, tilt, turn) and what is not: would you know the person again? And who opens the mouth?

# %% [markdown]
# The wild world has other heads: turned, in bad light, half hidden. The network has never seen one.

# %%
table = summarise(percent(predict(network, whitening, wild.inputs("gaussian")), wild), wild.yaw, intervals=False)
print("NME on wild pictures:")
for name, value, count in zip(("to 30°", "30° to 60°", "beyond 60°"), table.bins, table.counts, strict=True):
    print(f"  {name:11} {value:5.1f} %  ({count} pictures)")
assert table.bins[2] > 2 * table.bins[0]

# %% tags=["hide-input"]
order = wild.yaw.abs().argsort()
chosen = order[torch.linspace(4, len(order) - 6, 6).long()].tolist()
figure, panels = plt.subplots(2, 6, figsize=(8, 3.1), layout="constrained")
show_faces(panels, wild, chosen)

# %% [markdown]
# **Figure 8.7.** Six wild pictures, from frontal to profile. *Look at* where the noses point. A network answers what
# its training set has taught it to, and that set had no profile.

# %% [markdown]
# Why not label some profiles? Because that is what cannot be done: fitting a model to them fails. What does exist for
# them is eighteen points. How these can teach 3D is the subject of chapters 10 to 14.
#
# ## Weights of others
#
# The authors published two checkpoints of ResNet-50. Three things stand between such a file and a prediction, and all
# three give no error message, only bad faces:
#
# 1. the names begin with `module.`, since the network was wrapped for several GPUs;
# 2. it has seen pictures as OpenCV reads them, **blue first**;
# 3. its outputs are whitened with the mean and deviation of *its* training set, for *its* face model, the Basel one.
#
# {py:func}`twodasl_lite.networks.load_released` takes care of the first two: it drops the prefix, and turns the
# *weights* of the first layer from blue-green-red to red-green-blue, once, so that nobody has to turn pictures. We
# write a file in the released format, with random weights, and read it back.

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
print(f"RGB into the loaded = BGR into the original; the wrong order changes the answer by {wrong:.0%}")

# %% [markdown]
# Reading is safe: the file is read with `weights_only=True`, which admits tensors and plain containers but no code. A
# `.pth` file from the web, read without it, may run any program on your machine. Our own networks are kept as
# safetensors, together with their whitening and the kind of map ({py:func}`twodasl_lite.networks.save_regressor`). For
# other programs and languages there is ONNX:

# %% tags=["live-only"]
from twodasl_lite.networks import export_onnx

# Needs the extra "onnx". Runs the file with onnxruntime before it keeps it; with the whitening, out come raw numbers.
print("largest difference:", export_onnx(network, "regressor.onnx", whitening=whitening))


# %% [markdown]
# ## Summary
#
# * A convolution is a shifted, weighted sum; normalisation keeps sizes in order; the shortcut keeps gradients in order.
# * 2DASL's regressor is ResNet-50 with four input channels, a last stage of stride 1, and 62 outputs: 23.64 million
#   parameters.
# * Whitening gives each coefficient one size. Without it, a few shifts are all that the loss sees.
# * Whether a network uses an input is measured by changing the input. A binary map is found late, a Gaussian one soon;
#   once used, it is missed.
# * Few pictures are learnt by heart; a narrow world is not left.
# * A checkpoint is weights, names, channel order, whitening and face model together.
#
# The layout of ResNet-50 and its map are those of the released code; the lite regressor is ours.
#
# ## Exercises
#
# ### Exercise 8.1 · How many in a stage?
#
# Write down the number of parameters of a stage of bottlenecks: convolutions without bias, two numbers per channel for
# each normalisation, and a shortcut with a 1 × 1 convolution and a normalisation in the first block only.

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
assert mine[0] != truth[0] - short, "The shortcut of the first block has parameters, too."
assert mine == truth, f"Off by {[a - b for a, b in zip(mine, truth, strict=True)]} in the four stages."
print(f"✓ {sum(mine):,} of {total:,} parameters are in the four stages")


# %% [markdown]
# ### Exercise 8.2 · A normalisation that costs nothing
#
# In use, batch normalisation is a fixed scale and shift per channel. So is part of a convolution. Fold the two into one
# convolution with a bias.

# %% tags=["exercise"]
def fold(conv, norm):
    """Weight and bias of one convolution that does what conv and then norm do (in use)."""
    return conv.weight, torch.zeros(len(conv.weight))


# %% tags=["solution"]
def fold(conv, norm):
    """Weight and bias of one convolution that does what conv and then norm do (in use)."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


# %% tags=["check"]
conv, norm = network.stem[0], network.stem[1].eval()
with torch.no_grad():
    weight, bias = fold(conv, norm)
    folded, wanted = F.conv2d(few, weight, bias, stride=4, padding=2), norm(conv(few))
assert folded.shape == wanted.shape, f"Found {tuple(folded.shape)}, expected {tuple(wanted.shape)}."
error = float((folded - wanted).abs().max())
shift = (folded - wanted).mean(dim=(0, 2, 3), keepdim=True)
assert error < 1e-3 or (folded - wanted - shift).abs().max() > 1e-3, "The scale is right, the shift is not."
assert error < 1e-3, f"Off by up to {error:.3g}."
print(f"✓ the same to {error:.0e}, with one operation less")

# %% [markdown]
# ### Exercise 8.3 · How far does a place see?
#
# A place of a layer's output depends on a window of the picture, its *receptive field*. Through a layer with kernel $k$
# and stride $s$ the window $r$ grows to $r + (k - 1)\,j$, where $j$ is the distance, in pixels, of neighbouring places
# before this layer; $j$ then becomes $j s$. Compute $r$ after a list of layers, and find the receptive field of one
# place of the lite regressor's last map.

# %% tags=["exercise"]
lite_layers = [(8, 4)]  # kernel and stride along the longest path, the stem first


def receptive_field(layers):
    """Side in pixels of what one place sees, after layers of (kernel, stride)."""
    return 1


# %% tags=["solution"]
lite_layers = [(8, 4)] + 3 * [(3, 2), (3, 1)]


def receptive_field(layers):
    """Side in pixels of what one place sees, after layers of (kernel, stride)."""
    field, distance = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * distance
        distance *= stride
    return field


# More than the whole picture: the middle places see nearly all of it.

# %% tags=["check"]
assert receptive_field([(3, 1), (3, 1)]) == 5, "Two 3 x 3 convolutions see 5 x 5."
assert receptive_field([(7, 2), (3, 2)]) == 11, "The stem of ResNet-50 with its pooling sees 11 x 11."
blocks = 6  # 3 x 3 convolutions of the lite regressor
assert len(lite_layers) == 1 + blocks, (
    f"Three blocks of two convolutions, after the stem: found {len(lite_layers)} layers."
)
net = make_regressor("lite").eval()  # the truth, from the gradient of one place
long = torch.zeros(1, 4, 480, 480, requires_grad=True)
at = net.stages(net.stem(long + torch.randn(long.shape)))
at[0, :, 7, 7].sum().backward()
rows = long.grad.abs().sum(dim=(0, 1, 3)).nonzero()
side = int(rows.max() - rows.min()) + 1
assert receptive_field(lite_layers) == side, f"{receptive_field(lite_layers)} pixels; the gradient says {side}."
print(f"✓ {side} pixels: wider than the crop of 120")

# %% [markdown]
# ### Exercise 8.4 · A file from elsewhere
#
# A colleague sends you the weights of a lite regressor as a dictionary `sent`. It was trained on two GPUs, with
# OpenCV's channel order. Turn it into one that `load_state_dict` takes and that gives the right answers for
# `train.inputs()`. Leave `sent` itself as it is.

# %% tags=["exercise"]
sent = {f"module.{name}": value.clone() for name, value in network.state_dict().items()}
sent["module.stem.0.weight"] = sent["module.stem.0.weight"][:, [2, 1, 0, 3]]


def translate(sent):
    """Names and weights as this package has them."""
    return network.state_dict()


# %% tags=["solution"]
def translate(sent):
    """Names and weights as this package has them."""
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
assert (difference + 1).abs().max() > 1e-3, "These are not the weights that were sent."
assert difference.abs().max() < 1e-3, "Other answers: in what order are the channels?"
translate(sent)
assert all(torch.equal(before[name], sent[name]) for name in before), "sent was changed."
print("✓ and nobody had to turn a picture")

# %% [markdown]
# ## Further reading
#
# {cite:t}`he2016deep` on residual networks, still a pleasure to read. {cite:t}`ioffe2015batch` on batch normalisation.
# {cite:t}`zhu2016face` were the first to let a network regress these coefficients; they feed its answer back as a
# picture (PNCC), in place of a landmark map. {cite:t}`guo2020towards` do without any such channel and use MobileNet.
# {cite:t}`tu2021assisted`, section 3, is the network of this chapter.
