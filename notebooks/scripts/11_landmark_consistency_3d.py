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
# # 3D landmark consistency
#
# *Show the network its own answer. Does it agree with itself, and what is that worth?*
#
# **You need** [chapter 10](10_landmark_consistency_2d.ipynb) (2D landmarks as teachers), [chapter
# 4](04_fit_a_face_to_a_photograph.ipynb) (the landmark map), gradients, and what a fixed point is.
#
# **After this chapter you can**
#
# - write the loss that compares a network's second answer with its first, and say why depths are centred,
# - name three kinds of network that are perfectly consistent, and tell which of them you would want,
# - predict from one number, how far the answer follows the map, whether repeated looks settle,
# - show with automatic and with finite differences what a binary map does to a gradient,
# - report honestly what the loss changed in a small training, and what it did not.
#
# **Time** 35 minutes to read; no GPU needed.

# %% tags=["install"]
# On a machine without the package (Google Colab, for example), fetch it first. Elsewhere this does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("twodasl_lite") is None:
    package = "twodasl_lite[chapters] @ git+https://github.com/twodasl-lite/twodasl_lite@main"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from twodasl_lite import viz
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.landmarks import landmark_map, subset_18
from twodasl_lite.losses import LandmarkConsistency3D, centre_depth, face_size
from twodasl_lite.networks import load_regressor
from twodasl_lite.networks.trained import ablation_table
from twodasl_lite.training.ablation import print_gain
from twodasl_lite.training.config import load_config
from twodasl_lite.training.loop import train
from twodasl_lite.training.pictures import pictures
from twodasl_lite.viz.palette import CATEGORICAL, HOUSE_STYLE

plt.rcParams.update(HOUSE_STYLE)

model = load_face_model(CoefficientLayout())
runs = Path(tempfile.mkdtemp())

# %% [markdown]
# ## What to expect
#
# A warning first: do not expect this loss to make the network better. The cell reads the ablation that is stored
# with the package ([chapter 14](14_training_2dasl.ipynb) explains it) and prints the change of the error when the loss
# of this chapter is added to labelled pictures and 2D landmarks: percentage points of balanced NME with a 95 %
# interval, negative when the loss helps.

# %%
print_gain(ablation_table("cpu"), "+landmarks_2d+landmarks_3d")

# %% [markdown]
# One cause of a cost in 3D is known from chapter 10: points in a picture send no gradient to the third row of the
# pose. A loss that compares two predictions does reach that row, but it knows nothing about the truth. The ablation
# computes that row from the other two, which removes most of the cost, not all. The chapter shows both, and why the
# idea is worth understanding all the same.
#
# ## A network to question
#
# We train the lite regressor as in chapter 10: on a few hundred labelled pictures, and more with 2D landmarks
# alone. One thing is new: the landmark map is a *Gaussian* one, where each point is a small soft spot. We
# will see why below. The rest of the chapter examines this network.

# %%
SMALL = [
    *("network.map=gaussian", "network.pose=free"),  # chapter 14 completes it
    *("data.labelled.count=300", "data.unlabelled.count=400"),
    *("data.labelled.batch_size=16", "data.unlabelled.batch_size=16"),
    "data.validation.count=200",
    # of the losses without 3D labels, only landmarks_2d stays on
    *("self_supervision.landmarks_3d=0", "self_supervision.cycle=0"),
    "self_supervision.critic=0",
    *("stages.0.steps=200", "stages.1.steps=40"),
    *("run.validate_every=1000", "optimiser.ema=0.97"),
]


def trained(name, *settings):
    """Train the lite regressor; settings come after those above and win."""
    config = load_config("lite-cpu", [*SMALL, *settings])
    train(config, runs / name, progress=False)
    return load_regressor(runs / name / "last.safetensors")


base = trained("base")
whitening = base.whitening
# wild faces, with their truth
test = pictures(load_config("lite-cpu", SMALL).data.validation, model)
pixels = test.inputs()[:, :3]  # (B, 3, 120, 120) normalised RGB
x, m = test.detected, test.detected_visible  # what the detector reports
print(
    f"{test.size} wild faces to test on; the detector misses "
    f"{1 - float(m.float().mean()):.1%} of its points"
)


# %% [markdown]
# ## Two looks
#
# A 2DASL network sees a picture $I$ and a map $M(\mathbf x)$ of detected landmarks, and predicts
# coefficients. Decoded, they give a face with 68 landmarks in three dimensions:
#
# $$\hat{\mathbf X}_1 = D(G(I, M(\mathbf x))).$$
#
# Eighteen of these can be drawn into a map again. $P$ selects them and drops their depth,
# $\hat{\mathbf x}_1 = P(\hat{\mathbf X}_1)$. Nothing stops us from asking again:
#
# $$\hat{\mathbf X}_2 = D(G(I, M(\hat{\mathbf x}_1))).$$
#
# The picture is the same. The map now shows the network's own prediction. If the prediction was right, the
# second one should equal the first.

