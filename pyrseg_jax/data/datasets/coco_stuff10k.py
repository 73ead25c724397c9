"""Provide `coco_stuff10k`: COCO-Stuff 10K v1.1, 171 classes.

9,000 training and 1,000 test photographs; 91 classes are stuff, 80 are things. Each label map is the variable `S` of a MATLAB file:
0 means unlabeled (void), and 1 … 182 follow COCO's numbering. Of these, 11 things (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
never occur. The other 171 values, in ascending order, are the classes.

Source: Caesar, Uijlings, Ferrari, *COCO-Stuff: Thing and Stuff Classes in Context*, CVPR 2018. The hierarchy of the classes is the
  published one, without the classes that never occur.

Chosen: the colors come from the bits of the label value, as in PASCAL VOC, because no published palette gives every class its
  own color.
"""

from pyrseg_jax.data import listed_pairs
from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.download import PublishedFile
from pyrseg_jax.data.file_dataset import FileDataset
from pyrseg_jax.data.listed_pairs import Kind
from pyrseg_jax.data.pairs import ArchiveSource

LISTS = {"training": "imageLists/train.txt", "test": "imageLists/test.txt"}
KINDS = (Kind("images", ".jpg"), Kind("annotations", ".mat"))
LAYOUT = "images/NAME.jpg, annotations/NAME.mat and imageLists/{train,test}.txt, as in cocostuff-10k-v1.1.zip"


def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
    """List the pairs of both splits, in the order of the published lists; raises UserError as `listed_pairs.list_splits` does."""
    from pyrseg_jax.data.mat_labels import mat_to_png  # imports h5py

    return listed_pairs.list_splits(archive, LISTS, KINDS, mat_to_png)


FILES = FileDataset(
    name="coco_stuff10k",
    label_space=read_class_table("coco_stuff10k", has_hierarchy=True),
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
