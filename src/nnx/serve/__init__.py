"""A model behind HTTP: what `nnx serve` runs (docs/serve.md). It needs the extra ``nnx-core[serve]``.

`create_app` returns the ASGI application, for a server of your own.
"""

from nnx.serve.app import create_app
from nnx.serve.service import Service

__all__ = ["Service", "create_app"]
