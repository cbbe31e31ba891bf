"""What is read from disk and written to it: images, datasets, annotated scans.

It knows geometry, and nothing of networks or of how discs are found.
"""
