"""Write data sets as label tools export them, to import them again. A label map holds 0 for void, and i + 1 for class i."""

import base64
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from pyrseg_jax.shapes.polygons import fill_rings, trace_polygons
from pyrseg_jax.shapes.rle import compress_runs, encode_runs

VOID = "void"


class Sample(NamedTuple):
    """A picture with its label map, and its split: "train" or "val"."""

    name: str
    split: str
    image: np.ndarray
    label: np.ndarray


class Scenes(NamedTuple):
    """Samples and the names of their classes."""

    names: tuple[str, ...]
    samples: tuple[Sample, ...]

    @property
    def with_void(self) -> tuple[str, ...]:
        return (VOID, *self.names)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_images(scenes: Scenes, root: Path, place: str) -> None:
    """Write the images as PNG; `place` is like `images/{split}/{name}.png`."""
    for sample in scenes.samples:
        write(root / place.format(split=sample.split, name=sample.name), png(sample.image))


def nested_rings(label: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return (value, outer ring) of all regions, of void as well, largest first: painted in this order, they give the map back."""
    return _nested_rings(label.tobytes(), label.shape)


@functools.cache
def _nested_rings(content: bytes, shape: tuple[int, int]) -> list[tuple[int, np.ndarray]]:
    label, found = np.frombuffer(content, np.uint8).reshape(shape), []
    for value in np.unique(label):
        for polygon in trace_polygons(label == value):
            found.append((int(value), polygon.outer, int(fill_rings([polygon.outer], *label.shape).sum())))
    return [(value, ring) for value, ring, _ in sorted(found, key=lambda item: -item[2])]


def color_of(value: int) -> tuple[int, int, int]:
    return (37 * value) % 256, (91 * value) % 256, (13 * value) % 256


def color_label(label: np.ndarray) -> np.ndarray:
    palette = np.array([color_of(value) for value in range(256)], np.uint8)
    return palette[label]


def coco_document(scenes: Scenes, split: str, style: str) -> dict:
    """Return a COCO document: of polygons, or of runs as text (`compressed`) or as numbers (`runs`)."""
    images, annotations = [], []
    for number, sample in enumerate((s for s in scenes.samples if s.split == split), 1):
        height, width = sample.label.shape
        images.append({"id": number, "file_name": f"{sample.name}.png", "height": height, "width": width})
        for value, segmentation, area in _segments(sample.label, style):
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": 10 * value, "iscrowd": 0}
            annotations.append(annotation | {"segmentation": segmentation, "area": area, "bbox": [0, 0, 1, 1]})
    categories = [{"id": 10 * value, "name": name} for value, name in enumerate(scenes.with_void)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _segments(label: np.ndarray, style: str) -> Iterator[tuple[int, object, int]]:
    if style == "polygons":
        for value, ring in nested_rings(label):
            yield value, [ring.reshape(-1).tolist()], 1
        return
    for value in np.unique(label):
        runs = encode_runs(label == value)
        counts = compress_runs(runs) if style == "compressed" else runs.tolist()
        yield int(value), {"size": list(label.shape), "counts": counts}, int((label == value).sum())


def write_coco(scenes: Scenes, root: Path, style: str = "polygons") -> None:
    write_images(scenes, root, "images/{split}2017/{name}.png")
    for split in ("train", "val"):
        text = json.dumps(coco_document(scenes, split, style))
        write(root / "annotations" / f"instances_{split}2017.json", text)


def write_panoptic(scenes: Scenes, root: Path) -> None:
    write_images(scenes, root, "{split}2017/{name}.png")
    for split in ("train", "val"):
        annotations, images = [], []
        for number, sample in enumerate((s for s in scenes.samples if s.split == split), 1):
            segments = [{"id": 1000 * int(v) + 7, "category_id": int(v)} for v in np.unique(sample.label) if v]
            numbers = np.where(sample.label > 0, 1000 * sample.label.astype(int) + 7, 0)
            colors = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1).astype(np.uint8)
            write(root / "annotations" / f"panoptic_{split}2017" / f"{sample.name}.png", png(colors))
            images.append({"id": number, "file_name": f"{sample.name}.png", "height": 1, "width": 1})
            annotations.append({"image_id": number, "file_name": f"{sample.name}.png", "segments_info": segments})
        categories = [{"id": value, "name": name} for value, name in enumerate(scenes.names, 1)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        write(root / "annotations" / f"panoptic_{split}2017.json", json.dumps(document))


def write_voc(scenes: Scenes, root: Path, label_map: bool = False) -> None:
    """Write VOC's layout: palette PNGs whose index is the class and 255 is void; or CVAT's, with colors and `labelmap.txt`."""
    write_images(scenes, root, "JPEGImages/{name}.png")
    for sample in scenes.samples:
        path = root / "SegmentationClass" / f"{sample.name}.png"
        if label_map:
            write(path, png(color_label(sample.label)))
            continue
        image = Image.fromarray(np.where(sample.label == 0, 255, sample.label - 1).astype(np.uint8))
        image.putpalette(bytes(range(256)) * 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    for split in ("train", "val"):
        names = [sample.name for sample in scenes.samples if sample.split == split]
        write(root / "ImageSets" / "Segmentation" / f"{split}.txt", "\n".join(names) + "\n")
    if label_map:
        lines = [f"{name}:{','.join(map(str, color_of(i)))}::" for i, name in enumerate(scenes.with_void)]
        write(root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "\n".join(lines) + "\n")


def write_labelme(scenes: Scenes, root: Path, style: str = "polygon") -> None:
    """Write LabelMe's files: polygons through the centers of border pixels, which are drawn with their outline, or masks."""
    for sample in scenes.samples:
        height, width = sample.label.shape
        shapes = []
        for value, ring, mask in _center_contours(sample.label):
            name = scenes.with_void[value]
            if style == "polygon":
                points = [ring[0], ring[0], *ring[1:]] if len(ring) < 3 else ring
                points = [*points, points[-1]] if len(points) < 3 else points
                shapes.append({"label": name, "points": [list(map(float, p)) for p in points], "shape_type": "polygon"})
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            corners = [[int(columns[0]), int(rows[0])], [int(columns[-1]), int(rows[-1])]]
            data = base64.b64encode(png(part)).decode()
            shapes.append({"label": name, "points": corners, "shape_type": "mask", "mask": data})
        document = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{sample.name}.png"}
        document |= {"imageData": None, "imageHeight": height, "imageWidth": width}
        write(root / sample.split / f"{sample.name}.json", json.dumps(document))
    write_images(scenes, root, "{split}/{name}.png")


def _center_contours(label: np.ndarray) -> list[tuple[int, list, np.ndarray]]:
    found = []
    for value in np.unique(label):
        num, regions = cv2.connectedComponents((label == value).astype(np.uint8), connectivity=8)
        for region in range(1, num):
            mask = regions == region
            contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            filled = np.zeros(label.shape, np.uint8)
            cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
            found.append((int(value), contours[0][:, 0].tolist(), mask, int(filled.sum())))
    return [(value, ring, mask) for value, ring, mask, _ in sorted(found, key=lambda item: -item[3])]


def write_cvat(scenes: Scenes, root: Path, style: str = "polygon") -> None:
    labels = "".join(f"<label><name>{name}</name></label>" for name in scenes.with_void)
    images = []
    for number, sample in enumerate(scenes.samples):
        height, width = sample.label.shape
        objects = []
        if style == "polygon":
            for order, (value, ring) in enumerate(nested_rings(sample.label)):
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring)
                name = scenes.with_void[value]
                objects.append(f'<polygon label="{name}" points="{points}" z_order="{order}"></polygon>')
            objects.reverse()  # the order of the file does not count where z_order says otherwise
        else:
            objects = [_cvat_mask(sample.label == v, scenes.with_void[v]) for v in np.unique(sample.label)]
        head = (
            f'<image id="{number}" name="{sample.name}.png" subset="{sample.split}" width="{width}" height="{height}">'
        )
        images.append(head + "".join(objects) + "</image>")
    text = f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>{''.join(images)}"
    write(root / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n{text}</annotations>')
    write_images(scenes, root, "images/{split}/{name}.png")


def _cvat_mask(mask: np.ndarray, name: str) -> str:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    runs = ", ".join(map(str, encode_runs(part.T)))  # along the rows
    box = f'left="{columns[0]}" top="{rows[0]}" width="{part.shape[1]}" height="{part.shape[0]}"'
    return f'<mask label="{name}" rle="{runs}" {box} z_order="0"></mask>'


def write_yolo(scenes: Scenes, root: Path) -> None:
    write_images(scenes, root, "images/{split}/{name}.png")
    for sample in scenes.samples:
        height, width = sample.label.shape
        lines = [
            " ".join([str(value), *(f"{share:.7f}" for share in (ring / (width, height)).reshape(-1))])
            for value, ring in nested_rings(sample.label)
        ]
        write(root / "labels" / sample.split / f"{sample.name}.txt", "\n".join(lines) + "\n")
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(scenes.with_void))
    write(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}")


