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
# # Which coefficient matters
#
# *Sixty-two numbers are wrong, each by a little. How wrong is the face?*
#
# **You need** [chapter 3](03_sixty_two_numbers.ipynb) (the 62 coefficients and their whitening),
# [chapter 8](08_the_coefficient_regressor.ipynb) (the network that predicts them), gradients and a little linear
# algebra: traces, eigenvalues.
#
# **After this chapter you can**
#
# - say how wrong a vector of coefficients is, in three ways: PDC, VDC and WPDC,
# - compute WPDC's weights in closed form, and prove your formula against a loop that swaps one coefficient at a time,
# - read a loss off its contour map: where descent runs, where it creeps,
# - tell why the loss that wins when coefficients are free loses when a network has to predict them,
# - name what each of the three pays for its strength.
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
import time

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from twodasl_lite import losses, viz
from twodasl_lite.evaluation import nme
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.networks import make_regressor
from twodasl_lite.viz.palette import CATEGORICAL, HOUSE_STYLE, VIRIDIS
from twodasl_lite.worlds.synthetic import TEST_SEED, SyntheticFaces, whitening_of

plt.rcParams.update(HOUSE_STYLE)

model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components
world = SyntheticFaces(model, "labelled")  # chapter 7's faces with 3D labels
whitening = whitening_of(model, "labelled")
names = model.layout.names
target = whitening.whiten(world.coefficients(0, 64))  # (64, 62)
print(
    f"{len(target)} faces, {len(names)} coefficients each, {model.num_vertices:,} "
    "vertices"
)

# %% [markdown]
# ## Two mistakes of the same size
#
# Take a face and change one of its whitened coefficients by 1: one standard deviation of that entry. First
# `pose[0,2]`, the share of the depth in the picture's $x$: in other words, the yaw of the head. Then
# `shape[20]`, the twenty-first way in which heads differ.

# %%
truth = target[4:5]
mistakes = {}
for name in ("pose[0,2]", "shape[20]"):
    wrong = truth.clone()
    wrong[:, names.index(name)] += 1.0
    mistakes[name] = wrong
right = decode_landmarks(whitening.unwhiten(truth), model)
for name, wrong in mistakes.items():
    off = decode_landmarks(whitening.unwhiten(wrong), model) - right
    print(
        f"{name}: landmarks move by {off[0, :, :2].norm(dim=1).mean():5.2f} pixels "
        "on average"
    )

# %% tags=["hide-input"]
_, axes = plt.subplots(1, 3, figsize=(8, 3.2), layout="constrained")
for ax, (name, vector) in zip(axes, {"the truth": truth, **mistakes}.items()):
    vertices = decode(whitening.unwhiten(vector), model)[0]
    viz.shaded_mesh(ax, vertices, model.triangles, frame="pixels")
    viz.draw_landmarks(ax, right[0], colour=CATEGORICAL[1], size=2)
    ax.set(xlim=(-6, 126), ylim=(124, -8))
    ax.set_title(name if name == "the truth" else f"{name} off by 1", fontsize=10)

# %% [markdown]
# **Figure 9.1.** The same face three times, with the landmarks of the true one. In the middle, everything
# close to us, nose and mouth, has slid to the right; the face on the right is practically correct. *Try* to
# find any difference between left and right.

# %% [markdown]
# A network cannot get everything right. Which of these two mistakes should it avoid first?
#
# ## Three costs
#
# Let $\mathbf c$ be the true whitened coefficients and $\hat{\mathbf c}$ the predicted ones. The *parameter
# distance cost*, {term}`PDC`, treats all entries alike:
#
# $$\text{PDC} = \lVert \hat{\mathbf c} - \mathbf c \rVert^2 .$$
#
# The *vertex distance cost*, {term}`VDC`, looks at the face instead. With $V_i(\mathbf c)$ vertex $i$ of the decoded
# face in pixels, and the face size $s = \sqrt{wh}$ of the box around the true landmarks,
#
# $$\text{VDC} = \frac{1}{N s^2} \sum_{i=1}^{N} \lVert V_i(\hat{\mathbf c}) - V_i(\mathbf c) \rVert^2 .$$
#
# Chapter 3 showed that no photograph determines $t_z$, the depth of the whole head. A loss that includes it
# asks for a guess. So we leave `pose[2,3]` out of PDC, and subtract both mean depths before we compare
# vertices.

# %%
DEPTH = names.index("pose[2,3]")


def pdc(predicted, target):
    difference = predicted - target  # (B, 62)
    difference[:, DEPTH] = 0
    return difference.square().sum(dim=1)


def vdc(predicted, target):
    true = whitening.unwhiten(target)
    # (B, V, 3)
    move = decode(whitening.unwhiten(predicted), model) - decode(true, model)
    depth = move[..., 2:] - move[..., 2:].mean(dim=1, keepdim=True)
    move = torch.cat([move[..., :2], depth], dim=-1)
    landmarks = decode_landmarks(true, model)[..., :2]
    extent = landmarks.amax(dim=1) - landmarks.amin(dim=1)  # (B, 2): w, h
    return move.square().sum(dim=-1).mean(dim=-1) / extent.prod(dim=-1)


