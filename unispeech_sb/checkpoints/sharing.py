"""Pretrained folders on the Hugging Face hub: their model card, their upload.

A card is a README.md whose front matter, yaml between two lines of hyphens,
tells the hub what the model is for, what it was trained on, and its scores.
"""

import hashlib
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from unispeech_sb.checkpoints.interfaces import (
    INTERFACES,
    OTHERS,
    contents,
    folder_kind,
    purpose,
)
from unispeech_sb.checkpoints.options import shown
from unispeech_sb.checkpoints.pretrained_folder import (
    ORIGIN_FILE,
    SUMS_FILE,
    TRAINING_FILE,
    check_sums,
)
from unispeech_sb.checkpoints.texts import read_json

CARD_FILE = "README.md"
PLACE = "PATH/TO/THIS/FOLDER"
"""What stands in a card for the folder; its name on the hub when uploaded."""

METRICS = {
    "accuracy": "accuracy",
    "WER": "wer",
    "CER": "cer",
    "PER": "per",
    "EER": "eer",
    "minDCF": "mindcf",
    "DER": "der",
    "slot_type_f1": "f1",
    "slot_value_cer": "cer",
    "MTWV": "mtwv",
}
"""Score of a recipe -> the hub's name of the metric. Others, such as losses
and thresholds, are in the text of a card alone."""

_LOADING = """\
## Elsewhere

By unispeech_sb, which also has the command `{command}`:

```python
import unispeech_sb as us

model = us.load("{place}")
```

In transformers, by {auto}: `unispeech-sb to-hf {place} NEW` makes the folder
NEW that it loads, or says what transformers lacks.
"""
_FRONT = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.S)
_MOST_CARD = 2**20
"""Bytes of a card that are read."""


def write_card(
    text: str,
    interface: str,
    name: str,
    scores: Mapping[str, Any] | None = None,
    scored_on: str = "",
    data: str | None = None,
    base_model: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """The model card of a folder.

    Arguments
    ---------
    text : str
        What the card says, in markdown.
    interface : str
        A key of ``INTERFACES``.
    name : str
        Of the model.
    scores : dict, optional
        Name -> number; those of ``METRICS`` go into the front matter, where
        the data have a name.
    scored_on : str
        The split that they are of.
    data : str, optional
        Name of the data of the training.
    base_model : str, optional
        Hub name of the model that it began with.
    facts : dict, optional
        Further entries of the front matter, such as ``license``, ``language``
        and ``tags``.

    Returns
    -------
    str
        Front matter, text, and how to load the folder elsewhere.

    Example
    -------
    >>> card = write_card("# a", "EncoderASR", "a", {"WER": 9.5}, "test", "my")
    >>> front, _ = split_card(card)
    >>> front["pipeline_tag"], front["datasets"]
    ('automatic-speech-recognition', ['my'])
    """
    row = INTERFACES[interface]
    given = dict(facts or {})
    tags = ["speechbrain", "unispeech_sb", *given.pop("tags", [])]
    front = {
        "library_name": "speechbrain",
        "pipeline_tag": row.pipeline_tag,
        "license": given.pop("license", None) or "unknown",
        "language": given.pop("language", None),
        "base_model": base_model,
        "datasets": [data] if data else None,
        "metrics": None,
        "tags": list(dict.fromkeys(tags)),
        **given,
    }
    found = _known_scores(scores or {})
    if found and data:
        front["metrics"] = list(dict.fromkeys(kind for kind, *_ in found))
        result = {
            "task": {"type": row.pipeline_tag, "name": row.task},
            "dataset": {
                "type": re.sub(r"[^\w.-]+", "-", data),
                "name": data,
                "split": scored_on,
            },
            "metrics": [
                {"type": kind, "value": value, "name": title}
                for kind, title, value in found
            ],
        }
        front["model-index"] = [{"name": name, "results": [result]}]
    front = {key: value for key, value in front.items() if value}
    card = _front_text(front) + f"{text.rstrip()}\n"
    if not row.ours:
        return card
    command = row.command.split(" FOLDER")[0]
    loading = _LOADING.format(
        command=command, place=PLACE, auto=row.transformers
    )
    return f"{card}\n{loading}"


def _known_scores(scores):
    """Kind, name and value of the scores that the hub knows."""
    return [
        (METRICS[name], name, round(float(value), 6))
        for name, value in scores.items()
        if name in METRICS
        and isinstance(value, (int, float))
        and math.isfinite(value)
    ]


def _front_text(front):
    """The front matter, as the hub reads it."""
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=999)
    return f"---\n{text}---\n\n"


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and text of a card; the first is empty where there is none,
    or none that is yaml."""
    found = _FRONT.match(text.removeprefix("\ufeff"))
    if found is None:
        return {}, text
    try:
        front = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}, text
    if not isinstance(front, dict):
        return {}, text
    return front, text[found.end() :].lstrip("\n")


def read_front(folder: str | Path) -> dict[str, Any]:
    """The front matter of a folder's card; empty where there is none."""
    path = Path(folder) / CARD_FILE
    if not path.is_file() or path.stat().st_size > _MOST_CARD:
        return {}
    return split_card(path.read_text("utf-8", errors="replace"))[0]


