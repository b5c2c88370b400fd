"""Pages of the site that no file holds: the README as its first, and one page of reference for every room."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import polymorph

ROOT = Path(__file__).parent.parent


def rooms() -> list[str]:
    return sorted(init.parent.name for init in (ROOT / "polymorph").glob("*/__init__.py"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the reference behind what mkdocs.yml lists."""
    pages = [{"polymorph": "api/index.md"}, *({room: f"api/{room}.md"} for room in rooms())]
    assert config.nav is not None
    config.nav.append({"Reference": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the pages."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    front = "# polymorph\n\n" + "\n".join(f"::: polymorph.{name}\n" for name in polymorph.__all__)
    made = {"index.md": re.sub(r"\]\(docs/", "](", readme), "api/index.md": front}
    made |= {f"api/{room}.md": f"# polymorph.{room}\n\n::: polymorph.{room}\n" for room in rooms()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files
