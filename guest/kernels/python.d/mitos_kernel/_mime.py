"""What a value looks like: its forms by MIME type."""

import base64
import json

from ._figure import figure_png, is_figure
from ._link import clean

MIME_METHODS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_pdf_": "application/pdf",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
    "_repr_javascript_": "application/javascript",
}


def as_text(value):
    """The string that stands for one form of a value on the wire."""
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, str):
        return clean(value)
    return json.dumps(value, default=repr)


def as_bundle(forms):
    """Forms by MIME type, as the wire carries them."""
    return {str(mime): as_text(form) for mime, form in forms.items() if form is not None}


def call_form(value, name, **arguments):
    """One of the `_repr_…_` methods; None when there is none, or when it fails."""
    if isinstance(value, type):
        return None
    try:
        method = getattr(value, name, None)
        form = method(**arguments) if callable(method) else None
    except Exception:
        return None
    return form[0] if isinstance(form, tuple) and form else form


def answers_anything(value):
    """True for proxies and mocks that have any attribute one asks for."""
    try:
        return hasattr(value, "_no_object_has_this_name_")
    except Exception:
        return True


def mime_bundle(value, text=None):
    bundle = {"text/plain": clean(repr(value)) if text is None else text}
    if answers_anything(value):
        return bundle
    for name, mime in MIME_METHODS.items():
        form = call_form(value, name)
        if isinstance(form, (str, bytes, bytearray, dict, list)):
            bundle[mime] = as_text(form)
    forms = call_form(value, "_repr_mimebundle_", include=None, exclude=None)
    if isinstance(forms, dict):
        bundle.update(as_bundle(forms))
    if "image/png" not in bundle and is_figure(value):
        bundle["image/png"] = as_text(figure_png(value))
    return bundle
