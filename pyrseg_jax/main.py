"""The command line: `python -m pyrseg_jax.main --config=configs/NAME.py [--mode=MODE] [--workdir=DIR] …`."""

import contextlib
import gc
import logging
import os
import sys
from pathlib import Path

# A worker process imports this file again: what is slow to import, or starts a device, is imported where it is used.
from absl import flags
from ml_collections import config_flags

from pyrseg_jax.distributed import host_memory
from pyrseg_jax.errors import UserError
from pyrseg_jax.training.preemption import STATUS, Preempted, Preemption, say_preempted

EMBEDDED_CONFIG = Path(__file__).parents[1] / "configs" / "scenes.py"
MODES = {
    "train": "prepare the data set if needed, train, evaluate; continues by itself (the default)",
    "evaluate": "score the newest checkpoint on config.evaluation.split",
    "predict": "segment --input (an image or a folder of them) into the folder --output",
    "prepare": "build and check the data set, print its table",
    "validate": "read every image and label of the data set, name each bad file",
    "compile": "compile for --topology (or this machine) ahead of time; report memory, FLOPs, communication",
    "export": "write the trained model as one portable file, --output (by default model.zip in the workdir)",
}
DISTRIBUTED_FLAGS = ("distributed", "coordinator", "num_processes", "process_id")
PARALLEL_MODES = ("train", "evaluate")  # the others are work for one process

_CONFIG = config_flags.DEFINE_config_file(
    "config", str(EMBEDDED_CONFIG), "the experiment, as FILE.py or FILE.py:VARIANT"
)
_MODE = flags.DEFINE_enum("mode", "train", list(MODES), "; ".join(f"{name}: {text}" for name, text in MODES.items()))
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "the folder of the run; by default runs/NAME, with the VARIANT if there is one"
)
_STEP = flags.DEFINE_integer(
    "step", None, "evaluate, predict, export: the step of the checkpoint; by default the newest", lower_bound=0
)
_INPUT = flags.DEFINE_string("input", None, "predict: an image or a folder of images")
_OUTPUT = flags.DEFINE_string("output", None, "predict: the folder to write to; export: the file")
_SIZES = flags.DEFINE_list(
    "sizes",
    [],
    "export: HEIGHTxWIDTH of the images that the model shall take, with commas; by default the training crop",
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "compile: TPUs or GPUs by name, like v5e:16x16, h100 or h100:8; none are needed"
)
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "on", "off"],
    "join the other processes of this run: auto, where Cloud TPU, Slurm or GKE tell of them; on; off",
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where nothing tells of the processes")
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "how many processes there are, with --coordinator", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this is, from 0", lower_bound=0)
_DEBUG = flags.DEFINE_bool("debug", False, "show the traceback of errors")


