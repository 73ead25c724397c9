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
# # Import weights
#
# Published networks are files of arrays with the names of another framework. This package reads them, checks every name
# and shape, and turns the arrays. The notebook writes such a file itself, so that it needs no network: use a downloaded
# one in its place.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("pyrseg_jax") is None:  # in Colab, for example
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "pyrseg-jax"], check=True)
SMALL = os.environ.get("PYRSEG_SMALL") == "1"  # a run of seconds, as a check that the notebook works

# %%
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.initial import initial_variables, num_parameters
from pyrseg_jax.models.torch_weights import convert_hrnet
from pyrseg_jax.models.weights.files import read_weights
from pyrseg_jax.models.weights.hrnet import to_state_dict

# %% [markdown]
# ## A file
#
# `to_state_dict` gives an HRNet the names that PyTorch's releases use. `.safetensors` files need nothing else; `.pth`
# files need PyTorch.

# %%
name = "hrnet_tiny" if SMALL else "hrnet_w18"
variables = initial_variables(BACKBONES[name].make(), seed=0)
save_file(
    {key: np.ascontiguousarray(array) for key, array in to_state_dict(variables).items()}, "published.safetensors"
)
print(f"{name}: {num_parameters(variables) / 1e6:.2f} million parameters")

# %% [markdown]
# ## What is in it

# %%
state = read_weights(Path("published.safetensors")).state_dict
for key, array in list(state.items())[:5]:
    print(f"{key:40} {array.shape}")
print(f"… {len(state)} arrays")

# %% [markdown]
# ## Into our network
#
# Kernels turn from PyTorch's order (out, in, height, width) to that of JAX (height, width, in, out). Missing names,
# unknown names and other shapes are errors that list them.

# %%
imported = convert_hrnet(state)
same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), imported["params"], variables["params"])
assert all(jax.tree.leaves(same))
print(f"all {len(jax.tree.leaves(same))} arrays are equal")

# %% [markdown]
# ## In a training
#
# ```text
# pyrseg train --config=ade20k --config.data.root=ADEChallengeData2016 --config.model.init=published.safetensors pyrseg
# train --config=scenes --config.model.backbone=mobilenetv3_l
# --config.model.init=hf://timm/mobilenetv3_large_100.ra_in1k
# ```
#
# `config.model.init` also takes the folder of a run, a model folder, and `hf://ORG/NAME`. The log says what was loaded,
# what is random, and what was left out. *Weights and export* in the guide lists the published files that fit.
