// What the page asks the service, and where the answers go.

import { Microphone, readPeaks } from "./audio.js";
import { Strip } from "./strip.js";

const $ = (id) => document.getElementById(id);
const TASKS = ["transcribe", "diarize", "classify"];
const DOING = {
  transcribe: "Recognizing speech", diarize: "Finding who speaks when",
  classify: "Classifying", embed: "Comparing",
};
const NAMES = {
  transcribe: "speech recognition", diarize: "speaker diarization",
  classify: "classification", embed: "speaker verification",
};
const MOST_BARS = 10;

let models = [], limits = null, running = null, result = null;

function showError(message) {
  $("error").textContent = message || "";
  $("error").hidden = !message;
}

function showBusy(text, share = null) {
  $("busy").hidden = !text;
  $("busy-text").textContent = text || "";
  if (share === null) $("busy-bar").removeAttribute("value");
  else $("busy-bar").value = share;
}

const getKey = () => sessionStorage.getItem("key") || "";

// Asks for the key; done when there is one.
function askKey(message) {
  $("key-error").textContent = message;
  $("key-error").hidden = !message;
  $("key-input").value = "";
  $("key").showModal();
  return new Promise((resolve) => {
    $("key").addEventListener("close", () => {
      sessionStorage.setItem("key", $("key-input").value.trim());
      resolve();
    }, { once: true });
  });
}

// A request with its progress. Resolves to JSON; rejects with a sentence.
function ask(path, form, { onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(form ? "POST" : "GET", path);
    if (getKey()) {
      request.setRequestHeader("Authorization", `Bearer ${getKey()}`);
    }
    request.responseType = "text";
    request.upload.onprogress = ({ loaded, total }) => (
      onProgress && onProgress(loaded / total));
    request.onabort = () => reject(new DOMException("", "AbortError"));
    request.onerror = () => reject(
      new Error("The service does not answer: is it still running?"));
    request.onload = () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        answer = {};
      }
      if (request.status < 400) {
        resolve(answer);
        return;
      }
      const { message } = answer.error || {};
      reject(Object.assign(
        new Error(message || `The service answered ${request.status}.`),
        { status: request.status }));
    };
    if (signal) signal.addEventListener("abort", () => request.abort());
    request.send(form || null);
  });
}

// The same, with a key where one is missing.
async function askWithKey(...given) {
  for (;;) {
    try {
      return await ask(...given);
    } catch (error) {
      if (error.status !== 401) throw error;
      await askKey("This key is not accepted.");
    }
  }
}

// A place for a recording: a file that is chosen or dropped, or the microphone.
class Slot {
  constructor(element, { onFile, onLive }) {
    element.append($("slot").content.cloneNode(true));
    Object.assign(this, { element, onFile, onLive, file: null });
    for (const name of ["drop", "file", "record", "level", "name", "player"]) {
      this[`${name}Part`] = element.querySelector(`.${name}`);
    }
    this.filePart.addEventListener("change", () => {
      if (this.filePart.files.length) this.take(this.filePart.files[0]);
      this.filePart.value = "";
    });
    this.recordPart.addEventListener("click", () => this.toggle());
    for (const kind of ["dragover", "dragleave", "drop"]) {
      this.dropPart.addEventListener(kind, (event) => {
        event.preventDefault();
        this.dropPart.classList.toggle("over", kind === "dragover");
        const [file] = kind === "drop" ? event.dataTransfer.files : [];
        if (file) this.take(file);
      });
    }
  }

  take(file) {
    showError("");
    if (limits && file.size > limits.upload_bytes) {
      const most = limits.upload_bytes / 2 ** 20;
      showError(`${file.name}: expected at most ${most} MB; the file has `
        + `${(file.size / 2 ** 20).toFixed(1)}.`);
      return;
    }
    this.file = file;
    this.namePart.textContent = file.name;
    URL.revokeObjectURL(this.playerPart.src);
    this.playerPart.src = URL.createObjectURL(file);
    this.playerPart.setAttribute("aria-label", `Listen to ${file.name}`);
    this.playerPart.hidden = false;
    this.onFile(file);
  }

  async toggle() {
    if (this.opening) return;
    this.opening = true;
    try {
      if (this.microphone) await this.stop();
      else await this.start();
    } catch (error) {
      showError(error.message);
      this.show(false);
      $("live").hidden = true;
    } finally {
      this.opening = false;
    }
  }

