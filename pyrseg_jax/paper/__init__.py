"""The experiments of the paper by name: Tables 1 and 2a, config variants, and the ablation table."""
