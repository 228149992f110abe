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
# # 2D landmark consistency
#
# *A picture comes with eighteen points and no 3D. What can it teach about a face, and what never?*
#
# **You need** [chapter 7](07_two_worlds.ipynb) (wild pictures and their detector),
# [chapter 8](08_the_coefficient_regressor.ipynb) (the network), [chapter 9](09_which_coefficient_matters.ipynb)
# (WPDC), and from linear algebra the singular value decomposition.
#
# **After this chapter you can**
#
# - write the 2D landmark loss so that missing points, and points that are not a number, do no harm,
# - say in which unit it measures, and why the unit has no gradient,
# - choose between a square and Huber's distance,
# - count how many of the 62 numbers eighteen points determine, and show two different faces with the same points,
# - train with wild pictures, and read off where it helps and where it cannot.
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
import time

import cv2
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from twodasl_lite import losses, render, viz
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.geometry import camera
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import subset_18
from twodasl_lite.networks import make_regressor
from twodasl_lite.networks.trained import ablation_table
from twodasl_lite.viz.palette import CATEGORICAL, HOUSE_STYLE
from twodasl_lite.worlds.synthetic import TEST_SEED, SyntheticFaces, whitening_of

plt.rcParams.update(HOUSE_STYLE)

# %%
model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components
whitening = whitening_of(model, "wild")
names = model.layout.names


def pictures(world, count, seed=0, truth=True):
    faces = SyntheticFaces(model, world, seed=seed)
    parts = [faces.batch(start, 64, truth=truth) for start in range(0, count, 64)]
    return FaceBatch.cat(parts)


few = pictures("wild", 64, TEST_SEED)
print(
    f"{few.detected_visible.float().mean():.1%} of the points are reported by the "
    "detector"
)

# %% [markdown]
# ## What to expect
#
# This loss carries most of 2DASL. The ablation that is stored with the package
# ([chapter 14](14_training_2dasl.ipynb) explains it) trains the same small network with more and more of the
# losses. Labelled pictures alone, and with the loss of this chapter:

# %%
rows = ablation_table("cpu")["rows"]
for measure in ("landmarks_2d", "landmarks_3d"):
    alone, added = (rows[name][measure] for name in ("labelled", "+landmarks_2d"))
    values = f"{alone['balanced']:.1%} without, {added['balanced']:.1%} with points"
    print(f"{measure}: balanced NME {values}")
assert rows["+landmarks_2d"]["landmarks_2d"]["balanced"] < 0.6 * (
    rows["labelled"]["landmarks_2d"]["balanced"]
)


# %% [markdown]
# The gain is large. The error in 3D stays above the error in 2D, and this chapter finds out why: one row of the
# pose gets no gradient from points in a picture, and many different faces share the same points.
#
# ## The loss
#
# The network predicts coefficients, the decoder turns them into a face, and eighteen of its landmarks,
# $\hat{\mathbf x}_1 = P(D(G(I, M(\mathbf x))))$, should lie where the detector saw them, at $\mathbf x$. With
# $m_i = 1$ for a point that was reported and 0 for one that was not,
#
# $$ \mathcal L_{2D} = \frac{\sum_i m_i\; \rho\big(\lVert \hat{\mathbf x}_{1i} - \mathbf x_i \rVert / s\big)}{\sum_i m_i},
# \qquad \rho(d) = d^2, \qquad s = \sqrt{w h} . $$
#
# $w \times h$ is the bounding box of the *detected* points. The idea is from {cite:t}`tu2021assisted` (the
# landmark self-prediction of section 3.3 of the preprint); the mask, the unit and the choice of $\rho$ are
# ours, because neither the paper nor the released code fixes them.
#
# Written with loops, there is little to get wrong:

# %%
def by_loops(predicted, detected, visible, rho=lambda d: d * d):
    """2D landmark consistency (B,) of points (B, 18, 2), slowly."""
    losses_of_faces = []
    for face in range(len(predicted)):
        known = [i for i in range(18) if visible[face, i]]
        seen = detected[face][known]
        width, height = seen.amax(dim=0) - seen.amin(dim=0)
        # pixels; two points alone have no area
        size = max(float(width * height) ** 0.5, 12.0)
        total = 0.0
        for i in known:
            total = (
                total + rho((predicted[face, i] - detected[face, i]).norm() / size)
            )
        losses_of_faces.append(total / max(len(known), 1))
    return torch.stack(losses_of_faces)


# %%
true_points = subset_18(few.landmarks[..., :2])
generator = torch.Generator().manual_seed(0)
guess = true_points + 3 * torch.randn(true_points.shape, generator=generator)
squared = losses.LandmarkConsistency2D()
target, visible = few.detected, few.detected_visible
torch.testing.assert_close(
    by_loops(guess, target, visible), squared(guess, target, visible)
)
unknown = int(target.isnan().any(dim=-1).sum())
print(
    f"points that are NaN: {unknown}; largest loss: "
    f"{squared(guess, target, visible).max():.4f}"
)


# %% [markdown]
# Without loops there is a trap, and a naive implementation falls into it. A point that was not reported is
# NaN, and the obvious mask, `m * distance`, does not help: zero times NaN is NaN. Nor does replacing the NaN
# *afterwards*: the loss is then correct, but its *gradient* is still NaN, since the backward pass multiplies
# zero by NaN once more. The point must be replaced *before* any arithmetic.

# %%
def gradient_is_finite(masked_square):
    """Whether no gradient of a masked sum of squares is NaN."""
    at = guess.clone().requires_grad_()
    masked_square(at).sum().backward()
    return bool(at.grad.isfinite().all())


