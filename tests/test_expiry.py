"""How long JAX promises to read an exported file, what is said about it, and how a file is renewed."""

import datetime
import json
import logging
import zipfile

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import exports
from support.command_line import call, error_of

from pyrseg_jax.errors import UserError
from pyrseg_jax.export import expiry
from pyrseg_jax.export.predictor import load_exported
from pyrseg_jax.export.read import read_export

DAY = datetime.timedelta(days=1)
OF_2020 = {"jax": "0.1", "built": "2020-01-01", "first": "2020-01-01", "last": "2020-07-01", "calling_convention": 9}
versions = st.sampled_from([*expiry.BUILT, "0.10.2.dev20260701", "0.13.1", "1.0", "0.9.2", "an unknown version"])
days = st.dates(datetime.date(2026, 1, 1), datetime.date(2028, 12, 31))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return exports.write_toy(tmp_path_factory.mktemp("toy") / "model.zip")


@pytest.fixture(scope="module")
def parts(whole):
    return exports.read_parts(whole)


def readers_in(path) -> dict:
    return json.loads(exports.read_parts(path)["about.json"])["readers"]


def test_the_file_says_who_reads_it(whole):
    found = readers_in(whole)
    expected = expiry.readers_of(jax.__version__, found["calling_convention"])
    assert expected is not None
    assert found == expected.model_dump(mode="json")
    program = jax.export.deserialize(bytearray(exports.read_parts(whole)["16x16.stablehlo"]))
    assert found["calling_convention"] == program.calling_convention_version


def test_the_promise_of_a_known_version():
    found = expiry.readers_of("0.10.2", 10)
    assert found is not None
    assert (found.first, found.last) == (datetime.date(2026, 5, 27), datetime.date(2026, 12, 17))
    assert expiry.describe(found).startswith(
        "written with jax 0.10.2: JAX promises to read it with versions built from 2026-05-27 to 2026-12-17, such as 0.10.2 … "
    )


@given(versions)
def test_a_version_that_is_not_known_is_promised_no_more_than_the_last_known_one_before_it(version):
    built = expiry.built_on(version)
    older = [name for name in expiry.BUILT if expiry.order_of(name) <= expiry.order_of(version)]
    assert built == (expiry.BUILT[older[-1]] if older else None)
    assert (expiry.readers_of(version, 10) is None) == (built is None)


@given(days, st.integers(0, 30))
def test_months_later(day, months):
    found = expiry.add_months(day, months)
    assert (found.year * 12 + found.month) - (day.year * 12 + day.month) == months
    assert found.day == day.day or (found.day < day.day and (found + DAY).day == 1)


@given(versions, versions, days)
def test_the_warning_comes_once_the_end_is_near_and_stays(version, running, today):
    writer = expiry.writer_of(version, None)
    found = expiry.warning_of(writer, running, today)
    assert (found is not None) == (writer.last is not None and (writer.last - today).days < expiry.NEAR_DAYS)
    if found is not None:
        assert expiry.warning_of(writer, running, today + DAY) is not None
        assert ("renew it now" in found) == (expiry.order_of(running) > expiry.order_of(version))
        assert "\n" not in found


@pytest.mark.parametrize(
    ("days_left", "when"),
    [
        (29, "ends in 29 days"),
        (1, "ends tomorrow"),
        (0, "ends today"),
        (-1, "ended yesterday"),
        (-9, "ended 9 days ago"),
    ],
)
def test_the_warning_says_when(days_left, when):
    last = datetime.date(2026, 12, 17)
    text = expiry.warning_of(expiry.Writer("0.10.2", last), "0.12.0", last - days_left * DAY)
    assert text is not None and f"written with jax 0.10.2, {when} (2026-12-17): " in text


def with_end(parts, path, last: datetime.date):
    """Write a file whose promise ends on this day."""
    readers = json.loads(parts["about.json"])["readers"] | {"last": str(last)}
    return exports.write_parts(path, exports.changed_about(parts, readers=readers))


