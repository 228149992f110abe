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
# # The models people use
#
# *Somebody hands you face coefficients. Whose are they, and what can you do with them?*
#
# **You need** [chapter 2](02_build_the_morphable_model.ipynb) (components and their deviations) and linear
# least squares with a prior ([chapter 4](04_fit_a_face_to_a_photograph.ipynb)).
#
# **After this chapter you can**
#
# - choose among the Basel, FLAME, Surrey and ICT models and this book's own, and read your copy of each,
# - say how many components are enough, in millimetres,
# - reduce fifty blendshapes to ten components, and say what that costs,
# - recognise a model whose landmarks follow another markup,
# - carry faces from one model to another, by landmarks and by surface.
#
# **Time** 45 minutes to read; no GPU needed.

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
from scipy.spatial import cKDTree

# %%
from twodasl_lite import viz
from twodasl_lite.base.cache import cache_folder
from twodasl_lite.datasets.aflw2000 import read_basel_landmarks
from twodasl_lite.faces import (
    generate_face_model,
    load_face_model,
    read_face_model,
)
from twodasl_lite.faces.build import Similarity, align
from twodasl_lite.faces.embedded.recipe import embedded_face_model
from twodasl_lite.faces.readers import FORMATS
from twodasl_lite.faces.readers.ict import BASEL_JAW, JAW_LINE, MULTI_PIE
from twodasl_lite.faces.register import matching_landmarks
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS
from twodasl_lite.viz.palette import CATEGORICAL, HOUSE_STYLE
from twodasl_lite.viz.shading import vertex_normals

plt.rcParams.update(HOUSE_STYLE)

committed = json.loads(
    (
        resources.files("twodasl_lite") / "assets" / "face_models.json"
    ).read_text("utf-8")
)

# %% [markdown]
# ## One equation, many files
#
# All models of this chapter say
# $\mathbf S = \bar{\mathbf S} + \sum_k \alpha_k \mathbf A_k + \sum_k \beta_k \mathbf E_k$. They differ in
# everything else: the number and order of the vertices, the unit, what a coefficient of 1 means, where the
# landmarks are, and what you may do with the file.
#
# | model | $V$ | $K_s$ | $K_e$ | unit | $\alpha_k$ in |
# |---|---|---|---|---|---|
# | Basel 2009 | 53,490 | 199 | – | µm | σ |
# | 3DDFA's Basel | 53,215 | 40 | 10 | µm | raw |
# | Basel 2017 | 53,149 | 199 | 100 | mm | σ |
# | FLAME | 5,023 | 300 | 100 | m | σ |
# | Surrey | 3,448 | 63 | 6 b | mm | σ |
# | ICT Light | 26,719 | 100 | 55 b | cm | σ |
# | ours | 12,000 | 80 | 30 b | mm | σ |
#
# "b" marks named {term}`blendshapes <blendshape>`. Only Basel's own files and our model come with colours.
# Here is what each was made from, what it lacks, and how to get it:
#
# - **Basel 2009** {cite:p}`paysan2009model`: scans of 200 adults, most of them Europeans. Has no expressions;
#   others add FaceWarehouse's {cite:p}`cao2014facewarehouse`. 3DDFA publishes a list of 68 landmarks.
#   Non-commercial research; [register](https://faces.dmi.unibas.ch/bfm/).
# - **Basel 2017 and 2019** {cite:p}`gerig2018morphable`: 200 neutral scans, and 160 with an expression. The
#   file names some of the 68 landmarks; our reader derives the others. Same licence as Basel 2009.
# - **FLAME** {cite:p}`li2017learning`: 3,800 heads, 33,000 scans. Its landmarks are in a second file. It has
#   joints for jaw, neck and eyes, which are not linear and which we leave out: the mouth opens less.
#   [Register](https://flame.is.tue.mpg.de); the 2020 version is for research, the 2023 version is under CC BY
#   4.0.
# - **Surrey** {cite:p}`huber2016multiresolution`: 169 scans. Its public file is small, with little detail and
#   a list of 50 of the 68 landmarks, without the jaw. Non-commercial; it comes with
#   [eos](https://github.com/patrikhuber/eos).
# - **ICT Light** {cite:p}`li2020learning`: studio scans, named expressions, teeth and eyes. 68 landmarks with
#   two jaw lines. How its expressions are distributed is not published. MIT licence;
#   `twodasl models get ict`.
# - **Ours**: generated scans, no real people. MIT licence; part of the package.
#
# The command `twodasl models convert SOURCE OUT.npz` reads each of them into this book's conventions:
# millimetres, $y$ up, triangles counter-clockwise, 68 landmarks. It recognises a file by its content, never
# runs a pickle, and stores the licence. Afterwards `TWODASL_FACE_MODEL=OUT.npz` switches the whole book to
# your model. Not all readers could be tested on the real files. This table says which:

# %% tags=["hide-input"]
header = ("twodasl models convert …", "model", "reader checked with")
rows = [(f.files, f.title, f.checked) for f in FORMATS if f.kind != "twodasl"]
cells = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
head = "".join(f"<th>{cell}</th>" for cell in header)
body = "".join(f"<tr>{row}</tr>" for row in cells)
head, body = f"<thead><tr>{head}</tr></thead>", f"<tbody>{body}</tbody>"
HTML(f'<table class="table">{head}{body}</table>')


