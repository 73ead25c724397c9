"""The `predict` mode: segment images, folders of them, and videos with a trained model."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from etils import epath

from pyrseg_jax.data.listing import say_passed_over
from pyrseg_jax.errors import UserError
from pyrseg_jax.prediction import safety
from pyrseg_jax.prediction.listing import Item, as_videos, find_items, share_of, with_truth
from pyrseg_jax.prediction.manifest import Manifest, Settings, describe_change
from pyrseg_jax.prediction.outputs import DEFAULT, Prediction, files_of, wants_of
from pyrseg_jax.prediction.pipeline import Pipeline
from pyrseg_jax.prediction.progress import Progress
from pyrseg_jax.prediction.reading import Loaded, Reader
from pyrseg_jax.prediction.writing import Outcome, Writer, is_full
from pyrseg_jax.run import signals
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.packaged_models import find_model
from pyrseg_jax.run.predictor import Predictor, Segmented
from pyrseg_jax.storage.atomic import remove_leftovers
from pyrseg_jax.storage.paths import is_remote, storage_path

if TYPE_CHECKING:  # importing it takes a third of a second, which an exported model does not need
    from pyrseg_jax.run.workdir import Workdir

log = logging.getLogger(__name__)

Place = Path | epath.Path


class Model(NamedTuple):
    """A trained model, and what tells its predictions from those of others."""

    predictor: Predictor
    settings: Settings


def predict(
    config: Config | None,
    workdir: "Workdir | None",
    source: str,
    target: str,
    step: int | None = None,
    overwrite: bool = False,
    outputs: Sequence[str] | None = None,
    model: str | None = None,
    window: int | None = None,
    fps: float | None = None,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Segment an image or a video, or all of them in and below a folder, and write the outputs to the folder `target`.

    Before anything is computed, the paths of all files are checked: no two of them are the same, none is an input or ground truth,
    and files that are there already were written by an earlier `predict`, as its manifest shows. What an earlier command has
    finished is not done again. An image that cannot be finished is logged, and the others are finished.

    Args:
      config: the run's configuration; None with `model`.
      workdir: the run's folder; None with `model`.
      source: path of an image, a video, or a folder.
      target: path of the folder to write to; it is created if needed.
      step: step of the checkpoint; by default the newest.
      overwrite: whether to replace files in `target` that an earlier `predict` did not write. Inputs and ground truth never are.
      outputs: kinds of files, keys of `OUTPUTS`; by default labels and overlay.
      model: path of an exported model or a model folder, or the name of a packaged model, instead of a run.
      window: side of the windows for images of any size, in pixels; None segments whole images.
      fps: frames per second, if the images of each folder are the frames of a video.
      share: which of several processes this is, and how many there are.

    Raises:
      UserError: if there are no images, if a file must not be written, or if there is no model; also at the end, if an image could
        not be finished.
    """
    place, folder = _place("input", source), _place("output", target)
    found = find_items(place, folder)
    for note in found.notes:
        log.warning("%s", say_passed_over(f"--input={source}", note) if "passed over" not in note else note)
    names = tuple(outputs or DEFAULT)
    everything = with_truth(found.items) if fps is None else as_videos(found.items, place)
    items = share_of(everything, *share)
    manifest = _open_output(config, workdir, folder, items, everything, names, overwrite, share)
    with contextlib.closing(manifest):
        if not items:
            log.info("process %d of %d has no image to segment", share[0], share[1])
            return
        trained = _load(config, workdir, step, model, window)
        writer = Writer(folder, manifest, trained.settings, names, overwrite)
        _say_changes(items, manifest, trained.settings)
        log.info("segmenting %s with %s", _count(len(items)), _name(trained.settings))
        _finish(items, folder, _outcomes(items, trained.predictor, writer, window, fps))


def _finish(items: Sequence[Item], folder: Place, outcomes: Iterator[Outcome]) -> None:
    """Log each problem and the progress; raise UserError at the end if there was a problem."""
    num_complete, problems = 0, []
    with Progress(len(items)) as progress, contextlib.closing(outcomes):  # pyright: ignore[reportArgumentType]
        try:
            for outcome in outcomes:
                if outcome.note:
                    log.info("%s", outcome.note)
                for problem in outcome.problems:
                    log.error("%s", problem)
                problems += outcome.problems
                num_complete += not outcome.problems
                progress.add(outcome.is_earlier)
                if outcome.is_last:
                    break
        except BaseException as error:  # after Ctrl-C, the last line repeats this note
            error.add_note(f"{num_complete} of {_count(len(items))} are complete")
            raise
    earlier = f", {progress.num_earlier} of them by an earlier command" if progress.num_earlier else ""
    rate = f" ({progress.per_second():.3g} images per second)" if progress.num_done > progress.num_earlier else ""
    log.info("segmented %d of %s into %s%s%s", num_complete, _count(len(items)), folder, earlier, rate)
    if problems:
        num_left = len(items) - num_complete
        raise UserError(f"{num_left} of {_count(len(items))} could not be finished; the first: {problems[0]}")


