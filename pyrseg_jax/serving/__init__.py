"""The HTTP service behind `pyrseg serve`: images in, label maps out, equal to those of `pyrseg predict`."""
