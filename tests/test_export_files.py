"""An exported model is checked as a whole before it is used: the right model, or one line that names the file and the part."""

import io
import json
import os
import random
import struct
import warnings
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given
from hypothesis import strategies as st
from support import exports

import pyrseg_jax
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.export.read import read_export
from pyrseg_jax.export.write import segment
from pyrseg_jax.storage.npz import ArraySpec, read_npz
from pyrseg_jax.storage.stored_zip import StoredZip

WEIGHT = "params/classify_4/kernel"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file that nobody changed."""
    return exports.write_toy(tmp_path_factory.mktemp("toy") / "model.zip")


@pytest.fixture(scope="module")
def parts(whole):
    return exports.read_parts(whole)


@pytest.fixture(scope="module")
def expected(whole):
    """The model that is in it."""
    return read_export(whole)


def is_equal(found, expected) -> bool:
    """Whether two models segment alike: everything but what only people read."""
    keys = ("classes", "label_space", "sizes", "threshold")
    return (
        all(found.about[key] == expected.about[key] for key in keys)
        and found.weights.keys() == expected.weights.keys()
        and all(np.array_equal(found.weights[name], array) for name, array in expected.weights.items())
        and found.programs.keys() == expected.programs.keys()
    )


def outcome(path, expected) -> str:
    """Read a file; it must be the same model, or one printable line that begins with the file's name."""
    try:
        found = read_export(path)
    except UserError as error:
        message = str(error)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert escaped(message) == message
        assert len(message) < len(str(path)) + 500
        return message
    assert is_equal(found, expected)
    return "the same model"


def test_what_was_written_is_read(expected):
    assert expected.about["format"] == 2
    assert expected.label_space.names == exports.CLASSES
    images = np.zeros((3, 16, 24, 3), np.uint8)
    assert expected.programs[16, 24](expected.weights, images)["labels"].shape == (3, 16, 24)


def test_equal_models_give_equal_files(whole, tmp_path):
    again = exports.write_toy(tmp_path / "model.zip")
    assert again.read_bytes() == whole.read_bytes()


def test_a_file_tells_nothing_about_the_machine(whole):
    content = whole.read_bytes()
    for place in (Path(pyrseg_jax.__file__).parent, Path(jax.__file__).parent, Path(__file__).parent, whole.parent):
        assert str(place).encode() not in content


def test_a_file_without_checksums_is_read_and_this_is_said(parts, expected, tmp_path, caplog):
    old = exports.changed_about(parts, format=1, sha256=None, run=None)
    path = exports.write_parts(tmp_path / "old.zip", old)
    assert is_equal(read_export(path), expected)
    assert "old.zip has no checksums, because an earlier version wrote it" in caplog.text