def _outcomes(
    items: Sequence[Item], predictor: Predictor, writer: Writer, window: int | None, fps: float | None
) -> Iterator[Outcome]:
    videos, photographs = ([item for item in items if item.is_video == is_video] for is_video in (True, False))
    if videos:
        from pyrseg_jax.prediction.videos import Videos

        segmenter = Videos(predictor, writer)
        for item in videos:
            yield segmenter.segment_frames(item, fps) if item.frames and fps else segmenter.segment(item)
    if window is not None and photographs:
        from pyrseg_jax.prediction.streaming import Windows

        yield from map(Windows(predictor, writer, window).segment, photographs)
        return
    wants = wants_of(writer.outputs)
    predictor.check_wants(wants)
    reader = Reader(writer, predictor, has_truth=wants.has_pyramid)
    store = functools.partial(_store, writer, predictor)
    with signals.postponing() as signal:
        yield from Pipeline(predictor, wants, reader.load, store).run(photographs, signal.has_come)
        signal.raise_again()


def _store(writer: Writer, predictor: Predictor, loaded: Loaded, segmented: Segmented) -> Outcome:
    """Draw and write the files of an image."""
    space = predictor.label_space
    segmented = segmented.masked(loaded.masked.is_void, space.void)
    found = Prediction(loaded.item, segmented, space, loaded.truth, writer.folder, loaded.place)
    try:
        return Outcome(loaded.item, tuple(writer.write(found, loaded.source, loaded.started_at)))
    except UserError as error:
        return Outcome(loaded.item, (str(error),), is_last=is_full(error))


def _place(flag: str, value: str) -> Place:
    if not value:
        raise UserError(f"--{flag}=: expected a path")
    return storage_path(value) if is_remote(value) else Path(value).expanduser()


def _open_output(
    config: Config | None,
    workdir: "Workdir | None",
    folder: Place,
    items: Sequence[Item],
    everything: Sequence[Item],
    outputs: tuple[str, ...],
    overwrite: bool,
    share: tuple[int, int],
) -> Manifest:
    """Check the paths of all files, then create the folder, and return the record of what is written there."""
    kept = {}
    if workdir is not None and not is_remote(workdir.path):
        kept |= safety.folders_of_run(Path(workdir.path))
    if config is not None and config.data.root and not is_remote(config.data.root):
        kept |= safety.folders_of_data_set(Path(config.data.root).expanduser())
    names_of: Callable[[Item], list[str]] = lambda item: list(files_of(item, outputs).values())  # noqa: E731
    try:
        manifest = Manifest(folder, *share)
        safety.check_plan(items, everything, names_of, manifest, overwrite, kept)
        if not is_remote(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if manifest.is_found:  # a `predict` that was killed may have left partial files
                for place in {(folder / item.name).parent for item in items}:
                    remove_leftovers(place)
        manifest.start()
    except OSError as error:
        raise UserError(
            f"--output={folder} cannot be written ({error.strerror or error}): name another folder"
        ) from error
    return manifest


def _load(
    config: Config | None, workdir: "Workdir | None", step: int | None, model: str | None, window: int | None
) -> Model:
    """Read the exported model or the model folder, or restore the run."""
    if model is not None:
        place = find_model(model)
        if not place.is_dir():
            from pyrseg_jax.export.predictor import load_exported

            predictor, weights = load_exported(Path(place))
            return Model(predictor, _settings(predictor, str(model), None, weights, window))
        from pyrseg_jax.run.workdir import Workdir

        workdir = Workdir(str(place))
        config = workdir.read_config()
    assert config is not None and workdir is not None, "without a model there is a run"
    from pyrseg_jax.run.trained_predictor import load_predictor

    predictor, trained = load_predictor(config, workdir, step)
    name = str(workdir.path) if model is None else model
    return Model(predictor, _settings(predictor, name, trained.step, trained.fingerprint, window))


def _settings(predictor: Predictor, model: str, step: int | None, weights: str, window: int | None) -> Settings:
    threshold = predictor.threshold
    protocol = predictor.protocol if window is None else {"name": "windows", "window_px": window}
    return Settings(
        model=model,
        step=step,
        weights=weights,
        protocol=protocol,
        threshold=threshold,
        temperatures=predictor.temperatures,
    )


def _say_changes(items: Sequence[Item], manifest: Manifest, settings: Settings) -> None:
    lines = [line for item in items if (line := manifest.line_of(item.key)) is not None]
    changed = [line for line in lines if line.decisive() != settings.decisive()]
    if changed:
        what = describe_change(changed[0], settings)
        log.info("%s were segmented with other settings (%s): they are segmented again", _count(len(changed)), what)


def _name(settings: Settings) -> str:
    return settings.model if settings.step is None else f"step {settings.step}"


def _count(number: int) -> str:
    return f"{number:,} image{'' if number == 1 else 's'}"