# %% [markdown]
# "Layout tested, file not" is meant literally: we wrote files byte by byte as the publishers describe them
# and read those, because the licences do not let us have the real ones.
#
# ## The models at hand
#
# Our own model is always available. The second model of this chapter is whichever you have: the file that
# `TWODASL_FACE_MODEL` names, or ICT's in `TWODASL_DATA` or in the cache. If there is none, we make a
# *stand-in* from other generated scans with another numbering of the vertices. A stand-in is an easier case
# than a real model, so beside its results we print what we measured with ICT.

# %%
def second_model():
    """The second model and where it was found."""
    if os.environ.get("TWODASL_FACE_MODEL"):
        return load_face_model(), "in TWODASL_FACE_MODEL"
    places = {"in the cache": cache_folder() / "ict-face-model-light.npz"}
    if os.environ.get("TWODASL_DATA"):
        data = Path(os.environ["TWODASL_DATA"])
        places["in TWODASL_DATA"] = data / "ict-facekit" / "ict_face_model_light.npz"
    for where, path in places.items():
        if path.is_file():
            return read_face_model(path), where
    made = generate_face_model(seed=7, num_scans=40, num_shape=40)
    front = made.mean[:, 2] >= made.mean[made.landmarks, 2].min()
    order = front.nonzero()[:, 0]
    order = order[
        torch.randperm(len(order), generator=torch.Generator().manual_seed(0))
    ]
    stranger = made.subset(order)
    stranger.name = "stand-in"
    return stranger, "made here, because no other model was found"


# %%
ours = embedded_face_model()
other, where = second_model()
face = other.regions.get("face", torch.arange(other.num_vertices))
if set(other.landmarks.tolist()) <= set(face.tolist()):
    other = other.subset(face)  # without teeth and eyeballs
for model, note in ((ours, "always here"), (other, where)):
    counts = f"{model.num_shape} + {model.num_expression} coefficients"
    print(f"{model.name}: {model.num_vertices:,} vertices, {counts}, {note}")
is_ict = other.name.startswith("ICT") and other.landmarks.tolist()[17:] == list(
    MULTI_PIE[17:]
)
other.name = "ICT Face Model Light" if is_ict else other.name

# %% tags=["hide-input"]
models = {"ours": ours, other.name: other}
figure, panels = plt.subplots(1, 4, figsize=(8, 2.9), layout="constrained")
for pair, (name, model) in zip(
    (panels[:2], panels[2:]), models.items(), strict=True
):
    for axes, yaw in zip(pair, (0, -40), strict=True):
        viz.shaded_mesh(axes, viz.turn(model.mean, yaw), model.triangles, pixels=400)
        axes.set_title(name if yaw == 0 else "", fontsize=10)


# %% [markdown]
# **Figure 5.1.** The mean faces of the models that are loaded. *Look for* what a mean face reveals: whose
# scans were averaged, and where the mesh ends.

# %% [markdown]
# ## What a coefficient of one means
#
# There are two conventions. In a {term}`sigma-scaled <sigma scaling>` model $\alpha_k = 1$ is one standard
# deviation. In a *raw* model, $\mathbf A_k$ is used as published. In 3DDFA's files the shape components have
# unit length, so $\alpha_k$ is the length of the movement of all 53,215 vertices together, in micrometres,
# and reaches hundreds of thousands. Nothing in a file of numbers says which convention it follows, and both
# decode without an error. `shape_std` resolves the ambiguity: in every model, $\alpha_k / \sigma_k$ is
# measured in standard deviations. We can therefore compare models by the effect of one standard deviation, as
# a root mean square over the vertices,
#
# $$ r_k = \sigma_k \sqrt{\tfrac{1}{V} \lVert \mathbf A_k \rVert^2} \quad \text{in mm}. $$

# %%
def spread(model, region=None):
    """Effect of one standard deviation per shape coefficient (K,): rms, in mm."""
    moved = (model.shape_basis * model.shape_std).square().sum(dim=1)  # (V, K) mm²
    return (moved if region is None else moved[region]).mean(dim=0).sqrt()


spreads = {
    name: torch.tensor(entry["shape_mm"])
    for name, entry in committed["models"].items()
}
fresh = {"ours": spread(ours, ours.regions["face"]), other.name: spread(other)}
data = os.environ.get("TWODASL_DATA")
annotations = Path(data, "aflw2000-3d", "aflw2000_every_fifth.npz") if data else None
if annotations and annotations.is_file():
    with np.load(annotations) as content:
        raw = content["shape199"]  # (400, 199), raw: unit vectors, micrometres
    fresh["Basel 2009"] = torch.from_numpy(
        raw.std(axis=0)
    ).float() / 53_215**0.5 / 1000
for name, value in fresh.items():
    if name in spreads:
        torch.testing.assert_close(value, spreads[name], rtol=0.01, atol=1e-3)
spreads |= fresh
for name in spreads:
    entry = committed["models"].get(name)
    origin = (
        "computed now" if name in fresh
        else f"committed: {entry['file']}, {entry['date']}"
    )
    print(f"{name:21} r₁ = {spreads[name][0]:.2f} mm   {origin}")


# %% [markdown]
# The Basel row needs care. Its own file holds the standard deviations over the 200 people who were scanned,
# but we cannot ship it. What is public are 3DDFA's *fits* to photographs, with 199 raw coefficients each, and
# we took the standard deviations of those. The fits used a prior, which keeps the later coefficients near
# zero.
#
# ## How many components are enough?
#
# Truncate a model after $n$ components. The coefficients are uncorrelated, so the error for a random person
# (root mean square per vertex) is
#
# $$ e(n) = \sqrt{ \textstyle\sum_{k > n} r_k^2 } \quad \text{mm}. $$
#
# No sampling is needed. We sample once anyway, to check the formula:

# %%
def lost(r):
    """Error in mm (K + 1,) of a model truncated after 0, 1, ..., K components."""
    tail = r.double().square().flip(0).cumsum(dim=0).flip(0)
    return torch.cat([tail, tail.new_zeros(1)]).sqrt()


people = torch.randn(
    2000, ours.num_shape, generator=torch.Generator().manual_seed(0)
)
people[:, :40] = 0  # what 40 components cannot express
few = ours.regions["face"][::20]
missing = torch.einsum("vik,nk->nvi", ours.shape_basis[few], people)
by_sampling = float(missing.square().sum(dim=-1).mean().sqrt())
by_formula = float(lost(spread(ours, few))[40])
assert abs(by_sampling / by_formula - 1) < 0.02
for name, r in spreads.items():
    n = min(40, len(r))
    kept = 1 - float(lost(r)[n] / lost(r)[0]) ** 2
    print(
        f"{name:21} {n} of {len(r):3} keep {kept:.1%} of the variance, lose "
        f"{lost(r)[n]:.2f} mm"
    )

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
dashes = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
for number, (name, r) in enumerate(spreads.items()):
    style = {"color": CATEGORICAL[number], "ls": dashes[number % 5], "lw": 1.8}
    error = lost(r)
    counts = range(len(error))
    left.plot(counts, 100 * (1 - (error / error[0]) ** 2), label=name, **style)
    right.plot(counts, error, **style)
left.set(
    xlabel="components n", title="variance explained, %", xlim=(0, 100),
    ylim=(0, 101)
)
right.set(
    xlabel="components n", title="error left, mm", xlim=(0, 100), ylim=(0, None)
)
for axes in (left, right):
    axes.axvline(40, color="grey", lw=0.8, ls=":")
    axes.spines[["top", "right"]].set_visible(False)
_ = left.legend(fontsize=8, frameon=False)


# %% [markdown]
# **Figure 5.2.** Left, the share of the variance that $n$ components explain; right, the remaining error in
# millimetres. The dotted line marks 40. *Compare* two models at the same percentage: their errors in
# millimetres differ, because their faces do not vary equally much.

# %% [markdown]
# Forty is the paper's number {cite:p}`tu2021assisted`, and Basel's curve (measured on fits, remember) shows
# why it is enough there. A model with more variety loses a millimetre. A percentage alone says little.
#
# ## Ten components for fifty expressions
#
# A blendshape has a name, such as *jaw open*, and an activation from 0 to 1. ICT has 55 of them, ours 30; the
# 62 numbers have room for 10. The first 10 of an alphabetical list would be a poor choice. Instead,
# `with_layout` draws plausible combinations of FACS actions, finds the directions of most energy *about the
# neutral face*, so that zero stays neutral, and keeps 10 of them. Nobody has published how plausible
# expressions are distributed. Our choice: about four actions at a time, mostly symmetric, and never two that
# pull in opposite directions.
#
# Write $\mathbf E = \mathbf Q \mathbf T$, where $\mathbf Q$ has orthonormal columns and $\mathbf T$ is small
# and triangular. Then the singular values of the drawn faces are those of (activations) $\mathbf T^\top$, a
# small matrix whose size does not depend on the number of vertices.

# %%
def expression_energy(model, num=2000):
    """Rms sizes (Ke,) and directions (3V, Ke) of random expressions, descending."""
    fixed = torch.Generator().manual_seed(0)
    _, activations = model.truncate(num_shape=0).sample(num, generator=fixed)
    Q, T = torch.linalg.qr(model.expression_basis.flatten(0, 1).double())
    _, singular, W = torch.linalg.svd(
        activations.double() @ T.T, full_matrices=False
    )
    return singular / num**0.5, Q @ W.T


# %%
actor = (
    other if other.expression_kind == "blendshapes" and other.num_expression > 10
    else ours
)
actor = actor.truncate(num_shape=min(40, actor.num_shape))
energy, directions = expression_energy(actor)
reduced = actor.with_layout(CoefficientLayout(actor.num_shape, 10))
# sigma-scaled: length = size
package = reduced.expression_basis.flatten(0, 1).norm(dim=0)
torch.testing.assert_close(energy[:10].float(), package, rtol=1e-3, atol=0.0)

left_over = lost(energy / actor.num_vertices**0.5)  # mm per vertex
print(
    f"{actor.name}: a random expression moves vertices by {left_over[0]:.2f} mm "
    "(rms),"
)
print(f"10 components miss {left_over[10]:.2f} mm")
if not is_ict:
    known = committed["expressions"]
    print(f"ICT, committed ({known['file']}, {known['date']}):", end=" ")
    print(f"{known['lost_mm'][0]:.2f} mm, 10 miss {known['lost_mm'][10]:.2f} mm")

# %% [markdown]
# An average hides which expressions suffer. Rebuild each *single* blendshape from the 10 components and
# measure how far the worst vertex ends up from where it should be:

# %%
E = actor.expression_basis.flatten(0, 1).double()  # (3V, Ke)
ten = directions[:, :10]  # orthonormal
rebuilt = ten @ (ten.T @ E)
# (Ke,) share of the energy
survives = rebuilt.square().sum(dim=0) / E.square().sum(dim=0)
full, miss = (
    x.unflatten(0, (-1, 3)).norm(dim=1).amax(dim=0) for x in (E, E - rebuilt)
)  # (Ke,) mm
order = miss.argsort(descending=True)
for k in [*order[:6].tolist(), *order[-2:].tolist()]:
    name = actor.expression_names[k]
    print(
        f"{name:20} {survives[k]:4.0%} survives; {miss[k]:4.1f} of {full[k]:4.1f} "
        "mm are missing"
    )

# %% tags=["hide-input"]
stem = actor.expression_names[int(order[0])].removesuffix("_L").removesuffix("_R")
which = [k for k, name in enumerate(actor.expression_names) if name.startswith(stem)]
shown = {"neutral": 0 * E, stem: E, "the same, 10 components": rebuilt}
figure, panels = plt.subplots(1, 3, figsize=(8, 3.6), layout="constrained")
for axes, (name, source) in zip(panels, shown.items(), strict=True):
    moved = source[:, which].sum(dim=1).unflatten(0, (-1, 3)).float()
    viz.shaded_mesh(axes, actor.mean + moved, actor.triangles, pixels=450)
    axes.set_title(name, fontsize=10)


# %% [markdown]
# **Figure 5.3.** The expression that loses most: neutral, as the blendshapes make it on both sides, and as
# the ten components reproduce it. *Ask yourself* which tasks cannot tolerate this.

# %% [markdown]
# A blink or a raised brow moves few vertices, so it has little energy and is lost first. A viewer's eye
# weighs it differently. The same holds for the Basel model: reducing its expressions from 29 to 10 costs more
# accuracy on real photographs than reducing its shape from 199 to 40. Here are the exact annotations of 400
# photographs of AFLW2000-3D, decoded with 40 + 10 components; no network can do better than this with 62
# numbers.

# %% tags=["hide-input"]
def exact_targets_nme(folder):
    """NME in % (4,) of the exact targets: yaw up to 30°, to 60°, above, balanced."""
    basel = np.load(folder / "bfm_68_landmarks.npz")
    photos = np.load(folder / "aflw2000_every_fifth.npz")
    pose, alpha, beta = np.split(photos["coefficients62_exact"], [12, 52], axis=1)
    S = basel["mean"] + np.einsum("nik,bk->bni", basel["shape"], alpha)
    S = S + np.einsum("nik,bk->bni", basel["expression"], beta)  # (400, 68, 3) µm
    pose = pose.reshape(-1, 1, 3, 4)[:, :, :2]
    # crop frame: 1-based, y up
    v = (pose[..., :3] @ S[..., None])[..., 0] + pose[..., 3]
    v[..., 1] = 121 - v[..., 1]
    box = photos["roi_box"][:, None]  # (400, 1, 4) 1-based, inclusive
    found = (v - 0.5) * (box[..., 2:] - box[..., :2] + 1) / 120 + box[..., :2] - 0.5
    truth = photos["landmarks68"][:, :2].transpose(0, 2, 1)  # (400, 68, 2)
    size = np.sqrt(np.ptp(truth, axis=1).prod(axis=1))
    nme = 100 * np.linalg.norm(found - truth, axis=2).mean(axis=1) / size
    bins = np.digitize(np.abs(photos["yaw_deg"]), [30, 60], right=True)
    means = [nme[bins == k].mean() for k in range(3)]
    return [*means, np.mean(means)]


# %%
known = committed["exact_targets_nme"]
if annotations and annotations.with_name("bfm_68_landmarks.npz").is_file():
    best, origin = exact_targets_nme(annotations.parent), "computed now"
    np.testing.assert_allclose(best, known["values"], atol=2e-3)
else:
    best, origin = known["values"], f"committed, {known['date']}: {known['file']}"
print(
    " / ".join(f"{value:.3f}" for value in best), "% (three bins of yaw, balanced)"
)
print(origin)

# %% tags=["hide-input"]
reduced.expression_names = [f"Component {k}" for k in range(1, 11)]
viz.FaceExplorer(
    reduced,
    num_shape=6,
    num_expression=10,
    expression=[1.0],
    max_error=0.2,
    colouring="clay",
)

# %% [markdown]
# **Figure 5.4.** The reduced model, with six shape and all ten expression sliders. *Try* naming each
# expression component. The first ones are easy. Then try raising one brow and nothing else.

# %% [markdown]
# ## The trap in the markup
#
# "68 landmarks, iBUG order" sounds like a definition. For the eyes and the mouth it is one. For the jaw it
# says: *the outline of the face, from ear to ear*. In a photograph the outline is where the visible part of
# the face ends, and it moves over the cheek as the head turns. In 3D someone has to choose vertices. ICT
# publishes two choices: the vertices on the frontal outline, and a substitute on the bony edge of the jaw
# (`twodasl models get ict --jaw edge`). Face, order and names are the same in both:

# %%
jaw = committed["jaw"]
if is_ict:
    outline, edge = (other.mean[list(line)] for line in (MULTI_PIE[:17], JAW_LINE))
    apart = (outline - edge).norm(dim=-1)  # (17,) mm
    marks = other.mean[other.landmarks, :2]
    size = (marks.amax(dim=0) - marks.amin(dim=0)).prod().sqrt()
    nme = 100 * float(
        (outline - edge)[:, :2].norm(dim=-1).sum() / NUM_LANDMARKS / size
    )
    torch.testing.assert_close(
        apart, torch.tensor(jaw["ict_apart_mm"]), rtol=0, atol=0.05
    )
    print("ICT's two jaw lines, computed now:")
