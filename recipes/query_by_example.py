"""Query by example: which recordings hold what a spoken query says?

QUESST 2014, as its archive unpacks, of which its English part is searched:

    python recipes/query_by_example.py hparams/query_by_example.yaml \
        --data_folder=quesst14Database

Recordings of your own: a folder with queries.csv (columns id, path, split),
documents.csv (id, path) and truth.csv (query, document: the ids of what holds
what), or the words of queries and documents in the column wrd of both:

    python recipes/query_by_example.py hparams/query_by_example.yaml \
        --data_folder=my_queries

Nothing is trained: the queries of valid choose the layer whose hidden states
are matched by dynamic time warping, those of test are scored by it. SUPERB's
task to the letter is hparams/query_by_example_superb.yaml. A killed run goes on
where it was. Each run ends with the scores, benchmark.stdlist.xml for the
corpus' own scorer, and layers.json, the score of each layer on valid.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import unispeech_sb  # noqa: F401  # isort: skip  # guards what follows
import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.atomic import atomic, write_json
from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.corpora.quesst14 import read_truth, write_stdlist
from unispeech_sb.dataio.manifest import (
    check_records,
    read_manifest,
    write_manifests,
)
from unispeech_sb.dataio.unit_clustering import frames_of
from unispeech_sb.experiment import (
    alone_in,
    enter,
    open_output,
    print_end,
    read_command,
    works_alone,
)
from unispeech_sb.experiment import main as script
from unispeech_sb.metrics.term_detection import (
    cosine_exp,
    max_term_weighted_value,
    normalized_scores,
    subsequence_costs,
    term_weighted_value,
    unit_frames,
)

logger = get_logger(__name__)

BLOCK_FRAMES = 2**13
"""Frames of documents that a query is compared with at once."""


def prepare(hparams):
    """Checks every recording and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    if hparams["skip_prep"]:
        return
    records = list(read_corpus("query_by_example", hparams))
    queries = [record for record in records if "split" in record]
    documents = [
        {**record, "split": "test"}
        for record in records
        if "split" not in record
    ]
    if any(record["split"] == "train" for record in queries):
        raise ValueError(
            f"{hparams['data_folder']}: expected queries of valid and test, "
            "got some of train, of which there is no use"
        )
    folder, skip = Path(hparams["manifest_folder"]), hparams["skip_bad_files"]
    for found, place, needed in (
        (documents, folder / "documents", "test"),
        (queries, folder, "valid" if hparams["layer"] is None else "test"),
    ):
        write_manifests(check_records(found, skip), place, (needed,))


