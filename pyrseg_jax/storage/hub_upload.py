"""Upload a folder to a repository of the Hugging Face hub, as one commit, and check what arrived.

The token comes from the places where `huggingface_hub` looks for it (`hf auth login`, HF_TOKEN). Nothing here reads or prints it.
"""

import contextlib
import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.storage.hub import MAIN, Address, import_hub

_INSTEAD = "upload the folder by hand, on the page of the repository"
_REFUSED = (401, 403)


def import_for_upload(address: Address):
    """Import `huggingface_hub`; raise UserError if it is not installed."""
    return import_hub(address, _INSTEAD)


def check_token(address: Address) -> None:
    """Raise UserError unless `huggingface_hub` finds a token."""
    if import_for_upload(address).get_token() is None:
        raise UserError(
            f"{address}: there is no token for the hub: create one with write access on the hub's page of access tokens, then run "
            "`hf auth login` or set HF_TOKEN"
        )


def open_repository(address: Address, is_private: bool) -> frozenset[str]:
    """Create a repository and its branch unless they are there; return the paths of its files.

    Args:
      address: the repository and the branch.
      is_private: whether only its owners may read it.

    Raises:
      UserError: if the hub refuses, or if the repository is public although it should be private.
    """
    hub = import_for_upload(address)
    with _explaining(address):
        hub.create_repo(address.repository, private=is_private or None, exist_ok=True)
        if is_private and not hub.repo_info(address.repository).private:
            raise UserError(
                f"{address} is there and public, and --private was given: nothing was uploaded; make it private on its page, or "
                "name another repository"
            )
        if address.revision != MAIN:
            hub.create_branch(address.repository, branch=address.revision, exist_ok=True)
        return frozenset(hub.list_repo_files(address.repository, revision=address.revision))


def upload(address: Address, folder: Path, names: Collection[str], removed: Collection[str], message: str) -> str:
    """Upload files as one commit, check that they arrived unchanged, and return the commit.

    Args:
      address: the repository and the branch, which must be there.
      folder: the folder of the files.
      names: their names.
      removed: names of files that the commit removes from the repository if they are there.
      message: of the commit.

    Raises:
      UserError: if the hub refuses, or if a file differs after the upload.
    """
    hub = import_for_upload(address)
    with _explaining(address):
        done = hub.upload_folder(
            repo_id=address.repository,
            folder_path=folder,
            revision=address.revision,
            allow_patterns=sorted(names),
            delete_patterns=sorted(removed) or None,
            commit_message=message,
        )
        found = hub.get_paths_info(address.repository, sorted(names), revision=done.oid)
    there = {file.path: file for file in found}
    for name in sorted(names):
        if name not in there or not _is_same(folder / name, there[name]):
            raise UserError(
                f"{address} has another {name} after the upload than {folder.name}: give the same command again"
            )
    return done.oid


def _is_same(path: Path, stored) -> bool:
    """Compare a file with what the hub knows of its copy: the SHA-256 of a large file, the Git hash of a small one."""
    content = path.read_bytes()
    if stored.lfs is not None:
        return hashlib.sha256(content).hexdigest() == stored.lfs.sha256
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == stored.blob_id


@contextlib.contextmanager
def _explaining(address: Address) -> Iterator[None]:
    """Turn the errors of an upload into one line each."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{address}: {_explain(address, error)}") from error


def _explain(address: Address, error: Exception) -> str:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in _REFUSED:
        return (
            f"the hub refuses the upload (status {status}): the token needs write access to {address.repository.split('/')[0]}; "
            "create one on the hub's page of access tokens, then run `hf auth login` or set HF_TOKEN"
        )
    if status is not None:
        return f"the hub answered the upload with status {status} ({reason_of(error)}): nothing of it is there; try again later"
    return (
        f"the upload failed ({reason_of(error)}): check the network, then give the same command again; an upload is one commit, so "
        "that all of it is there or nothing"
    )
