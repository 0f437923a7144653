"""Fold results to what people read; the only package that knows MLflow."""
