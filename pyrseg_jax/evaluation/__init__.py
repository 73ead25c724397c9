"""Prediction, metrics and the evaluation of a whole split. It never imports training."""
