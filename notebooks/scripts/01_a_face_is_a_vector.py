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
# # A face is a vector
#
# *How can a human face, with all its thousands of points, be written as a short list of numbers?*
#
# **You need** matrix products and a little Python with PyTorch. No earlier chapter.
#
# **After this chapter you can**
#
# - say what a mesh is, and compute its normals;
# - explain why the average of two faces is a face only in dense correspondence;
# - decode coefficients into a face with one matrix product, and check it against the package;
# - read the 68 landmarks off a face without computing the rest of it;
# - tell a distance in millimetres from a distance in coefficients.
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
import timeit

import matplotlib.pyplot as plt
import torch

from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import GROUPS
from twodasl_lite.viz import FaceExplorer, contact_sheet, draw_landmarks, shaded_mesh
from twodasl_lite.viz.palette import HOUSE_STYLE

plt.rcParams.update(HOUSE_STYLE)

model = load_face_model()
model

# %% [markdown]
# That one line loads the subject of this chapter: a {term}`morphable model`, thousands of points that move
# together. By the end of the chapter you will have rebuilt its decoder in five lines.
#
# ## A mesh: points, and who is connected to whom
#
# A surface is stored as a {term}`mesh`. It has two parts.
#
# - **Vertices**: $V$ points in space, one per row of a matrix $\mathbf S$ of shape $(V, 3)$. Ours are in millimetres, with $x$
#   to the viewer's right, $y$ up and $z$ towards the viewer. The origin lies near the middle of the head.
# - **Triangles**: $T$ triples of vertex *numbers*, a matrix of shape $(T, 3)$. They say which vertices are the corners of
#   one small flat piece of skin. They hold no coordinates.
#
# When a face moves, its vertices change and its triangles stay as they are. The whole book relies on that
# separation.
#
# From three corners $\mathbf a, \mathbf b, \mathbf c$ we get the triangle's **normal**, the direction in which the skin faces, by a cross product:
#
# $$ \mathbf n = (\mathbf b - \mathbf a) \times (\mathbf c - \mathbf a). $$
#
# Its length is twice the triangle's area. Its sign depends on the order of the corners: ours run
# counter-clockwise when seen from outside, so $\mathbf n$ points out of the head. The normal at a vertex is
# the sum of the normals of the triangles around it, normalised to unit length. Large triangles have long
# normals and therefore carry more weight.

# %%
vertices, triangles = model.mean, model.triangles  # (V, 3), (T, 3)


def vertex_normals(vertices, triangles):
    a, b, c = vertices[triangles].unbind(dim=1)  # (T, 3) each
    # (T, 3), twice the area long
    triangle_normals = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals.index_add_(0, triangles[:, corner], triangle_normals)
    return torch.nn.functional.normalize(normals, dim=-1)  # (V, 3)


normals = vertex_normals(vertices, triangles)
nose_tip = model.landmarks[30]
print(f"{len(vertices):,} vertices, {len(triangles):,} triangles")
print("tip of the nose at", [round(x, 1) for x in vertices[nose_tip].tolist()], "mm")
print("its skin faces", [round(x, 2) for x in normals[nose_tip].tolist()])
assert normals[nose_tip, 2] > 0.5, "the tip of the nose should face the viewer"


# %% tags=["hide-input"]
def draw_wireframe(axes, vertices, triangles):
    a, b, c = vertices[triangles].unbind(dim=1)
    # hide triangles that face away
    front = torch.linalg.cross(b - a, c - a)[:, 2] > 0
    axes.triplot(
        *vertices[:, :2].T, triangles[front], color="#0072B2", linewidth=0.3
    )
    axes.set_aspect("equal")
    axes.axis("off")


# %% tags=["hide-input"]
figure, panels = plt.subplots(
    1, 4, figsize=(8, 2.8), width_ratios=(1, 1, 1.2, 1), layout="constrained"
)
titles = ("shaded", "its triangles", "one eye", "nose and lips: normals")
for axes, title in zip(panels, titles, strict=True):
    axes.set_title(title, fontsize=10)
shaded_mesh(panels[0], vertices, triangles)
draw_wireframe(panels[1], vertices, triangles)
draw_wireframe(panels[2], vertices, triangles)
eye = vertices[model.landmarks[GROUPS["left_eye"]], :2]  # (6, 2)
low, high = eye.amin(dim=0) - 8, eye.amax(dim=0) + 8
panels[2].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))

