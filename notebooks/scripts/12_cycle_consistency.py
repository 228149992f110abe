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
# **Time** 35 minutes to read; no GPU needed.

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
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import torch
from plotly.subplots import make_subplots

# %%
from twodasl_lite import viz
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.landmarks import landmark_map, subset_18
from twodasl_lite.losses import (
    CycleConsistency,
    LandmarkConsistency2D,
    LandmarkConsistency3D,
    face_size,
)
from twodasl_lite.networks import load_regressor
from twodasl_lite.networks.prediction import predict
from twodasl_lite.networks.trained import ablation_table
from twodasl_lite.training.ablation import print_gain
from twodasl_lite.training.config import load_config
from twodasl_lite.training.loop import train
from twodasl_lite.training.pictures import pictures
from twodasl_lite.viz.palette import CATEGORICAL, HOUSE_STYLE

plt.rcParams.update(HOUSE_STYLE)

model = load_face_model(CoefficientLayout())
runs = Path(tempfile.mkdtemp())
KIND = "gaussian"

# %% [markdown]
# ## What to expect
#
# The cell reads the ablation that is stored with the package ([chapter 14](14_training_2dasl.ipynb) explains it) and
# prints the change of the error when the cycle loss is added to labelled pictures and 2D landmarks: percentage
# points of balanced NME with a 95 % interval, negative when the loss helps.

# %%
print_gain(ablation_table("cpu"), "+landmarks_2d+cycle")

# %% [markdown]
# The cycle compares points in a picture, so, like every 2D loss, it sends no gradient to the third row of the pose
# (chapter 10). It is useful in two other ways: it prepares the network for working without a detector, where it helps
# in these runs, and its error is a warning.
#
# The network of this chapter is that of chapter 11, trained again with the same settings: labelled pictures,
# and wild ones with 2D landmarks. A quarter of its training pictures come with an *empty* map; we will need
# that below.

# %%
SMALL = [
    *(f"network.map={KIND}", "network.pose=free"),  # chapter 14 completes it
    *("data.labelled.count=300", "data.unlabelled.count=400"),
    *("data.labelled.batch_size=16", "data.unlabelled.batch_size=16"),
    "data.validation.count=200",
    # of the losses without 3D labels, only landmarks_2d stays on
    *("self_supervision.landmarks_3d=0", "self_supervision.cycle=0"),
    "self_supervision.critic=0",
    *("stages.0.steps=200", "stages.1.steps=40"),
    *("run.validate_every=1000", "optimiser.ema=0.97"),
]


def trained(name, *settings):
    """Train the lite regressor; settings come after those above and win."""
    config = load_config("lite-cpu", [*SMALL, *settings])
    train(config, runs / name, progress=False)
    return load_regressor(runs / name / "last.safetensors")


base = trained("base")
G, whitening = base.network.eval(), base.whitening
# wild faces, with their truth
test = pictures(load_config("lite-cpu", SMALL).data.validation, model)
pixels = test.inputs()[:, :3]  # (B, 3, 120, 120) normalised RGB
x, m = test.detected, test.detected_visible  # what the detector reports
truth = test.landmarks


# %% [markdown]
# ## There and back
#
# Chapter 11 compared the second prediction with the first. Now we close the cycle. We start from detected
# points $\mathbf x$, in 2D. The network lifts them, with the help of the picture, to a face in 3D. We drop
# the depth of its landmarks, draw them, lift them once more, and drop the depth again:
#
# $$\mathbf x \;\to\; \hat{\mathbf X}_1 \;\to\; \hat{\mathbf x}_1 \;\to\; \hat{\mathbf X}_2 \;\to\; \hat{\mathbf x}_2,
# \qquad L_{\text{cycle}} = \frac{\sum_i m_i \lVert \hat{\mathbf x}_{2,i} - \mathbf x_i \rVert^2}{s^2 \sum_i m_i}.$$
#
# The mask $m$ leaves out points that the detector did not report, and $s$ is the size of the bounding box of
# those it did. (The idea is the paper's {cite:p}`tu2021assisted`, section 3.3 of the preprint; norm, mask and
# unit are ours.)

