# %% [markdown]
# # Assignment 3: WPDC from scratch
#
# *Sixty-two errors become one number. Which of them should count, and how much?*
#
# **You need** chapters 3, 8 and 9 of the book.
#
# **You hand in** this notebook, with every `raise NotImplementedError` and every *Write your answer here* replaced. Do not
# rename functions, and do not delete cells.
#
# **Points** {points}
#
# **Time** about 2 and a half hours. All cells together run in 20 seconds on a CPU.
#
# The tests below a task check a few cases; grading checks more. Everything here is *your own code*: an answer that calls a
# loss of the package does not count. The decoder is given.

# %% locked="setup"
import torch

from twodasl_lite import losses
from twodasl_lite.course import checks
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.worlds.synthetic import SyntheticFaces, whitening_of

DEPTH = 11  # the entry t_z, which no picture determines
model = load_face_model(CoefficientLayout())  # 40 shape and 10 expression components
whitening = whitening_of(model, "labelled", count=4000)
mean, std = whitening.mean, whitening.std  # (62,) each
truth = SyntheticFaces(model, "labelled").coefficients(0, 2000)  # (2000, 62), raw
white = (truth - mean) / std  # (2000, 62), whitened: what a network is trained on


def decode(raw):
    """Raw coefficients (B, 62) to the 68 landmarks (B, 68, 3) in pixels."""
    return decode_landmarks(raw, model)


def some_pair(generator, count=6):
    """Whitened targets, and predictions (count, 62) that are off by about half a standard deviation."""
    rows = torch.randint(0, len(white), (count,), generator=generator)
    return white[rows] + 0.5 * torch.randn(count, 62, generator=generator), white[rows]


predicted, target = some_pair(torch.Generator().manual_seed(3))
print(f"{len(truth):,} faces; the landmarks of these predictions are off by", end=" ")
print(f"{(decode(predicted * std + mean) - decode(target * std + mean))[..., :2].norm(dim=-1).mean():.0f} pixels")

# %% [markdown]
# Losses return **one number per face**, shape `(B,)`. The trainer takes the mean.
#
# ### Task 3.1 · PDC
#
# The parameter distance cost: the sum of squared differences of the whitened coefficients. The depth $t_z$ (entry 11) cannot
# be observed, so it must not count.

# %% answer="pdc"
def pdc(predicted, target):
    """Parameter distance cost of whitened vectors (B, 62): (B,)."""
    ### BEGIN SOLUTION
    keep = torch.ones(62)
    keep[DEPTH] = 0
    return (keep * (predicted - target)).square().sum(dim=-1)
    ### END SOLUTION


# %% test="pdc" points=1
with checks.from_scratch():
    found = pdc(predicted, target)
checks.tensor("pdc", found, (6,))
checks.close("pdc of equal vectors", pdc(target, target), torch.zeros(6))
one = target.clone()
one[:, 20] += 3
checks.close("pdc when one entry is off by 3", pdc(one, target), torch.full((6,), 9.0))
print("✓ 3² is 9")

# %% test="pdc-hidden" points=1
# Hidden tests: random vectors, and the entry that does not count.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
p, c = some_pair(g)
checks.close("pdc", pdc(p, c), losses.PDC()(p, c))
q = c.clone()
q[:, 11] += 5
checks.close("pdc when t_z is off", pdc(q, c), torch.zeros(len(c)))
### END HIDDEN TESTS

# %% [markdown]
# ### Task 3.2 · What one entry moves
#
# Take the true coefficients and replace **only entry $i$** by the predicted one. How far do the landmarks move? Measure
#
# $$ \lVert V(\mathbf c \text{ with entry } i \text{ from } \hat{\mathbf c}) - V(\mathbf c) \rVert = \Big(\sum_n
# \lVert \mathbf v'_n - \mathbf v_n \rVert^2\Big)^{1/2}, $$
#
# the root of the sum over all landmarks and all three coordinates. `decode` takes **raw** coefficients; the inputs are
# whitened.

