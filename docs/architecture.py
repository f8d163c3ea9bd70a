"""Draws docs/architecture.svg: the parts of the package and their imports.

Run it after a change of what imports what: python docs/architecture.py
"""

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = Path(__file__).with_name("architecture.svg")
ABOUT = {
    "recipes": "one script for each task",
    "commands": "unispeech-sb COMMAND",
    "experiment": "run(): a recipe's main",
    "superb": "the benchmark in one command",
    "serve": "HTTP, WebSockets, a page",
    "brains": "training loops, exports",
    "convert": "checkpoints <-> folders",
    "inference": "long recordings, many files",
    "lobes": "Backbone, heads, objectives",
    "dataio": "corpora, manifests, datasets",
    "checkpoints": "files and folders, read safely",
    "decoding": "CTC search, language models",
    "metrics": "WER, EER, DER, ...",
    "nnet": "layers, losses, lengths",
    "plots": "pictures",
    "output_folder": "whose results a folder holds",
    "fingerprint": "what an experiment is of",
    "recipe_options": "a recipe's command line",
    "ray_session": "Ray, here or of a cluster",
}
"""Part -> what it is, for its box. Small helpers are left out."""

WIDTH, BOX_WIDTH, BOX_HEIGHT, ROW_HEIGHT, MARGIN = 960, 212, 46, 92, 16
ROW_LENGTH = 4
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
font-family="sans-serif" role="img" aria-label="Parts and their imports">
<style>
rect {{ fill: #eef3fa; stroke: #35506b; }} path {{ stroke: #8aa0b8; }}
text {{ fill: #14202c; }} .about {{ fill: #46586a; }}
@media (prefers-color-scheme: dark) {{
rect {{ fill: #1d2a38; stroke: #8fb0d3; }} path {{ stroke: #5d7389; }}
text {{ fill: #e8eef5; }} .about {{ fill: #b4c2d1; }}
}}
</style>"""


def part_of(file):
    """First folder or module below the package, or the folder of recipes."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "unispeech_sb" else parts[0]


def read_imports():
    """Part -> the parts that it imports."""
    found = {part: set() for part in ABOUT}
    for folder in ("unispeech_sb", "recipes"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            part = part_of(file)
            if part not in found:
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                module = getattr(node, "module", None) or ""
                other = f"{module}.".split(".")[1]
                if module.startswith("unispeech_sb.") and other in ABOUT:
                    found[part].add(other)
    return {part: sorted(others - {part}) for part, others in found.items()}


def find_rows(imports):
    """Parts in rows: each stands above all that it imports."""
    level = dict.fromkeys(imports, 0)
    for _ in imports:
        for part, others in imports.items():
            level[part] = max([level[part], *(level[o] + 1 for o in others)])
    rows = [[] for _ in range(max(level.values()) + 1)]
    for part in ABOUT:
        rows[max(level.values()) - level[part]].append(part)
    return [
        row[start : start + ROW_LENGTH]
        for row in rows
        for start in range(0, len(row), ROW_LENGTH)
    ]


def place(rows):
    """Part -> left and top of its box."""
    places = {}
    for number, row in enumerate(rows):
        gap = (WIDTH - len(row) * BOX_WIDTH) / (len(row) + 1)
        for column, part in enumerate(row):
            left = gap + column * (BOX_WIDTH + gap)
            places[part] = round(left), MARGIN + number * ROW_HEIGHT
    return places


def draw(imports):
    """The picture as SVG."""
    rows = find_rows(imports)
    places = place(rows)
    height = 2 * MARGIN + (len(rows) - 1) * ROW_HEIGHT + BOX_HEIGHT
    lines = [HEAD.format(width=WIDTH, height=height)]
    for part, others in imports.items():
        left, top = places[part]
        for other in others:
            end, below = places[other]
            start = left + BOX_WIDTH // 2, top + BOX_HEIGHT
            bend = (top + BOX_HEIGHT + below) // 2
            lines.append(
                f'<path fill="none" d="M{start[0]} {start[1]} C{start[0]} '
                f"{bend} {end + BOX_WIDTH // 2} {bend} "
                f'{end + BOX_WIDTH // 2} {below}"/>'
            )
    for part, (left, top) in places.items():
        middle = left + BOX_WIDTH // 2
        lines.append(
            f'<rect x="{left}" y="{top}" width="{BOX_WIDTH}" '
            f'height="{BOX_HEIGHT}" rx="5"/>'
            f'<text x="{middle}" y="{top + 19}" text-anchor="middle" '
            f'font-weight="bold" font-size="14">{part}</text>'
            f'<text class="about" x="{middle}" y="{top + 36}" '
            f'text-anchor="middle" font-size="11.5">{escape(ABOUT[part])}'
            "</text>"
        )
    return "\n".join([*lines, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(draw(read_imports()), encoding="utf-8")
