"""An export of every recipe, and what else this package writes, untrained."""

import shutil
from types import SimpleNamespace

import numpy as np
import soundfile
import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.epoch_loop import EpochCounter

from tests.huggingface import save_folder, tiny_model
from unispeech_sb.brains.export import (
    export_asr,
    export_classifier,
    export_diarization,
    export_intents,
    export_pretraining,
    export_speakers,
)
from unispeech_sb.brains.saving import save_checkpoint
from unispeech_sb.checkpoints.huggingface import CLASSES
from unispeech_sb.checkpoints.pretrained_folder import write_beam_search
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.tokenizers import CTCTokenizer, sentencepiece
from unispeech_sb.dataio.units import write_units
from unispeech_sb.lobes import heads
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.metrics.calibration import Calibration
from unispeech_sb.nnet.binarize import BinarizeConfig

DIM, STATES = 16, 3
TEXTS = ["so it is", "is it so"]


def classes(head):
    """What a recipe of classes has after its training, and exports."""
    labels = LabelEncoder.from_labels(["ann", "bob", "cleo"])
    parts = {"head": head, "label_encoder": labels}
    return export_classifier, parts, (), ("table",)


def intents(head):
    """The same of intents."""
    slots = {"action": ["stop", "go"], "object": ["lamp", "tv", "none"]}
    return export_intents, {"head": head}, (slots,), ("table",)


def tokens(make_head, tokenizer, *sizes):
    """The same of a CTC recipe."""
    head = make_head(DIM, len(tokenizer), *sizes)
    return export_asr, {"head": head, "tokenizer": tokenizer}, (), ()


def speakers(head, objective):
    """The same of speaker verification."""
    labels = LabelEncoder.from_labels(["ann", "bob", "cleo"])
    parts = {"head": head, "objective": objective, "label_encoder": labels}
    calibration = Calibration(9.0, -4.0, num_trials=(4, 4))
    return export_speakers, parts, (calibration,), ()


def turns(head):
    """The same of speaker diarization."""
    rule = {"num_speakers": 2, "window_s": 1.0, "frame_s": 0.02}
    rule |= {"min_speech_s": 0.0, "min_pause_s": 0.0, "narrow_band": False}
    parts = {"head": head, **rule}
    return export_diarization, parts, (BinarizeConfig(),), ()


def pretrained(head, **tokenizer):
    """The same of pre-training."""
    return export_pretraining, {"head": head, **tokenizer}, (), ()


def recipes():
    """Recipe, or yaml -> export function, parts of the model, arguments before
    the scores, arguments at the end."""
    letters = CTCTokenizer.from_texts(TEXTS)
    phones = CTCTokenizer.from_texts(TEXTS, " ")
    tags = CTCTokenizer.from_slots(["B-a so E-a it is"])
    words = CTCTokenizer.from_pieces(sentencepiece.train(TEXTS, 8))
    sizes = {"channels": 16, "pooled_channels": 24, "embedding_size": 6}
    codes = [2, 5, 8], 8
    return {
        "keyword_spotting": classes(heads.UtteranceHead(DIM, 3, 8)),
        "emotion_recognition": classes(heads.UtteranceHead(DIM, 3, 8)),
        "intent_classification": intents(heads.UtteranceHead(DIM, 5, 8)),
        "speaker_identification": classes(heads.StatisticsHead(DIM, STATES, 3)),
        "asr": tokens(heads.FrameHead, letters),
        "asr_pieces": tokens(heads.FrameHead, words),
        "asr_superb": tokens(heads.RecurrentHead, letters, 4, 4),
        "slot_filling": tokens(heads.FrameHead, tags),
        "slot_filling_superb": tokens(heads.RecurrentHead, tags, 4, 4),
        "phoneme_recognition": tokens(heads.FrameHead, phones),
        "phoneme_recognition_superb": tokens(heads.ProjectedFrameHead, phones),
        "speaker_verification": speakers(
            heads.StatisticsHead(DIM, STATES, None, 8, 6), heads.AMSoftmax(6, 3)
        ),
        "speaker_verification_superb": speakers(
            heads.SpeakerHead(DIM, [8], [1], [1], xvector_output_dim=6),
            heads.AMSoftmax(6, 3),
        ),
        "speaker_verification_large": speakers(
            heads.ECAPAHead(DIM, STATES, **sizes),
            heads.AAMSoftmax(6, 3, sub_centers=3),
        ),
        "speaker_diarization": turns(heads.DiarizationHead(DIM, 2, 4)),
        "speaker_diarization_vc": turns(
            heads.EENDVCHead(DIM, STATES, 2, 3, 8, 1, 2, 4)
        ),
        "pretrain_unispeech": pretrained(
            heads.UniSpeechHead(DIM, 8, *codes, len(phones)), tokenizer=phones
        ),
        "pretrain_unispeech_continued": pretrained(
            heads.UniSpeechHead(DIM, 8, *codes, num_ctc_classes=0)
        ),
        "pretrain_unispeech_sat": pretrained(
            heads.UniSpeechSATHead(DIM, 9, 8, codes[0])
        ),
    }