# %%
generator = torch.Generator().manual_seed(0)
predicted = target + 0.3 * torch.randn(target.shape, generator=generator)
PDC, VDC = losses.PDC(), losses.VDC(model, whitening)
torch.testing.assert_close(pdc(predicted, target), PDC(predicted, target))
torch.testing.assert_close(
    vdc(predicted, target), VDC(predicted, target), rtol=1e-4, atol=0.0
)
for name, wrong in mistakes.items():
    print(
        f"{name}: PDC {float(PDC(wrong, truth)):.3f}, VDC "
        f"{float(VDC(wrong, truth)):.2e}"
    )


# %% [markdown]
# PDC rates the two mistakes as equal. VDC finds the first one thousands of times worse.
#
# What if we forget the depth? A naive VDC compares vertices as they are. We change nothing but $t_z$, by one
# standard deviation: no pixel moves.

# %%
def naive_vdc(predicted, target):
    raw = (whitening.unwhiten(c) for c in (predicted, target))
    ours, true = (decode(vector, model) for vector in raw)
    size = losses.face_size(decode_landmarks(whitening.unwhiten(target), model))
    return (ours - true).square().sum(dim=-1).mean(dim=-1) / size.square()


deeper = truth.clone()
deeper[:, DEPTH] += 1.0
print(
    f"naive VDC {float(naive_vdc(deeper, truth)):.4f}, VDC "
    f"{float(VDC(deeper, truth)):.0e}"
)
at = predicted.clone().requires_grad_()
(slope,) = torch.autograd.grad(naive_vdc(at, target).sum(), at)
spent = slope[:, DEPTH].square().sum() / slope.square().sum()
print(f"{float(spent):.0%} of the naive gradient (squared) goes into pose[2,3]")
assert float(VDC(deeper, truth)) < 1e-6 < float(naive_vdc(deeper, truth))


# %% [markdown]
# The naive loss asks the network for a number that the picture does not contain. Whatever gradient it spends
# there is noise.
#
# The third cost {cite:p}`zhu2016face` keeps the form of PDC but weights the entries: the *weighted parameter
# distance cost*, {term}`WPDC` (equation 4 of {cite:t}`tu2021assisted`'s preprint):
#
# $$\text{WPDC} = (\hat{\mathbf c} - \mathbf c)^\top \operatorname{diag}(w)\, (\hat{\mathbf c} - \mathbf c),
# \qquad w_i \propto \lVert V(\mathbf c \text{ with entry } i \text{ taken from } \hat{\mathbf c}) -
# V(\mathbf c) \rVert .$$
#
# In words: take the truth, swap in *one* predicted coefficient, and measure how far all vertices move. That
# is how much this coefficient matters at the moment. The weights are divided by the largest weight of each
# face, and they are *constants*: no gradient flows through them. (2DASL trains its first stage with this cost
# {cite:p}`tu2021assisted`.) The definition is a loop.

# %%
def weights_by_swapping(predicted, target):
    wrong, right = whitening.unwhiten(predicted), whitening.unwhiten(target)
    truth = decode(right, model)  # (B, V, 3)
    moved = []
    for entry in range(len(names)):
        swapped = right.clone()
        swapped[:, entry] = wrong[:, entry]
        moved.append((decode(swapped, model) - truth).flatten(1).norm(dim=1))
    moved = torch.stack(moved, dim=1)  # (B, 62)
    moved[:, DEPTH] = 0
    return moved / moved.amax(dim=1, keepdim=True)


few = slice(0, 8)
start = time.perf_counter()
slow = weights_by_swapping(predicted[few], target[few])
naive_time = time.perf_counter() - start
print(f"62 swaps of 8 faces: {1000 * naive_time:.0f} ms")

# %% [markdown]
# ## No swap needed
#
# A training step cannot afford to decode every face 63 times. But each swap is simple. Let $d_i$ be the raw
# difference in entry $i$ (whitened difference times standard deviation), $\mathbf M$ the 3×3 part of the true
# pose, and $\mathbf S$ the true face in the model's frame, $\mathbf v = \mathbf M \mathbf S + \mathbf t$.
#
# * *Shape or expression $k$*: vertex $v$ moves by $d\, \mathbf M \mathbf A_{k,v}$. Over all vertices,
#   $|d| \cdot \lVert \mathbf A_k \mathbf M^\top \rVert_F$, where $\mathbf A_k$ is the component as a
#   $N \times 3$ matrix. The square is a trace,
#   $\operatorname{tr}(\mathbf M^\top \mathbf M\, \mathbf A_k^\top \mathbf A_k)$, and the 3×3 matrices
#   $\mathbf A_k^\top \mathbf A_k$ need to be computed only once.
# * *Pose $(r, j)$, $j < 3$*: coordinate $r$ of each vertex moves by $d\, S_{vj}$; over all vertices,
#   $|d| \cdot \lVert \mathbf S_j \rVert_2$, the length of the face's $j$-th coordinates as one long vector.
# * *Translation*: each of $N$ vertices moves by $|d|$; together $|d| \sqrt N$.

# %%
# (50, 3, 3): A_k^T A_k
gram = torch.einsum("vik,vjk->kij", model.basis, model.basis)


