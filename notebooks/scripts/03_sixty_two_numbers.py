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
# # Sixty-two numbers
#
# *Which numbers put a face into a picture, and in what form should a network learn them?*
#
# **You need** [chapter 1](01_a_face_is_a_vector.ipynb) (a face is a mean plus weighted components), matrices,
# and the derivative of a quotient.
#
# **After this chapter you can**
#
# - project a face with a weak-perspective camera and say how wrong that is at a given distance,
# - write a rotation as three angles in this field's convention, read them back, and say where that fails,
# - lay out, pack and unpack the 62 coefficients that 2DASL predicts,
# - explain why they are whitened, and which of them no photograph determines,
# - move between the model's millimetres, the crop's frame and pixels without losing half a pixel.
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

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from twodasl_lite import viz
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.geometry import camera
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import (
    CoefficientLayout,
    Coefficients,
    Whitening,
)
from twodasl_lite.geometry.landmarks import EDGES
from twodasl_lite.geometry.photos import crop_photo
from twodasl_lite.viz.palette import CATEGORICAL, HOUSE_STYLE
from twodasl_lite.viz.shading import vertex_normals

plt.rcParams.update(HOUSE_STYLE)

model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components
face = model.mean  # (V, 3) in mm: x right, y up, z towards the viewer
corners = face[model.landmarks]  # (68, 3)
print(f"{model.num_vertices:,} vertices, {len(corners)} landmarks, {model.layout}")

# %% [markdown]
# ## Two cameras
#
# Put a pinhole camera at distance $d$ in front of a face. A point $(X, Y, Z)$, measured in millimetres from
# the middle of the face, lies at a distance $d - Z$ from the lens. With a focal length of $F$ pixels it
# appears at
#
# $$x = \frac{F X}{d - Z} = f X \cdot \frac{1}{1 - Z/d} = f X \left(1 + \frac{Z}{d} + \dots\right),
# \qquad f = \frac{F}{d}.$$
#
# The *scale* $f$ is the number of pixels per millimetre at the middle of the face.
# {term}`Weak perspective <weak perspective>` keeps $f X$ and drops the bracket: every point is drawn as if it
# were at the same depth. The leading term of the error is $f X Z / d$, so the error falls as $1/d$ and is
# largest where a point is far from the axis *and* far from the middle depth: at the ears and along the jaw.
# We call the camera that keeps the bracket *perspective*.
#
# In return for the error we get a camera that is *linear* in the points. All of chapter 4 depends on that.

# %%
middle = corners.mean(dim=0)  # (3,)
extent = (corners.amax(dim=0) - corners.amin(dim=0))[:2]  # width and height, mm
scale = float(0.7 * CROP_SIZE / extent.max())  # the face fills 70 % of a crop


def weak_perspective(points):
    """From mm from the face's middle (N, 3) to pixels from the picture's (N, 2)."""
    return scale * points[:, :2]


def perspective(points, distance):
    """The same, through a pinhole; the scale at the face's middle is kept."""
    return scale * points[:, :2] / (1 - points[:, 2:] / distance)


# %% [markdown]
# How large is the error? The field measures it as the *normalised mean error* ({term}`NME`): the mean
# distance between two sets of landmarks, divided by $\sqrt{wh}$, where $w$ and $h$ are the width and height
# of the landmarks' bounding box. Could a fit hide the error by shifting, turning or stretching the face? No
# weak-perspective camera can do better than the best *affine* map from 3D to 2D, which least squares finds.

# %%
def nme(points, target):
    size = target.amax(dim=0) - target.amin(dim=0)
    return float((points - target).norm(dim=1).mean() / size.prod().sqrt())


def best_affine(points, target):
    """The points as the best-fitting affine camera projects them."""
    rows = torch.cat([points, torch.ones(len(points), 1)], dim=1)  # (N, 4)
    return rows @ torch.linalg.lstsq(rows, target).solution


centred = corners - middle
dropped = (centred[:, :2] * centred[:, 2:]).norm(dim=1).mean()  # |X Z|, mm^2
for metres in (0.3, 1, 3):
    truth = perspective(centred, 1000 * metres)
    simple = nme(weak_perspective(centred), truth)
    first_order = float(dropped / extent.prod().sqrt()) / (1000 * metres)
    best = nme(best_affine(centred, truth), truth)
    print(
        f"{metres:>4} m: NME {simple:5.2%}, first-order estimate {first_order:5.2%},"
    )
    print(f"        best affine camera {best:5.2%}")

# %% tags=["hide-input"]
STOPS = [250, 300, 400, 500, 700, 1000, 1500, 2500, 5000]  # mm
whole = face - middle  # (V, 3)


def outline(points):
    """The landmarks' lines in one trace: two ends and a gap for each edge."""
    ends = points[torch.tensor(EDGES)]  # (E, 2, 3)
    return torch.cat(
        [ends, torch.full_like(ends[:, :1], torch.nan)], dim=1
    ).flatten(0, 1).T.numpy()


# %% tags=["hide-input"]
def clay(points):
    """Arguments of a clay-like mesh; 16-bit integers keep the page small."""
    light = np.array([-0.3, 0.45, 0.85])
    shade = vertex_normals(points.numpy(), model.triangles.numpy()) @ light
    place = {
        axis: values.short().numpy()
        for axis, values in zip("xyz", (100 * points).round().T)
    }
    return place | {"intensity": (100 * shade).astype(np.int8)}


