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
# # Cycle consistency
#
# *From two dimensions to three and back to two: do the landmarks return to where they began?*
#
# **You need** [chapter 11](11_landmark_consistency_3d.ipynb) (two looks, and how far an answer follows its map) and
# [chapter 10](10_landmark_consistency_2d.ipynb) (2D landmarks as teachers).
#
# **After this chapter you can**
#
# - write the cycle loss with its mask, and say how it differs from the two losses before it,
# - say what it shares with CycleGAN and with forward–backward tracking, and what it does not,
# - measure whether a network reads the picture or copies the map,
# - run the network without any detector, and say what a second look brings, and what a fifth,
# - use the cycle's error as a warning, and report what training with it changed.
#
# **Time** 35 minutes to read; 85 s on a CPU, no GPU needed.

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
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import torch
from plotly.subplots import make_subplots

from twodasl_lite import viz
from twodasl_lite.camera import CROP_SIZE
from twodasl_lite.coefficients import CoefficientLayout
from twodasl_lite.decode import decode_landmarks
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.landmarks import landmark_map, subset_18
from twodasl_lite.losses import CycleConsistency, LandmarkConsistency2D, LandmarkConsistency3D, face_size
from twodasl_lite.morphable import load_face_model
from twodasl_lite.networks import load_regressor
from twodasl_lite.prediction import predict
from twodasl_lite.training.config import load_config
from twodasl_lite.training.loop import train
from twodasl_lite.training.pictures import pictures
from twodasl_lite.viz.palette import CATEGORICAL

model = load_face_model(CoefficientLayout())
runs = Path(tempfile.mkdtemp())
KIND = "gaussian"

# %% [markdown]
# The network of this chapter is that of chapter 11, trained again with the same settings: labelled pictures, and
# wild ones with 2D landmarks. A quarter of its training pictures came with an *empty* map, for a reason that we
# shall need.

# %%
SMALL = [
    f"network.map={KIND}",
    *("data.labelled.count=300", "data.unlabelled.count=400", "data.validation.count=200"),
    *("data.labelled.batch_size=16", "data.unlabelled.batch_size=16"),
    *(f"self_supervision.{name}=0" for name in ("landmarks_3d", "cycle", "critic")),  # landmarks_2d stays on
    *("stages.0.steps=200", "stages.1.steps=40", "run.validate_every=1000", "optimiser.ema=0.97"),
]


def trained(name, *settings):
    """Train the lite regressor; settings come after those above and win."""
    config = load_config("lite-cpu", [*SMALL, *settings])
    train(config, runs / name, progress=False)
    return load_regressor(runs / name / "last.safetensors")


base = trained("base")
G, whitening = base.network.eval(), base.whitening
test = pictures(load_config("lite-cpu", SMALL).data.validation, model)  # wild faces, with their truth
pixels = test.inputs()[:, :3]  # (B, 3, 120, 120) normalised RGB
x, m = test.detected, test.detected_visible  # what the detector reports
truth = test.landmarks


# %% [markdown]
# ## There and back
#
# Chapter 11 compared the second answer with the first. Now close the circle. We began with detected points $\mathbf
# x$, in 2D. The network lifted them, with the help of the picture, to a face in 3D. Its landmarks, forgetting their
# depth, were drawn and lifted once more, and forgetting depth once more gives
#
# $$\mathbf x \;\to\; \hat{\mathbf X}_1 \;\to\; \hat{\mathbf x}_1 \;\to\; \hat{\mathbf X}_2 \;\to\; \hat{\mathbf x}_2,
# \qquad L_{\text{cycle}} = \frac{\sum_i m_i \lVert \hat{\mathbf x}_{2,i} - \mathbf x_i \rVert^2}{s^2 \sum_i m_i}.$$
#
# The mask $m$ leaves out points that the detector did not report, and $s$ is the size of the box around those it
# did. (The idea is the paper's {cite:p}`tu2021assisted`; norm, mask and unit are ours.)

