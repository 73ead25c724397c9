"""The folder for caches: the user's own, or else a private temporary one. This file imports the standard library only."""

import functools
import os
import stat
import tempfile
from pathlib import Path

NAME = "pyrseg_jax"


def cache_folder() -> Path:
    """Return a folder that this user can write caches to, created if necessary.

    It is `pyrseg_jax` below `XDG_CACHE_HOME` or `~/.cache`. Without a home, or where it cannot be written, it is a folder of the
    user's own in the temporary folder. Other users cannot write to it, so they cannot put anything into it that this process
    would later trust. If no folder at all can be written, it is the first of these nevertheless, and writing to it fails.
    """
    return _find(os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", ""), os.environ.get("TMPDIR", ""))


@functools.cache
def _find(cache_home: str, home: str, temporary: str) -> Path:
    """Find the folder; the arguments are the environment variables that it depends on."""
    # The standard says that a relative path counts as not set. Without a home, "~" stays as it is, which is relative, too.
    usual = next((path for path in (cache_home, os.path.expanduser("~/.cache")) if os.path.isabs(path)), None)
    if usual is not None and is_writable(Path(usual) / NAME):
        return Path(usual) / NAME
    return _private_temporary_folder() or Path(usual or os.path.abspath(".cache")) / NAME


def prepare_library_caches() -> None:
    """Give Matplotlib a folder for its list of fonts if it would otherwise complain about the user's own."""
    if os.environ.get("MPLCONFIGDIR") or _can_be_made(_matplotlib_folder()):
        return
    os.environ["MPLCONFIGDIR"] = str(cache_folder() / "matplotlib")


def _can_be_made(folder: Path) -> bool:
    """Return whether a folder is writable or can be created, without creating it."""
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return existing is not None and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _matplotlib_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "matplotlib"


def is_writable(folder: Path) -> bool:
    """Return whether files can be created in a folder, which is created if necessary. Answers by trying."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except (OSError, ValueError):
        return False


def _private_temporary_folder() -> Path | None:
    """Return a folder that only this user can write to, the same in every process of the user if possible."""
    try:
        folder = Path(tempfile.gettempdir()) / f"{NAME}-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(folder)  # someone else may have created it, or a link of this name
        is_private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        if is_private and is_writable(folder):
            return folder
    except OSError:
        pass
    try:
        return Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
    except OSError:
        return None