mask = visible[..., None]
# zero difference at unknown points
clean = torch.where(mask, target, guess)
ways = {
    "mask times distance": lambda p: mask * (p - target) ** 2,
    "replaced afterwards": lambda p: torch.where(mask, (p - target) ** 2, 0.0),
    "replaced before": lambda p: (
        torch.where(mask, p, 0.0) - torch.where(mask, target, 0.0)
    ) ** 2
}
for name, way in ways.items():
    print(
        f"{name:20} loss finite: {bool(way(guess).isfinite().all())!s:6} gradient "
        f"finite: {gradient_is_finite(way)}"
    )

# %% [markdown]
# In the second row the loss is fine but the gradient is not: such a bug shows only in the *next* step, when
# all weights are NaN.
#
# ## In face sizes
#
# Dividing by $s$ makes the loss independent of the resolution: with pictures twice as large, nothing changes,
# and the weight of this loss relative to others can stay the same. Two details matter. The box belongs to the
# *target* and is a constant. If it belonged to the prediction, a network could lower its loss by drawing
# larger faces. And the size has a floor, because two points may span a box without area.

# %%
twice = squared(2 * guess, 2 * target, visible)
torch.testing.assert_close(twice, squared(guess, target, visible))


def growing(scale):
    """Loss of an enlarged prediction, in units of the target's and its own box."""
    centre = guess.mean(dim=1, keepdim=True)
    large = centre + scale * (guess - centre)
    distance = (large - clean).square().sum(dim=-1).mean(dim=-1)
    return [
        float((distance / losses.face_size(box).square()).mean())
        for box in (clean, large)
    ]


print("face drawn larger by:       1.0     1.5     3.0     8.0")
for row, name in enumerate(("the target's box", "the prediction's")):
    print(f"{name:20}", *(f"{growing(scale)[row]:7.3f}" for scale in (1, 1.5, 3, 8)))

# %% [markdown]
# In units of its own box, a face eight times too large costs hardly more than one that is three times too
# large; the gradient that should shrink it vanishes.
#
# ## One landmark goes astray
#
# Detectors fail on a hand, a microphone, a patterned shirt. With a squared distance, the farthest point pulls
# hardest. Huber's distance {cite:p}`huber1964robust` is the square up to $\delta$ and a straight line beyond,
#
# $$ \rho(d) = \begin{cases} d^2 & d \le \delta \\ 2\,\delta\,d - \delta^2 & d > \delta, \end{cases} $$
#
# so that a point pulls with at most $2\delta$, however far away it is.

# %%
DELTA = 0.05  # face sizes; twice the usual error of a detector


def huber_rho(d):
    return d * d if d <= DELTA else 2 * DELTA * d - DELTA**2


huber = losses.LandmarkConsistency2D("huber", delta=DELTA)
torch.testing.assert_close(
    by_loops(guess, target, visible, huber_rho), huber(guess, target, visible)
)

# %% [markdown]
# Here is an experiment without a network: we take one face, drag the corner of its mouth away, and look for
# the 62 numbers that minimise the loss. Sixty-two numbers can match eighteen points in many ways, so we add
# the prior of chapter 4, with the weight that follows from the detector's noise of $\sigma = 1.7\,\%$ of the
# face: $\mathcal L_{2D} + \frac{\sigma^2}{18} \sum_k \gamma_k^2$.

# %%
NOISE = 0.017  # of a coordinate, in face sizes
drags = torch.arange(0.0, 41.0, 4.0)  # pixels
face = whitening.whiten(few.coefficients[16])
# (1, 18, 2)
right = subset_18(decode_landmarks(whitening.unwhiten(face[None]), model)[..., :2])
CORNER = 17
dragged = right.repeat(len(drags), 1, 1)
dragged[:, CORNER] += drags[:, None] * torch.tensor([0.6, 0.8])
unit = losses.face_size(right)


