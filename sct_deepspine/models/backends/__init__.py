"""What runs a trained network: torch or onnxruntime.

Each backend is imported only where it is used, so that the other need not be installed.
"""
