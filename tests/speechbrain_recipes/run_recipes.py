"""SpeechBrain's own recipes with our lobes, on miniature corpora.

    SPEECHBRAIN_CLONE=... SPEECHBRAIN_BENCHMARKS_CLONE=... \\
        python -m tests.speechbrain_recipes.run_recipes FOLDER [NAME ...]

Each recipe of the clones runs as it is, with its own preparation of the data;
of its yaml one line is changed, that with the class, or the block of the
features where it has no self-supervised model. It trains, goes on from its
checkpoint, is exported, and trains in two processes: the exported folder has to
load, and one with a decoder to write what the recipe's test wrote. A line of
Markdown is printed for each.

``--one`` leaves two processes out. ``--theirs`` runs the recipes with nothing
changed but the model's name: with SpeechBrain's own lobe or features, at their
defaults.

The two processes have batch norms of their own (``own_norms.py``): SpeechBrain
makes of each one that needs a GPU. MP3S' scripts run in one process alone: in
several, they ask what wraps the lobe for the lobe's weights.

It is here and not among the benchmarks since a test asserts what it measures.
"""

import os
import pydoc
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from speechbrain.dataio.dataio import (
    load_data_csv,
    load_data_json,
    read_audio,
)
from speechbrain.utils.checkpoints import Checkpointer
from torch.nn.utils.rnn import pad_sequence

from tests.huggingface import save_folder, tiny_model
from tests.speechbrain_recipes import corpora
from unispeech_sb.checkpoints.interfaces import INTERFACES, folder_kind
from unispeech_sb.convert import export_recipe
from unispeech_sb.lobes.backbone import Backbone

ROOT = Path(__file__).parent.parent.parent
CLONES = {
    "recipes": "SPEECHBRAIN_CLONE",
    "benchmarks": "SPEECHBRAIN_BENCHMARKS_CLONE",
}
"""First folder of a recipe's path -> variable that names the clone."""

THEIRS = "speechbrain.integrations.huggingface"
LINES = {
    f"!new:{THEIRS}.wav2vec2.Wav2Vec2": "!new:unispeech_sb.lobes.Wav2Vec2",
    f"!new:{THEIRS}.hubert.HuBERT": "!new:unispeech_sb.lobes.Wav2Vec2",
    f"!new:{THEIRS}.wav2vec2.Wav2Vec2Pretrain":
    "!new:unispeech_sb.lobes.Wav2Vec2Pretrain",
    "!new:speechbrain.lobes.models.huggingface_transformers.WeightedSSLModel":
    "!new:unispeech_sb.lobes.WeightedSSLModel",
}  # fmt: skip
"""Class of SpeechBrain's in a yaml -> ours."""

BLOCK = """compute_features: !new:unispeech_sb.lobes.Wav2Vec2
    source: {hub}
    save_path: !ref <save_folder>
    freeze: True
"""
"""Instead of the block of the spectral features, whose size is ``n_mels``."""


class Recipe(NamedTuple):
    """One of SpeechBrain's recipes, and how it runs here."""

    script: str  # within the clone
    yaml: str  # within the script's folder
    corpus: Callable[[Path], list[str]]
    size: int  # of the backbone's features, which the yaml is written for
    options: tuple[str, ...] = ()  # what cannot be at its default
    hub: str | None = None  # key of the model's name; None: block is changed
    epochs: int = 3
    exports: tuple[str, ...] | None = ()
    """Name of the score by which its test chooses a checkpoint, what lists the
    test set, and what its test writes, in the results; empty but for decoders;
    None where there is no head to export."""
    result: str | None = None  # pattern of a score, where nothing is trained
    model: str | None = None  # name of the recipe whose embeddings it uses
    family: str = "unispeech-sat"
    in_two: bool = True  # whether its script runs in several processes