# %%
@torch.no_grad()
def look(network, points, visible=None, images=pixels):
    """One look at the test pictures with points (B, 18, 2) in the map: 68 landmarks (B, 68, 3)."""
    drawn = landmark_map(points, visible, CROP_SIZE, KIND)  # (B, 1, 120, 120)
    answer = network(torch.cat([images, drawn.to(images)], dim=1))  # (B, 62) whitened
    return decode_landmarks(whitening.unwhiten(answer), model)


def two_looks(network, points=x, visible=m):
    """The two answers, and their 18 points: X1, x1, X2, x2."""
    X1 = look(network, points, visible)
    x1 = subset_18(X1[..., :2])
    X2 = look(network, x1)
    return X1, x1, X2, subset_18(X2[..., :2])


# %%
def cycle_loss(x2, x, m):
    """Mean squared distance (B,) of the reported points, in squared face sizes."""
    losses = []
    for returned, start, seen in zip(x2, x, m):
        start, returned = start[seen], returned[seen]  # what is not reported may be NaN: away with it first
        extent = start.amax(dim=0) - start.amin(dim=0)
        losses.append((returned - start).square().sum(dim=-1).mean() / extent.prod())
    return torch.stack(losses)


X1, x1, X2, x2 = two_looks(G)
torch.testing.assert_close(cycle_loss(x2, x, m), CycleConsistency()(x2, x, m))
L2D, CYCLE = LandmarkConsistency2D(), CycleConsistency()
for name, value in {
    "2D, first look": L2D(x1, x, m),
    "3D, second against first": LandmarkConsistency3D()(X2, X1),
    "cycle": CYCLE(x2, x, m),
}.items():
    print(f"{name:>25}: {100 * float(value.sqrt().mean()):.2f} % of the face's size")

# %% tags=["hide-input"]
spread = CYCLE(x2, x, m).sqrt()
shown = spread.argsort(descending=True)[[4, 30, 100, 180]].tolist()
fig, axes = plt.subplots(2, 2, figsize=(6.4, 6.7), layout="constrained")
for ax, i in zip(axes.flat, shown):
    ax.imshow(test.images[i].permute(1, 2, 0))
    way = torch.stack([x[i], x1[i], x2[i]])[:, m[i]]  # (3, n, 2)
    ax.plot(way[..., 0].numpy(), way[..., 1].numpy(), color="white", linewidth=1)
    ax.scatter(*way[0].T, s=26, facecolors="none", edgecolors="white", linewidths=1.2, label="detected")
    ax.scatter(*way[1].T, s=9, color=CATEGORICAL[5], label="first answer")
    ax.scatter(*way[2].T, s=9, color=CATEGORICAL[4], label="second answer")
    ax.set_title(f"{100 * spread[i]:.1f} %", fontsize=10)
    ax.set(xlim=(0, 119), ylim=(119, 0), xticks=[], yticks=[])
