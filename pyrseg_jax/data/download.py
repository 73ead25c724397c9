"""Download a published file once: continue after an interruption, and check the result."""

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
class PublishedFile:
    """A file that the authors of a data set publish.

    Attributes:
      url: the address of the file.
      file_name: name to save it under.
      md5: the published MD5; None if the authors published none. Then the checksum of the first download is recorded, and later
        downloads are compared with that.
      note: further instructions for a download by hand, appended to "download it on a machine with network".
    """

    url: str
    file_name: str
    md5: str | None = None
    note: str = ""


def fetch(published: PublishedFile, folder: Path, pause_s: float = 5.0) -> Path:
    """Return the file in `folder`, after downloading it if it is not there yet.

    A download that was interrupted continues where it stopped.

    Args:
      published: the file.
      folder: the folder to save it in, next to `NAME.checksum` with its MD5 and SHA-256.
      pause_s: seconds between attempts.

    Raises:
      UserError: if it cannot be downloaded, saying which file to put where instead, or if its checksum is wrong.
    """
    target = folder / published.file_name
    if target.is_file():
        return target
    partial = target.with_name(target.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): choose another with prepared=FOLDER"
        ) from error
    log.info("downloading %s to %s", published.url, target)
    for attempt in range(1, NUM_TRIES + 1):
        try:
            _continue(published.url, partial)
            break
        except (OSError, EOFError, ValueError) as error:  # URLError and socket errors are OSErrors
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
        if error.code == 416 and start:  # nothing is left to send; `_check` tells whether the file is the right one
            return
        raise
    with response:
        if start and getattr(response, "status", None) != 206:  # the server cannot continue: start again
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


def _check(published: PublishedFile, partial: Path) -> None:
    """Compare the checksums with the published or recorded ones; remove a file that differs."""
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
                "changed, and has been removed; try again, or get it elsewhere and name it with root=FILE"
            )
    if published.md5 is None and recorded is None:
        log.warning(
            "no checksum of %s was published; its sha256 %s is recorded in %s",
            published.file_name,
            found["sha256"],
            record,
        )
    record.write_text(f"md5 {found['md5']}\nsha256 {found['sha256']}\n")


def _what_to_do(published: PublishedFile, folder: Path, error: Exception) -> str:
    return (
        f"{published.file_name} cannot be downloaded from {published.url} ({error}): download it on a machine with network"
        f"{published.note}, and put it into {folder}, or name the place of the zip or its unpacked folder with "
        "root=PLACE"
    )