class StateFiles:
    """Hidden states of recordings on disk: computed once, kept over a kill.

    Arguments
    ---------
    backbone : Backbone
        A frozen model.
    hparams : dict
        The recipe's yaml: ``save_folder``, ``gain_db``, ``max_batch_s`` and
        ``layer``, the one that is kept, all of them when it is None.
    device : str
        Where to compute.
    """

    def __init__(self, backbone, hparams, device="cpu"):
        states, layer = range(backbone.num_states), hparams["layer"]
        if layer is not None and layer not in states:
            raise ValueError(
                f"layer: expected 0 to {states[-1]}, the layers of the model; "
                f"got {layer}"
            )
        self.layers = list(states) if layer is None else [layer]
        self.backbone, self.device = backbone.to(device).eval(), device
        self.folder = Path(hparams["save_folder"], "states")
        self.gain = 10 ** (hparams["gain_db"] / 20)
        self.max_batch_s = hparams["max_batch_s"]

    def write(self, kind, records):
        """Computes the states that are not there yet: the files, [L, T, D]."""
        folder = self.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{n:06d}.npy" for n in range(len(records))]
        missing = [
            pair for pair in zip(records, paths) if not pair[1].is_file()
        ]
        missing.sort(key=lambda pair: pair[0]["duration"])
        left = [record for record, _ in missing]
        if left:
            self._check_disk(left)
        states = frames_of(left, self._states, self.max_batch_s, kind)
        for (_, path), found in zip(missing, states, strict=True):
            with atomic(path, "wb") as file:
                np.save(file, found.numpy())
        return paths

    @torch.inference_mode()
    def _states(self, wavs):
        """States of the layers, [L, T, D], of each waveform in a batch."""
        lengths = torch.tensor([len(wav) for wav in wavs])
        batch = pad_sequence(wavs, batch_first=True).to(self.device)
        wav_lens = (lengths / batch.shape[1]).to(self.device)
        computed = self.backbone.iter_states(self.gain * batch, wav_lens)
        kept = [
            state.float().cpu()
            for layer, state in enumerate(computed)
            if layer in self.layers
        ]
        counts = self.backbone.output_lengths(lengths).tolist()
        return [
            torch.stack([state[row, :count] for state in kept])
            for row, count in enumerate(counts)
        ]

    def _check_disk(self, records):
        """Says how much is to be written, and refuses what does not fit."""
        samples = sum(round(16000 * record["duration"]) for record in records)
        frames = self.backbone.output_lengths(max(samples, 400))
        size = 4 * frames * len(self.layers) * self.backbone.dim / 1e9
        free = shutil.disk_usage(self.folder).free / 1e9
        logger.info(f"{self.folder}: {size:.2f} GB of hidden states to write")
        if size > free:
            raise ValueError(
                f"{self.folder}: expected {size:.2f} GB of free disk for "
                f"hidden states; there are {free:.2f} GB"
            )


def read_states(path, place):
    """Reads the states of one layer, by its place in the file, [T, D]."""
    return np.load(path, mmap_mode="r")[place]


def read_normalised(path, place, mean, deviation):
    """The same with each dimension normalised, then each frame to length 1."""
    return unit_frames((read_states(path, place) - mean) / deviation)


def moments(paths, place):
    """Mean and unbiased deviation of each dimension, over all frames."""
    total, squares, count = 0.0, 0.0, 0
    for path in paths:
        states = read_states(path, place).astype(np.float64)
        total, count = total + states.sum(0), count + len(states)
    mean = total / count
    for path in paths:
        squares = squares + np.square(read_states(path, place) - mean).sum(0)
    deviation = np.maximum(np.sqrt(squares / max(count - 1, 1)), 1e-9)
    return mean.astype(np.float32), deviation.astype(np.float32)


def match(queries, documents, place, hparams):
    """Scores each document for each query by the states of one layer.

    Arguments
    ---------
    queries, documents : list of path-like
        Files of states.
    place : int
        Which of their states.
    hparams : dict
        The recipe's yaml: ``min_frames`` of a query that is searched for, and
        ``num_workers``, threads.

    Returns
    -------
    numpy.ndarray
        Scores with mean 0 and deviation 1 for each query, [Q, M].
    """
    norm = moments([*queries, *documents], place)
    terms = [read_normalised(path, place, *norm) for path in queries]
    searched = [
        row
        for row, states in enumerate(terms)
        if len(states) >= hparams["min_frames"]
    ]
    costs = np.zeros((len(queries), len(documents)))
    with ThreadPoolExecutor(max(1, hparams["num_workers"])) as threads:
        first = 0
        for block in _blocks(documents, place, norm):
            lengths = np.array([len(states) for states in block])
            search = partial(
                _search, documents=np.concatenate(block), lengths=lengths
            )
            found = threads.map(search, (terms[row] for row in searched))
            columns = slice(first, first + len(block))
            for row, own in zip(searched, found):
                costs[row, columns] = own
            first += len(block)
    return normalized_scores(-costs)


def _blocks(paths, place, norm):
    """States of documents, as many at a time as are compared at once."""
    block, size = [], 0
    for path in paths:
        states = read_normalised(path, place, *norm)
        if block and size + len(states) > BLOCK_FRAMES:
            yield block
            block, size = [], 0
        block.append(states)
        size += len(states)
    yield block


def _search(query, documents, lengths):
    """Costs of a query in a block of documents."""
    return subsequence_costs(cosine_exp(query, documents), lengths)


