"""Damaged texts: tables, annotations, lists, lexicons, language models, yaml.

Each has to be read, or be refused by one line that names file or folder.
What only changes how a text is packed (a byte order mark, other line ends) has
to be read to the same; another encoding, or a number that is none, must be
refused, and nothing that is read has numbers that are not finite.
"""

import functools
import json
import math
import re
from pathlib import Path

import numpy as np
import soundfile

from tests.fuzz import models
from tests.fuzz.kinds import Kind, Unfit, check_refusal, read_note, write_note
from tests.fuzz.mutations import change_bytes, change_json
from unispeech_sb.errors import explain

RTTM = """\
;; who speaks when
SPEAKER talk 1 0.100 0.500 <NA> <NA> anna <NA> <NA>
SPEAKER talk 1 0.450 0.300 <NA> <NA> zoë <NA> <NA>
SPEAKER talk 1 0.800 0.100 <NA> <NA> anna <NA> <NA>
"""
UEM = "talk 1 0.000 0.900\nother 1 0.500 1.250\n"
AUDACITY = "0.100\t0.600\tanna\n0.450\t0.750\tzoë\n"
SEGMENTS = "anna_1 talk 0.10 0.60\nzoë_1 talk 0.45 0.75\n"
UTT2SPK = "anna_1 anna\nzoë_1 zoë\n"
TRIALS = "1 a/1.wav a/2.wav\n0 a/1.wav é/1.wav\n0 a/2.wav é/1.wav\n"
TRIALS_CSV = (
    "left,right,target\na/1.wav,a/2.wav,1\na/1.wav,é/1.wav,0\n"
    "a/2.wav,é/1.wav,0\n"
)
LEXICON = "YES j ɛ s\nNO n oʊ\nSEVEN s ɛ v ə n\n"
ARPA = """\
\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-9	<unk>
-9	<s>	-0.3
-0.5	</s>
-0.5	yes	-0.2
-0.4	né	-0.1

\\2-grams:
-0.1	yes né
-0.2	<s> yes

\\end\\
"""
TABLE = (
    "id,path,split,wrd,speaker\na,a.wav,train,yes né,1\n"
    'b,b.wav,valid,"no, yes",2\nc,c.wav,test,yes,1\n'
)
COMMON_VOICE = (
    "client_id\tpath\tsentence\nann\ta.wav\tSí, señor!\nbob\tb.wav\tNo.\n"
)
LIBRISPEECH = "19-198-0000 SO IT IS\n19-198-0001 NÉ NO\n"
FAIRSEQ = "{root}\na.wav\t1600\nb.wav\t1600\n"
DICTIONARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "a": 4, "ɛ": 5}
MANIFEST = (
    "ID,duration,wav,start,stop,wrd\na,0.1,a.wav,,,yes né\n"
    "b,0.05,b.wav,0,800,n\n"
)
RECIPE = """\
# A recipe with é
seed: 7
output_folder: !ref results/<seed>
data_folder: .
skip_prep: True
lr: 0.001
options:
    low: 0.5
    names: [a, b, "c d"]
head: !name:torch.nn.Linear
    in_features: !ref <seed>
modules: {}
"""
SCP = "talk a.wav\n"


def _rttm(path):
    from unispeech_sb.dataio.rttm import read_rttm

    return read_rttm(path)


def _uem(path):
    from unispeech_sb.dataio.rttm import read_uem

    return read_uem(path)


def _audacity(path):
    from unispeech_sb.dataio.rttm import read_audacity

    return read_audacity(path)


def _trials(path):
    from unispeech_sb.dataio.trials import read_trials

    names, *arrays = read_trials(path)
    return names, [array.tolist() for array in arrays]


def _lexicon(path):
    from unispeech_sb.dataio.corpora.phones import read_lexicons

    return read_lexicons([path])


def _arpa(path):
    from unispeech_sb.decoding import LanguageModel

    model = LanguageModel(path)
    return [model.score(model.start(), word)[0] for word in ("yes", "né", "x")]


def _corpus(task, up=0):
    """Reads the corpus that a file belongs to, ``up`` folders above."""

    def read(path):
        from unispeech_sb.dataio.corpora import read_corpus

        hparams = {"data_folder": path.parents[up], "corpus": "auto"}
        hparams["labels"] = "id"
        return list(read_corpus(task, hparams))

    return read


def _manifest(path):
    from unispeech_sb.dataio.manifest import read_manifest

    return read_manifest(path)


def _units(path):
    from unispeech_sb.dataio.units import read_about

    return read_about(path.parent)


def _calibration(path):
    from unispeech_sb.metrics.calibration import Calibration

    return vars(Calibration.read(path))


def _recipe(path):
    from unispeech_sb.experiment import read_command

    return read_command([str(path)]).settings


def _phones_table(path):
    from unispeech_sb.dataio.corpora.phones import table_phones

    return table_phones([{"ID": "a"}, {"ID": "b"}], path)


