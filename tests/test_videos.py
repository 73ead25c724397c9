"""Videos and the frames of a folder: labels without loss, an overlay that plays, and nothing done twice."""

import logging
import sys

import numpy as np
import pytest
from PIL import Image
from support.exports import CLASSES, write_toy

from pyrseg_jax.commands.predict import predict
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.predictor import load_exported

av = pytest.importorskip("av")
SPACE = ade_layout(CLASSES)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("model") / "toy.zip", sizes=((16, 24),))


def draw_frame(number, height=33, width=50):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : 4 * number] = (200, 60, 10 * number)
    return frame


def write_video(path, num_frames=7):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=12)
        stream.height, stream.width, stream.pix_fmt = 33, 50, "bgr0"
        for number in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw_frame(number), format="rgb24")))
        container.mux(stream.encode())


def frames_of(path, layout):
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate)
        return rate, [frame.to_ndarray(format=layout) for frame in container.decode(video=0)]


def run(model, source, out, **arguments):
    predict(None, None, str(source), str(out), model=str(model), **arguments)


def test_a_video_gets_its_labels_and_its_overlay(model, tmp_path, caplog):
    write_video(tmp_path / "clip.mkv")
    caplog.set_level(logging.INFO)
    run(model, tmp_path / "clip.mkv", tmp_path / "out")
    rate, labels = frames_of(tmp_path / "out" / "clip_labels.mkv", "gray")
    predictor, _ = load_exported(model)
    assert rate == 12 and len(labels) == 7
    for number, found in enumerate(labels):
        expected = SPACE.to_file_values(predictor.segment(draw_frame(number)).labels)
        assert np.array_equal(found, expected), number
    rate, overlay = frames_of(tmp_path / "out" / "clip_overlay.mp4", "rgb24")
    assert rate == 12 and len(overlay) == 7 and overlay[0].shape == (34, 50, 3)
    expected = np.asarray(predictor.segment(draw_frame(6)).overlay())
    assert np.abs(overlay[6][:33].astype(int) - expected).mean() < 12  # MP4 loses a little
    assert "clip.mkv: 7 frames, " in caplog.text and "frames per second" in caplog.text
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    run(model, tmp_path / "clip.mkv", tmp_path / "out")
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_the_frames_of_folders_become_videos(model, tmp_path):
    for folder, count in (("shots", 5), ("shots/second", 3)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            Image.fromarray(draw_frame(number)).save(tmp_path / folder / f"{number:03}.png")
    run(model, tmp_path / "shots", tmp_path / "out", fps=25.0, outputs=("overlay",))
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"shots_overlay.mp4", "second_overlay.mp4"}
    rate, frames = frames_of(tmp_path / "out" / "shots_overlay.mp4", "rgb24")
    assert rate == 25 and len(frames) == 5
    Image.fromarray(draw_frame(0, 20, 20)).save(tmp_path / "shots" / "second" / "009.png")
    with pytest.raises(UserError, match="009.png is 20 × 20 pixels, but the first frame of its folder 50 × 33"):
        run(model, tmp_path / "shots", tmp_path / "out", fps=25.0, outputs=("overlay",))
    assert len(frames_of(tmp_path / "out" / "second_overlay.mp4", "rgb24")[1]) == 3  # the old one is whole


def test_what_is_no_video_is_one_clear_line(model, tmp_path, monkeypatch):
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(UserError, match=r"broken\.mp4 cannot be segmented \(.*\): replace it"):
        run(model, tmp_path / "broken.mp4", tmp_path / "out")
    write_video(tmp_path / "clip.mkv", 1)
    with pytest.raises(UserError, match="--outputs=coco is not written of videos: expected some of labels, overlay"):
        run(model, tmp_path / "clip.mkv", tmp_path / "out", outputs=("coco",))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"install the extra `video` \(`pip install 'pyrseg-jax\[video\]'`\)"):
        run(model, tmp_path / "clip.mkv", tmp_path / "out")
    assert not list((tmp_path / "out").glob("clip*"))