skin = model.regions.get("face", torch.arange(len(vertices)))
middle = skin[vertices[skin, 0].abs() < 0.5]  # vertices on the midline
y, z = vertices[middle, 1], vertices[middle, 2]
arrows = {"angles": "xy", "scale_units": "xy", "scale": 0.12, "width": 0.008}
panels[3].quiver(
    -z, y, -normals[middle, 2], normals[middle, 1], color="#D55E00", **arrows
)
panels[3].plot(-z, y, "o", color="#0072B2", markersize=2)
top, bottom = vertices[model.landmarks[27], 1], vertices[model.landmarks[57], 1]
panels[3].set(
    aspect="equal", ylim=(bottom - 5, top),
    xlim=(-vertices[nose_tip, 2] - 12, -z.max() + 38)
)
panels[3].axis("off");

# %% [markdown]
# **Figure 1.1.** The mean face, shaded; its triangles; one eye enlarged; and, from the side, the vertices of
# the nose and lips on the midline, each with its normal. *Look for* the smallest triangles: the mesh spends
# its detail on the eyes and lips, where a millimetre changes the face, and saves it on the neck.

# %% [markdown]
# ## The average of two faces
#
# Let us draw two random people from the model and average them, vertex by vertex. Then we do it again, but
# first we renumber the vertices of the second face. Every vertex keeps its place and the triangles are
# renumbered to match, so the surface is *exactly* the same as before: no picture could tell the two apart.

# %%
generator = torch.Generator().manual_seed(6)
people, _ = model.sample(2, generator=generator, expression=False)  # (2, Ks)
first, second = model.decode(people)  # (V, 3) each

order = torch.randperm(model.num_vertices, generator=generator)
renumbered = second[order]  # the same points, listed in another order
# the same triangles, in the new numbers
same_surface = torch.argsort(order)[triangles]
assert torch.equal(renumbered[same_surface], second[triangles])

average = (first + second) / 2
nonsense = (first + renumbered) / 2

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 4, figsize=(8, 2.9), layout="constrained")
shaded_mesh(panels[0], first, triangles, pixels=400)
shaded_mesh(panels[1], renumbered, same_surface, pixels=400)
shaded_mesh(panels[2], average, triangles, pixels=400)
shaded_mesh(panels[3], nonsense, triangles, pixels=400)
titles = (
    "first", "second, renumbered", "average, same numbers", "average, renumbered"
)
for axes, title in zip(panels, titles, strict=True):
    axes.set_title(title, fontsize=10)

# %% [markdown]
# **Figure 1.2.** Two faces, their average in correspondence, and their average out of correspondence. Both
# averages add the same two surfaces; only the numbering differs. *Try* another seed two cells up, or renumber
# only the first hundred vertices.

# %% [markdown]
# The third panel is a person. The fourth is not even a surface: it averages a nostril with an earlobe.
#
# What makes the difference is {term}`dense correspondence <correspondence>`: *vertex number $i$ is the same
# anatomical point in every face*. If vertex 1,000 is the left corner of the mouth in one face, it is the left
# corner of the mouth in all of them. "Half way between" then means half way between the same corner of two
# mouths, and likewise for every other vertex. Faces in correspondence also share their triangles, which is
# why one `triangles` served both `first` and `average`.
#
# Correspondence turns faces into vectors. Write the coordinates in one long column,
#
# $$ \mathbf s = (x_1, y_1, z_1, x_2, y_2, z_2, \dots, x_V, y_V, z_V)^\top \in \mathbb{R}^{3V}, $$
#
# and faces can be added, subtracted and scaled like any other vectors. {cite:t}`blanz1999morphable` built the
# first morphable model of faces on this idea. [Chapter 2](02_build_the_morphable_model.ipynb) explains how
# scans are brought into correspondence.
#
# ## Mean plus shape plus expression
#
# Almost no vector of $3V$ numbers is a face. Faces fill a small neighbourhood of their mean and vary in only
# a few directions. The model lists two kinds of these directions. With $\bar{\mathbf S}$ the **mean** face,
# $K_s$ components of the first kind and $K_e$ of the second,
#
# $$ \mathbf S = \bar{\mathbf S} + \sum_{k=1}^{K_s} \alpha_k \mathbf A_k + \sum_{k=1}^{K_e} \beta_k \mathbf E_k . $$
#
# - $\mathbf A_k$, a **shape** component: how vertices differ from one *person* to another. $\alpha_k$
#   (`shape`) says how far.
# - $\mathbf E_k$, an **expression** component: how they move when a person *smiles or speaks*. $\beta_k$
#   (`expression`) says how far.
#
# The numbers $\alpha_k$ and $\beta_k$ are the {term}`coefficients`. In the embedded model a shape coefficient
# of 1 is one standard deviation over people: $\alpha_1 = 0$ is average, $\alpha_1 = 2$ is rare. Its
# expressions are {term}`blendshapes <blendshape>`, named movements that range from 0 (off) to 1 (full).
#
# Stack the components as the columns of two matrices, $\mathbf A$ of shape $(3V, K_s)$ and $\mathbf E$ of
# shape $(3V, K_e)$, and the sums become
#
# $$ \mathbf s = \bar{\mathbf s} + \mathbf A\,\alpha + \mathbf E\,\beta . $$