CORNERS = dict(zip("ijk", model.triangles.short().numpy().T))
LOOK = {
    "colorscale": [[0, "#4d463f"], [0.5, "#a39a90"], [1, "#efe8df"]],
    "cmin": -20,
    "cmax": 100,
    "showscale": False,
    "lighting": {"ambient": 1, "diffuse": 0, "specular": 0},
    "hoverinfo": "skip",
}


# %% tags=["hide-input"]
def at_distance(d):
    seen = torch.cat([perspective(whole, d), scale * whole[:, 2:]], dim=1)
    lines = outline(
        torch.cat([perspective(centred, d), torch.full((68, 1), front)], dim=1)
    )
    error = 100 * nme(weak_perspective(centred), perspective(centred, d))
    label = {
        "text": [f"{error:.1f} %"], "mode": "markers+text",
        "textposition": "middle right"
    }
    return [
        go.Mesh3d({axis: clay(seen)[axis] for axis in "xy"}),
        go.Scatter3d(dict(zip("xyz", (100 * lines).round()))),
        go.Scatter(x=[d / 1000], y=[error], **label),
    ]


front = float(scale * whole[:, 2].max()) + 1  # the lines lie in front of everything
fig = make_subplots(
    2, 1, specs=[[{"type": "scene"}], [{"type": "xy"}]], row_heights=[0.7, 0.3],
    vertical_spacing=0.02
)
mesh, lines, dot = at_distance(STOPS[0])
weak = (
    100
    * outline(torch.cat([scale * centred[:, :2], torch.full((68, 1), front)], dim=1))
).round()
distances = np.geomspace(STOPS[0], STOPS[-1], 40)

# %% tags=["hide-input"]
errors = [
    100 * nme(weak_perspective(centred), perspective(centred, d)) for d in distances
]
fig.add_trace(
    go.Mesh3d(clay(scale * whole) | CORNERS | LOOK).update(x=mesh.x, y=mesh.y), 1, 1
)
for points, name, colour in (
    (lines, "perspective", 1), (dict(zip("xyz", weak)), "weak perspective", 0)
):
    place = {axis: points[axis] for axis in "xyz"}
    look = {
        "mode": "lines", "line": {"color": CATEGORICAL[colour], "width": 6},
        "hoverinfo": "skip"
    }
    fig.add_trace(go.Scatter3d(**place, **look, name=name), 1, 1)
fig.add_trace(
    go.Scatter(
        x=distances / 1000, y=errors, line={"color": CATEGORICAL[0]},
        showlegend=False
    ),
    2, 1
)
fig.add_trace(
    dot.update(marker={"color": CATEGORICAL[1], "size": 12}, showlegend=False), 2, 1
)
fig.frames = [
    go.Frame(data=at_distance(d), traces=[0, 1, 4], name=f"{d / 1000:g}")
    for d in STOPS
]


# %% tags=["hide-input"]
def slider(values, prefix, unit):
    play = {
        "mode": "immediate", "frame": {"duration": 0, "redraw": True},
        "transition": {"duration": 0}
    }
    steps = [
        {"label": f"{v:g}{unit}", "method": "animate", "args": [[f"{v:g}"], play]}
        for v in values
    ]
    return [
        {
            "steps": steps, "currentvalue": {"prefix": prefix},
            "pad": {"t": 50, "b": 10}
        }
    ]


# %% tags=["hide-input"]
hidden = {"visible": False}
span = whole.amax(dim=0) - whole.amin(dim=0)
flat_view = {
    "eye": {"x": 0, "y": 0, "z": 2}, "up": {"x": 0, "y": 1, "z": 0},
    "projection": {"type": "orthographic"}
}
ratio = dict(zip("xyz", (1.9 * span / span.max()).tolist()))
fig.update_scenes(
    xaxis=hidden, yaxis=hidden, zaxis=hidden, aspectmode="manual", aspectratio=ratio,
    camera=flat_view
)
fig.update_xaxes(
    title="distance of the camera (m)", type="log", tickvals=[0.25, 0.5, 1, 2, 5]
)
fig.update_yaxes(title="NME (%)", type="log", tickvals=[0.1, 0.2, 0.5, 1, 2, 5, 10])
fig.update_layout(
    height=720,
    margin={"l": 60, "r": 20, "t": 10, "b": 20},
    legend={"orientation": "h", "y": 1, "x": 0},
    sliders=slider([d / 1000 for d in STOPS], "distance ", " m"),
)
fig


# %% [markdown]
# **Figure 3.1.** A dolly zoom: the camera moves away while its zoom keeps the middle of the face at the same
# size. Above, the face as a perspective camera sees it, its landmarks, and where weak perspective puts them.
# Below, the error. *Try* 0.25 m, a phone held in the hand: the nose swells and the ears hide behind the
# cheeks. Then find the distance at which the two outlines coincide.

# %% [markdown]
# On the usual benchmark, networks for this task have an error of about 3.5 % {cite:p}`tu2021assisted`. Beyond
# about a metre, the camera model accounts for only a small part of that. For selfies its share is large; and
# because a fit must put the error *somewhere*, it ends up in the shape: the narrow face that a close camera
# sees becomes a narrow skull.

