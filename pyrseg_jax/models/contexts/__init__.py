"""Context modules: backbone features to one feature map per pyramid level, one file per published module."""
