# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What the pyramid sees
#
# The network predicts classes at several levels, from coarse cells to fine ones. A *unity* probability tells for each
# cell whether it holds a single class. The coarsest level that is sure of a cell decides it ("Specialize and Fuse",
# Hsiao et al., ICCV 2021).

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("pyrseg_jax") is None:  # in Colab, for example
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "pyrseg-jax"], check=True)
SMALL = os.environ.get("PYRSEG_SMALL") == "1"  # a run of seconds, as a check that the notebook works

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import pyrseg_jax
from pyrseg_jax.pyramid import build_targets, fuse
from pyrseg_jax.scenes import paint_scene

picture, truth = paint_scene("validation", 3, size_px=64 if SMALL else 256)
result = pyrseg_jax.load("scenes-small")(picture)
num_classes = len(result.class_names)

# %% [markdown]
# ## Levels
#
# `semantic` holds the most likely class of each cell, level by level, and `unity` the probability that a cell holds one
# class. The finest level has no unity: it decides whatever is left.

# %%
figure, axes = plt.subplots(2, len(result.semantic), figsize=(3 * len(result.semantic), 6))
for level, (classes, stride) in enumerate(zip(result.semantic, result.strides)):
    axes[0, level].imshow(classes, vmin=0, vmax=num_classes - 1, cmap="tab20")
    axes[0, level].set_title(f"classes, cells of {stride} px")
    if level < len(result.unity):
        axes[1, level].imshow(result.unity[level], vmin=0, vmax=1)
        axes[1, level].set_title("unity")
for axis in axes.ravel():
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Who decides
#
# `level` names the level that decides each position: 0 is the coarsest. Large areas need few cells, and borders need
# the finest level. `show_pyramid()` draws the same with a legend.

# %%
plt.imshow(result.level, cmap="viridis_r")
plt.colorbar(label="level, 0 is the coarsest")
plt.axis("off")
plt.show()
result.show_pyramid()

# %% [markdown]
# ## The threshold τ
#
# A cell decides if its unity is at least τ. A higher τ leaves more to the fine levels. `fuse` does this; here it gets
# each level's classes as probabilities of 0 and 1.

# %%
classes = [jax.nn.one_hot(semantic, num_classes)[None] for semantic in result.semantic]
unity = [probability[None] for probability in result.unity]
for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
    fused = fuse(classes, unity, threshold)
    shares = np.bincount(np.asarray(fused.level).ravel(), minlength=len(classes)) / fused.level.size
    print(f"τ = {threshold}: " + ", ".join(f"level {i + 1}: {100 * share:4.1f} %" for i, share in enumerate(shares)))

# %% [markdown]
# ## The true pyramid
#
# Training builds the same pyramids from a label map. A cell is true unity if all of its pixels share a class. Fusing
# the true pyramids returns the label map, at the positions of the finest level.

# %%
train_ids = np.where(truth > 0, truth - 1, 255).astype(np.uint8)
targets = build_targets(train_ids[None], strides=result.strides)
exact = fuse(
    [jax.nn.one_hot(semantic, num_classes) for semantic in targets.semantic],
    [(one == 1).astype(np.float32) for one in targets.unity],
)
finest = np.asarray(targets.semantic[-1])
is_known = finest != 255
assert (np.asarray(exact.probs.argmax(-1))[is_known] == finest[is_known]).all()
print(f"all {is_known.sum()} labeled positions are right")
