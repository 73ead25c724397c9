"""Fetch a published file once: continued where it was cut off, and checked."""

import dataclasses
import hashlib
import logging
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)
BLOCK_BYTES = 2**20
TIMEOUT_S = 60
NUM_TRIES = 5


@dataclasses.dataclass(frozen=True)
class Published:
    """A file that its authors publish.

    Attributes:
      url: where.
      file_name: what to call it here.
      md5: of its content; None where none was published: then the checksum of the first download is recorded, and only later
        ones are held against it.
      note: what else there is to say about getting it.
    """

    url: str
    file_name: str
    md5: str | None = None
    note: str = ""


def fetch(published: Published, folder: Path, pause_s: float = 5.0) -> Path:
    """Return the file in `folder`, downloaded if it is not there; what arrived before an interruption is kept and continued.

    Args:
      published: what to fetch.
      folder: where to; beside the file goes `NAME.checksum` with its MD5 and SHA-256.
      pause_s: between two tries.

    Raises:
      UserError: if it cannot be fetched, saying what to put where instead, or if it is not what was published.
    """
    target = folder / published.file_name
    if target.is_file():
        return target
    partial = target.with_name(target.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): choose another with --config.data.prepared"
        ) from error
    log.info("downloading %s to %s", published.url, target)
    for attempt in range(1, NUM_TRIES + 1):
        try:
            _continue(published.url, partial)
            break
        except (OSError, EOFError, ValueError) as error:  # URLError and the errors of sockets are OSErrors
            is_refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == NUM_TRIES or is_refused or not partial.exists():
                raise UserError(_what_to_do(published, folder, error)) from error
            log.warning("the download was interrupted (%s); try %d of %d", error, attempt + 1, NUM_TRIES)
            time.sleep(pause_s)
    _check(published, partial)
    os.replace(partial, target)
    return target


def _continue(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send: it was complete, or is of another file
            return
        raise
    with response:
        if start and getattr(response, "status", None) != 206:  # the server does not continue: begin anew
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            partial.open("ab" if start else "wb") as file,
            tqdm(None, partial.stem, total, initial=start, unit="B", unit_scale=True, disable=None, leave=False) as bar,
        ):
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                bar.update(len(block))
    received = partial.stat().st_size
    if total is not None and received < total:
        raise EOFError(f"{received} of {total} bytes arrived")


def _check(published: Published, partial: Path) -> None:
    """Compare the checksums with the published or the recorded ones; a file that differs is removed."""
    digests = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with partial.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            for digest in digests.values():
                digest.update(block)
    found = {name: digest.hexdigest() for name, digest in digests.items()}
    record = partial.with_name(published.file_name + ".checksum")
    recorded = record.read_text().split()[-1] if record.is_file() else None
    for name, expected, source in (("md5", published.md5, "published"), ("sha256", recorded, f"recorded in {record}")):
        if expected is not None and found[name] != expected:
            partial.unlink()
            raise UserError(
                f"{published.url}: the file has the {name} {found[name]}, but {expected} is {source}: it is damaged or was "
                "changed, and is removed; try again, or fetch it elsewhere and name it with --config.data.root=FILE"
            )
    if published.md5 is None and recorded is None:
        log.warning(
            "no checksum of %s was published; its sha256 %s is recorded in %s",
            published.file_name,
            found["sha256"],
            record,
        )
    record.write_text(f"md5 {found['md5']}\nsha256 {found['sha256']}\n")


def _what_to_do(published: Published, folder: Path, error: Exception) -> str:
    return (
        f"{published.file_name} cannot be downloaded from {published.url} ({error}): download it on a machine with network"
        f"{published.note}, and put it into {folder}, or name the place of the zip or its unpacked folder with "
        "--config.data.root=PLACE"
    )
