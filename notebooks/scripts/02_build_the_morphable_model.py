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
# # Build the morphable model
#
# *Where do the mean face and its components come from, and how do we know that they are good?*
#
# **You need** [chapter 1](01_a_face_is_a_vector.ipynb), eigenvectors, and the singular value decomposition.
#
# **After this chapter you can**
#
# - remove position and rotation from a set of scans by {term}`Procrustes alignment`;
# - compute the principal components of 200 faces without ever forming their covariance matrix;
# - show what a model is worth when its scans are out of correspondence;
# - read the three quality curves: compactness, generalisation, specificity;
# - say how the Basel Face Model was made, how to get it, and what the model in this package is not.
#
# **Time** 25 minutes to read; no GPU needed.

# %% tags=["install"]
# On a machine without the package (Google Colab, for example), fetch it first. Elsewhere this does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("twodasl_lite") is None:
    package = "twodasl_lite[chapters] @ git+https://github.com/twodasl-lite/twodasl_lite@main"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.spatial import cKDTree

from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.build import (
    align,
    compactness,
    generalisation,
    principal_components,
    procrustes,
    specificity,
)
from twodasl_lite.faces.embedded import (
    build_template,
    draw_scans,
    expression_blendshapes,
)
from twodasl_lite.geometry.camera import euler_to_matrix
from twodasl_lite.viz import FaceExplorer, shaded_mesh
from twodasl_lite.viz.figures import colour_by
from twodasl_lite.viz.palette import HOUSE_STYLE

plt.rcParams.update(HOUSE_STYLE)

# %% [markdown]
# ## Two hundred people in front of a scanner
#
# A face scanner returns a surface with an arbitrary number of points, in no particular order, and with holes
# where the hair was. Before anything can be averaged, each surface must be **registered**: a template mesh is
# deformed to fit it until vertex $i$ of the template lies on the same anatomical point of every person. From
# then on, all scans share the template's numbering and its triangles; they are in
# {term}`dense correspondence <correspondence>`.
#
# Scans of real people can rarely be redistributed, so this package generates its own. A generator takes the
# published means and standard deviations of measurements of adult heads (the length of the nose, the width of
# the jaw, and so on), draws random measurements, and deforms a template accordingly. Its scans are in
# correspondence from the start. We add what they lack: nobody sits still in a scanner, so each head gets a
# random position and a random rotation,
#
# $$ \mathbf x_i \mapsto \mathbf R\,\mathbf x_i + \mathbf t . $$

# %%
rng = np.random.default_rng(0)
template = build_template()
neutral = torch.from_numpy(template.vertices)  # (V, 3), the undeformed template
triangles = torch.from_numpy(template.triangles)  # (T, 3)
landmarks = torch.from_numpy(template.landmarks)  # (68,)

still = torch.from_numpy(draw_scans(template, 200, rng))  # (N, V, 3) in mm
angles = torch.from_numpy(rng.normal(0, 0.15, (200, 3)))  # radians, about 9 degrees
turns = euler_to_matrix(angles)  # (N, 3, 3)
shifts = torch.from_numpy(rng.normal(0, 20, (200, 1, 3)))  # (N, 1, 3) in mm
scans = still @ turns.transpose(1, 2) + shifts  # points are rows: (R x)ᵀ = xᵀ Rᵀ
num, num_vertices, _ = scans.shape
print(f"{num} scans of {num_vertices:,} vertices")

# %% tags=["hide-input"]
figure, panels = plt.subplots(
    1, 6, figsize=(8, 2.2), sharex=True, sharey=True, layout="constrained"
)
for axes, scan in zip(panels, scans, strict=False):
    shaded_mesh(axes, scan, triangles, pixels=250)
limits = torch.stack(
    [scans[:6, :, :2].amin(dim=(0, 1)), scans[:6, :, :2].amax(dim=(0, 1))]
)
panels[0].set(xlim=limits[:, 0], ylim=limits[:, 1]);


# %% [markdown]
# **Figure 2.1.** Six of the raw scans: different people, in different places, turned differently. *Ask
# yourself* which of the differences belong to the person.

