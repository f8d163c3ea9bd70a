"""Documents say what is there: links, paths, and the generated picture."""

import importlib.util
import re

import pytest

from tests.conftest import ROOT
from tests.test_layout import MAY_IMPORT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SMALL = {"__init__", "__main__", "cli", "moved", "hparams"}
"""Parts that the picture leaves out."""


def test_there_are_pages_to_look_at():
    names = {page.name for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "architecture.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    inner = [link for link in links if "://" not in link]
    assert not [link for link in inner if not (page.parent / link).exists()]


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_paths_in_backquotes_exist(name):
    text = re.sub(
        r"```.*?```", "", (ROOT / name).read_text("utf-8"), flags=re.S
    )
    found = re.findall(r"`([\w/]+(?:/|\.py|\.yaml|\.md|\.txt))`", text)
    paths = [path for path in found if "my_" not in path and "/T." not in path]
    assert len(paths) > 10
    places = [ROOT, ROOT / "unispeech_sb", ROOT / "hparams"]
    places += [p for p in (ROOT / "unispeech_sb").rglob("*") if p.is_dir()]
    missing = [
        path
        for path in paths
        if not any((place / path).exists() for place in places)
    ]
    assert not missing


def test_the_picture_shows_the_imports_of_today():
    place = ROOT / "docs" / "architecture.py"
    spec = importlib.util.spec_from_file_location("architecture", place)
    architecture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(architecture)
    assert set(architecture.ABOUT) == set(MAY_IMPORT) - SMALL | {"plots"}
    drawn = architecture.draw(architecture.read_imports())
    assert architecture.PICTURE.read_text("utf-8") == drawn, "draw it again"