_WAV2VEC2 = "train_with_wav2vec2.yaml"
RECIPES = {
    "LibriSpeech CTC": Recipe(
        "recipes/LibriSpeech/ASR/CTC/train_with_wav2vec.py",
        "hparams/train_hf_wav2vec.yaml",
        corpora.librispeech, 1024, (), "wav2vec2_hub",
    ),
    "LibriSpeech seq2seq": Recipe(
        "recipes/LibriSpeech/ASR/seq2seq/train.py",
        "hparams/train_BPE_1000.yaml", corpora.librispeech_with_lm, 40,
        # As Speech Commands: it writes its tables here, and reads them there
        ("--save_folder=!ref <output_folder>",), epochs=2,
        exports=("WER", "test-clean.csv", "wer_test-clean.txt"),
    ),
    "CommonVoice CTC": Recipe(
        "recipes/CommonVoice/ASR/CTC/train_with_wav2vec.py",
        "hparams/train_en_with_wav2vec.yaml", corpora.common_voice, 1024,
        ("--precision=bf16",), "wav2vec2_hub",  # no fp16 on CPUs
    ),
    "TIMIT seq2seq": Recipe(
        "recipes/TIMIT/ASR/seq2seq/train_with_wav2vec2.py",
        f"hparams/{_WAV2VEC2}", corpora.timit, 1024, (), "wav2vec2_hub",
        exports=("PER", "save/test.json", "wer_test.txt"),
    ),
    "IEMOCAP": Recipe(
        "recipes/IEMOCAP/emotion_recognition/train_with_wav2vec2.py",
        f"hparams/{_WAV2VEC2}", corpora.iemocap, 768, (), "wav2vec2_hub",
        epochs=1,
    ),
    "SLURP": Recipe(
        "recipes/SLURP/direct/train_with_wav2vec2.py",
        f"hparams/{_WAV2VEC2}", corpora.slurp_with_tokenizer, 768, (),
        "wav2vec2_hub",
        exports=(None, "test-type=direct.csv", "wer_test_real.txt"),
    ),
    "VoxCeleb": Recipe(
        "recipes/VoxCeleb/SpeakerRec/train_speaker_embeddings.py",
        "hparams/train_ecapa_tdnn.yaml", corpora.voxceleb, 80,
        ("--step_size=8",),  # to the highest learning rate, 65,000 updates
    ),
    "VoxCeleb cosine": Recipe(
        "recipes/VoxCeleb/SpeakerRec/speaker_verification_cosine.py",
        "hparams/verification_ecapa.yaml", corpora.voxceleb, 80,
        ("--cohort_size=4",), result=r"EER\(%\)=([\d.]+)", model="VoxCeleb",
    ),
    "Speech Commands": Recipe(
        "recipes/Google-speech-commands/train.py", "hparams/xvect.yaml",
        corpora.speech_commands, 24,
        ("--save_folder=!ref <output_folder>",), epochs=2,
    ),
    "AMI": Recipe(
        "recipes/AMI/Diarization/experiment.py", "hparams/ecapa_tdnn.yaml",
        corpora.ami, 80,
        result=r"(Dev = [\d.]+ % \| Eval = [\d.]+ %)", model="VoxCeleb",
    ),
    "MP3S SLURP": Recipe(
        "benchmarks/MP3S/SLURP/LSTM_linear/train.py", "hparams/ssl.yaml",
        corpora.slurp, 768,
        # Its tables are those of "train", and by default train_real's are read
        ("--train_splits=[train]",), "ssl_hub", in_two=False,
    ),
    "MP3S IEMOCAP": Recipe(
        "benchmarks/MP3S/IEMOCAP/ecapa_tdnn/train.py", "hparams/ssl.yaml",
        corpora.iemocap, 768, (), "ssl_hub", epochs=1, in_two=False,
    ),
    "CommonVoice SSL": Recipe(
        "recipes/CommonVoice/self-supervised-learning/wav2vec2/"
        "train_hf_wav2vec2.py", "hparams/wav2vec2_base.yaml",
        partial(corpora.common_voice, validated=96), 32,
        # Warming up to lr_adam, 2 by default, takes 25,000 updates
        ("--lr_adam=20000",), "wav2vec2_hub", epochs=40, exports=None,
        family="unispeech",
    ),
}  # fmt: skip


class Measured(NamedTuple):
    """What a recipe did."""

    line: str  # of its yaml, as changed
    losses: list[float]  # of training, by epoch
    resumed: bool
    ddp: list[float]  # losses in two processes
    exported: str  # what loads the folder
    result: str


def clone_of(recipe):
    """The clone that a recipe is in; None where no variable names one."""
    folder = os.environ.get(CLONES[recipe.script.partition("/")[0]])
    return Path(folder) if folder else None


def prepare(name, folder, swap=True):
    """Writes a recipe's corpus and its yaml below a folder; the place of the
    run, the script's command, and the line of the yaml that is changed."""
    recipe, work = RECIPES[name], folder / name.replace(" ", "-")
    shutil.rmtree(work, ignore_errors=True)
    data = work / "data"
    data.mkdir(parents=True)
    places = recipe.corpus(data)
    yaml, line = changed_yaml(recipe, work, swap)
    command = [str(clone_of(recipe) / recipe.script), str(yaml), *places]
    if recipe.model:
        command.append(f"--pretrain_path={embeddings_of(recipe.model, folder)}")
    return work, command, line