# %% answer="moved"
def moved_by(predicted, target, entry):
    """How far the landmarks move if one entry is taken from the prediction.

    predicted, target: (B, 62), whitened. entry: 0 to 61. Returns (B,) in pixels.
    """
    ### BEGIN SOLUTION
    changed = target.clone()
    changed[:, entry] = predicted[:, entry]
    difference = decode(changed * std + mean) - decode(target * std + mean)  # (B, 68, 3)
    return difference.square().sum(dim=(1, 2)).sqrt()
    ### END SOLUTION


# %% test="moved" points=1
shifted = target.clone()
shifted[:, 3] += 2 / std[3]  # t_x by two pixels
with checks.from_scratch("losses"):
    found = moved_by(shifted, target, 3)
checks.close("landmarks moved 2 pixels to the right", found, torch.full((6,), 2 * 68**0.5), unit="pixels", tolerance=0.05)
checks.close("another entry, on which both agree", moved_by(shifted, target, 20), torch.zeros(6), tolerance=1e-3)
print("✓ 68 landmarks by 2 pixels each")

# %% test="moved-hidden" points=2
# Hidden tests: every kind of entry.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
p, c = some_pair(g)
for entry in (0, 5, 7, 10, 12, 51, 52, 61):
    raw = c.double() * std + mean
    other = raw.clone()
    other[:, entry] = (p.double() * std + mean)[:, entry]
    expected = (decode(other.float()) - decode(raw.float())).flatten(1).norm(dim=1)
    checks.close(f"moved_by entry {entry}", moved_by(p, c, entry), expected, unit="pixels", tolerance=0.02)
### END HIDDEN TESTS

# %% [markdown]
# ### Task 3.3 · The weights
#
# Now `moved` holds, for each face, how far each of the 62 entries moves the landmarks. The weight of an entry is this
# distance divided by the largest distance of the same face, so that the worst entry has weight 1. Entry 11 has weight 0: it
# moves only depths, and depth does not count, not even as the largest. Where prediction and truth agree completely, nothing
# moves, and all weights are 0, not NaN.

# %% answer="weights"
def wpdc_weights(moved):
    """Weights (B, 62) from 0 to 1, from distances (B, 62) in pixels."""
    ### BEGIN SOLUTION
    keep = torch.ones(62)
    keep[DEPTH] = 0
    counted = keep * moved
    return counted / counted.amax(dim=1, keepdim=True).clamp(min=1e-12)
    ### END SOLUTION


# %% test="weights" points=1
some_moves = torch.rand(6, 62, generator=torch.Generator().manual_seed(4)) * torch.tensor([50.0, 9, 9, 30, 9, 9])[:, None]
with checks.from_scratch():
    w = wpdc_weights(some_moves)
checks.tensor("weights", w, (6, 62))
checks.close("largest weight of each face", w.amax(dim=1), torch.ones(6))
checks.close("weight of t_z", w[:, DEPTH], torch.zeros(6))
checks.close("weights where nothing moves", wpdc_weights(torch.zeros(2, 62)), torch.zeros(2, 62))
print("✓ from 0 to 1 for each face")

# %% test="weights-hidden" points=3
# Hidden tests: other distances, the depth possibly the largest, and an unchanged input.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
moves = torch.rand(5, 62, generator=g) * 10 ** torch.arange(5.0)[:, None]
moves[1, 11], moves[3] = 1e6, 0
before = moves.clone()
found = wpdc_weights(moves)
expected = [[0 if k == 11 else m / max(*row[:11], *row[12:], 1e-30) for k, m in enumerate(row)] for row in before.tolist()]
checks.close("weights", found, torch.tensor(expected))
assert torch.equal(moves, before), "wpdc_weights changed its input. Make a new tensor."
### END HIDDEN TESTS

# %% [markdown]
# ### Task 3.4 · WPDC
#
# $\sum_i w_i (\hat c_i - c_i)^2$ on the whitened vectors. The weights depend on the prediction, but the gradient must treat
# them as **constants**: otherwise a network could lower its loss by making the weights smaller.