# %%
mean = model.mean.flatten()  # (3V,)
A = model.shape_basis.flatten(0, 1)  # (3V, Ks)
E = model.expression_basis.flatten(0, 1)  # (3V, Ke)


def decode(shape, expression):
    flat = mean + A @ shape + E @ expression  # (3V,)
    return flat.unflatten(0, (-1, 3))  # (V, 3)


shape, expression = model.sample(1, generator=generator)  # (1, Ks), (1, Ke)
from_scratch = decode(shape[0], expression[0])
by_package = model.decode(shape, expression)[0]
# to a micrometre
torch.testing.assert_close(from_scratch, by_package, rtol=0, atol=1e-3)
print(
    f"A is {tuple(A.shape)}, E is {tuple(E.shape)}; our face and the package's agree"
)

# %% [markdown]
# That is the decoder. {py:meth}`MorphableModel.decode <twodasl_lite.faces.model.MorphableModel.decode>`
# does the same for a whole mini-batch, with $\mathbf A$ and $\mathbf E$ side by side in one matrix. The
# decoder is linear, so its derivative is the same everywhere:
# $\partial \mathbf s / \partial \alpha = \mathbf A$. Everything that learns in this book learns through this
# matrix.
#
# Now move the coefficients yourself.

# %%
explorer = FaceExplorer(model, num_shape=12)
explorer

# %% [markdown]
# **Figure 1.3.** The face explorer. Each time you move a slider, your browser recomputes
# $\bar{\mathbf s} + \mathbf A\alpha + \mathbf E\beta$ on this page, without a server. *Try* the first three
# shape sliders one by one: which of them controls the size of the head? Open the jaw of a face, then change
# its shape: the expression stays. Colour the face by its *distance from the mean face*. Turn on the landmarks
# and the wireframe. Put two faces side by side to see what one slider does.

# %% [markdown]
# ## What the first components do
#
# The shape components come from a statistical analysis ([chapter 2](02_build_the_morphable_model.ipynb)) and
# are sorted by how much of the variation among people they explain. Nobody told the analysis about noses. The
# first components are large and global: size, length, width, heaviness. Later ones are local and subtle. How
# far does one standard deviation of component $k$ move a typical vertex? The root mean square over vertices
# is the length of column $k$, divided by $\sqrt V$.

# %%
reach = A.norm(dim=0) * model.shape_std / model.num_vertices**0.5  # (Ks,) mm
for k in (0, 1, 2, 9, 39):
    print(f"component {k + 1:2d}: {reach[k]:5.2f} mm")

# %% tags=["hide-input"]
steps = torch.zeros(6, model.num_shape)
for k in range(3):
    steps[2 * k, k], steps[2 * k + 1, k] = -3, 3
labels = [
    f"component {k}\n{sign} 3 σ" for k in (1, 2, 3) for sign in ("minus", "plus")
]
steps = steps * model.shape_std
contact_sheet(
    model, shape=steps, labels=labels, yaws=(0, 50), coloured=False, cell=1.3
);

# %% [markdown]
# **Figure 1.4.** The first three shape components, three standard deviations down and up, from the front and from the side. The two faces of a
# pair are opposite ends of one line through the mean. *Try* to name each; then look at component 10 with the explorer and try again.

