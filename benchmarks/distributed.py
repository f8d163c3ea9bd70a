"""What several processes cost: processor time of an update, beside one process.

    python benchmarks/distributed.py [--seconds 4 4 4 4 4 4 4 4] [--updates 2]

One process takes the whole batch; two of them, by gloo, half of it each, with
DDP and, by --sides "one process" ddp fsdp, with sharded weights. Each side is
a Brain with the same random weights and one step of AdamW, for the distance of
the features to random ones. The time is that of the processor, of all threads
and processes, so that it does not depend on how many cores there are:
efficiency is the time of one process to the sum of the times of two. Gathering
gradients, and each process's optimizer, is what it lacks to 1; both cost as
much for any batch, so that it grows with the batch. The first update is not
counted. About two minutes on two cores that do nothing else.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from functools import partial

import torch

from unispeech_sb.brains import SSLBrain
from unispeech_sb.brains.data_parallel import world_size
from unispeech_sb.lobes.backbone import Backbone

SIDES = {"one process": 1, "ddp": 2, "fsdp": 2}
"""Side -> processes."""


class Regression(SSLBrain):
    """Features to random ones, a batch of which is waveforms."""

    def compute_forward(self, batch, stage):
        """Features, [B, T, D]."""
        return self.modules.backbone(batch)

    def compute_objectives(self, predictions, batch, stage):
        """Mean of squares."""
        generator = torch.Generator().manual_seed(2)
        wanted = torch.randn(predictions.shape, generator=generator)
        return (predictions - wanted).square().mean()


def measure(arguments):
    """One process of a side: its times, loss of the last update and memory."""
    torch.set_num_threads(1)
    if arguments.side != "one process":
        torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    backbone = Backbone.from_preset(
        arguments.model, layerdrop=0.0, hidden_dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0,
    )  # fmt: skip
    rank = int(os.environ.get("RANK", 0))
    seconds = arguments.seconds[rank :: world_size()]
    batch = torch.randn(len(seconds), round(16000 * seconds[0]))
    brain = Regression(
        {"backbone": backbone},
        partial(torch.optim.AdamW, lr=1e-6),
        {"backbone": backbone,
         "activation_checkpointing": arguments.activation_checkpointing,
         "data_parallel": "fsdp" if arguments.side == "fsdp" else "ddp"},
        {"device": "cpu", "precision": arguments.precision,
         "distributed_backend": "gloo"},
    )  # fmt: skip
    brain.train_loader = None
    brain.on_fit_start()
    brain.modules.train()
    brain.fit_batch(batch)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(arguments.updates):
        loss = brain.fit_batch(batch)
    found = {
        "cpu_s": (time.process_time() - cpu) / arguments.updates,
        "wall_s": (time.perf_counter() - wall) / arguments.updates,
        "loss": float(loss),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(found), flush=True)


def run(side, port):
    """What all processes of a side have found."""
    command = [sys.executable, __file__, f"--side={side}", *sys.argv[1:]]
    started = []
    for rank in range(SIDES[side]):
        group = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": SIDES[side],
            "MASTER_ADDR": "localhost", "MASTER_PORT": port,
        } if SIDES[side] > 1 else {}  # fmt: skip
        env = {**os.environ, **{k: str(v) for k, v in group.items()}}
        started.append(
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
        )
    found = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{side}: a process has failed")
    return [json.loads(text.splitlines()[-1]) for text in found]


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="unispeech_sat_base")
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        default=[4.0] * 8,
        help="of all waveforms, as many for each process",
    )
    parser.add_argument(
        "--sides", choices=SIDES, nargs="+", default=["one process", "ddp"]
    )
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--port", type=int, default=29517)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        measure(arguments)
        return
    print("| side | processor s an update | wall s | efficiency | peak GB of a "
          "process |\n|---|---|---|---|---|")  # fmt: skip
    alone = None
    for number, side in enumerate(arguments.sides):
        found = run(side, arguments.port + number)
        cpu = sum(own["cpu_s"] for own in found)
        alone = alone or cpu
        wall, peak = (max(o[k] for o in found) for k in ("wall_s", "peak_gb"))
        print(f"| {side} | {cpu:.2f} | {wall:.2f} | {alone / cpu:.2f} | "
              f"{peak:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
