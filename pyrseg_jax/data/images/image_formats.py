"""The formats of photographs and label maps, recognized by the first bytes of a file; its suffix may be wrong.

Libraries that choose a decoder by themselves know dozens of formats, some of which start other programs. So every file is
recognized here first, and only a decoder of a listed format ever sees it.
"""

from typing import NamedTuple

from PIL import features

AVIF_IS_READ = features.check("avif") is True  # Pillow reads AVIF from 11.3 on, where its wheel was built with it


class Kind(NamedTuple):
    """What a file is, by its first bytes.

    format: one of `IMAGE_FORMATS`, or None for a kind that is not read.
    name: the kind in words, with an article: "a PNG".
    """

    format: str | None
    name: str


# Suffixes of photographs by format. A suffix says which files of a folder are meant; the first bytes decide how one is read.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    **({"AVIF": (".avif",)} if AVIF_IS_READ else {}),
}
IMAGE_FORMATS = tuple(SUFFIXES)
IMAGE_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
# These store every sample as it was written. JPEG and WebP change values; GIF and PGM readers rescale or reorder them.
LABEL_FORMATS = ("PNG", "TIFF", "BMP")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
# Pictures that people have in such folders and that no library here reads, by suffix: named instead of passed over.
UNREADABLE_SUFFIXES = {
    ".heic": "HEIC",
    ".heif": "HEIF",
    ".hif": "HEIF",
    ".jxl": "JPEG XL",
    ".svg": "SVG",
    ".psd": "Photoshop",
    ".eps": "EPS",
    ".pdf": "PDF",
    ".ico": "icon",
    ".tga": "Targa",
    ".pcx": "PCX",
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    **dict.fromkeys(
        (".cr2", ".cr3", ".nef", ".nrw", ".dng", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"), "camera raw"
    ),
    **({} if AVIF_IS_READ else {".avif": "AVIF"}),
}

_SIGNATURES = (
    (b"\xff\xd8\xff", Kind("JPEG", "a JPEG")),
    (b"\x89PNG\r\n\x1a\n", Kind("PNG", "a PNG")),
    (b"GIF87a", Kind("GIF", "a GIF")),
    (b"GIF89a", Kind("GIF", "a GIF")),
    (b"\xff\x4f\xff\x51", Kind("JPEG2000", "a JPEG 2000 file")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", Kind("JPEG2000", "a JPEG 2000 file")),
    (b"II*\0\x10\0\0\0CR", Kind(None, "a camera raw file")),
    (b"II*\0", Kind("TIFF", "a TIFF")),
    (b"MM\0*", Kind("TIFF", "a TIFF")),
    (b"II+\0", Kind("TIFF", "a TIFF")),
    (b"MM\0+", Kind("TIFF", "a TIFF")),
    *((b"P%d%c" % (i, space), Kind("PPM", "a PPM, PGM or PBM file")) for i in range(1, 7) for space in b" \t\n\r"),
    (b"Pf\n", Kind("PPM", "a PFM file")),
    (b"BM", Kind("BMP", "a BMP")),
    (b"%!PS", Kind(None, "a PostScript (EPS) file")),
    (b"\xc5\xd0\xd3\xc6", Kind(None, "a PostScript (EPS) file")),
    (b"%PDF", Kind(None, "a PDF document")),
    (b"8BPS", Kind(None, "a Photoshop file")),
    (b"\xd7\xcd\xc6\x9a", Kind(None, "a Windows metafile")),
    (b"\0\0\0\x0cJXL \r\n\x87\n", Kind(None, "a JPEG XL file")),
    (b"\xff\x0a", Kind(None, "a JPEG XL file")),
    (b"FUJIFILMCCD-RAW", Kind(None, "a camera raw file")),
    (b"IIU\0", Kind(None, "a camera raw file")),
    (b"IIRO", Kind(None, "a camera raw file")),
    (b"\0\0\x01\0", Kind(None, "an icon file")),
    (b"v/1\x01", Kind(None, "an OpenEXR file")),
    (b"#?RADIANCE", Kind(None, "a Radiance HDR file")),
    (b"DDS ", Kind(None, "a DDS texture")),
    (b"qoif", Kind(None, "a QOI file")),
    (b"\x01\xda", Kind(None, "an SGI image")),
    (b"\x59\xa6\x6a\x95", Kind(None, "a Sun raster file")),
    (b"icns", Kind(None, "an icon file")),
    *((b"\x0a" + bytes([version, 1]), Kind(None, "a PCX file")) for version in (0, 2, 3, 4, 5)),
    (b"SIMPLE  =", Kind(None, "a FITS file")),
    (b"\x93NUMPY", Kind(None, "a NumPy array")),
    (b"\x89HDF\r\n\x1a\n", Kind(None, "an HDF5 file")),
    (b"MATLAB 5.0", Kind(None, "a MATLAB file")),
    (b"PK\x03\x04", Kind(None, "a zip archive")),
    (b"\x1f\x8b", Kind(None, "a gzip archive")),
    (b"7z\xbc\xaf\x27\x1c", Kind(None, "a 7-Zip archive")),
    (b"Rar!", Kind(None, "a RAR archive")),
    (b"\x7fELF", Kind(None, "a program")),
    (b"version https://git-lfs", Kind(None, "a Git LFS pointer")),
    (b"/annex/objects/", Kind(None, "a git-annex pointer")),
)
_BRANDS = {  # of the files that begin like MP4 (ISO base media): bytes 8 … 11
    **dict.fromkeys((b"avif", b"avis"), Kind("AVIF" if AVIF_IS_READ else None, "an AVIF")),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"), Kind(None, "a HEIC file")),
    b"crx ": Kind(None, "a camera raw file"),
}


def kind_of_image(data: bytes) -> Kind:
    """Recognize a file by its first bytes. The kind has no format if no listed decoder reads it."""
    if data[:4] == b"RIFF":
        return Kind("WEBP", "a WebP") if data[8:12] == b"WEBP" else Kind(None, "a sound or film (RIFF)")
    if data[4:8] == b"ftyp":
        return _kind_of_media(data)
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"\x01\0\0\0" and data[40:44] == b" EMF":
        return Kind(None, "a Windows metafile")
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return Kind(None, "a web page")
    if text.startswith((b"<?xml", b"<svg", b"<!doctype svg")):
        return Kind(None, "an SVG drawing" if b"<svg" in text else "an XML document")
    return Kind(None, f"of no known image format (it begins with {data[:8]!r})")


def _kind_of_media(data: bytes) -> Kind:
    end = min(int.from_bytes(data[:4]), 256)  # the box lists the main brand, a version, and compatible brands
    for brand in (data[8:12], *(data[i : i + 4] for i in range(16, end, 4))):
        if brand in _BRANDS:
            return _BRANDS[brand]
    return Kind(None, "a HEIF file" if data[8:12] in (b"mif1", b"msf1") else "a film (MP4)")


def advice_for(kind: Kind) -> str:
    """Say what to do with a picture of a kind that is not read."""
    if "pointer" in kind.name:  # git checked out only the name of the picture
        return "fetch the file itself, with `git lfs pull` or `git annex get`"
    is_picture = any(word in kind.name for word in ("HEI", "JPEG XL", "raw", "AVIF", "EPS", "Photoshop", "HDR", "EXR"))
    return "convert it to JPEG or PNG" if is_picture else "replace the file or remove it from the data set"
