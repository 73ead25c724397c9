"""How long JAX promises to read an exported program.

Source: JAX's documentation of `jax.export`, "Compatibility guarantees": a program can be read by a JAX that was built up to six
  months after the one that wrote it, or up to three weeks before it. What counts is when the two were built, not when the file was
  written. Since version 0.11.1, JAX refuses programs that it knows to be older.
"""

import calendar
import datetime
import re
from typing import Annotated, NamedTuple

from pydantic import Field

from pyrseg_jax.storage import documents
from pyrseg_jax.storage.documents import shorten

BACKWARD_MONTHS = 6
FORWARD_DAYS = 21
NEAR_DAYS = 30  # Chosen: how long before the end of the promise a user is reminded
# The dates of the files in the wheels of jax.
BUILT = {
    "0.10.0": datetime.date(2026, 4, 16),
    "0.10.1": datetime.date(2026, 5, 18),
    "0.10.2": datetime.date(2026, 6, 17),
    "0.11.0": datetime.date(2026, 7, 16),
    "0.11.1": datetime.date(2026, 8, 17),
    "0.11.2": datetime.date(2026, 9, 17),
    "0.12.0": datetime.date(2026, 10, 16),
    "0.12.0.1": datetime.date(2026, 10, 20),
}


class Readers(documents.Document):
    """Which versions of JAX read a file, as its about.json says.

    jax: the version that wrote the programs.
    built: when that version was built; for a version that is not in `BUILT`, the date of the last one before it.
    first, last: JAX promises that versions built in this time read the file.
    calling_convention: how the programs take their arguments; JAX numbers this.
    """

    jax: str
    built: datetime.date
    first: datetime.date
    last: datetime.date
    calling_convention: Annotated[int, Field(ge=1)]


class Writer(NamedTuple):
    """The JAX that wrote a file: its version, and the last day of the promise, None if it is not known."""

    version: str
    last: datetime.date | None


def readers_of(version: str, calling_convention: int) -> Readers | None:
    """Return which versions of JAX read what this version writes; None for versions before those in `BUILT`."""
    built = built_on(version)
    if built is None:
        return None
    first = built - datetime.timedelta(days=FORWARD_DAYS)
    return Readers(
        jax=version,
        built=built,
        first=first,
        last=add_months(built, BACKWARD_MONTHS),
        calling_convention=calling_convention,
    )


def built_on(version: str) -> datetime.date | None:
    """Return when a version of JAX was built, or a day before that: the date of the last known version that is not newer."""
    known = [date for name, date in BUILT.items() if order_of(name) <= order_of(version)]
    return max(known, default=None)


def order_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, by which versions are compared; what is not a number ends it."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")[:6]) if found else ()


def add_months(day: datetime.date, months: int) -> datetime.date:
    """Return the same day some months later, or the last day of a month that has no such day."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return datetime.date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def writer_of(version: str, readers: Readers | None) -> Writer:
    """Return what is known about the JAX that wrote a file: from the file itself, or else from its version."""
    if readers is not None:
        return Writer(version, readers.last)
    known = readers_of(version, 1)
    return Writer(version, None if known is None else known.last)


def describe(readers: Readers) -> str:
    """Say which versions read a file and until when, for the log."""
    known = [name for name, built in BUILT.items() if readers.first <= built <= readers.last]
    listed = f", such as {known[0]} … {known[-1]}" if known else ""
    return (
        f"written with jax {readers.jax}: JAX promises to read it with versions built from {readers.first} to {readers.last}"
        f"{listed}; `pyrseg export --from` renews it under a newer jax"
    )


def warning_of(writer: Writer, running: str, today: datetime.date) -> str | None:
    """Warn if the promise of a file has ended, or ends soon; None if it does not.

    Args:
      writer: of the file.
      running: the version of JAX in this process.
      today: the day.
    """
    if writer.last is None or today <= writer.last - datetime.timedelta(days=NEAR_DAYS):
        return None
    days = (writer.last - today).days
    when = f"ends in {days} days" if days > 1 else "ends tomorrow" if days == 1 else "ends today"
    when = when if days >= 0 else f"ended {-days} days ago" if days < -1 else "ended yesterday"
    if order_of(running) > order_of(writer.version):
        advice = "renew it now with `pyrseg export --from=FILE --output=NEW.zip`, while this jax reads it"
    else:
        advice = "after the next update of jax, renew it with `pyrseg export --from=FILE --output=NEW.zip`"
    return (
        f"JAX's promise to read this file, written with jax {_plain(writer.version)}, {when} ({writer.last}): jax versions built "
        f"later may refuse it; {advice}"
    )


def _plain(version: str) -> str:
    """Return a version from a file as a message can hold it."""
    return version if re.fullmatch(r"[\w.+ ]{1,40}", version, re.ASCII) else shorten(version)


def advice_for(writer: Writer, running: str, otherwise: str) -> str:
    """Say what to do about a program that this JAX does not read.

    Args:
      writer: of the file.
      running: the version of JAX in this process.
      otherwise: the advice if the versions are no reason.
    """
    name, built = _plain(writer.version), built_on(running)
    if order_of(writer.version) > order_of(running):
        return (
            f"the file was written with jax {name}, and this is jax {running}, which is older: install jax {name} or newer, or "
            f"{otherwise}"
        )
    if writer.last is not None and built is not None and built > writer.last:
        return (
            f"the file was written with jax {name}, which JAX promised to read with versions built until {writer.last}, and this "
            f"is jax {running}: {otherwise}; or renew it with `pyrseg export --from=FILE` where an older jax is installed"
        )
    return f"the file was written with jax {name}, this is {running}; {otherwise}"