# %% [markdown]
# ## 68 landmarks are 68 row numbers
#
# A {term}`landmark` is a point that has a name on every face: the corner of an eye, the tip of the nose. The 68 of this book are those of the iBUG
# markup {cite:p}`sagonas2013faces`, the common currency of face alignment. In a morphable model they cost nothing: thanks to correspondence, a landmark *is* a vertex
# number. One list of 68 integers marks every face that the model will ever make.
#
# And if we want only the landmarks, we need only their rows. Row $i$ of $\mathbf A$ has nothing to do with row $j$; so we pick the $3 \cdot 68 = 204$ rows
# first and multiply afterwards.

# %%
rows = model.landmarks  # (68,)
A68 = model.shape_basis[rows].flatten(0, 1)  # (204, Ks)
E68 = model.expression_basis[rows].flatten(0, 1)  # (204, Ke)
flat = model.mean[rows].flatten() + A68 @ shape[0] + E68 @ expression[0]
landmarks = flat.unflatten(0, (-1, 3))  # (68, 3)

torch.testing.assert_close(landmarks, from_scratch[rows], rtol=0, atol=1e-3)
by_package = model.decode_landmarks(shape, expression)[0]
torch.testing.assert_close(landmarks, by_package, rtol=0, atol=1e-3)

batch = model.sample(64, generator=generator)
dense = min(timeit.repeat(lambda: model.decode(*batch), number=1, repeat=20))
sparse = min(
    timeit.repeat(lambda: model.decode_landmarks(*batch), number=1, repeat=20)
)
print(f"{model.num_vertices / len(rows):.0f} times fewer multiplications")
print(
    f"64 faces: all vertices {1e3 * dense:.1f} ms, landmarks {1e3 * sparse:.2f} ms"
)

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(6.4, 6.8), layout="constrained")
shaded_mesh(axes, model.mean, triangles)
draw_landmarks(axes, model.mean[rows], numbers=True, size=5.5)
low, high = (
    model.mean[rows, :2].amin(dim=0) - 12, model.mean[rows, :2].amax(dim=0) + 12
)
axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]));

# %% [markdown]
# **Figure 1.5.** The 68 landmarks with their numbers, counted from 0. Left and right in their names mean the
# left and right of the picture. *Find* 30, 36 and 45: we use them below and in every later chapter.

# %% [markdown]
# A network that is trained on pictures with 2D landmarks and nothing else needs only this short product, not
# the whole face.
#
# ## Random faces, and the line through the mean
#
# If each shape coefficient is normally distributed over people, then a random person is a row of random
# numbers. We clip the coefficients at two standard deviations to avoid very rare faces. Colour works the same
# way: a model's {term}`albedo`, the colour of the skin itself, is one more mean with one more matrix.

# %%
contact_sheet(model, num=8, yaws=(0, 60), seed=1, cell=1.0);

# %% [markdown]
# **Figure 1.6.** Eight people who do not exist, drawn by `model.sample` and each seen from two sides. *Try*
# another `seed`, then `clip=4.0`: when does a face stop being plausible?

# %% [markdown]
# Two faces define a line, and every point on that line has a meaning. Between two people $\mathbf S_1$ and
# $\mathbf S_2$ lies their morph, $(1 - t)\,\mathbf S_1 + t\,\mathbf S_2$. Even more telling is the line from
# the mean through *one* person,
#
# $$ \mathbf S(\lambda) = \bar{\mathbf S} + \lambda\,(\mathbf S - \bar{\mathbf S}), $$
#
# where $\lambda = 1$ is the person. $\lambda < 1$ makes the face more ordinary. $\lambda > 1$ is what a
# caricaturist does: whatever is unusual about the face becomes more so. On the other side of the mean, at
# $\lambda = -1$, lies the *anti-face*, with every difference from the mean reversed. Because decoding is
# linear, moving along the line scales the coefficients: $\mathbf S(\lambda)$ has coefficients
# $\lambda\,\alpha$.

# %%
person = people[:1]  # (1, Ks)
factors = torch.tensor([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0])
line = model.decode(factors[:, None] * person)  # (6, V, 3)
by_hand = model.mean + factors[:, None, None] * (model.decode(person) - model.mean)
torch.testing.assert_close(line, by_hand, rtol=0, atol=1e-3)