# %%
@torch.no_grad()
def look(network, points, visible=None, images=pixels):
    """Landmarks (B, 68, 3) predicted with points (B, 18, 2) in the map."""
    drawn = landmark_map(points, visible, CROP_SIZE, KIND)  # (B, 1, 120, 120)
    # (B, 62) whitened
    answer = network(torch.cat([images, drawn.to(images)], dim=1))
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
        # points that were not reported may be NaN: drop them first
        start, returned = start[seen], returned[seen]
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
fig, axes = plt.subplots(2, 2, figsize=(8, 8.5), layout="constrained")
DOTS = {"s": 30, "edgecolors": "black", "linewidths": 0.7, "zorder": 3}
for ax, i in zip(axes.flat, shown):
    ax.imshow(test.images[i].permute(1, 2, 0))
    way = torch.stack([x[i], x1[i], x2[i]])[:, m[i]]  # (3, n, 2)
    ax.plot(way[..., 0].numpy(), way[..., 1].numpy(), color="white", linewidth=1.6)
    names = ("detected", "first prediction", "second prediction")
    colours = ("white", CATEGORICAL[5], CATEGORICAL[4])
    for points, name, colour in zip(way, names, colours):
        ax.scatter(*points.T, color=colour, label=name, **DOTS)
    ax.set_title(f"{100 * spread[i]:.1f} %", fontsize=11)
    ax.set(xlim=(0, 119), ylim=(119, 0), xticks=[], yticks=[])
handles = axes[0, 0].get_legend_handles_labels()
_ = fig.legend(*handles, loc="outside lower center", ncols=3, fontsize=11)


# %% [markdown]
# **Figure 12.1.** The path of the points: detected (white circles), first prediction (sky blue), second
# prediction (orange). Above each face the square root of its cycle loss. *Try* to find faces whose second
# step continues in the direction of the first, and one where it turns back.

# %% [markdown]
# ## Three losses, one triangle
#
# The cycle loss is the 2D consistency of the *second* look. The points $\mathbf x$, $\hat{\mathbf x}_1$ and
# $\hat{\mathbf x}_2$ form a triangle. One side is the loss of chapter 10, one is that of chapter 11 (as far
# as 2D can see it), and the cycle loss is the third. So, for the square roots of the losses over the same
# points and in the same unit,
#
# $$\sqrt{L_{\text{cycle}}} \;\le\; \sqrt{L_{2D}} + \sqrt{L_{12}}, \qquad L_{12} = \text{the distance between } \hat{\mathbf x}_2 \text{ and } \hat{\mathbf x}_1 .$$
#
# If the first two losses vanish, so does the third. Why train with it at all, then? Because in practice none
# of them vanishes, and the *gradients* differ: the cycle teaches the network what to do when its input comes
# from its own first guess instead of a detector. That is its situation whenever there is no detector.
#
# **The gradient.** The loss depends on the coefficients of the second look as in chapter 10,
# $\partial L / \partial \hat{\mathbf c}_2 = \mathbf J(\hat{\mathbf c}_2)^\top \mathbf g$ with
# $\mathbf g_i = 2 m_i (\hat{\mathbf x}_{2,i} - \mathbf x_i) / (s^2 \sum_j m_j)$. It depends on the first look
# *only through the map*:
# $\partial L / \partial \hat{\mathbf c}_1 = \mathbf J(\hat{\mathbf c}_1)^\top\, \partial L / \partial \hat{\mathbf x}_1$.
# A naive implementation draws the second map in binary form, and then this half of the gradient is missing
# without any error message:

# %%
def pull_back(c, g):
    """J(c)^T g (B, 62): a pull g (B, 18, 2) on points as one on whitened c."""
    face = Coefficients.unpack(whitening.unwhiten(c), model.layout)
    S = subset_18(model.decode_landmarks(face.shape, face.expression))  # (B, 18, 3)
    rows = torch.cat([S, torch.ones_like(S[..., :1])], dim=-1)  # (B, 18, 4)
    g = torch.nn.functional.pad(g * torch.tensor([1.0, -1.0]), (0, 1))  # y up
    A = subset_18(model.basis[model.landmarks].permute(2, 0, 1))  # (50, 18, 3)
    rest = torch.einsum("bnj,knj->bk", g @ face.pose[..., :3], A)
    return torch.cat([(g.mT @ rows).flatten(1), rest], dim=1) * whitening.std


def points_of(c):
    return subset_18(decode_landmarks(whitening.unwhiten(c), model)[..., :2])


# %%
some = slice(0, 8)
with torch.no_grad():
    begin = landmark_map(x[some], m[some], CROP_SIZE, KIND)
    c1 = G(torch.cat([pixels[some], begin.to(pixels)], dim=1))
c1.requires_grad_()
p1 = points_of(c1)
known = m[some, :, None]
unit = face_size(x[some], m[some]).square() * m[some].sum(dim=1)
for kind in ("gaussian", "binary"):
    drawn = landmark_map(p1, None, CROP_SIZE, kind)
    c2 = G(torch.cat([pixels[some], drawn.to(pixels)], dim=1))
    c2 = c2 if c2.requires_grad else c2.requires_grad_()
    loss = CYCLE(points_of(c2), x[some], m[some]).sum()
    g2, gp, g1 = torch.autograd.grad(
        loss, (c2, p1, c1), retain_graph=True, allow_unused=True
    )
    if kind == "gaussian":
        g = torch.where(known, points_of(c2) - x[some], 0.0) / unit[:, None, None]
        for found, right in (
            (pull_back(c2, 2 * g), g2), (pull_back(c1, gp), g1)
        ):
            assert float((found - right).abs().max() / right.abs().max()) < 1e-3
    size = 0.0 if g1 is None else float(g1.norm())
    print(
        f"{kind:>8} map: gradient at look 2 {float(g2.norm()):.4f}, look 1 "
        f"{size:.4f}"
    )
assert size == 0


# %%
def first_to_second(x1, x2, x, m):
    """Distance between the two predictions, with the same mask and unit."""
    return (
        (x2 - x1).square().sum(dim=-1) * m
    ).sum(dim=-1) / m.sum(dim=-1) / face_size(x, m).square()


sides = (
    L2D(x1, x, m).sqrt(), first_to_second(x1, x2, x, m).sqrt(),
    CYCLE(x2, x, m).sqrt()
)
assert bool((sides[2] <= sides[0] + sides[1] + 1e-6).all())
onwards = sides[2] > sides[0]
print(
    f"in {onwards.float().mean():.0%} of the faces the second answer is farther "
    "from the detector than the first"
)

# %% [markdown]
# The idea has two famous relatives. **CycleGAN** {cite:p}`zhu2017unpaired` learns two networks at once, from
# horses to zebras and from zebras to horses, and demands that the round trip be the identity. There both
# directions are learned, and the pair can cheat together: the first network may hide in the zebra, in an
# invisible pattern, what the second needs to restore the horse {cite:p}`chu2017cyclegan`. Here the way back
# from 3D to 2D is *geometry*: project and drop the depth. Nothing can be hidden in 62 numbers that decode to
# a face. But depth itself goes unchecked, since the way back drops it.
#
# **Forward–backward tracking** {cite:p}`kalal2010forward` follows a point through a video, then follows it
# backwards, and distrusts the track if it does not return to its start. It needs no training: the cycle error
# is a *warning*. We will try both uses.
#
# ## The picture, or the map?
#
# There is a cheap way to a perfect cycle: copying. A network that always places its landmarks on the points
# of the map, whatever the picture shows, has $\hat{\mathbf x}_2 = \hat{\mathbf x}_1 = \mathbf x$, including
# every error of the detector, and its loss is zero. So we must measure how much the network trusts the map.
# We give it the *wrong* map: that of another face.

