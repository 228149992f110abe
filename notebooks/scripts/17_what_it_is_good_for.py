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
# # What it is good for
#
# *You have the numbers of a face. What can be done with them, and what should not be done?*
#
# **You need** a fit to a photograph ([chapter 4](04_fit_a_face_to_a_photograph.ipynb)), pictures drawn from meshes
# ([chapter 6](06_from_mesh_to_picture.ipynb)), and the network of
# [chapter 14](14_training_2dasl.ipynb), which comes trained.
#
# **After this chapter you can**
#
# - reconstruct a face in a photograph of your own, and map the prediction from the crop back to the
#   photograph,
# - put the expression of one face onto another,
# - put one face over another in a picture, and say what each step of it is for,
# - take a face to another program in the right units,
# - say what a reconstruction does not know, and whom to ask first.
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
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from twodasl_lite import viz
from twodasl_lite.apps.export import export_mesh
from twodasl_lite.apps.reconstruction import reconstruct
from twodasl_lite.apps.transfer import retarget_expression, swap_faces
from twodasl_lite.datasets.examples import astronaut
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.faces.fitting import fit_landmarks
from twodasl_lite.faces.texture import face_triangles, photo_colours, seen_vertices
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.photos import crop_photo, landmarks_box, sample_colours
from twodasl_lite.networks.prediction import predict_with
from twodasl_lite.networks.trained import trained_regressor
from twodasl_lite.render import interpolate, over, rasterize, render
from twodasl_lite.viz.alignment import overlay_picture
from twodasl_lite.viz.palette import HOUSE_STYLE
from twodasl_lite.worlds.synthetic import TEST_SEED, SyntheticFaces

plt.rcParams.update(HOUSE_STYLE)

model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components
photo, clicked, visible = astronaut()
height, width = photo.shape[:2]
trained = trained_regressor("all")

# %% [markdown]
# ## From the crop to the photograph
#
# A network sees a crop of 120×120 pixels and predicts in the pixels of that crop. We want the result in the
# pixels of the photograph. Let the crop box begin at $(l, t)$ and be $b$ pixels wide, so that $k = 120 / b$.
# Pixel edges map to pixel edges, so a point $(x, y)$ of the crop, counted from 0 with $y$ down, lies at
#
# $$x' = \frac{x + \frac12}{k} + l - \frac12, \qquad y' = \frac{y + \frac12}{k} + t - \frac12 .$$
#
# The pose maps to the frame of [chapter 3](03_sixty_two_numbers.ipynb), from 1 with $y$ up: $v_x = x + 1$ and
# $v_y = 120 - y$ in the crop, $v'_y = H - y'$ in a photograph of height $H$. Substituting one into the other
# leaves the coefficients unchanged except for the pose,
#
# $$ f' \mathbf R = \frac{f \mathbf R}{k}, \qquad
# t'_x = \frac{t_x - \frac12}{k} + l + \frac12, \qquad
# t'_y = \frac{t_y - \frac12 - 120}{k} + H - t + \frac12, \qquad t'_z = \frac{t_z}{k} .$$

# %%
box = landmarks_box(clicked[visible])
# (1, 3, 120, 120)
crop = torch.from_numpy(crop_photo(photo, box)).permute(2, 0, 1)[None]
answer = predict_with(trained, crop, model=model)  # no landmarks: an empty map first


def pose_in_photo(pose, box, height):
    """Pose (3, 4) of a crop in the frame of the whole photo."""
    left, top, right, _ = box.tolist()
    k = 120 / (right - left + 1)
    linear, (tx, ty, tz) = pose[:, :3], pose[:, 3].tolist()
    x = (tx - 0.5) / k + left + 0.5
    y = (ty - 0.5 - 120) / k + height - top + 0.5
    return torch.cat([linear / k, torch.tensor([[x], [y], [tz / k]])], dim=1)


