"""What `--mode` can be. Each mode is a function that tells a story from the configuration to files in the run's folder."""