# %% [markdown]
# ## Procrustes: remove what does not belong to the face
#
# The position of a head says nothing about its shape. If we left it in, it would become the largest "shape"
# component of all. So we look for the rotation $\mathbf R$ and the translation $\mathbf t$ that bring scan
# $\mathbf a$ as close as possible to a target $\mathbf b$:
#
# $$ \min_{\mathbf R,\,\mathbf{t}} \; \sum_{i=1}^{V} \lVert \mathbf R\,\mathbf a_i + \mathbf t - \mathbf b_i \rVert^2, \qquad \mathbf R^\top \mathbf R = \mathbf I,\; \det \mathbf R = 1. $$
#
# The best $\mathbf t$ moves one centroid onto the other, so we subtract both centroids first. What remains is
# to find the rotation that makes
# $\sum_i \mathbf b_i^\top \mathbf R\,\mathbf a_i = \operatorname{tr}(\mathbf R^\top \mathbf H)$ largest, with
# the $3 \times 3$ matrix $\mathbf H = \sum_i \mathbf b_i \mathbf a_i^\top$. With the singular value
# decomposition $\mathbf H = \mathbf U \Sigma \mathbf W^\top$ the answer is
#
# $$ \mathbf R = \mathbf U \operatorname{diag}(1, 1, \det(\mathbf U \mathbf W^\top))\, \mathbf W^\top . $$
#
# The determinant prevents a reflection, which a plain least-squares fit would return for a mirrored scan, or
# for a flat one with enough noise. The solution is due to {cite:t}`kabsch1976solution`.

# %%
def kabsch(source, target):
    """Rotation (3, 3) and translation (3,) from source (V, 3) to target (V, 3)."""
    a, b = source - source.mean(dim=0), target - target.mean(dim=0)
    u, _, wt = torch.linalg.svd(b.T @ a)
    sign = torch.ones(3, dtype=source.dtype)
    sign[2] = torch.linalg.det(u @ wt).sign()  # a rotation, not a mirror image
    rotation = (u * sign) @ wt
    return rotation, target.mean(dim=0) - rotation @ source.mean(dim=0)


rotation, translation = kabsch(scans[1], scans[0])
package = align(scans[1], scans[0])
torch.testing.assert_close(rotation, package.rotation)
torch.testing.assert_close(translation, package.translation)


# %% [markdown]
# Aligned to *whom*? Choosing any one person would favour that person. {cite:t}`gower1975generalized` aligns
# everybody to their common mean, recomputes the mean, and repeats. We begin with the template and realign the
# mean to it in every round, so that the mean cannot drift and keeps looking straight ahead. We do not allow a
# change of size: a large head is a fact about a person.

# %%
def apply(points, motion):
    rotation, translation = motion
    return points @ rotation.T + translation


mean, aligned = neutral, scans
for number in range(1, 21):
    aligned = torch.stack([apply(scan, kabsch(scan, mean)) for scan in aligned])
    average = aligned.mean(dim=0)
    average = apply(average, kabsch(average, neutral))
    change = (average - mean).square().sum(dim=-1).mean().sqrt()
    mean = average
    print(f"round {number}: the mean moved by {change:.2g} mm")
    if change < 1e-6:
        break

result = procrustes(scans, reference=neutral)
torch.testing.assert_close(mean, result.mean, rtol=0, atol=1e-5)
torch.testing.assert_close(aligned, result.scans, rtol=0, atol=1e-5)

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
titles = (f"{num} raw scans", "the same scans, aligned")
for axes, faces, title in zip(panels, (scans, aligned), titles, strict=True):
    axes.plot(
        *faces[:, landmarks, :2].flatten(0, 1).T, ".", markersize=1, color="#0072B2",
        alpha=0.4
    )
    axes.plot(
        *faces.mean(dim=0)[landmarks, :2].T, ".", markersize=5, color="#D55E00"
    )
    axes.set(title=title, aspect="equal")
    axes.axis("off")
panels[1].set(xlim=panels[0].get_xlim(), ylim=panels[0].get_ylim());

# %% [markdown]
# **Figure 2.2.** The 68 landmarks of all scans (blue) and their means (orange), before and after alignment.
# The scatter that remains on the right is *shape*. *Look at* which landmarks vary most between people, and in
# which direction.

