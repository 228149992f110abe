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
# # Training 2DASL: the full GPU run
#
# *All the parts are on the table. What does it take to run them together, and what did each of them bring?*
#
# **You need** chapters [8](08_the_coefficient_regressor.ipynb) and [9](09_which_coefficient_matters.ipynb) (the
# regressor, WPDC and VDC) and [10](10_landmark_consistency_2d.ipynb) to [13](13_the_self_critic.ipynb) (the four
# losses of pictures without 3D labels).
#
# **After this chapter you can**
#
# - read 2DASL's training loop from top to bottom, and write it,
# - say what a checkpoint must hold for a stopped run to go on as if nothing had happened, and prove it,
# - read an ablation with its intervals, and say which loss carried the gain and which did not,
# - start the run on one GPU, on several, on several machines, or in pieces of ten minutes,
# - say from a log how long such a run takes, what it costs, and what to lower when its memory is too small.
#
# **Time** 55 minutes to read; 60 s on a CPU. The run for a large GPU is not started here: the chapter shows its log.

# %% tags=["install"]
# On a machine without the package (Google Colab, for example), fetch it first. Elsewhere this does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("twodasl_lite") is None:
    package = "twodasl_lite[chapters] @ git+https://github.com/twodasl-lite/twodasl_lite@main"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import json
import math
import tempfile
import textwrap
from importlib import resources
from pathlib import Path

import matplotlib.pyplot as plt
import plotly.graph_objects as go
import torch
from safetensors.torch import load_file
from torch import nn

# %%
from twodasl_lite import losses, viz
from twodasl_lite.evaluation import nme
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import landmark_map, subset_18
from twodasl_lite.networks import Critic, load_regressor, make_regressor
from twodasl_lite.networks.prediction import predict_with
from twodasl_lite.networks.trained import (
    ablation_table,
    trained_log,
    trained_names,
    trained_regressor,
)

# %%
from twodasl_lite.training.ablation import table_of
from twodasl_lite.training.config import load_config
from twodasl_lite.training.distributed import Processes
from twodasl_lite.training.ema import AveragedNetwork
from twodasl_lite.training.gpu_results import (
    gpu_run_names,
    read_gpu_run,
    steady_rate,
)
from twodasl_lite.training.log import read_log
from twodasl_lite.training.loop import Run, train
from twodasl_lite.training.pictures import prepare
from twodasl_lite.training.schedule import learning_rate
from twodasl_lite.training.steps import CriticStep, Pairs, real_pairs
from twodasl_lite.viz.palette import CATEGORICAL
from twodasl_lite.viz.training_figures import (
    LOSS_TITLES,
    MEASURE_TITLES,
    draw_gains,
    draw_sweep,
)
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.synthetic import SyntheticFaces

# %% [markdown]
# ## A run is a small file
#
# Everything that may differ from run to run stands in one configuration: network, pictures, weights of the losses,
# stages, optimiser. Several come with the package (`twodasl train --list`), from `lite-cpu`, which a laptop runs in
# minutes, to `full-gpu`, which is what this book has been heading for: a ResNet-50 on a large GPU. Here we take the
# smallest and make it smaller still, so that you can watch.

# %%
model = load_face_model(CoefficientLayout())  # 40 shape, 10 expression components
SMALL = [
    "data.labelled.count=200", "data.unlabelled.count=400",
    "data.validation.count=100", "data.processes=1"
]
SMALL += [
    "data.labelled.batch_size=16", "data.unlabelled.batch_size=16",
    "network.map_dropout=0.0"
]
SMALL += [
    "stages.0.steps=60", "stages.0.warmup=10", "stages.1.steps=20",
    "stages.1.warmup=4"
]
SMALL += [
    "run.log_every=4", "run.validate_every=20", "run.checkpoint_every=10",
    "run.keep=8"
]
config = load_config("lite-cpu", SMALL)
for stage in config.stages:
    print(
        f"stage {stage.name}: {stage.steps} steps at {stage.learning_rate:g}, "
        f"labelled pictures: {stage.weights}"
    )
print("2D-only pictures:", config.self_supervision.weights)

data = prepare(config, model, Processes())  # drawn once, then kept on disk
whitening = data.whitening
print(f"for validation: {data.validation.size} pictures that no loss sees")

# %% [markdown]
# The paper fixes the plan: WPDC first, then VDC at a lower rate, and the self-supervision in both
# {cite:p}`tu2021assisted`. It does not fix the numbers, and its training code was never released. All weights, rates and
# sizes here are *ours*, chosen on validation pictures.
#
# ## One step, from top to bottom
#
# A step takes one batch from each world. The regressor $G$ sees both *in one pass*, and that is no detail: batch
# normalisation computes its means over the batch, so that a network shown one world at a time would learn two
# normalisations, and at test time use neither. From there on the worlds part.
#
# A labelled picture knows the answer:

# %%
COSTS = {
    "wpdc": losses.WPDC(model, whitening),
    "vdc": losses.VDC(model, whitening, pose="completed"),
}


def losses_of_labelled(c_hat, batch, stage):
    target = whitening.whiten(batch.coefficients)  # (B, 62)
    return {
        name: COSTS[name](c_hat, target) for name in config.stages[stage].weights
    }


# %% [markdown]
# Before anything is decoded, one repair. The network predicts twelve numbers for the pose, but a picture shows only the
# first two rows $\mathbf r_1, \mathbf r_2$ of $f\mathbf R$. The third moves vertices in depth alone, so no loss on 2D
# landmarks has a gradient there, and the losses in 3D can press on it at will: the network may fold a face flat to make two
# looks agree. A scaled rotation has no such freedom. We compute the third row from the other two, here and in the package
# (`network.pose = "completed"`, {py:func}`twodasl_lite.geometry.camera.constrain_pose`):
#
# $$\mathbf r_3 = \frac{\mathbf r_1 \times \mathbf r_2}{\sqrt{|\mathbf r_1|\,|\mathbf r_2|}}.$$
#
# What the picture shows stays exactly as predicted. WPDC still sees all twelve numbers, so that the row is learnt where labels
# hold it.

# %%
def completed(raw):
    """Coefficients (B, 62) whose third row of the pose follows from the others."""
    pose = raw[:, :12].unflatten(1, (3, 4))
    r1, r2 = pose[:, 0, :3], pose[:, 1, :3]
    lengths = (r1.norm(dim=1) * r2.norm(dim=1)).sqrt()[:, None]
    third = torch.linalg.cross(r1, r2) / lengths
    return torch.cat([raw[:, :8], third, raw[:, 11:]], dim=1)


# %% [markdown]
# A 2D-only picture knows where a detector saw 18 points, $x$, and which of them it reported. We decode the answer to
# $X_1$, project it to $x_1$, draw *those* points into a new landmark map and look again, which gives $X_2$ and $x_2$.
# Chapters 10 to 12 compared the three pairs, chapter 13 let a critic judge the coefficients together with $x$.

# %%
def off(points, target, seen, size):
    """Mean squared distance (B,) over points that count, in squared face sizes."""
    apart = torch.where(seen[..., None], points - target, 0.0) / size[:, None, None]
    return apart.square().sum(dim=(1, 2)) / seen.sum(dim=1).clamp(min=1)


def losses_of_2d_only(G, C, c1, batch, inputs):
    x, seen = batch.detected, batch.detected_visible  # (B, 18, 2), (B, 18)
    face = completed(whitening.unwhiten(c1))  # (B, 62)
    X1 = decode_landmarks(face, model)  # (B, 68, 3)
    x1 = subset_18(X1[..., :2])
    # The same picture, our own points
    again = torch.cat([inputs[:, :3], landmark_map(x1)], dim=1)
    X2 = decode_landmarks(completed(whitening.unwhiten(G(again))), model)
    change = losses.centre_depth(X2 - X1)
    everything = torch.ones(change.shape[:2], dtype=torch.bool)
    size = losses.face_size(x, seen)
    score = C(whitening.whiten(face), losses.normalise_landmarks(x, seen), seen)
    return {
        "landmarks_2d": off(x1, x, seen, size),
        "landmarks_3d": off(
            change, torch.zeros_like(change), everything, losses.face_size(X1)
        ),
        "cycle": off(subset_18(X2[..., :2]), x, seen, size),
        "critic": (score - 1).square() / 2,
    }