def weights_in_closed_form(predicted, target):
    d = (predicted - target).abs() * whitening.std
    face = Coefficients.unpack(whitening.unwhiten(target), model.layout)
    M = face.pose[..., :3]  # (B, 3, 3)
    components = torch.einsum("bij,kij->bk", M.mT @ M, gram).sqrt()  # (B, 50)
    S = model.decode(face.shape, face.expression)  # (B, V, 3)
    shift = torch.full((len(S), 1), model.num_vertices**0.5)
    # (B, 4), the same for each row of the pose
    row = torch.cat([S.norm(dim=1), shift], dim=1)
    moved = d * torch.cat([row, row, row, components], dim=1)
    moved[:, DEPTH] = 0
    return moved / moved.amax(dim=1, keepdim=True)


# %%
WPDC = losses.WPDC(model, whitening)
close = {"rtol": 1e-3, "atol": 1e-5}
torch.testing.assert_close(
    weights_in_closed_form(predicted[few], target[few]), slow, **close
)
torch.testing.assert_close(WPDC.weights(predicted[few], target[few]), slow, **close)
by_hand = (slow * (predicted[few] - target[few]).square()).sum(dim=1)
torch.testing.assert_close(WPDC(predicted[few], target[few]), by_hand, **close)

start = time.perf_counter()
for _ in range(10):
    WPDC.weights(predicted[few], target[few])
print(
    f"{naive_time / (time.perf_counter() - start) * 10:.0f} times as fast as the "
    "loop"
)

# %% [markdown]
# The package goes one step further. $\mathbf S$ is linear in the coefficients as well, so even
# $\lVert \mathbf S_j \rVert$ needs no decoded vertex ([exercise 9.2](#length-of-a-coordinate)). The same holds for VDC: a mean square
# over vertices of something linear in the basis is a quadratic form, whose matrix holds inner products of the
# basis with itself. {py:class}`twodasl_lite.losses.VertexMoments` computes these once. After that both costs
# are exact over all vertices, and their run time does not depend on the number of vertices.
#
# ## The sixty-two weights
#
# What are the weights? We give each coefficient of our 64 faces an error of 0.3 standard deviations and
# average the weights. Then we reduce the error of the pose and leave shape and expression as they are.

# %%
signs = torch.where(torch.randn(target.shape, generator=generator) > 0, 1.0, -1.0)
POSE_LEFT = [1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01]
profiles = []
for left in POSE_LEFT:
    error = 0.3 * signs
    error[:, :12] *= left
    profiles.append(WPDC.weights(target + error, target).mean(dim=0))
order = profiles[0].argsort(descending=True)
print(
    "at the start:", ", ".join(f"{names[i]} {profiles[0][i]:.2f}" for i in order[:5])
)
order = profiles[-1].argsort(descending=True)
print(
    "at the end:  ",
    ", ".join(f"{names[i]} {profiles[-1][i]:.2f}" for i in order[:5])
)

# %% tags=["hide-input"]
kinds = {"pose": slice(0, 12), "shape": slice(12, 52), "expression": slice(52, 62)}
fig = go.Figure()
for colour, (kind, part) in zip(CATEGORICAL, kinds.items()):
    fig.add_bar(
        x=names[part], y=profiles[0][part].numpy(), name=kind, marker_color=colour
    )
fig.frames = [
    go.Frame(
        data=[go.Bar(y=profile[part].numpy().round(5)) for part in kinds.values()],
        name=f"{left:g}"
    )
    for left, profile in zip(POSE_LEFT, profiles)
]
play = {
    "mode": "immediate", "frame": {"duration": 0, "redraw": True},
    "transition": {"duration": 0}
}

# %% tags=["hide-input"]
steps = [
    {"label": f"{left:.0%}", "method": "animate", "args": [[f"{left:g}"], play]}
    for left in POSE_LEFT
]
fig.update_layout(
    height=430, bargap=0.15, margin={"l": 60, "r": 20, "t": 10, "b": 20},
    legend={"orientation": "h", "y": 1.1, "x": 0},
    sliders=[
        {
            "steps": steps, "currentvalue": {"prefix": "error left in the pose: "},
            "pad": {"t": 70}
        }
    ]
)
fig.update_yaxes(title="mean weight", type="log", range=[-3, 0.1], dtick=1)
fig.update_xaxes(tickangle=-90, nticks=21)
fig

# %% [markdown]
# **Figure 9.2.** The weight of each coefficient (logarithmic); `pose[2,3]` has none. At first the pose gets
# nearly all the weight. *Try* the slider: as the pose becomes correct, its weights fall and those of shape
# and expression rise, the largest components first. Nobody designed this schedule; it follows from the
# geometry.

# %% [markdown]
# So much for averages. Take one face, and make the mistakes yourself:

# %%
# sorted by yaw: from frontal to turned
turned = (world.coefficients(0, 64)[:, 2].abs()).argsort()
chosen = turned[[0, 32, 56]]
mistakes = viz.coefficient_figure(
    model, whitening, target[chosen], ["almost frontal", "turned", "turned further"],
    second="pose[0,3]"
)
mistakes


# %% [markdown]
# **Figure 9.3.**<a id="sixty-two-mistakes"></a> One face, 62 mistakes. The colour shows how far the error of the chosen coefficient moves
# each vertex; the bars show the weights of WPDC, the gradient of a loss, or the remaining errors. *Try*
# `pose[0,2]`, then `shape[20]` with the same error, and compare PDC with VDC. Then set all others to 0.5 and
# descend, first on WPDC, then, after a reset, on VDC: which errors remain? Under VDC some coefficients move
# away from their true values, and yet the face improves. The three maps below show the losses over two
# coefficients of your choice while the others keep their errors: *press* anywhere in a map to go there. The
# next section explains why their shapes and paths differ.

