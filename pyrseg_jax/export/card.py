"""The card of a model folder, README.md: what the model is, what it was trained on, how good it is, and how to use it."""

import yaml

import pyrseg_jax
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.results import StoredResult
from pyrseg_jax.run.workdir import Workdir

_USE = """## Use

```bash
pip install pyrseg-jax
pyrseg predict --model={place} --input=photos --output=segmented
```

```python
import pyrseg_jax

result = pyrseg_jax.load("{place}")("photo.jpg")
```

"""
_OF_FOLDER = "`{place}` is the path of this folder.\n"


def describe_model(
    name: str,
    config: Config,
    workdir: Workdir,
    label_space: LabelSpace,
    step: int,
    num_parameters: int,
    is_half: bool,
    place: str | None = None,
) -> str:
    """Return the card, with the metadata of the Hugging Face hub at its top.

    Args:
      name: of the model.
      place: the address under which the model can be loaded; None: the path of its folder.
      config, workdir: the run.
      label_space: the classes.
      step: of the checkpoint, whose stored results are the scores of the card.
      num_parameters: of the network.
      is_half: whether kernels are stored as float16.
    """
    results = [(file, found) for file, found in workdir.results.of_step(step) if found.miou is not None]
    head = yaml.safe_dump(_metadata(name, config, results), sort_keys=False, allow_unicode=True)
    model, training = config.model, config.training
    kind = "a semantic and a unity pyramid" if model.representation == "pyramid" else "one class per pixel"
    lines = [
        f"---\n{head}---\n\n# {name}\n",
        f"A network for semantic segmentation with {label_space.num_classes} classes. It predicts {kind} "
        '("Specialize and Fuse", Hsiao et al., ICCV 2021), written by '
        f"pyrseg_jax {getattr(pyrseg_jax, '__version__', '')}.\n",
        _USE.format(place=place or name) + ("" if place else _OF_FOLDER.format(place=name)),
        "## Network\n",
        f"* Backbone `{model.backbone}`, context `{model.context}`, {num_parameters / 1e6:.2f} million parameters, stored as "
        f"{'float16 (kernels) and float32' if is_half else 'float32'}\n"
        f"* Classes: {', '.join(label_space.names)}\n",
        "## Training\n",
        f"* Data set `{config.data.name}`, {step} steps with {training.batch_size} crops of {config.data.crop_px}×"
        f"{config.data.crop_px} pixels\n"
        f"* Optimizer `{config.optimizer.name}`, learning rate {training.learning_rate:g}, schedule `{config.optimizer.schedule}`\n"
        f"* Started from {_origin(workdir)}\n"
        "* `config.json` has every setting\n",
        "## Scores\n",
        *(_scores(file, found) for file, found in results),
    ]
    if not results:
        lines.append(
            "This checkpoint was not evaluated: `pyrseg evaluate --model=FOLDER --config.data.root=DATA` does it.\n"
        )
    lines += [
        "## Limits\n",
        "The scores hold for images like those of the split that they name. On other images, look at the predictions first. Nobody "
        "has checked this model for uses in which an error harms people.\n",
    ]
    return "\n".join(lines)


def _metadata(name: str, config: Config, results: list[tuple[str, StoredResult]]) -> dict:
    found: dict = {
        "library_name": "pyrseg_jax",
        "pipeline_tag": "image-segmentation",
        "tags": ["image-segmentation", "semantic-segmentation", "jax", "flax", config.model.backbone],
    }
    listed = [
        {
            "task": {"type": "image-segmentation", "name": "Semantic segmentation"},
            "dataset": {"type": result.data.name, "name": result.data.name, "split": result.data.split},
            "metrics": [{"type": "mean_iou", "name": "mIoU", "value": round(100 * result.miou, 2)}],
        }
        for _, result in results
        if result.data is not None and result.miou is not None
    ]
    return found | ({"model-index": [{"name": name, "results": listed}]} if listed else {})


def _origin(workdir: Workdir) -> str:
    origin = workdir.read_initialization()
    return "random weights" if isinstance(origin, str) else f"given weights ({origin['source']})"


def _scores(file: str, result: StoredResult) -> str:
    """Describe a result: its mIoU, its protocol, and the IoU of each class."""
    assert result.miou is not None, "only results with a score are described"
    split = result.data.split if result.data is not None else "an unknown split"
    protocol = result.protocol.get("name", "unknown")
    rows = "\n".join(
        f"| {name} | {'–' if iou is None else f'{100 * iou:.2f}'} |"
        for name, iou in (result.model_extra or {}).get("iou", {}).items()
    )
    return (
        f"mIoU {100 * result.miou:.2f} on {result.images} images of {split}, protocol `{protocol}` (`{file}`):\n\n"
        f"| class | IoU, % |\n|---|---|\n{rows}\n"
    )
