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
# # 3D landmark consistency
#
# *Show the network its own answer. Does it agree with itself, and what is that worth?*
#
# **You need** [chapter 10](10_landmark_consistency_2d.ipynb) (2D landmarks as teachers), [chapter
# 4](04_fit_a_face_to_a_photograph.ipynb) (the landmark map), gradients, and what a fixed point is.
#
# **After this chapter you can**
#
# - write the loss that compares a network's second answer with its first, and say why depths are centred,
# - name three kinds of network that are perfectly consistent, and tell which of them you would want,
# - predict from one number, how far the answer follows the map, whether repeated looks settle,
# - show with automatic and with finite differences what a binary map does to a gradient,
# - report honestly what the loss changed in a small training, and what it did not.
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
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from twodasl_lite import viz
from twodasl_lite.camera import CROP_SIZE
from twodasl_lite.coefficients import CoefficientLayout
from twodasl_lite.decode import decode_landmarks
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.landmarks import landmark_map, subset_18
from twodasl_lite.losses import LandmarkConsistency3D, centre_depth, face_size
from twodasl_lite.morphable import load_face_model
from twodasl_lite.networks import load_regressor
from twodasl_lite.training.config import load_config
from twodasl_lite.training.loop import train
from twodasl_lite.training.pictures import pictures
from twodasl_lite.viz.palette import CATEGORICAL

model = load_face_model(CoefficientLayout())
runs = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A network to question
#
# We train the lite regressor as in chapter 10: a few hundred labelled pictures, and more with 2D landmarks alone.
# One thing is new: the landmark map is a *Gaussian* one, each point a small soft spot. Why will become clear below.
# This takes half a minute, and the network is the object of all that follows.

