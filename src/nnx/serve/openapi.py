"""What a service says of itself: an OpenAPI description, and the same as a page without scripts.

Both are made once, from the model's columns and classes.
"""

from __future__ import annotations

import html
import shlex
from typing import Any

import orjson

from nnx.data.columns import Date, Number, Text
from nnx.data.images import Images
from nnx.data.tables import Table
from nnx.scoring.answers import as_csv
from nnx.serve.service import Service

#: Numbers of a row that examples show.
SHOWN = 8
#: Categories that the page shows of a column.
MOST_CATEGORIES = 30

ERRORS = {
    "400": "The body is no JSON or no CSV.",
    "408": "The request took too long to arrive.",
    "413": "The body is larger than the service takes.",
    "415": "The body is of another type.",
    "422": "The rows are not what the model takes.",
    "503": "Too many requests are waiting. Retry-After says after how many seconds to try again.",
}


def description(service: Service, version: str) -> dict[str, Any]:
    """Return the OpenAPI description of a service."""
    answers = {"description": "One prediction for each row.", "content": _answer(service)}
    responses: dict[str, Any] = {"200": answers}
    for status, text in ERRORS.items():
        responses[status] = {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}
    request: dict[str, Any] = {
        "type": "object",
        "properties": {"rows": {"type": "array", "minItems": 1, "items": _row(service)}},
        "required": ["rows"],
        "additionalProperties": False,
    }
    if isinstance(service.preprocessor, Table):
        names = [column.name for column in service.preprocessor.inputs]
        request["properties"]["columns"] = {
            "type": "array",
            "items": {"type": "string"},
            "description": f"What the values of rows that are lists are. Without it: {', '.join(names)}.",
        }
    predict = {
        "summary": "Predict one or more rows",
        "operationId": "predict",
        "requestBody": {
            "required": True,
            "content": {
                **_json({"$ref": "#/components/schemas/Request"}, example(service)),
                "text/csv": {"schema": {"type": "string"}, "example": example_csv(service)},
            },
        },
        "responses": responses,
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"nnx serve: {service.name}", "version": version, "description": about(service)},
        "paths": {
            "/predict": {"post": predict},
            "/health": {"get": _get("Whether the service answers", "health", _json({"type": "object"}))},
            "/metrics": {"get": _get("Figures for Prometheus", "metrics", {"text/plain": {"schema": TEXT}})},
        },
        "components": {
            "schemas": {
                "Request": request,
                "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
            }
        },
    }


TEXT = {"type": "string"}


def about(service: Service) -> str:
    """Return in a sentence what is predicted from what."""
    known = service.preprocessor
    if isinstance(known, Table):
        what = shown_target(known)
        return f"Predicts {what} from {len(known.inputs)} columns of a table."
    if isinstance(known, Images):
        return f"Tells apart {len(known.classes)} classes of images of {known.size()}."
    return f"Computes {service.n_outputs} numbers from {service.n_inputs}."


def shown_target(table: Table) -> str:
    """Return what a table's target is."""
    kind = "a number" if table.classes is None else f"one of {len(table.classes)} classes"
    return f"{table.target.name} ({kind})"


def _get(summary: str, name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": name,
        "responses": {"200": {"description": "It does.", "content": content}},
    }


def _json(schema: dict[str, Any], shown: Any = None) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **({} if shown is None else {"example": shown})}}


# What goes in


def _row(service: Service) -> dict[str, Any]:
    known = service.preprocessor
    if isinstance(known, Table):
        columns = {column.name: _column(column, service.unknown) for column in known.inputs}
        as_object = {"type": "object", "properties": columns, "required": list(columns)}
        as_list = {"type": "array", "description": "The values of the columns, in their order"}
        return {"anyOf": [as_object, as_list]}
    flat = {"type": "array", "items": {"type": "number"}, "minItems": service.n_inputs, "maxItems": service.n_inputs}
    if isinstance(known, Images):
        flat["description"] = f"The pixels of an image of {known.size()}, row by row, each from 0 to 255"
    return flat


def _column(column: Number | Text | Date, unknown: str) -> dict[str, Any]:
    """Return the schema of a column's values; null is a gap."""
    if isinstance(column, Number):
        like = f", or a text such as {column.notation.example()}"
        return {"type": ["number", "string", "null"], "description": f"A number{like}"}
    if isinstance(column, Date):
        return {"type": ["string", "null"], "description": f"A date such as {column.example}, or of ISO 8601"}
    if column.pooled or unknown == "missing" or column.as_code:
        return {"type": ["string", "number", "boolean", "null"], "examples": list(column.categories[:SHOWN])}
    return {
        "type": ["string", "number", "boolean", "null"],
        "description": f"One of {', '.join(column.categories[:MOST_CATEGORIES])}",
        "examples": list(column.categories[:SHOWN]),
    }


