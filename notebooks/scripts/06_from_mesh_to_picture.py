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
# # From mesh to picture
#
# *How do 23,656 triangles become 14,400 pixels, and what does the computer know about each of them?*
#
# **You need** [chapter 1](01_a_face_is_a_vector.ipynb) (the mesh, normals) and
# [chapter 3](03_sixty_two_numbers.ipynb) (how a face gets into pixels).
#
# **After this chapter you can**
#
# - write a z-buffer in thirty lines, and say what happens to a pixel that lies exactly on an edge;
# - light a face with a lamp, and with nine numbers that stand for a whole sky;
# - tell which landmarks a face hides from the viewer;
# - read depth, normals and a correspondence off a drawn face;
# - put a drawn face into a photograph, in the light of that photograph.
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
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from twodasl_lite import render, viz
from twodasl_lite.datasets.examples import astronaut
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode
from twodasl_lite.faces.fitting import fit_landmarks
from twodasl_lite.geometry import camera
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.photos import landmarks_box
from twodasl_lite.viz.light_studio import LightStudio
from twodasl_lite.viz.palette import HOUSE_STYLE

plt.rcParams.update(HOUSE_STYLE)

model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components
triangles = model.triangles  # (T, 3)
backends = ["torch", "numba"] if render.numba_available() else ["torch"]
print(f"{model.num_vertices:,} vertices, {len(triangles):,} triangles")
print("backends:", *backends)


# %% [markdown]
# A network needs many thousands of pictures with ground truth, and photographs come without it. If we *draw*
# the faces, we know all of the 62 numbers, because we started from them. So this chapter goes from the
# numbers to the pixels; the network will have to go the other way.
#
# ## Which pixels does a triangle cover?
#
# Decoding has placed the corners $\mathbf a, \mathbf b, \mathbf c$ of a triangle into the picture: $x$ to the
# right, $y$ down, pixel centres at whole numbers. Which centres lie inside? For the edge from $\mathbf a$ to
# $\mathbf b$ consider
#
# $$ e_{ab}(\mathbf p) = (b_x - a_x)(p_y - a_y) - (b_y - a_y)(p_x - a_x), $$
#
# twice the signed area of the triangle $\mathbf a\,\mathbf b\,\mathbf p$. It is zero on the edge, positive on
# one side, negative on the other. A point is inside if the three **edge functions**
# {cite:p}`pineda1988parallel` have the same sign. They are useful beyond that: divided by their sum, which is
# twice the area of the whole triangle, they are the {term}`barycentric weights`
#
# $$ w_a = \frac{e_{bc}(\mathbf p)}{e_{ab}(\mathbf c)}, \quad w_b = \frac{e_{ca}(\mathbf p)}{e_{ab}(\mathbf c)}, \quad
# w_c = \frac{e_{ab}(\mathbf p)}{e_{ab}(\mathbf c)}, \qquad w_a + w_b + w_c = 1, $$
#
# and $\mathbf p = w_a \mathbf a + w_b \mathbf b + w_c \mathbf c$. Any quantity that we know at the corners,
# such as colour or depth, we can interpolate at $\mathbf p$ with the same weights.

# %%
def edge(a, b, p):
    """Twice the signed area of the triangle a, b, p; points are (..., 2)."""
    return (b[0] - a[0]) * (p[..., 1] - a[1]) - (b[1] - a[1]) * (p[..., 0] - a[0])


def edge_functions(a, b, c, p):
    return np.stack([edge(b, c, p), edge(c, a, p), edge(a, b, p)], axis=-1)


HEIGHT, WIDTH = 9, 12
rows, columns = np.mgrid[:HEIGHT, :WIDTH]
centres = np.stack([columns, rows], axis=-1)  # (H, W, 2) the pixels' centres
corners = np.array([[1.3, 6.2], [6.4, 0.7], [10.6, 7.6]])

e = edge_functions(*corners, centres)  # (H, W, 3)
weights = e / edge(*corners[:2], corners[2])
inside = (weights >= 0).all(axis=-1)
assert np.allclose(weights.sum(axis=-1), 1)
assert np.allclose(weights @ corners, centres)  # inside or outside
print(f"{inside.sum()} pixel centres inside")

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(8, 3.1), layout="constrained")
# a colour per corner
paint = np.array([[0.84, 0.37, 0.0], [0.0, 0.62, 0.45], [0.0, 0.45, 0.70]])
pictures = (
    np.where(inside[..., None], [0.62, 0.72, 0.80], 1.0),
    np.where(inside[..., None], weights @ paint, 1.0)
)
titles = ("centres inside are filled", "a colour at each corner, weighted")
for axes, picture, title in zip(panels, pictures, titles, strict=True):
    axes.imshow(np.clip(picture, 0, 1))
    axes.plot(*centres.reshape(-1, 2).T, ".", color="#7d858f", markersize=2)
    axes.plot(*corners[[0, 1, 2, 0]].T, color="black", linewidth=1)
    axes.set(title=title, xticks=range(0, WIDTH, 2), yticks=range(0, HEIGHT, 2))
for name, place in zip("abc", corners, strict=True):
    panels[0].annotate(
        name, place, xytext=(6, 6), textcoords="offset points", fontsize=11,
        fontweight="bold"
    )