  async start() {
    showError("");
    await ready;
    const live = this.onLive ? this.onLive() : null;
    this.live = live;
    this.microphone = await Microphone.open((block, rate, level, seconds) => {
      this.levelPart.value = level;
      this.namePart.textContent = `Recording, ${seconds.toFixed(1)} s`;
      if (live) live.send(block, rate);
      const isFull = limits && seconds > limits.audio_s - 1;
      if (isFull && this.microphone) this.toggle();
    });
    this.show(true);
  }

  async stop() {
    const microphone = this.microphone;
    this.show(false);
    if (this.live) this.live.end();
    const file = await microphone.stop();
    if (file.size > 44) this.take(file);
    else showError("Nothing was recorded.");
  }

  show(recording) {
    if (!recording) this.microphone = null;
    this.recordPart.textContent = recording ? "Stop" : "Record";
    this.recordPart.setAttribute("aria-pressed", String(recording));
    this.levelPart.hidden = !recording;
    this.filePart.disabled = recording;
    this.playerPart.hidden = recording || !this.file;
    if (!recording) this.namePart.textContent = "";
  }
}

// What is recognized while the microphone records.
class Live {
  constructor() {
    this.words = [];
    this.waiting = [];
    $("live").hidden = false;
    $("live-text").textContent = "";
  }

  send(block, rate) {
    if (!this.socket) this.open(rate);
    if (!this.ready) this.waiting.push(block.buffer);
    else if (this.isOpen()) this.socket.send(block.buffer);
  }

  open(rate) {
    const url = new URL("stream/transcribe", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url);
    this.socket.onopen = () => {
      const start = { rate: Math.round(rate), model: chosen("transcribe") };
      if (getKey()) start.key = getKey();
      if ($("language")) start.language = $("language").value;
      this.socket.send(JSON.stringify(start));
      this.waiting.forEach((block) => this.socket.send(block));
      this.ready = true;
      if (this.over) this.end();
    };
    this.socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "word") this.words.push(event.word);
      if (event.type === "error") this.partial = event.message;
      if (event.type === "partial") this.partial = event.text;
      if (event.type === "word") this.partial = "";
      if (event.type === "final") this.socket.close();
      $("live-text").textContent = [...this.words, this.partial || ""].join(" ");
    };
  }

  end() {
    this.over = true;
    if (this.ready && this.isOpen()) {
      this.socket.send(JSON.stringify({ type: "end" }));
    }
  }

  isOpen() {
    return this.socket.readyState === WebSocket.OPEN;
  }
}

const chosen = (task) => (
  $(`model-${task}`) ? $(`model-${task}`).value
    : (models.find((model) => model.task === task) || {}).id);

function addOption(place, id, label, values) {
  const row = document.createElement("label");
  const select = document.createElement("select");
  select.id = id;
  select.append(...values.map((value) => new Option(value, value)));
  row.append(label, select);
  $(place).append(row);
}

function showModels() {
  const shown = models.map((model) => `${model.id} (${NAMES[model.task]})`);
  $("about").textContent = shown.join(", ");
  for (const task of [...TASKS, "embed"]) {
    const own = models.filter((model) => model.task === task);
    if (own.length > 1) {
      const place = task === "embed" ? "voice-options" : "options";
      addOption(place, `model-${task}`, `Model of ${NAMES[task]}`,
        own.map((model) => model.id));
    }
  }
  const languages = models.flatMap((model) => model.languages);
  if (languages.length) addOption("options", "language", "Language", languages);
  $("compare").hidden = !chosen("embed");
  const showThreshold = () => {
    const model = models.find(({ id }) => id === chosen("embed"));
    $("threshold-row").hidden = !model || model.calibrated;
  };
  showThreshold();
  $("voice-options").addEventListener("change", showThreshold);
  const one = models.some((model) => TASKS.includes(model.task));
  $("recording-title").closest("section").hidden = !one;
}

function formOf(task, ...files) {
  const form = new FormData();
  files.forEach((file) => form.append("file", file, file.name));
  form.append("model", chosen(task));
  return form;
}

const askTask = {
  transcribe(file, options) {
    const form = formOf("transcribe", file);
    form.append("response_format", "verbose_json");
    form.append("timestamp_granularities[]", "word");
    form.append("timestamp_granularities[]", "segment");
    if ($("language")) form.append("language", $("language").value);
    return ask("v1/audio/transcriptions", form, options);
  },
  diarize: (file, options) => ask("diarize", formOf("diarize", file), options),
  classify: (file, options) => (
    ask("classify", formOf("classify", file), options)),
};