# %%
def look(network, points, visible=None, kind="gaussian", images=pixels):
    """Landmarks (B, 68, 3) predicted with points (B, 18, 2) in the map."""
    drawn = landmark_map(points, visible, CROP_SIZE, kind)  # (B, 1, 120, 120)
    # (B, 62) whitened
    answer = network(torch.cat([images, drawn.to(images)], dim=1))
    return decode_landmarks(whitening.unwhiten(answer), model)


@torch.no_grad()
def chain(network, looks=2, points=x, visible=m, images=pixels):
    """Predictions (K, B, 68, 3) of K looks, each given the one before."""
    answers = [look(network, points, visible, images=images)]
    while len(answers) < looks:
        answers.append(look(network, subset_18(answers[-1][..., :2]), images=images))
    return torch.stack(answers)


G = base.network.eval()
X1, X2 = chain(G)
moved = (X2 - X1)[..., :2].norm(dim=-1).mean(dim=-1)  # (B,) pixels
print(
    f"from the first look to the second, landmarks move by {moved.mean():.2f} "
    "pixels on average"
)

# %% tags=["hide-input"]
shown = moved.argsort(descending=True)[[6, 40, 120, 180]].tolist()
fig, axes = plt.subplots(2, 2, figsize=(6.4, 6.6), layout="constrained")
for ax, i in zip(axes.flat, shown):
    ax.imshow(test.images[i].permute(1, 2, 0))
    arrow = (X2 - X1)[i, :, :2]
    ax.quiver(
        *X1[i, :, :2].T, *(3 * arrow).T, angles="xy", scale_units="xy", scale=1,
        color=CATEGORICAL[4], width=0.006
    )
    ax.scatter(
        *x[i, m[i]].T, s=26, facecolors="none", edgecolors="white", linewidths=1.2
    )
    ax.scatter(*X1[i, :, :2].T, s=5, color=CATEGORICAL[5])
    ax.set_title(f"{moved[i]:.2f} pixels", fontsize=10)
    ax.set(xlim=(0, 119), ylim=(119, 0), xticks=[], yticks=[])


# %% [markdown]
# **Figure 11.1.** Four faces: the detector's points (white circles), the first prediction (dots), and the
# step to the second (arrows, three times their true length). Above each face, how far it moved. *Try* to see
# whether the arrows of a face agree: mostly the whole face shifts, turns or grows a little; single landmarks
# cannot move alone, since 62 numbers move all of them together.

# %% [markdown]
# ## The loss
#
# *3D landmark consistency* is the mean squared distance between the two predictions over all 68 landmarks.
# The idea is the paper's {cite:p}`tu2021assisted` (the landmark self-prediction of section 3.3 of the
# preprint, in 3D); it does not state norm, masks or units. These three decisions are ours:
#
# * **No mask.** A decoded face has no hidden landmarks; all 68 count, including those that no detector
#   reports. Unlike the loss of chapter 10, this one includes depth and the jaw.
# * **Depth is centred.** The head's depth cannot be observed (chapter 3). Whether both predictions put it at
#   the same $t_z$ is meaningless, so we subtract both mean depths first.
# * **The unit is the face's size**, $s = \sqrt{wh}$ of the box around $\hat{\mathbf X}_1$, as a constant.
#   Otherwise the network could lower its loss by shrinking the face.
#
# $$L_{3D} = \frac{1}{68\, s^2} \sum_{i=1}^{68} \lVert \hat{\mathbf X}_{2,i} - \hat{\mathbf X}_{1,i} \rVert^2 \quad\text{after centring depths.}$$

# %%
def consistency_3d(second, first):
    """Mean squared distance (B,) in squared face sizes."""
    extent = first[..., :2].amax(dim=1) - first[..., :2].amin(dim=1)  # (B, 2)
    size = extent.prod(dim=-1).sqrt().detach()  # (B,)
    difference = second - first  # (B, 68, 3)
    depth = difference[..., 2:] - difference[..., 2:].mean(dim=1, keepdim=True)
    difference = (
        torch.cat([difference[..., :2], depth], dim=-1) / size[:, None, None]
    )
    return difference.square().sum(dim=-1).mean(dim=-1)


L3D = LandmarkConsistency3D()
torch.testing.assert_close(consistency_3d(X2, X1), L3D(X2, X1))
farther = X2 + torch.tensor([0.0, 0.0, 25.0])  # the whole head 25 pixels nearer
torch.testing.assert_close(L3D(farther, X1), L3D(X2, X1), rtol=1e-3, atol=1e-7)
drift = 100 * L3D(X2, X1).sqrt()
print(
    f"drift, the root of the loss: {drift.mean():.2f} % of the face's size; worst "
    f"face {drift.max():.1f} %"
)