# %% tags=["hide-input"]
names = ("anti-face", "mean", "ordinary", "the person", "caricature", "too much")
labels = [
    f"λ = {factor:g}\n{name}"
    for factor, name in zip(factors.tolist(), names, strict=True)
]
steps = factors[:, None] * person
contact_sheet(
    model, shape=steps, labels=labels, yaws=(0, 50), coloured=False, cell=1.3
);

# %% [markdown]
# **Figure 1.7.** One line through the mean. *Compare* the first and the fourth: where one has a heavy jaw,
# the other has a slight one. *Try* the next cell, where you can move along the line yourself.

# %% tags=["live-only"]
from ipywidgets import interact

caricature_explorer = FaceExplorer(model, num_shape=12, num_expression=0)
display(caricature_explorer)


@interact(factor=(-1.5, 2.5, 0.1))
def caricature_live(factor=1.0):
    caricature_explorer.shape = (
        factor * person[0, :12] / model.shape_std[:12]
    ).tolist()


# %% [markdown]
# ## Two rulers
#
# How different are two faces? There are two answers, and confusing them is a classic mistake.
#
# *In millimetres*: the root mean square distance between corresponding vertices,
# $d = \lVert \mathbf s - \mathbf{s}' \rVert / \sqrt V$. *In coefficients*: the length of $\alpha - \alpha'$,
# in standard deviations. The first says how far apart the surfaces are, the second how surprising the
# difference is. Since $\mathbf s - \mathbf{s}' = \mathbf A\,(\alpha - \alpha')$, the two are related by
#
# $$ d^2 = \tfrac1V\,(\alpha - \alpha')^\top \mathbf A^\top\! \mathbf A\,(\alpha - \alpha'). $$
#
# If $\mathbf A^\top \mathbf A$ were a multiple of the identity, the two rulers would agree up to a factor. It
# is nothing of the kind: the diagonal of $\mathbf A^\top \mathbf A / V$ holds the squares of the millimetres
# that we printed above, and they differ widely.

# %%
pairs, _ = model.sample(600, generator=generator, expression=False)
difference = pairs[:300] - pairs[300:]  # (300, Ks)
in_sigmas = (difference / model.shape_std).norm(dim=-1)
gram = A.T @ A / model.num_vertices  # (Ks, Ks)
in_mm = torch.einsum("nk,kl,nl->n", difference, gram, difference).sqrt()

one, other = model.decode(pairs[[0, 300]])
direct = (one - other).square().sum(dim=-1).mean().sqrt()
torch.testing.assert_close(in_mm[0], direct, rtol=1e-4, atol=0)
print(f"in standard deviations: {in_sigmas.mean():.1f} ± {in_sigmas.std():.1f}")
print(f"in millimetres:         {in_mm.mean():.1f} ± {in_mm.std():.1f}")

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.bar(torch.arange(1, len(reach) + 1), reach, width=1.0, color="#0072B2")
left.set(
    xlabel="shape component k", ylabel="mm moved by one standard deviation",
    yscale="log"
)
right.scatter(in_sigmas, in_mm, s=9, color="#D55E00")
right.set(xlabel="distance in standard deviations", ylabel="distance in mm")
right.set(xlim=(0, None), ylim=(0, None))
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# **Figure 1.8.** Left: how many millimetres one standard deviation of each component is worth, on a
# logarithmic axis. Right: 300 pairs of random people, measured with both rulers. *See* how all pairs are
# about equally far apart in coefficients, and yet some differ by several times as many millimetres as others.

# %% [markdown]
# A network that is wrong by one standard deviation in the first component gets the whole head wrong; in the
# last component nobody would notice. Which of the two rulers should a loss use? Chapter 9 takes up that
# question under the names PDC, VDC and WPDC.
#
# ## How many numbers?
#
# Tens of thousands of coordinates, or fifty coefficients? The paper this book follows
# {cite:p}`tu2021assisted` takes 40 shape components from the Basel Face Model {cite:p}`paysan2009model` and
# 10 expression components from FaceWarehouse {cite:p}`cao2014facewarehouse`, on 53,215 vertices. Twelve more
# numbers place the face in the picture: the camera of [chapter 3](03_sixty_two_numbers.ipynb). One line cuts
# our model to the same size.

# %%
layout = CoefficientLayout()
small = load_face_model(layout)
print(f"coordinates:  3 × {model.num_vertices:,} = {3 * model.num_vertices:,}")
parts = f"12 pose + {layout.num_shape} shape + {layout.num_expression} expression"
print(f"coefficients: {parts} = {layout.size}")
assert small.layout.size == layout.size == 62