# %% [markdown]
# ## Downhill
#
# A loss teaches through its gradient. The gradient of PDC is $2(\hat{\mathbf c} - \mathbf c)$: descent goes
# straight back to the truth. That of WPDC is $2\, w \cdot (\hat{\mathbf c} - \mathbf c)$: each entry moves
# towards its own true value, the important ones as fast as under PDC, the others more slowly. Because the
# weights are constants, this is *not* the gradient of the number that WPDC prints.
#
# The gradient of VDC is different in kind. With $\mathbf v_i = \mathbf M \mathbf S_i + \mathbf t$ and
# $\mathbf S_i = \bar{\mathbf S}_i + \sum_k a_k \mathbf A_{k,i}$, a vertex depends on the raw coefficients
# through
#
# $$ \frac{\partial \mathbf v_i}{\partial M_{rj}} = S_{ij}\, \mathbf e_r, \qquad \frac{\partial \mathbf v_i}{\partial t_r} = \mathbf e_r, \qquad \frac{\partial \mathbf v_i}{\partial a_k} = \mathbf M \mathbf A_{k,i}, $$
#
# and each column is multiplied by the standard deviation $\sigma$ of its entry when the coefficients are
# whitened. With the residuals $\mathbf r_i = \mathbf v_i(\hat{\mathbf c}) - \mathbf v_i(\mathbf c)$, mean
# depth removed, the chain rule gives all 62 derivatives of VDC:
#
# $$ \frac{2}{N s^2} \sum_i r_{ir} S_{ij}\, \sigma, \qquad \frac{2}{N s^2} \sum_i r_{ir}\, \sigma, \qquad \frac{2}{N s^2} \sum_i \mathbf r_i^\top \mathbf M \mathbf A_{k,i}\, \sigma . $$

# %%
def vdc_gradient(predicted, target):
    """Gradient (B, 62) of VDC with respect to whitened coefficients, by hand."""
    raw = (whitening.unwhiten(c) for c in (predicted, target))
    ours, true = (Coefficients.unpack(c, model.layout) for c in raw)
    S, S_true = (model.decode(f.shape, f.expression) for f in (ours, true))
    M = ours.pose[..., :3]  # (B, 3, 3)
    r = S @ M.mT - S_true @ true.pose[..., :3].mT  # (B, V, 3)
    r = r + (ours.pose - true.pose)[:, None, :, 3]
    r[..., 2] -= r[..., 2].mean(dim=1, keepdim=True)
    pose = torch.cat([r.mT @ S, r.sum(dim=1)[..., None]], dim=-1)  # (B, 3, 4)
    rest = torch.einsum("bvj,vjk->bk", r @ M, model.basis)  # (B, 50)
    size = losses.face_size(decode_landmarks(whitening.unwhiten(target), model))
    gradient = torch.cat([pose.flatten(1), rest], dim=1) * whitening.std
    return 2 * gradient / (model.num_vertices * size.square()[:, None])


at = predicted.clone().requires_grad_()
(automatic,) = torch.autograd.grad(VDC(at, target).sum(), at)
by_hand = vdc_gradient(predicted, target)
worst = float((by_hand - automatic).abs().max() / automatic.abs().max())
print(f"by hand and by autograd: equal to {worst:.0e} of the largest entry")
assert worst < 1e-3

# %% [markdown]
# Near the truth VDC is a quadratic form $\frac12 \delta^\top \mathbf H\, \delta$, where $\mathbf H_{ij}$ is
# the inner product of columns $i$ and $j$, summed over the vertices. Off the diagonal it is not zero: we can
# move the nose to the left by turning the head or by shifting it. So one wrong coefficient gives a gradient
# to others, whether they are right or not.

# %%
kept = [i for i in range(len(names)) if i != DEPTH]
wrong_way = {}
for name, loss in {"PDC": PDC, "WPDC": WPDC, "VDC": VDC}.items():
    at = predicted.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(at, target).sum(), at)
    wrong_way[name] = float(
        (gradient * (predicted - target) < 0)[:, kept].float().mean()
    )
    print(
        f"{name:>4}: {wrong_way[name]:4.0%} of the coefficients are pushed away "
        "from their truth"
    )

one = target[4]
H = torch.autograd.functional.hessian(
    lambda c: VDC(c[None], one[None])[0], one
)[kept][:, kept]
curvature = torch.linalg.eigvalsh(H)
print(
    f"VDC's largest curvature is {curvature[-1] / curvature[0]:,.0f} times its "
    "smallest; PDC's: 1"
)

# %% [markdown]
# With such a ratio of curvatures, gradient descent must take steps that suit the steepest direction, and in
# the flattest it hardly moves. Here is the view from above, with two coefficients free and all others
# correct:

