"""A model behind HTTP: what `nnx serve` runs (docs/guide/serve.md). It needs the extra ``nnx-core[serve]``.

`create_app` returns the ASGI application, for any ASGI server.
"""

try:
    from nnx.serve.app import create_app
    from nnx.serve.service import Service
except ModuleNotFoundError as error:
    sentence = f"nnx.serve: {error.name} is not installed. Install it with: python -m pip install 'nnx-core[serve]'"
    raise ModuleNotFoundError(sentence, name=error.name) from error

__all__ = ["Service", "create_app"]
