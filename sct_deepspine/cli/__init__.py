"""The command lines. Each is ``get_parser()`` and ``main(argv)``.

They parse, call, print, and turn errors into one line; importing one imports nothing heavy.
"""
