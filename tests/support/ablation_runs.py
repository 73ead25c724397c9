"""Folders of finished runs, as an ablation leaves them."""

import json
from pathlib import Path

from pyrseg_jax.paper.tables import TABLE_2A
from pyrseg_jax.run import config as config_lib


def write_run(folder: Path, row: str, seed: int, miou: float, boundary: float | None = None, **changes):
    """Write a finished run of a row of Table 2a; `changes` are keys of `config.training`."""
    config = json.loads(config_lib.to_json(config_lib.Config()))
    chosen = TABLE_2A[row]
    config["seed"] = seed
    config["model"] |= {"context": chosen.context, "representation": chosen.representation}
    config["training"] |= {"procedure": chosen.procedure, "steps": 5} | changes
    run = folder / f"{row}-{seed}"
    (run / "evaluation").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config))
    (run / "finished").touch()
    (run / "evaluation" / "validation-5.json").write_text(json.dumps({"miou": miou, "boundary_miou": boundary}))
