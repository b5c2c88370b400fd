"""A figure as small as it can be inside a page: the same picture, without what nobody sees of a vector file."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from string import ascii_lowercase
from xml.sax.saxutils import escape

DECIMALS = 2
"""Of a point: a hundredth is less than can be seen."""

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_TRANSLATION = re.compile(r"translate\([^)]*\)")
_COORDINATES = ("d", "x", "y", "width", "height", "points", "cx", "cy", "r", "x1", "x2", "y1", "y2")


def compact(svg: bytes) -> str:
    """The SVG on one line: no metadata or comments, short names, every style once, coordinates rounded.

    Text drawn as shapes stays so; pictures inside it are kept.
    """
    root = ElementTree.fromstring(svg)
    return _Writer(_referenced(root)).document(root)


def as_address(svg: str) -> str:
    """The SVG as an address that needs no other file, without the third that base64 adds.

    It can stand between double quotes in HTML as it is.
    """
    for character, code in (("%", "%25"), ("#", "%23"), ('"', "%22"), ("&", "%26"), ("\n", " ")):
        svg = svg.replace(character, code)
    return f"data:image/svg+xml,{svg}"


def _referenced(root: ElementTree.Element) -> dict[str, str]:
    """The name of everything that something points to → a short one, in the order of first use."""
    names = _names()
    short: dict[str, str] = {}
    for element in root.iter():
        for key, value in element.attrib.items():
            pointed = _REFERENCE.findall(value)
            if key == _LINK and value.startswith("#"):
                pointed.append(value[1:])
            for name in pointed:
                if name not in short:
                    short[name] = next(names)
    return short


def _names() -> Iterator[str]:
    """a, b, …, z, aa, ab, …"""
    yield from ascii_lowercase
    for head in _names():
        for tail in ascii_lowercase:
            yield head + tail


@dataclass
class _Writer:
    """Writes elements as text; `ids` are those that are pointed to."""

    ids: dict[str, str]
    styles: dict[str, str] = field(default_factory=dict)

    def document(self, root: ElementTree.Element) -> str:
        shared = "".join(element.text or "" for element in root.iter(f"{_SVG}style"))
        drawn = "".join(map(self.element, root))
        rules = "".join(f".{name}{{{style}}}" for style, name in self.styles.items())
        about = {name: root.attrib[name] for name in ("width", "height", "viewBox") if name in root.attrib}
        head = "".join(f" {name}='{value}'" for name, value in about.items())
        return f"<svg xmlns='http://www.w3.org/2000/svg'{head}><style>{shared}{rules}</style>{drawn}</svg>"

    def element(self, element: ElementTree.Element) -> str:
        """One with everything in it; a group that says nothing is only what it holds."""
        tag = element.tag.removeprefix(_SVG)
        if tag in ("metadata", "style") or tag.endswith("}RDF"):
            return ""
        attributes = "".join(self._attributes(element))
        inside = escape((element.text or "").strip()) + "".join(map(self.element, element))
        if tag in ("g", "defs") and not (inside and (attributes or tag == "defs")):
            return inside
        end = f">{inside}</{tag}>" if inside else "/>"
        return f"<{tag}{attributes}{end}"

    def _attributes(self, element: ElementTree.Element) -> Iterator[str]:
        for key, value in element.attrib.items():
            if key == "id":
                if value in self.ids:
                    yield f" id='{self.ids[value]}'"
            elif key == "style":
                yield f" class='{self._style(value)}'"
            elif key == _LINK:
                yield f" href='{f'#{self.ids[value[1:]]}' if value.startswith('#') else value}'"
            elif not key.startswith("{"):
                yield f" {key}='{escape(self._value(key, value))}'"

    def _style(self, style: str) -> str:
        """The class of a style, which is written once."""
        rules = _REFERENCE.sub(lambda found: f"url(#{self.ids[found[1]]})", style)
        rules = rules.replace(": ", ":").replace("; ", ";")
        return self.styles.setdefault(rules, f"s{len(self.styles)}")

    def _value(self, key: str, value: str) -> str:
        if key == "d":
            return re.sub(r"\s*([A-Za-z])\s*", r"\1", _rounded(" ".join(value.split())))
        if key in _COORDINATES:
            return _rounded(value)
        if key == "transform":
            return _TRANSLATION.sub(lambda found: _rounded(found[0]), value)
        return _REFERENCE.sub(lambda found: f"url(#{self.ids[found[1]]})", value)


def _rounded(text: str) -> str:
    """Every number with a fraction, to so many decimals and without zeros at its end."""

    def short(found: re.Match[str]) -> str:
        number = f"{float(found[0]):.{DECIMALS}f}".rstrip("0").rstrip(".")
        return "0" if number == "-0" else number

    return _NUMBER.sub(short, text)
