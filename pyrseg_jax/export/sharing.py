"""Prepare a model folder for the Hugging Face hub, check it, and upload it."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.export.folder import write_folder_of_run
from pyrseg_jax.export.target import identity_of_run
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.model_folder import CARD, LICENSE, OPTIONAL, read_about_model
from pyrseg_jax.run.packaged_models import ABOUT_MODEL
from pyrseg_jax.run.workdir import CALIBRATION, Workdir
from pyrseg_jax.storage import hub_upload
from pyrseg_jax.storage.hub import Address

PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # files of a model folder that its card may show
_DIRTY = "-dirty"


class Shared(NamedTuple):
    """A model folder that is ready to be uploaded.

    folder: where it is.
    names: of the files to upload.
    notes: what its readers should know, and its author may want to change first.
    card: the text of the model card.
    """

    folder: Path
    names: tuple[str, ...]
    notes: tuple[str, ...]
    card: str


def prepare(place: Path, address: Address, config: Config, workdir: Workdir, step: int | None, is_half: bool) -> Shared:
    """Write the model folder of a run, or copy a model folder, and check it.

    Args:
      place: an empty folder for it.
      address: the repository that it is for, whose name it gets.
      config, workdir: the run, or the model folder.
      step, is_half: of a run, see `folder.write_folder_of_run`.

    Raises:
      UserError: if there is no model, a file of it was changed, or the card is not one of the hub.
    """
    target = place / address.repository.split("/")[1]
    target.mkdir()
    notes: list[str] = []
    if workdir.has_model():
        if is_half or step is not None:
            raise UserError(
                f"{workdir.path} is a model folder, which is uploaded as it is: leave out --half and --step"
            )
        left = _copy(Path(workdir.path), target)
        notes += [f"these files stay here: {', '.join(left)}"] if left else []
    else:
        run = identity_of_run(config, workdir)
        write_folder_of_run(target, config, workdir, run, step, is_half, str(address._replace(revision="main")))
        notes += _notes_of_run(workdir)
    read_about_model(target)
    card, about = _read_card(target / CARD)
    notes += _notes_of_card(about)
    names = tuple(sorted(path.name for path in target.iterdir()))
    return Shared(target, names, tuple(notes), card)


def publish(shared: Shared, address: Address, is_private: bool, is_overwriting: bool) -> tuple[str, bool]:
    """Upload a model folder as one commit.

    Args:
      shared: the folder.
      address: the repository and the branch; both are created if necessary.
      is_private: whether only its owners may read the repository.
      is_overwriting: whether a card that is in the repository already is replaced. Its author may have written in it.

    Returns:
      The commit, and whether the card of the repository was left as it is.

    Raises:
      UserError: if the hub refuses.
    """
    hub_upload.check_token(address)
    there = hub_upload.open_repository(address, is_private)
    is_card_kept = CARD in there and not is_overwriting
    names = [name for name in shared.names if not (is_card_kept and name == CARD)]
    # Files of an earlier upload that this model does not have would not belong to it.
    removed = [name for name in (*OPTIONAL, CALIBRATION) if name in there and name not in names]
    step = read_about_model(shared.folder).step
    commit = hub_upload.upload(address, shared.folder, names, removed, f"Upload the model of step {step} with pyrseg")
    return commit, is_card_kept


def _copy(source: Path, target: Path) -> list[str]:
    """Copy the files of a model folder, and pictures for its card; return the names of what is not copied."""
    about = read_about_model(source)
    known = {*about.sha256, ABOUT_MODEL, CARD, LICENSE, CALIBRATION}
    left = []
    for path in sorted(source.iterdir()):
        if path.is_file() and (path.name in known or path.suffix.lower() in PICTURES):
            shutil.copyfile(path, target / path.name)
        else:
            left.append(path.name)
    return left


def _read_card(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a model card and its metadata; raise UserError if the hub would not understand it."""
    from huggingface_hub import ModelCard  # pyright: ignore[reportMissingImports]  # `hub_upload` checks that it is there

    if not path.is_file():
        raise UserError(f"{path.name} is missing: a model in the hub needs a card; export the run again to get one")
    try:
        card = ModelCard.load(path)
        return card.content, card.data.to_dict()
    except Exception as error:  # of YAML, or of the metadata's fields
        raise UserError(
            f"{path.name} is not a model card of the hub ({reason_of(error)}): repair the block between the lines `---` at its top"
        ) from error


def _notes_of_card(about: dict[str, Any]) -> list[str]:
    notes = []
    if not about.get("model-index"):
        notes.append("the model was not evaluated: its card has no score; run `pyrseg evaluate` first")
    if not about.get("license"):
        notes.append(f"the card names no license, so nobody knows how to use the model: add `license: …` to {CARD}")
    return notes


def _notes_of_run(workdir: Workdir) -> list[str]:
    commit = workdir.read_git_commit()
    if commit is None or not commit.endswith(_DIRTY):
        return []
    return [
        f"the run was trained with changes of pyrseg_jax that no commit holds ({commit[:12]}…{_DIRTY}): nobody can repeat it from "
        "a released version"
    ]
