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
# # Measuring a face
#
# *When is one reconstruction better than another, and how sure are we?*
#
# **You need** the camera of [chapter 3](03_sixty_two_numbers.ipynb), and mean and variance.
#
# **After this chapter you can**
#
# - compute the error that papers print, in 2D, in 3D and densely, and say what each of them cannot see,
# - explain why the mean is taken over yaw bins,
# - compare two shapes after aligning them,
# - put an interval on an error, and a sharper one on a difference,
# - reproduce a published number and find what is wrong with it.
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
import json
import os
from importlib import resources
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML

from twodasl_lite import evaluation, viz
from twodasl_lite.datasets.aflw2000 import read_aflw2000, read_basel_landmarks
from twodasl_lite.datasets.annotations import clamp_box
from twodasl_lite.evaluation.benchmark import (
    evaluate,
    jittered_boxes,
    release_predictions,
)
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode
from twodasl_lite.geometry import camera
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.landmarks import EDGES
from twodasl_lite.geometry.photos import landmarks_box
from twodasl_lite.viz.palette import CATEGORICAL, HOUSE_STYLE

plt.rcParams.update(HOUSE_STYLE)

model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components


# %% tags=["hide-input"]
def show(head, rows):
    """A table."""
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    content = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return HTML(f'<table class="table">{content}</table>')


# %% [markdown]
# ## How far off?
#
# We have two sets of landmarks, predicted $\hat{\mathbf x}_i$ and true $\mathbf x_i$, and want one number
# that says how far apart they are. A mean distance in pixels depends on the size of the face in the picture,
# so we divide by that size. With the bounding box of the true points, $w \times h$,
#
# $$ \text{NME} = \frac{1}{N} \sum_{i=1}^{N} \frac{\lVert \hat{\mathbf x}_i - \mathbf x_i \rVert}{\sqrt{w\,h}}. $$
#
# This is the {term}`NME` of {cite:t}`zhu2016face`, and papers have reported it ever since. First we need some
# faces to measure: random people, turned, in crops of 120 pixels. The longer side of the landmarks' box is
# 84.5 pixels, for a reason that we will come to.

# %%
def people(yaws, seed=0):
    """Random faces (N) at yaws in degrees, as coefficients for a 120x120 crop."""
    generator = torch.Generator().manual_seed(seed)
    shape, expression = model.sample(len(yaws), generator=generator)
    tilt = 0.15 * torch.randn(len(yaws), 2, generator=generator)
    angles = torch.stack([tilt[:, 0], torch.deg2rad(yaws), tilt[:, 1]], dim=1)
    R = camera.euler_to_matrix(angles)
    turned = model.decode_landmarks(shape, expression) @ R.mT  # (N, 68, 3) mm
    low, high = turned.amin(dim=1), turned.amax(dim=1)
    f = 84.5 / (high - low)[:, :2].amax(dim=1)  # pixels per mm
    t = torch.tensor([60.5, 60.5, 0.0]) - f[:, None] * (low + high) / 2
    return Coefficients(camera.make_pose(f, R, t), shape, expression)


# %%
def nme(predicted, target):
    """(N, P, 2 or 3), (N, P, 2 or 3) -> (N,), a fraction."""
    box = target.amax(dim=1) - target.amin(dim=1)
    size = (box[:, 0] * box[:, 1]).sqrt()
    return (predicted - target).norm(dim=-1).mean(dim=1) / size


yaws = torch.linspace(-85, 85, 35)
truth = decode(people(yaws), model)  # (35, V, 3) pixels
flat = truth[:, model.landmarks, :2]
noise = torch.randn(flat.shape, generator=torch.Generator().manual_seed(1))
torch.testing.assert_close(
    nme(flat + noise, flat), evaluation.nme(flat + noise, flat)
)
print(
    f"one pixel of noise in x and y: NME {100 * nme(flat + noise, flat).mean():.2f} "
    "%"
)

# %% [markdown]
# The package's {py:func}`twodasl_lite.evaluation.nme` does the same. Why the box, and not the distance
# between the eyes, which frontal benchmarks use? We turn one person, keep the scale, and move every landmark
# by the same two pixels:

