"""A tiny network whose predictions differ from place to place, and evaluations of it."""

import functools

import jax.numpy as jnp
import numpy as np

from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.models.segmenter import build_segmenter
from support.data_sets import draw_pair, write_folder


@functools.cache
def tiny():
    """A network whose predictions differ from place to place: with variables that are not the untrained zeros."""
    model = build_segmenter(3, backbone="hrnet_tiny", semantic_width=16, key_width=8, unity_width=8)
    variables = initial_variables(model, seed=1)
    rng = np.random.default_rng(0)
    for head in ("semantic_head", "unity_head"):
        for layer in variables["params"][head].values():
            if "bias" in layer:
                layer["kernel"] = layer["kernel"] * 60
    # Centred, so that cells fall on both sides of the threshold.
    images = normalize(jnp.asarray(np.stack([draw_pair(rng, 64, 64)[0] for _ in range(4)])))
    for level, logits in enumerate(model.apply(variables, images).unity, 1):
        variables["params"]["unity_head"][f"unity_{level}"]["bias"] -= np.median(logits)
    return model, variables


def evaluate(root, batch_size, data=1, protocol=Protocol(), is_analysed=True):  # noqa: B008
    model, variables = tiny()
    dataset = open_dataset("folder", str(root), None)
    mesh = mesh_lib.make_mesh(data=data)
    source = dataset.open_split("validation")
    evaluator = Evaluator(model, source, dataset.label_space, mesh, protocol, batch_size, 0.5)
    return evaluator(variables, is_analysed)


def two_sizes(tmp_path):
    root = write_folder(tmp_path / "a", {"validation": 5}, size=(60, 64))
    other = write_folder(tmp_path / "b", {"validation": 2}, size=(50, 67), seed=1)
    for kind in ("images", "annotations"):
        for path in (other / kind / "validation").iterdir():
            path.rename(root / kind / "validation" / f"other_{path.name}")
    return root


def comparable(result):
    return {name: value for name, value in result.items() if name not in ("seconds", "compiled_programs")}