const showTask = {
  transcribe(answer) {
    result = answer;
    strip.setWords(answer.words, answer.duration);
    $("text").textContent = answer.text || "(no words were recognized)";
    $("transcript").hidden = false;
  },
  diarize(answer) {
    strip.setSegments(answer.segments, answer.duration);
  },
  classify({ classes }) {
    const rows = classes.slice(0, MOST_BARS).map(({ label, posterior }) => {
      const row = document.createElement("li");
      const [name, bar, filled, share] = ["span", "div", "div", "span"].map(
        (kind) => document.createElement(kind));
      name.textContent = label;
      bar.className = "bar";
      filled.style.width = `${100 * posterior}%`;
      bar.append(filled);
      share.className = "share";
      share.textContent = `${(100 * posterior).toFixed(1)} %`;
      row.append(name, bar, share);
      return row;
    });
    $("bars").replaceChildren(...rows);
    $("classes").hidden = false;
  },
};

// Does something that the button Cancel ends; errors are shown.
async function run(action) {
  if (running) running.abort();
  const own = new AbortController();
  running = own;
  showError("");
  try {
    await action(own.signal);
  } catch (error) {
    if (error.name !== "AbortError") showError(error.message);
  }
  if (running === own) {
    running = null;
    showBusy("");
  }
}

function progress(text) {
  return (share) => (
    share < 1 ? showBusy(`${text}: sending`, share)
      : showBusy(`${text}: the model is at work`));
}

function clearResults() {
  strip.clear();
  result = null;
  $("transcript").hidden = true;
  $("classes").hidden = true;
}

function onRecording(file) {
  clearResults();
  return run(async (signal) => {
    const peaks = readPeaks(file).then((wave) => {
      if (!signal.aborted) strip.setWave(wave);
    });
    const errors = [];
    await ready;
    for (const task of TASKS) {
      if (!chosen(task)) continue;
      const onProgress = progress(DOING[task]);
      onProgress(0);
      try {
        const answer = await askTask[task](file, { onProgress, signal });
        if (!signal.aborted) showTask[task](answer);
      } catch (error) {
        if (error.name === "AbortError") throw error;
        if (!errors.includes(error.message)) errors.push(error.message);
      }
    }
    await peaks;
    $("live").hidden = true;
    if (errors.length) throw new Error(errors.join("\n"));
  });
}

function onVoice() {
  $("verdict").textContent = "";
  $("verify").disabled = !(left.file && right.file);
}

function onVerify() {
  $("verdict").textContent = "";
  return run(async (signal) => {
    const form = formOf("embed", left.file, right.file);
    if (!$("threshold-row").hidden) {
      form.append("threshold", $("threshold").value);
    }
    const onProgress = progress(DOING.embed);
    const found = await ask("verify", form, { onProgress, signal });
    const verdict = found.same ? "The same speaker" : "Different speakers";
    $("verdict").classList.toggle("same", found.same);
    $("verdict").textContent = `${verdict}.\nSimilarity `
      + `${found.score.toFixed(3)}, the same speaker from `
      + `${found.threshold.toFixed(3)} on.`;
  });
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function clock(seconds) {
  const time = new Date(Math.round(seconds * 1000)).toISOString();
  return time.slice(11, 23).replace(".", ",");
}

function toSrt({ segments }) {
  return segments.map(({ start, end, text }, number) => (
    `${number + 1}\n${clock(start)} --> ${clock(end)}\n${text}\n\n`)).join("");
}

const main = new Slot($("main-slot"), {
  onFile: onRecording,
  onLive: () => {
    clearResults();
    return chosen("transcribe") ? new Live() : null;
  },
});
const strip = new Strip(main.playerPart);
const left = new Slot($("left-slot"), { onFile: onVoice });
const right = new Slot($("right-slot"), { onFile: onVoice });

$("cancel").addEventListener("click", () => running && running.abort());
$("verify").addEventListener("click", onVerify);
$("copy").addEventListener("click", () => (
  navigator.clipboard.writeText(result.text).catch(() => showError(
    "The browser did not let the page copy the text."))));
$("save-text").addEventListener("click", () => (
  save("transcript.txt", `${result.text}\n`)));
$("save-srt").addEventListener("click", () => (
  save("transcript.srt", toSrt(result))));
$("key").addEventListener("cancel", (event) => event.preventDefault());

// Asks what there is; a recording that is given before waits for it.
async function prepare() {
  const health = await ask("health");
  ({ limits } = health);
  if (health.needs_key && !getKey()) await askKey("");
  ({ data: models } = await askWithKey("v1/models"));
  showModels();
}

const ready = prepare().catch((error) => {
  $("about").textContent = "";
  showError(error.message);
});