def write_label_studio(scenes: Scenes, root: Path, style: str = "brush") -> None:
    tasks = []
    for number, sample in enumerate(scenes.samples):
        height, width = sample.label.shape
        results = []
        common = {"original_width": width, "original_height": height, "image_rotation": 0}
        if style == "brush":
            for value in np.unique(sample.label):
                rle = encode_brush(np.repeat((sample.label == value).reshape(-1) * 255, 4))
                region = {"format": "rle", "rle": rle, "brushlabels": [scenes.with_void[value]]}
                results.append(common | {"type": "brushlabels", "value": region})
        else:
            for value, ring in nested_rings(sample.label):
                points = (100 * ring / (width, height)).tolist()
                region = {"points": points, "polygonlabels": [scenes.with_void[value]]}
                results.append(common | {"type": "polygonlabels", "value": region})
        upload = f"/data/upload/1/{number:08x}-{sample.name}.png"
        tasks.append({"id": number, "data": {"image": upload}, "annotations": [{"id": 1, "result": results}]})
    write(root / "project.json", json.dumps(tasks))
    write_images(scenes, root, "images/{split}/{name}.png")


def encode_brush(values: np.ndarray) -> list[int]:
    """Encode the values of brush strokes as repeated groups of up to 65,536 values."""
    bits = [f"{len(values):032b}", f"{7:05b}", *(f"{length - 1:04b}" for length in (3, 4, 8, 16))]
    changes = np.flatnonzero(np.diff(values)) + 1
    starts, ends = [0, *changes], [*changes, len(values)]
    for start, end in zip(starts, ends, strict=True):
        for first in range(start, end, 2**16):
            count = min(end - first, 2**16)
            bits.append(f"111{count - 1:016b}{int(values[start]):08b}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]