# %% [markdown]
# ## Three frames
#
# Weak perspective with a rotation $\mathbf R$ (3×3) and a translation $\mathbf t$ (3) maps a vertex
# $\mathbf S$ of the model to
#
# $$\mathbf v = f\, \mathbf R\, \mathbf S + \mathbf t =
# \underbrace{[\,f \mathbf R \mid \mathbf t\,]}_{3 \times 4} \begin{pmatrix} \mathbf S \\ 1 \end{pmatrix}.$$
#
# The 3×4 matrix is the {term}`pose`. We keep its third row because it gives each vertex a depth, which is
# what hides the far ear behind the head. Before any code, here are the three frames, because many bugs in
# this field come from confusing them:
#
# | frame | origin | $y$ | unit |
# |---|---|---|---|
# | model | near the head's centre | up | mm |
# | crop frame | the centre of the lower left pixel is (1, 1) | up | pixels |
# | pixels | the centre of the upper left pixel is (0, 0) | down | pixels |
#
# In all three, $x$ points to the right of the picture and $z$ towards the viewer. The crop frame exists only
# because the published coefficients {cite:p}`zhu2016face` come from MATLAB, which counts from one. We use it
# inside the pose and nowhere else, and convert at once: $x = v_x - 1$, $y = H - v_y$ in a picture of height
# $H$.

# %%
def project(points, pose):
    """v = [f R | t] (S, 1): model frame -> crop frame."""
    ones = torch.ones(len(points), 1)
    return torch.cat([points, ones], dim=1) @ pose.T  # (N, 4) @ (4, 3)


def to_pixels(points, height):
    """Crop frame -> pixels."""
    x, y, z = points.T
    return torch.stack([x - 1, height - y, z], dim=1)


centre = torch.tensor([60.5, 60.5, 0.0])  # of a 120-pixel crop, counted from 1
shift = centre - scale * middle  # the face's middle goes to the crop's
pose = torch.cat([scale * torch.eye(3), shift[:, None]], dim=1)  # [f R | t], R = 1

torch.testing.assert_close(project(face, pose), camera.project(face, pose))
pixels = to_pixels(project(face, pose), CROP_SIZE)
torch.testing.assert_close(pixels, camera.frame_to_pixels(project(face, pose)))
print(
    "the landmarks' middle:",
    pixels[model.landmarks].mean(dim=0)[:2].numpy().round(2)
)


# %% [markdown]
# (59.5, 59.5) is indeed the middle of a picture whose pixels are numbered from 0 to 119.
#
# ## Three angles
#
# A rotation has three degrees of freedom. They are often given as {term}`Euler angles`: *pitch* (nodding),
# *yaw* (shaking the head) and *roll* (tilting it). The names alone do not define the numbers. We must also
# say in which order the rotations are applied and which direction is positive. The annotations of 300W-LP and
# AFLW2000-3D, on which the field trains and tests, follow
#
# $$\mathbf R = \mathbf R_x(\text{pitch})\, \mathbf R_y(\text{yaw})\, \mathbf R_z(\text{roll}),$$
#
# $$\mathbf R_x = \begin{pmatrix}1&0&0\\0&c&s\\0&-s&c\end{pmatrix},\quad
# \mathbf R_y = \begin{pmatrix}c&0&-s\\0&1&0\\s&0&c\end{pmatrix},\quad
# \mathbf R_z = \begin{pmatrix}c&s&0\\-s&c&0\\0&0&1\end{pmatrix},$$
#
# with $c$ and $s$ the cosine and sine of the angle. Read from right to left: roll is applied first, then yaw,
# then pitch. The signs are the opposite of those in most textbooks. A positive yaw moves the nose to the
# *left* of the picture.