# %% [markdown]
# ## Principal components from a small matrix
#
# Write each aligned scan, minus the mean, as a row of a matrix $\mathbf Y$ of shape $(N, 3V)$. The directions in which faces vary are the eigenvectors of the covariance
#
# $$ \mathbf C = \tfrac{1}{N-1} \mathbf Y^\top \mathbf Y \quad (3V \times 3V), \qquad \mathbf C\,\mathbf e_k = \sigma_k^2\, \mathbf e_k, $$
#
# and $\sigma_k$ is the standard deviation along the unit vector $\mathbf e_k$. But $\mathbf C$ is enormous,
# and its rank is small: 200 scans span at most 199 directions. The matrix of inner products,
# $\mathbf G = \frac{1}{N-1} \mathbf Y \mathbf Y^\top$, is only $N \times N$ and holds the same information.
# If $\mathbf G\,\mathbf u = \sigma^2 \mathbf u$, then
#
# $$ \mathbf C\,(\mathbf Y^\top \mathbf u) = \tfrac{1}{N-1} \mathbf Y^\top \mathbf Y \mathbf Y^\top \mathbf u = \mathbf Y^\top \mathbf G\,\mathbf u = \sigma^2\,(\mathbf Y^\top \mathbf u). $$
#
# So $\mathbf Y^\top \mathbf u$, normalised to unit length, is the eigenvector we want.
# {cite:t}`sirovich1987low` used this for pictures of faces and called the result *eigenpictures*.

# %%
Y = (aligned - mean).flatten(1)  # (N, 3V)
G = Y @ Y.T / (num - 1)  # (N, N)
variance, u = torch.linalg.eigh(G)  # smallest first
variance, u = variance.flip(0)[: num - 1], u.flip(1)[:, : num - 1]

sigma = variance.sqrt()  # (N - 1,)
e = Y.T @ u / (sigma * (num - 1) ** 0.5)  # (3V, N - 1), unit columns
basis = (e * sigma).unflatten(0, (-1, 3))  # (V, 3, N - 1), sigma-scaled

components = principal_components(aligned)
torch.testing.assert_close(sigma[:60], components.std[:60], rtol=1e-6, atol=0)
by_hand, by_package = basis[..., :60].abs(), components.basis[..., :60].abs()
torch.testing.assert_close(by_hand, by_package, rtol=0, atol=1e-4)
sizes = 8 * (3 * num_vertices) ** 2 / 1e9, 8 * num**2 / 1e6  # 8 bytes a number
print(f"C would take {sizes[0]:.1f} GB, G takes {sizes[1]:.2f} MB")

# %% [markdown]
# We compared magnitudes because $-\mathbf e_k$ is just as good an eigenvector as $\mathbf e_k$; the package
# chooses the sign that makes the first of the largest entries positive.
#
# The line that computes `basis` deserves a name. The basis is {term}`sigma-scaled <sigma scaling>`: each
# column is multiplied by its standard deviation, so coefficients are measured in standard deviations, and the
# scans' own coefficients are uncorrelated with variance one. This is the form in which chapter 1 used the
# model.

# %%
alpha = components.coefficients(aligned)  # (N, K)
covariance = alpha[:, :60].T @ alpha[:, :60] / (num - 1)
identity = torch.eye(60, dtype=torch.float64)
torch.testing.assert_close(covariance, identity, rtol=0, atol=1e-6)
torch.testing.assert_close(components.reconstruct(alpha), aligned, rtol=0, atol=1e-5)

# %% tags=["hide-input"]
shown = (0, 1, 2, 9, 39)
figure, panels = plt.subplots(2, 5, figsize=(8, 4.6), layout="constrained")
for (top, bottom), k in zip(panels.T, shown, strict=True):
    moved = components.basis[..., k].norm(dim=-1)  # (V,) mm per standard deviation
    colours, bar = colour_by(moved)
    shaded_mesh(top, components.mean, triangles, colours, pixels=300)
    shaded_mesh(
        bottom, components.mean + 3 * components.basis[..., k], triangles, pixels=300
    )
    top.set_title(f"component {k + 1}", fontsize=10)
    figure.colorbar(
        bar, ax=top, orientation="horizontal", shrink=0.8, label="mm per σ"
    )

# %% [markdown]
# **Figure 2.3.** Eigenfaces in 3D. Top: how far one standard deviation moves each vertex. Bottom: the mean
# plus three standard deviations. The colour scales differ: *compare* their ends, and see how early components
# move the whole head and later ones only a small part of it.

# %% [markdown]
# ## Make it a model
#
# The mean and its components are half of a morphable model. The other half is how one face moves: its
# expressions. We take the generator's, which are sculpted by rule and named after the Facial Action Coding
# System {cite:p}`ekman1978facial`. Adding triangles and landmarks completes the model.