# %% [markdown]
# **Figure 6.1.** A triangle on 12 × 9 pixels. Left, the pixels whose centres lie inside. Right, the same
# pixels with the weighted mean of three corner colours. *Look for* a pixel that is one-third covered and
# stays white, and for one that is two-thirds covered and is filled completely.

# %% [markdown]
# ## On the edge
#
# What if a centre lies *exactly* on an edge? With real numbers that almost never happens; with the numbers of
# a computer it happens all the time. Two triangles share the edge. If both draw the pixel (≥), it is drawn
# twice, and the picture depends on the order. If neither does (>), the surface has a hole. Every graphics
# card therefore obeys the **top-left rule**: a pixel on an edge belongs to the triangle for which the edge is
# a left edge, or a horizontal edge at its top. Of two neighbours, exactly one has the shared edge on its left
# or at its top.
#
# Rounded arithmetic cannot decide whether a number is exactly zero. So we first snap the corners to a grid of
# 1/256 pixel; the edge functions are then integers and exact.

# %%
STEP = 256  # corners are whole multiples of 1 / 256 pixel


def covers(corners, p, rule="top-left"):
    """Where a triangle with integer corners (3, 2) covers points, edge functions."""
    area = edge(corners[0], corners[1], corners[2])
    if area < 0:  # the same triangle, clockwise on the screen
        inside, e = covers(corners[[0, 2, 1]], p, rule)
        return inside, e[..., [0, 2, 1]]
    e = edge_functions(*corners, p)
    along = corners[[2, 0, 1]] - corners[[1, 2, 0]]  # (3, 2) the edges b c, c a, a b
    left_or_top = (along[:, 1] < 0) | ((along[:, 1] == 0) & (along[:, 0] > 0))
    on_edge = {">": False, "≥": True, "top-left": left_or_top}[rule]
    return ((e > 0) | ((e == 0) & on_edge)).all(axis=-1), e


