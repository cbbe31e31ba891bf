"""What a person looks at: figures, pages, and files for other programs.

It knows results and images, and decides nothing about them.
"""