def hub_name(source: Any) -> str | None:
    """A source that is the hub name of a model; None for any other."""
    name = str(source)
    known = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name)
    return name if known and not Path(name).exists() else None


class Upload(NamedTuple):
    """What is to be uploaded.

    Arguments
    ---------
    repo : str
        Name on the hub.
    files : dict
        Name in the repository -> path of a file, or its bytes.
    card : str
        Text of the card, which is among the files.
    notes : list of str
        What else is good to know.
    """

    repo: str
    files: dict[str, Path | bytes]
    card: str
    notes: list[str]

    def __str__(self) -> str:
        """A line for each file, their sum, and the notes."""
        sizes = {
            name: len(content)
            if isinstance(content, bytes)
            else content.stat().st_size
            for name, content in self.files.items()
        }
        lines = [f"{size:>12,}  {name}" for name, size in sizes.items()]
        total = f"{sum(sizes.values()):,} bytes in {len(sizes)} files"
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, total, *notes])

    def push(self, private: bool = False) -> str:
        """Uploads it in one commit; gives the address. See ``push_to_hub``."""
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError

        # OSError, and what the client of HTTP raises where nobody answers
        failures: Any = HfHubHTTPError.__bases__
        api = HfApi()
        try:
            url = api.create_repo(
                self.repo, private=private or None, exist_ok=True
            )
            operations = [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in self.files.items()
            ]
            message = "Upload by unispeech_sb"
            api.create_commit(url.repo_id, operations, commit_message=message)
        except failures as error:
            if isinstance(error, OSError) and error.filename:
                raise
            said = _refusal(error, api.endpoint)
            raise ValueError(f"{self.repo}: {said}") from error
        return str(url)


def plan_upload(
    folder: str | Path, repo: str, license: str | None = None
) -> Upload:
    """What of a pretrained folder is uploaded, and its card there.

    Hidden files stay here, and of the path of the training data all but its
    last part. A card without front matter, as of earlier versions, gets one;
    the folder stays as it is.
    """
    folder, kind = Path(folder), folder_kind(folder)
    if kind not in INTERFACES:
        what = purpose(folder, kind) if kind in OTHERS else contents(folder)
        raise ValueError(f"{folder}: expected a pretrained folder; {what}")
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repo)
    if "/" not in repo:
        raise ValueError(
            f"{repo}: expected the name with its user or organisation, such "
            f"as user/{repo}"
        )
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(p[0] == "." for p in path.relative_to(folder).parts)
    }
    notes = []
    if SUMS_FILE in paths:
        changed = check_sums(folder).changed
        notes += [f"{name} is not as it was written" for name in changed]
    text, missing = _card_of(folder, kind, repo)
    notes += missing
    front, body = split_card(text)
    if license is not None:
        if not re.fullmatch(r"[\w.+-]+", license):
            raise ValueError(
                "license: expected an identifier of the hub, such as "
                f"cc-by-4.0 or mit; got {license!r:.60}"
            )
        front["license"] = license
    elif front.get("license") in (None, "unknown"):
        notes.append("the licence is unknown; --license ID states it")
    hide, card = _hider(folder), _front_text(front) + body.replace(PLACE, repo)
    card = hide(card)
    changed_texts = {CARD_FILE: card}
    if TRAINING_FILE in paths:
        changed_texts[TRAINING_FILE] = hide(
            paths[TRAINING_FILE].read_text("utf-8")
        )
    files: dict[str, Path | bytes] = dict(paths)
    for name, text in changed_texts.items():
        files[name] = text.encode()
    if SUMS_FILE in paths:
        files[SUMS_FILE] = _sums_with(paths[SUMS_FILE], changed_texts)
    return Upload(repo, dict(sorted(files.items())), card, notes)