LABEL_SPACE = {"names": ["a", "b", "c"], "file_ids": [1, 2, 3]}
WRONG_ABOUT = {
    "another format": ({"format": 3}, "has format 3, .* a newer version wrote it"),
    "a huge format": ({"format": 10**30}, "has format 1000.* a newer version wrote it"),
    "a format that is no number": ({"format": "2"}, "about.json: format='2': expected int, found str"),
    "a negative format": ({"format": -1}, "about.json: format=-1: expected at least 1"),
    "three names for eleven classes": ({"classes": ["a", "b", "c"], "label_space": LABEL_SPACE}, "classes and strides"),
    "two lists of names": (
        {"classes": ["a", "b", "c"]},
        "the same names in classes and in label_space, found 3 and 11",
    ),
    "fewer values than names": (
        {"label_space": LABEL_SPACE | {"file_ids": [1]}},
        "found 3 names and 1 file_ids",
    ),
    "a size of zero": ({"sizes": [[0, 16]]}, r"about.json: sizes\[0\]\[0\]=0: expected at least 1"),
    "a negative size": ({"sizes": [[16, -16]]}, r"about.json: sizes\[0\]\[1\]=-16: expected at least 1"),
    "a size beside the grid": ({"sizes": [[12, 16]]}, r"sizes: expected multiples of 8, .* found \(12, 16\)"),
    "the same size twice": ({"sizes": [[16, 16], [16, 16]]}, "sizes: expected different sizes"),
    "another size": ({"sizes": [[16, 16], [32, 32]]}, "about.json: expected sha256 of every part|32x32.stablehlo"),
    "fewer sizes": ({"sizes": [[16, 16]]}, "expected sha256 of every part but about.json|16x24.stablehlo"),
    "no sizes": ({"sizes": []}, r"about.json: sizes=\[\]"),
    "strides from fine to coarse": ({"strides": [4, 8]}, "strides=.*: expected coarse to fine"),
    "strides that do not divide": ({"strides": [8, 3]}, "strides=.*: expected coarse to fine, each a multiple"),
    "other strides": ({"strides": [8, 4, 2]}, "returns level as .*, expected"),
    "fewer strides": ({"strides": [4]}, "returns (level|probs|semantic|unity) as"),
    "a threshold of two": ({"threshold": 2.0}, "threshold=2.0: expected at most 1"),
    "a name with a line break": (
        {"classes": ["a\nerror: b"], "label_space": {"names": ["a\nerror: b"], "file_ids": [1]}},
        r"expected names without control characters, found the name 'a\\nerror: b'",
    ),
    "no checksums": ({"sha256": None}, "expected sha256 of the parts from format 2 on"),
    "checksums in format 1": ({"format": 1}, "expected sha256 of the parts from format 2 on, and not before"),
}


@pytest.mark.parametrize(("values", "message"), WRONG_ABOUT.values(), ids=WRONG_ABOUT)
def test_a_wrong_description_is_named(parts, expected, tmp_path, values, message):
    path = exports.write_parts(tmp_path / "bad.zip", exports.changed_about(parts, **values))
    with pytest.raises(UserError, match=message):
        read_export(path)
    outcome(path, expected)


def exchange(arrays):
    return arrays | {WEIGHT: arrays["params/classify_8/kernel"], "params/classify_8/kernel": arrays[WEIGHT]}


def objects(arrays):
    return arrays | {WEIGHT: np.array([print], object)}


WRONG_WEIGHTS = {
    "not finite": (lambda a: a | {WEIGHT: a[WEIGHT] * np.nan}, f"'{WEIGHT}' holds numbers that are not finite"),
    "infinite": (lambda a: a | {WEIGHT: a[WEIGHT] + np.inf}, f"'{WEIGHT}' holds numbers that are not finite"),
    "of another shape": (
        lambda a: a | {WEIGHT: a[WEIGHT][:2]},
        rf"'{WEIGHT}' has the shape \(2, 11\): expected \(3, 11\)",
    ),
    "transposed": (lambda a: a | {WEIGHT: a[WEIGHT].T}, rf"'{WEIGHT}' has the shape \(11, 3\)"),
    "of another type": (
        lambda a: a | {WEIGHT: a[WEIGHT].astype("f8")},
        f"'{WEIGHT}' has the type float64: expected float32",
    ),
    "of the other byte order": (
        lambda a: a | {WEIGHT: a[WEIGHT].astype(">f4")},
        f"'{WEIGHT}' has the type >f4: expected float32",
    ),
    "missing": (lambda a: {n: x for n, x in a.items() if n != WEIGHT}, f"'{WEIGHT}' is missing"),
    "too many": (lambda a: a | {"more": a[WEIGHT]}, "'more' is not expected"),
    "objects": (objects, f"'{WEIGHT}' has the type object: expected float32"),
}


@pytest.mark.parametrize(("change", "message"), WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS)
def test_wrong_weights_are_named(parts, expected, tmp_path, change, message):
    path = exports.write_parts(tmp_path / "bad.zip", exports.changed_weights(parts, change))
    with pytest.raises(UserError, match=f"bad.zip: the part weights.npz: the array {message}"):
        read_export(path)
    outcome(path, expected)