seen_in_crop = Coefficients.unpack(answer.coefficients[0], model.layout)
by_hand = seen_in_crop._replace(pose=pose_in_photo(seen_in_crop.pose, box, height))
(packaged,) = reconstruct(photo, trained, model, crop_boxes=box)
torch.testing.assert_close(
    by_hand.pack(), packaged.coefficients, rtol=1e-4, atol=1e-3
)

# %% [markdown]
# {py:func}`twodasl_lite.apps.reconstruction.reconstruct` does this for any photograph. It needs to know where the
# faces are: from landmarks, which the network then sees too, from a box, or from a face detector. A
# hand-drawn box contains more forehead than the training crops do, so the package crops a second time, around
# the landmarks of its own first prediction. We compare three ways: the fit of chapter 4 to all clicked
# points; the network with 18 of them in its landmark map; the network with only a box.

# %%
fit = fit_landmarks(clicked[None], model, weights=visible.float(), height=height)
drawn_box = torch.tensor([172.0, 70.0, 275.0, 188.0])  # by eye: hair line to chin
(with_points,) = reconstruct(
    photo, trained, model, landmarks=clicked, visible=visible
)
(with_box,) = reconstruct(photo, trained, model, boxes=drawn_box)

faces = {
    "fit to 68 points": decode(fit.coefficients, model, height)[0],
    "network, 18 points": with_points.vertices,
    "network, box alone": with_box.vertices,
}
extent = clicked[visible].amax(dim=0) - clicked[visible].amin(dim=0)
size = float(extent.prod().sqrt())
for name, vertices in faces.items():
    away = (vertices[model.landmarks, :2] - clicked)[visible].norm(dim=1).mean()
    print(f"{name:19} {away:5.1f} pixels, {away / size:5.1%} of the face's size")

# %% tags=["hide-input"]
view = (slice(20, 230), slice(125, 325))  # rows, columns of the photo


def close_up(axes, picture, title=""):
    """Show the part of a picture that holds the face, whatever its resolution."""
    times = picture.shape[0] // height
    rows, columns = (slice(s.start * times, s.stop * times) for s in view)
    axes.imshow(picture[rows, columns])
    axes.set_title(title, fontsize=10)
    axes.axis("off")


figure, panels = plt.subplots(1, 4, figsize=(8, 2.5), layout="constrained")
close_up(panels[0], photo, "photograph")
for axes, (name, vertices) in zip(panels[1:], faces.items(), strict=True):
    marks = [vertices[model.landmarks]]
    close_up(axes, overlay_picture(photo, [vertices], model, landmarks=marks), name)

# %% [markdown]
# **Figure 17.1.** Three reconstructions over the photograph. *Compare* the line of the mouth and the outline
# of the jaw, then the errors above.
#
# The comparison is not quite fair. The fit is measured on the points that it was fitted to, which flatters
# it. The network is the small one of this book, trained briefly on synthetic pictures alone: it has never
# seen a photograph, and the less information it gets, the more this shows. [Chapter 16](16_in_the_wild.ipynb)
# measures it on two thousand photographs. For the rest of this chapter we use the fit.
#
# In a terminal, the same works for your own pictures, folders and videos, and writes everything to files:
#
# ```
# twodasl reconstruct me.jpg --box 172 70 275 188
# twodasl reconstruct holidays/ --detector face_detection_yunet_2023mar.onnx
# ```
#
# ## Transfer an expression
#
# $\mathbf S = \bar{\mathbf S} + \mathbf A \alpha + \mathbf E \beta$: who somebody is and what the face is
# doing are separate numbers. {term}`Retargeting <retargeting>` takes $\beta$ from an actor and everything
# else from the target:
#
# $$ c = (\text{pose}_\text{target},\; \alpha_\text{target},\; \beta_\text{actor}). $$
#
# Our actor does not exist: it is a picture of the labelled world ([chapter 7](07_two_worlds.ipynb)) with its
# mouth wide open. We reconstruct it like any other, from its landmarks. To draw an open mouth, we also need
# what is behind the lips.

