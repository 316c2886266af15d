// Runs Python with nnx beside the page, which so stays smooth whatever the training takes.
//
// The page sends {type: "start", settings}, {type: "rate", rate} and {type: "slice", milliseconds, most}; this
// answers with {type: "loading" | "ready" | "started" | "frame" | "failed"}. It trains only when the page asks for a
// slice: a page that nobody looks at asks for none.

let lesson; // a spiral.Lesson in Python
let spiral; // the module
let settings;

async function load() {
  const begin = performance.now();
  const manifest = await (await fetch("manifest.json")).json();
  post({ type: "loading", what: "Python" });
  const { loadPyodide } = await import("./pyodide/pyodide.mjs");
  const pyodide = await loadPyodide({ indexURL: new URL("pyodide/", self.location.href).href });
  const archives = [["NumPy", manifest.numpy], ["nnx", manifest.nnx]];
  for (const [name, file] of archives) {
    post({ type: "loading", what: name });
    await pyodide.loadPackage(new URL(file, self.location.href).href, { messageCallback: () => {} });
  }
  pyodide.FS.writeFile("spiral.py", await (await fetch("spiral.py")).text());
  spiral = pyodide.pyimport("spiral");
  const bytes = performance.getEntriesByType("resource").reduce((sum, entry) => sum + entry.decodedBodySize, 0);
  post({
    type: "ready",
    backend: pyodide.runPython("import nnx._kernels; nnx._kernels.name"),
    python: pyodide.runPython("import sys; sys.version.split()[0]"),
    version: pyodide.runPython("nnx.__version__"),
    pyodide: pyodide.version,
    side: spiral.SIDE,
    reach: spiral.REACH,
    bytes,
    seconds: (performance.now() - begin) / 1000,
  });
}

function start(wanted) {
  settings = wanted;
  const { classes, width, layers, rate, noise, seed } = settings;
  lesson?.destroy();
  lesson = spiral.Lesson(classes, width, layers, rate, noise, seed);
  post({ type: "started", run: settings.run, points: array(lesson.X), classes: array(lesson.y), ...state() });
}

function slice({ milliseconds, most }) {
  const result = lesson.train(milliseconds, most);
  const [losses, accuracies, seconds] = result.toJs();
  result.destroy();
  post({ type: "frame", run: settings.run, losses, accuracies, seconds, ...state() });
}

function state() {
  return { regions: array(lesson.regions()), newAccuracy: lesson.accuracy_on_new_points() };
}

// The numbers of a NumPy array, in one typed array of the page's own.
function array(numbers) {
  const view = numbers.getBuffer();
  const copy = view.data.slice();
  view.release();
  numbers.destroy();
  return copy;
}

function post(message) {
  self.postMessage(message);
}

// The last lines of Python's traceback say what was wrong; the others are about this file.
function failed(error) {
  const lines = String(error?.message ?? error).trim().split("\n");
  post({ type: "failed", message: lines[lines.length - 1], run: settings?.run });
}

const loaded = load();
loaded.catch(failed);

self.onmessage = async ({ data }) => {
  await loaded;
  try {
    if (data.type === "start") start(data.settings);
    else if (data.type === "rate") lesson.set_rate(data.rate);
    else if (data.type === "slice") slice(data);
  } catch (error) {
    failed(error);
  }
};
