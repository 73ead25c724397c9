"""`pyrseg tune`: the space of a search, its resume after any interruption, pruning, failures, and what it leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.command_line import ROOT, TINY, call, error_of
from support.data_sets import write_folder
from support.searches import (
    EVERY,
    HOLDOUT,
    NAME,
    NUM_TRIALS,
    STEPS,
    Fails,
    FakeTraining,
    Interrupted,
    Killed,
    record,
    resolved,
    search,
    value_in,
    without_times,
)
from support.searches import SPACE as SEARCHED

from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run.keys import keys_of, parse_text, to_text
from pyrseg_jax.storage import lock
from pyrseg_jax.tuning.process import TrainingProcess
from pyrseg_jax.tuning.results import write_figure
from pyrseg_jax.tuning.space import Choices, Range, changes_of, parameters_of, parse_space
from pyrseg_jax.tuning.store import State, Store, Trial
from pyrseg_jax.tuning.suggest import JOURNAL, STUDY, Suggester
from pyrseg_jax.tuning.training import reason_of_failure

RATE = "training.learning_rate"


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A search that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    search(folder)
    return folder


# --- the space


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("training.learning_rate=log:0.01:0.3", RATE, Range(0.01, 0.3, True)),
        ("config.training.learning_rate=0:1", RATE, Range(0.0, 1.0)),
        ("training.batch_size=log:2:16", "training.batch_size", Range(2, 16, True)),
        ("training.steps=10:20", "training.steps", Range(10, 20)),
        ("optimizer.name=sgd | adamw", "optimizer.name", Choices(("sgd", "adamw"))),
        ("optimizer.ema=None|0.99", "optimizer.ema", Choices(("None", "0.99"))),
        ("data.is_flipped=true|false", "data.is_flipped", Choices(("true", "false"))),
        ("model.strides=32,16,8,4|16,8,4", "model.strides", Choices(("32,16,8,4", "16,8,4"))),
        ("training.steps=1 epochs|2 epochs", "training.steps", Choices(("1 epochs", "2 epochs"))),
    ],
)
def test_values_are_written_in_three_forms(text, key, values):
    assert parse_space([text]) == {key: values}
    assert parse_space([f"{key}={values.text}"]) == {key: values}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["training.learning_rate"], r"--vary=training\.learning_rate: expected KEY=LOW:HIGH, KEY=log:LOW:HIGH or KEY=A\|B\|C"),
        (["training.learning_rate=0.1"], "expected KEY=LOW:HIGH"),
        (["training.learning_rate=0:1:2"], "expected KEY=LOW:HIGH"),
        (["training.learning_rate=a:b"], "expected two numbers LOW:HIGH"),
        (["training.learning_rate=nan:1"], "LOW below HIGH"),
        (["training.learning_rate=0.3:0.3"], "LOW below HIGH"),
        (["training.learning_rate=log:0:1"], "LOW above 0"),
        (["training.batch_size=1.5:3"], "expected two integers LOW:HIGH"),
        (["optimizer.name=0:1"], r"optimizer\.name takes one of .*: expected KEY=A\|B\|C"),
        (["data.is_flipped=0:1"], "takes true or false, and no range"),
        (["training.batch_size=2|2"], "expected different values"),
        (["training.batch_size=2|"], "expected different values"),
        (["training.learning_rat=1:2"], r"config\.training\.learning_rat is not .*did you mean config\.training\.learning_rate"),
        (["training=1:2"], "config.training is not a configuration key"),
        (["seed=1:2", "seed=2:3"], "seed is varied twice"),
    ],
)  # fmt: skip
def test_other_forms_are_refused(texts, message):
    with pytest.raises(UserError, match=message):
        parse_space(texts)


@pytest.mark.parametrize(
    ("vary", "changes", "message"),
    [
        (
            "training.learning_rate=-1:1",
            {},
            r"--vary=training.*-1\.0:1\.0: config\.training\.learning_rate=-1\.0: expected at",
        ),
        ("optimizer.name=sgd|adam", {}, "config.optimizer.name='adam': expected one of"),
        ("data.crop_px=100:256", {}, r"config\.data\.crop_px=100 is not divisible"),
        ("data.holdout=2:9", {}, "this key changes what is scored, so that scores of trials could not be compared"),
        ("evaluation.split=holdout|validation", {}, "changes what is scored"),
        (
            "loss.dice=0:1",
            {"training.best_metric": "loss"},
            "changes the validation loss.*another config.training.best_metric",
        ),
        ("loss.dice=0:1", {"data.holdout": 0}, "config.evaluation.split='holdout' is empty: set config.data.holdout=N"),
    ],
)
def test_each_bound_and_choice_is_tried_before_the_first_trial(tmp_path, vary, changes, message):
    with pytest.raises(UserError, match=message):
        search(tmp_path / "search", [vary], changes=changes)
    assert not (tmp_path / "search").exists()


def test_every_default_can_be_written_on_a_command_line():
    for name, about in keys_of(config_lib.Config).items():
        assert parse_text(about, to_text(about.default)) == about.default, name


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_their_bits_on_a_command_line(value):
    assert parse_text(keys_of(config_lib.Config)[RATE], to_text(value)) == value


SPACE = parse_space(
    ["seed=log:1:100", "training.learning_rate=log:0.01:0.3", "optimizer.ema=None|0.9", "training.batch_size=2:4"]
)


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(list(State)[1:]), max_size=9))
def test_suggestions_lie_in_the_space_and_have_the_type_of_their_key(seed, states):
    suggester = Suggester(SPACE, "miou", seed)
    trials = []
    for number, state in enumerate([*states, State.COMPLETE]):
        found = suggester.suggest(trials)
        assert found == Suggester(SPACE, "miou", seed).suggest(trials)  # of the same number and history
        assert list(found) == list(SPACE)
        assert type(found["seed"]) is type(found["training.batch_size"]) is int and type(found[RATE]) is float
        assert 1 <= found["seed"] <= 100 and 0.01 <= found[RATE] <= 0.3 and 2 <= found["training.batch_size"] <= 4
        assert changes_of(found)["optimizer.ema"] in (None, 0.9)
        score = found[RATE] if state is State.COMPLETE else None
        scores = {} if state is State.FAILED else {5: found[RATE]}
        trials.append(Trial(number=number, state=state, parameters=found, scores=scores, score=score, step=5))


def test_the_values_of_a_config_are_found_in_the_space():
    config = config_lib.changed(config_lib.Config(), {"training.learning_rate": 0.01, "training.batch_size": 4})
    space = {name: SPACE[name] for name in (RATE, "optimizer.ema", "training.batch_size")}
    assert parameters_of(config, space) == {RATE: 0.01, "optimizer.ema": "None", "training.batch_size": 4}
    assert parameters_of(config_lib.changed(config, {"training.batch_size": 5}), space) is None
    assert parameters_of(config_lib.changed(config, {"optimizer.ema": 0.5}), space) is None


# --- the search


def test_the_best_trial_is_found_and_told(straight, capsys):
    best = search(straight)  # nothing is left to train
    assert best.score == max(trial["score"] for trial in record(straight)["trials"] if trial["state"] == "complete")
    assert record(straight)["best"] == best.number
    folder = straight / best.name
    said = capsys.readouterr().out
    assert f"best: trial {best.number}, miou {best.score:.4f} at step {STEPS}, in {folder}" in said
    flag = f"--config.training.learning_rate={best.parameters[RATE]!r}"
    assert f"  pyrseg train --config={NAME} --config.training.steps={STEPS} " in said and flag in said
    table = (straight / "trials.md").read_text()
    assert f"**{best.score:.4f}**" in table and flag in table and f"--workdir={folder}" in table
    assert len(re.findall(r"^\| \d+ \|", table, re.MULTILINE)) == NUM_TRIALS


def test_the_first_trial_takes_the_values_of_the_config(tmp_path):
    changes = {"training.weight_decay": 0.005, "training.warmup_steps": 9}
    expected = {RATE: resolved({})[0].training.learning_rate} | changes
    search(tmp_path / "a", trials=1, changes=changes)
    assert record(tmp_path / "a")["trials"][0]["parameters"] == expected
    tmp_path = tmp_path / "b"
    search(tmp_path, trials=1, changes={RATE: 2.0})  # outside of the space
    assert record(tmp_path)["trials"][0]["parameters"][RATE] <= 1


def test_each_trial_is_a_run_with_its_values_in_a_folder_of_its_own(straight):
    for trial in record(straight)["trials"]:
        for key, value in trial["parameters"].items():
            assert value_in(straight, trial["number"], key) == value
        assert (straight / f"trial-{trial['number']:03d}.log").is_file()


def test_the_search_learns_from_its_trials(tmp_path):
    best = search(tmp_path, ["training.learning_rate=log:0.0001:10"], trials=18, changes={RATE: 1e-3})
    assert 0.02 < best.parameters[RATE] < 0.5
    rates = [trial["parameters"][RATE] for trial in record(tmp_path)["trials"]]
    assert sum(0.01 < rate < 1 for rate in rates[10:]) > 4


def test_the_figure_has_a_panel_for_each_key(straight, tmp_path):
    shutil.copy(straight / "trials.json", tmp_path)
    config, _ = resolved({})
    space = parse_space(SEARCHED)
    store = Store(tmp_path, config, space)
    failed = Trial(number=NUM_TRIALS, state=State.FAILED, parameters=store.trials[0].parameters)
    pruned = failed.model_copy(update={"number": NUM_TRIALS + 1, "state": State.PRUNED, "scores": {10: 0.2}})
    store.trials += [failed, pruned]
    write_figure(store, space)
    with Image.open(tmp_path / "trials.png") as picture:
        width, height = picture.size
    assert width > 1500 > height  # two rows of up to three panels


def test_a_search_without_scores_has_no_figure(tmp_path):
    config, _ = resolved({})
    write_figure(Store(tmp_path, config, parse_space(SEARCHED)), parse_space(SEARCHED))
    assert not list(tmp_path.iterdir())


def test_optuna_opens_the_journal(straight):
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    storage = JournalStorage(JournalFileBackend(str(straight / JOURNAL)))
    study = optuna.load_study(study_name=STUDY, storage=storage)
    stored = record(straight)["trials"]
    assert [trial.params for trial in study.trials] == [trial["parameters"] for trial in stored]
    assert study.best_trial.number == record(straight)["best"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Killed])
@pytest.mark.parametrize(("trial", "waits"), [(0, 0), (3, 1), (-1, 0), (-1, 4)])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(straight, tmp_path, error, trial, waits):
    if trial < 0:  # a trial that is suggested from others
        complete = [t["number"] for t in record(straight)["trials"] if t["state"] == "complete"]
        trial = complete[-1]
        assert trial > 5
    with pytest.raises(error):
        search(tmp_path, start=Interrupted(trial, waits, error))
    assert record(tmp_path)["trials"][-1]["state"] == "running"
    search(tmp_path)
    assert without_times(tmp_path) == without_times(straight)


def test_an_unfinished_trial_continues_from_its_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        search(tmp_path, trials=2, start=Interrupted(1, 2, KeyboardInterrupt))
    assert caught.value.__notes__ == ["trial 1 has saved its state"]
    search(tmp_path, trials=2)
    assert (tmp_path / "trial-001.log").read_text().splitlines() == [
        "12:00:00 training from step 0",
        f"12:00:00 training from step {2 * EVERY}",
    ]


def test_more_trials_continue_a_search_that_was_finished(straight, tmp_path):
    search(tmp_path, trials=4)
    search(tmp_path, trials=3)
    assert len(record(tmp_path)["trials"]) == 4
    search(tmp_path)
    assert without_times(tmp_path) == without_times(straight)


@pytest.mark.parametrize(
    ("vary", "changes", "message"),
    [
        (
            ["training.learning_rate=log:0.001:2"],
            {},
            r"--vary=training\.learning_rate: log:0\.001:1\.0 → log:0\.001:2\.0",
        ),
        (
            ["seed=1:2"],
            {},
            r"--vary=seed: not varied → 1:2; --vary=training\.learning_rate: log:0\.001:1\.0 → not varied",
        ),
        (["training.learning_rate=log:0.001:1"], {"seed": 3}, "config.seed: 0 → 3"),
        (["training.learning_rate=log:0.001:1"], {"training.patience": 3}, "config.training.patience: None → 3"),
    ],
)
def test_another_space_or_config_is_refused(tmp_path, vary, changes, message):
    search(tmp_path, ["training.learning_rate=log:0.001:1"], trials=1)
    before = record(tmp_path)
    with pytest.raises(UserError, match=f"holds another search: {message}.*; use another --output"):
        search(tmp_path, vary, trials=2, changes=changes)
    assert record(tmp_path) == before
    search(tmp_path, ["training.learning_rate=log:1e-3:1"], trials=2, changes={"data.workers": 1})


# --- trials that fail


def test_a_failed_trial_counts_and_the_search_goes_on(tmp_path, caplog):
    def start(arguments, log):
        return (Fails if log.stem == "trial-001" else FakeTraining)(arguments, log)

    with caplog.at_level("INFO"):
        search(tmp_path, trials=3, start=start)
    reason = "step 21: the loss is nan; training stops here"
    assert f"trial 1 failed: {reason}" in caplog.messages
    trials = record(tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "failed", "complete"]
    assert (trials[1]["reason"], trials[1]["score"]) == (reason, None)


def test_values_that_do_not_fit_together_fail_without_a_training(tmp_path):
    vary = ["optimizer.name=sgd|adamw", "optimizer.beta1=0.8:0.95"]
    best = search(tmp_path, vary, trials=8, changes={"optimizer.name": "adamw"})
    assert best.parameters["optimizer.name"] == "adamw"
    failed = [trial for trial in record(tmp_path)["trials"] if trial["parameters"]["optimizer.name"] == "sgd"]
    assert failed and all("config.optimizer.beta1=" in trial["reason"] for trial in failed)
    assert not any((tmp_path / f"trial-{trial['number']:03d}").exists() for trial in failed)


def test_a_search_whose_first_trials_all_fail_alike_ends(tmp_path):
    with pytest.raises(UserError, match="3 trials failed one after another in the same way: step 21: the loss is nan"):
        search(tmp_path, trials=9, start=Fails)
    assert len(record(tmp_path)["trials"]) == 3
    search(tmp_path, trials=5)
    assert [trial["state"] for trial in record(tmp_path)["trials"]] == ["failed"] * 3 + ["complete"] * 2


def test_a_search_without_any_score_says_why(tmp_path):
    with pytest.raises(UserError, match="no trial was complete in the end, .*none of its evaluations gave a miou"):
        search(tmp_path, trials=2, start=lambda arguments, log: FakeTraining(arguments, log, lambda *_: None))


def test_a_training_that_a_signal_ended_is_continued_and_has_not_failed(tmp_path):
    class Preempted(FakeTraining):
        def wait(self, seconds):
            return 75 if self.step else super().wait(seconds)

    with pytest.raises(UserError, match="trial-000: a signal ended this training, and its state is saved"):
        search(tmp_path, trials=2, start=Preempted)
    search(tmp_path, trials=2)
    assert [trial["state"] for trial in record(tmp_path)["trials"]] == ["complete", "complete"]


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (1, "12:00 a\nerror: b is c\n\n", "b is c"),
        (3, "", "its status was 3, and it logged nothing"),
        (
            -9,
            "12:00 step 7\n",
            "SIGKILL ended it, most likely because memory ran out; the last line of its log: 12:00 step 7",
        ),
        (1, "error: \x1b[31m" + "x" * 400, r"\x1b[31m" + "x" * 291 + "…"),
    ],
)
def test_the_reason_of_a_failure_is_the_last_line_of_its_log(tmp_path, status, text, reason):
    (tmp_path / "log").write_text(text)
    assert reason_of_failure(status, tmp_path / "log") == reason


# --- pruning


def scores_by_number(*rows):
    """Return a way to start trainings whose scores are given: one row per trial, one number per evaluation."""

    def start(arguments, log):
        row = rows[int(log.stem.removeprefix("trial-"))]
        training = FakeTraining(arguments, log, lambda config, step: row[step // EVERY - 1])
        started.append(training)
        return training

    started: list[FakeTraining] = []
    start.started = started
    return start


FIVE = [(0.1, 0.2, 0.3, 0.4 + i / 100) for i in range(5)]


def test_a_trial_below_the_median_is_stopped(tmp_path):
    start = scores_by_number(*FIVE, (0.1, 0.19, 0.9, 0.9), (0.3, 0.3, 0.3, 0.3), (0.1, 0.2, 0.3, 0.1))
    search(tmp_path, trials=8, start=start)
    trials = record(tmp_path)["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 5 + ["pruned"] + ["complete"] * 2
    assert trials[5]["scores"] == {"10": 0.1, "20": 0.19}
    assert trials[5]["reason"] == "worse than the median of the trials before it at step 20"
    assert [training.stopped for training in start.started] == [False] * 5 + [True, False, False]
    assert trials[7]["score"] == 0.3  # the last evaluation prunes nothing, and the best one counts


def test_pruning_can_be_switched_off(tmp_path):
    search(tmp_path, trials=6, start=scores_by_number(*FIVE, (0.1, 0.1, 0.1, 0.1)), is_pruning=False)
    assert record(tmp_path)["trials"][5]["state"] == "complete"


def test_less_loss_is_better(tmp_path):
    rows = [(4.0, 3.0, 2.0, 1.0 + i) for i in range(5)]
    start = scores_by_number(*rows, (4.0, 3.5, 0.0, 0.0), (4.0, 2.5, 1.9, 0.5))
    best = search(tmp_path, trials=7, start=start, changes={"training.best_metric": "loss"})
    assert (best.number, best.score, best.step) == (6, 0.5, STEPS)
    assert record(tmp_path)["trials"][5]["state"] == "pruned"
    assert "less is better" in (tmp_path / "trials.md").read_text()


def test_a_pruned_trial_is_judged_again_after_a_kill(tmp_path):
    start = scores_by_number(*FIVE, (0.0, 0.0, 0.0, 0.0))

    def killed(arguments, log):
        training = start(arguments, log)
        if log.stem == "trial-005":
            training.wait(1)
            raise Killed
        return training

    with pytest.raises(Killed):
        search(tmp_path, trials=6, start=killed)
    search(tmp_path, trials=6, start=lambda *_: pytest.fail("it is not started again"))
    assert record(tmp_path)["trials"][5]["state"] == "pruned"


# --- checkpoints and files


def test_only_the_best_trial_keeps_all_of_its_checkpoints(straight):
    best = record(straight)["best"]
    for trial in record(straight)["trials"]:
        found = sorted(
            int(p.name) for p in (straight / f"trial-{trial['number']:03d}/checkpoints").iterdir() if p.is_dir()
        )
        everything = list(range(EVERY, found[-1] + 1, EVERY))
        assert found == (everything if trial["number"] == best else everything[-1:])


def test_all_checkpoints_can_be_kept(tmp_path):
    search(tmp_path, trials=2, keeps_checkpoints=True)
    for number in range(2):
        assert len([p for p in (tmp_path / f"trial-00{number}/checkpoints").iterdir() if p.is_dir()]) == STEPS // EVERY


@settings(max_examples=8)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_the_best_checkpoint_is_never_removed(tmp_path_factory, scores):
    folder = tmp_path_factory.mktemp("search")
    rows = [(0.9 if score == 3 else 0.1, 0.2 + score / 10, 0.1, 0.1) for score in scores]
    best = search(folder, ["training.learning_rate=log:0.001:1"], trials=len(rows), start=scores_by_number(*rows))
    assert (folder / best.name / "checkpoints" / str(best.step)).is_dir()
    assert best.score == max(max(row) for row in rows)


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "trial-000").mkdir()
    with pytest.raises(UserError, match=r"holds trial-000, but no trials\.json: a search would replace files there"):
        search(tmp_path)


def test_two_searches_do_not_share_a_folder(tmp_path):
    with (
        lock.locked(tmp_path / "lock"),
        pytest.raises(UserError, match=r"is being used by process .* another --output"),
    ):
        search(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["trials"].pop(0), "expected the trials in order, and number 0 instead of 1"),
        (lambda found: found["trials"][0].update(state="running"), "expected that trial 0 has ended"),
        (lambda found: found["trials"][0].update(score=None), "expected a score and its step"),
        (lambda found: found["trials"][1]["parameters"].popitem(), "expected values of"),
        (lambda found: found.update(version=2), "version=2: expected 1"),
        (lambda found: found.update(more=1), "the key more is not known"),
    ],
)
def test_a_damaged_record_is_one_clear_line(straight, tmp_path, change, message):
    found = record(straight)
    change(found)
    (tmp_path / "trials.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match=rf"trials\.json: .*{message}.*restore the file"):
        search(tmp_path)


# --- the door


def test_the_split_that_is_tuned_on_should_be_held_out(tmp_path, caplog):
    search(tmp_path / "a", trials=1)
    assert "hint" not in caplog.text
    search(tmp_path / "b", trials=1, changes={"evaluation.split": "validation"})
    assert "on the split 'validation'" in caplog.text and "--config.data.holdout=N" in caplog.text
    caplog.clear()
    search(tmp_path / "c", trials=1, changes={"data.holdout": 0, "data.folds": 4})
    assert "hint" not in caplog.text


def test_a_missing_optuna_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    message = r"tune needs the package optuna, .*pip install 'pyrseg-jax\[tune\]'"
    with pytest.raises(UserError, match=message):
        search(tmp_path / "search")
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output=OUT"], r"tune needs --output=PATH and --vary=KEY=VALUES"),
        (["--output=OUT", "--vary", "seed=1:3", "--workdir=x"], "--workdir=x is not used by tune"),
        (["--output=gs://x/y", "--vary", "seed=1:3"], "expected a folder on a disk"),
        (["--output=OUT", "--vary", "seed=1:3", "--trials=0"], "--trials=0: expected an integer, at least 1"),
        (
            ["--output=OUT", "--vary", "seed=1:3", "--vary=sed=1:2"],
            r"--vary=sed=1:2: config\.sed is not a configuration key",
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, flags, message):
    done = call("tune", f"--config={NAME}", *(flag.replace("OUT", str(tmp_path / "out")) for flag in flags))
    assert re.search(message, error_of(done))
    assert not (tmp_path / "out").exists()


# --- the process of a training


def wait_for(text, path, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and (found := re.search(text, path.read_text())):
            return found
        time.sleep(0.02)
    raise AssertionError(f"{text!r} does not occur in {path}")


@pytest.mark.parametrize(("argument", "status"), [("0", 0), ("3", 3), ("kill", -signal.SIGKILL)])
def test_the_process_of_a_training_reports_its_end(tmp_path, argument, status):
    log = tmp_path / "log"
    log.write_text("earlier\n")
    training = TrainingProcess([argument, "two words"], log, "support.signaled_program")
    found = None
    while found is None:
        found = training.wait(0.1)
    assert found == status
    assert log.read_text() == f"earlier\narguments: {argument} two words\n"


def test_a_stopped_training_saves_its_state_and_ctrl_c_does_not_reach_it(tmp_path):
    training = TrainingProcess(["wait"], tmp_path / "log", "support.signaled_program")
    number = int(wait_for(r"ready (\d+)", tmp_path / "log")[1])
    os.kill(number, signal.SIGINT)
    assert training.wait(0.3) is None
    assert training.stop() == 75


def test_a_training_ends_with_its_search(tmp_path):
    program = (
        "import os, pathlib, sys, time; from pyrseg_jax.tuning.process import TrainingProcess\n"
        "if __name__ == '__main__':\n"
        "    TrainingProcess(['wait'], pathlib.Path(sys.argv[1]), 'support.signaled_program'); time.sleep(60)\n"
    )
    (tmp_path / "search.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen([sys.executable, str(tmp_path / "search.py"), str(tmp_path / "log")], env=environment)
    number = int(wait_for(r"ready (\d+)", tmp_path / "log")[1])
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while is_alive(number):
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- all of it


@pytest.mark.parametrize("num_trials", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_real_search(tmp_path, num_trials):
    """The program itself starts trainings; their scores are in the record, and the search leaves the devices to them."""
    data = write_folder(tmp_path / "data", {"training": 9, "validation": 1}, size=(60, 64))
    given = {
        "data.workers": 0,
        "evaluation.analysis": False,
        "evaluation.num_pictures": 0,
        "model.context": "none",  # so that each start traces and compiles less
        "model.strides": (8, 4),
        "training.stop_after": 3,
    } | HOLDOUT
    arguments = ["tune", f"--config={NAME}", *TINY, f"--config.data.root={data}", f"--output={tmp_path / 'search'}"]
    arguments += [f"--config.{key}={to_text(value)}" for key, value in given.items()]
    arguments += [
        f"--trials={num_trials}",
        "--vary",
        "training.learning_rate=log:0.001:0.1",
        "--vary=training.momentum=0.5|0.9",
    ]
    program = (
        "import sys; from pyrseg_jax import main; from jax._src import xla_bridge\n"
        "if __name__ == '__main__':\n"
        "    status = main.main(['pyrseg', *sys.argv[1:]]); print(xla_bridge.backends_are_initialized()); sys.exit(status)\n"
    )
    (tmp_path / "program.py").write_text(program)
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")  # as the runs of other tests
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "program.py"), *arguments]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + "".join(p.read_text() for p in (tmp_path / "search").glob("*.log"))
    assert done.stdout.splitlines()[-1] == "False"
    trials = record(tmp_path / "search")["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * num_trials
    for trial in trials:
        folder = tmp_path / "search" / f"trial-{trial['number']:03d}"
        result = json.loads((folder / "evaluation" / "holdout-3.json").read_text())
        assert trial["scores"] == {"3": result["miou"]} and result["images"] == HOLDOUT["data.holdout"]
        assert value_in(tmp_path / "search", trial["number"], RATE) == trial["parameters"][RATE]
        assert trial["seconds"] > 0
