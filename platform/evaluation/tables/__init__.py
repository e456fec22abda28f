"""Published tables with measured rows beside the quoted ones; Markdown, CSV, LaTeX and HTML."""
