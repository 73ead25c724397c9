"""The report of a run: one self-contained HTML page. `build.py` is the door; `page.py` assembles what the others make."""