# %%
generator = torch.Generator().manual_seed(12)
# each picture gets somebody else's map
other = torch.randperm(test.size, generator=generator)
INPUTS = {
    "its own map": (x, m), "another face's map": (x[other], m[other]),
    "an empty map": (x, torch.zeros_like(m))
}


def error(X, target=truth):
    """Mean NME in per cent, 2D."""
    return 100 * float(nme(X[..., :2], target[..., :2]).mean())


for name, (points, visible) in INPUTS.items():
    X = look(G, points, visible)
    print(
        f"{name:>18}: error {error(X):6.2f} %"
        + (
            f", against the map's owner {error(X, truth[other]):6.2f} %"
            if "another" in name else ""
        )
    )


# %% [markdown]
# With the map of another face the network is torn between two faces: its prediction is far from the face in
# the picture, and also far from the owner of the map. Let us put a number on it. Between the prediction with
# the right map and the owner's face, how far does the prediction with the wrong map go? The best share
# $\lambda$, by least squares over the landmarks, is
#
# $$\lambda = \frac{\langle \mathbf X_{\text{wrong}} - \mathbf X_{\text{own}},\; \mathbf X_{\text{owner}} - \mathbf X_{\text{own}} \rangle}{\lVert \mathbf X_{\text{owner}} - \mathbf X_{\text{own}} \rVert^2}.$$
#
# $\lambda = 0$ means that only the picture counts, 1 that only the map does. This test is harsh: the map of
# another head, in another pose, contradicts the picture everywhere, as no detector would. Chapter 11 used a
# gentle one, a shift of three pixels.

# %%
def share_of_the_map(network, turn=other):
    """How far predictions follow a wrong map, 0 to 1, over all faces."""
    right = look(network, x, m)
    wrong = look(network, x[turn], m[turn])
    target = right[turn]  # the prediction for the owner
    off, way = (wrong - right)[..., :2], (target - right)[..., :2]
    return float((off * way).sum() / way.square().sum())


def lean(network, pixels_moved=3.0):
    """Share of a small shift of the map that the prediction follows."""
    shift = torch.tensor([pixels_moved, 0.0])
    right, left = (
        look(network, x + sign * shift, m)[..., 0].mean() for sign in (1, -1)
    )
    return float((right - left) / (2 * pixels_moved))


print(
    f"share followed: wrong map {share_of_the_map(G):.0%}, "
    f"small shift {lean(G):.0%}"
)


# %% [markdown]
# ## Without a detector
#
# A quarter of the training pictures had an empty map, so the network can predict without one. The prediction
# gives points, the points make a map, and the network can look again. (The paper's network needs a detector.
# Doing without one in this way is ours; networks that correct their own guess are older
# {cite:p}`carreira2016human`.) The package's `predict` does the same if it is given no points.

# %%
def by_looks(network, most=6):
    """The answers (most, B, 68, 3) to pictures alone, by the number of looks."""
    answers = [look(network, x, torch.zeros_like(m))]  # an empty map
    while len(answers) < most:
        answers.append(look(network, subset_18(answers[-1][..., :2])))
    return torch.stack(answers)


alone = by_looks(G)
for k in (1, 3):
    theirs = predict(
        G, whitening, test.images[:20], looks=k, model=model, kind=KIND
    ).landmarks
    torch.testing.assert_close(alone[k - 1][:20], theirs, rtol=1e-3, atol=1e-2)
print(f"with the detector:  {error(X1):.2f} %")
print("without, by looks: ", " ".join(f"{error(X):.2f}" for X in alone), "%")

# %% tags=["hide-input"]
gain = (
    nme(alone[0][..., :2], truth[..., :2]) - nme(alone[-1][..., :2], truth[..., :2])
)
shown = [
    *gain.argsort(descending=True)[[2, 12]].tolist(),
    *gain.argsort()[[60, 2]].tolist()
]


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
            **values, mode="markers", marker=look_of, name=name, showlegend=n == 0,
            hoverinfo="skip", **place
        )
