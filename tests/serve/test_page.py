"""The page, in a browser that has a microphone from a file."""

import re
import shutil

import pytest
import soundfile

from tests.inference.models import uneven_speech
from tests.serve.conftest import running
from unispeech_sb.serve.app import create_app
from unispeech_sb.serve.workers import Limits

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium or Chrome"),
]
expect = sync_api.expect
expect.set_options(timeout=30_000)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose microphone gives a recording, over and over."""
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    wav = uneven_speech(4.0).clamp(-1, 1).numpy()
    soundfile.write(path, wav, 16000, "PCM_16")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=BROWSER,
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={path}",
                "--autoplay-policy=no-user-gesture-required",
            ],
        )
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """Opens pages; none of them may say anything on the console, but what
    the browser says of an answer with a status from 400 on."""
    contexts, said = [], []

    def open_page(address, script="", **options):
        context = browser.new_context(**options)
        context.add_init_script(script)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request",
            lambda r: (
                said.append(r.url)
                if not r.url.startswith(
                    (address, "blob:", address.replace("http", "ws"))
                )
                else None
            ),
        )
        page.goto(address)
        expect(page.locator("#about")).to_contain_text("(classification)")
        return page

    yield open_page
    for context in contexts:
        context.close()
    status = "Failed to load resource: "
    assert [text for text in said if not text.startswith(status)] == []


@pytest.fixture
def page(opened, address):
    """The page of all models."""
    return opened(address)


def upload(page, path, slot="#main-slot"):
    """Chooses a file."""
    page.locator(f"{slot} .file").set_input_files(path)


def until(page, expression):
    """Waits for something; the policy of the page forbids what Playwright's
    own way of it evaluates."""
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"it never came: {expression}")


def words(page):
    """The words over the waveform."""
    return page.locator("#words button")


def test_an_upload_shows_words_speakers_and_classes(page, models, recording):
    upload(page, recording)
    expected = models["asr"](recording)
    expect(page.locator("#text")).to_have_text(expected.text)
    expect(page.locator("#busy")).to_be_hidden()
    expect(words(page)).to_have_count(len(expected.words))
    starts = words(page).evaluate_all("all => all.map(b => b.offsetLeft)")
    assert starts[0] > 0 and len({*starts}) == len(starts)
    assert page.locator("#wave").evaluate(_INKED) > 0.05
    found = models["diarization"](recording)
    expect(page.locator(".lane")).to_have_count(len(found.speakers))
    expect(page.locator(".lane button")).to_have_count(len(found.segments))
    labels = [one.label for one in models["keywords"](recording).classes]
    shown = page.locator("#bars li span:first-child")
    expect(shown).to_have_text(labels)
    expect(page.locator("#error")).to_be_hidden()


_INKED = """canvas => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  return data.filter((x, i) => i % 4 === 3 && x).length / (width * height);
}"""
"""Share of a canvas that is drawn on."""


def test_a_word_plays_from_where_it_is(page, models, recording):
    upload(page, recording)
    last = models["asr"](recording).words[-1]
    words(page).last.click()
    player = page.locator("#main-slot .player")
    until(page, "document.querySelector('.player').currentTime > 0")
    place = player.evaluate("player => player.currentTime")
    assert last.start_s - 0.2 < place < last.end_s + 0.5
    until(page, "document.querySelector('.player').paused")
    place = player.evaluate("player => player.currentTime")
    assert place < last.end_s + 0.6


def test_the_transcript_is_saved(page, models, recording):
    upload(page, recording)
    expected = models["asr"](recording).text
    for button, start in (("#save-text", expected), ("#save-srt", "1\n00:00")):
        with page.expect_download() as found:
            page.locator(button).click()
        text = open(found.value.path(), encoding="utf-8").read()
        assert text.startswith(start)


def test_the_microphone_is_recognized(page):
    record = page.locator("#main-slot .record")
    record.click()
    expect(record).to_have_text("Stop")
    expect(record).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#live-text")).not_to_be_empty(timeout=20_000)
    name = page.locator("#main-slot .name")
    expect(name).to_have_text(re.compile(r"Recording, [2-9]"), timeout=20_000)
    record.click()
    expect(name).to_have_text("recording.wav")
    expect(page.locator("#text")).not_to_be_empty()
    expect(words(page).first).to_be_visible()
    length = page.locator("#main-slot .player").evaluate(
        "async player => { while (!(player.duration > 0)) await new Promise("
        "done => setTimeout(done, 20)); return player.duration; }"
    )
    assert 2 <= length < 10
    expect(page.locator("#live")).to_be_hidden()


def test_no_permission_is_a_sentence(opened, address):
    script = (
        "navigator.mediaDevices.getUserMedia = async () => {"
        " throw new DOMException('', 'NotAllowedError'); }"
    )
    page = opened(address, script)
    page.locator("#main-slot .record").click()
    expect(page.locator("#error")).to_contain_text("may not use the microphone")
    expect(page.locator("#main-slot .record")).to_have_text("Record")
    expect(page.locator("#live")).to_be_hidden()


def test_a_broken_file_is_a_sentence(page, recording, tmp_path):
    (tmp_path / "notes.wav").write_text("no audio")
    upload(page, tmp_path / "notes.wav")
    alert = page.get_by_role("alert").filter(visible=True)
    expect(alert).to_have_text(re.compile("notes.wav: not readable as audio"))
    assert alert.inner_text().count("notes.wav") == 1
    upload(page, recording)
    expect(page.locator("#text")).not_to_be_empty()
    expect(page.locator("#error")).to_be_hidden()


def test_a_file_that_is_too_large_is_not_sent(opened, models, recording):
    app = create_app(models, Limits(upload_bytes=1000))
    with running(app) as address:
        page = opened(address)
        upload(page, recording)
        expect(page.locator("#error")).to_contain_text("the file has 0.1")


def test_a_service_that_ends_is_a_sentence(opened, models, recording):
    with running(create_app(models)) as address:
        page = opened(address)
        page.route("**/v1/audio/*", lambda route: route.abort())
        upload(page, recording)
        alert = page.locator("#error")
        expect(alert).to_contain_text("does not answer")


def test_two_voices_are_compared(page, models, recording, tmp_path):
    other = tmp_path / "other.wav"
    soundfile.write(other, uneven_speech(1.0).flip(0).numpy(), 16000)
    verify = page.locator("#verify")
    expect(verify).to_be_disabled()
    upload(page, recording, "#left-slot")
    upload(page, other, "#right-slot")
    verify.click()
    found = models["speakers"].verify(recording, other)
    verdict = page.locator("#verdict")
    expect(verdict).to_contain_text(f"Similarity {found.score:.3f}")
    same = "The same speaker" if found.same else "Different speakers"
    expect(verdict).to_contain_text(same)


def test_all_of_it_goes_by_keyboard(page, recording, models):
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.className || document.activeElement.id"
            )
        )
    for name in ("file", "record"):
        assert reached.count(name) >= 3, reached
    upload(page, recording)
    expect(words(page).first).to_be_visible()
    words(page).first.focus()
    page.keyboard.press("ArrowRight")
    expect(words(page).nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(words(page).last).to_be_focused()
    assert (
        words(page).evaluate_all(
            "all => all.filter(b => b.tabIndex === 0).length"
        )
        == 1
    )
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.player').currentTime > 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(scheme, opened, address, recording):
    page = opened(address, color_scheme=scheme, **PHONE)
    upload(page, recording)
    expect(page.locator("#bars li").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = page.locator("button:visible, .drop:visible").evaluate_all(
        "all => all.filter(b => !b.closest('.strip') && "
        "b.getBoundingClientRect().height < 44).map(b => b.outerHTML)"
    )
    assert small == []
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", colour)[:3])) > 380
    assert light == (scheme == "light")


def test_everything_has_a_name(page, recording):
    upload(page, recording)
    expect(page.locator("#bars li").first).to_be_visible()
    lines = page.locator("body").aria_snapshot().splitlines()
    roles = "button|group|region|heading|textbox|spinbutton|dialog"
    named = [line for line in lines if re.match(rf"\s*- ({roles}) \"", line)]
    bare = [
        line for line in lines if re.match(rf"\s*- ({roles})\b(?! \")", line)
    ]
    assert len(named) > 10 and bare == []


def test_the_page_asks_for_the_key(browser, models, recording):
    with running(create_app(models, key="secret")) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("This key is not accepted.")
        page.keyboard.type("secret")
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        upload(page, recording)
        expect(page.locator("#text")).not_to_be_empty()
        context.close()
