"""Prefix beam search over the frames of a CTC model, frame by frame.

A prefix is a text as tokens. Its mass is the probability of all alignments
that write it so far, apart for those that end in blank and those that end in
its last token (Graves et al. 2006, 4.1; Hannun et al. 2014). Masses are plain
numbers: what all prefixes have in common is taken out of them.
"""

import gc
import math
from bisect import bisect_right
from contextlib import contextmanager
from copy import copy
from operator import itemgetter

import numpy as np

_FIRST = itemgetter(0)
_LOWEST = -1e300
"""Below all ranks but those of prefixes without mass."""

_SMALL = 1e-100
"""Masses are scaled up again below this."""


class _Prefix:
    """A node in the tree of prefixes: its last token below the others.

    ``bonus`` is the score of its text in nats, ``state`` the scorer's.
    """

    __slots__ = (
        "parent",
        "token",
        "state",
        "bonus",
        "depth",
        "children",
        "scored",
        "frame",
        "rank",
        "total",
        "blank",
        "label",
        "next_blank",
        "next_label",
        "next_rank",
    )

    def __init__(self, parent, token, state=None, bonus=0.0):
        self.parent, self.token = parent, token
        self.state, self.bonus = state, bonus
        self.depth = 0 if parent is None else parent.depth + 1
        self.children, self.scored = {}, {}
        # Last frame in which it was alive, and the rank it had after it
        self.frame, self.rank = -1, 0.0
        self.total = self.blank = self.label = 0.0

    def tokens(self):
        """Lists the tokens since the last prefix that became final."""
        tokens, node = [], self
        while node.parent is not None:
            tokens.append(node.token)
            node = node.parent
        return tokens[::-1]


