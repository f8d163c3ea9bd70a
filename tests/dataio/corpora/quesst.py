"""A miniature of QUESST 2014, in its layout."""

import numpy as np
import soundfile

LANGUAGES = ("albanian", "nnenglish", "romanian", "nnenglish")
"""Of the documents in their order, and of the queries of either split."""


def write_xml(path, root, element, attribute, names):
    """Writes a list of names as the scorer reads it."""
    rows = [
        f'  <{element} {attribute}="{name}" channel="1"/>' for name in names
    ]
    path.write_text(
        "\n".join(['<?xml version="1.0"?>', f"<{root}>", *rows, f"</{root}>"])
    )


def write_quesst(folder, documents=None, queries=None):
    """Writes four documents and four queries of each split, two of them in
    English; query number n is in document number n. Samples of them, at 8 kHz,
    are noise unless they are given."""
    random = np.random.default_rng(0)
    names = [f"quesst14_{n:05d}" for n in range(1, 5)]
    scoring = folder / "scoring"
    kinds = {"utterances": ("Audio", names, documents)}
    for split in ("dev", "eval"):
        terms = [f"quesst14_{split}_{n:04d}" for n in range(1, 5)]
        kinds[split] = (f"{split}_queries", terms, queries)
        truth = scoring / f"groundtruth_quesst14_{split}"
        truth.mkdir(parents=True)
        start = truth / f"quesst14_{split}"
        write_xml(
            start.with_suffix(".tlist.xml"), "termlist", "term", "termid", terms
        )
        write_xml(
            start.with_suffix(".ecf.xml"), "ecf", "excerpt", "audio_filename",
            [f"Audio/{name}.wav" for name in names],
        )  # fmt: skip
        lines = [
            f"LEXEME {name} 1 0.000 1.000 {term} lex unknown 0.5\n"
            for name, term in zip(names, terms)
        ]
        start.with_suffix(".rttm").write_text(
            "SPKR-INFO x 1 <NA> <NA> <NA> unknown x <NA>\n" + "".join(lines)
        )
    for kind, (place, stems, given) in kinds.items():
        (folder / place).mkdir()
        rows = []
        for number, (stem, language) in enumerate(zip(stems, LANGUAGES)):
            path = folder / place / f"{stem}.wav"
            samples = 0.1 * random.standard_normal(4000)
            if given is not None:
                samples = given[number]
            soundfile.write(path, samples, 8000)
            rows.append(f"quesst14Database/{place}/{stem}.wav {language}\n")
        (scoring / f"language_key_{kind}.lst").write_text("".join(rows))
    return folder
