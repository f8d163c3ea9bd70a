"""Pretrained folders of somebody else, through every command and interface.

Their ``hyperparams.yaml`` names code to run, asks for absurd sizes, refers to
itself, or is damaged, and so are the small files beside it. Nothing that is
planted may run; a folder is taken, or refused by one line that names it.
"""

import functools
import os
import re
import shutil

import soundfile

from tests.fuzz import models, tables
from tests.fuzz.kinds import (
    Kind,
    Unfit,
    check_refusal,
    command,
    read_note,
    refused_line,
    write_note,
)
from tests.fuzz.mutations import CANARY, change_bytes

RUN = f"touch {CANARY}"
PLANTED = (
    f"!apply:os.system ['{RUN}']",
    f"!apply:os.system\n  command: {RUN}",
    f"!applyref:os.system ['{RUN}']",
    f"!new:os.system ['{RUN}']",
    f"!apply:posix.system ['{RUN}']",
    f"!apply:os.popen ['{RUN}']",
    f"!apply:os.mkdir ['{CANARY}']",
    f"!apply:subprocess.getoutput ['{RUN}']",
    f"!apply:subprocess.check_call [[touch, {CANARY}]]",
    f"!new:subprocess.Popen [[touch, {CANARY}]]",
    f'!apply:builtins.exec [\'open("{CANARY}", "w")\']',
    f'!apply:builtins.eval [\'open("{CANARY}", "w")\']',
    f"!apply:builtins.open [{CANARY}, w]",
    f"!new:io.FileIO [{CANARY}, w]",
    f"!new:logging.FileHandler [{CANARY}]",
    f"!new:tempfile.TemporaryDirectory\n  prefix: {CANARY}",
    f"!apply:shutil.copyfile [hyperparams.yaml, {CANARY}]",
    f"!apply:pathlib.Path.touch [!new:pathlib.Path [{CANARY}]]",
    f'!apply:timeit.timeit [\'open("{CANARY}", "w")\']',
    "!apply:runpy.run_path [source/evil.py]",
    "!apply:importlib.import_module [evil]",
    "!apply:pickle.load [!apply:builtins.open [source/evil.pkl, rb]]",
    "!apply:torch.load\n  f: source/evil.pkl\n  weights_only: False",
    "!apply:torch.hub.load [source, evil, source: local]",
    f"!apply:torch.save [1, {CANARY}]",
    f"!apply:numpy.save [{CANARY}, 1]",
    f"!new:torch.utils.tensorboard.SummaryWriter [{CANARY}]",
    f"!apply:speechbrain.utils.superpowers.run_shell ['{RUN}']",
    "!apply:speechbrain.utils.superpowers.import_from_path [source/evil.py]",
    f"!new:speechbrain.utils.train_logger.FileTrainLogger [{CANARY}]",
    f"!new:speechbrain.utils.checkpoints.Checkpointer [{CANARY}]",
    f"!apply:unispeech_sb.checkpoints.pretrained_folder.write_pretrained "
    f"[{CANARY}, {{}}, WaveformEncoder, x]",
    "!apply:unispeech_sb.commands.main [[recipe]]",
    f"!!python/object/apply:os.system ['{RUN}']",
    f"!!python/object/new:subprocess.Popen [[touch, {CANARY}]]",
    f'!!python/object/apply:builtins.exec [\'open("{CANARY}", "w")\']',
    "!!python/name:os.system",
    "!!python/module:evil",
    "!!python/object:evil.Evil {}",
    "!name:os.system",
    "!module:evil",
    "!include:source/other.yaml",
    "!include:other.yaml",
    "!ref <backbone.forward>",
    f"!ref <__import__('os').system('{RUN}')>",
    f"!ref __import__('os').system('{RUN}')",
    "!ref 9 ** 9 ** 9 ** 9",
    "!ref <window_s> ** 99999999",
    "!copy <backbone>",
    "!tuple (1, 2)",
    "!unknown x",
    "!PLACEHOLDER",
)
"""Values that run something, read something, or never end."""

EVIL = f"open({CANARY!r}, 'w').close()\n\n\ndef evil():\n    pass\n"
PICKLE = b"cposix\nsystem\n(V" + RUN.encode() + b"\ntR."

BOMB = "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n"
    for n in range(30)
)
SIZES = (
    "0", "-1", "1", "3", "100000", "1000000", "1000000000", "2147483648",
    "9223372036854775808", "1" + "0" * 400, "1e300", "nan", ".inf", "0.5",
    "None", "null", "True", "text", "[]", "{}", "[1, 2]", "{a: 1}", "''",
    "1_0", "0x7f",
    "2026-01-01", "[[[[]]]]", "~", "'1'", "!ref <absent>",
)  # fmt: skip