# %% [markdown]
# We call the square root of the loss the *drift*. It has the same unit as the errors.
#
# A naive implementation skips the centring. Then a head that the second prediction puts 25 pixels nearer
# counts as a large error, although no pixel differs:

# %%
naive = (
    (farther - X1) / face_size(X1)[:, None, None]
).square().sum(dim=-1).mean(dim=-1)
print(f"head moved in depth: naive drift {100 * float(naive.sqrt().mean()):.1f} %,")
print(f"with centred depths {100 * float(L3D(farther, X1).sqrt().mean()):.1f} %")
assert naive.mean() > 10 * L3D(farther, X1).mean()


# %% [markdown]
# **The gradient.** Let $\mathbf r_i = 2\,(\hat{\mathbf X}_{2,i} - \hat{\mathbf X}_{1,i}) / (68\, s^2)$,
# depths centred, be the pull on landmark $i$. With the Jacobian $\mathbf J(\mathbf c)$ of the decoder, whose
# columns chapter 9 derived, the gradients with respect to the coefficients of the two predictions are
#
# $$ \frac{\partial L_{3D}}{\partial \hat{\mathbf c}_2} = \mathbf J(\hat{\mathbf c}_2)^\top \mathbf r, \qquad \frac{\partial L_{3D}}{\partial \hat{\mathbf c}_1} = - \mathbf J(\hat{\mathbf c}_1)^\top \mathbf r \;+\; \text{(the part through the map, below)}. $$

# %%
def pull_back(c, r):
    """J(c)^T r (B, 62): a pull r (B, 68, 3) on landmarks as one on whitened c."""
    face = Coefficients.unpack(whitening.unwhiten(c), model.layout)
    S = model.decode_landmarks(face.shape, face.expression)  # (B, 68, 3)
    rows = torch.cat([S, torch.ones_like(S[..., :1])], dim=-1)  # (B, 68, 4)
    r = r * torch.tensor([1.0, -1.0, 1.0])  # y up, as in the crop frame
    A = model.basis[model.landmarks]  # (68, 3, 50)
    rest = torch.einsum("bnj,njk->bk", r @ face.pose[..., :3], A)
    return torch.cat([(r.mT @ rows).flatten(1), rest], dim=1) * whitening.std


c1 = 0.5 * torch.randn(8, 62, generator=torch.Generator().manual_seed(0))
c2 = c1 + 0.1 * torch.randn(8, 62, generator=torch.Generator().manual_seed(1))
c1, c2 = c1.requires_grad_(), c2.requires_grad_()
one, two = (decode_landmarks(whitening.unwhiten(c), model) for c in (c1, c2))
automatic = torch.autograd.grad(L3D(two, one).sum(), (c1, c2))
r = 2 * centre_depth(two - one) / (68 * face_size(one).square()[:, None, None])
for c, sign, expected in ((c1, -1, automatic[0]), (c2, 1, automatic[1])):
    found = pull_back(c.detach(), sign * r.detach())
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-3
print("third row of the pose, share of the squared gradient:", end=" ")
share_of_row = automatic[1][:, 8:11].square().sum() / automatic[1].square().sum()
print(f"{float(share_of_row):.0%}")

# %% [markdown]
# This loss does reach the third row of the pose. But it only says *be equal*, never *be right*: the two
# predictions pull on each other, and no ground truth is involved.
#
# ## Perfectly consistent, and wrong
#
# For every loss without a label we must ask: which networks get zero? Here are three candidates.
#
# * **Constant.** It always predicts the same average face.
# * **Blind to the map.** It looks at the picture alone. We make one from our network: whatever the map shows,
#   it gets an empty one.
# * **Blind to the picture.** It fits the average face to the points in the map with the best affine camera,
#   and never looks at the picture.

# %%
# (1, 68, 3)
average = decode_landmarks(whitening.unwhiten(torch.zeros(1, 62)), model).detach()


def constant(points):
    return average.expand(len(points), -1, -1)


@torch.no_grad()
def blind_to_the_map(points):
    return look(G, torch.full_like(points, torch.nan))


def blind_to_the_picture(points):
    rows = torch.cat(  # (B, 18, 4)
        [subset_18(average), torch.ones(1, 18, 1)], dim=-1
    ).expand(len(points), -1, -1)
    camera = torch.linalg.lstsq(rows, points).solution  # (B, 4, 2)
    everywhere = torch.cat([average, torch.ones(1, 68, 1)], dim=-1)
    return torch.cat(
        [everywhere @ camera, average[..., 2:].expand(len(points), -1, -1)], dim=-1
    )


# %%
# a fit wants all 18 points
reported = torch.where(m[..., None], x, subset_18(X1[..., :2]))
truth = test.landmarks
answers = {"our network": (X1, X2)}
for name, answer in (
    ("constant", constant),
    ("blind to the map", blind_to_the_map),
    ("blind to the picture", blind_to_the_picture),
):
    first = answer(reported)
    answers[name] = (first, answer(subset_18(first[..., :2])))
