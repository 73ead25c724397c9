"""`--mode=export`: write a trained model as a portable file or a folder, read it back, and compare it with the model."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.predict import predict
from pyrseg_jax.export.expiry import describe
from pyrseg_jax.export.folder import check_folder, write_folder_of_run
from pyrseg_jax.export.format import SUFFIX
from pyrseg_jax.export.litert import export_litert
from pyrseg_jax.export.onnx.metadata import LITERT
from pyrseg_jax.export.onnx.metadata import SUFFIX as ONNX
from pyrseg_jax.export.onnx.write import Precision, export_onnx
from pyrseg_jax.export.read import read_export
from pyrseg_jax.export.renew import renew
from pyrseg_jax.export.target import cannot_write, check_target, identity_of_run, read_readers, run_of_export
from pyrseg_jax.export.write import write_export
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run import experiment
from pyrseg_jax.run.calibration import read_temperatures
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.paths import is_remote

log = logging.getLogger(__name__)


def export(
    config: Config | None,
    workdir: Workdir | None,
    target: str | None,
    sizes: Sequence[str],
    step: int | None = None,
    overwrite: bool = False,
    form: str | None = None,
    is_half: bool = False,
    weights: str = "float32",
    activations: str = "float32",
    num_images: int = 24,
    source: str | None = None,
) -> dict:
    """Write a checkpoint, by default the newest, to `target`, by default `model.zip`, `model.onnx` or `model` in the run's folder.

    Args:
      config: the run's configuration; None with `source`.
      workdir: the run's folder; None with `source`.
      target: the file, whose name must end in .zip, .onnx or .tflite, or the folder.
      sizes: image sizes that the model accepts, as "HEIGHTxWIDTH" in pixels; if empty, the size of a training crop.
      step: step of the checkpoint.
      overwrite: whether a file that is not an earlier export of this run may be replaced.
      form: "zip", a file that jax alone can run (the default), "onnx", "litert", or "folder", see `run/model_folder.py`.
      is_half: whether kernels are stored as float16, in a folder.
      weights, activations, num_images: number formats of an ONNX file, see `export.onnx.write.Precision`.
      source: an exported file to renew instead: to write again with the JAX that is installed now.

    Returns:
      The measured `megabytes`, `write_seconds` and `load_seconds`; and from the comparison with the model itself
      `largest_difference`, of probabilities or, for a folder, of weights, and for a file `same_labels`, the share of equal labels.
      For ONNX also what `export.onnx.write.export_onnx` says.

    Raises:
      UserError: if the target or a size is not valid, or the run has no checkpoint, or the file exists and is foreign.
    """
    precision = Precision(weights, activations, num_images)
    if source is not None:
        return _renew(source, target, overwrite, bool(sizes or form or is_half or not precision.is_float))
    assert config is not None and workdir is not None, "without a file to renew there is a run"
    form = form or "zip"
    _check_flags(form, sizes, is_half, precision)
    if target is None and is_remote(workdir.path):
        raise UserError(
            f"--mode=export writes to a disk, but {workdir.path} is in remote storage: name a file or folder with --output"
        )
    suffix = {"zip": SUFFIX, "onnx": ONNX, "litert": LITERT, "folder": ""}[form]
    path = Path(target).expanduser() if target else Path(workdir.path) / f"model{suffix}"
    run = identity_of_run(config, workdir)
    if form == "folder":
        check_folder(path, run, overwrite)
        return _export_folder(config, workdir, path, run, step, is_half)
    crop = config.data.crop_px
    shapes = [_read_size(text) for text in dict.fromkeys(sizes)] or [(crop, crop)]
    check_target(path, run, overwrite, suffix)
    if form == "onnx":
        return export_onnx(config, workdir, path, run, shapes[0], step, precision)
    if form == "litert":
        return export_litert(config, workdir, path, run, shapes[0], step)
    return _export_file(config, workdir, path, run, shapes, step)


def _check_flags(form: str, sizes: Sequence[str], is_half: bool, precision: Precision) -> None:
    """Raise UserError for flags that exclude each other."""
    if form not in ("zip", "onnx", "litert", "folder"):
        raise UserError(f"--format={form}: expected zip, onnx, litert or folder")
    if form == "folder" and sizes:
        raise UserError(
            "--sizes and --format=folder exclude each other: a model folder holds no program, and takes any size"
        )
    if form in ("onnx", "litert") and len(dict.fromkeys(sizes)) > 1:
        raise UserError(f"--sizes: a file of --format={form} takes images of one size: write a file for each size")
    if is_half and form != "folder":
        raise UserError(
            "--half needs --format=folder: a file holds its weights in float32, or with --weights=int8 in 8 bits"
        )
    if not precision.is_float and form != "onnx":
        raise UserError("--weights and --activations need --format=onnx: other formats hold float32")


def _renew(source: str, target: str | None, overwrite: bool, has_other_flags: bool) -> dict:
    """Write an exported file again with this JAX; see `export.renew`."""
    if target is None or has_other_flags:
        raise UserError(
            f"--from={source} needs --output=NEW.zip, and takes no --sizes, --format or --half: it writes the same programs again"
        )
    old, path = Path(source).expanduser(), Path(target).expanduser()
    check_target(path, run_of_export(old), overwrite)
    try:
        measured = renew(old, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    log.info(
        "%s: %.1f MB, in %.1f s; %.4f %% of its labels equal those of %s, its probabilities differ by at most %.1e",
        *(path, measured["megabytes"], measured["seconds"], 100 * measured["same_labels"], source),
        measured["largest_difference"],
    )
    _log_readers(path)
    return measured


def _log_readers(path: Path) -> None:
    """Log which versions of JAX read a file, and until when."""
    readers = read_readers(path)
    if readers is not None:
        log.info("%s", describe(readers))


def _export_folder(
    config: Config, workdir: Workdir, path: Path, run: str, step: int | None, is_half: bool
) -> dict[str, float]:
    """Write a model folder, read it back, and compare its numbers with the checkpoint's."""
    trained, model, write_seconds = write_folder_of_run(path, config, workdir, run, step, is_half)
    written = time.perf_counter()
    read = restore(config, model, Workdir(str(path)), _first_device(), None)
    num_bytes = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    pairs = zip(jax.tree.leaves(read.variables), jax.tree.leaves(trained.variables), strict=True)
    measured = {
        "megabytes": num_bytes / 1e6,
        "write_seconds": write_seconds,
        "load_seconds": time.perf_counter() - written,
        "largest_difference": max(float(np.abs(np.asarray(x) - np.asarray(y)).max(initial=0)) for x, y in pairs),
    }
    log.info(
        "%s: %.1f MB, written in %.1f s, read in %.1f s; its weights differ from the checkpoint's by at most %.1e",
        *(
            path,
            measured["megabytes"],
            measured["write_seconds"],
            measured["load_seconds"],
            measured["largest_difference"],
        ),
    )
    return measured


