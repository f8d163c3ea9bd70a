"""The vocabulary of a CTC model as transformers' tokenizers read it."""

import json

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")


def tokenizer_files(tokens, blank_index):
    """Writes the files of a transformers tokenizer.

    fairseq calls CTC's blank ``<s>``; transformers takes ``pad_token`` for
    it. So where the blank is ``<s>`` it changes names with ``<pad>``.

    Arguments
    ---------
    tokens : list of str
        The vocabulary by index.
    blank_index : int
        Index of the blank.

    Returns
    -------
    dict
        Name of a file -> text.

    Example
    -------
    >>> files = tokenizer_files(["a", "<s>", "<pad>"], blank_index=1)
    >>> files["vocab.json"]
    '{"a": 0, "<pad>": 1, "<s>": 2}'
    """
    names = list(tokens)
    if names[blank_index] == "<s>" and "<pad>" in names:
        names[names.index("<pad>")] = "<s>"
        names[blank_index] = "<pad>"
    units = [name for name in names if name not in SPECIALS]
    phones = any(len(name) > 1 and name[:1] + name[-1:] != "<>" and name != "|"
                 for name in units)  # fmt: skip
    settings = {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": names[blank_index],
        "word_delimiter_token": "|",
        "do_lower_case": False,
    }
    if phones:
        settings["tokenizer_class"] = "Wav2Vec2PhonemeCTCTokenizer"
        settings["phone_delimiter_token"] = " "
        settings["do_phonemize"] = False
        settings["word_delimiter_token"] = "|" if "|" in names else None
    return {
        "vocab.json": json.dumps(
            {name: index for index, name in enumerate(names)},
            ensure_ascii=False,
        ),
        "tokenizer_config.json": json.dumps(settings, indent=2),
    }