for name, (first, second) in answers.items():
    values = (
        100 * L3D(second, first).sqrt().mean(),
        100 * nme(first[..., :2], truth[..., :2]).mean(),
        100 * nme(first, truth).mean(),
    )
    print(
        f"{name:>20}: drift {values[0]:5.2f} %    error 2D {values[1]:6.2f} %, 3D "
        f"{values[2]:6.2f} %"
    )
    if name != "our network":
        assert values[0] < 0.05

# %% [markdown]
# Three networks have no drift, and yet their errors could hardly be more different. The one that is blind to
# the picture hits the landmarks well, because the detector does, and fails in depth. So this loss cannot
# stand alone, and nobody proposes that. The interesting question is what it does *beside* other losses. A
# first-order model answers it. Let a look be $\hat{\mathbf x} = g(\mathbf x)$ for a given picture. Near
# $\mathbf x$ with Jacobian $\mathbf J$,
#
# $$\hat{\mathbf x}_2 - \hat{\mathbf x}_1 = g(\hat{\mathbf x}_1) - g(\mathbf x) \approx \mathbf J\, (\hat{\mathbf x}_1 - \mathbf x).$$
#
# The drift is a *product*: how far the prediction follows the map, times how much the network corrected its
# input. It is zero if $\mathbf J = 0$, when the network ignores the map, and zero if
# $\hat{\mathbf x}_1 = \mathbf x$, when the network copies it. It is also zero if $\mathbf J$ maps the
# corrections to zero: $g(g(\mathbf x)) = g(\mathbf x)$, a *projection*. This last case is the useful one:
# keep whatever a face can do, and remove everything else completely at the first look.
#
# Is ignoring the map a trivial solution, then? Under this loss it costs nothing. Beside 2D consistency it
# does cost: the map shows where the points are better than a small network sees it, and a network that
# ignores the map has larger 2D errors. And if the picture were enough, ignoring the map would not be a cheat
# but the goal. The labelled pictures and the detector's points decide; 3D consistency only breaks ties.
#
# ## Do repeated looks converge?
#
# The same product explains what happens if we keep asking. The step from look $k$ to the next is about
# $\mathbf J^k (\hat{\mathbf x}_1 - \mathbf x)$, and it dies out if $\mathbf J$ shrinks. Does it? $\mathbf J$
# has 36 times 36 entries. Four movements of the map tell us what matters: a shift, a zoom, a turn, and a
# jitter that moves every point independently. How much of each does the prediction follow?

# %%
# (B, 18, 2) from the middle of the points
arm = reported - reported.mean(dim=1, keepdim=True)
unit = arm / arm.norm(dim=-1).mean(dim=1)[:, None, None]
generator = torch.Generator().manual_seed(11)
MOVES = {
    "shift": torch.tensor([1.0, 0.0]).expand_as(arm),
    "zoom": unit,
    "turn": torch.stack([-unit[..., 1], unit[..., 0]], dim=-1),
    "jitter": torch.randn(arm.shape, generator=generator),
}


@torch.no_grad()
def share(network, move, size=3.0):
    """Share of a movement (B, 18, 2) of the map that the prediction follows."""
    ends = [
        subset_18(look(network, reported + sign * size * move)[..., :2])
        for sign in (1, -1)
    ]
    return float(
        ((ends[0] - ends[1]) * move).sum() / (2 * size * move.square().sum())
    )


# %%
print(
    "the answer follows a "
    + ", a ".join(f"{name} by {share(G, move):.0%}" for name, move in MOVES.items())
)
looks = chain(G, looks=7)
steps = torch.stack(  # (6,)
    [L3D(b, a).sqrt() for a, b in zip(looks[:-1], looks[1:])]
).mean(dim=1)
errors = [float(nme(X[..., :2], truth[..., :2]).mean()) for X in looks]
print(
    "drift from look to look (%): ",
    " ".join(f"{100 * float(step):.2f}" for step in steps)
)
print(
    "2D error of looks 1 to 7 (%):",
    " ".join(f"{100 * value:.2f}" for value in errors)
)
assert steps[-1] < steps[0]


# %% [markdown]
# The network drops nearly all of the jitter at once: 62 numbers cannot express it. It follows a shift of the
# whole map most. All shares are below 1, so the steps get shorter, and repeated looks converge. *Where* they
# converge is another matter. Look at the errors: they grow. With every look a little more of the detector's
# information is lost, and the limit is not much better than what the network would have predicted without a
# detector, the line *blind to the map* above. A network that agrees with itself need not be right.
#
# ## The gradient through the map
#
# To train with this loss, its gradient has to reach the weights. There are two paths. Both looks use the same
# weights, so $\hat{\mathbf X}_2$ and $\hat{\mathbf X}_1$ pull on them directly. The other path leads from
# $\hat{\mathbf X}_2$ *through the map* back to the first look: if $\hat{\mathbf x}_1$ had been elsewhere, the
# second prediction would have been different. The binary map uses `floor`, whose derivative is zero wherever
# it exists.

