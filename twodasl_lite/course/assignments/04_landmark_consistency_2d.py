# %% [markdown]
# # Assignment 4: 2D landmark consistency
#
# *Nobody has measured these faces in 3D. A detector found a few points and missed some. What can a network learn from them?*
#
# **You need** chapters 4, 7 and 10 of the book.
#
# **You hand in** this notebook, with every `raise NotImplementedError` and every *Write your answer here* replaced. Do not
# rename functions, and do not delete cells.
#
# **Points** {points}
#
# **Time** about 2 hours. All cells together run in 15 seconds on a CPU.
#
# The tests below a task check a few cases; grading checks more. Everything here is *your own code*: an answer that calls a
# loss or the landmark map of the package does not count.

# %% locked="setup"
import matplotlib.pyplot as plt
import torch

from twodasl_lite import losses
from twodasl_lite.course import checks
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import landmark_map, subset_18
from twodasl_lite.worlds.synthetic import SyntheticFaces

CROP = 120  # pixels
SMALLEST = 12.0  # pixels: no face counts as smaller
model = load_face_model(CoefficientLayout())
wild = SyntheticFaces(model, "wild").batch(0, 6, truth=True)  # pictures, and what a detector saw in them
x, visible = wild.detected, wild.detected_visible  # (6, 18, 2) in crop pixels, NaN where missed; (6, 18)

figure, panels = plt.subplots(1, 6, figsize=(9, 1.8), layout="constrained")
for axes, image, points in zip(panels, wild.images, x):
    axes.imshow(image.permute(1, 2, 0))
    axes.plot(*points.T, ".", color="#E69F00", markersize=4)
    axes.axis("off")
print(f"{int((~visible).sum())} of {visible.numel()} points were missed; their coordinates are NaN")

# %% [markdown]
# ### Task 4.1 · The size of a face
#
# Distances are measured in face sizes, so that a loss does not depend on the resolution. The size is $\sqrt{w h}$ of the box
# around the **visible** points, but at least `SMALLEST`. Missed points are NaN, and any arithmetic with NaN gives NaN. A
# face without any visible point has the size `SMALLEST`.

# %% answer="size"
def face_size(x, visible):
    """Size of each face: x (B, N, 2) in pixels, visible (B, N) boolean. Returns (B,) in pixels."""
    ### BEGIN SOLUTION
    seen = visible[..., None]
    high = torch.where(seen, x, torch.full_like(x, -torch.inf)).amax(dim=1)  # (B, 2)
    low = torch.where(seen, x, torch.full_like(x, torch.inf)).amin(dim=1)
    return (high - low).clamp(min=0).prod(dim=-1).sqrt().clamp(min=SMALLEST)
    ### END SOLUTION


# %% test="size" points=1
spots = torch.tensor([[[10.0, 20.0], [100.0, 20.0], [50.0, 60.0], [10.0, 60.0]]])  # 90 wide, 40 high
all_seen = torch.ones(1, 4, dtype=torch.bool)
with checks.from_scratch("losses", "evaluation"):
    found = face_size(spots, all_seen)
checks.close("face_size", found, torch.tensor([60.0]), unit="pixels")
hidden = all_seen.clone()
hidden[0, 1] = False  # now 40 by 40
spots[0, 1] = torch.nan
checks.close("face_size when the rightmost point is hidden", face_size(spots, hidden), torch.tensor([40.0]), unit="pixels")
print("✓ the root of 90 by 40 is 60")

# %% test="size-hidden" points=2
# Hidden tests: detections, tiny faces, and faces without visible points.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
points, seen = 120 * torch.rand(5, 18, 2, generator=g), torch.rand(5, 18, generator=g) > 0.3
seen[3], seen[4] = False, torch.arange(18) < 1
points[~seen] = torch.nan
checks.close("face_size", face_size(points, seen), losses.face_size(points, seen), unit="pixels")
checks.close("face_size of one point", face_size(points, seen)[3:], torch.full((2,), 12.0), unit="pixels")
### END HIDDEN TESTS

# %% [markdown]
# ### Task 4.2 · The loss
#
# $$ \frac{\sum_i m_i \lVert (\hat{\mathbf x}_{1i} - \mathbf x_i) / s \rVert^2}{\sum_i m_i}, $$
#
# with $m_i$ the visibility and $s$ the face size of the detection $\mathbf x$, which comes as an argument. Divide by the number of *visible* points. A
# face without any has loss 0. The gradient must be finite too: NaN times zero is NaN, so replace a missed point *before* you
# compute with it (`torch.where`).