# %%
cast = SyntheticFaces(model, "labelled", seed=TEST_SEED)
actor = cast.batch(35, 1)
actor_photo = actor.images[0].permute(1, 2, 0).numpy()  # (120, 120, 3)
actor_fit = fit_landmarks(actor.landmarks[..., :2], model).coefficients
target = fit.coefficients

by_hand = Coefficients(target.pose, target.shape, actor_fit.expression)
moved = retarget_expression(actor_fit, target)
assert all(torch.equal(a, b) for a, b in zip(by_hand, moved, strict=True))

triangles = face_triangles(model)  # skin and eyes, without neck and scalp
regions = ("mouth_interior", "teeth_upper", "teeth_lower")
inside = torch.cat([model.regions[name] for name in regions])
shown = torch.zeros(model.num_vertices, dtype=torch.bool)
shown[triangles.unique()] = shown[inside] = True
with_mouth = model.triangles[shown[model.triangles].all(dim=1)]
# files get only the vertices that are drawn
used, part = with_mouth.unique(return_inverse=True)

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 3, figsize=(8, 3.1), layout="constrained")
panels[0].imshow(actor_photo)
panels[0].set_title("the actor, from nowhere", fontsize=10)
panels[0].axis("off")
for axes, coefficients, title in (
    (panels[1], actor_fit, "reconstructed"),
    (panels[2], moved, "on the astronaut"),
):
    surface = model.decode(coefficients.shape, coefficients.expression)[0]
    viz.shaded_mesh(axes, surface[used], part, pixels=400)
    axes.set_title(title, fontsize=10)

# %% [markdown]
# **Figure 17.2.** The actor's picture, the actor's mesh, and the astronaut's mesh with the actor's
# expression. *Look for* what ten components lost on the way.
#
# Two things limit the result. Ten components cannot express everything that a face does ([chapter
# 5](05_the_models_people_use.ipynb)). And a fit divides what it sees between $\alpha$ and $\beta$ according
# to the prior: a person whose mouth is always slightly open would pass some of that on to the target. If
# there is a second picture of the actor with a neutral face, transfer the *difference* ([exercise 17.3](#transfer-the-difference)).
#
# With colours sampled from the photograph, we can turn the mesh while it changes:

# %%
her_vertices = faces["fit to 68 points"]
paint = photo_colours(photo, her_vertices, model)  # (V, 3)
amounts = (0.0, 0.25, 0.5, 0.75, 1.0)
mixtures = [retarget_expression(actor_fit, target, amount) for amount in amounts]
steps = torch.stack([model.decode(c.shape, c.expression)[0, used] for c in mixtures])
viz.slider_frames(
    steps, part, [f"{a:.0%}" for a in amounts], paint[used], prefix="expression: ",
    yaw=20, height=460
)


# %% [markdown]
# **Figure 17.3.** From her expression to the actor's. *Move* the slider, then turn the face. Hidden parts
# take the colour of the other half, or of the average face in her skin tone; teeth and the inside of the
# mouth come from the model, since the photograph does not show hers.
#
# ## Swap a face
#
# Vertex 1,234 is the same spot on every face of the model, and that lets us move a face between pictures. For
# each pixel that the *target's* mesh covers, find which triangle it shows and where in the triangle it lies
# (chapter 6); the same triangle of the *source's* mesh tells us which pixel of the source's photograph shows
# that spot. Look up the colour there.

# %%
def look_up(
    source_photo, source_vertices, target_vertices, triangles, height, width
):
    """Source's colours (H, W, 3) in the target's place, and where they are known."""
    fragments = rasterize(
        target_vertices[None], triangles, height, width, cull="back"
    )
    # (H, W, 2)
    places = interpolate(source_vertices[:, :2], triangles, fragments)[0]
    colours = sample_colours(source_photo, places.reshape(-1, 2))
    return colours.reshape(height, width, 3), fragments.covered[0]


