"""Time of loading a model beside transformers; memory of converting one.

    python benchmarks/loading.py [--model unispeech_sat_large] [--rounds 5]

Writes checkpoints with random weights into a temporary folder (11 GB for the
Large model) and reads them while they are in the page cache. Only the call of
``from_pretrained`` is timed, its imports excluded. Mapped weights are read
when they are first used, so a second table has a sum over every parameter in
the time. Needs Linux, whose /proc tells the memory.
"""

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from unispeech_sb.checkpoints.fairseq.tensors import BACKBONE, TOP, rename
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.lobes.backbone import PRESETS, Backbone

SIDES = ("unispeech_sb", "transformers")
LAYOUTS = {
    "Hugging Face, safetensors": "safetensors",
    "Hugging Face, .bin": "bin",
    "Hugging Face, .bin before torch 1.6": "legacy",
    "fairseq .pt": "fairseq/checkpoint.pt",
    "fairseq .pt with its optimizer": "trained/checkpoint.pt",
}
"""What is converted -> where it is."""


def in_new_process(function, *arguments):
    """Runs a function in a process that has loaded nothing before."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def write_checkpoints(name, folder):
    """The same random weights in every layout."""
    torch.manual_seed(0)
    backbone = Backbone(**PRESETS[name])
    tensors = backbone.state_dict()
    options = {**PRESETS[name], "model_type": "unispeech-sat"}
    normalizes = options.pop("normalize_wav")
    for layout in ("safetensors", "bin", "legacy"):
        place = folder / layout
        place.mkdir()
        (place / "config.json").write_text(json.dumps(options))
        (place / "preprocessor_config.json").write_text(
            json.dumps({"do_normalize": normalizes, "sampling_rate": 16000})
        )
        path = place / "pytorch_model.bin"
        if layout == "safetensors":
            path = place / "model.safetensors"
            save_file(tensors, path, {"format": "pt"})
        else:
            torch.save(
                tensors,
                path,
                _use_new_zipfile_serialization=layout == "bin",
            )
    del backbone
    _write_fairseq(tensors, normalizes, folder)


def as_fairseq(tensors, prefix=""):
    """Renames tensors of a model with a norm in each convolution.

    Arguments
    ---------
    tensors : dict
        Name in ``Backbone`` or in a pre-training head -> tensor.
    prefix : str
        What fairseq's names start with.

    Returns
    -------
    dict
        fairseq's name -> tensor.
    """
    table = {
        new: old
        for old, new in {**BACKBONE, **TOP}.items()
        if not old.endswith("*.2")  # the norm of Base models
    }
    return {prefix + rename(n, table): t for n, t in tensors.items()}


def _write_fairseq(tensors, normalizes, folder):
    """As fairseq writes a CTC model, without and with Adam's state."""
    model = as_fairseq(tensors, "w2v_encoder.w2v_model.")
    size = tensors["masked_spec_embed"].numel()
    model["w2v_encoder.proj.weight"] = torch.rand(32, size)
    model["w2v_encoder.proj.bias"] = torch.rand(32)
    content = {
        "args": None,
        "cfg": {
            "model": {"_name": "hubert_ctc", "w2v_args": None},
            "task": {"normalize": normalizes, "sample_rate": 16000},
        },
        "model": model,
        "task_state": {},
    }
    count = sum(tensor.numel() for tensor in tensors.values())
    for name in ("fairseq", "trained"):
        if name == "trained":
            moments = {
                key: torch.rand(count) for key in ("exp_avg", "exp_avg_sq")
            }
            content["last_optimizer_state"] = {"state": {0: moments}}
        (folder / name).mkdir()
        torch.save(content, folder / name / "checkpoint.pt")


def megabytes(name):
    """A line of /proc/self/status."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(name + ":")[2].split()[0]) / 1024


def converting(source, target):
    """Seconds of a conversion, memory before it and at its peak."""
    before, start = megabytes("VmRSS"), time.perf_counter()
    convert_checkpoint(source, target)
    seconds = time.perf_counter() - start
    return seconds, before, megabytes("VmHWM")


def loader(side):
    """The function that loads a folder, imported."""
    if side == "unispeech_sb":
        return Backbone.from_pretrained
    import transformers

    transformers.logging.disable_progress_bar()
    return transformers.UniSpeechSatModel.from_pretrained


def loading(sides, folders, rounds):
    """Seconds of each side, in turn: of loading, and with a sum over all."""
    functions = {side: loader(side) for side in sides}
    times = {side: [] for side in sides}
    for _ in range(rounds):
        for side, function in functions.items():
            start = time.perf_counter()
            model = function(folders[side])
            loaded = time.perf_counter()
            with torch.no_grad():
                total = sum(float(p.sum()) for p in model.parameters())
            touched = time.perf_counter()
            times[side].append((loaded - start, touched - start, total))
            del model
            gc.collect()
    return times


def check_sums(times):
    """Both sides have to have read the same weights."""
    sums = {result[2] for results in times.values() for result in results}
    if max(sums) - min(sums) > 1e-3 * max(map(abs, sums)):
        raise ValueError(f"expected the same weights on both sides: {sums}")


def print_speed(what, times):
    """Two lines of the table: without and with a sum over all weights."""
    check_sums(times)
    for column, how in enumerate(("load", "load and read all weights")):
        mine, other = (
            statistics.median(result[column] for result in times[side])
            for side in SIDES
        )
        figures = f"{mine:.3f} | {other:.3f} | {other / mine:.1f}"
        print(f"| {how}, {what} | {figures} |", flush=True)


def measure_speed(folder, rounds):
    """Prints the table of times."""
    source = folder / LAYOUTS["Hugging Face, safetensors"]
    folders = {"unispeech_sb": folder / "converted", "transformers": source}
    in_new_process(converting, source, folders["unispeech_sb"])
    print("| case | unispeech_sb (s) | transformers (s) | ratio |")
    print("|---|---|---|---|")
    times = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            found = in_new_process(loading, [side], folders, 1)
            times[side] += found[side]
    print_speed("a process's first", times)
    found = in_new_process(loading, SIDES, folders, rounds + 1)
    later = {side: results[1:] for side, results in found.items()}
    print_speed("later ones", later)


def measure_memory(folder):
    """Prints the table of memory."""
    print("| source | file (MB) | s | before (MB) | peak (MB) | peak / file "
          "| without what was there before |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for number, (name, place) in enumerate(LAYOUTS.items()):
        source, target = folder / place, folder / f"target-{number}"
        files = [source] if source.is_file() else source.glob("*model*")
        size = sum(path.stat().st_size for path in files) / 2**20
        seconds, before, peak = in_new_process(converting, source, target)
        cells = [name, f"{size:.0f}", f"{seconds:.1f}", f"{before:.0f}"]
        cells += [f"{peak:.0f}", f"{peak / size:.2f}"]
        print("| " + " | ".join(cells) + f" | {(peak - before) / size:.2f} |",
              flush=True)  # fmt: skip


def main():
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="unispeech_sat_large")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("speed", "memory"))
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="loading-") as name:
        folder = Path(name)
        in_new_process(write_checkpoints, arguments.model, folder)
        print(f"{arguments.model}, {torch.get_num_threads()} threads, "
              f"torch {torch.__version__}")  # fmt: skip
        if arguments.only != "memory":
            measure_speed(folder, arguments.rounds)
        if arguments.only != "speed":
            measure_memory(folder)


if __name__ == "__main__":
    main()
