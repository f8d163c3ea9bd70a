"""Cosine scores of embeddings, and their normalization by a cohort of other
speakers: S-norm (Kenny 2010) and AS-norm (Matějka et al. 2017).
"""

import torch
from torch.nn import functional

BLOCK = 4096
"""Rows that are scored at once: of all memory, this is what N does not set."""


def cosine_scores(embeddings, left, right, block=BLOCK):
    """Cosines of pairs of embeddings, in float64.

    Arguments
    ---------
    embeddings : torch.Tensor
        One per utterance, [U, D].
    left : torch.Tensor or numpy.ndarray
        Index of each trial's one side, [N].
    right : torch.Tensor or numpy.ndarray
        Index of its other side, [N].
    block : int
        Trials that are scored at once.

    Returns
    -------
    torch.Tensor
        In [-1, 1], [N]. The order of a pair does not matter.

    Raises
    ------
    ValueError
        When an embedding is zero or not finite, or an index has none.

    Example
    -------
    >>> embeddings = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    >>> [
    ...     round(x, 6)
    ...     for x in cosine_scores(embeddings, [0, 1], [1, 1]).tolist()
    ... ]
    [0.6, 1.0]
    """
    left, right = (
        _indices(side, len(embeddings), name)
        for side, name in ((left, "left"), (right, "right"))
    )
    if len(left) != len(right):
        raise ValueError(
            f"expected two sides of one length, got {len(left)} and "
            f"{len(right)}"
        )
    # The products of one row commute, so a swapped pair sums the same terms.
    directions = _directions(embeddings, "embeddings")
    scores = directions.new_empty(len(left))
    for start in range(0, len(left), block):
        part = slice(start, start + block)
        products = directions[left[part]] * directions[right[part]]
        scores[part] = products.sum(1)
    return scores.clamp(-1, 1)


def cohort_statistics(embeddings, cohort, top_n=None, block=BLOCK):
    """Mean and deviation of each embedding's cosines with a cohort.

    Arguments
    ---------
    embeddings : torch.Tensor
        One per utterance, [U, D].
    cohort : torch.Tensor
        Embeddings of speakers that are in no trial, [C, D]; see
        ``speaker_means``.
    top_n : int, optional
        Take the highest so many cosines only, as AS-norm does. All of them,
        as S-norm does, when omitted.
    block : int
        Embeddings that are compared with the cohort at once.

    Returns
    -------
    means : torch.Tensor
        [U], float64.
    deviations : torch.Tensor
        Unbiased standard deviations, [U], float64.

    Raises
    ------
    ValueError
        When an embedding is zero or not finite, ``top_n`` is not in 2...C, or
        the cosines with the cohort do not differ.

    Example
    -------
    >>> cohort = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> means, _ = cohort_statistics(cohort[:1], cohort, top_n=2)
    >>> means.tolist()
    [0.5]
    """
    top_n = len(cohort) if top_n is None else top_n
    if not 2 <= top_n <= len(cohort):
        raise ValueError(
            f"expected top_n in 2...{len(cohort)}, the size of the cohort, "
            f"got {top_n}"
        )
    directions = _directions(embeddings, "embeddings")
    cohort = _directions(cohort, "cohort").T
    means, deviations = (directions.new_empty(len(directions)) for _ in "ms")
    for start in range(0, len(directions), block):
        part = slice(start, start + block)
        scores = directions[part] @ cohort  # [block, C]
        if top_n < scores.shape[1]:
            scores = scores.topk(top_n, dim=1, sorted=False).values
        means[part] = scores.mean(1)
        deviations[part] = scores.std(1)
    flat = (deviations < 1e-9).nonzero()
    if len(flat):
        raise ValueError(
            "expected a cohort of different speakers, but its scores with "
            f"embedding {flat[0].item()} are all the same"
        )
    return means, deviations


