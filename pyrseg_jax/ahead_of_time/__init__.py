"""Compile for accelerators that this machine does not have, and estimate memory, communication and step time."""