# %%
wearer = cast.batch(18, 1)
wearer_photo = wearer.images[0].permute(1, 2, 0).numpy()
wearer_fit = fit_landmarks(wearer.landmarks[..., :2], model).coefficients
wearer_vertices = decode(wearer_fit, model)[0]

colours, covered = look_up(
    wearer_photo, wearer_vertices, her_vertices, triangles, height, width
)
pasted = photo.copy()
pasted[covered.numpy()] = (colours[covered] * 255).round().to(torch.uint8).numpy()

plain = {"feather": 0, "match_colours": False}
quick = swap_faces(
    wearer_photo, wearer_vertices, photo, her_vertices, triangles, **plain
)
known = seen_vertices(wearer_vertices, triangles, 120, 120).float()[:, None]
fragments = rasterize(her_vertices[None], triangles, height, width, cull="back")
known = (interpolate(known, triangles, fragments)[0, ..., 0] > 0.5).numpy()
assert np.abs(quick[known].astype(int) - pasted[known]).max() <= 2

# %% [markdown]
# That alone looks like a mask cut out with scissors. Three more steps make it convincing. *Hidden parts*:
# where the source was hidden (the inside of a nostril, the far cheek) there is no colour to look up, so the
# target keeps its own. *Tone*: the two were lit differently, so the mean and standard deviation in CIELAB are
# set to the target's {cite:p}`reinhard2001color`. *The seam*: the picture blends from one to the other over a
# band inside the edge, a few per cent of the face wide.

# %%
swapped = swap_faces(wearer_photo, wearer_vertices, photo, her_vertices, triangles)
other_way = swap_faces(photo, her_vertices, wearer_photo, wearer_vertices, triangles)

# Her own face, warped to the actor's expression, over a drawing of the inside of the
# mouth:
after = decode(moved, model, height)[0]
behind_lips = torch.zeros(model.num_vertices, dtype=torch.bool)
behind_lips[inside] = True
mouth = model.triangles[behind_lips[model.triangles].all(dim=1)]
drawn = render(after[None], mouth, 0.85 * paint, height, width, supersample=2)
behind = (
    over(drawn, torch.from_numpy(photo).float() / 255)[0] * 255
).to(torch.uint8).numpy()
gentle = {"match_colours": False, "feather": 0.02}
surprised = swap_faces(photo, her_vertices, behind, after, triangles, **gentle)

# %% tags=["hide-input"]
figure, panels = plt.subplots(2, 3, figsize=(8, 5.6), layout="constrained")
for axes, picture, title in zip(
    panels.flat,
    (wearer_photo, pasted, swapped, photo, surprised, other_way),
    (
        "source, from nowhere",
        "looked up alone",
        "with tone and seam",
        "target",
        "the target, the actor's expression",
        "the other way",
    ),
    strict=True,
):
    if picture.shape[0] == height:
        close_up(axes, picture, title)
    else:
        axes.imshow(picture)
        axes.set_title(title, fontsize=10)
        axes.axis("off")

# %% [markdown]
# **Figure 17.4.** Above, a face that belongs to nobody in the astronaut's place, first as looked up and then
# blended. Below, her photograph, her photograph with the actor's expression by the same function (source and
# target are both her), and her face in the synthetic picture. *Look for* what gives each of them away.
#
# Warping can only move existing pixels. We had to draw the inside of the open mouth, because the photograph
# does not show hers; hair and glasses do not move; shadows stay where the original lamp cast them.
#
# ## Before you do it to somebody
#
# The person in this chapter is a public figure in a public-domain portrait, her pictures stay in a textbook,
# and every changed one is labelled as changed. That is the minimum. **Ask the people whose faces you use,
# before, and for this use**: nobody puts a photograph on the web for this purpose. A face in a place where it
# never was, or saying what its owner never said, has been used to deceive, to blackmail and to shame, mostly
# women, mostly without any skill that a student of this chapter would lack. In many countries it is a crime.
# Say in the picture itself, not only in its caption, that it was made; do not show a real person doing what
# they did not do unless they agreed; keep other people's faces and coefficients no longer than you need them,
# since a face cannot be changed like a password. The method will not check any of this for you.
#
# ## What the numbers do not know
#
# A second kind of misuse is to trust the numbers too much. Coefficients look like measurements. How much of
# them is measured? The fit can tell: it knows how much each coefficient could change without contradicting
# the landmarks.