CALIBRATION = {
    "format": "unispeech_sb calibration 1", "scale": 20.0, "offset": -10.0,
    "quality": {}, "prior": 0.5, "num_trials": [30, 70],
}  # fmt: skip

TEXTS = {
    "rttm": ({"a.rttm": RTTM}, _rttm),
    "uem": ({"a.uem": UEM}, _uem),
    "audacity": ({"a.txt": AUDACITY}, _audacity),
    "trials": ({"a.txt": TRIALS}, _trials),
    "trials-csv": ({"a.csv": TRIALS_CSV}, _trials),
    "lexicon": ({"a.txt": LEXICON}, _lexicon),
    "arpa": ({"a.arpa": ARPA}, _arpa),
    "csv": ({"manifest.csv": TABLE}, _corpus("asr")),
    "common-voice": (
        {
            "es/train.tsv": COMMON_VOICE,
            "es/dev.tsv": COMMON_VOICE,
            "es/test.tsv": COMMON_VOICE,
            "es/clips/a.wav": None,
            "es/clips/b.wav": None,
        },
        _corpus("asr"),
    ),
    "librispeech": (
        {
            "dev-x/19/198/19-198.trans.txt": LIBRISPEECH,
            "dev-x/19/198/19-198-0000.wav": None,
            "dev-x/19/198/19-198-0001.wav": None,
        },
        _corpus("asr", up=3),
    ),
    "fairseq": (
        {
            "train.tsv": FAIRSEQ,
            "train.id": "4 5\n5 4 4\n",
            "vocab.json": json.dumps(DICTIONARY, ensure_ascii=False),
        },
        _corpus("phoneme"),
    ),
    "kaldi": (
        {
            "train/wav.scp": SCP,
            "train/segments": SEGMENTS,
            "train/utt2spk": UTT2SPK,
            "train/a.wav": None,
        },
        _corpus("speaker_diarization", up=1),
    ),
    "rttm-beside": (
        {"train/talk.rttm": RTTM, "train/talk.wav": None},
        _corpus("speaker_diarization"),
    ),
    "manifest": ({"a.csv": MANIFEST}, _manifest),
    "phones-table": (
        {"a.csv": "id,phones\na,j ɛ s\nb,n oʊ\n"}, _phones_table,
    ),
    "units": ({"units.json": '{"label_rate": 50, "num_units": 9}'}, _units),
    "calibration": ({"cal.json": json.dumps(CALIBRATION)}, _calibration),
    "recipe-yaml": ({"a.yaml": RECIPE}, _recipe),
}  # fmt: skip
"""Name -> files, None for a recording, and what reads the first of them."""


def write(name, folder):
    """Writes the files, and what they are read as."""
    files, read = TEXTS[name]
    for place, text in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            text = text.replace("{root}", str(folder))
            path.write_text(text, encoding="utf-8")
    for place in ("a.wav", "b.wav", "c.wav", *files):
        if place.endswith(".wav"):
            write_wav(folder / place)
    value = shown(read(folder / next(iter(files))), folder)
    (folder / "reference").write_text(value, encoding="utf-8")


def write_wav(path):
    """Writes a second of speech."""
    soundfile.write(path, models.speech(1.0, 16000, 1), 16000)


def shown(value, folder):
    """What was read, as a text without the folder."""
    return repr(plain(value)).replace(str(Path(folder).resolve()), "")


def plain(value):
    """A value of plain parts; numbers that are not finite are refused."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Unfit(f"read {value}")
    if isinstance(value, dict):
        return {str(plain(k)): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return str(value) if isinstance(value, Path) else value


def mark(text, rng):
    """A byte order mark."""
    return b"\xef\xbb\xbf" + text


def windows(text, rng):
    """Line ends of Windows."""
    return text.replace(b"\n", b"\r\n")


def both(text, rng):
    """A mark and line ends of Windows."""
    return mark(windows(text, rng), rng)


def no_end(text, rng):
    """No line end at the end."""
    return text.removesuffix(b"\n")


def empty_lines(text, rng):
    """Empty lines at the end."""
    return text + b"\n" * rng.choice((1, 5))


def latin(text, rng):
    """Another encoding of eight bits."""
    coded = text.decode().encode("latin-1", "replace").replace(b"?", b"\xe9")
    return coded if coded != text else text + b"\xe9\n"


def wide(text, rng):
    """Another encoding of sixteen or 32 bits."""
    return text.decode().encode(rng.choice(("utf-16", "utf-16-le", "utf-32")))


def nul(text, rng):
    """A NUL byte."""
    place = rng.randrange(len(text) + 1)
    return text[:place] + b"\0" * rng.choice((1, 1, 1000)) + text[place:]


def empty(text, rng):
    """Nothing, or nothing but blanks."""
    return rng.choice((b"", b"\n", b"\xef\xbb\xbf", b" \n\t\n", b"\0"))


def scramble(text, rng):
    """Anything."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        text = change_bytes(text, rng)
    return text


