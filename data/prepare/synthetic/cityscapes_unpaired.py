"""Cityscapes again: the unpaired data set is made of the same download."""

from data.prepare.synthetic.cityscapes import write

__all__ = ["write"]