# %% tags=["hide-input"]
turns = torch.arange(0, 91, 2.0)
average = model.mean[model.landmarks]
spun = (
    0.6
    * average
    @ camera.euler_to_matrix(
        torch.deg2rad(torch.stack([0 * turns, turns, 0 * turns], dim=1))
    ).mT
)
extent = (spun.amax(dim=1) - spun.amin(dim=1))[:, :2]
sizes = {
    "box, √(w h)": extent.prod(dim=1).sqrt(),
    "outer eye corners": (spun[:, 36, :2] - spun[:, 45, :2]).norm(dim=1),
    "height of the box": extent[:, 1],
}
curves = {name: (turns, (200 / size).clamp(max=100)) for name, size in sizes.items()}
for name, (_, values) in curves.items():
    print(f"{name}: from {values[0]:.1f} to {values[-1]:.1f} %")
fig = viz.curve_figure(
    curves,
    x_title="yaw, degrees",
    y_title="2 pixels, % of the normaliser",
    log_y=True,
    height=360,
)
fig

# %% [markdown]
# **Figure 15.1.** The error caused by two pixels under three normalisers. *Look at* the eyes: beyond 60°
# their distance goes to zero, and the same two pixels can become any error. (The axis ends at 100 %.) The box
# shrinks too, but gently.

# %% [markdown]
# ## Who is in the test set?
#
# AFLW2000-3D {cite:p}`zhu2016face` has 2,000 photographs, each annotated with the 62 numbers of chapter 3 and
# more. The authors of 2DASL published their network's predictions for 1,998 of them. (Their landmark detector
# failed on two. The lists with 1,998 and with 2,000 names are in the same folder; join by name, never by
# position.) We may not redistribute the photographs, so this page stores one error and one yaw per picture.
# If `TWODASL_DATA` names a folder with the annotations of every fifth picture, we compute those again.

# %%
committed = json.loads(
    (resources.files("twodasl_lite") / "assets" / "aflw2000_errors.json").read_text(
        "utf-8"
    )
)
yaw = torch.tensor(committed["yaw"], dtype=torch.float64)
errors = {
    name: committed["unit"] * torch.tensor(values, dtype=torch.float64)
    for name, values in committed["2dasl"].items()
}
print(
    f"{len(yaw)} faces, committed: {committed['file']}, measured {committed['date']}"
)

# %%
annotations = Path(
    os.environ.get("TWODASL_DATA", ""), "aflw2000-3d", "aflw2000_every_fifth.npz"
)
if annotations.is_file():
    fifth = read_aflw2000(annotations)
    basel, whitening = read_basel_landmarks(
        annotations.with_name("bfm_68_landmarks.npz")
    )
    place = {number: k for k, number in enumerate(committed["names"])}
    for mapping in ("bench", "exact"):
        report = evaluate(
            release_predictions(fifth),
            fifth,
            mapping,
            model=basel,
            whitening=whitening,
            resamples=100,
        )
        before = errors[mapping][[place[int(name[5:])] for name in report.names]]
        now = report.errors["68 points, 2D"]
        torch.testing.assert_close(now, before, rtol=0, atol=committed["unit"])
    print(f"{len(report.names)} of them computed now: the same")
else:
    print("none of them computed now: TWODASL_DATA names no annotations")

# %% tags=["hide-input"]
edges = np.arange(0, 100, 10)
turned = yaw.abs().clamp(max=99).numpy()
which = np.digitize(turned, edges) - 1
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1), layout="constrained")
left.hist(turned, bins=[*edges, 100], color=CATEGORICAL[0], edgecolor="white")
left.set(xlabel="|yaw|, degrees", title="faces")
values = 100 * errors["bench"].numpy()
boxes = right.boxplot(
    [values[which == k] for k in range(10)],
    positions=edges + 5,
    widths=7,
    sym=".",
    manage_ticks=False,
)
for part in boxes["medians"]:
    part.set(color=CATEGORICAL[1], lw=2)
right.set(xlabel="|yaw|, degrees", title="NME, % (2DASL)", ylim=(0, 15))
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xticks([0, 30, 60, 90])
    for edge in (30, 60):
        ax.axvline(edge, color="0.5", lw=0.8, ls=":")


# %% [markdown]
# **Figure 15.2.** Left, how far the faces are turned. Right, the errors of 2DASL's released predictions (line:
# median, box: half of the faces). *Compare* where the faces are with where the errors are.