# %% answer="wpdc"
def wpdc(predicted, target, weights):
    """Weighted parameter distance cost (B,) of whitened vectors (B, 62) with weights (B, 62)."""
    ### BEGIN SOLUTION
    return (weights.detach() * (predicted - target).square()).sum(dim=-1)
    ### END SOLUTION


# %% test="wpdc" points=1
some_weights = torch.zeros(6, 62)
some_weights[:, 20], some_weights[:, 30] = 1, 0.5
with checks.from_scratch():
    found = wpdc(predicted, target, some_weights)
checks.tensor("wpdc", found, (6,))
checks.close("wpdc of equal vectors", wpdc(target, target, some_weights), torch.zeros(6))
two = target.clone()
two[:, [20, 30, 40]] += torch.tensor([3.0, 2.0, 9.0])
checks.close("wpdc when entries are off by 3, 2 and 9", wpdc(two, target, some_weights), torch.full((6,), 11.0))
print("✓ 1 times 3², half of 2², and nothing of 9²")

# %% test="wpdc-hidden" points=2
# Hidden tests: other vectors, with the weights of the package.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
p, c = some_pair(g)
reference = losses.WPDC(model, whitening, vertices=model.landmarks)
checks.close("wpdc", wpdc(p, c, reference.weights(p, c)), reference(p, c))
### END HIDDEN TESTS

# %% test="wpdc-gradient" points=1
# Hidden tests: the gradient is that of a sum with constant weights.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
p, c = some_pair(g)
found = checks.gradient("wpdc", lambda vector: wpdc(vector, c, (vector - c).abs() / 10), p)
checks.close("gradient of wpdc", found, 2 * (p - c).abs() / 10 * (p - c))
### END HIDDEN TESTS

# %% [markdown]
# Putting it all together, here is your WPDC beside the package's (if this fails although the tests pass, ask):

# %%
try:
    each = torch.stack([moved_by(predicted, target, entry) for entry in range(62)], dim=1)  # (6, 62)
    print("yours      ", wpdc(predicted, target, wpdc_weights(each)).detach().numpy().round(3))
    print("the package", losses.WPDC(model, whitening, vertices=model.landmarks)(predicted, target).numpy().round(3))
except NotImplementedError:
    print("not yet")

# %% [markdown]
# ### Task 3.5 · Faster
#
# Decoding 62 times for each batch is slow. For a shape coefficient no decoding is needed: the landmarks move by
# $\Delta\alpha_k\, \mathbf M \mathbf A_{k,n}$, where $\mathbf M$ is the 3×3 part of the **true** pose. So the distance is
# $|\Delta\alpha_k| \, \lVert \mathbf A_k \mathbf M^\top \rVert_F$. Compute it for all shape coefficients at once. The pose
# that a network predicts is not exactly a scaled rotation, and targets need not be one either: do not simplify
# $\lVert \mathbf A_k \mathbf M^\top \rVert$ to $f \lVert \mathbf A_k \rVert$.

# %% answer="closed"
def moved_by_shape(change, M, A):
    """How far the landmarks move for a change of each shape coefficient alone.

    change: (B, 40), raw. M: (B, 3, 3). A: (68, 3, 40). Returns (B, 40) in pixels.
    """
    ### BEGIN SOLUTION
    turned = torch.einsum("bij,njk->bnik", M, A)  # (B, 68, 3, 40)
    return change.abs() * turned.square().sum(dim=(1, 2)).sqrt()
    ### END SOLUTION


# %% test="closed" points=1
A68 = model.shape_basis[model.landmarks]  # (68, 3, 40)
true_pose = Coefficients.unpack(target * std + mean).pose  # (6, 3, 4)
change = ((predicted - target) * std)[:, 12:52]  # (6, 40), raw
with checks.from_scratch():
    found = moved_by_shape(change, true_pose[:, :, :3], A68)
checks.tensor("moved_by_shape", found, (6, 40))
for entry in (0, 7, 39):  # by decoding
    raw = target * std + mean
    other = raw.clone()
    other[:, 12 + entry] += change[:, entry]
    expected = (decode(other) - decode(raw)).flatten(1).norm(dim=1)
    checks.close(f"shape coefficient {entry}", found[:, entry], expected, unit="pixels", tolerance=0.02)
