# %% [markdown]
# # Assignment 6: A loss of your own
#
# *Add a loss, run the ablation, and report how much it helps, with intervals.*
#
# **You need** chapters 9 to 15 of the book, and a pair of colleagues to talk to.
#
# **You hand in** this notebook, with every `raise NotImplementedError` and every *Write your answer here* replaced. Do not
# rename functions, and do not delete cells.
#
# **Points** {points}
#
# **Time** 6 to 8 hours, in pairs. All cells together run in 1 minute on a CPU.
#
# There is no right answer here. A loss that turns out to be worse gets full points if the report says so and explains why.

# %% locked="setup"
import matplotlib.pyplot as plt
import torch

from twodasl_lite import losses
from twodasl_lite.course import checks
from twodasl_lite.evaluation import (
    bootstrap_interval,
    nme,
    paired_difference,
    yaw_bins,
)
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import subset_18
from twodasl_lite.worlds.synthetic import SyntheticFaces, whitening_of

DEPTH = 11  # the entry t_z, which no picture determines
model = load_face_model(CoefficientLayout())
whitening = whitening_of(model, "wild", count=4000)
mean, std = whitening.mean, whitening.std


def draw_faces(world, start, count):
    """Raw coefficients (count, 62), their 68 landmarks, and 18 points as a noisy detector sees them."""
    raw = SyntheticFaces(model, world).coefficients(start, count)
    landmarks = decode_landmarks(raw, model)
    noise = 1.5 * torch.randn(count, 18, 2, generator=torch.Generator().manual_seed(start))
    return raw, landmarks, subset_18(landmarks[..., :2]) + noise


train_raw, train_landmarks, train_points = draw_faces("wild", 0, 4000)
test_raw, test_landmarks, test_points = draw_faces("wild", 100_000, 600)
train_white = whitening.whiten(train_raw)
yaw = torch.rad2deg(torch.atan2(-test_raw[:, 2], test_raw[:, :2].norm(dim=1)))  # (600,) degrees
print("test faces in the three bins of yaw:", torch.bincount(yaw_bins(yaw)).tolist())


def train(loss, seed, steps=400):
    """A small network from 18 noisy points to 62 numbers; returns the NME (600,) of the test faces, as fractions.

    loss: predicted (B, 62) whitened, target (B, 62) whitened -> (B,).
    """
    torch.manual_seed(seed)
    centre, spread = train_points.flatten(1).mean(dim=0), train_points.flatten(1).std(dim=0)
    net = torch.nn.Sequential(torch.nn.Linear(36, 192), torch.nn.ReLU(), torch.nn.Linear(192, 62))
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(train_white), (128,))
        predicted = net((train_points[rows].flatten(1) - centre) / spread)
        optimiser.zero_grad()
        loss(predicted, train_white[rows]).mean().backward()
        optimiser.step()
        plan.step()
    with torch.no_grad():
        answer = whitening.unwhiten(net((test_points.flatten(1) - centre) / spread))
    return nme(decode_landmarks(answer, model)[..., :2], test_landmarks[..., :2])


# %% [markdown]
# ### Task 6.1 · Your loss
#
# Invent a loss on whitened coefficients. It must be **zero at the truth and positive elsewhere**, return **one number per
# face**, have a **finite gradient** everywhere (at the truth too), and **not depend on $t_z$**. You may decode (with
# `whitening.unwhiten` and `decode_landmarks`) and combine losses of the package, but then at least one ingredient must be
# your own. Some directions: distances along contours rather than between points; landmarks weighted by how well a detector
# finds them; an error that grows logarithmically; angles between rotations; a mixture that changes during training.

# %% answer="loss"
def my_loss(predicted, target):
    """A loss of whitened vectors (B, 62): (B,)."""
    ### BEGIN SOLUTION
    # The squared distance of the landmarks in the picture, mouth and eyes counted double, with a slope that stays bounded.
    difference = decode_landmarks(whitening.unwhiten(predicted), model) - decode_landmarks(
        whitening.unwhiten(target), model
    )
    depth = difference[..., 2:]
    difference = torch.cat([difference[..., :2], depth - depth.mean(dim=1, keepdim=True)], dim=-1)
    counts = torch.ones(68)
    counts[36:] = 2
    squared = (difference / 60).square().sum(dim=-1) @ counts / counts.sum()
    keep = torch.ones(62)
    keep[DEPTH] = 0
    return torch.log1p(50 * squared) + 0.01 * (keep * (predicted - target)).square().sum(dim=-1)
    ### END SOLUTION