# %% answer="loss"
def landmark_loss(x1, x, visible, size):
    """2D landmark consistency: x1 predicted and x detected (B, 18, 2), visible (B, 18), size (B,). Returns (B,)."""
    ### BEGIN SOLUTION
    difference = torch.where(visible[..., None], x1 - x, torch.zeros_like(x1))
    squared = (difference / size[:, None, None]).square().sum(dim=-1)  # (B, 18)
    return squared.sum(dim=-1) / visible.sum(dim=-1).clamp(min=1)
    ### END SOLUTION


# %% test="loss" points=1
seen = x.nan_to_num(60.0)
with checks.from_scratch("losses"):
    found = landmark_loss(seen, x, visible, torch.full((6,), 50.0))
checks.close("loss where prediction and detection agree", found, torch.zeros(6))
square = torch.tensor([[[0.0, 0.0], [100.0, 0.0], [100.0, 100.0], [0.0, 100.0]]])  # a face of size 100
shift = landmark_loss(square + torch.tensor([10.0, 0.0]), square, torch.ones(1, 4, dtype=torch.bool), torch.tensor([100.0]))
checks.close("loss of a shift by 10", shift, torch.tensor([0.01]))
print("✓ a tenth of a face, squared")

# %% test="loss-hidden" points=2
# Hidden tests: detections with missed points, and a face with none.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
points, seen = 120 * torch.rand(5, 18, 2, generator=g), torch.rand(5, 18, generator=g) > 0.3
seen[4] = False
points[~seen] = torch.nan
guess = points.nan_to_num(30.0) + 8 * torch.randn(5, 18, 2, generator=g)
size = losses.face_size(points, seen)
found = landmark_loss(guess, points, seen, size)
checks.close("landmark_loss", found, losses.LandmarkConsistency2D()(guess, points, seen))
### END HIDDEN TESTS

# %% test="loss-mask" points=2
# Hidden tests: the prediction of a missed point must not matter.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
points, seen = 120 * torch.rand(5, 18, 2, generator=g), torch.rand(5, 18, generator=g) > 0.3
guess = points + 8 * torch.randn(5, 18, 2, generator=g)  # here missed points have coordinates, which must not count
other = torch.where(seen[..., None], guess, guess + 40)
size = losses.face_size(points, seen)
checks.close("landmark_loss", landmark_loss(other, points, seen, size), landmark_loss(guess, points, seen, size))
points[~seen] = torch.nan
slope = checks.gradient("landmark_loss", lambda p: landmark_loss(p, points, seen, size), guess)
assert (slope[~seen] == 0).all(), "A missed point pulls at the prediction."
### END HIDDEN TESTS

# %% [markdown]
# ### Task 4.3 · A robust distance
#
# Some detections are far off. With $d = \lVert \hat{\mathbf x}_{1i} - \mathbf x_i \rVert / s$, Huber's distance is $d^2$ up
# to $\delta$ and the straight line $2 \delta d - \delta^2$ beyond. Compute it from squared distances $d^2$; the gradient at
# $d = 0$ must be finite.

# %% answer="huber"
def huber(squared, delta):
    """Huber's distance of squared distances (any shape), delta in the unit of d."""
    ### BEGIN SOLUTION
    d = squared.clamp(min=delta**2).sqrt()
    return torch.where(squared <= delta**2, squared, 2 * delta * d - delta**2)
    ### END SOLUTION


# %% test="huber" points=1
found = huber(torch.tensor([0.0, 0.01, 0.04, 1.0]), 0.2)  # d = 0, 0.1, 0.2, 1
checks.close("huber", found, torch.tensor([0.0, 0.01, 0.04, 0.36]), tolerance=1e-5)
print("✓ a parabola, then a line")

# %% test="huber-hidden" points=2
# Hidden tests: other deltas, and the slope.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
d, delta = 2 * torch.rand(50, generator=g), 0.3 + float(torch.rand(1, generator=g))
d[0] = 0
expected = torch.where(d <= delta, d**2, delta**2 + 2 * delta * (d - delta))
checks.close("huber", huber(d**2, delta), expected)
checks.gradient("huber", lambda squared: huber(squared, delta), d**2)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 4.4 · Landmarks as a picture
#
# The network sees the landmarks as a fourth channel: −1 everywhere, +1 at the pixel (row ⌊y⌋, column ⌊x⌋) of each visible
# point. Leave out points outside the crop, and do not let negative indices wrap around.

# %% answer="map"
def draw_map(x, visible):
    """Landmark map: x (B, 18, 2) in crop pixels, visible (B, 18). Returns (B, 1, 120, 120)."""
    ### BEGIN SOLUTION
    picture = torch.full((len(x), 1, CROP, CROP), -1.0)
    cell = x.floor()
    inside = visible & ((cell >= 0) & (cell < CROP)).all(dim=-1)
    face, point = inside.nonzero(as_tuple=True)
    column, row = cell[face, point].long().unbind(dim=-1)
    picture[face, 0, row, column] = 1.0
    return picture
    ### END SOLUTION


