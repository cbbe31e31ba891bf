"""Segmenting any kind of image by the encoder-decoder networks, and the three tasks they were published on.

Imports nothing by itself: reading, prediction and scores do without torch, training needs it.
"""