# %%
def fit(loss, targets, steps=400):
    """Points (N, 18, 2) of the coefficients that minimise loss and prior."""
    c = face.repeat(len(targets), 1).requires_grad_()
    optimiser = torch.optim.Adam([c], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    scaled = unit / losses.face_size(targets)  # all in sizes of the true face
    for _ in range(steps):
        points = subset_18(decode_landmarks(whitening.unwhiten(c), model)[..., :2])
        cost = (
            loss(points, targets) / scaled**2
            + NOISE**2 / 18 * c[:, 12:].square().sum(dim=1)
        )
        optimiser.zero_grad()
        cost.sum().backward()
        optimiser.step()
        schedule.step()
    return points.detach()


# %%
fitted = {"squared": fit(squared, dragged), "Huber": fit(huber, dragged)}
others = [i for i in range(18) if i != CORNER]
print(
    "dragged by (pixels):" + "".join(f"{drag:7.0f}" for drag in drags[::2].tolist())
)
off = {}
for name, points in fitted.items():
    off[name] = 100 * ((points - right).norm(dim=-1)[:, others].mean(dim=1) / unit)
    print(
        f"{name:8} others off:"
        + "".join(f"{value:6.1f}%" for value in off[name][::2].tolist())
    )
assert off["Huber"][-1] < 0.6 * off["squared"][-1]


# %% tags=["hide-input"]
def jpeg(rgb):
    """A picture (H, W, 3) uint8 for plotly, three times as fine as the crop."""
    data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


photo = few.images[16].permute(1, 2, 0).numpy()
large = jpeg(cv2.resize(photo, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC))
fig = make_subplots(
    1, 2, subplot_titles=("squared", "Huber"), horizontal_spacing=0.03
)


def columns(points):
    x, y = points.numpy().round(1).T
    return {"x": x.tolist(), "y": y.tolist()}


# %% tags=["hide-input"]
START = 6
for column, points in enumerate(fitted.values(), start=1):
    fig.add_trace(
        go.Image(
            source=large, dx=1 / 3, dy=1 / 3, x0=-1 / 3, y0=-1 / 3, hoverinfo="skip"
        ),
        1, column
    )
    marks = {
        "target": (dragged[START], "#F0E442", 9),
        "fit": (points[START], "#56B4E9", 6)
    }
    for name, (place, colour, size) in marks.items():
        marker = {
            "size": size, "color": colour, "line": {"width": 1, "color": "black"}
        }
        look = {
            "mode": "markers", "marker": marker, "name": name,
            "showlegend": column == 1, "hoverinfo": "skip"
        }
        fig.add_trace(go.Scatter(columns(place), **look), 1, column)

# %% tags=["hide-input"]
fig.frames = [
    go.Frame(
        data=[
            go.Scatter(columns(p)) for points in fitted.values()
            for p in (dragged[k], points[k])
        ],
        traces=[1, 2, 4, 5], name=f"{drag:.0f}"
    )
    for k, drag in enumerate(drags.tolist())
]
play = {
    "mode": "immediate", "frame": {"duration": 0, "redraw": True},
    "transition": {"duration": 0}
}
steps = [
    {"label": frame.name, "method": "animate", "args": [[frame.name], play]}
    for frame in fig.frames
]
slider = {
    "active": START, "steps": steps,
    "currentvalue": {"prefix": "dragged by (pixels): "}
}
fig.update_xaxes(range=[-0.5, 119.5], visible=False)
fig.update_yaxes(range=[119.5, -0.5], visible=False)
fig.update_layout(
    height=450, margin={"l": 5, "r": 5, "t": 30, "b": 10}, sliders=[slider]
)
fig.update_layout(legend={"orientation": "h", "y": 1.14})
fig


# %% [markdown]
# **Figure 10.1.**<a id="dragged-corner"></a> A corner of the mouth is dragged away, and the fit tries to satisfy all eighteen points.
# *Try* the slider: on the left the whole face follows, on the right it soon lets go. *Look at* small
# distances: there the two agree, as they must.

# %% [markdown]
# Is Huber always better, then? Beyond $\delta$ it trusts a point *less*. Early in training, when the network
# is far off everywhere, all points are beyond $\delta$, and correct ones pull no harder than wrong ones.
# Robustness has a price; the measurement at the end of the chapter shows which distance trains better.
#
# ## The gradient that reaches the 62 numbers
#
# A landmark of the decoded face is $\mathbf v_i = \mathbf M \mathbf S_i + \mathbf t$, of which the picture
# shows the first two rows. Let
# $\mathbf g_i = \partial \mathcal L_{2D} / \partial \hat{\mathbf x}_{1i} = 2 m_i (\hat{\mathbf x}_{1i} - \mathbf x_i) / (s^2 \sum_j m_j)$
# be the pull of the loss on point $i$, with $y$ up. As for VDC in chapter 9, the chain rule gives
#
# $$ \frac{\partial \mathcal L_{2D}}{\partial M_{rj}} = \sum_i g_{ir} S_{ij}, \quad \frac{\partial \mathcal L_{2D}}{\partial t_r} = \sum_i g_{ir} \;\; (r = 1, 2), \qquad \frac{\partial \mathcal L_{2D}}{\partial a_k} = \sum_i \mathbf g_i^\top \mathbf M_{1:2}\, \mathbf A_{k,i}, $$
#
# each times the standard deviation of its entry. For $r = 3$ there is no term: the third row of the pose gets
# *exactly* zero.

# %%
def gradient_2d(c, target, visible):
    """Gradient (B, 62) of the squared loss with respect to whitened coefficients."""
    face = Coefficients.unpack(whitening.unwhiten(c), model.layout)
    S = subset_18(model.decode_landmarks(face.shape, face.expression))  # (B, 18, 3)
    points = subset_18(decode_landmarks(whitening.unwhiten(c), model)[..., :2])
    miss = torch.where(visible[..., None], points - target, 0.0)  # no gradient: fine
    unit = losses.face_size(target, visible).square() * visible.sum(dim=1)
    g = 2 * miss / unit[:, None, None] * torch.tensor([1.0, -1.0])  # y up
    rows = torch.cat([S, torch.ones_like(S[..., :1])], dim=-1)  # (B, 18, 4)
    pose = torch.zeros(len(c), 3, 4)
    pose[:, :2] = g.mT @ rows  # the third row stays zero
    A = subset_18(model.basis[model.landmarks].permute(2, 0, 1))  # (50, 18, 3)
    rest = torch.einsum("bnr,brj,knj->bk", g, face.pose[:, :2, :3], A)
    return torch.cat([pose.flatten(1), rest], dim=1) * whitening.std


at = whitening.whiten(few.coefficients) + 0.2 * torch.randn(
    64, 62, generator=generator
)
at.requires_grad_()
points = subset_18(decode_landmarks(whitening.unwhiten(at), model)[..., :2])
(automatic,) = torch.autograd.grad(squared(points, target, visible).sum(), at)
by_hand = gradient_2d(at.detach(), target, visible)
worst = float((by_hand - automatic).abs().max() / automatic.abs().max())
print(f"by hand and by autograd: equal to {worst:.0e} of the largest entry")
assert worst < 1e-3
assert (automatic[:, 8:12] == 0).all(), "the third row should get no gradient"

# %% [markdown]
# How large are these gradients for an untrained network that predicts the mean face for every wild picture?
# We compare mean absolute gradients, per standard deviation of the coefficient.

# %%
# whitened: the mean face in the mean pose
answer = torch.zeros(64, 62, requires_grad=True)
points = subset_18(decode_landmarks(whitening.unwhiten(answer), model)[..., :2])
squared(points, target, visible).sum().backward()
heard = answer.grad.abs().mean(dim=0)  # (62,)
for k in heard.argsort(descending=True)[:6].tolist():
    print(f"{names[k]:14} {heard[k]:.4f}")
deaf = [names[k] for k in range(62) if heard[k] == 0]
print("no gradient at all:", ", ".join(deaf))
assert deaf == ["pose[2,0]", "pose[2,1]", "pose[2,2]", "pose[2,3]"]

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
kinds = {"pose": range(12), "shape": range(12, 52), "expression": range(52, 62)}
for colour, (kind, part) in zip(CATEGORICAL, kinds.items(), strict=False):
    axes.bar(list(part), heard[list(part)], color=colour, label=kind)
axes.axvspan(7.5, 11.5, color="#7d858f", alpha=0.25, linewidth=0)
axes.text(9.5, 0.3, "third row:\nnothing", ha="center", va="top", fontsize=9)
axes.set(yscale="log", ylim=(1e-4, 1), xlabel="coefficient", ylabel="mean gradient")
axes.spines[["top", "right"]].set_visible(False)
_ = axes.legend(frameon=False, ncols=3, loc="upper right")

# %% [markdown]
# **Figure 10.2.** The gradient that eighteen points send to each of the 62 numbers (logarithmic). *Look for*
# the gap: the third row of the pose, which determines the depth of the decoded face, gets no gradient. *Ask
# yourself* whether it could be found from the other two rows.

# %% [markdown]
# Four of the 62 never get a gradient. Three of them form the third row of $f\mathbf R$, and we know more than
# the loss does: $\mathbf R$ is a rotation, so its third row is the cross product of the first two. But the
# network predicts twelve free numbers. If only 2D losses teach it, nothing makes its third row fit the
# others. We come back to this.

# %%
viz.landmark_consistency_figure(model, whitening, face, image=few.images[16])


# %% [markdown]
# **Figure 10.3.** The loss in your hands. Orange, the eighteen points of the detector; blue, the mean face
# that should move there. *Try* 200 steps of descent: the points come close, and the table shows what happens
# to the depth, which is not in the loss. Hide the points of one side and descend again. Drag one point far
# away, and switch to Huber's distance.

# %% [markdown]
# ## What eighteen points determine
#
# A gradient is only one direction. The *Jacobian* $\mathbf J$, $36 \times 62$, tells the whole story: how the
# 36 coordinates of the points change with each coefficient. Its singular values say how far the points move,
# in face sizes, for one standard deviation along each singular direction of coefficient space. A matrix with
# 36 rows has at most 36 nonzero ones, so at least $62 - 36 = 26$ directions move *nothing*. Any of the other
# 36 is useful only if it moves the points by more than their noise.

# %%
def points_of(c):
    """Eighteen points (18, 2) of one vector of whitened coefficients (62,)."""
    return subset_18(
        decode_landmarks(whitening.unwhiten(c[None]), model)[..., :2]
    )[0]


def singular_values(index):
    c = whitening.whiten(few.coefficients[index])
    # (36, 62)
    jacobian = torch.autograd.functional.jacobian(points_of, c).flatten(0, 1)
    return torch.linalg.svdvals(
        jacobian.double() / losses.face_size(points_of(c)[None])
    )


turns = few.yaw.abs()
chosen = {
    "frontal": turns.argmin(), "half profile": (turns - 45).abs().argmin(),
    "profile": turns.argmax()
}
spectra = {name: singular_values(int(index)) for name, index in chosen.items()}
for name, values in spectra.items():
    print(
        f"{name:13} {int((values > NOISE).sum())} of 62 directions are above the "
        "noise"
    )
assert all((values > NOISE).sum() < 31 for values in spectra.values())

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
for colour, (name, values) in zip(CATEGORICAL, spectra.items(), strict=False):
    axes.plot(
        np.arange(1, 37), values.clamp(min=2e-5), ".-", color=colour, label=name
    )
axes.axhline(NOISE, color="#7d858f", linestyle="--")
axes.text(
    62, NOISE * 1.25, "noise of a detected coordinate", ha="right", fontsize=9,
    color="#5B636C"
)
axes.axvspan(36.5, 62.5, color="#7d858f", alpha=0.2, linewidth=0)
axes.text(49.5, 3e-4, "26 directions\nmove no point", ha="center", fontsize=9)
axes.set(
    yscale="log", ylim=(1e-5, 10), xlim=(0, 62.5), xlabel="direction",
    ylabel="singular value (face sizes)"
)
axes.spines[["top", "right"]].set_visible(False)
_ = axes.legend(frameon=False, ncols=3)


# %% [markdown]
# **Figure 10.4.** How far the points move along each singular direction. *Look for* the point where each
# curve meets the noise: that many of the 62 numbers can be learned from one picture with its points. The rest
# must come from the photo itself, and for those the labelled pictures are the only teacher.

# %% [markdown]
# What is hidden in the rest? We fix the pose; then the points are exactly linear in the fifty coefficients of
# shape and expression, and the null space of $\mathbf J$ (14 dimensions) is not an approximation: along it
# *no point moves at all*. Which of its directions changes the depth of the 68 landmarks most? That is another
# singular value decomposition, of the depths' Jacobian within the null space.

# %%
def depths_of(c):
    z = decode_landmarks(whitening.unwhiten(c[None]), model)[0, :, 2]
    return z - z.mean()


# pixels per mm; a face that looks at us
scale, ahead = torch.tensor(0.58), torch.eye(3)
centre = model.decode_landmarks(
    torch.zeros(1, 40), torch.zeros(1, 10)
)[0].mean(dim=0)
pose = camera.make_pose(
    scale, ahead, torch.tensor([60.5, 55.0, 0.0]) - scale * centre
)
middle = torch.cat([pose.flatten(), torch.zeros(50)])  # the mean face
middle = torch.where(torch.arange(62) < 12, whitening.whiten(middle), 0.0)
# (36, 50)
J = torch.autograd.functional.jacobian(points_of, middle).flatten(0, 1)[:, 12:]
null = torch.linalg.svd(J.double())[2][36:].T.float()  # (50, 14)
J_depth = torch.autograd.functional.jacobian(depths_of, middle)[:, 12:]  # (68, 50)
# (50,) one standard deviation long
way = null @ torch.linalg.svd(J_depth @ null)[2][0]


def along(t):
    c = middle.clone()
    c[12:] += t * way
    return c


# %%
first, second = along(-4.0), along(4.0)
moved = float((points_of(first) - points_of(second)).abs().max())
deeper = float((depths_of(first) - depths_of(second)).abs().max())
print(
    f"the 18 points move by at most {moved:.6f} pixels, depths of landmarks by up "
    f"to {deeper:.1f}"
)
print(f"largest coefficient: {float((4 * way).abs().max()):.1f} standard deviations")
assert moved < 1e-3
assert deeper > 3

# %% tags=["hide-input"]
skin = model.decode_albedo(
    model.sample_albedo(1, generator=torch.Generator().manual_seed(11))
)[0]
lamps = render.Lamps(
    torch.full((3,), 0.35), torch.tensor([[0.5, 0.5, 0.8]]), torch.full((1, 3), 1.0)
)


def view(c, angle):
    """A picture (240, 240, 3) of a face turned further, and its 18 points."""
    face = Coefficients.unpack(whitening.unwhiten(c[None]))
    turn = camera.euler_to_matrix(torch.deg2rad(torch.tensor([0.0, angle, 0.0])))
    scale, rotation, shift = camera.split_pose(face.pose)
    anchor = torch.tensor([60.5, 60.5, -25.0])
    turned = face._replace(
        pose=camera.make_pose(
            scale, turn @ rotation, (shift - anchor) @ turn.T + anchor
        )
    )
    fine = render.refine(decode(turned, model), 2)
    drawn = render.render(
        fine, model.triangles, skin, 240, 240, light=lamps, supersample=2
    )
    rgb = (
        255 * render.over(drawn, torch.tensor([0.62, 0.65, 0.69]))[0]
    ).round().byte().numpy()
    return rgb, subset_18(decode_landmarks(turned, model)[..., :2])[0]


# %% tags=["hide-input"]
walk = [-4, -3, -2, -1, 0, 1, 2, 3, 4]
fig = make_subplots(
    1, 2, horizontal_spacing=0.03,
    subplot_titles=("as the picture shows it", "from the side")
)


def panels_of(t):
    for angle in (0.0, -70.0):
        rgb, spots = view(along(float(t)), angle)
        yield go.Image(
            source=jpeg(rgb), dx=0.5, dy=0.5, x0=-0.25, y0=-0.25, hoverinfo="skip"
        )
        yield go.Scatter(columns(spots))


# %% tags=["hide-input"]
look = {
    "mode": "markers",
    "marker": {"size": 6, "color": "#56B4E9", "line": {"width": 1, "color": "black"}}
}
for number, trace in enumerate(panels_of(walk[0])):
    if number % 2:
        trace.update(look).update(showlegend=False, hoverinfo="skip")
    fig.add_trace(trace, 1, 1 + number // 2)
fig.frames = [
    go.Frame(data=list(panels_of(t)), traces=[0, 1, 2, 3], name=str(t)) for t in walk
]
steps = [
    {"label": str(t), "method": "animate", "args": [[str(t)], play]} for t in walk
]
fig.update_xaxes(range=[-0.5, 119.5], visible=False)
fig.update_yaxes(range=[119.5, -0.5], visible=False)
slider = {
    "active": 0, "steps": steps, "currentvalue": {"prefix": "standard deviations: "}
}
fig.update_layout(
    height=450, margin={"l": 5, "r": 5, "t": 30, "b": 10}, sliders=[slider]
)
fig

# %% [markdown]
# **Figure 10.5.**<a id="walk-without-moving"></a> A walk along a direction in which no point moves. *Try* the slider and watch the points on
# the left: they stay still, while the profile on the right becomes that of another person. *Look at* the nose
# and the chin. The loss of this chapter cannot tell these faces apart.

# %% [markdown]
# This is related to the *bas-relief ambiguity* {cite:p}`belhumeur1999bas`: seen from the front, a flat relief
# cannot be distinguished from a full face. Only the photo can decide, through shading, the outline, or the
# shadow of the nose; and only the labelled world teaches the network how to read these.
#
# ## In training
#
# Now we train networks with 512 labelled pictures, 768 wild ones that have only points, and 160 steps. The
# first network uses WPDC on the labelled pictures alone. The others add a mini-batch of 32 wild pictures in
# each step, with 2D landmark consistency, squared or Huber's. Its weight of 100 is ours: squared distances in
# face sizes are small numbers.

# %%
labelled, unlabelled = (
    pictures("labelled", 512), pictures("wild", 768, seed=1, truth=False)
)
test = pictures("wild", 192, TEST_SEED)
assert unlabelled.landmarks is None
assert unlabelled.coefficients is None
inputs = {
    "labelled": labelled.inputs(), "wild": unlabelled.inputs(), "test": test.inputs()
}
answers = whitening.whiten(labelled.coefficients)
WPDC = losses.WPDC(model, whitening)
STEPS, BATCH, RATE, WEIGHT = 160, 32, 2e-3, 100.0


# %%
def train_with(consistency=None, seed=0):
    torch.manual_seed(seed)
    network = make_regressor("lite")
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=STEPS
    )
    for _ in range(STEPS):
        i, j = (
            torch.randperm(labelled.size)[:BATCH],
            torch.randperm(unlabelled.size)[:BATCH]
        )
        if consistency is None:
            cost = WPDC(network(inputs["labelled"][i]), answers[i]).mean()
        else:  # one pass for both, so that normalisation sees both worlds
            out = network(torch.cat([inputs["labelled"][i], inputs["wild"][j]]))
            points = subset_18(
                decode_landmarks(whitening.unwhiten(out[BATCH:]), model)[..., :2]
            )
            self_taught = consistency(
                points, unlabelled.detected[j], unlabelled.detected_visible[j]
            )
            cost = WPDC(out[:BATCH], answers[i]).mean() + WEIGHT * self_taught.mean()
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


# %%
start = time.perf_counter()
trained = {
    "labelled only": train_with(), "+ 2D, squared": train_with(squared),
    "+ 2D, Huber": train_with(huber)
}
print(f"{time.perf_counter() - start:.0f} s")


# %%
def errors(raw, dimensions):
    points = decode_landmarks(raw, model)[..., :dimensions]
    return summarise(
        nme(points, test.landmarks[..., :dimensions]), test.yaw, intervals=False
    )


with torch.no_grad():
    raw = {
        name: whitening.unwhiten(network(inputs["test"]))
        for name, network in trained.items()
    }
tables = {}
for dimensions in (2, 3):
    print(f"{dimensions}D NME in %      to 30°  to 60°  beyond  balanced")
    for name, vectors in raw.items():
        tables[name, dimensions] = errors(vectors, dimensions)
        print(
            f"{name:15}"
            + "".join(
                f"{100 * v:8.1f}" for v in tables[name, dimensions].values()[:4]
            )
        )
before, after = tables["labelled only", 2], tables["+ 2D, squared", 2]
assert after.balanced < 0.6 * before.balanced
# the depth stays behind
assert tables["+ 2D, squared", 3].balanced > 1.2 * after.balanced

# %% tags=["hide-input"]
figure, panels = plt.subplots(
    1, 2, figsize=(8, 3), sharey=True, layout="constrained"
)
for axes, dimensions in zip(panels, (2, 3), strict=True):
    for number, (name, colour) in enumerate(zip(raw, CATEGORICAL, strict=False)):
        heights = [100 * value for value in tables[name, dimensions].bins]
        axes.bar(
            np.arange(3) + 0.26 * (number - 1), heights, 0.24, color=colour,
            label=name
        )
    axes.set(
        xticks=range(3), xticklabels=("to 30°", "to 60°", "beyond"),
        title=f"{dimensions}D"
    )
    axes.spines[["top", "right"]].set_visible(False)
panels[0].set_ylabel("NME (%)")
_ = panels[0].legend(frameon=False, fontsize=9)

# %% [markdown]
# **Figure 10.6.** Errors on wild pictures that no network has seen, by yaw bin: of the 68 landmarks in the
# picture (2D), and in space (3D). Eighteen points were used for training, 68 are measured. *Look for* the bin
# where points teach most, and compare the heights on the left and on the right.

# %% tags=["hide-input"]
order = test.yaw.abs().argsort()
shown = order[torch.linspace(8, len(order) - 9, 4).long()]
skin = model.decode_albedo()[0]  # the average skin, (V, 3)
heads = {name: raw[name] for name in ("labelled only", "+ 2D, squared")}
heads = {"photo": None, **heads, "the truth": test.coefficients}
figure, panels = plt.subplots(4, 4, figsize=(8, 8.2), layout="constrained")
for line, (title, vectors) in zip(panels, heads.items(), strict=True):
    for axes, index in zip(line, shown.tolist(), strict=True):
        if vectors is None:
            axes.imshow(test.images[index].permute(1, 2, 0))
        else:
            vertices = decode(vectors[index : index + 1], model)[0]
            look = {"frame": "pixels", "pixels": 400}
            viz.shaded_mesh(axes, vertices, model.triangles, skin, **look)
        axes.set_axis_on()
        axes.set(xlim=(-0.5, 119.5), ylim=(119.5, -0.5), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    line[0].set_ylabel(title, fontsize=11)


# %% [markdown]
# **Figure 10.7.** Wild pictures, from frontal to profile, the faces that two of the networks predict, and the
# truth. The network in the third row was never told the pose of a wild picture. *Compare* where the noses
# point in the last columns, and how little the faces differ from each other: pose is learned first, the
# person much later.

# %% [markdown]
# So 2D landmarks teach *pose*, above all. The network finds profiles, which the labelled world does not
# contain, within a short run. This is the largest improvement in this part of the book; the next three
# chapters add less.
#
# What they do not teach is depth: the error in space stays well above that in the picture. Part of it is due
# to the third row of the pose. Is it consistent with the other two? Leaving those unchanged, so that nothing
# in the picture moves, we replace the third row by that of a rotation, scaled by $f$: the cross product
# $\mathbf r_1 \times \mathbf r_2$ has length $f^2$, thus $\mathbf r_3 = \mathbf r_1 \times \mathbf r_2 / f$.

# %%
def with_third_row(vectors):
    """Raw coefficients (B, 62) whose third row follows from the first two."""
    face = Coefficients.unpack(vectors)
    pose = face.pose.clone()
    first, second = pose[:, 0, :3], pose[:, 1, :3]
    scale = (first.norm(dim=1) * second.norm(dim=1)).sqrt()
    pose[:, 2, :3] = torch.linalg.cross(first, second) / scale[:, None]
    return face._replace(pose=pose).pack()


print(
    "3D NME in %      balanced   third row replaced   angle between the two (median)"
)
for name, vectors in raw.items():
    repaired = with_third_row(vectors)
    torch.testing.assert_close(
        *(decode_landmarks(v, model)[..., :2] for v in (vectors, repaired))
    )
    rows = [Coefficients.unpack(v).pose[:, 2, :3] for v in (vectors, repaired)]
    angle = torch.rad2deg(
        torch.nn.functional.cosine_similarity(*rows).acos()
    ).median()
    values = (100 * tables[name, 3].balanced, 100 * errors(repaired, 3).balanced)
    print(f"{name:15} {values[0]:9.1f} {values[1]:20.1f} {angle:20.0f}°")

# %% [markdown]
# In the networks that learned from wild pictures, the third row has drifted away from the others, most of all
# in profile. Completing the pose costs nothing and brings the face much closer in space. The network without
# wild pictures never learned profiles, and its rows agree with each other: consistent, and wrong.
#
# Is the rest due to the ambiguity of [figure 10.5](#walk-without-moving)? We can check, because we drew these pictures: we give the
# prediction the true shape and expression, and then we give the mean face the true pose.

# %%
own = Coefficients.unpack(with_third_row(raw["+ 2D, squared"]))
true = Coefficients.unpack(test.coefficients)
nobody = [torch.zeros_like(part) for part in true[1:]]
cases = {
    "pose and shape predicted": own,
    "true shape, pose predicted": true._replace(pose=own.pose),
    "true pose, mean face": Coefficients(true.pose, *nobody),
}
for name, mixed in cases.items():
    print(
        f"{name:27}"
        + "  ".join(
            f"{d}D {100 * errors(mixed.pack(), d).balanced:4.1f} %" for d in (2, 3)
        )
    )


# %% [markdown]
# Shape is not the bottleneck yet: with the true shape the error in space hardly changes. After so short a run
# it is the pose. The last row shows the error that remains when the pose is perfect and nothing is known
# about the person; only below that does the ambiguity begin to matter. Longer training comes close to it
# (chapter 14).
#
# And Huber or squared? Here they are close: our detector, calibrated on a real one, produces too few outliers
# to make a difference. With a worse detector, [figure 10.1](#dragged-corner) shows which to choose.
#
# ## Summary
#
# * 2D landmark consistency is the mean squared distance, in face sizes, between the decoded landmarks and the
#   detected ones, over the points that were detected.
# * Replace missing values before any arithmetic. The unit belongs to the target and is a constant.
# * Huber's distance ignores outliers, but also correct points while the network is far off.
# * Eighteen points determine one or two dozen of the 62 numbers. Four get no gradient, and 26 directions move
#   no point; depth is among them.
# * Wild pictures with points teach pose, above all in profile. For everything else the labelled pictures are
#   the only teachers.
#
# The loss is this project's reading of the paper; mask, unit, Huber's distance and the weight are ours.
#
# ## Exercises
#
# ### Exercise 10.1 · Without a loop, without a NaN
#
# Write the loss for a mini-batch, with tensors only. Faces without any reported point cost zero. The check
# includes points that are NaN, for the loss and for its gradient.

# %% tags=["exercise"]
def consistency(predicted, detected, visible):
    """2D landmark consistency (B,) of points (B, 18, 2); visible is (B, 18)."""
    return predicted.sum(dim=(1, 2)) * 0


# %% tags=["solution"]
def consistency(predicted, detected, visible):
    """2D landmark consistency (B,) of points (B, 18, 2); visible is (B, 18)."""
    known = visible[..., None]
    low = torch.where(known, detected, torch.inf).amin(dim=1)
    high = torch.where(known, detected, -torch.inf).amax(dim=1)
    size = (high - low).clamp(min=0).prod(dim=1).sqrt().clamp(min=12.0)
    difference = torch.where(
        known, predicted - torch.where(known, detected, 0.0), 0.0
    )
    distance = (difference / size[:, None, None]).square().sum(dim=-1)
    return distance.sum(dim=1) / visible.sum(dim=1).clamp(min=1)


# %% tags=["check"]
seen = visible.clone()
seen[3], seen[5, 2:] = False, False  # a face without points, and one with two
unknown = torch.where(seen[..., None], target, torch.nan)
at = guess.clone().requires_grad_()
mine, wanted = consistency(at, unknown, seen), squared(guess, unknown, seen)
assert mine.shape == wanted.shape, (
    f"Expected one number per face, found {tuple(mine.shape)}."
)
assert mine.isfinite().all(), "The loss is NaN or infinite."
assert mine[3] == 0, "A face without points should cost nothing."
usual = seen.sum(dim=1) > 2
ratio = float((mine / wanted).detach()[usual].mean())
assert abs(ratio - 1) < 1e-3, (
    f"On average {ratio:.3g} times the loss: the unit, or the number of points?"
)
assert torch.allclose(mine, wanted, rtol=1e-3), (
    "Right, except for a face with two points: is there a floor?"
)
mine.sum().backward()
assert at.grad.isfinite().all(), "The loss is right, its gradient is NaN."
print("✓ 64 faces at once")


# %% [markdown]
# ### Exercise 10.2 · How hard can a point pull?
#
# Give the norm of the gradient of the loss with respect to *one* predicted point that is $d$ pixels off, for
# a face of size $s$ pixels with $n$ visible points, for the squared and for Huber's distance.

# %% tags=["exercise"]
def pull(d, s, n, delta=None):
    """Norm of the gradient per pixel; Huber's if delta is given."""
    return 0.0


# %% tags=["solution"]
def pull(d, s, n, delta=None):
    """Norm of the gradient per pixel; Huber's if delta is given."""
    far = d / s if delta is None else min(d / s, delta)
    return 2 * far / (s * n)


# %% tags=["check"]
corners = torch.tensor([[[0.0, 0.0], [60.0, 0.0], [60.0, 60.0], [0.0, 60.0]]])
for d in (1.0, 4.0, 30.0):
    for loss, delta in ((squared, None), (huber, DELTA)):
        at = (
            corners + torch.tensor([[d, 0.0], [0, 0], [0, 0], [0, 0]])
        ).requires_grad_()
        loss(at, corners).sum().backward()
        truth = float(at.grad[0, 0].norm())
        mine = float(pull(d, 60.0, 4, delta))
        kind = "squared" if delta is None else "Huber"
        assert abs(mine / truth - 1) < 1e-3, (
            f"{kind}, {d:.0f} pixels off: {truth:.5f}, not {mine:.5f}."
        )
print(
    f"✓ 30 pixels off: {pull(30.0, 60.0, 4) / pull(30.0, 60.0, 4, DELTA):.0f} times "
    "less with Huber"
)

# %% [markdown]
# ### Exercise 10.3 · Half a face
#
# In profile only half of the points are visible. How many directions are above the noise if only the points
# in `half` count? And how many move *none* of them?

# %% tags=["exercise"]
half = [3, 4, 5, 9, 10, 11, 13, 14, 17]  # of the 18


def count_directions(index):
    """How many directions are above the noise, and how many move no point."""
    return 0, 0


# %% tags=["solution"]
half = [3, 4, 5, 9, 10, 11, 13, 14, 17]  # of the 18


def count_directions(index):
    """How many directions are above the noise, and how many move no point."""
    c = whitening.whiten(few.coefficients[index])
    # (18, 62)
    jacobian = torch.autograd.functional.jacobian(points_of, c)[half].flatten(0, 1)
    values = torch.linalg.svdvals(
        jacobian.double() / losses.face_size(points_of(c)[None])
    )
    return int((values > NOISE).sum()), 62 - len(values)


# %% tags=["check"]
loud, silent = count_directions(int(chosen["profile"]))
whole = int((spectra["profile"] > NOISE).sum())
assert silent == 44, (
    f"Nine points have 18 coordinates: {silent} silent directions cannot be."
)
assert loud <= 18, "More directions than coordinates."
assert 6 < loud < whole, (
    f"{loud} directions; all eighteen points had {whole}. In which unit is the "
    "noise?"
)
print(f"✓ {loud} instead of {whole}; {silent} move no point")


# %% [markdown]
# ### Exercise 10.4 · A relief
#
# Flatten a face: multiply the depth of all its points by $\lambda$. Which *affine* camera (a $2 \times 4$
# matrix, not necessarily a scaled rotation) gives the same picture of the flattened face as `camera_of` gives
# of the original?

# %% tags=["exercise"]
def relief_camera(camera_of, factor):
    """Camera (2, 4) that leaves the picture unchanged if depth is scaled."""
    return camera_of


# %% tags=["solution"]
def relief_camera(camera_of, factor):
    """Camera (2, 4) that leaves the picture unchanged if depth is scaled."""
    return camera_of / torch.tensor([1.0, 1.0, factor, 1.0])


# Only the constraint that the camera be a scaled rotation tells the two apart; from
# the front, where the third column is zero, not even that.

# %% tags=["check"]
# (68, 3)
shape_of_face = model.decode_landmarks(torch.zeros(1, 40), torch.zeros(1, 10))[0]
camera_of = Coefficients.unpack(few.coefficients[0]).pose[:2]
for factor in (0.25, 0.5, 2.0):
    flat = shape_of_face * torch.tensor([1.0, 1.0, factor])
    new = relief_camera(camera_of, factor)
    assert new.shape == (2, 4), f"Expected (2, 4), found {tuple(new.shape)}."
    picture = [
        points @ c[:, :3].T + c[:, 3]
        for points, c in ((shape_of_face, camera_of), (flat, new))
    ]
    apart = float((picture[0] - picture[1]).norm(dim=1).max())
    assert apart < 1e-2, (
        f"With depth times {factor} the pictures differ by up to {apart:.2f} pixels."
    )
print("✓ two faces, two cameras, one picture")

# %% [markdown]
# ## Further reading
#
# {cite:t}`tu2021assisted`, section 3, is the source of this loss. {cite:t}`huber1964robust` began robust
# statistics. {cite:t}`belhumeur1999bas` show what light and shade reveal about a relief, and what they do
# not. {cite:t}`bas2019what` study this chapter's question in depth: what does 2D geometric information really
# tell us about 3D face shape? {cite:t}`zhu2019face` train with labelled pictures in all poses instead, made
# by rotating photographs.
