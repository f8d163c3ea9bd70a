"""Code in a yaml: what HyperPyYAML, as SpeechBrain uses it, would run."""

MODULE = "planted_by_a_test"
"""A module that runs code when it is imported, see ``plant_module``."""

TAGS = {
    "apply": 'planted: !apply:os.system ["touch {ran}"]',
    "new": 'planted: !new:subprocess.Popen [["touch", "{ran}"]]',
    "new by name": "planted: !new:subprocess.Popen\n    args: [touch, '{ran}']",
    "module": f"planted: !module:{MODULE}",
    "name": f"planted: !name:{MODULE}.something",
    "new of a module": f"planted: !new:{MODULE}.Something",
    "applyref": 'planted: !applyref:os.system ["touch {ran}"]',
    "python": 'planted: !!python/object/apply:os.system ["touch {ran}"]',
    "python name": f"planted: !!python/name:{MODULE}.something",
    "verbatim": (
        "planted: !<tag:yaml.org,2002:python/object/apply:os.system> "
        '["touch {ran}"]'
    ),
    "include": "planted: !include:{other}",
    "key": '? !apply:os.system ["touch {ran}"]\n: 1',
    "in lists": 'planted: [1, [2, {{a: !apply:os.system ["touch {ran}"]}}]]',
    "in a tuple": (
        'planted: (!!python/object/apply:os.system ["touch {ran}"])'
    ),
    "a second time": 'sample_rate: !apply:os.system ["touch {ran}"]',
    "by reference": (
        'planted: !apply:os.system ["touch {ran}"]\nagain: !ref <planted>'
    ),
    "attribute": "planted: !ref <backbone.__class__>",
    "attribute of a call": (
        'planted: !ref <call.__class__>\ncall: !apply:os.system ["touch {ran}"]'
    ),
    "anchor": ('planted: &a !apply:os.system ["touch {ran}"]\nagain: *a'),
    "document": '--- !apply:os.system ["touch {ran}"]',
    "partial": (
        'planted: !name:os.system\n    command: "touch {ran}"\n'
        "audio_normalizer: !ref <planted>"
    ),
}
"""Kind of a plant -> lines for a yaml; ``ran`` is a file that the code makes,
``other`` a yaml with code."""

ARGUMENTS = {
    "argument": (
        "hidden_size: 16", 'hidden_size: !apply:os.system ["{touch}"]',
    ),
    "argument in a list": (
        "conv_kernel: [10,", 'conv_kernel: [!apply:os.system ["{touch}"],',
    ),
    "class": (
        "!new:unispeech_sb.lobes.backbone.Backbone", f"!new:{MODULE}.Something",
    ),
    "loader": (
        "    loadables:",
        "    custom_hooks: !apply:os.system ['{touch}']\n    loadables:",
    ),
}  # fmt: skip
"""Kind of a plant -> text of a yaml, and what stands in its place."""

LIVE = {
    *("apply", "new", "new by name", "module", "name", "new of a module"),
    *("applyref", "python", "python name", "verbatim", "include", "in lists"),
    *("in a tuple", "by reference", "attribute of a call"),
}
"""Plants that HyperPyYAML runs; with the others it fails, today."""


def planted(text, folder):
    """Kind of a plant -> the text with it; code in it makes ``folder/ran``."""
    ran, other = folder / "ran", folder / "other.yaml"
    other.write_text(f'a: !apply:os.system ["touch {ran}"]\n')
    found = {
        kind: f"{text}\n{lines.format(ran=ran, other=other)}\n"
        for kind, lines in TAGS.items()
    }
    for kind, (old, new) in ARGUMENTS.items():
        assert old in text
        new = new.replace("{touch}", f"touch {ran}")
        found[kind] = text.replace(old, new, 1)
    return found


def plant_module(folder):
    """Writes the module, which makes ``folder/ran``."""
    (folder / f"{MODULE}.py").write_text(
        f"open({str(folder / 'ran')!r}, 'w').close()\n"
        "def something(): pass\nclass Something: pass\n"
    )
