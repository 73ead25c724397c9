"""One run: its configuration, the objects built from it, and its working directory."""