fan = np.array([[1, 1], [10, 1], [10, 7], [1, 7], [4, 4]]) * STEP  # a rectangle
parts = [[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]
times = {}  # how often each pixel is drawn
for rule in (">", "≥", "top-left"):
    drawn = [covers(fan[part], centres * STEP, rule)[0] for part in parts]
    times[rule] = np.sum(drawn, axis=0)  # (H, W)
    twice = (times[rule] > 1).sum()
    print(
        f"{rule:>8}: {times[rule].sum()} pixels drawn, {twice} of them more than "
        "once"
    )
assert times["top-left"].max() == 1
assert times["top-left"].sum() == 9 * 6

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
for axes, (rule, count) in zip(panels, times.items(), strict=True):
    axes.imshow(count, cmap="Blues", vmin=0, vmax=6)
    for part in parts:
        axes.plot(
            *(fan[part][[0, 1, 2, 0]] / STEP).T, color="#D55E00", linewidth=0.8,
            alpha=0.6
        )
    for (y, x), number in np.ndenumerate(count):
        if number:
            axes.text(
                x, y, number, ha="center", va="center", fontsize=10,
                color="white" if number > 3 else "black"
            )
    axes.set_title(rule)
    axes.axis("off")


# %% [markdown]
# **Figure 6.2.** A rectangle made of four triangles, and how often each pixel is drawn under three rules.
# *Look for* the hole in the middle of the first, the pixel that all four triangles claim in the second, and
# the sides that the third leaves to neighbouring triangles: a 9 × 6 rectangle covers 54 pixels.

# %% [markdown]
# ## Who is in front?
#
# Of all triangles that cover a pixel, we see the nearest. The {term}`z-buffer`
# {cite:p}`catmull1974subdivision` is almost too simple to be called an algorithm: for each pixel, keep the
# depth of the nearest surface so far, and let a triangle write the pixel only if it is nearer. Nothing is
# sorted; triangles come in any order and may pass through one another. Here is all of it. In our pixel frame
# $z$ points to the viewer, so the *larger* depth wins.

# %%
def draw(vertices, triangles, height, width):
    """What each pixel shows: triangle (H, W), weights (H, W, 3), depth (H, W)."""
    corners = np.rint(vertices[:, :2] * STEP).astype(np.int64)
    shown = np.full((height, width), -1)
    weights = np.zeros((height, width, 3))
    depth = np.full((height, width), -np.inf, np.float32)
    for t, corner in enumerate(triangles):
        abc = corners[corner]  # (3, 2)
        low = np.maximum(-(-abc.min(axis=0) // STEP), 0)  # the box around it
        high = np.minimum(abc.max(axis=0) // STEP, (width - 1, height - 1))
        area = edge(*abc)
        if area == 0 or (high < low).any():
            continue
        box = np.s_[low[1] : high[1] + 1, low[0] : high[0] + 1]
        y, x = np.mgrid[box]
        inside, e = covers(abc, np.stack([x, y], axis=-1) * STEP)
        w = e / abs(area)
        z = (w @ vertices[corner, 2]).astype(np.float32)
        nearer = inside & (z > depth[box])
        shown[box][nearer] = t
        weights[box][nearer] = w[nearer]
        depth[box][nearer] = z[nearer]
    return shown, weights, depth


# %% [markdown]
# We try it on twenty random triangles that cut through one another, and compare with the package.
# {py:func}`twodasl_lite.render.rasterize` has two *backends*: one compiled for the CPU, which is exactly this
# loop, and one made of torch operations, without a loop over triangles, which also runs on a GPU.

# %%
def check(vertices, triangles, height, width, shown, weights, depth):
    """The package's picture must equal ours, pixel for pixel, in both backends."""
    covered, size = shown >= 0, (height, width)
    for backend in backends:
        package = render.rasterize(vertices[None], triangles, *size, backend=backend)
        assert np.array_equal(package.triangle[0], shown), (
            f"{backend}: other triangles"
        )
        assert np.allclose(package.barycentric[0], weights, atol=1e-5)
        assert np.allclose(package.depth[0][covered], depth[covered], atol=1e-3)
    visible = len(np.unique(shown[covered]))
    print(
        f"{covered.sum():,} pixels covered, {visible:,} triangles visible, all "
        "identical"
    )


generator = torch.Generator().manual_seed(2)
soup = torch.rand(60, 3, generator=generator) * torch.tensor([80.0, 50.0, 40.0])
loose = torch.arange(60).reshape(20, 3)
ours = draw(soup.numpy(), loose.numpy(), 50, 80)
check(soup, loose, 50, 80, *ours)

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(8, 2.7), layout="constrained")
shuffled = np.random.default_rng(4).permutation(20)
# the last: no triangle
tints = np.concatenate([plt.get_cmap("tab20")(shuffled)[:, :3], np.ones((1, 3))])
panels[0].imshow(tints[ours[0]])
panels[0].set_title("which triangle")
near = np.where(ours[0] >= 0, ours[2], np.nan)
bar = panels[1].imshow(near, cmap="viridis")
panels[1].set_title("how near")
figure.colorbar(bar, ax=panels[1], label="depth in pixels")
for axes in panels:
    axes.axis("off")

# %% [markdown]
# **Figure 6.3.** Twenty intersecting triangles: the index and the depth of the nearest one at each pixel.
# *Look for* a straight line where two triangles cut through each other: no code computed that line.

# %% [markdown]
# Now a face. Twelve thousand vertices, decoded from a random shape and expression, posed as in chapter 3, in a crop of
# 120 × 120 pixels.

# %%
generator = torch.Generator().manual_seed(11)
shape, expression = model.sample(1, generator=generator)  # (1, 40), (1, 10)
tone = model.sample_albedo(1, generator=generator)
albedo = model.decode_albedo(tone)[0]  # (V, 3) sRGB
middle = model.decode_landmarks(shape, expression)[0].mean(dim=0)


def in_pixels(yaw=0.0, pitch=0.0, size=120):
    """The face's vertices (V, 3) in a square picture."""
    R = camera.euler_to_matrix(torch.deg2rad(torch.tensor([pitch, yaw, 0.0])))
    f = torch.tensor(size / 185)  # pixels per mm
    centre = torch.tensor([(size + 1) / 2, 0.56 * size, 0.0])  # crop frame, y up
    pose = camera.make_pose(f, R, centre - f * R @ middle)
    return decode(Coefficients(pose[None], shape, expression), model, size)[0]


# %%
SIZE = 120
vertices = in_pixels(yaw=-30)
start = time.perf_counter()
ours = draw(vertices.numpy(), triangles.numpy(), SIZE, SIZE)
print(f"by hand: {time.perf_counter() - start:.2f} s")
check(vertices, triangles, SIZE, SIZE, *ours)

for backend in backends:
    laps = []
    for _ in range(20):
        start = time.perf_counter()
        fragments = render.rasterize(
            vertices[None], triangles, SIZE, SIZE, backend=backend
        )
        laps.append(time.perf_counter() - start)
    print(f"{backend}: {1e3 * min(laps):.1f} ms")

# %% [markdown]
# All three follow the same rules and therefore draw the same picture. A training set drawn partly on one
# machine's GPU and partly on another's CPU is one consistent training set.
#
# ## Between the vertices
#
# The rasterizer knows nothing about colour. It says *which triangle, with which weights*; everything else is
# {term}`interpolation`: for an attribute $\mathbf q$ at the vertices, the pixel has
# $w_a \mathbf q_a + w_b \mathbf q_b + w_c \mathbf q_c$. The first attribute is the {term}`albedo`, the colour
# of the skin itself.

# %%
shown, weights, _ = (torch.from_numpy(part) for part in ours)
covered = shown >= 0  # (H, W)


def spread(attribute):
    """Values (V, C) at the vertices to values (H, W, C) at the pixels."""
    picture = torch.zeros(*shown.shape, attribute.shape[1])
    corner = triangles[shown[covered]]  # (P, 3)
    w = weights[covered].float()  # (P, 3)
    picture[covered] = torch.einsum("pk,pkc->pc", w, attribute[corner])
    return picture


flat = spread(albedo)
package = render.interpolate(albedo, triangles, fragments)[0]
torch.testing.assert_close(flat, package, rtol=0, atol=1e-5)

# %% [markdown]
# Painted with albedo alone, a face looks like a paper mask. What is missing is light, and light depends on
# the direction in which the skin faces: the normal $\mathbf n$ of chapter 1, interpolated like everything
# else and normalised to unit length again. A matt surface looks equally bright from every side; its
# brightness is proportional to the cosine of the angle at which the light arrives (Lambert's law). With
# ambient light $a$ and one distant lamp in direction $\mathbf d$ with intensity $i$:
#
# $$ \text{light} = a + i \max(\mathbf n^\top \mathbf d,\, 0), \qquad \text{colour} = \text{albedo} \cdot \text{light}. $$
#
# This formula multiplies physical quantities. The 8-bit numbers of a picture are not physical: sRGB stores
# roughly the square root of the light, because eyes are more sensitive in the dark. So we convert colours to
# linear light first, and back to sRGB at the end.

# %%
normals = render.vertex_normals(vertices, triangles)  # (V, 3), y up
n = torch.nn.functional.normalize(spread(normals), dim=-1)  # (H, W, 3)
# right, above
d = torch.nn.functional.normalize(torch.tensor([0.8, 0.5, 0.6]), dim=0)
light = 0.2 + 0.9 * (n @ d).clamp(min=0)[..., None]  # (H, W, 1)
linear = spread(render.srgb_to_linear(albedo)) * light * covered[..., None]
lit = render.linear_to_srgb(linear)

grey = torch.ones(3)
lamps = render.Lamps(0.2 * grey, directions=d[None], intensities=0.9 * grey[None])
package = render.render(vertices[None], triangles, albedo, SIZE, SIZE, light=lamps)
torch.testing.assert_close(lit, package.colour[0], rtol=0, atol=1e-4)


# %% tags=["hide-input"]
def show(axes, picture, title="", alpha=covered):
    """A picture (H, W, 3) or (H, W), transparent where there is nothing."""
    picture = (
        picture.expand(*picture.shape[:2], 3) if picture.ndim == 3
        else picture[..., None].expand(-1, -1, 3)
    )
    axes.imshow(
        torch.cat([picture.clamp(0, 1), alpha[..., None].to(picture)], dim=-1),
        interpolation="nearest"
    )
    axes.set_title(title, fontsize=10)
    axes.axis("off")


figure, panels = plt.subplots(1, 4, figsize=(8, 2.3), layout="constrained")
show(panels[0], flat, "albedo")
show(panels[1], (n + 1) / 2, "normals")
show(panels[2], render.linear_to_srgb(light), "light")
show(panels[3], lit, "albedo × light")

# %% [markdown]
# **Figure 6.4.** Albedo, normals (red: faces right, green: up, blue: to the viewer), the light that reaches
# the skin, and the product. *Compare* the nose in the first and in the last picture: only light makes shape
# visible.

# %% [markdown]
# Our lamp casts no shadows: the nose does not darken the cheek. That would take a second z-buffer, seen from the lamp. For
# training pictures it hardly matters.
#
# ## A whole sky in nine numbers
#
# Outdoors, light comes from everywhere: sky, ground, a white wall. Let $L(\omega)$ be the light that arrives
# from direction $\omega$. A white surface with normal $\mathbf n$ collects it, weighted with the clamped
# cosine:
#
# $$ E(\mathbf n) = \frac1\pi \int L(\omega)\, \max(\mathbf n^\top \omega, 0)\; d\omega . $$
#
# This blurs the sky over half a sphere, and a blurred function has no fine detail.
# {term}`Spherical harmonics` $Y_{lm}$ are to the sphere what sines and cosines are to the circle, and in that
# basis a blur multiplies each frequency by a number. With coefficients $L_{lm} = \int L\, Y_{lm}$ of the sky,
#
# $$ E(\mathbf n) = \frac1\pi \sum_{l} A_l \sum_{m=-l}^{l} L_{lm}\, Y_{lm}(\mathbf n), \qquad
# A_l = 2\pi \int_0^1 u\, P_l(u)\, du, $$
#
# where $P_l$ is the Legendre polynomial. How fast does $A_l$ fall?

# %%
u, du = np.polynomial.legendre.leggauss(20)  # points and weights on [-1, 1]
u, du = (u + 1) / 2, du / 2
legendre = [np.polynomial.Legendre.basis(degree)(u) for degree in range(7)]
A = [2 * math.pi * (du * u * P).sum() for P in legendre]
print("A_l / π:", "  ".join(f"{a / math.pi:.3f}" for a in A))
assert np.allclose(A[:3], [math.pi, 2 * math.pi / 3, math.pi / 4])

# %% [markdown]
# One, two thirds, a quarter, zero, almost zero. So degrees 0, 1 and 2 are enough: $1 + 3 + 5 = 9$ numbers per
# colour {cite:p}`ramamoorthi2001efficient`. And $Y_{lm}$ up to degree 2 are simple polynomials of the normal:
# $1;\; y, z, x;\; xy, yz, 3z^2 - 1, xz, x^2 - y^2$, each with a constant that makes its square integrate to
# one.
#
# We can compute two skies by hand. *Half a sky*, white above and black below, has $E = (1 + n_y)/2$ exactly.
# *A single lamp* in direction $\mathbf d$ has $E = \max(\cos\vartheta, 0)$, which nine numbers approximate by
# $\frac14 + \frac12 \cos\vartheta + \frac{5}{32}(3\cos^2\vartheta - 1)$.

# %%
c0, c1, c2 = (math.sqrt(k / (4 * math.pi)) for k in (1, 3, 15))


def harmonics(n):
    """The nine functions at unit vectors (..., 3)."""
    x, y, z = n.unbind(-1)
    first = [c0 + 0 * x, c1 * y, c1 * z, c1 * x]
    second = [
        x * y, y * z, (3 * z * z - 1) / math.sqrt(12), x * z, (x * x - y * y) / 2
    ]
    return torch.stack(first + [c2 * value for value in second], dim=-1)


# %%
some = torch.nn.functional.normalize(
    torch.randn(500, 3, generator=generator), dim=-1
)
package = render.harmonic_basis(some)
torch.testing.assert_close(harmonics(some), package, rtol=0, atol=1e-6)

A_over_pi = torch.tensor([1.0] + 3 * [2 / 3] + 5 * [1 / 4])
half_sky = torch.tensor([2 * math.pi * c0, math.pi * c1] + 7 * [0.0])
E = harmonics(some) @ (A_over_pi * half_sky)
torch.testing.assert_close(E, (1 + some[:, 1]) / 2, rtol=0, atol=1e-5)

lamp = math.pi * harmonics(d)  # pi, so that a surface facing the lamp gets 1
cosine = some @ d
by_hand = (1 / 4 + cosine / 2 + 5 / 32 * (3 * cosine**2 - 1)).clamp(min=0)
nine = render.Harmonics(lamp[:, None].expand(9, 3)).at(some[None])[0, :, 0]
torch.testing.assert_close(nine, by_hand, rtol=0, atol=1e-5)
off = (nine - cosine.clamp(min=0)).abs().max()
print(f"a lamp in nine numbers is off by {off:.3f} at most")

# %% tags=["hide-input"]
figure, panels = plt.subplots(
    1, 3, figsize=(8, 2.7), width_ratios=(1.6, 1, 1), layout="constrained"
)
angle = torch.linspace(0, math.pi, 200)
cos = angle.cos()
degrees = torch.rad2deg(angle)
panels[0].plot(
    degrees, cos.clamp(min=0), color="#0072B2", linewidth=2, label="lamp, exactly"
)
panels[0].plot(degrees, 1 / 4 + cos / 2, "--", color="#009E73", label="four numbers")
panels[0].plot(
    degrees, 1 / 4 + cos / 2 + 5 / 32 * (3 * cos**2 - 1), color="#D55E00",
    label="nine numbers"
)
panels[0].set(
    xlabel="angle between normal and lamp (degrees)", ylabel="light",
    xticks=range(0, 181, 45)
)
panels[0].legend(frameon=False, fontsize=8)
panels[0].spines[["top", "right"]].set_visible(False)
y, x = torch.meshgrid(
    torch.linspace(1.05, -1.05, 240), torch.linspace(-1.05, 1.05, 240), indexing="ij"
)
ball = x**2 + y**2 < 1
sphere = torch.stack([x, y, (1 - x**2 - y**2).clamp(min=0).sqrt()], dim=-1)
exact = (sphere @ d).clamp(min=0)
few = (harmonics(sphere) @ (A_over_pi * lamp)).clamp(min=0)
show(panels[1], render.linear_to_srgb(exact), "lamp, exactly", alpha=ball)
show(panels[2], render.linear_to_srgb(few), "nine numbers", alpha=ball)

# %% [markdown]
# **Figure 6.5.** The hardest case for nine numbers: a single lamp. *Look at* the dark side, beyond 90°: the
# light should be zero, but nine numbers leave a faint glow at the far end. For a soft sky the error is about
# one per cent.

# %% [markdown]
# ## The light studio
#
# Now play. The figure below runs the z-buffer of this chapter in your browser, written in JavaScript with the
# same rules; a test compares it with the package pixel by pixel.

# %%
LightStudio(model, shape[0], expression[0], tone[0], yaw=-30, ambient=0.25)


# %% [markdown]
# **Figure 6.6.** The light studio. *Try* moving the lamp behind the head, then underneath the chin. Show the
# *triangles* at 30 × 30 pixels and point at one. Switch between the exact lamp and nine harmonics while the
# lamp is at the side. Turn on the landmarks and turn the head: which eye corner disappears first? At 30 × 30,
# switch *nine samples per pixel* on and off.

# %% [markdown]
# ## What hides what
#
# A landmark on the far cheek has a position in the picture, but nobody can see it there. To train with
# landmarks we must know which ones a person could have clicked. The z-buffer tells us: a point is visible if
# the surface drawn at its position is not clearly in front of it. We say "clearly" because the drawn depth
# belongs to the centre of the pixel and the point lies beside it, which matters on a slope. So we look at the
# four centres around the point, compare with the *farthest*, and allow a tolerance of 1 % of the head, about
# the width of an eyelid.

# %%
def seen(points, depth, tolerance):
    """Which points (N, 3) nothing hides in a depth picture (H, W)."""
    x, y, z = points.unbind(-1)
    columns, rows = (
        (x.floor().long(), x.ceil().long()), (y.floor().long(), y.ceil().long())
    )
    around = [depth[row, column] for row in rows for column in columns]
    return z >= torch.stack(around).amin(dim=0) - tolerance


turned = in_pixels(yaw=50)
whole = turned - turned.amin(dim=0)  # the whole head
whole = whole * (255 / whole[:, :2].max())
fragments = render.rasterize(whole[None], triangles, 256, 256)
marks = whole[model.landmarks]  # (68, 3)

visible = seen(marks, fragments.depth[0], tolerance=0.01 * 255)
package = render.visible_vertices(turned[None], triangles, model.landmarks)[0]
assert torch.equal(visible, package)
hasty = seen(marks, fragments.depth[0], tolerance=0)
print(f"{visible.sum()} of 68 landmarks visible; without tolerance {hasty.sum()}")

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 4, figsize=(8, 2.7), layout="constrained")
for axes, yaw in zip(panels, (0, 25, 50, 75), strict=True):
    face = in_pixels(yaw=yaw, size=400)
    found = render.visible_vertices(face[None], triangles, model.landmarks)[0]
    viz.shaded_mesh(axes, face, triangles, albedo, frame="pixels", pixels=400)
    viz.draw_landmarks(axes, face[model.landmarks], visible=found, size=3)
    axes.set_title(f"yaw {yaw}°: {int(found.sum())} visible", fontsize=10)
    axes.set(xlim=(20, 380), ylim=(385, 15))

# %% [markdown]
# **Figure 6.7.** The same face from four sides; hollow landmarks are hidden by the face itself. *Look for*
# the order in which they disappear: first the far jaw, then the eye behind the bridge of the nose. The tip of
# the nose remains visible to the end.

# %% [markdown]
# ## More than a portrait
#
# The rasterizer's output holds more than a portrait: the **depth** at each pixel, shown as grey; the
# **normals**, shown as colours; and a third picture that belongs to this field. Give each vertex its position
# on the *mean* face, scaled to $[0, 1]$, as red, green and blue. This colour identifies the vertex and is the
# same for every person, pose and expression. The resulting picture is the **projected normalised coordinate
# code**, {term}`PNCC`. {cite:t}`zhu2016face` feed it to a network to show it where its current estimate lies;
# for us it is the clearest picture of {term}`dense correspondence`.

# %%
mean = model.mean
code = (mean - mean.amin(dim=0)) / (mean.amax(dim=0) - mean.amin(dim=0))  # (V, 3)
torch.testing.assert_close(code, render.coordinate_code(mean))

views = ((0, 0), (-45, 10), (70, -10))  # yaw and pitch
batch = torch.stack([in_pixels(yaw, pitch, size=240) for yaw, pitch in views])
fragments = render.rasterize(batch, triangles, 240, 240)
depth = render.depth_image(fragments)  # (3, H, W)
normal = render.normal_image(batch, triangles, fragments)  # (3, H, W, 3)
pncc = render.interpolate(code, triangles, fragments)
torch.testing.assert_close(pncc, render.coordinate_image(mean, triangles, fragments))
look = {"light": lamps, "supersample": 3}
portrait = render.render(batch, triangles, albedo, 240, 240, **look)

# %% tags=["hide-input"]
figure, panels = plt.subplots(3, 4, figsize=(8, 6.2), layout="constrained")
for k, line in enumerate(panels):
    alpha = fragments.covered[k]
    show(line[0], portrait.colour[k], "" if k else "picture", portrait.alpha[k])
    show(line[1], depth[k], "" if k else "depth", alpha)
    show(line[2], (normal[k] + 1) / 2, "" if k else "normals", alpha)
    show(line[3], pncc[k], "" if k else "PNCC", alpha)

# %% [markdown]
# **Figure 6.8.** One face, three poses, four pictures of each. *Compare* the rows of a column: the colours of
# the normals depend on the direction in space, those of the PNCC stay with the skin. The tip of the nose has
# one PNCC colour in all three rows.

# %% [markdown]
# ## Smooth edges
#
# With one sample per pixel a pixel is either filled or empty, and slanted edges turn into stairs. A camera's
# pixel *averages* the light over its square. We can do the same: draw at $k$ times the resolution, and
# average $k \times k$ small pixels. We must average light, not sRGB numbers. The average also gives the
# covered fraction $\alpha$ of each pixel, which the next section needs.

# %%
k = 4
half = (k - 1) / 2  # edges on edges, as in chapter 3
fine = vertices * k + torch.tensor([half, half, 0.0])
fragments = render.rasterize(fine[None], triangles, k * SIZE, k * SIZE)
light = lamps.at(render.normal_image(fine[None], triangles, fragments))
linear = (
    render.interpolate(render.srgb_to_linear(albedo), triangles, fragments) * light
)
# (1, kH, kW, 4)
both = torch.cat([linear, fragments.covered[..., None].float()], dim=-1)
squares = both.reshape(SIZE, k, SIZE, k, 4)
average = squares.mean(dim=(1, 3))  # (H, W, 4)
alpha = average[..., 3]
smooth = render.linear_to_srgb(average[..., :3] / alpha[..., None].clamp(min=1e-9))

look = {"light": lamps, "supersample": k}
package = render.render(vertices[None], triangles, albedo, SIZE, SIZE, **look)
torch.testing.assert_close(alpha, package.alpha[0])
torch.testing.assert_close(smooth, package.colour[0], rtol=0, atol=1e-4)

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
window = np.s_[25:75, 50:115]
show(panels[0], lit[window], "1 sample per pixel", alpha=covered[window])
show(panels[1], smooth[window], f"{k * k} samples per pixel", alpha=alpha[window])

# %% [markdown]
# **Figure 6.9.** A part of the picture, enlarged. *Look at* the outline of the cheek, the iris and the teeth:
# details smaller than a pixel, which a single sample either hits or misses, also appear as a camera would
# record them.

# %% [markdown]
# ## Into a photograph
#
# Chapter 4 fitted the face of a portrait. We know its mesh, its approximate albedo (the model's average), and
# now also how light turns the two into colours. So we can turn the question round: *which light produced
# these pixels?* With nine numbers per colour this is linear least squares: albedo times
# $A_l Y_{lm}(\mathbf n)/\pi$ times the unknown $L_{lm}$ should be the photo's linear colour, at each of the
# face's pixels.

# %%
photo, landmarks, clicked = astronaut()
height, width = photo.shape[:2]
options = {"weights": clicked.float(), "height": height, "noise": 2.0}
fit = fit_landmarks(landmarks[None], model, **options)
face = decode(fit.coefficients, model, height)  # (1, V, 3)
skin = torch.zeros(model.num_vertices, dtype=torch.bool)
skin[model.regions["face"]] = True  # without ears, neck, hair, eyeballs and teeth
mask = triangles[skin[triangles].all(dim=1)]

plain = model.decode_albedo()[0]  # (V, 3)
fragments = render.rasterize(face, mask, height, width)
found = fragments.covered  # (1, H, W), P pixels
background = torch.from_numpy(photo).float() / 255
target = render.srgb_to_linear(background)[found[0]]  # (P, 3)
# (P, 3)
colour = render.srgb_to_linear(render.interpolate(plain, mask, fragments))[found]
# (P, 9)
basis = harmonics(render.normal_image(face, mask, fragments)[found]) * A_over_pi
sky = torch.zeros(9, 3)
for c in range(3):  # red, green, blue
    answer = torch.linalg.lstsq(colour[:, c, None] * basis, target[:, c, None])
    sky[:, c] = answer.solution[:, 0]
print(f"{len(target):,} pixels for 27 numbers; mean light {sky[0].mean() * c0:.2f}")


# %%
def masked(light):
    """The face alone, in some light."""
    return render.render(
        face, mask, plain, height, width, light=light, supersample=3
    )


own = masked(render.Harmonics(sky))
warm = torch.tensor([[2.6, 2.0, 1.5]])
other = masked(render.Lamps(0.15 * grey, torch.tensor([[-1.0, 0.3, 0.35]]), warm))

shares = own.alpha[..., None]  # alpha mixes light, not sRGB numbers
photo_light = render.srgb_to_linear(background)
mixed = shares * render.srgb_to_linear(own.colour) + (1 - shares) * photo_light
by_hand = render.linear_to_srgb(mixed)[0]
composed = render.over(own, background)[0]
torch.testing.assert_close(by_hand, composed, rtol=0, atol=1e-3)

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 3, figsize=(8, 3.1), layout="constrained")
left, top, right, bottom = landmarks_box(landmarks).tolist()
pictures = (background, composed, render.over(other, background)[0])
for axes, picture, title in zip(
    panels, pictures,
    ("photograph", "drawn, in the photo's light", "drawn, lamp at the left"),
    strict=True
):
    axes.imshow(picture)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_title(title, fontsize=10)
    axes.axis("off")


# %% [markdown]
# **Figure 6.10.** The photograph; the fitted mesh with the model's *average* skin in the light that the 27
# numbers describe; and the same mesh in another light. *Look at* where the second matches the first, and
# where no light can help: brows, lips and hair are albedo that the average face does not have.

# %% [markdown]
# The middle picture is close, but that does not prove that the light is right: darker skin under a brighter
# lamp gives the same pixels. Only assumptions about skin or light can separate the two. For us it is enough
# to know how pictures are formed. The next chapter makes them by the thousand.
#
# ## Summary
#
# - Edge functions tell whether a pixel is inside a triangle, and their ratios are the weights of its corners.
# - With integer coordinates, the top-left rule assigns each pixel on a shared edge to exactly one triangle.
# - The z-buffer keeps the nearest surface per pixel. Three implementations with the same rules give the same
#   picture.
# - Colour is albedo times light, in linear light. A lamp is a clamped cosine, and a sky is nine numbers per
#   colour.
# - Visibility, depth, normals and PNCC are by-products of the same z-buffer.
# - Averaging a finer picture smooths edges and gives the coverage needed to composite a face over a photo.
#
# The z-buffer, edge functions, harmonics and PNCC come from the literature. The 1/256 grid is what graphics
# cards use; the tolerance of visibility and the rule for equal depths (the lowest index wins) are ours.
#
# ## Exercises
#
# ### Exercise 6.1 · Facing us
#
# Some triangles face away from the viewer. Write `facing(vertices, triangles)`, which is true for those that
# face us. Triangles run counter-clockwise seen from outside, with $y$ up. Our pixels have $y$ down. No loop
# is needed.

# %% tags=["exercise"]
def facing(vertices, triangles):
    """(T,) booleans for vertices (V, 3) in pixels."""
    return torch.ones(len(triangles), dtype=torch.bool)


# %% tags=["solution"]
def facing(vertices, triangles):
    """(T,) booleans for vertices (V, 3) in pixels."""
    a, b, c = vertices[triangles][..., :2].unbind(dim=1)  # (T, 2) each
    u, v = b - a, c - a
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0] < 0  # y down flips the sign


