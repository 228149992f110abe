# %% [markdown]
# # Assignment 2: The camera and sixty-two numbers
#
# *Turn a face, photograph it, and write down everything that a network has to predict about it.*
#
# **You need** chapters 1 and 3 of the book. Keep the page *Notation* open: it defines the frames and signs.
#
# **You hand in** this notebook, with every `raise NotImplementedError` and every *Write your answer here* replaced. Do not
# rename functions, and do not delete cells.
#
# **Points** {points}
#
# **Time** about 2 hours. All cells together run in 10 seconds on a CPU.
#
# The tests below a task check a few cases; grading checks more. Everything here is *your own code*: an answer that calls
# the package's function for it does not count.

# %% locked="setup"
import math

import matplotlib.pyplot as plt
import torch

from twodasl_lite.course import checks
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry import camera
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.viz import draw_landmarks

CROP = 120  # pixels: the side of the picture that the network sees
model = load_face_model(CoefficientLayout())  # 40 shape and 10 expression components
points = model.mean[model.landmarks]  # (68, 3), millimetres, y up
print(f"landmarks from x = {points[:, 0].min():.0f} to {points[:, 0].max():.0f} mm")

# %% [markdown]
# ### Task 2.1 · Turning the head
#
# Write $\mathbf R = \mathbf R_x(\text{pitch})\,\mathbf R_y(\text{yaw})\,\mathbf R_z(\text{roll})$ with
#
# $$\mathbf R_x = \begin{bmatrix}1&0&0\\0&c&s\\0&-s&c\end{bmatrix},\quad
# \mathbf R_y = \begin{bmatrix}c&0&-s\\0&1&0\\s&0&c\end{bmatrix},\quad
# \mathbf R_z = \begin{bmatrix}c&s&0\\-s&c&0\\0&0&1\end{bmatrix},$$
#
# where $c$ and $s$ are the cosine and the sine of the angle. The angles are plain numbers in **degrees**: use `math.cos`,
# which takes radians (`math.radians` converts), rather than `torch.cos`, which takes tensors.


