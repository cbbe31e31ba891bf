"""Frames, grids, volumes, curves and planes, and the exact maps between them.

Everything here is numbers and their places: it knows neither files, nor networks, nor disc labels.
"""