# %% tags=["check"]
# counter-clockwise on the screen
one = torch.tensor([[0.0, 5, 0], [5, 5, 0], [0, 0, 0]])
assert facing(one, torch.tensor([[0, 1, 2]]))[0], (
    "this one faces us: where does y point?"
)
assert not facing(one, torch.tensor([[0, 2, 1]]))[0], "this one turns its back"
answer = facing(vertices, triangles)
for side, expected in (("back", True), ("front", False)):  # what is left out
    left = render.rasterize(
        vertices[None], triangles, SIZE, SIZE, cull=side
    ).triangle[0]
    left = left[left >= 0].unique()
    assert (answer[left] == expected).all(), (
        f"without {side} faces the picture changes"
    )
print(f"✓ {answer.float().mean():.0%} of the triangles face us")

# %% [markdown]
# ### Exercise 6.2 · A window at the left
#
# A room: white light of radiance 1 from the left half of all directions ($x < 0$), and radiance 0.2 from the
# right half. Give its nine coefficients (the same for red, green and blue). Two of them are not zero. *Hint:*
# we computed half a sky above; a room is a constant plus half a sky.

# %% tags=["exercise"]
room = torch.zeros(9)

# %% tags=["solution"]
room = torch.zeros(9)
room[0] = 0.2 * 4 * math.pi * c0 + 0.8 * 2 * math.pi * c0
room[3] = -0.8 * math.pi * c1  # number 3 is x, and the window is where x is negative

