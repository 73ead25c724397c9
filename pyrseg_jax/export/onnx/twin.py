"""The network that is written in place of one whose program depends on the image."""

from pyrseg_jax.models.contexts.contract import Pooled
from pyrseg_jax.models.contexts.qgn import QGN
from pyrseg_jax.models.segmenter import Segmenter


def dense_twin(model: Segmenter) -> Segmenter:
    """Return a network with the same weights and results that computes all cells: ONNX files here have no open loops.

    QGN's sparse form leaves out cells, in loops as long as there are active ones. Its masked form computes whole maps.
    """
    context = model.context
    if isinstance(context, Pooled) and isinstance(context.context, QGN):
        return model.clone(context=context.clone(context=context.context.clone(is_skipping=False)))
    return model