_ = fig.legend(
    *axes[0, 0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=3,
    facecolor="#7F7F7F",
    labelcolor="white",
)


# %% [markdown]
# **Figure 12.1.** The way of the points: detected (circles), first answer (blue), second answer (orange). Above
# each face the root of its cycle loss. *Try* to find faces whose second step goes on in the direction of the first,
# and one where it turns back.

# %% [markdown]
# ## Three losses, one triangle
#
# The cycle is the 2D consistency of the *second* look. Its three points make a triangle: $\mathbf x$, $\hat{\mathbf
# x}_1$, $\hat{\mathbf x}_2$. One side is chapter 10's loss, one is chapter 11's (as far as 2D can see it), and the
# cycle is the third. So for the roots of the losses, over the same points and in the same unit,
#
# $$\sqrt{L_{\text{cycle}}} \;\le\; \sqrt{L_{2D}} + \sqrt{L_{12}}, \qquad L_{12} = \text{the distance between } \hat{\mathbf x}_2 \text{ and } \hat{\mathbf x}_1 .$$
#
# If the first two losses vanish, so does the third. Why train with it at all, then? Because nothing ever vanishes
# here, and the *gradients* differ: the cycle tells the network what to do when its input is not a detector's but
# its own first guess. This is the situation in which it will be when there is no detector.

# %%
def first_to_second(x1, x2, x, m):
    """The distance between the two answers, masked and measured as the others are."""
    return ((x2 - x1).square().sum(dim=-1) * m).sum(dim=-1) / m.sum(dim=-1) / face_size(x, m).square()


sides = L2D(x1, x, m).sqrt(), first_to_second(x1, x2, x, m).sqrt(), CYCLE(x2, x, m).sqrt()
assert bool((sides[2] <= sides[0] + sides[1] + 1e-6).all())
onwards = sides[2] > sides[0]
print(f"in {onwards.float().mean():.0%} of the faces the second answer is farther from the detector than the first")

# %% [markdown]
# Two famous relatives. **CycleGAN** {cite:p}`zhu2017unpaired` learns two networks at once, from horses to zebras
# and from zebras to horses, and asks that there and back is the identity. There both ways are learned, and the pair
# can cheat together: the first may hide in the zebra, in a pattern nobody sees, what the second needs to restore
# the horse {cite:p}`chu2017cyclegan`. Here the way back from 3D to 2D is *geometry*: project and forget the depth.
# Nothing can be hidden in 62 numbers that decode to a face. But depth itself goes unchecked, since the way back
# forgets it.
#
# **Forward–backward tracking** {cite:p}`kalal2010forward` follows a point through a video, then follows it
# backwards, and distrusts the track if it does not come home. No training: the cycle's error is a *warning*. We
# shall try both uses.
#
# ## The picture, or the map?
#
# There is a cheap way to a perfect cycle: copy. A network that puts the landmarks of its answer on the points of
# the map, whatever the picture shows, has $\hat{\mathbf x}_2 = \hat{\mathbf x}_1 = \mathbf x$, with every error of
# the detector in it. The loss says zero. So we must ask the network how much it trusts the map. Give it the *wrong*
# map: that of another face.

# %%
generator = torch.Generator().manual_seed(12)
other = torch.randperm(test.size, generator=generator)  # each picture gets somebody else's map
INPUTS = {"its own map": (x, m), "another face's map": (x[other], m[other]), "an empty map": (x, torch.zeros_like(m))}


def error(X, target=truth):
    """Mean NME in per cent, 2D."""
    return 100 * float(nme(X[..., :2], target[..., :2]).mean())


for name, (points, visible) in INPUTS.items():
    X = look(G, points, visible)
    print(
        f"{name:>18}: error {error(X):6.2f} %"
        + (f", against the map's owner {error(X, truth[other]):6.2f} %" if "another" in name else "")
    )


# %% [markdown]
# With somebody else's map the network is torn between two faces: the answer is off by much more than with its own,
# and also off from the map's owner. Let us put a number on it. On the way from the answer to its own map to that
# owner's face, how far does the answer to the wrong map go? The best share $\lambda$, in the sense of least squares
# over the landmarks, is
#
# $$\lambda = \frac{\langle \mathbf X_{\text{wrong}} - \mathbf X_{\text{own}},\; \mathbf X_{\text{owner}} - \mathbf X_{\text{own}} \rangle}{\lVert \mathbf X_{\text{owner}} - \mathbf X_{\text{own}} \rVert^2}.$$
#
# $\lambda = 0$: the picture alone counts; 1: the map alone. That is a brutal question: a map of another head, in
# another pose, contradicts the picture everywhere, as no detector would. Chapter 11 asked a gentle one, with a
# shift of three pixels.

# %%
def share_of_the_map(network, turn=other):
    """How much of the way to the owner of a wrong map the answers go: one number for all faces."""
    right = look(network, x, m)
    wrong = look(network, x[turn], m[turn])
    target = right[turn]  # what the network says of the map's owner
    off, way = (wrong - right)[..., :2], (target - right)[..., :2]
    return float((off * way).sum() / way.square().sum())


def lean(network, pixels_moved=3.0):
    """Share of a small shift of the own map that the answer makes too."""
    shift = torch.tensor([pixels_moved, 0.0])
    right, left = (look(network, x + sign * shift, m)[..., 0].mean() for sign in (1, -1))
    return float((right - left) / (2 * pixels_moved))


print(f"wrong map: the answer goes {share_of_the_map(G):.0%} of the way; small shift: {lean(G):.0%}")


# %% [markdown]
# ## Without a detector
#
# A quarter of the training pictures had an empty map, so the network can answer without one. That answer gives
# points; drawn, they make a map; and the network may look again. (The paper's network needs a detector. This way of
# doing without is ours; networks that correct their own guess are older {cite:p}`carreira2016human`.) The package's
# `predict` does the same if it is given no points.

# %%
def by_looks(network, most=6):
    """The answers (most, B, 68, 3) to pictures alone, by the number of looks."""
    answers = [look(network, x, torch.zeros_like(m))]  # an empty map
    while len(answers) < most:
        answers.append(look(network, subset_18(answers[-1][..., :2])))
    return torch.stack(answers)


alone = by_looks(G)
for k in (1, 3):
    theirs = predict(G, whitening, test.images[:20], looks=k, model=model, kind=KIND).landmarks
    torch.testing.assert_close(alone[k - 1][:20], theirs, rtol=1e-3, atol=1e-2)
print(f"with the detector:  {error(X1):.2f} %")
print("without, by looks: ", " ".join(f"{error(X):.2f}" for X in alone), "%")

# %% tags=["hide-input"]
gain = nme(alone[0][..., :2], truth[..., :2]) - nme(alone[-1][..., :2], truth[..., :2])
shown = [*gain.argsort(descending=True)[[2, 12]].tolist(), *gain.argsort()[[60, 2]].tolist()]


def png(image):
    """A picture (3, H, W) as the address of a small file."""
    data = cv2.imencode(".png", image.permute(1, 2, 0).flip(-1).numpy())[1]
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


# %% tags=["hide-input"]
fig = make_subplots(2, 2, horizontal_spacing=0.02, vertical_spacing=0.02)
for n, i in enumerate(shown):
    place = {"row": n // 2 + 1, "col": n % 2 + 1}
    fig.add_image(source=png(test.images[i]), hoverinfo="skip", **place)
    fig.update_yaxes(scaleanchor=f"x{n + 1}", **place)
    for points, name, colour, symbol in (
        (truth[i], "truth", "#ffffff", "circle-open"),
        (alone[0][i], "answer", CATEGORICAL[4], "circle"),
    ):
        look_of = {"color": colour, "symbol": symbol, "size": 6}
        values = dict(zip("xy", points[:, :2].T.numpy().round(1)))
        fig.add_scatter(
            **values, mode="markers", marker=look_of, name=name, showlegend=n == 0, hoverinfo="skip", **place
        )
steps = []
for k in range(len(alone)):
    values = {axis: [alone[k][i][:, c].numpy().round(1).tolist() for i in shown] for c, axis in enumerate("xy")}
    steps.append({"label": str(k + 1), "method": "restyle", "args": [values, [3 * n + 2 for n in range(4)]]})
fig.update_xaxes(visible=False, range=[0, 119], constrain="domain")
fig.update_yaxes(visible=False, range=[119, 0], constrain="domain")
fig.update_layout(
    height=760,
    margin={"l": 5, "r": 5, "t": 30, "b": 10},
    legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "bgcolor": "#7F7F7F", "font_color": "white"},
    sliders=[{"steps": steps, "currentvalue": {"prefix": "look "}, "pad": {"t": 10}}],
)
fig

# %% [markdown]
# **Figure 12.2.** Four faces without a detector. The first look has an empty map, each later one the answer before
# it. The first two faces gain by looking again, the last loses. *Try* to see when the points stop moving.

# %% [markdown]
# Why should a second look help, when it brings no new information about the face? Because the network is not
# equally good at both tasks. It has learned what to do with points: refine them. With an empty map it must find
# everything in one go; the first answer turns the hard question into the one that it knows better. But it knows a
# *detector's* points, whose errors are small. Those of its own first guess are larger, and of another kind. So the
# gain is small in the printed row, and more looks do not add to it: chapter 11 showed that a chain of looks forgets
# where it came from and settles on an answer that agrees with itself, right or not. The cycle loss trains just this
# situation, a map drawn by the network itself with the detector's points as the answer.
#
# ## A mask is a question
#
# Half the detector's points are missing now: all those on the left of the picture. The map shows the other half.
# The network answers with a whole face, because its answer *is* a whole face, and in the second look its own points
# fill the gap.

# %%
LEFT = torch.tensor([0, 1, 2, 6, 7, 8, 12, 15])  # of the 18: brow, eye, nostril and mouth on the left
half = m.clone()
half[:, LEFT] = False
exact = subset_18(truth[..., :2])


def error_of(points, where):
    """Mean error (%) of some of the 18 points, in sizes of the face."""
    distance = (points - exact).norm(dim=-1)[:, where] / face_size(exact)[:, None]
    return 100 * float(distance.mean())


for name, visible in {"all points": m, "without the left": half, "no point": torch.zeros_like(m)}.items():
    _, first, _, second = two_looks(G, x, visible)
    values = f"{error_of(first, LEFT):5.2f} %, second look {error_of(second, LEFT):5.2f} %"
    print(f"{name:>16}: error at the left points {values}")
torch.testing.assert_close(CYCLE(x2, torch.where(half[..., None], x, torch.nan), half), CYCLE(x2, x, half))
assert CYCLE(x2, x, torch.zeros_like(m)).eq(0).all()

# %% [markdown]
# The loss never sees a point that the mask leaves out, even if its coordinates are no numbers, and a face without
# any point costs nothing. So photographs in which half the face is hidden can still teach: the points that are
# there pull, the model carries the rest.
#
# For the *network* half a map is another matter. It has been shown whole maps and empty ones, never halves, and
# compare the second line with the third: for the half that is missing, the other half is hardly better than nothing.
# Where that matters, drop single points in training too. The second look, whose map is whole again, mends a part of it.
#
# ## With and without
#
# From our network we train on three times, the same pictures in the same order: as before; with the cycle; and with
# a cycle whose weight is far too large.

# %%
ON = [
    "stages.0.steps=50",
    "stages.1.steps=10",
    "stages.0.learning_rate=1e-3",
    "stages.0.warmup=10",
    f"network.weights={runs / 'base' / 'last.safetensors'}",
]
networks = {"base": G, "without": trained("without", *ON).network.eval()}
for name, weight in (("cycle", 100), ("cycle, far too large", 3000)):
    networks[name] = trained(name, *ON, f"self_supervision.cycle={weight}").network.eval()


# %%
def balanced(X, dimensions):
    return 100 * summarise(nme(X[..., :dimensions], truth[..., :dimensions]), test.yaw, intervals=False).balanced


without_detector = {name: by_looks(network, 5) for name, network in networks.items()}
print(f"{'':>20}    2D      3D      alone 1  alone 2   cycle   leans on the map")
measured = {}
for name, network in networks.items():
    first, _, _, back = two_looks(network)
    lonely = without_detector[name]
    row = (
        balanced(first, 2),
        balanced(first, 3),
        balanced(lonely[0], 2),
        balanced(lonely[1], 2),
        100 * float(CYCLE(back, x, m).sqrt().mean()),
        100 * lean(network),
    )
    measured[name] = row
    print(f"{name:>20}  " + " ".join(f"{value:5.2f} % " for value in row))

# %% [markdown]
# Columns: balanced error with the detector in 2D and 3D; without a detector after one and after two looks; the root
# of the cycle loss; how far the answer follows a shift of the map. Read the row *cycle* against *without*, not
# against *base*: both had the same additional steps.
#
# With a detector the errors differ by less than another seed would change them; [chapter
# 14](14_training_2dasl.ipynb) has the table over several seeds, and there too the cycle adds little to what plain
# 2D supervision has given. Two other columns move. The network follows the map *less*, and without a detector its
# second look gains more on its first. Both have one cause. Beside a detector's maps, whose errors are small, the
# cycle shows the network maps of its own, whose errors are larger, and asks for the detector's points in return.
# Such maps one had better not follow too far. The cheat of above, copying, would be a perfect cycle too, but no way
# leads there: who copies a first answer that is off gives a second that is just as far off.
#
# With a weight that is far too large, the labels are outvoted, and the errors grow, with a detector and without.

# %% tags=["hide-input"]
curves = {}
for name, answers in without_detector.items():
    curves[name] = (list(range(1, 6)), [balanced(X, 2) for X in answers])
viz.curve_figure(
    curves, x_title="looks, the first with an empty map", y_title="balanced NME, 2D (%)", markers=True, height=400
)

# %% [markdown]
# **Figure 12.3.** Error without a detector, by the number of looks. *Try* to find, for each network, the look after
# which nothing is gained, and compare with `looks=2`, the default of `predict`.

# %% [markdown]
# ## Around the circle, step by step
#
# The numbers above are averages. Here are four faces, whose circles we walk with
# {py:func}`twodasl_lite.viz.figure_chain.chain_figure`: from the true points, or from noisy ones, with either kind of
# map. It also shows the gradient of the cycle loss at $\hat{\mathbf x}_1$: the way on which the first look learns what
# the second makes of its points. By hand first, for the noisiest points:

# %%
watched = test.take(test.yaw.abs().argsort()[[20, 90, 140, 190]])  # from frontal to profile
faces = {"face_names": [f"yaw {value:.0f}°" for value in watched.yaw], "noises": (0, 2, 4), "looks": 3}
figure = viz.chain_figure({k: v for k, v in networks.items() if k != "base"}, watched, model, whitening, **faces)
begin = figure.begins[2]  # (4, 18, 2): the true points and noise of 4 pixels
images = watched.inputs()[:, :3]
first = subset_18(look(networks["cycle"], begin, images=images)[..., :2]).requires_grad_()
for number, kind in enumerate(figure.header["kinds"]):
    drawn = landmark_map(first, None, CROP_SIZE, kind)
    if kind == KIND:
        answer = networks["cycle"](torch.cat([images, drawn], dim=1))
        second = subset_18(decode_landmarks(whitening.unwhiten(answer), model)[..., :2])
        mine = cycle_loss(second, begin, torch.ones(4, 18, dtype=torch.bool))
        (slope,) = torch.autograd.grad(mine.sum(), first)
        mine = mine.tolist()
        torch.testing.assert_close(slope, figure.gradients[1, number, 2], rtol=1e-2, atol=1e-5)
        for face in range(4):
            state = figure.state | {"regressor": 1, "kind": number, "noise": 2, "face": face}
            assert abs(figure.numbers(state)["cycle"] / mine[face] - 1) < 1e-3
    else:
        assert not drawn.requires_grad  # a map of zeros and ones: no way back
        assert bool((figure.gradients[:, number] == 0).all())

# %% tags=["hide-input"]
figure.set(regressor=1, kind=figure.header["kinds"].index(KIND), step=2)
figure


# %% [markdown]
# **Figure 12.4.** The circle of four faces, $\mathbf x \to \hat{\mathbf X}_1 \to \hat{\mathbf x}_1 \to \hat{\mathbf X}_2 \to
# \hat{\mathbf x}_2$, and one look more; the curves show the distance from the true points (solid) and the drift (dashed)
# after each look. *Try* exact points first, noise 0: what does a round cost them? Then 4 pixels: for which faces is
# the first look nearer to the truth than its input, and for which not? Go to $\hat{\mathbf x}_1$, and change the map to
# binary: what was to tell the first look about the second is gone.

# %% [markdown]
# ## The cycle as a warning
#
# Kalal's use needs no training. When the circle does not close, something is wrong: detector or network. Does a
# large cycle error tell which *answers* are bad?

# %%
def ranks(values):
    return values.argsort().argsort().double()


def rank_correlation(a, b):
    """Spearman's: 1 if both put the faces in the same order, 0 if they have nothing to do with each other."""
    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


warning = CYCLE(x2, x, m).sqrt()
mistake = nme(X1[..., :2], truth[..., :2])
flagged = warning >= warning.quantile(0.9)
print(f"rank correlation of cycle error and true error: {rank_correlation(warning, mistake):.2f}")
suspects, rest = (100 * float(mistake[group].mean()) for group in (flagged, ~flagged))
print(f"mean error of the tenth with the largest cycle error {suspects:.1f} %, of the others {rest:.1f} %")


# %% [markdown]
# A signal without a single label, at the price of one more look, and a good one. It is no oracle: it sees errors
# that detector and network do *not* share. Where both are wrong together, or the network copies, the circle closes
# and all is silent. And there is a limit to having it both ways: a network trained until every circle closes has
# nothing left to warn with.
#
# ## Summary
#
# * Cycle: $\mathbf x \to \hat{\mathbf X}_1 \to \hat{\mathbf x}_1 \to \hat{\mathbf X}_2 \to \hat{\mathbf x}_2$, and
#   $\hat{\mathbf x}_2$ against $\mathbf x$: 2D consistency of the second look, the third side of a triangle.
# * Unlike CycleGAN's, its way back is fixed geometry: nothing can be hidden, and depth is not checked.
# * Copying the map is a perfect cycle. Wrong maps and small shifts measure how far a network follows its map; in
#   our training with the cycle it followed less, not more.
# * Empty map, draw the answer, look again: a network without a detector. A second look can help; a fifth does not.
# * In small trainings it adds little in accuracy. Without any training its error is a warning.
#
# ## Exercises
#
# ### Exercise 12.1 · The triangle, as a bound
#
# Write an upper *and* a lower bound for the root of each face's cycle loss, from the roots of the other two sides
# alone.

# %% tags=["exercise"]
def bounds(root_2d, root_12):
    """Lower and upper bound (B,) for the root of the cycle loss."""
    return torch.zeros_like(root_2d), torch.full_like(root_2d, 1e9)


# %% tags=["solution"]
def bounds(root_2d, root_12):
    """Lower and upper bound (B,) for the root of the cycle loss."""
    return (root_2d - root_12).abs(), root_2d + root_12  # any side is at least the difference of the others


# %% tags=["check"]
low, high = bounds(sides[0], sides[1])
assert bool((low <= sides[2] + 1e-6).all() and (sides[2] <= high + 1e-6).all()), "Some face is outside your bounds."
a, b = torch.tensor([3.0]), torch.tensor([1.0])
assert float(bounds(a, b)[1]) == 4.0, "If both steps go the same way, the sides add up: the upper bound is reached."
assert float(bounds(a, b)[0]) == 2.0 == float(bounds(b, a)[0]), "If the second step turns back, they subtract."
print(f"✓ the bounds leave {float(((high - low) / sides[2]).median()):.2f} of the cycle's root open, in the median")


# %% [markdown]
# ### Exercise 12.2 · A copying network
#
# Build an answer that copies: take the first look's landmarks, and shift, turn or scale nothing; only move the 18
# points' *mean* onto the mean of the map's reported points. How much does it lower the cycle loss, and is it right?
# Complete `copy_the_mean`.

# %% tags=["exercise"]
def copy_the_mean(answer, points, visible):
    """The answer (B, 68, 3), shifted so that the mean of its reported points is that of the map's."""
    return answer


# %% tags=["solution"]
def copy_the_mean(answer, points, visible):
    """The answer (B, 68, 3), shifted so that the mean of its reported points is that of the map's."""
    off = torch.where(visible[..., None], points - subset_18(answer[..., :2]), 0.0)
    shift = off.sum(dim=1) / visible.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 2)
    return answer + torch.nn.functional.pad(shift, (0, 1))[:, None]  # depth stays


