"""What the site has besides the pages of this folder; mkdocs.yml names it.

Pages that lie above this folder, one for each recipe with the keys of its
yamls, the options of every command, the public names of Python by their
docstrings, and notebooks. Links between pages lead to files of the clone; on
the site they lead to the pages of these.
"""

import ast
import io
import json
import os
import posixpath
import re
from contextlib import redirect_stdout, suppress
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

import griffe
from mkdocs.structure.files import File

from unispeech_sb.commands import COMMANDS, main
from unispeech_sb.commands.recipe import (
    as_commands,
    recipe_docstrings,
    yamls_of,
)
from unispeech_sb.inference import INTERFACES
from unispeech_sb.recipe_options import home_of, read_keys

ROOT = Path(__file__).parent.parent
ABOVE = {
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""File of the clone -> its page."""

SUBCOMMANDS = {"data": ("check",), "superb": ("run", "report")}
"""Commands that have commands of their own."""

API = {
    "inference": (
        "Load and run models",
        "`unispeech_sb.load` gives the interface that a folder is for; "
        "[commands](../commands.md#in-python) has examples.",
        [f"unispeech_sb.inference.{m}.{n}" for n, m in INTERFACES.items()],
    ),
    "results": (
        "What models give",
        "The results of the interfaces.",
        [
            "unispeech_sb.decoding.Transcript",
            "unispeech_sb.decoding.Word",
            "unispeech_sb.decoding.Alignment",
            "unispeech_sb.inference.classification.Classification",
            "unispeech_sb.inference.speaker_verification.SpeakerEmbedding",
            "unispeech_sb.inference.speaker_verification.Decision",
            "unispeech_sb.inference.segments.Diarization",
            "unispeech_sb.inference.features.HiddenStates",
            "unispeech_sb.inference.attribution.attribute_words",
            "unispeech_sb.dataio.audio.AudioError",
        ],
    ),
    "lobes": (
        "Backbone and lobes",
        "Waveforms to features, for yamls and for PyTorch.",
        [
            "unispeech_sb.lobes.backbone.Backbone",
            "unispeech_sb.lobes.wav2vec2",
            "unispeech_sb.lobes.adapters.load_adapter",
            "unispeech_sb.lobes.adapters.save_adapter",
        ],
    ),
    "heads": (
        "Heads",
        "Features to scores or to an embedding.",
        ["unispeech_sb.lobes.heads"],
    ),
    "pretraining": (
        "Pre-training objectives",
        "A backbone and a head in, named losses out.",
        ["unispeech_sb.lobes.pretraining"],
    ),
    "convert": (
        "Conversion",
        "Checkpoints of others to folders, and the way back.",
        ["unispeech_sb.convert"],
    ),
    "decoding": (
        "Decoding",
        "CTC scores to words: search, language models, alignment.",
        ["unispeech_sb.decoding"],
    ),
    "training": (
        "Training",
        "What recipes are made of: `run`, and a Brain for each kind of task.",
        [
            "unispeech_sb.experiment.run",
            "unispeech_sb.brains",
            "unispeech_sb.dataio.corpora",
            "unispeech_sb.dataio.pipelines",
            "unispeech_sb.dataio.manifest",
        ],
    ),
    "metrics": (
        "Scores",
        "Error rates of speakers, conversations, slots and units; confusions.",
        [
            "unispeech_sb.metrics.classification.ConfusionMatrix",
            "unispeech_sb.metrics.verification.eer",
            "unispeech_sb.metrics.verification.min_dcf",
            "unispeech_sb.metrics.verification.bootstrap",
            "unispeech_sb.metrics.calibration.Calibration",
            "unispeech_sb.metrics.diarization.diarization_error",
            "unispeech_sb.metrics.diarization.jaccard_error",
            "unispeech_sb.metrics.slots.slot_type_f1",
            "unispeech_sb.metrics.slots.slot_value_cer",
            "unispeech_sb.metrics.phones.unit_quality",
        ],
    ),
    "serve": (
        "Service",
        "The application behind `unispeech-sb serve`.",
        ["unispeech_sb.serve.app.create_app"],
    ),
}
"""Page -> title, sentence, and names; a module stands for its ``__all__``."""


def on_config(config):
    """Lists the pages of the folders ``recipes/`` and ``api/`` in the menu."""
    known = {
        "recipes/": [f"recipes/{name}.md" for name in recipe_docstrings()],
        "api/": [f"api/{name}.md" for name in API],
    }

    def listed(entry):
        if isinstance(entry, list):
            return [listed(one) for one in entry]
        if isinstance(entry, dict):
            return {title: listed(one) for title, one in entry.items()}
        return known.get(entry, entry)

    config.nav = listed(config.nav)
    return config


def on_files(files, config):
    """Adds the pages that are not files of this folder."""
    pages = {
        page: (ROOT / name).read_text("utf-8") for name, page in ABOVE.items()
    }
    pages["reference/commands.md"] = commands_page()
    recipes = recipe_docstrings()
    for name, docstring in recipes.items():
        yamls = yamls_of(name, recipes)
        pages[f"recipes/{name}.md"] = recipe_page(name, docstring, yamls)
    shown = set()
    for name, (title, sentence, names) in API.items():
        found = [one for name in names for one in public_names(name)]
        new = [name for name in found if name not in shown]
        shown |= {*new}
        parts = [f"# {title}", sentence, *(f"::: {name}" for name in new)]
        pages[f"api/{name}.md"] = "\n\n".join(parts)
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{notebook.stem}.md"] = notebook_page(notebook)
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Leads links to files of the clone to their pages, keeps names of options
    in one line, takes out what is said to tests, and marks commands, which are
    then coloured and wrapped. The search shows pages for readers first."""
    here = page.file.src_uri
    source = next((n for n, p in ABOVE.items() if p == here), f"docs/{here}")
    if here in ABOVE.values() or here.partition("/")[0] in ("api", "recipes"):
        page.meta.setdefault("search", {"boost": 0.5})
    parts = re.split(r"^(```.*?^```)$", markdown, flags=re.M | re.S)
    for number, part in enumerate(parts):
        if number % 2:
            part = re.sub(r"\A```(sh|bash|)\n", "```shell\n", part)
            if part.startswith("```shell"):
                part = "\n".join(map(broken, part.split("\n")))
        else:
            part = re.sub(r"^<!-- .*? -->\n", "", part, flags=re.M)
            part = re.sub(r"(`--[\w=.-]{1,24}`)(?!`|\{)", r"\1{.key}", part)
            part = site_links(part, source, here)
        parts[number] = part
    return "".join(parts)


def broken(line, width=80):
    """A command line on several lines, none wider, as a shell takes them."""
    if len(line) <= width or "#" in line:
        return line
    lines, option = [""], r"(?:--?[\w-]+ (?=[^-]))?"  # with its value
    for word in re.findall(rf"{option}(?:'[^']*'|\"[^\"]*\"|\S)+", line):
        if lines[-1].strip() and len(lines[-1]) + len(word) > width - 3:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def site_links(markdown, source, page):
    """Links of a file of the clone as links of its page."""

    def led(match):
        target, anchor = match.groups()
        place = posixpath.normpath(
            posixpath.join(posixpath.dirname(source), target)
        )
        to = ABOVE.get(place, place.removeprefix("docs/"))
        if to != f"{page.removesuffix('.md')}.ipynb":  # its page has the file
            to = re.sub(r"\.ipynb$", ".md", to)
        to = posixpath.relpath(to, posixpath.dirname(page) or ".")
        return f"]({to}{anchor})"

    return re.sub(r"\]\(([^)#:\s]+)((?:#[^)]*)?)\)", led, markdown)


def commands_page():
    """The help of every command."""
    parts = ["# Options of every command", "As `--help` prints them."]
    for name in COMMANDS:
        parts.append(f"## unispeech-sb {name}")
        inner = [[name, sub] for sub in SUBCOMMANDS.get(name, ())]
        for words in inner or [[name]]:
            parts.append(f"```text\n{help_of(*words).rstrip()}\n```")
    return "\n\n".join(parts)


def help_of(*words):
    """What a command prints for ``--help``, 80 columns wide."""
    printed = io.StringIO()
    with (
        patch.dict(os.environ, COLUMNS="80", NO_COLOR="1"),
        redirect_stdout(printed),
        suppress(SystemExit),
    ):
        main([*words, "--help"])
    return printed.getvalue()


def recipe_page(name, docstring, yamls):
    """A recipe: its docstring, and the keys of its yamls."""
    parts = [f"# {name}", as_commands(docstring)]
    for yaml in yamls:
        found = read_keys(str(files(home_of("hparams")) / yaml))
        parts.append(f"## {yaml}")
        if found.header:
            header = as_commands("\n".join(found.header))
            parts.append(f"```text\n{header}\n```")
        for title, keys in found.sections.items():
            rows = ["| key | default | |", "|---|---|---|"]
            for key in keys:
                rows.append(key_row(f"--{key.name}", key))
                rows += [key_row(f"… {one.name}", one) for one in key.entries]
            short, _, more = title.partition(": ")
            parts += [f"### {short}", escaped(more), "\n".join(rows)]
    parts.append(
        "`<key>` stands for the value of that key, `null` for none. Options of "
        "a run, which all recipes have: `unispeech-sb recipe "
        f"{name} --help`."
    )
    return "\n\n".join(parts)


def key_row(name, key):
    """A key as a row of a table."""
    default = f"`{key.default}`".replace("|", "\\|") if key.default else ""
    return f"| `{name}`{{.key}} | {default} | {escaped(key.about)} |"


def escaped(comment):
    """A comment of a yaml as text of a page."""
    comment = comment.replace("&", "&amp;").replace("<", "&lt;")
    comment = re.sub(r"([\\`*_|\[\]])", r"\\\1", comment)
    return comment.replace("docs/data.md", "[data](../data.md)")


def public_names(name):
    """Names in ``__all__`` of a module, which is not imported; another name
    itself."""
    place = ROOT / name.replace(".", "/")
    file = place / "__init__.py" if place.is_dir() else Path(f"{place}.py")
    if not file.is_file():
        return [name]
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return [f"{name}.{one}" for one in ast.literal_eval(node.value)]
    raise ValueError(f"{file}: expected __all__, there is none")


def notebook_page(path):
    """A notebook as Markdown: texts, code, and what its cells gave."""
    parts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif text:
            parts.append(f"```python\n{text}\n```")
            parts += filter(None, map(output_of, cell.get("outputs", ())))
    title, _, rest = "\n\n".join(parts).partition("\n\n")
    return f"{title}\n\n[As a notebook]({path.name})\n\n{rest}\n"


def output_of(output):
    """What a cell gave, as Markdown."""
    data = output.get("data", {})
    if "image/png" in data:
        png = "".join(data["image/png"]).replace("\n", "")
        return f"![output](data:image/png;base64,{png})"
    if "text/html" in data:
        return "".join(data["text/html"])
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```" if text else ""


class HouseForm(griffe.Extension):
    """SpeechBrain's names of docstring sections as NumPy's, which griffe
    reads."""

    def on_object(self, *, obj, **kwargs):
        """Renames the sections of a docstring."""
        if obj.docstring is None:
            return
        text = obj.docstring.value
        for ours, theirs in (
            ("Arguments", "Parameters"),
            ("Example", "Examples"),
        ):
            text = re.sub(
                rf"^{ours}\n-+$",
                f"{theirs}\n{'-' * len(theirs)}",
                text,
                flags=re.MULTILINE,
            )
        obj.docstring.value = text
