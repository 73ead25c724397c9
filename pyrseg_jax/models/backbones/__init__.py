"""Backbones: images to features, one file per family."""
