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
# # Fit a face to a photograph
#
# *How do 68 points on one photograph become a face in 3D?*
#
# **You need** [chapter 3](03_sixty_two_numbers.ipynb) (the camera and the 62 numbers), linear least squares,
# and the idea of a prior.
#
# **After this chapter you can**
#
# - find the pose of a face from 2D landmarks in closed form,
# - find its shape and expression by regularised Gauss–Newton, in sixty lines,
# - say what the prior does, and show what happens without it,
# - paint the mesh with the photograph and save it for other programs,
# - write down the 62 numbers that a network should predict for this photograph.
#
# **Time** 30 minutes to read; no GPU needed.

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
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from twodasl_lite import viz
from twodasl_lite.apps.export import export_mesh
from twodasl_lite.datasets.examples import astronaut
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.faces.fitting import fit_landmarks, fit_pose
from twodasl_lite.geometry import camera
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.landmarks import MIRROR, flip_landmarks
from twodasl_lite.geometry.photos import crop_photo, landmarks_box, sample_colours
from twodasl_lite.viz.palette import CATEGORICAL, HOUSE_STYLE
from twodasl_lite.viz.shading import vertex_normals

plt.rcParams.update(HOUSE_STYLE)

model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components
photo, landmarks, visible = astronaut()
height, width = photo.shape[:2]
print(f"{width} x {height} pixels, {int(visible.sum())} of 68 landmarks visible")

# %% [markdown]
# The photograph is NASA's portrait of the astronaut Eileen Collins, in the public domain and part of
# scikit-image {cite:p}`vanderwalt2014scikit`. We clicked 68 points on it by hand. These 136 numbers are all
# we start from.

# %% tags=["hide-input"]
_, axes = plt.subplots(1, 2, figsize=(8, 4.1), layout="constrained")
left, top, right, bottom = landmarks_box(landmarks).tolist()
for ax in axes:
    ax.imshow(photo)
    ax.axis("off")
axes[0].plot(
    [left, right, right, left, left], [top, top, bottom, bottom, top], color="white",
    lw=1.5
)
viz.draw_landmarks(axes[1], landmarks, visible=visible, size=5)
_ = axes[1].set(xlim=(left, right), ylim=(bottom, top))


# %% [markdown]
# **Figure 4.1.** The photograph, and its landmarks enlarged. Hollow points are hidden by hair and were placed
# at its edge. *Try* to say where the jaw runs under the hair.

# %% [markdown]
# ## First the pose
#
# Let $\bar{\mathbf S}_i$ be landmark $i$ of the average face (mm) and $\mathbf u_i$ the clicked point, in the
# image frame of chapter 3 (pixels from 1, y up). The camera says
# $\mathbf u_i \approx f \mathbf R \bar{\mathbf S}_i + \mathbf t$ for the first two coordinates. Forget for a
# moment that $f\mathbf R$ is a scaled rotation, and ask for any 2×4 matrix $\mathbf Q$:
#
# $$\min_{\mathbf Q} \; \sum_i w_i \left\| \mathbf Q \begin{pmatrix} \bar{\mathbf S}_i \\ 1 \end{pmatrix}
# - \mathbf u_i \right\|^2.$$
#
# The weight $w_i$ is 1 for a point that we can see and 0 for one that we cannot. This is linear least
# squares, solved in one line. Only afterwards do we enforce the constraint: the first three columns of
# $\mathbf Q$ should be two rows of a rotation times $f$, so we take the closest such rows.

# %%
def closed_form_pose(points, target, weights):
    """Pose (3, 4) that takes points (N, 3) to target (N, 2), y up."""
    root = weights.sqrt()[:, None]
    rows = torch.cat([points, torch.ones(len(points), 1)], dim=1)  # (N, 4)
    Q = torch.linalg.lstsq(root * rows, root * target).solution.T  # (2, 4)
    R = camera.nearest_rotation(Q[:, :3])
    f = Q[:, :3].norm(dim=1).mean()
    middle = weights @ points / weights.sum()
    seen = torch.cat([weights @ target / weights.sum(), torch.zeros(1)])
    t = seen - f * (R @ middle)  # middle to middle, at depth 0
    return torch.cat([f * R, t[:, None]], dim=1)


target = camera.pixels_to_frame(landmarks, height)  # (68, 2)
weights = visible.float()
average = model.mean[model.landmarks]  # (68, 3)
pose = closed_form_pose(average, target, weights)


