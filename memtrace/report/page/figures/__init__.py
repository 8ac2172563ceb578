"""Figures of the pages, drawn by plotly."""