def write_exports(folder):
    """Writes the export of every recipe; their folders by name."""
    backbone, found = Backbone.from_preset("tiny"), {}
    for name, (export, parts, own, last) in recipes().items():
        hparams = SimpleNamespace(backbone=backbone, lr=0.25, **parts)
        found[name] = folder / name / "export"
        export(found[name], hparams, *own, {"EER": 3.5}, "test", {}, *last)
    return found


def write_others(folder, exports, yaml):
    """Writes the rest: converted folders, one with beam search, a run with a
    checkpoint, units, another framework's folder; all by name."""
    found = {}
    options = {"num_labels": 2, "tdnn_dim": [8, 8]}
    options |= {"tdnn_kernel": [1, 1], "tdnn_dilation": [1, 1]}
    for task in sorted({task for _, task in CLASSES.values()}):
        model = tiny_model("unispeech-sat", task, **options)
        found["hugging_face"] = save_folder(model, folder / f"hf{task}")
        found[task] = folder / task
        convert_checkpoint(found["hugging_face"], found[task])
    found["with_beam"] = folder / "with_beam"
    write_beam_search(found["with_beam"], exports["asr"], beam_size=5)
    found["run"] = run = folder / "run"
    (run / "save").mkdir(parents=True)
    shutil.copyfile(yaml, run / "hyperparams.yaml")
    shutil.copytree(exports["asr"], run / "export")
    found["checkpoint"] = write_checkpoint(run / "save")
    found["checkpoints"] = run / "save"
    found["units"] = folder / "units"
    record = {"ID": "a", "wav": "/a.wav", "duration": 0.04, "split": "train"}
    about = {"label_rate": 50, "num_units": 9}
    write_units(found["units"], [record], [np.array([8, 2])], about)
    found["lobe"] = exports["asr"] / "head.ckpt"
    found["backbone"] = exports["asr"] / "backbone.ckpt"
    found["nothing"] = folder / "nothing"
    found["nothing"].mkdir()
    return found


def write_checkpoint(folder):
    """Writes a training checkpoint as the recipes do."""
    backbone, head = Backbone.from_preset("tiny"), heads.FrameHead(DIM, 9)
    parts = {
        "backbone": backbone,
        "head": head,
        "epoch_counter": EpochCounter(3),
        "head_optimizer": torch.optim.Adam(head.parameters()),
    }
    checkpointer = Checkpointer(folder, parts)
    save_checkpoint(checkpointer, {"loss": 0.5}, lambda c: -c.meta["loss"])
    return checkpointer.list_checkpoints()[0].path


def write_sounds(folder):
    """Recordings of noise, and a trial list and a table of them."""
    generator = torch.Generator().manual_seed(1)
    for name in "abc":
        wav = torch.randn(12000, generator=generator) / 10
        soundfile.write(folder / f"{name}.wav", wav.numpy(), 16000)
    (folder / "trials.txt").write_text("1 a.wav b.wav\n0 a.wav c.wav\n")
    (folder / "table.csv").write_text(
        f"id,path,split,wrd\na,{folder}/a.wav,valid,so it is\n"
    )
