"""Model cards that the hub reads, and uploads to a hub of our own."""

import base64
import json
import re
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import ModelCard, constants

from tests.commands.test_transcribe import save_tiny
from tests.conftest import ROOT
from tests.inference.models import save_languages
from unispeech_sb import load
from unispeech_sb.checkpoints.interfaces import INTERFACES
from unispeech_sb.checkpoints.pretrained_folder import (
    check_sums,
    training_record,
)
from unispeech_sb.checkpoints.sharing import (
    plan_upload,
    push_to_hub,
    read_front,
    split_card,
    write_card,
)
from unispeech_sb.commands import main
from unispeech_sb.convert import convert_checkpoint

OLD = ROOT / "tests/fixtures/old_exports/exports.tar.xz"


class Hub(ThreadingHTTPServer):
    """What the hub's client needs for an upload, in memory."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.repos, self.files, self.commits = {}, {}, []
        self.refuses = None

    @property
    def address(self):
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    """Answers of the hub."""

    def do_POST(self):
        """New repositories, ways of uploading, commits."""
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        hub, path = self.server, self.path.partition("?")[0]
        token = self.headers.get("Authorization")
        if token != "Bearer hf_right" or hub.refuses:
            status = hub.refuses or 401
            return self.answer({"error": "no such role"}, status)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            hub.repos[name] = asked
            return self.answer({"url": f"{hub.address}/{name}"})
        if path == "/api/validate-yaml":
            return self.answer({"warnings": [], "errors": []})
        if path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if path.endswith("/commit/main"):
            lines = [json.loads(line) for line in body.splitlines()]
            hub.commits.append(path)
            for line in lines:
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    hub.files[line["value"]["path"]] = content
            url = f"{hub.address}/me/model/commit/1"
            return self.answer({"commitUrl": url, "commitOid": "1" * 40})
        return self.answer({}, 404)

    def do_GET(self):
        """Nothing else is there."""
        self.answer({}, 404)

    def answer(self, content, status=200):
        """Sends JSON."""
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine, which knows one token."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pretrained folder with a card."""
    return save_tiny(tmp_path_factory.mktemp("asr") / "tiny", 20)


def read_card(text):
    """A card as the hub's client reads it, which knows all that is in it."""
    return ModelCard(text).data


def test_a_card_is_what_the_hub_reads():
    scores = {"WER": 12.5, "CER": 3.25, "blanks": 0.7, "DER": float("nan")}
    text = write_card(
        "# my run",
        "EncoderASR",
        "my run",
        scores,
        "test",
        "LibriSpeech",
        "microsoft/unispeech-sat-base",
        {"license": "cc-by-4.0", "language": "ky", "tags": ["unispeech-sat"]},
    )
    data = read_card(text)
    assert data.library_name == "speechbrain"
    assert data.pipeline_tag == "automatic-speech-recognition"
    assert data.license == "cc-by-4.0" and data.language == "ky"
    assert data.base_model == "microsoft/unispeech-sat-base"
    assert data.datasets == ["LibriSpeech"] and data.metrics == ["wer", "cer"]
    assert data.tags == ["speechbrain", "unispeech_sb", "unispeech-sat"]
    assert data.model_name == "my run"
    results = [
        (r.dataset_name, r.dataset_split, r.metric_type, r.metric_value)
        for r in data.eval_results
    ]
    assert results == [
        ("LibriSpeech", "test", "wer", 12.5),
        ("LibriSpeech", "test", "cer", 3.25),
    ]
    assert "# my run\n" in text and 'us.load("PATH/TO/THIS/FOLDER")' in text
    assert "AutoModelForCTC" in text and "unispeech-sb transcribe" in text


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_interface_has_a_task_that_the_hub_knows(interface):
    card = write_card("# a", interface, "a")
    data = read_card(card)
    assert ("us.load(" in card) == bool(INTERFACES[interface].ours)
    known = {
        "automatic-speech-recognition",
        "audio-classification",
        "feature-extraction",
        "voice-activity-detection",
    }
    assert data.pipeline_tag in known and data.license == "unknown"
    assert data.eval_results is None  # no data are named


def test_a_converted_folder_has_the_licence_of_its_source(tmp_path):
    source = save_languages(tmp_path / "hf")
    front = "---\nlicense: cc-by-sa-3.0\nlanguage: en\ntags: [x]\n---\n# theirs"
    (source / "README.md").write_text(front)
    convert_checkpoint(source, tmp_path / "sb")
    data = read_card((tmp_path / "sb" / "README.md").read_text())
    assert data.license == "cc-by-sa-3.0" and data.language == "en"
    assert data.pipeline_tag == "automatic-speech-recognition"
    assert data.tags == ["speechbrain", "unispeech_sb", "unispeech"]


@pytest.mark.parametrize(
    "text",
    [
        *("# a", "", "---\n---\n# a", "---\na: [\n---\n", "--- a\n---\n"),
        "---\n- a\n---\n",
    ],
)
def test_a_card_without_front_matter_is_all_text(text):
    front, body = split_card(text)
    assert front == {} and body == text


