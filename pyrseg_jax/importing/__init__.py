"""Read the annotations that label tools export, and write them as a data set in the folder layout."""
