"""ONNX Runtime Web, the library that runs a network in a browser: from the cache, from npm's registry, or from a place of the user.

The demo needs three of its files. The released version below was tested; its package and its files are known by their SHA-256. So
neither the registry nor the cache has to be trusted.
"""

import contextlib
import hashlib
import http.client
import io
import logging
import os
import shutil
import subprocess
import tarfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from pyrseg_jax.errors import UserError, escaped, reason_of
from pyrseg_jax.storage.atomic import write_bytes_atomically
from pyrseg_jax.storage.caches import cache_folder
from pyrseg_jax.storage.paths import is_there
from pyrseg_jax.storage.regular_file import read_regular_file

log = logging.getLogger(__name__)

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"  # of the archive
# The script, and the library itself, compiled to WebAssembly, with its loader. Threads are used where the browser allows them.
FILES = {
    "ort.wasm.min.js": "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
PUBLIC_REGISTRY = "https://registry.npmjs.org/"
TIMEOUT_S = 60
MAX_ARCHIVE_BYTES = 256 * 2**20  # the archive has 32 MiB
MAX_FILE_BYTES = 128 * 2**20  # the largest file has 14 MiB
_BLOCK = 2**18
_PLACES = (
    "",
    "dist",
    "package/dist",
    f"node_modules/{PACKAGE}/dist",
)  # of the files, in an unpacked package or near it
_BY_HAND = f"run `npm pack {PACKAGE}@{VERSION}` on a machine with a network, and name the file with --runtime=FILE"


class Runtime(NamedTuple):
    """The files of ONNX Runtime Web.

    origin: where they are from, for the log and the page.
    files: contents by name, those of `FILES`.
    """

    origin: str
    files: dict[str, bytes]


def find_runtime(place: str | None) -> Runtime:
    """Return the files of ONNX Runtime Web.

    Args:
      place: an unpacked package, or its archive (.tgz), of any version; None takes the tested version from the cache, or from npm's
        registry.

    Raises:
      UserError: if they are not there, cannot be downloaded, or are damaged.
    """
    if place is not None:
        path = Path(place).expanduser()
        files = _read_archive(path) if path.is_file() else _read_package(path)
        is_tested = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == FILES
        if not is_tested:
            log.info("the files in %s are not those of %s %s, which was tested", place, PACKAGE, VERSION)
        return Runtime(f"{PACKAGE} {VERSION}" if is_tested else PACKAGE, files)
    cache = cache_folder() / f"{PACKAGE}-{VERSION}"
    files = _read_cache(cache)
    if files is None:
        files = _extract(_download(), ARCHIVE)
        with contextlib.suppress(OSError):  # without a cache, the next demo downloads again
            cache.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                write_bytes_atomically(cache / name, content)
    return Runtime(f"{PACKAGE} {VERSION}", files)


def _read_cache(cache: Path) -> dict[str, bytes] | None:
    """Return the files in the cache; None if one is missing or is not what was released."""
    try:
        files = {name: read_regular_file(cache / name, MAX_FILE_BYTES) for name in FILES}
    except (OSError, UserError):
        return None
    found = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return files if found == FILES else None


def _read_package(folder: Path) -> dict[str, bytes]:
    first, *others = FILES
    where = next((folder / part for part in _PLACES if is_there(folder / part / first)), None)
    missing = [first] if where is None else [name for name in others if not is_there(where / name)]
    if where is None or missing:
        raise UserError(
            f"--runtime={folder}: expected the package {PACKAGE}, unpacked or as a .tgz, but there is no {missing[0]}: {_BY_HAND}"
        )
    try:
        return {name: read_regular_file(where / name, MAX_FILE_BYTES) for name in FILES}
    except OSError as error:
        raise UserError(
            f"--runtime={folder} cannot be read ({error.strerror or error}): check its permissions"
        ) from error


def _read_archive(path: Path) -> dict[str, bytes]:
    try:
        content = read_regular_file(path, MAX_ARCHIVE_BYTES)
    except OSError as error:
        raise UserError(
            f"--runtime={path} cannot be read ({error.strerror or error}): check its permissions"
        ) from error
    return _extract(content, f"--runtime={path}")


def _extract(archive: bytes, name: str) -> dict[str, bytes]:
    """Return the files from an archive; `name` is what messages call it."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for entry in tar:
                file = entry.name.removeprefix("package/dist/")
                if file in FILES and entry.isfile() and entry.size <= MAX_FILE_BYTES:
                    content = tar.extractfile(entry)
                    assert content is not None, "it is a regular file"
                    found[file] = content.read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{name} cannot be unpacked ({reason_of(error)}): {_BY_HAND}") from error
    for file in FILES:
        if file not in found:
            raise UserError(f"{name}: expected the archive of {PACKAGE}, but it has no dist/{file}: {_BY_HAND}")
    return found


def _download() -> bytes:
    """Download the archive from npm's registry, and check it."""
    url = f"{find_registry().rstrip('/')}/{PACKAGE}/-/{ARCHIVE}"
    log.info("downloading %s (32 MiB, once)", url)
    try:
        content = _fetch(url)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(
            f"{ARCHIVE}, with which a browser runs the network, cannot be downloaded from {escaped(url)} ({reason_of(error)}): "
            f"{_BY_HAND}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise UserError(
            f"{escaped(url)} has the SHA-256 {digest}, but {SHA256} was released: the download is damaged or was changed; try "
            f"again, or {_BY_HAND}"
        )
    return content


def _fetch(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ValueError("expected an address that begins with https://")
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        total = int(response.headers.get("Content-Length") or 0) or None
        content = io.BytesIO()
        with tqdm(None, PACKAGE, total, unit="B", unit_scale=True, disable=None, leave=False) as bar:
            while block := response.read(_BLOCK):
                content.write(block)
                bar.update(len(block))
                if content.tell() > MAX_ARCHIVE_BYTES:
                    raise ValueError(f"the answer is longer than {MAX_ARCHIVE_BYTES} bytes")
    if total is not None and content.tell() != total:
        raise EOFError(f"{content.tell()} of {total} bytes came")
    return content.getvalue()


def find_registry() -> str:
    """Return the address of npm's registry as npm is configured here; without npm, of the public one."""
    named = os.environ.get("npm_config_registry") or os.environ.get("NPM_CONFIG_REGISTRY")  # noqa: SIM112 - npm reads both
    program = shutil.which("npm")
    if not named and program is not None:
        command = [program, "config", "get", "registry"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            named = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    return named if named and named.startswith(("https://", "http://")) else PUBLIC_REGISTRY
