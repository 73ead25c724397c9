"""Flax Linen modules: the HRNet backbone, context modules, the heads of both pyramids, and the whole segmenter."""
