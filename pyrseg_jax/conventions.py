"""Numbers that the host side and the device side must agree on."""

VOID = 255  # in label maps: the ground truth says nothing here. Classes are 0 … 254

# Mean and standard deviation of RGB over ImageNet, of values 0 … 255; published HRNet weights expect inputs so scaled.
IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)
