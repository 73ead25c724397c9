"""Read an exported model. Every part is checked against the others before it is used."""

import hashlib
import logging
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export as jax_export

from pyrseg_jax.conventions import label_dtype
from pyrseg_jax.errors import UserError, naming_file, reason_of
from pyrseg_jax.export.expiry import advice_for, writer_of
from pyrseg_jax.export.format import (
    ABOUT,
    ADVICE,
    FORMAT,
    WEIGHTS,
    About,
    Exported,
    problem_of_weights,
    program_name,
    read_about,
)
from pyrseg_jax.storage.documents import shorten
from pyrseg_jax.storage.npz import ArraySpec, read_npz
from pyrseg_jax.storage.regular_file import open_regular_file
from pyrseg_jax.storage.stored_zip import StoredZip

log = logging.getLogger(__name__)

MAX_BYTES = 16 * 2**30  # fifty times the largest model of this package
# Calls that leave StableHLO, and that a program may make: JAX asserts with this one that the number of images is positive.
ALLOWED_CALLS = {"shape_assertion"}
_CALL = re.compile(r"custom_call\s*@?\"?([\w.$:-]+)")


class _Program(NamedTuple):
    """A program, and what it takes as weights."""

    run: jax_export.Exported
    weights: Mapping[str, ArraySpec]


def read_export(path: Path) -> Exported:
    """Read a file of `write_export`.

    A program is code: XLA compiles and runs it. It can only compute results from weights and images, because programs that call
    anything outside of StableHLO are refused; but it can take any time and memory.

    Args:
      path: path of the file, on a local disk.

    Raises:
      UserError: naming the file and the part, if it is damaged, its parts do not fit together, it was written by a newer version,
        or it is another kind of file.
    """
    with naming_file(str(path), "cannot be read", "check the path and its permissions"):
        file = open_regular_file(path, MAX_BYTES)
    # A truncated or foreign file fails in zip, JSON, NumPy or StableHLO, and each raises its own errors.
    with file, naming_file(str(path), "is not an exported model, or it is damaged", ADVICE):
        try:
            parts = StoredZip(file)
        except UserError as error:
            raise UserError(f"{path}: {error}: {ADVICE}") from error
        about = read_about(parts, path)
        if about.format < FORMAT:
            log.warning("%s has no checksums, because an earlier version wrote it; to add them, %s", path, ADVICE)
        contents = {name: _read_part(parts, name, about, path) for name in parts.sizes}
    programs = {}
    for size in about.sizes:
        programs[size] = _read_program(contents.pop(program_name(size)), size, about, path)
    weights = _read_weights(contents.pop(WEIGHTS), programs, path)
    return Exported(
        about.model_dump(),
        about.label_space,
        weights,
        {size: jax.jit(program.run.call) for size, program in programs.items()},
        about.image_space,
    )


def _read_part(parts: StoredZip, name: str, about: About, path: Path) -> bytes:
    try:
        content = parts.read(name)
    except zipfile.BadZipFile as error:  # its message may repeat bytes of the file
        raise UserError(f"{path}: the part {name} is damaged ({reason_of(error)}): {ADVICE}") from error
    if about.sha256 and name in about.sha256 and hashlib.sha256(content).hexdigest() != about.sha256[name]:
        raise UserError(f"{path}: the part {name} has another SHA-256 than the file's {ABOUT} says: {ADVICE}")
    return content


def _read_program(content: bytes, size: tuple[int, int], about: About, path: Path) -> _Program:
    """Deserialize a program and check that it takes and returns what the file's description says."""
    name = f"{path}: the part {program_name(size)}"
    advice = advice_for(writer_of(about.jax, about.readers), jax.__version__, ADVICE)
    with naming_file(name, "cannot be read", advice):
        program = jax_export.deserialize(bytearray(content))
        version, platform = program.calling_convention_version, jax_export.default_export_platform()
        least = jax_export.minimum_supported_calling_convention_version
        most = jax_export.maximum_supported_calling_convention_version
        if not least <= version <= most:
            raise UserError(f"{name} has calling convention {version}, this JAX knows {least} to {most}: {advice}")
        if platform not in program.platforms:
            listed = ", ".join(map(shorten, program.platforms))
            raise UserError(f"{name} is for {listed}, and not for {platform}, this machine's device: {ADVICE}")
        weights = _check_inputs(program, size, about, name)
        _check_outputs(program, size, about, name)
        _check_effects(program, name)
    return _Program(program, weights)


