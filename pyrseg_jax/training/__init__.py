"""Training: objective, losses, optimizer, the sharded step, checkpoints and the trainer. This room never imports evaluation."""
