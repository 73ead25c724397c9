"""Published weights: reading the files, and one layout per family of backbones.

To make a publisher's files fit a backbone, write an `Importer` (see `importer.py`) and name it in the backbone's spec.
"""