# %% tags=["check"]
copied = copy_the_mean(X2, x, m)
assert copied.shape == X2.shape, f"Expected shape {tuple(X2.shape)}, found {tuple(copied.shape)}."
assert bool(torch.isfinite(copied).all()), "Points that are not reported are NaN: replace them before you add."
shift = copied - X2
assert float((shift - shift[:, :1]).abs().max()) < 1e-3, "All landmarks of a face should move alike."
assert float(shift[..., 2].abs().max()) < 1e-6, "Depth should stay as it is."
rest = torch.where(m[..., None], subset_18(copied[..., :2]) - x, 0.0).sum(dim=1)
assert float(rest.abs().max()) < 1e-2, "The means of the reported points differ still."
before, after = CYCLE(x2, x, m).mean(), CYCLE(subset_18(copied[..., :2]), x, m).mean()
fall = 1 - float(after / before)
print(f"✓ the cycle loss falls by {fall:.0%}; the true error goes from {error(X2):.2f} to {error(copied):.2f} %")


# %% [markdown]
# ### Exercise 12.3 · How many pictures does the warning save?
#
# Suppose you may throw away a share of the answers. Return the mean error (in %) of those that are kept if you
# throw away the faces with the largest `signal`. What would a perfect signal give?

# %% tags=["exercise"]
def error_of_the_kept(signal, mistake, thrown=0.2):
    """Mean of mistake, in per cent, over the faces with the smallest signal."""
    return 100 * float(mistake.mean())