# %%
names, deltas = expression_blendshapes(template)  # (E, V, 3) at full activation
model = MorphableModel(
    components.mean.float(),
    components.basis[..., :40].float(),
    torch.from_numpy(deltas).float().permute(1, 2, 0),  # (V, 3, E)
    triangles,
    landmarks,
    expression_names=list(names),
    expression_kind="blendshapes",
    name="my first morphable model",
    source="200 generated scans",
)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "my_face.npz"
    model.save(path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    loaded = MorphableModel.load(path)
torch.testing.assert_close(loaded.decode(), model.decode(), rtol=0, atol=0)
loaded

# %% [markdown]
# The file holds plain arrays and nothing that could be executed; a pickle from a stranger, by contrast, can
# run any code.

# %%
start = [2.0, -1.0]  # in standard deviations
FaceExplorer(
    model, num_shape=10, num_expression=0, shape=start, colouring="distance"
)

# %% [markdown]
# **Figure 2.4.** The model you have just built, coloured by the distance from its mean. *Try* setting all
# sliders to zero and then moving them one at a time: each colours its own part of the face. Then press
# *Random*.

# %% [markdown]
# ## What correspondence is worth
#
# Everything so far relied on vertex $i$ being the same point in each scan. Let us break that assumption in
# three ways:
#
# - **closest point**: renumber each aligned scan by finding, for each vertex of scan 0, the nearest vertex of
#   that scan. It sounds reasonable;
# - **closest point, not aligned**: the same, but with the heads where the scanner found them;
# - **shifted**: every scan starts counting its vertices somewhere else. The surfaces are perfect; only the
#   numbers are wrong.

# %%
few = 40


def closest(scans, reference):
    """The nearest vertex of each scan for each vertex of the reference."""
    found = [scan[cKDTree(scan).query(reference)[1]] for scan in scans.numpy()]
    return torch.from_numpy(np.stack(found))


starts = rng.integers(1, 400, few).tolist()
attempts = {
    "in correspondence": aligned[:few],
    "closest point": closest(aligned[:few], aligned[0]),
    "closest, not aligned": closest(scans[:few], scans[0]),
    "shifted": torch.stack(
        [aligned[k].roll(n, dims=0) for k, n in enumerate(starts)]
    )
}
models = {name: principal_components(faces, 30) for name, faces in attempts.items()}
for name, faces in attempts.items():
    original = scans[:few] if "not aligned" in name else aligned[:few]
    miss = (faces - original)[:, landmarks].norm(dim=-1).mean()
    needed = int((compactness(models[name]) < 0.9).sum()) + 1
    print(
        f"{name:21} landmarks {miss:4.1f} mm off, {needed:2} components for 90 % of "
        "the variance"
    )

# %% tags=["hide-input"]
draw = torch.randn(
    1, 30, generator=torch.Generator().manual_seed(3)
).double().clamp(-2, 2)
figure, panels = plt.subplots(2, 4, figsize=(8, 5), layout="constrained")
for (top, bottom), (name, pca) in zip(panels.T, models.items(), strict=True):
    shaded_mesh(top, pca.mean, triangles, pixels=350)
    shaded_mesh(bottom, pca.reconstruct(draw)[0], triangles, pixels=350)
    top.set_title(name, fontsize=10)

# %% [markdown]
# **Figure 2.5.** Mean (top) and a random face (bottom) of four models of the same 40 people. Only the
# numbering of the vertices differs. *Compare* the lips, eyelids and ears in the first two columns: without
# true correspondence, the mean blurs first where the face has detail.

# %% [markdown]
# The second column is the dangerous one. Its mean looks like a face, and nothing raised an error. But its
# landmarks slid by millimetres, so that one person's nostril was averaged with another's cheek; the model
# needs more components to explain the sliding, and its random faces are lumpy. Closest points are where
# registration *starts*. Methods such as non-rigid ICP {cite:p}`amberg2007optimal` add landmarks and a
# stiffness that keeps neighbours together and is relaxed step by step.
#
# ## Three ways to judge a model
#
# How good is a model? {cite:t}`styner2003evaluation` ask three questions, as functions of the number of components $n$.
#
# - **{term}`Compactness <compactness>`**: what share of the variance do $n$ components explain? Higher is
#   better.
# - **{term}`Generalisation <generalisation>`**: how closely does it describe a face it has *not* seen? Leave
#   some scans out, build the model from the others, and project. In mm; lower is better.
# - **{term}`Specificity <specificity>`**: do its random faces look like faces? The distance from a random
#   face to the nearest scan. In mm; lower is better.
#
# The last two pull in opposite directions. A model that can produce any surface generalises perfectly and is
# not specific at all.

# %%
share = sigma.square().cumsum(dim=0) / sigma.square().sum()
torch.testing.assert_close(share[:60], compactness(components)[:60])

sparse = aligned[:, ::4]  # every 4th vertex, for speed
unseen, seen = sparse[:40], sparse[40:]
trained = principal_components(seen)
for k in (1, 10, 40, 100):
    coefficients = trained.coefficients(unseen)[:, :k]
    error = (trained.reconstruct(coefficients) - unseen).norm(dim=-1).mean()
    print(
        f"{k:3d} components: {share[k - 1]:.1%} of the variance, unseen faces "
        f"{error:.2f} mm off"
    )

# %% [markdown]
# The package leaves out each group of scans once, which is cross-validation.

# %%
counts = [1, 2, 5, 10, 20, 40, 60, 80, 100, 120, 150]
unseen_error = generalisation(sparse, counts, folds=5)
fixed = torch.Generator().manual_seed(0)
components_sparse = principal_components(sparse)
random_distance = specificity(
    components_sparse, sparse, counts, num_samples=100, generator=fixed
)

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 3, figsize=(8, 2.8), layout="constrained")
panels[0].plot(range(1, num), 100 * share, color="#0072B2")
panels[1].plot(counts, unseen_error, "o-", markersize=3, color="#D55E00")
panels[2].plot(counts, random_distance, "o-", markersize=3, color="#009E73")
labels = ("compactness, %", "generalisation, mm", "specificity, mm")
for axes, label in zip(panels, labels, strict=True):
    axes.axvline(40, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="components n", title=label, ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)