steps = []

# %% tags=["hide-input"]
for k in range(len(alone)):
    values = {
        axis: [alone[k][i][:, c].numpy().round(1).tolist() for i in shown]
        for c, axis in enumerate("xy")
    }
    steps.append(
        {
            "label": str(k + 1), "method": "restyle",
            "args": [values, [3 * n + 2 for n in range(4)]]
        }
    )
fig.update_xaxes(visible=False, range=[0, 119], constrain="domain")
fig.update_yaxes(visible=False, range=[119, 0], constrain="domain")
fig.update_layout(
    height=760, margin={"l": 5, "r": 5, "t": 30, "b": 10},
    legend={
        "orientation": "h", "y": 1.02, "yanchor": "bottom", "bgcolor": "#3A4149",
        "font_color": "white"
    },
    sliders=[{"steps": steps, "currentvalue": {"prefix": "look "}, "pad": {"t": 10}}]
)
fig

# %% [markdown]
# **Figure 12.2.** Four faces without a detector. The first look has an empty map, each later one the
# prediction before it. We chose two faces that gain by looking again and two that do not. *Try* to see when
# the points stop moving.

# %% [markdown]
# Why should a second look help, when it brings no new information about the face? Because the network is not
# equally good at both tasks. It has learned to refine given points. With an empty map it must find everything
# at once; the first prediction turns the hard task into the familiar one. But the familiar points are a
# *detector's*, whose errors are small. Those of its own first guess are larger and of another kind. The
# printed row shows what remains of the gain, and that more looks do not add to it: chapter 11 showed that a
# chain of looks forgets where it came from and settles on a prediction that agrees with itself, right or not.
# The cycle loss trains exactly this situation: a map drawn by the network itself, with the detector's points
# as the target.
#
# ## When half the points are missing
#
# Now half of the detector's points are missing: all those on the left of the picture. The map shows the other
# half. The network still predicts a whole face, because 62 numbers always decode to one, and in the second
# look its own points fill the gap.

# %%
# of the 18: brow, eye, nostril and mouth on the left
LEFT = torch.tensor([0, 1, 2, 6, 7, 8, 12, 15])
half = m.clone()
half[:, LEFT] = False
exact = subset_18(truth[..., :2])


def error_of(points, where):
    """Mean error (%) of some of the 18 points, in sizes of the face."""
    distance = (points - exact).norm(dim=-1)[:, where] / face_size(exact)[:, None]
    return 100 * float(distance.mean())


for name, visible in {
    "all points": m, "without the left": half, "no point": torch.zeros_like(m)
}.items():
    _, first, _, second = two_looks(G, x, visible)
    looks = [error_of(points, LEFT) for points in (first, second)]
    values = f"look 1 {looks[0]:5.2f} %, look 2 {looks[1]:5.2f} %"
    print(f"{name:>16}: error at the left points, {values}")
torch.testing.assert_close(
    CYCLE(x2, torch.where(half[..., None], x, torch.nan), half), CYCLE(x2, x, half)
)
assert CYCLE(x2, x, torch.zeros_like(m)).eq(0).all()

# %% [markdown]
# The loss never sees a point that the mask leaves out, even if its coordinates are NaN, and a face without
# any point costs nothing. So photographs in which half the face is hidden can still teach: the known points
# pull, and the model moves the rest along.
#
# For the *network*, half a map is another matter. In training it saw whole maps and empty ones, never halves.
# Compare the second line with the third to see what the visible half is worth for the missing one. Where that
# matters, drop single points in training too. The second look has a whole map again.
#
# ## With and without
#
# We continue training our network three times, with the same pictures in the same order: as before; with the
# cycle loss; and with a cycle loss whose weight is far too large.

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
    networks[name] = trained(
        name, *ON, f"self_supervision.cycle={weight}"
    ).network.eval()


