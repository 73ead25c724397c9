"""Compilation ahead of time: what is read from a compiled program, and what the user is told."""

import importlib.util
import json
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from support.data_sets import write_folder
from support.runs import tiny_config

from pyrseg_jax.ahead_of_time import topologies
from pyrseg_jax.ahead_of_time.estimate import estimate_step, other_slices
from pyrseg_jax.ahead_of_time.hardware import GPUS, TPUS, Accelerator
from pyrseg_jax.ahead_of_time.hlo_text import Cost, Traffic, cost_of
from pyrseg_jax.ahead_of_time.report import format_report
from pyrseg_jax.ahead_of_time.topologies import Target, find_target
from pyrseg_jax.commands import compile
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import keys
from pyrseg_jax.run.workdir import Workdir


def is_installed(*plugins: str) -> bool:
    """Tell whether one of these plugins of JAX is installed."""
    return importlib.util.find_spec("jax_plugins") is not None and any(map(importlib.util.find_spec, plugins))


# A program as XLA prints it: a loop with a trip count of four, a loop of seven rounds as for TPUs (only its condition tells how
# many), asynchronous pairs, and a collective inside a called computation.
PROGRAM = """HloModule jit_step, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body.1 (arg: (s32[], bf16[16,4])) -> (s32[], bf16[16,4]) {
  %arg = (s32[], bf16[16,4]{1,0}) parameter(0)
  %x = bf16[16,4]{1,0:T(8,128)(2,1)} get-tuple-element(%arg), index=1
  %ar = bf16[16,4]{1,0:T(8,128)(2,1)} all-reduce(%x), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  ROOT %t = (s32[], bf16[16,4]{1,0}) tuple(%i, %ar)
}

%condition.1 (arg.2: (s32[], bf16[16,4])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%body.2 (arg.3: (s32[], f32[3])) -> (s32[], f32[3]) {
  %ar.2 = f32[3]{0} all-reduce(%x.2), to_apply=%add
  %f.2 = f32[3]{0} fusion(%ar.2), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"100"}}
  ROOT %t.2 = (s32[], f32[3]{0}) tuple(%i.2, %ar.2)
}

%condition.2 (arg.4: (s32[], f32[3])) -> pred[] {
  %seven = s32[]{:T(128)} constant(7)
  %i.3 = s32[]{:T(128)} get-tuple-element(%arg.4), index=0
  ROOT %lt.2 = pred[]{:T(512)} compare(%i.3, %seven), direction=LT, metadata={op_name="while/cond/lt"}
}

%wrapped (p: f32[4]) -> f32[8] {
  ROOT %g = f32[8]{0} all-gather(%p), dimensions={0}
}

ENTRY %main.9 (p0: f32[8]) -> f32[8] {
  %p0 = f32[8]{0} parameter(0)
  %w = (s32[], bf16[16,4]{1,0}) while(%init), condition=%condition.1, body=%body.1, backend_config={"known_trip_count":{"n":"4"}}
  %w.2 = (s32[], f32[3]{0}) while(%w), condition=%condition.2, body=%body.2
  %start = (f32[2]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(%y), source_target_pairs={{0,1}}
  %done = f32[6]{0} collective-permute-done(%start)
  %ags = (f32[2,3]{1,0}, f32[4,3]{1,0}) all-gather-start(%z), dimensions={0}
  %two = (f32[10]{0}, f32[20]{0}) all-reduce(%u, %v), to_apply=%add
  %f = f32[8]{0} fusion(%two), kind=kLoop, calls=%fused.2, backend_config={"window_config":{"estimated_cycles":"11"}}
  ROOT %c = f32[8]{0} call(%q), to_apply=%wrapped
}
"""


def test_a_collective_in_a_loop_counts_once_per_round():
    assert cost_of(PROGRAM).collectives == {
        "all-reduce": Traffic(4 + 7 + 1, 4 * 16 * 4 * 2 + 7 * 3 * 4 + 30 * 4),
        "collective-permute": Traffic(1, 6 * 4),
        "all-gather": Traffic(2, 12 * 4 + 8 * 4),
    }


def test_the_cost_of_a_program_compiled_on_this_machine():
    mesh = mesh_lib.make_mesh(4)

    def sum_three_times(rows):
        def add(total, _):
            return mesh_lib.sum_over_shards(lambda x: x.sum(0) + total, mesh, rows), None

        return jax.lax.scan(add, jnp.zeros(32), None, length=3)[0]

    rows = jax.ShapeDtypeStruct((8, 32), jnp.float32, sharding=mesh_lib.batch_sharding(mesh))
    found = cost_of(jax.jit(sum_three_times).lower(rows).compile().as_text())
    assert found == Cost({"all-reduce": Traffic(3, 3 * 32 * 4)}, None)