# %% [markdown]
# **Figure 2.6.** The three curves of our model; the dotted line marks the 40 components of the paper. *Read
# off* how many components leave half a millimetre of an unseen face unexplained, and how much specificity
# they cost.

# %% [markdown]
# Where to stop is a choice. The 2DASL paper keeps 40 of the Basel model's 199 components {cite:p}`tu2021assisted`. One photograph says little about the later ones.
#
# ## How the Basel Face Model was made, and how to get it
#
# {cite:t}`paysan2009model` did what you have just done, plus the steps that we could skip. They scanned 200
# people, 100 women and 100 men, most of them Europeans, with a neutral expression, in a structured-light
# scanner. They registered a template of 53,490 vertices by non-rigid ICP, removed position and rotation, and
# kept all 199 components of shape and 199 of colour. 3DDFA {cite:p}`zhu2016face` cut the neck off, which left
# 53,215 vertices, and took expressions from FaceWarehouse {cite:p}`cao2014facewarehouse`: 150 people, each in
# 20 expressions, carried over to the Basel mesh. That combination, cut to 40 + 10, is the face model of the
# 2DASL paper.
#
# The Basel model is free of charge for non-commercial research. You register at the University of Basel
# ([faces.dmi.unibas.ch/bfm](https://faces.dmi.unibas.ch/bfm/)), accept the licence, and receive a download.
# It *cannot be redistributed*, which is why no book can ship it. Chapter 5 reads your copy into the same
# `MorphableModel` class.
#
# ## What our face is, and what it is not
#
# {py:func}`load_face_model() <twodasl_lite.faces.load.load_face_model>` carries out the steps of this
# chapter once and keeps the result: generated scans, each together with its mirror image so that the mean is
# exactly symmetric, random motions, Procrustes, PCA, blendshapes, skin colours. Where its scans come from
# limits what the model can claim.
#
# - It is **not a sample of people**. Some twenty lengths and breadths of the head follow published means and
#   standard deviations {cite:p}`farkas1994anthropometry,zhuang2005head,weinberg2016facial`. Where no such
#   table exists, as for how a brow bulges or a cheek falls, the form and its variation are a sculptor's
#   decision: ours.
# - Its components describe how *our generator* varies. Neither its compactness nor its random faces are facts
#   about humankind.
# - Published measurements cover some populations better than others, and the model inherits that bias. So do
#   the Basel model and every other.
# - It is good for what a book needs: learning, testing and training in the open, on any machine, under a free
#   licence.
#
# ## Summary
#
# - Registered scans share their triangles and the numbering of their vertices. Procrustes alignment removes
#   position and rotation with one SVD of a $3 \times 3$ matrix per scan.
# - The principal components of $N$ scans come from an $N \times N$ matrix. With a sigma-scaled basis,
#   coefficients are measured in standard deviations.
# - Out of correspondence the mean blurs, and the components explain errors of numbering instead of people.
# - Compactness (in percent), generalisation and specificity (in millimetres) measure a model; the last two
#   trade off against each other.
# - The Basel Face Model rests on 200 scans of people. Ours rests on 200 draws from tables of measurements,
#   which is not the same.
#
# ## Exercises
#
# ### Exercise 2.1 · When size does not matter
#
# Sometimes size should be removed too, for instance to compare photographs without a known scale. Write
# `kabsch_with_scale(source, target)`, which also returns the best scale factor $f$ for
# $f \mathbf R\,\mathbf a_i + \mathbf t$. *Hint:* with $\mathbf R$ fixed, setting the derivative with respect
# to $f$ to zero gives $f = \operatorname{tr}(\mathbf R^\top \mathbf H) / \sum_i \lVert \mathbf a_i \rVert^2$,
# with centred points.