# %% [markdown]
# Where does each part come from? The formula and the sizes 40 and 10 are the paper's, which took them from
# the Basel model and FaceWarehouse. The model you have just loaded is this project's own: it is generated
# from published measurements of the human head, because the Basel model may not be redistributed. Chapter 2
# explains how, and how that affects what you see.
#
# ## Summary
#
# - A mesh is vertices $(V, 3)$, which move, and triangles $(T, 3)$, which do not. A normal is a cross
#   product.
# - In dense correspondence vertex $i$ is the same anatomical point of every face. Only then can faces be
#   added.
# - $\mathbf s = \bar{\mathbf s} + \mathbf A\alpha + \mathbf E\beta$: a face is a mean plus shape plus
#   expression. It is one matrix product, linear, with a constant gradient.
# - The 68 landmarks are 68 row numbers. Decoding only those rows costs a hundredth of the whole face or less.
# - A line through the mean leads from the anti-face through the ordinary to the caricature.
# - Millimetres measure how far apart two surfaces are; standard deviations measure how surprising the
#   difference is.
#
# ## Exercises
#
# ### Exercise 1.1 · Skin by the square centimetre
#
# Write `surface_area(vertices, triangles)`: the area of a mesh in square *centimetres*, given vertices in
# millimetres. The first section contains all you need.

# %% tags=["exercise"]
def surface_area(vertices, triangles):
    """Area in cm² of a mesh with vertices (V, 3) in mm."""
    ...


# %% tags=["solution"]
def surface_area(vertices, triangles):
    """Area in cm² of a mesh with vertices (V, 3) in mm."""
    a, b, c = vertices[triangles].unbind(dim=1)  # (T, 3) each
    doubled = torch.linalg.cross(b - a, c - a).norm(dim=-1)  # (T,) mm²
    return float(doubled.sum() / 2 / 100)


# %% tags=["check"]
# 1 cm by 1 cm
square = torch.tensor([[0.0, 0, 0], [10, 0, 0], [10, 10, 0], [0, 10, 0]])
area = surface_area(square, torch.tensor([[0, 1, 2], [0, 2, 3]]))
assert area is not None, "surface_area returns nothing yet"
assert abs(area - 2) > 1e-4, (
    "twice too much: what is the length of the cross product?"
)
assert abs(area - 100) > 1e-2, "that is in square millimetres"
assert abs(area - 1) < 1e-4, f"a square of 1 cm by 1 cm came out as {area} cm²"
folded = torch.tensor([[0.0, 0, 0], [10, 0, 0], [10, 0, 10], [0, 0, 10]])
area = surface_area(folded, torch.tensor([[0, 1, 2], [0, 3, 2]]))
assert abs(area - 1) < 1e-4, "triangles count whichever way they face"
print(
    f"✓ the whole mesh has {surface_area(model.mean, triangles):,.0f} cm², "
    "including the inside of the mouth"
)

# %% [markdown]
# ### Exercise 1.2 · A thousand pairs of eyes
#
# How far apart are people's outer eye corners, landmarks 36 and 45? Draw 1,000 neutral faces with
# `torch.Generator().manual_seed(0)` and put their distances in mm into `widths`, a tensor of shape `(1000,)`.
# Do not compute any vertex that you do not need.

# %% tags=["exercise"]
widths = None

# %% tags=["solution"]
many, _ = model.sample(
    1000, generator=torch.Generator().manual_seed(0), expression=False
)
corners = model.decode_landmarks(many)[:, [36, 45]]  # (1000, 2, 3)
widths = (corners[:, 0] - corners[:, 1]).norm(dim=-1)

# %% tags=["check"]
assert isinstance(widths, torch.Tensor), "widths should be a tensor"
assert widths.shape == (1000,), (
    f"widths has shape {tuple(widths.shape)}, not (1000,)"
)
assert widths.min() > 0, (
    "a distance is not negative: did you take a difference in x?"
)
typical = (model.mean[model.landmarks[36]] - model.mean[model.landmarks[45]]).norm()
off = abs(widths.mean() - typical)
assert off < 1, f"the mean is {widths.mean():.1f} mm: are these the outer corners?"
assert widths.std() > 0.5, (
    "all faces are alike: did you pass on the shape coefficients?"
)
print(f"✓ outer eye corners: {widths.mean():.1f} ± {widths.std():.1f} mm")


