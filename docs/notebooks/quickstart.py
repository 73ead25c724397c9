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
# # Quickstart
#
# Segment a picture with a model that comes with the package, look at the result, and measure it. Nothing is downloaded.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("pyrseg_jax") is None:  # in Colab, for example
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "pyrseg-jax"], check=True)
SMALL = os.environ.get("PYRSEG_SMALL") == "1"  # a run of seconds, as a check that the notebook works

# %% [markdown]
# ## A picture
#
# The package renders street scenes. Any photograph does as well: give its path instead of the array.

# %%
import matplotlib.pyplot as plt
import numpy as np

import pyrseg_jax
from pyrseg_jax.scenes import paint_scene

picture, truth = paint_scene("validation", 3, size_px=64 if SMALL else 256)
plt.imshow(picture)
plt.axis("off")
plt.show()

# %% [markdown]
# ## A model
#
# `load` takes the name of a packaged model, the folder of a run, a model folder, an exported file, or `hf://ORG/NAME`.
# The first picture of each size takes longer, because the network is compiled for it.

# %%
predictor = pyrseg_jax.load("scenes-small")
result = predictor(picture)
result

# %% [markdown]
# ## The result
#
# `labels` holds the class of each pixel, an index into `class_names`. `overlay()` draws the classes over the picture.

# %%
plt.imshow(result.overlay())
plt.axis("off")
plt.show()
found, pixels = np.unique(result.labels, return_counts=True)
for index in found[np.argsort(-pixels)]:
    print(f"{result.class_names[index]:10} {100 * (result.labels == index).mean():5.1f} % of the pixels")

# %% [markdown]
# The renderer knows the true class of each pixel: 0 is void, and the classes count from 1.

# %%
is_labeled = truth > 0
right = (result.labels + 1 == truth)[is_labeled].mean()
print(f"{100 * right:.1f} % of the labeled pixels are right")

# %% [markdown]
# ## Next
#
# * *Your own data* trains on photographs of yours.
# * *What the pyramid sees* explains how the network decides at several scales.
# * *Import weights* starts from published networks.
