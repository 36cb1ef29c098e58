"""Nodes that take no pods for a while."""

from contextlib import contextmanager


@contextmanager
def cordoned(env, nodes):
    try:
        env.k("cordon", *nodes)
        yield
    finally:
        env.k("uncordon", *nodes)