def small_config(folder, **changes):
    values = keys.to_config_dict(tiny_config())
    values.data.root = str(folder)
    return config_lib.resolve(values, {"training.batch_size": 6, "evaluation.batch_size": 2} | changes)


def test_a_report_about_this_machine(tmp_path, capsys):
    folder = write_folder(tmp_path / "data", {})
    plain_head = {"model.context": "none", "model.strides": (8, 4)}  # compiles faster
    report = compile.compile_ahead(small_config(folder, **plain_head), Workdir(str(tmp_path / "run")))
    assert (report["devices"], report["batch_size"]) == (4, 16)  # 6 images cannot be split over 4 devices
    assert report["training"]["collectives"]["all-reduce"]["count"] > 0
    memory = report["training"]["memory"]
    assert (
        memory["total"]
        == memory["arguments"] + memory["outputs"] - memory["shared"] + memory["temporary"] + memory["code"]
    )
    assert memory["temporary"] > memory["arguments"] > 0
    assert report["evaluation"]["memory"]["temporary"] < memory["temporary"]
    # The forward and the backward pass of a tiny network: some GFLOPs at most.
    assert 1e8 < report["training"]["flops_per_image"] < 1e10
    (written,) = (tmp_path / "run" / "compile").glob("*.json")
    assert json.loads(written.read_text()) == json.loads(json.dumps(report))
    assert "all-reduce" in capsys.readouterr().out


def test_epochs_of_an_unknown_number_of_images_are_refused(tmp_path):
    """The files of a folder data set need not be there, so nothing tells how long its epochs are."""
    config = small_config(tmp_path, **{"training.steps": "2 epochs"})
    with pytest.raises(UserError, match=r"config.training.steps='2 epochs': .*give a number of steps"):
        compile.compile_ahead(config, Workdir(str(tmp_path / "run")))


def test_a_report_tells_how_many_flops_are_recomputed(tmp_path):
    folder = write_folder(tmp_path / "data", {})
    config = small_config(folder, **{"model.context": "none", "model.strides": (8, 4), "model.remat": "full"})
    plain, recomputed = (compile.training_flops(config, 3, remat) for remat in ("off", "full"))
    # At most the whole forward pass is recomputed, and that is a third of a step.
    assert plain < recomputed < 4 / 3 * plain
    report = {"topology": "t", "devices": 1, "batch_size": 1, "crop_px": 64, "estimate": None}
    step = {"memory": {"total": 1}, "compile_s": 1, "flops_per_image": 3e9, "collectives": {}}
    for flops, expected in (
        (5e8, "3.0 GFLOPs per image and training step, and 0.5 to compute"),
        (0.0, "training step\n"),
    ):
        step["flops_computed_again"] = flops
        assert expected in format_report(report | {"training": step, "evaluation": step}, None)


def test_the_flops_of_an_image_are_the_same_with_every_optimizer(tmp_path):
    folder = write_folder(tmp_path / "data", {})
    config = small_config(folder, **{"model.context": "none", "model.strides": (8, 4)})
    sgd, muon = (
        compile.training_flops(config_lib.changed(config, {"optimizer.name": name}), 3, "off")
        for name in ("sgd", "muon")
    )
    assert sgd == muon


@pytest.mark.parametrize("name", ["v5e", "v9:2x2", "v5e:big", "v5e:4", "h100:", "h100:0", "h100:2x2", "h1000", "b17"])
def test_an_unknown_topology_is_refused_with_examples(name):
    with pytest.raises(
        UserError,
        match=rf"--topology={name}: expected a TPU \(v4, .* or a GPU \(a100, h100, h200\).* for example v5e:4x4, .* h100:8",
    ):
        find_target(name)


def test_gpus_are_described_to_their_compiler(monkeypatch):
    asked = []

    def get_topology_desc(name, platform, **options):
        asked.append((name, platform, options))
        return types.SimpleNamespace(devices=jax.devices()[:2])

    monkeypatch.setattr(topologies.topologies, "get_topology_desc", get_topology_desc)
    target = find_target("h200:2")
    assert (target.name, target.accelerator, len(target.devices)) == ("h200:2", GPUS["h200"].accelerator, 2)
    assert find_target("a100").accelerator.memory_bytes == 79 * 2**30
    (_, platform, options), (*_, alone) = asked
    assert (platform, options["topology"], alone["topology"]) == ("cuda", "1x1x2", "1x1x1")
    assert "core_count: 132 " in options["target_config"]
    assert "core_count: 108 " in alone["target_config"]


def test_the_compiler_receives_the_options_of_the_target():
    lowered = jax.jit(jnp.sin).lower(1.0)
    Target("", [], None, options={"xla_cpu_enable_fast_math": True}).compile(lowered)
    with pytest.raises(Exception, match="no_such_option"):
        Target("", [], None, options={"no_such_option": True}).compile(lowered)


