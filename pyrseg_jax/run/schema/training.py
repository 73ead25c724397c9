"""The keys `training.*`."""

from typing import Annotated

from pyrseg_jax.run import choices
from pyrseg_jax.run.declare import OneOf, duration, group, key
from pyrseg_jax.run.durations import Duration


@group
class Training:
    """The training recipe."""

    batch_size: int = key(16, "Global batch size: images per step over all devices.", unit="images", at_least=1)
    steps: Annotated[int, Duration(at_least=1)] = duration(150_000, "Length of the training.")
    learning_rate: float = key(0.02, "Peak learning rate of the backbone.", at_least=0)
    head_multiplier: float = key(1.0, "Learning-rate multiplier for everything except the backbone.", at_least=0)
    warmup_steps: Annotated[int, Duration(at_least=0)] = duration(
        0, "Length of the linear warm-up at the start of training."
    )
    poly_power: float = key(0.9, "Exponent p of the schedule `poly`: learning_rate · (1 − step / steps)^p.", at_least=0)
    momentum: float = key(0.9, "Momentum of `sgd`.", at_least=0)
    weight_decay: float = key(
        1e-4, "Weight decay: for `sgd` added to the gradient (L2), otherwise decoupled from it.", at_least=0
    )
    procedure: Annotated[str, OneOf(choices.procedures)] = key(
        "tp",
        "Training procedure: which cells of a pyramid are don't care because a coarser level decides them (Sec. 3.1).",
    )
    threshold: float = key(
        0.5,
        "Unity probability τ at or above which training counts a cell as a predicted unit-cell.",
        at_least=0,
        at_most=1,
    )
    void: Annotated[str, OneOf(choices.void_rules)] = key(
        "agree", "Treatment of a cell with void pixels whose labeled pixels share one class."
    )
    supervision: Annotated[str, OneOf(choices.supervisions)] = key(
        "finest", "Without a pyramid: compute the loss against labels at the finest stride, or at full size."
    )
    auxiliary_weight: float = key(
        0.4, "Weight of the auxiliary classifier's loss, for context modules that have one.", at_least=0
    )
    ohem_threshold: float | None = key(
        None,
        "Learn only from pixels whose true class has less than this probability. None uses all pixels. In a pyramid these are the "
        "cells of each level of the semantic pyramid that are not don't care.",
        at_least=0,
        at_most=1,
    )
    ohem_min_kept: int = key(
        0,
        "Number of pixels in a batch that are always used, however well they are predicted. In a pyramid these are cells of the "
        "finest level; each coarser level keeps a quarter of the next.",
        unit="pixels",
        at_least=0,
    )
    accumulate: int = key(
        1,
        "Micro-batches that each batch is split into, to save memory; they are computed one after another. Batch "
        "statistics are those of a micro-batch.",
        unit="micro-batches",
        at_least=1,
    )
    log_every: Annotated[int, Duration(at_least=1)] = duration(
        50, "Interval between lines of metrics.jsonl.", resumable=True
    )
    evaluate_every: Annotated[int, Duration(at_least=1)] = duration(
        10_000, "Interval between evaluations.", resumable=True
    )
    save_every: Annotated[int, Duration(at_least=1)] = duration(1_000, "Interval between checkpoints.", resumable=True)
    stall_s: float = key(
        600.0,
        "Log the stack of every thread when a step takes longer than this. 0 disables these reports.",
        unit="s",
        at_least=0,
        resumable=True,
    )
    profile: str | None = key(
        None,
        "First and last step to record with the profiler, for example `10:15`. None disables the profiler.",
        resumable=True,
    )
    trackers: str | None = key(
        None,
        "Comma-separated experiment trackers that get the record of the run, too: `mlflow`, `wandb`, `trackio`. Each needs its "
        "library. A name with a dot is that of a module of your own.",
        resumable=True,
    )
    best_metric: Annotated[str, OneOf(choices.best_metrics)] = key(
        "miou", "Score of an evaluation by which the best checkpoint is chosen and kept, and `patience` counts."
    )
    patience: int | None = key(
        None,
        "Evaluations without an improvement of `best_metric` after which training stops. None trains to the last step.",
        unit="evaluations",
        at_least=1,
        resumable=True,
    )
    min_delta: float = key(
        0.0,
        "Difference from the best score so far that counts as an improvement, for `patience`.",
        at_least=0,
        resumable=True,
    )
    keep_last: int = key(
        2, "Newest checkpoints to keep, in addition to the best one.", unit="checkpoints", at_least=1, resumable=True
    )
    stop_after: Annotated[int | None, Duration(at_least=1, can_be_none=True)] = duration(
        None, "Stop at this step without shortening the schedules. None trains to the end.", resumable=True
    )
