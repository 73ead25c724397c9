"""`pyrseg push RUN --to=hf://ORG/NAME`: upload a trained model to the Hugging Face hub, checked before and after."""

import logging
import tempfile
from pathlib import Path

from pyrseg_jax.errors import UserError
from pyrseg_jax.export.sharing import Shared, prepare, publish
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.hub import MAIN, Address, is_address, parse_address
from pyrseg_jax.storage.hub_upload import check_token, import_for_upload

log = logging.getLogger(__name__)


def push(
    config: Config,
    workdir: Workdir,
    to: str,
    revision: str | None = None,
    is_private: bool = False,
    is_dry: bool = False,
    step: int | None = None,
    is_half: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the model folder of a run to a temporary place, check it, and upload it as one commit; a model folder as it is.

    Args:
      config: the run's configuration.
      workdir: the run's folder, or a model folder.
      to: the repository, hf://ORG/NAME or hf://ORG/NAME@BRANCH.
      revision: the branch, if `to` names none.
      is_private: whether a new repository is private.
      is_dry: whether to print what would be uploaded, and upload nothing.
      step: step of the run's checkpoint; by default the newest.
      is_half: whether to store kernels in half precision.
      overwrite: whether to replace a model card that is in the repository already.

    Raises:
      UserError: if there is no model or no token, the model was changed, or the hub refuses.
    """
    address = _read_target(to, revision)
    import_for_upload(address)
    if not is_dry:
        check_token(address)  # before a checkpoint is read
    with tempfile.TemporaryDirectory() as place:
        shared = prepare(Path(place), address, config, workdir, step, is_half)
        for note in shared.notes:
            log.warning("%s", note)
        if is_dry:
            _show(shared, address)
            return
        commit, is_card_kept = publish(shared, address, is_private, overwrite)
    if is_card_kept:
        log.info("the model card in the repository stays as it is; --overwrite replaces it")
    log.info("uploaded, and every file there is equal to the one here; use it with pyrseg_jax.load(%r)", str(address))
    print(address._replace(revision=commit), flush=True)


def _read_target(to: str, revision: str | None) -> Address:
    if not is_address(to):
        raise UserError(f"--to={to}: expected hf://ORG/NAME")
    address = parse_address(to)
    if address.file is not None:
        raise UserError(f"--to={to} names a file: expected hf://ORG/NAME")
    if revision is not None and address.revision not in (MAIN, revision):
        raise UserError(f"--to={to} and --revision={revision} name two branches: name one of them")
    return address if revision is None else address._replace(revision=revision)


def _show(shared: Shared, address: Address) -> None:
    """Print the files with their sizes, and the card."""
    sizes = {name: (shared.folder / name).stat().st_size for name in shared.names}
    width = max(map(len, sizes))
    print(f"{address} would get:")
    for name, size in sizes.items():
        print(f"  {name:{width}}  {size:>12,} bytes")
    print(f"  {'together':{width}}  {sum(sizes.values()):>12,} bytes\n\n{shared.card}", flush=True)
