"""MkDocs hook: the formulas of the pages, LaTeX between dollars, become MathML. Browsers draw it without any script or file."""

import html
import re
from typing import Any

from math_core import LatexError, LatexToMathML
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_CONVERTER = LatexToMathML(fancy_error=False)


def on_page_content(content: str, *, page: Any, **kwargs: Any) -> str:
    """Every formula of a page, which `pymdownx.arithmatex` has marked, as MathML; one that is no LaTeX ends the build."""

    def formula(found: re.Match[str]) -> str:
        # Where Markdown reads formulas it takes "<" for itself, and writes it as HTML does.
        latex = html.unescape(found[2]).strip()
        displayed = found[1] == "div"
        try:
            mathml = _CONVERTER.convert_with_local_state(latex, displaystyle=displayed)
        except LatexError as error:
            raise PluginError(f"{page.file.src_uri}: {latex} is no formula: {error}") from error
        return f'<div class="formula">{mathml}</div>' if displayed else mathml

    return _FORMULA.sub(formula, content)
