"""Networks, what defines them, and what runs them.

It knows planes of pixels and raw maps; what the maps mean is for the packages that use a network.
"""