# %%
def balanced(X, dimensions):
    return 100 * summarise(
        nme(X[..., :dimensions], truth[..., :dimensions]), test.yaw, intervals=False
    ).balanced


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
# The columns are the balanced error with a detector in 2D and 3D; the error without a detector after one and
# after two looks; the root of the cycle loss; and how far the prediction follows a shift of the map. Compare
# the row *cycle* with *without*, not with *base*: both had the same additional steps.
#
# This is one seed, so read small differences with care; the stored ablation above has several. The column to
# look at is the last: with the cycle loss the network tends to follow the map *less*. There is a reason.
# Besides a detector's maps, whose errors are small, the cycle shows the network maps of its own, whose errors
# are larger, and asks for the detector's points in return. It pays not to follow such maps too far. Copying
# would also close the cycle, but training does not lead there: a network that copies a wrong first prediction
# makes a second one that is just as wrong.
#
# With a weight that is far too large, the labels are outvoted.

# %% tags=["hide-input"]
curves = {}
for name, answers in without_detector.items():
    curves[name] = (list(range(1, 6)), [balanced(X, 2) for X in answers])
fig = viz.curve_figure(
    curves, x_title="looks, the first with an empty map",
    y_title="balanced NME, 2D (%)", markers=True, height=400
)
fig.update_xaxes(dtick=1)
fig

# %% [markdown]
# **Figure 12.3.** Error without a detector, by the number of looks. *Try* to find, for each network, the look
# after which nothing improves, and compare it with `looks=2`, the default of `predict`.

# %% [markdown]
# ## The cycle, step by step
#
# The numbers above are averages. Here are four faces, whose cycles we follow with
# {py:func}`twodasl_lite.viz.figure_chain.chain_figure`: from the true points or from noisy ones, with either
# kind of map. It also shows the gradient of the cycle loss at $\hat{\mathbf x}_1$, which teaches the first
# look how the second one uses its points. First we compute it by hand, for the noisiest points:

# %%
# from frontal to profile
watched = test.take(test.yaw.abs().argsort()[[20, 90, 140, 190]])
faces = {
    "face_names": [f"yaw {value:.0f}°" for value in watched.yaw],
    "noises": (0, 2, 4), "looks": 3
}
figure = viz.chain_figure(
    {k: v for k, v in networks.items() if k != "base"}, watched, model, whitening,
    **faces
)
begin = figure.begins[2]  # (4, 18, 2): the true points and noise of 4 pixels
images = watched.inputs()[:, :3]
first = subset_18(
    look(networks["cycle"], begin, images=images)[..., :2]
).requires_grad_()

# %%
for number, kind in enumerate(figure.header["kinds"]):
    drawn = landmark_map(first, None, CROP_SIZE, kind)
    if kind == KIND:
        answer = networks["cycle"](torch.cat([images, drawn], dim=1))
        second = subset_18(
            decode_landmarks(whitening.unwhiten(answer), model)[..., :2]
        )
        mine = cycle_loss(second, begin, torch.ones(4, 18, dtype=torch.bool))
        (slope,) = torch.autograd.grad(mine.sum(), first)
        mine = mine.tolist()
        torch.testing.assert_close(
            slope, figure.gradients[1, number, 2], rtol=1e-2, atol=1e-5
        )
        for face in range(4):
            state = figure.state | {
                "regressor": 1, "kind": number, "noise": 2, "face": face
            }
            assert abs(figure.numbers(state)["cycle"] / mine[face] - 1) < 1e-3
    else:
        assert not drawn.requires_grad  # a map of zeros and ones: no way back
        assert bool((figure.gradients[:, number] == 0).all())

# %% tags=["hide-input"]
figure.set(regressor=1, kind=figure.header["kinds"].index(KIND), step=2)
figure


# %% [markdown]
# **Figure 12.4.** The cycle of four faces,
# $\mathbf x \to \hat{\mathbf X}_1 \to \hat{\mathbf x}_1 \to \hat{\mathbf X}_2 \to \hat{\mathbf x}_2$, and one
# look more; the curves show the distance from the true points (solid) and the drift (dashed) after each look.
# *Try* exact points first, noise 0: how much accuracy does one round cost? Then use 4 pixels: for which faces
# is the first look closer to the truth than its input, and for which not? Go to $\hat{\mathbf x}_1$ and
# change the map to binary: the gradient that tells the first look about the second disappears.

