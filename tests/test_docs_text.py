"""The documents: links and names lead somewhere, numbers stand in one place, and words are plain American English."""

import ast
import re
from pathlib import Path

import pytest
from support.docs import DOCS, ROOT, anchors_of, links_of, pages, prose_of

from pyrseg_jax.commands import MODES
from pyrseg_jax.run import command_line
from pyrseg_jax.run.keys import keys_of
from pyrseg_jax.run.schema import Config

CONTRIBUTING = ROOT / "CONTRIBUTING.md"

# ── Links, paths, names ──


@pytest.mark.parametrize("page", [*pages(), CONTRIBUTING], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors_of(file), f"{page.name}: {target}; there are {sorted(anchors_of(file))}"


def sources() -> list[Path]:
    """Return the files of the project that people write: code, configs, scripts, documents."""
    kinds = ("*.py", "*.sh", "*.sbatch", "*.yaml", "*.yml", "*.toml", "*.md", "*.cff")
    folders = ("pyrseg_jax", "configs", "launch", "benchmarks", "tests", "docs")
    inside = [path for folder in folders for kind in kinds for path in (ROOT / folder).rglob(kind)]
    return [*inside, *(path for kind in kinds for path in ROOT.glob(kind))]


def test_documents_that_the_code_names_exist():
    found = 0
    for path in sources():
        for name in re.findall(r"\bdocs/[\w/]+\.(?:md|png|json)", path.read_text()):
            found += 1
            assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} names {name}"
    assert found > 20


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    for quoted in re.findall(r"`([^`\n]+)`", prose_of(page)):
        for name in re.findall(r"(?<![\w/])(?:pyrseg_jax|tests|benchmarks|launch|configs|docs)/[\w./]*\w", quoted):
            is_yours = name == "configs/mine.py" or "NAME" in name  # a file that the reader writes
            assert is_yours or (ROOT / name).exists(), f"{page.relative_to(ROOT)}: {name}"
        for file, test in re.findall(r"(test_\w+\.py)(?:::(\w+))?", quoted):
            path = ROOT / "tests" / file
            assert path.is_file(), f"{page.relative_to(ROOT)}: {file}"
            assert not test or test in names_in(path), f"{page.relative_to(ROOT)}: {file}::{test}"


def names_in(path: Path) -> set[str]:
    """Return what a Python file defines at its top: functions, classes, constants."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_paper_map_names_functions_that_exist():
    text = (DOCS / "guide" / "paper_map.md").read_text()
    found = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", text)
    assert len(found) > 20
    for file, names in found:
        defined = names_in(ROOT / "pyrseg_jax" / file)
        for name in re.findall(r"`(\w+)`", names):
            assert name in defined, f"paper_map.md: {file} defines no {name}"
    for file in re.findall(r"`((?:models|pyramid|evaluation|reporting|paper|training)/[\w/]+\.py)`", text):
        assert (ROOT / "pyrseg_jax" / file).is_file(), f"paper_map.md: {file}"


def test_the_command_line_is_described_in_full():
    text = (DOCS / "reference" / "command_line.md").read_text()
    for mode in MODES:
        assert f"| `{mode}`" in text, mode
    for flag in (*command_line.FLAGS, "mode", "version"):
        assert f"`--{flag}" in text, flag


def test_the_workdir_is_described_in_full():
    text = (DOCS / "reference" / "workdir.md").read_text()
    for name in ("config.json", "classes.json", "environment.json", "initialisation.json", "metrics.jsonl", "lock"):
        assert f"| `{name}` |" in text, name
    for name in ("loss", "semantic", "semantic_4", "unity", "unity_3", "gradient_norm", "data_wait_share"):
        assert f"`{name}`" in text, name


def test_the_keys_that_may_change_are_listed():
    section = (DOCS / "guide" / "recovery.md").read_text().split("## Keys that may change")[1].split("\n## ")[0]
    listed = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)
    }
    assert listed == {name for name, key in keys_of(Config).items() if key.is_resumable}


# ── Numbers and words ──


def between(text: str, start: str, end: str) -> str:
    return text.split(start)[1].split(end)[0].partition("\n")[2].strip()


def test_results_stand_in_one_place():
    results = (DOCS / "guide" / "results.md").read_text()
    summary = between(results, "--8<-- [start:summary]", "<!-- --8<-- [end:summary]")
    readme = (ROOT / "README.md").read_text()
    assert between(readme, "<!-- results:start", "<!-- results:end -->") == summary
    figures = re.findall(r"\| (\d\d\.\d\d)\b", summary)
    assert figures
    details = results.split("[end:summary]")[1]
    for figure in figures:
        assert f"**{figure}**" in details or f"**mIoU {figure}**" in details, figure
    readme = readme.replace(summary, "")
    for path in [*(ROOT / "configs").glob("*.py"), *(p for p in pages() if p.name not in ("results.md", "README.md"))]:
        for figure in figures:
            assert figure not in path.read_text(), f"{path.name} repeats {figure}: name docs/guide/results.md instead"
    assert not [figure for figure in figures if figure in readme]


BRITISH = r"\w*(?:colour|normalis|initialis|labell|grey|centre|neighbour|behaviour|licence|favour|summaris|optimis)\w*"
# A file and a JSON key that keep their spelling, because other programs read them.
KEPT = ("initialisation",)
CLIPPED = r"in place of|the like of|whoever|shall|is no \w+ but|there is to|by and by|of a sudden|hand on|slow twin"


@pytest.mark.parametrize("page", [*pages(), CONTRIBUTING], ids=lambda page: str(page.relative_to(ROOT)))
def test_words_are_american_and_plain(page):
    text = prose_of(page)
    for word in re.findall(BRITISH, text, re.IGNORECASE):
        assert any(kept in word for kept in KEPT), f"{page.relative_to(ROOT)}: {word}"
    clipped = re.findall(CLIPPED, text, re.IGNORECASE)
    assert not clipped, f"{page.relative_to(ROOT)}: {clipped}"


@pytest.mark.parametrize("page", [*pages(), CONTRIBUTING], ids=lambda page: str(page.relative_to(ROOT)))
def test_no_sentence_begins_with_a_code_block(page):
    """A block cannot be the subject of the sentence after it: the sentence says "This command …"."""
    found = re.findall(r"^ *```\n\n([a-z].*)$", page.read_text(), re.MULTILINE)
    assert not found, f"{page.relative_to(ROOT)}: {found}"


def test_the_glossary_explains_what_users_meet():
    text = (DOCS / "guide" / "glossary.md").read_text()
    terms = (
        "view",
        "padded size",
        "shard",
        "dataset report",
        "storage",
        "label mapping",
        "resumable key",
        "variant word",
        "accelerator",
        "reference implementation",
    )
    for term in (*terms, "unit-cell", "mixed-cell", "void", "don't care", "evaluation protocol", "checkpoint"):
        assert f"| {term} |" in text, term
