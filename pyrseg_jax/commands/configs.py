"""`pyrseg configs`: list the packaged configs, and the words that change each."""

from pyrseg_jax.run import config_file


def show() -> None:
    """Print every packaged config with its summary, and each of its words with a description."""
    configs = {name: config_file.describe(path) for name, path in config_file.packaged().items()}
    width = max((len(word) for about in configs.values() for group in about.groups for word in group), default=0)
    lines = []
    for name, about in configs.items():
        lines += [f"{name}: {about.summary}"]
        lines += [f"  :{word:<{width}}  {text}" for group in about.groups for word, text in group.items()]
        lines += [""]
    lines += [
        "Join words with commas; use at most one from each group: --config=camvid:cpu,F",
        "Your own config is a Python file like these (see configs/): --config=FILE.py",
    ]
    print("\n".join(lines))
