"""Numbers that the host side and the device side must agree on."""

VOID = 255  # in label maps: a pixel without ground truth. Classes are 0 … 254

# Mean and standard deviation of RGB values (0 … 255) over ImageNet. Published HRNet weights expect inputs normalized with them.
IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)
