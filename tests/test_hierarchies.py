"""Hierarchies of classes: the text files, what they must hold, and how they reach the network of a run."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.data_sets import CLASSES, write_folder

from pyrseg_jax.commands.validate import validate
from pyrseg_jax.data import class_table
from pyrseg_jax.data.catalog import open_dataset, read_label_space
from pyrseg_jax.data.datasets import DATASETS
from pyrseg_jax.data.hierarchy import parse_hierarchy, read_hierarchy
from pyrseg_jax.data.label_space import LabelSpace, ade_layout
from pyrseg_jax.errors import UserError
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import experiment
from pyrseg_jax.run.workdir import Workdir

PLACE = Path("own/hierarchy.txt")
OWN = "scenery\n  sky\n  ground\nobjects\n  post\n"
OWN_GROUPS = (("scenery",), ("scenery",), ("objects",))


def groups_of(hierarchy):
    return {path[:end] for path in hierarchy for end in range(1, len(path) + 1)}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("ade20k", [2, 18]),
        # Stuff and things, each indoor and outdoor, and the 27 super-categories that COCO-Stuff publishes: 34 nodes with the root.
        ("coco_stuff10k", [2, 4, 27]),
    ],
)
def test_hierarchies_of_the_package_hold_each_class_once(name, sizes):
    space = read_label_space(name, None)
    assert space.hierarchy is not None and space.is_stuff is not None and len(space.hierarchy) == space.num_classes
    groups = groups_of(space.hierarchy)
    assert [sum(len(group) == depth for group in groups) for depth in range(1, len(sizes) + 1)] == sizes
    assert {len(path) for path in space.hierarchy} == {len(sizes)}
    for class_name, path, is_stuff in zip(space.names, space.hierarchy, space.is_stuff, strict=True):
        assert path[0] == ("stuff" if is_stuff else "things"), class_name
    text = (Path(class_table.__file__).parent / "hierarchies" / f"{name}.txt").read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == sum(sizes) + space.num_classes


def test_super_categories_of_equal_names_are_different_groups_of_coco_stuff():
    space = read_label_space("coco_stuff10k", None)
    assert space.hierarchy is not None
    groups = dict(zip(space.names, space.hierarchy, strict=True))
    assert groups["apple"] == ("things", "indoor", "food")
    assert groups["salad"] == ("stuff", "indoor", "food")
    assert groups["bench"] == ("things", "outdoor", "outdoor")
    assert groups["person"] == ("things", "outdoor", "person")


@st.composite
def hierarchies(draw):
    """Draw the groups of some classes; names of groups and classes overlap."""
    num_classes = draw(st.integers(1, 8))
    return tuple(tuple(draw(st.lists(st.sampled_from("abc"), max_size=3))) for _ in range(num_classes))


def write_hierarchy(hierarchy, names, above=()):
    """Write the text: classes of a group first, then its groups."""
    indent = "  " * len(above)
    lines = [indent + name for name, path in zip(names, hierarchy, strict=True) if path == above]
    inside = dict.fromkeys(path[len(above)] for path in hierarchy if path[: len(above)] == above and path != above)
    for name in inside:
        lines += [indent + name, *write_hierarchy(hierarchy, names, (*above, name))]
    return lines


@given(hierarchies(), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_what_is_written_is_read(hierarchy, end, has_remarks):
    names = tuple("abcdefgh"[: len(hierarchy)])
    lines = write_hierarchy(hierarchy, names)
    if has_remarks:
        lines = ["# remark", *(part for line in lines for part in (line, "", "#"))]
    assert parse_hierarchy(end.join(lines) + end, names, PLACE) == hierarchy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sky\nground\npost\nsky\n", "line 4 repeats the class 'sky' of line 1: each class belongs to one place"),
        ("sky\nground\n", "has no line for 'post': expected each class of the data set once"),
        ("", "has no line for 'sky', 'ground', 'post'"),
        ("sky\npost\n  ground\n", r"has no line for 'post' \(line 2 is a group of that name, because deeper lines follow it\)"),
        ("sky\nground\npost\ntower\n", "line 4: 'tower' is not a class and holds none: expected a class of the data set, or"),
        ("sky\nempty\nground\npost\n", "line 2: 'empty' is not a class and holds none: .* indented by 2 more spaces"),
        ("sky\n   ground\npost\n", "line 2 is indented by 3 spaces: expected a multiple of 2 up to 2, 2 per level"),
        ("all\n    sky\n", "line 2 is indented by 4 spaces: expected a multiple of 2 up to 2"),
        ("  sky\nground\npost\n", "line 1 is indented by 2 spaces: expected 0"),
        ("all\n\tsky\n", "line 2 is indented by a tab or another sign: indent by 2 spaces per level"),
        ("a\n  sky\na\n  ground\npost\n", "line 3 repeats the group 'a' of line 1: write a group once"),
        ("\n".join("  " * i + "x" for i in range(10)), "line 10 lies in more than 8 groups"),
        ("sky\nro\x1b[2Jad\n", r"line 2 holds the invisible character U\+001B"),
        ("sky\nground\rpost\n", "line 2 holds a line end of another system"),
    ],
)  # fmt: skip
def test_other_text_is_refused_with_file_and_line(text, message):
    with pytest.raises(UserError, match=f"^{re.escape(str(PLACE))}:? {message}"):
        parse_hierarchy(text, CLASSES, PLACE)


@given(st.text("ab\n  #\t\r\x00", max_size=30))
def test_any_text_is_a_hierarchy_of_the_classes_or_one_error(text):
    try:
        found = parse_hierarchy(text, ("a", "b"), PLACE)
    except UserError as error:
        assert str(PLACE) in str(error)
    else:
        assert len(found) == 2 and LabelSpace(("a", "b"), (1, 2), hierarchy=found)


def test_a_folder_may_bring_a_hierarchy(tmp_path, capsys, caplog):
    root = write_folder(tmp_path, {"training": 1, "validation": 1})
    config = config_lib.defaults()
    config.data.name, config.data.root = "folder", str(root)
    config = config_lib.resolve(config)
    assert read_label_space("folder", str(root)).hierarchy is None
    validate(config)
    assert (
        "hierarchy of the classes: none: networks that read one take all classes as one group\n"
        in capsys.readouterr().out
    )

    (root / "hierarchy.txt").write_text(OWN)
    assert open_dataset("folder", str(root), None).label_space.hierarchy == OWN_GROUPS
    validate(config)
    assert "hierarchy of the classes: 2 groups, at most 1 within each other\n" in capsys.readouterr().out

    (root / "hierarchy.txt").write_bytes("sky\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"hierarchy\.txt is not UTF-8 text"):
        read_label_space("folder", str(root))
    (root / "hierarchy.txt").unlink()
    (root / "hierarchy.txt").symlink_to(root / "elsewhere.txt")
    with pytest.raises(UserError, match=r"hierarchy\.txt is a link to a file that does not exist"):
        read_hierarchy(root, CLASSES)


def test_data_sets_have_the_hierarchy_that_the_guide_tells():
    named = {name: read_label_space(name, None).hierarchy is not None for name in DATASETS if name != "folder"}
    assert {name for name, has in named.items() if has} == {"ade20k", "coco_stuff10k"}


@pytest.mark.parametrize(
    "wrong", [(("a",), ("b",)), (("a",), ("b",), ("x\n",)), (("a",) * 9, (), ()), ((" ",), (), ())]
)
def test_a_label_space_refuses_a_hierarchy_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="expected"):
        ade_layout(CLASSES, hierarchy=wrong)


def of_run(tmp_path, context):
    config = config_lib.defaults()
    config.model.backbone, config.model.context = "hrnet_tiny", context
    return Workdir(str(tmp_path / context)), config_lib.resolve(config)


def test_a_run_keeps_its_hierarchy(tmp_path):
    """The network of a run is built from classes.json, without the data set; other hierarchies are refused where they matter."""
    space = ade_layout(CLASSES, hierarchy=OWN_GROUPS)
    other = dataclasses.replace(space, hierarchy=(("scenery",), ("objects",), ("objects",)))
    workdir, config = of_run(tmp_path, "dsspn")
    workdir.open_for_training(config, space, "random")
    workdir.open_for_training(config, space)
    found = workdir.read_label_space()
    assert found.hierarchy == OWN_GROUPS
    shapes = [
        jax.tree.map(lambda leaf: leaf.shape, abstract_variables(experiment.make_model(config, classes)))
        for classes in (space, found, other, len(CLASSES))
    ]
    assert shapes[0] == shapes[1] and shapes[0] != shapes[3]
    message = (
        "another hierarchy of the classes than the data set has now: ground in scenery → objects; use another --workdir"
    )
    with pytest.raises(UserError, match=message):
        workdir.open_for_training(config, other)
    with pytest.raises(UserError, match="sky in scenery → no group"):
        workdir.open_for_training(config, ade_layout(CLASSES))


def test_runs_of_other_networks_do_not_mind_the_hierarchy(tmp_path):
    """A run that began before its data set had a hierarchy goes on, and classes.json without one is as it always was."""
    workdir, config = of_run(tmp_path, "none")
    workdir.open_for_training(config, ade_layout(CLASSES), "random")
    assert "hierarchy" not in json.loads((workdir.path / "classes.json").read_text())
    assert workdir.read_label_space().hierarchy is None
    workdir.open_for_training(config, ade_layout(CLASSES, hierarchy=OWN_GROUPS))
    assert workdir.read_label_space().hierarchy == OWN_GROUPS


def test_the_classes_of_the_hierarchies_are_those_of_the_tables():
    """A second reading, without the package's reader: the deepest lines are the names of the table."""
    for name in ("ade20k", "coco_stuff10k"):
        folder = Path(class_table.__file__).parent
        with (folder / "classes" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            names = sorted(row["name"] for row in csv.DictReader(file))
        lines = (folder / "hierarchies" / f"{name}.txt").read_text("utf-8").splitlines()
        lines = [line for line in lines if not line.startswith("#")]
        deepest = max(len(line) - len(line.lstrip()) for line in lines)
        assert sorted(line.strip() for line in lines if len(line) - len(line.lstrip()) == deepest) == names
