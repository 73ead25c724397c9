"""Folders of finished runs, as an ablation leaves them."""

import json
from pathlib import Path

from pyrseg_jax.paper import variants
from pyrseg_jax.paper.tables import TABLE_2A
from pyrseg_jax.run import config as config_lib


def write_run(
    folder: Path,
    label: str,
    seed: int,
    miou: float,
    boundary: float | None = None,
    shares: list[float] | None = None,
    **changes,
):
    """Write a finished run of a row of Table 2a or of a method with its words; `changes` are keys of `config.training`."""
    config = json.loads(config_lib.to_json(config_lib.Config()))
    config["seed"] = seed
    if label in TABLE_2A:
        chosen = TABLE_2A[label]
        config["model"] |= {"context": chosen.context, "representation": chosen.representation}
        config["training"] |= {"procedure": chosen.procedure}
    else:
        named = config_lib.defaults()
        variants.choose_method(named, set(label.split("+")))
        for group in ("model", "training", "data"):
            config[group] |= {key: getattr(named[group], key) for key in config[group]}
        # Some methods may not be built; the results are read in the same way.
        config["model"] |= {"context": "none", "resize": "half_pixel"}
    config["training"] |= {"steps": 5} | changes
    run = folder / f"{label}-{seed}"
    (run / "evaluation").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config))
    (run / "finished").touch()
    result = {"miou": miou, "boundary_miou": boundary, "level_share": shares}
    (run / "evaluation" / "validation-5.json").write_text(json.dumps(result))
