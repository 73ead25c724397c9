"""Flax Linen modules: backbones, context modules, the heads of both pyramids, and the whole segmenter."""
