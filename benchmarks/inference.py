"""Compare inference with PyTorch, eager and compiled: from images to the class of every pixel.

    python benchmarks/inference.py [--backbones=hrnet_w18] [--heads=plain,pyramid] [--full] [--json=FILE]

Both use the same network, batch and precision; PyTorch runs channels last. Both fuse the pyramid, interpolate the probabilities to
all pixels and take the most likely class. Prints, per network, the images/s of each, our ratio to the faster of PyTorch's two, the
peak memory, and our share of the FLOP rate of a large matrix product measured in the same run. All runs take turns, and the medians
are printed. The default size is for a CPU; `--full` is for an accelerator: W18, W32 and W48 with both heads, 512×512, bfloat16.
Needs `pip install torch`.
"""

from compare import main

if __name__ == "__main__":
    main("inference", __doc__)
