// The page: sliders, buttons, pictures. All that is computed comes from worker.mjs, in answers to this page's requests.

const COLOURS = [[0, 114, 178], [230, 140, 0], [0, 140, 100], [190, 80, 140], [150, 75, 20]]; // told apart by all eyes
const PACES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 100_000];
const SLICE = 24; // milliseconds of training a picture, at most
const MOST_POINTS = 400; // of a curve; then every other one goes
const parameters = new URLSearchParams(location.search);
const STEPS = Number(parameters.get("steps")) || 10_000; // after so many, training pauses
const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const worker = new Worker("worker.mjs", { type: "module" });

const state = {
  ready: null, // what the worker said of itself
  running: false,
  asked: false, // whether a slice is under way
  run: 0, // counts starts: frames of a former one are dropped
  seed: 1,
  steps: 0,
  until: STEPS,
  points: null,
  pointClasses: null,
  regions: null,
  speed: 0,
  losses: curve(),
  accuracies: curve(),
  newAccuracies: curve(),
};

// A curve keeps one value of every `stride` steps.
function curve() {
  return { steps: [], values: [], stride: 1 };
}

function add(curve, step, value) {
  if (step % curve.stride) return;
  curve.steps.push(step);
  curve.values.push(value);
  if (curve.steps.length > MOST_POINTS) {
    curve.stride *= 2;
    const kept = (_, i) => curve.steps[i] % curve.stride === 0;
    curve.values = curve.values.filter(kept);
    curve.steps = curve.steps.filter(kept);
  }
}

// ---- sliders -------------------------------------------------------------------------------------------------------

const rate = () => 10 ** Number(element("rate").value);
const pace = () => PACES[Number(element("pace").value)];
const texts = {
  rate: () => rate().toPrecision(2).replace(/\.?0+$/, ""),
  pace: () => (pace() > 1000 ? "most" : number.format(pace())),
  width: () => element("width").value,
  layers: () => element("layers").value,
  noise: () => Number(element("noise").value).toFixed(2),
  classes: () => element("classes").value,
};

function showSlider(name) {
  document.querySelector(`output[for=${name}]`).textContent = texts[name]();
  element(name).setAttribute("aria-valuetext", texts[name]());
}

function settings() {
  const chosen = { rate: rate(), seed: state.seed, run: state.run };
  for (const name of ["width", "layers", "noise", "classes"]) chosen[name] = Number(element(name).value);
  return chosen;
}

// ---- training ------------------------------------------------------------------------------------------------------

function start() {
  state.run++;
  state.steps = 0;
  state.until = STEPS;
  state.speed = 0;
  state.losses = curve();
  state.accuracies = curve();
  state.newAccuracies = curve();
  worker.postMessage({ type: "start", settings: settings() });
}

function setRunning(running) {
  if (running && state.steps >= state.until) state.until += STEPS;
  state.running = running;
  element("run").textContent = running ? "Pause" : state.steps ? "Go on" : "Start";
  if (running) ask();
}

function ask() {
  if (!state.running || state.asked) return;
  const left = state.until - state.steps;
  if (left <= 0) {
    setRunning(false);
    say(`Paused after ${number.format(state.steps)} steps: accuracy ${element("accuracy").textContent}.`);
    return;
  }
  state.asked = true;
  worker.postMessage({ type: "slice", milliseconds: SLICE, most: Math.min(pace(), left) });
}

function say(text, failed = false) {
  element("message").textContent = text;
  element("message").classList.toggle("failed", failed);
}

const answers = {
  loading: ({ what }) => say(`Loading ${what}…`),
  ready(message) {
    state.ready = message;
    const kernels = message.backend === "numpy" ? "NumPy, without compiled kernels" : "nnx's compiled kernels";
    element("about").textContent =
      `nnx ${message.version} on Python ${message.python} (Pyodide ${message.pyodide}); it computes with ${kernels}. ` +
      `${(message.bytes / 1e6).toFixed(1)} MB unpacked, ready after ${message.seconds.toFixed(1)} seconds.`;
    document.documentElement.dataset.backend = message.backend;
    for (const id of ["run", "reset", "draw", "sliders", "restarting"]) element(id).disabled = false;
    say(still.matches ? "Ready. Press Start." : "");
    start();
    if (!still.matches) setRunning(true);
  },
  started(message) {
    if (message.run !== state.run) return;
    state.points = message.points;
    state.pointClasses = message.classes;
    frame({ ...message, losses: [], accuracies: [], seconds: 0 });
  },
  frame(message) {
    state.asked = false;
    if (message.run === state.run) frame(message);
    // A page that is not seen gets no animation frames, and so does not train.
    if (still.matches) setTimeout(ask, 500);
    else requestAnimationFrame(ask);
  },
  failed(message) {
    state.asked = false;
    setRunning(false);
    say(message.message.replace(/^[\w.]*Error: /, ""), true);
  },
};

worker.onmessage = ({ data }) => answers[data.type](data);
worker.onerror = (event) => say(`The worker could not be started. ${event.message ?? ""}`, true);

