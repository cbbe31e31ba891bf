"""Scans that are made or changed with exact truth: phantoms, composites, perturbations.

It knows geometry and annotated scans; it needs neither torch nor trained networks.
"""