@pytest.mark.skipif(
    not is_installed("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"),
    reason="needs the compiler for GPUs",
)
def test_a_step_is_compiled_for_gpus_that_are_not_there(tmp_path):
    """Run in a process of its own, because the plugin must be registered before JAX looks for devices."""
    command = [sys.executable, "-m", "pyrseg_jax.main", "--mode=compile", "--topology=h100:2", f"--workdir={tmp_path}"]
    data = [f"--config.data.root={write_folder(tmp_path / 'data', {})}", "--config.data.name=folder"]
    network = ["--config.model.backbone=hrnet_tiny", "--config.model.context=none", "--config.data.crop_px=64"]
    done = subprocess.run([*command, *data, *network], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "compile").glob("*.json")
    report = json.loads(written.read_text())
    assert report["devices"] == 2
    assert report["training"]["collectives"]["all-reduce"]["count"] > 0
    assert report["training"]["memory"]["temporary"] > 0


def test_a_step_that_does_not_fit_names_the_keys_that_help(tmp_path):
    target = Target("v5e:2x2", [], TPUS["v5e"])
    config = small_config(write_folder(tmp_path / "data", {}))
    with pytest.raises(
        UserError, match=r"needs 17.0 GiB .* has 16: lower config.training.batch_size=6, or set .*accumulate=2"
    ):
        compile.check_memory(17 * 2**30, target, config)
    compile.check_memory(15 * 2**30, target, config)
    compile.check_memory(17 * 2**30, Target("this machine", [], None), config)


@pytest.mark.parametrize(
    ("name", "reason", "expected"),
    [
        (
            "v5e:2x2",
            "JAX TPU support not installed; cannot generate TPU topology.",
            "libtpu, .*-r requirements-tpu.txt",
        ),
        (
            "h100",
            "topology not implemented for cuda",
            "JAX's plugin for CUDA, .* without a GPU: .*-r requirements-cuda.txt",
        ),
    ],
)
def test_a_missing_compiler_is_reported_with_the_command_that_installs_it(monkeypatch, name, reason, expected):
    def fail(*_, **__):
        raise RuntimeError(reason)

    monkeypatch.setattr(topologies.topologies, "get_topology_desc", fail)
    with pytest.raises(UserError, match=f"needs {expected}"):
        find_target(name)


def test_the_estimate_adds_computation_and_communication():
    accelerator = Accelerator(16 * 2**30, memory_bytes_per_s=1e11, flops_per_s=1e12, link_bytes_per_s=1e9, clock_hz=1e6)
    sent = {"all-reduce": Traffic(100, 10_000_000), "all-gather": Traffic(10, 1_000_000)}
    found = estimate_step(Cost(sent, 40_000), 4, 1e9, accelerator, 16, (4, 4))
    assert found.compute_s == pytest.approx(0.04)
    # 15/16 of the bytes, and 2 + 2 hops of one microsecond; an all-reduce takes both twice.
    assert found.send_s == pytest.approx(15 / 16 * (2 * 0.01 + 0.001) + (2 * 100 + 10) * 4e-6)
    assert found.images_per_second_per_device == pytest.approx(4 / (0.04 + found.send_s))
    # Without the compiler's cycles: 4 images of 1 GFLOP each at 1 TFLOP/s.
    assert estimate_step(Cost(sent, None), 4, 1e9, accelerator, 16, (4, 4)).compute_s == pytest.approx(0.004)


def test_other_slices_have_the_same_number_of_devices_per_chip():
    assert [devices for _, devices in other_slices((4, 4), 16)] == [4, 16, 64, 256]
    assert [devices for _, devices in other_slices((2, 2, 2), 16)] == [8, 32, 128, 512]


def test_a_report_that_cannot_be_written_is_found_out_before_compiling(folder, tmp_path, monkeypatch):
    config = tiny_config()
    config = config_lib.changed(config, {"data.root": str(folder)})

    def fail(*_, **__):
        raise AssertionError("compiled before the folder was checked")

    monkeypatch.setattr(compile, "lower_evaluation", fail)
    (tmp_path / "file").write_text("a file where the folder of the report should be")
    with pytest.raises(UserError, match=r"cannot be written \(.*\): choose another folder with --workdir"):
        compile.compile_ahead(config, Workdir(str(tmp_path / "file")))
    place = tmp_path / "run" / "compile"
    place.mkdir(parents=True)
    (place / f"{re.sub('[^0-9a-zA-Z]+', '-', find_target(None).name)}.json").mkdir()
    with pytest.raises(UserError, match="is a folder, and the report is saved under this name"):
        compile.compile_ahead(config, Workdir(str(tmp_path / "run")))