# %% [markdown]
# Two thirds of the faces are nearly frontal and easy. By the plain mean, a network that fails on every
# profile still looks good. So the field uses three {term}`yaw bins <balanced NME>`, $|\text{yaw}|$ in [0,
# 30], (30, 60] and above 60 degrees, and then takes the mean of the three means.

# %%
def balanced(values):
    bins = [yaw.abs() <= 30, (yaw.abs() > 30) & (yaw.abs() <= 60), yaw.abs() > 60]
    return torch.stack([values[b].mean() for b in bins]).mean()


table = evaluation.summarise(errors["bench"], yaw)
torch.testing.assert_close(float(balanced(errors["bench"])), table.balanced)
COLUMNS = ["NME, %", *evaluation.BIN_NAMES, "balanced", "mean"]
low, high = (100 * end for end in table.balanced_interval)
cells = [f"{100 * value:.2f}" for value in table.values()]
cells[3] += f" [{low:.2f}, {high:.2f}]"
show(
    COLUMNS, [["2DASL, released", *cells], ["faces", *table.counts, "", table.count]]
)


# %% [markdown]
# The released script prints a "Std" under its table. It is the standard deviation of *three bin means* and
# says nothing about how certain the number is. The brackets above do; we will derive them. One more oddity:
# the script uses the yaws exactly as they are in the files, and one is −351°. That face is turned by 9° and
# counts as a profile.

# %% [markdown]
# ## Three dimensions
#
# In 3D the formula stays the same: distances get a third coordinate, the box keeps two. But a photograph does
# not determine how far away the face is ([chapter 3](03_sixty_two_numbers.ipynb)), so the scripts first
# subtract the smallest $z$ from each set. *Dense* errors use all vertices instead of 68.
#
# All of these mix pose and shape. To see the **shape** alone, we first align the predicted face to the true
# one with the best rotation and translation. Which point belongs to which? {term}`Iterative closest points`
# guesses: pair each true point with the closest predicted one, rotate so that the pairs come together, and
# repeat {cite:p}`besl1992method`.

# %%
def closest_rotation(points, target):
    """R (3, 3) with points @ R.T closest to target; both (P, 3), centred."""
    U, _, Vt = torch.linalg.svd(target.T @ points)
    return U @ torch.diag(
        torch.tensor([1.0, 1.0, torch.linalg.det(U @ Vt).sign()])
    ) @ Vt


def lay_upon(predicted, target, tolerance=0.01):
    """Rotate and translate predicted (P, 3) onto target (P, 3)."""
    target_middle = target.mean(dim=0)
    moved, goal = predicted - predicted.mean(dim=0), target - target_middle
    change, error = torch.inf, torch.inf
    while change > tolerance:
        distance, partner = torch.cdist(goal, moved).min(dim=1)
        moved = (
            moved
            @ closest_rotation(moved[partner] - moved[partner].mean(dim=0), goal).T
        )
        change, error = (
            abs(error - float(distance.square().mean())),
            float(distance.square().mean()),
        )
    return moved + target_middle


# %%
first, second = decode(
    people(torch.tensor([20.0, 28.0]), seed=3), model
)  # two people, 8 degrees apart
some = slice(None, None, 50)
aligned = lay_upon(first[some], second[some])
by_hand = nme(
    (aligned - second[some])[None] + second[some], second[None, some]
)  # size: of every 50th vertex
package = evaluation.reconstruction_error(
    first[None, some], second[None, some], every=1
)
torch.testing.assert_close(by_hand, package, rtol=1e-4, atol=0.0)
print(f"one person's shape instead of another's: {100 * package.item():.2f} %")

# %% [markdown]
# {py:func}`twodasl_lite.evaluation.reconstruction_error` does this for many faces at once, with every 50th
# vertex and the box of all vertices, as in the release. It does not correct the scale: a face of the wrong
# size stays wrong. It reports the distance of each vertex to *its own* counterpart. The distance to the
# *closest* point always looks better:

# %% tags=["hide-input"]
front = model.mean[:, 2] >= model.mean[model.landmarks, 2].min()
mask = model.subset(front.nonzero()[:, 0])  # without the back of the head
shape, _ = mask.sample(
    2, generator=torch.Generator().manual_seed(8), expression=False
)
shape[1] = shape[0] + 0.7 * shape[1]  # a prediction that has something right
target_face, other_face = mask.decode(shape)  # (V, 3) mm
step = slice(None, None, 4)
fit = evaluation.icp(other_face[None, step], target_face[None, step], tolerance=1e-3)
placed = other_face @ fit.rotation[0].T + fit.translation[0]
own = (placed - target_face).norm(dim=-1)
nearest = torch.cat(
    [torch.cdist(part, placed).amin(dim=1) for part in target_face.split(2000)]
)

