"""Each format against examples that were written by hand."""

import csv
import io
import json

import pytest

from unispeech_sb.decoding import Transcript, Word
from unispeech_sb.inference.classification import Classification, LabelScore
from unispeech_sb.inference.formats import (
    CLASSIFICATION_FORMATS,
    DIARIZATION_FORMATS,
    TRANSCRIPT_FORMATS,
    RecordingId,
    describe,
    recording_name,
)
from unispeech_sb.inference.segments import Diarization, Turn

TALK = Transcript(
    "so <it> is & was",
    (
        Word("so", 0.1, 0.36, 0.98765),
        Word("<it>", 0.4, 0.5, 0.5),
        Word("is", 59.98, 60.0, 1.0),
        Word("&", 3599.9996, 3600.5, 0.25),
        Word("was", 360000.0, 360000.04, 0.125),
    ),
    360001.0,
)
EXPECTED = {
    "text": "so <it> is & was\n",
    "json": '{"name": "a b/my talk.flac", "duration": 360001.0, "text": '
    '"so <it> is & was", "words": ['
    '{"word": "so", "start": 0.1, "end": 0.36, "confidence": 0.98765}, '
    '{"word": "<it>", "start": 0.4, "end": 0.5, "confidence": 0.5}, '
    '{"word": "is", "start": 59.98, "end": 60.0, "confidence": 1.0}, '
    '{"word": "&", "start": 3599.9996, "end": 3600.5, "confidence": 0.25}, '
    '{"word": "was", "start": 360000.0, "end": 360000.04, '
    '"confidence": 0.125}]}\n',
    "srt": """\
1
00:00:00,100 --> 00:00:00,500
so <it>

2
00:00:59,980 --> 00:01:00,000
is

3
01:00:00,000 --> 01:00:00,500
&

4
100:00:00,000 --> 100:00:00,040
was

""",
    "vtt": """\
WEBVTT

00:00:00.100 --> 00:00:00.500
so &lt;it&gt;

00:00:59.980 --> 00:01:00.000
is

01:00:00.000 --> 01:00:00.500
&amp;

100:00:00.000 --> 100:00:00.040
was
""",
    "tsv": """\
100\t500\tso <it>
59980\t60000\tis
3600000\t3600500\t&
360000000\t360000040\twas
""",
    "ctm": """\
my_talk 1 0.100 0.260 so 0.988
my_talk 1 0.400 0.100 <it> 0.500
my_talk 1 59.980 0.020 is 1.000
my_talk 1 3600.000 0.500 & 0.250
my_talk 1 360000.000 0.040 was 0.125
""",
}


@pytest.mark.parametrize("name", TRANSCRIPT_FORMATS)
def test_a_transcript_is_written_to_the_letter(name):
    write = TRANSCRIPT_FORMATS[name].write
    assert write(TALK, "a b/my talk.flac") == EXPECTED[name]


def test_every_format_is_expected():
    assert set(EXPECTED) == set(TRANSCRIPT_FORMATS)


@pytest.mark.parametrize(
    ("name", "empty"),
    [("text", "\n"), ("srt", ""), ("vtt", "WEBVTT\n"), ("ctm", "")],
)
def test_silence_is_a_file_too(name, empty):
    write = TRANSCRIPT_FORMATS[name].write
    assert write(Transcript("", (), 1.0), "a.wav") == empty


def test_json_keeps_every_letter_and_is_one_line():
    write = TRANSCRIPT_FORMATS["json"].write
    word = Word('a"é\u2028', 0.0, 0.1, 1.0)
    line = write(Transcript(word.text, (word,), 1.0), "a.wav")
    assert line.count("\n") == 1
    assert json.loads(line)["words"][0]["word"] == word.text


def words_of(texts, length=0.2, gap=0.05):
    """Words one after the other."""
    return tuple(
        Word(text, n * (length + gap), n * (length + gap) + length, 1.0)
        for n, text in enumerate(texts)
    )


