"""How good a result is: scores of one scan, tables of many.

It runs the labelling on annotated scans and compares; nothing else depends on it but the commands.
"""