# %%
def all_losses(G, C, labelled, unlabelled, stage):
    inputs = torch.cat([labelled.inputs(), unlabelled.inputs()])
    known, unknown = G(inputs).split([labelled.size, unlabelled.size])
    found = losses_of_labelled(known, labelled, stage)
    found |= losses_of_2d_only(G, C, unknown, unlabelled, unlabelled.inputs())
    seen = whitening.whiten(completed(whitening.unwhiten(unknown.detach())))
    return found, Pairs.of(seen, unlabelled.detected, unlabelled.detected_visible)


# %% [markdown]
# That is all of 2DASL's supervision, in forty lines. Does the package compute the same? Its `Run` holds
# network, critic and optimiser; we take a copy of its fresh network and compare every loss, in both stages.

# %%
folder = Path(tempfile.mkdtemp())
run = Run(config, folder / "compared", model, data, Processes())
labelled = next(data.labelled.batches(16))
unlabelled = next(data.unlabelled.batches(16))
shown = run._inputs(labelled, "labelled"), run._inputs(unlabelled, "unlabelled")
for stage in (0, 1):
    theirs, _ = run.regressor_step(*shown, stage, run.critic)
    mine, _ = all_losses(run.network, run.critic, labelled, unlabelled, stage)
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-3, atol=1e-6)
    print(
        f"stage {config.stages[stage].name}:",
        ", ".join(f"{k} {v.mean():.4g}" for k, v in mine.items())
    )


# %% [markdown]
# ## What the weights say
#
# The losses are in different units, so their values say nothing about which of them steers. What moves the network is
# the gradient. How long is the gradient of each loss, times its weight, in a new network and in the one that
# comes trained with the package?

# %%
def pulls(G, C, stage):
    """Length of each weighted loss's gradient at the network's weights."""
    weights = config.stages[stage].weights | config.self_supervision.weights
    found, _ = all_losses(G, C, labelled, unlabelled, stage)
    lengths = {}
    for name, weight in weights.items():
        parts = torch.autograd.grad(
            weight * found[name].mean(), list(G.parameters()), retain_graph=True
        )
        lengths[name] = float(torch.stack([part.norm() for part in parts]).norm())
    return lengths


finished = trained_regressor("all").network.train()  # in training mode, as in a step
pull = {
    "new": pulls(run.network, run.critic, 0),
    "trained, stage 2": pulls(finished, run.critic, 1)
}
for name, lengths in pull.items():
    print(
        f"{name:>16}: "
        + ", ".join(f"{loss} {length:.3g}" for loss, length in lengths.items())
    )

# %% tags=["hide-input"]
order = ["wpdc", "vdc", *config.self_supervision.weights]
fig = go.Figure()
for colour, (name, lengths) in zip(CATEGORICAL, pull.items()):
    kept = [loss for loss in order if loss in lengths]
    heights = [float(f"{lengths[loss]:.4g}") for loss in kept]
    fig.add_bar(
        x=[LOSS_TITLES[loss] for loss in kept], y=heights, name=name,
        marker_color=colour
    )
fig.update_yaxes(
    title="length of the weighted gradient", type="log", exponentformat="power",
    dtick=1
)
fig.update_layout(
    height=380, margin={"l": 60, "r": 20, "t": 10, "b": 40},
    legend={"orientation": "h", "y": 1.12}
)
fig


# %% [markdown]
# **Figure 14.1.** How hard each loss pulls at the network, logarithmic, on one batch and with a critic that knows nothing
# yet. *Try* weights of your own in a live notebook. A hundredth of the others' pull is next to nothing wherever they
# pull as well. Where nothing else pulls, in the depth of faces without 3D labels, it decides.

# %% [markdown]
# ## The rate, the clip, the average
#
# Three more things happen in a step. The *rate* rises linearly over a warm-up and falls along half a cosine, anew in
# each stage {cite:p}`loshchilov2017sgdr`. The gradient is *clipped*: if it is longer than a limit, it is shortened to
# it, against the rare batch that would throw the network off. And beside the network walks an *average* of its last
# versions {cite:p}`polyak1992acceleration`, $\bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta$, smoother than any
# of them. The average is what is validated and kept.

# %%
def rate(step):
    for stage in config.stages:
        if step < stage.steps:
            break
        step -= stage.steps
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    part = (step - stage.warmup) / (stage.steps - stage.warmup)
    fall = (1 + math.cos(math.pi * part)) / 2
    return stage.learning_rate * (stage.final + (1 - stage.final) * fall)


@torch.no_grad()
def update_average(average, network, step):
    # Forget the random start quickly
    d = min(config.optimiser.ema, (1 + step) / (10 + step))
    for mine, new in zip(
        average.state_dict().values(), network.state_dict().values()
    ):
        mine.copy_(d * mine + (1 - d) * new if mine.is_floating_point() else new)


for step in range(config.steps):
    assert math.isclose(rate(step), learning_rate(config, step))

# %% tags=["hide-input"]
fig = go.Figure()
for colour, name in zip(CATEGORICAL, ("full-gpu", "ablation-gpu", "lite-cpu")):
    one = load_config(name)
    steps = torch.linspace(0, one.steps - 1, 300).long().tolist()
    rates = [float(f"{learning_rate(one, step):.4g}") for step in steps]
    part = [round(100 * step / one.steps, 2) for step in steps]
    fig.add_scatter(
        x=part, y=rates, mode="lines", name=f"{name}, {one.steps:,} steps",
        line_color=colour
    )
fig.update_xaxes(title="part of the run, %")
fig.update_yaxes(title="learning rate", type="log", exponentformat="power", dtick=1)
fig.update_layout(
    height=380, margin={"l": 60, "r": 20, "t": 10, "b": 50},
    legend={"orientation": "h", "y": 1.12}
)
fig


# %% [markdown]
# **Figure 14.2.** The learning rates of three of the package's runs. *Try* to find where VDC takes over, and by how much
# the rate drops there. Within its stage each falls to a small part of its height.

# %% [markdown]
# Now the whole step. First the regressor, judged by the critic as it stands; then the critic, on the pairs that the
# regressor has just made (five updates in this configuration, each with new detector noise).

# %%
def train_step(G, average, optimiser, C, labelled, unlabelled, step):
    stage, _ = config.stage_at(step)
    for group in optimiser.param_groups:
        group["lr"] = rate(step)
    found, pairs = all_losses(G, C, labelled, unlabelled, stage)
    weights = config.stages[stage].weights | config.self_supervision.weights
    total = sum(weight * found[name].mean() for name, weight in weights.items())
    optimiser.zero_grad()
    total.backward()
    length = nn.utils.clip_grad_norm_(G.parameters(), config.optimiser.clip)
    optimiser.step()
    update_average(average, G, step + 1)
    return float(total.detach()), float(length), pairs


# %%
torch.manual_seed(config.seed)
G = make_regressor("lite")
G.load_state_dict(run.network.state_dict())
C = Critic()
C.load_state_dict(run.critic.state_dict())
average = AveragedNetwork(G, config.optimiser.ema).network  # a copy, for now
decayed = (
    [p for p in G.parameters() if p.ndim > 1],
    [p for p in G.parameters() if p.ndim <= 1]
)
groups = [{"params": decayed[0], "weight_decay": config.optimiser.weight_decay}]
optimiser = torch.optim.AdamW([*groups, {"params": decayed[1], "weight_decay": 0.0}])

total, length, fake = train_step(G, average, optimiser, C, labelled, unlabelled, 0)
report = run.train_step(labelled, unlabelled)
print(
    f"total loss {total:.3f}, gradient {length:.2f}; the package: "
    f"{report['total']:.3f}, {report['gradient']:.2f}"
)
assert math.isclose(total, float(report["total"]), rel_tol=1e-3)
assert math.isclose(length, float(report["gradient"]), rel_tol=1e-2)
apart = max(
    float((a - b).abs().max())
    for a, b in zip(G.parameters(), run.network.parameters())
)
# Adam's first step is ± the rate, also where a gradient is rounding noise
assert apart <= 2.01 * rate(0)


# %% [markdown]
# The critic's turn comes next: real pairs are re-posed to the regressor's poses (chapter 13), and the regressor's own are
# detached, so that only the critic learns.

# %%
def critic_loss(C, real, fake):
    s_real, s_fake = C(*(torch.cat(parts) for parts in zip(real, fake))).chunk(2)
    return ((s_real - 1).square() / 2 + s_fake.square() / 2).mean()


