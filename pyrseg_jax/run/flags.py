"""The flags of the command line, beside the configuration keys: their names, help texts, and how their values are read."""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Flag(NamedTuple):
    """A flag of the command line.

    metavar: the name of its value in help texts; "" for a switch.
    help: a description in one line.
    read: a function from the text to the value; its ValueError says what was expected.
    default: the value without the flag.
    is_repeated: whether it may be given several times; the value is then the list of all.
    """

    metavar: str
    help: str
    read: Callable[[str], Any] = str
    default: Any = None
    is_repeated: bool = False


def _at_least(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or int(text) < least:
            raise ValueError(f"expected an integer, at least {least}")
        return int(text)

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return text

    return read


def _some_of(choices: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(_split(text)))
        for name in names:
            if name not in choices:
                near = difflib.get_close_matches(name, choices, 1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise ValueError(f"{name} is not one of them: {hint}Expected some of {', '.join(choices)}")
        if not names:
            raise ValueError(f"expected some of {', '.join(choices)}")
        return names

    return read


def _read_switch(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError("expected true or false")
    return text.lower() in ("true", "1")


def _read_port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise ValueError("expected a port, 1 to 65535, or 0 for a free one")
    return int(text)


def _positive(text: str) -> float:
    value = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
    if not 0 < value <= 1000:
        raise ValueError("expected a number above 0, at most 1000")
    return value


def _read_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ValueError("expected a number between 0 and 1, such as 0.2")
    return share


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


# The files that predict can write for an image; `prediction.outputs` says what each is.
OUTPUTS = (
    *("labels", "overlay", "pyramid", "confidence", "entropy", "disagreement"),
    *("color", "coco", "geojson", "geotiff", "labelme"),
)
FLAGS = {
    "config": Flag(
        "NAME[:WORDS]", "the experiment: a config file, or the name of a packaged config (`pyrseg configs`)"
    ),
    "workdir": Flag("DIR", "the folder of the run; default: runs/NAME or runs/NAME-WORDS"),
    "step": Flag("N", "the step of the checkpoint to use; default: the newest", _at_least(0)),
    "input": Flag(
        "FILE_OR_FOLDER",
        "for predict, an image, a video, or a folder of them, with all folders below it, also gs://…; for rank, the same without "
        "labels; for import, what a label tool exported, also as a zip; for demo, photographs that the page offers",
    ),
    "output": Flag(
        "PATH",
        "where to write: a folder for predict, rank, compare, demo, import and tune, a file for export and report",
    ),
    "result": Flag(
        "NAME",
        "which result of each run to compare, or to report on: newest (the default), best (by mIoU), or the name of a file in "
        "evaluation/, such as validation-660",
    ),
    "outputs": Flag(
        "NAMES",
        "comma-separated files that predict writes for each image: labels, overlay, pyramid, confidence, entropy, "
        "disagreement, color, coco, geojson, geotiff, labelme; default: labels,overlay",
        _some_of(OUTPUTS),
    ),
    "top": Flag("N", "how many images rank draws, and chooses so that they differ", _at_least(1), 24),
    "model": Flag(
        "NAME",
        "a model instead of a run: one that comes with the package, such as camvid-small, a folder that export wrote, or "
        "hf://ORG/NAME; predict also takes an exported file. Commands that write results copy the model to --workdir, by default "
        "runs/NAME",
    ),
    "to": Flag("hf://ORG/NAME", "the repository of the Hugging Face hub that push uploads to"),
    "revision": Flag("BRANCH", "the branch that push uploads to; it is created if necessary; default: main"),
    "private": Flag("", "push to a repository that only its owners can read", _read_switch, False),
    "dry_run": Flag("", "print what push would upload, and upload nothing", _read_switch, False),
    "window": Flag(
        "PIXELS",
        "predict images of any size at their own resolution, in overlapping windows of this side, such as 512",
        _at_least(32),
    ),
    "images": Flag(
        "N",
        "images that the report shows at most; 0 reads neither the data set nor the checkpoint. For export with "
        "--activations=int8, images of the evaluation split from which the ranges of maps are measured",
        _at_least(0),
        24,
    ),
    "fps": Flag(
        "N",
        "take the images of each folder as the frames of one video, and write it with N frames per second",
        _positive,
    ),
    "sizes": Flag(
        "HEIGHTxWIDTH,…",
        "for export, image sizes that the model accepts, such as 512x512; default: the training crop. For demo, sizes of the "
        "network's input; default: a wide and a tall one. For serve, those that are compiled before the first request, and "
        "accepted; default: all are accepted",
        _split,
        [],
    ),
    "from": Flag(
        "FILE",
        "an exported file that export writes again with the jax that is installed now, so that newer versions read it",
    ),
    "host": Flag("ADDRESS", "address to serve on; 0.0.0.0 is reached from other machines", default="127.0.0.1"),
    "port": Flag("N", "port to serve on; 0 chooses a free one", _read_port, 8000),
    "any_size": Flag(
        "", "serve images of other sizes than --sizes, too; the first one of a size takes seconds", _read_switch, False
    ),
    "token": Flag(
        "FILE",
        "a file with the token that clients must send as `Authorization: Bearer TOKEN`; default: the environment variable "
        "PYRSEG_TOKEN, or no token",
    ),
    "max_bytes": Flag("N", "bytes that the body of a request may have", _at_least(1), 32 * 2**20),
    "max_pixels": Flag("N", "pixels that an image in a request may have", _at_least(1), 2**24),
    "timeout": Flag(
        "SECONDS", "how long serve waits for the body of a request, and a client for the answer", _positive, 30.0
    ),
    "queue": Flag("N", "requests that serve holds at a time; others are asked to come again", _at_least(1), 64),
    "vary": Flag(
        "KEY=VALUES",
        "a key to search for, without `config.`, and its values: LOW:HIGH, log:LOW:HIGH or A|B|C; can be given several times",
        is_repeated=True,
    ),
    "trials": Flag("N", "number of trainings, those of earlier parts of the search included", _at_least(1), 20),
    "prune": Flag(
        "",
        "stop a trial early if it is worse than the median of the others at the same step; --noprune trains each to its end",
        _read_switch,
        True,
    ),
    "keep": Flag(
        "",
        "keep all checkpoints of all trials; without it, trials that are not the best keep the newest",
        _read_switch,
        False,
    ),
    "draw": Flag("", "draw twelve augmented training images as one picture", _read_switch, False),
    "format": Flag(
        "NAME",
        "for import, the format of the source; without the flag, it is recognized (docs/guide/importing.md lists all). For export, "
        "zip, which jax alone can run (the default), onnx, litert, or folder, for pyrseg_jax",
    ),
    "weights": Flag(
        "float32|int8",
        "number format of the kernels in an ONNX file; int8 takes a quarter of the space",
        _one_of("float32", "int8"),
        "float32",
    ),
    "activations": Flag(
        "float32|int8",
        "number format of the maps between the layers of an ONNX file; int8 also makes the weights int8, and needs the data set",
        _one_of("float32", "int8"),
        "float32",
    ),
    "half": Flag("", "export kernels in half precision: half the size, for --format=folder", _read_switch, False),
    "classes": Flag(
        "FILE",
        "a list of classes: which ones to import and in which order; for masks, also their colors, or the names of 0, 1, 2, …",
    ),
    "split": Flag(
        "SHARE",
        "draw this share of the pictures for validation, instead of the splits of the source; default: its splits, or else 0.2",
        _read_share,
    ),
    "group": Flag(
        "REGEX",
        "pictures whose names match in the same text stay together in one split, such as the frames of a video: '^([^_]+)_'",
    ),
    "seed": Flag("N", "seed of the split", _at_least(0), 0),
    "unlabeled": Flag(
        "background|void",
        "what pixels without annotation become; the default depends on the format",
        _one_of("background", "void"),
    ),
    "overlap": Flag(
        "area|file",
        "which of two overlapping objects stays visible: the smaller one, or the later one in the file; the default depends on "
        "the format",
        _one_of("area", "file"),
    ),
    "skip_bad": Flag(
        "",
        "leave out pictures that cannot be used, and count them, instead of stopping at the first",
        _read_switch,
        False,
    ),
    "copy": Flag(
        "", "copy photographs; without the flag, they are hard links where the disk allows it", _read_switch, False
    ),
    "topology": Flag(
        "NAME",
        "accelerators to compile for, such as v5e:16x16, h100 or h100:8; the hardware does not have to be present; without the "
        "flag, compile for this machine",
    ),
    "runtime": Flag(
        "PLACE",
        "the npm package onnxruntime-web for demo, unpacked or as a .tgz; without the flag, it is downloaded once",
    ),
    "serve": Flag("", "serve the demo to browsers of this machine until Ctrl-C, at --port", _read_switch, False),
    "distributed": Flag(
        "auto|on|off",
        "join the other processes of this run; auto joins when it runs under Cloud TPU, Slurm, or GKE",
        _one_of("auto", "on", "off"),
        "auto",
    ),
    "coordinator": Flag(
        "HOST:PORT", "address of process 0; needed only where the processes cannot be detected automatically"
    ),
    "num_processes": Flag("N", "the number of processes, with --coordinator", _at_least(1)),
    "process_id": Flag("N", "the index of this process, from 0", _at_least(0)),
    "overwrite": Flag(
        "",
        "replace files at the output that this command did not write; inputs and ground truth are never replaced",
        _read_switch,
        False,
    ),
    "debug": Flag("", "show tracebacks of errors", _read_switch, False),
}
