"""The modes of the command line. Each is a function in its own file, which reads as a story from the configuration to results.

To add one, write its file and add it to `MODES`. A command imports no other command.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Mode(NamedTuple):
    """A mode of the command line.

    help: a description in one line, for users.
    module, function: the command's file in this package, and its function there. The file is imported only when the mode is
      chosen, because most commands import jax.
    takes: the function's arguments after the configuration: flags by name, "workdir" for the folder of the run, "preemption"
      for the handler of SIGTERM, "topic" for the word after the mode, "words" for all words after it, "changes" for the values of
      --config.KEY=VALUE by key, "share" for the index of this process and the number of processes.
    needs: the flags that must be given.
    topic: the name of the word or words after the mode in help texts; "" where no word may follow.
    is_parallel: whether several processes can run it together.
    is_divided: whether several processes divide the work by themselves, without joining; takes "share".
    reads_run: whether the workdir must hold a run of this configuration.
    names_run: whether the word after the mode is the folder of the run, as --workdir is.
    names_model: whether that word may also name a model, as --model does.
    finds_model: whether the folder of the run may be the name of a packaged model, which is then read where it is.
    is_continued: whether SIGTERM ends it with status 75, so that schedulers start the same command again, which continues.
      Trainings, which take "preemption", do so in any case.
    has_config: whether there is a configuration at all.
    places_model: whether --model may name a model, which is then copied to the workdir, as the run that the mode reads.
    replaces_config: a flag that names a model by itself, so that neither a configuration nor a run is read.
    without_config: why flags that choose a configuration or a run are refused, for messages; "" passes them over.
    returns_memory: whether freed memory goes back to the system, because the process runs until it is stopped.
    uses_devices: whether this process computes on the devices. One that only starts others leaves the devices to them.
    interrupted: what is true of the mode's files after Ctrl-C or another signal, and what the same command does next.
    resumable: the same for a run that has a checkpoint; "" if that makes no difference.
    memory: what the user can do when memory runs out.
    """

    help: str
    module: str
    function: str
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    topic: str = ""
    is_parallel: bool = False
    is_divided: bool = False
    is_continued: bool = False
    reads_run: bool = False
    names_run: bool = False
    names_model: bool = False
    finds_model: bool = False
    has_config: bool = True
    places_model: bool = False
    replaces_config: str = ""
    without_config: str = ""
    returns_memory: bool = False
    uses_devices: bool = True
    interrupted: str = "nothing was written; the same command starts again"
    resumable: str = ""
    memory: str = "close other programs and start the same command again"

    def after_interruption(self, has_checkpoint: bool) -> str:
        """Say what is true of the mode's files, and what the same command does next."""
        return self.resumable if has_checkpoint and self.resumable else self.interrupted

    def load(self) -> Callable[..., Any]:
        """Import the command."""
        return getattr(importlib.import_module(f"{__name__}.{self.module}"), self.function)

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the names of the flags of this mode, beside those of every mode."""
        return (*self.takes, *["model"] * self.places_model)

    @property
    def most_words(self) -> int:
        """Return how many words may follow the mode."""
        return sys.maxsize - 1 if "words" in self.takes else int(bool(self.topic))


MODES = {
    "train": Mode(
        "prepare the data set if needed, train, evaluate; the same command resumes an interrupted run. The default mode.",
        *("train", "train"),
        takes=("workdir", "preemption"),
        is_parallel=True,
        interrupted="there is no checkpoint yet; the same command starts again",
        resumable="the same command resumes from the last checkpoint",
        memory="lower config.training.batch_size or config.data.crop_px, set config.training.accumulate=2 or "
        "config.model.remat=light, or lower config.data.workers",
    ),
    "evaluate": Mode(
        "score a checkpoint on config.evaluation.split",
        *("evaluate", "evaluate"),
        takes=("workdir", "step"),
        is_parallel=True,
        reads_run=True,
        places_model=True,
        interrupted="no result was written; the same command starts again",
        memory="lower config.evaluation.batch_size, or choose config.evaluation.protocol=single",
    ),
    "calibrate": Mode(
        "fit the temperatures that make confidences true, on config.evaluation.split, and store them with the run",
        *("calibrate", "calibrate"),
        takes=("workdir", "step"),
        reads_run=True,
        places_model=True,
        memory="lower config.evaluation.batch_size, or choose config.evaluation.protocol=single",
    ),
    "predict": Mode(
        "segment images, folders of them, and videos; several processes share the work",
        *("predict", "predict"),
        takes=("workdir", "input", "output", "step", "overwrite", "outputs", "model", "window", "fps", "share"),
        needs=("input", "output"),
        reads_run=True,
        replaces_config="model",
        is_divided=True,
        is_continued=True,
        interrupted="each file in --output is complete; the same command finishes the others",
        memory="give --window=512, segment smaller images, or choose config.evaluation.protocol=single",
    ),
    "rank": Mode(
        "rank the labels of config.evaluation.split that look wrong, or the images of --input that are worth labeling next",
        *("rank", "rank"),
        takes=("workdir", "input", "output", "step", "top", "overwrite"),
        needs=("output",),
        reads_run=True,
        places_model=True,
        interrupted="each file in --output is complete; the same command starts again",
        memory="rank smaller images, or choose config.evaluation.protocol=single",
    ),
    "prepare": Mode(
        "build and check the data set, and print its report",
        *("validate", "prepare"),
        interrupted="finished shards are kept; the same command continues",
        memory="close other programs and start the same command again: it continues",
    ),
    "validate": Mode(
        "read every image and label of the data set, and name each bad file",
        *("validate", "validate"),
        takes=("workdir", "draw"),
        interrupted="nothing was written, except the picture if --draw was given; the same command starts again",
    ),
    "compile": Mode(
        "compile ahead of time for --topology or this machine; report memory, FLOPs and communication",
        *("compile", "compile_ahead"),
        takes=("workdir", "topology"),
        interrupted="no report was written; the same command starts again",
        memory="lower config.training.batch_size, or compile on a machine with more memory",
    ),
    "export": Mode(
        "write the trained model as one portable file (default: model.zip in the workdir), as an ONNX file, or as a folder for "
        "pyrseg_jax",
        *("export", "export"),
        takes=(
            *("workdir", "output", "sizes", "step", "overwrite", "format", "half"),
            *("weights", "activations", "images", "from"),
        ),
        reads_run=True,
        places_model=True,
        replaces_config="from",
        interrupted="a model file is complete or absent; the same command starts again",
        memory="export fewer or smaller --sizes",
    ),
    "push": Mode(
        "upload the model of a run, or a model folder, to the Hugging Face hub",
        *("push", "push"),
        takes=("workdir", "to", "revision", "private", "dry_run", "step", "half", "overwrite"),
        needs=("to",),
        topic="[RUN]",
        reads_run=True,
        names_run=True,
        finds_model=True,
        interrupted="the upload is one commit: all of it is there or nothing; the same command starts again",
    ),
    "serve": Mode(
        "answer images over HTTP with a trained model: label maps, JSON or overlays",
        *("serve", "serve"),
        takes=(
            *("workdir", "model", "step", "host", "port", "sizes", "any_size", "token"),
            *("max_bytes", "max_pixels", "timeout", "queue"),
        ),
        topic="[RUN|MODEL]",
        reads_run=True,
        replaces_config="model",
        names_run=True,
        names_model=True,
        returns_memory=True,
        interrupted="every request that was accepted was answered; nothing was written",
        memory="lower --max_pixels or --queue, or list fewer --sizes",
    ),
    "tune": Mode(
        "search for good values of configuration keys: many trainings one after another, in folders below --output. Score them on "
        "held-out training images (config.data.holdout=N, config.evaluation.split=holdout), so that the validation split stays "
        "unseen",
        *("tune", "tune"),
        takes=("workdir", "config", "changes", "output", "vary", "trials", "prune", "keep"),
        needs=("output", "vary"),
        uses_devices=False,
        interrupted="trials that have ended are kept; the same command continues the search where it was",
    ),
    "compare": Mode(
        "compare evaluated runs: a table and a plot of their scores, with intervals over images",
        *("compare", "compare"),
        takes=("words", "result", "output", "overwrite"),
        topic="[LABEL=]RUN[+RUN…] …",
        has_config=False,
        without_config="it compares results that exist",
        interrupted="each file in --output is complete; the same command with --overwrite writes all of them",
    ),
    "report": Mode(
        "write one HTML page about a run: curves, scores, confusions, examples with a slider for τ, data, configuration",
        *("report", "report"),
        takes=("workdir", "result", "output", "images", "overwrite"),
        topic="[RUN]",
        reads_run=True,
        places_model=True,
        names_run=True,
        interrupted="a report is complete or absent; the same command starts again",
        memory="give --images=0, or choose config.evaluation.protocol=single",
    ),
    "demo": Mode(
        "write a static folder in which a browser runs the trained model: drop a photograph or use the camera",
        *("demo", "demo"),
        takes=("workdir", "output", "sizes", "step", "input", "runtime", "serve", "port", "overwrite"),
        needs=("output",),
        topic="[RUN]",
        reads_run=True,
        names_run=True,
        finds_model=True,
        interrupted="each file in --output is complete; the same command with --overwrite writes all of them",
        memory="give smaller --sizes",
    ),
    "import": Mode(
        "turn the export of a label tool into a data set that config.data.name=folder reads: COCO, PASCAL VOC, LabelMe, CVAT, "
        "YOLO, Label Studio, Cityscapes, Mapillary, Hugging Face, and plain masks",
        *("importing", "import_source"),
        takes=(
            *("input", "output", "format", "classes", "split", "group", "seed", "unlabeled", "overlap"),
            *("skip_bad", "copy", "overwrite"),
        ),
        needs=("input", "output"),
        has_config=False,
        without_config="it reads annotations, not runs",
    ),
    "help": Mode(
        "explain a mode, a flag or a configuration key",
        "help",
        "show",
        takes=("topic",),
        topic="TOPIC",
        has_config=False,
    ),
    "configs": Mode("list the packaged configs and the words that change each", "configs", "show", has_config=False),
    "completion": Mode(
        "print the completion script of a shell: bash, zsh or fish",
        *("completion", "show"),
        takes=("topic",),
        topic="SHELL",
        has_config=False,
    ),
}