else:
    apart, nme = torch.tensor(jaw["ict_apart_mm"]), jaw["ict_nme_percent"]
    print(f"ICT's two jaw lines, committed ({jaw['file']}, {jaw['date']}):")
print("mm apart, ear to chin:", " ".join(f"{value:.0f}" for value in apart[:9]))
print(f"counted as an error of a frontal face: {nme:.2f} % NME")

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8, 2.9), layout="constrained")
for number, (name, values) in enumerate(jaw["from_basel_mm"].items()):
    axes.plot(
        range(17),
        values,
        "osvD^"[number],
        ls=dashes[number],
        color=CATEGORICAL[number],
        ms=4,
        label=name,
    )
axes.set(
    xlabel="jaw landmark", ylabel="mm from Basel's", ylim=(0, 36), xticks=range(17)
)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(fontsize=8, frameon=False, ncols=5, loc="upper center")
_ = figure.suptitle(
    f"committed: {jaw['basel_file']}, {jaw['date']}", fontsize=9, color="#5B636C"
)

# %% [markdown]
# **Figure 5.5.** How far each mean face's jaw landmarks are from those of Basel's (3DDFA's list), after the
# other 51 have been aligned (they differ by about 3 mm). *Find* where ICT's two published lines are furthest
# apart, and how close the third comes.

# %% [markdown]
# Two networks in a benchmark often differ by less than one percentage point of NME. A model with the other
# jaw loses that much before it has learned anything. So always find out *which* 68 a file means, compare on
# the inner 51 if you cannot know, and never mix annotations of two markups in one training set.
#
# Alternatively, move the points. *ICT, basel* is our third line (`--jaw basel`): fit ICT's shape and a
# similarity transform to the landmarks of Basel's mean face, and assign each jaw landmark to the vertex that
# ends up nearest to it. Two average faces are enough; no picture is needed
# ({py:func}`twodasl_lite.faces.register.matching_landmarks` does it for any model):

# %%
basel_file = (
    Path(os.environ.get("TWODASL_DATA", "")) / "aflw2000-3d" / "bfm_68_landmarks.npz"
)
if is_ict and basel_file.is_file():
    basel = read_basel_landmarks(basel_file)[0].mean
    found = matching_landmarks(other, basel, among=other.regions["face"])[:17]
    assert tuple(found.tolist()) == BASEL_JAW
    print("registered now:", *found.tolist())
else:
    found, own = matching_landmarks(ours, ours.mean[ours.landmarks]), ours.landmarks
    assert torch.equal(found, own)
    print(
        "not registered now; our own face finds its own jaw again:",
        *found[:17].tolist()
    )


# %% [markdown]
# ## From one model to another
#
# Back to the question at the top of the chapter. We have a face in model $A$ with coefficients $\mathbf a$
# (in standard deviations) and want the coefficients $\mathbf b$ of the same face in model $B$. What if we
# simply copy the numbers? To judge, we measure the mean distance of $A$'s vertices from the surface of $B$'s
# face, along $B$'s normals.
#
# For any list of pairs (vertex $i$ of $A$ is the same point as vertex $j$ of $B$), least squares with the
# prior of chapter 4 asks for
#
# $$ \min_{\mathbf b} \sum_{(i, j)} \lVert \bar{\mathbf S}^B_j + \mathbf B_j \mathbf b - \mathbf g(\bar{\mathbf S}^A_i + \mathbf A_i
# \mathbf a) \rVert^2 + \nu^2 \lVert \mathbf b \rVert^2 , $$
#
# where $\mathbf A_i$ and $\mathbf B_j$ (3×K) hold the displacement of the vertex per standard deviation of
# each coefficient, $\nu$ is the noise of a pair in mm, and $\mathbf g$ is the fixed similarity transform from
# $A$'s frame to $B$'s. All of it is linear in $\mathbf a$. So the solution is
# $\mathbf b = \mathbf M (1, \mathbf a)$ with *one matrix for all people*:

# %%
def transfer_matrix(A, B, pairs, frame, noise):
    """Matrix (K_B, 1 + K_A) from (1, sigmas in A) to sigmas in B.

        pairs: vertex indices (N,) of A and (N,) of B. frame: similarity from A to B.
    noise: of a pair, in mm.
    """
    i, j = pairs
    moves = A.shape_basis[i] * A.shape_std  # (N, 3, K_A) mm per sigma
    moves = frame.scale * torch.einsum("xy,nyk->nxk", frame.rotation, moves)
    offset = frame.apply(A.mean)[i] - B.mean[j]  # (N, 3)
    # (3N, 1 + K_A)
    right = torch.cat([offset[..., None], moves], dim=-1).flatten(0, 1)
    basis = (B.shape_basis * B.shape_std)[j].flatten(0, 1)  # (3N, K_B)
    prior = noise**2 * torch.eye(B.num_shape)
    return torch.linalg.solve(basis.T @ basis + prior, basis.T @ right)