# %% tags=["exercise"]
def kabsch_with_scale(source, target):
    """Scale (float), rotation (3, 3) and translation (3,) from source to target."""
    rotation, translation = kabsch(source, target)
    return 1.0, rotation, translation


# %% tags=["solution"]
def kabsch_with_scale(source, target):
    """Scale (float), rotation (3, 3) and translation (3,) from source to target."""
    rotation, _ = kabsch(source, target)
    a, b = source - source.mean(dim=0), target - target.mean(dim=0)
    scale = float((b * (a @ rotation.T)).sum() / a.square().sum())
    return (
        scale, rotation, target.mean(dim=0) - scale * rotation @ source.mean(dim=0)
    )


# %% tags=["check"]
known = 1.25 * scans[3] @ turns[4].T + shifts[5]
f, R, t = kabsch_with_scale(scans[3], known)
assert abs(f - 1) > 1e-6, (
    "the scale is still 1; the target was made 1.25 times as large"
)
assert abs(f - 1 / 1.25) > 1e-6, "that is the scale from target to source"
assert abs(f - 1.25) < 1e-6, (
    f"the scale is {f:.4f}; the target was made 1.25 times as large"
)
torch.testing.assert_close(R, turns[4], msg="the rotation is wrong")
assert torch.allclose(t, shifts[5, 0]), "does the translation know about the scale?"
f, R, t = kabsch_with_scale(scans[1], scans[0])
package = align(scans[1], scans[0], with_scale=True)
assert abs(f - float(package.scale)) < 1e-6, (
    "two different people are matched by least squares, too"
)
print(f"✓ scan 1 must be scaled by {f:.3f} to match scan 0")


# %% [markdown]
# ### Exercise 2.2 · Enough is enough
#
# How many components explain 95 % of the variance? Write `components_for(share_wanted, sigma)`: the smallest $n$ whose compactness reaches the share.

# %% tags=["exercise"]
def components_for(share_wanted, sigma):
    """Fewest components that explain the share (0 to 1); sigma (K,) descends."""
    ...


# %% tags=["solution"]
def components_for(share_wanted, sigma):
    """Fewest components that explain the share (0 to 1); sigma (K,) descends."""
    share = sigma.square().cumsum(dim=0) / sigma.square().sum()
    return int((share < share_wanted).sum()) + 1


# %% tags=["check"]
toy = torch.tensor([3.0, 2.0, 1.0])  # variances 9, 4 and 1, together 14
answers = [components_for(wanted, toy) for wanted in (0.6, 0.8, 0.95)]
assert answers[0] is not None, "components_for returns nothing yet"
assert answers != [0, 1, 2], "one too few: a model of one component has n = 1"
assert answers != [2, 2, 3], "variances add up, standard deviations do not"
assert answers == [1, 2, 3], (
    f"60, 80 and 95 % of the toy take 1, 2 and 3 components, not {answers}"
)
print(f"✓ 95 % of the variance: {components_for(0.95, sigma)} components")
print(f"  99 % of the variance: {components_for(0.99, sigma)} components")


