"""A few conversations of artificial voices, and small runs on them."""

import soundfile
import torch

from tests.recipes.voices import QUICK, TEXTS, VOICES
from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE, speak
from unispeech_sb.dataio.rttm import Segment, write_rttm

YAML = "hparams/speaker_diarization.yaml"
GAP_S, OVERLAP_S = 0.2, 0.3
PAIRS = (("ann", "bob"), ("bob", "eve"), ("max", "ann"), ("eve", "max"))


def conversation(first, second, turn):
    """One says a text, then the other, who begins before the end; the wav and
    the segments."""
    parts = [
        speak(TEXTS[(turn + index) % len(TEXTS)], VOICES[name]).samples
        for index, name in enumerate((first, second))
    ]
    begin = round(GAP_S * SAMPLE_RATE)
    other = begin + len(parts[0]) - round(OVERLAP_S * SAMPLE_RATE)
    wav = torch.zeros(other + len(parts[1]) + begin)
    segments = []
    for name, start, samples in zip(
        (first, second), (begin, other), parts, strict=True
    ):
        wav[start : start + len(samples)] += samples
        ends = (start / SAMPLE_RATE, (start + len(samples)) / SAMPLE_RATE)
        segments.append(Segment(*ends, name))
    return wav, segments


def write_talks(folder):
    """Writes Kaldi folders train and dev of the same conversations."""
    for split in ("train", "dev"):
        target, annotations, lines = folder / split, {}, []
        target.mkdir(parents=True)
        for turn, pair in enumerate(PAIRS):
            wav, segments = conversation(*pair, turn)
            name = f"{split}_{turn}"
            soundfile.write(target / f"{name}.wav", wav.numpy(), SAMPLE_RATE)
            lines.append(f"{name} {name}.wav\n")
            annotations[name] = segments
        (target / "wav.scp").write_text("".join(lines))
        write_rttm(target / "rttm", annotations)
    return folder


def talk_run(root, corpus, output, *options, yaml=YAML):
    """The command line of a small run."""
    return [
        str(root / yaml),
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        *QUICK,
        *options,
    ]
