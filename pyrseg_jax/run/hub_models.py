"""Model folders in repositories of the Hugging Face hub: find them in the hub's cache, or download them into it."""

import logging
from pathlib import Path

from pyrseg_jax.errors import UserError
from pyrseg_jax.run.model_folder import CARD, LICENSE, OPTIONAL, REQUIRED
from pyrseg_jax.run.packaged_models import ABOUT_MODEL
from pyrseg_jax.run.workdir import CALIBRATION
from pyrseg_jax.storage import hub
from pyrseg_jax.storage.documents import shorten

log = logging.getLogger(__name__)

NUM_NAMED = 5  # files that an error message lists


def fetch_model(text: str) -> Path:
    """Return the folder of a model in the hub's cache, downloaded if it is not there.

    What the cache holds is taken without the network, even if the branch has moved since. All files are of one commit. The
    reader of the folder checks their SHA-256.

    Args:
      text: hf://ORG/NAME, or hf://ORG/NAME@REVISION with a branch, a tag or a commit.

    Raises:
      UserError: naming the address, if it names a single file, if the repository holds no model folder, or if it cannot be
        downloaded.
    """
    address = hub.parse_address(text)
    if address.file is not None:
        raise UserError(
            f"{text} names a file, and a model is a whole repository: expected hf://ORG/NAME or hf://ORG/NAME@REVISION"
        )
    cached = hub.find_cached(address)
    if cached is not None and (cached / ABOUT_MODEL).is_file():
        log.info("%s: taking commit %s from the cache", address, cached.name)
        return cached
    names = hub.list_files(address)
    if ABOUT_MODEL not in names:
        found = ", ".join(map(shorten, names[:NUM_NAMED])) or "nothing"
        raise UserError(
            f"{address} holds no model of pyrseg, but {found}: expected a repository that `pyrseg push` wrote, with {ABOUT_MODEL}"
        )
    wanted = [name for name in (*REQUIRED, *OPTIONAL, CARD, CALIBRATION, LICENSE) if name in names]
    log.info("%s: downloading %d files", address, len(wanted) + 1)
    # The first file fixes the commit of all others. The last one makes the folder a model: an interrupted download has none.
    for name in wanted:
        address = address._replace(revision=hub.commit_of(hub.download(address, name)) or address.revision)
    folder = hub.download(address, ABOUT_MODEL).parent
    log.info("%s: taking commit %s", text, folder.name)
    return folder
