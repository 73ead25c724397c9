"""Open AVIF files, with Pillow 11.3 or later."""

import io
import re

from PIL import ImageFile

# The start of EXIF data, and after it the number of entries.
_EXIF_ENTRIES = re.compile(rb"(II\*\0\x08\0\0\0|MM\0\*\0\0\0\x08)..", re.DOTALL)


def open_avif(data: bytes) -> ImageFile.ImageFile:
    """Open an AVIF; its EXIF data is left out if it is damaged, because PIL would refuse the whole file.

    Raises:
      Exception: of any kind, if the file is damaged.
    """
    from PIL import AvifImagePlugin

    try:
        return AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    except Exception:
        without_entries = _EXIF_ENTRIES.sub(rb"\1\0\0", data)
        if without_entries == data:
            raise
        return AvifImagePlugin.AvifImageFile(io.BytesIO(without_entries))
