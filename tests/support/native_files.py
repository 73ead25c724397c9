"""Write small stand-ins for published data sets, in their native formats."""

import io
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from PIL import Image

from pyrseg_jax.data.datasets import pascal_context

# Name → number among the 459 categories; test_pascal_context.py compares them with what others state.
PASCAL_59 = dict(zip(pascal_context.LABEL_SPACE.names, pascal_context.CATEGORIES, strict=True))
ABSENT_IN_COCO = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)


def draw(rng: np.random.Generator, values, size=(40, 56)) -> tuple[np.ndarray, np.ndarray]:
    """Draw stripes of some of the values; return an (H, W, 3) image and an (H, W) label map."""
    stripes = rng.choice(values, 4)
    label = np.repeat(np.repeat(stripes, size[1] // 4)[None], size[0], 0).astype(np.uint8)
    image = np.clip(label[..., None] + rng.normal(0, 6, (*size, 3)), 0, 255).astype(np.uint8)
    return image, label


def write_ade20k(root: Path, num_training=5, num_validation=3, seed=0) -> Path:
    """Write ADEChallengeData2016/ below `root` and return it."""
    rng = np.random.default_rng(seed)
    base = root / "ADEChallengeData2016"
    for split, short, count in (("training", "train", num_training), ("validation", "val", num_validation)):
        for kind in ("images", "annotations"):
            (base / kind / split).mkdir(parents=True)
        for i in range(1, count + 1):
            image, label = draw(rng, np.arange(151), (40 + i, 56))
            Image.fromarray(image).save(base / "images" / split / f"ADE_{short}_{i:08}.jpg", quality=90)
            Image.fromarray(label).save(base / "annotations" / split / f"ADE_{short}_{i:08}.png")
    return base


def mat(values: np.ndarray | None, variable="S", **others) -> bytes:
    """Return a MATLAB file of version 5 with a label map and other variables."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, ({} if values is None else {variable: values}) | others, do_compression=True)
    return buffer.getvalue()


def mat_73(values: np.ndarray, variable="S") -> bytes:
    """Return a MATLAB file of version 7.3: HDF5 behind a header of 512 bytes, columns first."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        file.create_dataset(variable, data=values.T)
        file.create_dataset("names", data=np.zeros(3))
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    return header + buffer.getvalue()[len(header) :]


def write_coco_stuff10k(root: Path, num_training=4, num_test=2, seed=0) -> Path:
    """Write the layout of cocostuff-10k-v1.1.zip into `root` and return it."""
    rng = np.random.default_rng(seed)
    values = [value for value in range(183) if value not in ABSENT_IN_COCO]
    for folder in ("images", "annotations", "imageLists"):
        (root / folder).mkdir(parents=True)
    names = [f"COCO_train2014_{1000 - 7 * i:012}" for i in range(num_training + num_test)]  # not sorted by name
    for i, name in enumerate(names):
        image, label = draw(rng, values)
        Image.fromarray(image).save(root / "images" / f"{name}.jpg", quality=90)
        others = {"captions": np.array(["a photograph"], object), "regionLabelsStuff": np.zeros((3, 1))}
        data = mat_73(label) if i == 1 else mat(label.astype((np.uint8, np.uint16, np.float64)[i % 3]), **others)
        (root / "annotations" / f"{name}.mat").write_bytes(data)
    for list_name, part in (("train", names[:num_training]), ("test", names[num_training:]), ("all", names)):
        (root / "imageLists" / f"{list_name}.txt").write_text("\n".join(part) + "\n")
    return root


def write_pascal_context(root: Path, num_training=4, num_validation=3, seed=0) -> Path:
    """Write VOCdevkit/VOC2010/, trainval/ and labels.txt into `root`, as their archives unpack to, and return it."""
    rng = np.random.default_rng(seed)
    voc = root / "VOCdevkit" / "VOC2010"
    for folder in (voc / "JPEGImages", voc / "Annotations", voc / "ImageSets" / "Main", root / "trainval"):
        folder.mkdir(parents=True)
    names = [f"2008_{1000 - 7 * i:06}" for i in range(num_training + num_validation)]
    for i, name in enumerate([*names, "2010_000001"]):  # the last one is of another task: no list names it
        image, label = draw_wide(rng, 460, (30 + i, 56))
        Image.fromarray(image).save(voc / "JPEGImages" / f"{name}.jpg", quality=90)
        (voc / "Annotations" / f"{name}.xml").write_text("<annotation/>")
        if name in names:
            values = label.astype((np.uint16, np.float64)[i % 2])
            (root / "trainval" / f"{name}.mat").write_bytes(mat(values, "LabelMap"))
    for list_name, part in (("train", names[:num_training]), ("val", names[num_training:]), ("trainval", names)):
        (voc / "ImageSets" / "Main" / f"{list_name}.txt").write_text("\n".join(part) + "\n")
    names_of = {number: name for name, number in PASCAL_59.items()}
    lines = [f"{number}: {names_of.get(number, f'category {number}')}\n" for number in range(1, 460)]
    (root / "labels.txt").write_text("".join(lines))
    return root


def draw_wide(rng: np.random.Generator, num_values: int, size) -> tuple[np.ndarray, np.ndarray]:
    """Draw stripes as `draw` does, of values that may exceed a byte. Half of them are among the 59 classes of PASCAL-Context."""
    stripes = np.where(rng.random(8) < 0.5, rng.choice(list(PASCAL_59.values()), 8), rng.integers(0, num_values, 8))
    label = np.repeat(np.repeat(stripes, size[1] // 8)[None], size[0], 0)
    image = np.clip(label[..., None] % 256 + rng.normal(0, 6, (*size, 3)), 0, 255).astype(np.uint8)
    return image, label


def write_converted_context(root: Path, **kwargs) -> Path:
    """Write VOCdevkit/VOC2010/ as mmsegmentation's converter leaves it, and return `root`."""
    write_pascal_context(root, **kwargs)
    voc = root / "VOCdevkit" / "VOC2010"
    (voc / "SegmentationClassContext").mkdir()
    (voc / "ImageSets" / "SegmentationContext").mkdir()
    for path in (root / "trainval").iterdir():
        categories = scipy.io.loadmat(path)["LabelMap"]
        values = np.searchsorted([0, *sorted(PASCAL_59.values())], categories)
        is_other = ~np.isin(categories, list(PASCAL_59.values()))
        label = np.where(is_other, 0, values).astype(np.uint8)
        Image.fromarray(label).save(voc / "SegmentationClassContext" / f"{path.stem}.png")
        path.unlink()
    for name in ("train", "val"):
        data = (voc / "ImageSets" / "Main" / f"{name}.txt").read_bytes()
        (voc / "ImageSets" / "SegmentationContext" / f"{name}.txt").write_bytes(data)
    (root / "trainval").rmdir()
    return root


def write_camvid_tutorial(root: Path, seed=0) -> Path:
    """Write CamVid/ in the layout of SegNet's tutorial, with two frames in each split, and return it."""
    rng = np.random.default_rng(seed)
    base = root / "CamVid"
    for split in ("train", "val", "test"):
        for folder in (split, f"{split}annot"):
            (base / folder).mkdir(parents=True)
        for i in range(2):
            image, label = draw(rng, np.arange(12))
            Image.fromarray(image).save(base / split / f"{split}_{i}.png")
            Image.fromarray(label).save(base / f"{split}annot" / f"{split}_{i}.png")
    return base


def zip_folder(folder: Path, target: Path, with_parent=True) -> Path:
    """Pack a folder the way publishers do, with an entry for each folder."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder.parent if with_parent else folder))
    return target


def tar_folder(folder: Path, target: Path) -> Path:
    """Pack a folder into a tar, compressed if the name of the target ends in `gz`, with an entry for each folder."""
    with tarfile.open(target, "w:gz" if target.suffix.endswith("gz") else "w") as file:
        file.add(folder, folder.name)
    return target
