"""Decode photographs and label maps of strangers: recognize the format, check the header, then let one decoder work."""