def s_norm(scores, left, right, statistics):
    """Normalises scores by the cohort's on both sides, in their mean.

    Arguments
    ---------
    scores : torch.Tensor
        Cosines of trials, [N].
    left : torch.Tensor or numpy.ndarray
        Index of each trial's one side, [N].
    right : torch.Tensor or numpy.ndarray
        Index of its other side, [N].
    statistics : tuple of torch.Tensor
        What ``cohort_statistics`` gave for the embeddings: S-norm with all of
        the cohort, AS-norm with ``top_n``.

    Returns
    -------
    torch.Tensor
        Scores in standard deviations, [N], float64.

    Raises
    ------
    ValueError
        When there are no statistics for an index, or lengths differ.

    Example
    -------
    >>> means, deviations = torch.tensor([0.0, 0.25]), torch.ones(2) / 4
    >>> s_norm(torch.tensor([0.5]), [0], [1], (means, deviations)).tolist()
    [1.5]
    """
    means, deviations = (values.double() for values in statistics)
    scores = torch.as_tensor(scores).double()
    total = torch.zeros_like(scores)
    for side, name in ((left, "left"), (right, "right")):
        indices = _indices(side, len(means), name)
        if indices.shape != scores.shape:
            raise ValueError(
                f"expected one index per score in {name}, got {len(indices)} "
                f"for {len(scores)}"
            )
        total += (scores - means[indices]) / deviations[indices]
    return total / 2


def speaker_means(embeddings, speakers):
    """One embedding per speaker, for a cohort or an enrolment.

    Arguments
    ---------
    embeddings : torch.Tensor
        One per utterance, [U, D].
    speakers : sequence of str
        Who speaks in each, [U].

    Returns
    -------
    means : torch.Tensor
        Mean of each speaker's embeddings, which count alike whatever their
        norms, [S, D], float64.
    names : list of str
        The speakers in alphabetical order, [S].

    Raises
    ------
    ValueError
        When there is not one speaker per embedding, or an embedding is zero
        or not finite.

    Example
    -------
    >>> embeddings = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> means, names = speaker_means(embeddings, ["b", "b", "a"])
    >>> names, means.tolist()
    (['a', 'b'], [[0.0, 1.0], [0.5, 0.5]])
    """
    speakers = [str(speaker) for speaker in speakers]
    if len(speakers) != len(embeddings):
        raise ValueError(
            f"expected one speaker per embedding, got {len(speakers)} for "
            f"{len(embeddings)}"
        )
    directions = _directions(embeddings, "embeddings")
    names = sorted(set(speakers))
    places = {name: index for index, name in enumerate(names)}
    owners = torch.tensor(
        [places[speaker] for speaker in speakers], device=directions.device
    )
    sums = directions.new_zeros(len(names), directions.shape[1])
    sums.index_add_(0, owners, directions)
    return sums / owners.bincount(minlength=len(names))[:, None], names


def _directions(embeddings, name):
    """Embeddings of length 1, float64."""
    if embeddings.dim() != 2 or 0 in embeddings.shape:
        raise ValueError(
            f"expected {name} of shape [U, D], got {list(embeddings.shape)}"
        )
    embeddings = embeddings.detach().double()
    norms = embeddings.norm(dim=1)
    wrong = ~((norms > 0) & norms.isfinite())
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"expected finite {name} with a direction, but number {first} has "
            f"the norm {norms[first]:g}"
        )
    return functional.normalize(embeddings, dim=1, eps=0.0)


def _indices(values, limit, name):
    """Indices below a limit, [N]."""
    indices = torch.as_tensor(values)
    if indices.dim() != 1 or indices.is_floating_point():
        raise ValueError(f"expected {name} as a list of indices")
    indices = indices.long()
    if len(indices) and not 0 <= indices.min() <= indices.max() < limit:
        raise ValueError(
            f"expected {name} in 0...{limit - 1}, got "
            f"{indices.min()}...{indices.max()}"
        )
    return indices