def surface_error(points, faces, B):
    """Distance (n, N) in mm of points (n, N, 3) from faces (n, V, 3) of model B."""
    errors = []
    for target, face in zip(points, faces, strict=True):
        nearest = torch.from_numpy(cKDTree(face.numpy()).query(target.numpy())[1])
        normals = torch.from_numpy(
            vertex_normals(face.numpy(), B.triangles.numpy())
        ).float()
        errors.append(
            ((target - face[nearest]) * normals[nearest]).sum(dim=-1).abs()
        )
    return torch.stack(errors)


# %% [markdown]
# **First, by landmarks.** They give us 68 pairs for free. One call of the Procrustes alignment of [chapter
# 2](02_build_the_morphable_model.ipynb) finds the similarity.

# %%
marks = (other.landmarks, ours.landmarks)
frame = align(other.mean[marks[0]], ours.mean[marks[1]], with_scale=True)
by_landmarks = transfer_matrix(other, ours, marks, frame, noise=2.0)
print(
    f"{by_landmarks.shape[0]} x {by_landmarks.shape[1]} numbers, scale "
    f"{frame.scale:.3f}"
)


# %% [markdown]
# **Second, by surface.** Registering one mean face to the other gives more pairs. Begin with the landmarks,
# then repeat: for each vertex of $A$, find the closest vertex of $B$ whose normal points the same way;
# improve the similarity; and deform $B$, by its own components, towards its partners, because two mean faces
# are not the same face. The deformation counts only along the normals (a surface may slide along itself), and
# the search radius shrinks from round to round.

# %%
def register(A, B, frame, rounds=8, every=3):
    """Pairs of vertices (N,) of A and (N,) of B, and the similarity from A to B."""
    normals_a = torch.from_numpy(
        vertex_normals(A.mean.numpy(), A.triangles.numpy())
    ).float()
    basis, b = B.shape_basis * B.shape_std, torch.zeros(B.num_shape)
    sparse = torch.arange(0, A.num_vertices, every)
    for reach in torch.linspace(10, 3, rounds):  # mm
        warped = B.mean + basis @ b  # (V_B, 3)
        normals_b = torch.from_numpy(
            vertex_normals(warped.numpy(), B.triangles.numpy())
        ).float()
        i = torch.arange(A.num_vertices) if reach == 3 else sparse
        points, looks = frame.apply(A.mean[i]), normals_a[i] @ frame.rotation.T
        distance, j = (
            torch.from_numpy(x)
            for x in cKDTree(warped.numpy()).query(points.numpy())
        )
        good = (distance < reach) & ((looks * normals_b[j]).sum(dim=-1) > 0.8)
        i, j, n = i[good], j[good], looks[good]
        frame = align(A.mean[i], warped[j], with_scale=True)
        # (N, K_B) towards the normal
        along = torch.einsum("nx,nxk->nk", n, basis[j])
        gap = ((frame.apply(A.mean[i]) - B.mean[j]) * n).sum(dim=-1)
        b = torch.linalg.solve(
            along.T @ along + 10 * torch.eye(B.num_shape), along.T @ gap
        )
    return (i, j), frame


# %%
pairs, dense_frame = register(other, ours, frame)
by_surface = transfer_matrix(other, ours, pairs, dense_frame, noise=10.0)
print(f"{len(pairs[0]):,} pairs, scale {dense_frame.scale:.3f}")

# %% [markdown]
# The noise of a pair is 2 mm for landmarks and 10 mm for the surface: thousands of neighbouring pairs share
# their errors, so each must count for less. Both numbers are ours. We test on twenty people of $A$:

# %%
people, _ = other.sample(
    20, generator=torch.Generator().manual_seed(1), expression=False
)
a = torch.cat([torch.ones(20, 1), people / other.shape_std], dim=1)  # (20, 1 + K_A)
# A's mean face, nobody's coefficients
average = by_surface * torch.eye(a.shape[1])[0]
copied = torch.zeros_like(average)
shared = torch.arange(min(ours.num_shape, other.num_shape))
copied[shared, 1 + shared] = 1.0

methods = {
    "the mean face for everybody": average,
    "coefficients copied": average + copied,
    "copied, signs flipped": average - copied,
    "transfer by landmarks": by_landmarks,
    "transfer by surface": by_surface,
}
seen = pairs[0].unique()[::3]  # where the two models overlap
faces, errors = {}, {}
for name, matrix in methods.items():
    placed = frame if matrix is by_landmarks else dense_frame
    target = placed.apply(other.decode(people)[:, seen])
    faces[name] = ours.decode(a @ matrix.T * ours.shape_std)
    errors[name] = surface_error(target, faces[name], ours)
    print(f"{name:28} {errors[name].mean():.2f} mm")

# %%
known = committed["transfer"]
if is_ict:
    for name, value in errors.items():
        assert abs(float(value.mean()) / known["error_mm"][name] - 1) < 0.2, name
else:
    print(f"From ICT to ours, committed ({known['file']}, {known['date']}):")
    for name, value in known["error_mm"].items():
        print(f"{name:28} {value:.2f} mm")
assert errors["transfer by surface"].mean() < errors["transfer by landmarks"].mean()

# %% [markdown]
# Copying the numbers is no better than using the mean face. Where the copies come closer than the mean face,
# that is luck: the sign of a component is arbitrary ([chapter 2](02_build_the_morphable_model.ipynb)), so the
# flipped coefficients were just as good a guess. **Coefficients have no meaning outside their model.**
# Component 3 of one model is not component 3 of another, as the matrix below shows.
#
# And why are landmarks not enough, although they fit well? 68 points are 204 numbers, half of them on the
# lips and eyelids. They say nothing about the cheeks, the forehead, or the ridge of the nose between its
# landmarks. There the prior decides, not the person. And they inherit the markup. ICT's frontal jaw line is
# not where our face marks its jaw, so the transfer bends the jaw to fit and can end up farther from the person
# than the mean face. [Exercise 5.4](#without-the-jaw) leaves the jaw out.