def plant(text, rng):
    """Code as a value of a new entry, or in place of another value."""
    value = rng.choice(PLANTED)
    what = rng.randrange(7)
    if what <= 1:
        return f"{text}\nplanted: {value}\n"
    if what == 2:
        return f"planted: {value}\n{text}"
    if what == 3:
        return f"{text}\n? {value.splitlines()[0]}\n: 1\n"
    if what == 4:
        return f"{text}\nplanted: &x\n  - [{value.splitlines()[0]}]\nmore: *x\n"
    if what == 5:
        return f"{text}\n---\nplanted: {value}\n"
    lines = text.splitlines()
    places = [n for n, line in enumerate(lines) if re.search(r": *\S", line)]
    place = rng.choice(places)
    key = lines[place].partition(":")[0]
    lines[place] = f"{key}: {value.splitlines()[0]}"
    return "\n".join(lines) + "\n"


def size(text, rng):
    """Another number or another type."""
    places = list(re.finditer(r"(?<=[ \[])-?\d+(\.\d+)?\b", text))
    found = rng.choice(places)
    return text[: found.start()] + rng.choice(SIZES) + text[found.end() :]


def entry(text, rng):
    """An entry goes, comes twice, moves or gets another value."""
    lines = text.splitlines()
    place = rng.randrange(len(lines))
    what = rng.randrange(5)
    if what == 0:
        del lines[place]
    elif what == 1:
        lines.insert(rng.randrange(len(lines)), lines[place])
    elif what == 2:
        lines.insert(rng.randrange(len(lines)), lines.pop(place))
    elif what == 3:
        key = lines[place].partition(":")[0]
        lines[place] = f"{key}: {rng.choice(SIZES)}"
    else:
        first = next((n for n in range(place, len(lines))
                      if lines[n][:1].isalpha()), 0)  # fmt: skip
        del lines[first : first + rng.choice((2, 5, 20))]
    return "\n".join(lines) + "\n"


def bomb(text, rng):
    """Aliases of aliases, itself inside itself, or brackets without end."""
    return rng.choice(
        (
            BOMB + text,
            f"{text}\nmore: &m\n  inner: *m\n",
            f"{text}\nmore: &m [*m]\n",
            f"{text}\nmore: {'[' * 3000}{']' * 3000}\n",
            f"{text}\nmore: {'{a: ' * 1500}1{'}' * 1500}\n",
            f"{text}\nmore: {'x' * 3_000_000}\n",
            f"{text}\nmore: {'9' * 100_000}\n",
            "".join(f"k{n}: !ref <k{n + 1}>\n" for n in range(3000)) + text,
            f"a: !ref <b>\nb: !ref <a>\n{text}",
        )
    )


TEXT_ACTS = (
    *(tables.scramble, tables.latin, tables.wide, tables.nul, tables.empty),
    *(tables.number, tables.words),
)
TEXT_DAMAGES = {plant: 8, size: 5, entry: 4, bomb: 1}


def damage_yaml(path, rng):
    """Damages the yaml as a text of yaml, or as any text."""
    if rng.random() < 0.12:
        act = rng.choice(TEXT_ACTS)
        path.write_bytes(act(path.read_bytes(), rng))
        return act.__name__
    text = path.read_text("utf-8")
    acts = tuple(TEXT_DAMAGES)
    chosen = [rng.choices(acts, tuple(TEXT_DAMAGES.values()))[0]]
    if rng.random() < 0.2:
        chosen.append(rng.choice(acts))
    for act in chosen:
        try:
            text = act(text, rng)
        except (IndexError, ValueError):
            continue  # of what another damage left
    path.write_text(text, "utf-8")
    return " ".join(act.__name__ for act in chosen)