# %%
def through_the_map(points, kind):
    """The loss, as a function of what is drawn for the second look."""
    return L3D(look(G, points, kind=kind), X1).sum()


drawn = subset_18(X1[..., :2])
direction = reported - drawn  # back to the detector's points
STEPS, slopes = (0.001, 0.01), {}  # of the way
for kind in ("binary", "gaussian"):
    at = drawn.clone().requires_grad_()
    value = through_the_map(at, kind)
    gradient = torch.autograd.grad(
        value, at, allow_unused=True
    )[0] if value.requires_grad else None
    automatic = 0.0 if gradient is None else float((gradient * direction).sum())
    with torch.no_grad():
        finite = [
            float(
                through_the_map(drawn + h * direction, kind)
                - through_the_map(drawn - h * direction, kind)
            ) / (2 * h)
            for h in STEPS
        ]
    slopes[kind] = (automatic, *finite)
    differences = ", ".join(
        f"{value:+.4f} (step {h})" for h, value in zip(STEPS, finite)
    )
    print(f"{kind:>8}: automatic {automatic:+.4f}, finite differences {differences}")
assert slopes["binary"][0] == 0
assert abs(slopes["gaussian"][2] / slopes["gaussian"][0] - 1) < 0.1

# %% [markdown]
# With the Gaussian map the two agree. With the binary map the automatic gradient is zero, and the finite
# differences depend on the step size: a few of the 3,600 points cross a pixel border, each makes the loss
# jump, and with another step size other points jump. Moving one point slowly shows it:

