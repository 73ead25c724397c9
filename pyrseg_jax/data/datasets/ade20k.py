"""Provide `ade20k`: the 150 classes of the SceneParsing benchmark, ADEChallengeData2016.

20,210 training and 2,000 validation photographs of scenes; 35 classes are stuff, 115 are things. The value 0 is "other" in the
label files, which counts as void.

Source: Zhou et al., *Scene Parsing through ADE20K Dataset*, CVPR 2017.

Chosen: the hierarchy of the classes is the project's own, because none is published for these 150: stuff and things, and 18 groups.
"""

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.download import PublishedFile
from pyrseg_jax.data.file_dataset import FileDataset
from pyrseg_jax.data.pairs import ArchiveSource, pair_source

LAYOUT = "images/{training,validation}/NAME.jpg and annotations/{training,validation}/NAME.png, as in ADEChallengeData2016.zip"
SPLITS = ("training", "validation")


def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
    """List the pairs of both splits, sorted by name."""
    return {split: pair_source(archive, f"images/{split}", f"annotations/{split}", LAYOUT) for split in SPLITS}


FILES = FileDataset(
    name="ade20k",
    label_space=read_class_table("ade20k", has_hierarchy=True),
    published=PublishedFile(
        url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        file_name="ADEChallengeData2016.zip",
        md5="7328b3957e407ddae1d3cbf487f149ef",
    ),
    num_images={"training": 20_210, "validation": 2_000},
    markers=("images/training",),
    zip_names=("ADEChallengeData2016.zip",),
    list_splits=list_splits,
    layout=LAYOUT,
    meaning="ADE20K (SceneParsing benchmark), 150 classes; downloaded",
)
SPEC = FILES.spec()
