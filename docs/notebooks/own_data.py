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
# # Your own data
#
# Train on a folder of photographs and label maps, evaluate the network, and use it. This notebook writes a folder of rendered
# scenes first, so that it runs anywhere: put your own files in their place.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("pyrseg_jax") is None:  # in Colab, for example
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "pyrseg-jax"], check=True)
SMALL = os.environ.get("PYRSEG_SMALL") == "1"  # a run of seconds, as a check that the notebook works

# %% [markdown]
# ## The folder
#
# Each photograph in `images/` has a label map of the same name in `annotations/`, a PNG with one number per pixel. 0
# means void, and 1, 2, 3, … are the lines of `classes.txt`. `pyrseg import` converts the files of label tools to this
# layout.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

import pyrseg_jax
from pyrseg_jax.main import main
from pyrseg_jax.scenes import CLASS_NAMES, paint_scene

root = Path("my_data")
counts = {"training": 4, "validation": 1} if SMALL else {"training": 64, "validation": 16}
for split, count in counts.items():
    for kind in ("images", "annotations"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture, labels = paint_scene(split, index, size_px=64 if SMALL else 192)
        Image.fromarray(picture).save(root / "images" / split / f"{index}.jpg", quality=95)
        Image.fromarray(labels).save(root / "annotations" / split / f"{index}.png")
(root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")

# %% [markdown]
# ## Check it
#
# `main` runs a command as the command line does. `validate` reads every file, names each bad one, and prints how common
# the classes are.


# %%
def pyrseg(*arguments: str) -> None:
    """Run `pyrseg ARGUMENTS` in this process."""
    assert main(["pyrseg", *arguments]) == 0


data = ("--config.data.name=folder", f"--config.data.root={root}", "--config.data.workers=0")
if not SMALL:
    pyrseg("validate", "--config=scenes", *data)

# %% [markdown]
# ## Train
#
# The training starts from a packaged model. Every key can be changed: `pyrseg help training` lists them. The same
# command resumes a training that was interrupted. With a GPU, raise the batch size and the steps.

# %%
size = ("--config.training.steps=300", "--config.training.evaluate_every=100")
if SMALL:
    size = (
        *("--config.training.steps=1", "--config.training.evaluate_every=1", "--config.data.crop_px=64"),
        *("--config.training.batch_size=2", "--config.model.backbone=hrnet_tiny", "--config.model.semantic_width=16"),
        *("--config.model.key_width=8", "--config.model.unity_width=8", "--config.evaluation.analysis=False"),
        *("--config.evaluation.num_pictures=0", "--config.evaluation.report=False", "--config.parallel.data=1"),
        *("--config.evaluation.batch_size=1", "--config.training.warmup_steps=0", "--config.evaluation.loss=False"),
    )
start = () if SMALL else ("--config.model.init=scenes-small",)
pyrseg("train", "--config=scenes", *data, *size, *start, "--workdir=runs/mine")

# %% [markdown]
# ## Look at the result
#
# `runs/mine/report.html` is a page about the run: curves, scores, confusions, and examples. The run itself is a model.

# %%
predictor = pyrseg_jax.load("runs/mine")
result = predictor(root / "images" / "validation" / "0.jpg")
plt.imshow(result.overlay())
plt.axis("off")
plt.show()

# %% [markdown]
# ## Share it
#
# `pyrseg export --workdir=runs/mine --format=folder` writes a folder for everybody who has pyrseg_jax, and
# `pyrseg push runs/mine --to=hf://ORG/NAME` puts it into the Hugging Face hub.
