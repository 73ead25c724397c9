"""A user's own augmentation: a Python function or an Albumentations pipeline, found by its name.

Worker processes receive the name and import the function themselves.
"""

import copy
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.decode import Pair
from pyrseg_jax.errors import UserError, escaped, reason_of

FORM = "expected package.module:NAME or path/to/file.py:NAME"
_loading = threading.RLock()
_of_this_thread = threading.local()


@dataclasses.dataclass(frozen=True)
class UserFunction:
    """Apply a function of the user's to each crop, and check what it returns.

    A function is called as `function(image, label, generator)` with (H, W, C) values of 0 … 255, which are uint8 RGB in
    photographs, (H, W) train ids where 255 is void (65535 for more than 255 classes), and a `numpy.random.Generator`, and returns
    the pair (image, label). An Albumentations pipeline is called as `pipeline(image=image, mask=label)`, seeded with a number from
    the generator.

    Attributes:
      name: `package.module:NAME` or `path/to/file.py:NAME`.
      num_classes: the number of train ids.
    """

    name: str
    num_classes: int

    def check(self) -> None:
        """Import the function. Raises UserError if that is not possible."""
        load_function(self.name)

    def __call__(self, pair: Pair, generator: np.random.Generator, image_name: str) -> Pair:
        """Return what the function makes of a pair.

        Raises:
          UserError: naming the function and the image, if it fails, or returns anything else than an image and a label map of
            the same shapes and types, with labels that are train ids or void.
        """
        function = load_function(self.name)
        try:
            if is_pipeline(function):
                result = _call_pipeline(_own_copy(self.name, function), pair, generator)
            else:
                result = function(pair.image.copy(), pair.label.copy(), generator)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"function={self.name!r} failed with {escaped(image_name)} ({reason_of(error)}): correct the function"
            ) from error
        problem = self._problem(result, pair)
        if problem:
            raise UserError(
                f"function={self.name!r} returned for {escaped(image_name)} {problem}: correct the function"
            )
        image, label = result
        return Pair(np.ascontiguousarray(image), np.ascontiguousarray(label))

    def _problem(self, result: Any, pair: Pair) -> str | None:
        """Describe what is wrong with a result, and what was expected."""
        if not isinstance(result, tuple | list) or len(result) != 2:
            return f"{_describe(result)}, but (image, label) is expected"
        for kind, found, expected in zip(("an image", "a label map"), result, pair, strict=True):
            is_array = isinstance(found, np.ndarray)
            if not is_array or found.shape != expected.shape or found.dtype != expected.dtype:
                return f"as {kind} {_describe(found)}, but {_describe(expected)} is expected"
        label = result[1]
        void = void_of(label.dtype)
        is_wrong = (label >= self.num_classes) & (label != void)
        if is_wrong.any():
            return f"the label {label[is_wrong][0]}, but 0 … {self.num_classes - 1} are the classes, and {void} is void"
        return None


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{'×'.join(map(str, value.shape)) or 'a single'} {value.dtype}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, tuple | list) else "")


def is_pipeline(function: Any) -> bool:
    """Return whether this is a pipeline of Albumentations (`Compose` and its relatives) rather than a function."""
    return hasattr(function, "set_random_seed")


def _call_pipeline(pipeline: Any, pair: Pair, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    pipeline.set_random_seed(int(generator.integers(2**32)))
    result = pipeline(image=pair.image.copy(), mask=pair.label.copy())
    return result["image"], result["mask"]


def _own_copy(name: str, pipeline: Any) -> Any:
    """Return this thread's copy of a pipeline: it holds its random state, which two threads would disturb for each other."""
    copies = _of_this_thread.__dict__.setdefault("copies", {})
    if name not in copies:
        copies[name] = copy.deepcopy(pipeline)
    return copies[name]


def check_name(name: str) -> None:
    """Raise UserError if a name does not have the form of a function's name; nothing is imported."""
    place, _, attribute = name.rpartition(":")
    if not place or not attribute.isidentifier():
        raise UserError(f"function={name!r}: {FORM}")


def load_function(name: str) -> Callable[..., Any]:
    """Import a function or a pipeline by its name; each name is imported once per process.

    Raises:
      UserError: if the name is malformed, nothing has this name, or the module cannot be imported.
    """
    with _loading:  # threads must not import the same file twice
        return _load(name)


@functools.cache
def _load(name: str) -> Callable[..., Any]:
    check_name(name)
    place, _, attribute = name.rpartition(":")
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except FileNotFoundError as error:
        raise UserError(f"function={name!r}: there is no file {error.filename}; {FORM}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"function={name!r}: {place} cannot be imported ({reason_of(error)})") from error
    function = getattr(module, attribute, None)
    if function is None:
        raise UserError(f"function={name!r}: {place} does not define {attribute}")
    if not callable(function):
        raise UserError(
            f"function={name!r} is a {type(function).__name__}: expected a function, or an Albumentations pipeline"
        )
    if type(function).__module__.startswith("albumentations") and not is_pipeline(function):
        raise UserError(
            f"function={name!r} is a pipeline that cannot be seeded: install Albumentations 1.4.19 or later, whose pipelines "
            "have set_random_seed"
        )
    return function


def _import_file(path: Path) -> ModuleType:
    """Import a Python file that is not in a package, under a name that no other module has."""
    path = path.expanduser().resolve()
    name = f"pyrseg_user_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # because of its suffix
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