def damage_beside(folder, rng):
    """Damages another file of the folder, or takes it away."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in (".ckpt", ".json") and path.is_file()
    )
    path = rng.choice(files)
    what = rng.randrange(6)
    if what == 0:
        path.unlink()
    elif what == 1:
        path.write_bytes(rng.choice(files).read_bytes())
    elif what == 2:
        path.write_bytes(PICKLE)
    elif what == 3 and path.stat().st_size < 10_000:
        path.write_bytes(tables.structure(path.read_bytes(), rng))
    elif what == 4 and path.stat().st_size < 10_000:
        path.write_bytes(tables.number(path.read_bytes(), rng))
    else:
        path.write_bytes(change_bytes(path.read_bytes(), rng))
    return f"{path.name} {what}"


def write(name, folder):
    """Copies a model, with files that planted values ask for."""
    shutil.copytree(models.model(name), folder, dirs_exist_ok=True)
    (folder / "evil.py").write_text(EVIL)
    (folder / "hubconf.py").write_text(EVIL)
    (folder / "evil.pkl").write_bytes(PICKLE)
    (folder / "other.yaml").write_text(f"a: {PLANTED[0]}\n")


def damage(name, folder, rng):
    """Damages the yaml, or a file beside it; chooses what loads it."""
    if rng.random() < 0.8:
        done = damage_yaml(folder / "hyperparams.yaml", rng)
    else:
        done = damage_beside(folder, rng)
    write_note(folder, done=done, actions=rng.sample(sorted(LOADS[name]), 2))


def recording(case):
    """A recording outside of the folder."""
    path = case / "good.wav"
    soundfile.write(path, models.speech(0.5, 16000, 0), 16000)
    return path


def through(*words):
    """What runs a command: words, of which some stand for paths."""

    def run(folder, case):
        places = {"FOLDER": folder, "NEW": case / "new"}
        if "FILE" in words:
            places["FILE"] = recording(case)
        line = [places.get(word, word) for word in words]
        code, _, printed = command(*line)
        if code:
            raise ValueError(refused_line(printed))

    return run


def interface(module, name, method):
    """What loads the folder by an interface, and uses it."""

    def run(folder, case):
        loaded = getattr(__import__(module, fromlist=[name]), name)
        loaded = loaded.from_hparams(str(folder))
        getattr(loaded, method)(str(recording(case)))

    return run


def backbone(folder, case):
    """What recipes do with ``--model=FOLDER``."""
    from unispeech_sb.lobes.backbone import Backbone

    Backbone.from_pretrained(folder)


INFO, TO_HF = through("info", "FOLDER"), through("to-hf", "FOLDER", "NEW")
BACKBONE_TO_HF = through("to-hf", "FOLDER", "NEW", "--backbone-only")
LOADS = {
    "asr": {
        "transcribe": through("transcribe", "FOLDER", "FILE"),
        "from_hparams": interface(
            "unispeech_sb.inference.asr", "LongFormASR", "transcribe_file"
        ),
        "backbone": backbone,
        "info": INFO,
        "to-hf": TO_HF,
    },
    "speaker": {
        "embed": through("embed", "FOLDER", "FILE", "-o", "NEW"),
        "verify": through("verify", "FOLDER", "FILE", "FILE"),
        "from_hparams": interface(
            "unispeech_sb.inference", "SpeakerVerification", "embed"
        ),
        "backbone": backbone,
        "info": INFO,
        "to-hf": BACKBONE_TO_HF,
    },
    "diarization": {
        "diarize": through("diarize", "FOLDER", "FILE"),
        "from_hparams": interface(
            "unispeech_sb.inference", "SpeakerDiarization", "diarize_file"
        ),
        "info": INFO,
        "to-hf": BACKBONE_TO_HF,
    },
    "classifier": {
        "classify": through("classify", "FOLDER", "FILE"),
        "from_hparams": interface(
            "unispeech_sb.inference", "UtteranceClassifier", "__call__"
        ),
        "backbone": backbone,
        "info": INFO,
        "to-hf": TO_HF,
    },
    "backbone": {
        "features": through("features", "FOLDER", "FILE", "-o", "NEW"),
        "from_hparams": interface(
            "unispeech_sb.inference", "SpeechFeatures", "extract"
        ),
        "backbone": backbone,
        "info": INFO,
        "to-hf": TO_HF,
    },
}
"""Model -> what loads a folder of it."""


def judge(name, case):
    """What becomes of a folder."""
    folder, refusals = case / "source", []
    note = read_note(case) or {"actions": sorted(LOADS[name])}
    for action in note["actions"]:
        shutil.rmtree(case / "new", ignore_errors=True)
        if (case / "new").exists():
            os.unlink(case / "new")
        try:
            LOADS[name][action](folder, case)
        except (ValueError, OSError) as error:
            check_refusal(error, case)  # the folder, or the recording
            refusals.append(f"{action}: {error}")
        if list(case.rglob(CANARY)):
            raise Unfit(f"{action} has run what was planted: {note}")
    return ("refused" if refusals else "accepted"), "\n".join(refusals)


def kind(name):
    """A kind of folder."""
    return Kind(
        (functools.partial(write, name),),
        functools.partial(damage, name),
        functools.partial(judge, name),
        400,
    )


KINDS = {f"folder-{name}": kind(name) for name in LOADS}
