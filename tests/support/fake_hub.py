"""A hub of repositories in memory, which downloads into a cache on disk with the layout of the real one."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
from huggingface_hub import constants, errors

RESPONSE = SimpleNamespace(headers={}, request=None, status_code=404)


class FakeHub:
    """Stand-ins for the functions of `huggingface_hub` that ask the network; `asked` counts the questions.

    Attributes:
      cache: the folder of the cache.
      asked: what was asked, in order: ("list", repository) or (file, repository).
      error: what every question raises; None: nothing.
      after_download: called with the name of each file after its download.
    """

    def __init__(self, monkeypatch, folder: Path):
        self.cache, self.asked, self.error = folder / "hub", [], None
        self.after_download = lambda file: None
        self._commits: dict[str, dict[str, dict[str, bytes]]] = {}
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(self.cache))
        monkeypatch.setattr(huggingface_hub, "list_repo_files", self._list)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self._download)

    def push(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit to the main branch and return its name."""
        commit = hashlib.sha1(repr((repository, sorted(files.items()))).encode()).hexdigest()
        self._commits.setdefault(repository, {})[commit] = files
        return commit

    def folder_of(self, repository: str) -> Path:
        return self.cache / f"models--{repository.replace('/', '--')}"

    def _find(self, repository: str, revision: str) -> str:
        if self.error is not None:
            raise self.error
        if repository not in self._commits:
            raise errors.RepositoryNotFoundError("404", response=RESPONSE)
        if revision != "main" and revision not in self._commits[repository]:
            raise errors.RevisionNotFoundError("404", response=RESPONSE)
        return list(self._commits[repository])[-1] if revision == "main" else revision

    def _list(self, repository: str, *, revision: str) -> list[str]:
        self.asked.append(("list", repository))
        commit = self._find(repository, revision)
        return sorted(self._commits[repository][commit])

    def _download(self, repository: str, file: str, *, revision: str) -> str:
        self.asked.append((file, repository))
        commit = self._find(repository, revision)
        if file not in self._commits[repository][commit]:
            raise errors.RemoteEntryNotFoundError("404", response=RESPONSE)
        content, folder = self._commits[repository][commit][file], self.folder_of(repository)
        blob, path = folder / "blobs" / hashlib.sha256(content).hexdigest(), folder / "snapshots" / commit / file
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.symlink_to(os.path.relpath(blob, path.parent))
        if revision != commit:
            (folder / "refs").mkdir(exist_ok=True)
            (folder / "refs" / revision).write_text(commit)
        self.after_download(file)
        return str(path)