function frame(message) {
  message.losses.forEach((loss, i) => {
    add(state.losses, state.steps + i + 1, loss);
    add(state.accuracies, state.steps + i + 1, message.accuracies[i]);
  });
  state.steps += message.losses.length;
  state.regions = message.regions;
  if (message.seconds) {
    const speed = message.losses.length / message.seconds;
    state.speed = state.speed ? 0.9 * state.speed + 0.1 * speed : speed;
  }
  state.newAccuracies.steps.push(state.steps);
  state.newAccuracies.values.push(message.newAccuracy);
  thin(state.newAccuracies);
  const last = message.losses.length - 1;
  element("steps").textContent = number.format(state.steps);
  element("speed").textContent = state.speed ? number.format(Number(state.speed.toPrecision(2))) : "–";
  element("loss").textContent = last < 0 ? "–" : message.losses[last].toFixed(3);
  element("accuracy").textContent = last < 0 ? "–" : message.accuracies[last].toFixed(3);
  element("new-accuracy").textContent = message.newAccuracy.toFixed(3);
  draw();
}

// Frames do not come at multiples of a stride: of their curve every other point goes.
function thin(curve) {
  if (curve.steps.length <= MOST_POINTS) return;
  curve.steps = curve.steps.filter((_, i) => i % 2 === 0);
  curve.values = curve.values.filter((_, i) => i % 2 === 0);
}

// ---- pictures ------------------------------------------------------------------------------------------------------

const small = document.createElement("canvas"); // one pixel a point of the grid

function draw() {
  drawRegions();
  drawCurve(element("loss-curve"), [[state.losses, false]], 0, Math.max(...state.losses.values, 0.1));
  drawCurve(element("accuracy-curve"), [[state.newAccuracies, true], [state.accuracies, false]], 0, 1);
}

function context(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [context, canvas.clientWidth, canvas.clientHeight];
}

function drawRegions() {
  if (!state.regions) return;
  const { side, reach } = state.ready;
  small.width = small.height = side;
  const smallContext = small.getContext("2d");
  const image = smallContext.createImageData(side, side);
  paint(image.data, state.regions, state.regions.length / (side * side));
  smallContext.putImageData(image, 0, 0);
  const [context2d, width, height] = context(element("regions"));
  context2d.imageSmoothingEnabled = true;
  context2d.imageSmoothingQuality = "high";
  context2d.drawImage(small, 0, 0, width, height);
  const radius = Math.max(2.2, width / 180);
  // In the dark, points are lighter than their regions.
  const colours = COLOURS.map((colour) => `rgb(${colour.map((c) => (dark.matches ? 0.55 * c + 115 : c))})`);
  for (let i = 0; i < state.pointClasses.length; i++) {
    const [x, y] = [state.points[2 * i], state.points[2 * i + 1]];
    context2d.beginPath();
    context2d.arc(((x / reach + 1) / 2) * width, ((1 - y / reach) / 2) * height, radius, 0, 2 * Math.PI);
    context2d.fillStyle = colours[state.pointClasses[i]];
    context2d.fill();
    context2d.strokeStyle = dark.matches ? "#14171c" : "#ffffff";
    context2d.lineWidth = 1;
    context2d.stroke();
  }
}

// The classes' colours, mixed by their probabilities, and half of the page's own.
function paint(pixels, probabilities, classes) {
  const surface = dark.matches ? [20, 23, 28] : [255, 255, 255];
  for (let point = 0; point < pixels.length / 4; point++) {
    for (let channel = 0; channel < 3; channel++) {
      let sum = 0;
      for (let k = 0; k < classes; k++) sum += probabilities[point * classes + k] * COLOURS[k][channel];
      pixels[4 * point + channel] = 0.5 * (sum / 255) + 0.5 * surface[channel];
    }
    pixels[4 * point + 3] = 255;
  }
}

function drawCurve(canvas, curves, low, high) {
  const [context2d, width, height] = context(canvas);
  const style = getComputedStyle(document.documentElement);
  const [left, bottom] = [30, height - 18];
  const x = (step) => left + (step / Math.max(state.steps, 10)) * (width - left - 6);
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - 6);
  context2d.clearRect(0, 0, width, height);
  context2d.font = "11px system-ui, sans-serif";
  context2d.fillStyle = style.getPropertyValue("--quiet");
  context2d.strokeStyle = style.getPropertyValue("--line");
  context2d.textAlign = "right";
  for (const value of [low, (low + high) / 2, high]) {
    context2d.fillText(value.toFixed(1), left - 5, y(value) + 4);
    line(context2d, [[left, y(value)], [width - 6, y(value)]]);
  }
  context2d.fillText(number.format(state.steps), width - 6, height - 3);
  context2d.textAlign = "left";
  context2d.fillText("0", left, height - 3);
  for (const [{ steps, values }, dashed] of curves) {
    context2d.strokeStyle = style.getPropertyValue(dashed ? "--quiet" : "--accent");
    context2d.lineWidth = 1.5;
    context2d.setLineDash(dashed ? [4, 3] : []);
    line(context2d, steps.map((step, i) => [x(step), y(values[i])]));
    context2d.setLineDash([]);
  }
}

function line(context2d, corners) {
  context2d.beginPath();
  for (const [x, y] of corners) context2d.lineTo(x, y);
  context2d.stroke();
}

// ---- what a visitor does -------------------------------------------------------------------------------------------

for (const name of Object.keys(texts)) {
  showSlider(name);
  element(name).addEventListener("input", () => {
    showSlider(name);
    if (name === "rate") worker.postMessage({ type: "rate", rate: rate() });
    else if (name !== "pace") start();
  });
}
element("run").addEventListener("click", () => {
  say("");
  setRunning(!state.running);
});
element("reset").addEventListener("click", () => {
  say("");
  setRunning(false);
  start();
  element("run").textContent = "Start";
});
element("draw").addEventListener("click", () => {
  say("");
  state.seed = (state.seed + 2) % 1_000_000; // the new points have the seed between
  start();
});
new ResizeObserver(draw).observe(element("regions"));
dark.addEventListener("change", draw);
