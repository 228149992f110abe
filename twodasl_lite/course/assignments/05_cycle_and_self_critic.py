# %% [markdown]
# # Assignment 5: Cycle and self-critic
#
# *A network looks at its own prediction a second time, and another network judges it.*
#
# **You need** chapters 10 to 13 of the book, and assignment 4.
#
# **You hand in** this notebook, with every `raise NotImplementedError` and every *Write your answer here* replaced. Do not
# rename functions, and do not delete cells.
#
# **Points** {points}
#
# **Time** about 2 and a half hours. All cells together run in 20 seconds on a CPU.
#
# The tests below a task check a few cases; grading checks more. The losses are *your own code*: an answer that calls a loss
# of the package does not count. You may use `landmark_map`, `subset_18` and `decode_landmarks`.

# %% locked="setup"
import torch

from twodasl_lite import losses
from twodasl_lite.course import checks
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import landmark_map, subset_18
from twodasl_lite.losses import face_size  # (B, N, 2 or 3), (B, N) or nothing -> (B,) in pixels
from twodasl_lite.networks import Critic
from twodasl_lite.worlds.synthetic import SyntheticFaces, whitening_of

model = load_face_model(CoefficientLayout())
whitening = whitening_of(model, "wild", count=4000)
mean, std = whitening.mean, whitening.std  # (62,) each
wild = SyntheticFaces(model, "wild").batch(0, 4)  # four pictures; nobody knows their coefficients
x, visible = wild.detected, wild.detected_visible  # (4, 18, 2) with NaN, (4, 18)
images = wild.inputs()[:, :3]  # (4, 3, 120, 120): the pictures as the network sees them


