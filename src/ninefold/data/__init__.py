"""The six kinds of data of the book's table 9.1, with axes, spacing and units; batches of different sizes."""

__all__: list[str] = []
