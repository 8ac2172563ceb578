"""Faults that programs have: what is held, made or asked for needlessly, a fault a file, with what was measured."""
