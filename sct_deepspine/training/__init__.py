"""Making of scans and planes, and the training loop."""
