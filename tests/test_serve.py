"""`nnx serve`: real services in separate processes, with a real client."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx.cli import main

for needed in ("httptools", "httpx", "orjson", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(needed)

import httpx
import orjson
from prometheus_client.parser import text_string_to_metric_families

from nnx.serve import Service, create_app
from nnx.serve.batching import Batcher
from nnx.serve.errors import RequestError
from nnx.serve.rows import Rows, TableRows
from nnx.serve.service import Asked

pytestmark = pytest.mark.one_backend

TRUST = Path(__file__).parents[1] / "trust"
sys.path.insert(0, str(TRUST))
import services

sys.path.remove(str(TRUST))

ROW = {"area": 70, "town": "Graz", "built": "2001-05-01"}
JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can handle")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    services.save_table_model(folder / "table.safetensors")
    services.save_number_model(folder / "numbers.safetensors")
    return folder


@pytest.fixture(scope="module")
def service(files):
    found = services.Service(files / "table.safetensors", "--max-body", "1", "--max-concurrency", "4")
    yield found
    assert found.stop() == (0, "")


@pytest.fixture
def client(service):
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=30) as found:
        yield found


def patient(code: str, *arguments) -> services.Service:
    """Return a service whose process runs some code first."""
    command = [sys.executable, "-c", f"import sys\n{code}\nfrom nnx.cli import main\nsys.exit(main(sys.argv[1:]))"]
    found = services.Service.__new__(services.Service)
    found.process = subprocess.Popen(
        [*command, "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found.port = int(services.STARTED.search(found.process.stdout.readline())[1])
    return found


# Requests and answers


def rows_of(n, rng):
    towns = rng.choice(["Graz", "Linz", "Wels", ""], n).tolist()
    return [
        {"area": int(area), "town": town or None, "built": f"{1950 + int(area) // 4}-0{1 + int(area) % 9}-01"}
        for area, town in zip(rng.integers(20, 200, n), towns, strict=True)
    ]


def test_json_and_csv_give_what_predict_gives(client, files, rng, tmp_path, capsys):
    rows = rows_of(50, rng)
    model = nnx.Model.load(files / "table.safetensors")
    outputs = model.predict(model.table.read_inputs(rows))
    found = client.post("/predict", json={"rows": rows}).json()
    assert found["predictions"] == model.table.decode(outputs).tolist()
    assert [[*each] for each in found["probabilities"]] == [["let", "sold"]] * 50
    np.testing.assert_allclose([[*each.values()] for each in found["probabilities"]], outputs, rtol=1e-5)

    as_lists = {
        "columns": ["built", "town", "area"],
        "rows": [[row["built"], row["town"], row["area"]] for row in rows],
    }
    assert client.post("/predict", json=as_lists).json() == found
    assert client.post("/predict", json={"rows": [[*row.values()] for row in rows]}).json() == found

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["built", "ignored", "area", "town"])
    writer.writeheader()
    writer.writerows({"ignored": "x", **row} for row in rows)
    answer = client.post("/predict", content=text.getvalue(), headers=CSV)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    (tmp_path / "rows.csv").write_text(text.getvalue())
    assert main(["predict", str(files / "table.safetensors"), str(tmp_path / "rows.csv")]) == 0
    assert answer.text == capsys.readouterr().out
    accepting = {**CSV, "Accept": "application/json"}
    assert client.post("/predict", content=text.getvalue(), headers=accepting).json() == found
    assert client.post("/predict", json={"rows": rows}, headers={"Accept": "text/csv"}).text == answer.text
    utf16 = {"Content-Type": "text/csv; charset=UTF-16"}
    assert client.post("/predict", content=text.getvalue().encode("utf-16"), headers=utf16).text == answer.text


def test_rows_of_numbers_have_the_bits_of_predict(files, rng):
    found = Service(files / "numbers.safetensors")
    rows = rng.normal(size=(9, 32)).astype(np.float32)
    model = nnx.Model.load(files / "numbers.safetensors")
    body = orjson.dumps({"rows": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
    answer = json.loads(found.answer([Asked(found.reader.of_json(body), False)])[0])
    assert np.array_equal(np.array(answer["predictions"], np.float32), model.predict(rows))
    text = "\n".join(",".join(map(repr, row)) for row in rows.tolist()).encode()
    asked = found.reader.of_csv(text, None)
    assert np.array_equal(asked.X, rows)
    lines = found.answer([Asked(asked, True)])[0].decode().splitlines()
    assert lines[0] == ",".join(f"output {i}" for i in range(1, 9))
    assert np.array_equal(np.array([line.split(",") for line in lines[1:]], np.float32), model.predict(rows))


def test_ensembles_predictors_images_and_regressions(tmp_path, rng):
    X = rng.normal(size=(7, 3)).astype(np.float32)
    members = []
    for _ in range(3):
        model = nnx.Model()
        for layer in (nnx.Layer_Dense(3, 8), nnx.Activation_ReLU(), nnx.Layer_Dense(8, 1), nnx.Activation_Linear()):
            model.add(layer)
        model.set(loss=nnx.Loss_MeanSquaredError(), accuracy=nnx.Accuracy_Regression())
        model.finalize()
        members.append(model)
    members[0].predictor().save(tmp_path / "predictor")
    ensemble = nnx.Ensemble(members)
    data = {name: values.tolist() for name, values in zip("abc", X.T, strict=True)} | {"y": [2, 4, 8, 16, 32, 64, 128]}
    table = nnx.Table.learn(data, "y", task="regression")
    ensemble.save(tmp_path / "ensemble")
    for model in members:
        model.set(table=table)
    ensemble.save(tmp_path / "of a table")

    def answered(name, rows):
        found = Service(tmp_path / name)
        body = orjson.dumps({"rows": rows}, option=orjson.OPT_SERIALIZE_NUMPY)
        return np.array(json.loads(found.answer([Asked(found.reader.of_json(body), False)])[0])["predictions"])

    assert np.array_equal(answered("predictor", X).astype(np.float32), members[0].predict(X))
    assert np.array_equal(answered("ensemble", X).astype(np.float32), ensemble.predict(X))
    expected = table.decode(ensemble.predict(table.read_inputs(data)))
    np.testing.assert_allclose(answered("of a table", X.tolist()), expected, atol=1e-4)

    images = nnx.Images(2, 2, ["circle", "square"])
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(4, 2), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(loss=nnx.Loss_CategoricalCrossentropy(), accuracy=nnx.Accuracy_Categorical(), images=images)
    model.finalize()
    model.save(tmp_path / "images")
    pixels = rng.integers(0, 256, (5, 2, 2))
    names = images.decode(model.predict(images.inputs(pixels))).tolist()
    assert answered("images", pixels.tolist()).tolist() == names
    assert answered("images", pixels.reshape(5, 4).tolist()).tolist() == names


def test_an_answer_depends_on_no_other_request(files, rng, backend):
    if backend == "numpy":
        pytest.skip("NumPy's products may depend on the number of rows, in the last bits")
    found = Service(files / "table.safetensors")
    rows = rows_of(40, rng)
    bodies = [json.dumps({"rows": rows[start : start + 1 + start % 3]}).encode() for start in range(30)]
    several = [Asked(found.reader.of_json(body), number % 4 == 0) for number, body in enumerate(bodies)]
    several.append(Asked(found.reader.of_csv(b"area,town,built\n55,Linz,1999-09-01\n", None), True))
    alone = [found.answer([each])[0] for each in several]
    assert found.answer(several) == alone
    assert all(isinstance(each, bytes) for each in alone)
    bad = Asked(found.reader.of_json(b'{"rows": [[70, "Rome", "2001-05-01"]]}'), False)
    answers = found.answer([*several[:3], bad, *several[3:]])
    assert isinstance(answers[3], RequestError)
    assert "'Rome' in column 'town', which is not one of the 3 known values: Graz, Linz, Wels" in answers[3].sentence
    assert answers[:3] + answers[4:] == alone


ODD_CELLS = {
    "a": [1, 2.5, "7", None, "", "NA", 1e300, -0.0, 2**62, "1e5", True, 1.2e25],
    "p": ["$1,234.50", 5, 5.5, None, "$3", "x", "$1,2"],
    "code": ["1", 1, 1.0, "1.0", 2, "6", None, True, "01"],
    "d": ["31.12.1999", "1999-12-31", None, "2003-02-01T10:00", 2003, "x", "1999-12-31T10:00:00+02:00"],
}


@pytest.mark.parametrize("choices", [{}, {"scaling": "robust", "indicators": True, "one_hot": 3, "lenient": True}])
def test_an_odd_cell_means_the_same_in_any_batch(rng, choices):
    plain = {
        "a": rng.integers(1000, 9000, 80).tolist(),
        "p": [f"${value:,}.50" for value in rng.integers(1000, 90000, 80)],
        "code": [str(value) for value in rng.integers(1, 6, 80)],
        "d": [f"{1 + i % 28:02}.{1 + i % 12:02}.{1920 + i}" for i in range(80)],
    }
    table = nnx.Table.learn(
        plain | {"y": rng.normal(size=80).tolist()}, "y", task="regression", text=["code"], **choices
    )
    reader, alone = TableRows(table, "error"), []
    for _ in range(300):
        kinds = {name: ODD_CELLS[name] if rng.random() < 0.4 else plain[name] for name in plain}
        row = {name: cells[rng.integers(len(cells))] for name, cells in kinds.items()}
        rows = reader.of_json(json.dumps({"rows": [row]}).encode())
        with contextlib.suppress(ValueError):
            alone.append((rows, reader.inputs([rows])))
    assert 50 < len(alone) < 300
    for _ in range(20):
        some = [alone[i] for i in rng.integers(0, len(alone), 25)]
        assert np.array_equal(reader.inputs([rows for rows, _ in some]), np.concatenate([X for _, X in some]))


def test_requests_that_wait_go_into_one_batch():
    batches, go_on = [], threading.Event()

    def answer(several):
        batches.append(len(several))
        go_on.wait(10)
        return [b"%d" % each.rows.n_rows for each in several]

    async def long_ones():  # in a thread, while others come
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(answer, 1.0, pool, lambda *_: None)
            first = batcher.submit(Asked(Rows(1), False))
            while not batches:
                await asyncio.sleep(0.001)
            others = [batcher.submit(Asked(Rows(2), False)) for _ in range(5)]
            await asyncio.sleep(0.02)
            assert len(batches) == 1
            go_on.set()
            return [await each for each in (first, *others)]

    async def short_ones(*n_rows):  # of one turn of the event loop
        batcher = Batcher(answer, 0.0, None, lambda *_: None)
        futures = [batcher.submit(Asked(Rows(n), False)) for n in n_rows]
        return [await each for each in futures]

    assert asyncio.run(long_ones()) == [b"1"] + [b"2"] * 5
    assert batches == [1, 5]
    batches.clear()
    assert asyncio.run(short_ones(1, 2, 3)) == [b"1", b"2", b"3"]
    assert asyncio.run(short_ones(1, 16383, 1, 20000, 2)) == [b"1", b"16383", b"1", b"20000", b"2"]
    assert batches == [3, 2, 1, 1, 1]


def test_the_page_is_true(tmp_path):
    page = (TRUST.parent / "docs" / "guide" / "serve.md").read_text(encoding="utf-8")
    rents = TRUST.parent / "examples" / "rents.csv"
    assert (
        main(["train", str(rents), "--target", "rent", "--layers", "8", "-o", str(tmp_path / "rents.safetensors")]) == 0
    )
    found = services.Service(tmp_path / "rents.safetensors")
    code, names = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {}
    exec(code.replace("127.0.0.1:8000", f"127.0.0.1:{found.port}"), names)
    assert 100 < names["rents"][0] < 3000
    curl = re.search(r"^curl -H '(.*): (.*)' --data-binary @(\S+) http://127.0.0.1:8000(\S+)$", page, re.MULTILINE)
    with (TRUST.parent / curl[3]).open("rb") as body:
        address = f"http://127.0.0.1:{found.port}{curl[4]}"
        answer = httpx.post(address, content=body.read(), headers={curl[1]: curl[2]}, timeout=30)
    assert len(answer.text.splitlines()) == len(rents.read_text().splitlines())
    assert found.stop() == (0, "")


def test_unknown_texts_are_errors_or_missing_values(files):
    body = json.dumps({"rows": [ROW | {"town": "Rome"}, ROW | {"town": None}]}).encode()
    found = Service(files / "table.safetensors", unknown="missing")
    answer = json.loads(found.answer([Asked(found.reader.of_json(body), False)])[0])
    assert answer["probabilities"][0] == answer["probabilities"][1]


# What is refused


REFUSED = [
    (b"", JSON, 400, "the body must be JSON in UTF-8"),
    (b'{"rows": [NaN]}', JSON, 400, "the body must be JSON in UTF-8"),
    (b'{"rows": ' + b"[" * 100_000, JSON, 400, "the body must be JSON in UTF-8"),
    (b'\xff{"rows": []}', JSON, 400, "the body must be JSON in UTF-8"),
    (b"[1]", JSON, 422, 'the body must be an object such as {"rows": [...]}, got a list.'),
    (b'{"rows": []}', JSON, 422, "rows must be one or more, got none."),
    (b'{"rows": [[1]], "row": 1}', JSON, 422, "the body must have rows and may have columns, got 'row' too."),
    (b'{"rows": {"area": 1}}', JSON, 422, "rows must be a list of rows, got an object."),
    (b'{"rows": [{"area": 1, "town": "Graz"}]}', JSON, 422, "row 0 has no column 'built'."),
    (b'{"rows": [[1, "Graz"]]}', JSON, 422, "row 0 must have 3 values, got 2. They are area, town, built."),
    (b'{"rows": [[1, "Graz", ["2001"]]]}', JSON, 422, "column 'built' must hold numbers, texts, true, false or null"),
    (b'{"rows": [["big", "Graz", null]]}', JSON, 422, "the request, row 0, holds 'big' in column 'area', which must"),
    (b'{"rows": [[1e300, "Graz", null]]}', JSON, 422, "in column 'area'"),
    (
        b'{"columns": ["area"], "rows": [[1]]}',
        JSON,
        422,
        "columns must hold area, town, built; missing: 'town', 'built'.",
    ),
    (b"area,town\n1,Graz\n", CSV, 422, "the request has no column 'built'. Its columns are area, town."),
    (b"area,town,built\n1,Graz\n", CSV, 400, "the request, line 2, has 2 cells, and the first row has 3."),
    (b"area,town,built\n", CSV, 400, "the request has no rows below its header."),
    (
        b"area,town,built\n1,\xe9,\n",
        CSV,
        400,
        "the request is not text in UTF-8. Name its encoding: Content-Type: text/csv; charset=latin-1.",
    ),
    (b"PAR1" * 9, CSV, 400, "the request has no rows below its header."),
    (b"{}", {"Content-Type": "text/html"}, 415, "Content-Type must be application/json or text/csv, got 'text/html'."),
    (b"{}", {**JSON, "Content-Encoding": "gzip"}, 415, "the body must not be compressed."),
    (b"{}", {"Content-Type": "application/json; charset=utf-16"}, 415, "JSON must be in UTF-8, got charset='utf-16'."),
    (b"x", {"Content-Type": "text/csv; charset=idna"}, 415, "CSV must be in UTF-8, UTF-16, Latin-1"),
    (b"x" * ((1 << 20) + 1), JSON, 413, "the body must have at most 1,048,576 bytes. Send fewer rows at a time."),
]


@pytest.mark.parametrize(("body", "headers", "status", "sentence"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_bad_requests_get_a_sentence(client, body, headers, status, sentence):
    answer = client.post("/predict", content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json()["error"].startswith(sentence) or sentence in answer.json()["error"]
    assert client.get("/health").json() == {"status": "ok", "model": "table.safetensors"}


def test_bad_rows_of_numbers_get_a_sentence(files):
    reader = Service(files / "numbers.safetensors").reader
    full = ", ".join(["0.5"] * 31)
    for rows, sentence in (
        ("[[1, 2]]", r"row 0 must have 32 numbers, got 2\."),
        (f"[[{full}, 1], [1]]", r"row 1 must have 32 numbers, got 1\."),
        (f'[[{full}, "1"]]', "row 0 must hold numbers, got '1' in column 31"),
        (f"[[{full}, null]]", "row 0 must hold numbers, got null in column 31"),
        (f"[[{full}, true]]", "rows must hold numbers, got true or false"),
        (f"[[{full}, 1e300]]", "rows must hold numbers that float32 can hold, got another in row 0, column 31"),
    ):
        with pytest.raises((RequestError, ValueError), match=sentence):
            reader.of_json(f'{{"rows": {rows}}}'.encode())
    with pytest.raises(RequestError, match="columns must be left out"):
        reader.of_json(f'{{"columns": ["a"], "rows": [[{full}, 1]]}}'.encode())
    with pytest.raises(ValueError, match="must have 32 columns, got 2"):
        reader.of_csv(b"1,2\n", None)
    with pytest.raises(ValueError, match="'x' in column 32"):
        reader.of_csv(f"{full}, x\n{full}, 1\n".encode(), None)


def test_other_addresses_and_methods_get_a_sentence(client):
    for method, path, status in (("GET", "/predict", 405), ("POST", "/health", 405), ("GET", "/no", 404)):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"].startswith("th")
    assert client.get("/predict").headers["allow"] == "POST"


@pytest.mark.long("sends thousands of requests")
def test_malformed_requests_are_never_answered_500():
    command = [sys.executable, str(TRUST / "malformed.py"), "--cases", "300", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["tried"], found["failures"]) == (300, [])
    assert found["refused"] > 200
    assert min(found["answered"], found["closed"]) > 0


# Limits


def test_a_body_in_chunks_is_read_up_to_the_limit(client):
    row = json.dumps(ROW).encode()
    answer = client.post("/predict", content=iter([b'{"rows": [', row, b"]}"]), headers=JSON)
    assert answer.status_code == 200
    answer = client.post("/predict", content=(b" " * 100_000 for _ in range(12)), headers=JSON)
    assert answer.status_code == 413


def test_more_requests_than_allowed_are_told_to_come_again(service, client):
    head = services.request(b"", *(f"{name}: {value}" for name, value in JSON.items()))
    body = json.dumps({"rows": [ROW]}).encode()
    open_head = head.replace(b"Content-Length: 0", b"Content-Length: %d" % len(body))
    waiting = [service.connect() for _ in range(4)]
    for connection in waiting:
        connection.sendall(open_head + body[:5])
    wait_for(lambda: b"nnx_requests_active 4.0" in client.get("/metrics").content)
    answer = client.post("/predict", json={"rows": [ROW]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "too many requests are waiting" in answer.json()["error"]
    for connection in waiting:
        connection.sendall(body[5:])
        assert services.answer(connection)[0] == 200
        connection.close()
    assert client.post("/predict", json={"rows": [ROW]}).status_code == 200


def wait_for(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.long("waits until limits of time are over")
def test_slow_and_endless_requests_are_ended(files):
    code = "import nnx.serve.server as server\nserver.SLOWEST = 0.5"
    found = patient(code, files / "table.safetensors", "--max-body", "1")
    head = services.request(b"", *(f"{name}: {value}" for name, value in JSON.items()))
    slow = [found.connect() for _ in range(3)]
    slow[1].sendall(head[:30])
    slow[2].sendall(head.replace(b"Content-Length: 0", b"Content-Length: 50") + b'{"rows"')
    for connection in slow:
        assert services.answer(connection)[0] == 408
        connection.close()
    long_head, endless = found.connect(), found.connect()
    send_all_that_is_taken(long_head, head[:-2] + b"X: " + b"y" * 200_000)
    assert services.answer(long_head)[0] in (431, 0)  # 0: the answer was lost with the unread rest
    send_all_that_is_taken(endless, head.replace(b"Content-Length: 0", b"Content-Length: 99999999") + b" " * 30_000_000)
    assert services.answer(endless)[0] in (413, 0)
    with httpx.Client(base_url=f"http://127.0.0.1:{found.port}") as client:
        assert client.post("/predict", json={"rows": [ROW]}).status_code == 200
    long_head.close()
    endless.close()
    assert found.stop() == (0, "")


def send_all_that_is_taken(connection: socket.socket, content: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        connection.sendall(content)


def test_large_bodies_in_memory_are_limited(files):
    app = create_app(files / "table.safetensors", max_body=1000)
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [(b"content-type", b"application/json")]}
    statuses = []

    async def ask(parts):
        async def receive():
            await asyncio.sleep(0)
            return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

        async def send(message):
            if "status" in message:
                statuses.append(message["status"])

        await app(dict(scope), receive, send)

    async def several():
        await asyncio.gather(*(ask([b" " * 450, b" " * 450, b" "]) for _ in range(20)))
        await ask([json.dumps({"rows": [ROW]}).encode(), b" "])

    asyncio.run(several())
    assert set(statuses) == {400, 503, 200}
    assert statuses[-1] == 200  # the held requests were released


# The end


@pytest.mark.long("keeps a service under load for seconds")
@POSIX
def test_a_stop_under_load_loses_no_accepted_request():
    assert services.stopped(2) == (2, [])


@pytest.mark.few
@POSIX
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_was_begun_is_answered(files, sent):
    found = services.Service(files / "table.safetensors")
    idle, begun = found.connect(), found.connect()
    body = json.dumps({"rows": [ROW]}).encode()
    content = services.request(body, "Content-Type: application/json")
    idle.sendall(content)
    assert services.answer(idle)[0] == 200
    begun.sendall(content[:-5])
    time.sleep(0.2)
    found.process.send_signal(sent)
    wait_for(lambda: idle.recv(1) == b"")
    with pytest.raises(ConnectionError):
        found.connect()
    begun.sendall(content[-5:])
    status, headers, _ = services.answer(begun)
    assert (status, headers["connection"]) == (200, "close")
    _, errors = found.process.communicate(timeout=20)
    assert (found.process.returncode, errors) == (0, "")
    idle.close()
    begun.close()


# Facts about the service


def test_metrics_count_what_was_asked(files):
    found = services.Service(files / "table.safetensors")
    with httpx.Client(base_url=f"http://127.0.0.1:{found.port}") as client:
        for n in (1, 2, 5):
            client.post("/predict", json={"rows": [ROW] * n})
        client.post("/predict", json={"rows": []})
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["nnx_requests_total", "200"] == 3
    assert samples["nnx_requests_total", "422"] == 1
    assert samples["nnx_rows_total",] == samples["nnx_batch_rows_sum",] == 8
    assert samples["nnx_batch_rows_bucket", "2.0"] == 2
    assert samples["nnx_batch_rows_bucket", "+Inf"] == samples["nnx_batch_rows_count",] == 3
    assert samples["nnx_request_seconds_count",] == 4
    assert samples["nnx_requests_active",] == 0
    assert samples["nnx_info", nnx.__version__, "table.safetensors"] == 1
    assert found.stop() == (0, "")


def test_the_description_names_the_columns_and_its_examples_work(client):
    found = client.get("/openapi.json").json()
    post = found["paths"]["/predict"]["post"]
    row = found["components"]["schemas"]["Request"]["properties"]["rows"]["items"]["anyOf"][0]
    assert [*row["properties"]] == row["required"] == ["area", "town", "built"]
    assert row["properties"]["town"]["examples"] == ["Graz", "Linz", "Wels"]
    answers = post["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert answers["predictions"]["items"]["enum"] == ["let", "sold"]
    for media_type, content in post["requestBody"]["content"].items():
        shown = content["example"] if media_type == "text/csv" else json.dumps(content["example"])
        answer = client.post("/predict", content=shown, headers={"Content-Type": media_type})
        assert answer.status_code == 200, answer.text
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<td>town" in page.text
    assert page.text.count(f"{client.base_url.join('/predict')}") == 2
    odd = client.get("/", headers={"Host": "<b>"})
    assert "http://&lt;b&gt;/predict" in odd.text
    assert not re.search(r"<script|src=|@import|url\(|<link", page.text)


def test_names_of_columns_are_text_on_the_page(tmp_path):
    data = {"<script>alert(1)</script>": [1, 2, 3, 4], 'a"&': ["x", "y"] * 2, "y": [0.5, 1.5, 2.5, 9]}
    table = nnx.Table.learn(data, "y", task="regression")
    model = nnx.Model()
    model.add(nnx.Layer_Dense(table.n_inputs, 1))
    model.add(nnx.Activation_Linear())
    model.set(loss=nnx.Loss_MeanSquaredError(), accuracy=nnx.Accuracy_Regression(), table=table)
    model.finalize()
    model.save(tmp_path / "odd")
    app = create_app(tmp_path / "odd")
    transport = httpx.ASGITransport(app=app)

    async def page():
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.get("/")).text

    found = asyncio.run(page())
    assert "<script" not in found
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in found


def test_it_opens_no_file_once_it_listens(files):
    code = """