# %% [markdown]
# ## The cycle as a warning
#
# The second use, as in forward–backward tracking, needs no training. When the cycle does not close, either
# the detector or the network is wrong. Does a large cycle error tell us which *predictions* are bad?

# %%
def ranks(values):
    return values.argsort().argsort().double()


def rank_correlation(a, b):
    """Spearman's: 1 if both rank the faces alike, 0 if they are unrelated."""
    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


warning = CYCLE(x2, x, m).sqrt()
mistake = nme(X1[..., :2], truth[..., :2])
flagged = warning >= warning.quantile(0.9)
print(
    "rank correlation of cycle error and true error: "
    f"{rank_correlation(warning, mistake):.2f}"
)
suspects, rest = (
    100 * float(mistake[group].mean()) for group in (flagged, ~flagged)
)
print(
    f"mean error of the tenth with the largest cycle error {suspects:.1f} %, of the "
    f"others {rest:.1f} %"
)


# %% [markdown]
# This is a useful signal that needs no label and costs only one more look. It is not an oracle: it sees only
# errors that detector and network do *not* share. Where both are wrong together, or the network copies, the
# cycle closes and there is no warning. And we cannot have both: a network trained until every cycle closes
# can no longer warn.
#
# ## Summary
#
# * Cycle:
#   $\mathbf x \to \hat{\mathbf X}_1 \to \hat{\mathbf x}_1 \to \hat{\mathbf X}_2 \to \hat{\mathbf x}_2$, and
#   $\hat{\mathbf x}_2$ against $\mathbf x$: 2D consistency of the second look, the third side of a triangle.
# * Unlike CycleGAN's, its way back is fixed geometry: nothing can be hidden, and depth is not checked.
# * Copying the map gives a perfect cycle. Wrong maps and small shifts measure how far a network follows its
#   map.
# * Start with an empty map, draw the prediction, look again: this replaces the detector. More than two looks
#   do not help.
# * As a training loss it adds little accuracy in the runs stored with this book. Without any training, its
#   error is a warning.
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
    # any side is at least the difference of the others
    return (root_2d - root_12).abs(), root_2d + root_12


# %% tags=["check"]
low, high = bounds(sides[0], sides[1])
assert bool((low <= sides[2] + 1e-6).all() and (sides[2] <= high + 1e-6).all()), (
    "Some face is outside your bounds."
)
a, b = torch.tensor([3.0]), torch.tensor([1.0])
assert float(bounds(a, b)[1]) == 4.0, (
    "If both steps go the same way, the sides add up: the upper bound is reached."
)
assert float(bounds(a, b)[0]) == 2.0 == float(bounds(b, a)[0]), (
    "If the second step turns back, they subtract."
)
print(
    f"✓ the bounds leave {float(((high - low) / sides[2]).median()):.2f} of the "
    "cycle's root open, in the median"
)


# %% [markdown]
# ### Exercise 12.2 · A copying network
#
# Build a prediction that copies from the map: take the landmarks of the second look and shift the whole face
# so that the *mean* of its reported points equals that of the map. Do not turn or scale anything. How much
# does this lower the cycle loss, and is the result better? Complete `copy_the_mean`.

# %% tags=["exercise"]
def copy_the_mean(answer, points, visible):
    """The answer (B, 68, 3), shifted onto the mean of the reported points."""
    return answer


# %% tags=["solution"]
def copy_the_mean(answer, points, visible):
    """The answer (B, 68, 3), shifted onto the mean of the reported points."""
    off = torch.where(visible[..., None], points - subset_18(answer[..., :2]), 0.0)
    shift = off.sum(dim=1) / visible.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 2)
    return answer + torch.nn.functional.pad(shift, (0, 1))[:, None]  # depth stays