# %% test="loss" points=3
some = train_white[:5]
checks.close("my_loss at the truth", my_loss(some, some), torch.zeros(5), tolerance=1e-5)
off = some + 0.3 * torch.randn(5, 62, generator=torch.Generator().manual_seed(0))
checks.tensor("my_loss", my_loss(off, some), (5,))
assert (my_loss(off, some) > 0).all(), "Wrong coefficients must cost something."
checks.gradient("my_loss", lambda vector: my_loss(vector, some), off)
checks.gradient("my_loss at the truth", lambda vector: my_loss(vector, some), some)
print("✓ a loss")

# %% test="loss-hidden" points=3
# Hidden tests: every entry except t_z counts, and each face is treated independently.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
rows = torch.randint(0, len(train_white), (4,), generator=g)
some = train_white[rows]
for entry in (0, 3, 5, 7, 12, 20, 52):
    off = some.clone()
    off[:, entry] += 1
    assert (my_loss(off, some) > 0).all(), f"my_loss ignores entry {entry}."
deep = some.clone()
deep[:, 11] += 1
checks.close("my_loss when only t_z is off", my_loss(deep, some), torch.zeros(4), tolerance=1e-4)
off = some + 0.5 * torch.randn(4, 62, generator=g)
alone = torch.cat([my_loss(off[k : k + 1], some[k : k + 1]) for k in range(4)])
checks.close("my_loss of single faces", my_loss(off, some), alone, tolerance=1e-3 * float(alone.abs().max()))
### END HIDDEN TESTS

# %% [markdown]
# ### Task 6.2 · How sure is a mean?
#
# *Your own code.* The bootstrap: draw as many errors as there are, **with replacement**, and take their mean; repeat this
# `resamples` times. The interval reaches from the 2.5 % to the 97.5 % quantile of these means.

# %% answer="bootstrap"
def interval(errors, resamples, generator):
    """95 % interval of the mean of errors (N,): two plain numbers, low and high."""
    ### BEGIN SOLUTION
    picks = torch.randint(0, len(errors), (resamples, len(errors)), generator=generator)
    means = errors[picks].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975]))
    return float(low), float(high)
    ### END SOLUTION


# %% test="bootstrap" points=2
sample = torch.randn(400, generator=torch.Generator().manual_seed(4)) * 0.02 + 0.05
with checks.from_scratch():
    low, high = interval(sample, 1000, torch.Generator().manual_seed(5))
assert low < float(sample.mean()) < high, "The interval does not contain the mean itself."
width = (high - low) / (2 * 1.96 * 0.02 / 400**0.5)  # of that of normal theory
assert width > 0.5, "Far too narrow. Is the draw with replacement, and as large as the sample?"
assert width < 2, "Far too wide: the task asks for the interval of the mean, not of single errors."
print(f"✓ {low:.4f} to {high:.4f}")

# %% test="bootstrap-hidden" points=3
# Hidden tests: errors that are not normal, against the package.
### BEGIN HIDDEN TESTS
g = torch.Generator().manual_seed(SECRET_SEED)
sample = torch.rand(150, generator=g) ** 4
expected = bootstrap_interval(sample, statistic="mean")
found = torch.tensor(interval(sample, 4000, g))
checks.close("interval", found, torch.tensor([expected.low, expected.high]), tolerance=0.15 * (expected.high - expected.low))
### END HIDDEN TESTS

# %% [markdown]
# ### Task 6.3 · The ablation
#
# Train with PDC, with WPDC and with your loss, with three seeds each. `train` returns the errors of the 600 test faces.
# Return a dictionary from names to tensors `(3, 600)`, with one row per seed.

