"""The contrast of colors, as WCAG 2.2 defines it."""


def luminance(color: str) -> float:
    """Return the relative luminance of a color `#rrggbb`."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colors: 1 for equal ones, 21 for black and white."""
    darker, brighter = sorted(map(luminance, (first, second)))
    return (brighter + 0.05) / (darker + 0.05)
