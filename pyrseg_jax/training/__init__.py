"""Training: objective, losses, optimizer, the sharded step, checkpoints and the trainer.

This package never imports `evaluation`.
"""