def main(argv: list[str]) -> int:
    """Run one mode and return the exit status: 0, 1 after one clear line about what the user can put right, 75 after SIGTERM."""
    if set(argv[1:]) & {"-h", "--help"}:
        print(_usage())
        return 0
    try:
        chosen = _parse(argv)
        _configure_logging()
        host_memory.keep_memory_between_steps()
        if _TOPOLOGY.value is not None:
            from pyrseg_jax.ahead_of_time import topologies

            topologies.need_no_devices()
        with Preemption() if _MODE.value == "train" else contextlib.nullcontext() as preemption:
            _join_processes(preemption)
            _run(chosen, preemption)
    except Preempted:
        say_preempted()
        return STATUS
    except UserError as error:
        if "--debug" in argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder without permission, a file that vanished
        if "--debug" in argv:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command continues from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _join_processes(preemption: Preemption | None) -> None:
    from pyrseg_jax.distributed import processes

    processes.start(_DISTRIBUTED.value, _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if preemption is not None and processes.is_joined():
        preemption.hand_over(processes.agree_on_preemption)
    mode = _MODE.value
    if processes.count() > 1 and mode not in PARALLEL_MODES:
        raise UserError(
            f"--mode={mode} is work for one process, and there are {processes.count()}: start it once, with --distributed=off"
        )
    if not processes.is_first():
        logging.getLogger().setLevel(logging.WARNING)  # the first speaks for all


def _run(chosen: str | None, preemption: Preemption | None) -> None:
    from pyrseg_jax.commands import compile, evaluate, export, predict, train, validate
    from pyrseg_jax.run import experiment
    from pyrseg_jax.run.workdir import Workdir

    experiment.use_compilation_cache()
    workdir = Workdir(_WORKDIR.value or _default_workdir(chosen or str(EMBEDDED_CONFIG)))
    mode, config = _MODE.value, _read_config(chosen, workdir)
    gc.freeze()  # looking for garbage among all that was imported takes a fifth of the time of tracing
    if mode == "train":
        result = train.train(config, workdir, preemption)
        _say(evaluate.table(result))
        _say(f"run: {workdir.path}")
        if workdir.figures.is_dir():
            _say(f"pictures: {workdir.figures}")
    elif mode == "evaluate":
        _say(evaluate.table(evaluate.evaluate(config, workdir, _STEP.value)))
    elif mode == "predict":
        if _INPUT.value is None or _OUTPUT.value is None:
            raise UserError("--mode=predict needs --input=FILE_OR_FOLDER and --output=FOLDER")
        predict.predict(config, workdir, _INPUT.value, _OUTPUT.value, _STEP.value)
    elif mode == "prepare":
        validate.prepare(config)
    elif mode == "compile":
        compile.compile_ahead(config, workdir, _TOPOLOGY.value)
    elif mode == "export":
        export.export(config, workdir, _OUTPUT.value, _SIZES.value, _STEP.value)
    else:
        validate.validate(config)


def _say(text: str) -> None:
    from pyrseg_jax.distributed import processes

    if processes.is_first():
        print(text)


def _parse(argv: list[str]) -> str | None:
    """Parse the flags, with an error of one line for everything that is wrong; return the value of --config, if given."""
    chosen = _value_of_config(argv)
    if chosen is not None and not os.path.isfile(chosen.partition(":")[0]):
        raise UserError(f"--config={chosen}: there is no such file; the experiments of this project are in configs/")
    _check_keys(argv)
    try:
        remaining = flags.FLAGS(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"{str(error).rstrip(' ?')}; --help lists the flags") from error
    # A config file is a program: it can fail in any way.
    except Exception as error:
        reason = str(error).strip().split("\n")[-1].strip()
        file = (
            "" if isinstance(error, flags.Error) or chosen is None else f"--config={chosen}: {type(error).__name__}: "
        )
        raise UserError(f"{file}{reason}") from error
    if remaining:
        raise UserError(f"{remaining[0]!r} is not a flag: flags are written --name=value; --help lists them")
    return chosen


def _value_of_config(argv: list[str]) -> str | None:
    for argument, following in zip(argv[1:], [*argv[2:], None], strict=True):
        name, has_value, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            return value if has_value else following
    return None


def _check_keys(argv: list[str]) -> None:
    names = [
        argument.lstrip("-").partition("=")[0]
        for argument in argv[1:]
        if argument.startswith(("-config.", "--config."))
    ]
    if names:
        from pyrseg_jax.run import config as config_lib

        for name in names:
            config_lib.check_key(name)


def _read_config(chosen: str | None, workdir):
    """Return the resolved configuration: of --config, or without it of the run in the workdir, or the embedded one.

    Whoever evaluates a run, uses it or continues it need not repeat its config; single keys may be given, too.
    """
    from pyrseg_jax.run import config as config_lib
    from pyrseg_jax.run import keys

    if chosen is None and _WORKDIR.value is not None and workdir.has_run():
        values = keys.to_config_dict(workdir.read_config())
        values.update_from_flattened_dict(config_flags.get_override_values(flags.FLAGS["config"]))
        config = config_lib.resolve(values)
    else:
        config = config_lib.resolve(_CONFIG.value)
    if _MODE.value in ("evaluate", "predict", "export"):
        workdir.read_config()  # says what to do if there is no run
        workdir.check_config(config)
    return config


def _default_workdir(chosen: str) -> str:
    file, _, variant = chosen.partition(":")
    name = "-".join([Path(file).stem, *filter(None, variant.split(","))])
    return str(Path("runs") / name)


def _configure_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    # Libraries that narrate every file they touch.
    for library in ("absl", "orbax", "jax", "tensorflow_datasets", "etils", "grain"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if not _DEBUG.value:  # Orbax reports here, with stacks, what reaches the user as one line
        for library in ("absl", "asyncio"):
            logging.getLogger(library).setLevel(logging.CRITICAL)


def _usage() -> str:
    flag_lines = [
        f"  --{name:<13} {flags.FLAGS[name].help}"
        for name in ("config", "workdir", "step", "input", "output", "sizes", "topology", *DISTRIBUTED_FLAGS, "debug")
    ]
    return "\n".join(
        [
            "python -m pyrseg_jax.main --config=configs/NAME.py [--mode=MODE] [--workdir=DIR] [--config.KEY=VALUE …]",
            "",
            "modes:",
            *(f"  {name:<11} {text}" for name, text in MODES.items()),
            "",
            "flags:",
            *flag_lines,
            "  --config.KEY=VALUE  changes one key; pyrseg_jax/run/config.py lists all of them with their meaning",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
