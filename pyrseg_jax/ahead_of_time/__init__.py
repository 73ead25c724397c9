"""Compile for accelerators that this machine does not have, and estimate memory, traffic, and step time."""
