"""The report of a sweep: ranking, paired differences, tables, plots, Markdown and HTML."""
