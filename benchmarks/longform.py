"""Time and memory of long recordings: transcribed or to features, beside
transformers, or diarized.

    python benchmarks/longform.py [--minutes 60] [--limit-mb 2500]
    python benchmarks/longform.py --task features --lengths 300 3600
    python benchmarks/longform.py --task diarization [--sides vectors overlap]

Joins LibriSpeech utterances from the folder in UNISPEECH_SB_DATA to recordings
of several lengths and writes a model with random weights, both into a
temporary folder. Every recording goes through each side in a new process on
its own, the shortest one before and after all others. A process whose
resident memory passes the limit is ended, and its side gets no longer ones.
Needs Linux, whose /proc tells the memory. ``--clock cpu`` counts the time of
the processor, for a machine that does other things beside.

Features are those of the last layer. Sides: what ``unispeech-sb features``
does, into an .npy file, in windows of 60 s (stream); a ``Backbone`` with
``window_s=30`` on the waveform as a whole (windows), whose features are in
memory; transformers with sdpa (whole).

Diarization has no peer that takes the same model. Its sides are EEND with
vector clustering, whose windows of 30 s lie side by side (vectors), SUPERB's
head, whose windows overlap by half (overlap), and the first one as a stream
with a delay of 10 s (stream; on request, as it takes about four times as long).
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import string
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch

ROOT = Path(__file__).parent.parent
TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", "'", *string.ascii_uppercase]
RATE = 16000
POLL_S = 0.02
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Run(NamedTuple):
    """What one process used, in seconds and megabytes."""

    times: list
    loaded_mb: float
    peak_mb: float


def write_models(name, folder, **options):
    """The same random weights for both sides."""
    from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
    from unispeech_sb.convert import to_huggingface
    from unispeech_sb.dataio.tokenizers import CTCTokenizer
    from unispeech_sb.lobes.backbone import Backbone
    from unispeech_sb.lobes.heads import FrameHead

    torch.manual_seed(0)
    backbone = Backbone.from_preset(name, **options)
    head = FrameHead(backbone.dim, len(TOKENS))
    write_pretrained(
        folder / "unispeech_sb",
        {"backbone": backbone, "head": head},
        "EncoderASR",
        "Random weights.",
        CTCTokenizer.from_tokens(TOKENS, 0),
        blank_index=0,
    )
    to_huggingface(folder / "unispeech_sb", folder / "transformers")


def write_diarizers(name, folder, **options):
    """A model with vectors, and one without."""
    from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
    from unispeech_sb.lobes.backbone import Backbone
    from unispeech_sb.lobes.heads import DiarizationHead, EENDVCHead

    torch.manual_seed(0)
    backbone = Backbone.from_preset(name, **options)
    sizes = backbone.dim, backbone.num_states
    heads = {
        "vectors": (EENDVCHead(*sizes), 0.04),
        "overlap": (DiarizationHead(sizes[0], num_states=sizes[1]), 0.02),
    }
    for side, (head, frame_s) in heads.items():
        write_pretrained(
            folder / side,
            {"backbone": backbone, "head": head},
            "SpeakerDiarization",
            "Random weights.",
            threshold=0.5,
            median_filter=25,
            frame_s=frame_s,
            min_speech_s=0.0,
            min_pause_s=0.0,
            chunk_s=30.0,
            num_local_speakers=head.config["num_speakers"],
            narrow_band=False,
        )


def write_speech(data, path, seconds):
    """Utterances one after the other, again from the first if need be."""
    files = sorted((data / "LibriSpeech").rglob("*.flac"))
    if not files:
        raise FileNotFoundError(
            f"{data}: expected LibriSpeech/**/*.flac; UNISPEECH_SB_DATA names "
            "the folder"
        )
    missing = round(seconds * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1) as out:
        for file in itertools.cycle(files):
            samples, rate = soundfile.read(file)
            if rate != RATE:
                raise ValueError(f"{file}: expected {RATE} Hz; got {rate}")
            out.write(samples[:missing])
            missing -= len(samples)
            if missing <= 0:
                return


def ours(folder, batch_seconds):
    """A function from a file to its text, by this package."""
    from unispeech_sb.inference.asr import LongFormASR

    asr = LongFormASR.from_hparams(
        str(folder / "unispeech_sb"), run_opts={"device": "cpu"}
    )
    return lambda path: asr.transcribe_long(path, batch_seconds).text


def theirs(folder, batch_seconds):
    """The same by transformers, which takes a recording at once."""
    import transformers

    transformers.logging.disable_progress_bar()
    place = folder / "transformers"
    model = transformers.UniSpeechSatForCTC.from_pretrained(place).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(place)
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(place)

    def transcribe(path):
        samples, _ = soundfile.read(path, dtype="float32")
        inputs = extractor(samples, sampling_rate=RATE, return_tensors="pt")
        with torch.no_grad():
            logits = model(inputs.input_values).logits
        return tokenizer.decode(logits[0].argmax(-1))

    return transcribe


def streamed(folder, batch_seconds):
    """A function from a file to its features in another one."""
    from unispeech_sb.commands.features import FEATURE_FORMATS
    from unispeech_sb.inference.features import SpeechFeatures

    extractor = SpeechFeatures.from_hparams(
        str(folder / "unispeech_sb"), run_opts={"device": "cpu"}
    )
    write = FEATURE_FORMATS["npy"].write
    return lambda path: write(extractor.stream(path), folder / "features.npy")


def windowed(folder, batch_seconds):
    """A function from a file to its features, in windows of 30 s."""
    from unispeech_sb.lobes.backbone import Backbone

    place = folder / "unispeech_sb"
    backbone = Backbone.from_pretrained(place, freeze=True, window_s=30.0)
    return lambda path: backbone(samples_of(path))


def whole(folder, batch_seconds):
    """The same by transformers, without windows."""
    import transformers

    model = transformers.UniSpeechSatModel.from_pretrained(
        folder / "transformers", attn_implementation="sdpa"
    ).eval()
    return lambda path: model(samples_of(path)).last_hidden_state


def samples_of(path):
    """The waveform of a file, [1, N]."""
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]


def diarizer(folder, side, batch_seconds):
    """A function from a file to its turns."""
    from unispeech_sb.inference.diarization import SpeakerDiarization

    stream = side == "stream"
    model = SpeakerDiarization.from_hparams(
        str(folder / ("vectors" if stream else side)),
        run_opts={"device": "cpu"},
        batch_seconds=batch_seconds,
    )
    if stream:
        return lambda path: list(model.diarize_stream(path, delay_s=10.0))
    return lambda path: model.diarize_file(path).segments


SIDES = {
    "unispeech_sb": ours,
    "transformers": theirs,
    "stream to npy": streamed,
    "windows": windowed,
    "whole": whole,
    "vectors": lambda *where: diarizer(where[0], "vectors", where[1]),
    "overlap": lambda *where: diarizer(where[0], "overlap", where[1]),
    "stream": lambda *where: diarizer(where[0], "stream", where[1]),
}
TASKS = {
    "asr": (write_models, ["unispeech_sb", "transformers"]),
    "features": (write_models, ["stream to npy", "windows", "whole"]),
    "diarization": (write_diarizers, ["vectors", "overlap"]),
}
"""What writes the models of a task, and the sides that are measured."""


def megabytes(pid, name):
    """A line of /proc/<pid>/status; 0 once the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    amount = status.partition(name + ":")[2].split()
    return int(amount[0]) / 1024 if amount else 0.0


