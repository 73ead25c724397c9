"""The paper's experiments as words after a config's name, such as `camvid:cpu,F` or `ade20k:resnet101,danet,pyramid`.

A config file lists its words in `VARIANTS`: groups of words, each with one line that describes it. `get_config`, its error
message and `pyrseg configs` read the same list.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyrseg_jax.paper.methods import METHODS as METHOD_TABLE
from pyrseg_jax.paper.methods import Method
from pyrseg_jax.paper.modern import FAMILIES, FAMILY_OF
from pyrseg_jax.paper.releases import RELEASES
from pyrseg_jax.paper.tables import TABLE_2A, UNKNOWN
from pyrseg_jax.run.config_file import Words

ROWS = Words(
    "rows of Table 2a",
    {
        letter: f"row {letter} of Table 2a: {row.describe()}".replace(": none,", ": no context module,")
        + (" (the default)" if letter == "H" else "")
        for letter, row in TABLE_2A.items()
    },
)


def _describe(word: str, method: Method) -> str:
    """Describe a method with its published mIoU, or a release's where Table 1 has none."""
    rows = []
    for row in method.rows(word):
        notes = "; ".join(note for note in (row.protocol if row.protocol != UNKNOWN else "", row.note) if note)
        rows.append(f"{row.backbone} {row.describe_scores()}" + (f" ({notes})" if notes else ""))
    if not rows and method.elsewhere:
        rows = [method.elsewhere]
    return "; ".join([method.title, *rows])


METHODS = Words(
    "methods, with the mIoU of Table 1 in percent on ADE20K / COCO-Stuff 10K; without a protocol, none is stated",
    {word: _describe(word, method) for word, method in METHOD_TABLE.items()},
)
BACKBONES = Words(
    "backbones",
    {
        "resnet50": "a ResNet-50 instead of the HRNet, with the recipe of the method's release",
        "resnet101": "a ResNet-101 instead of the HRNet, with the recipe of the method's release, as most rows of Table 1",
        **{word: about for family in FAMILIES for word, about in family.words.items()},
    },
)
RECIPES = Words(
    "recipes",
    {
        "mmsegmentation": "train as mmsegmentation does, and as its weights expect, whatever the method's own release does"
    },
)
PYRAMID = Words("predictions", {"pyramid": "combine with one of the methods: predict a pyramid instead"})

# HRNet's recipe keeps 131,072 pixels of the four crops on each of its GPUs. Ours is for a batch of sixteen crops.
OHEM_THRESHOLD, OHEM_MIN_KEPT = 0.9, 4 * 131_072

# Keys that the words of methods set at every size, and those that the recipe of a release sets beside them.
NETWORK_KEYS = ("model.context", "model.representation", "training.supervision", "training.auxiliary_weight")
RECIPE_KEYS = (
    "model.backbone",
    "model.strides",
    "model.output_stride",
    "training.warmup_steps",
    "training.ohem_threshold",
    "training.ohem_min_kept",
    *sorted(
        {
            key
            for release in RELEASES.values()
            for keys in (release.network, release.training, *release.by_data.values())
            for key in keys
        }
        | {key for family in FAMILIES for key in family.keys}
    ),
)


def read_words(name: str, variant: str, groups: Sequence[Mapping[str, str]]) -> set[str]:
    """Split the words after a config's name.

    Args:
      name: the name of the config, for error messages.
      variant: words joined with commas, or "".
      groups: the words that the config knows. Words of one group exclude each other.

    Raises:
      ValueError: naming a word that is not known, or words that exclude each other.
    """
    words = [word for word in variant.split(",") if word]
    known = "; ".join(" | ".join(group) for group in groups)
    for word in words:
        if not any(word in group for group in groups):
            near = difflib.get_close_matches(word, [known for group in groups for known in group], n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"{name}:{variant}: {word!r} is not known{hint}; expected words joined with commas, at most one from each "
                f"group: {known}"
            )
    for group in groups:
        _check_exclusive(name, variant, [word for word in words if word in group], group)
    rows = [word for word in words if word in ROWS]
    if rows and (others := [word for word in words if word in METHODS or word in PYRAMID]):
        raise ValueError(
            f"{name}:{variant}: {rows[0]} and {others[0]} exclude each other: a row of Table 2a fixes context, representation and "
            "procedure; leave one of the two out"
        )
    if "hrnet" in words and (others := [word for word in words if word in BACKBONES]):
        raise ValueError(
            f"{name}:{variant}: hrnet and {others[0]} exclude each other: hrnet is the baseline on an HRNet; expected another "
            "method, for example fcn"
        )
    return set(words)


