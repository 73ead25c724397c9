"""Write data sets of plain masks and of published layouts with one mask per picture, to import them again."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from support.label_tools import VOID, Scenes, color_label, color_of, png, write, write_images


def write_color_masks(scenes: Scenes, root: Path, style: str = "rgb") -> None:
    """Write RGB masks or palette masks, with the list `class_dict.csv`."""
    write_images(scenes, root, "{split}/images/{name}.png")
    for sample in scenes.samples:
        path = root / sample.split / "masks" / f"{sample.name}_mask.png"
        write(path, png(color_label(sample.label)))
        if style == "palette":
            image = Image.fromarray(sample.label[::1].astype(np.uint8))
            image.putpalette([channel for value in range(256) for channel in color_of(value)])
            image.save(path)
    lines = [f"{name},{','.join(map(str, color_of(i)))}" for i, name in enumerate(scenes.with_void)]
    write(root / "class_dict.csv", "name,r,g,b\n" + "\n".join(lines) + "\n")


def write_index_masks(scenes: Scenes, root: Path) -> None:
    write_images(scenes, root, "images/{split}/{name}.png")
    for sample in scenes.samples:
        write(root / "labels" / sample.split / f"{sample.name}.png", png(sample.label.astype(np.uint8)))
    write(root / "classes.txt", "\n".join(scenes.with_void) + "\n")


def write_binary_masks(scenes: Scenes, root: Path, high: int = 255) -> None:
    """Write masks of the last class."""
    write_images(scenes, root, "images/{split}/{name}.png")
    for sample in scenes.samples:
        mask = (sample.label == len(scenes.names)).astype(np.uint8) * high
        write(root / "masks" / sample.split / f"{sample.name}.png", png(mask))


def write_class_folders(scenes: Scenes, root: Path) -> None:
    write_images(scenes, root, "images/{name}.png")
    for sample in scenes.samples:
        for value, name in enumerate(scenes.with_void):
            write(root / "masks" / name / f"{sample.name}.png", png((sample.label == value).astype(np.uint8) * 255))


def write_cityscapes(scenes: Scenes, root: Path, kind: str = "labelIds") -> None:
    """Write the first classes of Cityscapes instead of the scenes' own, with two instances of each thing."""
    from pyrseg_jax.data.datasets.cityscapes import LABEL_SPACE

    write_images(scenes, root, "leftImg8bit/{split}/town/{name}_leftImg8bit.png")
    ids = np.array([0, *LABEL_SPACE.file_ids[: len(scenes.names)]], np.uint16)
    for sample in scenes.samples:
        values = ids[sample.label]
        if kind == "instanceIds":
            halves = (np.arange(values.shape[1]) > values.shape[1] // 2)[None]
            values = np.where(values >= 24, values * 1000 + halves, values)
        data = png(values if kind == "instanceIds" else values.astype(np.uint8))
        write(root / "gtFine" / sample.split / "town" / f"{sample.name}_gtFine_{kind}.png", data)


def write_mapillary(scenes: Scenes, root: Path) -> None:
    folders = {"train": "training", "val": "validation"}
    labels = [
        {"name": f"object--{name}", "readable": name.title(), "evaluate": name != VOID, "color": list(color_of(i))}
        for i, name in enumerate(scenes.with_void)
    ]
    write(root / "config.json", json.dumps({"version": 1.1, "labels": labels}))
    for sample in scenes.samples:
        folder = root / folders[sample.split]
        write(folder / "images" / f"{sample.name}.jpg", png(sample.image))
        write(folder / "labels" / f"{sample.name}.png", png(sample.label.astype(np.uint8)))


def write_stuff_maps(scenes: Scenes, root: Path) -> None:
    """Write the first classes of COCO-Stuff instead of the scenes' own."""
    from pyrseg_jax.data.datasets.coco_stuff10k import FILES

    write_images(scenes, root, "{split}2017/{name}.png")
    ids = np.array([0, *FILES.label_space.file_ids]) - 1  # COCO's numbers less one; void becomes 255
    for sample in scenes.samples:
        values = ids[sample.label] % 256
        write(root / "stuff_thing_maps" / f"{sample.split}2017" / f"{sample.name}.png", png(values.astype(np.uint8)))


def write_hugging_face(scenes: Scenes, root: Path, style: str = "parquet", num_channels: int = 1) -> None:
    """Write label maps of one channel, or of several equal ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, word in (("train", "train"), ("val", "validation")):
        samples = [sample for sample in scenes.samples if sample.split == split]
        maps = [np.dstack(num_channels * [sample.label]).astype(np.uint8).squeeze() for sample in samples]
        table = pa.table(
            {
                "image": [{"bytes": png(sample.image), "path": f"{sample.name}.png"} for sample in samples],
                "annotation": [{"bytes": png(label_map), "path": None} for label_map in maps],
                "scene_category": [0 for _ in samples],
            }
        )
        root.mkdir(parents=True, exist_ok=True)
        if style == "parquet":
            (root / "data").mkdir(exist_ok=True)
            pq.write_table(table, root / "data" / f"{word}-00000-of-00001.parquet", row_group_size=2)
        else:
            (root / word).mkdir()
            path = str(root / word / "data-00000-of-00001.arrow")
            with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
    write(root / "id2label.json", json.dumps({str(i): name for i, name in enumerate(scenes.with_void)}))