def measure(name, folder, in_two=True):
    """Runs a recipe below a folder, twice, and in two processes."""
    recipe = RECIPES[name]
    work, command, line = prepare(name, folder)
    data = command[2]
    command += recipe.options
    output = work / "results"
    if recipe.result:
        log = run([*command, f"--output_folder={output}"], work, recipe)
        found = re.findall(recipe.result, log)
        result = found[-1] if found else "none"
        return Measured(line, [], False, [], "", result)
    for epochs in (recipe.epochs, recipe.epochs + 1):
        last = [f"--output_folder={output}", f"--number_of_epochs={epochs}"]
        run([*command, *last], work, recipe)
    epochs, losses = zip(*training(output))
    resumed = epochs == tuple(range(1, recipe.epochs + 2))
    exported = export(recipe, output, work / "export", data)
    ddp = []
    if in_two and recipe.in_two:
        output = work / "results-of-two"
        last = [f"--output_folder={output}", "--distributed_backend=gloo"]
        last.append(f"--number_of_epochs={recipe.epochs}")
        run([*command, *last], work, recipe, processes=2)
        ddp = [loss for _, loss in training(output)]
    return Measured(line, list(losses), resumed, ddp, exported, "")


def measure_theirs(name, folder):
    """What SpeechBrain's own lobe does in a recipe at its defaults: the losses
    of a run and of its continuation, or the line that either ends with."""
    recipe = RECIPES[name]
    work, command, _ = prepare(name, folder, swap=False)
    output = work / "results"
    for epochs in (recipe.epochs, recipe.epochs + 1):
        last = [f"--output_folder={output}"]
        if not recipe.result:
            last.append(f"--number_of_epochs={epochs}")
        status, log = launch([*command, *last], work, recipe)
        if status:
            reason = log.rstrip().splitlines()[-1]
            return f"{epochs} epochs: {reason}"
    return arrows([loss for _, loss in training(output)])


def export(recipe, output, folder, data):
    """Exports what a recipe trained, and loads it; the interface. ``data`` is
    the option that names the corpus."""
    score, listed, written = recipe.exports or (None, "", "")
    (save,) = {path.parent for path in output.rglob("CKPT+*")}
    found = Checkpointer(save).find_checkpoint(min_key=score)
    if recipe.exports is None:
        Backbone.from_pretrained(found.path)
        return "Backbone"
    export_recipe(found.path, folder)
    interface = folder_kind(folder)
    cls = pydoc.locate(INTERFACES[interface].speechbrain)
    loaded = cls.from_hparams(source=str(folder))
    if recipe.exports:
        load = load_data_csv if listed.endswith("csv") else load_data_json
        places = {"data_root": data.partition("=")[2]}
        files = load(output / listed, places)
        check_texts(loaded, files, output / written)
    return interface


def check_texts(asr, files, written):
    """Each file has the text that the recipe's test has written for it, alone
    or in one batch with the others, as the test has them: rounding decides
    between the many beams of a model that has hardly trained."""
    lines = written.read_text(encoding="utf-8").splitlines()
    starts = [n for n, text in enumerate(lines) if ", %WER " in text]
    assert starts, f"{written}: expected hypotheses"
    wavs = [
        read_audio(files[lines[start].partition(",")[0]]["wav"])
        for start in starts
    ]
    expected = [
        [t for t in map(str.strip, lines[start + 3].split(";")) if t != "<eps>"]
        for start in starts
    ]
    expected = [[token for token in tokens if token] for tokens in expected]
    alone = [text for wav in wavs for text in texts_of(asr, [wav])]
    together = alone if alone == expected else texts_of(asr, wavs)
    for texts in zip(expected, alone, together, strict=True):
        assert texts[0] in texts[1:], f"{written}: {texts}"
    assert any(expected), f"{written}: expected some that are not empty"


def texts_of(asr, wavs):
    """The tokens that a batch of waveforms is decoded as."""
    padded = pad_sequence(wavs, batch_first=True)
    lens = torch.tensor([len(wav) for wav in wavs]) / padded.shape[1]
    texts, _ = asr.transcribe_batch(padded, lens)
    return [[word for word in text.split(" ") if word] for text in texts]