import builtins, os
begun = False
def note(event, arguments):
    if begun and event in ("open", "os.mkdir", "os.remove", "os.rename", "subprocess.Popen", "socket.connect"):
        print(event, arguments[0], file=sys.stderr, flush=True)
sys.addaudithook(note)
shown = builtins.print
def print_and_begin(*arguments, **keywords):
    global begun
    shown(*arguments, **keywords)
    begun = True
builtins.print = print_and_begin
"""
    found = patient(code, files / "table.safetensors")
    with httpx.Client(base_url=f"http://127.0.0.1:{found.port}") as client:
        big = {"rows": [ROW] * 3000}
        assert client.post("/predict", json=big).status_code == 200  # in the thread for long work
        text = "area,town,built\n" + "70,Graz,2001-05-01\n" * 30
        assert client.post("/predict", content=text, headers=CSV).status_code == 200
        for path in ("/", "/health", "/metrics", "/openapi.json", "/no"):
            client.get(path)
        client.post("/predict", content=b"{")
    code, opened = found.stop()
    later = [line for line in opened.splitlines() if not re.search(r"\.py[c]?( |$)|/$|site-packages|lib/python", line)]
    assert (code, later) == (0, [])


# The command


def test_the_command_refuses_what_it_cannot_do(files, capsys, tmp_path):
    model = str(files / "table.safetensors")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, sentence in (
            ([model, "--port", str(port)], f"port {port} of 127.0.0.1 is in use."),
            ([model, "--host", "no.such.host.invalid"], "cannot listen at 'no.such.host.invalid', port 8000"),
            ([str(tmp_path / "none")], "No such file or directory"),
            ([model, "--port", "70000"], "argument --port: must be a whole number from 0 to 65535, got '70000'."),
            ([model, "--max-concurrency", "0"], "argument --max-concurrency: must be a whole number from 1"),
        ):
            with pytest.raises(SystemExit) as left:
                main(["serve", *arguments])
            assert left.value.code == 2
            error = capsys.readouterr().err
            assert error.startswith("nnx serve: ")
            assert sentence in error
            assert error.count("\n") == 1


def test_without_the_extra_the_command_says_how_to_get_it(files, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("nnx.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit) as left:
        main(["serve", str(files / "table.safetensors")])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said == "nnx serve: uvicorn is not installed. Install it with: python -m pip install 'nnx-core[serve]'.\n"


def test_it_listens_at_the_loopback_unless_told_otherwise(service):
    assert service.line == f"table.safetensors at http://127.0.0.1:{service.port} (Ctrl-C stops it)\n"