# %% tags=["check"]
light_of_room = render.Harmonics(room[:, None].expand(9, 3)).at(some[None])[0, :, 0]
wanted = 0.2 + 0.8 * (1 - some[:, 0]) / 2
assert room.shape == (9,), f"expected nine numbers, found {tuple(room.shape)}"
assert (room[[1, 2]] == 0).all(), "y and z are the same on both sides of the room"
off = (light_of_room - light_of_room.mean()) - (wanted - wanted.mean())
assert off.abs().max() < 1e-3, "left to right is wrong: sign, or size?"
assert (light_of_room - wanted).abs().max() < 1e-3, (
    f"all too {'bright' if light_of_room.mean() > wanted.mean() else 'dark'}"
)
print("✓ light from the left")

# %% [markdown]
# ### Exercise 6.3 · When does the eye go?
#
# Turn the head in steps of one degree from 0° to 90°. At which yaw is landmark 36, the outer corner of the
# left eye, first hidden? And landmark 30, the tip of the nose? Put both into `hidden_at`, with `None` for
# never. A positive yaw turns the nose to the left of the picture.

# %% tags=["exercise"]
hidden_at = {36: 0, 30: 0}

# %% tags=["solution"]
yaws = range(91)
heads = torch.stack([in_pixels(yaw=yaw) for yaw in yaws])  # (91, V, 3)
found = render.visible_vertices(heads, triangles, model.landmarks)  # (91, 68)
hidden_at = {}
for mark in (36, 30):
    hidden = [yaw for yaw in yaws if not found[yaw, mark]]
    hidden_at[mark] = hidden[0] if hidden else None

