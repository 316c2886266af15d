// A wheel whose Python is compiled, for a page that shall import it soon: node compile.mjs RUNTIME WHEEL COMPILED
//
// Only the Python that runs it can compile it: Pyodide does so here, in Node.js. Docstrings are left out, half of nnx.
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [runtime, wheel, compiled] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(resolve(runtime, "pyodide.mjs")));
const pyodide = await loadPyodide({ indexURL: resolve(runtime) });
pyodide.FS.writeFile("/wheel.zip", readFileSync(wheel));
pyodide.runPython(`
import pathlib, py_compile, zipfile

UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH
with zipfile.ZipFile("/wheel.zip") as given, zipfile.ZipFile("/compiled.zip", "w", zipfile.ZIP_DEFLATED) as made:
    for name in given.namelist():
        content = given.read(name)
        if name.endswith((".pyi", ".pxd", ".h")):
            continue  # for compilers and type checkers
        if name.endswith(".py"):
            pathlib.Path("/file.py").write_bytes(content)
            py_compile.compile("/file.py", "/file.pyc", name, True, 2, UNCHECKED)
            name, content = name + "c", pathlib.Path("/file.pyc").read_bytes()
        made.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)
`);
writeFileSync(compiled, pyodide.FS.readFile("/compiled.zip"));