# %% tags=["hide-input"]
face = int(moved.argsort(descending=True)[20])
track = torch.linspace(-3, 3, 241)
one = drawn[face : face + 1].expand(len(track), -1, -1).clone()
one[:, 13, 0] += track  # the tip of the nose, sideways
curves = {}
with torch.no_grad():
    for kind in ("binary", "gaussian"):
        maps = landmark_map(one, None, CROP_SIZE, kind)
        answer = G(
            torch.cat(
                [pixels[face : face + 1].expand(len(track), -1, -1, -1), maps], dim=1
            )
        )
        landmarks = decode_landmarks(whitening.unwhiten(answer), model)
        start = landmarks[len(track) // 2]
        curves[f"{kind} map"] = (
            track.numpy(), (landmarks - start)[..., 0].mean(dim=1).numpy()
        )
for name, (_, values) in curves.items():
    print(
        f"{name}: {len(np.unique(values.round(4)))} different answers along 241 "
        "positions"
    )
viz.curve_figure(
    curves, x_title="tip of the nose moved in the map (pixels)",
    y_title="the answer moves by (pixels)", height=360
)

# %% [markdown]
# **Figure 11.2.** One point of the map moves sideways; the vertical axis shows how far the prediction
# follows. The binary map gives a staircase with one step per pixel; between the steps the gradient is zero.
# *Try* to find where the Gaussian curve is steepest, and where it turns back: smooth does not mean simple.
# (The network was trained with Gaussian maps; only the *form* of the binary curve matters here.)

# %% [markdown]
# So with a binary map the second look learns to agree with the first, and the first is pulled towards the
# second as if the map were fixed. With a Gaussian map the first look also learns to place points that *lead*
# to an agreeing prediction. The released network was run with binary maps; the journal version of the paper
# mentions heatmaps. We offer both.
#
# ## With and without
#
# Does the loss help? We continue training our network twice, with the same pictures in the same order for the
# same number of steps: once as before, once with 3D consistency added.

# %%
ON = [
    "stages.0.steps=50",
    "stages.1.steps=10",
    "stages.0.learning_rate=1e-3",
    "stages.0.warmup=10",
    f"network.weights={runs / 'base' / 'last.safetensors'}",
]
networks = {
    "base": G, "trained on, without": trained("without", *ON).network.eval(),
    "trained on, with": trained(
        "with", *ON, "self_supervision.landmarks_3d=300"
    ).network.eval()
}


# %%
def depth(X):
    """Mean standard deviation (pixels) of landmark depths in faces beyond 60°."""
    return float(X[test.yaw.abs() > 60, :, 2].std(dim=-1).mean())


print(f"{'':>20}  NME 2D   NME 3D   drift   follows a shift   depth of profiles")
chains = {name: chain(network, looks=7) for name, network in networks.items()}
measured = {}
for name, network in networks.items():
    first, second = chains[name][:2]
    pairs = (first[..., :2], truth[..., :2]), (first, truth)
    errors = [
        100 * summarise(nme(*pair), test.yaw, intervals=False).balanced
        for pair in pairs
    ]
    row = (
        *errors, 100 * float(L3D(second, first).sqrt().mean()),
        share(network, MOVES["shift"]), depth(first)
    )
    measured[name] = row
    print(
        "{:>20}  {:5.2f} %  {:5.2f} %  {:4.2f} %   {:.0%}"
        "               {:4.1f} px".format(name, *row)
    )
print(f"{'the truth':>20} {depth(truth):58.1f} px")
assert measured["trained on, with"][2] < measured["trained on, without"][2]

# %% tags=["hide-input"]
curves, marks = {}, np.arange(1, 7)
for name, X in chains.items():
    steps = torch.stack([L3D(b, a).sqrt().mean() for a, b in zip(X[:-1], X[1:])])
    curves[name] = (marks, (100 * steps).numpy())
fig = viz.curve_figure(
    curves,
    x_title="from look k to look k + 1",
    y_title="drift (% of the face's size)",
    log_y=True,
    markers=True,
    height=400,
)
axes = [
    {"label": k, "method": "relayout", "args": [{"yaxis.type": k}]}
    for k in ("log", "linear")
]
fig.update_layout(
    updatemenus=[
        {
            "buttons": axes, "name": "Vertical axis", "x": 0, "y": 1.2,
            "xanchor": "left"
        }
    ]
)
fig

# %% [markdown]
# **Figure 11.3.** Drift from look to look for the three networks (logarithmic): on a straight line it falls
# by the same factor each time. *Try* to read that factor off the slope, and compare it with how far the
# network follows a shift.

# %% [markdown]
# The loss delivers what it asks for: less drift. The columns of errors show its side effects. In 2D there is
# no gain. In 3D, compare the error with and without, and look at the last column: if profiles become flatter,
# the loss has found a fourth way to be consistent, and the cheapest. The labelled pictures are nearly frontal
# and 2D landmarks do not see depth, so nothing fixes the depth of a turned face, and a flat face has less
# depth to disagree about. The effect grows with the weight of the loss; a small weight does little harm, and
# little else.
#
# The stored ablation at the top of this chapter measures longer runs ([chapter 14](14_training_2dasl.ipynb)
# has the full table). Whatever a loss of this kind gains or costs, it adds no information: two predictions
# that agree can be wrong together.
#
# ## Noise in, noise out
#
# The product formula makes one prediction. If a network follows a share $\lambda$ of the map, then a share
# $\lambda$ of an error in the map reaches the first prediction, and $\lambda^2$ the second. We take the
# *true* points, add noise of a known size, and measure.

# %%
NOISE = [0, 1, 2, 4, 8]
exact = subset_18(truth[..., :2])
size = face_size(exact)[:, None]
noise = torch.randn(exact.shape, generator=generator)


def error_18(points):
    """Mean error (%) of the 18 points of all faces, in sizes of the face."""
    return 100 * float(((points - exact).norm(dim=-1) / size).mean())


curves = {
    "what the map shows": (
        NOISE, [error_18(exact + sigma * noise) for sigma in NOISE]
    )
}
for name in ("trained on, without", "trained on, with"):
    X = [chain(networks[name], 2, exact + sigma * noise, None) for sigma in NOISE]
    for k in (0, 1):
        label = f"look {k + 1}, {name.split(', ')[1]}"
        curves[label] = (
            NOISE, [error_18(subset_18(answers[k][..., :2])) for answers in X]
        )
for name, (_, values) in curves.items():
    print(f"{name:>20}: " + " ".join(f"{value:5.2f}" for value in values) + " %")

# %% tags=["hide-input"]
viz.curve_figure(
    curves,
    x_title="noise of the points in the map (pixels)",
    y_title="error of the 18 points (%)",
    markers=True,
    height=400,
)

# %% [markdown]
# **Figure 11.4.** Noise in the map and error of the prediction, for the first and the second look. *Try* to
# find the noise level above which the prediction is better than the points it was given: below that level, a
# detector this good would do better alone, *at these 18 points*.

# %% [markdown]
# This noise is the jitter from above, and all curves are much flatter than that of the map: the first look
# removes most of the noise. The curves of the second look are flatter still, because its map is cleaner. But
# they start higher: the information in the exact points is lost as well. Here denoising and forgetting are
# the same thing.
#
# ## The whole chain, face by face
#
# Averages hide what happens to a single face. {py:func}`twodasl_lite.viz.figure_chain.chain_figure` computes
# the chains of several networks on a few faces, from true and from noisy points, with both kinds of map, and
# lets you step through them. We check that its losses and its chains equal ours.

# %%
# from frontal to profile
watched = test.take(test.yaw.abs().argsort()[[10, 75, 130, 185]])
names = [f"yaw {value:.0f}°" for value in watched.yaw]
figure = viz.chain_figure(
    networks, watched, model, whitening, noises=(0, 2, 4), face_names=names
)
kinds, noises = figure.header["kinds"], figure.header["noises"]
where = {
    "regressor": 2, "kind": kinds.index("gaussian"), "noise": noises.index(4),
    "face": 1
}

# %%
# (4, 18, 2), what the maps of the first looks show
begin = figure.begins[where["noise"]]
# (4, 4, 68, 3): looks, faces
X = chain(networks["trained on, with"], 4, begin, None, watched.inputs()[:, :3])
mine = {
    "landmarks_3d": consistency_3d(X[1], X[0]),
    "drift": (
        subset_18(X[1, ..., :2]) - subset_18(X[0, ..., :2])
    ).norm(dim=-1).mean(dim=-1)
}
for face in range(watched.size):
    theirs = figure.numbers(figure.state | where | {"face": face})
    assert np.isclose(
        float(mine["landmarks_3d"][face]), theirs["landmarks_3d"], rtol=1e-3
    )
    assert np.isclose(float(mine["drift"][face]), theirs["drift"][1], rtol=1e-3)
    print(
        f"{names[face]:>9}: 3D loss {theirs['landmarks_3d']:.5f}, error of input "
        "and looks (pixels)",
        np.round(theirs["errors"], 1)
    )
# (networks, maps)
slopes = figure.gradients.flatten(3).norm(dim=-1).flatten(2).mean(dim=-1)
assert bool(
    (slopes[:, kinds.index("binary")] == 0).all()
    and (slopes[:, kinds.index("gaussian")] > 0).all()
)

# %% tags=["hide-input"]
figure.set(kind=kinds.index("gaussian"), noise=2, step=2)
figure


# %% [markdown]
# **Figure 11.5.** The chains of four faces: picture and points, the map that is drawn of them, the 3D
# landmarks seen from the side; below, after each look, the distance from the true points (solid) and the
# drift (dashed) of all three networks. *Try* to step on with 4 pixels of noise: what does the first look take
# away, and what do the later ones add? Choose the profile, and compare the depth from the network trained
# *with* the loss with that of the others. Then go to $\hat{\mathbf x}_1$ and change the map to binary: the
# arrows, which show the gradient on its way back, disappear.

# %% [markdown]
# ## Summary
#
# * Draw the prediction into the map and look again: $\hat{\mathbf X}_2$ should equal $\hat{\mathbf X}_1$. All
#   68 landmarks count, depth is centred, the unit is the size of the face.
# * Ignoring the map, ignoring the picture, and knowing everything are all consistent. The loss breaks ties
#   between networks that other losses find equally good.
# * Drift $\approx$ correction times how far the prediction follows the map. Repeated looks converge, and
#   forget the detector on the way.
# * A binary map passes no gradient to the points in it. A Gaussian map does, and finite differences agree.
# * In our small training run the loss reduces the drift, as asked, and does nothing for the 2D error; its
#   risk is that turned faces become flat.
#
# ## Exercises
#
# ### Exercise 11.1 · Two gradients, by hand
#
# Write the gradients of `L3D(second, first)` with respect to both sets of landmarks. Remember the centring,
# and that the size is a constant.

# %% tags=["exercise"]
def gradients(second, first):
    """Gradients (B, 68, 3) of the losses with respect to second and to first."""
    return torch.zeros_like(second), torch.zeros_like(first)


# %% tags=["solution"]
def gradients(second, first):
    """Gradients (B, 68, 3) of the losses with respect to second and to first."""
    difference = (
        centre_depth(second - first) / face_size(first)[:, None, None].square()
    )
    # centring again would change nothing: the mean is zero already
    by_second = 2 * difference / 68
    return by_second, -by_second  # opposite: each is pulled towards the other


# %% tags=["check"]
a, b = X2.clone().requires_grad_(), X1.clone().requires_grad_()
expected = torch.autograd.grad(L3D(a, b).sum(), (a, b))
mine = gradients(X2, X1)
for name, found, right in zip(("second", "first"), mine, expected):
    assert found.shape == right.shape, (
        f"{name}: expected shape {tuple(right.shape)}."
    )
    ratio = float((found * right).sum() / right.square().sum())
    assert abs(ratio - 1) < 1e-3, (
        f"{name}: {ratio:.3g} times the gradient. A factor, the size squared, or a "
        "sign?"
    )
    torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-7)