# %% answer="rotation"
def rotation(pitch, yaw, roll):
    """Rotation matrix (3, 3) from three angles in degrees (plain numbers)."""
    ### BEGIN SOLUTION
    (cp, sp), (cy, sy), (cr, sr) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (pitch, yaw, roll))
    Rx = torch.tensor([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    Ry = torch.tensor([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    Rz = torch.tensor([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return Rx @ Ry @ Rz
    ### END SOLUTION


# %% test="rotation" points=1
turns = ((0, 0, 0), (0, 90, 0), (30, 0, 0), (0, 0, 45))
with checks.from_scratch():
    found = [rotation(*turn) for turn in turns]
found = [checks.tensor(f"rotation{turn}", R, (3, 3)).float() for turn, R in zip(turns, found)]
checks.close("rotation(0, 0, 0)", found[0], torch.eye(3))
nose = found[1] @ torch.tensor([0.0, 0.0, 1.0])  # it pointed at the viewer
assert nose[2].abs() < 1e-4, "After a yaw of 90° the nose no longer points at the viewer. Degrees or radians?"
assert nose[0] < 0, "A positive yaw moves the nose to the left of the picture: look at the signs of Ry."
for R in found:
    checks.close("R Rᵀ", R @ R.T, torch.eye(3), tolerance=1e-5)
print("✓ these are rotations, and the yaw goes the right way")

# %% test="rotation-hidden" points=2
# Hidden tests: all three angles at once.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
for turn in (60 * torch.randn(6, 3, generator=g)).tolist():
    with checks.from_scratch():
        R = rotation(*turn)
    checks.close("rotation", R, camera.euler_to_matrix(torch.deg2rad(torch.tensor(turn))), tolerance=1e-4)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 2.2 · The camera
#
# Weak perspective: $\mathbf v = f\,\mathbf R\,\mathbf S + \mathbf t$. Points are the *rows* of a matrix here, so think
# about the side on which the rotation is multiplied. The third coordinate, the depth, is kept.


# %% answer="project"
def project(S, f, R, t):
    """Weak-perspective projection to the crop frame.

    S: (N, 3) in mm. f: pixels per mm. R: (3, 3). t: (3,) in pixels. Returns (N, 3) in pixels, y up.
    """
    ### BEGIN SOLUTION
    return f * S @ R.T + t
    ### END SOLUTION


# %% test="project" points=1
one_turn = camera.euler_to_matrix(torch.tensor([0.3, -0.5, 0.1]))
with checks.from_scratch():
    v = project(points, 0.6, one_turn, torch.tensor([60.0, 60.0, 0.0]))
checks.tensor("project", v, (68, 3))
by_hand = 0.6 * (one_turn @ points[30]) + torch.tensor([60.0, 60.0, 0.0])  # one point, as a column
off = float((v[30] - by_hand).norm())
assert off < 1e-3, f"The tip of the nose is off by {off:.1f} pixels. Rows or columns: R or its transpose?"
print("✓ the tip of the nose is where it should be")

# %% test="project-hidden" points=2
# Hidden tests: other points and cameras.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
for _ in range(3):
    S, t = 50 * torch.randn(30, 3, generator=g), 20 * torch.randn(3, generator=g)
    f, R = float(torch.rand(1, generator=g)) + 0.2, camera.euler_to_matrix(torch.randn(3, generator=g))
    expected = torch.stack([f * (R @ s) + t for s in S])
    with checks.from_scratch():
        found = project(S, f, R, t)
    checks.close("project", found, expected, unit="pixels", points=True)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 2.3 · From the crop frame to pixels
#
# The crop frame counts from 1 and its y runs **up**: the middle of the *lower* left pixel is (1, 1). Pixels count from 0 and
# their y runs **down**: the middle of the *upper* left pixel is (0, 0). The crop is 120 pixels high. Draw the two frames on
# paper before you write code. What is the y of the top row in each? The depth does not change. Make a new tensor; do not
# modify the input.


# %% answer="pixels"
def to_pixels(v):
    """Crop frame (N, 3) to pixels (N, 3)."""
    ### BEGIN SOLUTION
    x, y, z = v.unbind(dim=-1)
    return torch.stack([x - 1, CROP - y, z], dim=-1)
    ### END SOLUTION


# %% test="pixels" points=1
corners = torch.tensor([[1.0, 1.0, 7.0], [1.0, 120.0, 7.0]])
with checks.from_scratch():
    found = to_pixels(corners)
checks.tensor("to_pixels", found, (2, 3))
assert (found[:, 0] == 0).all(), "The leftmost column of pixels has x = 0."
assert found[0, 1] > found[1, 1], "The lower corner has the larger y: in pixels y runs down."
assert found[0, 1] == 119, "The lowest row of pixels has y = 119."
assert found[1, 1] == 0, "The highest row of pixels has y = 0."
assert (found[:, 2] == 7).all(), "The depth must not change."
straight = torch.eye(3)
checks.crop_landmarks("landmarks", to_pixels(0.6 * points + torch.tensor([60.0, 60.0, 0.0])))
print("✓ both corners are in their places, and the face is the right way up")

# %% test="pixels-hidden" points=2
# Hidden tests: other points, and an unchanged input.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
v = 120 * torch.rand(20, 3, generator=g)
before = v.clone()
with checks.from_scratch():
    found = to_pixels(v)
checks.close("to_pixels", found, camera.frame_to_pixels(before), unit="pixels", points=True)
assert torch.equal(v, before), "to_pixels changed its input. Make a new tensor."
### END HIDDEN TESTS

# %% [markdown]
# If tasks 2.1 to 2.3 are done, here is your first photograph.


# %%
def photograph(axes, pitch, yaw, roll):
    try:
        turn = rotation(pitch, yaw, roll)
        centre = torch.tensor([60.5, 60.5, 0.0]) - 0.62 * turn @ points.mean(dim=0)
        draw_landmarks(axes, to_pixels(project(points, 0.62, turn, centre))[:, :2], size=3)
    except NotImplementedError:
        axes.text(60, 60, "not yet", ha="center")
    axes.set(xlim=(-0.5, 119.5), ylim=(119.5, -0.5), aspect="equal", title=f"pitch {pitch}°, yaw {yaw}°, roll {roll}°")


figure, panels = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
for axes, turn in zip(panels, ((0, 0, 0), (0, 45, 0), (20, -30, 15))):
    photograph(axes, *turn)

# %% [markdown]
# ### Task 2.4 · Packing
#
# The network's prediction is one vector: the 3×4 matrix $[f\mathbf R \mid \mathbf t]$ row by row (12 numbers), then 40 shape
# and 10 expression coefficients. Write both directions, for a batch.


# %% answer="pack"
def pack(fR, t, shape, expression):
    """One vector per face.

    fR: (B, 3, 3). t: (B, 3). shape: (B, 40). expression: (B, 10). Returns (B, 62).
    """
    ### BEGIN SOLUTION
    pose = torch.cat([fR, t[:, :, None]], dim=2)  # (B, 3, 4)
    return torch.cat([pose.flatten(1), shape, expression], dim=1)
    ### END SOLUTION


def unpack(vector):
    """The parts of vectors (B, 62): fR (B, 3, 3), t (B, 3), shape (B, 40), expression (B, 10)."""
    ### BEGIN SOLUTION
    pose = vector[:, :12].reshape(-1, 3, 4)
    return pose[:, :, :3], pose[:, :, 3], vector[:, 12:52], vector[:, 52:]
    ### END SOLUTION


# %% test="pack" points=1
fR, t = torch.arange(9.0).reshape(1, 3, 3), torch.tensor([[100.0, 200.0, 300.0]])
with checks.from_scratch():
    vector = pack(fR, t, torch.zeros(1, 40), torch.ones(1, 10))
    parts = unpack(vector)
checks.tensor("pack", vector, (1, 62))
assert isinstance(parts, tuple) and len(parts) == 4, "unpack must return four things: fR, t, shape, expression."
assert vector[0, 3] == 100, "Row by row: the first entry of t follows the first row of f R."
assert vector[0, 1] == 1, "The second number is in the first row and second column of f R."
for name, part, given in zip(("fR", "t"), parts, (fR, t)):
    checks.close(f"unpack, {name}", part, given)
print("✓ packed and unpacked")

# %% test="pack-hidden" points=2
# Hidden tests: batches of random faces.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
parts = [torch.randn(5, *size, generator=g) for size in ((3, 3), (3,), (40,), (10,))]
expected = Coefficients(torch.cat([parts[0], parts[1][..., None]], dim=2), parts[2], parts[3]).pack()
with checks.from_scratch():
    found, back = pack(*parts), unpack(expected)
checks.close("pack", found, expected)
for name, part, given in zip(("fR", "t", "shape", "expression"), back, parts):
    checks.close(f"unpack, {name}", part, given)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 2.5 · Whitening
#
# The entries differ in size by orders of magnitude. Subtract from each entry its mean over the training set and divide by
# its standard deviation (the one with $N - 1$, PyTorch's default). An entry that never varies would be divided by zero: use
# a standard deviation of 1 for it.


# %% answer="whiten"
def whitening_of(vectors):
    """Mean and standard deviation of each entry: (N, D) to (D,) and (D,)."""
    ### BEGIN SOLUTION
    mean, std = vectors.mean(dim=0), vectors.std(dim=0)
    return mean, torch.where(std > 0, std, torch.ones_like(std))
    ### END SOLUTION


def whiten(vectors, mean, std):
    """Raw (N, D) to whitened (N, D)."""
    ### BEGIN SOLUTION
    return (vectors - mean) / std
    ### END SOLUTION


def unwhiten(vectors, mean, std):
    """Whitened (N, D) back to raw (N, D)."""
    ### BEGIN SOLUTION
    return vectors * std + mean
    ### END SOLUTION


# %% test="whiten" points=1
sample = torch.randn(500, 4, generator=torch.Generator().manual_seed(2)) * torch.tensor([5.0, 0.1, 30.0, 0.0]) + 3
with checks.from_scratch():
    mean, std = whitening_of(sample)
    white = whiten(sample, mean, std)
checks.tensor("standard deviation", std, (4,))
checks.close("standard deviation of the entries that vary", std[:3], sample[:, :3].std(dim=0))
assert std[3] == 1, "The fourth entry never varies: its standard deviation must count as 1."
checks.close("standard deviation of the whitened entries", white.std(dim=0), torch.tensor([1.0, 1.0, 1.0, 0.0]), tolerance=0.01)
checks.close("unwhitened vectors", unwhiten(white, mean, std), sample, tolerance=0.01)
print("✓ every entry now varies by about 1")

# %% test="whiten-hidden" points=1
# Hidden tests: other samples.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
scales = torch.tensor([0.01, 1.0, 50.0, 0.0, 3.0])
sample = torch.randn(300, 5, generator=g) * scales + torch.randint(-5, 6, (5,), generator=g)
mean, std = whitening_of(sample)
checks.close("mean", mean, sample.sum(dim=0) / 300)
deviation = ((sample - sample.mean(dim=0)) ** 2).sum(dim=0).div(299).sqrt()
checks.close("standard deviation", std, torch.where(scales > 0, deviation, torch.ones(5)))
checks.close("whiten", whiten(sample, mean, std), (sample - mean) / std, tolerance=1e-3)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 2.6 · Half a pixel
#
# A box covers the pixels `left` to `right` of a photograph, both included, so it is $w = \text{right} - \text{left} + 1$
# wide. It is resized to 120 pixels. A pixel is a little square: pixel 0 reaches from −0.5 to 0.5, and edges map to edges,
#
# $$x_\text{crop} + 0.5 = \tfrac{120}{w}\,(x_\text{image} - \text{left} + 0.5).$$
#
# The same holds for y with `top` and `bottom`; the box need not be square.


# %% answer="crop"
def image_to_crop(points, box):
    """Image pixels (N, 2) to crop pixels (N, 2); box is (4,): left, top, right, bottom."""
    ### BEGIN SOLUTION
    first, last = box[:2], box[2:]
    return CROP / (last - first + 1) * (points - first + 0.5) - 0.5
    ### END SOLUTION


# %% test="crop" points=1
box = torch.tensor([100.0, 50.0, 339.0, 289.0])  # 240 by 240 pixels, to be halved
with checks.from_scratch():
    found = image_to_crop(torch.tensor([[100.0, 50.0], [339.0, 289.0]]), box)
checks.tensor("image_to_crop", found, (2, 2))
middle = float(found.mean())
assert abs(middle - 59.5) < 1e-3, f"The middle of the box lands at {middle:.2f}, not in the middle of the crop."
assert found.min() > -0.5, "The first pixel of the box lies inside the crop."
checks.close("middle of the first pixel", found[0], torch.tensor([-0.25, -0.25]), unit="pixels", tolerance=1e-3)
print("✓ edges on edges")

# %% test="crop-hidden" points=1
# Hidden tests: boxes that are not square.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
corner, extent = 80 * torch.rand(2, generator=g) - 20, 60 + 200 * torch.rand(2, generator=g)
box, spots = torch.cat([corner, corner + extent]), 450 * torch.rand(12, 2, generator=g)
with checks.from_scratch():
    found = image_to_crop(spots, box)
checks.close("image_to_crop", found, camera.image_to_crop(spots, box), unit="pixels", tolerance=0.02)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 2.7 · What no photograph shows
#
# Which of the twelve numbers of the pose cannot be found from a photograph, however sharp it is? Which of those can still
# be computed from the other numbers, and which cannot? Say why. How would you then compare the depths that two networks
# predict?

# %% [markdown] answer="depth" points=4
# ### BEGIN SOLUTION
# Pixels are computed from the first two rows of [f R | t]. The third row (four numbers) affects only depths; no pixel
# depends on it. Three of the four, f times the third row of R, follow from the first two rows: the rows of a rotation are
# orthogonal and of unit length, so the third is the cross product of the others, times f. The fourth, t_z, cannot be
# computed from anything: under weak perspective a face moved towards the camera makes the same picture. It is a convention.
# Before depths are compared, the mean depth (of the landmarks, say) must be subtracted from each.
#
# **Rubric.** 1 point: the third row, four numbers. 1 point: three of them by the cross product, with the reason. 1 point:
# t_z is not determined, because weak perspective has no distance. 1 point: subtract the mean depth (or that of a
# reference point) before comparing. "The depth cannot be seen" without saying which numbers: 1 point in all.
# ### END SOLUTION