def rms(points):
    """Root mean square distance in pixels from the visible landmarks."""
    squared = (points[:, :2] - landmarks).square().sum(dim=1)  # (68,)
    return float((weights @ squared / weights.sum()).sqrt())


by_hand = camera.frame_to_pixels(camera.project(average, pose), height)
packaged = fit_pose(landmarks[None], average, weights=weights, height=height)[0]
refined = camera.frame_to_pixels(camera.project(average, packaged), height)
assert rms(refined) <= rms(by_hand) + 1e-3

# %%
f, R, t = camera.split_pose(pose)
pitch, yaw, roll = torch.rad2deg(camera.matrix_to_euler(R)).tolist()
print(f"{f:.2f} pixels per mm, pitch {pitch:.0f}°, yaw {yaw:.0f}°, roll {roll:.0f}°")
print(
    f"the average face is {rms(by_hand):.2f} pixels off, refined {rms(refined):.2f}"
)

# %% [markdown]
# {py:func}`twodasl_lite.faces.fitting.fit_pose` starts the same way and then refines the result by descent, because
# the rotation closest to the best matrix is not the best rotation. The difference is small. Weak perspective
# cannot see depth, so we *choose* the last entry of $\mathbf t$ such that the middle of the landmarks has
# depth zero.
#
# ## Then the face
#
# Pose, shape and expression together are $6 + 40 + 10$ unknowns $\theta$: the scale $f$, three angles, two
# shifts (not the third!), and 50 coefficients. We measure those in standard deviations and call them
# $\gamma$: $\gamma_k = \alpha_k / \sigma_k$ for the shape, likewise with $\beta$ for the expression. A
# landmark is then
#
# $$\mathbf v_i(\theta) = f\, \mathbf R\, (\bar{\mathbf S}_i + \mathbf B_i \gamma) + \mathbf t,$$
#
# where $\mathbf B_i$ (3×50) holds the displacement of the landmark per standard deviation of each
# coefficient. The camera multiplies the coefficients, so the problem is no longer linear.
# {term}`Gauss–Newton` solves a sequence of linear problems instead: at the current estimate, it replaces the
# residuals $r$ by their linearisation $r + J \delta$, where $J$ is the matrix of derivatives, solves the
# linear least-squares problem for the step $\delta$, takes the step, and repeats.
#
# What should be small? The distances from the landmarks, of course. But 56 unknowns can also fit the errors
# in 136 numbers, so we add what we know about faces, the {term}`prior`. If the clicks are off by Gaussian
# noise of standard deviation $\sigma_x$ pixels and the coefficients $\gamma$ of people are independent with
# standard deviation 1, the most probable face minimises
#
# $$E(\theta) = \sum_i w_i \left\| \mathbf v_i(\theta) - \mathbf u_i \right\|^2 +
# \lambda\,\sigma_x^2 \sum_k \gamma_k^2 ,\qquad \lambda = 1.$$
#
# This is the *maximum a posteriori* estimate that {cite:t}`blanz1999morphable` introduced for faces.
# $\lambda$ is our knob: above 1 it trusts the model more, below 1 the clicks. We take $\sigma_x = 2$ pixels:
# a hand is steadier than that, but no two people agree where on the jaw "point 5" lies.

# %%
NOISE = 2.0  # sigma_x, pixels
landmark_mean = average.double()
landmark_basis = model.basis[model.landmarks] * model.coefficient_std  # mm per sigma
landmark_basis = landmark_basis.double()  # (68, 3, 50)


def predict(theta):
    """Landmarks (68, 2) from (56,): log f, pitch, yaw, roll, t_x, t_y, gamma."""
    log_scale, angles, shift, gamma = theta.split([1, 3, 2, landmark_basis.shape[2]])
    S = landmark_mean + landmark_basis @ gamma  # (68, 3)
    return log_scale.exp() * S @ camera.euler_to_matrix(angles)[:2].T + shift


def residuals(theta, regularisation):
    """Everything whose sum of squares is E: weighted distances and the prior."""
    misses = weights.double().sqrt()[:, None] * (predict(theta) - target)
    prior = math.sqrt(regularisation) * NOISE * theta[6:]
    return torch.cat([misses.flatten(), prior])