def _check_exclusive(name: str, variant: str, chosen: list[str], group: Iterable[str]) -> None:
    if len(chosen) > 1:
        raise ValueError(
            f"{name}:{variant}: {' and '.join(chosen)} exclude each other; expected one of {' | '.join(group)}"
        )


def choose_row(config: Any, words: set[str]) -> None:
    """Set context, representation and procedure to those of the row of Table 2a among the words, if there is one.

    Chosen: the auxiliary classifier of ANL is left out of the loss, so that the rows differ only in these three choices.
    """
    for letter in words & TABLE_2A.keys():
        row = TABLE_2A[letter]
        config.model.context, config.model.representation = row.context, row.representation
        config.training.procedure, config.training.auxiliary_weight = row.procedure, 0.0


def choose_network(config: Any, words: set[str]) -> None:
    """Set the network to that of the method among the words, and keep the config's recipe; without one, keep the config's.

    The published methods predict one class per pixel and are supervised at the label map's size. With the word `pyramid`, they
    predict a pyramid with the paper's loss instead.

    Chosen: the methods keep all pixels of the loss and the default weight of the auxiliary classifier, so that per pixel and with
      the pyramid they differ only in the prediction and its loss.
    """
    for word in words & METHODS.keys():
        config.model.context = METHOD_TABLE[word].context
        is_pyramid = word == "ours" or "pyramid" in words
        config.model.representation = "pyramid" if is_pyramid else "per_pixel"
        config.training.supervision = "finest" if is_pyramid else "full_size"


def choose_method(config: Any, words: set[str]) -> None:
    """Set network, loss and recipe to those of the words; without any, keep the paper's own method.

    On the config's HRNet, the recipe stays that of the config, and methods with one class per pixel learn from hard pixels, as in
    the paper. On a ResNet, the recipe is that of the method's release, and its network is the one that the release's weights fit.
    On any other backbone, the recipe is that backbone's.

    Source: Sec. 4: "Online hard pixel mining is also employed for the two baselines"; `paper/releases.py`.
    """
    choose_network(config, words)
    method = METHOD_TABLE[next(iter(words & METHODS.keys()), "ours")]
    is_standard = "mmsegmentation" in words
    if is_standard:
        config.model.context = method.of_mmsegmentation or method.context
    for backbone in words & BACKBONES.keys():
        config.model.backbone = backbone
        if backbone in FAMILY_OF:
            _set_all(config, FAMILY_OF[backbone].keys_for(config.data.name))
        else:
            _choose_release(config, method, is_standard)
        return
    if is_standard:
        _set_all(config, RELEASES["mmsegmentation"].keys_for(config.data.name))
    elif config.model.representation == "per_pixel":
        config.training.ohem_threshold, config.training.ohem_min_kept = OHEM_THRESHOLD, OHEM_MIN_KEPT


def _choose_release(config: Any, method: Method, is_standard: bool) -> None:
    """Set a ResNet and the recipe to those of a method's release.

    Chosen: a method without a release, the paper's own, keeps the recipe of the config, on mmsegmentation's ResNet.
    """
    if not is_standard and method.of_release:
        config.model.context = method.of_release
    release = RELEASES.get("mmsegmentation" if is_standard else method.release or "")
    network = RELEASES["mmsegmentation"].network if release is None else release.network
    _set_all(config, {key: value for key, value in network.items() if key != "model.resize" or method.has_resize})
    _set_all(config, {} if release is None else release.keys_for(config.data.name))
    _set_all(config, method.on_resnet)


def _set_all(config: Any, keys: Mapping[str, Any]) -> None:
    for key, value in keys.items():
        config.update_from_flattened_dict({key: value})
