"""The page `/docs`, made from the OpenAPI document; it loads nothing, neither scripts nor fonts."""

from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
code, pre { font: 14px/1.5 ui-monospace, monospace } pre { overflow-x: auto; padding: .8rem; border: 1px solid #8886 }
table { border-collapse: collapse } td { padding: .2rem 1rem .2rem 0; vertical-align: top } td:first-child { white-space: nowrap }
h2 { margin-top: 2rem } h2 code { font-size: 1.1rem }
"""
_EXAMPLES = """curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' HOST/v1/segment -o labels.png
curl -F image=@photo.jpg 'HOST/v1/segment?format=json'
curl HOST/v1/model"""


def page_of(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document: every route with its parameters and answers."""
    parts = [f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"]
    parts += [
        f"<p>{escape(document['info']['description'])} <a href=openapi.json>openapi.json</a> says the same for programs.</p>"
    ]
    parts += [f"<pre>{escape(_EXAMPLES)}</pre>"]
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(about['summary'])}.</p>")
            rows = [(f"?{p['name']}=", p["description"]) for p in about.get("parameters", ())]
            rows += [("body", ", ".join(about["requestBody"]["content"]))] if "requestBody" in about else []
            rows += [(status, answer["description"]) for status, answer in about["responses"].items()]
            cells = (f"<tr><td><code>{escape(name)}</code><td>{escape(text).replace('`', '')}" for name, text in rows)
            parts.append(f"<table>{''.join(cells)}</table>")
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>pyrseg serve</title><style>{_STYLE}</style>"
    return f"{head}<body>{''.join(parts)}"
