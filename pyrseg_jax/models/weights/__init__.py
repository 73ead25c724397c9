"""Published weights: reading the files, and one importer per publisher layout."""
