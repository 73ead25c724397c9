"""The data sets by name. To add one, write a file in this folder that defines its `SPEC`, and add a line here."""

from pyrseg_jax.data.datasets import (
    ade20k,
    camvid,
    cityscapes,
    coco_stuff10k,
    endless_scenes,
    folder,
    pascal_context,
    pascal_voc,
    scenes,
)
from pyrseg_jax.data.spec import DatasetSpec

DATASETS: dict[str, DatasetSpec] = {
    "ade20k": ade20k.SPEC,
    "coco_stuff10k": coco_stuff10k.SPEC,
    "pascal_context": pascal_context.SPEC,
    "camvid": camvid.SPEC,
    "pascal_voc": pascal_voc.SPEC,
    "cityscapes": cityscapes.SPEC,
    "scenes": scenes.SPEC,
    "endless_scenes": endless_scenes.SPEC,
    "folder": folder.SPEC,
}
