// A wheel whose Python is compiled, for a page that shall start soon: node compile.mjs RUNTIME NUMPY WHEEL SCRIPT COMPILED
//
// Only the Python that runs it can compile it: Pyodide does so here, in Node.js. Compiled are the modules that the script
// has imported when its lesson() is over, without docstrings; all others stay as they are, since that is smaller.
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [runtime, numpy, wheel, script, compiled] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(resolve(runtime, "pyodide.mjs")));
const pyodide = await loadPyodide({ indexURL: resolve(runtime) });
await pyodide.loadPackage(resolve(numpy), { messageCallback: () => {} });
pyodide.FS.writeFile("/wheel.zip", readFileSync(wheel));
pyodide.FS.writeFile("/script.py", readFileSync(script));
pyodide.runPython(`
import pathlib, py_compile, runpy, sys, zipfile

with zipfile.ZipFile("/wheel.zip") as given:
    given.extractall("/wheel")
sys.path.insert(0, "/wheel")
runpy.run_path("/script.py")["lesson"]()
imported = {str(getattr(module, "__file__", None)) for module in sys.modules.values()}

with zipfile.ZipFile("/compiled.zip", "w", zipfile.ZIP_DEFLATED) as made:
    for path in sorted(path for path in pathlib.Path("/wheel").rglob("*") if path.is_file()):
        if path.suffix in (".pyi", ".pxd", ".h") or path.parent.name == "__pycache__":
            continue  # for compilers and type checkers
        if str(path) in imported and path.suffix == ".py":
            unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
            path = pathlib.Path(py_compile.compile(path, path.with_suffix(".pyc"), str(path), True, 2, unchecked))
        entry = zipfile.ZipInfo(str(path.relative_to("/wheel")))
        made.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)
`);
writeFileSync(compiled, pyodide.FS.readFile("/compiled.zip"));