# %% test="map" points=1
spot = torch.full((1, 18, 2), torch.nan)
spot[0, 0] = torch.tensor([70.9, 20.2])
first = torch.arange(18)[None] < 1
with checks.from_scratch("landmarks"):
    found = draw_map(spot, first)
checks.tensor("draw_map", found, (1, 1, 120, 120))
where = [tuple(index[2:]) for index in (found > 0).nonzero().tolist()]
assert len(where) == 1, f"One point is visible, and {len(where)} pixels are set."
assert where[0] != (70, 20), "Row and column are exchanged: the row is y."
assert where[0] == (20, 70), f"The pixel at row {where[0][0]}, column {where[0][1]} is set. Is that the floor of both?"
assert float(found.min()) == -1, "The background is -1."
print("✓ one pixel, in its place")

# %% test="map-hidden" points=2
# Hidden tests: detections, some of them outside the crop.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
points, seen = 160 * torch.rand(6, 18, 2, generator=g) - 20, torch.rand(6, 18, generator=g) > 0.2
points[0, 0], points[0, 1], seen[0, :2] = torch.tensor([-0.5, 50.0]), torch.tensor([119.9, 119.9]), True
points[~seen] = torch.nan
found = draw_map(points, seen)
checks.tensor("draw_map", found, (6, 1, 120, 120))
wrong = int((found != landmark_map(points, seen)).sum())
assert wrong == 0, f"draw_map: {wrong} pixels differ."
### END HIDDEN TESTS

# %% [markdown]
# ### Task 4.5 · What the loss does not see
#
# Which of the 62 coefficients have gradient zero for every face under this loss? Find them by computation, not by thought:
# take the gradient of the loss with respect to the raw coefficients. Return their indices in order. The loss is an
# argument: `loss(coefficients)` returns one number per face; the test uses the package's loss.

# %% answer="unseen"
def unseen_entries(loss, coefficients):
    """Indices (a list of int) of the entries on which the loss does not depend.

    loss: (B, 62) -> (B,). coefficients: (B, 62), raw.
    """
    ### BEGIN SOLUTION
    leaf = coefficients.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    return (slope == 0).all(dim=0).nonzero()[:, 0].tolist()
    ### END SOLUTION


# %% test="unseen" points=2
def loss_of(coefficients):
    points = subset_18(decode_landmarks(coefficients, model)[..., :2])
    return losses.LandmarkConsistency2D()(points, x, visible)


found = unseen_entries(loss_of, wild.coefficients)
assert isinstance(found, list), f"unseen_entries: found {type(found).__name__}; expected a list."
names = CoefficientLayout().names
assert all(names[entry].startswith("pose") for entry in found), "Every shape and expression coefficient moves some point."
assert len(found) == 4, f"You found {len(found)} entries. No pixel depends on one whole row of the pose."
### BEGIN HIDDEN TESTS
assert found == [8, 9, 10, 11]
### END HIDDEN TESTS
print("✓ and that is why depth has to come from elsewhere")

# %% [markdown]
# ### Task 4.6 · What 2D landmarks teach
#
# A network is trained with this loss **alone**, on a million photographs with detected landmarks. Its landmarks become very
# good. Which of these must become good too, and which need not: the yaw, the length of the nose of a frontal face, the depth
# $t_z$, the shape coefficients? Why? What in 2DASL keeps the others right?

# %% [markdown] answer="limits" points=4
# ### BEGIN SOLUTION
# The loss sees 36 numbers of a face (18 points), but the network predicts 62. Many predictions explain the same points. The
# yaw shows in the picture (the nose moves against the eyes), so it becomes good, up to trade-offs with the shape: a face that
# is wider on one side explains the points as well. The length of the nose of a frontal face runs along the line of sight and
# moves no point: it is free. t_z moves nothing at all. The shape coefficients are determined only in those combinations that
# move the 18 points in the picture; the rest drifts, because nothing constrains it, and without a prior the faces may look
# strange from the side while every landmark fits.
#
# The labelled pictures (WPDC, VDC) constrain the rest: there the same network must predict the right 62 numbers. 3D
# consistency and the self-critic keep the predictions on 2D-only pictures similar to those on labelled ones.
#
# **Rubric.** 1 point: yaw yes, t_z no, with the reason. 1 point: the nose of a frontal face is along the line of sight. 1
# point: shape only as far as it moves the points (more unknowns than observations). 1 point: the labelled pictures, or the
# critic or a prior, constrain the rest.
# ### END SOLUTION