# %% tags=["hide-input"]
region = ours.regions["face"]
place = torch.full((ours.num_vertices,), -1)
place[region] = torch.arange(len(region))
region_triangles = place[ours.triangles]
region_triangles = region_triangles[(region_triangles >= 0).all(dim=1)]
figure, panels = plt.subplots(
    1, 3, figsize=(8, 3.3), layout="constrained", width_ratios=(1.3, 1, 1)
)
image = panels[0].imshow(by_surface[:20, 1:21], cmap="RdBu_r", vmin=-1, vmax=1)
panels[0].set(
    xlabel=f"component of {other.name}", ylabel="component of ours",
    title="M, by surface"
)
panels[0].set(
    xticks=(0, 9, 19), xticklabels=(1, 10, 20), yticks=(0, 9, 19),
    yticklabels=(1, 10, 20)
)
figure.colorbar(image, ax=panels[0], shrink=0.7)
near = cKDTree(dense_frame.apply(other.mean[seen]).numpy()).query(
    ours.mean[region].numpy()
)[1]
for axes, name in zip(panels[1:], list(methods)[3:], strict=True):
    colours, bar = viz.colour_by(
        errors[name].mean(dim=0)[torch.from_numpy(near)], vmax=5
    )
    viz.shaded_mesh(axes, ours.mean[region], region_triangles, colours, pixels=450)
    axes.set_title(name, fontsize=10)
_ = figure.colorbar(bar, ax=panels[1:], shrink=0.7, label="mm")

# %% [markdown]
# **Figure 5.6.** Left, the first 20 × 20 entries of the transfer matrix: two models that agreed would show a
# diagonal. Right, the error of the transfers, averaged over twenty people. *Look at* the places between the
# landmarks.

# %% tags=["hide-input"]
person = int(errors["transfer by landmarks"].mean(dim=1).argmax())
frames, values = [], []
for name in methods:
    shown = faces[name][person][region]
    placed = frame if name == "transfer by landmarks" else dense_frame
    target = placed.apply(other.decode(people[person : person + 1])[0])
    nearest = torch.from_numpy(cKDTree(target.numpy()).query(shown.numpy())[1])
    normals = torch.from_numpy(
        vertex_normals(faces[name][person].numpy(), ours.triangles.numpy())
    ).float()[region]
    frames.append(shown)
    values.append(((target[nearest] - shown) * normals).sum(dim=-1).abs())
labels = ["mean", "copied", "flipped", "landmarks", "surface"]
viz.slider_frames(
    torch.stack(frames),
    region_triangles,
    labels,
    values=torch.stack(values).clamp(max=8),
    vmax=8,
    prefix="coefficients of B: ",
    yaw=25,
)


# %% [markdown]
# **Figure 5.7.** One person of $A$ as reproduced by model $B$, coloured by the distance from the truth. *Try*
# all positions of the slider, and turn the face: from the side you can see where the transfer by landmarks
# had to guess.

# %% [markdown]
# ## Summary
#
# - Models agree on the equation and on nothing else. For every file find out the unit, the vertices, raw or
#   σ, which 68 landmarks, and which licence.
# - $r_k$, in mm per standard deviation, compares components across models; its tail is the truncation error.
# - Keeping 40 shape components costs between a few tenths of a millimetre and a millimetre; keeping 10
#   expression components costs blinks or brows.
# - The jaw of the 68 is a convention. ICT's two choices differ by up to two centimetres and one percentage
#   point of NME; registering two average faces moves the landmarks of one model to those of the other.
# - One matrix, computed from pairs of points, takes coefficients from one model to another. Thousands of
#   pairs from registered surfaces beat 68 landmarks. Copying is no better than the mean face.
#
# The 40 + 10 are the paper's. The measure, the distribution of expressions, the two transfers and their noise
# are this project's choices.

# %% [markdown]
# ## Exercises
#
# ### Exercise 5.1 · Raw and back
#
# Turn a sigma-scaled model into a raw one as 3DDFA publishes it: components of unit length, and a `shape_std`
# that produces the same people. Return the pair `(shape_basis, shape_std)`.

# %% tags=["exercise"]
def as_raw(model):
    """Unit components (V, 3, K), standard deviations (K,) of their coefficients."""
    return model.shape_basis, model.shape_std


# %% tags=["solution"]
def as_raw(model):
    """Unit components (V, 3, K), standard deviations (K,) of their coefficients."""
    length = model.shape_basis.flatten(0, 1).norm(dim=0)
    return model.shape_basis / length, model.shape_std * length


# %% tags=["check"]
raw_basis, raw_std = as_raw(ours)
lengths = raw_basis.flatten(0, 1).norm(dim=0)
assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4), (
    f"The first component has length {lengths[0]:.3g}."
)
two = torch.zeros(ours.num_shape)
two[2] = 2.0  # two sigmas of the third
same = ours.mean + ours.shape_basis @ (two * ours.shape_std)
off = float((ours.mean + raw_basis @ (two * raw_std) - same).norm(dim=-1).max())
assert off < 1e-2, (
    f"Two sigmas of the third coefficient give another face, {off:.1f} mm off."
)
print(
    f"✓ one sigma of the first is {raw_std[0]:.0f}, in µm "
    f"{1000 * raw_std[0]:.0f}"
)