def gauss_newton(theta, regularisation, steps=8):
    for _ in range(steps):
        r = residuals(theta, regularisation)  # (136 + 50,)
        J = torch.func.jacfwd(residuals)(theta, regularisation)  # (136 + 50, 56)
        theta = theta - torch.linalg.lstsq(J, r).solution
    return theta


# %% [markdown]
# We optimise the logarithm of the scale, so that the scale cannot become negative. The derivatives come from
# PyTorch. That is the whole method; we start it at the average face in the pose we found:

# %%
angles = camera.matrix_to_euler(R)
start = torch.cat([f.log()[None], angles, t[:2], torch.zeros(50)]).double()
theta = gauss_newton(start, regularisation=1.0)
energy = [float(residuals(guess, 1.0).square().sum()) for guess in (start, theta)]
print(f"E fell from {energy[0]:.0f} to {energy[1]:.0f}")

options = {"weights": weights, "height": height, "noise": NOISE}
fit = fit_landmarks(landmarks[None], model, regularisation=1.0, **options)
print(fit.summary())

ours = camera.frame_to_pixels(predict(theta), height)
theirs = decode_landmarks(fit.coefficients, model, height)[0]
torch.testing.assert_close(ours.float(), theirs[:, :2], rtol=0, atol=0.1)
torch.testing.assert_close(energy[1], float(fit.cost[0, -1]), rtol=1e-3, atol=0.0)
print(f"landmarks: {rms(by_hand):.2f} pixels off before, {rms(theirs):.2f} now")


# %% [markdown]
# The package's {py:func}`twodasl_lite.faces.fitting.fit_landmarks` minimises the same $E$ and arrives at the same
# minimum. It adds what a tool needs: damping (a step that increases $E$ is shortened), analytic derivatives,
# many faces at once, and a report on convergence.

# %% tags=["hide-input"]
def turned(coefficients, yaw=0.0, pitch=0.0):
    """The fitted face without its pose, turned as we choose; (V, 3) mm."""
    face = model.decode(coefficients.shape, coefficients.expression)[0]
    face = face - face[model.landmarks].mean(dim=0)
    return face @ camera.euler_to_matrix(
        torch.deg2rad(torch.tensor([pitch, yaw, 0.0]))
    ).T


_, axes = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
zeros = Coefficients(pose[None], torch.zeros(1, 40), torch.zeros(1, 10))
viz.overlay(
    axes[0], photo, decode(zeros, model, height)[0], model.triangles, alpha=0.75
)
viz.overlay(
    axes[1], photo, decode(fit.coefficients, model, height)[0], model.triangles,
    alpha=0.75
)
axes[2].imshow(photo)
viz.draw_landmarks(
    axes[2], landmarks, visible=visible, colour=CATEGORICAL[1], size=3,
    label="clicked"
)
viz.draw_landmarks(axes[2], theirs, colour=CATEGORICAL[0], size=3, label="fitted")
axes[2].legend(loc="lower left", fontsize=7)
for ax, title in zip(
    axes, ("average face, posed", "shape and expression fitted", "landmarks")
):
    ax.set(xlim=(left, right), ylim=(bottom, top), title=title)
    ax.axis("off")

# %% [markdown]
# **Figure 4.2.** Left, the average face in the closed-form pose. Middle, the fitted one. Right, the
# landmarks. *Try* to see what the second step changed: the smile, the width of the jaw, the height of the
# brows.

# %% [markdown]
# ## Without the prior
#
# Now turn the knob. With $\lambda = 0$ the landmarks fit better than ever, since nothing else is asked for.
# We compare the fit with how extreme the coefficients are: the root mean square of $\gamma$, in standard
# deviations. For faces drawn from the model it is about 1.

# %%
knob = [0.0, 1e-3, 0.01, 0.1, 1.0, 10.0, math.inf]
fits, distance, oddness = [], [], []
for strength in knob:
    each = fit_landmarks(landmarks[None], model, regularisation=strength, **options)
    # (1, 50)
    gamma = torch.cat(each.coefficients[1:], dim=1) / model.coefficient_std
    fits.append(each)
    distance.append(rms(decode_landmarks(each.coefficients, model, height)[0]))
    oddness.append(float(gamma.square().mean().sqrt()))
    print(f"λ = {strength:<6g} {distance[-1]:5.2f} pixels, γ {oddness[-1]:5.2f}")

steps = zip(distance, distance[1:])
# more prior never fits better
assert all(less <= more + 1e-3 for less, more in steps)

