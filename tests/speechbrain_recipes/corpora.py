"""Miniature corpora in the layouts that SpeechBrain's recipes read.

File names, columns, folder trees and formats are those of the true ones; what
is spoken is tones, one for each letter, phone or class. Each function fills a
folder, and gives the command line options that a recipe needs to find it.
"""

import json
import os
import shutil
import tarfile
from itertools import count, cycle, product
from pathlib import Path

import numpy as np
import sentencepiece
import soundfile
import torch
from speechbrain.lobes.models.RNNLM import RNNLM

RATE = 16000
PANGRAMS = (
    "THE QUICK BROWN FOX JUMPS OVER IT'S LAZY DOG",
    "PACK MY BOX WITH FIVE DOZEN LIQUOR JUGS",
    "HOW VEXINGLY QUICK DAFT ZEBRAS JUMP",
)
"""All letters: with fewer of them beam search would meet a token that the
label encoder does not have."""

PHONES = (
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er "
    "ey f g gcl hh hv ih ix iy jh k kcl l m n ng nx ow oy p pau pcl q r s sh t "
    "tcl th uh uw ux v w y z zh"
).split()
COMMANDS = "yes no up down left right on off stop go bed bird cat".split()
EMOTIONS = "neu hap sad ang".split()
MEANINGS = (
    ("alarm", "set", "time", "five am"),
    ("play", "music", "artist_name", "madonna"),
    ("weather", "query", "date", "tomorrow"),
)
NUM_IEMOCAP = 5531  # the recipe counts them


def tones(text, symbol_s=0.05, rate=RATE):
    """A waveform with a tone for each symbol of a text, and a little noise."""
    times = np.arange(int(symbol_s * rate)) / rate
    pitches = [150 + 37 * (sum(map(ord, symbol)) % 61) for symbol in text]
    waves = [np.sin(2 * np.pi * pitch * times) for pitch in pitches]
    wave = 0.3 * np.concatenate(waves)
    generator = np.random.default_rng(sum(map(ord, "".join(text))))
    return wave + 0.01 * generator.standard_normal(len(wave))