# %% answer="ablation"
def ablation(candidates, seeds):
    """Errors of each loss: candidates, a dictionary of losses; returns name -> (len(seeds), 600)."""
    ### BEGIN SOLUTION
    return {name: torch.stack([train(loss, seed) for seed in seeds]) for name, loss in candidates.items()}
    ### END SOLUTION


# %% test="ablation" points=4
candidates = {
    "PDC": losses.PDC(),
    "WPDC": losses.WPDC(model, whitening, vertices=model.landmarks),
    "mine": my_loss,
}
results = ablation(candidates, (0, 1, 2))
assert set(results) == set(candidates), f"Found results for {sorted(results)}; expected {sorted(candidates)}."
for name, errors in results.items():
    checks.tensor(f"errors of {name}", errors, (3, 600))
    assert not torch.equal(errors[0], errors[1]), f"{name}: two seeds gave the same errors. Is the seed passed on?"
    assert errors.mean() < 0.5, f"{name}: an error of {errors.mean():.0%} of a face. Did the network learn anything?"
print("✓ nine trainings")

# %%
plt.figure(figsize=(6, 3))
for name, errors in globals().get("results", {}).items():
    plt.plot(yaw.abs(), 100 * errors.mean(dim=0), ".", markersize=3, label=name)
plt.xlabel("absolute yaw (degrees)")
plt.ylabel("NME (%)")
plt.legend()

# %%
print("NME in % of the face size, mean of 3 seeds, 95 % interval over faces and seeds")
for name, errors in globals().get("results", {}).items():
    ends = bootstrap_interval(errors, yaw)
    line = f"{name:>5}: plain mean {100 * errors.mean():.2f}, balanced {100 * ends.low:.2f} to {100 * ends.high:.2f}"
    if name != "mine":
        gain = paired_difference(results["mine"], errors, yaw)
        line += f"; mine minus this {100 * gain.value:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
    print(line)

# %% [markdown]
# ### Task 6.4 · The report
#
# One page: the idea behind your loss and its formula; what you expected before you ran it; a table of the results with
# intervals, also for the three yaw bins; a figure that shows *where* it is better or worse; what you changed along the way,
# and on which faces you based that decision (if it was on the test faces, say so). What would have to be done before one
# could claim that the loss is better?

# %% [markdown] answer="report" points=12
# ### BEGIN SOLUTION
# The loss measures landmarks in the picture and counts eyes and mouth double, because they carry expressions; the logarithm
# keeps faces that are far off from dominating the batch; a hundredth of PDC constrains what landmarks do not show. Expected:
# better than PDC in NME, similar to WPDC, better at the mouth. (Then follow the table, bins, figure and a discussion. The
# claim would need a validation set for every choice made, more seeds, photographs instead of points, and independent test
# data.)
#
# **Rubric.** Idea and formula, clear enough for a colleague to program: 3. An expectation that could have failed, stated before
# the results: 1. Table with intervals, seeds and bins, balanced mean labelled as such: 3. A figure that answers a question: 2.
# Honesty about choices: what was tuned, on which faces: 2. What is missing for a claim: 1. Do not grade whether the loss wins.
# A claim of "better" whose paired interval contains zero costs 2.
# ### END SOLUTION

# %% [markdown]
# ### Task 6.5 · Before anybody uses it
#
# The training faces are generated from published measurements of adult heads. Name two groups of people or situations for
# which your numbers say nothing, and one use of 3D faces from single photographs that you would refuse to build. Give
# reasons.

# %% [markdown] answer="limits" points=3
# ### BEGIN SOLUTION
# Children: their proportions are outside the model. People with asymmetric faces or after surgery: the components are nearly
# symmetric. Also photographs with hands, glasses or hair over the face, very wide lenses, and cameras close to the face (weak
# perspective fails). A use to refuse: identifying people in surveillance pictures, or inferring character or origin from a
# shape, because the model's prior fills in what the picture does not show, and what looks like a measurement is a guess.
#
# **Rubric.** 1 point each for two groups or situations, with a reason that follows from the model, the camera or the data; 1
# for a use with a reason that goes beyond "it is bad".
# ### END SOLUTION
