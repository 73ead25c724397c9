"""The runs that `compare` is given: from the words of the command line to results with the counts of their images."""

import glob
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Int64
from pydantic import ConfigDict, Field

from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.evaluation.image_scores import ImageCounts
from pyrseg_jax.run import image_counts
from pyrseg_jax.run.results import StoredResult
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.names import file_name_of
from pyrseg_jax.storage.paths import is_remote, is_there, storage_path

NEWEST, BEST = "newest", "best"
MAGIC = re.compile(r"[*?\[]")  # characters of a pattern
ADVICE = "evaluate the checkpoint again"
# Keys of a protocol that `pyrseg evaluate` takes as they are.
PROTOCOL_KEYS = ("threshold", "short_side_px", "long_side_px")

Score = Annotated[float, Field(ge=0, le=1)] | None


class ComparedResult(StoredResult):
    """The keys of a result that a comparison reads."""

    iou: dict[str, Score]
    boundary_miou: Score = None
    boundary_px: int | None = None
    level_share: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None


class StoredEvaluation(documents.Document):
    """How a run is evaluated, as far as a comparison needs it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    split: str = "validation"
    protocol: str = "single"


class StoredRun(documents.Document):
    """The keys of `config.json` that a comparison reads; reading all of them would import the networks."""

    model_config = ConfigDict(frozen=True, extra="allow")

    evaluation: StoredEvaluation = StoredEvaluation()


class Run(NamedTuple):
    """A run to compare.

    path: of its result.
    result: the result.
    images: the counts of each image; None if they were not kept.
    """

    path: epath.Path
    result: ComparedResult
    images: ImageCounts | None

    @property
    def workdir(self) -> epath.Path:
        """The folder of the run."""
        return self.path.parent.parent

    @property
    def sums(self) -> Int64[np.ndarray, "c 3"]:
        """The pixels of each class that are predicted rightly, that are predicted, and that are labeled."""
        confusion = np.array(self.result.confusion, np.int64)
        return np.stack([np.diag(confusion), confusion.sum(0), confusion.sum(1)], -1)


class Argument(NamedTuple):
    """A word of the command line.

    label: the name that the user gives to the experiment; "" for none.
    text: how the user writes its runs.
    paths: folders of runs, or results.
    """

    label: str
    text: str
    paths: list[epath.Path]


def read_argument(text: str) -> Argument:
    """Find the runs of one experiment: a workdir, a result, a pattern of these, or several joined with `+`.

    `LABEL=` may come first. A `+` or `=` in the name of a folder stays part of the name.

    Raises:
      UserError: if the folder or file does not exist.
    """
    paths = _find(text)
    if paths is not None:
        return Argument("", text, paths)
    label, has_label, rest = text.partition("=")
    if has_label and label and "/" not in label:
        paths = _find(rest)
        if paths is not None:
            return Argument(label, rest, paths)
        text = rest
    absent = next((part for part in text.split("+") if _find(part) is None), text)
    kind = "matches no run" if MAGIC.search(absent) else "is neither a folder nor a result"
    raise UserError(
        f"{absent!r} {kind}: expected the folder of a run, a file of its folder evaluation, a quoted pattern such as 'runs/mine-*' "
        "or several of these joined with +"
    )


def read_run(path: epath.Path, which: str) -> Run:
    """Read the result of a run, and the counts of its images if there are any.

    Args:
      path: the folder of a run, or a result.
      which: for a folder, which of its results: `newest` or `best` among those of the run's own split, protocol and data set, or
        the name of a file in its folder `evaluation`, such as `validation-660-multi_scale_flip`.

    Raises:
      UserError: naming the file, if there is no such result, or a file is damaged.
    """
    found = _choose(path, which) if path.is_dir() else path
    result = documents.read_json(found, ComparedResult, ADVICE)
    num_classes = len(result.iou)
    if [len(row) for row in result.confusion] != [num_classes] * num_classes:
        raise UserError(
            f"{found}: confusion does not have one row and one column for each of the {num_classes} classes; {ADVICE}"
        )
    run = Run(found, result, None)
    counts_path = image_counts.path_of(found)
    if not is_there(counts_path):
        return run
    counts = image_counts.read_image_counts(found)
    if counts.classes != tuple(result.iou) or not np.array_equal(counts.images.counts.sum(0), run.sums):
        raise UserError(
            f"{counts_path} does not belong to {found}: the sums of its counts differ from confusion there; {ADVICE}"
        )
    return run._replace(images=_sorted(counts.images))


def command_for_counts(run: Run) -> str:
    """Return the command that evaluates the checkpoint of a result again, and so keeps the counts of its images."""
    result = run.result
    own = _read_evaluation(run.workdir) if is_there(run.workdir / "config.json") else StoredEvaluation()
    words = ["pyrseg", "evaluate", f"--workdir={run.workdir}", f"--step={result.step}"]
    split = run.path.stem.rpartition(f"-{result.step}")[0] if result.data is None else result.data.split
    if split and split != own.split:
        words.append(f"--config.evaluation.split={split}")
    name = result.protocol.get("name", own.protocol)
    if name != own.protocol:
        words.append(f"--config.evaluation.protocol={name}")
    if not name.startswith(("mmsegmentation", "hrnet")):  # which have sizes of their own
        stored = own.model_dump()
        for key in PROTOCOL_KEYS:
            if key in result.protocol and key in stored and result.protocol[key] != stored[key]:
                words.append(f"--config.evaluation.{key}={result.protocol[key]}")
    if (
        result.data is not None and f"-{result.data.fingerprint[:8]}" in run.path.stem
    ):  # another data set than the run's own
        words.append(f"--config.data.root={(result.data.model_extra or {}).get('place', 'DIR')}")
    return " ".join(map(shlex.quote, words))


def describe_images(run: Run) -> Mapping[str, Any]:
    """Return what tells the images of two results apart if one of them has no counts: values that must be equal."""
    found = {"images": run.result.images, "labeled pixels by class": run.sums[:, 2].tolist()}
    return found | ({} if run.result.data is None else {"fingerprint": run.result.data.fingerprint})


def _find(text: str) -> list[epath.Path] | None:
    """Return the paths that a text stands for, or None if a part of it does not exist."""
    pieces = text.split("+")
    for end in range(len(pieces), 0, -1):  # a longer name goes first, so that a + in the name of a folder stays in it
        first = _matches("+".join(pieces[:end]))
        if first:
            rest = _find("+".join(pieces[end:])) if end < len(pieces) else []
            if rest is not None:
                return first + rest
    return None


def _matches(text: str) -> list[epath.Path]:
    """Return the path of this name if it exists; otherwise the runs and results that a pattern matches."""
    if not text:
        return []
    path = storage_path(text)
    if path.exists():
        return [path]
    if not MAGIC.search(text) or is_remote(text):
        return []
    found = map(epath.Path, sorted(glob.glob(os.path.expanduser(text))))
    return [path for path in found if (path.suffix == ".json" if path.is_file() else (path / "evaluation").is_dir())]


def _choose(workdir: epath.Path, which: str) -> epath.Path:
    """Return the path of the chosen result of a run."""
    folder = workdir / "evaluation"
    if which not in (NEWEST, BEST):
        path = folder / (which if which.endswith(".json") else f"{which}.json")
        if os.path.basename(which) != which or not path.exists():
            raise UserError(f"--result={which}: {folder} holds no such result; {_list_results(folder)}")
        return path
    split = _read_evaluation(workdir).split
    steps = sorted(_own_steps(folder, split))
    if not steps:
        command = shlex.join(["pyrseg", "evaluate", f"--workdir={workdir}"])
        raise UserError(
            f"{folder} holds no result {file_name_of(split)}-STEP.json of the run's own protocol; {_list_results(folder)}; make "
            f"one with `{command}`, or choose another with --result=NAME"
        )
    paths = [folder / f"{file_name_of(split)}-{step}.json" for step in steps]
    if which == NEWEST:
        return paths[-1]
    scores = [documents.read_json(path, ComparedResult, ADVICE).miou for path in paths]
    return max(zip(scores, paths, strict=True), key=lambda pair: -1 if pair[0] is None else pair[0])[1]


def _own_steps(folder: epath.Path, split: str) -> Iterator[int]:
    name = re.compile(rf"{re.escape(file_name_of(split))}-(\d+)\.json")
    for file in _names(folder):
        found = name.fullmatch(file)
        if found:
            yield int(found[1])


def _names(folder: epath.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".json") if folder.is_dir() else []


def _list_results(folder: epath.Path) -> str:
    names = [escaped(name.removesuffix(".json")) for name in _names(folder)]
    return f"it holds {', '.join(names[:6])}{', …' if len(names) > 6 else ''}" if names else "it is empty"


def _read_evaluation(workdir: epath.Path) -> StoredEvaluation:
    path = workdir / "config.json"
    return documents.read_json(
        path, StoredRun, "name the folder of a run, or a result in its folder evaluation"
    ).evaluation


def _sorted(images: ImageCounts) -> ImageCounts:
    """Sort images by digest, as `image_scores.collect_counts` does, whatever the order in the file is."""
    order = sorted(range(len(images.digests)), key=lambda i: (images.digests[i], images.counts[i].tolist()))
    return ImageCounts(tuple(images.digests[i] for i in order), images.counts[order])
