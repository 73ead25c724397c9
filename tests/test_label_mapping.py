"""Label mappings: the user says what the values in label files mean."""

import numpy as np
import pytest
from support.data_sets import CLASSES

from pyrseg_jax.conventions import VOID
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.label_mapping import LabelMapping, make_label_space
from pyrseg_jax.errors import UserError


def test_labels_that_count_from_zero():
    space = make_label_space(CLASSES, LabelMapping(first_value=0, void_value=255))
    values = np.array([[0, 1, 2, 255]], np.uint8)
    np.testing.assert_array_equal(space.to_train_ids(values, "x"), [[0, 1, 2, VOID]])
    np.testing.assert_array_equal(space.to_file_values(np.array([[0, 1, 2, VOID]], np.uint8)), values)


def test_remapped_values_are_read_and_never_written():
    space = make_label_space(CLASSES, LabelMapping(remap=" 7:1, 9 : void,200:3,2:3 "))
    values = np.array([[7, 1, 9, 0, 200, 2, 3]], np.uint8)
    train_ids = space.to_train_ids(values, "x")
    np.testing.assert_array_equal(train_ids, [[0, 0, VOID, VOID, 2, 2, 2]])
    np.testing.assert_array_equal(space.to_file_values(train_ids), [[1, 1, 0, 0, 3, 3, 3]])
    with pytest.raises(UserError, match=r"value 8 .*0 \(void\) or 1 … 3 \(3 classes\), or 2, 7, 9, 200 \(remapped\)"):
        space.to_train_ids(np.full((1, 1), 8, np.uint8), "x")


def test_the_keys_for_labels_that_count_from_zero_are_named():
    """The value 255 shows it, which no class has then; after `remap=255:void` alone, class 0 would be void."""
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    keys = r"set first_value=0 and void_value=255$"
    with pytest.raises(UserError, match=rf"value 255 .*{keys}"):
        make_label_space(CLASSES, LabelMapping()).to_train_ids(labels, "x")
    for mapping, value in ((LabelMapping(), 9), (LabelMapping(first_value=2), 255)):
        with pytest.raises(UserError, match=rf"value {value} .*VALUE:CLASS$"):
            make_label_space(CLASSES, mapping).to_train_ids(np.full((1, 1), value, np.uint8), "x")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (LabelMapping(void_value=2), r"^void_value=2 is the value of the class 'ground'.*first_value=0"),
        (LabelMapping(first_value=0), r"^void_value=0 is the value of the class 'sky'"),
        (
            LabelMapping(first_value=65534),
            r"^first_value=65534: the last of 3 classes would have the value 65536",
        ),
        (LabelMapping(remap="7"), r"^remap='7': '7' is not VALUE:CLASS.*like \"7:1,9:void\""),
        (LabelMapping(remap="7:sky"), r"'7:sky' is not VALUE:CLASS"),
        (LabelMapping(remap="65536:1"), r"'65536:1' is not VALUE:CLASS with a value from 0 to 65535"),
        (LabelMapping(remap="-1:1"), r"'-1:1' is not VALUE:CLASS"),
        (LabelMapping(remap="7:4"), r"^remap='7:4': 4 is not a class: expected 0 \(void\) or 1 … 3"),
        (LabelMapping(remap="7:1,7:2"), r"7 is given twice"),
        (LabelMapping(remap="0:1"), r"0 is the value of void; if it is a class, set void_value=N"),
    ],
)
def test_contradicting_values_are_explained(mapping, message):
    with pytest.raises(UserError, match=message):
        make_label_space(CLASSES, mapping)


def test_only_folders_accept_a_label_mapping():
    with pytest.raises(
        UserError, match=r"^remap='7:1': only name=folder takes a label mapping; the label values of scenes are fixed"
    ):
        open_dataset("scenes", None, None, label_mapping=LabelMapping(remap="7:1"))