print("✓ equal and opposite: neither answer is the teacher of the other")


# %% [markdown]
# ### Exercise 11.2 · A network in one dimension
#
# A network that sees a point at $u$ in the picture and $x$ in the map answers $g(x) = (1 - \lambda)\, u + \lambda
# x$. The detector is off by $e$: $x = u + e$. Write the length of the step from look $k$ to look $k + 1$, and for
# which $\lambda$ between 0 and 1 the step from look 1 to look 2 is largest.

# %% tags=["exercise"]
def step_length(share, error, k):
    """|g^(k+1)(x) - g^k(x)|."""
    return 0.0


worst_share = 0.0


# %% tags=["solution"]
def step_length(share, error, k):
    """|g^(k+1)(x) - g^k(x)|."""
    # after k looks the error is share^k e
    return share**k * (1 - share) * abs(error)


# where the derivative of share (1 - share) vanishes: half map, half picture
worst_share = 0.5


# %% tags=["check"]
def g(point, share, u=10.0):
    return (1 - share) * u + share * point


for share in (0.2, 0.5, 0.9):
    at = 10.0 - 3.0
    for k in range(1, 5):
        at = g(at, share)
        step = abs(g(at, share) - at)
        assert abs(step_length(share, -3.0, k) - step) < 1e-9, (
            f"Share {share}, look {k}: the step is {step:.4f}."
        )