# %%
def turns(pitch, yaw, roll):
    """The three elementary rotations."""
    cp, cy, cr = math.cos(pitch), math.cos(yaw), math.cos(roll)
    sp, sy, sr = math.sin(pitch), math.sin(yaw), math.sin(roll)
    Rx = torch.tensor([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    Ry = torch.tensor([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    Rz = torch.tensor([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return Rx, Ry, Rz


def euler_to_matrix(pitch, yaw, roll):
    Rx, Ry, Rz = turns(pitch, yaw, roll)
    return Rx @ Ry @ Rz


angles = torch.deg2rad(torch.tensor([20.0, 50.0, 25.0]))  # pitch, yaw, roll
R = euler_to_matrix(*angles.tolist())
torch.testing.assert_close(R, camera.euler_to_matrix(angles))
nose = corners[30] - middle
assert (R @ nose)[0] < nose[0]  # positive yaw: the nose goes to the left


# %% [markdown]
# If we multiply out the three matrices, we can read the angles off again. With $c_p$ the cosine of the pitch
# and so on,
#
# $$\mathbf R = \begin{pmatrix} c_y c_r & c_y s_r & -s_y \\
# \cdot & \cdot & s_p c_y \\ \cdot & \cdot & c_p c_y \end{pmatrix},$$
#
# $$\text{pitch} = \operatorname{atan2}(R_{12}, R_{22}),\quad \text{yaw} = -\arcsin R_{02},\quad
# \text{roll} = \operatorname{atan2}(R_{01}, R_{00}).$$
#
# Code that applies the formulas of one convention to matrices of another does not crash. It returns three
# plausible angles that are almost right for nearly frontal faces, where the conventions agree, and wrong for
# all others.

# %%
def matrix_to_euler(R):
    pitch, roll = torch.atan2(R[1, 2], R[2, 2]), torch.atan2(R[0, 1], R[0, 0])
    return torch.stack([pitch, -torch.asin(R[0, 2]), roll])


torch.testing.assert_close(matrix_to_euler(R), angles)
torch.testing.assert_close(camera.matrix_to_euler(R), angles)

Rx, Ry, Rz = turns(*angles.tolist())
other = Rz @ Ry @ Rx  # same numbers, pitch first


def angle_between(A, B):
    """Angle in degrees of the rotation from A to B."""
    cosine = float((torch.trace(A @ B.T) - 1) / 2)
    return math.degrees(math.acos(min(1.0, cosine)))


print(f"the same angles in two conventions: {angle_between(R, other):.1f}° apart")

# %% tags=["hide-input"]
_, axes = plt.subplots(1, 3, figsize=(8, 3.2), layout="constrained")
low, high = whole[:, 1].min(), whole[:, 1].max()
rotations = {
    "no rotation": torch.eye(3), r"$R_x R_y R_z$ (this field)": R,
    r"$R_z R_y R_x$": other
}
for ax, (title, rotation) in zip(axes, rotations.items()):
    viz.shaded_mesh(ax, whole @ rotation.T, model.triangles)
    ax.set(title=title, xlim=(-170, 170), ylim=(low - 25, high + 25))

# %% [markdown]
# **Figure 3.2.** Pitch 20°, yaw 50°, roll 25°, in two conventions. The same numbers, two different heads.
# *Try* other angles in JupyterLab: with only one of them nonzero, the pictures agree.

# %% [markdown]
# ## Where angles fail
#
# Look at the formulas again. The four entries from which we read pitch and roll all carry the factor $c_y$.
# At a yaw of ±90°, in full profile, they vanish, and `atan2(0, 0)` is undefined. The formula is not to blame.
# At 90° nodding and tilting have become *the same movement*: the roll axis has turned into the pitch axis,
# and only one combination of the two angles can be observed. Engineers call this *gimbal lock*.
#
# The damage begins well before the pole. We add noise of 1 % to the entries of a rotation and read the angles
# back:

# %%
generator = torch.Generator().manual_seed(3)
yaws = torch.cat([torch.arange(0, 85, 5.0), torch.arange(85, 90, 0.5)])  # degrees
spread = []
for yaw in yaws.tolist():
    true = torch.tensor([20.0, yaw, -10.0])
    exact = camera.euler_to_matrix(torch.deg2rad(true))
    noisy = exact + 0.01 * torch.randn(2000, 3, 3, generator=generator)
    error = torch.rad2deg(camera.matrix_to_euler(noisy)) - true  # (2000, 3)
    error = (error + 180) % 360 - 180  # -179° and 181° are the same error
    turned = [angle_between(camera.nearest_rotation(M), exact) for M in noisy[:100]]
    spread.append([*error.square().mean(dim=0).sqrt().tolist(), np.mean(turned)])
spread = np.array(spread)  # (yaws, 4): pitch, yaw, roll, whole rotation; degrees

for k in (0, -1):
    angle, whole_rotation = spread[k, 2:]
    print(
        f"yaw {yaws[k]:4.1f}°: roll off by {angle:.1f}°, the rotation by "
        f"{whole_rotation:.1f}°"
    )

# %% tags=["hide-input"]
YAWS = [0, 40, 70, 80, 85, 90]  # degrees
NAMES = {"pitch": CATEGORICAL[0], "yaw": CATEGORICAL[2], "roll": CATEGORICAL[1]}


def gimbal(yaw):
    """The turned face, its three axes of rotation, and a mark in the diagram."""
    Rx, Ry, Rz = turns(math.radians(20), math.radians(yaw), math.radians(-10))
    traces = [go.Mesh3d(**clay(whole @ (Rx @ Ry @ Rz).T))]
    for axis, (name, colour) in zip(
        (torch.eye(3)[0], Rx[:, 1], (Rx @ Ry)[:, 2]), NAMES.items()
    ):
        x, y, z = (torch.tensor([[-18000.0], [18000.0]]) * axis).T.round()
        look = {
            "line": {"color": colour, "width": 14 if name == "pitch" else 7},
            "textfont": {"color": colour, "size": 16},
            "hoverinfo": "skip",
        }
        traces.append(
            go.Scatter3d(
                x=x, y=y, z=z, mode="lines+text", text=["", name], showlegend=False,
                **look
            )
        )
    mark = {
        "mode": "lines", "line": {"color": "#7F7F7F", "width": 3},
        "showlegend": False, "hoverinfo": "skip"
    }
    return [*traces, go.Scatter(x=[yaw, yaw], y=[0.1, 150], **mark)]


# %% tags=["hide-input"]
fig = make_subplots(
    2, 1, specs=[[{"type": "scene"}], [{"type": "xy"}]], row_heights=[0.64, 0.36],
    vertical_spacing=0.06
)
for k, trace in enumerate(gimbal(YAWS[0])):
    fig.add_trace(
        trace.update(CORNERS | LOOK) if k == 0 else trace, 1 if k < 4 else 2, 1
    )
for k, (name, colour) in enumerate((NAMES | {"whole rotation": "#7F7F7F"}).items()):
    style = {"color": colour, "dash": "dot" if k == 3 else None, "width": 3}
    fig.add_trace(
        go.Scatter(x=yaws, y=spread[:, k].round(2), name=name, line=style), 2, 1
    )
fig.frames = [
    go.Frame(data=gimbal(yaw), traces=[0, 1, 2, 3, 4], name=str(yaw)) for yaw in YAWS
]
limits = {"range": [-22000, 22000], "visible": False}
side_view = {
    "eye": {"x": 0.45, "y": 0.35, "z": 1.25}, "up": {"x": 0, "y": 1, "z": 0}
}

# %% tags=["hide-input"]
fig.update_scenes(
    xaxis=limits,
    yaxis=limits,
    zaxis=limits,
    camera=side_view,
    aspectmode="manual",
    aspectratio={"x": 1.15, "y": 1.15, "z": 1.15},
)
fig.update_xaxes(title="yaw (degrees)", range=[0, 91])
fig.update_yaxes(
    title="error (degrees)", type="log", range=[-0.7, 2.1],
    tickvals=[0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
)
fig.update_layout(
    height=720,
    margin={"l": 60, "r": 20, "t": 10, "b": 20},
    legend={"orientation": "h", "y": 0.36, "yanchor": "bottom"},
    sliders=slider(YAWS, "yaw ", "°"),
)
fig

# %% [markdown]
# **Figure 3.3.** Above, the axes about which pitch, yaw and roll turn a face. Below, the error of each angle
# when the matrix has 1 % noise. *Try* moving the yaw to 90°: the axes of pitch and roll become one line, and
# the errors of these two angles explode. The dotted line, the error of the rotation as a whole, stays flat.

# %% [markdown]
# So the rotation itself is well defined everywhere; only its description by angles breaks down. This is one
# reason why the network does *not* predict angles. {py:func}`twodasl_lite.geometry.camera.matrix_to_euler` returns a
# valid answer at the pole too (it sets the roll to zero there), but no code can recover what is not in the
# data.

# %% [markdown]
# ## Twelve numbers for seven
#
# 3DDFA and 2DASL let the network predict the matrix $[f\mathbf R \mid \mathbf t]$ itself, entry by entry:
# twelve numbers for scale (1), rotation (3) and translation (3). The target has no jumps and no angles that
# wrap, but nothing forces the left 3×3 block to be a scaled rotation either. A network's prediction is always
# slightly sheared:

# %%
predicted = pose.clone()
noise = torch.randn(3, 3, generator=generator)
predicted[:, :3] = scale * (R + 0.03 * noise)  # a plausible prediction

rows = predicted[:2, :3]
unit = rows / rows.norm(dim=1, keepdim=True)
apart = math.degrees(math.acos(unit[0] @ unit[1]))
print(
    "lengths of the first two rows:", rows.norm(dim=1).div(scale).numpy().round(3),
    "f"
)
print(f"angle between them: {apart:.1f}°")

U, _, Vt = torch.linalg.svd(unit, full_matrices=False)
two = U @ Vt  # the orthonormal pair closest to the two unit rows
closest = torch.stack([*two, torch.linalg.cross(two[0], two[1])])

f, rotation, t = camera.split_pose(predicted)
torch.testing.assert_close(rotation, closest)
print(f"the closest rotation is {angle_between(rotation, R):.1f}° from the true one")

# %% [markdown]
# We use only the first two rows, because the picture depends on nothing else. Decoding uses the sheared
# matrix *as it is*, in this package as in 3DDFA; {py:func}`twodasl_lite.geometry.camera.split_pose` is for when you
# need an angle.
#
# ## The vector
#
# Pose, shape and expression together form the *coefficients*, the vector that the network of this book
# predicts:
#
# $$\mathbf c = [\;\underbrace{f\mathbf R \mid \mathbf t}_{12,\ \text{row by row}} \mid
# \underbrace{\alpha}_{\text{shape, }40} \mid \underbrace{\beta}_{\text{expression, }10}\;]
# \in \mathbb{R}^{62}$$
#
# This is the layout of 3DDFA {cite:p}`zhu2016face`, which 2DASL {cite:p}`tu2021assisted` keeps. When slices
# such as `c[12:52]` are scattered over a program, sooner or later one of them is wrong, so the package names
# the parts:

# %%
shape, expression = model.sample(1, generator=generator)
by_hand = torch.cat([predicted.flatten(), shape[0], expression[0]])

coefficients = Coefficients(predicted[None], shape, expression)
torch.testing.assert_close(coefficients.pack()[0], by_hand)
again = Coefficients.unpack(by_hand)
assert by_hand.shape == (62,)
assert torch.equal(again.pose, predicted)
assert torch.equal(again.shape, shape[0])

S = model.decode(shape, expression)[0]  # chapter 1: mean + components
pixels = to_pixels(project(S, predicted), CROP_SIZE)
torch.testing.assert_close(decode(coefficients, model)[0], pixels)


# %% [markdown]
# {py:func}`twodasl_lite.faces.decode.decode` is the only path from 62 numbers to pixels. Fitting, losses and
# drawing all use it.
#
# ## Why the vector is whitened
#
# We draw 2,000 faces with random pose, shape and expression (our own choice of distribution). We express the
# coefficients in the units of the Basel Face Model, which 3DDFA and 2DASL use: lengths in micrometres,
# components of unit length. Our model's components are scaled to one standard deviation; rescaling them
# changes the numbers, not the faces.

# %%
def random_faces(count, generator):
    """Coefficient vectors (count, 62) in the units of our model."""
    turn = torch.randn(count, 3, generator=generator).clamp(-2.5, 2.5)
    R = camera.euler_to_matrix(
        torch.deg2rad(turn * torch.tensor([12.0, 35.0, 10.0]))
    )
    sizes = scale * torch.exp(0.1 * torch.randn(count, generator=generator))
    jitter = 3 * torch.randn(count, 3, generator=generator)
    fR = sizes[:, None, None] * R
    t = centre + jitter - fR @ middle  # near the middle of the crop
    pose = torch.cat([fR, t[..., None]], dim=2)
    return Coefficients(pose, *model.sample(count, generator=generator)).pack()


faces = random_faces(2000, generator)  # (2000, 62)

unit = Coefficients.unpack(torch.ones(62))  # the units of BFM
unit.pose[:, :3] = 1 / 1000  # pixels per micrometre, not per millimetre
lengths = 1000 * model.basis.flatten(0, 1).norm(dim=0)  # micrometres, (50,)
unit.shape[:], unit.expression[:] = lengths[:40], lengths[40:]
raw = faces * unit.pack()

mean, std = raw.mean(dim=0), raw.std(dim=0)
whitening = Whitening.from_samples(raw)
white = whitening.whiten(raw)
torch.testing.assert_close(white, (raw - mean) / std, rtol=1e-3, atol=1e-3)
print(f"standard deviations from {std.min():.0e} to {std.max():.0e}")
print(f"condition number of the variances {(std.max() / std.min()) ** 2:.0e}")

# %% [markdown]
# {term}`Whitening <whitening>` subtracts from each entry its mean and divides by its standard deviation, both
# estimated over the training set. (Strictly speaking this is standardisation, since correlations remain; the
# field says whitening.) What happens without it? A mean squared error adds up squared differences, so it
# weights each entry by its variance. And how much does each entry matter in the *picture*? We change it by
# one standard deviation and measure how far the landmarks move.

# %%
weight = std**2 / (std**2).sum()  # share of each entry in an unwhitened error

some = faces[:50]
before = decode_landmarks(some, model)[..., :2]  # (50, 68, 2)
effect = []
for k in range(62):
    moved = some.clone()
    moved[:, k] += faces[:, k].std()
    after = decode_landmarks(moved, model)[..., :2]
    effect.append(float((after - before).norm(dim=-1).mean()))  # pixels

names, largest = CoefficientLayout().names, int(weight.argmax())
print(f"the pose's share of the unwhitened error: {weight[:12].sum():.0e}")
print(f"the share of {names[largest]} alone: {weight[largest]:.0%}")
print("no pixel moves:", [name for name, e in zip(names, effect) if e == 0])

# %% tags=["hide-input"]
kinds = {
    "f R": [0, 1, 2, 4, 5, 6, 8, 9, 10], "t": [3, 7, 11], "shape": range(12, 52),
    "expression": range(52, 62)
}
_, axes = plt.subplots(3, 1, figsize=(8, 6), sharex=True, layout="constrained")
panels = (
    ("std of the entry", std), ("share of an\nunwhitened MSE", weight),
    ("landmarks move\nby (pixels)", effect)
)
for ax, (title, values) in zip(axes, panels):
    for (kind, members), colour in zip(kinds.items(), CATEGORICAL):
        index = list(members)
        ax.bar(index, np.asarray(values)[index], color=colour, label=kind)
    ax.set_ylabel(title)
axes[0].set_yscale("log")
axes[0].legend(ncol=4, loc="upper center", bbox_to_anchor=(0.5, 1.3), frameon=False)
_ = axes[2].set_xlabel("entry of the coefficient vector")


# %% [markdown]
# **Figure 3.4.** Above, the standard deviation of each entry (note the logarithmic axis). Middle, its share
# of an unwhitened squared error: a few entries account for almost all of it, the pose for almost nothing.
# Below, its effect in the picture: there the pose dominates. *Try* to find the four entries with no bar in
# the lowest panel: they are the third row of the pose, the subject of the section "What no photograph says".

# %% [markdown]
# The difference shows in training. Here is a small learner, one linear layer from the 68 projected landmarks
# to the coefficients, trained twice with the same optimiser, the same learning rate and the same number of
# steps:

# %%
def train(target, steps=400):
    """Least squares by Adam, from the landmarks' coordinates to the target."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(inputs.shape[1], 62)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(layer(inputs), target).backward()
        optimiser.step()
    return layer(inputs).detach()


points = decode_landmarks(faces, model)[..., :2]  # (2000, 68, 2)
inputs = Whitening.from_samples(points.flatten(1)).whiten(points.flatten(1))
answers = {"raw": train(raw), "whitened": whitening.unwhiten(train(white))}
for name, answer in answers.items():
    drawn = decode_landmarks(answer / unit.pack(), model)[..., :2]
    error = float((drawn - points).norm(dim=-1).mean())
    print(f"{name:>8}: landmarks off by {error:,.1f} pixels")

# %% [markdown]
# A better optimiser and more steps would narrow the gap; whitening closes it at no cost. It makes all entries
# equally important, which is still not what the lower panel asks for. Chapter 9 deals with that.
#
# ## What no photograph says
#
# The third row of $[f\mathbf R \mid \mathbf t]$ sets the depths, and no pixel depends on it. Three of its
# four entries can be recovered, since the third row of a rotation is the cross product of the other two. The
# fourth, $t_z$, cannot: a weak-perspective camera has no distance. Every value explains the picture equally
# well:

# %%
deeper = faces[:1].clone()
deeper[0, 11] += 1000  # t_z is entry 11: row 2, column 3
here, there = decode(faces[:1], model), decode(deeper, model)
assert torch.equal(here[..., :2], there[..., :2])
change = float((there - here)[..., 2].mean())
print(f"the depth changed by {change:.0f}, and no pixel moved")

# %% [markdown]
# So $t_z$ is a matter of *convention*. When we generate data ourselves, the middle of the landmarks has depth
# zero. To compare the depths of two methods, first subtract the mean of each; otherwise you compare their
# conventions.
#
# ## Half a pixel
#
# The coefficients refer to a 120×120 *crop*. A pixel is a little square, not a point: pixel 0 extends from
# −0.5 to 0.5. A box that covers the pixels `left` to `right` is therefore
# $w = \text{right} - \text{left} + 1$ wide and begins at $\text{left} - 0.5$. Resizing it to 120 pixels must
# map edges to edges:
#
# $$x_\text{crop} + 0.5 = \tfrac{120}{w} \, (x_\text{image} - \text{left} + 0.5).$$
#
# The published benchmark scripts use $120 / (\text{right} - \text{left})$ and leave out the halves. Which is
# right? A bright spot and a real crop decide:

# %%
box = torch.tensor([40.0, 30.0, 99.0, 89.0])  # 60 x 60 pixels, enlarged twice
spot = torch.tensor([[46.0, 36.0]])
photo = np.zeros((128, 128, 3), np.uint8)
photo[36, 46] = 255

bright = torch.from_numpy(crop_photo(photo, box)[..., 0]).float()  # (120, 120)
y, x = torch.meshgrid(torch.arange(120.0), torch.arange(120.0), indexing="ij")
found = torch.stack([(bright * x).sum(), (bright * y).sum()]) / bright.sum()

by_hand = CROP_SIZE / (box[2] - box[0] + 1) * (spot - box[:2] + 0.5) - 0.5
torch.testing.assert_close(camera.image_to_crop(spot, box), by_hand)
torch.testing.assert_close(by_hand[0], found, rtol=0, atol=0.05)
bench = camera.image_to_crop(spot, box, mapping="bench")
print("found at", found.numpy().round(2))
print("exact   ", by_hand[0].numpy().round(2))
print("bench   ", bench[0].numpy().round(2))

# %% [markdown]
# The exact mapping is right by construction; the other is off by up to half a pixel of the crop plus half a
# pixel of the image. We use `mapping="exact"` wherever pixels matter, and offer `mapping="bench"` because a
# fair comparison with published numbers needs the mapping they were measured with.

# %% [markdown]
# ## Summary
#
# - Weak perspective draws every point at the same scale $f$. Its error falls with the camera's distance: fine
#   beyond about a metre, not for selfies.
# - Three frames: model (mm, y up), crop frame (pixels from 1, y up), pixels (from 0, y down). Only the pose
#   uses the second.
# - $\mathbf R = \mathbf R_x \mathbf R_y \mathbf R_z$; the same angles in another convention describe another
#   head. At a yaw of ±90°, pitch and roll are the same movement. The rotation itself stays well defined, so
#   networks predict $[f\mathbf R \mid \mathbf t]$.
# - $\mathbf c = [f\mathbf R \mid \mathbf t \mid \alpha \mid \beta]$, $12 + 40 + 10 = 62$ numbers of very
#   different sizes. Whitened, all count equally; raw, only a few entries count.
# - Depth cannot be seen: $t_z$ is a convention.
# - Pixels are squares: map edges to edges.
#
# The camera, the layout and the whitening are those of 3DDFA, which the paper adopts. The symmetric nearest
# rotation, the convention for $t_z$ and the random faces of this chapter are ours.

# %% [markdown]
# ## Exercises
#
# ### Exercise 3.1 · How far is far enough?
#
# Find the smallest camera distance in mm (to within 5 mm) at which weak perspective at the same scale has an
# NME of at most 1 % for the average face. Bisection is good enough.

# %% tags=["exercise"]
smallest_distance = 500.0

# %% tags=["solution"]
low, high = 200.0, 10_000.0
while high - low > 1:
    half = (low + high) / 2
    good = nme(weak_perspective(centred), perspective(centred, half)) <= 0.01
    low, high = (low, half) if good else (half, high)
smallest_distance = high

# %% tags=["check"]
error = nme(weak_perspective(centred), perspective(centred, smallest_distance))
closer = nme(weak_perspective(centred), perspective(centred, smallest_distance - 5))
assert error <= 0.0101, (
    f"At this distance the NME is still {error:.2%}: go further away."
)
assert closer > 0.01, (
    f"Not the smallest: 5 mm closer, {closer:.3%} is still at most 1 %."
)
print("✓ far enough, and not further")


# %% [markdown]
# ### Exercise 3.2 · Another convention
#
# Write the inverse for the textbook order
# $\mathbf R_z(\text{roll})\,\mathbf R_y(\text{yaw})\,\mathbf R_x(\text{pitch})$, with the elementary matrices
# of this chapter. Multiply them out on paper first: which row and column are simple now?

# %% tags=["exercise"]
def textbook_angles(R):
    """Pitch, yaw, roll of R = Rz Ry Rx."""
    return matrix_to_euler(R)  # right only when a single angle differs from zero


# %% tags=["solution"]
def textbook_angles(R):
    """Pitch, yaw, roll of R = Rz Ry Rx, from its third row and first column."""
    pitch, roll = torch.atan2(-R[2, 1], R[2, 2]), torch.atan2(-R[1, 0], R[0, 0])
    return torch.stack([pitch, torch.asin(R[2, 0]), roll])


# %% tags=["check"]
single = 0.4 * torch.eye(3)
for wanted in [
    *single, torch.tensor([0.3, -0.9, 0.5]), torch.tensor([-0.2, 1.2, -2.5])
]:
    Rx, Ry, Rz = turns(*wanted.tolist())
    error = (textbook_angles(Rz @ Ry @ Rx) - wanted).abs()
    worst = ("pitch", "yaw", "roll")[int(error.argmax())]
    assert error.max() < 1e-4, (
        f"At {wanted.numpy()} your {worst} is off by {error.max():.2f}."
    )
print("✓ the same rotation, read in another convention")

# %% [markdown]
# ### Exercise 3.3 · Two names for one head
#
# At yaw 90°, find two triples of angles (in degrees) whose pitches differ by 50° and which give the same
# matrix.

# %% tags=["exercise"]
first = [10.0, 90.0, 0.0]
second = [60.0, 90.0, 0.0]

# %% tags=["solution"]
first = [10.0, 90.0, 0.0]  # at +90° the matrix holds only pitch - roll
second = [60.0, 90.0, 50.0]

# %% tags=["check"]
A, B = camera.euler_to_matrix(torch.deg2rad(torch.tensor([first, second])))
assert first[1] == second[1] == 90, "Both yaws must be 90°."
assert abs(abs(first[0] - second[0]) - 50) < 1e-6, "The pitches must differ by 50°."
apart = math.degrees(float((A - B).norm()) / 2**0.5)
assert apart < 0.1, (
    f"These rotations are about {apart:.0f}° apart: which axes are one?"
)
print("✓ gimbal lock")


# %% [markdown]
# ### Exercise 3.4 · The mirror <a id="the-mirror"></a>
#
# Flipping every photograph doubles the training data, provided the coefficients are flipped too. A picture of
# width 120 is flipped left to right, so that pixel $x$ goes to $119 - x$; the mesh is mirrored too
# ($X \to -X$ in the model frame). Write the pose of the mirrored face in the mirrored picture. What happens
# to $t_x$ in the crop frame, which counts from 1?

# %% tags=["exercise"]
def flip_pose(pose):
    """Pose (3, 4) of the mirrored mesh in the mirrored crop."""
    return pose.clone()


# %% tags=["solution"]
def flip_pose(pose):
    """v_x -> 121 - v_x, S_x -> -S_x: signs of the first row and the first column."""
    signs = torch.tensor([-1.0, 1.0, 1.0])
    fR = signs[:, None] * pose[:, :3] * signs
    t = signs * pose[:, 3] + torch.tensor([CROP_SIZE + 1.0, 0.0, 0.0])
    return torch.cat([fR, t[:, None]], dim=1)


# %% tags=["check"]
some_pose = Coefficients.unpack(faces[7]).pose
flipped = flip_pose(some_pose)
mirror = torch.tensor([-1.0, 1.0, 1.0])
straight = to_pixels(project(face, some_pose), CROP_SIZE)
mirrored = to_pixels(project(face * mirror, flipped), CROP_SIZE)
off = mirrored[:, 0] - (119 - straight[:, 0])
assert torch.linalg.det(flipped[:, :3]) > 0, (
    "The 3×3 part must not mirror: the mesh already does."
)
assert off.std() < 1e-2, "x of the mirrored face is wrong: look at the signs of f R."
assert off.abs().max() < 1e-2, (
    f"x is right but for a shift of {off.mean():.1f}: look at t."
)
assert torch.allclose(mirrored[:, 1:], straight[:, 1:], atol=1e-2), (
    "y or z has changed."
)
before, after = (
    float(camera.matrix_to_euler(p[:, :3])[1]) for p in (some_pose, flipped)
)
print(f"✓ a yaw of {math.degrees(before):.0f}° became {math.degrees(after):.0f}°")

# %% [markdown]
# ## Further reading
#
# - {cite:t}`zhu2016face` introduced this coefficient vector, its weights, and the training data with its pose
#   convention.
# - {cite:t}`tu2021assisted`, the paper of this book, section 3.
# - {cite:t}`hartley2004multiple` on cameras, from affine to projective, and on what can be recovered from
#   pictures.
# - A. Bas and W. A. P. Smith, [What does 2D geometric information really tell us about 3D face
#   shape?](https://arxiv.org/abs/1708.06703) (2019), on how the camera's distance and the face's shape are
#   mixed up in landmarks.
# - {cite:t}`zhou2019continuity` show why three or four numbers cannot describe all rotations without a jump,
#   and why six can.
#
# Next: [chapter 4](04_fit_a_face_to_a_photograph.ipynb) finds the 62 numbers of a real photograph, without a
# network.