def write(path, wave, rate=RATE, **format):
    """Writes a waveform, and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, **format)
    return path


def noises(folder):
    """What recipes download for augmentation, as they leave it unpacked."""
    for name in ("noise", "rir"):
        (folder / name).mkdir(parents=True)
        (folder / name / "data.zip").touch()
        for index in range(2):
            noise = np.random.default_rng(index).standard_normal(RATE)
            fading = np.exp(-np.arange(RATE) / 800) if name == "rir" else 0.1
            write(folder / name / f"{name}-{index}.wav", noise * fading)


def librispeech(folder, train=4):
    """LibriSpeech: SPLIT/READER/CHAPTER/READER-CHAPTER-NUMBER.flac."""
    splits = {"train-clean-100": train, "train-clean-360": 1}
    splits |= {"train-other-500": 1, "dev-clean": 2, "test-clean": 1}
    splits["test-other"] = 1
    for reader, (split, number) in enumerate(splits.items(), 19):
        chapter = folder / split / str(reader) / "198"
        lines = []
        for index in range(number):
            name = f"{reader}-198-{index:04d}"
            text = PANGRAMS[index % len(PANGRAMS)]
            write(chapter / f"{name}.flac", tones(text))
            lines.append(f"{name} {text}\n")
        (chapter / f"{reader}-198.trans.txt").write_text("".join(lines))
    noises(folder)
    return [f"--data_folder={folder}"]


def librispeech_with_lm(folder):
    """LibriSpeech, and the tokenizer and the language model that the recipe of
    sequences downloads, untrained."""
    options = librispeech(folder / "LibriSpeech", train=6)
    pretrained = folder / "asr-crdnn-rnnlm-librispeech"
    pretrained.mkdir()
    generator = np.random.default_rng(0)
    letters = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    words = ["".join(generator.choice(letters, 6)) for _ in range(4000)]
    train_tokenizer(
        pretrained / "tokenizer.ckpt", [*PANGRAMS, *words], 1000, "bpe"
    )
    model = RNNLM(
        1000, embedding_dim=128, rnn_layers=2, rnn_neurons=2048,
        dnn_blocks=1, dnn_neurons=512, return_hidden=True,
    )  # fmt: skip
    torch.save(model.state_dict(), pretrained / "lm.ckpt")
    return [*options, f"--pretrained_lm_tokenizer_path={pretrained}"]


def train_tokenizer(path, texts, size, kind):
    """A SentencePiece model at a path."""
    prefix = path.with_suffix("")
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(texts), model_prefix=str(prefix),
        vocab_size=size, model_type=kind, minloglevel=2,
        bos_id=-1, eos_id=-1, hard_vocab_limit=kind == "bpe",
    )  # fmt: skip
    prefix.with_suffix(".model").rename(path)


def common_voice(folder, validated=8):
    """Common Voice: clips/*.mp3 and one table a split."""
    columns = (
        "client_id path sentence_id sentence sentence_domain up_votes "
        "down_votes age gender accents variant locale segment"
    ).split()
    numbers = count(100)
    sizes = {"train": 8, "validated": validated, "dev": 2, "test": 2}
    for split, size in sizes.items():
        rows = ["\t".join(columns)]
        for index in range(size):
            name = f"common_voice_en_{next(numbers)}.mp3"
            text = PANGRAMS[index % 3].capitalize().replace("'", "")
            wave = tones(text, rate=32000)
            write(folder / "clips" / name, wave, 32000)
            row = dict.fromkeys(columns, "") | {"client_id": "0a", "path": name}
            row |= {"sentence": f"{text}.", "locale": "en", "up_votes": "2"}
            rows.append("\t".join(row.values()))
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return [f"--data_folder={folder}"]


def timit(folder):
    """TIMIT: SPLIT/DIALECT/SPEAKER/SENTENCE.{wav,phn,wrd,txt}, NIST SPHERE."""
    speakers = {"train/dr1/fcjf0": 8, "test/dr1/faks0": 2, "test/dr1/mdab0": 1}
    for speaker, number in speakers.items():
        for index in range(number):
            phones = PHONES[index % 2 :: 2] if index else PHONES
            stem = folder / speaker / f"si{1027 + index}"
            wave = tones(["h#", *phones, "h#"])
            write(stem.with_suffix(".wav"), wave, format="NIST")
            step = len(wave) // (len(phones) + 2)
            lines = [
                f"{place * step} {(place + 1) * step} {phone}\n"
                for place, phone in enumerate(["h#", *phones, "h#"])
            ]
            stem.with_suffix(".phn").write_text("".join(lines))
            stem.with_suffix(".wrd").write_text(f"0 {len(wave)} words\n")
            stem.with_suffix(".txt").write_text(f"0 {len(wave)} Words.\n")
    return [f"--data_folder={folder}"]


def iemocap(folder):
    """IEMOCAP: its five sessions with all 5531 utterances, most of them links
    to the same few recordings."""
    dialogs = [(session, gender) for session in range(1, 6) for gender in "FM"]
    sources = [
        write(folder / "sources" / f"{emotion}-{index}.wav",
              tones([emotion, emotion + "x" * index], 0.1))
        for emotion in EMOTIONS for index in range(3)
    ]  # fmt: skip
    lines = {dialog: [] for dialog in dialogs}
    for number, dialog in zip(range(NUM_IEMOCAP), cycle(dialogs)):
        session, gender = dialog
        name = f"Ses0{session}{gender}_impro01_{gender}{number // 10:03d}"
        wav = folder / f"Session{session}/sentences/wav" / name[:-5]
        wav.mkdir(parents=True, exist_ok=True)
        source = sources[number // 10 % len(sources)]
        os.link(source, wav / f"{name}.wav")
        label = source.name[:3]
        lines[dialog].append(
            f"[{number}.0000 - {number}.5000]\t{name}\t{label}\t"
            "[2.5000, 2.5000, 2.5000]\nC-E1:\tNeutral;\t()\n\n"
        )
    for (session, gender), rows in lines.items():
        dialog = folder / f"Session{session}/dialog/EmoEvaluation"
        (dialog / "Categorical").mkdir(parents=True, exist_ok=True)
        file = dialog / f"Ses0{session}{gender}_impro01.txt"
        header = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        file.write_text(header + "".join(rows))
    return [f"--data_folder={folder}"]


def slurp(folder):
    """SLURP: slurp_real and slurp_synth, one JSON a line; its training set by
    both names that the recipes give it."""
    sizes = {"train_real": 6, "train_synthetic": 3, "devel": 2, "test": 2}
    numbers = count()
    for split, size in sizes.items():
        lines = []
        for index in range(size):
            scenario, action, slot, filler = MEANINGS[index % len(MEANINGS)]
            annotation = f"please {action} [{slot} : {filler}]"
            kind = "synth" if split == "train_synthetic" else "real"
            name = f"audio-{1490000000 + next(numbers)}.flac"
            write(folder / f"slurp_{kind}" / name, tones(annotation[:20]))
            entry = {"scenario": scenario, "action": action}
            entry |= {"slurp_id": index, "intent": f"{scenario}_{action}"}
            entry |= {"sentence": annotation, "entities": [], "tokens": []}
            entry |= {"sentence_annotation": annotation}
            entry["recordings"] = [{"file": name, "status": "correct"}]
            lines.append(json.dumps(entry) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))
    shutil.copy(folder / "train_real.jsonl", folder / "train.jsonl")
    return [f"--data_folder={folder}"]


def slurp_with_tokenizer(folder):
    """SLURP, and the tokenizer of meanings that the recipe downloads."""
    options = slurp(folder / "SLURP")
    published = folder / "SLU-direct-SLURP-hubert-enc"
    published.mkdir()
    texts = [
        f"{{'scenario': '{scenario}'| 'action': '{action}'| 'entities': "
        f"[{{'type': '{slot}'| 'filler': '{filler}'}}]}}"
        for scenario, action, slot, filler in MEANINGS
    ]
    model = published / "tokenizer_58_unigram.model"
    train_tokenizer(model, texts, 58, "unigram")
    return [*options, f"--tokenizer_file={published}"]


def voxceleb(folder):
    """VoxCeleb 1: wav/SPEAKER/VIDEO/NUMBER.wav and a list of trials."""
    speakers = ["id10001", "id10002", "id10003", "id10270", "id10271"]
    for speaker, video in product(speakers, ("1zcIwhmdeo4", "7gWzIy6yIIk")):
        for index in range(1, 4):
            text = [speaker, f"{speaker}{index}", speaker, f"{video}{index}"]
            path = folder / "wav" / speaker / video / f"{index:05d}.wav"
            write(path, tones(text, symbol_s=0.8))
    (folder / "meta").mkdir()
    files = [
        f"{speaker}/{video}/0000{index}.wav"
        for speaker in speakers[3:]
        for video in ("1zcIwhmdeo4", "7gWzIy6yIIk")
        for index in (1, 2)
    ]
    trials = folder / "meta" / "veri_test2.txt"
    trials.write_text("".join(
        f"{int(one[:7] == other[:7])} {one} {other}\n"
        for one, other in product(files, files) if one != other
    ))  # fmt: skip
    noises(folder)
    return [f"--data_folder={folder}", f"--verification_file={trials}"]


def speech_commands(folder):
    """Speech Commands v0.02: its archive, WORD/SPEAKER_nohash_NUMBER.wav."""
    tree = folder.parent / f"{folder.name}-unpacked"
    for word, index in product(COMMANDS, range(24)):
        name = f"{index * 7919 + 1000003:08x}_nohash_0.wav"
        wave = tones([word, f"{word}{index % 4}"], symbol_s=0.5)
        write(tree / word / name, wave)
    noise = np.random.default_rng(0).standard_normal(2 * RATE)
    write(tree / "_background_noise_" / "white_noise.wav", 0.1 * noise)
    noises(folder)
    with tarfile.open(folder / "speech_commands_v0.02.tar.gz", "w:gz") as file:
        file.add(tree, arcname=".")
    return [f"--data_folder={folder}"]


def ami(folder):
    """AMI: MEETING/audio/MEETING.Mix-Headset.wav and the manual segments."""
    for meeting in ("ES2002a", "ES2011a", "ES2004a"):
        turns = [("ABCD"[index % 4], 4.0 * index) for index in range(12)]
        wave = tones([f"{speaker}" for speaker, _ in turns], symbol_s=4.0)
        audio = folder / "amicorpus" / meeting / "audio"
        write(audio / f"{meeting}.Mix-Headset.wav", wave)
        segments = folder / "ami_public_manual_1.6.2" / "segments"
        segments.mkdir(parents=True, exist_ok=True)
        for speaker in "ABCD":
            rows = "".join(
                f'<segment nite:id="{meeting}.{speaker}.{index}" '
                f'transcriber_start="{start}" transcriber_end="{start + 3.8}"/>'
                for index, (who, start) in enumerate(turns) if who == speaker
            )  # fmt: skip
            (segments / f"{meeting}.{speaker}.segments.xml").write_text(
                '<nite:root xmlns:nite="http://nite.sourceforge.net/">'
                f"{rows}</nite:root>"
            )
    return [
        f"--data_folder={folder / 'amicorpus'}",
        f"--manual_annot_folder={Path(segments).parent}",
    ]