# %% tags=["hide-input"]
ONE = knob.index(1.0)
NAMES = [{0: "0", math.inf: "∞"}.get(strength, f"{strength:g}") for strength in knob]
CORNERS = dict(zip("ijk", model.triangles.short().numpy().T))
LOOK = {
    "colorscale": [[0, "#4d463f"], [0.5, "#a39a90"], [1, "#efe8df"]],
    "cmin": -20,
    "cmax": 100,
    "showscale": False,
    "lighting": {"ambient": 1, "diffuse": 0, "specular": 0},
    "hoverinfo": "skip",
}


def setting(k):
    """Traces for position k of the knob; 16-bit integers keep the page small."""
    face = turned(fits[k].coefficients, yaw=-35.0)
    shade = vertex_normals(
        face.numpy(), model.triangles.numpy()
    ) @ np.array([-0.3, 0.45, 0.85])
    place = {
        axis: values.short().numpy()
        for axis, values in zip("xyz", (100 * face).round().clamp(-32000, 32000).T)
    }
    marker = {"x": [distance[k]], "y": [oddness[k]], "text": [f"λ = {NAMES[k]}"]}
    return [
        go.Mesh3d(place | {"intensity": (100 * shade).astype(np.int8)}),
        go.Scatter(marker)
    ]


# %% tags=["hide-input"]
fig = make_subplots(
    2, 1, specs=[[{"type": "scene"}], [{"type": "xy"}]], row_heights=[0.68, 0.32],
    vertical_spacing=0.03
)
mesh, dot = setting(ONE)
fig.add_trace(mesh.update(CORNERS | LOOK), 1, 1)
curve = {
    "mode": "lines+markers", "line": {"color": CATEGORICAL[0]}, "showlegend": False,
    "hovertext": NAMES
}
fig.add_trace(go.Scatter(x=distance, y=oddness, **curve), 2, 1)
look = {
    "marker": {"color": CATEGORICAL[1], "size": 13}, "mode": "markers+text",
    "textposition": "top right"
}
fig.add_trace(dot.update(look | {"showlegend": False}), 2, 1)
fig.frames = [
    go.Frame(data=setting(k), traces=[0, 2], name=str(k)) for k in range(len(knob))
]
play = {
    "mode": "immediate", "frame": {"duration": 0, "redraw": True},
    "transition": {"duration": 0}
}

# %% tags=["hide-input"]
steps = [
    {"label": name, "method": "animate", "args": [[str(k)], play]}
    for k, name in enumerate(NAMES)
]
limits = {"visible": False, "range": [-20000, 20000]}
ratio = {"aspectmode": "manual", "aspectratio": {"x": 1.9, "y": 1.9, "z": 1.9}}
view = {
    "eye": {"x": 0, "y": 0, "z": 2}, "up": {"x": 0, "y": 1, "z": 0},
    "projection": {"type": "orthographic"}
}
fig.update_scenes(xaxis=limits, yaxis=limits, zaxis=limits, camera=view, **ratio)
fig.update_xaxes(title="landmarks off by (pixels)", range=[0, 1.15 * max(distance)])
fig.update_yaxes(
    title="coefficients γ", range=[-0.05 * max(oddness), 1.25 * max(oddness)]
)
slider = {
    "active": ONE, "steps": steps, "currentvalue": {"prefix": "λ = "},
    "pad": {"t": 50, "b": 10}
}
fig.update_layout(
    height=720, margin={"l": 60, "r": 20, "t": 10, "b": 20}, sliders=[slider]
)
fig

# %% [markdown]
# **Figure 4.3.** The fitted face from the side, and the price of each fit: pixels against plausibility. *Try*
# $\lambda = 0$, where the landmarks fit best and the rest of the face does whatever helps them. Then go to
# the other end, where every face is the average face. In between, each step to the left gains fewer pixels
# and costs a less plausible face.

# %% [markdown]
# The landmarks *always* fit better with a weaker prior. Reprojection error alone cannot tell a good
# reconstruction from a monster: it measures nothing between the landmarks, and movement along the line of
# sight costs nothing. The later chapters do not change this. A network trained on 2D landmarks alone may
# learn monsters; the prior returns as 3D examples, as consistency, or as a critic.

