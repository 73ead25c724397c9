"""The command line: `pyrseg MODE --config=NAME …`, and the same as `python -m pyrseg_jax.main --config=FILE --mode=MODE …`."""

import contextlib
import gc
import logging
import sys

# Worker processes import this file again, so modules that are slow to import or start a device are imported where they are used.
from pyrseg_jax.commands import MODES, Mode
from pyrseg_jax.distributed import host_memory
from pyrseg_jax.errors import UserError
from pyrseg_jax.training.preemption import STATUS, Preempted, Preemption, say_preempted

log = logging.getLogger(__name__)
INTERRUPTED = 130  # what a shell reports after Ctrl-C: 128 + SIGINT


def main(argv: list[str]) -> int:
    """Run one mode.

    Args:
      argv: the name of the program and its arguments.

    Returns:
      The exit status: 0; 1 after an error that the user can fix, printed as one line; 75 after SIGTERM; 130 after Ctrl-C.
    """
    is_debugging = "--debug" in argv
    try:
        from pyrseg_jax.run import command_line

        arguments = command_line.parse(argv[1:], MODES)
        if arguments.asks_for_version:
            print(_version())
            return 0
        mode = MODES[arguments.mode]
        command_line.check_flags(arguments, mode.takes, mode.needs)
        _configure_logging(is_debugging)
        host_memory.keep_memory_between_steps()
        # From here on SIGTERM is handled, even while JAX is being imported.
        with Preemption() if "preemption" in mode.takes else contextlib.nullcontext() as preemption:
            given = {**arguments.flags, "topic": arguments.topic, "preemption": preemption}
            if mode.has_config:
                _prepare_process(arguments, mode, preemption)
                config, given["workdir"] = read_config(arguments, mode)
                command = mode.load()
                gc.freeze()  # collecting garbage among all imported objects takes a fifth of the tracing time
                command(config, *(given[name] for name in mode.takes))
            else:
                mode.load()(*(given[name] for name in mode.takes))
    except Preempted:
        say_preempted()
        return STATUS
    except UserError as error:
        if is_debugging:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder without permission, a file that vanished
        if is_debugging:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command resumes from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    return 0


def entry() -> int:
    """Run the command line of this process; the installed script `pyrseg` calls this."""
    return main(sys.argv)


def _prepare_process(arguments, mode: Mode, preemption: Preemption | None) -> None:
    """Choose devices, join the other processes of the run, and configure the libraries."""
    from absl import flags

    if arguments.flags["topology"] is not None:
        from pyrseg_jax.ahead_of_time import topologies

        topologies.need_no_devices()
    flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, which this program does not define
    from pyrseg_jax.distributed import processes
    from pyrseg_jax.run import experiment

    joining = ("distributed", "coordinator", "num_processes", "process_id")
    processes.start(*(arguments.flags[name] for name in joining))
    if preemption is not None and processes.is_joined():
        preemption.hand_over(processes.agree_on_preemption)
    if processes.count() > 1 and not mode.is_parallel:
        raise UserError(
            f"the mode {arguments.mode} runs in one process, but {processes.count()} were started: start it once, with "
            "--distributed=off"
        )
    if not processes.is_first():
        logging.getLogger().setLevel(logging.WARNING)  # only the first process logs progress
    experiment.use_compilation_cache()


def read_config(arguments, mode: Mode):
    """Return the resolved configuration and the workdir.

    The configuration comes from --config; without this flag, from the run in --workdir; without either, it is the packaged
    default. So a user who evaluates, uses or resumes a run need not repeat its config. The values of single keys are then
    applied to it.
    """
    from pyrseg_jax.run import config as config_lib
    from pyrseg_jax.run import config_file
    from pyrseg_jax.run.workdir import Workdir

    chosen, folder = arguments.flags["config"], arguments.flags["workdir"]
    name = config_file.find(chosen or config_file.DEFAULT)
    workdir = Workdir(folder or f"runs/{config_file.default_run_name(name)}")
    reads_workdir = chosen is None and folder is not None and workdir.has_run()
    if reads_workdir:
        config = config_lib.changed(workdir.read_config(), arguments.changes)
    else:
        config = config_lib.resolve(config_file.load(name), arguments.changes)
    if mode.reads_run:
        workdir.read_config()  # says what to do if there is no run
        workdir.check_config(config)
    if chosen is None and not reads_workdir:
        log.info("no --config and no run in --workdir: using the packaged config %s", config_file.DEFAULT)
    return config, workdir


def _configure_logging(is_debugging: bool) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    # These libraries log every file that they read or write.
    for library in ("absl", "orbax", "jax", "tensorflow_datasets", "etils", "grain"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if not is_debugging:  # Orbax logs stack traces here for errors that the user sees as one line
        for library in ("absl", "asyncio"):
            logging.getLogger(library).setLevel(logging.CRITICAL)


def _version() -> str:
    import pyrseg_jax

    return f"pyrseg {getattr(pyrseg_jax, '__version__', 'of a checkout')}"


if __name__ == "__main__":
    sys.exit(entry())
