# %% [markdown]
# # Check my setup
#
# *Run all cells (Run → Run All Cells). At the end there is a face, and a green tick if everything works.*
#
# **Time** one minute, not counting the installation. No GPU is needed.

# %%
import importlib
import platform
import sys
import time

results = []  # what was checked, whether it passed, what to do if not


def check(what, well, advice):
    """Record the result of one check and print it."""
    results.append((what, bool(well), advice))
    print("✓" if well else "✗", what, "" if well else f"→ {advice}")


check(f"Python {platform.python_version()}", sys.version_info >= (3, 10), "Python 3.10 or newer is needed")
for name, module in (
    ("twodasl_lite", "twodasl_lite"),
    ("torch", "torch"),
    ("numpy", "numpy"),
    ("opencv", "cv2"),
    ("matplotlib", "matplotlib"),
):
    try:
        version = getattr(importlib.import_module(module), "__version__", "")
        check(f"{name} {version}", True, "")
    except ImportError as error:
        check(f"{name}: {error}", False, "run the first cell again, read what pip reports, then restart the kernel")

# %% [markdown]
# A calculation, the face model (made on first use, which takes a few seconds), and a picture drawn from it:

# %%
try:
    import torch

    started = time.perf_counter()
    left = torch.randn(1000, 1000)
    fine = torch.allclose((left @ torch.eye(1000)), left)
    check(f"1000 × 1000 matrices in {1e3 * (time.perf_counter() - started):.0f} ms", fine, "torch computes wrong results")

    from twodasl_lite.faces import load_face_model
    from twodasl_lite.geometry.coefficients import CoefficientLayout

    started = time.perf_counter()
    model = load_face_model(CoefficientLayout())
    seconds = time.perf_counter() - started
    check(f"face model of {model.num_vertices:,} vertices in {seconds:.1f} s", model.num_shape == 40, "ask your teacher")

    from twodasl_lite.worlds.synthetic import SyntheticFaces

    started = time.perf_counter()
    picture = SyntheticFaces(model, "labelled").batch(0, 1)
    shape = tuple(picture.images.shape)
    check(f"a drawn photograph in {time.perf_counter() - started:.1f} s", shape == (1, 3, 120, 120), "ask your teacher")
except Exception as error:
    check(f"{type(error).__name__}: {error}", False, "send this line to your teacher")

# %%
try:
    import matplotlib.pyplot as plt

    from twodasl_lite.viz import shaded_mesh

    figure, axes = plt.subplots(1, 2, figsize=(6, 3.2), layout="constrained")
    person, _ = model.sample(1, generator=torch.Generator().manual_seed(2), expression=False)
    shaded_mesh(axes[0], model.decode(person)[0], model.triangles)
    well = all(good for _, good, _ in results)
    axes[1].text(0.5, 0.6, "✓" if well else "✗", size=90, ha="center", va="center", color="#009E73" if well else "#D55E00")
    axes[1].text(0.5, 0.1, "everything works" if well else "see the lines with ✗ above", ha="center")
    axes[1].axis("off")
except Exception as error:
    well = False
    print(f"✗ no picture: {type(error).__name__}: {error}")
print("✓ everything works: you can begin" if well else "✗ something is missing: see the lines above")