# %% tags=["hide-input"]
PAIRS = {
    "shift the head, or turn it": ("pose[0,3]", "pose[0,2]"),
    "a wider picture, or a wider head": ("pose[0,0]", "shape[2]"),
    "a turn, and a detail of expression": ("pose[0,2]", "expression[9]"),
}
COSTS = {"PDC": PDC, "WPDC": WPDC, "VDC": VDC}
axis = torch.linspace(-2, 2, 41)
offsets = torch.cartesian_prod(axis, axis)  # (1681, 2): first y, then x


def along(pair, cost, offsets):
    """Cost (N,) where two coefficients of one face are off by offsets (N, 2)."""
    place = torch.zeros(len(offsets), len(names))
    place[:, [names.index(name) for name in pair]] += offsets
    return COSTS[cost](one + place, one.expand(len(offsets), -1))


# %% tags=["hide-input"]
def descend(pair, cost, start=(-1.7, 1.2), steps=24):
    """Gradient descent with half the step that the largest curvature allows for."""
    steepest = 2.0  # PDC's curvature, and WPDC's largest: its weights are at most 1
    if cost == "VDC":
        at_truth = torch.autograd.functional.hessian(
            lambda o: along(pair, cost, o[None])[0], torch.zeros(2)
        )
        steepest = float(torch.linalg.eigvalsh(at_truth)[-1])
    path = [torch.tensor(start)]
    for _ in range(steps):
        at = path[-1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(along(pair, cost, at[None])[0], at)
        path.append(path[-1] - 0.5 / steepest * gradient)
    return torch.stack(path)


# %% tags=["hide-input"]
def drawn(pair):
    """Values for x, y and z of six traces: three maps, three paths."""
    maps = [
        along(pair, cost, offsets.flip(1)).sqrt().reshape(41, 41) for cost in COSTS
    ]
    maps = [(height / height.max()).numpy().round(3) for height in maps]
    paths = [descend(pair, cost).numpy().round(3) for cost in COSTS]
    ticks = [axis.numpy().round(2)] * 3
    x, y = ticks + [
        path[:, 0] for path in paths
    ], ticks + [path[:, 1] for path in paths]
    return {
        "x": [list(map(float, v)) for v in x], "y": [list(map(float, v)) for v in y],
        "z": maps + [None] * 3
    }


# %% tags=["hide-input"]
views = {label: drawn(pair) for label, pair in PAIRS.items()}
first = next(iter(PAIRS))

# The maps under "One face, 62 mistakes" are the same: its first face, all
# else right.
shown = mistakes.state | {
    "errors": [0.0] * len(names), "coefficient": names.index("pose[0,2]")
}
ticks = torch.linspace(-3, 3, 33)
one, before = target[chosen[0]], one
for cost in COSTS:
    by_hand = along(
        ("pose[0,2]", "pose[0,3]"), cost, torch.cartesian_prod(ticks, ticks).flip(1)
    ).reshape(33, 33)
    torch.testing.assert_close(
        mistakes.maps(shown)[cost.lower()], by_hand, rtol=1e-4, atol=1e-6
    )
one = before

# %% tags=["hide-input"]
fig = go.Figure()
look = {
    "colorscale": VIRIDIS[::-1], "zmin": 0, "zmax": 1, "showscale": False,
    "hoverinfo": "skip"
}
levels = {"start": 0, "end": 1, "size": 0.08}
for k in range(3):
    place = {axis: views[first][axis][k] for axis in "xyz"}
    fig.add_contour(**place, **look, contours=levels, line_width=0.6, visible=k == 2)
for k, cost in enumerate(COSTS):
    dots = {
        "color": CATEGORICAL[1], "size": 9, "line": {"color": "white", "width": 1}
    }
    place = {axis: views[first][axis][3 + k] for axis in "xy"}
    fig.add_scatter(
        **place, mode="lines+markers", marker=dots, line_color=CATEGORICAL[1],
        name=cost, visible=k == 2
    )
fig.add_scatter(x=[0], y=[0], mode="markers", hoverinfo="skip")
fig.data[-1].marker = {
    "symbol": "star", "size": 16, "color": "white",
    "line": {"color": "black", "width": 1}
}

# %% tags=["hide-input"]
chosen = [
    {
        "label": cost, "method": "restyle",
        "args": [{"visible": [k == i % 3 for i in range(6)]}, list(range(6))]
    }
    for k, cost in enumerate(COSTS)
]
pairs = []
for label, (x, y) in PAIRS.items():
    titles = {"xaxis.title.text": f"{x}, off by", "yaxis.title.text": f"{y}, off by"}
    values = {
        key: [
            None if v is None else np.asarray(v).tolist() for v in views[label][key]
        ]
        for key in "xyz"
    }
    pairs.append(
        {
            "label": label, "method": "update",
            "args": [values, titles, list(range(6))]
        }
    )

# %% tags=["hide-input"]
fig.update_xaxes(
    title=f"{PAIRS[first][0]}, off by", range=[-2, 2], constrain="domain"
)
fig.update_yaxes(
    title=f"{PAIRS[first][1]}, off by", range=[-2, 2], scaleanchor="x",
    constrain="domain"
)
menus = [
    {"buttons": pairs, "name": "Which two coefficients"},
    {"buttons": chosen, "active": 2, "name": "Which cost"}
]
menus = [
    menu | {"y": 1.2 - 0.1 * k, "x": 0, "xanchor": "left"}
    for k, menu in enumerate(menus)
]
fig.update_layout(
    height=520, showlegend=False, margin={"l": 60, "r": 20, "t": 20, "b": 50},
    updatemenus=menus
)
fig

# %% [markdown]
# **Figure 9.4.** The root of each cost over two coefficients, in standard deviations from the truth (the
# star), and 24 steps of gradient descent. *Try* VDC with all three pairs: in the first, the path runs into a
# slanting valley, where a shift compensates for a turn, and creeps along it; in the last, the expression does
# not move at all. PDC's path is straight. WPDC corrects the important coefficient first, then the other, and
# does not cross its contour lines at right angles. With the last pair it even climbs: once the turn is right,
# the expression gets weight 1, so the number rises while both coefficients improve. Do not judge a training
# run by the WPDC that it prints.

# %% [markdown]
# ## When coefficients are free
#
# Now free all 61 coefficients of 16 faces, start at the average (all zeros), and descend.

# %%
answers = target[:16]
goal = decode_landmarks(whitening.unwhiten(answers), model)[..., :2]


def free_descent(loss, steepest, steps=300):
    """Landmark error (pixels) and rms coefficient error after each step."""
    guess, log = torch.zeros_like(answers), []
    for _ in range(steps + 1):
        points = decode_landmarks(whitening.unwhiten(guess), model)[..., :2]
        off = (guess - answers)[:, kept].square().mean().sqrt()
        log.append((float((points - goal).norm(dim=-1).mean()), float(off)))
        guess.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(guess, answers).sum(), guess)
        guess = (guess - 0.5 / steepest * gradient).detach()
    return np.array(log)