class Beams:
    """The prefixes that are alive, best first, under a search's settings."""

    def __init__(self, search):
        self.search, self.scorer = search, search.scorer
        self.delimiter = search.mapping.delimiter
        state = self.scorer.start() if self.scorer else None
        root = _Prefix(None, self.delimiter, state)
        root.blank, self.scale = 1.0, 0.0
        self.alive, self.frame, self._resting = [root], 0, True

    def fork(self):
        """The same beams, whose prefixes are others."""
        twin, made = copy(self), {None: None}
        twin.alive = []
        for node in self.alive:
            path = []
            while node not in made:
                path.append(node)
                node = node.parent
            for old in reversed(path):
                parent = made[old.parent]
                new = made[old] = copy(old)
                new.parent, new.children = parent, {}
                if parent is not None:
                    parent.children[old.token] = new
            twin.alive.append(made[path[0]] if path else made[node])
        return twin

    def push(self, rows):
        """Goes on by some frames of ``merge_into_blank``, [T, V]."""
        best = rows.max(-1, initial=-np.inf)
        self.scale += float(best.sum())
        with _no_garbage_collection():
            for blank, tokens in self._likely(rows, best):
                self.frame += 1
                if tokens:
                    self._step(blank, tokens)
                elif not self._resting:
                    self._rest()
                self._resting = not tokens

    def score(self, node):
        """The log-probability of a prefix over all its alignments."""
        return math.log(node.blank + node.label) + self.scale

    def common_prefix(self):
        """The longest prefix of all that are alive; it may be alive too."""
        common = self.alive[0]
        for node in self.alive[1:]:
            while node is not common:
                if node.depth > common.depth:
                    node = node.parent
                else:
                    common = common.parent
        return common

    def prune_history(self):
        """Drops prefixes that differ from a better one in the past only.

        Whatever follows scores the same after both: they end in the same
        tokens, a whole word at least, and in the same state of the scores.
        """
        seen, alive = set(), []
        for node in self.alive:
            key = self._recent(node)
            if self.scorer is not None:
                key = key, self.scorer.context(node.state)
            if key not in seen:
                seen.add(key)
                alive.append(node)
        self.alive = alive

    def keep_below(self, node, num_tokens):
        """Keeps the best, and what adds at most so many tokens to a prefix."""
        self.alive = [
            other
            for other in self.alive
            if other is self.alive[0]
            or other.depth <= node.depth + num_tokens
            and _ancestor(other, node) is node
        ]

    def _recent(self, node):
        """The tokens from the beginning of the last whole word on."""
        mapping = self.search.mapping
        tokens, seen = [], 0
        while node.parent is not None and seen < 2:
            if tokens and (
                mapping.by_token or node.token in mapping.boundaries
            ):
                seen += 1
            tokens.append(node.token)
            node = node.parent
        return tuple(tokens)

    def _likely(self, rows, best):
        """(blank's, [(token, its, log of it), ...]) of each frame, the likely
        first, as shares of the best token's probability."""
        search, blank = self.search, self.search.mapping.blank
        likely = rows > -search.token_threshold
        likely |= rows == best[:, None]
        logs = rows - best[:, None]
        shares = np.exp(logs)
        blanks = np.where(likely[:, blank], shares[:, blank], 0.0).tolist()
        likely[:, blank] = False
        frames, tokens = likely.nonzero()
        order = np.lexsort((-shares[frames, tokens], frames))
        frames, tokens = frames[order], tokens[order]
        columns = (tokens, shares[frames, tokens], logs[frames, tokens])
        triples = list(zip(*(column.tolist() for column in columns)))
        ends = likely.sum(-1).cumsum().tolist()
        begin = 0
        for share, end in zip(blanks, ends):
            yield share, triples[begin:end]
            begin = end

    def _step(self, blank, tokens):
        """Goes on by a frame."""
        search, alive = self.search, self.alive
        self._stay(blank, {token: share for token, share, _ in tokens})
        ranks = sorted([node.next_rank for node in alive], reverse=True)
        fresh = self._scored(self._extended(alive[0], tokens))
        top = max([ranks[0], *(candidate[0] for candidate in fresh)])
        floor = top - search.beam_threshold
        if len(ranks) >= search.beam_size:
            floor = max(floor, ranks[search.beam_size - 1])
        more, falling = [], [-log_share for _, _, log_share in tokens]
        floor_now = floor - search.headroom
        for place, node in enumerate(alive[1:], 2):
            count = bisect_right(falling, node.rank - floor_now)
            if not count:
                break  # the others are worse still
            # The place-th best prefix with the n-th best token has
            # place * n - 1 better ones before it
            count = min(count, search.beam_size // place)
            more += self._extended(node, tokens[:count])
        self._select(fresh + self._scored(more), floor)

    def _rest(self):
        """Goes on by a frame of nothing but blank."""
        for node in self.alive:
            node.blank, node.label = node.blank + node.label, 0.0

    def _stay(self, blank, shares):
        """Masses of the prefixes that are alive already."""
        frame, delimiter = self.frame, self.delimiter
        for node in self.alive:
            node.frame = frame
            node.total = total = node.blank + node.label
            node.next_blank = total * blank
            share = shares.get(node.token)
            if share is None:
                node.next_label = 0.0
            elif node.token == delimiter:
                # Two delimiters mean the same as one
                node.next_label = total * share
            else:
                node.next_label = node.label * share
        for node in self.alive:
            parent, token = node.parent, node.token
            if token in shares and parent and parent.frame == frame:
                # A repeat needs a blank between
                mass = parent.blank if token == parent.token else parent.total
                node.next_label += mass * shares[token]
        for node in self.alive:
            mass = node.next_blank + node.next_label
            node.next_rank = math.log(mass) + node.bonus if mass else -math.inf

    def _extended(self, node, tokens):
        """Candidates that are not alive: (rank, mass, prefix, token)."""
        rank, total, last = node.rank, node.total, node.token
        found = [
            (rank + log_share, total * share, node, token)
            for token, share, log_share in tokens
            if token != last
        ]
        if node.children:
            frame, children = self.frame, node.children
            found = [
                candidate
                for candidate in found
                if candidate[3] not in children
                or children[candidate[3]].frame != frame
            ]
        if last != self.delimiter and node.blank:
            found += self._repeated(node, tokens)
        return found

    def _repeated(self, node, tokens):
        """The candidate that repeats the last token, if it is one."""
        child = node.children.get(node.token)
        if child is not None and child.frame == self.frame:
            return []
        return [
            (
                math.log(node.blank) + node.bonus + log_share,
                node.blank * share,
                node,
                token,
            )
            for token, share, log_share in tokens
            if token == node.token
        ]

    def _scored(self, candidates):
        """Candidates with the scores of their texts in their ranks."""
        scorer = self.scorer
        if scorer is None:
            return candidates
        found = []
        for rank, mass, node, token in candidates:
            if token not in node.scored:
                state = scorer.extend(node.state, token)
                node.scored[token] = state, scorer.score(state)
            rank += node.scored[token][1] - node.bonus
            found.append((rank, mass, node, token))
        return found

    def _select(self, fresh, floor):
        """Keeps the best."""
        floor = max(floor, _LOWEST)
        found = [
            (node.next_rank, 0.0, node, None)
            for node in self.alive
            if node.next_rank >= floor
        ] + fresh
        found.sort(key=_FIRST, reverse=True)
        alive = []
        for rank, mass, node, token in found[: self.search.beam_size]:
            if rank < floor:
                break
            if token is None:
                node.blank, node.label = node.next_blank, node.next_label
            else:
                node = self._child(node, token)
                node.blank, node.label = 0.0, mass
            node.rank = rank
            alive.append(node)
        self.alive = alive
        if alive[0].blank + alive[0].label < _SMALL:
            self._rescale()

    def _child(self, node, token):
        """A prefix with one more token; one that was alive before keeps what
        is below it."""
        if token not in node.children:
            scored = node.scored.get(token, (None, 0.0))
            node.children[token] = _Prefix(node, token, *scored)
        return node.children[token]

    def _rescale(self):
        """Takes a common factor out of all masses."""
        top = max(node.blank + node.label for node in self.alive)
        self.scale += math.log(top)
        for node in self.alive:
            node.blank, node.label = node.blank / top, node.label / top
            node.rank -= math.log(top)


@contextmanager
def _no_garbage_collection():
    """Keeps Python from looking through the tree again and again as it grows,
    which would take half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _ancestor(node, wanted):
    """The prefix of a prefix that is as long as another one."""
    while node.depth > wanted.depth:
        node = node.parent
    return node