# %%
unsure = fit_landmarks(
    clicked[None], model, weights=visible.float(), height=height, uncertainty=True
).uncertainty
# (40,); 1: as uncertain as without a picture
left = unsure.shape[0] / model.shape_std
print(
    f"standard deviations left: {left.min():.2f} for the best-known coefficient, "
    f"{left.median():.2f} in the median"
)
print(
    f"{left.square().mean():.0%} of the variance is still open, filled in by the "
    "prior"
)

# %% [markdown]
# So most of the shape comes from the prior. It does not identify people, least of all in surveillance
# pictures, and should not be used to try. The model was made from measurements of adults: a child comes out
# as a small adult. Its colours and shapes contain only the variety that its makers put in, and people who are
# missing there are reconstructed less well ([chapter 2](02_build_the_morphable_model.ipynb)). And no
# coefficient says what somebody feels: a smile is a position of the mouth.
#
# ## Take it with you
#
# Other programs can open meshes, but they do not know the unit. Ours is the millimetre; the glTF standard
# uses the metre, so {py:func}`twodasl_lite.apps.export.export_mesh` multiplies by 0.001 there. OBJ and PLY have no
# unit: state it in a comment or an accompanying file.

# %%
surface = model.decode(moved.shape, moved.expression)[0]
path = export_mesh(
    Path("downloads") / "retargeted.glb", surface[used], part, paint[used],
    units=model.units
)
tall = float(surface[used, 1].max() - surface[used, 1].min())
print(
    f"{path.name}: {path.stat().st_size / 1024:.0f} kB, {tall:.0f} {model.units} "
    f"tall, {tall / 1000:.3f} in the file"
)

# %% [markdown]
# Download: [retargeted.glb](downloads/retargeted.glb)
#
# ## Your own face
#
# The page [Your own face](../book/your_face.md) runs this chapter's network in your browser, without a kernel. In JupyterLab the
# cell below takes a photo as well: the face should fill its middle, and nothing leaves your machine.

# %% tags=["live-only"]
from twodasl_lite.viz.viewer import photo_uploader


def find_face(picture):
    rows, columns = picture.shape[:2]
    half = 0.28 * min(rows, columns)  # the box: from the brows to the chin
    x, y = columns / 2, rows / 2
    box = torch.tensor([x - half, y - half, x + half, y + half])
    faces = reconstruct(picture, trained, model, boxes=box)
    return [face.coefficients for face in faces]


photo_uploader(find_face, model)


# %% [markdown]
# ## Summary
#
# - From the crop back to the photograph only the pose changes, by one scale and one shift.
# - A network needs to know where the face is; the better that information, the better the prediction.
# - Expressions transfer between faces as coefficients; differences from neutral transfer better.
# - Faces move between pictures through the common mesh: look up, match the tone, blend.
# - One picture leaves most of the shape undetermined. Ask people before you use their face, and say that you
#   did.
#
# {cite:t}`tu2021assisted` show retargeting and swapping without code; the look-up through the mesh, the tone
# and the seam here are ours.
#
# ## Exercises
#
# ### Exercise 17.1 · Stabilise a video
#
# Frame by frame, the predictions jitter. `twodasl reconstruct` smooths the coefficients of a video,
# $\bar c_t = s\, \bar c_{t-1} + (1 - s)\, c_t$. If each $c_t$ has independent noise of standard deviation
# $\sigma$, what is the standard deviation of $\bar c_t$ in the long run? Write `smoothing_for(part)`: the $s$
# that leaves that fraction of $\sigma$. (What is the price? Think of a head that turns.)