print("✓ the same as by decoding")

# %% test="closed-hidden" points=2
# Hidden tests: matrices that are not scaled rotations.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
change, M, A = torch.randn(4, 7, generator=g), torch.randn(4, 3, 3, generator=g), torch.randn(20, 3, 7, generator=g)
expected = torch.stack(
    [torch.stack([c[k].abs() * (A[:, :, k] @ m.T).norm() for k in range(7)]) for c, m in zip(change, M)]
)
checks.close("moved_by_shape", moved_by_shape(change, M, A), expected, unit="pixels")
### END HIDDEN TESTS

# %% [markdown]
# ### Task 3.6 · Does it matter?
#
# The next cell trains a small learner, with one hidden layer from the 18 detected landmarks to the 62 numbers, three times:
# with PDC, VDC and WPDC (the package's, which are fast). Run it, change it if you like, and look at *all* columns. (If you
# see an error here, run the cell with the imports first.)

# %%
def learn(loss, steps=300, seed=0):
    """Train a learner with a loss; returns the mean error in pixels (x, y) and the mean squared error of each part."""
    torch.manual_seed(seed)
    points = decode(truth)[:, ::4, :2].flatten(1)  # 17 of the landmarks
    inputs = (points - points.mean(dim=0)) / points.std(dim=0)
    net = torch.nn.Sequential(torch.nn.Linear(inputs.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, 62))
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    for step in range(steps):
        rows = slice(64 * (step % 25), 64 * (step % 25) + 64)  # the first 1,600 faces
        optimiser.zero_grad()
        loss(net(inputs[rows]), white[rows]).mean().backward()
        optimiser.step()
    with torch.no_grad():
        answer = net(inputs[1600:])
    off = (decode(answer * std + mean) - decode(truth[1600:]))[..., :2].norm(dim=-1).mean()
    parts = [(answer - white[1600:])[:, part].square().mean() for part in (slice(0, 11), slice(12, 52), slice(52, 62))]
    return [float(off), *map(float, parts)]


rows = {
    "PDC": losses.PDC(),
    "VDC": losses.VDC(model, whitening, vertices=model.landmarks),
    "WPDC": losses.WPDC(model, whitening, vertices=model.landmarks),
}
print("        pixels   pose  shape  expression (mean squared error, whitened)")
for name, loss in rows.items():
    off, *parts = learn(loss)
    print(f"{name:>6} {off:8.2f} " + " ".join(f"{value:6.2f}" for value in parts))

# %% [markdown]
# Which loss gives the best landmarks, and which the best shape? Explain both from the formulas. Then: WPDC normalises its
# weights by the largest of each face. What would go wrong early in training without that, and what does the normalisation
# cost late in training? Six to ten sentences. Quote your numbers.

# %% [markdown] answer="compare" points=4
# ### BEGIN SOLUTION
# VDC penalises vertices and gives the best landmarks (in this small experiment it may be close to WPDC). PDC spreads its
# effort evenly over 61 whitened entries, most of which hardly move a pixel, so its landmarks are worse, but its shape
# coefficients are the best. WPDC lies between: entries that move vertices far get large weights, so the pose is learnt
# first; shape entries, with weights of a few hundredths while the pose is wrong, are learnt late and badly.
#
# Early in training one entry of the pose moves the landmarks by hundreds of pixels. Without normalisation the loss and its
# gradient would be of that size, and would shrink by orders of magnitude later: no learning rate fits both. With it, each
# face has one entry of weight 1 whatever its error. The price is that a face that is almost right still has an entry of
# weight 1, so the loss does not say how wrong a face is in pixels, and small errors in unimportant entries pull as hard as
# before. That is why VDC is used for fine-tuning.
#
# **Rubric.** 1 point: numbers quoted, with the loss that wins each column. 1 point: PDC treats all whitened entries alike,
# while pixels depend on few. 1 point: why normalise (scale of gradients early). 1 point: what it costs late (error in
# pixels lost), or the link to fine-tuning with VDC.
# ### END SOLUTION