class SmallRegressor(torch.nn.Module):
    """A network from four channels to 62 whitened numbers; it is untrained, which does not matter here."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = torch.nn.Sequential(torch.nn.AvgPool2d(6), torch.nn.Flatten(), torch.nn.Linear(1600, 62))

    def forward(self, inputs):
        """(B, 4, 120, 120) to (B, 62)."""
        return self.layers(inputs)


regressor = SmallRegressor()
print("inputs", tuple(wild.inputs().shape), "answer", tuple(regressor(wild.inputs()).shape))

# %% [markdown]
# ### Task 5.1 · Two looks
#
# First look: the picture and the map of the detected points go in, 62 whitened numbers come out. Unwhiten and decode them to
# $\hat{\mathbf X}_1$ (68 landmarks in 3D) and $\hat{\mathbf x}_1$ (its 18 points in 2D). Second look: the same picture, but
# with the map of $\hat{\mathbf x}_1$, in which every point is visible. Return all four.

# %% answer="looks"
def two_looks(regressor, images, x, visible):
    """Look twice.

    regressor: (B, 4, 120, 120) -> (B, 62), whitened. images: (B, 3, 120, 120). x: (B, 18, 2), NaN where not visible.
    visible: (B, 18). Returns X1 (B, 68, 3), x1 (B, 18, 2), X2 (B, 68, 3), x2 (B, 18, 2), in pixels.
    """
    ### BEGIN SOLUTION
    def look(points, seen):
        inputs = torch.cat([images, landmark_map(points, seen)], dim=1)
        X = decode_landmarks(regressor(inputs) * std + mean, model)
        return X, subset_18(X[..., :2])

    X1, x1 = look(x, visible)
    X2, x2 = look(x1, torch.ones_like(visible))
    return X1, x1, X2, x2
    ### END SOLUTION


# %% test="looks" points=1
seen_maps = []


def spy(inputs):
    seen_maps.append(inputs[:, 3:].detach())
    return regressor(inputs)


X1, x1, X2, x2 = two_looks(spy, images, x, visible)
for name, value, shape in (("X1", X1, (4, 68, 3)), ("x1", x1, (4, 18, 2)), ("X2", X2, (4, 68, 3)), ("x2", x2, (4, 18, 2))):
    checks.tensor(name, value, shape)
assert len(seen_maps) == 2, f"The regressor was called {len(seen_maps)} times; expected 2."
assert torch.equal(seen_maps[0], landmark_map(x, visible)), "The first look needs the map of the detected points."
checks.crop_landmarks("X1", X1)
assert not torch.equal(seen_maps[0], seen_maps[1]), "The second look saw the same map as the first."
print("✓ two looks, two maps")

# %% test="looks-hidden" points=3
# Hidden tests: another regressor, all four results, and the map of the second look.
### BEGIN HIDDEN TESTS
other, seen_maps = SmallRegressor(SECRET_SEED), []


def watch(inputs):
    seen_maps.append(inputs[:, 3:].detach())
    return other(inputs)


found = two_looks(watch, images, x, visible)
with torch.no_grad():
    maps, expected = landmark_map(x, visible), []
    for _ in range(2):
        landmarks = decode_landmarks(whitening.unwhiten(other(torch.cat([images, maps], dim=1))), model)
        maps = landmark_map(subset_18(landmarks[..., :2]))
        expected += [landmarks, subset_18(landmarks[..., :2])]
for name, one, two in zip(("X1", "x1", "X2", "x2"), found, expected):
    checks.close(name, one, two, unit="pixels", points=True, tolerance=0.05)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 5.2 · 3D consistency
#
# The second look should find the same face: the mean over the 68 landmarks of
# $\lVert (\hat{\mathbf X}_2 - \hat{\mathbf X}_1) / s \rVert^2$, with $s$ the `face_size` of $\hat{\mathbf X}_1$. The absolute
# depth is a convention, so first subtract its mean depth from each set of landmarks.

# %% answer="consistency"
def consistency_3d(X2, X1):
    """3D landmark consistency: X2, X1 (B, 68, 3) in pixels. Returns (B,)."""
    ### BEGIN SOLUTION
    difference = X2 - X1
    depth = difference[..., 2:]
    difference = torch.cat([difference[..., :2], depth - depth.mean(dim=1, keepdim=True)], dim=-1)
    return (difference / face_size(X1)[:, None, None]).square().sum(dim=-1).mean(dim=-1)
    ### END SOLUTION


# %% test="consistency" points=1
one = decode_landmarks(mean[None].expand(3, 62), model)  # the average face, three times
checks.close("consistency of equal faces", consistency_3d(one, one), torch.zeros(3))
found = consistency_3d(one + face_size(one)[:, None, None] * torch.tensor([0.1, 0.0, 0.0]), one)
checks.close("consistency of a shift by a tenth of a face", found, torch.full((3,), 0.01))
print("✓ a tenth, squared")

# %% test="consistency-hidden" points=2
# Hidden tests: random faces, and faces at another depth.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
A, B = 120 * torch.rand(2, 3, 68, 3, generator=g)
checks.close("consistency_3d", consistency_3d(A, B), losses.LandmarkConsistency3D()(A, B))
deeper = B + torch.tensor([0.0, 0.0, 500.0])
checks.close("consistency of a face moved in depth", consistency_3d(deeper, B), torch.zeros(3), tolerance=1e-3)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 5.3 · The cycle
#
# 2D to 3D and back: the points of the *second* look should lie where the *detector* saw them. As in assignment 4, the mean
# over the visible points of $\lVert (\hat{\mathbf x}_{2i} - \mathbf x_i) / s \rVert^2$, with $s$ the face size of the visible
# $\mathbf x$; 0 for a face without any. The function receives all three sets of points and decides which two to compare.

# %% answer="cycle"
def cycle_loss(x, visible, x1, x2):
    """Cycle consistency: x detected (NaN where not visible), x1 and x2 of both looks, all (B, 18, 2). Returns (B,)."""
    ### BEGIN SOLUTION
    difference = torch.where(visible[..., None], x2 - x, torch.zeros_like(x2))
    squared = (difference / face_size(x, visible)[:, None, None]).square().sum(dim=-1)  # (B, 18)
    return squared.sum(dim=-1) / visible.sum(dim=-1).clamp(min=1)
    ### END SOLUTION


# %% test="cycle" points=1
agree, differ = x.nan_to_num(0.0), x.nan_to_num(0.0) + 7
found = cycle_loss(x, visible, differ, agree)
checks.close("cycle loss when the second look agrees with the detector", found, torch.zeros(4))
assert (cycle_loss(x, visible, agree, differ) > 0).all(), "The second look is off, and the loss is zero."
print("✓ what counts is the second look")

# %% test="cycle-hidden" points=2
# Hidden tests: missed points, and the gradient.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
points, seen = 120 * torch.rand(5, 18, 2, generator=g), torch.rand(5, 18, generator=g) > 0.3
seen[4] = False
points[~seen] = torch.nan
first, second = (points.nan_to_num(30.0) + 8 * torch.randn(5, 18, 2, generator=g) for _ in range(2))
checks.close("cycle_loss", cycle_loss(points, seen, first, second), losses.CycleConsistency()(second, points, seen))
checks.gradient("cycle_loss", lambda p: cycle_loss(points, seen, first, p), second)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 5.4 · The critic's game
#
# The critic gives each pair (coefficients, landmarks) a score $s$. In the least-squares form it aims at 1 for real pairs and 0
# for predicted ones: $\tfrac12 (s_\text{real} - 1)^2 + \tfrac12 s_\text{fake}^2$. The regressor wants its pairs to pass as
# real: $\tfrac12 (s_\text{fake} - 1)^2$.

# %% answer="critic"
def critic_loss(real, fake):
    """What the critic minimises: scores (B,) and (B,). Returns (B,)."""
    ### BEGIN SOLUTION
    return (real - 1).square() / 2 + fake.square() / 2
    ### END SOLUTION


def regressor_loss(fake):
    """What the regressor minimises: scores (B,) of its own pairs. Returns (B,)."""
    ### BEGIN SOLUTION
    return (fake - 1).square() / 2
    ### END SOLUTION


# %% test="critic" points=1
ones, zeros = torch.ones(3), torch.zeros(3)
with checks.from_scratch():
    checks.close("critic_loss of a perfect critic", critic_loss(ones, zeros), zeros)
    checks.close("critic_loss of a critic with both scores swapped", critic_loss(zeros, ones), ones)
    checks.close("regressor_loss when the critic is fooled", regressor_loss(ones), zeros)
print("✓ both know what they want")

# %% test="critic-hidden" points=2
# Hidden tests: other scores.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
real, fake = torch.randn(2, 8, generator=g)
checks.close("critic_loss", critic_loss(real, fake), losses.SelfCritic().for_critic(real, fake))
checks.close("regressor_loss", regressor_loss(fake), losses.SelfCritic().for_regressor(fake))
### END HIDDEN TESTS

# %% [markdown]
# ### Task 5.5 · One step of the critic
#
# A step that improves the critic must not touch the regressor, although the regressor predicted the coefficients. Write the
# step: scores of the real pairs and of the predicted pairs, the mean of `critic_loss`, gradients, one step of the optimiser.
# After it, the regressor's parameters must have no gradient.

# %% answer="step"
def critic_step(critic, optimiser, real, fake):
    """One step.

    critic(coefficients (B, 62), landmarks (B, 18, 2), visible (B, 18)) -> (B,). real and fake: such triples. Returns the
    loss before the step, a plain number.
    """
    ### BEGIN SOLUTION
    coefficients, landmarks, seen = fake
    loss = critic_loss(critic(*real), critic(coefficients.detach(), landmarks, seen)).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())
    ### END SOLUTION


# %% test="step" points=1
def pairs(seed):
    """A critic, its optimiser, a regressor, and real and predicted pairs."""
    torch.manual_seed(seed)
    net, judge = SmallRegressor(seed), Critic(hidden=32)
    everything = torch.ones(4, 18, dtype=torch.bool)
    real = (torch.randn(4, 62), torch.randn(4, 18, 2), everything)
    fake = (net(wild.inputs()), torch.randn(4, 18, 2) + 1, everything)
    return net, judge, torch.optim.SGD(judge.parameters(), lr=0.05), real, fake


net, judge, optimiser, real, fake = pairs(1)
history = [critic_step(judge, optimiser, real, fake)]
before = [parameter.detach().clone() for parameter in judge.parameters()]
history += [critic_step(judge, optimiser, real, pairs(1)[4]) for _ in range(40)]
assert isinstance(history[0], float), f"critic_step: found {type(history[0]).__name__}; expected a plain number (float)."
assert any((a != b).any() for a, b in zip(before, judge.parameters())), "The critic has not changed."
assert history[-1] < history[0], "After 40 steps the critic's loss is not smaller."
print(f"✓ the critic's loss fell from {history[0]:.2f} to {history[-1]:.2f}")

# %% test="step-hidden" points=2
# Hidden tests: the regressor stays untouched, and gradients of earlier steps are not added.
### BEGIN HIDDEN TESTS
net, judge, optimiser, real, fake = pairs(SECRET_SEED)
critic_step(judge, optimiser, real, fake)
assert all(p.grad is None or not p.grad.any() for p in net.parameters()), (
    "critic_step: a gradient reached the regressor. The critic's step must treat predicted coefficients as given."
)
net, judge, optimiser, real, fake = pairs(SECRET_SEED)
for p in judge.parameters():
    p.grad = torch.full_like(p, 100.0)
start = [p.detach().clone() for p in judge.parameters()]
critic_step(judge, optimiser, real, fake)
farthest = max(float((a - b).abs().max()) for a, b in zip(start, judge.parameters()))
assert farthest < 1, "critic_step: gradients of an earlier step were added."
### END HIDDEN TESTS

# %% [markdown]
# ### Task 5.6 · What does the critic really learn?
#
# Your labelled pictures show frontal faces with perfect landmarks. The 2D-only pictures show heads at every yaw, with a
# detector's noise. You train the self-critic on these two sets, and the regressor's loss falls. What has the critic probably
# learnt to tell apart, and what does the regressor learn from it? How would you notice, and how would you set up the pairs
# instead? Six to ten sentences.

# %% [markdown] answer="shortcut" points=4
# ### BEGIN SOLUTION
# The critic has to decide whether a pair is real, but it may use anything that differs between the two sets. Here that is
# the yaw (real pairs are frontal) and the noise (real landmarks lie exactly on the projection of the coefficients). Both are
# easier than judging whether coefficients and landmarks belong together. The regressor, which tries to pass as real, learns
# to predict frontal heads, whatever the picture shows. One notices it by comparing predicted with true yaws on test pictures
# by bin (large yaws shrink), in the NME by bin, and in the critic's accuracy, which is near 100 % at once.
#
# Instead, add the same detector noise to the landmarks of the real pairs, and draw real pairs so that their yaws are
# distributed like those of the predicted ones (resample by yaw). Then only the fit of coefficients to landmarks is left to
# tell the two apart.
#
# **Rubric.** 1 point: the critic learns yaw or noise instead of the match. 1 point: the regressor is pushed to frontal faces.
# 1 point: a check that would really reveal it (error or yaw by bin; not "the loss"). 1 point: the same noise on both sides
# and matched yaws.
# ### END SOLUTION
