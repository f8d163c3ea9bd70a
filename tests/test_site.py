"""The site is built without a warning and needs no network; links, anchors and
command lines of every page lead to what there is."""

import configparser
import json
import logging
import pydoc
import re
import shlex
from functools import cache
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import ROOT
from tests.fixtures.public_names import listing
from unispeech_sb.commands import COMMANDS
from unispeech_sb.commands.recipe import recipe_docstrings, yamls_of
from unispeech_sb.recipe_options import RUN_OPTIONS, read_keys

pytest.importorskip("mkdocstrings", reason="needs the extra docs")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    ROOT / "benchmarks" / "README.md",
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(
    r"(?:^<!-- (?P<comment>[^\n]*?) -->\n)?"
    r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHELL = ("", "bash", "sh", "shell")
RUN_BY = {
    "README.md": "tests/test_readme.py",
    "docs/index.md": "tests/test_readme.py",
    "docs/tasks.md": "tests/test_readme.py",
    "docs/commands.md": "tests/test_docs.py",
    "docs/data.md": "tests/test_docs.py",
    "docs/migration.md": "tests/test_docs.py",
    "docs/speed.md": "tests/test_docs.py",
    "docs/scale.md": "tests/test_scale.py",
    "docs/bulk.md": "tests/commands/test_bulk_ray.py",
    "docs/shards.md": "tests/dataio/test_shards.py",
    "docs/export.md": "tests/commands/test_export.py",
    "docs/serve.md": "tests/serve/test_docs.py",
    "docs/superb.md": "tests/superb/test_page.py",
    **{
        str(path.relative_to(ROOT)): "tests/test_tutorials.py"
        for path in ROOT.glob("docs/tutorials/*.md")
    },
}
"""Page -> the test that runs its Python and its commands.
What `make` and `pip` do is compared with the Makefile and setup.cfg here, and
what a yaml names is looked for."""
HOSTS = {"arxiv.org", "creativecommons.org", "speechbrain.github.io"}
"""Those that pages link to; what they answer is not tried."""

each_page = pytest.mark.parametrize("name", NAMES)


@cache
def text_of(name):
    """A page."""
    return (ROOT / name).read_text("utf-8")


def blocks_of(name):
    """Comment above, kind and content of the fenced blocks of a page."""
    found = BLOCK.finditer(text_of(name))
    return [(m["comment"] or "", m["kind"], m["text"]) for m in found]


def prose_of(name):
    """A page without its fenced blocks."""
    return BLOCK.sub("", text_of(name))


def anchors_of(name):
    """Anchors of the headings of a page, as GitHub makes them."""
    found = []
    for title in re.findall(r"^#+ (.*)$", prose_of(name), re.MULTILINE):
        title = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        again = found.count(anchor)
        found.append(f"{anchor}-{again}" if again else anchor)
    return found


def lines_of(text):
    """Command lines of a block, whole and without comments."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words]


def test_there_are_pages_to_look_at():
    assert {"README.md", "docs/index.md", "docs/migration.md"} < {*NAMES}
    assert len(NAMES) > 15


@each_page
def test_links_lead_to_files_and_their_anchors(name):
    links = re.findall(r"\]\(([^)\s]+)\)", prose_of(name))
    for link in links:
        target, _, anchor = link.partition("#")
        if "://" in target:
            assert urlsplit(target).scheme == "https", link
            assert urlsplit(target).hostname in HOSTS, link
            continue
        place = (ROOT / name).parent / target if target else ROOT / name
        assert place.exists(), link
        if anchor:
            inside = str(place.resolve().relative_to(ROOT))
            assert anchor in anchors_of(inside), link


@each_page
def test_every_block_runs_or_says_why_not(name):
    for comment, kind, text in blocks_of(name):
        if comment.startswith("not run: "):
            assert len(comment) > 15, text
        elif kind in SHELL and programs_of(text) <= {"make", "pip"}:
            pass  # see test_command_lines_are_understood
        elif kind in (*SHELL, "python"):
            runner = RUN_BY.get(name)
            assert runner, f"{name}: no test runs {text}"
            own = re.compile(rf"\b{Path(name).stem}\b")
            assert own.search((ROOT / runner).read_text("utf-8"))
        else:
            known = ("csv", "ini", "json", "text", "yaml")
            assert kind in known, f"{name}: {kind} is not marked as not run"


def programs_of(text):
    """The programs that the lines of a block call."""
    return {words[0] for words in lines_of(text)}


def inline_commands(name):
    """Command lines in backquotes, in the prose and the tables of a page."""
    found = re.findall(r"`([^`\n]+)`", prose_of(name))
    starts = ("unispeech-sb ", "python recipes/", "python benchmarks/", "make ")
    if name == "benchmarks/README.md":  # has measured what errors take, too
        starts = ("python benchmarks/",)
    lines = [text for text in found if text.startswith(starts)]
    return [shlex.split(line.replace("\\|", "|")) for line in lines]


@each_page
def test_command_lines_are_understood(name):
    lines = inline_commands(name)
    for comment, kind, text in blocks_of(name):
        if kind in SHELL and not comment.startswith("not run: "):
            lines += lines_of(text)
    for words in lines:
        check_line(words)


def check_line(words):
    """Raises where a command line names what there is not."""
    program, *rest = words
    if program == "torchrun":
        while rest[0].startswith("--"):
            rest = rest[1:]
        program, *rest = rest
        if program == "$(which":
            program, rest = "unispeech-sb", rest[1:]
        elif program.startswith("recipes/"):
            program, rest = "python", [program, *rest]
    check = {
        "unispeech-sb": check_command,
        "python": check_script,
        "make": check_make,
        "pip": check_pip,
    }
    if program in check:  # other programs are run by the tests of RUN_BY
        check[program](rest)


def is_placeholder(word):
    """Whether a word stands for others: COMMAND, T, ..."""
    return re.fullmatch(r"[A-Z_]+|\.\.\.|…", word) is not None


def check_command(words):
    """Arguments of ``unispeech-sb``."""
    if not words or words[0].startswith("--") or is_placeholder(words[0]):
        return
    name, *rest = words
    assert name in COMMANDS, words
    if name in ("recipe", "demo"):
        check_recipe(rest if name == "recipe" else ["keyword_spotting", *rest])
        return
    inner = rest[:1] if name in ("data", "superb") else []
    known = flags_of(name, *inner)
    for word in rest:
        if re.match(r"--?[a-zA-Z]", word):
            assert word.partition("=")[0] in known, words


@cache
def flags_of(*name):
    """Flags of a command."""
    return {*listing.command(*name)["flags"]}


def check_recipe(words):
    """Arguments of ``unispeech-sb recipe``."""
    if not words or is_placeholder(words[0]) or words[0] == "--help":
        return
    name, *rest = words
    recipes = recipe_docstrings()
    assert name in recipes, words
    yaml = f"{name}.yaml"
    if rest and not rest[0].startswith("-"):
        yaml, *rest = rest
        yaml = yaml.removeprefix("hparams/")
    if not is_placeholder(yaml):
        assert yaml in yamls_of(name, recipes), words
    keys = {*keys_of(yaml), *RUN_OPTIONS, "help"}
    for word in rest:
        if word not in ("[--key=value", "...]", "..."):
            assert word.partition("=")[0].removeprefix("--") in keys, words


@cache
def keys_of(yaml):
    """Keys of a yaml that a command line may set."""
    sections = read_keys(ROOT / "hparams" / yaml).sections.values()
    return {key.name for keys in sections for key in keys}


def check_script(words):
    """Arguments of ``python``: a recipe, a benchmark or another script."""
    script, *rest = words
    if script == "-m":
        return
    if script.startswith("recipes/") and not is_placeholder(Path(script).stem):
        check_recipe([Path(script).stem, *rest])
        return
    assert (ROOT / script).is_file() or is_placeholder(Path(script).stem)
    if (ROOT / script).is_file():
        text = (ROOT / script).read_text("utf-8")
        for word in rest:
            if word.startswith("--"):
                assert word.partition("=")[0] in text, words


def check_make(words):
    """Arguments of ``make``."""
    text = (ROOT / "Makefile").read_text("utf-8")
    for word in words:
        name, given, _ = word.partition("=")
        form = rf"^{name} *\??=|\$\({name}\)" if given else rf"^{name}:"
        assert re.search(form, text, re.MULTILINE), words


def check_pip(words):
    """Arguments of ``pip install``: extras and files."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    known = {*config["options.extras_require"]}
    assert words[0] == "install"
    for word in words[1:]:
        if word.endswith(".txt"):
            assert (ROOT / word).is_file(), words
        extras = re.fullmatch(r"(?:\.|unispeech_sb)\[([\w,]+)\]", word)
        if extras:
            assert {*extras[1].split(",")} <= known, words


@each_page
def test_what_a_yaml_names_is_there(name):
    for _, kind, text in blocks_of(name):
        if kind == "yaml":
            named = re.findall(r"!(?:new|name):([\w.]+)", text)
            assert named
            assert None not in map(pydoc.locate, named)


# What mkdocs makes of the pages


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Folder of the site, and what mkdocs warned of."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    place = tmp_path_factory.mktemp("site")
    said = []

    class Warnings(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    handler = Warnings(logging.WARNING)
    logger = logging.getLogger("mkdocs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        logger.addHandler(handler)
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(place)))
        logger.removeHandler(handler)
    return place, said


class Page(HTMLParser):
    """A page of the site: anchors, links, and what a browser loads with it."""

    LOADS = {
        "script": "src", "img": "src", "iframe": "src", "source": "src",
        "audio": "src", "video": "src", "object": "data", "embed": "src",
    }  # fmt: skip

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self.text = path.read_text("utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found.get("id"), found.get("name")}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "link" and found["rel"] not in ("prev", "next"):
            self.loads.append(found["href"])
        if found.get(self.LOADS.get(tag)):
            self.loads.append(found[self.LOADS[tag]])


@pytest.fixture(scope="session")
def site(built):
    """Place of each page in the site -> the page."""
    folder, _ = built
    found = sorted(folder.rglob("*.html"))
    return {path.relative_to(folder): Page(path) for path in found}


@pytest.mark.slow
def test_it_is_built_without_a_warning(built, site):
    assert built[1] == []
    assert len(site) > 40


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(built, site):
    for path, page in site.items():
        outside = [one for one in page.loads if "//" in one]
        assert not [one for one in outside if not one.startswith("data:")], path
        assert 'class="mermaid"' not in page.text  # whose script is loaded
    for path in built[0].rglob("*.css"):
        text = path.read_text("utf-8")
        assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", text), path


@pytest.mark.slow
def test_links_of_the_site_lead_to_pages_and_anchors(built, site):
    checked = 0
    for path, page in site.items():
        if path.name == "404.html":
            continue  # whose links begin at the root of a server
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.hostname in HOSTS, (path, link)
                continue
            place = built[0] / path.parent / unquote(parts.path)
            place = place if parts.path else built[0] / path
            assert place.is_file(), (path, link)
            checked += 1
            if parts.fragment and place.suffix == ".html":
                to = site[place.resolve().relative_to(built[0].resolve())]
                assert unquote(parts.fragment) in to.anchors, (path, link)
    assert checked > 1000


@pytest.mark.slow
def test_sections_of_docstrings_are_tables(site):
    page = site[Path("api/lobes.html")].text
    name = "unispeech_sb.lobes.backbone.Backbone.forward"
    section = page.partition(f'id="{name}"')[2]
    table = section[section.index("Parameters:") :].partition("</table>")[0]
    assert "wav_lens" in table and "Waveforms at 16 kHz" in table
    for path, other in site.items():
        if path.parent.name == "api":
            titles = re.findall(r"<h\d[^>]*>\s*(\w+)", other.text)
            assert not {"Arguments", "Example", "Examples"} & {*titles}, path


@pytest.mark.slow
def test_every_command_and_every_key_has_its_place(site):
    commands = site[Path("reference/commands.html")]
    assert {f"unispeech-sb-{name}" for name in COMMANDS} < commands.anchors
    assert "--max-upload-mb" in commands.text
    recipes = recipe_docstrings()
    for name in recipes:
        page = site[Path(f"recipes/{name}.html")].text
        for yaml in yamls_of(name, recipes):
            shown = re.findall(r'<code class="key">--(\w+)</code>', page)
            assert keys_of(yaml) <= {*shown}


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("docs/")])
def test_commands_that_are_broken_stay_the_same(name):
    broken = hooks().broken
    for _, kind, text in blocks_of(name):
        for line in text.splitlines() if kind in SHELL else ():
            if not line.endswith("\\"):  # it is broken by hand
                assert lines_of(broken(line)) == lines_of(line)
                assert "\n" in broken(line) or len(line) <= 80 or "#" in line


def test_a_notebook_becomes_a_page(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# A title\n", "\n", "Text."]},
        {
            "cell_type": "code",
            "source": ["print(1)"],
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"data": {"text/html": ["<b>x</b>"], "text/plain": ["x"]}},
                {"data": {"image/png": "AAAA\n", "text/plain": ["y"]}},
            ],
        },
        {"cell_type": "code", "source": [], "outputs": []},
    ]
    path = tmp_path / "own.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert hooks().notebook_page(path).rstrip().split("\n\n") == [
        "# A title",
        "[As a notebook](own.ipynb)",
        "Text.",
        "```python\nprint(1)\n```",
        "```text\n1\n```",
        "<b>x</b>",
        "![output](data:image/png;base64,AAAA)",
    ]


@cache
def hooks():
    """docs/hooks.py as a module."""
    spec = spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