# %% tags=["exercise"]
def smoothing_for(part):
    """The s that leaves a standard deviation of part * sigma, 0 < part <= 1."""
    return 0.0


# %% tags=["solution"]
def smoothing_for(part):
    """The s that leaves a standard deviation of part * sigma, 0 < part <= 1."""
    # Variance in the long run: v = s² v + (1 - s)² sigma², so v = sigma² (1 - s) /
    # (1 + s). The price is a delay of s / (1 - s) frames behind a steady movement.
    return (1 - part**2) / (1 + part**2)


# %% tags=["check"]
noise = np.random.default_rng(0).normal(size=(400, 2000))
for part in (1.0, 0.5, 0.25):
    s = smoothing_for(part)
    assert 0 <= s < 1, f"s = {s}: expected 0 or more, below 1."
    calm = noise[0]
    for fresh in noise[1:]:
        calm = s * calm + (1 - s) * fresh
    found = calm.std()
    assert abs(found / part - 1) < 0.07, (
        f"s = {s:.2f} leaves {found:.2f} of sigma, not {part}."
    )
print("✓ and halving the jitter costs a delay of", round(0.6 / 0.4, 1), "frames")

# %% [markdown]
# ### Exercise 17.2 · A caricature
#
# Caricaturists exaggerate what makes a face differ from the average. Compute coefficients of the astronaut
# with all differences *of shape* doubled; expression and pose stay the same.

# %% tags=["exercise"]
caricature = target

# %% tags=["solution"]
caricature = target._replace(shape=2 * target.shape)

# %% tags=["check"]
assert torch.equal(caricature.pose, target.pose), (
    "The head has moved: leave the pose."
)
assert torch.equal(caricature.expression, target.expression), (
    "The expression has changed."
)
usual = model.decode(target.shape)[0] - model.mean
exaggerated = model.decode(caricature.shape)[0] - model.mean
ratio = float((exaggerated * usual).sum() / usual.square().sum())
assert abs(ratio - 2) < 0.01, (
    f"Differences from the average are {ratio:.2f} times as large."
)
print("✓ twice as much herself")

# %% [markdown]
# ### Exercise 17.3 · Transfer the difference <a id="transfer-the-difference"></a>
#
# `neutral_fit` is the same actor with a neutral face, fitted like the other picture; its expression is not
# exactly zero. Add to the astronaut's own expression what the actor *did* between the two pictures.

# %% tags=["exercise"]
rest = Coefficients.unpack(actor.coefficients, model.layout)
rest = rest._replace(expression=0 * rest.expression)
neutral_fit = fit_landmarks(
    decode_landmarks(rest, model)[..., :2], model
).coefficients
difference = target

# %% tags=["solution"]
did = actor_fit.expression - neutral_fit.expression
difference = target._replace(expression=target.expression + did)

# %% tags=["check"]
assert not torch.equal(difference.expression, target.expression), (
    "Her expression has not changed."
)
assert torch.equal(difference.shape, target.shape), "This is no longer her shape."
done = difference.expression - target.expression
gap = float((done - (actor_fit.expression - neutral_fit.expression)).abs().max())
assert gap < 1e-4, f"Not what the actor did: off by up to {gap:.2g}."
bias = float((neutral_fit.expression / model.expression_std).norm())
print(
    f"✓ the actor's neutral face was fitted with an expression of {bias:.1f} sigma"
)

# %% [markdown]
# ## Further reading
#
# - {cite:t}`thies2016face2face` retarget expressions in live video, mouth included, by fitting every pixel.
# - {cite:t}`egger2020morphable` review the applications of morphable models, and their ethics.
# - {cite:t}`bas2019what` show how many different shapes share the same landmarks.