def test_predictions_warn_once(parts, tmp_path, caplog):
    today = datetime.date.today()
    load_exported(with_end(parts, tmp_path / "fresh.zip", today + 100 * DAY))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    load_exported(with_end(parts, tmp_path / "old.zip", today - 5 * DAY))
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path / 'old.zip'}: JAX's promise to read this file, written with jax ")
    assert "ended 5 days ago" in lines[0]


def test_a_file_is_renewed(tmp_path):
    """The new file is that of this jax, and computes the same; as often as one likes."""
    parts = exports.read_parts(exports.write_toy(tmp_path / "toy.zip", sizes=((16, 24),)))
    old = exports.write_parts(tmp_path / "old.zip", exports.changed_about(parts, jax="0.10.0", readers=None))
    done = call("export", f"--from={old}", f"--output={tmp_path / 'new.zip'}")
    assert done.returncode == 0, done.stderr
    assert "100.0000 % of its labels equal those of" in done.stderr
    assert f"written with jax {jax.__version__}: JAX promises to read it" in done.stderr
    before, after = read_export(old), read_export(tmp_path / "new.zip")
    assert after.about["jax"] == jax.__version__ != before.about["jax"]
    for name in ("classes", "run", "sizes", "strides", "threshold", "step", "initialisation"):
        assert after.about[name] == before.about[name], name
    rng = np.random.default_rng(0)
    for (height, width), program in after.programs.items():
        images = rng.integers(0, 256, (3, height, width, 3), np.uint8)
        found, expected = program(after.weights, images), before.programs[height, width](before.weights, images)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))
    again = call("export", f"--from={tmp_path / 'new.zip'}", f"--output={tmp_path / 'new.zip'}")
    assert again.returncode == 0, again.stderr
    assert readers_in(tmp_path / "new.zip") == json.loads(parts["about.json"])["readers"]


def test_what_cannot_be_renewed_is_one_line(whole, parts, tmp_path):
    def refused(*flags):
        return error_of(call("export", *flags))

    (tmp_path / "mine.zip").write_bytes(b"mine")
    assert "needs --output=NEW.zip" in refused(f"--from={whole}")
    assert "takes no --sizes" in refused(f"--from={whole}", f"--output={tmp_path / 'n.zip'}", "--sizes=16x16")
    assert "mine.zip exists, and is not an earlier export" in refused(
        f"--from={whole}", f"--output={tmp_path / 'mine.zip'}"
    )
    assert "mine.zip is not an exported model" in refused(
        f"--from={tmp_path / 'mine.zip'}", f"--output={tmp_path / 'n.zip'}"
    )
    assert "--workdir and --from exclude each other" in refused(f"--from={whole}", "--workdir=run", "--output=n.zip")
    assert (tmp_path / "mine.zip").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"jax": "9.9.9"},
            r"the file was written with jax 9.9.9, and this is jax .*, which is older: install jax 9.9.9 or newer, or write",
        ),
        ({"jax": "0.9.2", "readers": None}, r"the file was written with jax 0.9.2, this is .*; write the file again"),
        (
            {"readers": OF_2020},
            r"which JAX promised to read with versions built until 2020-07-01, and this is jax .*: write the file again .*; or "
            "renew it with `pyrseg export --from=FILE` where an older jax is installed",
        ),
    ],
)
def test_a_program_that_is_not_read_says_what_to_do(parts, tmp_path, values, message):
    """A file of the future, one of which nothing is known, and one of the past."""
    changed = exports.changed_about(parts | {"16x16.stablehlo": b"of another time"}, **values)
    with pytest.raises(UserError, match=message):
        read_export(exports.write_parts(tmp_path / "other.zip", changed))


def test_dates_that_are_none_are_named(parts, tmp_path):
    readers = json.loads(parts["about.json"])["readers"] | {"last": "some day"}
    with pytest.raises(UserError, match=r"about.json: readers.last='some day'"):
        read_export(exports.write_parts(tmp_path / "bad.zip", exports.changed_about(parts, readers=readers)))
    with zipfile.ZipFile(tmp_path / "bad.zip") as file:
        assert "about.json" in file.namelist()