# %% tags=["hide-input"]
_, axes = plt.subplots(1, 4, figsize=(8.4, 3.1), layout="constrained")
for ax, face, title in (
    (axes[0], target_face, "true"),
    (axes[1], placed, "predicted, aligned"),
):
    viz.shaded_mesh(ax, viz.turn(face, 25), mask.triangles, pixels=500)
    ax.set_title(title, fontsize=10)
for ax, values, title in (
    (axes[2], own, "to its own vertex"),
    (axes[3], nearest, "to the closest"),
):
    paint, scale = viz.colour_by(values, vmax=6.0)
    viz.shaded_mesh(
        ax, viz.turn(target_face, 25), mask.triangles, paint, lit=False, pixels=500
    )
    ax.set_title(f"{title}: {values.mean():.1f} mm", fontsize=10)
_ = plt.colorbar(scale, ax=axes[3], shrink=0.7, label="mm")

# %% [markdown]
# **Figure 15.3.** A face, a prediction aligned to it, and the remaining distance. *Compare* the last two: if
# the closest point counts, sliding along the surface costs nothing. For every published millimetre, ask which
# of the two it is.

# %% [markdown]
# So which measure sees what? We corrupt the true faces in one way at a time:

# %%
centre = truth.mean(dim=1, keepdim=True)
average_shape = decode(
    Coefficients(*people(yaws)[:1], torch.zeros(35, 40), people(yaws).expression),
    model
)
five = camera.euler_to_matrix(torch.deg2rad(torch.tensor([0.0, 5.0, 0.0])))
spoiled = {
    "2 pixels to the right": truth + torch.tensor([2.0, 0.0, 0.0]),
    "20 pixels nearer": truth + torch.tensor([0.0, 0.0, 20.0]),
    "5 % too large": centre + 1.05 * (truth - centre),
    "5° turned": centre + (truth - centre) @ five.T,
    "depth × 0.8": truth * torch.tensor([1.0, 1.0, 0.8]),
    "the average shape": average_shape,
}
rows = []
box = evaluation.bounding_box(truth[:, model.landmarks])
for name, faces in spoiled.items():
    marks, true_marks = faces[:, model.landmarks], truth[:, model.landmarks]
    measures = (
        evaluation.nme(marks[..., :2], true_marks[..., :2]),
        evaluation.nme(marks, true_marks),
        evaluation.nme(faces, truth, box=box),
        evaluation.reconstruction_error(faces, truth),
    )
    rows.append([name, *(f"{100 * value.mean():.2f}" for value in measures)])
show(["NME, %", "68 points, 2D", "68 points, 3D", "dense, 3D", "shape alone"], rows)

# %% [markdown]
# Read the columns. The 2D error does not see a squashed depth at all: a flat mask that lands on the right
# pixels is perfect. The 3D error sees the pose again, with more weight. Dense errors are larger here because
# our mesh is a whole head, whose back is far from the landmarks. The shape error ignores position and
# rotation, and nothing else.
#
# The 2DASL release has scripts for all four, and meshes of 40 faces to run them on:
# `twodasl evaluate --dataset release-meshes` does so. Dense errors and shape need the Basel model, for which
# you must [register](https://faces.dmi.unibas.ch/bfm/).

# %% [markdown]
# ## More than a mean
#
# A mean hides whether all faces are slightly wrong or a few are very wrong. The {term}`CED` shows the whole
# distribution: for each error $e$, the fraction of faces with an error of at most $e$. Two numbers summarise
# it, up to a limit of 10 %: the area under the curve (AUC, 1 is perfect) and the failure rate beyond the
# limit. A face without a prediction counts as a failure.

# %%
limit = 0.10
steps = torch.linspace(0, limit, 201, dtype=torch.float64)
missing = torch.full((len(committed["missing"]),), torch.nan, dtype=torch.float64)
every = torch.cat([errors["bench"], missing])
# NaN is never below
fractions = (every[None] <= steps[:, None]).double().mean(dim=1)
torch.testing.assert_close(fractions, evaluation.ced(every, limit).fractions)
print(
    f"AUC {evaluation.auc(every):.3f}, failures "
    f"{100 * evaluation.failure_rate(every):.2f} %"
)