# %% [markdown]
# ### Exercise 2.3 · A late visitor
#
# A person comes to the scanner after the model is finished. Write `describe(scan, k)`, which returns the
# first $k$ sigma-scaled coefficients of a raw scan `(V, 3)`. The scan is still where the scanner found it, so
# something must be done first.

# %% tags=["exercise"]
def describe(scan, k):
    """The first k coefficients (k,) of a raw scan (V, 3), in standard deviations."""
    return components.coefficients(scan[None])[0, :k]


# %% tags=["solution"]
def describe(scan, k):
    """The first k coefficients (k,) of a raw scan (V, 3), in standard deviations."""
    placed = apply(scan, kabsch(scan, components.mean))
    return components.coefficients(placed[None])[0, :k]


# %% tags=["check"]
visitor = torch.from_numpy(draw_scans(template, 1, np.random.default_rng(99)))[0]
truth = apply(visitor, kabsch(visitor, components.mean))
moved = visitor @ turns[7].T + shifts[7]
found = describe(moved, 60)  # (60,)
assert found.shape == (60,), f"describe(scan, 60) has shape {tuple(found.shape)}"
assert found.abs().max() < 8, (
    "a coefficient beyond eight sigma: what stands in the wrong place?"
)
assert torch.allclose(found, describe(visitor, 60), atol=1e-4), (
    "the result still depends on how the head was placed"
)
faces = [components.reconstruct(describe(moved, k)[None])[0] for k in (5, 20, 60)]
errors = [(face - truth).norm(dim=-1).mean() for face in faces]
assert errors[0] > errors[1] > errors[2], (
    "more components should bring the face closer to the visitor"
)
print("✓ mm off with 5, 20, 60 components:", *(f"{error:.2f}" for error in errors))

# %% [markdown]
# ### Exercise 2.4 · Both sides alike
#
# Is the mean face symmetric? Not quite, since no person is. But a mirror image is as likely a person as the
# original. For each vertex, `template.mirror` holds the number of its partner on the other side. Put into
# `doubled` a tensor of shape `(100, V, 3)`: the 50 scans `still[:50]`, followed by their mirror images *in
# the same correspondence*.

# %% tags=["exercise"]
partner = torch.from_numpy(template.mirror)  # (V,)
doubled = torch.cat([still[:50], still[:50]])

# %% tags=["solution"]
partner = torch.from_numpy(template.mirror)  # (V,)
flipped = still[:50] * torch.tensor([-1.0, 1.0, 1.0])  # right surface, wrong numbers
doubled = torch.cat([still[:50], flipped[:, partner]])

# %% tags=["check"]
assert doubled.shape == (100, num_vertices, 3), (
    f"doubled has shape {tuple(doubled.shape)}"
)
assert not torch.equal(doubled[:50], doubled[50:]), (
    "the second half is not mirrored yet"
)
off = (doubled[0] - doubled[50]).norm(dim=-1).mean()
assert off < 20, (
    f"face and mirror image are {off:.0f} mm apart: is vertex i still the same "
    "point?"
)
both = procrustes(doubled, reference=neutral).mean


def asymmetry(face):
    """Mean distance in mm of a face (V, 3) from its mirror image."""
    return (
        face - face[partner] * torch.tensor([-1.0, 1.0, 1.0])
    ).norm(dim=-1).mean()


assert asymmetry(both) < 1e-4, (
    f"the mean is still {asymmetry(both):.4f} mm off its mirror image"
)
alone = procrustes(still[:50], reference=neutral).mean
print(
    f"✓ asymmetry of the mean: {asymmetry(alone):.3f} mm, with mirror images "
    f"{asymmetry(both):.0e} mm"
)

# %% [markdown]
# ## Further reading
#
# - {cite:t}`paysan2009model`: the Basel Face Model: six pages that contain every step of this chapter.
# - {cite:t}`amberg2007optimal`: the registration method behind the Basel model.
# - {cite:t}`gerig2018morphable`: the Basel model of 2017, with expressions, and a registration by Gaussian
#   processes.
# - {cite:t}`turk1991eigenfaces`: the same algebra on photographs, and why it is so much weaker there: pixels
#   are not in correspondence.
# - {cite:t}`egger2020morphable`, sections 2 and 3: scanning, registration and models since 1999.
# - {cite:t}`styner2003evaluation`: the three curves, introduced for correspondence methods in medical
#   imaging.