def test_parts_that_were_exchanged_are_told_by_their_checksums(parts, expected, tmp_path):
    changed = exports.changed_weights(parts, exchange)
    path = exports.write_parts(tmp_path / "bad.zip", changed, has_true_checksums=False)
    with pytest.raises(
        UserError, match=r"bad.zip: the part weights.npz has another SHA-256 than the file's about.json"
    ):
        read_export(path)
    readme = parts | {"README.txt": b"run this: curl"}
    path = exports.write_parts(tmp_path / "bad.zip", readme, has_true_checksums=False)
    assert "README.txt has another SHA-256" in outcome(path, expected)


def test_arrays_in_column_order_are_read(parts, expected, tmp_path):
    changed = exports.changed_weights(parts, lambda a: {name: np.asfortranarray(x) for name, x in a.items()})
    assert changed != parts
    assert outcome(exports.write_parts(tmp_path / "model.zip", changed), expected) == "the same model"


def test_a_program_must_fit_the_description(parts, expected, tmp_path):
    first, second = "16x16.stablehlo", "16x24.stablehlo"
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.uint8)

    for change, message in (
        ({first: parts[second], second: parts[first]}, r"does not take weights by name and images \(n, 16, 16, 3\)"),
        ({first: parts[first][:5000]}, "the part 16x16.stablehlo cannot be read"),
        ({first: b""}, "the part 16x16.stablehlo cannot be read"),
        ({first: b"\xff" * 4000}, "the part 16x16.stablehlo cannot be read"),
        ({first: exports.serialized(lambda x: x + 1, images)}, "does not take weights by name and images"),
        (
            {first: exports.serialized(lambda w, x: x + w["a"].sum().astype("u1"), {"a": images}, images)},
            "does not take",
        ),
    ):
        path = exports.write_parts(tmp_path / "bad.zip", parts | change)
        with pytest.raises(UserError, match=message):
            read_export(path)
        outcome(path, expected)


def test_a_program_that_calls_foreign_code_is_refused(parts, tmp_path):
    model, variables = exports.toy(), exports.toy_variables()
    weights = {"/".join(at): jax.ShapeDtypeStruct(x.shape, x.dtype) for at, x in flatten_dict(variables).items()}
    (n,) = jax.export.symbolic_shape("n")

    def run(weights, images):
        found = segment(model, weights, images, 0.5)
        level = found["level"]
        return found | {"level": jax.ffi.ffi_call("stranger", jax.ShapeDtypeStruct(level.shape, level.dtype))(level)}

    program = exports.serialized(run, weights, jax.ShapeDtypeStruct((n, 16, 16, 3), jnp.uint8))
    path = exports.write_parts(tmp_path / "bad.zip", parts | {"16x16.stablehlo": program})
    with pytest.raises(UserError, match="16x16.stablehlo calls 'stranger', which no exported model does"):
        read_export(path)


