"""Convert regions of label maps to and from the forms of label tools: runs (RLE) and polygons. Pure functions on arrays."""
