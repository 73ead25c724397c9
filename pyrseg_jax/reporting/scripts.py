"""The scripts that several pages for browsers share."""

import importlib.resources

SHARED = ("fuse.js", "paint.js")


def shared_script(name: str) -> str:
    """Return one of the `SHARED` scripts."""
    return (importlib.resources.files("pyrseg_jax.reporting") / name).read_text(encoding="utf-8")
