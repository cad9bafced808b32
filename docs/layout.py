"""Hook of the site: it takes the files as they lie in the repository, so that the links between them stay true."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig  # pyright: ignore[reportMissingImports]: of the extra docs
from mkdocs.structure.files import File, Files  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/*.md", "results/*.md", "embeddings_cache/*.md", "benchmarks/*.md")
ATTACHED = ("docs/*.png", "examples/*.py", "examples/*.ipynb", "CITATION.cff", "LICENSE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the theme's files with the repository's pages and the files that they link to."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    names = [str(path.relative_to(ROOT)) for pattern in (*PAGES, *ATTACHED) for path in sorted(ROOT.glob(pattern))]
    ours = [File(name, str(ROOT), config.site_dir, use_directory_urls=False, dest_uri=_place(name)) for name in names]
    return Files([*theme, *ours])


def _place(name: str) -> str | None:
    """Return where a page of docs/ lies in the site: at its top. The others keep their place."""
    return f"{Path(name).stem}.html" if name.startswith("docs/") and name.endswith(".md") else None