def critics_turn(C, optimiser, labelled, fake, step):
    for update in range(config.critic.updates):
        draws = Draws(
            step * config.critic.updates + update, torch.arange(len(fake.whitened))
        )
        loss = critic_loss(
            C, real_pairs(labelled, fake, whitening, model, draws), fake
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


# %%
real = real_pairs(labelled, fake, whitening, model, Draws(0, torch.arange(16)))
theirs, _ = CriticStep(C)(real, fake)
torch.testing.assert_close(critic_loss(C, real, fake), theirs.mean())

critic_optimiser = torch.optim.Adam(
    C.parameters(), lr=config.critic.learning_rate, betas=(0.5, 0.99)
)
batches = zip(
    data.labelled.batches(16, start=1), data.unlabelled.batches(16, start=1)
)
for step, (labelled, unlabelled) in zip(range(1, 9), batches):
    total, length, fake = train_step(
        G, average, optimiser, C, labelled, unlabelled, step
    )
    own = critics_turn(C, critic_optimiser, labelled, fake, step)
    print(
        f"step {step}: rate {rate(step):.1e}, total {total:6.2f}, "
        f"gradient {length:6.1f}, the critic's own {own:.2f}"
    )


# %% [markdown]
# The critic sees through a new network within a few steps, which is no feat. That loop *is* the training run. What the
# package adds in `training/loop.py`, on the same two pages: validation
# now and then, a log, dropped landmark maps (so that the network learns to do without a detector), several processes,
# half precision, and the next section.
#
# ## Pull the plug
#
# Long runs are interrupted: by a time limit, a full disk, a colleague. Whoever saves only the weights goes on with
# a cold optimiser, a rate that starts over and pictures that have been seen; it looks fine, and is another run. What
# has to be saved is *everything that the next step depends on*: network, average and critic, both optimisers, the
# step (which fixes the rate), the state of the random numbers, and the place in the data. In this package a picture's
# order and a step's randomness are functions of seed and step, so that the place in the data is one number.
#
# The proof is an experiment. One run goes through. The other is pulled out of the wall at step 47, after its last
# checkpoint at 40, and told to go on.

# %%
class PowerFailure(Exception):
    pass


def unplug(row):
    if row["kind"] == "train" and row["step"] >= 47:
        raise PowerFailure(f"at step {row['step']}")


quiet = {"device": "cpu", "progress": False, "data": data, "model": model}
curves = viz.LiveCurves()
through = train(config, folder / "through", watch=curves, **quiet)
try:
    train(config, folder / "stopped", watch=unplug, **quiet)
except PowerFailure as failure:
    print("no more power", failure)

# %% [markdown]
# **Figure 14.3.** In a notebook the curves grow while the network learns (`watch=LiveCurves()`); on the page you see the
# end. Eighty steps are hardly a training, but the two stages and all losses are there. *Try* a click on the legend, and
# a `stages.0.steps` of 400.

# %%
resumed = train(config, folder / "stopped", resume=True, **quiet)
assert resumed.step == through.step
assert resumed.finished
one, other = (
    load_regressor(f / "last.safetensors").network.state_dict()
    for f in (through.folder, resumed.folder)
)
assert all(torch.equal(one[name], other[name]) for name in one)
rows = [
    [
        {k: v for k, v in row.items() if "second" not in k}
        for row in read_log(f)
        if row["kind"] in ("train", "validation")
    ]
    for f in (through.folder, resumed.folder)
]
assert rows[0] == rows[1]
print(
    f"{len(one)} tensors and {len(rows[0])} rows of the log: equal, to the last bit"
)

# %% [markdown]
# Equal to the last bit, log included: the rows from 41 to 47 were dropped on resuming and written again. A checkpoint
# is a folder written under another name and then renamed, so that a plug pulled *during* saving leaves the one
# before. Only the clock knows.

# %% [markdown]
# ## Watch a few faces
#
# A curve says how much better a network has become, not at what. The run has kept a checkpoint of every tenth step, and
# a checkpoint holds networks. We give the averaged one of each the same wild faces, and measure by hand first.

# %%
watched = SyntheticFaces(model, "wild", seed=3).batch(0, 24, truth=True)
# From frontal to profile
watched = watched.take(watched.yaw.abs().argsort()[[2, 6, 10, 14, 18, 22]])
checkpoints = sorted((through.folder / "checkpoints").glob("step-*"))


@torch.no_grad()
def errors_at(checkpoint):
    """Error (%) of each face's 68 landmarks in the picture, in sizes of its box."""
    tensors = load_file(checkpoint / "networks.safetensors")
    then = make_regressor("lite")
    averaged = {k: v for k, v in tensors.items() if k.startswith("average.")}
    named = {k.removeprefix("average."): v for k, v in averaged.items()}
    then.load_state_dict(named)
    found = decode_landmarks(
        whitening.unwhiten(then.eval()(watched.inputs())), model
    )[..., :2]
    size = watched.landmarks.amax(dim=1) - watched.landmarks.amin(dim=1)
    box = size[:, :2].prod(dim=1).sqrt()
    return 100 * (found - watched.landmarks[..., :2]).norm(dim=-1).mean(dim=1) / box


figure = viz.training_figure(through.folder, watched, model, smooth=2)
for k, checkpoint in enumerate(checkpoints):
    mine = errors_at(checkpoint)
    theirs = figure.numbers(figure.state | {"checkpoint": k})
    torch.testing.assert_close(
        mine, torch.tensor(theirs["nme"]), rtol=1e-4, atol=1e-3
    )
    print(f"step {theirs['step']}: " + ", ".join(f"{e:.1f} %" for e in mine))

# %% tags=["hide-input"]
figure

# %% [markdown]
# **Figure 14.4.** Six faces of the wild world as the run goes on: predictions in blue, the truth in orange; below the
# curves of the log, with a cursor in time. *Try* to play it, and watch a frontal face and a profile: what is right first,
# the place, the turn, or the mouth? Choose the curves of the losses, and find the step at which VDC takes the place of
# WPDC. The checkpoints and their hashes stand below.

# %% [markdown]
# A single face does not get better with every step, as the means nearly do: it may turn the right way and lose at the
# mouth. That is why a comparison needs many pictures.

# %% [markdown]
# ## The learning curves of a real run
#
# A thousand steps of this kind, with batches of 32, make the networks that come with the package: two and
# a half minutes on a quiet CPU. This is the log of the run with all losses.

# %%
log = trained_log("all")
start, end = log[0], log[-1]
print({key: start[key] for key in ("device", "torch", "commit") if key in start})
print(
    f"{end['step']} steps; best balanced NME on validation pictures "
    f"{end['best']:.2%}"
)
fig = viz.learning_figure(log)
fig

# %% [markdown]
# **Figure 14.5.**<a id="training-log"></a> Above the losses, below the error on pictures of the wild world that no loss has seen; the dotted line
# is where VDC takes over. *Try* to switch off all curves but two in the legend. Two things are worth a look: the
# falling rate at the end of a stage shows as a fall of the error (the same noise, smaller steps), and
# the critic's loss does not fall like the others. It is not meant to: its other player learns too.

# %% [markdown]
# ## Which loss carried it?
#
# *It works* is no result. A method with four new losses has to show what each of them adds, and against an honest
# baseline: not only labelled pictures alone, but labelled pictures *plus plain supervision by 2D landmarks*, because
# anybody would do that with landmarks. Two more rows have the prior of [chapter 13](13_the_self_critic.ipynb), which is
# not the paper's, alone and together with all its losses. That makes an *ablation* of eight rows with three seeds each, all
# else equal, tested on the same wild pictures.

# %%
table = ablation_table("cpu")
print(f"{table['test_pictures']:,} test pictures; balanced NME, % (seeds)")
for name, entry in table["rows"].items():
    two, three = table_of(entry["landmarks_2d"]), table_of(entry["landmarks_3d"])
    single = ", ".join(
        f"{100 * seed['landmarks_2d']['balanced']:.2f}"
        for seed in entry["seeds"].values()
    )
    print(
        f"{name:>26}: 2D {100 * two.balanced:5.2f} ({single}), "
        f"3D {100 * three.balanced:5.2f}"
    )

# %% tags=["hide-input"]
fig = viz.ablation_figure(table)
buttons = []
for measure, title in MEASURE_TITLES.items():
    drawn = viz.ablation_figure(table, measure)
    change = {"x": [list(trace.x) for trace in drawn.data]}
    change |= {
        f"error_x.{end}": [list(trace.error_x[end]) for trace in drawn.data]
        for end in ("array", "arrayminus")
    }
    axis = {"xaxis.title.text": drawn.layout.xaxis.title.text}
    buttons.append({"label": title, "method": "update", "args": [change, axis]})
fig.update_layout(
    updatemenus=[{
        "buttons": buttons, "name": "Which error", "x": 0, "xanchor": "left",
        "y": 1.2
    }]
)
fig

# %% [markdown]
# **Figure 14.6.** The ablation, by yaw and balanced, with 95 % intervals over pictures and seeds. *Try* the
# other errors: in 3D, the part that no landmark shows; all vertices; and without a detector, where the network draws
# its own landmarks and looks again.

# %% [markdown]
# Intervals that overlap do not settle a comparison, since all rows were tested on the *same* pictures and started from
# the same seeds. What counts is the paired difference: subtract picture by picture, average, and ask the bootstrap how
# far that could be luck.

# %%
for measure in ("landmarks_2d", "landmarks_3d", "landmarks_2d_without_detector"):
    print(
        f"\n{MEASURE_TITLES[measure]}: balanced NME minus that of +landmarks_2d, "
        "points of %"
    )
    for name, entry in table["rows"].items():
        if "+landmarks_2d" in entry["against"]:
            found = entry["against"]["+landmarks_2d"][measure]
            each = ", ".join(
                f"{100 * seed['value']:+.2f}" for seed in found["seeds"].values()
            )
            ends = f"[{100 * found['low']:+.2f}, {100 * found['high']:+.2f}]"
            print(f"{name:>26}: {100 * found['value']:+6.2f} {ends}, seeds {each}")


# %% [markdown]
# An interval that lies below zero says *better*, one above zero *worse*. One that contains zero says that this experiment
# cannot tell, which is not the same as "no difference". Here is what the intervals say, row by row:

# %%
def verdict(found):
    if found["high"] < 0:
        return "better"
    return "worse" if found["low"] > 0 else "cannot tell"


rows = table["rows"]
added = [name for name in rows if "landmarks_2d+" in name or "all" in name]
further = {name: rows[name]["against"]["+landmarks_2d"] for name in added}
for measure in ("landmarks_2d", "landmarks_3d", "landmarks_2d_without_detector"):
    said = {name: verdict(found[measure]) for name, found in further.items()}
    print(f"{MEASURE_TITLES[measure]}, against plain 2D landmarks:")
    for word in ("better", "worse", "cannot tell"):
        named = ", ".join(name for name, one in said.items() if one == word)
        print(f"{word:>13}: {named or 'none'}")

for measure in ("landmarks_2d", "landmarks_3d"):
    share = (
        rows["+landmarks_2d"][measure]["balanced"]
        / rows["labelled"][measure]["balanced"]
    )
    print(
        f"{MEASURE_TITLES[measure]}: plain 2D landmarks leave {share:.0%} of the "
        "error of labelled pictures alone"
    )
    assert share < 0.6

# %% [markdown]
# **The 2D landmarks carry the gain.** Pictures with nothing but a detector's points, and nothing cleverer than their
# distance, leave the shares of the error that stand in the last two lines. Turned faces, which the labelled world hardly
# has, gain most. And the error falls in 3D as well, where no landmark says anything: whoever learns the right pose gets
# much of the depth for free.
#
# **What the paper's further losses add** is in the three blocks above, and only the rows under *better* are a result in
# their favour. Without a detector, when the network has to draw its own landmarks and look again, the cycle loss
# helps: that second look is what it trains. With a detector none of them helps. The critic changes
# nothing that these runs can show. 3D consistency costs a third of a point in 3D in every seed, although it is the
# loss about 3D:

# %%
cycle, consistency, critic, prior = (
    further[f"+landmarks_2d+{name}"]
    for name in ("cycle", "landmarks_3d", "critic", "prior")
)
assert verdict(cycle["landmarks_2d_without_detector"]) == "better"
assert verdict(cycle["landmarks_3d_without_detector"]) == "better"
assert verdict(consistency["landmarks_3d"]) == "worse"
assert all(verdict(found) == "cannot tell" for found in critic.values())
with_detector = [measure for measure in MEASURE_TITLES if "without" not in measure]
for found in (cycle, consistency, critic, further["all"]):
    assert not any(verdict(found[measure]) == "better" for measure in with_detector)

# %% [markdown]
# Why does a loss about 3D not help in 3D? It never sees the ground truth. It compares two predictions of the same
# network, and rewards them for agreeing, right or wrong ([chapter 11](11_landmark_consistency_3d.ipynb)).
#
# **The prior carries the rest.** It takes a quarter of a point off in 2D and more in 3D, in every seed: where no landmark
# says anything, it keeps the faces from drifting. And *on top of the prior* the paper's losses do what they were
# invented for. All five together are the best network of the table when there is no detector, in 2D and in 3D, clear
# of the prior alone:

# %%
assert all(verdict(prior[measure]) == "better" for measure in with_detector)
both = further["all+prior"]
assert all(verdict(found) == "better" for found in both.values())
for measure in ("landmarks_2d_without_detector", "landmarks_3d_without_detector"):
    best = min(rows, key=lambda name: rows[name][measure]["balanced"])
    print(f"{MEASURE_TITLES[measure]}: best is {best}")
    assert best == "all+prior"

# %% [markdown]
# **What this does not say.** These are small networks, a thousand steps, synthetic faces, weights from a handful of
# trials. The paper trained a ResNet-50 on photographs and reports that its losses help {cite:p}`tu2021assisted`.
# Runs of this size neither repeat that nor refute it. They do say what to compare the larger run with: plain 2D
# landmarks, and the prior.

# %% [markdown]
# ## Where the other losses could help
#
# A network can outvote its detector only where the detector is wrong, and it needs other teachers only where labels
# are few. So we repeat the three rows that matter in harder settings: with a detector whose errors are four times as
# large, in the maps and in the loss; and with 500 labelled pictures in place of 8,000. All networks are tested on the
# same pictures, with the usual detector. The command is `twodasl ablate --sweep detector_labels`, and a sweep is a
# small file of settings.

# %%
results = resources.files("twodasl_lite") / "assets" / "results"
sweep = json.loads((results / "sweep_detector_labels.json").read_text("utf-8"))
for cell in sweep["cells"]:
    print(", ".join(f"{axis} {setting}" for axis, setting in cell["place"].items()))
    for row in ("all", "+landmarks_2d+prior"):
        for measure in ("landmarks_2d", "landmarks_3d"):
            found = cell["against"][row][measure]
            ends = f"[{100 * found['low']:+.2f}, {100 * found['high']:+.2f}]"
            print(
                f"  {row:<20} {MEASURE_TITLES[measure]:<18} "
                f"{100 * found['value']:+.2f} {ends} {verdict(found)}"
            )

without = "landmarks_2d_without_detector"
gains = [cell["against"]["all"] for cell in sweep["cells"]]
assert all(gain[without]["value"] < 0 for gain in gains)
assert sum(verdict(gain[without]) == "better" for gain in gains) == 2
assert all(gain["landmarks_3d"]["value"] > 0 for gain in gains)
gains = [cell["against"]["+landmarks_2d+prior"] for cell in sweep["cells"]]
assert all(found["value"] < 0 for gain in gains for found in gain.values())
assert sum(verdict(gain["landmarks_3d"]) == "better" for gain in gains) == 3

# %% tags=["hide-input"]
figure, panels = plt.subplots(2, 2, figsize=(8, 6), layout="constrained")
for line, measure in zip(panels, ("landmarks_3d", without)):
    for axes, row in zip(line, ("all", "+landmarks_2d+prior")):
        draw_sweep(axes, sweep, row, measure, limit=1.0)
        axes.set_title(f"{row}\n{axes.get_title()}", fontsize=10)
plt.show()

# %% [markdown]
# **Figure 14.7.** What all four losses (left) and the prior (right) change against plain 2D landmarks, in points of
# balanced NME with 95 % intervals over seeds and pictures; blue is better, bold is clear of zero. *Compare* the upper
# row, in 3D with a detector's points, with the lower one, in 2D without.

# %% [markdown]
# Without a detector the four losses make the landmarks better in every setting, by more where the teachers are worse; two
# of the four intervals are clear of zero. With a detector they do not help in any setting, and in the easy one they
# cost. The prior lowers the error in every setting and in every measure, most with few labels.
#
# ## How strong may a loss be?
#
# All weights so far came from a handful of trials. `twodasl ablate --sweep weights` multiplies the weight of the
# loss that a row adds to plain 2D landmarks:

# %%
by_weight = json.loads((results / "sweep_weights.json").read_text("utf-8"))
for cell in by_weight["cells"]:
    for row, found in cell["against"].items():
        values = ", ".join(
            f"{name} {100 * found[name]['value']:+.2f}"
            for name in ("landmarks_2d", "landmarks_3d", without)
        )
        print(f"weight × {cell['place']['weight']:>4} {row:<27} {values}")

strength = {
    cell["place"]["weight"]: cell["against"]["+landmarks_2d+prior"]["landmarks_3d"]
    for cell in by_weight["cells"]
}
best = min(strength, key=lambda weight: strength[weight]["value"])
print(f"the prior is best at × {best}: {100 * strength[best]['value']:+.2f} in 3D")
assert strength["0.1"]["value"] > strength[best]["value"] < strength["100"]["value"]
assert verdict(strength[best]) == "better"
assert float(best) >= 10
for cell in by_weight["cells"]:
    for row, found in cell["against"].items():
        if "prior" not in row:
            assert "better" not in (
                verdict(found["landmarks_2d"]), verdict(found["landmarks_3d"])
            )

# %% tags=["hide-input"]
figure, panels = plt.subplots(2, 2, figsize=(8, 6.4), layout="constrained")
shown = ("landmarks_2d", "landmarks_3d", without, "landmarks_3d_without_detector")
for axes, measure in zip(panels.flat, shown):
    draw_gains(axes, by_weight, measure)
figure.legend(
    *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4
)
plt.show()


# %% [markdown]
# **Figure 14.8.** The change against plain 2D landmarks, by the weight of the added loss as a multiple of the
# ablation's; below zero is better. Vertical lines are 95 % intervals over seeds and pictures. *Look for* a loss whose
# curve falls, and for the weight at which it turns.

# %% [markdown]
# The prior was too weak by a factor of ten or more: it gains until the weight is about thirty times the first guess, and a
# sixth of the 3D error goes. No weight makes 3D consistency, the cycle or the critic help with a detector; a stronger
# cycle costs a whole point there. One caution: the faces of these worlds *are drawn* from the distribution that
# the prior assumes, so nowhere could it fit better. What do the same networks do on photographs?
#
# ## The same networks on photographs
#
# None of these runs has seen a photograph. `benchmarks/ablation_on_photos.py` shows their networks the 2,000 faces of
# AFLW2000-3D, with and without a detector's points:

# %%
def print_photos(rows):
    for row, entry in rows.items():
        print(row)
        for measure in shown:
            value, low, high = entry[measure]["difference"]
            change = f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" if value else ""
            title = MEASURE_TITLES[measure]
            print(f"  {title:<36} {entry[measure]['balanced']:6.2f} % {change}")


on_photos = json.loads((results / "ablation_photos.json").read_text("utf-8"))
print_photos(on_photos["rows"])

plain, four, strong, both = (
    on_photos["rows"][row]
    for row in ("+landmarks_2d", "all", "+landmarks_2d+prior × 10", "all+prior × 10")
)
assert four["landmarks_2d"]["difference"][1] > 0  # worse, clear of zero
assert four["landmarks_3d"]["difference"][1] > 0
assert both["landmarks_3d_without_detector"]["difference"][2] < 0  # better
for measure in ("landmarks_3d", "landmarks_3d_without_detector"):
    pairs = zip(strong[measure]["seeds"], plain[measure]["seeds"])
    assert all(one < other for one, other in pairs)  # better in each seed

# %% [markdown]
# The picture is the same, and less sharp, because three seeds differ more on photographs than on drawn faces. With a
# detector the four losses cost, in 2D and in 3D. The prior at ten times its weight lowers the 3D error in each seed, by
# about 7 %; its interval just reaches zero. And without a detector the best network is the one with all five losses: a
# point less in 3D than plain 2D landmarks, clear of zero. After five times as many steps there is no doubt left about
# the prior:

# %%
longer = json.loads((results / "ablation_photos_long.json").read_text("utf-8"))
print_photos(longer["rows"])
for measure in ("landmarks_2d", "landmarks_3d", "landmarks_3d_without_detector"):
    low, high = longer["rows"]["+landmarks_2d+prior"][measure]["difference"][1:]
    assert high < 0

# %% [markdown]
# **The answer of these experiments.** Plain supervision by 2D landmarks carries most of the gain. What is left open after that,
# depth and identity, is held by a prior of one line, not by agreement of a network with itself. The paper's four losses
# are worth their price where the network works *without* a detector: alone they gain in 2D, on top of the prior in 2D
# and in 3D.

# %% [markdown]
# ## What was tried
#
# Are these losses built in a way that cannot help? Each row below changes one decision. The pose comes first,
# because it mattered most: in an earlier comparison, whose landmarks lay slightly differently on the face, all
# twelve pose numbers were read as predicted (*free*) or the third row was completed as in this chapter's step.

# %%
forms = json.loads((results / "pose_forms.json").read_text("utf-8"))
for measure in ("landmarks_2d", "landmarks_3d", "vertices_3d"):
    print(f"{MEASURE_TITLES[measure]}, %; one number for each seed")
    for form, by_row in forms["errors"].items():
        for row, found in by_row.items():
            each = ", ".join(f"{value:.2f}" for value in found[measure].values())
            print(f"{form:>12} pose, {row:<13}: {each}")
for row, found in forms["completed - free"].items():
    assert found["landmarks_3d"]["high"] < 0, row
    assert found["vertices_3d"]["high"] < 0, row
costs = {
    form: found["landmarks_3d"]["value"]
    for form, found in forms["all - +landmarks_2d"].items()
}
assert costs["free"] > 2 * costs["completed"]

# %% [markdown]
# **The free pose caused most of the harm.** No 2D loss has a gradient for the third row, and the losses in 3D press
# on it at will. Completing it takes two to four points off the 3D error and leaves the 2D error where it was. (The
# free pose was run with one seed, so its intervals cover the pictures alone.)
#
# The other trials change the losses:

# %%
trials = json.loads((results / "loss_trials.json").read_text("utf-8"))["trials"]
for trial in trials:
    print(f"{trial['title']}, seeds {trial['seeds']}")
    for measure in ("landmarks_2d", "landmarks_3d", without):
        found = trial[measure]
        ends = f"[{found['low']:+.2f}, {found['high']:+.2f}]"
        title = MEASURE_TITLES[measure]
        print(f"  {title:<36} {found['value']:+.2f} {ends} {verdict(found)}")

# %%
second, _, prior_or_critic, on_top, prior_long, four_long = trials
assert verdict(second["landmarks_3d"]) == "worse"
for measure in ("landmarks_2d", "landmarks_3d", "vertices_3d"):
    assert verdict(prior_or_critic[measure]) == "better"
    assert verdict(on_top[measure]) == "cannot tell"
for measure in (without, "landmarks_3d_without_detector"):
    assert verdict(on_top[measure]) == "better"
    pairs = zip(*on_top[measure]["errors"])
    assert all(one < other for one, other in pairs)  # in each seed
for measure in MEASURE_TITLES:
    assert verdict(prior_long[measure]) == "better"
    assert prior_long[measure]["value"] < -0.5
    assert verdict(four_long[measure]) == "cannot tell"

# %% [markdown]
# Which end of 3D consistency is pulled does not matter: the cost in 3D stays. The next two pairs are the surprise. The
# oldest prior there is, the squared Mahalanobis distance of the predicted shape and expression from the average face,
# does what the learned critic was invented for, and does it better. And with the prior in place, the paper's four losses
# gain a third of a point without a detector, in 2D and in 3D, in all three seeds.
#
# The last two pairs are runs of 5,000 steps instead of 1,000, the same length for both sides. The prior's lead does not
# melt away, it grows: a fifth of the error in 2D, a quarter in 3D. The longer a network follows nothing but landmarks,
# the further its faces drift where landmarks say nothing. What the four losses change after 5,000 steps three seeds
# cannot tell: in one seed they help, in another they cost.

# %% [markdown]
# ## Faces
#
# Numbers hide what kind of error they count. Here are faces of the test world, the first two of each range of yaw that
# the generator drew, not chosen, as the network trained on labelled pictures alone sees them and as the one with all
# losses does.

# %%
faces = SyntheticFaces(model, "wild", seed=3).batch(0, 24, truth=True)
yaw = faces.yaw.abs()
ranges = (yaw <= 30, (yaw > 30) & (yaw <= 60), yaw > 60)
chosen = faces.take(torch.cat([inside.nonzero().flatten()[:2] for inside in ranges]))
answers = {
    name: predict_with(trained_regressor(name), chosen, model=model)
    for name in ("labelled", "all")
}
errors = {
    name: nme(answer.landmarks[..., :2], chosen.landmarks[..., :2])
    for name, answer in answers.items()
}

print("networks in the package:", ", ".join(trained_names()))

# %% tags=["hide-input"]
fig, axes = plt.subplots(chosen.size, 4, figsize=(8, 12.4), layout="constrained")
photos = chosen.images.permute(0, 2, 3, 1).numpy()
skin = model.decode_albedo()[0]  # the average skin, (V, 3)
heads = {name: answer.coefficients for name, answer in answers.items()}
heads["the truth"] = chosen.coefficients
for i, line in enumerate(axes):
    line[0].imshow(photos[i])
    line[0].scatter(*chosen.detected[i].T, s=7, color="#f0e442")
    line[0].set_axis_off()
    line[0].set_title(f"yaw {chosen.yaw[i]:.0f}°", fontsize=10)
    for ax, (name, vectors) in zip(line[1:], heads.items(), strict=True):
        vertices = decode(vectors[i : i + 1], model)[0]
        viz.overlay(ax, photos[i], vertices, model.triangles, 1.0, colours=skin)
        ax.set(xlim=(-0.5, 119.5), ylim=(119.5, -0.5))
        error = f": {100 * errors[name][i]:.1f} %" if name in errors else ""
        ax.set_title(name + error, fontsize=10)

# %% [markdown]
# **Figure 14.9.** Left, what the network is given: picture and detected points. Then the faces of the network
# that saw labelled faces only and of the one with all losses, each with its 2D NME, and the truth. *Try* in a live notebook
# `trained_regressor("+landmarks_2d")`: can you tell its faces from those of all losses? Every network has a card,
# `trained_regressor("all").metadata["card"]`, that says how it was made and what it is not for.

# %% [markdown]
# ## On a GPU
#
# Here is what to type. On one GPU:
#
# ```
# twodasl train full-gpu --out runs/full
# ```
#
# On several GPUs of a machine, and on several machines:
#
# ```
# torchrun --nproc-per-node 8 -m twodasl_lite train full-gpu --out runs/full
# torchrun --nnodes 4 --node-rank K --master-addr HOST --nproc-per-node 8 -m twodasl_lite train full-gpu --out runs/full
# ```
#
# `batch_size` counts the pictures of all processes together, so that the run stays the same run: more GPUs
# make it faster, not different. (If you enlarge the batch, raise the rate with it and lengthen the warm-up
# {cite:p}`goyal2017accurate`.)
#
# And where a job may last ten minutes only, in pieces. The exit status says how a piece ended: 0 if the run is finished,
# 3 if it was paused and wants to go on, anything else if something is wrong, and then the loop must end as well:
#
# ```
# while true; do
#     twodasl train full-gpu --out runs/full --resume --minutes 10
#     [ $? -eq 3 ] || break
# done
# ```
#
# `--set network.name=resnet18` changes a value, `--show` prints the whole configuration, `twodasl ablate --size gpu` makes
# the ablation above with ResNet-18 and more pictures. What `full-gpu` is:

# %%
full = load_config("full-gpu")
sources = {"labelled": full.data.labelled, "2D-only": full.data.unlabelled}
batch = sum(source.batch_size for source in sources.values())
for name, source in sources.items():
    print(
        f"{name} pictures: {source.kind} {source.world}, "
        f"{source.batch_size} in a step"
    )
for stage in full.stages:
    print(
        f"stage {stage.name}: up to {stage.steps:,} steps at "
        f"{stage.learning_rate:g}, {stage.weights}"
    )
print("2D-only pictures:", full.self_supervision.weights)
print(
    f"{full.network.name} in {full.optimiser.precision}; compiled: "
    f"{full.optimiser.compile}"
)
HOLDS = {
    "host": "kept in main memory", "device": "kept on the GPU",
    "stream": "drawn beside each step, none of them twice"
}
print(f"drawn pictures: {HOLDS[full.data.hold]}")
if limit := getattr(full.run, "minutes", 0):
    print(
        f"the schedule follows the clock, and ends after {limit:g} minutes however "
        "many steps that makes"
    )

# %% [markdown]
# ## What a logged run gave
#
# A run leaves a log, and a log answers most of what one asks before renting a GPU: how fast, how long, how good, how
# dear. `benchmarks/gpu_run.py` makes such a run, with tests and measurements around it, in one call of a few minutes, and
# leaves its results in a form that this chapter reads. It shows the latest complete one that is there, and an unfinished
# one as long as there is no other. Which is it?

# %%
logged = read_gpu_run(gpu_run_names()[0])
where, trained_as = logged.provenance, logged.training
print(
    f"{trained_as['configuration']} with {trained_as['config']['network']['name']}, "
    f"on one {where['device']}"
)
print(
    f"{where['date'][:10]}, commit {where.get('commit', 'unknown')[:7]}, "
    f"torch {where['torch']}"
)
if logged.finished:
    print(f"The run is finished: {trained_as['step']:,} steps.")
else:
    print(
        f"THE RUN IS NOT FINISHED: its log ends at step {trained_as['step']:,} of "
        f"{trained_as['planned']:,}."
    )
print(textwrap.fill(logged.facts.get("note", ""), 100))

# %%
result = logged.result("evaluation")
print(
    f"{result['dataset']}, {result['faces']:,} faces, "
    f"the network of step {result['step']:,}: NME, % [95 % interval]"
)
for measure in ("68 points, 2D", "68 points, 3D"):
    print(measure)
    width = max(map(len, logged.errors(measure)))
    for name, table in logged.errors(measure).items():
        low, high = table["intervals"]["balanced"]
        bins = ", ".join(
            f"{yaw} {100 * value:.2f}" for yaw, value in table["bins"].items()
        )
        print(
            f"{name:>{width + 2}}: balanced {100 * table['balanced']:.2f} "
            f"[{100 * low:.2f}, {100 * high:.2f}]; {bins}"
        )
errors = logged.errors()
assert errors["a detector's points"]["balanced"] < errors["no points"]["balanced"]
rates = {row["step"]: row["rate"] for row in logged.rows if row["kind"] == "train"}
at_evaluation = rates[min(rates, key=lambda step: abs(step - result["step"]))]
print(
    f"learning rate at that step: {at_evaluation / max(rates.values()):.0%} of its "
    "highest"
)

# %% [markdown]
# If the first cell says that the run is not finished, read the errors as what they are: those of a network taken from
# the middle of its training, whose learning rate was still as high as the last line says. Much of the error falls at the
# end of a schedule, when the rate comes down ([figure 14.5](#training-log)). A finished run should be better; by how much, nobody knows
# before it is made.
#
# Where does the clock come from? A row of the log has the number of pictures per second since the row before. With the
# batch size that gives the time of each row, validations and checkpoints included.

# %%
line = logged.timeline()
seconds = 0.0
for (step, at, pictures_per_second), before in zip(
    line, [0, *(step for step, _, _ in line)]
):
    seconds += (step - before) * logged.batch_size / pictures_per_second
    assert math.isclose(seconds, at)
rate_seen = steady_rate(line)
step_ms = 1000 * logged.batch_size / rate_seen
print(
    f"{logged.batch_size} pictures a step, {rate_seen:,.0f} pictures a second, "
    f"{step_ms:.0f} ms a step"
)
print(
    f"{line[-1][0]:,} steps and {line[-1][0] * logged.batch_size:,} pictures in "
    f"{seconds / 60:.1f} minutes"
)
if "start_seconds" in trained_as:
    print(f"before the first step: {trained_as['start_seconds']:.0f} s")
memory = trained_as.get("peak_memory_gib")
recorded = f"{memory:.1f} GiB" if memory else "not recorded in this run"
print("largest memory in use:", recorded)

# %% tags=["hide-input"]
last, first = line[-1][0], next(row for row in logged.rows if row["kind"] == "train")
timed = []
for row in logged.rows:
    now = round(logged.seconds_at(min(row["step"], last)) / 60, 3)
    shares = {
        name: row[name] / first[name]
        for name in LOSS_TITLES
        if row.get(name) and row["kind"] == "train"
    }
    timed.append(row | shares | {"step": now})
fig = viz.learning_figure(timed, smooth=3)
fig.update_traces(mode="lines+markers", marker_size=9, row=2)
fig.update_yaxes(
    type="linear", dtick=0.2, rangemode="tozero", exponentformat="none", row=1
)
fig.update_xaxes(
    title_text="minutes of training", range=[0, 1.02 * timed[-1]["step"]], row=2,
    col=1
)
fig.update_layout(height=600)
fig.layout.annotations[0].text = "losses, as shares of their first value"
fig

# %% [markdown]
# **Figure 14.10.** The run on the GPU by the clock: above its losses, each divided by its first value; below the error on
# drawn validation pictures that no loss has seen, balanced and by yaw. *Try* to find out when half of each loss's fall was
# over. A run that was ended early has few validations; a single one is a column of points.

# %% [markdown]
# ### What to expect after how many minutes
#
# The losses by the half minute, with what had been validated by then. A line does not say how good a run of that length
# would be: one that is planned for three minutes lowers its rate within them, and ends better than a longer one stands
# after three.

# %%
shown = [row for row in logged.rows if row["kind"] == "train"]
validated = [row for row in logged.rows if row["kind"] == "validation"]
names = [name for name in LOSS_TITLES if name in shown[0]]
print(
    "minutes   step  pictures    rate  "
    + "  ".join(f"{LOSS_TITLES[name]:>12}" for name in names)
    + "  validation NME"
)
for half in range(1, int(seconds / 30) + 1):
    row = min(shown, key=lambda one: abs(logged.seconds_at(one["step"]) - 30 * half))
    reach = 2 * shown[0]["step"]
    near = [one for one in shown if abs(one["step"] - row["step"]) <= reach]
    means = [sum(one[name] for one in near) / len(near) for name in names]
    done = [
        one["landmarks_2d"]["balanced"]
        for one in validated
        if one["step"] <= row["step"]
    ]
    values = "  ".join(f"{value:12.4g}" for value in means)
    said = f"{done[-1]:14.2%}" if done else f"{'not yet':>14}"
    print(
        f"{half / 2:7.1f} {row['step']:6,} {row['step'] * logged.batch_size:9,} "
        f"{row['rate']:.1e}  {values}  {said}"
    )

# %% [markdown]
# ### What it costs
#
# Rented GPUs are paid by the hour, and prices change faster than books. Put in the one that you are offered:

# %%
PRICE_PER_HOUR = 2.5  # of one such GPU, in your currency


def cost(minutes):
    return PRICE_PER_HOUR * minutes / 60


planned = trained_as["planned"] * logged.batch_size / rate_seen / 60
print(f"the logged part, {seconds / 60:.1f} minutes: {cost(seconds / 60):.2f}")
print(
    f"all {trained_as['planned']:,} planned steps, {planned:.1f} minutes: "
    f"{cost(planned):.2f}"
)
print(f"ten minutes: {cost(10):.2f}; a night of eight hours: {cost(8 * 60):.2f}")
print(f"a million pictures seen: {cost(1e6 / rate_seen / 60):.3f}")

# %% tags=["hide-input"]
curves = viz.training_figures.validation_curves(logged.rows, bins=False)
if len(validated) < 4:  # too few for a curve: a loss instead
    curves = viz.training_figures.loss_curves(logged.rows, smooth=5)
name = next(
    title for title in ("balanced", "VDC", "WPDC", "2D landmarks") if title in curves
)
steps, values = (array[curves[name][0] <= line[-1][0]] for array in curves[name])
spent = [logged.seconds_at(step) / 3600 for step in steps]
values = [float(f"{value:.4g}") for value in values]
assert values[0] - values[len(values) // 2] > 0.5 * (values[0] - values[-1])
at = [round(PRICE_PER_HOUR * hours, 5) for hours in spent]

# %% tags=["hide-input"]
fig = go.Figure()
fig.add_scatter(
    x=at, y=values, mode="lines", line={"color": CATEGORICAL[0], "width": 2.5},
    name=name
)
choices = []
for price in (1, 1.5, 2, 2.5, 3, 4, 5):
    x = [round(price * hours, 5) for hours in spent]
    choices.append(
        {"label": f"{price:g}", "method": "restyle", "args": [{"x": [x]}]}
    )
slider = {
    "steps": choices, "active": 3, "currentvalue": {"prefix": "price of an hour: "},
    "pad": {"t": 45}
}
fig.update_xaxes(
    title="spent, in your currency", rangemode="tozero", range=[0, 5 * spent[-1]]
)
fig.update_yaxes(
    title="NME on validation pictures, %" if name == "balanced" else name,
    rangemode="tozero"
)
fig.update_layout(
    height=440, margin={"l": 60, "r": 20, "t": 10, "b": 20}, sliders=[slider]
)
fig


# %% [markdown]
# **Figure 14.11.** What money buys: the validation error of the logged run, or a loss where it was validated too seldom,
# against what had been spent by then, at the price of the slider. *Try* the price that you are offered. Whatever it is,
# the first half of the money buys most of the fall. The other half is for the end of the schedule, where the rate comes
# down.

# %% [markdown]
# ### When the memory is too small
#
# Three things fill it: what is kept for every weight, the pictures if they are held there, and what the forward pass
# saves for the backward pass. The last grows with the batch. We can weigh it without a GPU, by catching every tensor
# that PyTorch saves:

# %%
def saved_bytes(network, pictures):
    """Bytes that a forward pass keeps for the backward pass, weights apart."""
    weights = {value.data_ptr() for value in network.parameters()}
    kept = {}

    def catch(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(catch, lambda tensor: tensor):
        answer = network(torch.zeros(pictures, 4, 120, 120))
    assert answer.requires_grad
    return sum(kept.values())


# %%
large = make_regressor("resnet50").train()
parameters = sum(value.numel() for value in large.parameters())
each = (saved_bytes(large, 4) - saved_bytes(large, 2)) / 2
# Weight, gradient, two moments of AdamW, average; four bytes each
states = 5 * 4 * parameters
half = {"bfloat16": 0.5, "float16": 0.5}.get(full.optimiser.precision, 1.0)
# These look a second time
again = {"landmarks_3d", "cycle"} & full.self_supervision.weights.keys()
looks = batch + (full.data.unlabelled.batch_size if again else 0)
print(
    f"ResNet-50: {parameters / 1e6:.1f} million weights and all that is kept for "
    f"each: {states / 1e9:.2f} GB"
)
print(f"saved for the backward pass: {each / 1e6:.0f} MB a picture in float32")
print(
    f"a step of {batch} pictures, {looks} looks, in {full.optimiser.precision}: "
    f"about {half * each * looks / 1e9:.0f} GB"
)
print(
    "100,000 pictures, where they are kept on the GPU: "
    f"{100_000 * 3 * 120 * 120 / 1e9:.1f} GB"
)

# %% [markdown]
# PyTorch says `CUDA out of memory` when it does not fit. In this order:
#
# | lower or change | what it frees | what it costs |
# |---|---|---|
# | `data.hold=host` | pictures that are kept on the GPU | the copy of a batch, hidden behind the step before |
# | `optimiser.precision=bfloat16` | half of what the forward pass saves | digits; the losses stay in float32 |
# | `data.labelled.batch_size`, `data.unlabelled.batch_size`, and the rate with them | in proportion | other statistics in the batch normalisation: another run |
# | `network.name=resnet18` | most of the rest | another network |
# | more GPUs (`torchrun`) | a batch is shared out among them | money |
#
# ### One GPU, two, eight
#
# Every GPU takes its share of a batch, and after each backward pass they average their gradients. How much is that, and
# how long may it take? The logged run used one GPU. What follows is arithmetic from its rate, no measurement:

# %%
# Bytes a second between two GPUs: PCIe about 25e9, NVLink ten times that
BANDWIDTH = 25e9

for gpus in (1, 2, 8):
    # A ring: each sends and receives so many bytes
    exchanged = 4 * parameters * 2 * (gpus - 1) / gpus
    talk_ms = 1000 * exchanged / BANDWIDTH
    own_ms = step_ms / gpus
    # Nothing of it hidden behind the backward pass, as most of it is
    slowest = own_ms + talk_ms
    said = f"{logged.batch_size // gpus:>3} pictures each, {own_ms:.0f} ms a step"
    said += f" and {talk_ms:.1f} ms of talk"
    print(
        f"{gpus} GPU: {said}; {step_ms / slowest:.1f} times as fast, "
        f"{planned * slowest / step_ms:.1f} minutes in all"
    )


# %% [markdown]
# Small shares fill a large GPU less well, so that eight will fall short of that, unless the batch grows with the GPUs.
#
# **What batch normalisation does there.** With several processes each computes gradients on its share, and the
# gradients are averaged: the same as one process with the whole batch, as long as a picture's loss depends on that
# picture alone. Batch normalisation {cite:p}`ioffe2015batch` breaks this: a picture's output depends on the means of its
# *share*. Thirty-two pictures on each of eight GPUs are not 256 pictures. So on GPUs the package replaces it by its
# synchronised form, whose means run over all processes ([exercise 14.2](#normalise-together)), and offers `norm="group"` and `norm="frozen"`,
# which need no such thing. On CPUs there is no synchronised form, and a run depends, a little, on the number of processes.
#
# **What has not been done.** The curves and the ablation before this section come from CPU-sized runs. The first cell of
# "What a logged run gave" says how far a GPU got. Nothing here has run on two GPUs: that several processes compute what
# one computes is tested on CPUs, and on two GPUs by a test that waits for a machine with two.

# %% [markdown]
# ## Summary
#
# * A step: both worlds through the regressor in one pass, a second look at the 2D-only pictures, a weighted sum,
#   one update; then the critic's turn.
# * Two stages: WPDC, then VDC at a lower rate; each with its own warm-up and cosine. An average of the weights is kept.
# * A checkpoint holds all that the next step depends on. The test is equality to the last bit.
# * Of the gain on wild pictures, plain 2D supervision carries nearly all. What the further losses add is measured
#   against that second baseline, paired, with three seeds, and only an interval clear of zero counts: they help in 2D
#   without a detector, most with few labels or a bad detector. A plain prior helps in 3D, which they do not, and on top of
#   it they help there, too, as long as there is no detector.
# * A log tells speed, time, error and price of a run on a GPU; what is not in a log, or not finished, is not a result.
#
# ## Exercises
#
# ### Exercise 14.1 · How long does an average remember?
#
# With a decay $d$, a network's share in the average shrinks with every step after it. After how many steps has it
# halved? Write the function and use it to find a decay for a run ten times as long that averages over the same *part*
# of the run as $d = 0.99$ does in a thousand steps.

# %% tags=["exercise"]
def half_life(d):
    """Steps until a network's share in the average has halved."""
    return 1.0


decay_for_longer = 0.99


# %% tags=["solution"]
def half_life(d):
    """Steps until a network's share in the average has halved."""
    return math.log(0.5) / math.log(d)  # its share is proportional to d ** steps


decay_for_longer = 0.99**0.1  # a tenth of the forgetting in each step

# %% tags=["check"]
assert half_life(0.5) == 1, "With d = 0.5 the share halves in each step."
shares = [0.9**step for step in range(8)]
assert shares[6] > 0.5 > shares[7], "Forgot how shares shrink?"
assert 6 < half_life(0.9) < 7, (
    f"Found {half_life(0.9):.2f} steps for d = 0.9; look at the powers of 0.9."
)
ratio = half_life(decay_for_longer) / half_life(0.99)
assert abs(ratio - 10) < 0.1, (
    f"Your decay remembers {ratio:.1f} times as long, not 10."
)
print(
    f"✓ {half_life(0.99):.0f} steps at 0.99; "
    f"the longer run takes {decay_for_longer:.4f}"
)


# %% [markdown]
# ### Exercise 14.2 · Normalise together <a id="normalise-together"></a>
#
# Each of several processes has a share of a batch, all of one size. They may tell each other two numbers per channel.
# Which, and how do you get the mean and the variance of the whole batch from them?

# %% tags=["exercise"]
def tell(share):
    """What one process says about its numbers (B, channels): two (channels,)."""
    return share.mean(dim=0), share.var(dim=0, correction=0)


def together(told):
    """Mean and variance of the whole batch, from what each process said."""
    means, variances = (torch.stack(numbers) for numbers in zip(*told))
    return means.mean(dim=0), variances.mean(dim=0)


# %% tags=["solution"]
def tell(share):
    """What one process says about its numbers (B, channels): two (channels,)."""
    return share.mean(dim=0), share.square().mean(dim=0)


def together(told):
    """Mean and variance of the whole batch, from what each process said."""
    means, squares = (torch.stack(numbers).mean(dim=0) for numbers in zip(*told))
    return means, squares - means.square()  # the mean square minus the squared mean


# The mean of the variances leaves out how far the shares' means are apart.

# %% tags=["check"]
generator = torch.Generator().manual_seed(1)
batch = (
    torch.randn(64, 5, generator=generator, dtype=torch.float64)
    + torch.arange(64)[:, None] / 20
)
told = [tell(share) for share in batch.chunk(4)]
assert all(numbers.shape == (5,) for pair in told for numbers in pair), (
    "Two numbers for each channel, no more."
)
mean, variance = together(told)
assert torch.allclose(mean, batch.mean(dim=0)), (
    "The mean is not that of the whole batch."
)
short = float((variance / batch.var(dim=0, correction=0)).mean())
assert abs(short - 1) < 1e-6, (
    f"On average {short:.2f} of the variance: "
    "what the shares' means differ by is missing?"
)
print("✓ four processes normalise as one")


# %% [markdown]
# ### Exercise 14.3 · A loss that saves 0.1
#
# Two methods were run with the same seeds; `a` and `b` hold their errors, one row per seed, one column per test
# picture. A friend compares the two means and their standard deviations over all numbers, and says: far too noisy to
# tell. Compute the standard error of the difference as it should be done, from what each *picture* gained, averaged over
# the seeds.

# %% tags=["exercise"]
def paired_error(a, b):
    """Standard error of the mean of b - a, pictures being paired."""
    return float((a.var() / a.numel() + b.var() / b.numel()).sqrt())


# %% tags=["solution"]
def paired_error(a, b):
    """Standard error of the mean of b - a, pictures being paired."""
    # (pictures,); what is hard in a picture is hard for both, and cancels
    gained = (b - a).mean(dim=0)
    return float(gained.std() / len(gained) ** 0.5)


# This is the error over pictures. It knows nothing about other seeds than these:
# three seeds say little, so look whether they agree, too.

# %% tags=["check"]
generator = torch.Generator().manual_seed(2)
hard = 5 + 2 * torch.randn(1, 2000, generator=generator)
a, b = (
    hard + shift + 0.5 * torch.randn(3, 2000, generator=generator)
    for shift in (0.0, -0.1)
)
alone = float((a.mean(dim=0).var() / 2000 + b.mean(dim=0).var() / 2000).sqrt())
mine = paired_error(a, b)
assert mine < alone / 2, (
    f"{mine:.4f} is what unpaired pictures would give. Subtract first."
)
tries = torch.stack(
    [
        (b - a).mean(dim=0)[torch.randint(2000, (2000,), generator=generator)].mean()
        for _ in range(400)
    ]
)
assert abs(mine / float(tries.std()) - 1) < 0.15, (
    f"The bootstrap says {float(tries.std()):.4f}, you {mine:.4f}."
)
print(
    f"✓ a gain of {float((a - b).mean()):.3f} ± {mine:.3f}: "
    f"{float((a - b).mean()) / mine:.0f} standard errors from nothing"
)

# %% [markdown]
# ### Exercise 14.4 · Another row
#
# The ablation lacks a row that you care about: say, 2D landmarks with a Huber distance. Write the list of words for
# `load_config("ablation/+landmarks_2d", words, base="lite-cpu")`. (Then, with patience, run it with three seeds.)

# %% tags=["exercise"]
words = []

# %% tags=["solution"]
words = ["self_supervision.distance=huber"]
# On the command line:
# twodasl ablate --rows labelled +landmarks_2d --set self_supervision.distance=huber

# %% tags=["check"]
changed = load_config("ablation/+landmarks_2d", words, base="lite-cpu")
plain = load_config("ablation/+landmarks_2d", base="lite-cpu")
assert changed.self_supervision.distance == "huber", (
    "The distance is still squared: which table holds it?"
)
assert changed.self_supervision.weights == plain.self_supervision.weights, (
    "Only the distance should change."
)
assert changed.data == plain.data, (
    "The pictures should stay the same, or the rows cannot be compared."
)
print("✓ one value differs:", words[0])

# %% [markdown]
# ## Further reading
#
# {cite:t}`tu2021assisted` describe the two stages and their ablation on real photographs. {cite:t}`loshchilov2019decoupled`
# take weight decay out of Adam's gradient. {cite:t}`goyal2017accurate` say what to do about rate and warm-up when the
# batch grows with the number of GPUs. {cite:t}`polyak1992acceleration` show that averages converge faster than what they
# average. The [run times](../book/run_times.md) say how long this chapter took.
