"""The demo page: a static folder in which a browser runs a trained model."""
