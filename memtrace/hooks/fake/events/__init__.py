"""Storages of fake tensors: the source of events of a prediction."""
