"""The command line: `pyrseg MODE --config=NAME …`, and the same as `python -m pyrseg_jax.main --config=FILE --mode=MODE …`."""

# Every other import stands where it is used. Worker processes import this file again, and a Ctrl-C in the first moments must meet
# the code that handles it, not a traceback.
import sys


def entry() -> int:
    """Run the command line of this process; the installed script `pyrseg` calls this."""
    try:
        from pyrseg_jax.run import signals, terminal

        terminal.prepare_streams()
        with signals.handling():
            status = terminal.final_status(main(sys.argv))
            signals.end_if_signaled(status)
            return status
    except KeyboardInterrupt:  # before the signals were handled
        print("interrupted: nothing was started, so nothing has changed", file=sys.stderr)
        return 130


def main(argv: list[str]) -> int:
    """Run one mode.

    Args:
      argv: the name of the program and its arguments.

    Returns:
      The exit status: 0; 1 after any error, printed as one line; 75 after a preemption; 130 after Ctrl-C; 128 + N after another
      signal N.

    Raises:
      Exception: any error, with --debug.
    """
    mode = workdir = None
    has_started = is_debugging = False
    try:
        import contextlib
        import gc

        from pyrseg_jax.commands import MODES
        from pyrseg_jax.run import command_line, signals

        is_debugging = command_line.asks_for_debug(argv[1:])
        arguments = command_line.parse(argv[1:], MODES)
        if arguments.asks_for_version:
            print(_version())
            return 0
        mode = MODES[arguments.mode]
        command_line.check_flags(arguments, mode.flags, mode.needs, mode.without_config)
        preemption = _prepare_process(is_debugging, mode)
        # From here on SIGTERM is handled, even while JAX is being imported.
        with preemption or contextlib.nullcontext():
            given = {**arguments.flags, "topic": arguments.topic, "words": arguments.words}
            given["preemption"] = preemption
            if mode.has_config:
                if mode.uses_devices:
                    given["share"] = _find_processes(arguments, mode, preemption)
                given["changes"] = arguments.changes
                config, given["workdir"] = read_config(arguments, mode)
                workdir = given["workdir"]
                if preemption is not None and workdir is not None:
                    preemption.has_checkpoint = workdir.has_checkpoint
                command = mode.load()
                gc.freeze()  # collecting garbage among all imported objects takes a fifth of the tracing time
                has_started = True
                signals.begin_work(preemption)
                command(config, *(given[name] for name in mode.takes))
            else:
                command = mode.load()
                has_started = True
                signals.begin_work(preemption)
                command(*(given[name] for name in mode.takes))
    except BaseException as error:
        if isinstance(error, SystemExit) or (is_debugging and isinstance(error, Exception)):
            raise
        from pyrseg_jax.run import ending

        return ending.end(error, mode, workdir, has_started)
    return 0


def _prepare_process(is_debugging: bool, mode):
    """Configure the log, memory and caches of this process; return the handler of preemptions if the mode has one."""
    from pyrseg_jax.distributed import host_memory
    from pyrseg_jax.run import terminal
    from pyrseg_jax.storage.caches import prepare_library_caches
    from pyrseg_jax.training.preemption import Phase, Preemption

    terminal.configure_logging(is_debugging)
    if mode.returns_memory:
        host_memory.return_memory()
    else:
        host_memory.keep_memory_between_steps()
    prepare_library_caches()
    preemption = Preemption() if "preemption" in mode.takes else None
    if preemption is not None:
        preemption.phase = Phase.IMPORTING
    return preemption


def _find_processes(arguments, mode, preemption) -> tuple[int, int]:
    """Join the other processes of the run, if the mode does; return which of them this is, and how many there are."""
    if not mode.is_divided:
        _join_processes(arguments, mode, preemption)
        return 0, 1
    from pyrseg_jax.distributed import processes
    from pyrseg_jax.run.compilation_cache import use_compilation_cache

    use_compilation_cache()
    return processes.share(*(arguments.flags[name] for name in ("distributed", "num_processes", "process_id")))


def _join_processes(arguments, mode, preemption) -> None:
    """Choose devices, join the other processes of the run, and configure the libraries."""
    import logging

    from absl import flags

    from pyrseg_jax.errors import UserError

    if arguments.flags["topology"] is not None:
        from pyrseg_jax.ahead_of_time import topologies

        topologies.need_no_devices()
    flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, which this program does not define
    from pyrseg_jax.distributed import processes
    from pyrseg_jax.run.compilation_cache import use_compilation_cache

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
    use_compilation_cache()


def read_config(arguments, mode):
    """Return the resolved configuration and the workdir; None for both if a flag names a model by itself.

    The configuration comes from --config; without this flag, from the run in --workdir; without either, it is the packaged
    default. So a user who evaluates, uses or resumes a run need not repeat its config. The values of single keys are then
    applied to it.

    Raises:
      UserError: if the config or the run cannot be read, or the run has another configuration.
    """
    import logging
    import os

    from pyrseg_jax.errors import UserError

    if mode.replaces_config and arguments.flags[mode.replaces_config] is not None:
        flag = mode.replaces_config
        given = [name for name in ("config", "workdir", "step") if arguments.flags[name] is not None]
        given += [f"config.{name}" for name in arguments.changes]
        if given:
            raise UserError(f"--{given[0]} and --{flag} exclude each other: --{flag} names a model by itself")
        return None, None
    from pyrseg_jax.run import config as config_lib
    from pyrseg_jax.run import config_file
    from pyrseg_jax.run.workdir import Workdir

    # An empty value, as an unset variable of a shell gives it, is the same as no flag.
    chosen, folder = arguments.flags["config"] or None, arguments.flags["workdir"] or None
    if folder is not None and os.path.expanduser(folder).startswith("~"):  # it would become a folder of this name
        raise UserError(f"--workdir={folder}: the home folder is not known: set HOME, or write the whole path")
    model = arguments.flags["model"] if mode.places_model else None
    if model is not None:
        from pyrseg_jax.run.model_folder import place_model
        from pyrseg_jax.run.packaged_models import run_name_of

        if chosen is not None:
            raise UserError("--config and --model exclude each other: --model names a model by itself")
        folder = folder or f"runs/{run_name_of(model)}"
        place_model(model, Workdir(folder))
    if folder is not None and mode.finds_model:
        from pyrseg_jax.run.packaged_models import find_model

        folder = str(find_model(folder))
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
        logging.getLogger(__name__).info(
            "no --config and no run in --workdir: using the packaged config %s", config_file.DEFAULT
        )
    return config, workdir


def _version() -> str:
    import pyrseg_jax

    return f"pyrseg {getattr(pyrseg_jax, '__version__', 'of a checkout')}"


if __name__ == "__main__":
    sys.exit(entry())