# %% tags=["check"]
for mark, answer in hidden_at.items():
    last = 90 if answer is None else answer
    two = torch.stack([in_pixels(yaw=max(last - 1, 0)), in_pixels(yaw=last)])
    which = model.landmarks[[mark]]
    before, after = render.visible_vertices(two, triangles, which)[:, 0].tolist()
    assert answer is None or not after, f"at {answer}° landmark {mark} can be seen"
    assert answer is not None or after, f"landmark {mark} is hidden at 90°"
    assert before, f"landmark {mark} is hidden at {last - 1}° already"
nose = "never" if hidden_at[30] is None else f"at {hidden_at[30]}°"
print(f"✓ the eye corner is hidden at {hidden_at[36]}°, the tip of the nose {nose}")


# %% [markdown]
# ### Exercise 6.4 · The same skin in another picture
#
# `pncc[0]` and `pncc[1]` show the face from two sides. For a pixel of the first, find the pixel of the second that shows the same piece of skin: write
# `match(row, column)`, which returns (row, column) in picture 1. You need no mesh, only colours.

# %% tags=["exercise"]
def match(row, column):
    """The pixel of picture 1 that shows the same skin as this one of picture 0."""
    return row, column


# %% tags=["solution"]
def match(row, column):
    """The pixel of picture 1 that shows the same skin as this one of picture 0."""
    away = (pncc[1] - pncc[0, row, column]).norm(dim=-1)  # (H, W)
    away[(pncc[1] == 0).all(dim=-1)] = torch.inf  # background, not skin
    return divmod(int(away.argmin()), away.shape[1])


