"""Provide `coco_stuff10k`: COCO-Stuff 10K v1.1, 171 classes.

9,000 training and 1,000 test photographs; 91 classes are stuff, 80 are things. Each label map is the variable `S` of a MATLAB file:
0 means unlabeled (void), and 1 … 182 follow COCO's numbering. Of these, 11 things (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
never occur. The other 171 values, in ascending order, are the classes.

Source: Caesar, Uijlings, Ferrari, *COCO-Stuff: Thing and Stuff Classes in Context*, CVPR 2018.

Chosen: the colors come from the bits of the label value, as in PASCAL VOC, because no published palette gives every class its
  own color.
"""

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.download import PublishedFile
from pyrseg_jax.data.file_dataset import FileDataset
from pyrseg_jax.data.pairs import ArchiveSource, PairFiles
from pyrseg_jax.errors import UserError

LISTS = {"training": "imageLists/train.txt", "test": "imageLists/test.txt"}
LAYOUT = "images/NAME.jpg, annotations/NAME.mat and imageLists/{train,test}.txt, as in cocostuff-10k-v1.1.zip"


def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
    """List the pairs of both splits, in the order of the published lists.

    Raises:
      UserError: naming the list and the line, if a file is missing or a name is listed twice.
    """
    from pyrseg_jax.data.mat_labels import mat_to_png  # imports SciPy and h5py

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
    """Read one list of names. `seen` maps the names from the lists read before to the file and line that list them."""
    pairs = []
    for number, line in enumerate(archive.read(path).decode("utf-8", "replace").splitlines(), 1):
        name, where = line.strip(), f"{archive.place(path)}, line {number}"
        if not name:
            continue
        if name in seen:
            raise UserError(
                f"{where}: {name} is already listed in {seen[name]}: list each image only once, in one split"
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
        raise UserError(f"{archive.place(path)} lists no images: expected one name per line, without .jpg")
    return pairs


FILES = FileDataset(
    name="coco_stuff10k",
    label_space=read_class_table("coco_stuff10k"),
    published=PublishedFile(
        url="http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip",
        file_name="cocostuff-10k-v1.1.zip",
    ),
    num_images={"training": 9_000, "test": 1_000},
    markers=("imageLists",),
    zip_names=("cocostuff-10k-v1.1.zip",),
    list_splits=list_splits,
    layout=LAYOUT,
    # The published test split plays the part of a validation split; the paper reports its scores on it.
    aliases={"validation": "test"},
    meaning="COCO-Stuff 10K v1.1, 171 classes; downloaded",
)
SPEC = FILES.spec()
