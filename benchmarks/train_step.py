"""The training step against PyTorch: eager and compiled, channels last, the same network, batch and precision.

    python benchmarks/train_step.py [--backbones=hrnet_w18] [--heads=plain,pyramid] [--full] [--json=FILE]

Ours makes its targets and relabels them in each step; PyTorch's are made before and not relabelled.
Prints, per network, images/s of each, our ratio to the better of PyTorch's two, the peak of memory, and what share of the FLOPs of
a large matrix product, measured in the same run, ours uses. All take turns; medians count. By default at a size for CPU; `--full`
is for an accelerator: W18, W32 and W48 with both heads, 512×512, bfloat16. Needs `pip install torch`.
"""

from compare import main

if __name__ == "__main__":
    main("training", __doc__)
