"""Provide `coco_stuff10k`: COCO-Stuff 10K v1.1, 171 classes.

Source: Caesar, Uijlings, Ferrari, *COCO-Stuff: Thing and Stuff Classes in Context*, CVPR 2018. Label maps are the variable `S`
of MATLAB files: 0 is unlabelled (void), 1 … 182 are numbered as COCO does; of these 11 things (12, 26, 29, 30, 45, 66, 68, 69, 71,
83, 91) have no label anywhere. The other 171 are the classes, in this order.

Chosen: colours by the bits of the label value, as PASCAL VOC does, for none were published that tell all classes apart.
"""

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.download import Published
from pyrseg_jax.data.mat_labels import mat_to_png
from pyrseg_jax.data.native import NativeBuilder
from pyrseg_jax.data.pairs import ArchiveSource, PairFiles
from pyrseg_jax.errors import UserError

LISTS = {"training": "imageLists/train.txt", "test": "imageLists/test.txt"}


class CocoStuff10k(NativeBuilder):
    """Keep 9,000 training and 1,000 test photographs, 171 classes: 91 stuff, 80 things."""

    name = "coco_stuff10k"
    LABEL_SPACE = read_class_table("coco_stuff10k")
    PUBLISHED = Published(
        url="http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip",
        file_name="cocostuff-10k-v1.1.zip",
    )
    NUM_IMAGES = {"training": 9_000, "test": 1_000}
    MARKERS = ("imageLists",)
    ZIP_NAMES = ("cocostuff-10k-v1.1.zip",)
    # What other data sets call validation is the published test split here; the paper scores on it.
    ALIASES = {"validation": "test"}

    @staticmethod
    def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
        """List the pairs of both splits, in the order of the published lists.

        Raises:
          UserError: naming list and line, for a file that is not there or a name that is listed twice.
        """
        seen: dict[str, str] = {}
        files = {
            folder: frozenset(archive.files_in(folder) if archive.has_folder(folder) else ())
            for folder in ("images", "annotations")
        }
        return {
            split: ArchiveSource(archive, _read_list(archive, path, files, seen), mat_to_png)
            for split, path in LISTS.items()
        }


def _read_list(archive: Archive, path: str, files: dict[str, frozenset[str]], seen: dict[str, str]) -> list[PairFiles]:
    pairs = []
    for number, line in enumerate(archive.read(path).decode("utf-8", "replace").splitlines(), 1):
        name, where = line.strip(), f"{archive.place(path)}, line {number}"
        if not name:
            continue
        if name in seen:
            raise UserError(
                f"{where}: {name} was listed before, in {seen[name]}: each image belongs to one split, once"
            )
        seen[name] = where
        for folder, suffix in (("images", ".jpg"), ("annotations", ".mat")):
            if f"{name}{suffix}" not in files[folder]:
                raise UserError(
                    f"{where} names {name}, but {archive.place(f'{folder}/{name}{suffix}')} is missing: add the file, or "
                    "remove the line"
                )
        pairs.append(PairFiles(name, f"images/{name}.jpg", f"annotations/{name}.mat"))
    if not pairs:
        raise UserError(f"{archive.place(path)} lists no image: expected one name per line, without .jpg")
    return pairs