# %% [markdown]
# ### Exercise 1.3 · A caricature without coefficients
#
# Someone sends you the vertices of a face in correspondence with your model, but not its coefficients. Write
# `caricature(vertices, factor)`, which exaggerates it. You need neither coefficients nor a matrix.

# %% tags=["exercise"]
def caricature(vertices, factor):
    """Vertices (V, 3) of the face, exaggerated by a factor (1 changes nothing)."""
    ...


# %% tags=["solution"]
def caricature(vertices, factor):
    """Vertices (V, 3) of the face, exaggerated by a factor (1 changes nothing)."""
    return model.mean + factor * (vertices - model.mean)


# %% tags=["check"]
other_people = torch.Generator().manual_seed(5)
stranger, _ = model.sample(1, generator=other_people, expression=False)
face = model.decode(stranger)[0]
assert caricature(face, 1.0) is not None, "caricature returns nothing yet"
same = torch.allclose(caricature(face, 1.0), face, atol=1e-3)
assert same, "factor 1 should change nothing"
assert not torch.allclose(caricature(face, 2.0), 2 * face), (
    "a large head is no caricature"
)
plain = torch.allclose(caricature(face, 0.0), model.mean, atol=1e-3)
assert plain, "factor 0 should leave nothing unusual"
on_line = torch.allclose(
    caricature(face, 1.7), model.decode(1.7 * stranger)[0], atol=1e-3
)
assert on_line, "factor 1.7 does not lie on the line through the mean"
print("✓ the same face as decoding 1.7 times its coefficients")

# %% [markdown]
# ### Exercise 1.4 · The longest nose that one sigma can buy
#
# Among all `shape` vectors of length 1 (in standard deviations), which one brings the tip of the nose, landmark 30, furthest towards the viewer? Put it into `nose`, a tensor of shape `(Ks,)`. *Hint:* the $z$ of one vertex is a mean plus
# an inner product with $\alpha$. Which unit vector makes an inner product largest?

# %% tags=["exercise"]
nose = None

# %% tags=["solution"]
row = model.shape_basis[model.landmarks[30], 2] * model.shape_std  # (Ks,) mm
nose = row / row.norm()

# %% tags=["check"]
assert isinstance(nose, torch.Tensor), "nose should be a tensor"
assert nose.shape == (model.num_shape,), (
    f"nose has shape {tuple(nose.shape)}, not (Ks,)"
)
assert abs(float(nose.norm()) - 1) < 1e-4, (
    f"nose has length {nose.norm():.3f}, expected 1"
)


def gain(directions):
    """How far (mm) the tip of the nose comes forward, per direction (N, Ks)."""
    tips = model.decode_landmarks(directions * model.shape_std)[:, 30, 2]
    return tips - model.decode_landmarks()[0, 30, 2]


trial = torch.randn(
    5000, model.num_shape, generator=torch.Generator().manual_seed(0)
)
rivals = torch.cat([nose + 0.02 * trial, trial, torch.eye(model.num_shape)])
rivals = torch.nn.functional.normalize(rivals, dim=-1)
best, yours = float(gain(rivals).max()), float(gain(nose[None]))
assert yours > 0, f"it moves the nose by {yours:.2f} mm: that is backwards"
assert yours > best - 1e-3, (
    f"{yours:.2f} mm, but another direction gives {best:.2f} mm"
)
single = gain(torch.eye(model.num_shape)).abs().max()
print(f"✓ {yours:.2f} mm; the best single component gives {single:.2f} mm")

# %% [markdown]
# Look at your answer with `FaceExplorer(model, num_shape=None, shape=3 * nose)`: a face model has no slider
# for noses, but it does have a *direction* for them. Does only the nose change?
#
# ## Further reading
#
# - {cite:t}`blanz1999morphable`: the paper that started the field. After this chapter, read its section on
#   caricatures and attributes.
# - {cite:t}`egger2020morphable`: twenty years of morphable models in one survey, with the open questions.
# - {cite:t}`paysan2009model`: the Basel Face Model, the most widely used of all.
# - {cite:t}`tu2021assisted`: the paper that this book rebuilds. It spends half a page on the morphable model,
#   which you can now read.
# - The [notation page](../book/notation.md) lists the symbols of this chapter, and the
#   [glossary](../book/glossary.md) its terms.