def example(service: Service) -> dict[str, Any]:
    """Return a body that the model answers."""
    known = service.preprocessor
    if isinstance(known, Table):
        return {"rows": [{column.name: _example(column) for column in known.inputs}]}
    return {"rows": [[0] * service.n_inputs]}


def example_csv(service: Service) -> str:
    """Return the same body as CSV."""
    rows = example(service)["rows"]
    if isinstance(rows[0], dict):
        assert isinstance(service.preprocessor, Table)
        return as_csv({name: [str(value)] for name, value in rows[0].items()}, service.preprocessor.header)
    return as_csv({f"input {i + 1}": [str(value)] for i, value in enumerate(rows[0])}, header=True)


def _example(column: Number | Text | Date) -> Any:
    if isinstance(column, Number):
        return float(f"{column.mean:.3g}")
    return column.example if isinstance(column, Date) else column.categories[0]


# What comes out


def _answer(service: Service) -> dict[str, Any]:
    prediction: dict[str, Any] = {"type": "number"}
    if service.classes is not None:
        prediction = {"type": "string", "enum": list(service.classes)}
    elif service.preprocessor is None:
        n = service.n_outputs
        prediction = {"type": "array", "items": {"type": "number"}, "minItems": n, "maxItems": n}
    properties: dict[str, Any] = {"predictions": {"type": "array", "items": prediction}}
    if service.gives_probabilities:
        of_one = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}}
        properties["probabilities"] = {"type": "array", "items": of_one}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {**_json(schema), "text/csv": {"schema": TEXT}}


# The page

#: What stands on the page for the address that it was asked at.
ADDRESS = "{ADDRESS}"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52em;margin:2em auto;padding:0 1em}"
    "pre{background:#f4f4f4;padding:.8em;overflow-x:auto}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#262626}a{color:#8bf}}"
)


def page(service: Service, version: str) -> bytes:
    """Return the page of a service, with ``ADDRESS`` where its own address belongs."""
    body = example(service)
    if service.n_inputs > SHOWN and not isinstance(service.preprocessor, Table):
        shown = '{"rows": [[0, 0, ...]]}'
    else:
        shown = orjson.dumps(body).decode()
    ask = shlex.join(["curl", "-H", "Content-Type: application/json", "-d", shown]) + f" {ADDRESS}/predict"
    parts = [
        f"<h1>{html.escape(service.name)}</h1><p>{html.escape(about(service))}</p>",
        f"<h2>Ask</h2><pre>{html.escape(ask)}</pre>",
        "<p>Or send a CSV file: <code>curl -H 'Content-Type: text/csv' --data-binary @rows.csv "
        f"{ADDRESS}/predict</code>."
        " The answer is CSV then, and JSON with <code>-H 'Accept: application/json'</code>.</p>",
        _columns_table(service),
        "<h2>Addresses</h2><ul><li><code>POST /predict</code></li>"
        '<li><a href="/health">/health</a></li><li><a href="/metrics">/metrics</a>: for Prometheus</li>'
        '<li><a href="/openapi.json">/openapi.json</a>: this page, for programs</li></ul>',
        f"<h2>Errors</h2><p>A refused request gets <code>{{&quot;error&quot;: ...}}</code>.</p>{_errors_table()}"
        f"<p>nnx {html.escape(version)}</p>",
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(service.name)}</title><style>{STYLE}</style>'
    text = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'
    return text.encode("utf-8", "replace")


def _columns_table(service: Service) -> str:
    known = service.preprocessor
    if isinstance(known, Table):
        rows = [(column.name, column.summary(), str(_example(column))) for column in known.inputs]
        cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        order = "A row that is a list has the values in this order. <code>null</code> is a missing value."
        return f"<h2>Columns</h2><p>{order}</p><table><tr><th>name<th>kind<th>example</tr>{cells}</table>"
    text = f"{service.n_inputs} numbers"
    if isinstance(known, Images):
        text = f"the pixels of an image of {known.size()}, row by row, each from 0 to 255: {text}"
    return f"<h2>Rows</h2><p>A row is {html.escape(text)}.</p>"


def _errors_table() -> str:
    rows = "".join(f"<tr><td>{status}<td>{html.escape(text)}</tr>" for status, text in ERRORS.items())
    return f"<table><tr><th>status<th>because</tr>{rows}</table>"