def _card_of(folder, kind, repo):
    """A folder's card, or one for it, and notes."""
    path = folder / CARD_FILE
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    if split_card(text)[0]:
        return text, []
    training, origin = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in (TRAINING_FILE, ORIGIN_FILE)
    )
    facts = training.get("training") or {}
    family = training.get("family") or origin.get("family")
    card = write_card(
        text or f"# {repo.rpartition('/')[2]}\n\nFor {kind}.",
        kind,
        repo.rpartition("/")[2],
        training.get("scores"),
        training.get("scored_on") or "",
        facts.get("data_name"),
        hub_name(facts.get("model", "")),
        {"tags": [family] if family else []},
    )
    return card, ["the card had no front matter, as of an earlier version"]


def _hider(folder):
    """What takes the folders above the training data out of a text."""
    path, data = folder / TRAINING_FILE, None
    if path.is_file():
        data = (read_json(path).get("training") or {}).get("data_folder")
    if not isinstance(data, str) or not os.path.isabs(data):
        return str
    return lambda text: text.replace(data, Path(data).name)


def _sums_with(path, texts):
    """The digests of a folder, with those of other texts."""
    lines = path.read_text("utf-8").splitlines()
    kept = [line for line in lines if _name_of(line) not in texts]
    kept += [
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}"
        for name, text in texts.items()
    ]
    return "".join(f"{line}\n" for line in sorted(kept, key=_name_of)).encode()


def _name_of(line):
    """The file of a line of digests."""
    return line[66:]


def push_to_hub(
    folder: str | Path,
    repo: str,
    private: bool = False,
    license: str | None = None,
) -> str:
    """Uploads a pretrained folder with its model card.

    Arguments
    ---------
    folder : str or pathlib.Path
        The ``export`` of a recipe, or what ``convert`` wrote.
    repo : str
        Name on the hub, ``user/name``; made where it is not there.
    private : bool
        Whether a repository that is made is private.
    license : str, optional
        Identifier of the licence for the card, such as ``cc-by-4.0``.

    Returns
    -------
    str
        Address of the model.

    Raises
    ------
    ValueError
        When it is no pretrained folder, or the hub refuses it.
    OSError
        When a file cannot be read.

    Example
    -------
    >>> push_to_hub("nowhere", "user/name")
    Traceback (most recent call last):
    ...
    ValueError: nowhere: expected a pretrained folder; there is no such folder
    """
    return plan_upload(folder, repo, license).push(private)


def _refusal(error, endpoint):
    """Why the hub took nothing, and what helps."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 401:
        return (
            f"the hub, {endpoint}, does not know the token (401): log in by "
            "`hf auth login`, or set HF_TOKEN"
        )
    if status == 403:
        return (
            "the token may not write there (403): it needs the role write, and "
            "the repository has to be of its user or organisation"
        )
    if status is not None:
        said = getattr(error, "server_message", None) or ""
        return f"the hub answered {status} {shown(said)}".rstrip()
    return (
        f"the hub, {endpoint}, could not be reached "
        f"({type(error).__name__}): nothing was uploaded"
    )
