"""The training system: objective, optimizer, the sharded step, checkpoints and the loop. It never imports evaluation."""
