"""Names of nnx become links: those in backticks in docstrings, and those in code font on Markdown pages."""

from __future__ import annotations

import inspect
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

#: What may be a name, perhaps with a call's arguments behind it.
NAME = re.compile(r"(?:nnx\.)?([A-Za-z_]\w*(?:\.\w+)*)(?:\(.*\))?")

#: Where a name that stands alone is looked for.
SCOPES = ("nnx.", "nnx.plot.", "nnx.sklearn.", "nnx.serve.", "nnx.tabular.", "")


def found(domain: PythonDomain, text: str) -> tuple[str, str, str] | None:
    """Return the full name of what a text names, its page and its place there."""
    match = NAME.fullmatch(text)
    if match is None:
        return None
    for scope in SCOPES:
        name = scope + match[1]
        if name in domain.objects and name.startswith("nnx."):
            entry = domain.objects[name]
            return name, entry.docname, entry.node_id
    return None


def resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: Any) -> Any:
    """Answer for names in backticks that Sphinx has not found: by nnx's own, or as code without a link."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    content = nodes.literal(content.astext(), content.astext())
    place = found(env.domains.python_domain, node["reftarget"])
    if place is None:
        return content
    name, page, anchor = place
    return make_refnode(app.builder, node["refdoc"], page, anchor, content, name)


class LinkedNames(SphinxPostTransform):
    """Make links of the code on Markdown pages that is a name of nnx's and nothing else."""

    default_priority = 200
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Go through the page."""
        page = self.env.docname
        if page.startswith(("reference/api/", "gallery/")):
            return  # docstrings say themselves what is to be a link
        domain = self.env.domains.python_domain
        for literal in list(self.document.findall(nodes.literal)):
            place = found(domain, literal.astext())
            inside = literal.parent
            while inside is not None and not isinstance(inside, (nodes.reference, nodes.title)):
                inside = inside.parent
            if place is None or inside is not None or "." not in place[0]:
                continue
            name, target, anchor = place
            literal.replace_self(make_refnode(self.app.builder, page, target, anchor, literal.deepcopy(), name))


def also_at_the_top(app: Sphinx, document: nodes.document) -> None:
    """Let what has its page in a module be found at ``nnx.`` too: there, pages of sources look for it."""
    for signature in document.findall(addnodes.desc_signature):
        place = f"nnx.{signature.get('fullname')}"
        if signature.get("module", "").startswith("nnx.") and place not in document.ids:
            signature["ids"].append(place)


def of_nnx(app: Sphinx, kind: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a class inherits from other libraries."""
    member = getattr(member, "fget", None) or getattr(member, "__func__", member)
    module = getattr(member, "__module__", None)
    if isinstance(module, str) and callable(member) and not module.startswith("nnx"):
        return True
    return None


def of_init(app: Sphinx, kind: str, name: str, thing: Any, *rest: Any) -> tuple[str, str] | None:
    """Show what ``__init__`` takes where ``__new__`` takes anything."""
    if kind == "class" and "__new__" in vars(thing) and "__init__" in vars(thing):
        arguments = list(inspect.signature(thing.__init__).parameters.values())[1:]
        plain = [each.replace(annotation=inspect.Parameter.empty) for each in arguments]
        return str(inspect.Signature(plain)), ""
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Enter all of it."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-signature", of_init)
    app.connect("doctree-read", also_at_the_top)
    app.connect("autodoc-skip-member", of_nnx)
    app.add_post_transform(LinkedNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
