"""The run-time checker of annotations that the tests switch on (see pyproject.toml)."""

from beartype import BeartypeConf, beartype

# As in PEP 484, where an int will do for a float.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