free = {
    "PDC": free_descent(PDC, 2.0),
    "WPDC": free_descent(WPDC, 2.0),
    "VDC": free_descent(VDC, float(curvature[-1])),
}
for name, log in free.items():
    print(
        f"{name:>4}: {log[10, 0]:5.2f} pixels after 10 steps, {log[300, 0]:5.2f} "
        "after 300"
    )
assert free["PDC"][10, 0] < free["WPDC"][10, 0] < free["VDC"][10, 0]

# %% tags=["hide-input"]
fig = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.06)
for row, title in enumerate(
    ("landmarks off by (pixels)", "coefficients off by (rms)")
):
    for colour, (name, log) in zip(CATEGORICAL, free.items()):
        values = {
            "x": np.arange(1, 302), "y": log[:, row].clip(1e-3), "name": name,
            "legendgroup": name
        }
        fig.add_scatter(
            **values, line_color=colour, mode="lines", showlegend=row == 0,
            row=row + 1, col=1
        )
    fig.update_yaxes(
        title=title, type="log", range=[-2.1, 1.2], dtick=1, row=row + 1, col=1
    )
fig.update_xaxes(type="log", dtick=1)
fig.update_xaxes(title="step, counted from 1", row=2, col=1)
fig.update_layout(
    height=560, margin={"l": 70, "r": 20, "t": 10, "b": 50},
    legend={"orientation": "h", "y": 1.06}
)
fig

# %% [markdown]
# **Figure 9.5.** Gradient descent on free coefficients. *Try* to tell, from the lower panel alone, which loss
# does not care about coefficients: VDC brings the landmarks closer while the coefficients stay wrong.

# %% [markdown]
# PDC wins easily. If we could set coefficients freely, the best cost would be the one without valleys. (For
# VDC we would then use the Gauss–Newton steps of chapter 4, which take the curvature into account.) So why
# would anybody want the other two?
#
# ## When a network has to choose
#
# A network cannot set 61 numbers freely. It uses the same weights for all pictures, it sees few examples for
# a short time, and the picture hardly shows the twentieth shape component. It will be wrong, and the cost
# decides *where*. We train the lite regressor of chapter 8 from the same initialisation with each of the
# three costs, on a few hundred pictures of the labelled world, and deliberately stop far too early.

# %%
NUM, STEPS, BATCH = 448, 150, 32


def pictures(faces, count):
    parts = [faces.batch(start, 64) for start in range(0, count, 64)]
    return FaceBatch.cat(parts)


train = pictures(world, NUM)
test = pictures(SyntheticFaces(model, "labelled", seed=TEST_SEED), 128)
inputs, labels = train.inputs(), whitening.whiten(train.coefficients)
test_inputs, test_labels = test.inputs(), whitening.whiten(test.coefficients)


@torch.no_grad()
def landmark_error(network):
    """Mean NME in per cent on the test pictures, and the predictions."""
    answer = network.eval()(test_inputs)
    points = decode_landmarks(whitening.unwhiten(answer), model)
    network.train()
    return 100 * float(nme(points[..., :2], test.landmarks[..., :2]).mean()), answer


# %%
def train_with(loss, seed=0):
    torch.manual_seed(seed)
    network = make_regressor("lite")
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 2e-3, total_steps=STEPS
    )
    curve = []
    for step in range(1, STEPS + 1):
        index = torch.randperm(NUM)[:BATCH]
        cost = loss(network(inputs[index]), labels[index]).mean()
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        schedule.step()
        if step % 25 == 0:
            curve.append(landmark_error(network)[0])
    return network, curve


trained = {name: train_with(loss) for name, loss in COSTS.items()}