# %% tags=["hide-input"]
_, axes = plt.subplots(2, 3, figsize=(8, 5.6), layout="constrained")
for column, k, name in zip(
    axes.T, (0, ONE, -1), ("no prior", "λ = 1", "average face")
):
    viz.overlay(
        column[0], photo, decode(fits[k].coefficients, model, height)[0],
        model.triangles, alpha=0.9
    )
    column[0].set(
        xlim=(left, right), ylim=(bottom, top),
        title=f"{name}: {distance[k]:.1f} pixels"
    )
    viz.shaded_mesh(
        column[1], turned(fits[k].coefficients, yaw=-70.0), model.triangles
    )

# %% [markdown]
# **Figure 4.4.** The same three fits on the photograph and from the side. *Try* ranking them by the upper
# row, then by the lower one.

# %% [markdown]
# ## Paint it
#
# The fit is dense: every vertex of the mesh, not just 68 points, now has a position in the photograph and
# therefore a colour. Two problems remain. A vertex on the far side projects onto a pixel that shows something
# nearer. A simple test is the direction of the surface: its normal, rotated into the camera's frame, must
# point towards the viewer. And where we see a surface at a grazing angle, a small error of the fit picks up
# the colour of the background, so we fade the colours out towards the edge.

# %%
found = fit.coefficients
pixels = decode(found, model, height)[0]  # (V, 3)
face = model.decode(found.shape, found.expression)[0]  # (V, 3) mm
_, R, _ = camera.split_pose(found.pose[0])

normals = vertex_normals((face @ R.T).numpy(), model.triangles.numpy())  # (V, 3)
facing = torch.from_numpy(normals[:, 2:]).float()  # cosine to the line of sight
trust = ((facing - 0.15) / 0.35).clamp(0, 1)  # (V, 1): 0 turned away, 1 facing us
seen = sample_colours(photo, pixels)  # (V, 3) sRGB
skin = (trust * seen).sum(dim=0) / trust.sum()  # for what we cannot see
colours = (trust * seen + (1 - trust) * skin).clamp(0, 1)
print(f"{(trust > 0).float().mean():.0%} of the vertices face the camera")

# %% tags=["hide-input"]
viz.mesh_figure(face, model.triangles, colours, yaw=20, height=520)

# %% [markdown]
# **Figure 4.5.** The photograph on the mesh. From the front it is a portrait. *Try* turning it to see where
# the paint ends, where hair was painted onto a cheek, and how the shadows of the studio lights have become
# part of the skin.

# %% [markdown]
# The test by normals does not know that the nose may hide the cheek behind it, or hair the forehead. To find
# out, we must draw the mesh and see which surface is nearest at each pixel. That takes a {term}`z-buffer`,
# which we build in chapter 6. Separating skin from light is harder still.
#
# Any 3D program can open these files; positions are in the model frame, in millimetres (metres in the GLB, as
# its standard requires):

# %%
folder = Path("downloads")
mesh = (face, model.triangles, colours)
for suffix in ("glb", "obj", "ply"):
    path = export_mesh(folder / f"astronaut.{suffix}", *mesh, units=model.units)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} kB")

# %% [markdown]
# Download: [astronaut.glb](downloads/astronaut.glb) · [astronaut.obj](downloads/astronaut.obj) ·
# [astronaut.ply](downloads/astronaut.ply)
#
# ## The sixty-two numbers
#
# A network does not see the whole photograph but a crop of 120×120 pixels. The field's crop is a square
# centred on the landmarks' bounding box, and its side is as long as the diagonal of that box. The face stays
# the same; the pose must be expressed in the crop's frame (chapter 3):

# %%
box = landmarks_box(landmarks)
crop = crop_photo(photo, box)  # (120, 120, 3)
crop_pose = camera.image_pose_to_crop(found.pose, box, height)
answer = Coefficients(crop_pose, found.shape, found.expression)
c = answer.pack()[0]
assert c.shape == (62,)

in_photo = decode_landmarks(found, model, height)[0]
in_crop = decode_landmarks(answer, model)[0]
expected = camera.image_to_crop(in_photo, box)
torch.testing.assert_close(in_crop, expected, rtol=0, atol=1e-2)

with np.printoptions(precision=2, suppress=True, linewidth=80):
    print(c.numpy())

# %% tags=["hide-input"]
_, axes = plt.subplots(1, 3, figsize=(8, 2.8), layout="constrained")
axes[0].imshow(crop)
viz.overlay(axes[1], crop, decode(c[None], model)[0], model.triangles, alpha=0.85)
axes[2].imshow(crop)
viz.draw_landmarks(axes[2], decode_landmarks(c[None], model)[0], size=3)
for ax, title in zip(
    axes, ("what a network sees", "what 62 numbers draw", "their 68 landmarks")
):
    ax.set_title(title)
    ax.axis("off")

