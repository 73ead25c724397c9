"""Download a published file once: continue after an interruption, and check the result."""

import dataclasses
import errno
import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.regular_file import kind_of, read_regular_file

log = logging.getLogger(__name__)
BLOCK_BYTES = 2**20
TIMEOUT_S = 60
NUM_TRIES = 5
MAX_BYTES = 64 * 2**30  # a server that never stops must not fill the disk; the largest published file here has 2 GiB
MAX_RECORD_BYTES = 4096
# Trying again does not help against these: a full or read-only disk, a quota, missing permissions.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENAMETOOLONG}
# What a server or a network can do wrong. URLError and errors of sockets are OSErrors; answers that are not HTTP are not.
_INTERRUPTIONS = (OSError, EOFError, ValueError, http.client.HTTPException)


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
      UserError: if it cannot be downloaded, saying which file to put where instead, if its checksum is wrong, or if the folder
        cannot be written.
    """
    target = folder / published.file_name
    if target.is_file():
        return target
    partial = target.with_name(target.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_place(target, partial)
        log.info("downloading %s to %s", published.url, target)
        _download(published, folder, partial, pause_s)
        _check(published, partial)
        os.replace(partial, target)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): choose another with prepared=FOLDER"
        ) from error
    return target


def _check_place(target: Path, partial: Path) -> None:
    """Raise UserError if something is in the way: writing to a link would change the file behind it, to a pipe would hang."""
    for path in (target, partial):
        if path.is_symlink():
            raise UserError(f"{path} is a link: remove it, because the download is saved under this name")
        if path.exists() and not path.is_file():
            raise UserError(
                f"{path} is {kind_of(path.stat().st_mode)}: remove it, because the download is saved under this name"
            )


def _download(published: PublishedFile, folder: Path, partial: Path, pause_s: float) -> None:
    for attempt in range(1, NUM_TRIES + 1):
        try:
            _continue(published.url, partial)
            return
        except _INTERRUPTIONS as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            is_refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == NUM_TRIES or is_refused or not partial.exists():
                raise UserError(_what_to_do(published, folder, error)) from error
            log.warning("the download was interrupted (%s); try %d of %d", error, attempt + 1, NUM_TRIES)
            time.sleep(pause_s)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow a redirection only to the web, and from an encrypted address only to another one."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        allowed = ("https:",) if req.full_url.startswith("https:") else ("https:", "http:")
        if not newurl.lower().startswith(allowed):
            raise urllib.error.HTTPError(newurl, code, f"redirection to {newurl} is not allowed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _continue(url: str, partial: Path) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send; `_check` tells whether the file is the right one
            return
        raise
    with response:
        if start and getattr(response, "status", None) != 206:  # the server cannot continue: start again
            start = 0
        said = response.headers.get("Content-Range", "")
        if start and said and not said.startswith(f"bytes {start}-"):
            partial.unlink()
            partial.touch()  # so that the next try starts again
            raise EOFError(f"the server sent {said[:60]!r} instead of what follows byte {start}")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if total is not None and total > MAX_BYTES:
            raise urllib.error.URLError(f"the server announces {total} bytes, more than {MAX_BYTES}")
        with (
            partial.open("ab" if start else "wb") as file,
            tqdm(None, partial.stem, total, initial=start, unit="B", unit_scale=True, disable=None, leave=False) as bar,
        ):
            while block := response.read(BLOCK_BYTES):
                start += len(block)
                if start > MAX_BYTES:
                    partial.unlink()
                    raise urllib.error.URLError(f"the server sent more than {MAX_BYTES} bytes")
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
    recorded = _read_record(record)
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
    write_atomically(record, f"md5 {found['md5']}\nsha256 {found['sha256']}\n")


def _read_record(record: Path) -> str | None:
    """Return the recorded SHA-256 of an earlier download, or None if there is no record."""
    if not os.path.lexists(record):
        return None
    found = re.search(rb"^sha256 ([0-9a-f]{64})$", read_regular_file(record, MAX_RECORD_BYTES), re.MULTILINE)
    if not found:
        raise UserError(
            f"{record} is damaged: expected a line `sha256 …`; remove it to accept the next download as it is"
        )
    return found[1].decode()


def _what_to_do(published: PublishedFile, folder: Path, error: Exception) -> str:
    return (
        f"{published.file_name} cannot be downloaded from {published.url} ({reason_of(error)}): download it on a machine "
        f"with network{published.note}, and put it into {folder}, or name the place of the file or its unpacked folder "
        "with root=PLACE"
    )