def write_raw(path, entries, flags=0):
    """Write a zip file of (name, content) pairs, also with names that occur twice."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about names that occur twice
                file.writestr(name, content)
    content = bytearray(path.read_bytes())
    (at,) = struct.unpack("<I", content[-6:-2])  # of the list of parts
    content[at + 8] |= flags
    path.write_bytes(content)
    return path


def test_only_the_expected_parts_are_in_the_file(parts, expected, tmp_path):
    path = tmp_path / "bad.zip"
    entries = list(parts.items())
    for changed, message in (
        ([*entries, ("notes.txt", b"")], "the part 'notes.txt' is not expected"),
        ([*entries, ("../x", b"")], "the part '../x' has a name that is not a plain file name"),
        ([*entries, ("/etc/x", b"")], "the part '/etc/x' has a name that is not a plain"),
        ([*entries, ("a\nb", b"")], r"the part 'a\\nb' has a name that is not a plain"),
        ([*entries, entries[0]], "the part 'about.json' occurs twice"),
        (entries[1:], "is not an exported model: it has no part about.json"),
        ([entry for entry in entries if entry[0] != "README.txt"], "the part 'README.txt' is missing"),
        ([("about.json", b" " * 2**23), *entries[1:]], "about.json has 8388608 bytes, expected at most"),
    ):
        with pytest.raises(UserError, match=message):
            read_export(write_raw(path, changed))
        outcome(path, expected)
    with pytest.raises(UserError, match="the part 'about.json' is encrypted"):
        read_export(write_raw(path, entries, flags=1))
    with pytest.raises(UserError, match="the part 'about.json' is compressed"):
        read_export(exports.write_parts(path, parts, compression=zipfile.ZIP_DEFLATED))


def test_what_is_not_a_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "link.zip").symlink_to("/dev/zero")
    for name, kind in (("pipe.zip", "a named pipe"), ("link.zip", "a device")):
        with pytest.raises(UserError, match=f"{name} is {kind}: expected a regular file"):
            read_export(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read .*No such file"):
        read_export(tmp_path / "none.zip")
    with pytest.raises(UserError):
        pyrseg_jax.load(tmp_path / "pipe.zip")


@given(st.integers(0, 2**32), st.sampled_from(["flip", "cut", "zero", "grow"]))
def test_a_file_damaged_anywhere_is_the_same_model_or_one_line(whole, expected, tmp_path, seed, way):
    random_of = random.Random(seed)
    content = bytearray(whole.read_bytes())
    # Half of the places are in the list of parts at the end, which is much smaller than the parts.
    start = random_of.choice([0, len(content) - 600])
    at = random_of.randrange(start, len(content))
    if way == "flip":
        content[at] ^= 1 << random_of.randrange(8)
    elif way == "cut":
        del content[at:]
    elif way == "zero":
        content[at : at + 16] = bytes(len(content[at : at + 16]))
    else:
        content[at:at] = random_of.randbytes(16)
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    outcome(path, expected)


def nodes_of(document, at=()):
    """List the places inside a JSON document."""
    yield at
    if isinstance(document, dict | list):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from nodes_of(value, (*at, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_a_description_changed_in_one_place_is_the_same_model_or_one_line(parts, expected, tmp_path, data):
    about = json.loads(parts["about.json"])
    place = data.draw(st.sampled_from(sorted(nodes_of(about), key=repr)))
    value = data.draw(JSON | st.just("remove"))
    inner = {"": about}
    place = ("", *place)
    for key in place[:-1]:
        inner = inner[key]
    if value == "remove":
        del inner[place[-1]]
        about = about if len(place) > 1 else None
    else:
        inner[place[-1]] = value
        about = about if len(place) > 1 else value
    path = tmp_path / "model.zip"
    exports.write_parts(path, parts | {"about.json": json.dumps(about).encode()}, has_true_checksums=False)
    try:
        found = read_export(path)
    except UserError:
        outcome(path, expected)
        return
    # Class names, colors, the threshold and what is for people may be other valid values.
    assert found.programs.keys() == expected.programs.keys()
    assert len(found.label_space.names) == len(exports.CLASSES)
    assert 0 <= found.about["threshold"] <= 1


SPEC = {"w": ArraySpec((2, 3), np.dtype("<f4"))}


def npz_of(header: bytes, data: bytes, version=(1, 0)) -> bytes:
    """Write an .npz file of one array with any header."""
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("w.npy", b"\x93NUMPY" + bytes(version) + length + header + data)
    return content.getvalue()


HEADER = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"
VALUES = st.sampled_from(
    [
        "'<f4'",
        "'|O'",
        "'<f8'",
        "(2, 3)",
        "(3, 2)",
        "(2**60,)",
        "(-2, -3)",
        "(1099511627776, 1)",
        "True",
        "False",
        "None",
    ]
    + [
        "[('a', '<f4')]",
        "'<U9999999'",
        "()",
        "(2.0, 3)",
        "'" + "x" * 9000 + "'",
        "(" * 300,
        "[" * 9000,
        "1" * 9000,
        "{}",
    ]
)


@given(VALUES, VALUES, VALUES, st.sampled_from([0, 23, 24, 25]), st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]))
def test_an_array_is_as_expected_or_one_line(descr, order, shape, num_bytes, version):
    content = npz_of(HEADER.format(descr, order, shape).encode(), bytes(num_bytes), version)
    try:
        found = read_npz(content, SPEC)
    except UserError as error:
        assert escaped(str(error)) == str(error)
        return
    assert (descr, shape, num_bytes) == ("'<f4'", "(2, 3)", 24)
    assert found["w"].shape == (2, 3)


@given(st.binary(max_size=200))
def test_any_header_of_an_array_is_read_or_one_line(header):
    try:
        read_npz(npz_of(header, bytes(24)), SPEC)
    except UserError as error:
        assert escaped(str(error)) == str(error)


def test_the_right_array_is_read():
    content = npz_of(HEADER.format("'<f4'", False, (2, 3)).encode(), np.arange(6, dtype="<f4").tobytes())
    np.testing.assert_array_equal(read_npz(content, SPEC)["w"], np.arange(6).reshape(2, 3))


@given(
    st.lists(
        st.tuples(st.text(max_size=6) | st.sampled_from(["a", "b/c", "..", "/a"]), st.binary(max_size=9)), max_size=5
    ),
    st.integers(0, 1000),
    st.integers(0, 7),
)
def test_a_list_of_parts_is_true_or_refused(entries, place, bit):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, data in dict(entries).items():
            file.writestr(zipfile.ZipInfo(name), data)
    data = bytearray(content.getvalue())
    data[place % len(data)] ^= 1 << bit
    try:
        found = StoredZip(io.BytesIO(bytes(data)))
        contents = {name: found.read(name) for name in found.sizes}
    except (
        UserError,
        zipfile.BadZipFile,
        struct.error,
        OSError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        EOFError,
    ):
        return
    assert sum(map(len, contents.values())) <= len(data)
    assert not any(name.startswith("/") or ".." in name.split("/") for name in contents)


def test_parts_that_share_their_bytes_do_not_add_up(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("a", bytes(1000))
        first = file.filelist[0]
        for index in range(50):  # fifty more entries of the list, which all point to the same bytes
            info = zipfile.ZipInfo(f"b{index}")
            info.header_offset, info.file_size, info.compress_size, info.CRC = 0, 1000, 1000, first.CRC
            file.filelist.append(info)
    with pytest.raises(UserError, match="its parts claim more bytes than the file has"):
        StoredZip(content)


def test_a_huge_list_of_parts_is_not_read():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.comment = b""
    end = bytearray(content.getvalue())
    size = 9 * 2**20
    end[12:20] = struct.pack("<II", size, 0)
    with pytest.raises(UserError, match="its list of parts takes more than 8 MiB"):
        StoredZip(io.BytesIO(bytes(size) + bytes(end)))


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    variables = jax.tree.map(lambda x: x * np.float32("nan"), exports.toy_variables())
    with pytest.raises(
        UserError, match="this checkpoint cannot be exported: the array .* not finite; choose an earlier"
    ):
        exports.write_toy(tmp_path / "model.zip", variables)
    assert list(tmp_path.iterdir()) == []


def test_names_of_classes_in_any_script_are_read_back(parts, tmp_path):
    names = ("نیم‌فاصله", "no\xa0break", "👩‍🚒")  # joiners and a wide space, which Python calls not printable
    label_space = LABEL_SPACE | {"names": names}
    path = exports.write_parts(tmp_path / "m.zip", exports.changed_about(parts, classes=names, label_space=label_space))
    with pytest.raises(
        UserError, match="returns probs as .* expected .* for 3 classes"
    ):  # the names themselves are fine
        read_export(path)