# %%
bins = evaluation.yaw_bins(yaw)
curves = {"2DASL, all": (100 * steps, 100 * fractions)}
for k, name in enumerate(evaluation.BIN_NAMES):
    curves[f"yaw {name}"] = (
        100 * steps,
        100 * evaluation.ced(errors["bench"][bins == k]).fractions,
    )
curves["2DASL, all, 3D"] = (
    100 * steps, 100 * evaluation.ced(errors["3d"]).fractions
)
fig = viz.curve_figure(curves, x_title="NME, %", y_title="faces, %", height=440)
ends = [float(100 * steps[-1]), 5.0]
zoom = [
    {
        "label": f"up to {e:g} %", "method": "relayout",
        "args": [{"xaxis.range": [0, e]}]
    }
    for e in ends
]
fig.update_layout(
    updatemenus=[
        {"buttons": zoom, "name": "Errors", "x": 0, "y": 1.2, "xanchor": "left"}
    ]
)
fig


# %% [markdown]
# **Figure 15.4.** Error curves of the released predictions. *Hover* to read off medians; click a name to hide
# its curve. Why does the curve of the profiles stay to the right of the others all the way, and not only at
# its end?

# %% [markdown]
# ## How sure is that?
#
# If the authors of the test set had chosen other photographs, the number would be different. How different?
# We cannot take new photographs, but we can resample those we have, with replacement, and see how much the
# number varies: the {term}`bootstrap` {cite:p}`efron1979bootstrap`. We resample each bin separately, since
# the sizes of the bins were chosen by design.

# %%
def bootstrap(values, resamples=2000):
    """Balanced errors (R,) of resampled test sets."""
    generator = torch.Generator().manual_seed(0)
    means = []
    for k in range(evaluation.NUM_BINS):
        members = values[bins == k]
        picks = torch.randint(
            len(members), (resamples, len(members)), generator=generator
        )
        means.append(members[picks].mean(dim=1))
    return torch.stack(means).mean(dim=0)


draws = bootstrap(errors["bench"])
by_hand = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64))
package = evaluation.bootstrap_interval(errors["bench"], yaw)
torch.testing.assert_close(
    by_hand, torch.tensor(package, dtype=torch.float64), rtol=5e-3, atol=0.0
)
print(
    f"2DASL: {100 * table.balanced:.2f} %, 95 % interval {100 * package.low:.2f} to "
    f"{100 * package.high:.2f}"
)

# %% [markdown]
# So with 2,000 pictures the second decimal is not significant. Yet papers compare it. Are they wrong? Not
# always: two methods see the *same* pictures, and what makes a picture hard makes it hard for both. So first
# subtract picture by picture, then resample the differences. For 400 of the pictures we also have the
# landmarks of another network, 3DDFA_V2 {cite:p}`guo2020towards`, smaller and faster:

# %%
place = {number: k for k, number in enumerate(committed["names"])}
shared = torch.tensor([place[number] for number in committed["3ddfa_v2"]["names"]])
rival = committed["unit"] * torch.tensor(
    committed["3ddfa_v2"]["bench"], dtype=torch.float64
)
ours, turned = errors["bench"][shared], yaw[shared]

intervals = {
    name: evaluation.bootstrap_interval(e, turned)
    for name, e in (("2DASL", ours), ("3DDFA_V2", rival))
}
difference = evaluation.paired_difference(ours, rival, turned)
for name, interval in intervals.items():
    print(f"{name:9} {100 * interval.low:6.2f} to {100 * interval.high:5.2f} %")
print(
    f"difference {100 * difference.low:5.2f} to {100 * difference.high:5.2f}, "
    "picture by picture"
)
assert intervals["2DASL"].high > intervals["3DDFA_V2"].low  # they overlap
assert difference.separate  # and yet

# %% tags=["hide-input"]
shape = {"figsize": (8, 2.9), "layout": "constrained", "width_ratios": [1, 1.25]}
figure, (left, right) = plt.subplots(1, 2, **shape)
ends = [*intervals.values(), evaluation.Interval(difference.low, difference.high)]
for row, (low, high) in enumerate(ends):
    style = {"lw": 6, "color": CATEGORICAL[row], "solid_capstyle": "butt"}
    left.plot([100 * low, 100 * high], [row, row], **style)