def cues_of(words):
    """Subtitles as lists of lines, without number and times."""
    write = TRANSCRIPT_FORMATS["srt"].write
    text = write(Transcript("", words, 0.0), "a.wav")
    return [cue.split("\n")[2:] for cue in text.split("\n\n") if cue]


def test_a_subtitle_has_two_lines_of_42_characters():
    texts = ["abcdef"] * 14  # six to a line: 6 * 6 + 5 = 41
    line = " ".join(texts[:6])
    assert cues_of(words_of(texts)) == [[line, line], ["abcdef abcdef"]]
    assert cues_of(words_of(["a" * 50, "b"])) == [["a" * 50, "b"]]


def test_a_subtitle_lasts_seven_seconds_and_ends_at_pauses():
    assert len(cues_of(words_of("abcdefgh", length=1.0, gap=0.5))) == 2
    assert len(cues_of(words_of("ab", gap=0.99))) == 1
    assert len(cues_of(words_of("ab", gap=1.01))) == 2


def test_a_diarization_is_written_in_every_format():
    found = Diarization("my_talk", 2.0, (Turn(0.5, 1.25, "speaker1", 0.9),))
    written = {
        name: form.write(found, "a b/my talk.flac")
        for name, form in DIARIZATION_FORMATS.items()
    }
    assert written == {
        "text": "0:00:00.50  0:00:01.25  speaker1\n",
        "rttm": "SPEAKER my_talk 1 0.500 0.750 <NA> <NA> speaker1 <NA> <NA>\n",
        "json": '{"name": "my_talk", "duration": 2.0, "speakers": '
        '["speaker1"], "segments": [{"start": 0.5, "end": 1.25, '
        '"speaker": "speaker1", "confidence": 0.9}]}\n',
        "audacity": "0.500\t1.250\tspeaker1\n",
        "labelstudio": '[{"data": {"audio": "a b/my talk.flac"}, '
        '"predictions": '
        '[{"model_version": "unispeech_sb", "result": [{"from_name": "labels", '
        '"to_name": "audio", "type": "labels", "original_length": 2.0, '
        '"score": 0.9, "value": {"start": 0.5, "end": 1.25, "channel": 0, '
        '"labels": ["speaker1"]}}]}]}]\n',
    }


def test_a_classification_is_written_in_every_format():
    classes = (LabelScore("turn on, a|b", 0.75), LabelScore("no", 0.25))
    found = Classification(classes, 1.5)
    written = {
        name: form.header + form.write(found, "a b/my talk.flac")
        for name, form in CLASSIFICATION_FORMATS.items()
    }
    rows = '{"label": "turn on, a|b", "posterior": 0.75}, '
    rows += '{"label": "no", "posterior": 0.25}'
    assert written == {
        "text": "turn on, a|b\t0.7500\nno\t0.2500\n",
        "json": '{"name": "a b/my talk.flac", "duration": 1.5, "label": '
        f'"turn on, a|b", "posterior": 0.75, "classes": [{rows}]}}\n',
        "csv": "name,rank,label,posterior\n"
        'a b/my talk.flac,1,"turn on, a|b",0.750000\n'
        "a b/my talk.flac,2,no,0.250000\n",
        "tsv": "name\trank\tlabel\tposterior\n"
        "a b/my talk.flac\t1\tturn on, a|b\t0.750000\n"
        "a b/my talk.flac\t2\tno\t0.250000\n",
    }


@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_any_name_is_one_cell_of_a_table(name):
    names = ["a\rb", "a\nb", 'a"b', "a,b", "a\tb", " a", "", "a\r\nb"]
    form = CLASSIFICATION_FORMATS[name]
    text = form.header
    for path in names:
        text += form.write(Classification((LabelScore(path, 1.0),), 1.0), path)
    lines = csv.DictReader(
        io.StringIO(text, newline=""), delimiter="\t" if name == "tsv" else ","
    )
    assert [(row["name"], row["label"]) for row in lines] == [
        (path, path) for path in names
    ]