# %% [markdown]
# **Figure 4.6.** What a network has to learn: given the left picture, predict the 62 numbers printed above,
# which produce the other two pictures. *Try* changing one number of `c` in JupyterLab and draw the face
# again.

# %% [markdown]
# We needed 68 clicks, some linear algebra, and a prior. A network will not need the clicks. But where do the
# 62 numbers of a hundred thousand training photographs come from? From fits like this one, for the data sets
# with 3D labels that the field trains on {cite:p}`zhu2016face`. All other photographs come without them, and
# at best with noisy landmarks. 2DASL is about learning from those.

# %% [markdown]
# ## Summary
#
# - The pose comes from linear least squares for a 2×4 matrix, followed by the nearest rotation.
# - Shape and expression follow by Gauss–Newton on reprojection error plus prior. With $\lambda = 1$ the
#   result is the most probable face.
# - Without the prior the landmarks fit better and the face is worse. Reprojection error does not measure the
#   quality of a reconstruction.
# - A dense fit gives each vertex a pixel and hence a colour; visibility decides whether to trust it.
# - In the crop's frame, the face becomes the 62 numbers that a network should predict.
#
# The cost function is the classical one. The choice of $\sigma_x$, the fading of the colours and the default
# of the package (noise proportional to the size of the face) are ours.

# %% [markdown]
# ## Exercises
#
# ### Exercise 4.1 · Choose the knob by hiding points
#
# We only guessed that $\sigma_x$ is 2 pixels. Hide every third visible landmark from the fit, measure the rms
# distance at the hidden ones, and find the $\lambda$ in `grid` that makes it smallest. Write
# `hidden_error(strength)`, in pixels.

# %% tags=["exercise"]
grid = [1e-3, 0.01, 0.1, 1.0, 10.0]
held_out = visible & (torch.arange(68) % 3 == 0)


def hidden_error(strength):
    """Rms distance in pixels at the landmarks that the fit did not see."""
    return 1.0


best_strength = min(grid, key=hidden_error)


# %% tags=["solution"]
def hidden_error(strength):
    """Rms distance in pixels at the landmarks that the fit did not see."""
    blind = options | {"weights": weights * ~held_out}
    each = fit_landmarks(landmarks[None], model, regularisation=strength, **blind)
    points = decode_landmarks(each.coefficients, model, height)[0, :, :2]
    return float((points - landmarks)[held_out].square().sum(dim=1).mean().sqrt())


best_strength = min(grid, key=hidden_error)
# Only lambda * sigma_x^2 matters: the experiment measured sigma_x. Do not trust it
# too far: a hidden point of a smooth contour is easily guessed from its neighbours.
print(f"as if sigma_x were {NOISE * best_strength**0.5:.2f} pixels")

# %% tags=["check"]
errors = [hidden_error(strength) for strength in grid]
weakest = fits[knob.index(grid[0])].coefficients
peeked = (decode_landmarks(weakest, model, height)[0, :, :2] - landmarks)[held_out]
peeked = float(peeked.square().sum(dim=1).mean().sqrt())
assert len(set(errors)) > 1, "Your error does not depend on the strength."
assert errors[0] > 1.2 * peeked, (
    "As good as a fit that saw these points: are they hidden?"
)
assert best_strength == grid[errors.index(min(errors))], (
    "Another strength is better."
)
print(
    f"✓ best: λ = {best_strength:g}, {min(errors):.2f} pixels at points never seen"
)


# %% [markdown]
# ### Exercise 4.2 · One line of Gauss–Newton
#
# With the pose held fixed, $\mathbf v_i$ is linear in $\gamma$ and no iteration is needed. Find the 50
# coefficients that minimise $E$ for $\lambda = 1$ in the pose `theta[:6]` with one linear solve.

# %% tags=["exercise"]
def coefficients_in_pose(six):
    """The (50,) that minimise E; six = log f, pitch, yaw, roll, t_x, t_y."""
    return torch.zeros(50, dtype=torch.float64)


