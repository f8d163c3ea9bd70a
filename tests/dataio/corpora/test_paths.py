"""Files are found from a list's folder upwards."""

import pytest

from unispeech_sb.dataio.corpora.paths import find_file


def test_the_nearest_file_is_taken(tmp_path):
    inner = tmp_path / "data" / "lists"
    (inner / "audio").mkdir(parents=True)
    (tmp_path / "audio").mkdir()
    far, near = tmp_path / "audio/a.wav", inner / "audio/a.wav"
    far.touch()
    assert find_file("audio/a.wav", inner, "list") == far
    near.touch()
    assert find_file("audio/a.wav", inner, "list") == near
    assert find_file(str(far), inner, "list") == far


@pytest.mark.parametrize("name", ["", "b.wav", "audio"])
def test_what_is_no_file_is_named_with_the_list(tmp_path, name):
    (tmp_path / "audio").mkdir()
    with pytest.raises(ValueError, match=f"list, line 3: .*{name!r}"):
        find_file(name, tmp_path, "list, line 3")