left.axvline(0, color="0.5", lw=0.8, ls=":")
left.set(yticks=range(3), yticklabels=[*intervals, "difference"], ylim=(2.6, -0.6))
left.set_xlabel("balanced NME, %")
right.scatter(100 * rival, 100 * ours, s=6, color=CATEGORICAL[0], alpha=0.6)
right.plot([0, 15], [0, 15], color="0.5", lw=0.8, ls=":")
right.set(xlim=(0, 12), ylim=(0, 12), aspect="equal")
right.set(xlabel="NME of 3DDFA_V2, %", ylabel="NME of 2DASL, %")
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)


# %% [markdown]
# **Figure 15.5.** Left, two intervals that overlap, and that of the difference, which excludes zero. Right,
# the reason: a picture that is hard for one network is hard for the other. *Ask*, whenever two intervals in a
# paper overlap, whether the pairing was used.

# %% [markdown]
# Two warnings. These intervals describe the choice of *pictures*, for these two trained networks. Another
# seed gives another network: for a claim about a *method*, train several times and include the variation
# between runs ({py:func}`twodasl_lite.evaluation.paired_difference` does so, for errors of shape (seeds,
# pictures), with Student's $t$). And an interval knows nothing about mistakes that affect all pictures. Here
# are some.

# %% [markdown]
# ## Reproduce a number, find its bug
#
# The paper reports 3.53 % {cite:p}`tu2021assisted`. The authors' released predictions, measured as their
# released script does, give **3.645 %**. That is not the paper's number; the released weights may differ from
# those of the paper. Can we at least trust the script? It takes points from the crop back to the photograph
# (both counted from 1) by
#
# $$ x_\text{photo} = x_\text{crop}\,\frac{e_x - s_x}{120} + s_x $$
#
# with the crop box from $s_x$ to $e_x$, and reads the box from a file. We test it like any instrument, with a
# known truth: if we put in *perfect* landmarks, we must get zero.

# %%
def published(points, box):
    """The script's way back, for points and boxes counted from 0."""
    s, e = box[:2] + 1, box[2:] + 1
    return (points + 1) * (e - s) / 120 + s - 1


size = 450  # photographs of this benchmark are 450 pixels wide and high
inside, outside = (
    torch.tensor([150.0, 130.0, 309.0, 289.0]),
    torch.tensor([-60.0, 130.0, 99.0, 289.0]),
)
crop_points = flat[18]  # (68, 2), perfect
for name, box in (("a face well inside", inside), ("a face at the edge", outside)):
    true = camera.crop_to_image(crop_points, box)  # where the crop really came from
    stored = clamp_box(box, size, size)  # what the script's file of boxes holds
    found = published(crop_points, stored)
    torch.testing.assert_close(
        found, camera.crop_to_image(crop_points, stored, "bench")
    )
    print(
        f"{name}: perfect landmarks, NME "
        f"{100 * nme(found[None], true[None]).item():.2f} %"
    )

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
ax.add_patch(plt.Rectangle((0, 0), size, size, color="0.9", zorder=0))
for rectangle, style, label in (
    (outside, "-", "box the crop was cut with"),
    (stored, "--", "box in the file"),
):
    x0, y0, x1, y1 = rectangle.tolist()
    colour = CATEGORICAL[0] if style == "-" else CATEGORICAL[1]
    ax.plot(
        [x0, x1, x1, x0, x0],
        [y0, y0, y1, y1, y0],
        ls=style,
        color=colour,
        lw=1.8,
        label=label,
    )
for points, colour, label in (
    (true, CATEGORICAL[0], "true"),
    (found, CATEGORICAL[1], "perfect, mapped back"),
):
    for a, b in EDGES:
        ax.plot(*points[[a, b]].T, color=colour, lw=1.2)
    ax.plot(*points.T, ".", color=colour, ms=4, label=label)
ax.set(xlim=(-90, 260), ylim=(310, 110), aspect="equal")
ax.text(205, 300, "the photograph", color="0.4", ha="center")
ax.legend(fontsize=8, frameon=False, loc="upper right")
_ = ax.axis("off")

# %% [markdown]
# **Figure 15.6.** The bug. The crop was padded with black beyond the edge of the photograph, but the box in
# the file was clamped there. *Follow* a point: mapped back through the narrower box, the whole face is
# squeezed to the right.

