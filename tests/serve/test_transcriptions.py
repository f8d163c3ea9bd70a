"""Transcription as OpenAI's clients ask for it: right answers, refusals."""

import json

import pytest

from tests.inference.models import save_languages
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.inference import load
from unispeech_sb.inference.formats import TRANSCRIPT_FORMATS
from unispeech_sb.serve.answers import word_entry
from unispeech_sb.serve.app import create_app

URL = "/v1/audio/transcriptions"


def ask(client, recording, **data):
    """Sends a recording."""
    files = {"file": ("talk.wav", recording.read_bytes())}
    return client.post(URL, files=files, data={"model": "asr", **data})


@pytest.fixture(scope="module")
def expected(models, recording):
    """What the interface makes of the recording."""
    return models["asr"](recording)


def test_the_text_is_that_of_the_interface(client, recording, expected):
    answer = ask(client, recording)
    assert answer.status_code == 200
    assert answer.json() == {
        "text": expected.text, "usage": {"type": "duration", "seconds": 2},
    }  # fmt: skip
    assert expected.text


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
def test_formats_are_those_of_the_command(form, client, recording, expected):
    answer = ask(client, recording, response_format=form)
    assert answer.text == TRANSCRIPT_FORMATS[form].write(expected, "talk.wav")
    assert answer.headers["content-type"].startswith("text/plain")


def test_verbose_json_has_words_and_segments(client, recording, expected):
    both = {"timestamp_granularities[]": ["word", "segment"]}
    answer = ask(client, recording, response_format="verbose_json", **both)
    found = answer.json()
    assert found["text"] == expected.text and found["duration"] == 2.0
    assert [w["word"] for w in found["words"]] == expected.text.split()
    for own, word in zip(found["words"], expected.words, strict=True):
        assert (own["start"], own["end"]) == (word.start_s, word.end_s)
    texts = [segment["text"] for segment in found["segments"]]
    assert " ".join(texts) == expected.text
    assert found["segments"][0]["start"] == expected.words[0].start_s
    assert found["segments"][-1]["end"] == expected.words[-1].end_s


@pytest.mark.parametrize(
    ("asked", "there", "absent"),
    [([], "segments", "words"), (["word"], "words", "segments")],
)
def test_granularities_choose(asked, there, absent, client, recording):
    found = ask(
        client,
        recording,
        response_format="verbose_json",
        **{"timestamp_granularities[]": asked},
    ).json()
    assert there in found and absent not in found


def test_events_of_a_stream_make_the_text(client, recording, expected):
    answer = ask(client, recording, stream="true")
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    *deltas, done = events
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert done == {"type": "transcript.text.done", "text": expected.text}
    assert "".join(event["delta"] for event in deltas) == expected.text


def test_a_broken_stream_is_an_error_before_it_begins(client, tmp_path):
    (tmp_path / "talk.wav").write_text("no audio")
    answer = ask(client, tmp_path / "talk.wav", stream="true")
    assert answer.status_code == 400
    assert "not readable as audio" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("data", "status", "param", "said"),
    [
        ({"model": "gpt"}, 404, "model", "can transcribe: asr; got 'gpt'"),
        ({"model": "keywords"}, 404, "model", "can transcribe: asr"),
        ({"response_format": "xml"}, 400, "response_format", "or vtt; got"),
        ({"temperature": "2"}, 400, "temperature", "less than or equal to 1"),
        ({"temperature": "hot"}, 400, "temperature", "number"),
        ({"language": "klingon"}, 400, "language", "ISO 639"),
        (
            {"timestamp_granularities[]": "word"},
            400,
            "timestamp_granularities",
            "expected response_format verbose_json; got json",
        ),
        (
            {
                "timestamp_granularities[]": "phone",
                "response_format": "verbose_json",
            },
            400,
            "timestamp_granularities",
            "expected word or segment",
        ),
        ({"stream": "1", "response_format": "srt"}, 400, "stream", "json or"),
    ],
)
def test_what_does_not_fit_is_refused(
    data, status, param, said, client, recording
):
    answer = ask(client, recording, **data)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param and said in error["message"]
    assert error["type"] == "invalid_request_error"


def test_what_is_missing_is_named(client, recording):
    answer = client.post(URL, data={"model": "asr"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "file"
    content = recording.read_bytes()
    answer = client.post(URL, files={"file": ("a.wav", content)})
    assert answer.json()["error"]["param"] == "model"
    answer = client.post(URL, data={"model": "asr", "file": "text"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "file"
    answer = client.post(URL, content=b"no form")
    assert answer.status_code == 400


def test_clients_of_openai_work_as_they_are(client, recording, expected):
    sent = {"prompt": "names", "temperature": "0", "language": "en"}
    answer = ask(client, recording, **sent | {"model": "whisper-1"})
    assert answer.json()["text"] == expected.text


def test_models_are_listed(client):
    found = client.get("/v1/models").json()
    assert found["object"] == "list"
    tasks = {entry["id"]: entry["task"] for entry in found["data"]}
    assert tasks == {
        "asr": "transcribe", "diarization": "diarize",
        "keywords": "classify", "speakers": "embed",
    }  # fmt: skip
    assert client.get("/v1/models/asr").json() == found["data"][0]
    assert client.get("/v1/models/none").status_code == 404


def test_a_model_of_several_languages_switches(tmp_path, recording):
    from fastapi.testclient import TestClient

    save_languages(tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "model")
    asr, expected = load(tmp_path / "model"), {}
    for lang in ("eng", "fra"):
        asr.set_language(lang)
        expected[lang] = [word_entry(w) for w in asr(recording).words]
    assert expected["eng"] != expected["fra"]
    words = {
        "response_format": "verbose_json", "timestamp_granularities[]": "word",
    }  # fmt: skip
    served = load(tmp_path / "model")
    with TestClient(create_app({"asr": served})) as client:
        for lang in ("fra", "eng", "eng", "fra"):
            found = ask(client, recording, language=lang, **words).json()
            assert found["words"] == expected[lang]
        for wrong in ({}, {"language": "deu"}):
            error = ask(client, recording, **wrong).json()["error"]
            assert "expected one of eng, fra; got" in error["message"]


@pytest.fixture(scope="module")
def openai(address):
    """OpenAI's client of a server that runs."""
    package = pytest.importorskip("openai", reason="needs openai")
    return package.OpenAI(
        base_url=f"{address}/v1", api_key="any", max_retries=0
    )


def test_the_client_of_openai_transcribes(openai, recording, expected):
    create = openai.audio.transcriptions.create
    with open(recording, "rb") as file:
        assert create(file=file, model="asr").text == expected.text
    for form in ("text", "srt", "vtt"):
        text = create(file=recording, model="asr", response_format=form)
        wanted = TRANSCRIPT_FORMATS[form].write(expected, "talk.wav")
        assert text == wanted
    found = create(
        file=recording,
        model="asr",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert [word.word for word in found.words] == expected.text.split()
    assert found.segments[0].start == expected.words[0].start_s
    events = list(create(file=recording, model="asr", stream=True))
    assert events[-1].text == expected.text
    assert "asr" in [model.id for model in openai.models.list()]


def test_the_client_of_openai_knows_the_errors(openai, recording, tmp_path):
    import openai as package

    create = openai.audio.transcriptions.create
    with pytest.raises(package.NotFoundError, match="got 'gpt'"):
        create(file=recording, model="gpt")
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(package.BadRequestError, match="text.wav: not readable"):
        create(file=tmp_path / "text.wav", model="asr")