def _first_device() -> jax.sharding.SingleDeviceSharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _export_file(
    config: Config, workdir: Workdir, path: Path, run: str, shapes: list[tuple[int, int]], step: int | None
) -> dict:
    """Write one portable file, read it back, and compare it with the model."""
    label_space, image_space = workdir.read_label_space(), known_image_space(config, workdir)
    origin = {"initialisation": workdir.read_initialization(), "run": run}
    model = experiment.make_model(config, label_space)
    trained = restore(config, model, workdir, _first_device(), step)
    variables = jax.device_get(trained.variables)
    log.info("exporting step %d for images of %s", trained.step, ", ".join(f"{h} × {w}" for h, w in shapes))
    start = time.perf_counter()
    temperatures = read_temperatures(config, workdir, trained, model.num_predicted_levels)
    about = {"step": trained.step} | origin | ({} if temperatures is None else {"temperatures": temperatures})
    try:
        write_export(path, model, variables, label_space, shapes, config.evaluation.threshold, about, image_space)
    except OSError as error:  # the disk is full, or the folder was removed
        raise cannot_write(path, error) from error
    measured = {"megabytes": path.stat().st_size / 1e6, "write_seconds": time.perf_counter() - start}
    measured |= _compare(path, model, variables, config.evaluation.threshold)
    log.info(
        "%s: %.1f MB, written in %.1f s, read in %.1f s; %.4f %% of its labels equal the model's, its probabilities "
        "differ by at most %.1e",
        path,
        measured["megabytes"],
        measured["write_seconds"],
        measured["load_seconds"],
        100 * measured["same_labels"],
        measured["largest_difference"],
    )
    _log_readers(path)
    return measured


def _compare(path: Path, model: Segmenter, variables: dict, threshold: float) -> dict:
    """Read the file and run it and the model on noise; compare them at the positions of the finest level."""
    start = time.perf_counter()
    exported = read_export(path)
    load_seconds = time.perf_counter() - start
    (height, width), run = next(iter(exported.programs.items()))
    shape = (1, height, width, model.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8).astype(exported.image_space.dtype)
    found = jax.device_get(run(exported.weights, images))
    expected = jax.jit(lambda v, x: predict(model, v, x, threshold).fused)(variables, images)
    return {
        "load_seconds": load_seconds,
        "same_labels": float((found["probs"].argmax(-1) == np.asarray(expected).argmax(-1)).mean()),
        "largest_difference": float(np.abs(found["probs"] - np.asarray(expected)).max()),
    }


def _read_size(text: str) -> tuple[int, int]:
    """Parse HEIGHTxWIDTH."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UserError(
            f"--sizes={text}: expected HEIGHTxWIDTH in pixels, for example 512x1024; separate several sizes with commas"
        )
    return int(height), int(width)