# %%
print("      NME    rms error of pose, shape 0–4, shape 5–39, expression")
groups = [kept[:11], range(12, 17), range(17, 52), range(52, 62)]
final = {}
for name, (network, _) in trained.items():
    final[name], answer = landmark_error(network)
    off = [
        float((answer - test_labels)[:, list(group)].square().mean().sqrt())
        for group in groups
    ]
    print(
        f"{name:>4}  {final[name]:4.2f} %  "
        + "  ".join(f"{value:10.2f}" for value in off)
    )
assert final["PDC"] > max(final["WPDC"], final["VDC"])

# %% tags=["hide-input"]
fig = go.Figure()
for colour, (name, (_, curve)) in zip(CATEGORICAL, trained.items()):
    fig.add_scatter(
        x=np.arange(25, STEPS + 1, 25), y=np.round(curve, 3), name=name,
        line_color=colour
    )
fig.update_xaxes(title=f"step, {BATCH} pictures each")
fig.update_yaxes(
    title="NME on unseen pictures (%)", type="log",
    tickvals=[3, 4, 5, 7, 10, 15, 20, 30]
)
fig.update_layout(
    height=400, margin={"l": 60, "r": 20, "t": 10, "b": 50},
    legend={"orientation": "h", "y": 1.12}
)
fig


# %% [markdown]
# **Figure 9.6.** The same network, pictures, seed and optimiser; only the cost differs. *Try* another seed in
# a live notebook: the numbers change by a few tenths; in the runs we tried, PDC came last every time.

# %% [markdown]
# The ranking is reversed. PDC spreads its attention over 61 entries; the network cannot learn fifty of them
# in this time, and they would hardly show if it could. WPDC attends to the pose first. VDC ends best *at the
# landmarks*, because it alone knows that errors can cancel: a shift can compensate for a turn. That is also
# its price. WPDC's coefficients are closer to the truth, in pose and in shape, although its landmarks are
# further off. If you need the coefficients themselves, for instance to recognise a person or to animate
# another face, that matters. And none of the three has learned the small shape components: always predicting
# the average face would give an error of 1. An error above 1 means that the network has memorised its
# training pictures.
#
# This is a small experiment: one seed, near-frontal synthetic faces, a few hundred pictures. It does not show
# what long training would. 2DASL uses one cost after the other {cite:p}`tu2021assisted`: first WPDC, which
# ranks the coefficients and has no valleys, then VDC at a lower learning rate, which sees the combined effect
# of errors. {cite:t}`guo2020towards` let both compete during training. [Chapter 14](14_training_2dasl.ipynb)
# follows 2DASL.
#
# ## Summary
#
# * PDC treats all whitened coefficients alike. It has no valleys, and knows nothing about faces.
# * VDC measures the face. Its curvature spans five orders of magnitude, and its gradient pushes a third of
#   the coefficients away from their truth.
# * WPDC is PDC, weighted by the effect of each coefficient on the face; the weights are detached. They have a
#   closed form, so no swap is decoded.
# * With free coefficients PDC wins. For a small network with little data and time, WPDC and VDC win, each at
#   its price.
# * All three leave out the depth of the head.
#
# ## Exercises
#
# ### Exercise 9.1 · A shift, by hand
#
# A prediction is correct except for a shift of the whole face by `dx` and `dy` pixels. Write down its VDC.

# %% tags=["exercise"]
def shift_cost(dx, dy, size):
    """VDC of a shift; size is sqrt(w h) in pixels."""
    return 0.0


# %% tags=["solution"]
def shift_cost(dx, dy, size):
    """VDC of a shift; size is sqrt(w h) in pixels."""
    return (dx**2 + dy**2) / size**2  # all vertices move alike


# %% tags=["check"]
raw = whitening.unwhiten(target[:1])
shifted = raw.clone()
shifted[:, names.index("pose[0,3]")] += 3
shifted[:, names.index("pose[1,3]")] -= 2
size = float(losses.face_size(decode_landmarks(raw, model)))
value = float(VDC(whitening.whiten(shifted), target[:1]))
mine = float(shift_cost(3.0, -2.0, size))
assert mine > 0, "A shift is not free."
assert abs(mine - shift_cost(-3.0, 2.0, size)) < 1e-9, (
    "The direction should not matter."
)
assert abs(mine * size**2 / 13 - 1) < 1e-6, (
    "Mean *squared* distance, in *squared* face sizes."
)
assert abs(mine / value - 1) < 1e-3, f"The package says {value:.6f}, you {mine:.6f}."
print(f"✓ 3 and 2 pixels of a face of {size:.0f}: VDC {mine:.5f}")

# %% [markdown]
# ### Exercise 9.2 · The length of a coordinate, without a vertex <a id="length-of-a-coordinate"></a>
#
# The closed form above still decodes one face, for $\lVert \mathbf S_j \rVert$. With $a = (1, \alpha, \beta)$
# the face is $S_{vj} = \sum_k \Phi_{vjk}\, a_k$, where $\Phi$ is `phi` below. Compute the three norms from
# `a` and from `moments`, which you may prepare once from `phi`. No array in `coordinate_norms` may have an
# axis over the vertices.

# %% tags=["exercise"]
phi = torch.cat([model.mean[..., None], model.basis], dim=-1).double()  # (V, 3, 51)
moments = torch.zeros(3, 51, 51).double()


