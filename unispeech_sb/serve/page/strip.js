// Waveform, words and speakers over one axis of time.

const WAVE_HEIGHT = 96, ROW_HEIGHT = 32, ROWS = 3, COLOURS = 6;
const BEFORE_S = 0.1, AFTER_S = 0.2; // heard around a word

const $ = (id) => document.getElementById(id);

export class Strip {
  constructor(player) {
    this.player = player;
    this.clear();
    $("strip").addEventListener("scroll", () => this.drawWave());
    new ResizeObserver(() => this.layout()).observe($("strip"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener(
      "change", () => this.drawWave());
    player.addEventListener("play", () => this.follow());
    player.addEventListener("timeupdate", () => this.show());
    $("words").addEventListener("keydown", (event) => this.onKey(event));
    $("strip").addEventListener("click", (event) => this.onClick(event));
  }

  clear() {
    Object.assign(this, {
      wave: null, words: [], duration: 0, scale: 0, until: Infinity,
    });
    $("words").replaceChildren();
    $("lanes").replaceChildren();
    $("time").hidden = true;
  }

  setWave(wave) {
    this.wave = wave;
    if (wave) this.setDuration(wave.duration);
  }

  setDuration(seconds) {
    this.duration = Math.max(this.duration, seconds);
    $("time").hidden = !this.duration;
    this.layout();
  }

  setWords(words, duration) {
    this.words = words;
    const buttons = words.map(({ word, start, end }, number) => {
      const button = this.button(start - BEFORE_S, end + AFTER_S,
        `${word}, at ${start.toFixed(2)} seconds`);
      button.textContent = word;
      button.dir = "auto";
      button.tabIndex = number ? -1 : 0;
      return button;
    });
    $("words").replaceChildren(...buttons);
    this.setDuration(duration);
  }

  setSegments(segments, duration) {
    const speakers = [...new Set(segments.map((segment) => segment.speaker))];
    const lanes = speakers.map((speaker, number) => {
      const lane = document.createElement("div");
      lane.className = `lane s${number % COLOURS}`;
      lane.setAttribute("role", "group");
      lane.setAttribute("aria-label", speaker);
      const name = document.createElement("span");
      name.textContent = speaker;
      const own = segments.filter((segment) => segment.speaker === speaker);
      lane.append(name, ...own.map(({ start, end }) => {
        const button = this.button(start, end, `${speaker}, from `
          + `${start.toFixed(2)} to ${end.toFixed(2)} seconds`);
        button.title = `${start.toFixed(2)} to ${end.toFixed(2)} s`;
        return button;
      }));
      return lane;
    });
    $("lanes").replaceChildren(...lanes);
    this.setDuration(duration);
  }

  button(start, end, label) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.dataset.start = start;
    button.dataset.end = end;
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      this.play(Math.max(0, start), end);
    });
    return button;
  }

  // Places all on the axis, which is as long as the words need.
  layout() {
    if (!this.duration || $("time").hidden) return;
    const width = $("strip").clientWidth;
    const buttons = [...$("words").children];
    const widths = buttons.map((button) => button.offsetWidth + 4);
    const needed = 1.15 * widths.reduce((sum, own) => sum + own, 0) / ROWS;
    this.scale = Math.max(width, needed) / this.duration;
    const ends = Array(ROWS).fill(0);
    buttons.forEach((button, number) => {
      const start = this.words[number].start * this.scale;
      let row = ends.findIndex((end) => end <= start);
      if (row < 0) row = ends.indexOf(Math.min(...ends));
      const left = Math.max(start, ends[row]);
      ends[row] = left + widths[number];
      button.style.left = `${left}px`;
      button.style.top = `${row * ROW_HEIGHT + 4}px`;
    });
    const most = Math.max(this.duration * this.scale, ...ends);
    $("track").style.width = `${most}px`;
    const rows = ends.filter((end) => end).length;
    $("words").style.height = `${rows * ROW_HEIGHT + (rows ? 8 : 0)}px`;
    for (const button of $("lanes").querySelectorAll("button")) {
      const { start, end } = button.dataset;
      button.style.left = `${start * this.scale}px`;
      button.style.width = `${(end - start) * this.scale}px`;
    }
    this.drawWave();
    this.show();
  }

  // Only what is in view, as a canvas of an hour would be too wide.
  drawWave() {
    const canvas = $("wave");
    canvas.hidden = !this.wave;
    if (!this.wave || !this.scale) return;
    const width = $("strip").clientWidth, dense = devicePixelRatio || 1;
    canvas.style.width = `${width}px`;
    canvas.width = width * dense;
    canvas.height = WAVE_HEIGHT * dense;
    const context = canvas.getContext("2d");
    context.scale(dense, dense);
    context.fillStyle = getComputedStyle(canvas).getPropertyValue("--wave");
    const { peaks } = this.wave;
    const loudest = peaks.reduce(
      (most, [low, high]) => Math.max(most, high, -low), 1e-3);
    const middle = WAVE_HEIGHT / 2, zoom = (middle - 4) / loudest;
    const offset = $("strip").scrollLeft;
    for (let x = 0; x < width; x += 1) {
      const first = Math.floor((offset + x) / this.scale * 100);
      const last = Math.max(
        first + 1, Math.floor((offset + x + 1) / this.scale * 100));
      let low = 0, high = 0;
      for (let i = first; i < Math.min(last, peaks.length); i += 1) {
        low = Math.min(low, peaks[i][0]);
        high = Math.max(high, peaks[i][1]);
      }
      const top = middle - high * zoom;
      context.fillRect(x, top, 1, Math.max(1, (high - low) * zoom));
    }
  }

  onClick(event) {
    if (!this.duration || event.target.closest("button")) return;
    const place = event.clientX - $("track").getBoundingClientRect().left;
    this.play(place / this.scale, Infinity);
  }

  onKey(event) {
    const buttons = [...$("words").children];
    const here = buttons.indexOf(document.activeElement);
    const next = {
      ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0,
      End: buttons.length - 1,
    }[event.key];
    if (next === undefined || !buttons[next]) return;
    event.preventDefault();
    buttons[here].tabIndex = -1;
    buttons[next].tabIndex = 0;
    buttons[next].focus();
    buttons[next].scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  async play(start, end) {
    this.until = end;
    this.player.currentTime = start;
    try {
      await this.player.play();
    } catch {
      // The browser does not play this format, or has been stopped
    }
  }

  follow() {
    this.show();
    if (this.player.currentTime >= this.until) {
      this.player.pause();
      this.until = Infinity;
    }
    if (!this.player.paused) requestAnimationFrame(() => this.follow());
  }

  show() {
    if (!this.scale) return;
    const now = this.player.currentTime;
    const place = now * this.scale, strip = $("strip");
    $("cursor").style.transform = `translateX(${place}px)`;
    const { scrollLeft, clientWidth } = strip;
    const playing = !this.player.paused;
    if (playing && (place < scrollLeft || place > scrollLeft + clientWidth)) {
      strip.scrollLeft = place - clientWidth / 8;
    }
    [...$("words").children].forEach((button, number) => {
      const { start, end } = this.words[number];
      button.classList.toggle("now", playing && start <= now && now < end);
    });
  }
}
