"""Define the classes of the rendered scenes: their values, names, colors and kinds."""

SKY, BUILDING, ROAD, PAVEMENT, GRASS, WATER, WALL, TREE, CAR, PERSON, POLE, SIGN = range(1, 13)
VOID = 0

CLASS_NAMES = (
    "sky", "building", "road", "pavement", "grass", "water", "wall", "tree", "car", "person", "pole", "sign",
)  # fmt: skip

CLASS_COLORS = (
    (135, 190, 235),
    (150, 105, 90),
    (95, 75, 110),
    (215, 165, 195),
    (160, 205, 90),
    (40, 105, 185),
    (205, 150, 85),
    (35, 120, 60),
    (20, 40, 130),
    (225, 40, 70),
    (120, 125, 130),
    (250, 215, 50),
)

# Stuff has an extent but cannot be counted. The four things get a void border.
IS_STUFF = (True, True, True, True, True, True, True, True, False, False, False, False)