def coordinate_norms(a):
    """Lengths (B, 3) of the coordinates over all vertices; a is (B, 51)."""
    return torch.ones(len(a), 3).double()


# %% tags=["solution"]
# one inner product for each pair of columns
moments = torch.einsum("vjk,vjl->jkl", phi, phi)


def coordinate_norms(a):
    """Lengths (B, 3) of the coordinates over all vertices; a is (B, 51)."""
    return torch.einsum("bk,jkl,bl->bj", a, moments, a).clamp(min=0).sqrt()


# %% tags=["check"]
face = Coefficients.unpack(whitening.unwhiten(target), model.layout)
a = torch.cat(
    [torch.ones(len(target), 1), face.shape, face.expression], dim=1
).double()
norms = coordinate_norms(a)
expected = torch.einsum("vjk,bk->bvj", phi, a).norm(dim=1)
assert moments.numel() < phi.numel(), (
    "The moments should not have an axis over the vertices."
)
assert norms.shape == expected.shape, (
    f"Expected shape {tuple(expected.shape)}, found {tuple(norms.shape)}."
)
ratio = float((norms / expected).mean())
assert abs(ratio - 1) < 1e-6, (
    f"On average {ratio:.4g} times the length: a root, or the mean face, missing?"
)
print(f"✓ {moments.numel():,} numbers instead of {phi.numel():,}")


# %% [markdown]
# ### Exercise 9.3 · Forget to detach
#
# `weights_in_closed_form` is differentiable. Compute the gradient of WPDC with respect to the prediction *without*
# treating the weights as constants. What happens to the coefficient with the largest weight?

# %% tags=["exercise"]
def gradient_through_weights(predicted, target):
    """Gradient (B, 62) of the value of WPDC, weights included."""
    return 2 * weights_in_closed_form(predicted, target) * (predicted - target)


# %% tags=["solution"]
def gradient_through_weights(predicted, target):
    """Gradient (B, 62) of the value of WPDC, weights included."""
    at = predicted.clone().requires_grad_()
    number = (weights_in_closed_form(at, target) * (at - target).square()).sum()
    return torch.autograd.grad(number, at)[0]


# The weights are relative to the largest. Making the worst coefficient worse lowers
# the weight of all others: that lowers the number without improving the face.

# %% tags=["check"]
gradient = gradient_through_weights(predicted, target)
with_constants = 2 * WPDC.weights(predicted, target) * (predicted - target)
assert gradient.shape == target.shape, (
    f"Expected {tuple(target.shape)}, found {tuple(gradient.shape)}."
)
assert not torch.allclose(gradient, with_constants, rtol=1e-2), (
    "The weights are still constants."
)
nudge = torch.zeros_like(predicted)
nudge[:, 20] = 1e-2
value = [
    (weights_in_closed_form(p, target) * (p - target) ** 2).sum()
    for p in (predicted + nudge, predicted - nudge)
]
slope = float(value[0] - value[1]) / 2e-2
found = float(gradient[:, 20].sum())
assert abs(found - slope) < 0.02 * abs(slope) + 1e-2, (
    f"The slope along entry 20 is {slope:.3f}, not {found:.3f}."
)
worst = WPDC.weights(predicted, target).argmax(dim=1)
pull = (gradient * (predicted - target)).gather(1, worst[:, None])
print(
    "✓ the worst coefficient would be made worse in "
    f"{float((pull < 0).float().mean()):.0%} of the faces"
)

# %% [markdown]
# ### Exercise 9.4 · How many vertices does VDC need?
#
# Implementations without the closed form take a subset of the vertices. Take every $n$-th, and find the largest $n$
# in `choices` whose VDC is within 2 % of the exact one for each of our 64 faces and predictions.

# %% tags=["exercise"]
choices = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]


def relative_error(n):
    """Largest relative error of VDC over the faces, from every n-th vertex."""
    return 1.0


largest = 1


# %% tags=["solution"]
def relative_error(n):
    """Largest relative error of VDC over the faces, from every n-th vertex."""
    some = losses.VDC(model, whitening, torch.arange(0, model.num_vertices, n))
    return float((some(predicted, target) / VDC(predicted, target) - 1).abs().max())


largest = max(n for n in choices if relative_error(n) < 0.02)
# Neighbours move alike, so a few vertices are nearly enough. With the moments, using
# all of them costs no more.

# %% tags=["check"]
assert relative_error(1) < 1e-5, "With all vertices there should be no error."
assert 0.002 < relative_error(200) < 1, (
    "Every 200th vertex is neither exact nor useless."
)
assert relative_error(largest) < 0.02, f"Every {largest}th vertex is too few."
larger = [n for n in choices if n > largest]
assert all(relative_error(n) >= 0.02 for n in larger), "A larger step will do."
print(
    f"✓ every {largest}th: {len(range(0, model.num_vertices, largest))} of "
    f"{model.num_vertices:,} vertices"
)

# %% [markdown]
# ## Further reading
#
# {cite:t}`zhu2016face` introduce WPDC and compare it with the other two. {cite:t}`zhu2019face` discuss the
# uneven curvature of VDC and optimise the weights themselves. {cite:t}`guo2020towards` look a few steps ahead
# with each of two costs and keep the better one. {cite:t}`feng2018joint` do without coefficients and regress
# the vertices as a picture, with weights by region.
