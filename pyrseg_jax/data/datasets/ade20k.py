"""Provide `ade20k`: the 150 classes of the SceneParsing benchmark, ADEChallengeData2016.

Source: Zhou et al., *Scene Parsing through ADE20K Dataset*, CVPR 2017. Label 0 is "other", which is void.
"""

from pyrseg_jax.data.archive import Archive
from pyrseg_jax.data.class_table import read_class_table
from pyrseg_jax.data.download import Published
from pyrseg_jax.data.native import NativeBuilder
from pyrseg_jax.data.pairs import ArchiveSource, list_pairs

LAYOUT = "images/{training,validation}/NAME.jpg and annotations/{training,validation}/NAME.png, as in ADEChallengeData2016.zip"


class Ade20k(NativeBuilder):
    """Keep 20,210 training and 2,000 validation photographs of scenes, 150 classes: 35 stuff, 115 things."""

    name = "ade20k"
    LABEL_SPACE = read_class_table("ade20k")
    PUBLISHED = Published(
        url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        file_name="ADEChallengeData2016.zip",
        md5="7328b3957e407ddae1d3cbf487f149ef",
    )
    NUM_IMAGES = {"training": 20_210, "validation": 2_000}
    MARKERS = ("images/training",)
    ZIP_NAMES = ("ADEChallengeData2016.zip",)

    @staticmethod
    def list_splits(archive: Archive) -> dict[str, ArchiveSource]:
        """List the pairs of both splits, by name."""
        return {
            split: ArchiveSource(archive, list_pairs(archive, f"images/{split}", f"annotations/{split}", LAYOUT))
            for split in Ade20k.NUM_IMAGES
        }