def test_front_matter_is_found_behind_marks_and_ends_of_windows():
    front, body = split_card("\ufeff---\r\nlicense: mit\r\n---\r\n\r\n# a\r\n")
    assert front == {"license": "mit"} and "# a" in body


def test_an_upload_is_the_folder_with_a_card_of_its_name(folder, hub, tmp_path):
    (folder / ".hidden").touch()
    assert push_to_hub(folder, "me/model") == f"{hub.address}/me/model"
    assert hub.repos == {"me/model": {"name": "model", "organization": "me"}}
    wanted = {path.name for path in folder.iterdir()} - {".hidden"}
    assert set(hub.files) == wanted and len(hub.commits) == 1
    card = hub.files["README.md"].decode()
    assert "PATH/TO/THIS/FOLDER" not in card and '"me/model"' in card
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    assert check_sums(tmp_path).is_whole
    assert type(load(tmp_path)).__name__ == "LongFormASR"


def test_a_private_one_is_made_private(folder, hub):
    push_to_hub(folder, "me/model", private=True)
    asked = hub.repos["me/model"]
    assert asked.get("private") is True or asked["visibility"] == "private"


def test_a_dry_run_shows_all_and_asks_nobody(folder, hub, capsys):
    line = ["push-to-hub", str(folder), "me/model", "--dry-run"]
    assert main([*line, "--license", "mit"]) == 0
    shown = capsys.readouterr().out
    assert not hub.repos and not hub.files
    assert re.search(r"^ +[\d,]+  backbone\.ckpt$", shown, re.M)
    assert re.search(r"bytes in \d+ files$", shown, re.M)
    card = "---\n" + shown.partition("\n---\n")[2]
    assert read_card(card).license == "mit"
    assert main([*line, "--license", "mit\nx: y"]) == 1
    assert "license: expected an identifier" in capsys.readouterr().err
    assert main(line) == 0
    assert "note: the licence is unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("token", "refuses", "said"),
    [
        ("hf_wrong", None, "does not know the token (401): log in by"),
        (None, None, "does not know the token (401): log in by"),
        ("hf_right", 403, "may not write there (403)"),
        ("hf_right", 500, "answered 500"),
    ],
)
def test_a_refusal_is_a_sentence(
    token, refuses, said, folder, hub, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", token or "")
    hub.refuses = refuses
    assert main(["push-to-hub", str(folder), "me/model"]) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("unispeech-sb: me/model: ") and said in last


def test_no_hub_is_a_sentence(folder, hub, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push-to-hub", str(folder), "me/model"]) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert "could not be reached" in last and "nothing was uploaded" in last
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["push-to-hub", str(folder), "me/model"]) == 1
    assert "could not be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("me/model/x", "Repo id must be"),
        ("me/-", "Repo id must"),
        ("", "Repo id must"),
        ("model", "model: expected the name with its user or organisation"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, said, folder, capsys):
    assert main(["push-to-hub", str(folder), name]) == 1
    assert said in capsys.readouterr().err


def test_what_is_no_folder_of_ours_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    for place in (tmp_path, tmp_path / "none", tmp_path / "config.json"):
        assert main(["push-to-hub", str(place), "me/model"]) == 1
        said = capsys.readouterr().err
        assert "expected a pretrained folder" in said


def test_old_folders_get_a_card_and_a_note(tmp_path):
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    found = sorted(path.parent for path in tmp_path.glob("*/hyperparams.yaml"))
    assert len(found) >= 15
    for folder in found:
        assert read_front(folder) == {}
        before = (folder / "README.md").read_text()
        upload = plan_upload(folder, "me/model")
        assert upload.notes[0].startswith("the card had no front matter")
        assert read_card(upload.card).library_name == "speechbrain"
        assert before.split("\n", 1)[0] in upload.card
        assert (folder / "README.md").read_text() == before


def test_the_place_of_the_data_is_not_told(tmp_path):
    path = save_tiny(tmp_path / "tiny", 20)
    notes = training_record({}, "test", {"data_folder": "/home/me/corpus"})
    (path / "training.json").write_text(notes["training.json"])
    (path / "README.md").write_text("# a\n\n| /home/me/corpus |\n")
    upload = plan_upload(path, "me/model")
    assert "| corpus |" in upload.card
    uploaded = b"".join(f for f in upload.files.values() if type(f) is bytes)
    assert b"/home/me" not in uploaded
    assert json.loads(upload.files["training.json"])["training"] == {
        "data_folder": "corpus"
    }
    for name, content in upload.files.items():
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
    assert check_sums(path).changed == []


def test_a_changed_file_is_noted(tmp_path):
    path = save_tiny(tmp_path / "tiny", 20)
    (path / "tokenizer.ckpt").write_text("changed")
    upload = plan_upload(path, "me/model")
    assert "tokenizer.ckpt is not as it was written" in upload.notes