# %% tags=["solution"]
def error_of_the_kept(signal, mistake, thrown=0.2):
    """Mean of mistake, in per cent, over the faces with the smallest signal."""
    count = round((1 - thrown) * len(signal))
    return 100 * float(mistake[signal.argsort()[:count]].mean())


# %% tags=["check"]
best, found = error_of_the_kept(mistake, mistake), error_of_the_kept(warning, mistake)
everything = 100 * float(mistake.mean())
ramp = torch.arange(10.0)
assert abs(error_of_the_kept(-ramp, ramp, 0.5) - 700) < 1e-6, "Keep the faces with the SMALLEST signal."
assert abs(error_of_the_kept(ramp, ramp, 0.0) - 450) < 1e-6, "With nothing thrown away all faces count."
assert best < everything, "Throwing the worst away should lower the mean."
assert best <= found + 1e-6, "Nothing is better than knowing the mistakes."
print(f"✓ all {everything:.2f} %, without the warned-of fifth {found:.2f} %, perfect knowledge {best:.2f} %")


# %% [markdown]
# ### Exercise 12.4 · A cycle that sees nothing
#
# Change the depth of every answer, so that the face is wrong in 3D by at least 5 % of its size, and leave the cycle
# loss exactly as it is. Complete `flatten`.

# %% tags=["exercise"]
def flatten(answer):
    """Other landmarks (B, 68, 3) with the same cycle loss."""
    return answer


