"""Repositories of the Hugging Face hub: their addresses, their copies in the hub's cache, and downloads into it.

Only downloads need the package `huggingface_hub`. The cache has a folder `models--ORG--NAME` for each repository, in which
`refs/REVISION` names a commit, and `snapshots/COMMIT` holds the files of that commit.
"""

import contextlib
import errno
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyrseg_jax.errors import UserError, reason_of

SCHEME = "hf://"
EXPECTED = "expected hf://ORG/NAME, hf://ORG/NAME@REVISION or hf://ORG/NAME/FILE"
MAIN = "main"  # the revision that an address without one means

# Names of branches cannot be told from folders, but for those that the hub makes itself.
_ADDRESS = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(pr|convert)/[\w.-]+|[^/@\s]+))?(/(?P<file>[^\s]+))?/?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_MAX_REF_BYTES = 1024  # a commit has 40


class Address(NamedTuple):
    """A place in the hub.

    Attributes:
      repository: ORG/NAME.
      revision: a branch, a tag or a commit.
      file: a path inside of the repository; None: the repository's weights.
    """

    repository: str
    revision: str = MAIN
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision == MAIN else f"@{self.revision}"
        return f"{SCHEME}{self.repository}{revision}" + (f"/{self.file}" if self.file else "")


def is_address(text: str) -> bool:
    """Return whether a text names something in the hub, and not a path."""
    return text.startswith(SCHEME)


def parse_address(text: str) -> Address:
    """Read an address; raise UserError, naming the expected form, if it is none."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UserError(f"{text} is not an address of the hub: {EXPECTED}")
    file = found["file"]
    if file is not None and not is_inside(file):
        raise UserError(f"{text} names no file of a repository: {EXPECTED}")
    return Address(found["repository"], found["revision"] or MAIN, file)


def is_inside(name: str) -> bool:
    """Return whether a path of a file stays inside of its folder."""
    return all(part not in ("", ".", "..") for part in name.split("/")) and "\\" not in name


def is_repository_folder(folder: Path) -> bool:
    """Return whether a folder is a repository of the hub's cache, `models--ORG--NAME`."""
    return (folder / "snapshots").is_dir() and _FOLDER.fullmatch(folder.resolve().name) is not None


def find_snapshot(folder: Path, revision: str) -> Path | None:
    """Return the folder of a revision's files in a repository of the cache; None if the revision is not there."""
    ref = folder / "refs" / revision
    commit = revision
    if ref.is_file() and ref.stat().st_size <= _MAX_REF_BYTES:
        commit = ref.read_text(encoding="utf-8", errors="replace").strip()
    snapshot = folder / "snapshots" / commit
    return snapshot if _COMMIT.fullmatch(commit) and snapshot.is_dir() else None


def only_snapshot(folder: Path) -> Path:
    """Return the files of a repository's main branch or, if the cache does not have it, of the only commit there.

    Raises:
      UserError: if the main branch is not in the cache, and the cache holds no commit or several.
    """
    found = find_snapshot(folder, MAIN)
    snapshots = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    if found is None and len(snapshots) == 1:
        return snapshots[0]
    if found is None:
        names = ", ".join(path.name for path in snapshots) or "none"
        raise UserError(
            f"{folder} holds {len(snapshots)} commits ({names}), and its main branch is none of them: give one of the folders in "
            f"{folder / 'snapshots'}, or download the repository again"
        )
    return found


def commit_of(file: Path) -> str | None:
    """Return the commit that a file in the cache belongs to; None for any other file."""
    parts = file.parts
    places = (i for i, part in enumerate(parts[:-1]) if part == "snapshots" and _COMMIT.fullmatch(parts[i + 1]))
    at = next(places, None)
    return None if at is None or at + 1 == len(parts) - 1 else parts[at + 1]


def find_cached(address: Address) -> Path | None:
    """Return the folder of the repository's files in the cache, without the network; None if it is not there."""
    hub = import_hub(address)
    org, name = address.repository.split("/")
    return find_snapshot(Path(hub.constants.HF_HUB_CACHE) / f"models--{org}--{name}", address.revision)


def list_files(address: Address) -> list[str]:
    """Ask the hub for the paths of a repository's files; raises UserError as `download` does."""
    hub = import_hub(address)
    with _explaining(hub, address):
        return sorted(hub.list_repo_files(address.repository, revision=address.revision))


def download(address: Address, file: str) -> Path:
    """Download a file of an address's repository into the cache, if it is not there, and return its path.

    Raises:
      UserError: naming the address, if there is no network, repository, revision or file, no access to it, or no space on the disk.
    """
    address = address._replace(file=file)
    hub = import_hub(address)
    with _explaining(hub, address):
        return Path(hub.hf_hub_download(address.repository, file, revision=address.revision))


def import_hub(address: Address, instead: str = "download the file and give its path"):
    """Import `huggingface_hub`; raise UserError if it is not installed, naming what can be done `instead`."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(
            f"{address} needs the package huggingface_hub, which is not installed: run `pip install huggingface_hub` or install "
            f"the extra `hub` (`pip install 'pyrseg-jax[hub]'`), or {instead}"
        )
    import huggingface_hub  # pyright: ignore[reportMissingImports]  # optional: only addresses of the hub need it
    import huggingface_hub.constants  # pyright: ignore[reportMissingImports]
    import huggingface_hub.errors  # pyright: ignore[reportMissingImports]

    return huggingface_hub


@contextlib.contextmanager
def _explaining(hub, address: Address) -> Iterator[None]:
    """Turn the errors of `huggingface_hub` into one line each."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{address}: {_explain(hub, address, error)}") from error


def _explain(hub, address: Address, error: Exception) -> str:
    """Say in one line what went wrong and what to do."""
    chain, cache = list(_causes(error)), hub.constants.HF_HUB_CACHE
    by_hand = f"or run `hf download {address.repository}` on a machine with a network and copy its cache to {cache}"
    if any(isinstance(cause, hub.errors.OfflineModeIsEnabled) for cause in chain):
        return (
            f"it is not in the cache ({cache}), and HF_HUB_OFFLINE forbids the network: unset that variable, {by_hand}"
        )
    answer = _explain_answer(hub.errors, address, error)
    if answer is not None:
        return answer
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in chain):
        return f"there is no space left for the cache ({cache}): make room, or set HF_HOME to a folder on a larger disk"
    if isinstance(error, PermissionError):
        return f"the cache ({cache}) cannot be written ({error.strerror}): restore access, or set HF_HOME to another folder"
    responses = [getattr(cause, "response", None) for cause in chain]
    status = next((response.status_code for response in responses if response is not None), None)
    if status is not None:
        return f"the hub answered with status {status}: try again later, {by_hand}"
    reason = reason_of(chain[-1])
    return f"it is not in the cache ({cache}), and asking the hub failed ({reason}): check the network, {by_hand}"


def _explain_answer(errors, address: Address, error: Exception) -> str | None:
    """Say what the hub answered; None if it did not answer. The order matters: some of these errors are kinds of others."""
    if isinstance(error, errors.GatedRepoError):
        return (
            "the repository is gated: accept its conditions on its page in a browser, then run `hf auth login` here or set "
            "HF_TOKEN"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the hub has no public repository {address.repository}: check the name; if it is private, run `hf auth login` or "
            "set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision {address.revision}: give a branch, a tag or a commit that it has"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"the repository has no file {address.file}: check its name on the repository's page"
    if isinstance(error, errors.HFValidationError):
        return f"the hub has no such names ({reason_of(error)}): {EXPECTED}"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an error and the errors that it was raised from, at most a few."""
    current: BaseException | None = error
    for _ in range(10):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