# %%
SMALL = [
    "network.map=gaussian",
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
whitening = base.whitening
test = pictures(load_config("lite-cpu", SMALL).data.validation, model)  # wild faces, with their truth
pixels = test.inputs()[:, :3]  # (B, 3, 120, 120) normalised RGB
x, m = test.detected, test.detected_visible  # what the detector reports
print(f"{test.size} wild faces to test on; the detector misses {1 - float(m.float().mean()):.1%} of its points")


# %% [markdown]
# ## Two looks
#
# A network of 2DASL sees a picture $I$ and a map $M(\mathbf x)$ of detected landmarks, and answers with
# coefficients. Decoded, they are a face with 68 landmarks in three dimensions:
#
# $$\hat{\mathbf X}_1 = D(G(I, M(\mathbf x))).$$
#
# Eighteen of these are again points that could be drawn into a map. $P$ picks them and forgets their depth,
# $\hat{\mathbf x}_1 = P(\hat{\mathbf X}_1)$. Nothing stops us from asking again:
#
# $$\hat{\mathbf X}_2 = D(G(I, M(\hat{\mathbf x}_1))).$$
#
# The picture is the same. The map now shows what the network itself has claimed. If the claim was right, the second
# answer should be the same as the first.

# %%
def look(network, points, visible=None, kind="gaussian", images=pixels):
    """One look at pictures with points (B, 18, 2) in the map: 68 landmarks (B, 68, 3)."""
    drawn = landmark_map(points, visible, CROP_SIZE, kind)  # (B, 1, 120, 120)
    answer = network(torch.cat([images, drawn.to(images)], dim=1))  # (B, 62) whitened
    return decode_landmarks(whitening.unwhiten(answer), model)


@torch.no_grad()
def chain(network, looks=2, points=x, visible=m, images=pixels):
    """The answers (K, B, 68, 3) of a number of looks, each with the landmarks of the one before."""
    answers = [look(network, points, visible, images=images)]
    while len(answers) < looks:
        answers.append(look(network, subset_18(answers[-1][..., :2]), images=images))
    return torch.stack(answers)


G = base.network.eval()
X1, X2 = chain(G)
moved = (X2 - X1)[..., :2].norm(dim=-1).mean(dim=-1)  # (B,) pixels
print(f"from the first look to the second, landmarks move by {moved.mean():.2f} pixels on average")

# %% tags=["hide-input"]
shown = moved.argsort(descending=True)[[6, 40, 120, 180]].tolist()
fig, axes = plt.subplots(2, 2, figsize=(6.4, 6.6), layout="constrained")
for ax, i in zip(axes.flat, shown):
    ax.imshow(test.images[i].permute(1, 2, 0))
    arrow = (X2 - X1)[i, :, :2]
    ax.quiver(
        *X1[i, :, :2].T, *(3 * arrow).T, angles="xy", scale_units="xy", scale=1, color=CATEGORICAL[4], width=0.006
    )
    ax.scatter(*x[i, m[i]].T, s=26, facecolors="none", edgecolors="white", linewidths=1.2)
    ax.scatter(*X1[i, :, :2].T, s=5, color=CATEGORICAL[5])
    ax.set_title(f"{moved[i]:.2f} pixels", fontsize=10)
    ax.set(xlim=(0, 119), ylim=(119, 0), xticks=[], yticks=[])


# %% [markdown]
# **Figure 11.1.** Four faces: the detector's points (white circles), the first answer (dots), and where the second
# one goes (arrows, three times as long as they are). Above each, how far it moved. *Try* to see whether the arrows
# of a face agree: mostly the whole face shifts, turns or grows a little; single landmarks cannot, since 62 numbers
# move all of them together.

# %% [markdown]
# ## The loss
#
# *3D landmark consistency* is the mean squared distance between the two answers over all 68 landmarks. Three
# decisions are in it, and they are ours: the paper {cite:p}`tu2021assisted` describes the idea, not its norm, masks
# and units.
#
# * **No mask.** A decoded face has no hidden landmarks; all 68 count, also those that no detector reports. That is
#   what this loss has and chapter 10's has not: depth, and the jaw.
# * **Depth is centred.** The head's depth cannot be observed (chapter 3). Whether both answers put it at the same
#   $t_z$ says nothing, so both mean depths are set to zero first.
# * **The unit is the face's size**, $s = \sqrt{wh}$ of the box around $\hat{\mathbf X}_1$, as a constant. Otherwise
#   the network could lower its loss by shrinking the face.
#
# $$L_{3D} = \frac{1}{68\, s^2} \sum_{i=1}^{68} \lVert \hat{\mathbf X}_{2,i} - \hat{\mathbf X}_{1,i} \rVert^2 \quad\text{after centring depths.}$$

# %%
def consistency_3d(second, first):
    """Mean squared distance (B,) in squared face sizes."""
    extent = first[..., :2].amax(dim=1) - first[..., :2].amin(dim=1)  # (B, 2)
    size = extent.prod(dim=-1).sqrt().detach()  # (B,)
    difference = second - first  # (B, 68, 3)
    depth = difference[..., 2:] - difference[..., 2:].mean(dim=1, keepdim=True)
    difference = torch.cat([difference[..., :2], depth], dim=-1) / size[:, None, None]
    return difference.square().sum(dim=-1).mean(dim=-1)


L3D = LandmarkConsistency3D()
torch.testing.assert_close(consistency_3d(X2, X1), L3D(X2, X1))
farther = X2 + torch.tensor([0.0, 0.0, 25.0])  # the whole head 25 pixels nearer
torch.testing.assert_close(L3D(farther, X1), L3D(X2, X1), rtol=1e-3, atol=1e-7)
drift = 100 * L3D(X2, X1).sqrt()
print(f"drift, the root of the loss: {drift.mean():.2f} % of the face's size; worst face {drift.max():.1f} %")

# %% [markdown]
# We call the root of the loss the *drift*. It is in the unit in which errors are given.
#
# ## Perfectly consistent, and wrong
#
# A loss without a label has to be asked: who gets zero? Here are three candidates.
#
# * **The constant.** It always answers with the same average face.
# * **The blind to the map.** It looks at the picture alone. We make one from our network: whatever is drawn, it
#   gets an empty map.
# * **The blind to the picture.** It fits the average face to the points in the map, by the best affine camera, and
#   never looks at the picture.

# %%
average = decode_landmarks(whitening.unwhiten(torch.zeros(1, 62)), model).detach()  # (1, 68, 3)


def constant(points):
    return average.expand(len(points), -1, -1)


@torch.no_grad()
def blind_to_the_map(points):
    return look(G, torch.full_like(points, torch.nan))


def blind_to_the_picture(points):
    rows = torch.cat([subset_18(average), torch.ones(1, 18, 1)], dim=-1).expand(len(points), -1, -1)  # (B, 18, 4)
    camera = torch.linalg.lstsq(rows, points).solution  # (B, 4, 2)
    everywhere = torch.cat([average, torch.ones(1, 68, 1)], dim=-1)
    return torch.cat([everywhere @ camera, average[..., 2:].expand(len(points), -1, -1)], dim=-1)


# %%
reported = torch.where(m[..., None], x, subset_18(X1[..., :2]))  # a fit wants all 18 points
truth = test.landmarks
answers = {"our network": (X1, X2)}
for name, answer in (
    ("constant", constant),
    ("blind to the map", blind_to_the_map),
    ("blind to the picture", blind_to_the_picture),
):
    first = answer(reported)
    answers[name] = (first, answer(subset_18(first[..., :2])))
for name, (first, second) in answers.items():
    values = (
        100 * L3D(second, first).sqrt().mean(),
        100 * nme(first[..., :2], truth[..., :2]).mean(),
        100 * nme(first, truth).mean(),
    )
    print(f"{name:>20}: drift {values[0]:5.2f} %    error 2D {values[1]:6.2f} %, 3D {values[2]:6.2f} %")
    if name != "our network":
        assert values[0] < 0.05

# %% [markdown]
# Three networks without drift, and their errors could hardly be more different. Who is blind to the picture hits
# the landmarks well, because the detector does, and is hopeless in depth. So this loss cannot stand alone, and
# nobody proposes that. The interesting question is what it does *beside* others. A first-order model tells. Let a
# look be $\hat{\mathbf x} = g(\mathbf x)$ for a given picture. Near $\mathbf x$ with Jacobian $\mathbf J$,
#
# $$\hat{\mathbf x}_2 - \hat{\mathbf x}_1 = g(\hat{\mathbf x}_1) - g(\mathbf x) \approx \mathbf J\, (\hat{\mathbf x}_1 - \mathbf x).$$
#
# The drift is a *product*: how far the answer follows the map, times how much the network corrected what it was
# given. Zero if $\mathbf J = 0$, the network ignores the map; zero if $\hat{\mathbf x}_1 = \mathbf x$, the network
# copies. And zero if $\mathbf J$ maps corrections to nothing: $g(g(\mathbf x)) = g(\mathbf x)$, a *projection*.
# That last is the useful case: take what the map says about things that a face can do, drop the rest, and drop it
# completely at the first look.
#
# Is ignoring the map a trivial solution, then? It is a zero that costs this loss nothing. But *beside* 2D
# consistency it costs: the map knows where the points are, better than a small network sees it, and who ignores it
# has larger 2D errors. And if the picture were enough, ignoring the map would be no cheat but the goal. The
# labelled pictures and the detector's points decide; 3D consistency only breaks ties.
#
# ## Settle or run away
#
# The same product explains what happens if we go on asking. The step from look $k$ to the next is about $\mathbf
# J^k (\hat{\mathbf x}_1 - \mathbf x)$, and it dies out if $\mathbf J$ shrinks. Does it? $\mathbf J$ has 36 times 36
# entries. Four movements of the map tell what matters: a shift, a zoom, a turn, and a jitter that moves every point
# on its own. How much of each does the answer make too?

# %%
arm = reported - reported.mean(dim=1, keepdim=True)  # (B, 18, 2) from the middle of the points
unit = arm / arm.norm(dim=-1).mean(dim=1)[:, None, None]
generator = torch.Generator().manual_seed(11)
MOVES = {
    "shift": torch.tensor([1.0, 0.0]).expand_as(arm),
    "zoom": unit,
    "turn": torch.stack([-unit[..., 1], unit[..., 0]], dim=-1),
    "jitter": torch.randn(arm.shape, generator=generator),
}


@torch.no_grad()
def share(network, move, size=3.0):
    """How much of a movement (B, 18, 2) of some pixels the answer makes too: 0 ignores the map, 1 follows it."""
    ends = [subset_18(look(network, reported + sign * size * move)[..., :2]) for sign in (1, -1)]
    return float(((ends[0] - ends[1]) * move).sum() / (2 * size * move.square().sum()))


print("the answer follows a " + ", a ".join(f"{name} by {share(G, move):.0%}" for name, move in MOVES.items()))
looks = chain(G, looks=7)
steps = torch.stack([L3D(b, a).sqrt() for a, b in zip(looks[:-1], looks[1:])]).mean(dim=1)  # (6,)
errors = [float(nme(X[..., :2], truth[..., :2]).mean()) for X in looks]
print("drift from look to look (%): ", " ".join(f"{100 * float(step):.2f}" for step in steps))
print("2D error of looks 1 to 7 (%):", " ".join(f"{100 * value:.2f}" for value in errors))
assert steps[-1] < steps[0]


# %% [markdown]
# The jitter is nearly all dropped at once: 62 numbers cannot express it. A shift of the whole map is what the
# network follows most. All shares are below 1, so the steps get shorter, and repeated looks settle. *Where* they
# settle is another matter. Look at the errors: they grow. With every look what the detector knew fades a little
# more, and what remains in the end is not much better than what the network would have said without a detector, the
# line *blind to the map* above. To agree with itself is not to be right.
#
# ## The gradient through the map
#
# To train with this loss, its gradient has to reach the weights. It has two ways. Both looks use the same weights,
# so $\hat{\mathbf X}_2$ and $\hat{\mathbf X}_1$ pull on them directly. The other way leads from $\hat{\mathbf X}_2$
# *through the map* back to the first look: had $\hat{\mathbf x}_1$ been elsewhere, the second answer would have
# been another. The binary map of chapter 4 is made with `floor`. Its derivative is zero wherever there is one.

# %%
def through_the_map(points, kind):
    """The loss, as a function of what is drawn for the second look."""
    return L3D(look(G, points, kind=kind), X1).sum()


drawn = subset_18(X1[..., :2])
direction = reported - drawn  # back to the detector's points
STEPS, slopes = (0.001, 0.01), {}  # of the way
for kind in ("binary", "gaussian"):
    at = drawn.clone().requires_grad_()
    value = through_the_map(at, kind)
    gradient = torch.autograd.grad(value, at, allow_unused=True)[0] if value.requires_grad else None
    automatic = 0.0 if gradient is None else float((gradient * direction).sum())
    with torch.no_grad():
        finite = [
            float(through_the_map(drawn + h * direction, kind) - through_the_map(drawn - h * direction, kind)) / (2 * h)
            for h in STEPS
        ]
    slopes[kind] = (automatic, *finite)
    differences = ", ".join(f"{value:+.4f} (step {h})" for h, value in zip(STEPS, finite))
    print(f"{kind:>8}: automatic {automatic:+.4f}, finite differences {differences}")
assert slopes["binary"][0] == 0
assert abs(slopes["gaussian"][2] / slopes["gaussian"][0] - 1) < 0.1

# %% [markdown]
# With the Gaussian map both agree. With the binary one the automatic gradient is zero, and the finite differences
# depend on the step: a few of the 3,600 points cross the border of a pixel, each makes the loss jump, and with
# another step other points jump. One point moved slowly shows it:

# %% tags=["hide-input"]
face = int(moved.argsort(descending=True)[20])
track = torch.linspace(-3, 3, 241)
one = drawn[face : face + 1].expand(len(track), -1, -1).clone()
one[:, 13, 0] += track  # the tip of the nose, sideways
curves = {}
with torch.no_grad():
    for kind in ("binary", "gaussian"):
        maps = landmark_map(one, None, CROP_SIZE, kind)
        answer = G(torch.cat([pixels[face : face + 1].expand(len(track), -1, -1, -1), maps], dim=1))
        landmarks = decode_landmarks(whitening.unwhiten(answer), model)
        start = landmarks[len(track) // 2]
        curves[f"{kind} map"] = (track.numpy(), (landmarks - start)[..., 0].mean(dim=1).numpy())
for name, (_, values) in curves.items():
    print(f"{name}: {len(np.unique(values.round(4)))} different answers along 241 positions")
viz.curve_figure(
    curves, x_title="tip of the nose moved in the map (pixels)", y_title="the answer moves by (pixels)", height=360
)

# %% [markdown]
# **Figure 11.2.** One point of the map moves sideways; on the vertical axis how far the network's answer follows.
# The binary map makes stairs, one step for each pixel; between them nothing can be felt. *Try* to find where the
# Gaussian curve is steepest, and where it turns back: smooth does not mean simple. (The network was trained with
# Gaussian maps; only the *form* of the binary curve matters here.)

# %% [markdown]
# So with a binary map the second look learns to agree with the first, and the first is pulled towards the second as
# if the map were fixed. With a Gaussian one the first look also learns to draw points that *lead* to an agreeing
# answer. The released network was run with binary maps; the journal version of the paper speaks of heatmaps. We
# offer both.
#
# ## With and without
#
# Does the loss help? From our network we train on twice, with the same pictures in the same order for the same
# number of steps: once as before, once with 3D consistency added.

# %%
ON = [
    "stages.0.steps=50",
    "stages.1.steps=10",
    "stages.0.learning_rate=1e-3",
    "stages.0.warmup=10",
    f"network.weights={runs / 'base' / 'last.safetensors'}",
]
networks = {
    "base": G,
    "trained on, without": trained("without", *ON).network.eval(),
    "trained on, with": trained("with", *ON, "self_supervision.landmarks_3d=300").network.eval(),
}


# %%
def depth(X):
    """Mean spread (standard deviation, pixels) of the landmarks' depths in faces beyond 60 degrees."""
    return float(X[test.yaw.abs() > 60, :, 2].std(dim=-1).mean())


print(f"{'':>20}  NME 2D   NME 3D   drift   follows a shift   depth of profiles")
chains = {name: chain(network, looks=7) for name, network in networks.items()}
measured = {}
for name, network in networks.items():
    first, second = chains[name][:2]
    pairs = (first[..., :2], truth[..., :2]), (first, truth)
    errors = [100 * summarise(nme(*pair), test.yaw, intervals=False).balanced for pair in pairs]
    row = (*errors, 100 * float(L3D(second, first).sqrt().mean()), share(network, MOVES["shift"]), depth(first))
    measured[name] = row
    print("{:>20}  {:5.2f} %  {:5.2f} %  {:4.2f} %   {:.0%}               {:4.1f} px".format(name, *row))
print(f"{'the truth':>20} {depth(truth):58.1f} px")
assert measured["trained on, with"][2] < measured["trained on, without"][2]

# %% tags=["hide-input"]
curves, marks = {}, np.arange(1, 7)
for name, X in chains.items():
    steps = torch.stack([L3D(b, a).sqrt().mean() for a, b in zip(X[:-1], X[1:])])
    curves[name] = (marks, (100 * steps).numpy())
fig = viz.curve_figure(
    curves,
    x_title="from look k to look k + 1",
    y_title="drift (% of the face's size)",
    log_y=True,
    markers=True,
    height=400,
)
axes = [{"label": k, "method": "relayout", "args": [{"yaxis.type": k}]} for k in ("log", "linear")]
fig.update_layout(updatemenus=[{"buttons": axes, "name": "Vertical axis", "x": 0, "y": 1.2, "xanchor": "left"}])
fig

# %% [markdown]
# **Figure 11.3.** Drift from look to look for the three networks (logarithmic): a straight line falls by the same
# factor each time. *Try* to read that factor from the slope, and compare it with how far the network follows a shift.

# %% [markdown]
# What the loss was asked for, it delivers: less drift. What it was not asked for stands in the columns of errors.
# In 2D there is no gain. In 3D the error *grows*, and the last column says why: faces in profile have become
# flatter. The labelled pictures are nearly frontal, the 2D landmarks do not see depth, so in a turned face nothing
# holds it, and a flat face has less depth to disagree about. That is a fourth way to be consistent, and the
# cheapest. It comes with the weight; a small one does little harm, and little else.
#
# Longer trainings in this project say the same. Beside plain 2D supervision, 3D consistency changes the 2D error by
# little and can hurt the depth of turned faces ([chapter 14](14_training_2dasl.ipynb) has the table with
# intervals). There is no mystery in it: two answers that agree can be wrong together, and the loss has no
# information that was not there before.
#
# ## Noise in, noise out
#
# There is one thing that the product formula promises. If a network follows a share $\lambda$ of what the map says,
# then of an error in the map a share $\lambda$ reaches the first answer, and $\lambda^2$ the second. We take the
# *true* points, add noise of a known size, and watch.

# %%
NOISE = [0, 1, 2, 4, 8]
exact = subset_18(truth[..., :2])
size = face_size(exact)[:, None]
noise = torch.randn(exact.shape, generator=generator)


def error_18(points):
    """Mean error (%) of the 18 points of all faces, in sizes of the face."""
    return 100 * float(((points - exact).norm(dim=-1) / size).mean())


curves = {"what the map shows": (NOISE, [error_18(exact + sigma * noise) for sigma in NOISE])}
for name in ("trained on, without", "trained on, with"):
    X = [chain(networks[name], 2, exact + sigma * noise, None) for sigma in NOISE]
    for k in (0, 1):
        label = f"look {k + 1}, {name.split(', ')[1]}"
        curves[label] = (NOISE, [error_18(subset_18(answers[k][..., :2])) for answers in X])
for name, (_, values) in curves.items():
    print(f"{name:>20}: " + " ".join(f"{value:5.2f}" for value in values) + " %")

# %% tags=["hide-input"]
viz.curve_figure(
    curves,
    x_title="noise of the points in the map (pixels)",
    y_title="error of the 18 points (%)",
    markers=True,
    height=400,
)

# %% [markdown]
# **Figure 11.4.** Noise in the map, error in the answer, for the first and the second look. *Try* to find the noise
# from which the network's answer is better than the points that it was given: below that, a detector that is this
# good would do better alone, *at these 18 points*.

# %% [markdown]
# This is the jitter of above, and all curves are much flatter than that of the map: most of the noise is gone at the
# first look. The second look's are flatter still, because the map that it sees is cleaner. But they start higher:
# what the exact points knew is gone as well. Denoising and forgetting are the same thing here.
#
# ## The whole chain, face by face
#
# Averages hide what happens to one face. {py:func}`twodasl_lite.viz.figure_chain.chain_figure` computes the chains of
# several networks on a few faces, from the true points and from noisy ones, with both kinds of map, and lets you step
# through them. Its losses must be ours, and so must its chains.

# %%
watched = test.take(test.yaw.abs().argsort()[[10, 75, 130, 185]])  # from frontal to profile
names = [f"yaw {value:.0f}°" for value in watched.yaw]
figure = viz.chain_figure(networks, watched, model, whitening, noises=(0, 2, 4), face_names=names)
kinds, noises = figure.header["kinds"], figure.header["noises"]
where = {"regressor": 2, "kind": kinds.index("gaussian"), "noise": noises.index(4), "face": 1}

begin = figure.begins[where["noise"]]  # (4, 18, 2), what the maps of the first looks show
X = chain(networks["trained on, with"], 4, begin, None, watched.inputs()[:, :3])  # (4, 4, 68, 3): looks, faces
mine = {
    "landmarks_3d": consistency_3d(X[1], X[0]),
    "drift": (subset_18(X[1, ..., :2]) - subset_18(X[0, ..., :2])).norm(dim=-1).mean(dim=-1),
}
for face in range(watched.size):
    theirs = figure.numbers(figure.state | where | {"face": face})
    assert np.isclose(float(mine["landmarks_3d"][face]), theirs["landmarks_3d"], rtol=1e-3)
    assert np.isclose(float(mine["drift"][face]), theirs["drift"][1], rtol=1e-3)
    print(f"{names[face]:>9}: 3D loss {theirs['landmarks_3d']:.5f}, error of input and looks (pixels)", np.round(theirs["errors"], 1))
slopes = figure.gradients.flatten(3).norm(dim=-1).flatten(2).mean(dim=-1)  # (networks, maps)
assert bool((slopes[:, kinds.index("binary")] == 0).all() and (slopes[:, kinds.index("gaussian")] > 0).all())

# %% tags=["hide-input"]
figure.set(kind=kinds.index("gaussian"), noise=2, step=2)
figure


# %% [markdown]
# **Figure 11.5.** The chains of four faces: picture and points, the map that is drawn of them, the 3D landmarks seen from
# the side; below, after each look, the distance from the true points (solid) and the drift (dashed) of all three
# networks. *Try* to step on with 4 pixels of noise: what does the first look take away, and what do the later ones add?
# Choose the profile, and compare the depth of the network trained *with* with that of the others. Then go to
# $\hat{\mathbf x}_1$ and change the map to binary: the arrows, the gradient on its way back, are gone.

# %% [markdown]
# ## Summary
#
# * Draw the answer, look again: $\hat{\mathbf X}_2$ should be $\hat{\mathbf X}_1$. All 68 landmarks count, depth is
#   centred, the unit is the face's size.
# * Ignoring the map, ignoring the picture, and knowing everything are all consistent. The loss breaks ties between
#   networks that other losses find equally good.
# * Drift $\approx$ correction times how far the answer follows the map. Repeated looks settle, and forget the
#   detector on the way.
# * A binary map passes no gradient to the points in it. A Gaussian map does, and finite differences agree.
# * In our small training it reduces the drift, as asked, does nothing for the 2D error, and flattens profiles.
#
# ## Exercises
#
# ### Exercise 11.1 · Two gradients, by hand
#
# Write the gradients of `L3D(second, first)` with respect to both answers. Remember the centring, and that the size
# is a constant.

# %% tags=["exercise"]
def gradients(second, first):
    """Gradients (B, 68, 3) of each face's loss with respect to second and to first."""
    return torch.zeros_like(second), torch.zeros_like(first)


# %% tags=["solution"]
def gradients(second, first):
    """Gradients (B, 68, 3) of each face's loss with respect to second and to first."""
    difference = centre_depth(second - first) / face_size(first)[:, None, None].square()
    by_second = 2 * difference / 68  # centring again would change nothing: the mean is zero already
    return by_second, -by_second  # opposite: each is pulled towards the other


# %% tags=["check"]
a, b = X2.clone().requires_grad_(), X1.clone().requires_grad_()
expected = torch.autograd.grad(L3D(a, b).sum(), (a, b))
mine = gradients(X2, X1)
for name, found, right in zip(("second", "first"), mine, expected):
    assert found.shape == right.shape, f"{name}: expected shape {tuple(right.shape)}."
    ratio = float((found * right).sum() / right.square().sum())
    assert abs(ratio - 1) < 1e-3, f"{name}: {ratio:.3g} times the gradient. A factor, the size squared, or a sign?"
    torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-7)
print("✓ equal and opposite: neither answer is the teacher of the other")


# %% [markdown]
# ### Exercise 11.2 · A network in one dimension
#
# A network that sees a point at $u$ in the picture and $x$ in the map answers $g(x) = (1 - \lambda)\, u + \lambda
# x$. The detector is off by $e$: $x = u + e$. Write the length of the step from look $k$ to look $k + 1$, and for
# which $\lambda$ between 0 and 1 the step from look 1 to look 2 is largest.

# %% tags=["exercise"]
def step_length(share, error, k):
    """|g^(k+1)(x) - g^k(x)|."""
    return 0.0


worst_share = 0.0


# %% tags=["solution"]
def step_length(share, error, k):
    """|g^(k+1)(x) - g^k(x)|."""
    return share**k * (1 - share) * abs(error)  # after k looks the error is share^k e


worst_share = 0.5  # the derivative of share (1 - share) vanishes: half map, half picture is the least consistent


# %% tags=["check"]
def g(point, share, u=10.0):
    return (1 - share) * u + share * point


for share in (0.2, 0.5, 0.9):
    at = 10.0 - 3.0
    for k in range(1, 5):
        at = g(at, share)
        step = abs(g(at, share) - at)
        assert abs(step_length(share, -3.0, k) - step) < 1e-9, f"Share {share}, look {k}: the step is {step:.4f}."
shares = np.linspace(0, 1, 101)
lengths = [abs(g(g(7.0, s), s) - g(7.0, s)) for s in shares]
assert abs(worst_share - shares[int(np.argmax(lengths))]) < 0.011, "Try 101 shares, and take the longest step."
print("✓ less drift can mean less map or more map: the loss does not say which")


# %% [markdown]
# ### Exercise 11.3 · How far until a stair
#
# By how many pixels may a point move to the right before the *binary* map changes? Write it for all points at once.

# %% tags=["exercise"]
def room_to_the_right(points):
    """Distances (B, 18) in pixels to the next pixel's border."""
    return torch.zeros_like(points[..., 0])


# %% tags=["solution"]
def room_to_the_right(points):
    """Distances (B, 18) in pixels to the next pixel's border."""
    return points[..., 0].floor() + 1 - points[..., 0]


# %% tags=["check"]
room = room_to_the_right(drawn)
assert room.shape == drawn.shape[:2], f"Expected {tuple(drawn.shape[:2])}, found {tuple(room.shape)}."
before = landmark_map(drawn)
near, beyond = (torch.nn.functional.pad((room + h).clamp(min=0)[..., None], (0, 1)) for h in (-0.01, 0.01))
assert torch.equal(landmark_map(drawn + near), before), "The map changes earlier than you say."
assert (landmark_map(drawn + beyond) != before).flatten(1).any(dim=1).all(), "The map does not change there."
assert 0 <= float(room.min()) <= float(room.max()) <= 1, "At most one pixel."
print(f"✓ on average {room.mean():.2f} pixels without any change: the gradient is right to be zero")


# %% [markdown]
# ### Exercise 11.4 · Until nothing moves
#
# For each face, after how many looks has the answer settled? Return the smallest $k$ for which the drift from look
# $k$ to look $k+1$ is below `limit`, or `most` if there is none up to there.

# %% tags=["exercise"]
def looks_until_settled(network, limit=0.01, most=8):
    """Whole numbers (B,)."""
    return torch.ones(test.size, dtype=torch.long)


# %% tags=["solution"]
def looks_until_settled(network, limit=0.01, most=8):
    """Whole numbers (B,)."""
    X = chain(network, looks=most)
    settled = torch.stack([L3D(b, a).sqrt() < limit for a, b in zip(X[:-1], X[1:])])  # (most - 1, B)
    last = torch.ones_like(settled[:1])  # "most", for those that never settle
    return torch.cat([settled, last]).int().argmax(dim=0) + 1  # argmax finds the first


# %% tags=["check"]
count = looks_until_settled(G)
assert (tuple(count.shape), count.dtype) == ((test.size,), torch.long), "Expected a whole number for each face."
assert looks_until_settled(G, limit=1e9, most=2).eq(1).all(), "With a huge limit, the first look is enough."
assert looks_until_settled(G, limit=0.0, most=3).eq(3).all(), "With limit 0 nothing settles: expected most."
X = chain(G, looks=8)
early = torch.stack([L3D(X[k], X[k - 1]).sqrt() for k in range(1, 8)])  # (7, B)
at = early.gather(0, (count - 1).clamp(max=6)[None])[0]
assert (at[count < 8] < 0.01).all(), "At the look that you name the drift is not below the limit."
sooner = count > 1
assert (early.gather(0, (count - 2).clamp(min=0)[None])[0][sooner] >= 0.01).all(), "An earlier look would do."
print(f"✓ median {int(count.median())} looks; {float((count == 8).float().mean()):.0%} not settled within 8")

# %% [markdown]
# ## Further reading
#
# {cite:t}`tu2021assisted` describe the losses of this part of the book. Asking a network to agree with itself is an
# old and fruitful idea: two views of one picture in semi-supervised learning {cite:p}`laine2017temporal`, a network
# and the average of its own past {cite:p}`tarvainen2017mean`. Why two equal answers can be worthless, and what
# keeps them from collapsing, is the main question of self-supervised learning {cite:p}`chen2021exploring`.