# %% tags=["solution"]
def coefficients_in_pose(six):
    """The (50,) that minimise E; six = log f, pitch, yaw, roll, t_x, t_y."""
    fR = six[0].exp() * camera.euler_to_matrix(six[1:4])[:2]  # (2, 3)
    root = weights.double().sqrt()
    A = torch.einsum("n,ij,njk->nik", root, fR, landmark_basis)  # (68, 2, 50)
    b = root[:, None] * (target - landmark_mean @ fR.T - six[4:])  # (68, 2)
    A, b = A.flatten(0, 1), b.flatten()
    return torch.linalg.solve(A.T @ A + NOISE**2 * torch.eye(50).double(), A.T @ b)


# %% tags=["check"]
guess = coefficients_in_pose(theta[:6])
assert guess.shape == (50,), f"Expected 50 coefficients, found {tuple(guess.shape)}."
value = float(residuals(torch.cat([theta[:6], guess]), 1.0).square().sum())
prior = float((NOISE * guess).square().sum())
assert value < energy[0], f"E = {value:.0f} is no better than the average face's."
assert prior < energy[1], f"The prior alone has {prior:.0f} of E: was it forgotten?"
assert value < 1.001 * energy[1], (
    f"E = {value:.1f}; in this pose {energy[1]:.1f} is possible."
)
print("✓ the same face in one solve")

# %% [markdown]
# ### Exercise 4.3 · Through the mirror
#
# Flip the photograph left to right and fit again. First predict pitch, yaw and roll ([exercise 3.4](03_sixty_two_numbers.ipynb#the-mirror)). Beware:
# the left eye of the flipped picture was the right eye. {py:func}`twodasl_lite.geometry.landmarks.flip_landmarks`
# takes care of that, and `MIRROR` says which landmark takes which place: the weights must move too.

# %% tags=["exercise"]
mirrored_fit = fit

# %% tags=["solution"]
mirrored = flip_landmarks(landmarks, width)
flipped = options | {"weights": weights[MIRROR]}  # the left eye was the right one
mirrored_fit = fit_landmarks(mirrored[None], model, **flipped)

# %% tags=["check"]
poses = (fit.coefficients.pose[0], mirrored_fit.coefficients.pose[0])
before, after = (torch.rad2deg(camera.matrix_to_euler(p[:, :3])) for p in poses)
assert not torch.equal(before, after), "This is the fit of the photograph itself."
assert mirrored_fit.rms[0] < 2 * fit.rms[0] + 1, (
    "A bad fit: are the landmarks in order?"
)
error = (after - before * torch.tensor([1.0, -1.0, -1.0])).abs()
worst = ("pitch", "yaw", "roll")[int(error.argmax())]
assert error.max() < 1.5, (
    f"The {worst} is {error.max():.1f}° away from the mirrored angle."
)
print("✓ pitch stays, yaw and roll change their signs")

# %% [markdown]
# ### Exercise 4.4 · Take the smile away
#
# Identity and expression are separate coefficients. Make the mesh (V, 3) of the same person with a neutral
# expression, in millimetres.

# %% tags=["exercise"]
neutral = face

# %% tags=["solution"]
neutral = model.decode(found.shape)[0]

# %% tags=["check"]
assert neutral.shape == face.shape, f"Expected {tuple(face.shape)}: one mesh."
moved = (neutral - face).norm(dim=1)
assert moved.max() > 0.1, "Nothing has moved: this face still has its expression."
# it should consist of shape components
offset = (neutral - model.mean).flatten()[:, None]
weights_found = torch.linalg.lstsq(model.shape_basis.flatten(0, 1), offset).solution
rest = offset - model.shape_basis.flatten(0, 1) @ weights_found
assert weights_found.abs().max() > 1e-3, "This is the average face: keep who she is."
assert rest.abs().max() < 0.1, "Some of the expression is left."
assert torch.allclose(weights_found[:, 0], found.shape[0], atol=1e-2), (
    "This is someone else."
)
print(f"✓ neutral; the vertices moved by up to {moved.max():.0f} mm")

# %% [markdown]
# ## Further reading
#
# - {cite:t}`blanz1999morphable` fit a morphable model to every pixel of a photograph, not to 68 points.
# - {cite:t}`bas2019what` ask how much landmarks can tell about the shape of a face: less than one would like,
#   even with a perfect fit.
# - {cite:t}`egger2020morphable` review twenty years of morphable models and of fitting them.
# - {cite:t}`zhu2016face` fitted the thousands of photographs that the field's networks learn from.
