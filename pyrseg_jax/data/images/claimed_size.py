"""Check the size that an image file claims before memory is set aside for its pixels.

A header of a few bytes can claim any size. Every compression has a limit that no file crosses, and it is checked first.
"""

from pyrseg_jax.data.images.jpeg_header import read_jpeg_header
from pyrseg_jax.data.images.png_chunks import num_raw_bytes, read_png_header
from pyrseg_jax.errors import UserError

# Chosen: more than a satellite scene of 20,000 × 20,000 pixels. As RGB, this many pixels take 1.5 GB.
MAX_PIXELS = 500_000_000
# Chosen: memory for this many pixels is cheap, so that flat pictures of the best compressions pass.
CHEAP_PIXELS = 2**24
# Measured on pictures of a single color, 8000 × 8000: WebP 25,600 pixels per byte, AVIF 20,000, JPEG 2000 77,000, TIFF with Group 4
# compression 24,700. Photographs stay below 1000.
MAX_PIXELS_PER_BYTE = 40_000
# Source: zlib's technical details: deflate shrinks nothing by more than a factor of 1032.
MAX_DEFLATE = 1032
_MAX_LZW = 2730  # a code of twelve bits stands for at most 4096 pixels


def check_claimed_size(name: str, kind: str, width: int, height: int, data: bytes) -> None:
    """Refuse a picture that is too large, or that cannot possibly be in a file of this many bytes.

    Args:
      name: the file, for messages.
      kind: its format, one of `image_formats.IMAGE_FORMATS`.
      width, height: the size that its header claims, in pixels.
      data: the whole file.

    Raises:
      UserError: naming the file, its claimed size, and the limit.
    """
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{name} has {width} × {height} pixels (width × height), {width * height / 1e6:.0f} million: the limit is "
            f"{MAX_PIXELS / 1e6:.0f} million; cut it into tiles"
        )
    least = min_bytes(kind, width, height, data)
    if len(data) < least:
        raise UserError(
            f"{name} claims {width} × {height} pixels (width × height), but has only {len(data)} bytes; such a file has at "
            f"least {least}: it is damaged or cut off; replace the file or remove it from the data set"
        )


def min_bytes(kind: str, width: int, height: int, data: bytes) -> int:
    """Return the least number of bytes that a file of this format and size can have."""
    pixels = width * height
    if kind == "JPEG" and (header := read_jpeg_header(data)) is not None and not header.is_arithmetic:
        # A block of 8 × 8 samples takes a code for its mean and one for the end of the block. Huffman codes have at least one bit.
        # In progressive files, one code can end thousands of blocks.
        bits = header.num_blocks * (1 if header.is_progressive else 2)
        return header.scan_start + bits // 8
    if kind == "PNG" and (png := read_png_header(data)) is not None:
        return num_raw_bytes(png) // MAX_DEFLATE
    if kind == "PPM" and data[1:2] in b"14":
        return pixels // 8
    if kind == "PPM":
        return pixels
    if pixels <= CHEAP_PIXELS:
        return 0
    return pixels // (_MAX_LZW if kind == "GIF" else MAX_PIXELS_PER_BYTE)