# %% [markdown]
# ### Exercise 5.2 · Enough for half a millimetre
#
# Write `components_for(limit, r)`: the fewest components that lose at most `limit` mm, given the $r_k$.

# %% tags=["exercise"]
def components_for(limit, r):
    """Fewest components that leave at most limit mm; r (K,) in mm, largest first."""
    return 40


# %% tags=["solution"]
def components_for(limit, r):
    """Fewest components that leave at most limit mm; r (K,) in mm, largest first."""
    return int((lost(r) > limit).sum())


# %% tags=["check"]
toy = torch.tensor([12.0, 4.0, 3.0])  # errors 13, 5, 3, 0
answers = [components_for(limit, toy) for limit in (14.0, 6.0, 4.0, 1.0)]
assert answers != [40] * 4, "The answer does not depend on the question yet."
assert answers != [1, 2, 3, 4], (
    "One too many: after n components, what is lost begins with the next one."
)
assert answers != [1, 2, 2, 3], (
    "Errors do not add up; their squares do. Zero components is a valid answer, too."
)
assert answers == [0, 1, 2, 3], (
    f"14, 6, 4 and 1 mm take 0, 1, 2 and 3 components of the toy, not {answers}."
)
print(
    "✓ for 0.5 mm:",
    *(f"{name} {components_for(0.5, r)}," for name, r in spreads.items())
)

# %% [markdown]
# ### Exercise 5.3 · There and back
#
# Build the matrix `back` from ours to the second model, from the same pairs. Which similarity does it need?
# Then send the twenty people there and back. How much of each person survives?

# %% tags=["exercise"]
back = torch.zeros(other.num_shape, 1 + ours.num_shape)

# %% tags=["solution"]
i, j = pairs
scale, R, t = dense_frame
home = Similarity(1 / scale, R.T, -R.T @ t / scale)  # x = R^T (y - t) / f
back = transfer_matrix(ours, other, (j, i), home, noise=10.0)

# %% tags=["check"]
assert back.shape == (other.num_shape, 1 + ours.num_shape), (
    f"back has shape {tuple(back.shape)}."
)
assert back.abs().sum() > 0, "back is still empty."
there = torch.cat([torch.ones(20, 1), a @ by_surface.T], dim=1)
returned = other.decode(there @ back.T * other.shape_std)[:, pairs[0]]
sent, mean_face = other.decode(people)[:, pairs[0]], other.mean[pairs[0]]
trip = float((returned - sent).norm(dim=-1).mean())
nobody = float((mean_face - sent).norm(dim=-1).mean())
assert trip < 100, (
    f"They return {trip:.0f} mm off: did you invert the similarity?"
)
assert trip < nobody, (
    f"{trip:.2f} mm off; the mean face would be {nobody:.2f} mm off."
)
assert trip < 0.75 * nobody, (
    f"{trip:.2f} mm: are the pairs the right way round?"
)
print(
    f"✓ {trip:.2f} mm off after the round trip; the mean face is {nobody:.2f} mm off"
)

# %% [markdown]
# ### Exercise 5.4 · Without the jaw <a id="without-the-jaw"></a>
#
# If the jaw landmarks cannot be trusted, leave them out. Make `inner`, the transfer matrix from the other 51
# landmarks, and see what it does to the whole face.

# %% tags=["exercise"]
inner = by_landmarks

# %% tags=["solution"]
inner_marks = (other.landmarks[17:], ours.landmarks[17:])
inner = transfer_matrix(other, ours, inner_marks, frame, noise=2.0)

# %% tags=["check"]
assert inner.shape == by_landmarks.shape, f"inner has shape {tuple(inner.shape)}."
assert not torch.equal(inner, by_landmarks), "This is still the matrix of all 68."
guess = ours.decode(a @ inner.T * ours.shape_std)
truth = frame.apply(other.decode(people))
everyone = ours.decode(a @ by_landmarks.T * ours.shape_std)
costs = []
for faces_found, matrix in ((guess, inner), (everyone, by_landmarks)):
    squares = (
        (faces_found[:, ours.landmarks[17:]] - truth[:, other.landmarks[17:]])
        .square()
        .sum()
    )
    costs.append(float(squares + 2.0**2 * (a @ matrix.T).square().sum()))
assert costs[0] < costs[1], (
    "On the 51 and the prior (2 mm) the matrix of all 68 does better: which did you "
    "use?"
)
error, before = (
    float(surface_error(truth[:, seen], f, ours).mean()) for f in (guess, everyone)
)
print(f"✓ the surface is {error:.2f} mm off; with the jaw it was {before:.2f} mm")

# %% [markdown]
# ## Further reading
#
# - {cite:t}`egger2020morphable`, section 3, compare the models of twenty years, including those that are not
#   public.
# - {cite:t}`li2017learning` on FLAME: what joints can do that linear components cannot.
# - {cite:t}`huber2016multiresolution`: the Surrey model, and the eos library that fits it.
# - {cite:t}`gerig2018morphable`: how the second Basel model was made, and how it compares with the first.
# - {cite:t}`li2020learning`: where ICT's model comes from, and what the full version can do.
# - {cite:t}`zhu2019face`: the face model, the 62 numbers and the fits of 3DDFA.
