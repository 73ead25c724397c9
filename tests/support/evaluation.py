"""A tiny network whose predictions differ from place to place, evaluations of it, and a count of compiled programs."""

import contextlib
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.run.model_predictor import ModelPredictor
from support.data_sets import CLASSES, draw_pair, write_folder


@functools.cache
def tiny():
    """Make a network whose predictions differ from place to place, as those of untrained variables do not."""
    model = build_segmenter(3, backbone="hrnet_tiny", semantic_width=16, key_width=8, unity_width=8)
    variables = initial_variables(model, seed=1)
    rng = np.random.default_rng(0)
    for head in ("semantic_head", "unity_head"):
        for layer in variables["params"][head].values():
            if "bias" in layer:
                layer["kernel"] = layer["kernel"] * 60
    # Centered, so that cells fall on both sides of the threshold.
    images = normalize(jnp.asarray(np.stack([draw_pair(rng, 64, 64)[0] for _ in range(4)])))
    for level, logits in enumerate(model.apply(variables, images).unity, 1):
        variables["params"]["unity_head"][f"unity_{level}"]["bias"] -= np.median(logits)
    return model, variables


def predictor(protocol=Protocol()):  # noqa: B008
    return ModelPredictor(*tiny(), protocol, 0.5, ade_layout(CLASSES))


def evaluate(root, batch_size, data=1, protocol=Protocol(), is_analyzed=True):  # noqa: B008
    model, variables = tiny()
    dataset = open_dataset("folder", str(root), None)
    mesh = mesh_lib.make_mesh(data=data)
    source = dataset.open_split("validation")
    evaluator = Evaluator(model, source, dataset.label_space, mesh, protocol, batch_size, 0.5)
    return evaluator(variables, is_analyzed)


def two_sizes(tmp_path):
    root = write_folder(tmp_path / "a", {"validation": 5}, size=(60, 64))
    other = write_folder(tmp_path / "b", {"validation": 2}, size=(50, 67), seed=1)
    for kind in ("images", "annotations"):
        for path in (other / kind / "validation").iterdir():
            path.rename(root / kind / "validation" / f"other_{path.name}")
    return root


def comparable(result):
    return {name: value for name, value in result.items() if name not in ("seconds", "compiled_programs")}


@contextlib.contextmanager
def programs_compiled() -> Iterator[list[str]]:
    """Collect the names of the programs that XLA compiles or reads from its cache on disk, such as `jit(step)`."""
    names: list[str] = []

    def note(event: str, _: float, **about) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(str(about.get("fun_name", "?")))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