# %% tags=["solution"]
def flatten(answer):
    """Other landmarks (B, 68, 3) with the same cycle loss."""
    middle = answer[..., 2:].mean(dim=1, keepdim=True)
    depth = middle + 0.2 * (answer[..., 2:] - middle)  # a mask on a stick: the way back forgets it
    return torch.cat([answer[..., :2], depth], dim=-1)


# %% tags=["check"]
changed = flatten(X2)
assert torch.equal(CYCLE(subset_18(changed[..., :2]), x, m), CYCLE(x2, x, m)), "The cycle loss has changed."
difference = 100 * float(nme(changed, X2).mean())
assert difference > 5, f"The face has changed by {difference:.1f} % only."
centred = LandmarkConsistency3D()(changed, X2).sqrt().mean()
assert float(centred) > 0.02, "A mere shift in depth is no change: depths are centred."
print(f"✓ {difference:.0f} % away in 3D, and the circle closes as before")

# %% [markdown]
# ## Further reading
#
# {cite:t}`tu2021assisted` close this circle for faces. {cite:t}`zhu2017unpaired` made cycles famous,
# {cite:t}`chu2017cyclegan` found what is hidden in them. {cite:t}`kalal2010forward` use the error of a round trip
# as a warning. {cite:t}`zhou2016learning` train correspondence between photographs by a circle that leads through a
# rendered 3D model, the nearest relative of this chapter. {cite:t}`carreira2016human` refine poses by feeding the
# answer back in.
