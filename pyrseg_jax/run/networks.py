"""The network of an experiment and its evaluation protocol, built from the configuration: all that predictions need."""

from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.evaluation.views import Protocol, make_protocol
from pyrseg_jax.models.segmenter import Segmenter, build_segmenter
from pyrseg_jax.run.config import Config


def make_model(config: Config, classes: LabelSpace | int) -> Segmenter:
    """Build the network.

    Args:
      config: the experiment.
      classes: the classes, with their hierarchy if they have one; a number stands for as many classes without a hierarchy.
    """
    model = config.model
    is_number = isinstance(classes, int)
    return build_segmenter(
        classes if is_number else classes.num_classes,
        hierarchy=None if is_number else classes.hierarchy,
        backbone=model.backbone,
        context=model.context,
        representation=model.representation,
        strides=model.strides,
        semantic_width=model.semantic_width,
        key_width=model.key_width,
        unity_width=model.unity_width,
        resize=model.resize,
        dtype=model.dtype,
        remat=model.remat,
        output_stride=model.output_stride,
        stem=model.stem,
        dilation=model.dilation,
        multi_grid=model.multi_grid,
        drop_path=model.drop_path,
        crop_px=config.data.crop_px,
        channels=config.data.channels,
    )


def make_evaluation_protocol(config: Config) -> Protocol:
    """Build the evaluation protocol: the scales, flips, and windows in which the network sees an image."""
    evaluation = config.evaluation
    return make_protocol(
        evaluation.protocol, evaluation.short_side_px, evaluation.long_side_px, config.model.strides[0]
    )


def describe_protocol(config: Config) -> dict:
    """Describe how predictions were made, for readers who compare results."""
    protocol = make_evaluation_protocol(config)
    return protocol.describe() | {
        "threshold": config.evaluation.threshold,
        "short_side_px": protocol.short_side_px,
        "long_side_px": protocol.long_side_px,
        "window_px": protocol.window_px,
        "stride": protocol.stride,
    }