shares = np.linspace(0, 1, 101)
lengths = [abs(g(g(7.0, s), s) - g(7.0, s)) for s in shares]
assert abs(worst_share - shares[int(np.argmax(lengths))]) < 0.011, (
    "Try 101 shares, and take the longest step."
)
print("✓ less drift can mean less map or more map: the loss does not say which")


# %% [markdown]
# ### Exercise 11.3 · How far to the next step
#
# By how many pixels can a point move to the right before the *binary* map changes? Compute it for all points
# at once.

# %% tags=["exercise"]
def room_to_the_right(points):
    """Distances (B, 18) in pixels to the next pixel's border."""
    return torch.zeros_like(points[..., 0])


# %% tags=["solution"]
def room_to_the_right(points):
    """Distances (B, 18) in pixels to the next pixel's border."""
    return points[..., 0].floor() + 1 - points[..., 0]


# %% tags=["check"]
room = room_to_the_right(drawn)
assert room.shape == drawn.shape[:2], (
    f"Expected {tuple(drawn.shape[:2])}, found {tuple(room.shape)}."
)
before = landmark_map(drawn)
near, beyond = (
    torch.nn.functional.pad((room + h).clamp(min=0)[..., None], (0, 1))
    for h in (-0.01, 0.01)
)
assert torch.equal(landmark_map(drawn + near), before), (
    "The map changes earlier than you say."
)
assert (landmark_map(drawn + beyond) != before).flatten(1).any(dim=1).all(), (
    "The map does not change there."
)
assert 0 <= float(room.min()) <= float(room.max()) <= 1, "At most one pixel."
print(
    f"✓ on average {room.mean():.2f} pixels without any change: the gradient is "
    "right to be zero"
)


# %% [markdown]
# ### Exercise 11.4 · Until nothing moves
#
# For each face, after how many looks has the prediction converged? Return the smallest $k$ for which the
# drift from look $k$ to look $k+1$ is below `limit`, or `most` if there is none.

# %% tags=["exercise"]
def looks_until_settled(network, limit=0.01, most=8):
    """Whole numbers (B,)."""
    return torch.ones(test.size, dtype=torch.long)


# %% tags=["solution"]
def looks_until_settled(network, limit=0.01, most=8):
    """Whole numbers (B,)."""
    X = chain(network, looks=most)
    # (most - 1, B)
    settled = torch.stack([L3D(b, a).sqrt() < limit for a, b in zip(X[:-1], X[1:])])
    last = torch.ones_like(settled[:1])  # "most", for those that never settle
    # argmax finds the first
    return torch.cat([settled, last]).int().argmax(dim=0) + 1


# %% tags=["check"]
count = looks_until_settled(G)
assert (tuple(count.shape), count.dtype) == ((test.size,), torch.long), (
    "Expected a whole number for each face."
)
assert looks_until_settled(G, limit=1e9, most=2).eq(1).all(), (
    "With a huge limit, the first look is enough."
)
assert looks_until_settled(G, limit=0.0, most=3).eq(3).all(), (
    "With limit 0 nothing settles: expected most."
)
X = chain(G, looks=8)
early = torch.stack([L3D(X[k], X[k - 1]).sqrt() for k in range(1, 8)])  # (7, B)
at = early.gather(0, (count - 1).clamp(max=6)[None])[0]
assert (at[count < 8] < 0.01).all(), (
    "At the look that you name the drift is not below the limit."
)
sooner = count > 1
assert (early.gather(0, (count - 2).clamp(min=0)[None])[0][sooner] >= 0.01).all(), (
    "An earlier look would do."
)
print(
    f"✓ median {int(count.median())} looks; "
    f"{float((count == 8).float().mean()):.0%} not settled within 8"
)

# %% [markdown]
# ## Further reading
#
# {cite:t}`tu2021assisted` describe the losses of this part of the book. Asking a network to agree with itself
# is an old and fruitful idea: semi-supervised learning compares two views of one picture
# {cite:p}`laine2017temporal`, or a network with the average of its own past {cite:p}`tarvainen2017mean`. Why
# two equal predictions can be worthless, and what keeps them from collapsing, is the main question of
# self-supervised learning {cite:p}`chen2021exploring`.