# %% tags=["check"]
both = render.visible_vertices(batch[:2], triangles, model.landmarks).all(dim=0)
misses = []
for mark in model.landmarks[both]:
    x0, y0 = batch[0, mark, :2].round().long().tolist()
    x1, y1 = batch[1, mark, :2].tolist()
    row, column = match(y0, x0)
    misses.append(math.hypot(column - x1, row - y1))
middle_miss = float(np.median(misses))
assert middle_miss < 30, f"{middle_miss:.0f} pixels off: did you search picture 1?"
assert middle_miss < 3, f"{middle_miss:.1f} pixels off: compare all three channels"
print(
    f"✓ {len(misses)} landmarks found again, {middle_miss:.1f} pixels off (median)"
)

# %% [markdown]
# ## Further reading
#
# - {cite:t}`catmull1974subdivision` mentions the z-buffer in passing, as too wasteful of memory.
# - {cite:t}`pineda1988parallel` introduces edge functions and explains why graphics hardware uses them.
# - {cite:t}`ramamoorthi2001efficient` derive the nine numbers; their equation 13 is a shader of one line.
# - {cite:t}`zhu2016face` introduce PNCC as an input for a network that refines its own estimate.
# - {cite:t}`blanz1999morphable` fitted albedo and light to every pixel of a photograph, with the renderer in
#   the loop.
#
# Next: [chapter 7](07_two_worlds.ipynb) draws two worlds of training pictures.