# %% [markdown]
# So there are two mistakes. The boxes of 55 of the 2,000 pictures were clamped. And even well inside the
# photograph, perfect landmarks get an error of most of a per cent, because the formula confuses pixel centres
# and pixel edges (a box of 160 pixels is $e - s + 1$ wide, not $e - s$). We correct both, one after the
# other:

# %%
tables = committed["tables"]
steps = (
    "2DASL, bench",
    "2DASL, bench with whole boxes",
    "2DASL, exact",
    "true landmarks mapped back by bench",
)
print(f"committed: {committed['file']}, {committed['date']}")
show(
    COLUMNS, [[name, *(f"{value:.3f}" for value in tables[name])] for name in steps]
)

# %% [markdown]
# The network is better than its own authors' script says: **3.500** instead of 3.645 %. The last row is what
# a perfect method would get: 0.985 %. (A network whose training targets were made with the same formula would
# have learned to compensate for the half pixels, but not for the clamped boxes.) The package calls the
# script's way `mapping="bench"`, for comparisons with papers, and ours `mapping="exact"`, the default. Always
# say which one you used.
#
# A one-line test, *perfect in, zero out*, finds both mistakes. Write it before you trust any evaluation code,
# including your own.

# %% [markdown]
# ## What flatters every method
#
# The crops themselves are cut from the **true** landmarks: a square around their centre, with a side
# $\sqrt 2$ times the longer side of their box. So in almost every crop the longer side of the face has 84.5
# pixels, with a standard deviation of 0.1, and the face is exactly in the middle. No face detector is that
# good. Suppose a method knew shape and angles but nothing about size and position. Here it simply puts the
# face where faces always are:

# %%
in_photo = 2.37 * flat + torch.tensor([103.4, 51.7])  # the same faces in photographs
boxes = landmarks_box(in_photo)
low, high = in_photo.amin(dim=1, keepdim=True), in_photo.amax(dim=1, keepdim=True)
longest = (high - low).amax(dim=-1, keepdim=True)
guess = (
    in_photo - (low + high) / 2
) / longest * 84.5 + 59.5  # always there, always that large
for amount, real in committed["placement"].items():
    shifted = jittered_boxes(boxes, float(amount), seed=1)
    error = nme(camera.crop_to_image(guess, shifted), in_photo).mean()
    print(
        f"boxes off by up to {float(amount):4.0%}: {100 * error:5.2f} % here, "
        f"{real[3]:5.2f} % on the real 2,000"
    )


# %% [markdown]
# Three of the 62 numbers come for free, to within a quarter of a per cent. With the boxes of a detector, off
# by 5 or 10 %, that guess is useless, and a network must *look*. So we also measure ours with jittered boxes
# (`twodasl evaluate --checkpoint … --jitter 0.1`), and so should you if you plan to run a network after a
# detector.
#
# Other traps of this benchmark:
#
# - **Other labels.** There is a corrected, re-annotated set of landmarks, in whole pixels, and it does not
#   say whether it counts from 0 or from 1. As published, 2DASL's predictions get 3.05 %; shifted by one
#   pixel, 2.84 %. Never compare across label sets.
# - **The annotations have a floor.** Truncated to 40 + 10 coefficients, the ground truth itself has an error
#   of 0.92 %.
# - **Test pictures in the training set.** All 2,000 faces are in AFLW, whose 21,080 crops come with the
#   release, under the same names. Leaving out those names is not enough, because AFLW contains some
#   photographs twice. By the correlation of small grey pictures (above 0.95), 160 of the 2,000 have a
#   near-duplicate under another name; 293 if crops that are cut alike are compared.
#   {py:func}`twodasl_lite.datasets.aflw.training_set` leaves them out.
# - **Published numbers** of different papers were made with different scripts, boxes, detectors and label
#   sets. A difference of a tenth of a per cent between two papers means little. Between two methods under one
#   script, on the same pictures, it can mean a lot.
#
# ## Summary
#
# - NME: mean distance over $\sqrt{wh}$ of the true box. 2D, 3D, dense and shape-alone errors see different
#   mistakes; 2D does not see depth.
# - The balanced mean makes profiles count. A curve shows what a mean hides.
# - Resample pictures for an interval; first subtract, picture by picture, for a comparison; train several
#   times for a claim about a method.
# - Test the evaluation with the ground truth. The published script gives a perfect method an error of 0.985
#   %.
# - Crops from true boxes give away size and position. Measure with jittered boxes as well.
#
# ## Exercises
#
# ### Exercise 15.1 · The area without a grid
#
# The area under the step curve from 0 to the limit, divided by the limit, can be written as a mean over
# faces, without drawing the curve. What does one face with error $e$ contribute? (Mind faces without a
# prediction, which are NaN.)

