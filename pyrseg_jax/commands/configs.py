"""`pyrseg configs`: list the packaged configs, and the words that change each."""

from pyrseg_jax.run import config_file


def show() -> None:
    """Print every packaged config with its summary, and its words with a line each."""
    lines = []
    for name, path in config_file.packaged().items():
        summary, groups = config_file.describe(path)
        lines += [f"{name}: {summary}"]
        for group in groups:
            width = max(map(len, group))
            lines += [f"  :{word:<{width}}  {text}" for word, text in group.items()]
        lines += [""]
    lines += [
        "Words are joined by commas, of each group one: --config=camvid:cpu,F",
        "A config of your own is a Python file like these: --config=FILE.py",
    ]
    print("\n".join(lines))