def _check_inputs(program: jax_export.Exported, size: tuple[int, int], about: About, name: str) -> dict[str, ArraySpec]:
    """Return the weights that a program takes; raise UserError if it takes anything but weights by name, and images."""
    channels, dtype = about.image_space.channels, about.image_space.dtype
    expected = f"(n, {size[0]}, {size[1]}, {channels}) {dtype.name}"
    problem = UserError(f"{name} does not take weights by name and images {expected}: {ADVICE}")
    try:
        (weights, images), named = jax.tree.unflatten(program.in_tree, program.in_avals)
        specs = {key: ArraySpec(tuple(map(int, array.shape)), np.dtype(array.dtype)) for key, array in weights.items()}
    except Exception as error:  # any tree can be in a foreign file
        raise problem from error
    count, *shape = images.shape if len(images.shape) == 4 else (0,)
    if named or isinstance(count, int) or shape != [*size, channels] or images.dtype != dtype:
        raise problem
    if not all(isinstance(key, str) for key in specs):
        raise problem
    return specs


def _check_outputs(program: jax_export.Exported, size: tuple[int, int], about: About, name: str) -> None:
    """Raise UserError unless the results have the types and shapes of this number of classes and these strides."""
    height, width = size
    labels = label_dtype(about.label_space.num_classes).name
    maps = [(height // stride, width // stride) for stride in about.strides]
    found: Any = jax.tree.unflatten(program.out_tree, program.out_avals)
    found = jax.tree.map(lambda array: (tuple(array.shape[1:]), str(array.dtype)), found)
    if (
        isinstance(found, dict) and found.get("unity") == ()
    ):  # a network that predicts no pyramid, but a class per position
        maps = maps[-1:]
    expected = {
        "labels": ((height, width), labels),
        "level": (maps[-1], "uint8"),
        "probs": ((*maps[-1], about.label_space.num_classes), "float32"),
        "semantic": tuple((shape, labels) for shape in maps),
        "unity": tuple((shape, "float32") for shape in maps[:-1]),
    }
    if not isinstance(found, dict) or found.keys() != expected.keys():
        raise UserError(f"{name} does not return {', '.join(expected)}: {ADVICE}")
    for key, value in expected.items():
        if found[key] != value:
            raise UserError(
                f"{name} returns {key} as {shorten(found[key])}, expected {shorten(value)} for "
                f"{about.label_space.num_classes} classes and strides {shorten(about.strides)}: {ADVICE}"
            )


def _check_effects(program: jax_export.Exported, name: str) -> None:
    """Raise UserError if a program does more than compute on one device."""
    calls = set(_CALL.findall(program.mlir_module())) - ALLOWED_CALLS
    if calls or program.ordered_effects or program.unordered_effects or program.nr_devices != 1:
        what = f"calls {shorten(min(calls))}" if calls else "has side effects, or needs several devices"
        raise UserError(f"{name} {what}, which no exported model does: do not use it; {ADVICE}")


def _read_weights(content: bytes, programs: Mapping[tuple[int, int], _Program], path: Path) -> dict[str, np.ndarray]:
    """Read the weights that the programs take, and check their numbers."""
    first, *others = programs
    expected = programs[first].weights
    for other in others:
        if programs[other].weights != expected:
            raise UserError(f"{path}: {program_name(first)} and {program_name(other)} take different weights: {ADVICE}")
    with naming_file(f"{path}: the part {WEIGHTS}", "cannot be read", ADVICE):
        try:
            weights = read_npz(content, expected)
        except UserError as error:
            raise UserError(f"{path}: the part {WEIGHTS}: {error}: {ADVICE}") from error
    problem = problem_of_weights(weights)
    if problem:
        raise UserError(f"{path}: the part {WEIGHTS}: {problem}: {ADVICE}")
    return weights