@pytest.mark.parametrize("name", ["srt", "vtt", "tsv", "text"])
def test_scripts_without_spaces_stay_without(name):
    text = "我们今天去看电影吧你觉得怎么样呢我觉得很好"
    words = tuple(
        Word(char, n * 0.2, n * 0.2 + 0.1, 1.0) for n, char in enumerate(text)
    )
    form = TRANSCRIPT_FORMATS[name]
    shown = form.write(Transcript(text, words, 5.0, ""), "a.wav")
    assert " " not in shown.replace(" --> ", "")
    assert text in shown  # 21 characters are as wide as 42
    longer = (*words, Word("吗", 4.3, 4.4, 1.0))
    cue = TRANSCRIPT_FORMATS["srt"].write(Transcript("", longer, 5.0, ""), "a")
    assert f"{text}\n吗\n" in cue


def test_phones_are_separated_as_their_text_is():
    words = words_of(["h", "aɪ"])
    for between in (" ", "", "-"):
        text = between.join(["h", "aɪ"])
        talk = Transcript(text, words, 1.0, between)
        for name in ("srt", "vtt", "tsv"):
            assert text in TRANSCRIPT_FORMATS[name].write(talk, "a.wav")


def test_the_id_of_a_recording_is_no_path():
    assert recording_name(RecordingId("utt.1 a/b.c")) == "utt.1_a/b.c"


@pytest.mark.parametrize("forms", [TRANSCRIPT_FORMATS, DIARIZATION_FORMATS])
def test_a_stream_of_several_recordings_names_each(forms):
    for name, form in forms.items():
        # Either lines name the recording, or they get its path, or they stand
        # alone; the JSON of transcripts has the path
        named = name == "json" or form.by_stem
        assert [form.is_bare, form.one_recording, named].count(True) == 1, name


def test_only_bare_lines_get_the_path_and_only_among_several():
    talk = Transcript("a\u2028b", (), 1.0)
    text, ctm = TRANSCRIPT_FORMATS["text"], TRANSCRIPT_FORMATS["ctm"]
    assert text.on_stream(talk, "a.wav", several=False) == "a\u2028b\n"
    assert text.on_stream(talk, "a.wav", several=True) == "a.wav\ta\u2028b\n"
    assert ctm.on_stream(TALK, "my talk.wav", several=True) == EXPECTED["ctm"]
    silence = Transcript("", (), 1.0)
    assert text.on_stream(silence, "a.wav", several=True) == "a.wav\t\n"
    nobody = Diarization("a", 1.0, ())
    lines = DIARIZATION_FORMATS["text"]
    assert lines.on_stream(nobody, "a.wav", several=True) == ""
    both = tuple(Turn(n, n + 1.0, "speaker1", 0.9) for n in (0.0, 2.0))
    found = lines.on_stream(Diarization("a", 3.0, both), "a.wav", several=True)
    assert [line[:6] for line in found.splitlines()] == ["a.wav\t"] * 2


def test_recordings_are_named_without_blanks():
    assert recording_name("a b/c\td e.tar.wav") == "c_d_e.tar"


def test_help_names_every_format():
    for forms in (TRANSCRIPT_FORMATS, DIARIZATION_FORMATS):
        said = dict(part.split(": ") for part in describe(forms).split("; "))
        assert said.keys() == forms.keys()
        assert all(said.values())


def test_json_has_the_slots_of_a_text_with_tags():
    text = "PLAY B-artist THE QUEEN E-artist"
    written = TRANSCRIPT_FORMATS["json"].write(Transcript(text, (), 1.0), "a")
    assert json.loads(written)["slots"] == [
        {"slot": "artist", "value": "THE QUEEN"}
    ]