# %% tags=["check"]
copied = copy_the_mean(X2, x, m)
assert copied.shape == X2.shape, (
    f"Expected shape {tuple(X2.shape)}, found {tuple(copied.shape)}."
)
assert bool(torch.isfinite(copied).all()), (
    "Points that are not reported are NaN: replace them before you add."
)
shift = copied - X2
assert float((shift - shift[:, :1]).abs().max()) < 1e-3, (
    "All landmarks of a face should move alike."
)
assert float(shift[..., 2].abs().max()) < 1e-6, "Depth should stay as it is."
rest = torch.where(m[..., None], subset_18(copied[..., :2]) - x, 0.0).sum(dim=1)
assert float(rest.abs().max()) < 1e-2, (
    "The means of the reported points still differ."
)
before, after = (
    CYCLE(x2, x, m).mean(), CYCLE(subset_18(copied[..., :2]), x, m).mean()
)
fall = 1 - float(after / before)
print(
    f"✓ the cycle loss falls by {fall:.0%}; the true error goes from "
    f"{error(X2):.2f} to {error(copied):.2f} %"
)


# %% [markdown]
# ### Exercise 12.3 · How many pictures does the warning save?
#
# Suppose you may discard a share of the predictions. Return the mean error (in %) of those that you keep if
# you discard the faces with the largest `signal`. What would a perfect signal give?

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
best, found = (
    error_of_the_kept(mistake, mistake), error_of_the_kept(warning, mistake)
)
everything = 100 * float(mistake.mean())
ramp = torch.arange(10.0)
assert abs(error_of_the_kept(-ramp, ramp, 0.5) - 700) < 1e-6, (
    "Keep the faces with the SMALLEST signal."
)
assert abs(error_of_the_kept(ramp, ramp, 0.0) - 450) < 1e-6, (
    "With nothing thrown away all faces count."
)
assert best < everything, "Throwing the worst away should lower the mean."
assert best <= found + 1e-6, "Nothing is better than knowing the mistakes."
print(
    f"✓ all {everything:.2f} %, without the flagged fifth {found:.2f} %, perfect "
    f"signal {best:.2f} %"
)


# %% [markdown]
# ### Exercise 12.4 · A cycle that sees nothing
#
# Change the depth of every prediction so that the face is wrong in 3D by at least 5 % of its size, and leave
# the cycle loss exactly as it is. Complete `flatten`.

# %% tags=["exercise"]
def flatten(answer):
    """Other landmarks (B, 68, 3) with the same cycle loss."""
    return answer


# %% tags=["solution"]
def flatten(answer):
    """Other landmarks (B, 68, 3) with the same cycle loss."""
    middle = answer[..., 2:].mean(dim=1, keepdim=True)
    # a flat mask: the way back drops the depth
    depth = middle + 0.2 * (answer[..., 2:] - middle)
    return torch.cat([answer[..., :2], depth], dim=-1)


# %% tags=["check"]
changed = flatten(X2)
assert torch.equal(CYCLE(subset_18(changed[..., :2]), x, m), CYCLE(x2, x, m)), (
    "The cycle loss has changed."
)
difference = 100 * float(nme(changed, X2).mean())
assert difference > 5, f"The face has changed by {difference:.1f} % only."
centred = LandmarkConsistency3D()(changed, X2).sqrt().mean()
assert float(centred) > 0.02, (
    "A mere shift in depth is no change: depths are centred."
)
print(f"✓ {difference:.0f} % away in 3D, and the cycle closes as before")

# %% [markdown]
# ## Further reading
#
# {cite:t}`tu2021assisted` propose this cycle for faces. {cite:t}`zhu2017unpaired` made cycle consistency
# famous, and {cite:t}`chu2017cyclegan` found what networks hide in it. {cite:t}`kalal2010forward` use the
# error of a round trip as a warning. {cite:t}`zhou2016learning` train correspondence between photographs with
# a cycle through a rendered 3D model, the closest relative of this chapter. {cite:t}`carreira2016human`
# refine poses by feeding the prediction back in.