class Search:
    """The queries of a split, the documents, and which hold which."""

    def __init__(self, split, files, hparams):
        folder = Path(hparams["manifest_folder"])
        queries = read_manifest(folder / f"{split}.csv")
        documents = read_manifest(folder / "documents/test.csv")
        self.split, self.files, self.hparams = split, files, hparams
        self.names = [[r["ID"] for r in own] for own in (queries, documents)]
        self.records = {split: queries, "documents": documents}
        self.truth = read_truth(queries, documents, hparams["full_lists"])
        self.table = self.truth.table()

    def reported(self, layer):
        """Scores by a layer, [Q, M], kept in the folder of the run."""
        place = self.files.layers.index(layer)
        name = f"scores_{self.split}_{layer:02d}.npz"
        path = Path(self.hparams["save_folder"], name)
        if not path.is_file():
            queries, documents = (
                self.files.write(kind, records)
                for kind, records in self.records.items()
            )
            scores = match(queries, documents, place, self.hparams)
            with atomic(path, "wb") as file:
                np.savez(file, scores=scores)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["scores"]

    def scores(self, reported):
        """MTWV and where it is, by four decimals, as a list has them; ATWV at
        the threshold of the yaml."""
        scores = self.truth.scores(*self.names, reported)
        value, place = max_term_weighted_value(scores.round(4), self.table)
        threshold = self.hparams["threshold"]
        actual = term_weighted_value(scores, self.table, threshold)
        found = {"MTWV": value, "ATWV": actual}
        return found if np.isinf(place) else {**found, "best threshold": place}


def choose_layer(files, hparams):
    """The layer with the highest MTWV on valid, the first of equal ones."""
    search = Search("valid", files, hparams)
    values = {}
    for layer in files.layers:
        values[layer] = search.scores(search.reported(layer))["MTWV"]
        logger.info(f"Layer {layer}: MTWV {values[layer]:.4f} on valid")
    write_json(Path(hparams["output_folder"], "layers.json"), values)
    return max(values, key=values.get)


def main(argv=None):
    """Runs the recipe on a list of arguments, or on the process's.

    Arguments
    ---------
    argv : list, optional
        The command line after the program's name.

    Returns
    -------
    dict
        ``MTWV``, the maximum over thresholds, from 0 to 1; ``best threshold``,
        the lowest score that is then reported, unless it is best to report
        none; ``ATWV`` at the ``threshold`` of the yaml; and ``layer``.
    """
    command = read_command(argv)
    if not works_alone():
        return {}
    hparams = command.load()
    output = open_output(command, hparams, prepare)
    with alone_in(output):
        finished = enter(command, output, prepare, trusting=True)
        if finished is not None:
            scores = output.read_scores()
        else:
            device = command.run_opts["device"] or "cpu"
            split, scores = run(hparams, device)
            output.finish(split)
        print_end(output, scores, finished)
    return scores


def run(hparams, device):
    """Chooses the layer, and searches for the queries of test.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    device : str
        Where hidden states are computed.

    Returns
    -------
    split : str
        That was scored: test, or valid where there are no queries of test.
    scores : dict
        As for ``main``.
    """
    files = StateFiles(hparams["make_backbone"](), hparams, device)
    folder, layer = Path(hparams["output_folder"]), hparams["layer"]
    if layer is None:
        layer = choose_layer(files, hparams)
    is_tested = Path(hparams["manifest_folder"], "test.csv").is_file()
    split = "test" if is_tested else "valid"
    search = Search(split, files, hparams)
    reported = search.reported(layer)
    scores = {**search.scores(reported), "layer": layer}
    write_stdlist(
        folder / "benchmark.stdlist.xml",
        *search.names,
        reported,
        hparams["threshold"],
    )
    write_json(folder / "scores.json", scores)
    if not hparams["keep_states"]:
        shutil.rmtree(files.folder, ignore_errors=True)
    return split, scores


if __name__ == "__main__":
    script(main)