# %% tags=["exercise"]
def area(values, limit):
    """Area under the error curve, 0 to 1."""
    return torch.tensor(0.0)


# %% tags=["solution"]
def area(values, limit):
    """A face with error e has been counted on the stretch from e to the limit."""
    return (1 - values / limit).clamp(min=0).nan_to_num(0.0).mean()


# %% tags=["check"]
tries = {
    "no errors": torch.zeros(5),
    "two faces": torch.tensor([0.05, 0.3]),
    "no answer": torch.tensor([0.0, torch.nan]),
}
for name, values in tries.items():
    wanted = evaluation.auc(values, 0.1)
    assert abs(float(area(values, 0.1)) - wanted) < 1e-6, (
        f"{name}: found {float(area(values, 0.1)):.3f}, not {wanted:.3f}."
    )
print(f"✓ 2DASL's area, exactly: {float(area(every, 0.1)):.4f}")

# %% [markdown]
# ### Exercise 15.2 · Win the mean, lose the balance
#
# Make an imaginary network from 2DASL's errors that has a *smaller* plain mean but a *larger* balanced one. Multiply the
# errors in each bin by a factor.

# %% tags=["exercise"]
factors = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)

# %% tags=["solution"]
factors = torch.tensor(
    [0.9, 1.0, 1.1], dtype=torch.float64
)  # better where most faces are, worse on profiles

# %% tags=["check"]
imagined = evaluation.summarise(
    errors["bench"] * factors[bins], yaw, intervals=False
)
better = f"mean {100 * imagined.mean:.2f} against {100 * table.mean:.2f}"
worse = f"balanced {100 * imagined.balanced:.2f} against {100 * table.balanced:.2f}"
assert (factors > 0).all(), "Errors are positive: so must the factors be."
assert imagined.mean < table.mean, f"The plain mean should fall: {better}."
assert imagined.balanced > table.balanced, f"The balanced mean should rise: {worse}."
print(f"✓ {better}, but {worse}")

# %% [markdown]
# ### Exercise 15.3 · How many pictures?
#
# A new method is better by 0.05 percentage points, and picture by picture the differences have a standard
# deviation of 1 percentage point. About how many pictures does a test set need for the 95 % interval of the
# mean difference to exclude zero? (An interval's half width is about $1.96\,\sigma/\sqrt{n}$.)

# %% tags=["exercise"]
needed = 100

# %% tags=["solution"]
needed = round((1.96 * 1.0 / 0.05) ** 2)  # 1537

# %% tags=["check"]
generator = torch.Generator().manual_seed(0)
found = []
for _ in range(200):
    pretend = (
        0.05 + torch.randn(int(needed), generator=generator, dtype=torch.float64)
    )
    found.append(bool(pretend.mean() > 1.96 * pretend.std() / len(pretend) ** 0.5))
share = sum(found) / len(found)
assert share > 0.35, (
    f"With {needed} pictures only {share:.0%} of the test sets show it: more."
)
assert share < 0.65, (
    f"With {needed} pictures {share:.0%} of the test sets show it: fewer would do "
    "for a half."
)
print(f"✓ with {needed} pictures, {share:.0%} of the test sets show it")
print("(for 80 % of them it takes twice as many)")

# %% [markdown]
# ## Further reading
#
# - {cite:t}`zhu2016face` and {cite:t}`zhu2019face`: the benchmark, its bins and its normaliser.
# - {cite:t}`efron1979bootstrap` on resampling; {cite:t}`besl1992method` on closest points.
# - {cite:t}`sagonas2013faces`: how a landmark benchmark was made, and how much people disagree about
#   landmarks.
# - {cite:t}`tu2021assisted`, section 4: the numbers that this chapter reproduces.
#
# Next: [chapter 16](16_in_the_wild.ipynb) puts networks side by side on the same photographs.