def number(text, rng):
    """A number becomes another one."""
    places = list(re.finditer(rb"-?\d+(\.\d+)?", text))
    if not places:
        return scramble(text, rng)
    found = rng.choice(places)
    new = rng.choice(NUMBERS)
    return text[: found.start()] + new + text[found.end() :]


NUMBERS = (
    b"nan", b"inf", b"-inf", b"1e400", b"-1", b"1e9", b"1e-9", b"0x10", b"1_0",
    b"9" * 400, b"9" * 5000, b"1,5", b"one", b"\xd9\xa1", b"-0", b"1e99", b"",
    b"2147483648", b"18446744073709551616", b"0", b"1.5.5", b"+1", b" ",
)  # fmt: skip


def words(text, rng):
    """A word goes, comes twice, changes places, or becomes something else."""
    lines = text.split(b"\n")
    place = rng.randrange(len(lines))
    line = lines[place]
    parts = re.split(rb"([\s,]+)", line)
    index = rng.randrange(len(parts))
    what = rng.randrange(5)
    if what == 0:
        del parts[index]
    elif what == 1:
        parts[index:index] = [parts[index], b" "] * rng.choice((1, 1, 50))
    elif what == 2:
        parts[index] = rng.choice(WORDS)
    elif what == 3:
        rng.shuffle(parts)
    else:
        parts = [line, b"\t", rng.choice(WORDS)]
    lines[place] = b"".join(parts)
    return b"\n".join(lines)


WORDS = (
    b"", b'"', b"'", b"<NA>", b"../../x", b"/etc/passwd", b"x" * 100_000,
    b"\x1b[31m", "\u202e".encode(), b"\x0b", b"\x85", "\u2028".encode(),
    b"touch x |", b"-", b"#", b";;", b"\\end\\", b"ngram 1=99999999999",
    b"!apply:os.system ['touch fuzz_canary']", b"*a", b"&a [*a, *a]", b"{",
    b"[", b"$(touch fuzz_canary)", b"a b", b"None", b"\xff", b"\xed\xa0\x80",
)  # fmt: skip


def rows(text, rng):
    """A line goes, comes again, or many times."""
    lines = text.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place : place + 1] = [lines[place]] * rng.choice((0, 0, 2, 2, 3000))
    return b"\n".join(lines)


def structure(text, rng):
    """Values and keys of JSON; words of other texts."""
    if text[:1] == b"{":
        return change_json(text, rng)
    return words(text, rng)


DAMAGES = {
    "same": (mark, windows, both),
    "same if it ends": (no_end, empty_lines),
    "refused": (latin, wide),
    "any": (
        nul,
        empty,
        number,
        number,
        words,
        words,
        rows,
        structure,
        scramble,
    ),
}
"""What has to come of it -> damages."""


def damage(name, folder, rng):
    """Damages one of the texts."""
    files, _ = TEXTS[name]
    place = rng.choice([p for p, text in files.items() if text is not None])
    path = folder / place
    whole = str(folder.parent.parent / f"whole-text-{name}-0")
    for other in (p for p, text in files.items() if text is not None):
        text = (folder / other).read_text("utf-8")
        (folder / other).write_text(text.replace(whole, str(folder)), "utf-8")
    before = path.read_bytes()
    outcome = rng.choices(tuple(DAMAGES), (3, 1, 2, 14))[0]
    act = rng.choice(DAMAGES[outcome])
    if name in ("fairseq", "librispeech") and act is empty_lines:
        outcome = "any"  # there each line is that of a recording
    after = act(before, rng)
    path.write_bytes(after)
    if act is empty and place != next(iter(files)):
        outcome = "any"
    write_note(folder, file=place, act=act.__name__, outcome=outcome)


def judge(name, case):
    """What becomes of a text."""
    folder, note = case / "source", read_note(case)
    files, read = TEXTS[name]
    outcome = note.get("outcome", "any")
    try:
        value = shown(read(folder / next(iter(files))), folder)
    except (ValueError, OSError) as error:
        if outcome.startswith("same"):
            raise Unfit(f"{note}: refused, but it is right") from error
        # The command line cuts what is long
        check_refusal(ValueError(explain(error)), folder)
        return "refused", str(error)
    if outcome == "refused":
        raise Unfit(f"{note}: taken as {value[:300]}")
    if outcome.startswith("same"):
        reference = (folder / "reference").read_text("utf-8")
        if value != reference:
            raise Unfit(f"{note}: {value[:300]} in place of {reference[:300]}")
    return "accepted", value


def kind(name):
    """A kind of text."""
    return Kind(
        (functools.partial(write, name),),
        functools.partial(damage, name),
        functools.partial(judge, name),
        math.ceil(5000 / len(TEXTS)),
    )


KINDS = {f"text-{name}": kind(name) for name in TEXTS}