def working(pipe, side, folder, path, rounds, batch_seconds, clock):
    """What a process of its own does."""
    torch.set_grad_enabled(False)
    run_on = SIDES[side](folder, batch_seconds)
    loaded, times = megabytes(os.getpid(), "VmRSS"), []
    for _ in range(rounds):
        start = CLOCKS[clock]()
        run_on(str(path))
        times.append(CLOCKS[clock]() - start)
    pipe.send(Run(times, loaded, megabytes(os.getpid(), "VmHWM")))


def run(limit_mb, *arguments):
    """Runs a side in a new process; None where it passes the limit."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=working, args=(sender, *arguments))
    process.start()
    sender.close()
    while not receiver.poll(POLL_S):
        if megabytes(process.pid, "VmHWM") > limit_mb:
            process.kill()
            process.join()
            return None
    try:
        found = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"{arguments}: ended with {process.exitcode}"
        ) from None
    process.join()
    return found if found.peak_mb <= limit_mb else None


def measure(sides, folder, lengths, arguments):
    """Yields side, seconds of audio, and what was used or None."""
    settings = arguments.batch_seconds, arguments.clock
    for side in sides:
        shortest, *longer = lengths

        def once(seconds, rounds, side=side):
            path = lengths[seconds]
            return run(
                arguments.limit_mb, side, folder, path, rounds, *settings
            )

        before = once(shortest, arguments.rounds)
        found, alive = {}, before is not None
        for seconds in longer:
            if alive:
                found[seconds] = once(seconds, 1)
                alive = found[seconds] is not None
        after = once(shortest, arguments.rounds) if longer else None
        both = [each for each in (before, after) if each is not None]
        if both:
            times = [second for each in both for second in each.times]
            peak = max(each.peak_mb for each in both)
            found = {shortest: Run(times, both[0].loaded_mb, peak)} | found
        else:
            found = {shortest: None}
        yield from ((side, *item) for item in found.items())


def print_table(results, limit_mb):
    """One line for each recording, the first one of a side for comparison."""
    print("| | audio (s) | s per s of audio | to the shortest | loaded (MB) "
          "| peak (MB) |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    shortest = {}
    for side, seconds, used in results:
        if used is None:
            over = f"over {limit_mb:g}, ended"
            print(f"| {side} | {seconds:g} | - | - | - | {over} |", flush=True)
            continue
        speed = statistics.median(used.times) / seconds
        ratio = speed / shortest.setdefault(side, speed)
        figures = f"{speed:.4f} | {ratio:.3f} | {used.loaded_mb:.0f}"
        print(f"| {side} | {seconds:g} | {figures} | {used.peak_mb:.0f} |",
              flush=True)  # fmt: skip


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default="asr")
    parser.add_argument("--sides", choices=SIDES, nargs="+")
    parser.add_argument("--model", default="unispeech_sat_base")
    parser.add_argument("--layers", type=int, help="blocks of the model")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--shortest-s", type=float, default=30.0)
    parser.add_argument("--lengths", type=float, nargs="+", metavar="S")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-mb", type=float, default=2500.0)
    parser.add_argument("--batch-seconds", type=float, default=30.0)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    return parser.parse_args()


def main():
    """Prints the table."""
    arguments = parse()
    data = Path(
        os.environ.get("UNISPEECH_SB_DATA", ROOT.parent / "shared/data")
    )
    os.environ["HF_HUB_OFFLINE"] = "1"
    longest, shortest = arguments.minutes * 60, arguments.shortest_s
    write, sides = TASKS[arguments.task]
    wanted = [60, 120, 300, 600, longest]
    wanted = [s for s in wanted if shortest < s <= longest]
    wanted = arguments.lengths or wanted
    with tempfile.TemporaryDirectory(prefix="longform-") as name:
        folder, lengths = Path(name), {}
        for seconds in sorted({shortest, *wanted}):
            lengths[seconds] = folder / f"{seconds:g}.flac"
            write_speech(data, lengths[seconds], seconds)
        options = {}
        if arguments.layers is not None:
            options["num_hidden_layers"] = arguments.layers
        write(arguments.model, folder, **options)
        print(f"{arguments.model}, batches of up to "
              f"{arguments.batch_seconds:g} s, {torch.get_num_threads()} "
              f"threads, torch {torch.__version__}")  # fmt: skip
        print_table(
            measure(arguments.sides or sides, folder, lengths, arguments),
            arguments.limit_mb,
        )


if __name__ == "__main__":
    main()
