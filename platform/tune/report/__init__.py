"""What a sweep found: ranking, paired differences, tables, plots, the HTML page."""