def changed_yaml(recipe, work, swap=True):
    """Writes the yaml with one line or block changed, and gives that line; or
    with the model's name alone."""
    path = (clone_of(recipe) / recipe.script).parent / recipe.yaml
    text = path.read_text(encoding="utf-8")
    # SpeechBrain's pre-training takes no other family
    theirs = recipe.exports is None and not swap
    hub = backbone(recipe, work, "wav2vec2" if theirs else recipe.family)
    line, times = "", 1
    if recipe.hub is None and swap:
        pattern, new = r"(?m)^compute_features:.*\n(?:[ \t].*\n)*", BLOCK
        text, times = re.subn(pattern, new.format(hub=hub), text)
        line = new.splitlines()[0]
    elif recipe.hub is not None:
        if swap:
            (old,) = (old for old in LINES if re.search(rf"{old}\b", text))
            line, times = LINES[old], text.count(old)
            text = text.replace(old, line)
        pattern = rf"(?m)^{recipe.hub}:.*"
        text, named = re.subn(pattern, f"{recipe.hub}: {hub}", text)
        times *= named
    assert times == 1, f"{path}: expected one place to change; got {times}"
    changed = work / path.name
    changed.write_text(text, encoding="utf-8")
    return changed, line


def backbone(recipe, work, family):
    """A folder that transformers wrote, of the size that the yaml expects."""
    size = recipe.size
    model = tiny_model(
        family, hidden_size=size, intermediate_size=64,
        num_attention_heads=4, conv_dim=[32] * 7, initializer_range=0.02,
        num_conv_pos_embedding_groups=8, layerdrop=0.1, hidden_dropout=0.1,
        feat_extract_norm="layer" if size == 1024 else "group",
        do_stable_layer_norm=size == 1024,
    )  # fmt: skip
    return save_folder(model, work / "hub", do_normalize=size == 1024)


def embeddings_of(name, folder):
    """The last checkpoint of a recipe that ran, or runs now."""
    pattern = f"{name.replace(' ', '-')}/results/save/CKPT+*"
    if not [*folder.glob(pattern)]:
        measure(name, folder)
    return max(folder.glob(pattern))


def run(command, work, recipe, processes=1):
    """Runs a script on the CPU, and gives what it printed."""
    status, text = launch(command, work, recipe, processes)
    assert status == 0, f"{work}:\n{text[-3000:]}"
    return text


def launch(command, work, recipe, processes=1):
    """Runs a script on the CPU: its status, and what all of them printed."""
    python = [sys.executable]
    if processes > 1:
        python += ["-m", "torch.distributed.run", "--standalone"]
        python += [f"--nproc_per_node={processes}", "--module"]
        python += ["tests.speechbrain_recipes.own_norms"]
    own = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    own |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if recipe.corpus is corpora.ami:
        # The wheel lacks the script that scores diarization
        own["PYTHONPATH"] += f"{os.pathsep}{clone_of(recipe)}"
    log = work / "log.txt"
    with open(log, "a", encoding="utf-8") as file:
        process = subprocess.run(
            [*python, *command, "--device=cpu", "--noprogressbar"],
            cwd=work, env=os.environ | own, stdout=file,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    text = log.read_text(encoding="utf-8", errors="replace")
    return process.returncode, text


def training(output):
    """Epochs and losses of training in a recipe's log."""
    text = (output / "train_log.txt").read_text(encoding="utf-8")
    pattern = r"(?im)^epoch: (\d+),.* train loss: ([^ ,]+)"
    return [(int(n), float(loss)) for n, loss in re.findall(pattern, text)]


def main():
    """Prints a table of the recipes that are named, or of all."""
    folder, *names = sys.argv[1:]
    flags = {name for name in names if name.startswith("--")}
    names = [name for name in names if name not in flags] or RECIPES
    folder = Path(folder).resolve()
    if "--theirs" in flags:
        for name in names:
            found = measure_theirs(name, folder / "theirs")
            print(f"| {name} | {found} |", flush=True)
        return
    print(f"SpeechBrain {version('speechbrain')}\n\n| {' | '.join(COLUMNS)} |")
    print(f"{'|---' * len(COLUMNS)}|")
    for name in names:
        done = measure(name, folder, "--one" not in flags)
        print(row(name, done), flush=True)


COLUMNS = (
    *("recipe", "changed", "not at its default", "training loss"),
    *("continued", "two processes", "exported and loaded"),
)


def row(name, done):
    """The line of a recipe."""
    cells = [name, f"`{done.line}`", " ".join(RECIPES[name].options)]
    cells += [arrows(done.losses) or done.result]
    cells += ["yes" if done.resumed else "no", arrows(done.ddp), done.exported]
    return f"| {' | '.join(cells)} |"


def arrows(losses):
    """Losses in a row."""
    return " → ".join(f"{loss:.3g}" for loss in losses)


if __name__ == "__main__":
    main()
